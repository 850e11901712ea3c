/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_tcp_windows.c - whole TCP conversations through tcptrack: nothing genuine is ever dropped
 *
 *   check_tcp_windows [first seed] [seeds]
 *
 * Two model TCPs talk through a node over links that delay, reorder, lose and repeat; with and without
 * window scaling, slow readers, closed windows and their probes, keep-alives, frames of up to 64 KiB, numbers
 * that wrap. In half of the conversations another node takes over at a random moment, with what it was told at
 * the last change of state. Meanwhile somebody who sees nothing sends segments with random numbers, and
 * somebody who is lucky sends some that hit the window. Each seed is one conversation, reproducible by itself.
 */
#include <stdio.h>

#include "../tcptrack.h"
#include "check.h"
#include "frames.h"

enum { OPENER, RESPONDER, MSS = 1460, FLYING = 512, HELD = 32, TICK_MS = 5, LENIENT_MS = 30000 };
enum { SYN = TCP_SYN, ACK = TCP_ACK_FLAG, FIN = TCP_FIN, RST = TCP_RST };
enum { ST_CLOSED, ST_SYN_SENT, ST_SYN_RECV, ST_OPEN, ST_DEAD };

/* A segment on its way: hop 0 to the node, hop 1 beyond it. */
struct flying {
	uint32_t due_ms, seq, ack, len;
	uint16_t win;
	uint8_t flags, side, hop;
	bool used;
};

struct range {
	uint32_t from, to;
};

/* One end: as much of RFC 9293 as makes its numbers genuine. */
struct end {
	uint32_t state, una, nxt, top,
		edge;                    /* sent: oldest unacknowledged, next, highest, right edge allowed */
	uint32_t rcv, told, cap, unread; /* received: next, right edge told, buffer, unread in it */
	struct range held[HELD];         /* out of order */
	uint32_t n_held, scale, pending;
	uint32_t rto_ms, rto_at, write_at, read_at, idle_at;
	bool scaling, fin_wanted, fin_sent;
};

struct talk {
	struct flow_hot f;
	struct flow_cold c;
	struct fp_flow_rec told; /* what the other node knows */
	struct tcptrack_mode mode;
	struct end end[2];
	struct flying air[FLYING];
	uint64_t rng;
	uint32_t now_ms, active_ms, takeover_ms, dark_ms, loss, delay_ms;
	bool node_has_it, inbound, aborted;
	uint32_t genuine, forged, strict_ms;
};

static uint32_t seed;
static uint64_t total_genuine, total_forged, total_strict, total_relearned, total_hits, total_aborted,
	total_lingering;
static uint8_t room[FP_FRAME_BIG];

static uint32_t rnd(struct talk *t, uint32_t below)
{
	t->rng ^= t->rng << 13;
	t->rng ^= t->rng >> 7;
	t->rng ^= t->rng << 17;
	return (uint32_t)(t->rng >> 20) % below;
}

static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

/* ---- the node ---- */

static uint32_t side_of(const struct talk *t, uint32_t who)
{
	return t->inbound ? who ^ 1 : who;
}

static struct pkt packet(const struct talk *t, const struct flying *s)
{
	static uint8_t header[40];
	struct pkt p = { .l4 = room, .proto = IPPROTO_NUM_TCP, .tcp_flags = s->flags };
	const struct end *e = &t->end[s->side];
	uint32_t options = 0;

	memset(header, 0, sizeof(header));
	if ((s->flags & SYN) && e->scaling) {
		header[TCP_LEN] = 3;
		header[TCP_LEN + 1] = 3;
		header[TCP_LEN + 2] = (uint8_t)e->scale;
		options = 4;
	}
	be32_store(header + TCP_SEQ, be32_of(s->seq));
	be32_store(header + TCP_ACK, be32_of(s->ack));
	be16_store(header + TCP_WINDOW, be16_of(s->win));
	header[TCP_OFF] = (uint8_t)((TCP_LEN + options) / 4 << 4);
	memcpy(room, header, sizeof(header));
	p.l4_len = (uint16_t)(TCP_LEN + options + s->len);
	return p;
}

