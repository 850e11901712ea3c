/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_adopt.c - two nodes that both reigned: what only the loser has, and what the winner takes of it
 */
#include <errno.h>

#include "../digest.h"
#include "rig.h"

enum { RECS = 512 };

static struct fp_flow_rec recs[RECS];

/* The other ACTIVE node: a table of its own. */
static struct rig *rival(uint32_t flow_cap)
{
	struct rig *r = rig_passive(flow_cap);

	core_track(&r->core, true);
	core_set_role(&r->core, FP_ROLE_ACTIVE, 3, r->now_ns);
	return r;
}

/* The winner's bulk, up to its end. */
static void follow(struct rig *loser, struct rig *winner)
{
	const uint32_t n = rig_walk(winner, recs, RECS);

	core_set_role(&loser->core, FP_ROLE_JOINING, 4, loser->now_ns);
	core_track(&loser->core, false);
	CHECK_EQ(1, core_import_begin(&loser->core, UINT64_MAX, false), 0);
	for (uint32_t i = 0; i < n; i++)
		recs[i].flags &= FLOW_FLAGS_TOLD;
	CHECK_EQ(2, core_import(&loser->core, recs, n, loser->now_ns), n);
}

/* What is left there then: so many sessions, first words and the rest as one (fp_flows_adopt()). */
static uint32_t strand(struct rig *loser, uint64_t since_ns)
{
	uint32_t slot = 0, n = 0;
	bool done = false;

	while (!done) {
		struct fp_flow_rec out[2];
		const int got = core_stranded(&loser->core, UINT64_MAX, since_ns, &slot, out, 2, &done,
					      loser->now_ns);

		REQUIRE(got >= 0 && n < RECS);
		if (!got)
			continue;
		CHECK(3, out[0].op == FP_OP_OPEN && out[1].op == FP_OP_REST && out[0].id == out[1].id);
		recs[n] = out[0];
		recs[n++].has |= out[1].has;
	}
	return n;
}

static int offer(struct rig *winner, struct fp_flow_rec rec)
{
	const int taken = core_adopt(&winner->core, &rec, 1, winner->now_ns);

	CHECK_EQ(4, rec.fate == FP_TAKEN, taken == 1);
	return taken;
}

static struct spec data_of(uint16_t sport)
{
	struct spec s = spec_syn;

	s.sport = sport;
	s.tcp_flags = TCP_ACK_FLAG;
	s.seq = 101;
	s.ack = 501;
	return s;
}

/* Are they what came with it? */
static bool same_windows(struct rig *r, const struct fp_flow_rec *rec)
{
	static struct fp_flow_rec own[RECS];
	const uint32_t n = rig_walk(r, own, RECS);

	for (uint32_t i = 0; i < n; i++)
		if (own[i].id == rec->id && own[i].origin == rec->origin)
			return memcmp(own[i].win, rec->win, sizeof(rec->win)) == 0 &&
			       own[i].packets[SIDE_OUT] == rec->packets[SIDE_OUT];
	return false;
}

