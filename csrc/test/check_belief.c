/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_belief.c - which heartbeats are believed: not those of strangers, of other lives, of before, or held back
 */
#include <errno.h>

#include "pulse_bench.h"

static void check_what_is_bad(void)
{
	struct bench *b = bench_open(config(0));
	struct heartbeat hb = {
		.node_index = 1,
		.role = FP_ROLE_ACTIVE,
		.pair_id = PAIR,
		.interval_ms = 50,
		.incarnation = 8,
		.term = 5,
		.seq = 5,
		.echo = b->cfg.pulse.incarnation,
		.heard = MS(999),
	};
	uint8_t bytes[HB_LEN];

#define TRY(n, want)                                           \
	heartbeat_encode(&hb, b->cfg.pulse.mac_key, 1, bytes); \
	CHECK_EQ(n, pulse_receive(&b->pulse, 1, bytes, HB_LEN, MS(1000)), (uint64_t)(int64_t)(want))
	hb.pair_id = PAIR + 1;
	TRY(50, -EBADMSG);
	hb.pair_id = PAIR;
	hb.node_index = 0; /* our own, reflected */
	TRY(51, -EBADMSG);
	hb.node_index = 1;
	TRY(52, 0);
	TRY(53, -ESTALE); /* a duplicate */
	hb.seq = 4;
	TRY(54, -ESTALE); /* overtaken */
	hb.incarnation = 9;
	hb.seq = 1;
	TRY(55, 0); /* the peer restarted */
	hb.incarnation = 8;
	hb.seq = 6;
	TRY(56, -ESTALE); /* a straggler of its past life */
	hb.seq = 0;
	TRY(60, -EBADMSG); /* numbers begin with 1 */
	CHECK_EQ(57, pulse_receive(&b->pulse, 0, bytes, HB_LEN, MS(1000)),
		 (uint64_t)-EBADMSG); /* no xc here */
	CHECK_EQ(58, counter_read(&b->pulse.paths[1].bad), 3);
	CHECK_EQ(61, counter_read(&b->pulse.paths[1].replayed), 3);
	CHECK_EQ(59, counter_read(&b->pulse.paths[1].received), 2);
#undef TRY
	bench_close(b);
}

/* What a stranger on the LAN can send: nothing of it is believed, and the true peer is heard on. */
static void check_forgeries(void)
{
	static const uint8_t no_key[SIPHASH_KEY_LEN];
	struct bench *b = bench_open(config(0));
	const struct heartbeat forged[] = {
		{ .role = FP_ROLE_ACTIVE,
		  .term = UINT64_MAX >> FENCE_ROLE_BITS,
		  .incarnation = 0xdead,
		  .seq = 1 },
		{ .role = FP_ROLE_ACTIVE, .term = 1000, .incarnation = 0xdead, .seq = 1 },
		{ .role = FP_ROLE_PASSIVE, .term = 1, .incarnation = 0xdead, .seq = 1 },
		{ .role = FP_ROLE_ACTIVE, .term = 5, .incarnation = 55, .seq = UINT64_MAX },
	};
	uint8_t bytes[HB_LEN];

	CHECK_EQ(110, fence_set(&b->fence, FP_ROLE_ACTIVE, 4), 0);
	CHECK_EQ(111, hear(b, 1, 1, FP_ROLE_PASSIVE, 3, MS(1000)), 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(forged); i++) {
		struct heartbeat hb = forged[i];

		hb.node_index = 1;
		hb.pair_id = PAIR;
		hb.interval_ms = 50;
		hb.t_ns = UINT64_MAX;
		heartbeat_encode(&hb, no_key, 1, bytes);
		CHECK_EQ(112, pulse_receive(&b->pulse, 1, bytes, HB_LEN, MS(1010)), (uint64_t)-EBADMSG);
		memset(bytes + HB_MAC_AT, 0, HB_LEN - HB_MAC_AT);
		CHECK_EQ(113, pulse_receive(&b->pulse, 1, bytes, HB_LEN, MS(1010)), (uint64_t)-EBADMSG);
		/* Authentic on xc, recorded, and sent on path 1. */
		heartbeat_encode(&hb, b->cfg.pulse.mac_key, 0, bytes);
		CHECK_EQ(114, pulse_receive(&b->pulse, 1, bytes, HB_LEN, MS(1010)), (uint64_t)-EBADMSG);
	}
	CHECK(115, fence_is_active(&b->fence));
	CHECK_EQ(116, counter_read(&b->pulse.paths[1].bad), 3 * ARRAY_SIZE(forged));
	CHECK_EQ(117, hear(b, 1, 2, FP_ROLE_PASSIVE, 3, MS(1050)), 0);
	CHECK_EQ(118, b->pulse.peer.incarnation, 55);
	bench_close(b);
}

