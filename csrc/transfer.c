/* SPDX-License-Identifier: Apache-2.0 */
/**
 * transfer.c - records to the other node; import.c takes them there
 *
 * Theory of operation
 *   A change queues the record's index, once (changes.h); draining tells what the record is by then:
 *
 *     the peer                      what it is told
 *     does not know it              OPEN: tuple, translation, state
 *     knows it, it has changed      STATE: version, state, flags
 *     knows it, it has gone         DELETE. A tombstone in the same queue, so the order of events is kept: whoever
 *                                   reuses an endpoint of a deleted record is queued behind it
 *     knows it, a TCP connection    REST: state, windows, counters, remaining time; lazy_ms after its first words, or
 *     that is still open            after a change that could wait
 *     knows it, it had traffic, or  REST; now and then (tour.h)
 *     was told of it by a sweep
 *
 *   A record that was never told needs no delete. One whose rule has changed is told anew.
 *
 *   Windows wait, for most connections are short: of one that has ended when its time comes the end is told, as
 *   if they had not been waiting.
 *
 *   A sweep tells all records of some shards; a bulk is a sweep of all of them. It begins with FP_OP_SWEEP and a new
 *   epoch (digest.h), in which the peer knows nothing of them; then a walk tells what is not queued anyway, when no
 *   change is waiting, and FP_OP_SWEPT says that it is through. A shard that is lost meanwhile is left out: the
 *   peer must not forget what this sweep has not told it of.
 *
 *   FP_OP_DIGEST comes when everything is told, the lazy changes too, and with it the digests of that very point.
 */
#include <errno.h>

#include "digest.h"
#include "session.h"
#include "tcptrack.h"
#include "transfer.h"

enum {
	PREFETCH = 8,
	POPS = 1024,             /* entries taken from the queues in one call, stale ones included */
	WALK_SLOTS = 4096,       /* looked at in one call for people: they may be empty, and packets wait */
	STRANDED_SLOTS = 1 << 16 /* ... and while no packet has to be forwarded */
};

/* ---- records ---- */

static uint32_t remaining_ms(const struct core *c, const struct flow_hot *f)
{
	uint64_t due_ns = (uint64_t)session_deadline(c, f) << WHEEL_TICK_SHIFT;

	return due_ns > c->now_ns ? (uint32_t)((due_ns - c->now_ns) / NS_PER_MS) : 0;
}

static void export_windows(const struct flow_cold *cold, struct fp_flow_rec *out)
{
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		out->win[side].end = cold->end[side];
		out->win[side].max_end = cold->max_end[side];
		out->win[side].max_win = cold->max_win[side];
		out->win[side].scale = tcptrack_scale(cold, side);
		out->win[side].flags = cold->wflags[side] &
				       (TCP_WIN_SCALE_KNOWN | TCP_WIN_SACK | TCP_WIN_SYN);
		out->packets[side] = cold->packets[side];
		out->bytes[side] = cold->bytes[side];
	}
}

/* All of it: what is sent of it depends on the op (cols.c). */
static void export_record(const struct core *c, uint32_t idx, enum fp_op op, struct fp_flow_rec *out)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	const struct flow_cold *cold = &c->table.rec[idx].cold;

	memset(out, 0, sizeof(*out));
	out->id = c->table.link[idx].id;
	out->origin = cold->origin;
	out->op = (uint8_t)op;
	out->form = f->form;
	out->proto = f->proto;
	out->state = f->state;
	out->flags = f->flags;
	out->shard = cold->shard;
	out->version = f->version;
	out->remaining_ms = op == FP_OP_DELETE ? 0 : remaining_ms(c, f);
	out->inside = f->inside;
	out->remote = f->remote;
	out->external = f->pool == POOL_NONE ? f->inside : c->cfg->pools[f->pool].addr;
	out->inside_port = f->inside_port.raw;
	out->remote_port = f->remote_port.raw;
	out->external_port = f->external_port.raw;
	out->in_port = f->zones >> 4;
	out->out_port = f->zones & 0xf;
	out->pool = f->pool;
	out->rule = f->rule;
	out->has = (uint32_t)fp_cols_of(op, false);
	export_windows(cold, out);
}

/* The delete of a tombstone was told by event @ev_seq; its identity is not needed any more. */
static void dig_grave(struct core *c, uint32_t idx, uint64_t ev_seq)
{
	struct changes *ch = &c->changes;

	c->table.link[idx].id = ev_seq;
	c->table.link[idx].wheel_next = FLOW_NONE;
	if (ch->grave_first)
		c->table.link[ch->grave_last].wheel_next = idx;
	else
		ch->grave_first = idx;
	ch->grave_last = idx;
}

