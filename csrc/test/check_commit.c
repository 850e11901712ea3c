/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_commit.c - output commit through a core: who waits, for how long, and what ends unsent
 *
 * Spec: B1, R18
 */
#include "datagram.h"
#include "held.h"

/* ---- modes ---- */

static void check_async(void)
{
	struct rig *r = held_make_as(FP_COMMIT_ASYNC);

	CHECK_EQ(1, packet(r, 1, 1).verdict, V_SNAT);
	later(r, 700);
	CHECK_EQ(2, ack(r, tell(r)), 0);
	CHECK_EQ(3, counter_read(&r->core.commit.lag.count[lag_bucket(700000)]), 1);
	CHECK_EQ(4, histogram_sum(&r->core.commit.held_for), 0);
	CHECK_EQ(5, counter_read(&r->core.commit.unheld), 0);
	rig_free(r);
}

static void check_bounded(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	uint64_t seq;
	struct fp_frame f = packet(r, 1, 1);

	CHECK_EQ(10, f.verdict, V_HELD);
	CHECK_EQ(11, f.out, FP_OUT_WAIT);
	CHECK_EQ(12, packet(r, 1, 2).verdict, V_HELD);
	CHECK_EQ(13, release(r), 0);
	seq = tell(r);
	later(r, 1500);
	CHECK_EQ(14, packet(r, 1, 3).verdict, V_HELD);
	CHECK_EQ(15, ack(r, seq - 1), 0);
	CHECK_EQ(16, ack(r, seq), 3);
	CHECK_EQ(17, n_sent, 3);
	for (uint32_t i = 0; i < n_sent; i++)
		CHECK(18, sent[i].number == i + 1 && sent[i].verdict == V_SNAT);
	CHECK_EQ(19, packet(r, 1, 4).verdict, V_SNAT);
	CHECK_EQ(20, rig_count(r, V_HELD), 3);
	CHECK_EQ(21, rig_count(r, V_SNAT), 4);
	CHECK_EQ(22, counter_read(&r->core.commit.released), 3);
	CHECK_EQ(23, counter_read(&r->core.commit.held_for.count[lag_bucket(1500000)]), 2);
	CHECK_EQ(24, counter_read(&r->core.commit.held_for.count[0]), 1);
	CHECK_EQ(25, counter_read(&r->core.commit.holding), 0);
	CHECK_EQ(26, counter_read(&r->core.commit.pending), 0);
	CHECK_EQ(27, counter_read(&r->core.commit.hold.n), 0);
	rig_free(r);
}

/* One hiccup: who was met by it leaves late, who comes after it is held as ever. */
static void check_hiccup(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	uint64_t seq;

	for (uint32_t session = 1; session <= 20; session++) {
		packet(r, session, 1);
		seq = tell(r);
		later(r, HOLD_US);
		CHECK_EQ(20 + 100 * session, release(r), 1);
		ack(r, seq); /* late, each time */
		CHECK_EQ(21 + 100 * session, counter_read(&r->core.commit.degraded), 0);
		packet(r, 100 + session, 1);
		later(r, HOLD_US - 1);
		CHECK_EQ(22 + 100 * session, ack(r, tell(r)), 1); /* in time */
	}
	CHECK_EQ(23, counter_read(&r->core.commit.unheld), 0);
	rig_free(r);
}

/* A slow peer: hold_ms and not longer, and after a while nothing is held, until the lag is short again. */
/* Nobody comes after the burst that the peer was too slow for: the word is taken back all the same. */
static void check_quiet(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	uint64_t seq;

	packet(r, 1, 1);
	later(r, HOLD_US);
	release(r);
	later(r, DEGRADE_US);
	packet(r, 2, 1);
	later(r, HOLD_US);
	release(r);
	CHECK_EQ(430, counter_read(&r->core.commit.degraded), 1);
	later(r, 60000000);
	CHECK_EQ(431, release(r), 0);
	CHECK_EQ(432, counter_read(&r->core.commit.degraded), 1); /* nothing is acknowledged yet */
	CHECK_EQ(433, commit_deadline(&r->core), UINT64_MAX);
	seq = tell(r);
	ack(r, seq);
	CHECK_EQ(434, commit_deadline(&r->core), r->now_ns + COMMIT_QUIET_MS * NS_PER_MS);
	later(r, COMMIT_QUIET_MS * 1000 - 1);
	release(r);
	CHECK_EQ(435, counter_read(&r->core.commit.degraded), 1);
	later(r, 1);
	release(r);
	CHECK_EQ(436, counter_read(&r->core.commit.degraded), 0);
	CHECK_EQ(437, commit_deadline(&r->core), UINT64_MAX);
	CHECK_EQ(438, packet(r, 3, 1).verdict, V_HELD);
	rig_free(r);
}

