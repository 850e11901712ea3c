/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcptrack.c - TCP connection tracking; the table stands in tcptrack.h
 */
#include "tcptrack.h"

enum { OPT_END = 0, OPT_NOP = 1, OPT_SCALE = 3, OPT_SACK_PERMITTED = 4 };

/* Serial arithmetic on sequence numbers: is a at or after b? */
static bool seq_geq(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) >= 0;
}

bool tcptrack_flags_ok(uint8_t flags)
{
	uint8_t kind = flags & (TCP_SYN | TCP_FIN | TCP_RST);

	if (kind == 0 || kind == TCP_FIN)
		return flags & TCP_ACK_FLAG;
	return kind == TCP_SYN || kind == TCP_RST;
}

/* The options that matter to tracking stand in SYN segments only. */
static void learn_options(struct flow_cold *c, uint32_t side, const struct pkt *p)
{
	uint32_t len = (uint32_t)(p->l4[TCP_OFF] >> 4) * 4, at = TCP_LEN;

	c->wflags[side] &= (uint8_t)~(TCP_WIN_SCALE_KNOWN | TCP_WIN_SACK);
	c->scale[side] = 0;
	while (at < len && p->l4[at] != OPT_END) {
		uint32_t opt_len = p->l4[at] == OPT_NOP ? 1 : at + 1 < len ? p->l4[at + 1] : 0;

		if (opt_len == 0 || at + opt_len > len || (p->l4[at] != OPT_NOP && opt_len < 2))
			return; /* malformed: believe nothing of the rest */
		if (p->l4[at] == OPT_SCALE && opt_len == 3) {
			c->wflags[side] |= TCP_WIN_SCALE_KNOWN;
			c->scale[side] = (uint8_t)min_u32(p->l4[at + 2], TCP_SCALE_MAX);
		} else if (p->l4[at] == OPT_SACK_PERMITTED && opt_len == 2) {
			c->wflags[side] |= TCP_WIN_SACK;
		}
		at += opt_len;
	}
}

static void learn_window(struct flow_cold *c, uint32_t side, const struct pkt *p)
{
	uint32_t seq = be32_host(be32_load(p->l4 + TCP_SEQ)), ack = be32_host(be32_load(p->l4 + TCP_ACK));
	uint32_t payload = p->l4_len - (uint32_t)(p->l4[TCP_OFF] >> 4) * 4;
	uint32_t end = seq + payload + !!(p->tcp_flags & TCP_SYN) + !!(p->tcp_flags & TCP_FIN);
	uint32_t win = be16_host(be16_load(p->l4 + TCP_WINDOW));
	uint32_t other = side ^ 1;

	if (p->tcp_flags & TCP_SYN)
		learn_options(c, side, p); /* the window of a SYN itself is never scaled */
	else if (c->wflags[side] & c->wflags[other] & TCP_WIN_SCALE_KNOWN)
		win <<= c->scale[side];
	if (!(c->wflags[side] & TCP_WIN_END_KNOWN) || seq_geq(end, c->end[side])) {
		c->end[side] = end;
		c->wflags[side] |= TCP_WIN_END_KNOWN;
	}
	if (win > c->max_win[side])
		c->max_win[side] = win;
	if ((p->tcp_flags & TCP_ACK_FLAG) &&
	    (!c->max_end[other] || seq_geq(ack + max_u32(win, 1), c->max_end[other])))
		c->max_end[other] = ack + max_u32(win, 1);
}

/*
 * A blind RST must not end a session (RFC 5961 in spirit). Where windows are not known, an RST is believed:
 * the endpoint judges it anyway, and a session that stays too long costs only a record.
 */
static bool rst_is_genuine(const struct flow_hot *f, const struct flow_cold *c, uint32_t side,
			   const struct pkt *p)
{
	uint32_t seq = be32_host(be32_load(p->l4 + TCP_SEQ)), ack = be32_host(be32_load(p->l4 + TCP_ACK));
	uint32_t other = side ^ 1;

	if (f->state == FP_ST_SYN_SENT && side == SIDE_IN)
		return (p->tcp_flags & TCP_ACK_FLAG) &&
		       (!(c->wflags[other] & TCP_WIN_END_KNOWN) || ack == c->end[other]);
	if (!(c->wflags[side] & TCP_WIN_END_KNOWN) || !c->max_end[side])
		return true;
	return seq_geq(c->max_end[side], seq) && seq_geq(seq, c->end[side] - max_u32(c->max_win[other], 1));
}