void transfer_tell(struct core *c, uint32_t idx, enum fp_op op, struct fp_flow_rec *out)
{
	export_record(c, idx, op, out);
	out->flags &= FLOW_FLAGS_TOLD;
	out->ev_seq = ++c->changes.ev_seq;
	counter_add(&c->stat.told[op], 1);
	if (op == FP_OP_DELETE)
		dig_grave(c, idx, out->ev_seq);
	else if (op != FP_OP_REST || c->table.rec[idx].cold.dirty)
		digest_enter(c, idx);
	if (op == FP_OP_OPEN) {
		c->table.rec[idx].cold.refused = 0;
		commit_told(c, idx, out->ev_seq);
	}
}

static void mark(struct core *c, enum fp_op op, struct fp_flow_rec *out)
{
	*out = (struct fp_flow_rec){ .op = (uint8_t)op, .ev_seq = ++c->changes.ev_seq };
}

static bool is_live(const struct core *c, uint32_t idx)
{
	return c->table.rec[idx].hot.kind == REC_FLOW;
}

/* ---- the queues ---- */

/* Has it windows that somebody may need? */
static bool is_open_tcp(const struct flow_hot *f)
{
	return f->proto == IPPROTO_NUM_TCP && f->state >= FP_ST_ESTABLISHED && !tcptrack_is_over(f);
}

/* Tell what was queued, if it still is worth it. Return: records written to @out, 0 or 1. */
static uint32_t tell_change(struct core *c, uint32_t idx, struct fp_flow_rec *out)
{
	const struct flow_rec *rec = &c->table.rec[idx];

	if (rec->hot.kind == REC_FREE)
		return 0; /* its tombstone was given up, or it was never told */
	if (rec->hot.kind == REC_TOMB) {
		transfer_tell(c, idx, FP_OP_DELETE, out);
		return 1;
	}
	/* The place in the queue may be an earlier session's. */
	if (!rec->cold.dirty || !session_is_told(c, idx))
		return 0;
	transfer_tell(c, idx, digest_knows(c, idx) ? FP_OP_STATE : FP_OP_OPEN, out);
	/* Its windows follow, unless it ends before. Without room for them the tour comes by. */
	if (is_open_tcp(&rec->hot))
		session_put_off(c, idx);
	return 1;
}

static void count_queued(struct core *c)
{
	counter_set(&c->stat.dirty, changes_pending(&c->changes));
	counter_set(&c->stat.lazy, c->changes.n_lazy);
}

static uint32_t drain_urgent(struct core *c, struct fp_flow_rec *out, uint32_t cap)
{
	struct changes *ch = &c->changes;
	uint32_t n = 0;

	for (uint32_t i = 0; i < POPS && n < cap && ch->n_dirty; i++) {
		const uint32_t idx = changes_pop(ch);

		c->table.rec[idx].cold.admin &= (uint8_t)~ADMIN_QUEUED;
		n += tell_change(c, idx, &out[n]);
	}
	return n;
}

/* As tell_change(), with all that may have waited. */
static uint32_t tell_lazy(struct core *c, uint32_t idx, struct fp_flow_rec *out)
{
	/* A tombstone has been queued as urgent, or told already. */
	if (!is_live(c, idx) || c->table.rec[idx].cold.admin & ADMIN_QUEUED)
		return 0;
	if (!is_open_tcp(&c->table.rec[idx].hot) || !digest_knows(c, idx) || !session_is_told(c, idx))
		return tell_change(c, idx, out);
	transfer_tell(c, idx, FP_OP_REST, out);
	return 1;
}

static uint32_t drain_lazy(struct core *c, struct fp_flow_rec *out, uint32_t cap)
{
	const uint32_t now_ms = (uint32_t)(c->now_ns / NS_PER_MS);
	struct changes *ch = &c->changes;
	uint32_t n = 0;

	for (uint32_t i = 0; i < POPS && n < cap && ch->n_lazy; i++) {
		uint32_t idx;

		if (!ch->digest_asked && changes_wait_ms(ch, now_ms, 1) > 0)
			break;
		idx = changes_pop_lazy(ch);
		c->table.rec[idx].cold.admin &= (uint8_t)~ADMIN_LAZY;
		n += tell_lazy(c, idx, &out[n]);
	}
	return n;
}

static void free_tomb(struct core *c, uint32_t idx)
{
	record_release(c, idx);
	counter_set(&c->stat.tombstones, --c->changes.n_tombs);
}

void core_ack(struct core *c, uint64_t ev_seq)
{
	struct changes *ch = &c->changes;

	while (ch->grave_first && c->table.link[ch->grave_first].id <= ev_seq) {
		uint32_t idx = ch->grave_first;

		ch->grave_first = c->table.link[idx].wheel_next;
		free_tomb(c, idx);
	}
	ch->tombs_ns = c->now_ns;
	commit_acked(c, ev_seq);
}