static uint64_t echoed(const struct bench *b, uint32_t path)
{
	struct heartbeat hb;
	uint8_t bytes[HB_LEN];

	pulse_compose(&b->pulse, path, MS(1), bytes);
	CHECK(119, decodes(bytes, HB_LEN, b->cfg.pulse.mac_key, path, &hb));
	return hb.echo;
}

/* Recorded in an earlier life of the peer, or of ours, and authentic. */
static void check_replays(void)
{
	const uint64_t self = 100, before = 90;
	struct bench *b = bench_open(config(0));
	const struct pulse_path *paths = b->pulse.paths;
	uint64_t t = MS(1000);

	pulse_tick(&b->pulse, t);
	/* Said to our life before this one: however often, it is not believed, and no path is alive. */
	for (uint64_t seq = 5; seq < 15; seq++) {
		CHECK_EQ(120, hear_life(b, 1, 30, before, seq, t), (uint64_t)-ESTALE);
		CHECK_EQ(121, hear_life(b, 2, 30, before, seq, t), (uint64_t)-ESTALE);
	}
	CHECK(122, !b->pulse.peer_known && !paths[1].alive && !paths[2].alive);
	CHECK_EQ(123, counter_read(&paths[1].replayed), 9); /* the first one might be an introduction */
	/* It is answered with its own number; whoever hears that can prove that he is new. */
	CHECK_EQ(124, echoed(b, 1), 30);
	CHECK_EQ(125, hear_life(b, 1, 30, self, 15, t), 0);
	CHECK_EQ(126, echoed(b, 2), 30);
	CHECK_EQ(127, hear_life(b, 2, 30, self, 15, t), 0);
	/* A past life of the peer, while we live: its echo is right. Silence does not make it new. */
	CHECK_EQ(128, hear_life(b, 1, 20, self, 18, t), (uint64_t)-ESTALE);
	for (int i = 0; i < 4; i++)
		pulse_tick(&b->pulse, t += MS(50));
	CHECK_EQ(129, hear_life(b, 1, 20, self, 19, t), (uint64_t)-ESTALE);
	CHECK_EQ(130, hear_life(b, 1, 30, self, 15, t), (uint64_t)-ESTALE);
	CHECK(131, !paths[1].alive && !paths[2].alive);
	CHECK_EQ(132, b->pulse.peer.incarnation, 30);
	/* It restarts: an introduction, our answer, and then it is heard. Its numbers begin anew on all paths. */
	CHECK_EQ(133, hear_life(b, 1, 31, 0, 1, t), (uint64_t)-ESTALE);
	CHECK_EQ(134, echoed(b, 1), 31);
	CHECK_EQ(135, echoed(b, 2), 30);
	CHECK_EQ(136, hear_life(b, 2, 31, self, 2, t), 0);
	CHECK_EQ(137, hear_life(b, 1, 31, self, 2, t), 0);
	CHECK_EQ(138, hear_life(b, 1, 30, self, 99, t), (uint64_t)-ESTALE);
	CHECK_EQ(139, counter_read(&paths[1].bad), 0);
	/* A lie about a next life, while this one is heard: answered every other time, until it is heard again. */
	CHECK_EQ(150, hear_life(b, 1, 40, 0, 1, t), (uint64_t)-ESTALE);
	b->pulse.paths[1].tx_seq = 6;
	CHECK_EQ(151, echoed(b, 1), 31);
	b->pulse.paths[1].tx_seq = 7;
	CHECK_EQ(152, echoed(b, 1), 40);
	CHECK_EQ(153, hear_life(b, 1, 31, self, 3, t), 0);
	CHECK_EQ(154, echoed(b, 1), 31);
	bench_close(b);
}