static void note_fin_acks(struct flow_hot *f, struct flow_cold *c, uint32_t side, const struct pkt *p)
{
	static const uint8_t fin[2] = { FP_RF_FIN_ORIG, FP_RF_FIN_REPLY };
	static const uint8_t acked[2] = { ADMIN_FIN_ACKED_ORIG, ADMIN_FIN_ACKED_REPLY };
	uint32_t ack = be32_host(be32_load(p->l4 + TCP_ACK)), other = side ^ 1;

	if (p->tcp_flags & TCP_FIN)
		f->flags |= fin[side];
	if ((f->flags & fin[other]) && (p->tcp_flags & TCP_ACK_FLAG) &&
	    (!(c->wflags[other] & TCP_WIN_END_KNOWN) || seq_geq(ack, c->end[other])))
		c->admin |= acked[other];
}

/* What a segment that is neither SYN nor RST makes of the state; SYN_SENT comes here only when imported. */
static uint8_t after_data(struct flow_hot *f, struct flow_cold *c, uint32_t side, const struct pkt *p)
{
	const uint8_t both_fins = FP_RF_FIN_ORIG | FP_RF_FIN_REPLY;
	const uint8_t both_acked = ADMIN_FIN_ACKED_ORIG | ADMIN_FIN_ACKED_REPLY;

	note_fin_acks(f, c, side, p);
	if ((f->flags & both_fins) == both_fins)
		return (c->admin & both_acked) == both_acked ? FP_ST_TIME_WAIT : FP_ST_CLOSING;
	if (f->flags & both_fins)
		return FP_ST_FIN_WAIT;
	if (f->state < FP_ST_ESTABLISHED && (side == SIDE_OUT || (c->admin & ADMIN_LENIENT)))
		return FP_ST_ESTABLISHED;
	return f->state;
}

enum tcptrack_result tcptrack_segment(struct flow_hot *f, struct flow_cold *c, uint32_t side,
				      const struct pkt *p)
{
	uint8_t flags = p->tcp_flags, state = f->state, had = f->flags;

	if (flags & TCP_RST) {
		if (rst_is_genuine(f, c, side, p))
			state = FP_ST_CLOSED;
	} else if (flags & TCP_SYN) {
		bool ack = flags & TCP_ACK_FLAG;

		if (side == SIDE_OUT && !ack && state >= FP_ST_TIME_WAIT)
			return TCPTRACK_REOPEN;
		if (side == SIDE_IN && !ack && state != FP_ST_SYN_SENT && state != FP_ST_SYN_RECV)
			return TCPTRACK_DROP;
		if (side == SIDE_OUT && ack && state == FP_ST_SYN_SENT && !(c->admin & ADMIN_LENIENT))
			return TCPTRACK_DROP;
		if (side == SIDE_IN && state == FP_ST_SYN_SENT)
			state = FP_ST_SYN_RECV;
		learn_window(c, side, p);
	} else {
		if (side == SIDE_OUT && state == FP_ST_SYN_SENT && !(c->admin & ADMIN_LENIENT))
			return TCPTRACK_DROP;
		/* A FIN or data from outside before its SYN: a half-open peer; only an imported
		 * record may be behind the truth. */
		if (side == SIDE_IN && state == FP_ST_SYN_SENT && !(c->admin & ADMIN_LENIENT))
			return TCPTRACK_PASS;
		learn_window(c, side, p);
		state = after_data(f, c, side, p);
	}
	if (state <= f->state && f->flags == had)
		return TCPTRACK_PASS;
	if (state > f->state)
		f->state = state;
	return TCPTRACK_CHANGED;
}

void tcptrack_open(struct flow_hot *f, struct flow_cold *c, const struct pkt *p, uint32_t side)
{
	if (p->tcp_flags & TCP_SYN) {
		f->state = FP_ST_SYN_SENT;
	} else {
		f->state = FP_ST_ESTABLISHED;
		c->admin |= ADMIN_LENIENT;
	}
	learn_window(c, side, p);
}