/* Sessions of both go on at the winner, by the ports that they had; and the loser gets them back. */
static void check_merge(void)
{
	struct rig *loser = rig_tracking(1000), *winner = rival(1000);
	uint16_t external[3];
	uint32_t n, told;
	struct spec s;

	rig_connect(winner, 40010);
	for (uint16_t i = 0; i < 3; i++)
		external[i] = rig_connect(loser, (uint16_t)(40001 + i));
	follow(loser, winner);
	n = strand(loser, 0);
	CHECK_EQ(10, n, 3);
	CHECK_EQ(11, core_import_end(&loser->core, UINT64_MAX), 3);
	s = data_of(40001);
	CHECK_EQ(12, rig_in(winner, LAN, &s).verdict, V_SYN_CHECK);
	while (rig_drain(winner, recs + n, RECS - n))
		;
	CHECK_EQ(13, core_adopt(&winner->core, recs, n, winner->now_ns), 3);
	CHECK_EQ(14, core_adopt(&winner->core, recs, n, winner->now_ns), 3); /* once more: there already */
	CHECK_EQ(15, rig_stats(winner).flows, 4);
	CHECK(18, recs[0].win[SIDE_OUT].max_end && same_windows(winner, &recs[0]));
	for (uint16_t i = 0; i < 3; i++) {
		struct fp_frame f;

		s = data_of((uint16_t)(40001 + i));
		f = rig_in(winner, LAN, &s);
		CHECK_EQ(16, f.verdict, V_SNAT);
		CHECK_EQ(17, out_sport(&f), external[i]);
	}
	told = rig_drain(winner, recs, RECS);
	CHECK_EQ(19, told, 3);
	for (uint32_t i = 0; i < told; i++)
		CHECK(20, recs[i].op == FP_OP_OPEN && recs[i].origin == loser->cfg.origin);
	CHECK_EQ(21, core_import(&loser->core, recs, told, loser->now_ns), 3);
	CHECK_EQ(22, rig_stats(loser).flows, 4);
	rig_free(loser);
	rig_free(winner);
}

/* What was not used since, or has ended, is of no use to anybody. */
static void check_of_use(void)
{
	struct rig *loser = rig_tracking(1000), *winner = rival(1000);
	struct spec s = data_of(40002);
	uint64_t since_ns;

	rig_connect(loser, 40001);
	rig_connect(loser, 40002);
	rig_connect(loser, 40003);
	rig_sleep(loser, 10);
	since_ns = loser->now_ns;
	rig_in(loser, LAN, &s);
	s = data_of(40003);
	s.tcp_flags = TCP_RST;
	rig_in(loser, LAN, &s);
	follow(loser, winner);
	CHECK_EQ(30, strand(loser, since_ns), 1);
	CHECK_EQ(31, recs[0].inside_port, be16_of(40002).raw);
	CHECK_EQ(32, strand(loser, loser->now_ns + NS_PER_S), 0);
	CHECK_EQ(33, strand(loser, 0), 2);
	/* Nothing runs out while a node does not reign, but this would have. */
	rig_sleep(loser, 30 * 24 * 3600);
	CHECK_EQ(34, rig_stats(loser).flows, 3);
	CHECK_EQ(35, strand(loser, 0), 0);
	rig_free(loser);
	rig_free(winner);
}

/* Both have it: the winner's stays, whoever asks for what. */
static void check_conflict(void)
{
	struct rig *loser = rig_tracking(1000), *winner = rival(1000);
	const uint16_t mine = rig_connect(winner, 40001);
	struct fp_flow_rec same, other, own;
	struct spec s = data_of(40001);
	struct fp_frame f;

	rig_connect(loser, 40001);
	core_set_role(&loser->core, FP_ROLE_JOINING, 4, loser->now_ns);
	CHECK_EQ(40, strand(loser, 0), 1);
	same = other = recs[0];
	CHECK_EQ(42, offer(winner, same), 0); /* the same ends */
	other.id++;
	other.remote_port = be16_of(8080).raw;
	other.external_port = be16_of((uint16_t)(mine + 128)).raw;
	CHECK_EQ(43, offer(winner, other), 0); /* the same inside end, behind another port */
	other.external_port = be16_of(mine).raw;
	CHECK_EQ(44, offer(winner, other), 1); /* behind its own: that is where it belongs */
	other.id++;
	other.remote_port = be16_of(8081).raw;
	other.inside_port = be16_of(40001 + 128).raw;
	CHECK_EQ(45, offer(winner, other), 0); /* another inside end behind that port */
	f = rig_in(winner, LAN, &s);
	CHECK_EQ(46, f.verdict, V_SNAT);
	CHECK_EQ(47, out_sport(&f), mine);
	CHECK_EQ(48, rig_stats(winner).flows, 2);
	/* The winner's word ends it at the loser: then there is nothing to offer. */
	follow(loser, winner);
	CHECK_EQ(49, strand(loser, 0), 0);
	rig_walk(loser, &own, 1);
	CHECK_EQ(50, own.external_port, be16_of(mine).raw);
	rig_free(loser);
	rig_free(winner);
}

