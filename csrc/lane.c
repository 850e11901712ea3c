/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lane.c - the short way of batches and acknowledgements
 */
#include <errno.h>
#include <stdlib.h>

#include "clock.h"
#include "cols.h"
#include "lane.h"

/* ---- memory ---- */

static void await_changes(struct lane *l, bool on)
{
	l->awaited = on;
	/* Pairs with worker_drain(): published, then looked. */
	atomic_store(&l->dp->plane.changes_to, on ? l->dp->plane.changes_fd : -1);
}

/* Who takes them from now on looks first, or has asked to be woken already: that stands. */
static void await_no_more(struct lane *l)
{
	int ours = l->dp->plane.changes_fd;

	l->awaited = false;
	atomic_compare_exchange_strong(&l->dp->plane.changes_to, &ours, -1); /* as await_changes() */
}

void lane_init(struct lane *l, fp_dp *dp, const struct fp_channel_cfg *cfg)
{
	*l = (struct lane){
		.dp = dp,
		.st.mode = FP_LANE_OFF,
		.batch_records = min_u32(cfg->batch_records, LEFT_MAX),
		.window_batches = cfg->window_batches,
		.window_max = cfg->window_bytes,
		.pause_ns = (uint64_t)cfg->pause_us * 1000,
	};
}

static void forget_window(struct lane *l)
{
	for (; l->n; l->n--) {
		free(l->window[l->head].frame);
		l->head = (l->head + 1) % l->cap;
	}
	l->head = 0;
	l->window_bytes = 0;
}

void lane_free(struct lane *l)
{
	uint8_t **columns = (uint8_t **)&l->scratch;

	if (l->st.mode == FP_LANE_SEND)
		await_no_more(l);
	forget_window(l);
	free(l->window);
	free(l->rec);
	for (uint32_t i = 0; i < N_COLS; i++)
		free(columns[i]);
	free(l->out);
	*l = (struct lane){ .st.mode = FP_LANE_OFF };
}

static_assert(sizeof(struct fp_cols) == N_COLS * sizeof(uint8_t *), "one pointer a column");

/* Room for a batch in either direction; only a node that syncs pays for it. */
static int make_room(struct lane *l)
{
	uint8_t **columns = (uint8_t **)&l->scratch;
	uint32_t width = 0;

	if (l->out)
		return 0;
	if (!l->dp->left.rec)
		l->dp->left.rec = malloc(LEFT_MAX * sizeof(struct fp_flow_rec));
	if (!l->rec)
		l->rec = malloc(LEFT_MAX * sizeof(struct fp_flow_rec));
	if (!l->rec || !l->dp->left.rec)
		return -ENOMEM;
	for (uint32_t i = 0; i < N_COLS; i++) {
		width += cols_width(i, 6);
		if (!columns[i])
			columns[i] = malloc((size_t)l->batch_records * cols_width(i, 6));
		if (!columns[i])
			return -ENOMEM;
	}
	l->out_cap = LANE_HEAD_MAX + 8 * 512 +
		     l->batch_records * width; /* a section has a head for each column */
	l->out = malloc(l->out_cap);
	return l->out ? 0 : -ENOMEM;
}

/* Room for @n more in the window. */
static int grow(struct lane *l, uint32_t n)
{
	struct lane_sent *window;
	uint32_t cap = max_u32(l->cap, 64);

	if (l->n + n <= l->cap)
		return 0;
	while (cap < l->n + n)
		cap *= 2;
	window = malloc(cap * sizeof(*window));
	if (!window)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->n; i++)
		window[i] = l->window[(l->head + i) % l->cap];
	free(l->window);
	l->window = window;
	l->cap = cap;
	l->head = 0;
	return 0;
}

static struct lane_sent *nth(struct lane *l, uint32_t i)
{
	return &l->window[(l->head + i) % l->cap];
}

/* ---- sending ---- */

static bool is_on(const struct lane *l, enum fp_lane mode)
{
	return l->st.mode == mode && !l->held && !l->asks && l->dp;
}

/* Take what waits, into dp->left; @more: there was no room for all. */
static int take_changes(struct lane *l, bool *more, uint64_t *lost)
{
	struct dp_left *left = &l->dp->left;
	const uint32_t n_workers = l->dp->plane.n_workers;

	*more = false;
	*lost = 0;
	left->at = left->n_spans = 0;
	for (uint32_t i = 0, n = 0; i < n_workers; i++) {
		const uint32_t worker = (l->drain_from + i) % n_workers;
		uint64_t its;
		int got;

		if (n == l->batch_records) {
			l->drain_from = worker; /* the next one begins here, so that none starves */
			*more = true;
			break;
		}
		got = fp_events_drain(l->dp, worker, left->rec + n, l->batch_records - n, &its);
		if (got < 0)
			return got;
		*lost |= its;
		*more |= (uint32_t)got == l->batch_records - n;
		n += (uint32_t)got;
		if (got) {
			left->spans[left->n_spans].worker = worker;
			left->spans[left->n_spans++].end = n;
		}
	}
	return left->n_spans ? (int)left->spans[left->n_spans - 1].end : 0;
}