static void tell_other_node(struct talk *t)
{
	t->told = (struct fp_flow_rec){ .state = t->f.state, .flags = t->f.flags };
	for (uint32_t side = 0; side < 2; side++)
		t->told.win[side] = (struct fp_tcp_win){ .end = t->c.end[side],
							 .max_end = t->c.max_end[side],
							 .max_win = t->c.max_win[side],
							 .scale = tcptrack_scale(&t->c, side),
							 .flags = t->c.wflags[side] };
}

static void take_over(struct talk *t)
{
	t->c = (struct flow_cold){ 0 };
	t->f.state = t->told.state;
	t->f.flags = t->told.flags;
	tcptrack_import(&t->c, t->told.win);
	t->active_ms = t->now_ms;
	t->mode.watch++;
	t->dark_ms = t->now_ms + rnd(t, 500);
}

static enum tcptrack_result node(struct talk *t, const struct flying *s)
{
	struct pkt p = packet(t, s);
	enum tcptrack_result result;

	t->mode.settled = t->now_ms - t->active_ms >= LENIENT_MS;
	if (!t->node_has_it) {
		tcptrack_open(&t->f, &t->c, &p, &t->mode);
		t->node_has_it = true;
		result = TCPTRACK_CHANGED;
	} else {
		result = tcptrack_segment(&t->f, &t->c, side_of(t, s->side), &p, &t->mode);
	}
	if (result == TCPTRACK_REOPEN) {
		memset(&t->c, 0, sizeof(t->c));
		t->f.flags &= FP_RF_INBOUND;
		tcptrack_open(&t->f, &t->c, &p, &t->mode);
		result = TCPTRACK_CHANGED;
	}
	if (result == TCPTRACK_CHANGED)
		tell_other_node(t);
	return result;
}

/* Overtaken: its sender has been told that all of it arrived, its receiver has nothing to learn from it. */
static bool is_stale(const struct talk *t, const struct flying *s)
{
	const struct end *from = &t->end[s->side], *to = &t->end[s->side ^ 1];

	/* An RST that answers what was overtaken: its receiver would not believe it. */
	if (s->flags & RST)
		return before(s->seq, to->rcv);
	return from->state == ST_OPEN && before(s->seq + s->len, from->una) && !before(to->una, s->ack);
}

static void report_drop(const struct talk *t, const struct flying *s, enum tcptrack_result result)
{
	uint32_t side = side_of(t, s->side);

	fprintf(stderr,
		"seed %u, %u ms: genuine segment dropped (%d): %s flags %02x seq %u len %u ack %u win %u; state %u "
		"admin %02x wflags %02x %02x end %u %u max_end %u %u max_win %u %u\n",
		seed, t->now_ms, (int)result, s->side == OPENER ? "opener" : "responder", s->flags, s->seq,
		s->len, s->ack, s->win, t->f.state, t->c.admin, t->c.wflags[side], t->c.wflags[side ^ 1],
		t->c.end[side], t->c.end[side ^ 1], t->c.max_end[side], t->c.max_end[side ^ 1],
		t->c.max_win[side], t->c.max_win[side ^ 1]);
	CHECK(1, false);
}

/* ---- the links ---- */

static void launch(struct talk *t, struct flying s)
{
	uint32_t copies = rnd(t, 100) < 2 ? 2 : 1;

	if (rnd(t, 1000) < t->loss)
		return;
	for (uint32_t i = 0; i < FLYING && copies; i++) {
		if (t->air[i].used)
			continue;
		t->air[i] = s;
		t->air[i].used = true;
		t->air[i].due_ms = t->now_ms + 1 + t->delay_ms + rnd(t, 100) / 90 * rnd(t, 40);
		copies--;
	}
}

/* ---- the ends ---- */

static uint16_t advertise(struct end *e, bool syn)
{
	uint32_t shift = syn ? 0 : e->scale, space = e->cap > e->unread ? e->cap - e->unread : 0, win;

	win = min_u32(space >> shift, UINT16_MAX);
	/* A right edge never moves left. */
	if (before(e->rcv + (win << shift), e->told))
		win = min_u32((e->told - e->rcv + (1u << shift) - 1) >> shift, UINT16_MAX);
	if (!before(e->rcv + (win << shift), e->told))
		e->told = e->rcv + (win << shift);
	return (uint16_t)win;
}

