/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_tcptrack.c - the table and the rules of tcptrack.h, row by row
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
static struct tcptrack_mode mode = { .strict = true };

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

	tcptrack_open(&conn.f, &conn.c, &p, &mode);
	return conn;
}

static enum tcptrack_result feed(struct conn *conn, uint32_t side, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct seg s = { side, flags, seq, ack, 0 };
	struct pkt p = packet(&s);

	return tcptrack_segment(&conn->f, &conn->c, side, &p, &mode);
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

/* A FIN that is not where its side ends: the session is closed when both have closed it. */
static void check_forged_fin(void)
{
	struct conn c = established();
	struct seg more = { SIDE_IN, ACK, 501, 102, 200 };
	struct pkt p;

	CHECK_EQ(51, feed(&c, SIDE_IN, FIN | ACK, 501 - 300, 101), TCPTRACK_PASS); /* below */
	CHECK_EQ(52, c.f.flags, 0);
	CHECK_EQ(53, feed(&c, SIDE_IN, FIN | ACK, 501 + 100, 101), TCPTRACK_CHANGED); /* above */
	CHECK_EQ(54, c.f.flags, FP_RF_FIN_REPLY);
	CHECK_EQ(55, feed(&c, SIDE_OUT, FIN | ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(56, c.f.state, FP_ST_CLOSING);
	p = packet(&more);
	CHECK_EQ(57, tcptrack_segment(&c.f, &c.c, SIDE_IN, &p, &mode), TCPTRACK_CHANGED);
	CHECK_EQ(58, c.f.flags, FP_RF_FIN_ORIG);
	feed(&c, SIDE_OUT, ACK, 102, 701);
	CHECK_EQ(59, c.f.state, FP_ST_CLOSING); /* refreshed by what passes; states go forward only */
	feed(&c, SIDE_IN, FIN | ACK, 701, 102);
	feed(&c, SIDE_OUT, ACK, 102, 702);
	CHECK_EQ(69, c.f.state, FP_ST_TIME_WAIT);
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

/* Spec: RFC 7857 section 2.2, RFC 5961 section 3. */
static void check_reset(void)
{
	struct conn c = opened(100);

	CHECK_EQ(79, feed(&c, SIDE_IN, RST | ACK, 0, 777), TCPTRACK_DROP_RST); /* of what was not sent */
	CHECK_EQ(80, c.f.state, FP_ST_SYN_SENT);
	CHECK_EQ(81, feed(&c, SIDE_IN, RST | ACK, 0, 101), TCPTRACK_CHANGED);
	CHECK_EQ(82, c.f.state, FP_ST_CLOSED);
	c = established();
	CHECK_EQ(83, feed(&c, SIDE_IN, RST, 501 + 100000, 0),
		 TCPTRACK_DROP_RST); /* blind: out of the window */
	CHECK_EQ(84, feed(&c, SIDE_IN, RST, 501 - 100000, 0), TCPTRACK_DROP_RST);
	CHECK_EQ(85, c.f.flags, 0);
	CHECK_EQ(86, feed(&c, SIDE_IN, RST, 501, 0), TCPTRACK_CHANGED);
	CHECK_EQ(87, c.f.state, FP_ST_ESTABLISHED); /* states go forward only */
	CHECK_EQ(88, c.f.flags, FP_RF_RESET);
	CHECK(89, tcptrack_is_over(&c.f));
	CHECK_EQ(90, feed(&c, SIDE_IN, RST, 501, 0), TCPTRACK_PASS);
	/* Whoever still speaks takes it back: the challenge of RFC 5961, or data. */
	CHECK_EQ(91, feed(&c, SIDE_OUT, ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(92, c.f.flags, 0);
	CHECK_EQ(93, feed(&c, SIDE_OUT, RST | ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(94, feed(&c, SIDE_IN, ACK, 501 + 500000, 101), TCPTRACK_DROP_WINDOW);
	CHECK(95, tcptrack_is_over(&c.f));
	CHECK_EQ(96, feed(&c, SIDE_OUT, SYN, 5000, 0), TCPTRACK_REOPEN);
	/* The opener answers a half-open responder's challenge: its numbers are the old connection's. */
	c = opened(100);
	CHECK_EQ(97, feed(&c, SIDE_OUT, RST, 987654, 0), TCPTRACK_PASS);
	CHECK_EQ(98, c.f.state, FP_ST_SYN_SENT);
	CHECK_EQ(99, feed(&c, SIDE_OUT, RST, 101, 0), TCPTRACK_CHANGED);
	CHECK_EQ(100, c.f.state, FP_ST_CLOSED);
}

/* The opener starts again on a session that the node holds for open. */
static void check_syn_again(void)
{
	struct conn c = established();

	CHECK_EQ(110, feed(&c, SIDE_OUT, SYN, 900000, 0), TCPTRACK_PASS);
	CHECK_EQ(111, feed(&c, SIDE_IN, ACK, 501, 101), TCPTRACK_PASS); /* the responder knows better */
	CHECK_EQ(112, feed(&c, SIDE_IN, SYN | ACK, 700000, 900001), TCPTRACK_DROP_WINDOW);
	CHECK_EQ(113, feed(&c, SIDE_OUT, SYN, 900000, 0), TCPTRACK_PASS);
	CHECK_EQ(114, feed(&c, SIDE_IN, RST | ACK, 4000000, 900001), TCPTRACK_PASS); /* or nobody listens */
	CHECK_EQ(115, c.f.flags, 0);
	CHECK_EQ(116, feed(&c, SIDE_IN, SYN | ACK, 700000, 900001), TCPTRACK_REOPEN); /* or has forgotten */
	{
		struct seg answer = { SIDE_IN, SYN | ACK, 700000, 900001, 0 };
		struct pkt p = packet(&answer);

		c = (struct conn){ .f = { .proto = IPPROTO_NUM_TCP } };
		tcptrack_open(&c.f, &c.c, &p, &mode);
	}
	CHECK_EQ(117, c.f.state, FP_ST_SYN_RECV);
	CHECK_EQ(118, feed(&c, SIDE_OUT, ACK, 900001, 700001), TCPTRACK_CHANGED);
	CHECK_EQ(119, c.f.state, FP_ST_ESTABLISHED);
	/* The SYN of the handshake, overtaken by what followed, is no new one. */
	c = established();
	feed(&c, SIDE_OUT, SYN, 100, 0);
	CHECK_EQ(120, c.c.wflags[SIDE_OUT] & TCP_SYN_AGAIN, 0);
}

/* The opener is outside: the same table, the other way round. */
static void check_inbound(void)
{
	struct conn c = { .f = { .proto = IPPROTO_NUM_TCP, .flags = FP_RF_INBOUND } };
	struct seg syn = { SIDE_IN, SYN, 100, 0, 0 };
	struct pkt p = packet(&syn);

	tcptrack_open(&c.f, &c.c, &p, &mode);
	CHECK_EQ(130, feed(&c, SIDE_IN, ACK, 101, 501), TCPTRACK_DROP);
	CHECK_EQ(131, feed(&c, SIDE_OUT, SYN | ACK, 500, 101), TCPTRACK_CHANGED);
	CHECK_EQ(132, c.f.state, FP_ST_SYN_RECV);
	CHECK_EQ(133, feed(&c, SIDE_IN, ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(134, c.f.state, FP_ST_ESTABLISHED);
	CHECK_EQ(135, feed(&c, SIDE_OUT, SYN, 9000, 0), TCPTRACK_DROP); /* the responder opens nothing */
	CHECK_EQ(136, feed(&c, SIDE_IN, FIN | ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(137, c.f.flags, FP_RF_INBOUND | FP_RF_FIN_REPLY); /* named by place, not by role */
	CHECK_EQ(138, feed(&c, SIDE_OUT, FIN | ACK, 501, 102), TCPTRACK_CHANGED);
	CHECK_EQ(139, feed(&c, SIDE_IN, ACK, 102, 502), TCPTRACK_CHANGED);
	CHECK_EQ(140, c.f.state, FP_ST_TIME_WAIT);
	CHECK_EQ(141, feed(&c, SIDE_IN, SYN, 900000, 0), TCPTRACK_REOPEN);
}

/* The opener is outside, where RST and SYN may both be forged: what the responder says decides. */
static void check_inbound_reset(void)
{
	struct conn c = { .f = { .proto = IPPROTO_NUM_TCP, .flags = FP_RF_INBOUND } };
	struct seg syn = { SIDE_IN, SYN, 100, 0, 0 };
	struct pkt p = packet(&syn);

	tcptrack_open(&c.f, &c.c, &p, &mode);
	feed(&c, SIDE_OUT, SYN | ACK, 500, 101);
	feed(&c, SIDE_IN, ACK, 101, 501);
	CHECK_EQ(142, feed(&c, SIDE_IN, RST, 101 + 700, 0), TCPTRACK_CHANGED);
	CHECK_EQ(143, feed(&c, SIDE_IN, SYN, 900000, 0), TCPTRACK_PASS);
	CHECK_EQ(144, feed(&c, SIDE_OUT, ACK, 501, 101), TCPTRACK_CHANGED); /* it challenges: forged */
	CHECK_EQ(145, c.f.flags, FP_RF_INBOUND);
	CHECK_EQ(146, feed(&c, SIDE_IN, ACK, 101, 501), TCPTRACK_PASS);
	/* Genuine: the responder has closed, too. The numbers may be those of the old connection. */
	for (uint32_t seq = 100; seq < 900100; seq += 900000 - 1) {
		CHECK_EQ(147, feed(&c, SIDE_IN, RST, 101, 0),
			 c.f.flags & FP_RF_RESET ? TCPTRACK_PASS : TCPTRACK_CHANGED);
		CHECK_EQ(148, feed(&c, SIDE_IN, SYN, seq, 0), TCPTRACK_PASS);
		CHECK_EQ(149, feed(&c, SIDE_OUT, SYN | ACK, 700000, seq + 1), TCPTRACK_REOPEN);
	}
}

/* Two answers to one SYN that differ: SYN cookies. Nobody knows which one the opener has taken. */
static void check_two_answers(void)
{
	struct conn c = opened(100);

	feed(&c, SIDE_IN, SYN | ACK, 500, 101);
	CHECK_EQ(150, feed(&c, SIDE_IN, SYN | ACK, 700000000, 101), TCPTRACK_PASS);
	CHECK_EQ(151, feed(&c, SIDE_OUT, ACK, 101, 501), TCPTRACK_CHANGED);
	CHECK_EQ(152, c.f.state, FP_ST_ESTABLISHED);
	CHECK_EQ(153, feed(&c, SIDE_IN, ACK, 501, 101), TCPTRACK_PASS);
}

/* An imported record may be behind the connection: progress is taken, and states go forward only. */
static void check_imported(void)
{
	struct tcptrack_mode later = { .strict = true, .settled = true };
	struct fp_tcp_win win[2] = { { .end = 50, .max_end = 60, .max_win = 1000, .flags = TCP_WIN_SYN },
				     { .end = 70, .max_end = 80, .max_win = 1000, .flags = TCP_WIN_SYN } };
	struct conn c = { .f = { .proto = IPPROTO_NUM_TCP, .state = FP_ST_SYN_SENT } };

	tcptrack_import(&c.c, win);
	CHECK_EQ(160, feed(&c, SIDE_OUT, ACK, 900000, 800000), TCPTRACK_CHANGED);
	CHECK_EQ(161, c.f.state, FP_ST_ESTABLISHED);
	c.f.state = FP_ST_SYN_SENT;
	CHECK_EQ(162, feed(&c, SIDE_IN, ACK, 800000, 900000), TCPTRACK_CHANGED);
	CHECK_EQ(163, c.f.state, FP_ST_ESTABLISHED);
	/* No window is known: any RST passes, none is believed. */
	tcptrack_import(&c.c, win);
	CHECK_EQ(164, feed(&c, SIDE_OUT, RST, 1000000, 0), TCPTRACK_PASS);
	CHECK_EQ(165, c.f.flags, 0);
	/* They agree; but what is in flight since before the takeover may come yet. */
	for (uint32_t i = 0; i < 3; i++) {
		feed(&c, SIDE_OUT, ACK, 900000, 800000);
		feed(&c, SIDE_IN, ACK, 800000, 900000);
	}
	CHECK_EQ(171, c.c.wflags[SIDE_OUT] & TCP_LENIENT, TCP_LENIENT);
	/* Strict once the time is up and both sides have said the same; a forged one in between has not. */
	mode = later;
	feed(&c, SIDE_OUT, ACK, 900000, 800000);
	feed(&c, SIDE_IN, ACK, 3000000000u, 2500000000u);
	CHECK_EQ(166, c.c.wflags[SIDE_OUT] & TCP_LENIENT, TCP_LENIENT);
	feed(&c, SIDE_OUT, ACK, 900000, 800000);
	feed(&c, SIDE_IN, ACK, 800000, 900000);
	CHECK_EQ(167, c.c.wflags[SIDE_OUT] & (TCP_LENIENT | TCP_LEARNED), TCP_LEARNED);
	CHECK_EQ(168, feed(&c, SIDE_IN, ACK, 3000000000u, 900000), TCPTRACK_DROP_WINDOW);
	CHECK_EQ(169, feed(&c, SIDE_IN, RST, 3000000000u, 0), TCPTRACK_DROP_RST);
	/* Held by a node that was not ACTIVE for a while: the same. */
	mode = (struct tcptrack_mode){ .strict = true, .watch = 7 };
	CHECK_EQ(170, feed(&c, SIDE_IN, ACK, 3000000000u, 900000), TCPTRACK_PASS);
	mode = (struct tcptrack_mode){ .strict = true };
}

/* Rules I to IV, each at its edge. The windows are 1000 bytes wide, unscaled. */
static void check_rules(void)
{
	const uint32_t slack = 2 * 1000 + 66000;
	struct conn c = established();

	CHECK_EQ(180, feed(&c, SIDE_IN, ACK, 501 + 1000, 101), TCPTRACK_PASS); /* probe of a full window */
	CHECK_EQ(181, feed(&c, SIDE_OUT, ACK, 101 + 1001, 501), TCPTRACK_DROP_WINDOW);
	CHECK_EQ(182, feed(&c, SIDE_OUT, ACK, 100, 501), TCPTRACK_PASS); /* keep-alive */
	CHECK_EQ(183, feed(&c, SIDE_OUT, ACK, 101 - slack, 501), TCPTRACK_PASS);
	CHECK_EQ(184, feed(&c, SIDE_OUT, ACK, 101 - slack - 1, 501), TCPTRACK_DROP_WINDOW);
	CHECK_EQ(185, feed(&c, SIDE_IN, ACK, 501, 102), TCPTRACK_DROP_WINDOW); /* was not sent */
	CHECK_EQ(186, feed(&c, SIDE_IN, ACK, 501, 101 - slack), TCPTRACK_PASS);
	CHECK_EQ(187, feed(&c, SIDE_IN, ACK, 501, 101 - slack - 1), TCPTRACK_DROP_WINDOW);
	CHECK_EQ(188, feed(&c, SIDE_IN, FIN | ACK, 501 + 5000, 101), TCPTRACK_DROP_WINDOW);
	CHECK_EQ(189, c.f.state, FP_ST_ESTABLISHED);
	mode.strict = false; /* tcp_window = "lenient" */
	CHECK_EQ(190, feed(&c, SIDE_IN, ACK, 501 + 5000000, 101), TCPTRACK_PASS);
	CHECK_EQ(191, feed(&c, SIDE_IN, RST, 501 + 50000000, 101), TCPTRACK_PASS);
	CHECK_EQ(192, c.f.flags, 0);
	mode.strict = true;
}

static void check_windows(void)
{
	struct conn c = established();
	struct seg data = { SIDE_OUT, ACK | TCP_PSH, 101, 501, 400 };
	struct pkt p = packet(&data);

	tcptrack_segment(&c.f, &c.c, SIDE_OUT, &p, &mode);
	CHECK_EQ(200, c.c.end[SIDE_OUT], 501);
	CHECK_EQ(201, c.c.max_win[SIDE_OUT], 1000);
	CHECK_EQ(202, c.c.max_end[SIDE_IN], 501 + 1000);
	/* An old segment moves nothing back. */
	feed(&c, SIDE_OUT, ACK, 101, 501);
	CHECK_EQ(203, c.c.end[SIDE_OUT], 501);
	/* Sequence numbers wrap. */
	c = opened(UINT32_MAX - 1);
	feed(&c, SIDE_IN, SYN | ACK, UINT32_MAX, UINT32_MAX);
	feed(&c, SIDE_OUT, ACK, UINT32_MAX, 0);
	CHECK_EQ(204, c.f.state, FP_ST_ESTABLISHED);
	CHECK_EQ(205, c.c.end[SIDE_IN], 0);
}

static void check_options(void)
{
	static const uint8_t options[12] = { 2, 4, 5, 0xb4, 1, 3, 3, 77, 4, 2, 0, 0 };
	struct conn c = { .f = { .proto = IPPROTO_NUM_TCP } };
	struct seg syn = { SIDE_OUT, SYN, 1, 0, sizeof(options) };
	struct pkt p = packet(&syn);

	p.l4[TCP_OFF] = 8 << 4;
	memcpy(p.l4 + TCP_LEN, options, sizeof(options));
	tcptrack_open(&c.f, &c.c, &p, &mode);
	CHECK_EQ(210, tcptrack_scale(&c.c, SIDE_OUT), 14); /* RFC 7323: no more than 14 */
	CHECK_EQ(211, c.c.wflags[SIDE_OUT], TCP_WIN_SCALE_KNOWN | TCP_WIN_SACK | TCP_WIN_SYN);
	/* Lengths that lie: 0, 1, and beyond the header. */
	for (uint32_t len = 0; len < 256; len++) {
		p.l4[TCP_LEN + 5] = 3;
		p.l4[TCP_LEN + 6] = (uint8_t)len;
		memset(&c.c, 0, sizeof(c.c));
		tcptrack_open(&c.f, &c.c, &p, &mode);
		CHECK_EQ(212, tcptrack_scale(&c.c, SIDE_OUT), len == 3 ? 14 : 0);
	}
}

int main(void)
{
	check_flags();
	check_life();
	check_forged_fin();
	check_simultaneous();
	check_refused();
	check_reset();
	check_syn_again();
	check_inbound();
	check_inbound_reset();
	check_two_answers();
	check_imported();
	check_rules();
	check_windows();
	check_options();
	return check_done("tcptrack");
}
