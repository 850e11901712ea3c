/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_tour.c - the slow walk: busy sessions refreshed, sessions that have come of age, filters of rules
 *
 * The scrub is checked with the digests (check_digest.c).
 */
#include "../digest.h"
#include "../session.h"
#include "pair.h"

enum { RECS = 1024 };

static struct fp_flow_rec recs[RECS];

static struct fp_frame udp(struct pair *p, uint16_t sport)
{
	struct spec s = spec_udp;

	s.sport = sport;
	return rig_in(p->active, LAN, &s);
}

/* Turn the clock in small steps, and deliver. Return: what was told by @op meanwhile. */
static uint64_t go_on(struct pair *p, uint32_t seconds, enum fp_op op)
{
	const uint64_t before = counter_read(&p->active->core.stat.told[op]);

	for (uint32_t i = 0; i < 4 * seconds; i++) {
		pair_sleep_ms(p, 250);
		pair_drain(p, PAIR_RING, UINT32_MAX);
		pair_deliver(p, PAIR_RING);
		core_ack(&p->active->core, p->acked);
	}
	return counter_read(&p->active->core.stat.told[op]) - before;
}

static struct pair *pair_synced(void)
{
	struct fp_config cfg = estate_config(1);
	struct pair *p = pair_new(&cfg);

	pair_sweep(p, UINT64_MAX, false);
	CHECK_EQ(1, pair_audit(p), 0);
	return p;
}

static struct fp_flow_rec only_record(struct rig *r)
{
	CHECK_EQ(2, rig_walk(r, recs, RECS), 1);
	return recs[0];
}

/* Windows, counters and time of a session with traffic, once in refresh_s; of a quiet one, or one that is over, not. */
static void check_refresh(void)
{
	struct pair *p = pair_synced();
	struct fp_flow_rec here, there;
	struct spec s = spec_syn;

	rig_connect(p->active, 40001);
	pair_settle(p);
	there = only_record(p->passive);
	CHECK_EQ(10, there.win[0].end, 0); /* the first word has no windows, and the next comes later */
	CHECK_EQ(11, there.packets[0], 0);
	go_on(p, 31, FP_OP_REST); /* the round that was under way may have passed it */
	s.tcp_flags = TCP_ACK_FLAG;
	s.seq = 101;
	s.ack = 501;
	s.payload = 1000;
	rig_in(p->active, LAN, &s);
	CHECK(12, go_on(p, 31, FP_OP_REST) >= 1);
	here = only_record(p->active);
	there = only_record(p->passive);
	CHECK(13, memcmp(here.win, there.win, sizeof(here.win)) == 0 && here.win[0].end == 1101);
	CHECK(14, memcmp(here.packets, there.packets, sizeof(here.packets)) == 0 && here.packets[0] == 3);
	CHECK(15, memcmp(here.bytes, there.bytes, sizeof(here.bytes)) == 0);
	CHECK_EQ(16, there.version, here.version);
	go_on(p, 31, FP_OP_REST);
	CHECK_EQ(17, go_on(p, 65, FP_OP_REST), 0); /* quiet */
	rig_in(p->active, LAN, &s);
	CHECK_EQ(18, go_on(p, 65, FP_OP_REST), 1); /* once, though two rounds have seen it */
	/* Over: its end is told, and no more. */
	s.payload = 0;
	s.seq = 1101;
	s.tcp_flags = TCP_ACK_FLAG | TCP_RST;
	rig_in(p->active, LAN, &s);
	CHECK_EQ(19, go_on(p, 65, FP_OP_REST), 0);
	CHECK(20, only_record(p->passive).flags & FP_RF_RESET);
	CHECK_EQ(21, pair_audit(p), 0);
	pair_free(p);
}