/* Said by the true peer, number and echo right, and held back by somebody on the way. */
static void check_held_back(void)
{
	struct bench *b = bench_open(config(0));
	struct heartbeat hb = words_of_peer(b, 1, MS(7000)); /* its clock is 6 s ahead */
	uint8_t bytes[HB_LEN];

	hb.heard = 0;
	/* Who names nothing of ours may have been recorded: he introduces himself, and is believed when he does. */
	CHECK_EQ(540, say(b, 1, &hb, MS(1000)), (uint64_t)-ESTALE);
	CHECK(541, !b->pulse.peer_known);
	pulse_compose(&b->pulse, 1, MS(1001), bytes);
	CHECK(542,
	      decodes(bytes, HB_LEN, b->cfg.pulse.mac_key, 1, &hb) && hb.echo == 55 && hb.heard == MS(7000));
	CHECK_EQ(543, hear(b, 1, 2, FP_ROLE_PASSIVE, 4, MS(1002)), 0);
	hb = words_of_peer(b, 10, MS(1000));
	CHECK_EQ(544, say(b, 1, &hb, MS(1801)), (uint64_t)-ESTALE);
	CHECK_EQ(545, counter_read(&b->pulse.paths[1].replayed), 1);
	CHECK_EQ(546, say(b, 1, &hb, MS(1800)), 0); /* 500 ms, and two times of silence */
	/* It does not hear us any more; then its clock tells. */
	hb.seq = 11;
	hb.heard = 0;
	hb.t_ns = MS(4000);
	CHECK_EQ(547, say(b, 1, &hb, MS(4000) + MS(800) + MS(560)), (uint64_t)-ESTALE);
	CHECK_EQ(548, say(b, 1, &hb, MS(4000) + MS(800) + MS(500)), 0);
	/* An earlier life, recorded, does not take the place of who introduces himself. */
	CHECK_EQ(570, hear_life(b, 2, 70, 0, 1, MS(5000)), (uint64_t)-ESTALE);
	CHECK_EQ(571, hear_life(b, 2, 60, 0, 9, MS(5000)), (uint64_t)-ESTALE);
	CHECK_EQ(572, echoed(b, 2), 70);
	/* It says that it has heard what we have not said yet. */
	hb.seq = 12;
	hb.heard = MS(9000);
	CHECK_EQ(549, say(b, 1, &hb, MS(8000)), (uint64_t)-ESTALE);
	bench_close(b);
}

/* Who slept asks who reigns; a life of its peer that it has never met says so at once. */
static void check_a_stranger_asks(void)
{
	struct bench *b = bench_open(config(0));
	struct heartbeat hb = words_of_peer(b, 1, MS(1000));

	hb.role = FP_ROLE_ACTIVE;
	hb.flags = FP_HB_PROBE;
	hb.echo = b->cfg.pulse.incarnation - 1;
	hb.heard = 0;
	pulse_tick(&b->pulse, MS(1000));
	CHECK_EQ(560, say(b, 1, &hb, MS(1000)), (uint64_t)-ESTALE);
	CHECK(561, pulse_answer_due(&b->pulse, 1, MS(1000)));
	CHECK(562, !pulse_answer_due(&b->pulse, 1, MS(1000)));
	CHECK_EQ(563, echoed(b, 1), 55);
	hb.seq++;
	CHECK_EQ(564, say(b, 1, &hb, MS(1000)),
		 (uint64_t)-ESTALE); /* again, and no sooner than after a while */
	CHECK(565, !pulse_answer_due(&b->pulse, 1, MS(1000)));
	CHECK(566, pulse_answer_due(&b->pulse, 1, MS(1001)));
	hb.flags = 0;
	CHECK_EQ(567, say(b, 2, &hb, MS(1000)), (uint64_t)-ESTALE);
	CHECK(568, !pulse_answer_due(&b->pulse, 2, MS(1002)));
	bench_close(b);
}

