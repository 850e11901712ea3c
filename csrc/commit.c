/* SPDX-License-Identifier: Apache-2.0 */
/**
 * commit.c - output commit
 */
#include "policy.h"
#include "session.h"

/* ---- memory ---- */

static uint32_t births_of(uint32_t flow_cap)
{
	return min_u32(COMMIT_BIRTHS, flow_cap);
}

static uint32_t buckets_of(uint32_t flow_cap)
{
	uint32_t n = 1;

	while (n < births_of(flow_cap))
		n *= 2;
	return n;
}

static size_t lines(size_t bytes)
{
	return (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

static size_t births_size(uint32_t flow_cap)
{
	return lines(births_of(flow_cap) * sizeof(struct birth));
}

static size_t buckets_size(uint32_t flow_cap)
{
	return lines(buckets_of(flow_cap) * sizeof(uint16_t));
}

size_t commit_mem_size(const struct fp_config *cfg, uint32_t flow_cap)
{
	return births_size(flow_cap) + buckets_size(flow_cap) + hold_mem_size(cfg);
}

/* Forget all births; what they hold has gone. */
static void reset(struct commit *m)
{
	memset(m->buckets, 0xff, m->n_buckets * sizeof(*m->buckets));
	for (uint32_t i = 0; i < m->cap; i++)
		m->births[i] = (struct birth){ .chain = (uint16_t)(i + 1 < m->cap ? i + 1 : COMMIT_NONE) };
	m->unused = 0;
	m->told = (struct commit_queue){ COMMIT_NONE, COMMIT_NONE };
	for (uint32_t mode = 0; mode < COMMIT_MODES; mode++)
		m->timed[mode] = (struct commit_queue){ COMMIT_NONE, COMMIT_NONE };
	m->n = m->n_untold = 0;
	counter_set(&m->pending, 0);
	counter_set(&m->holding, 0);
}

void commit_init(struct commit *m, void *mem, const struct fp_config *cfg, uint32_t flow_cap)
{
	uint8_t *base = mem;

	*m = (struct commit){ .cap = births_of(flow_cap), .n_buckets = buckets_of(flow_cap) };
	m->births = (struct birth *)(void *)base;
	m->buckets = (uint16_t *)(void *)(base + births_size(flow_cap));
	m->each = max_u32(cfg->sync.hold_frames / HOLD_EACH_SHARE, 1);
	hold_init(&m->hold, base + births_size(flow_cap) + buckets_size(flow_cap), cfg);
	reset(m);
}

/* ---- the table of births ---- */

static uint16_t *bucket_of(struct commit *m, uint32_t idx)
{
	return &m->buckets[idx & (m->n_buckets - 1)];
}

static struct birth *find(const struct commit *m, uint32_t idx)
{
	uint16_t at = m->buckets[idx & (m->n_buckets - 1)];

	while (at != COMMIT_NONE && m->births[at].idx != idx)
		at = m->births[at].chain;
	return at == COMMIT_NONE ? NULL : &m->births[at];
}

static uint16_t place_of(const struct commit *m, const struct birth *b)
{
	return (uint16_t)(b - m->births);
}

/* There is a place. */
static struct birth *add(struct commit *m, uint32_t idx)
{
	struct birth *b = &m->births[m->unused];
	uint16_t *bucket = bucket_of(m, idx);

	m->unused = b->chain;
	*b = (struct birth){ .idx = idx, .chain = *bucket };
	*bucket = place_of(m, b);
	m->n_untold++;
	counter_set(&m->pending, ++m->n);
	return b;
}

/* Nobody finds it under its record any more. */
static void take_out(struct commit *m, struct birth *b)
{
	uint16_t *link = bucket_of(m, b->idx);

	if (b->idx == FLOW_NONE)
		return;
	while (*link != place_of(m, b))
		link = &m->births[*link].chain;
	*link = b->chain;
	b->idx = FLOW_NONE;
}

/* It stands in no queue. */
static void free_birth(struct commit *m, struct birth *b)
{
	take_out(m, b);
	b->chain = m->unused;
	m->unused = place_of(m, b);
	counter_set(&m->pending, --m->n);
}

/* ---- deadlines ---- */

static void start_time(struct commit *m, struct birth *b, uint64_t now_ns)
{
	struct commit_queue *q = &m->timed[b->mode];

	b->since_ns = now_ns;
	b->timed = true;
	b->before = q->tail;
	b->behind = COMMIT_NONE;
	*(q->tail == COMMIT_NONE ? &q->head : &m->births[q->tail].behind) = place_of(m, b);
	q->tail = place_of(m, b);
}

static void stop_time(struct commit *m, struct birth *b)
{
	struct commit_queue *q = &m->timed[b->mode];

	if (!b->timed)
		return;
	*(b->before == COMMIT_NONE ? &q->head : &m->births[b->before].behind) = b->behind;
	*(b->behind == COMMIT_NONE ? &q->tail : &m->births[b->behind].before) = b->before;
	b->timed = false;
}

static uint64_t patience_ns(const struct core *c, uint32_t mode)
{
	return mode == FP_COMMIT_STRICT ? COMMIT_STRICT_S * NS_PER_S : c->cfg->sync.hold_ms * NS_PER_MS;
}

/* The first of a queue whose time is up, or NULL. */
static struct birth *overdue(struct core *c, uint32_t mode)
{
	struct commit *m = &c->commit;
	const uint16_t at = m->timed[mode].head;

	if (at == COMMIT_NONE || m->births[at].since_ns + patience_ns(c, mode) > c->now_ns)
		return NULL;
	return &m->births[at];
}

/* The peer has caught up, and nobody is born by whom it could prove to be fast: it is believed after a while. */
static bool is_quiet(const struct commit *m)
{
	return m->is_degraded && !m->n;
}

static uint64_t quiet_ends(const struct commit *m)
{
	return m->bad_ns + (uint64_t)COMMIT_QUIET_MS * NS_PER_MS;
}

uint64_t commit_deadline(const struct core *c)
{
	const struct commit *m = &c->commit;
	uint64_t first = is_quiet(m) ? quiet_ends(m) : UINT64_MAX;

	for (uint32_t mode = 0; mode < COMMIT_MODES; mode++) {
		const uint16_t at = m->timed[mode].head;
		uint64_t due;

		if (at == COMMIT_NONE)
			continue;
		due = m->births[at].since_ns + patience_ns(c, mode);
		first = min_u64(first, due);
	}
	return first;
}

/* ---- degraded ---- */

static void set_degraded(struct commit *m, bool degraded)
{
	if (degraded && !m->is_degraded)
		counter_add(&m->degradations, 1);
	m->is_degraded = degraded;
	counter_set(&m->degraded, degraded);
}

/* A session was let go. One hiccup of the peer exposes those whom it met, and nobody who comes after it. */
static void judge_late(struct commit *m, uint64_t now_ns)
{
	m->bad_ns = now_ns;
	if (!m->late_ns)
		m->late_ns = now_ns;
	else if (now_ns - m->late_ns >= COMMIT_DEGRADE_MS * NS_PER_MS)
		set_degraded(m, true);
}

/* A lag was measured: it must have been short for a while, or the two states would take turns. */
static void judge_lag(struct core *c, uint64_t lag_ns)
{
	struct commit *m = &c->commit;

	if (lag_ns < c->cfg->sync.hold_ms * NS_PER_MS)
		m->late_ns = 0;
	if (!m->is_degraded)
		return;
	if (lag_ns >= c->cfg->sync.hold_ms * NS_PER_MS / 2)
		m->bad_ns = c->now_ns;
	else if (c->now_ns - m->bad_ns >= COMMIT_RECOVER_MS * NS_PER_MS)
		set_degraded(m, false);
}

/* ---- holding and letting go ---- */

static void set_holds(struct core *c, struct birth *b, bool holds)
{
	struct flow_hot *f = &c->table.rec[b->idx].hot;
	struct commit *m = &c->commit;

	b->holds = holds;
	f->flags = (uint8_t)(holds ? f->flags | FP_RF_HELD : f->flags & ~FP_RF_HELD);
	counter_set(&m->holding, counter_read(&m->holding) + (holds ? 1 : UINT64_MAX));
}

/* Its packets may go; @why counts them. */
static void let_go(struct core *c, struct birth *b, counter *why)
{
	if (!b->holds)
		return;
	stop_time(&c->commit, b);
	set_holds(c, b, false);
	counter_add(why, hold_release(&c->commit.hold, &b->frames));
}

static void drop_frames(struct core *c, struct birth *b)
{
	const uint32_t n = hold_drop(&c->commit.hold, &b->frames);

	stop_time(&c->commit, b);
	counter_add(&c->verdicts[V_HOLD_DROPPED], n);
	counter_add(&c->commit.dropped, n);
}

/* The first of our sessions that the peer has not acknowledged. */
static uint64_t first_unacked(const struct core *c)
{
	const struct commit *m = &c->commit;
	uint64_t first = session_next_id(c);

	if (m->missed.until)
		first = m->missed.from;
	for (uint32_t i = 0; i < m->cap && m->n; i++) {
		if (m->births[i].id && m->births[i].idx != FLOW_NONE)
			first = min_u64(first, m->births[i].id);
	}
	return first;
}

void commit_nobody(struct core *c)
{
	commit_set(c, false);
	c->commit.unknown_id = 0;
}

void commit_set(struct core *c, bool on)
{
	struct commit *m = &c->commit;

	if (on == m->on)
		return;
	if (!on)
		m->unknown_id = first_unacked(c);
	m->missed.from = m->missed.until = m->missed.ev_seq = 0;
	m->on = on;
	m->late_ns = 0;
	set_degraded(m, false);
	for (uint32_t i = 0; i < m->cap; i++)
		let_go(c, &m->births[i], &m->released);
	reset(m);
}

void commit_clear(struct core *c, uint32_t verdict)
{
	struct commit *m = &c->commit;
	uint32_t n = hold_drop(&m->hold, &m->hold.ready);

	for (uint32_t i = 0; i < m->cap; i++) {
		if (!m->births[i].holds)
			continue;
		n += hold_drop(&m->hold, &m->births[i].frames);
		let_go(c, &m->births[i], &m->released);
	}
	counter_add(&c->verdicts[verdict], n);
	commit_set(c, false);
}

/* ---- birth ---- */

/* The rule of a record that is used again may be of an older policy, until the review has been there. */
static uint32_t mode_of(const struct core *c, const struct flow_hot *f)
{
	const uint32_t mode = session_sync_rule(c, f->rule).commit;

	return mode == FP_COMMIT_DEFAULT ? c->cfg->sync.commit : mode;
}

bool commit_refuses(const struct core *c, const struct flow_hot *f)
{
	const struct commit *m = &c->commit;

	return unlikely(m->n == m->cap) && m->on && session_is_told_at_birth(c, f) &&
	       mode_of(c, f) == FP_COMMIT_STRICT;
}

static void note_missed(struct commit *m, uint64_t id)
{
	if (!m->missed.until)
		m->missed.from = id;
	m->missed.until = id;
	m->missed.ev_seq = 0;
}

void commit_born(struct core *c, uint32_t idx, const struct pkt *p)
{
	struct commit *m = &c->commit;
	const uint32_t mode = mode_of(c, &c->table.rec[idx].hot);
	const bool wanted = mode != FP_COMMIT_ASYNC;
	/* Of a shard that is lost nothing is told before a sweep. */
	bool holds = mode == FP_COMMIT_STRICT || (wanted && !m->is_degraded && session_is_told(c, idx) &&
						  hold_has_room(&m->hold, p->frame->len));
	struct birth *b = NULL;

	if (!m->on)
		return;
	if (m->n < (holds ? m->cap : m->cap / 2))
		b = add(m, idx);
	holds = holds && b;
	if (wanted && !holds)
		counter_add(&m->unheld, 1);
	if (!b) {
		note_missed(m, c->table.link[idx].id);
		return;
	}
	b->id = c->table.link[idx].id;
	b->born_ns = c->now_ns;
	b->mode = (uint8_t)mode;
	if (!holds)
		return;
	set_holds(c, b, true);
	if (mode == FP_COMMIT_BOUNDED)
		start_time(m, b, c->now_ns);
}

uint32_t commit_hold(struct core *c, struct fp_frame *frame, uint32_t idx)
{
	struct commit *m = &c->commit;
	struct birth *b = find(m, idx);

	FP_ASSERT(b && b->holds);
	if (b->frames.n >= m->each || !hold_put(&m->hold, &b->frames, frame, c->now_ns)) {
		counter_add(&m->full, 1);
		return V_HOLD_FULL;
	}
	if (!b->timed)
		start_time(m, b, c->now_ns);
	frame->out = FP_OUT_WAIT;
	return V_HELD;
}

/* ---- what is told, and acknowledged ---- */

static bool is_ours(const struct core *c, uint32_t idx)
{
	return c->table.rec[idx].cold.origin == c->cfg->origin;
}

void commit_told(struct core *c, uint32_t idx, uint64_t ev_seq)
{
	struct commit *m = &c->commit;
	struct birth *b = m->n ? find(m, idx) : NULL;
	struct commit_queue *q = &m->told;

	if (unlikely(m->missed.until) && !m->missed.ev_seq && is_ours(c, idx) &&
	    c->table.link[idx].id >= m->missed.until)
		m->missed.ev_seq = ev_seq;
	if (!b || b->id != c->table.link[idx].id)
		return;
	b->again = ev_seq;
	if (b->ev_seq)
		return;
	b->ev_seq = ev_seq;
	b->refused = false;
	b->later = COMMIT_NONE;
	*(q->tail == COMMIT_NONE ? &q->head : &m->births[q->tail].later) = place_of(m, b);
	q->tail = place_of(m, b);
	m->n_untold--;
}

void commit_acked(struct core *c, uint64_t ev_seq)
{
	struct commit *m = &c->commit;
	struct commit_queue *q = &m->told;

	while (q->head != COMMIT_NONE && m->births[q->head].ev_seq <= ev_seq) {
		struct birth *b = &m->births[q->head];

		q->head = b->later;
		if (q->head == COMMIT_NONE)
			q->tail = COMMIT_NONE;
		if (b->refused && b->holds) { /* as if it had never been told */
			b->ev_seq = 0;
			m->n_untold++;
			continue;
		}
		if (!b->refused) {
			lag_count(&m->lag, c->now_ns - b->born_ns);
			judge_lag(c, c->now_ns - b->born_ns);
		}
		let_go(c, b, &m->released);
		free_birth(m, b);
	}
	if (unlikely(m->missed.ev_seq) && ev_seq >= m->missed.ev_seq)
		m->missed.from = m->missed.until = m->missed.ev_seq = 0;
}

void commit_refused(struct core *c, uint32_t idx, uint64_t ev_seq)
{
	struct birth *b = c->commit.n ? find(&c->commit, idx) : NULL;

	if (!b || !b->ev_seq)
		return;
	if (ev_seq >= b->again)
		b->refused = true;
	else if (ev_seq >=
		 b->ev_seq) /* it was told anew meanwhile; who is behind it in the queue waits, too */
		b->ev_seq = b->again;
}

void commit_due(struct core *c, uint64_t now_ns)
{
	struct commit *m = &c->commit;
	struct birth *b;

	c->now_ns = now_ns;
	while ((b = overdue(c, FP_COMMIT_BOUNDED))) {
		let_go(c, b, &m->expired);
		judge_late(m, now_ns);
		if (b->refused && !b->ev_seq) { /* it may never be told again, and its place is wanted */
			m->n_untold--;
			free_birth(m, b);
		}
	}
	while ((b = overdue(c, FP_COMMIT_STRICT)))
		drop_frames(c, b);
	if (unlikely(is_quiet(m)) && now_ns >= quiet_ends(m)) {
		m->late_ns = 0;
		set_degraded(m, false);
	}
}

void commit_forget(struct core *c, uint32_t idx)
{
	struct commit *m = &c->commit;
	struct birth *b = m->n ? find(m, idx) : NULL;

	if (!b)
		return;
	if (b->holds) {
		drop_frames(c, b);
		set_holds(c, b, false);
	}
	if (b->ev_seq) { /* its lag is as good as any other's */
		take_out(m, b);
		return;
	}
	m->n_untold--;
	free_birth(m, b);
}

bool commit_is_unacked(const struct core *c, uint32_t idx)
{
	const struct commit *m = &c->commit;
	const uint64_t id = c->table.link[idx].id;

	if (!m->on)
		return !m->unknown_id || (is_ours(c, idx) && id >= m->unknown_id);
	return (m->n && find(m, idx)) ||
	       (m->missed.until && is_ours(c, idx) && id >= m->missed.from && id <= m->missed.until);
}

void commit_stats_read(const struct commit *m, struct fp_sync_stats *out)
{
	out->held_frames = counter_read(&m->hold.n);
	out->held_bytes = counter_read(&m->hold.bytes);
	out->held_sessions = counter_read(&m->holding);
	out->unacked_sessions = counter_read(&m->pending);
	out->degraded = counter_read(&m->degraded);
	out->hold_released = counter_read(&m->released);
	out->hold_expired = counter_read(&m->expired);
	out->hold_full = counter_read(&m->full);
	out->hold_dropped = counter_read(&m->dropped);
	out->hold_unheld = counter_read(&m->unheld);
	out->degraded_times = counter_read(&m->degradations);
	for (uint32_t i = 0; i < FP_LAG_BUCKETS; i++) {
		out->lag[i] = counter_read(&m->lag.count[i]);
		out->hold[i] = counter_read(&m->held_for.count[i]);
	}
}

/* ---- frames that may go ---- */

bool commit_pop(struct core *c, struct fp_frame *out)
{
	uint64_t at_ns;

	if (!hold_pop(&c->commit.hold, out, &at_ns))
		return false;
	lag_count(&c->commit.held_for, c->now_ns - at_ns);
	return true;
}
