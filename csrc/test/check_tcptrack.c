/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_tcptrack.c - the table of tcptrack.h, row by row
 */
#include "../tcptrack.h"
#include "check.h"
#include "frames.h"

enum { SYN = TCP_SYN, ACK = TCP_ACK_FLAG, FIN = TCP_FIN, RST = TCP_RST };

struct conn {
	struct flow_hot f;
	struct flow_cold c;
};

struct seg {
	uint32_t side;
	uint8_t flags;
	uint32_t seq, ack, payload;
};

static uint8_t room[FP_FRAME_MAX];

static struct pkt packet(const struct seg *s)
{
	struct spec spec = { .proto = IPPROTO_NUM_TCP,
			     .src = CLIENT,
			     .dst = SERVER,
			     .sport = 1000,
			     .dport = 80,
			     .tcp_flags = s->flags,
			     .seq = s->seq,
			     .ack = s->ack,
			     .payload = s->payload };
	struct fp_frame f = frames_ipv4(room, LAN, mac_virtual[LAN], &spec);
	struct pkt p;

	FP_ASSERT(pkt_parse_ip(&p, &f) == V_GO_ON && pkt_parse_l4(&p) == V_GO_ON);
	return p;
}

static struct conn opened(uint32_t seq)
{
	struct conn conn = { .f = { .proto = IPPROTO_NUM_TCP } };
	struct seg syn = { SIDE_OUT, SYN, seq, 0, 0 };
	struct pkt p = packet(&syn);

	tcptrack_open(&conn.f, &conn.c, &p, SIDE_OUT);
	return conn;
}

static enum tcptrack_result feed(struct conn *conn, uint32_t side, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct seg s = { side, flags, seq, ack, 0 };
	struct pkt p = packet(&s);

	return tcptrack_segment(&conn->f, &conn->c, side, &p);
}

static struct conn established(void)
{
	struct conn conn = opened(100);

	feed(&conn, SIDE_IN, SYN | ACK, 500, 101);
	feed(&conn, SIDE_OUT, ACK, 101, 501);
	return conn;
}

static void check_flags(void)
{
	static const uint8_t sane[] = { SYN, SYN | ACK, ACK,           FIN | ACK,
					RST, RST | ACK, ACK | TCP_PSH, SYN | 0xc0 };
	static const uint8_t insane[] = { 0,      FIN, SYN | FIN, SYN | RST, FIN | RST | ACK, SYN | FIN | ACK,
					  TCP_PSH };

	for (uint32_t i = 0; i < ARRAY_SIZE(sane); i++)
		CHECK(1, tcptrack_flags_ok(sane[i]));
	for (uint32_t i = 0; i < ARRAY_SIZE(insane); i++)
		CHECK(2, !tcptrack_flags_ok(insane[i]));
}