static void check_degraded(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	uint64_t seq;

	packet(r, 10, 1);
	later(r, HOLD_US);
	CHECK_EQ(28, release(r), 1);
	CHECK_EQ(29, counter_read(&r->core.commit.degraded), 0);
	later(r, DEGRADE_US - HOLD_US);
	packet(r, 1, 1);
	tell(r);
	CHECK_EQ(30, commit_deadline(&r->core), r->now_ns + HOLD_MS * NS_PER_MS);
	later(r, HOLD_US - 1);
	CHECK_EQ(31, release(r), 0);
	CHECK_EQ(32, packet(r, 2, 1).verdict, V_HELD);
	later(r, 1);
	CHECK_EQ(33, release(r), 1);
	CHECK_EQ(34, sent[1].session, 1);
	CHECK_EQ(35, counter_read(&r->core.commit.expired), 2);
	CHECK_EQ(36, counter_read(&r->core.commit.degraded), 1);
	CHECK_EQ(37, counter_read(&r->core.commit.degradations), 1);
	CHECK_EQ(38, packet(r, 1, 2).verdict, V_SNAT);
	/* What was born before waits its time; what is born now does not wait. */
	CHECK_EQ(39, packet(r, 2, 2).verdict, V_HELD);
	CHECK_EQ(40, packet(r, 3, 1).verdict, V_SNAT);
	CHECK_EQ(41, counter_read(&r->core.commit.unheld), 1);
	later(r, HOLD_US);
	CHECK_EQ(42, release(r), 2);
	CHECK_EQ(43, commit_deadline(&r->core), UINT64_MAX);
	/* The peer is back: its old acknowledgements say how late they are; a new one is in time. */
	later(r, 5000000);
	seq = tell(r);
	CHECK_EQ(44, ack(r, seq), 0);
	CHECK_EQ(45, counter_read(&r->core.commit.degraded), 1);
	packet(r, 4, 1);
	later(r, 1000);
	ack(r, tell(r));
	CHECK_EQ(46, counter_read(&r->core.commit.degraded), 1); /* too soon after the last bad one */
	later(r, RECOVER_US);
	packet(r, 5, 1);
	later(r, HOLD_US / 2);
	ack(r, tell(r));
	CHECK_EQ(47, counter_read(&r->core.commit.degraded), 1); /* half of hold_ms is too long */
	later(r, RECOVER_US);
	packet(r, 6, 1);
	later(r, HOLD_US / 2 - 1);
	ack(r, tell(r));
	CHECK_EQ(48, counter_read(&r->core.commit.degraded), 0);
	CHECK_EQ(49, packet(r, 7, 1).verdict, V_HELD);
	CHECK_EQ(50, counter_read(&r->core.commit.degradations), 1);
	rig_free(r);
}

static void check_strict(void)
{
	struct rig *r = held_make_as(FP_COMMIT_STRICT);
	uint64_t seq;

	packet(r, 1, 1);
	packet(r, 1, 2);
	seq = tell(r);
	later(r, STRICT_US - 1);
	CHECK_EQ(60, release(r), 0);
	CHECK_EQ(61, packet(r, 1, 3).verdict, V_HELD);
	later(r, 1);
	CHECK_EQ(62, release(r), 0);
	CHECK_EQ(63, rig_count(r, V_HOLD_DROPPED), 3);
	CHECK_EQ(64, counter_read(&r->core.commit.dropped), 3);
	CHECK_EQ(65, commit_deadline(&r->core), UINT64_MAX);
	CHECK_EQ(66, packet(r, 1, 4).verdict, V_HELD);
	CHECK_EQ(67, commit_deadline(&r->core), r->now_ns + COMMIT_STRICT_S * NS_PER_S);
	CHECK_EQ(68, ack(r, seq), 1);
	CHECK_EQ(69, sent[0].number, 4);
	CHECK_EQ(70, packet(r, 1, 5).verdict, V_SNAT);
	CHECK_EQ(71, counter_read(&r->core.commit.degraded), 0);
	rig_free(r);
}