void core_forget_changes(struct core *c)
{
	struct changes *ch = &c->changes;

	core_ack(c, UINT64_MAX);
	while (ch->n_lazy)
		c->table.rec[changes_pop_lazy(ch)].cold.admin &= (uint8_t)~ADMIN_LAZY;
	while (ch->n_dirty) {
		const uint32_t idx = changes_pop(ch);

		c->table.rec[idx].cold.admin &= (uint8_t)~ADMIN_QUEUED;
		if (c->table.rec[idx].hot.kind == REC_TOMB)
			free_tomb(c, idx);
	}
	ch->asked = ch->sweeping = ch->digest_asked = false;
	ch->sweep_asked = ch->sweep = ch->lost = 0;
	counter_set(&c->stat.lost_shards, 0);
	count_queued(c);
}

void core_track(struct core *c, bool on)
{
	if (c->changes.track == on)
		return;
	commit_nobody(c); /* nobody will acknowledge anything */
	core_forget_changes(c);
	digest_forget(c, UINT64_MAX);
	c->changes.track = on;
}

/* ---- sweeps ---- */

void core_sweep_start(struct core *c, uint64_t shards)
{
	core_track(c, true);
	c->changes.sweep_asked |= shards & digest_own(c);
	c->changes.sweep_no++;
	c->changes.asked = true;
}

/* From here on, in the stream of events as in the epochs, the peer knows nothing of these shards. */
static void begin_sweep(struct core *c, struct fp_flow_rec *out)
{
	struct changes *ch = &c->changes;

	digest_forget(c, ch->sweep_asked);
	mark(c, FP_OP_SWEEP, out);
	out->id = ch->sweep_asked;
	out->version = ch->sweep_no;
	ch->sweep_ev = out->ev_seq;
	ch->lost &= ~ch->sweep_asked;
	ch->sweep |= ch->sweep_asked;
	ch->sweep_asked = 0;
	ch->asked = false;
	ch->sweeping = true;
	ch->sweep_slot = 1;
	counter_set(&c->stat.lost_shards, ch->lost);
}

static bool wants_sweep(const struct core *c, uint32_t idx)
{
	return is_live(c, idx) && c->changes.sweep & shard_bit(c->table.rec[idx].cold.shard) &&
	       !digest_knows(c, idx) && session_is_told(c, idx);
}

static uint32_t drain_sweep(struct core *c, struct fp_flow_rec *out, uint32_t cap, uint32_t slots)
{
	struct changes *ch = &c->changes;
	uint32_t n = 0;

	for (; n < cap && slots && ch->sweep_slot <= c->table.n_fresh; ch->sweep_slot++, slots--) {
		transfer_prefetch(c, ch->sweep_slot + PREFETCH);
		if (!wants_sweep(c, ch->sweep_slot))
			continue;
		transfer_tell(c, ch->sweep_slot, FP_OP_OPEN, &out[n]);
		out[n++].flags |= FP_RF_BULK;
		c->tour.swept |= shard_bit(c->table.rec[ch->sweep_slot].cold.shard);
	}
	counter_set(&c->stat.sweep_done, ch->sweep_slot - 1);
	counter_set(&c->stat.sweep_total, c->table.n_fresh);
	if (ch->sweep_slot <= c->table.n_fresh || n == cap)
		return n;
	mark(c, FP_OP_SWEPT, &out[n]);
	out[n].id = ch->sweep;
	out[n++].version = ch->sweep_no;
	ch->sweeping = false;
	ch->sweep = 0;
	counter_set(&c->stat.sweep_done, 0);
	counter_set(&c->stat.sweep_total, 0);
	return n;
}

/* ---- digests ---- */

void core_digest_ask(struct core *c)
{
	c->changes.digest_asked = true;
}

void core_digests(const struct core *c, struct fp_digest out[FP_SHARDS])
{
	for (uint64_t left = digest_own(c); left; left &= left - 1) {
		const uint32_t shard = (uint32_t)__builtin_ctzll(left);

		out[shard] = (struct fp_digest){
			.sum = c->digest[shard].sum,
			.n = c->digest[shard].n,
			.known = !((c->changes.lost | c->changes.sweep) & shard_bit(shard)),
		};
	}
}

static void mark_digest(struct core *c, struct fp_flow_rec *out)
{
	core_digests(c, c->digest_told);
	mark(c, FP_OP_DIGEST, out);
	c->changes.digest_asked = false;
}

/* ---- all of it ---- */