/* The peer's clock, or ours, has jumped while it was not heard: what it asks looks old, and is answered all the same. */
static void check_a_clock_that_jumped(void)
{
	struct bench *b = bench_open(config(0));
	struct heartbeat hb, told;
	uint8_t bytes[HB_LEN];

	CHECK_EQ(580, hear(b, 1, 1, FP_ROLE_PASSIVE, 4, MS(1000)), 0);
	pulse_tick(&b->pulse, MS(2000));
	CHECK(581, !b->pulse.paths[1].alive);
	hb = words_of_peer(b, 100, MS(7900));
	hb.heard = 0;
	hb.role = FP_ROLE_ACTIVE;
	hb.flags = FP_HB_PROBE;
	CHECK_EQ(582, say(b, 1, &hb, MS(9001)), (uint64_t)-ESTALE);
	CHECK(583, !b->pulse.paths[1].alive && pulse_answer_due(&b->pulse, 1, MS(9001)));
	pulse_compose(&b->pulse, 1, MS(9001), bytes);
	CHECK(584, decodes(bytes, HB_LEN, b->cfg.pulse.mac_key, 1, &told));
	CHECK(585, told.echo == 55 && told.heard == MS(7900));
	/* What it said before does not take the place of that, and what it has said already is no word at all. */
	hb.seq = 99;
	hb.t_ns = MS(7850);
	CHECK_EQ(586, say(b, 1, &hb, MS(9002)), (uint64_t)-ESTALE);
	hb.seq = 1;
	hb.t_ns = MS(7950);
	CHECK_EQ(587, say(b, 1, &hb, MS(9002)), (uint64_t)-ESTALE);
	pulse_compose(&b->pulse, 1, MS(9002), bytes);
	CHECK(588, decodes(bytes, HB_LEN, b->cfg.pulse.mac_key, 1, &told) && told.heard == MS(7900));
	/* It has read the answer. */
	hb = words_of_peer(b, 101, MS(7902));
	hb.heard = MS(9001);
	CHECK_EQ(589, say(b, 1, &hb, MS(9003)), 0);
	/* While it is heard, what looks old is a recording, and not answered. */
	hb.seq = 102;
	hb.heard = 0;
	hb.t_ns = MS(7000);
	hb.flags = FP_HB_PROBE;
	CHECK_EQ(590, say(b, 1, &hb, MS(9050)), (uint64_t)-ESTALE);
	CHECK(591, !pulse_answer_due(&b->pulse, 1, MS(9060)));
	bench_close(b);
}

/* A key is changed while heartbeats go on. */
static void check_keys(void)
{
	struct bench *b = bench_open(config(0));
	uint8_t keys[2][SIPHASH_KEY_LEN], bytes[HB_LEN];
	struct heartbeat hb;

	memcpy(keys[0], b->cfg.pulse.mac_key, SIPHASH_KEY_LEN);
	memset(keys[1], 7, SIPHASH_KEY_LEN);
	CHECK_EQ(140, hear(b, 1, 1, FP_ROLE_PASSIVE, 4, MS(1000)), 0);
	CHECK_EQ(141, pulse_keys(&b->pulse, keys, 2), 0); /* the old one signs, both are believed */
	CHECK_EQ(142, hear(b, 1, 2, FP_ROLE_PASSIVE, 4, MS(1010)), 0);
	pulse_compose(&b->pulse, 1, MS(1010), bytes);
	CHECK(143, decodes(bytes, HB_LEN, keys[0], 1, &hb));
	memcpy(b->cfg.pulse.mac_key, keys[1], SIPHASH_KEY_LEN); /* the peer signs with the new one */
	CHECK_EQ(144, hear(b, 1, 3, FP_ROLE_PASSIVE, 4, MS(1020)), 0);
	CHECK_EQ(145, pulse_keys(&b->pulse, keys + 1, 1), 0); /* the old one is worth nothing */
	CHECK_EQ(146, hear(b, 1, 4, FP_ROLE_PASSIVE, 4, MS(1030)), 0);
	pulse_compose(&b->pulse, 1, MS(1030), bytes);
	CHECK(147, decodes(bytes, HB_LEN, keys[1], 1, &hb));
	memcpy(b->cfg.pulse.mac_key, keys[0], SIPHASH_KEY_LEN);
	CHECK_EQ(148, hear(b, 1, 5, FP_ROLE_PASSIVE, 4, MS(1040)), (uint64_t)-EBADMSG);
	bench_close(b);
}

int main(void)
{
	check_what_is_bad();
	check_forgeries();
	check_replays();
	check_held_back();
	check_a_stranger_asks();
	check_a_clock_that_jumped();
	check_keys();
	return check_done("belief");
}