/* Tell what waits; the peer takes nothing of it. */
static void refuse(struct rig *r)
{
	struct fp_flow_rec recs[32];
	uint32_t n;

	do {
		n = core_drain(&r->core, recs, ARRAY_SIZE(recs), 1000, r->now_ns);
		if (n)
			core_refused(&r->core, recs, n, recs[n - 1].ev_seq);
		if (n)
			core_ack(&r->core, recs[n - 1].ev_seq);
	} while (n == ARRAY_SIZE(recs));
}

/* A peer without room takes no place that others need: bounded go in time, strict ones stay until they end. */
static void check_refused(enum fp_commit mode)
{
	struct rig *r = held_make_as(mode);

	for (uint32_t session = 1; session <= 50; session++)
		packet(r, (uint16_t)session, 1);
	refuse(r);
	CHECK_EQ(400, release(r), 0);
	CHECK_EQ(401, counter_read(&r->core.commit.pending), 50);
	CHECK_EQ(402, histogram_sum(&r->core.commit.lag), 0);
	for (uint32_t idx = 1; idx <= r->core.table.n_fresh; idx++)
		CHECK(403, r->core.table.rec[idx].cold.refused);
	later(r, mode == FP_COMMIT_STRICT ? STRICT_US : HOLD_US);
	CHECK_EQ(404, release(r), mode == FP_COMMIT_STRICT ? 0 : 50);
	CHECK_EQ(405, counter_read(&r->core.commit.expired), mode == FP_COMMIT_STRICT ? 0 : 50);
	CHECK_EQ(406, counter_read(&r->core.commit.dropped), mode == FP_COMMIT_STRICT ? 50 : 0);
	CHECK_EQ(407, counter_read(&r->core.commit.pending), mode == FP_COMMIT_STRICT ? 50 : 0);
	core_sweep_start(&r->core, UINT64_MAX);
	ack(r, tell(r));
	CHECK_EQ(408, counter_read(&r->core.commit.pending), 0);
	CHECK_EQ(409, counter_read(&r->core.commit.holding), 0);
	for (uint32_t idx = 1; idx <= r->core.table.n_fresh; idx++)
		CHECK(410, !r->core.table.rec[idx].cold.refused);
	rig_free(r);
}

/* Their sessions end, or nobody listens any more, before the peer has room. */
static void check_refused_and_gone(bool off)
{
	struct rig *r = held_make_as(FP_COMMIT_STRICT);

	packet(r, 1, 1);
	refuse(r);
	if (off) {
		commit_set(&r->core, false);
		CHECK_EQ(420, release(r), 1);
	} else {
		record_remove(&r->core, 1, true);
		CHECK_EQ(421, release(r), 0);
	}
	CHECK_EQ(422, counter_read(&r->core.commit.pending), 0);
	CHECK_EQ(423, counter_read(&r->core.commit.hold.n), 0);
	CHECK_EQ(424, r->core.commit.n_untold, 0);
	rig_free(r);
}

/* Each rule has its own mode; what no rule allows has the default. */
static void check_rules(void)
{
	static const uint8_t modes[] = { FP_COMMIT_ASYNC, FP_COMMIT_STRICT, FP_COMMIT_DEFAULT };
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	struct rules rules = { .n_rules = ARRAY_SIZE(modes), .n_services = ARRAY_SIZE(modes) };
	void *mem;

	for (uint32_t i = 0; i < ARRAY_SIZE(modes); i++) {
		rules.rules[i] = estate_rule(FP_ALLOW, FP_FORM_SNAT);
		rules.rules[i].commit = modes[i];
		rules.rules[i].first_service = i;
		rules.rules[i].n_services = 1;
		rules.services[i] = (struct fp_service){ IPPROTO_NUM_UDP, 0, (uint16_t)(100 + i),
							 (uint16_t)(100 + i) };
	}
	mem = estate_policy(r, &rules);
	CHECK_EQ(80, packet(r, 100, 1).verdict, V_SNAT);
	CHECK_EQ(81, packet(r, 101, 1).verdict, V_HELD);
	CHECK_EQ(82, packet(r, 102, 1).verdict, V_HELD);
	CHECK_EQ(83, packet(r, 103, 1).verdict, V_HELD);
	later(r, HOLD_US);
	CHECK_EQ(84, release(r), 2);
	CHECK_EQ(85, counter_read(&r->core.commit.holding), 1);
	CHECK_EQ(86, ack(r, tell(r)), 1);
	CHECK_EQ(87, sent[n_sent - 1].session, 101);
	rig_free(r);
	free(mem);
}