static void transmit(struct talk *t, uint32_t who, uint8_t flags, uint32_t seq, uint32_t len)
{
	struct end *e = &t->end[who];
	struct flying s = { .seq = seq, .len = len, .flags = flags, .side = (uint8_t)who };

	if (flags & ACK)
		s.ack = e->rcv;
	s.win = advertise(e, flags & SYN);
	if ((flags & SYN) && !(flags & ACK))
		s.win = (uint16_t)min_u32(e->cap, UINT16_MAX);
	seq += len + !!(flags & SYN) + !!(flags & FIN);
	if (before(e->top, seq))
		e->top = seq;
	e->idle_at = t->now_ms + 20000 + rnd(t, 30000);
	launch(t, s);
}

static void arm(struct talk *t, struct end *e)
{
	e->rto_at = t->now_ms + e->rto_ms;
}

/* Once more, from the oldest: SYN, data, FIN. */
static void retransmit(struct talk *t, uint32_t who)
{
	struct end *e = &t->end[who];
	uint32_t data = e->nxt - e->una - (e->fin_sent ? 1 : 0);

	if (e->state == ST_SYN_SENT)
		transmit(t, who, SYN, e->una, 0);
	else if (e->state == ST_SYN_RECV)
		transmit(t, who, SYN | ACK, e->una, 0);
	else if (data && e->nxt != e->una)
		transmit(t, who, ACK, e->una, min_u32(data, rnd(t, 4) ? MSS : 40000));
	else if (e->fin_sent && e->nxt != e->una)
		transmit(t, who, FIN | ACK, e->una, 0);
}

static void send_more(struct talk *t, uint32_t who)
{
	struct end *e = &t->end[who];

	for (uint32_t burst = 0; burst < 6 && e->pending && before(e->nxt, e->edge); burst++) {
		uint32_t len = min_u32(min_u32(e->pending, e->edge - e->nxt),
				       rnd(t, 3) ? MSS : 1 + rnd(t, 60000));

		if (e->nxt == e->una)
			arm(t, e);
		transmit(t, who, ACK | TCP_PSH, e->nxt, len);
		e->nxt += len;
		e->pending -= len;
	}
	if (e->fin_wanted && !e->fin_sent && !e->pending && before(e->nxt, e->edge)) {
		transmit(t, who, FIN | ACK, e->nxt++, 0);
		e->fin_sent = true;
		arm(t, e);
	}
}

static void hold(struct end *e, uint32_t from, uint32_t to)
{
	if (e->n_held < HELD)
		e->held[e->n_held++] = (struct range){ from, to };
	for (uint32_t i = 0; i < e->n_held;) {
		struct range r = e->held[i];

		if (before(e->rcv, r.from)) {
			i++;
			continue;
		}
		if (before(e->rcv, r.to)) {
			e->unread += r.to - e->rcv;
			e->rcv = r.to;
		}
		e->held[i] = e->held[--e->n_held];
		i = 0;
	}
}

static void receive_data(struct talk *t, uint32_t who, const struct flying *s)
{
	struct end *e = &t->end[who];
	uint32_t to = s->seq + s->len + !!(s->flags & FIN);

	if (before(e->told, to))
		to = e->told;
	if (before(s->seq, to))
		hold(e, s->seq, to);
	transmit(t, who, ACK, e->nxt, 0);
}

static void receive_ack(struct talk *t, uint32_t who, const struct flying *s)
{
	struct end *e = &t->end[who];
	uint32_t shift = e->scaling && t->end[who ^ 1].scaling && !(s->flags & SYN) ? t->end[who ^ 1].scale
										    : 0;

	if (before(e->edge, s->ack + ((uint32_t)s->win << shift)))
		e->edge = s->ack + ((uint32_t)s->win << shift);
	if (before(e->una, s->ack) && !before(e->nxt, s->ack)) {
		e->una = s->ack;
		e->rto_ms = 200 + rnd(t, 200);
		arm(t, e);
	} else if (s->ack == e->una && e->nxt != e->una && rnd(t, 4) == 0) {
		retransmit(t, who);
	}
}