static void check_life(void)
{
	struct conn c = opened(100);

	CHECK_EQ(10, c.f.state, FP_ST_SYN_SENT);
	CHECK_EQ(11, feed(&c, SIDE_OUT, SYN, 100, 0), TCPTRACK_PASS); /* retransmission */
	CHECK_EQ(12, feed(&c, SIDE_IN, SYN | ACK, 500, 101), TCPTRACK_CHANGED);
	CHECK_EQ(13, c.f.state, FP_ST_SYN_RECV);
	CHECK_EQ(14, feed(&c, SIDE_IN, SYN | ACK, 500, 101), TCPTRACK_PASS);
	CHECK_EQ(15, feed(&c, SIDE_OUT, ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(16, c.f.state, FP_ST_ESTABLISHED);
	CHECK_EQ(17, feed(&c, SIDE_IN, ACK, 501, 101), TCPTRACK_PASS);
	CHECK_EQ(18, feed(&c, SIDE_OUT, FIN | ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(19, c.f.state, FP_ST_FIN_WAIT);
	CHECK_EQ(20, c.f.flags, FP_RF_FIN_ORIG);
	CHECK_EQ(21, feed(&c, SIDE_IN, ACK, 501, 102), TCPTRACK_PASS); /* half closed: the server may go on */
	CHECK_EQ(22, feed(&c, SIDE_IN, FIN | ACK, 501, 102), TCPTRACK_CHANGED);
	CHECK_EQ(23, c.f.state, FP_ST_CLOSING);
	CHECK_EQ(24, feed(&c, SIDE_OUT, ACK, 102, 501), TCPTRACK_PASS); /* an old one */
	CHECK_EQ(25, feed(&c, SIDE_OUT, ACK, 102, 502), TCPTRACK_CHANGED);
	CHECK_EQ(26, c.f.state, FP_ST_TIME_WAIT);
	CHECK_EQ(27, feed(&c, SIDE_IN, FIN | ACK, 501, 102), TCPTRACK_PASS);
	CHECK_EQ(28, feed(&c, SIDE_IN, SYN, 900, 0), TCPTRACK_DROP);
	CHECK_EQ(29, feed(&c, SIDE_OUT, SYN, 900, 0), TCPTRACK_REOPEN);
	CHECK_EQ(30, c.f.state, FP_ST_TIME_WAIT); /* reopening is the caller's */
}

/* Spec: RFC 5382 REQ-2: simultaneous open. */
static void check_simultaneous(void)
{
	struct conn c = opened(100);

	CHECK_EQ(40, feed(&c, SIDE_IN, SYN, 500, 0), TCPTRACK_CHANGED);
	CHECK_EQ(41, c.f.state, FP_ST_SYN_RECV);
	CHECK_EQ(42, feed(&c, SIDE_OUT, SYN | ACK, 100, 501), TCPTRACK_PASS);
	CHECK_EQ(43, feed(&c, SIDE_IN, SYN | ACK, 500, 101), TCPTRACK_PASS);
	CHECK_EQ(44, feed(&c, SIDE_OUT, ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(45, c.f.state, FP_ST_ESTABLISHED);
	/* Simultaneous close. */
	CHECK_EQ(46, feed(&c, SIDE_OUT, FIN | ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(47, feed(&c, SIDE_IN, FIN | ACK, 501, 101), TCPTRACK_CHANGED);
	CHECK_EQ(48, c.f.state, FP_ST_CLOSING);
	feed(&c, SIDE_OUT, ACK, 102, 502);
	CHECK_EQ(49, c.f.state, FP_ST_CLOSING);
	feed(&c, SIDE_IN, ACK, 502, 102);
	CHECK_EQ(50, c.f.state, FP_ST_TIME_WAIT);
}

static void check_refused(void)
{
	struct conn c = opened(100);

	CHECK_EQ(60, feed(&c, SIDE_OUT, ACK, 101, 501), TCPTRACK_DROP);
	CHECK_EQ(61, feed(&c, SIDE_OUT, SYN | ACK, 101, 501), TCPTRACK_DROP);
	CHECK_EQ(62, feed(&c, SIDE_IN, ACK, 501, 77), TCPTRACK_PASS); /* a challenge; changes nothing */
	CHECK_EQ(63, feed(&c, SIDE_IN, FIN | ACK, 501, 77), TCPTRACK_PASS);
	CHECK_EQ(64, c.f.state, FP_ST_SYN_SENT);
	CHECK_EQ(65, c.f.flags, 0);
	c = established();
	CHECK_EQ(66, feed(&c, SIDE_IN, SYN, 900, 0), TCPTRACK_DROP);
	CHECK_EQ(67, feed(&c, SIDE_OUT, SYN, 900, 0), TCPTRACK_PASS); /* the server challenges it */
	CHECK_EQ(68, c.f.state, FP_ST_ESTABLISHED);
}

static void check_reset(void)
{
	struct conn c = opened(100);

	feed(&c, SIDE_IN, RST | ACK, 0, 777); /* acknowledges what was not sent */
	CHECK_EQ(80, c.f.state, FP_ST_SYN_SENT);
	CHECK_EQ(81, feed(&c, SIDE_IN, RST | ACK, 0, 101), TCPTRACK_CHANGED);
	CHECK_EQ(82, c.f.state, FP_ST_CLOSED);
	c = established();
	CHECK_EQ(83, feed(&c, SIDE_IN, RST, 501 + 100000, 0), TCPTRACK_PASS); /* blind: out of the window */
	CHECK_EQ(84, c.f.state, FP_ST_ESTABLISHED);
	CHECK_EQ(85, feed(&c, SIDE_IN, RST, 501, 0), TCPTRACK_CHANGED);
	CHECK_EQ(86, c.f.state, FP_ST_CLOSED);
	CHECK_EQ(87, feed(&c, SIDE_OUT, SYN, 5000, 0), TCPTRACK_REOPEN);
	c = established();
	CHECK_EQ(88, feed(&c, SIDE_OUT, RST | ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(89, c.f.state, FP_ST_CLOSED);
}

/* An imported record may be behind the connection: progress is taken, and states go forward only. */
static void check_imported(void)
{
	struct conn c = { .f = { .proto = IPPROTO_NUM_TCP, .state = FP_ST_SYN_SENT },
			  .c = { .admin = ADMIN_LENIENT } };

	CHECK_EQ(100, feed(&c, SIDE_OUT, ACK, 90000, 80000), TCPTRACK_CHANGED);
	CHECK_EQ(101, c.f.state, FP_ST_ESTABLISHED);
	c.f.state = FP_ST_SYN_SENT;
	CHECK_EQ(102, feed(&c, SIDE_IN, ACK, 80000, 90000), TCPTRACK_CHANGED);
	CHECK_EQ(103, c.f.state, FP_ST_ESTABLISHED);
	c = (struct conn){ .f = { .state = FP_ST_ESTABLISHED }, .c = { .admin = ADMIN_LENIENT } };
	CHECK_EQ(104, feed(&c, SIDE_IN, ACK, 123, 456),
		 TCPTRACK_PASS); /* no window is known: any number will do */
	CHECK_EQ(105, feed(&c, SIDE_OUT, RST, 456, 0), TCPTRACK_CHANGED);
	CHECK_EQ(106, c.f.state, FP_ST_CLOSED);
}

static void check_windows(void)
{
	struct conn c = established();
	struct seg data = { SIDE_OUT, ACK | TCP_PSH, 101, 501, 400 };
	struct pkt p = packet(&data);

	tcptrack_segment(&c.f, &c.c, SIDE_OUT, &p);
	CHECK_EQ(120, c.c.end[SIDE_OUT], 501);
	CHECK_EQ(121, c.c.max_win[SIDE_OUT], 1000);
	CHECK_EQ(122, c.c.max_end[SIDE_IN], 501 + 1000);
	/* An old segment moves nothing back. */
	feed(&c, SIDE_OUT, ACK, 101, 501);
	CHECK_EQ(123, c.c.end[SIDE_OUT], 501);
	/* Sequence numbers wrap. */
	c = opened(UINT32_MAX - 1);
	feed(&c, SIDE_IN, SYN | ACK, UINT32_MAX, UINT32_MAX);
	feed(&c, SIDE_OUT, ACK, UINT32_MAX, 0);
	CHECK_EQ(124, c.f.state, FP_ST_ESTABLISHED);
	CHECK_EQ(125, c.c.end[SIDE_IN], 0);
}

static void check_options(void)
{
	static const uint8_t options[12] = { 2, 4, 5, 0xb4, 1, 3, 3, 77, 4, 2, 0, 0 };
	struct conn c = { .f = { .proto = IPPROTO_NUM_TCP } };
	struct seg syn = { SIDE_OUT, SYN, 1, 0, sizeof(options) };
	struct pkt p = packet(&syn);

	p.l4[TCP_OFF] = 8 << 4;
	memcpy(p.l4 + TCP_LEN, options, sizeof(options));
	tcptrack_open(&c.f, &c.c, &p, SIDE_OUT);
	CHECK_EQ(140, c.c.scale[SIDE_OUT], 14); /* RFC 7323: no more than 14 */
	CHECK_EQ(141, c.c.wflags[SIDE_OUT], TCP_WIN_SCALE_KNOWN | TCP_WIN_SACK | TCP_WIN_END_KNOWN);
	/* Lengths that lie: 0, 1, and beyond the header. */
	for (uint32_t len = 0; len < 256; len++) {
		p.l4[TCP_LEN + 5] = 3;
		p.l4[TCP_LEN + 6] = (uint8_t)len;
		memset(&c.c, 0, sizeof(c.c));
		tcptrack_open(&c.f, &c.c, &p, SIDE_OUT);
		CHECK_EQ(142, c.c.scale[SIDE_OUT], len == 3 ? 14 : 0);
	}
}

int main(void)
{
	check_flags();
	check_life();
	check_simultaneous();
	check_refused();
	check_reset();
	check_imported();
	check_windows();
	check_options();
	return check_done("tcptrack");
}