/* ---- nobody to wait for ---- */

static void check_off(void)
{
	struct rig *r = held_make_as(FP_COMMIT_STRICT);

	packet(r, 1, 1);
	packet(r, 2, 1);
	packet(r, 1, 2);
	commit_set(&r->core, false);
	CHECK_EQ(90, release(r), 3);
	CHECK_EQ(91, packet(r, 1, 3).verdict, V_SNAT);
	CHECK_EQ(92, packet(r, 3, 1).verdict, V_SNAT);
	CHECK_EQ(93, counter_read(&r->core.commit.pending), 0);
	/* Acknowledgements of what was held before mean nothing any more. */
	commit_set(&r->core, true);
	packet(r, 4, 1);
	CHECK_EQ(94, ack(r, tell(r)), 1);
	/* Nor does anything wait that is not told. */
	core_track(&r->core, false);
	CHECK_EQ(95, packet(r, 5, 1).verdict, V_SNAT);
	rig_free(r);
}

static void check_not_told(void)
{
	struct fp_config cfg = held_config(FP_COMMIT_STRICT);
	struct rig *r;

	cfg.pools[0].survives = cfg.pools[1].survives = 0;
	r = held_make(&cfg);
	CHECK_EQ(100, packet(r, 1, 1).verdict, V_SNAT);
	rig_free(r);
}

static void check_fenced(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	uint64_t seq;

	packet(r, 1, 1);
	packet(r, 2, 1);
	seq = tell(r);
	core_ack(&r->core, seq - 1); /* one of them may go, but has not gone */
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	CHECK_EQ(110, release(r), 0);
	CHECK_EQ(111, rig_count(r, V_FENCED), 2);
	CHECK_EQ(112, counter_read(&r->core.commit.hold.n), 0);
	/* Whoever is ACTIVE again does not know yet whether it has a peer. */
	core_set_role(&r->core, FP_ROLE_ACTIVE, 4, r->now_ns);
	CHECK_EQ(113, packet(r, 1, 2).verdict, V_SNAT);
	CHECK_EQ(114, packet(r, 3, 1).verdict, V_SNAT);
	rig_free(r);
}

/* ---- room ---- */

static void check_frames_full(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	const uint32_t each = HOLD_FRAMES / HOLD_EACH_SHARE;

	/* One session does not take everything. */
	for (uint32_t i = 0; i < each; i++)
		CHECK_EQ(120, packet(r, 1, (uint16_t)i).verdict, V_HELD);
	CHECK_EQ(121, packet(r, 1, (uint16_t)each).verdict, V_HOLD_FULL);
	for (uint32_t session = 2; session < 2 + HOLD_FRAMES - each; session++)
		CHECK_EQ(122, packet(r, (uint16_t)session, 0).verdict, V_HELD);
	/* All slots are taken: who is new passes, who waits already cannot. */
	CHECK_EQ(123, packet(r, 1000, 0).verdict, V_SNAT);
	CHECK_EQ(124, packet(r, 1000, 1).verdict, V_SNAT);
	CHECK_EQ(125, packet(r, 2, 1).verdict, V_HOLD_FULL);
	CHECK_EQ(126, counter_read(&r->core.commit.full), 2);
	CHECK_EQ(127, counter_read(&r->core.commit.unheld), 1);
	CHECK_EQ(128, ack(r, tell(r)), HOLD_FRAMES);
	rig_free(r);
}

static void check_strict_full(void)
{
	struct rig *r = held_make_as(FP_COMMIT_STRICT);

	for (uint32_t session = 1; session <= HOLD_FRAMES; session++)
		packet(r, (uint16_t)session, 0);
	/* The session is there, its packets wait for room. */
	CHECK_EQ(130, packet(r, 1000, 0).verdict, V_HOLD_FULL);
	CHECK_EQ(131, ack(r, tell(r)), HOLD_FRAMES);
	CHECK_EQ(132, packet(r, 1000, 1).verdict, V_SNAT);
	rig_free(r);
}

/* More births than the table has places for. */
/* So many sessions a walk gives this fate. */
static uint32_t fates(struct rig *r, enum fp_fate fate)
{
	struct fp_flow_rec out[64];
	uint32_t slot = 0, n = 0;
	bool done = false;

	while (!done) {
		const uint32_t got = core_walk(&r->core, &slot, out, ARRAY_SIZE(out), &done, r->now_ns);

		for (uint32_t i = 0; i < got; i++)
			n += out[i].fate == fate;
	}
	return n;
}

