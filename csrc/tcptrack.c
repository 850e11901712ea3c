/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcptrack.c - TCP connection tracking; the table and the rules stand in tcptrack.h
 */
#include "tcptrack.h"

enum { OPT_END = 0, OPT_NOP = 1, OPT_SCALE = 3, OPT_SACK_PERMITTED = 4 };

enum {
	ACK_WINDOW = 66000,      /* of slack at least, as in conntrack: a frame of 64 KiB fits */
	WIN_MAX = 1 << 30,       /* 65535 << 14, rounded: the widest window of all (RFC 7323 section 2.3) */
	SLACK_MAX = 3 << 29,     /* beyond 2^31 sequence numbers are no longer ordered */
	SYN_PAYLOAD_MAX = 0xffff /* TCP Fast Open, RFC 7413 */
};

static const uint8_t fin_seen[2] = { FP_RF_FIN_ORIG, FP_RF_FIN_REPLY };
static const uint8_t fin_acked[2] = { ADMIN_FIN_ACKED_ORIG, ADMIN_FIN_ACKED_REPLY };

/**
 * struct segment - What a header says
 * @seq: first sequence number
 * @end: last one + 1; SYN and FIN count
 * @ack: only if flagged
 * @win: scaled
 */
struct segment {
	uint32_t seq, end, ack, win;
};

/* Serial arithmetic on sequence numbers: is a at or after b? */
static bool seq_geq(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) >= 0;
}

static uint32_t seq_max(uint32_t a, uint32_t b)
{
	return seq_geq(a, b) ? a : b;
}

static bool is_lenient(const struct flow_cold *c)
{
	return c->wflags[SIDE_OUT] & TCP_LENIENT;
}

/* What to do with a segment that is out of its window. */
static enum tcptrack_result refuse(const struct flow_cold *c, const struct tcptrack_mode *mode,
				   enum tcptrack_result drop)
{
	return !mode->strict || is_lenient(c) ? TCPTRACK_PASS : drop;
}

static uint32_t opener_of(const struct flow_hot *f)
{
	return f->flags & FP_RF_INBOUND ? SIDE_IN : SIDE_OUT;
}

bool tcptrack_flags_ok(uint8_t flags)
{
	uint8_t kind = flags & (TCP_SYN | TCP_FIN | TCP_RST);

	if (kind == 0 || kind == TCP_FIN)
		return flags & TCP_ACK_FLAG;
	return kind == TCP_SYN || kind == TCP_RST;
}

/* ---- windows ---- */

static void set_scale(struct flow_cold *c, uint32_t side, uint32_t scale)
{
	c->scales &= (uint8_t)(0xf0 >> 4 * side);
	c->scales |= (uint8_t)(min_u32(scale, TCP_SCALE_MAX) << 4 * side);
}

/* How far the windows that @side advertises are shifted. */
static uint32_t shift_of(const struct flow_cold *c, uint32_t side)
{
	uint32_t both = c->wflags[SIDE_OUT] & c->wflags[SIDE_IN];

	if (unlikely(!(both & TCP_WIN_SYN)))
		return TCP_SCALE_MAX;
	return both & TCP_WIN_SCALE_KNOWN ? tcptrack_scale(c, side) : 0;
}

static struct segment read_segment(const struct flow_cold *c, uint32_t side, const struct pkt *p)
{
	/* The other fragments of a segment are not seen here: it may be as long as any. */
	uint32_t payload = unlikely(p->fragment) ? UINT16_MAX
						 : p->l4_len - (uint32_t)(p->l4[TCP_OFF] >> 4) * 4;
	struct segment s = { .seq = be32_host(be32_load(p->l4 + TCP_SEQ)),
			     .ack = be32_host(be32_load(p->l4 + TCP_ACK)),
			     .win = be16_host(be16_load(p->l4 + TCP_WINDOW)) };

	s.end = s.seq + payload + !!(p->tcp_flags & TCP_SYN) + !!(p->tcp_flags & TCP_FIN);
	if (!(p->tcp_flags & TCP_SYN)) /* the window of a SYN itself is never scaled */
		s.win <<= shift_of(c, side);
	return s;
}