static void keep(struct lane *l, struct lane_sent sent)
{
	const struct dp_left *left = &l->dp->left;
	const uint32_t size = sent.sent.size, n = sent.sent.n;
	struct lane_sent *s = nth(l, l->n++);

	*s = sent;
	for (uint32_t i = 0; i < left->n_spans; i++)
		s->sent.marks[left->spans[i].worker] = left->rec[left->spans[i].end - 1].ev_seq;
	l->window_bytes += size;
	l->st.n_new++;
	l->st.sent_seq++;
	l->st.records_out += n;
	l->st.bytes_out += size;
}

/* The frame of the @n records in dp->left; -EAGAIN: there is a marker among them. */
static int pack(struct lane *l, uint32_t n, const uint8_t **frame)
{
	uint8_t head[LANE_HEAD_MAX], *copy;
	uint32_t used, len;
	int packed = fp_sections_pack(l->dp->left.rec, n, &l->scratch, l->out, l->out_cap, &used);

	if (packed < 0)
		return packed;
	if ((uint32_t)packed < n)
		return -EAGAIN;
	len = wire_put_batch(head, l->st.sent_seq + 1, used);
	copy = malloc((size_t)len + used);
	if (!copy || grow(l, 1)) {
		free(copy);
		return -ENOMEM;
	}
	memcpy(copy, head, len);
	memcpy(copy + len, l->out, used);
	keep(l, (struct lane_sent){ .sent = { .n = n, .size = len + used }, .frame = copy });
	*frame = copy;
	return (int)nth(l, l->n - 1)->sent.size;
}

/* Whatever it is, control comes upon the same, and knows what it means. */
static uint32_t leave_to_control(struct lane *l, uint32_t n)
{
	l->dp->left.n = n;
	l->asks |= FP_ASK_DRAIN;
	return 0;
}

uint32_t lane_put(struct lane *l, const uint8_t **frame, uint64_t now_ns)
{
	bool more;
	uint64_t lost;
	int n, size;

	if (!is_on(l, FP_LANE_SEND) || !l->due || now_ns < l->pause_until_ns || l->n >= l->window_batches ||
	    l->window_bytes >= l->window_max)
		return 0;
	if (l->dp->left.n) /* control has not taken it yet */
		return leave_to_control(l, l->dp->left.n);
	l->pause_until_ns = now_ns + l->pause_ns;
	n = take_changes(l, &more, &lost);
	if (n == 0 && !l->awaited) {
		await_changes(l, true);
		n = take_changes(l, &more, &lost); /* what came before this word */
	}
	if (n && l->awaited)
		await_changes(l, false);
	if (n < 0)
		return leave_to_control(l, 0);
	l->due = n > 0;
	if (n == 0)
		return lost ? leave_to_control(l, 0) : 0;
	size = pack(l, (uint32_t)n, frame);
	if (size < 0)
		return leave_to_control(l, (uint32_t)n);
	l->st.said_ns = now_ns;
	if (more)
		l->pause_until_ns = 0;
	else if (lost) /* and what was told before has left the rings */
		leave_to_control(l, 0);
	return (uint32_t)size;
}

uint64_t lane_wait_ns(const struct lane *l, uint64_t now_ns)
{
	if (!is_on(l, FP_LANE_SEND) || !l->due || l->n >= l->window_batches ||
	    l->window_bytes >= l->window_max)
		return UINT64_MAX;
	return l->pause_until_ns > now_ns ? l->pause_until_ns - now_ns : 0;
}

static bool take_ack(struct lane *l, uint64_t seq)
{
	uint64_t marks[FP_WORKERS_MAX] = { 0 };

	if (seq <= l->st.acked_seq || seq > l->st.sent_seq)
		return false;
	for (; l->st.acked_seq < seq; l->st.acked_seq++) {
		struct lane_sent *s = nth(l, 0);

		for (uint32_t i = 0; i < FP_WORKERS_MAX; i++)
			marks[i] = max_u64(marks[i], s->sent.marks[i]);
		l->window_bytes -= s->sent.size;
		l->st.n_new -= s->frame != NULL;
		free(s->frame);
		l->head = (l->head + 1) % l->cap;
		l->n--;
	}
	for (uint32_t i = 0; i < l->dp->plane.n_workers; i++) {
		if (marks[i])
			fp_events_ack(l->dp, i, marks[i]);
	}
	return true;
}

/* ---- receiving ---- */