/* Spec: B5. What is told while nobody acknowledges is not known to be anywhere else. */
static void check_nobody_acknowledges(void)
{
	struct rig *r = held_make_as(FP_COMMIT_ASYNC);

	packet(r, 1, 1);
	CHECK_EQ(300, ack(r, tell(r)), 0);
	packet(r, 2, 1);
	tell(r);
	CHECK_EQ(301, fates(r, FP_FATE_UNACKED), 1);
	commit_set(&r->core, false);
	packet(r, 3, 1);
	CHECK_EQ(302, fates(r, FP_FATE_UNTOLD), 1);
	tell(r);
	CHECK_EQ(303, fates(r, FP_FATE_LIVES), 1);
	CHECK_EQ(304, fates(r, FP_FATE_UNACKED), 2);
	commit_set(&r->core, true); /* the tables agree: it has all that was told */
	CHECK_EQ(305, fates(r, FP_FATE_LIVES), 3);
	/* Of a peer that has to get everything anew nothing is known. */
	core_track(&r->core, false);
	core_track(&r->core, true);
	core_sweep_start(&r->core, UINT64_MAX);
	tell(r);
	CHECK_EQ(306, fates(r, FP_FATE_LIVES), 0);
	commit_set(&r->core, true);
	CHECK_EQ(307, fates(r, FP_FATE_LIVES), 3);
	rig_free(r);
}

/* More at a time than there is room for: they are not known to be held, until they are. */
static void check_births_that_were_missed(void)
{
	struct fp_config cfg = held_config(FP_COMMIT_ASYNC);
	struct rig *r;
	uint64_t seq;

	cfg.flow_cap = 20000;
	r = held_make(&cfg);
	n_sent = 0;
	for (uint32_t session = 1; session <= COMMIT_BIRTHS; session++, n_sent = 0) {
		packet(r, (uint16_t)session, 0);
		if (session % 1000 == 0)
			tell(r);
	}
	seq = tell(r);
	CHECK_EQ(310, fates(r, FP_FATE_UNACKED), COMMIT_BIRTHS);
	ack(r, seq - 1);
	CHECK_EQ(311, fates(r, FP_FATE_UNACKED), COMMIT_BIRTHS / 2);
	ack(r, seq);
	CHECK_EQ(312, fates(r, FP_FATE_LIVES), COMMIT_BIRTHS);
	rig_free(r);
}

static void check_births_full(enum fp_commit mode)
{
	struct fp_config cfg = held_config(mode);
	struct rig *r;
	uint32_t cap, refused = 0, unheld = 0;

	cfg.flow_cap = 20000;
	cfg.sync.hold_frames = 2 * COMMIT_BIRTHS;
	r = held_make(&cfg);
	cap = r->core.commit.cap;
	CHECK_EQ(140, cap, COMMIT_BIRTHS);
	for (uint32_t session = 1; session <= cap + 10; session++) {
		const struct fp_frame f = packet(r, (uint16_t)session, 0);

		refused += f.verdict == V_HOLD_FULL;
		unheld += f.verdict == V_SNAT;
		if (session % 1000 == 0)
			tell(r);
	}
	CHECK_EQ(141, refused, mode == FP_COMMIT_STRICT ? 10 : 0);
	CHECK_EQ(142, unheld, mode == FP_COMMIT_STRICT ? 0 : 10);
	CHECK_EQ(143, rig_stats(r).flows, cap + (mode == FP_COMMIT_STRICT ? 0 : 10));
	CHECK_EQ(144, counter_read(&r->core.commit.holding), cap);
	core_ack(&r->core, tell(r));
	CHECK_EQ(145, counter_read(&r->core.commit.holding), 0);
	CHECK_EQ(146, counter_read(&r->core.commit.pending), 0);
	CHECK_EQ(147, histogram_sum(&r->core.commit.lag), cap);
	CHECK_EQ(148, packet(r, 60000, 0).verdict, V_HELD);
	rig_free(r);
}