/* The widest window that @side can have advertised, to anybody, ever. */
static uint32_t reach_of(const struct flow_cold *c, uint32_t side)
{
	return ((uint32_t)UINT16_MAX << shift_of(c, side)) + ACK_WINDOW;
}

static uint32_t slack_of(const struct flow_cold *c, uint32_t side)
{
	if (unlikely(c->wflags[SIDE_OUT] & TCP_LEARNED))
		return min_u32(2 * reach_of(c, side), SLACK_MAX);
	return min_u32(2 * c->max_win[side], SLACK_MAX) + ACK_WINDOW;
}

/* Rules I to IV. */
static bool in_window(const struct flow_cold *c, uint32_t side, const struct segment *s)
{
	uint32_t other = side ^ 1;
	uint32_t ack_max = unlikely(c->wflags[SIDE_OUT] & TCP_LEARNED) ? c->max_end[other] + 1
								       : c->end[other];

	return seq_geq(c->max_end[side], s->seq) && seq_geq(s->end, c->end[side] - slack_of(c, other)) &&
	       seq_geq(ack_max, s->ack) && seq_geq(s->ack, c->end[other] - slack_of(c, side));
}

static bool rst_in_window(const struct flow_cold *c, uint32_t side, const struct segment *s)
{
	return seq_geq(c->max_end[side], s->seq) &&
	       seq_geq(s->seq, c->end[side] - max_u32(c->max_win[side ^ 1], 1));
}

/* After a segment in the window. */
static void learn(struct flow_cold *c, uint32_t side, const struct segment *s)
{
	uint32_t other = side ^ 1;

	c->end[side] = seq_max(c->end[side], s->end);
	c->max_win[side] = max_u32(c->max_win[side], s->win);
	c->max_end[other] = seq_max(c->max_end[other], s->ack + max_u32(s->win, 1));
}

/* ---- lenient ---- */

static void make_lenient(struct flow_cold *c)
{
	c->wflags[SIDE_OUT] |= TCP_LENIENT | TCP_LEARNED;
	c->wflags[SIDE_OUT] &= (uint8_t)~TCP_WIN_FRESH;
	c->wflags[SIDE_IN] &= (uint8_t)~TCP_WIN_FRESH;
}

/* The newer of two numbers that are near each other; of two that are not, what was said last. */
static uint32_t near_or_new(uint32_t held, uint32_t said, uint32_t reach)
{
	return held - said <= reach ? held : said;
}

/* Does the segment agree with what the other side said: what it allows, and what it sent? */
static bool agrees(const struct flow_cold *c, uint32_t side, const struct segment *s)
{
	uint32_t other = side ^ 1, reach = reach_of(c, side), reach_other = reach_of(c, other);

	return seq_geq(c->max_end[side], s->seq) &&
	       seq_geq(s->end, c->max_end[side] - min_u32(2 * reach_other, SLACK_MAX)) &&
	       seq_geq(c->end[other] + reach, s->ack) &&
	       seq_geq(s->ack, c->end[other] - min_u32(2 * reach, SLACK_MAX));
}

static void learn_again(struct flow_cold *c, uint32_t side, const struct segment *s,
			const struct tcptrack_mode *mode)
{
	uint32_t other = side ^ 1;
	bool agreed = (c->wflags[other] & TCP_WIN_FRESH) && agrees(c, side, s);

	c->end[side] = near_or_new(c->end[side], s->end, reach_of(c, other));
	c->max_end[other] = near_or_new(c->max_end[other], s->ack + max_u32(s->win, 1), reach_of(c, side));
	c->max_win[side] = max_u32(c->max_win[side], s->win);
	if (!is_lenient(c) || !mode->settled)
		return;
	c->wflags[side] |= TCP_WIN_FRESH;
	if (agreed)
		c->wflags[SIDE_OUT] &= (uint8_t)~TCP_LENIENT;
}

void tcptrack_import(struct flow_cold *c, const struct fp_tcp_win win[2])
{
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		c->end[side] = win[side].end;
		c->max_end[side] = win[side].max_end;
		c->max_win[side] = min_u32(win[side].max_win, WIN_MAX);
		set_scale(c, side, win[side].scale);
		c->wflags[side] = win[side].flags & (TCP_WIN_SCALE_KNOWN | TCP_WIN_SACK | TCP_WIN_SYN);
	}
	make_lenient(c);
}