static void open_end(struct talk *t, struct end *e, uint32_t rcv)
{
	e->rcv = rcv;
	e->told = rcv;
	e->write_at = t->now_ms;
	e->read_at = t->now_ms;
}

/* Who has no connection answers with an RST; who gets one believes it only if it is exact (RFC 5961). */
static bool is_dead(struct talk *t, uint32_t who, const struct flying *s)
{
	struct end *e = &t->end[who];

	if (e->state == ST_DEAD) {
		if (!(s->flags & RST) && (s->flags & ACK))
			transmit(t, who, RST, s->ack, 0);
	} else if (!(s->flags & RST)) {
		return false;
	} else if (e->state == ST_OPEN && s->seq == e->rcv) {
		e->state = ST_DEAD;
		e->nxt = e->una;
	} else if (e->state == ST_OPEN && before(e->rcv, s->seq) && before(s->seq, e->told)) {
		transmit(t, who, ACK, e->nxt, 0);
	}
	return true;
}

static void abort_end(struct talk *t, uint32_t who)
{
	struct end *e = &t->end[who];

	if (e->state != ST_OPEN)
		return;
	transmit(t, who, RST | ACK, e->nxt, 0);
	e->state = ST_DEAD;
	e->una = e->nxt;
	t->aborted = true;
}

static void receive(struct talk *t, uint32_t who, const struct flying *s)
{
	struct end *e = &t->end[who];

	if (is_dead(t, who, s))
		return;
	if (s->flags & SYN) {
		if (e->state == ST_CLOSED && !(s->flags & ACK)) { /* the responder */
			e->state = ST_SYN_RECV;
			open_end(t, e, s->seq + 1);
			e->edge = e->una;
			transmit(t, who, SYN | ACK, e->una, 0);
			e->nxt = e->una + 1;
			arm(t, e);
		} else if (e->state == ST_SYN_SENT && (s->flags & ACK) && s->ack == e->nxt) {
			e->state = ST_OPEN;
			open_end(t, e, s->seq + 1);
			e->edge = e->una;
			receive_ack(t, who, s);
			transmit(t, who, ACK, e->nxt, 0);
		} else if (e->state == ST_OPEN) {
			transmit(t, who, ACK, e->nxt, 0); /* RFC 5961 section 4.2 */
		}
		return;
	}
	if (e->state == ST_SYN_RECV && s->ack == e->nxt)
		e->state = ST_OPEN;
	if (e->state != ST_OPEN || before(e->nxt, s->ack))
		return;
	receive_ack(t, who, s);
	/* What it holds already is acknowledged once more; so are keep-alives and probes. */
	if (s->len || (s->flags & FIN) || before(s->seq, e->rcv))
		receive_data(t, who, s);
}

static void application(struct talk *t, uint32_t who)
{
	struct end *e = &t->end[who];

	if (e->state == ST_OPEN && !e->fin_wanted && t->now_ms >= e->write_at) {
		static const uint32_t pause_ms[] = { 10, 10, 100, 1000, 8000, 45000 };

		e->pending += rnd(t, 3) ? rnd(t, 20000) : rnd(t, 400000);
		e->write_at = t->now_ms + 1 + rnd(t, pause_ms[rnd(t, ARRAY_SIZE(pause_ms))]);
	}
	if (e->state == ST_OPEN && t->now_ms >= e->read_at) {
		uint32_t space = e->told - e->rcv;

		e->unread -= min_u32(e->unread, rnd(t, 3) ? e->cap : rnd(t, 5000));
		e->read_at = t->now_ms + 1 + (rnd(t, 20) ? rnd(t, 50) : rnd(t, 5000));
		if (space < MSS && e->unread < e->cap / 2)
			transmit(t, who, ACK, e->nxt, 0); /* window update */
	}
}