static bool take_batch(struct lane *l, uint64_t seq, const uint8_t *sections, uint32_t len)
{
	struct fp_error err;
	uint32_t unknown;
	int n, taken;

	if (seq != l->st.received_seq + 1)
		return false;
	n = fp_sections_unpack(sections, len, l->rec, LEFT_MAX, &unknown, &err);
	taken = n < 0 ? n : fp_flows_import(l->dp, l->rec, (uint32_t)n);
	if (taken < 0)
		return false;
	l->st.received_seq = seq;
	l->st.unknown += unknown;
	if (taken < n) {
		l->st.part_n = (uint32_t)n;
		l->st.part_taken = (uint32_t)taken;
		l->asks |= FP_ASK_IMPORTED;
	} else {
		l->st.records_in += (uint32_t)n;
	}
	return true;
}

uint32_t lane_ack(struct lane *l, uint8_t *out, uint64_t now_ns)
{
	const uint64_t seq = l->st.received_seq - (l->st.part_n != 0);
	uint32_t n;

	if (l->st.mode != FP_LANE_RECEIVE || seq <= l->st.imported_seq)
		return 0;
	n = wire_put_ack(out, seq);
	l->st.imported_seq = seq;
	l->st.said_ns = now_ns;
	l->st.bytes_out += n;
	return n;
}

/* ---- both ---- */

bool lane_is_mine(const struct lane *l, const uint8_t *payload, uint32_t n)
{
	uint64_t seq;

	switch (l->st.mode) {
	case FP_LANE_SEND: return wire_read_ack(payload, n, &seq);
	case FP_LANE_RECEIVE: return wire_read_batch(payload, n, &seq) != 0;
	default: return false;
	}
}

bool lane_take(struct lane *l, const uint8_t *payload, uint32_t n, uint64_t now_ns)
{
	uint64_t seq;
	uint32_t at;
	bool taken;

	if (is_on(l, FP_LANE_SEND)) {
		taken = wire_read_ack(payload, n, &seq) && take_ack(l, seq);
	} else if (is_on(l, FP_LANE_RECEIVE)) {
		at = wire_read_batch(payload, n, &seq);
		taken = at && take_batch(l, seq, payload + at, n - at);
	} else {
		return false;
	}
	if (taken) {
		l->st.heard_ns = now_ns;
		l->st.bytes_in += FRAME_HEAD + n;
	}
	return taken;
}

void lane_hold(struct lane *l, struct fp_lane_state *out)
{
	l->held = true;
	*out = l->st;
}

/* What control has not said stays as it was. */
static int take_window(struct lane *l, const struct fp_lane_state *in, const struct fp_sent *window,
		       uint32_t n)
{
	if (!window)
		return in->sent_seq - in->acked_seq == l->n && in->sent_seq == l->st.sent_seq && !l->st.n_new
			       ? 0
			       : -EINVAL;
	if (in->sent_seq - in->acked_seq != n)
		return -EINVAL;
	forget_window(l);
	if (grow(l, n))
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		*nth(l, l->n++) = (struct lane_sent){ .sent = window[i] };
		l->window_bytes += window[i].size;
	}
	return 0;
}

int lane_resume(struct lane *l, const struct fp_lane_state *in, const struct fp_sent *window, uint32_t n)
{
	const bool was_sending = l->st.mode == FP_LANE_SEND;
	uint32_t mode = in->mode;
	int rc = 0;

	if (mode != FP_LANE_SEND && mode != FP_LANE_RECEIVE)
		mode = FP_LANE_OFF;
	if (mode != FP_LANE_OFF)
		rc = l->dp ? make_room(l) : -EINVAL;
	if (rc == 0 && mode == FP_LANE_SEND)
		rc = take_window(l, in, window, n);
	if (rc)
		mode = FP_LANE_OFF;
	if (mode != FP_LANE_SEND)
		forget_window(l);
	l->st = (struct fp_lane_state){
		.mode = mode,
		.sent_seq = in->sent_seq,
		.acked_seq = in->acked_seq,
		.received_seq = in->received_seq,
		.imported_seq = in->imported_seq,
	};
	l->held = false;
	l->asks = 0;
	l->due = true; /* what came meanwhile may have rung for nobody */
	if (mode == FP_LANE_SEND)
		await_changes(l, false); /* whoever waited for them: it is us who look now */
	else if (was_sending)
		await_no_more(l);
	return rc;
}

int lane_sent(struct lane *l, struct fp_sent *out, uint8_t *frame, uint32_t cap)
{
	struct lane_sent *s;

	if (!l->held || !l->st.n_new)
		return -EINVAL;
	s = nth(l, l->n - l->st.n_new);
	if (cap < s->sent.size)
		return -ENOBUFS;
	*out = s->sent;
	memcpy(frame, s->frame, s->sent.size);
	free(s->frame);
	s->frame = NULL;
	l->st.n_new--;
	return (int)s->sent.size;
}