/* A sweep's first words have no windows either: the rest of quiet sessions follows soon, and once. Spec: R10, R19 */
static void check_rest_after_sweep(void)
{
	struct pair *p = pair_synced();
	struct fp_flow_rec here, there;

	rig_connect(p->active, 40001);
	pair_settle(p);
	go_on(p, 65, FP_OP_REST);
	CHECK_EQ(28, go_on(p, 65, FP_OP_REST), 0); /* quiet */
	core_track(&p->active->core, false);       /* the peer begins anew */
	core_import_begin(&p->passive->core, UINT64_MAX, false);
	core_import_end(&p->passive->core, UINT64_MAX);
	pair_sweep(p, UINT64_MAX, false);
	CHECK_EQ(29, pair_audit(p), 0);
	CHECK_EQ(22, only_record(p->passive).packets[0], 0);
	CHECK_EQ(23, go_on(p, 2, FP_OP_REST), 1);
	here = only_record(p->active);
	there = only_record(p->passive);
	CHECK(24, memcmp(here.win, there.win, sizeof(here.win)) == 0 && here.win[0].end);
	CHECK(25, memcmp(here.packets, there.packets, sizeof(here.packets)) == 0 && here.packets[0]);
	CHECK_EQ(26, go_on(p, 65, FP_OP_REST), 0);
	CHECK_EQ(27, pair_audit(p), 0);
	pair_free(p);
}

/*
 * The sections of a batch reorder what was told: REST then STATE of a session, STATE then the OPEN of the next one
 * between the same ends. Nothing of it is refused or unknown to the peer.
 */
static void check_overtaken(void)
{
	struct pair *p = pair_synced();
	struct fp_flow_rec there;
	struct spec s = spec_syn;
	uint16_t external;

	external = rig_connect(p->active, 40001);
	pair_settle(p);
	pair_sleep_ms(p, 100);
	pair_drain(p, PAIR_RING, UINT32_MAX);
	s.tcp_flags = TCP_ACK_FLAG | TCP_FIN;
	s.seq = 101;
	s.ack = 501;
	rig_in(p->active, LAN, &s);
	s = rig_reply(&spec_syn, external);
	s.tcp_flags = TCP_ACK_FLAG | TCP_FIN;
	s.seq = 501;
	s.ack = 102;
	rig_in(p->active, WAN, &s);
	s = spec_syn;
	s.tcp_flags = TCP_ACK_FLAG;
	s.seq = 102;
	s.ack = 502;
	rig_in(p->active, LAN, &s);
	pair_ask(p); /* a digest does not wait */
	pair_drain(p, PAIR_RING, UINT32_MAX);
	REQUIRE(p->n == 3 && p->ring[0].op == FP_OP_REST && p->ring[1].op == FP_OP_STATE);
	pair_deliver(p, PAIR_RING);
	there = only_record(p->passive);
	CHECK(100, there.win[0].end == 101 && there.state == FP_ST_TIME_WAIT);
	/* Reset, and opened anew. */
	external = rig_connect(p->active, 40002);
	pair_settle(p);
	s = rig_reply(&spec_syn, external);
	s.tcp_flags = TCP_ACK_FLAG | TCP_RST;
	s.seq = 501;
	s.ack = 101;
	rig_in(p->active, WAN, &s);
	pair_sleep_ms(p, 100);
	pair_drain(p, PAIR_RING, UINT32_MAX);
	s = spec_syn;
	s.sport = 40002;
	rig_in(p->active, LAN, &s);
	pair_drain(p, PAIR_RING, UINT32_MAX);
	REQUIRE(p->n == 2 && p->ring[0].op == FP_OP_STATE && p->ring[1].op == FP_OP_OPEN);
	CHECK(101, p->ring[0].id != p->ring[1].id);
	pair_deliver(p, PAIR_RING);
	CHECK_EQ(102, pair_audit(p), 0);
	CHECK_EQ(103, rig_stats(p->passive).import_refused, 0);
	CHECK_EQ(104, counter_read(&p->passive->core.stat.import_unknown), 0);
	pair_free(p);
}