/* Roles, sessions that are over, and no room. */
static void check_refused(void)
{
	struct rig *loser = rig_tracking(1000), *winner = rival(2);
	struct fp_flow_rec rec;
	uint32_t slot = 0;
	bool done;

	rig_connect(loser, 40001);
	CHECK_EQ(60, core_stranded(&loser->core, UINT64_MAX, 0, &slot, recs, RECS, &done, loser->now_ns),
		 -EPERM);
	core_set_role(&loser->core, FP_ROLE_JOINING, 4, loser->now_ns);
	CHECK_EQ(61, strand(loser, 0), 1);
	rec = recs[0];
	CHECK_EQ(62, core_adopt(&loser->core, &rec, 1, loser->now_ns), -EPERM);
	rec.state = FP_ST_TIME_WAIT;
	CHECK_EQ(63, offer(winner, rec), 0);
	rec = recs[0];
	rec.flags |= FP_RF_RESET;
	CHECK_EQ(64, offer(winner, rec), 0);
	rec = recs[0];
	rec.op = FP_OP_DELETE;
	CHECK_EQ(65, offer(winner, rec), 0);
	rec = recs[0];
	rec.external = addr_from_v4(IP4(198, 51, 100, 77));
	CHECK_EQ(66, offer(winner, rec), 0); /* no address of ours */
	rig_connect(winner, 40010);
	rig_connect(winner, 40012);
	CHECK_EQ(67, offer(winner, recs[0]), 0); /* nobody gives way */
	CHECK_EQ(68, rig_stats(winner).flows, 2);
	rig_free(loser);
	rig_free(winner);
}

/* Whatever is offered, nothing breaks, and nothing of ours is lost. */
static void check_garbage(void)
{
	struct rig *loser = rig_tracking(1000), *winner = rival(300);
	struct fp_flow_rec good;
	uint64_t x = 88172645463325252u;
	const uint16_t mine = rig_connect(winner, 40001);
	struct spec s = data_of(40001);
	struct fp_frame f;

	rig_connect(loser, 40003);
	core_set_role(&loser->core, FP_ROLE_JOINING, 4, loser->now_ns);
	REQUIRE(strand(loser, 0) == 1);
	good = recs[0];
	for (uint32_t i = 0; i < 200000; i++) {
		struct fp_flow_rec r = good;
		uint8_t *byte = (uint8_t *)&r;

		for (uint32_t flips = 0; flips < 3; flips++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			byte[x % sizeof(r)] = (uint8_t)(x >> 32);
		}
		if (x & 1)
			r.remote_port = (uint16_t)(x >> 20);
		core_adopt(&winner->core, &r, 1, winner->now_ns);
		if (i % 64 == 0)
			rig_drain(winner, recs, RECS);
	}
	CHECK(70, rig_stats(winner).flows > 1 && rig_stats(winner).flows <= 300);
	f = rig_in(winner, LAN, &s);
	CHECK_EQ(71, f.verdict, V_SNAT);
	CHECK_EQ(72, out_sport(&f), mine);
	core_set_role(&winner->core, FP_ROLE_JOINING, 5, winner->now_ns);
	core_import_begin(&winner->core, UINT64_MAX, false);
	core_import_end(&winner->core, UINT64_MAX);
	CHECK_EQ(73, rig_stats(winner).flows, 0);
	CHECK_EQ(74, rig_stats(winner).mappings, 0);
	CHECK_EQ(75, winner->core.table.n_free, winner->core.table.cap);
	rig_free(loser);
	rig_free(winner);
}

int main(void)
{
	check_merge();
	check_of_use();
	check_conflict();
	check_refused();
	check_garbage();
	return check_done("adopt");
}