/* Births that hold nothing leave half of the table to those that do. */
static void check_births_of_async(void)
{
	struct fp_config cfg = held_config(FP_COMMIT_ASYNC);
	struct rig *r;

	cfg.flow_cap = 20000;
	r = held_make(&cfg);
	n_sent = 0;
	for (uint32_t session = 1; session <= COMMIT_BIRTHS; session++, n_sent = 0)
		packet(r, (uint16_t)session, 0);
	CHECK_EQ(150, counter_read(&r->core.commit.pending), COMMIT_BIRTHS / 2);
	rig_free(r);
}

/* ---- sessions that go ---- */

static void check_gone(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	uint32_t slot = 0;
	bool done;
	struct rules rules = { .n_rules = 1, .deny = true };
	void *mem;

	packet(r, 1, 1);
	packet(r, 1, 2);
	tell(r);
	packet(r, 2, 1); /* never told */
	rules.rules[0] = estate_rule(FP_DENY, FP_FORM_SNAT);
	mem = estate_policy(r, &rules);
	CHECK_EQ(160, core_review(&r->core, &slot, 100, &done, r->now_ns), 2);
	CHECK_EQ(161, rig_count(r, V_HOLD_DROPPED), 3);
	CHECK_EQ(162, counter_read(&r->core.commit.hold.n), 0);
	CHECK_EQ(163, counter_read(&r->core.commit.holding), 0);
	CHECK_EQ(164, counter_read(&r->core.commit.pending), 1); /* the one that was told: for its lag */
	CHECK_EQ(165, ack(r, tell(r)), 0);
	CHECK_EQ(166, counter_read(&r->core.commit.pending), 0);
	CHECK_EQ(167, histogram_sum(&r->core.commit.lag), 1);
	rig_free(r);
	free(mem);
}

/* Changes that could not be tracked: a session of such a shard is told by the next sweep, and not before. */
static void check_lost(enum fp_commit mode)
{
	struct rig *r = held_make_as(mode);

	core_track(&r->core, true);
	digest_lose(&r->core, 0);
	for (uint32_t shard = 1; shard < FP_SHARDS; shard++)
		digest_lose(&r->core, shard);
	CHECK_EQ(270, packet(r, 1, 1).verdict, mode == FP_COMMIT_STRICT ? V_HELD : V_SNAT);
	CHECK_EQ(271, ack(r, tell(r)), 0);
	core_sweep_start(&r->core, UINT64_MAX);
	CHECK_EQ(272, ack(r, tell(r)), mode == FP_COMMIT_STRICT);
	CHECK_EQ(273, packet(r, 1, 2).verdict, V_SNAT);
	CHECK_EQ(274, packet(r, 2, 1).verdict, V_HELD);
	rig_free(r);
}

static struct fp_frame tcp(struct rig *r, uint8_t flags, uint32_t seq)
{
	struct spec s = spec_syn;

	s.tcp_flags = flags;
	s.seq = seq;
	return estate_in(r, LAN, &s);
}

/* A second life of the same endpoints is a session that the peer does not know. */
static void check_reopen(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	struct spec s = spec_syn, refusal;
	struct fp_frame f;

	tcp(r, TCP_SYN, 100);
	CHECK_EQ(170, ack(r, tell(r)), 1);
	f = tcp(r, TCP_SYN, 100);
	refusal = rig_reply(&s, out_sport(&f));
	refusal.dst = out_src(&f);
	refusal.tcp_flags = TCP_RST | TCP_ACK_FLAG;
	refusal.ack = 101;
	CHECK_EQ(171, estate_in(r, WAN, &refusal).verdict, V_REVERSE);
	CHECK_EQ(172, tcp(r, TCP_SYN, 9000).verdict, V_HELD);
	CHECK_EQ(173, rig_stats(r).flows, 1);
	CHECK_EQ(174, ack(r, tell(r)), 1);
	CHECK_EQ(175, rig_count(r, V_SNAT), 3);
	refusal.ack = 9001;
	CHECK_EQ(176, estate_in(r, WAN, &refusal).verdict, V_REVERSE);
	rig_free(r);
}

/* ---- what else belongs to a session ---- */

/* Both directions wait, in the order in which they came. */
static void check_answers(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	struct spec s = spec_udp, reply;
	const struct flow_hot *flow;
	struct fp_frame f;

	f = estate_in(r, LAN, &s);
	flow = &r->core.table.rec[1].hot;
	reply = rig_reply(&s, be16_host(flow->external_port));
	reply.dst = r->core.nat.pools[flow->pool].v4;
	CHECK_EQ(180, estate_in(r, WAN, &reply).verdict, V_HELD);
	CHECK_EQ(181, ack(r, tell(r)), 2);
	CHECK_EQ(182, rig_count(r, V_SNAT), 1);
	CHECK_EQ(183, rig_count(r, V_REVERSE), 1);
	CHECK_EQ(184, sent[0].verdict, V_SNAT);
	CHECK_EQ(185, f.verdict, V_HELD);
	rig_free(r);
}