/* ... at a pace: a quick round goes through so many slots a second, and comes to its end whatever is swept meanwhile. */
static void check_quick_round(void)
{
	struct pair *p = pair_synced();
	struct tour *tour = &p->active->core.tour;

	for (uint32_t i = 0; i < 900; i++)
		udp(p, (uint16_t)(10000 + i));
	pair_settle(p);
	go_on(p, 65, FP_OP_REST);
	go_on(p, 65, FP_OP_REST);
	pair_sweep(p, UINT64_MAX, false);
	pair_settle(p);
	CHECK_EQ(80, pair_audit(p), 0);
	pair_sleep_ms(p, 250);
	pair_drain(p, PAIR_RING, UINT32_MAX);
	CHECK_EQ(81, tour->anew, UINT64_MAX);
	pair_sleep_ms(p, 250);
	pair_drain(p, PAIR_RING, UINT32_MAX);
	CHECK(82, p->n > 900 / 8 && p->n < 900 / 2);
	pair_deliver(p, PAIR_RING);
	CHECK_EQ(83, pair_audit(p), 0);
	/* Half of the table anew, while the first round is under way: it ends, then comes the next. */
	pair_sweep(p, 0xffffffff, true);
	pair_settle(p);
	CHECK(84, tour->anew == UINT64_MAX && tour->swept);
	CHECK(85, go_on(p, 1, FP_OP_REST) >= 900 / 2);
	CHECK(86, go_on(p, 3, FP_OP_REST) >= 900 / 4);
	CHECK(87, !tour->anew && !tour->swept);
	CHECK_EQ(88, go_on(p, 65, FP_OP_REST), 0);
	CHECK_EQ(89, counter_read(&p->active->core.stat.scrub_errors), 0);
	CHECK_EQ(90, pair_audit(p), 0);
	pair_free(p);
}

/* A round takes its time: no more in a tick than its share. */
static void check_share(void)
{
	struct pair *p = pair_synced();

	for (uint32_t i = 0; i < 900; i++)
		udp(p, (uint16_t)(10000 + i));
	pair_settle(p);
	go_on(p, 60, FP_OP_REST);
	for (uint32_t i = 0; i < 900; i++)
		udp(p, (uint16_t)(10000 + i));
	for (uint32_t i = 0; i < 120; i++) {
		const uint64_t before = counter_read(&p->active->core.stat.told[FP_OP_REST]);

		pair_sleep_ms(p, 250);
		pair_drain(p, PAIR_RING, UINT32_MAX);
		CHECK(30, counter_read(&p->active->core.stat.told[FP_OP_REST]) - before <= 900 / 60);
		pair_deliver(p, PAIR_RING);
	}
	/* ... and what it may not look at in one drain it does in the next. */
	pair_sleep_ms(p, 10000);
	pair_drain(p, PAIR_RING, 10);
	CHECK(31, p->active->core.tour.more && core_has_more(&p->active->core));
	for (uint32_t i = 0; i < 100; i++)
		pair_drain(p, PAIR_RING, 10);
	CHECK(32, !p->active->core.tour.more);
	pair_free(p);
}

static void *three_rules(struct pair *p)
{
	struct rules rules = { .rules = { estate_rule(FP_ALLOW, FP_FORM_SNAT),
					  estate_rule(FP_ALLOW, FP_FORM_SNAT),
					  estate_rule(FP_ALLOW, FP_FORM_SNAT) },
			       .n_rules = 3 };

	rules.rules[0].sport_hi = 9999;
	rules.rules[0].sync = FP_SYNC_NO;
	rules.rules[1].sport_hi = 19999;
	rules.rules[1].sync = FP_SYNC_AFTER;
	rules.rules[1].sync_after_s = 5;
	return estate_policy(p->active, &rules);
}