/* It was refused, so there is nothing to send; unless this node knows less than all. */
static enum tcptrack_result closed_segment(const struct flow_cold *c)
{
	return is_lenient(c) ? TCPTRACK_PASS : TCPTRACK_DROP;
}

/* ---- SYN ---- */

/* The options that matter to tracking stand in SYN segments only. A retransmission may have dropped some. */
static void learn_options(struct flow_cold *c, uint32_t side, const struct pkt *p)
{
	uint32_t len = (uint32_t)(p->l4[TCP_OFF] >> 4) * 4, at = TCP_LEN;

	c->wflags[side] |= TCP_WIN_SYN;
	while (at < len && p->l4[at] != OPT_END) {
		uint32_t opt_len = p->l4[at] == OPT_NOP ? 1 : at + 1 < len ? p->l4[at + 1] : 0;

		if (opt_len == 0 || at + opt_len > len || (p->l4[at] != OPT_NOP && opt_len < 2))
			return; /* malformed: believe nothing of the rest */
		if (p->l4[at] == OPT_SCALE && opt_len == 3) {
			c->wflags[side] |= TCP_WIN_SCALE_KNOWN;
			set_scale(c, side, p->l4[at + 2]);
		} else if (p->l4[at] == OPT_SACK_PERMITTED && opt_len == 2) {
			c->wflags[side] |= TCP_WIN_SACK;
		}
		at += opt_len;
	}
}

/* Is it the SYN that was seen before, with or without the payload of Fast Open? */
static bool same_syn(const struct flow_cold *c, uint32_t side, const struct segment *s)
{
	return (c->wflags[side] & TCP_WIN_SYN) && c->end[side] - (s->seq + 1) <= SYN_PAYLOAD_MAX;
}

/* Does it acknowledge the SYN of @opener, with or without its payload? */
static bool acks_syn(const struct flow_cold *c, uint32_t opener, const struct segment *s)
{
	return c->end[opener] - s->ack <= SYN_PAYLOAD_MAX;
}

/* A SYN of one side: where its numbers begin, and how much each side may send. */
static void learn_syn(struct flow_cold *c, uint32_t side, const struct segment *s, const struct pkt *p)
{
	uint32_t other = side ^ 1;

	if (!same_syn(c, side, s)) {
		c->wflags[side] &= TCP_LENIENT | TCP_LEARNED | TCP_SYN_AGAIN;
		set_scale(c, side, 0);
		c->max_win[side] = 0;
		c->end[side] = s->end;
		c->max_end[side] = s->seq + 1 + max_u32(c->max_win[other], 1);
	}
	learn_options(c, side, p);
	c->end[side] = seq_max(c->end[side], s->end);
	c->max_win[side] = max_u32(c->max_win[side], max_u32(s->win, 1));
	c->max_end[side] = seq_max(c->max_end[side], c->end[side]);
	if (p->tcp_flags & TCP_ACK_FLAG)
		c->max_end[other] = seq_max(c->max_end[other], s->ack + s->win);
	else if (c->wflags[other] & TCP_WIN_SYN)
		c->max_end[other] = seq_max(c->max_end[other], c->end[other] + s->win);
}

/* SYN without ACK. */
static enum tcptrack_result bare_syn(struct flow_hot *f, struct flow_cold *c, uint32_t side,
				     const struct segment *s, const struct pkt *p)
{
	if (side == opener_of(f)) {
		if (f->state >= FP_ST_TIME_WAIT || (f->flags & (FP_RF_RESET | FP_RF_INBOUND)) == FP_RF_RESET)
			return TCPTRACK_REOPEN;
		if (f->state == FP_ST_SYN_SENT)
			learn_syn(c, side, s, p);
		else if ((f->flags & FP_RF_RESET) || !same_syn(c, side, s))
			c->wflags[SIDE_OUT] |= TCP_SYN_AGAIN;
		return TCPTRACK_PASS;
	}
	if (f->state == FP_ST_SYN_RECV && same_syn(c, side, s))
		return TCPTRACK_PASS;
	if (f->state != FP_ST_SYN_SENT)
		return TCPTRACK_DROP;
	learn_syn(c, side, s, p);
	f->state = FP_ST_SYN_RECV;
	return TCPTRACK_CHANGED;
}