/* Fragments, in and out of order: what leaves is the datagram. */
static void check_fragments(void)
{
	static struct datagram d;
	static struct whole w;
	struct fp_frame frames[FP_BURST_MAX];

	for (uint32_t order = 0; order < 20; order++) {
		struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
		struct fp_frame f;
		uint32_t n;

		datagram_make(&d, LAN, &spec_udp, 6000, (uint16_t)order);
		datagram_cut(&d, 1000);
		if (order)
			shuffle(&d);
		memset(&w, 0, sizeof(w));
		for (uint32_t i = 0; i < d.n; i++) {
			const uint32_t verdict = step_piece(r, &d, d.parts[i].from, d.parts[i].len,
							    d.parts[i].from + d.parts[i].len <
								    d.len - IPV4_LEN);

			CHECK(190, verdict == V_HELD || verdict == V_FRAG_HELD);
			f = (struct fp_frame){ .data = rooms[0] };
			while (core_frags_ready(&r->core, &f, 1, r->now_ns))
				CHECK_EQ(191, rig_step(r, &f), V_HELD);
		}
		core_ack(&r->core, tell(r));
		for (uint32_t i = 0; i < FP_BURST_MAX; i++)
			frames[i] = (struct fp_frame){ .data = rooms[i] };
		n = core_held_ready(&r->core, frames, FP_BURST_MAX, r->now_ns);
		CHECK_EQ(192, n, d.n);
		core_step(&r->core, frames, n, r->now_ns);
		for (uint32_t i = 0; i < n; i++) {
			CHECK_EQ(193, frames[i].verdict, V_SNAT);
			whole_add(&w, &frames[i]);
		}
		CHECK(194, whole_ok(&w));
		rig_free(r);
	}
}

/* Two sessions, one behind the other: the packet waits for both. */
static void check_hairpin(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	struct spec s = spec_udp;
	struct fp_frame f;

	s.src = CLIENT2;
	s.sport = 6000;
	estate_in(r, LAN, &s);
	ack(r, tell(r));
	f = estate_in(r, LAN, &s);
	s.src = CLIENT;
	s.dst = out_src(&f);
	s.sport = 5000;
	s.dport = out_sport(&f);
	n_sent = 0;
	CHECK_EQ(200, estate_in(r, LAN, &s).verdict, V_HELD);
	CHECK_EQ(201, rig_stats(r).flows, 2);
	CHECK_EQ(202, ack(r, tell(r)), 1); /* the first half is known, the second one begins */
	CHECK_EQ(203, n_sent, 0);
	CHECK_EQ(204, rig_stats(r).flows, 3);
	CHECK_EQ(205, counter_read(&r->core.commit.hold.n), 1);
	CHECK_EQ(206, ack(r, tell(r)), 1);
	CHECK_EQ(207, n_sent, 1);
	CHECK_EQ(208, sent[0].verdict, V_HAIRPIN);
	CHECK_EQ(209, sent[0].session, 6000);
	rig_free(r);
}

/* An error about a session that the peer does not know waits as well. */
static void check_icmp_error(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	const struct flow_hot *flow;
	struct fp_frame f;
	uint8_t *ip, *quote;
	be32 external;

	estate_in(r, LAN, &spec_udp);
	flow = &r->core.table.rec[1].hot;
	external = r->core.nat.pools[flow->pool].v4;
	f = frames_ipv4(
		r->data, WAN, mac_virtual[WAN],
		&(struct spec){ .src = ISP, .dst = external, .proto = IPPROTO_NUM_ICMP, .payload = 28 });
	ip = r->data + ETH_LEN;
	quote = ip + IPV4_LEN + ICMP_LEN;
	be16_store(ip + IPV4_LEN + ICMP_TYPE, be16_of(ICMP_UNREACHABLE << 8 | 3));
	memset(quote, 0, 28);
	quote[0] = 0x45;
	be16_store(quote + IP_TOTAL, be16_of(28 + 31));
	quote[IP_TTL] = 60;
	quote[IP_PROTO] = IPPROTO_NUM_UDP;
	be32_store(quote + IP_SRC, external);
	be32_store(quote + IP_DST, spec_udp.dst);
	frames_fix_ip_csum(quote);
	be16_store(quote + IPV4_LEN + L4_SPORT, flow->external_port);
	be16_store(quote + IPV4_LEN + L4_DPORT, be16_of(spec_udp.dport));
	be16_store(quote + IPV4_LEN + UDP_LENGTH, be16_of(UDP_LEN + 31));
	frames_fix_l4_csum(ip, ICMP_LEN + 28);
	CHECK_EQ(210, rig_step(r, &f), V_HELD);
	CHECK_EQ(211, ack(r, tell(r)), 2);
	CHECK_EQ(212, rig_count(r, V_ICMP_ERROR_IN), 1);
	rig_free(r);
}