uint32_t core_drain(struct core *c, struct fp_flow_rec *out, uint32_t cap, uint32_t slots, uint64_t now_ns)
{
	struct changes *ch = &c->changes;
	uint32_t n;

	c->now_ns = now_ns;
	n = 0;
	if (ch->asked && cap)
		begin_sweep(c, &out[n++]);
	n += drain_urgent(c, out + n, cap - n);
	n += drain_lazy(c, out + n, cap - n);
	if (ch->digest_asked && n < cap && !changes_pending(ch))
		mark_digest(c, &out[n++]);
	if (ch->sweeping && n < cap)
		n += drain_sweep(c, out + n, cap - n, slots);
	if (n < cap)
		n += tour_walk(c, out + n, cap - n, slots);
	if (n || changes_pending(ch))
		count_queued(c);
	return n;
}

static enum fp_fate fate_of(const struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	if (!session_survives(c, f))
		return FP_FATE_POOL;
	if (digest_knows(c, idx))
		return commit_is_unacked(c, idx) || c->table.rec[idx].cold.refused ? FP_FATE_UNACKED
										   : FP_FATE_LIVES;
	if (f->epoch != EPOCH_NEVER || session_filter_passes(c, idx))
		return FP_FATE_UNTOLD;
	return session_sync_rule(c, f->rule).filter == FP_SYNC_NO ? FP_FATE_RULE : FP_FATE_AFTER;
}

uint32_t core_walk(struct core *c, uint32_t *slot, struct fp_flow_rec *out, uint32_t cap, bool *done,
		   uint64_t now_ns)
{
	uint32_t n = 0, left = WALK_SLOTS;

	c->now_ns = now_ns;
	for (*slot = max_u32(*slot, 1); n < cap && left && *slot <= c->table.n_fresh; ++*slot, left--) {
		if (!is_live(c, *slot))
			continue;
		export_record(c, *slot, FP_OP_OPEN, &out[n]);
		out[n++].fate = (uint8_t)fate_of(c, *slot);
	}
	*done = *slot > c->table.n_fresh;
	return n;
}

/* Has a packet of it come since then? One that has ended, or would have run out by now, goes nowhere. */
static bool is_in_use(const struct core *c, const struct flow_hot *f, uint64_t since_ns)
{
	const uint32_t used = f->deadline_tick - session_timeout(c, f);

	return (f->proto != IPPROTO_NUM_TCP || !tcptrack_is_over(f)) &&
	       (int32_t)(used - wheel_tick(since_ns)) >= 0 &&
	       (int32_t)(f->deadline_tick - wheel_tick(c->now_ns)) > 0;
}

static bool is_stranded(const struct core *c, uint32_t idx, uint64_t shards, uint64_t since_ns)
{
	const struct flow_rec *rec = &c->table.rec[idx];

	return is_live(c, idx) && shards & shard_bit(rec->cold.shard) && !digest_knows(c, idx) &&
	       is_in_use(c, &rec->hot, since_ns) && session_survives(c, &rec->hot) &&
	       session_filter_passes(c, idx);
}

int core_stranded(struct core *c, uint64_t shards, uint64_t since_ns, uint32_t *slot, struct fp_flow_rec *out,
		  uint32_t cap, bool *done, uint64_t now_ns)
{
	uint32_t n = 0, left = STRANDED_SLOTS;

	if (c->role == FP_ROLE_ACTIVE)
		return -EPERM;
	c->now_ns = now_ns;
	for (*slot = max_u32(*slot, 1); n + 2 <= cap && left && *slot <= c->table.n_fresh; ++*slot, left--) {
		if (!is_stranded(c, *slot, shards, since_ns))
			continue;
		export_record(c, *slot, FP_OP_OPEN, &out[n]);
		out[n].flags &= FLOW_FLAGS_TOLD;
		out[n + 1] = out[n];
		out[n + 1].op = FP_OP_REST;
		out[n + 1].has = (uint32_t)fp_cols_of(FP_OP_REST, false);
		n += 2;
	}
	*done = *slot > c->table.n_fresh;
	return (int)n;
}

void core_sync_stats_read(const struct core *c, struct fp_sync_stats *out)
{
	const struct core_counters *s = &c->stat;

	out->lost_shards = counter_read(&s->lost_shards);
	out->queued_lazy = counter_read(&s->lazy);
	out->queued = counter_read(&s->dirty) - out->queued_lazy;
	out->sweep_done = counter_read(&s->sweep_done);
	out->sweep_total = counter_read(&s->sweep_total);
	out->told_open = counter_read(&s->told[FP_OP_OPEN]);
	out->told_state = counter_read(&s->told[FP_OP_STATE]);
	out->told_rest = counter_read(&s->told[FP_OP_REST]);
	out->told_delete = counter_read(&s->told[FP_OP_DELETE]);
	out->repaired = counter_read(&s->repaired);
	out->import_unknown = counter_read(&s->import_unknown);
	out->scrub_errors = counter_read(&s->scrub_errors);
	commit_stats_read(&c->commit, out);
}