/* Spec: issue's filters: never, at once, and once it is old enough. */
static void check_filters(void)
{
	struct pair *p = pair_synced();
	void *mem = three_rules(p);

	udp(p, 5000);
	udp(p, 15000);
	udp(p, 25000);
	rig_walk(p->active, recs, RECS);
	CHECK_EQ(40, recs[0].fate, FP_FATE_RULE);
	CHECK_EQ(41, recs[1].fate, FP_FATE_AFTER);
	CHECK_EQ(42, recs[2].fate, FP_FATE_UNTOLD);
	pair_settle(p);
	CHECK_EQ(43, only_record(p->passive).inside_port, be16_of(25000).raw);
	CHECK_EQ(44, go_on(p, 4, FP_OP_OPEN), 0);
	udp(p, 15001); /* young again */
	CHECK_EQ(45, go_on(p, 4, FP_OP_OPEN), 1);
	rig_walk(p->active, recs, RECS);
	CHECK_EQ(46, recs[0].fate, FP_FATE_RULE);
	CHECK(47, recs[1].fate == FP_FATE_LIVES || recs[1].fate == FP_FATE_UNACKED);
	CHECK_EQ(48, recs[3].fate, FP_FATE_AFTER);
	CHECK_EQ(49, pair_audit(p), 0);
	/* A sweep obeys, too; who came of age stays told. */
	pair_sweep(p, UINT64_MAX, false);
	CHECK_EQ(50, pair_audit(p), 0);
	CHECK_EQ(51, rig_walk(p->passive, recs, RECS), 2);
	CHECK_EQ(52, go_on(p, 4, FP_OP_OPEN), 1);
	CHECK_EQ(53, rig_walk(p->passive, recs, RECS), 3);
	/* What goes before its time, or is never told, needs no delete. */
	udp(p, 15002);
	CHECK_EQ(54, go_on(p, 310, FP_OP_DELETE), 4);
	CHECK_EQ(55, rig_walk(p->passive, recs, RECS), 0);
	CHECK_EQ(56, rig_walk(p->active, recs, RECS), 0);
	CHECK_EQ(57, pair_audit(p), 0);
	pair_free(p);
	free(mem);
}

/* Sessions of the peer's are old: it has told us of them. */
static void check_ages_after_takeover(void)
{
	struct pair *p = pair_synced();
	void *mem;

	udp(p, 15000);
	pair_settle(p);
	pair_takeover(p, 9);
	mem = three_rules(p);
	core_set_policy(&p->passive->core, p->active->core.policy);
	udp(p, 15001);
	pair_sweep(p, UINT64_MAX, false);
	CHECK_EQ(60, pair_audit(p), 0);
	CHECK_EQ(61, only_record(p->passive).inside_port, be16_of(15000).raw);
	CHECK_EQ(62, go_on(p, 8, FP_OP_OPEN), 1);
	pair_free(p);
	free(mem);
}

/* A session whose rule changes is told anew, with the rule; one that may be told from now on, too. */
static void check_rule_changes(void)
{
	struct pair *p = pair_synced();
	void *mem = three_rules(p), *other;
	struct rules all = { .rules = { estate_rule(FP_ALLOW, FP_FORM_SNAT) }, .n_rules = 1 };
	uint32_t slot = 0;
	bool done = false;

	udp(p, 5000);
	udp(p, 25000);
	pair_settle(p);
	CHECK_EQ(70, only_record(p->passive).rule, 3);
	other = estate_policy(p->active, &all);
	core_set_policy(&p->passive->core, p->active->core.policy);
	while (!done)
		core_review(&p->active->core, &slot, 64, &done, p->active->now_ns);
	CHECK_EQ(71, pair_audit(p), 0);
	CHECK_EQ(72, rig_walk(p->passive, recs, RECS), 2);
	CHECK(73, recs[0].rule == 1 && recs[1].rule == 1);
	pair_free(p);
	free(mem);
	free(other);
}

int main(void)
{
	check_refresh();
	check_rest_after_sweep();
	check_overtaken();
	check_quick_round();
	check_share();
	check_filters();
	check_ages_after_takeover();
	check_rule_changes();
	return check_done("tour");
}