/* Offload frames have slots of their own, and few. */
static void check_offload(void)
{
	struct rig *r = held_make_as(FP_COMMIT_BOUNDED);
	static uint8_t big[FP_FRAME_BIG];
	struct spec s = spec_syn;
	struct fp_frame f;

	tcp(r, TCP_SYN, 100);
	for (uint32_t i = 0; i < HOLD_BIG + 2; i++) {
		uint8_t *ip = big + ETH_LEN;

		s.tcp_flags = TCP_ACK_FLAG;
		f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &s);
		memcpy(big, r->data, f.len);
		f.data = big;
		f.len = ETH_LEN + 30000;
		f.vnet = (struct fp_vnet){ .flags = FP_VNET_NEEDS_CSUM,
					   .gso_type = FP_GSO_TCPV4,
					   .hdr_len = ETH_LEN + IPV4_LEN + TCP_LEN,
					   .gso_size = 1000,
					   .csum_start = ETH_LEN + IPV4_LEN,
					   .csum_offset = TCP_CSUM };
		be16_store(ip + IP_TOTAL, be16_of(30000));
		frames_fix_ip_csum(ip);
		/* One slot in four is one session's. */
		CHECK_EQ(220, rig_step(r, &f), i < HOLD_FRAMES / HOLD_EACH_SHARE - 1 ? V_HELD : V_HOLD_FULL);
	}
	CHECK(221, counter_read(&r->core.commit.hold.bytes) >
			   (uint64_t)(HOLD_FRAMES / HOLD_EACH_SHARE - 1) * 30000);
	CHECK_EQ(222, ack(r, tell(r)), HOLD_FRAMES / HOLD_EACH_SHARE);
	CHECK_EQ(223, counter_read(&r->core.commit.hold.bytes), 0);
	rig_free(r);
}

/* ---- the histogram ---- */

static void check_lag_buckets(void)
{
	CHECK_EQ(250, lag_bucket(0), 0);
	for (uint32_t i = 0; i + 1 < FP_LAG_BUCKETS; i++) {
		const uint64_t end_ns = lag_bucket_us(i) * 1000;

		CHECK_EQ(251, lag_bucket(end_ns - 1), i);
		CHECK_EQ(252, lag_bucket(end_ns), i + 1);
	}
	CHECK_EQ(253, lag_bucket(UINT64_MAX), FP_LAG_BUCKETS - 1);
	CHECK_EQ(254, lag_bucket_us(FP_LAG_BUCKETS - 1), UINT64_MAX);
	CHECK(255, lag_bucket_us(FP_LAG_BUCKETS - 2) >= 1000000);
}

int main(void)
{
	check_async();
	check_bounded();
	check_hiccup();
	check_degraded();
	check_quiet();
	check_strict();
	check_refused(FP_COMMIT_BOUNDED);
	check_refused(FP_COMMIT_STRICT);
	check_refused_and_gone(false);
	check_refused_and_gone(true);
	check_rules();
	check_off();
	check_not_told();
	check_fenced();
	check_frames_full();
	check_strict_full();
	check_nobody_acknowledges();
	check_births_that_were_missed();
	check_births_full(FP_COMMIT_BOUNDED);
	check_births_full(FP_COMMIT_STRICT);
	check_births_of_async();
	check_gone();
	check_lost(FP_COMMIT_BOUNDED);
	check_lost(FP_COMMIT_STRICT);
	check_reopen();
	check_answers();
	check_fragments();
	check_hairpin();
	check_icmp_error();
	check_offload();
	check_lag_buckets();
	return check_done("commit");
}