/* SYN+ACK of the responder while the handshake goes on. */
static enum tcptrack_result answer_syn(struct flow_hot *f, struct flow_cold *c, uint32_t side,
				       const struct segment *s, const struct pkt *p)
{
	if (!acks_syn(c, side ^ 1, s) && !is_lenient(c))
		return TCPTRACK_PASS; /* a half-open peer's: the opener will answer with an RST */
	/* Two answers that differ (SYN cookies; two servers behind one address): which one the opener has
	 * taken is not known before it speaks. */
	if (f->state == FP_ST_SYN_RECV && !same_syn(c, side, s))
		make_lenient(c);
	learn_syn(c, side, s, p);
	if (f->state == FP_ST_SYN_RECV)
		return TCPTRACK_PASS;
	f->state = FP_ST_SYN_RECV;
	return TCPTRACK_CHANGED;
}

static enum tcptrack_result syn_segment(struct flow_hot *f, struct flow_cold *c, uint32_t side,
					const struct segment *s, const struct pkt *p,
					const struct tcptrack_mode *mode)
{
	bool opener = side == opener_of(f);

	if (!(p->tcp_flags & TCP_ACK_FLAG))
		return bare_syn(f, c, side, s, p);
	if (f->state == FP_ST_CLOSED)
		return closed_segment(c);
	if (!opener && (c->wflags[SIDE_OUT] & TCP_SYN_AGAIN))
		return TCPTRACK_REOPEN;
	if (!opener && f->state <= FP_ST_SYN_RECV)
		return answer_syn(f, c, side, s, p);
	if (f->state == FP_ST_SYN_SENT && !is_lenient(c))
		return TCPTRACK_DROP;
	if (in_window(c, side, s))
		return TCPTRACK_PASS;
	return refuse(c, mode, TCPTRACK_DROP_WINDOW);
}

/* ---- RST ---- */

static enum tcptrack_result close_unopened(struct flow_hot *f)
{
	f->state = FP_ST_CLOSED;
	return TCPTRACK_CHANGED;
}

static enum tcptrack_result rst_segment(struct flow_hot *f, struct flow_cold *c, uint32_t side,
					const struct segment *s, const struct pkt *p,
					const struct tcptrack_mode *mode)
{
	uint32_t opener = opener_of(f);

	if (f->state == FP_ST_CLOSED)
		return TCPTRACK_PASS;
	if (f->state == FP_ST_SYN_SENT) {
		if (side == opener)
			return s->seq == c->end[opener] ? close_unopened(f) : TCPTRACK_PASS;
		if ((p->tcp_flags & TCP_ACK_FLAG) && s->ack == c->end[opener])
			return close_unopened(f);
	} else if (rst_in_window(c, side, s)) {
		if (tcptrack_is_over(f))
			return TCPTRACK_PASS;
		f->flags |= FP_RF_RESET;
		return TCPTRACK_CHANGED;
	} else if (side != opener && (c->wflags[SIDE_OUT] & TCP_SYN_AGAIN)) {
		return TCPTRACK_PASS; /* refuses the opener's new SYN: the opener's to judge */
	}
	/* Out of a window that may be older than the connection: let it pass, but do not believe it. */
	return refuse(c, mode, TCPTRACK_DROP_RST);
}

/* ---- the rest ---- */

static void note_fin_acks(struct flow_hot *f, struct flow_cold *c, uint32_t side, const struct segment *s,
			  const struct pkt *p)
{
	uint32_t other = side ^ 1;

	if ((p->tcp_flags & TCP_FIN) && seq_geq(s->end, c->end[side]))
		f->flags |= fin_seen[side];
	if ((f->flags & fin_seen[other]) && seq_geq(s->ack, c->end[other]))
		c->admin |= fin_acked[other];
}

/* The state after a segment that is neither SYN nor RST; SYN_SENT comes here only when lenient. */
static uint8_t after_data(struct flow_hot *f, struct flow_cold *c, uint32_t side)
{
	const uint8_t both_fins = FP_RF_FIN_ORIG | FP_RF_FIN_REPLY;
	const uint8_t both_acked = ADMIN_FIN_ACKED_ORIG | ADMIN_FIN_ACKED_REPLY;

	if ((f->flags & both_fins) == both_fins)
		return (c->admin & both_acked) == both_acked ? FP_ST_TIME_WAIT : FP_ST_CLOSING;
	if (f->flags & both_fins)
		return FP_ST_FIN_WAIT;
	if (f->state < FP_ST_ESTABLISHED && (side == opener_of(f) || is_lenient(c)))
		return FP_ST_ESTABLISHED;
	return f->state;
}