static void tick_end(struct talk *t, uint32_t who)
{
	struct end *e = &t->end[who];

	application(t, who);
	if (e->state == ST_OPEN)
		send_more(t, who);
	if (e->nxt != e->una && t->now_ms >= e->rto_at) {
		e->rto_ms = min_u32(e->rto_ms * 2, 60000);
		arm(t, e);
		retransmit(t, who);
	} else if (e->state == ST_OPEN && e->nxt == e->una && t->now_ms >= e->idle_at) {
		if (e->pending && !e->fin_sent) /* probe of a closed window, with a byte or without */
			transmit(t, who, ACK, rnd(t, 2) ? e->nxt - 1 : e->nxt, rnd(t, 2));
		else
			transmit(t, who, ACK, e->nxt - 1, 0); /* keep-alive */
	}
}

/* ---- those who do not belong to it ---- */

/* Random numbers: dropped, unless they hit the window. */
static void blind(struct talk *t)
{
	static const uint8_t flags[] = { ACK, ACK | TCP_PSH, FIN | ACK, RST, RST | ACK, SYN | ACK };
	struct flying s = { .seq = (uint32_t)t->rng,
			    .ack = (uint32_t)(t->rng >> 32),
			    .win = (uint16_t)rnd(t, 65536),
			    .len = rnd(t, 2) ? rnd(t, 1460) : 0,
			    .side = (uint8_t)rnd(t, 2) };
	bool lenient = t->c.wflags[SIDE_OUT] & TCP_LENIENT;
	struct flow_hot f = t->f;
	enum tcptrack_result result;

	s.flags = flags[rnd(t, lenient ? 2 : ARRAY_SIZE(flags))];
	if (s.flags & (RST | SYN))
		s.len = 0;
	if (t->f.state != FP_ST_ESTABLISHED)
		return;
	result = node(t, &s);
	if (lenient)
		return;
	t->forged++;
	/* Some windows here are 8 MB wide, and an RST has one number only: few are lucky. */
	if (result < TCPTRACK_DROP) {
		total_hits++;
		CHECK(6, !(s.flags & RST) || ((t->f.flags & FP_RF_RESET) && t->f.state == f.state));
		return;
	}
	CHECK_EQ(2, result, s.flags & RST ? TCPTRACK_DROP_RST : TCPTRACK_DROP_WINDOW);
	CHECK_EQ(3, t->f.state, f.state);
}

/* One that does hit the window, always of the same side: passes, and spoils nothing. */
static void lucky(struct talk *t)
{
	uint32_t who = t->inbound ? OPENER : RESPONDER, side = side_of(t, who);
	struct flying s = { .flags = ACK, .win = UINT16_MAX, .side = (uint8_t)who, .len = rnd(t, 60000) };

	if (t->f.state != FP_ST_ESTABLISHED || (t->c.wflags[SIDE_OUT] & TCP_LENIENT))
		return;
	s.seq = t->c.max_end[side] - rnd(t, 1000);
	s.ack = t->c.end[side ^ 1] - rnd(t, 1000);
	CHECK_EQ(4, node(t, &s), TCPTRACK_PASS);
}

/* ---- one conversation ---- */

static void arrive(struct talk *t, struct flying s)
{
	enum tcptrack_result result;

	if (s.hop) {
		receive(t, s.side ^ 1, &s);
		return;
	}
	if (t->now_ms < t->dark_ms)
		return;
	/* The first SYN made the session at whichever node was ACTIVE; a node that has none drops the rest. */
	if (!t->node_has_it && (s.flags & (SYN | ACK)) != SYN)
		return;
	result = node(t, &s);
	t->genuine++;
	if (result >= TCPTRACK_DROP && !is_stale(t, &s))
		report_drop(t, &s, result);
	s.hop = 1;
	launch(t, s);
}

static void init_end(struct talk *t, struct end *e)
{
	static const uint32_t caps[] = { 4000, 65535, 300000, 4000000 };

	/* One in three starts just below the wrap. */
	e->una = rnd(t, 3) ? (uint32_t)t->rng : 0u - rnd(t, 200000);
	e->nxt = e->top = e->una;
	e->cap = caps[rnd(t, ARRAY_SIZE(caps))];
	e->scaling = rnd(t, 4);
	e->scale = e->scaling ? rnd(t, 10) : 0;
	e->rto_ms = 400;
}

