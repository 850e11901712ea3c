/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_pulse.c - the rules of silence with a clock in hand, the fence, and two pulse threads that talk
 */
#include <poll.h>

#include "../clock.h"
#include "pulse_bench.h"

static const uint8_t codec_key[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

/* Sent and received on one path with one key; each byte as it is said here, and with a MAC that is right. */
static bool decodes_with(struct heartbeat hb, uint32_t at, uint8_t value)
{
	uint8_t bytes[HB_LEN], covered[HB_MAC_AT + 1];
	uint64_t mac;

	heartbeat_encode(&hb, codec_key, 2, bytes);
	bytes[at] = value;
	memcpy(covered, bytes, HB_MAC_AT);
	covered[HB_MAC_AT] = 2;
	mac = siphash24(codec_key, covered, sizeof(covered));
	for (uint32_t i = 0; i < 8; i++)
		bytes[HB_MAC_AT + i] = (uint8_t)(mac >> (56 - 8 * i));
	return decodes(bytes, HB_LEN_LEAST, codec_key, 2, &hb);
}

static void check_codec(void)
{
	const struct heartbeat in = {
		.node_index = 1,
		.role = FP_ROLE_ACTIVE,
		.flags = FP_HB_READY | FP_HB_BYE,
		.pair_id = 0x01020304,
		.interval_ms = 50,
		.priority = 150,
		.control_beat = 99,
		.incarnation = UINT64_C(0x1122334455667788),
		.term = 12345,
		.seq = 6,
		.t_ns = UINT64_C(0xfedcba9876543210),
		.echo = UINT64_C(0x8877665544332211),
		.answers = UINT64_C(0x0123456789abcdef),
		.heard = UINT64_C(0x13579bdf02468ace),
	};
	struct heartbeat out, late = in;
	uint8_t bytes[HB_LEN], again[HB_LEN], other_key[SIPHASH_KEY_LEN];

	heartbeat_encode(&in, codec_key, 2, bytes);
	CHECK(1, decodes(bytes, HB_LEN, codec_key, 2, &out));
	CHECK(15, out.extended && out.answers == in.answers && out.heard == in.heard);
	heartbeat_encode(&out, codec_key, 2, again);
	CHECK(2, memcmp(bytes, again, HB_LEN) == 0);
	CHECK(3, memcmp(bytes, "FXHB\2\1\3\3\1\2\3\4", 12) == 0);
	CHECK(4, !decodes(bytes, HB_LEN_LEAST - 1, codec_key, 2, &out));
	/* As a peer of an older version says it. */
	CHECK(16, decodes(bytes, HB_LEN_LEAST, codec_key, 2, &out) && !out.extended && !out.answers);
	CHECK(5, !decodes_with(in, 4, 1)); /* version */
	CHECK(6, !decodes_with(in, 6, FP_ROLE_FAULT + 1));
	CHECK(7, !decodes_with(in, 15, 0)); /* interval 0 */
	CHECK(8, decodes_with(in, 15, 1));
	late.term = TERM_MAX;
	CHECK(9, decodes_with(late, 4, HB_VERSION));
	late.term = TERM_MAX + 1; /* nobody can follow */
	CHECK(10, !decodes_with(late, 4, HB_VERSION));
	/* Another key, another path, any bit: not authentic. */
	memcpy(other_key, codec_key, sizeof(other_key));
	other_key[15] ^= 1;
	CHECK(11, !decodes(bytes, HB_LEN, other_key, 2, &out));
	CHECK(12, !decodes(bytes, HB_LEN, codec_key, 1, &out));
	for (uint32_t i = 0; i < 8 * HB_LEN; i++) {
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		CHECK(13, !decodes(bytes, HB_LEN, codec_key, 2, &out));
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	memset(bytes + HB_MAC_AT, 0, HB_LEN - HB_MAC_AT);
	CHECK(14, !decodes(bytes, HB_LEN, codec_key, 2, &out));
}

static void check_silence(void)
{
	struct bench *b = bench_open(config(0));
	uint64_t t = MS(1000);

	pulse_tick(&b->pulse, t);
	pulse_tick(&b->pulse, t += MS(50));
	expect_nothing(b, 10); /* a path never heard is no news */
	CHECK_EQ(11, hear(b, 1, 1, FP_ROLE_PASSIVE, 4, t), 0);
	pulse_tick(&b->pulse, t);
	expect(b, 12, FP_PULSE_PATH_UP, 1);
	expect(b, 13, FP_PULSE_PEER, 1);
	expect_nothing(b, 14);
	/* The same on another path: the path is news, the peer is not. */
	CHECK_EQ(15, hear(b, 2, 1, FP_ROLE_PASSIVE, 4, t += MS(10)), 0);
	pulse_tick(&b->pulse, t);
	expect(b, 16, FP_PULSE_PATH_UP, 2);
	expect_nothing(b, 17);
	/* Path 1 falls silent, path 2 goes on. */
	for (uint64_t i = 0; i < 5; i++) {
		t += MS(30);
		hear(b, 2, 2 + i, FP_ROLE_PASSIVE, 4, t);
		pulse_tick(&b->pulse, t);
	}
	expect(b, 18, FP_PULSE_PATH_DOWN, 1);
	expect_nothing(b, 19);
	CHECK_EQ(20, pulse_next_deadline(&b->pulse), 0); /* next_send_ns: the thread never ran */
	for (int i = 0; i < 4; i++)
		pulse_tick(&b->pulse, t += MS(50));
	expect(b, 21, FP_PULSE_PATH_DOWN, 2);
	/* The peer comes back as it was: whoever forgot it hears who it is again. */
	hear(b, 1, 50, FP_ROLE_PASSIVE, 4, t);
	pulse_tick(&b->pulse, t);
	expect(b, 22, FP_PULSE_PATH_UP, 1);
	expect(b, 23, FP_PULSE_PEER, 1);
	CHECK_EQ(24, counter_read(&b->pulse.paths[1].lost), 48);
	bench_close(b);
}

/* Spec: R13: 15 ms of silence are near to what a busy kernel needs; before they count, the peer is asked. */
static void check_doubt(void)
{
	struct fp_config cfg = config(0);
	struct bench *b;

	cfg.pulse.interval_ms = 5;
	b = bench_open(cfg);
	b->pulse.next_send_ns = UINT64_MAX;
	pulse_tick(&b->pulse, MS(1000));
	hear(b, 1, 1, FP_ROLE_PASSIVE, 4, MS(1000));
	hear(b, 2, 1, FP_ROLE_PASSIVE, 4, MS(1001));
	pulse_tick(&b->pulse, MS(1001));
	while (next_event(b).kind != UINT32_MAX)
		;
	CHECK_EQ(300, pulse_next_deadline(&b->pulse), MS(1015));
	for (uint64_t t = 1005; t <= 1015; t += 5)
		pulse_tick(&b->pulse, MS(t));
	expect(b, 301, FP_PULSE_PATH_DOWN, 1); /* the other one is heard */
	CHECK(302, !pulse_probe(&b->pulse, MS(1015)));
	CHECK_EQ(303, pulse_next_deadline(&b->pulse), MS(1016));
	pulse_tick(&b->pulse, MS(1016));
	expect_nothing(b, 304);
	CHECK(305, pulse_probe(&b->pulse, MS(1016)) && !pulse_probe(&b->pulse, MS(1016)));
	CHECK_EQ(306, pulse_next_deadline(&b->pulse), MS(1018));
	pulse_tick(&b->pulse, MS(1018));
	CHECK(307, pulse_probe(&b->pulse, MS(1018)));
	/* It was only late. */
	hear(b, 2, 2, FP_ROLE_PASSIVE, 4, MS(1019));
	pulse_tick(&b->pulse, MS(1019));
	expect_nothing(b, 308);
	CHECK(309, !pulse_probe(&b->pulse, MS(1021)));
	CHECK_EQ(310, pulse_next_deadline(&b->pulse), MS(1034));
	/* It is dead. */
	for (uint64_t t = 1023; t < 1049; t += 2)
		pulse_tick(&b->pulse, MS(t));
	pulse_tick(&b->pulse, MS(1049) - 1);
	expect_nothing(b, 311);
	pulse_tick(&b->pulse, MS(1049));
	expect(b, 312, FP_PULSE_PATH_DOWN, 2);
	CHECK(313, !pulse_probe(&b->pulse, MS(1051)));
	bench_close(b);
}

static void check_exact_limit(void)
{
	struct bench *b = bench_open(config(0));

	pulse_tick(&b->pulse, MS(1000));
	hear(b, 1, 1, FP_ROLE_PASSIVE, 4, MS(1000));
	pulse_tick(&b->pulse, MS(1000));
	next_event(b);
	next_event(b);
	pulse_tick(&b->pulse, MS(1050));
	pulse_tick(&b->pulse, MS(1100));
	pulse_tick(&b->pulse, MS(1150) - 1);
	expect_nothing(b, 30);
	pulse_tick(&b->pulse, MS(1150));
	expect(b, 31, FP_PULSE_PATH_DOWN, 1);
	bench_close(b);
}

/* We were stopped for a second: the peer, which was not, must not look dead. */
static void check_own_stall_is_no_silence(void)
{
	struct bench *b = bench_open(config(0));

	pulse_tick(&b->pulse, MS(1000));
	hear(b, 1, 1, FP_ROLE_PASSIVE, 4, MS(1000));
	pulse_tick(&b->pulse, MS(1010));
	next_event(b);
	next_event(b);
	pulse_tick(&b->pulse, MS(2010));
	expect_nothing(b, 40);
	pulse_tick(&b->pulse, MS(2060));
	expect_nothing(b, 41);
	pulse_tick(&b->pulse, MS(2110)); /* 10 + 50 + 50 + 50 ms were listened to */
	expect(b, 42, FP_PULSE_PATH_DOWN, 1);
	bench_close(b);
}

static void check_paths_may_reorder(void)
{
	struct bench *b = bench_open(config(0));

	hear(b, 1, 1, FP_ROLE_PASSIVE, 4, MS(1000));
	hear(b, 1, 2, FP_ROLE_ACTIVE, 5, MS(1050));
	hear(b, 2, 1, FP_ROLE_PASSIVE, 4, MS(1000)); /* sent before, heard after */
	CHECK_EQ(60, b->pulse.peer.role, FP_ROLE_ACTIVE);
	CHECK_EQ(61, b->pulse.peer.term, 5);
	bench_close(b);
}

static void check_fence(void)
{
	struct bench *b = bench_open(config(0));

	CHECK_EQ(70, fence_set(&b->fence, FP_ROLE_ACTIVE, 4), 0);
	hear(b, 1, 1, FP_ROLE_ACTIVE, 3, MS(1000)); /* an older reign */
	CHECK(71, fence_is_active(&b->fence));
	hear(b, 1, 2, FP_ROLE_PASSIVE, 9, MS(1010)); /* a higher term that nobody reigns in */
	CHECK(72, fence_is_active(&b->fence));
	hear(b, 1, 3, FP_ROLE_ACTIVE, 5, MS(1020));
	CHECK(73, !fence_is_active(&b->fence));
	CHECK_EQ(74, fence_term(fence_read(&b->fence)), 4);
	pulse_tick(&b->pulse, MS(1020));
	expect(b, 75, FP_PULSE_FENCED, 1);
	CHECK_EQ(76, fence_set(&b->fence, FP_ROLE_ACTIVE, 4), (uint64_t)-ESTALE);
	CHECK_EQ(77, fence_set(&b->fence, FP_ROLE_PASSIVE, 3), (uint64_t)-ESTALE);
	CHECK_EQ(78, fence_set(&b->fence, FP_ROLE_PASSIVE, 5), 0);
	CHECK_EQ(79, fence_set(&b->fence, FP_ROLE_ACTIVE, 6), 0);
	bench_close(b);
}

/* Reports wait for room, and come out merged. */
static void check_full_events_ring(void)
{
	struct bench *b = bench_open(config(0));

	while (ring_reserve_one(&b->pulse.events))
		ring_submit(&b->pulse.events, 1);
	hear(b, 1, 1, FP_ROLE_PASSIVE, 4, MS(1000));
	pulse_tick(&b->pulse, MS(1000));
	hear(b, 1, 2, FP_ROLE_ACTIVE, 5, MS(1010));
	pulse_tick(&b->pulse, MS(1010));
	for (uint32_t i = 0; i < PULSE_EVENT_SLOTS; i++)
		next_event(b);
	expect_nothing(b, 80);
	pulse_tick(&b->pulse, MS(1020));
	expect(b, 81, FP_PULSE_PATH_UP, 1);
	CHECK_EQ(82, next_event(b).peer.role, FP_ROLE_ACTIVE);
	expect_nothing(b, 83);
	bench_close(b);
}

/* ---- two threads over the loopback ---- */

static void xc(struct fp_config *cfg, be32 self, be32 peer)
{
	cfg->pulse.interval_ms = 20;
	cfg->pulse.xc_addr = addr_from_v4(self);
	cfg->pulse.xc_peer_addr = addr_from_v4(peer);
}

static bool wait_event(struct bench *b, uint32_t kind)
{
	const uint64_t deadline = clock_now() + 5 * NS_PER_S;

	while (clock_now() < deadline) {
		struct pollfd pfd = { .fd = b->events_fd, .events = POLLIN };
		struct fp_pulse_event ev;
		uint64_t n;

		while ((ev = next_event(b)).kind != UINT32_MAX) {
			if (ev.kind == kind)
				return true;
		}
		if (poll(&pfd, 1, 1000) == 1 && read(b->events_fd, &n, sizeof(n)) < 0)
			return false;
	}
	return false;
}

/* Whether both hold the line, as control sees it. */
static bool wait_line(struct bench *a, struct bench *b)
{
	const uint64_t deadline = clock_now() + 5 * NS_PER_S;

	while (!counter_read(&a->pulse.line.stands) || !counter_read(&b->pulse.line.stands)) {
		if (clock_now() > deadline)
			return false;
		sched_yield();
	}
	return true;
}

/* @kind comes, and @never does not come before. */
static bool next_event_but(struct bench *b, uint32_t never, uint32_t kind)
{
	const uint64_t deadline = clock_now() + 5 * NS_PER_S;

	while (clock_now() < deadline) {
		const struct fp_pulse_event ev = next_event(b);

		if (ev.kind == kind || ev.kind == never)
			return ev.kind == kind;
		sched_yield();
	}
	return false;
}

/* Two more heartbeats of the peer: the second one was said by somebody who had been heard by then. */
static bool wait_heartbeats(struct bench *b)
{
	const uint64_t deadline = clock_now() + 5 * NS_PER_S;
	const counter *received = &b->pulse.paths[PULSE_PATH_XC].received;
	const uint64_t from = counter_read(received);

	while (counter_read(received) < from + 2) {
		if (clock_now() > deadline)
			return false;
		sched_yield();
	}
	return true;
}

static void check_threads_talk(void)
{
	struct fp_config cfg_a = config(0), cfg_b = config(1);
	struct fp_error err = { "" };
	struct bench *a, *b;

	xc(&cfg_a, IP4(127, 0, 0, 21), IP4(127, 0, 0, 22));
	xc(&cfg_b, IP4(127, 0, 0, 22), IP4(127, 0, 0, 21));
	a = bench_open(cfg_a);
	b = bench_open(cfg_b);
	pulse_say(&a->pulse, FP_HB_READY, 150);
	REQUIRE(pulse_start(&a->pulse, &err) == 0);
	REQUIRE(pulse_start(&b->pulse, &err) == 0);
	CHECK(90, wait_event(a, FP_PULSE_PATH_UP));
	CHECK(91, wait_event(b, FP_PULSE_PATH_UP));
	CHECK_EQ(92, fence_set(&a->fence, FP_ROLE_ACTIVE, 4), 0);
	pulse_burst(&a->pulse);
	CHECK(93, wait_event(b, FP_PULSE_PEER));
	/* Another thread of a's has noticed something, and b hears a: it answers. */
	CHECK(100, wait_heartbeats(a));
	pulse_mark(&a->pulse, FP_MARK_SYNC_CLOSED);
	CHECK(99, wait_event(a, FP_PULSE_REFUTED));
	/* Both claim to be ACTIVE: the lower term goes. */
	CHECK_EQ(94, fence_set(&b->fence, FP_ROLE_ACTIVE, 5), 0);
	CHECK(95, wait_event(a, FP_PULSE_FENCED));
	CHECK(96, !fence_is_active(&a->fence) && fence_is_active(&b->fence));
	/* One that stops says goodbye: it has not died. */
	CHECK(98, wait_line(a, b));
	pulse_stop(&b->pulse);
	CHECK(97, next_event_but(a, FP_PULSE_DIED, FP_PULSE_PATH_DOWN));
	pulse_stop(&a->pulse);
	bench_close(a);
	bench_close(b);
}

/* Spec: R13, B2: the end of the life line is death, of the incarnation that it was of. */
static void check_proof(void)
{
	struct bench *b = bench_open(config(0));

	pulse_died(&b->pulse, 55, MS(900)); /* nobody is known */
	pulse_tick(&b->pulse, MS(1000));
	hear(b, 1, 1, FP_ROLE_ACTIVE, 4, MS(1000));
	hear(b, 2, 1, FP_ROLE_ACTIVE, 4, MS(1000));
	pulse_tick(&b->pulse, MS(1000));
	while (next_event(b).kind != UINT32_MAX)
		;
	pulse_died(&b->pulse, 54, MS(1001)); /* a life before that */
	pulse_tick(&b->pulse, MS(1001));
	expect_nothing(b, 400);
	pulse_suspect(&b->pulse, FP_MARK_SYNC_CLOSED, MS(1001));
	pulse_died(&b->pulse, 55, MS(1002));
	/* What was under way is not believed any more. */
	CHECK_EQ(401, hear(b, 1, 2, FP_ROLE_ACTIVE, 4, MS(1003)), -ESTALE);
	pulse_tick(&b->pulse, MS(1003));
	expect(b, 402, FP_PULSE_DIED, PULSE_PATH_XC);
	expect(b, 403, FP_PULSE_PATH_DOWN, 1);
	expect(b, 404, FP_PULSE_PATH_DOWN, 2);
	expect_nothing(b, 405); /* nor is anybody asked */
	CHECK(406, !pulse_probe(&b->pulse, MS(1003)));
	pulse_died(&b->pulse, 55, MS(1004)); /* once is enough */
	pulse_tick(&b->pulse, MS(1004));
	expect_nothing(b, 407);
	/* It speaks on, all the same. */
	CHECK_EQ(408, hear(b, 1, 3, FP_ROLE_ACTIVE, 4, MS(1023)), 0);
	pulse_tick(&b->pulse, MS(1023));
	expect(b, 409, FP_PULSE_PATH_UP, 1);
	expect(b, 410, FP_PULSE_PEER, 1);
	/* Its next life is believed at once, and proves nothing of itself. */
	pulse_died(&b->pulse, 55, MS(1024));
	CHECK_EQ(411, hear_life(b, 1, 56, b->cfg.pulse.incarnation, 1, MS(1025)), 0);
	pulse_died(&b->pulse, 55, MS(1026));
	pulse_tick(&b->pulse, MS(1026));
	CHECK(412, b->pulse.paths[1].alive);
	bench_close(b);
}

/* The peer says that it has heard the probe of @answers, or is of an older version. */
static int answer(struct bench *b, uint32_t path, uint64_t seq, uint64_t answers, uint32_t len,
		  uint64_t now_ns)
{
	const struct heartbeat hb = {
		.node_index = 1,
		.role = FP_ROLE_PASSIVE,
		.pair_id = PAIR,
		.interval_ms = 50,
		.incarnation = 55,
		.seq = seq,
		.t_ns = now_ns,
		.echo = b->cfg.pulse.incarnation,
		.answers = answers,
		.heard = now_ns,
	};
	uint8_t payload[HB_LEN];

	heartbeat_encode(&hb, b->cfg.pulse.mac_key, path, payload);
	return pulse_receive(&b->pulse, path, payload, len, now_ns);
}

/* Both paths are heard, and that has been reported. */
static struct bench *bench_with_peer(uint32_t len)
{
	struct bench *b = bench_open(config(0));

	CHECK_EQ(160, answer(b, 1, 1, 0, len, MS(1000)), 0);
	CHECK_EQ(161, answer(b, 2, 1, 0, len, MS(1000)), 0);
	pulse_tick(&b->pulse, MS(1000));
	while (next_event(b).kind != UINT32_MAX)
		;
	return b;
}

/* Spec: R13, B2: silence after a mark is death, long before the timers say so, and on all paths at once. */
static void check_suspicion_confirmed(void)
{
	struct bench *b = bench_with_peer(HB_LEN);
	struct fp_pulse_event ev;
	struct heartbeat hb;
	uint8_t bytes[HB_LEN];

	pulse_suspect(&b->pulse, FP_MARK_XC_CARRIER, MS(1010));
	for (uint64_t t = 1010; t < 1025; t++) {
		if (suspect_probe(&b->pulse.suspicion, MS(t))) {
			pulse_compose(&b->pulse, 1, MS(t), bytes);
			CHECK(170, decodes(bytes, HB_LEN, b->cfg.pulse.mac_key, 1, &hb));
			CHECK(171, hb.flags & FP_HB_PROBE && hb.t_ns == MS(t));
		}
		/* A heartbeat that was under way is no answer. */
		CHECK_EQ(172, answer(b, 1, t, MS(1009), HB_LEN, MS(t)), 0);
		pulse_tick(&b->pulse, MS(t));
		expect_nothing(b, 173);
	}
	pulse_tick(&b->pulse, MS(1025));
	ev = next_event(b);
	CHECK_EQ(174, ev.kind, FP_PULSE_DEAD);
	CHECK_EQ(175, ev.marks, FP_MARK_XC_CARRIER);
	CHECK_EQ(176, ev.probes, 8);
	CHECK_EQ(177, ev.asked_us, 15000);
	expect(b, 178, FP_PULSE_PATH_DOWN, 1);
	expect(b, 179, FP_PULSE_PATH_DOWN, 2);
	expect_nothing(b, 180);
	/* It was not dead: whoever forgot it hears who it is again. */
	CHECK_EQ(181, answer(b, 1, 2000, 0, HB_LEN, MS(1040)), 0);
	pulse_tick(&b->pulse, MS(1040));
	expect(b, 182, FP_PULSE_PATH_UP, 1);
	expect(b, 183, FP_PULSE_PEER, 1);
	bench_close(b);
}

static void check_suspicion_refuted(void)
{
	struct bench *b = bench_with_peer(HB_LEN);
	struct fp_pulse_event ev;

	pulse_suspect(&b->pulse, FP_MARK_XC_CARRIER, MS(1010));
	CHECK(190, suspect_probe(&b->pulse.suspicion, MS(1010)));
	CHECK_EQ(191, answer(b, 2, 2, MS(1010), HB_LEN, MS(1012)), 0);
	pulse_tick(&b->pulse, MS(1012));
	ev = next_event(b);
	CHECK_EQ(192, ev.kind, FP_PULSE_REFUTED);
	CHECK_EQ(193, ev.path, 2);
	CHECK_EQ(194, ev.rtt_us, 2000);
	pulse_tick(&b->pulse, MS(1030));
	expect_nothing(b, 195);
	bench_close(b);
	/* Who cannot answer is not asked, nor who is silent anyway, nor where that is switched off. */
	b = bench_with_peer(HB_LEN_LEAST);
	pulse_suspect(&b->pulse, FP_MARK_XC_CARRIER, MS(1010));
	CHECK(196, !b->pulse.suspicion.probing);
	bench_close(b);
	b = bench_with_peer(HB_LEN);
	pulse_tick(&b->pulse, MS(1050));
	pulse_tick(&b->pulse, MS(1100));
	pulse_tick(&b->pulse, MS(1150));
	pulse_suspect(&b->pulse, FP_MARK_XC_CARRIER, MS(1151));
	CHECK(197, !b->pulse.suspicion.probing);
	bench_close(b);
	b = bench_with_peer(HB_LEN);
	b->cfg.pulse.confirm_ms = 0;
	pulse_suspect(&b->pulse, FP_MARK_XC_CARRIER, MS(1010));
	CHECK(198, !b->pulse.suspicion.probing);
	bench_close(b);
}

/* Answered once each, where it came, and not faster than once a millisecond. */
static void check_probes_are_answered(void)
{
	struct bench *b = bench_with_peer(HB_LEN);
	struct heartbeat hb = {
		.node_index = 1,
		.role = FP_ROLE_PASSIVE,
		.flags = FP_HB_PROBE,
		.pair_id = PAIR,
		.interval_ms = 50,
		.incarnation = 55,
		.seq = 10,
		.t_ns = MS(2000),
		.echo = b->cfg.pulse.incarnation,
	};
	uint8_t bytes[HB_LEN];

	CHECK(200, !pulse_answer_due(&b->pulse, 1, MS(1010)));
	CHECK_EQ(201, say(b, 1, &hb, MS(1010)), 0);
	/* The path that it came by may pass one direction only. */
	CHECK(202, pulse_answer_due(&b->pulse, 2, MS(1010)));
	CHECK(211, !pulse_answer_due(&b->pulse, PULSE_PATH_XC, MS(1010)));
	CHECK(203, pulse_answer_due(&b->pulse, 1, MS(1010)));
	CHECK(204, !pulse_answer_due(&b->pulse, 1, MS(1010)));
	pulse_compose(&b->pulse, 1, MS(1010), bytes);
	CHECK(205, decodes(bytes, HB_LEN, b->cfg.pulse.mac_key, 1, &hb) && hb.answers == MS(2000));
	pulse_compose(&b->pulse, 2, MS(1010), bytes);
	CHECK(206, decodes(bytes, HB_LEN, b->cfg.pulse.mac_key, 2, &hb) && hb.answers == MS(2000));
	for (uint64_t i = 1; i <= 5; i++) {
		hb = (struct heartbeat){
			.node_index = 1,
			.role = FP_ROLE_PASSIVE,
			.flags = FP_HB_PROBE,
			.pair_id = PAIR,
			.interval_ms = 50,
			.incarnation = 55,
			.seq = 10 + i,
			.t_ns = MS(2000) + i,
			.echo = b->cfg.pulse.incarnation,
		};
		CHECK_EQ(207, say(b, 1, &hb, MS(1010) + i), 0);
		CHECK(208, !pulse_answer_due(&b->pulse, 1, MS(1010) + i));
	}
	CHECK_EQ(209, b->pulse.peer.flags, 0); /* being asked is no news of the peer */
	CHECK(210, pulse_answer_due(&b->pulse, 1, MS(1011)));
	bench_close(b);
}

static uint32_t tick(struct bench *b, uint64_t now_ns)
{
	pulse_tick(&b->pulse, now_ns);
	return pulse_standing(&b->pulse);
}

/* Spec: R13, B2: what a switch floods is a mark while the peer reigns; refuted, it is no news, and counts less. */
static void check_floods(void)
{
	struct bench *b = bench_open(config(0));
	struct pulse *p = &b->pulse;
	uint64_t seq = 1, t = MS(1000), rest_ns = FLOOD_REST_NS;

	pulse_suspect(p, FP_MARK_VMAC, t);
	CHECK_EQ(500, tick(b, t), 1u << SUSPECT_STATE_BITS); /* nobody is known */
	CHECK_EQ(501, answer(b, 1, seq++, 0, HB_LEN, t), 0);
	pulse_suspect(p, FP_MARK_VMAC, t);
	CHECK_EQ(502, tick(b, t), 2u << SUSPECT_STATE_BITS); /* it does not reign */
	CHECK_EQ(503, hear(b, 2, 1, FP_ROLE_ACTIVE, 4, t + 1), 0);
	CHECK(504, pulse_flooded(p, t) && !pulse_flooded(p, t + 1));
	CHECK_EQ(505, atomic_exchange(&p->marked, 0), FP_MARK_VMAC);
	tick(b, t + 1);
	while (next_event(b).kind != UINT32_MAX)
		;
	for (uint32_t i = 1; i <= FLOOD_SHIFT_MAX + 1; i++) {
		struct heartbeat hb = {
			.node_index = 1,
			.role = FP_ROLE_ACTIVE,
			.pair_id = PAIR,
			.interval_ms = 50,
			.incarnation = 55,
			.term = 4,
			.echo = b->cfg.pulse.incarnation,
		};

		/* Heard all the time; its answer to a probe is another matter. */
		hb.seq = ++seq;
		hb.t_ns = hb.answers = hb.heard = t += 2 * rest_ns;
		p->last_tick_ns = t;
		p->paths[1].quiet_since_ns = p->paths[2].quiet_since_ns = t;
		pulse_suspect(p, FP_MARK_VMAC, t);
		CHECK_EQ(506, suspect_state(tick(b, t)), SUSPECT_ASKED);
		CHECK(507, pulse_probe(p, t));
		CHECK_EQ(508, say(b, 1, &hb, t), 0);
		CHECK_EQ(509, tick(b, t), (2u + i) << SUSPECT_STATE_BITS);
		expect_nothing(b, 510);
		rest_ns = FLOOD_REST_NS << (i < FLOOD_SHIFT_MAX ? i : FLOOD_SHIFT_MAX);
		CHECK(511, !pulse_flooded(p, t + rest_ns - 1) && pulse_flooded(p, t + rest_ns));
	}
	/* Another mark besides, and it is dead: until then, and a while longer, frames are kept. */
	t += 2 * rest_ns;
	p->last_tick_ns = t;
	p->paths[1].quiet_since_ns = p->paths[2].quiet_since_ns = t;
	pulse_suspect(p, FP_MARK_VMAC, t);
	CHECK_EQ(512, suspect_state(tick(b, t)), SUSPECT_ASKED);
	pulse_died(p, 55, t + 1);
	CHECK_EQ(513, suspect_state(tick(b, t + 1)), SUSPECT_DEAD);
	CHECK(514, pulse_next_deadline(p) <= t + 1 + SUSPECT_PARK_NS);
	CHECK_EQ(515, suspect_number(tick(b, t + SUSPECT_PARK_NS)), 2 + FLOOD_SHIFT_MAX + 1);
	CHECK_EQ(516, tick(b, t + 1 + SUSPECT_PARK_NS), (2u + FLOOD_SHIFT_MAX + 2) << SUSPECT_STATE_BITS);
	bench_close(b);
}

/*
 * Spec: R13, R1: a fault may pass one direction only. Who says that it hears nobody is not dead because it does not
 * answer; what is heard of it goes on.
 */
static void check_deaf(void)
{
	struct bench *b = bench_open(config(0));
	struct pulse *p = &b->pulse;
	struct heartbeat hb = words_of_peer(b, 2, MS(1000));
	uint8_t payload[HB_LEN];
	struct heartbeat own;

	hb.role = FP_ROLE_ACTIVE;
	hb.term = 4;
	hb.heard = 0;
	pulse_compose(p, 1, MS(999), payload);
	CHECK(520, decodes(payload, HB_LEN, b->cfg.pulse.mac_key, 1, &own) && own.heard == 0);
	CHECK_EQ(533, hear(b, 1, 1, FP_ROLE_ACTIVE, 4, MS(1000)), 0); /* who has proved it may forget us */
	CHECK_EQ(521, say(b, 1, &hb, MS(1001)), 0);
	pulse_compose(p, 2, MS(1001), payload);
	CHECK(522, decodes(payload, HB_LEN, b->cfg.pulse.mac_key, 2, &own) && own.heard == MS(1000));
	tick(b, MS(1001));
	pulse_suspect(p, FP_MARK_VMAC | FP_MARK_XC_CARRIER, MS(1002));
	CHECK_EQ(523, suspect_state(tick(b, MS(1002))), SUSPECT_CALM);
	/* It hears us, and is asked; and then it does not any more. */
	hb.seq++;
	hb.heard = hb.t_ns += NS_PER_MS;
	CHECK_EQ(524, say(b, 1, &hb, MS(1003)), 0);
	pulse_suspect(p, FP_MARK_VMAC | FP_MARK_XC_CARRIER, MS(1003));
	CHECK_EQ(525, suspect_state(tick(b, MS(1003))), SUSPECT_ASKED);
	CHECK(526, pulse_probe(p, MS(1003)));
	hb.seq++;
	hb.t_ns += NS_PER_MS;
	hb.heard = 0;
	CHECK_EQ(527, say(b, 1, &hb, MS(1004)), 0);
	CHECK_EQ(528, suspect_state(tick(b, MS(1004))), SUSPECT_CALM);
	CHECK(529, !pulse_probe(p, MS(1006)));
	CHECK(530, p->paths[1].alive);
	tick(b, MS(1050));
	tick(b, MS(1100));
	tick(b, MS(1150));
	tick(b, MS(1154)); /* silence is still silence */
	CHECK(531, !p->paths[1].alive);
	pulse_compose(p, 1, MS(1154), payload);
	CHECK(532, decodes(payload, HB_LEN, b->cfg.pulse.mac_key, 1, &own) && own.heard == 0);
	bench_close(b);
}

int main(void)
{
	check_codec();
	check_floods();
	check_deaf();
	check_suspicion_confirmed();
	check_suspicion_refuted();
	check_probes_are_answered();
	check_silence();
	check_proof();
	check_exact_limit();
	check_doubt();
	check_own_stall_is_no_silence();
	check_paths_may_reorder();
	check_fence();
	check_full_events_ring();
	check_threads_talk();
	return check_done("pulse");
}