static enum tcptrack_result data_segment(struct flow_hot *f, struct flow_cold *c, uint32_t side,
					 const struct segment *s, const struct pkt *p,
					 const struct tcptrack_mode *mode)
{
	uint8_t had_state = f->state, had_flags = f->flags, state;

	/* A FIN or data of the responder before its SYN: a half-open peer. */
	if (f->state == FP_ST_SYN_SENT && !is_lenient(c))
		return side == opener_of(f) ? TCPTRACK_DROP : TCPTRACK_PASS;
	if (f->state == FP_ST_CLOSED)
		return closed_segment(c);
	if (!mode->strict || is_lenient(c)) {
		learn_again(c, side, s, mode);
	} else {
		if (!in_window(c, side, s))
			return TCPTRACK_DROP_WINDOW;
		if (!seq_geq(c->end[side], s->end)) { /* beyond its FIN: that was nobody's */
			f->flags &= (uint8_t)~fin_seen[side];
			c->admin &= (uint8_t)~fin_acked[side];
		}
		learn(c, side, s);
	}
	if (side != opener_of(f))
		c->wflags[SIDE_OUT] &= (uint8_t)~TCP_SYN_AGAIN; /* the responder has challenged it */
	f->flags &= (uint8_t)~FP_RF_RESET;
	note_fin_acks(f, c, side, s, p);
	state = after_data(f, c, side);
	if (state > f->state)
		f->state = state;
	return f->state == had_state && f->flags == had_flags ? TCPTRACK_PASS : TCPTRACK_CHANGED;
}

enum tcptrack_result tcptrack_segment(struct flow_hot *f, struct flow_cold *c, uint32_t side,
				      const struct pkt *p, const struct tcptrack_mode *mode)
{
	const uint8_t odd = FP_RF_FIN_ORIG | FP_RF_FIN_REPLY | FP_RF_RESET;
	struct segment s;

	/* Another node may have been ACTIVE since this one last saw the session. */
	if (unlikely(c->watch != mode->watch)) {
		c->watch = mode->watch;
		make_lenient(c);
	}
	s = read_segment(c, side, p);
	if (unlikely(p->tcp_flags & TCP_RST))
		return rst_segment(f, c, side, &s, p, mode);
	if (unlikely(p->tcp_flags & TCP_SYN))
		return syn_segment(f, c, side, &s, p, mode);
	if (unlikely(f->state != FP_ST_ESTABLISHED || (f->flags & odd) || (p->tcp_flags & TCP_FIN) ||
		     (c->wflags[SIDE_OUT] & (TCP_LENIENT | TCP_SYN_AGAIN)) || !mode->strict))
		return data_segment(f, c, side, &s, p, mode);
	if (unlikely(!in_window(c, side, &s)))
		return TCPTRACK_DROP_WINDOW;
	learn(c, side, &s);
	return TCPTRACK_PASS;
}

void tcptrack_open(struct flow_hot *f, struct flow_cold *c, const struct pkt *p,
		   const struct tcptrack_mode *mode)
{
	bool syn = p->tcp_flags & TCP_SYN, ack = p->tcp_flags & TCP_ACK_FLAG;
	uint32_t side = syn && ack ? opener_of(f) ^ 1 : opener_of(f), other = side ^ 1;
	struct segment s = read_segment(c, side, p);

	c->watch = mode->watch;
	if (syn && !ack) {
		f->state = FP_ST_SYN_SENT;
		learn_syn(c, side, &s, p);
		return;
	}
	f->state = syn ? FP_ST_SYN_RECV : FP_ST_ESTABLISHED;
	make_lenient(c);
	c->end[side] = s.end;
	c->end[other] = s.ack;
	c->max_end[side] = s.end;
	c->max_end[other] = s.ack + max_u32(s.win, 1);
	c->max_win[side] = s.win;
	if (syn)
		learn_options(c, side, p);
}