static void converse(uint32_t number)
{
	struct talk *t = calloc(1, sizeof(*t));
	uint32_t end_ms = 60000 + 30000 * (number % 4), sneaky = number % 3;

	FP_ASSERT(t);
	seed = number;
	t->rng = UINT64_C(0x9e3779b97f4a7c15) * (number + 1);
	for (uint32_t i = 0; i < 20; i++)
		rnd(t, 2);
	t->mode.strict = true;
	t->active_ms = 0u - LENIENT_MS;
	t->inbound = rnd(t, 2);
	t->f.flags = t->inbound ? FP_RF_INBOUND : 0;
	t->loss = (uint32_t[]){ 0, 10, 50, 200 }[rnd(t, 4)];
	t->delay_ms = rnd(t, 60);
	t->takeover_ms = rnd(t, 2) ? 1 + rnd(t, 40000) : 0;
	init_end(t, &t->end[OPENER]);
	init_end(t, &t->end[RESPONDER]);
	if (!t->end[OPENER].scaling || !t->end[RESPONDER].scaling)
		t->end[OPENER].scale = t->end[RESPONDER].scale = 0;
	t->end[OPENER].state = ST_SYN_SENT;
	transmit(t, OPENER, SYN, t->end[OPENER].nxt++, 0);
	arm(t, &t->end[OPENER]);
	while ((t->now_ms += TICK_MS) < end_ms) {
		for (uint32_t i = 0; i < FLYING; i++) {
			if (!t->air[i].used || t->air[i].due_ms > t->now_ms)
				continue;
			t->air[i].used = false;
			arrive(t, t->air[i]);
		}
		tick_end(t, OPENER);
		tick_end(t, RESPONDER);
		if (t->takeover_ms && t->now_ms / TICK_MS == t->takeover_ms / TICK_MS && t->node_has_it)
			take_over(t);
		if (t->node_has_it && sneaky && rnd(t, 10) == 0)
			sneaky == 1 ? blind(t) : lucky(t);
		t->strict_ms += t->node_has_it && !(t->c.wflags[SIDE_OUT] & TCP_LENIENT) ? TICK_MS : 0;
		if (t->now_ms + 15000 > end_ms && number % 3 && !t->aborted)
			t->end[rnd(t, 2)].fin_wanted = true;
		else if (t->now_ms + 15000 > end_ms && !t->aborted)
			abort_end(t, rnd(t, 2));
	}
	if (t->end[OPENER].state == ST_DEAD && t->end[RESPONDER].state == ST_DEAD &&
	    !(t->c.wflags[SIDE_OUT] & TCP_LENIENT)) {
		total_aborted++;
		total_lingering += !tcptrack_is_over(&t->f);
	}
	total_genuine += t->genuine;
	total_forged += t->forged;
	total_strict += t->strict_ms;
	total_relearned += (t->c.wflags[SIDE_OUT] & (TCP_LEARNED | TCP_LENIENT)) == TCP_LEARNED;
	free(t);
}

int main(int argc, char **argv)
{
	uint32_t first = argc > 1 ? (uint32_t)atoi(argv[1]) : 0, n = argc > 2 ? (uint32_t)atoi(argv[2]) : 200;

	for (uint32_t i = 0; i < n; i++)
		converse(first + i);
	printf("%llu genuine segments, %llu forged, %llu of them in the window, %llu s strict, %llu learned again, %llu aborted, %llu of them linger\n",
	       (unsigned long long)total_genuine, (unsigned long long)total_forged,
	       (unsigned long long)total_hits, (unsigned long long)total_strict / 1000,
	       (unsigned long long)total_relearned, (unsigned long long)total_aborted,
	       (unsigned long long)total_lingering);
	/* Unless the very last RST was lost beyond the node. */
	CHECK(8, total_lingering <= total_aborted / 10);
	CHECK(7, total_hits <= total_forged / 2000);
	CHECK(5, n < 100 || (total_forged > 1000 && total_relearned > 10));
	return check_done("tcp_windows");
}
