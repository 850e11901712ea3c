/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_import.c - records of the other node: merged, refused, in conflict; forms, owners, leaders
 */
#include "../digest.h"
#include "rig.h"

enum { RECS = 4096 };

static struct fp_flow_rec recs[RECS];

static struct fp_flow_rec tcp_record(struct rig *from, uint16_t sport)
{
	uint32_t n;

	rig_connect(from, sport);
	n = rig_walk(from, recs, RECS);
	for (uint32_t i = 0; i < n; i++)
		if (recs[i].inside_port == be16_of(sport).raw)
			return recs[i];
	return (struct fp_flow_rec){ 0 };
}

static struct fp_flow_rec base_record(uint32_t id)
{
	return (struct fp_flow_rec){ .id = id,
				     .origin = 1,
				     .proto = IPPROTO_NUM_UDP,
				     .state = FP_ST_ESTABLISHED,
				     .version = 1,
				     .remaining_ms = 1000,
				     .inside = addr_from_v4(CLIENT),
				     .remote = addr_from_v4(SERVER),
				     .external = addr_from_v4(WAN_VIP),
				     .inside_port = be16_of(5000).raw,
				     .remote_port = be16_of(53).raw,
				     .in_port = LAN,
				     .out_port = WAN };
}

static struct fp_flow_rec static_record(void)
{
	struct fp_flow_rec r = base_record(11);

	r.form = FP_FORM_STATIC;
	r.flags = FP_RF_INBOUND;
	r.external_port = be16_of(80).raw;
	return r;
}

static struct fp_flow_rec none_record(void)
{
	struct fp_flow_rec r = base_record(12);

	r.form = FP_FORM_NONE;
	r.external = r.inside;
	r.external_port = r.inside_port;
	r.pool = FP_POOL_NONE;
	return r;
}

static struct fp_flow_rec gre_record(void)
{
	struct fp_flow_rec r = base_record(13);

	r.proto = 47;
	r.inside_port = r.remote_port = 0;
	return r;
}

static int taken(struct rig *r, struct fp_flow_rec rec)
{
	return core_import(&r->core, &rec, 1, r->now_ns);
}

static void check_merge(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct fp_flow_rec rec = tcp_record(a, 40001), other;

	CHECK_EQ(160, core_import(&b->core, &rec, 1, b->now_ns), 1);
	CHECK_EQ(161, rig_stats(b).mappings, 1);
	CHECK_EQ(162, core_import(&b->core, &rec, 1, b->now_ns), 1); /* the same again */
	other = rec;
	other.version--;
	CHECK_EQ(163, core_import(&b->core, &other, 1, b->now_ns), 0);
	other = rec;
	other.state = FP_ST_SYN_SENT; /* never backwards */
	other.version++;
	CHECK_EQ(164, core_import(&b->core, &other, 1, b->now_ns), 0);
	rig_walk(b, recs, RECS);
	CHECK_EQ(165, recs[0].state, FP_ST_ESTABLISHED);
	CHECK_EQ(166, rig_stats(b).import_refused, 2);
	other.id += 7; /* another connection of the same endpoints: replaced, whatever its state */
	other.version = 1;
	CHECK_EQ(167, core_import(&b->core, &other, 1, b->now_ns), 1);
	rig_walk(b, recs, RECS);
	CHECK_EQ(168, recs[0].state, FP_ST_SYN_SENT);
	CHECK_EQ(169, rig_stats(b).flows, 1);
	rig_free(a);
	rig_free(b);
}

/* Split brain healed: both gave the same external port, or one client two of them. The peer's word wins. */
static void check_conflict(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct fp_flow_rec first = tcp_record(a, 40001), second = first;
	struct spec s;
	uint32_t n;

	/* b holds another inside endpoint of the same shard at first's external port. */
	for (uint32_t port = 1024; port < 65000; port++) {
		second.inside_port = be16_of((uint16_t)port).raw;
		if (port != 40001 &&
		    core_shard(&b->cfg, &second.inside, (be16){ second.inside_port }, IPPROTO_NUM_TCP) ==
			    nat_port_shard(be16_host((be16){ first.external_port })))
			break;
	}
	second.id = 99;
	CHECK_EQ(180, core_import(&b->core, &second, 1, b->now_ns), 1);
	CHECK_EQ(181, core_import(&b->core, &first, 1, b->now_ns), 1);
	CHECK_EQ(182, rig_stats(b).import_conflicts, 1);
	CHECK_EQ(183, rig_stats(b).flows, 1);
	CHECK_EQ(184, rig_stats(b).mappings, 1);
	/* The same client at another external port. */
	second = first;
	second.id = 100;
	second.external_port = be16_of(be16_host((be16){ first.external_port }) ^ 0x80).raw;
	CHECK_EQ(185, core_import(&b->core, &second, 1, b->now_ns), 1);
	CHECK_EQ(186, rig_stats(b).flows, 1);
	CHECK_EQ(187, rig_stats(b).mappings, 1);
	n = rig_walk(b, recs, RECS);
	CHECK(188, n == 1 && recs[0].external_port == second.external_port);
	core_set_role(&b->core, FP_ROLE_ACTIVE, 4, b->now_ns);
	s = rig_data_from_server(be16_host((be16){ second.external_port }));
	CHECK_EQ(189, rig_in(b, WAN, &s).verdict, V_REVERSE);
	s = rig_data_from_server(be16_host((be16){ first.external_port }));
	CHECK_EQ(190, rig_in(b, WAN, &s).verdict, V_NO_SESSION);
	rig_free(a);
	rig_free(b);
}

/* Whatever a peer sends, the worst is a refusal. */
static void check_garbage(void)
{
	struct rig *a = rig_active(), *b = rig_passive(500);
	struct fp_flow_rec good = tcp_record(a, 40001), r;
	uint64_t x = 88172645463325252u;
	uint8_t *byte = (uint8_t *)&r;

#define REFUSED(n, change)                                               \
	do {                                                             \
		r = good;                                                \
		change;                                                  \
		CHECK_EQ(n, core_import(&b->core, &r, 1, b->now_ns), 0); \
	} while (0)
	REFUSED(200, r.proto = 47);
	REFUSED(201, r.form = FP_FORM_NONE + 1);
	REFUSED(202, r.op = FP_OP_SWEPT);
	REFUSED(203, r.state = FP_ST_COUNT);
	REFUSED(204, r.state = FP_ST_NONE);
	REFUSED(205, r.state = FP_ST_NEW);
	REFUSED(206, r.in_port = 200);
	REFUSED(207, r.in_port = WAN);
	REFUSED(208, r.out_port = LAN);
	REFUSED(209, r.external.b[15]++);
	REFUSED(210, r.external_port = be16_of(80).raw);
	REFUSED(211, r.external_port =
			     be16_of(be16_host((be16){ r.external_port }) ^ 2).raw); /* another shard's */
	REFUSED(212, r.inside.b[0] = 0x20);
	REFUSED(213, memset(&r.remote, 0, sizeof(r.remote)));
	REFUSED(214, r.remote_port = 0);
	REFUSED(215, r.id = 0);
	REFUSED(216, r.form = FP_FORM_NONE); /* with an external end of its own */
	REFUSED(224, r.proto = 0);
#undef REFUSED
	CHECK_EQ(217, rig_stats(b).import_refused, 18);
	CHECK_EQ(218, rig_stats(b).flows, 0);
	for (uint32_t i = 0; i < 200000; i++) {
		r = good;
		for (uint32_t flips = 0; flips < 3; flips++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			byte[x % sizeof(r)] = (uint8_t)(x >> 32);
		}
		/* Mostly records that are taken: another client, or another remote port. */
		if (x & 1)
			r.remote_port = (uint16_t)(x >> 20);
		core_import(&b->core, &r, 1, b->now_ns);
	}
	CHECK(219, rig_stats(b).flows <= 500);
	core_import_begin(&b->core, UINT64_MAX, false);
	core_import_end(&b->core, UINT64_MAX);
	CHECK_EQ(220, rig_stats(b).flows, 0);
	CHECK_EQ(221, rig_stats(b).mappings, 0);
	CHECK_EQ(222, b->core.table.n_free, b->core.table.cap);
	rig_free(a);
	rig_free(b);
}

/* A full table refuses, and takes again when there is room. */
static void check_full(void)
{
	struct rig *a = rig_active(), *b = rig_passive(20);
	uint32_t n, taken = 0;

	for (uint16_t i = 0; i < 25; i++)
		rig_connect(a, (uint16_t)(40001 + i));
	n = rig_walk(a, recs, RECS);
	taken = (uint32_t)core_import(&b->core, recs, n, b->now_ns);
	CHECK_EQ(240, taken, 20);
	CHECK_EQ(241, rig_stats(b).import_refused, 5);
	CHECK_EQ(242, b->core.table.n_free, 0);
	rig_free(a);
	rig_free(b);
}

/* A batch goes to every worker; each takes what its shards own. */
static void check_workers(void)
{
	struct rig *a = rig_active(),
		   *w[3] = { rig_new(0, 3, 1000), rig_new(1, 3, 1000), rig_new(2, 3, 1000) };
	uint32_t n, taken[3], total = 0;

	for (uint16_t i = 0; i < 60; i++)
		rig_connect(a, (uint16_t)(40001 + i * 2));
	n = rig_walk(a, recs, RECS);
	for (uint32_t i = 0; i < 3; i++) {
		taken[i] = (uint32_t)core_import(&w[i]->core, recs, n, w[i]->now_ns);
		total += taken[i];
		CHECK(250, taken[i] > 5);
	}
	CHECK_EQ(251, total, 60);
	for (uint32_t i = 0; i < 3; i++)
		rig_free(w[i]);
	rig_free(a);
}

/* An imported flow's neighbours are asked for while PASSIVE. */
static void check_warm(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct fp_flow_rec rec = tcp_record(a, 40001);
	struct neigh_want wants[4];

	rig_fib(b, false);
	core_import(&b->core, &rec, 1, b->now_ns);
	CHECK_EQ(260, core_neigh_wanted(&b->core, wants, 4), 2);
	CHECK_EQ(261, wants[0].port + wants[1].port, LAN + WAN);
	rig_free(a);
	rig_free(b);
}

/*
 * Sessions of one mapping come in any order, and the leader that the other node had may go first: the external
 * port stays as long as one of them is left. Spec: RFC 4787 REQ-1.
 */
static void check_leaders(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	struct spec s = spec_udp;
	struct fp_frame f;
	uint16_t external = 0;
	uint32_t n;

	for (uint32_t i = 0; i < 5; i++) {
		s.dst = IP4(192, 0, 2, 10 + i);
		f = rig_in(a, LAN, &s);
		CHECK(280, i == 0 || out_sport(&f) == external);
		external = out_sport(&f);
	}
	CHECK_EQ(281, rig_stats(a).mappings, 1);
	n = rig_drain(a, recs, RECS);
	CHECK_EQ(282, n, 5);
	for (uint32_t i = n; i-- > 0;)
		CHECK_EQ(283, core_import(&b->core, &recs[i], 1, b->now_ns), 1);
	CHECK_EQ(284, rig_stats(b).mappings, 1);
	for (uint32_t i = 0; i < n; i++) {
		recs[i].op = FP_OP_DELETE;
		CHECK(285, !nat_port_claim(&b->core.nat, 0, IPPROTO_NUM_UDP, be16_of(external)));
		CHECK_EQ(286, core_import(&b->core, &recs[i], 1, b->now_ns), 1);
		CHECK_EQ(287, rig_stats(b).mappings, i < n - 1);
	}
	CHECK_EQ(288, b->core.table.n_free, b->core.table.cap);
	CHECK(289, nat_port_claim(&b->core.nat, 0, IPPROTO_NUM_UDP, be16_of(external)));
	rig_free(a);
	rig_free(b);
}

/* Every form comes and goes; what follows from the ends is computed here. */
static void check_forms(void)
{
	struct rig *b = rig_passive(1000);
	struct fp_flow_rec recs3[] = { static_record(), none_record(), gre_record() };
	struct fp_flow_rec hairpin = none_record();

	for (uint32_t i = 0; i < 3; i++) {
		struct fp_flow_rec out;

		recs3[i].flags |= FP_RF_HAIRPIN; /* a lie */
		CHECK_EQ(300, taken(b, recs3[i]), 1);
		CHECK_EQ(301, rig_walk(b, &out, 1), 1);
		CHECK_EQ(302, out.form, recs3[i].form);
		CHECK_EQ(303, out.pool, recs3[i].pool);
		CHECK_EQ(304, out.external_port, recs3[i].external_port);
		CHECK(305, addr_eq(&out.external, &recs3[i].external));
		CHECK_EQ(306, out.flags, FP_RF_IMPORTED | (recs3[i].flags & FP_RF_INBOUND));
		CHECK_EQ(307, rig_stats(b).mappings, 0);
		recs3[i].op = FP_OP_DELETE;
		CHECK_EQ(308, taken(b, recs3[i]), 1);
		CHECK_EQ(309, rig_stats(b).flows, 0);
	}
	hairpin.remote = addr_from_v4(WAN_VIP);
	CHECK_EQ(310, taken(b, hairpin), 1);
	rig_walk(b, recs, 1);
	CHECK_EQ(311, recs[0].flags, FP_RF_IMPORTED | FP_RF_HAIRPIN);
	/* Two clients behind the same end: the peer's later word wins. */
	CHECK_EQ(312, taken(b, gre_record()), 1);
	hairpin = gre_record();
	hairpin.id = 99;
	hairpin.inside = addr_from_v4(CLIENT2);
	CHECK_EQ(313, taken(b, hairpin), 1);
	CHECK_EQ(314, rig_stats(b).import_conflicts, 1);
	CHECK_EQ(315, rig_stats(b).flows, 2);
	rig_free(b);
}

static void check_forms_refused(void)
{
	struct rig *b = rig_passive(1000);
	struct fp_flow_rec r;

#define REFUSED(n, make, change)             \
	do {                                 \
		r = make();                  \
		change;                      \
		CHECK_EQ(n, taken(b, r), 0); \
	} while (0)
	REFUSED(320, static_record, r.proto = IPPROTO_NUM_ICMP);
	REFUSED(321, static_record, r.external_port = 0);
	REFUSED(322, static_record, r.external.b[15]++);
	REFUSED(323, static_record, (r.proto = 47, r.inside_port = r.remote_port = r.external_port = 0));
	REFUSED(324, none_record, r.external = addr_from_v4(WAN_VIP));
	REFUSED(325, none_record, r.external_port ^= 1);
	REFUSED(326, none_record, r.in_port = WAN);
	REFUSED(327, none_record, r.remote_port = 0);
	/* Two inside zones: the larger end cannot be the inside one; and nothing else goes between them. */
	REFUSED(328, none_record, (r.out_port = LAN, r.remote = addr_from_v4(IP4(10, 0, 0, 1))));
	REFUSED(329, static_record, r.out_port = LAN);
	REFUSED(330, gre_record, r.inside_port = 1);
	REFUSED(331, gre_record, r.external_port = 1);
	REFUSED(332, gre_record, r.external = addr_from_v4(CLIENT));
	REFUSED(333, gre_record, r.state = FP_ST_SYN_SENT);
	REFUSED(334, gre_record, r.in_port = FP_PORTS_MAX);
#undef REFUSED
	CHECK_EQ(335, rig_stats(b).import_refused, 15);
	r = none_record();
	r.out_port = LAN;
	r.remote = addr_from_v4(IP4(198, 51, 100, 200));
	CHECK_EQ(336, taken(b, r), 1);
	rig_free(b);
}

/* Each record has one owner, whatever its form. */
static void check_owners(void)
{
	struct rig *w[3] = { rig_new(0, 3, 1000), rig_new(1, 3, 1000), rig_new(2, 3, 1000) };
	struct fp_flow_rec (*const make[])(void) = { static_record, none_record, gre_record };
	struct fp_addr end;

	for (uint32_t i = 0; i < ARRAY_SIZE(make); i++) {
		for (uint32_t k = 0; k < 30; k++) {
			struct fp_flow_rec r = make[i]();
			be16 port = { 0 };
			int n = 0;

			r.id += 100ull * k;
			r.inside.b[15] = (uint8_t)(10 + k);
			r.remote.b[15] = (uint8_t)(10 + k);
			if (r.form == FP_FORM_NONE)
				r.external = r.inside;
			end = r.form == FP_FORM_NONE ? r.inside : r.remote;
			port.raw = r.form == FP_FORM_NONE ? r.inside_port : r.remote_port;
			for (uint32_t j = 0; j < 3; j++)
				n += taken(w[j], r) << 4 * j;
			CHECK_EQ(340, n, 1 << 4 * (core_shard(&w[0]->cfg, &end, port, r.proto) % 3));
		}
	}
	for (uint32_t j = 0; j < 3; j++)
		rig_free(w[j]);
}

/* ---- news ---- */

static int news(struct rig *r, struct fp_flow_rec rec, enum fp_op op)
{
	rec.op = (uint8_t)op;
	rec.has = (uint32_t)fp_cols_of(op, 0);
	return core_import(&r->core, &rec, 1, r->now_ns);
}

static uint64_t unknown(struct rig *r)
{
	return counter_read(&r->core.stat.import_unknown);
}

/* STATE and REST of what is not here, or of another session, change nothing and are counted. */
static void check_news(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct fp_flow_rec rec = tcp_record(a, 40001), other, out;
	struct fp_digest before[FP_SHARDS], after[FP_SHARDS];

	CHECK_EQ(360, news(b, rec, FP_OP_STATE), 0);
	CHECK_EQ(361, news(b, rec, FP_OP_REST), 0);
	CHECK_EQ(362, unknown(b), 2);
	CHECK_EQ(363, news(b, rec, FP_OP_DELETE), 1);
	CHECK_EQ(364, rig_stats(b).flows, 0);
	rec.state = FP_ST_SYN_SENT;
	CHECK_EQ(365, news(b, rec, FP_OP_OPEN), 1);
	core_digests(&b->core, before);
	other = rec;
	other.id++;
	CHECK_EQ(366, news(b, other, FP_OP_STATE), 0);
	CHECK_EQ(367, unknown(b), 3);
	/* An earlier session between the same ends, of whose end the batch tells in a later section. */
	other.id -= 2;
	CHECK_EQ(384, news(b, other, FP_OP_STATE), 1);
	CHECK_EQ(385, news(b, other, FP_OP_REST), 1);
	other.origin = 2; /* one of our own, that the peer has made another of since */
	other.id += 3;
	CHECK_EQ(386, news(b, other, FP_OP_STATE), 1);
	other.origin = 3;
	CHECK_EQ(387, news(b, other, FP_OP_STATE), 0);
	CHECK_EQ(388, unknown(b), 4);
	/* Contradictions are refused: a form, a side, or a past that it cannot have. */
	other = rec;
	other.form = FP_FORM_NONE;
	CHECK_EQ(368, news(b, other, FP_OP_STATE), 0);
	other = rec;
	other.flags |= FP_RF_INBOUND;
	CHECK_EQ(369, news(b, other, FP_OP_STATE), 0);
	other = rec;
	other.version--;
	CHECK_EQ(370, news(b, other, FP_OP_STATE), 1); /* an earlier word, behind a later one: nothing new */
	other = rec;
	other.state = FP_ST_NEW;
	CHECK_EQ(371, news(b, other, FP_OP_STATE), 0);
	CHECK_EQ(372, rig_stats(b).import_refused, 3);
	core_digests(&b->core, after);
	CHECK(373, memcmp(before, after, sizeof(before)) == 0);
	/* Progress. */
	rec.state = FP_ST_FIN_WAIT;
	rec.flags |= FP_RF_FIN_REPLY;
	rec.version++;
	CHECK_EQ(374, news(b, rec, FP_OP_STATE), 1);
	rig_walk(b, &out, 1);
	CHECK(375, out.state == FP_ST_FIN_WAIT && out.version == rec.version && out.rule == 0);
	CHECK_EQ(376, out.flags, FP_RF_IMPORTED | FP_RF_FIN_REPLY);
	rec.state = FP_ST_ESTABLISHED; /* never backwards */
	rec.version++;
	CHECK_EQ(377, news(b, rec, FP_OP_STATE), 0);
	/* The rest: rule, windows, counters, time; what did not come stays. */
	rec.state = FP_ST_FIN_WAIT;
	rec.version--;
	rec.rule = 7;
	rec.remaining_ms = 5000;
	rec.packets[1] = 99;
	rec.win[0].end = 4711;
	CHECK_EQ(378, news(b, rec, FP_OP_REST), 1);
	rig_walk(b, &out, 1);
	CHECK(379, out.rule == 7 && out.packets[1] == 99 && out.win[0].end == 4711);
	/* ... and behind a later word of the same session: the windows and counters are news, nothing else. */
	core_digests(&b->core, before);
	other = rec;
	other.version--;
	other.state = FP_ST_SYN_SENT;
	other.rule = 9;
	other.win[0].end = 4712;
	CHECK_EQ(389, news(b, other, FP_OP_REST), 1);
	rig_walk(b, &out, 1);
	CHECK(395, out.rule == 7 && out.state == FP_ST_FIN_WAIT && out.win[0].end == 4712);
	CHECK_EQ(396, out.version, rec.version);
	CHECK_EQ(397, news(b, rec, FP_OP_REST), 1);
	core_digests(&b->core, after);
	CHECK(398, memcmp(before, after, sizeof(before)) == 0);
	rec.op = FP_OP_REST;
	rec.has = (uint32_t)fp_cols_of(FP_OP_REST, 1);
	rec.rule = 0;
	rec.packets[1] = 0;
	rec.win[0].end = 0;
	CHECK_EQ(380, core_import(&b->core, &rec, 1, b->now_ns), 1);
	rig_walk(b, &out, 1);
	CHECK(381, out.rule == 7 && out.packets[1] == 99 && out.win[0].end == 4711);
	rig_free(a);
	rig_free(b);
}

/*
 * A FIN that nobody sent (a forged one) is told, and taken back once its side goes on: PASSIVE takes it back too, with
 * what it had seen acknowledged of it, and the digests are equal at each step.
 */
static void check_fin_taken_back(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct spec s = spec_syn;
	struct fp_digest ours[FP_SHARDS], theirs[FP_SHARDS];
	struct fp_flow_rec out;
	uint16_t external;

	core_track(&a->core, true);
	external = rig_connect(a, 40001);
	a->now_ns += NS_PER_S;
	CHECK(440, rig_drain(a, recs, RECS) == 1 && core_import(&b->core, recs, 1, b->now_ns) == 1);
	for (uint32_t step = 0; step < 2; step++) {
		s = rig_reply(&spec_syn, external);
		s.tcp_flags = step ? TCP_ACK_FLAG : TCP_ACK_FLAG | TCP_FIN;
		s.seq = step ? 501
			     : 801; /* the FIN is beyond what the server has sent; it sends more than that then */
		s.ack = 101;
		s.payload = step ? 400 : 0;
		CHECK_EQ(441, rig_in(a, WAN, &s).verdict, V_REVERSE);
		a->now_ns += NS_PER_S; /* it is a change that can wait */
		CHECK_EQ(442, rig_drain(a, recs, RECS), 1);
		CHECK_EQ(443, recs[0].op, FP_OP_REST);
		CHECK_EQ(444, recs[0].flags, step ? 0 : FP_RF_FIN_REPLY);
		CHECK_EQ(445, core_import(&b->core, recs, 1, b->now_ns), 1);
		rig_walk(b, &out, 1);
		CHECK_EQ(446, out.flags, FP_RF_IMPORTED | (step ? 0 : FP_RF_FIN_REPLY));
		core_digests(&a->core, ours);
		core_digests(&b->core, theirs);
		CHECK(447, memcmp(ours, theirs, sizeof(ours)) == 0);
		CHECK(448, !step || !(b->core.table.rec[1].cold.admin & ADMIN_FIN_ACKED_REPLY));
		b->core.table.rec[1].cold.admin |= ADMIN_FIN_ACKED_REPLY; /* as seen when it was ACTIVE */
	}
	rig_free(a);
	rig_free(b);
}

/* ---- survivors: what was told of a session, and how it went on, may differ by all that was still to be told ---- */

enum { AT_SYN, AT_SYN_ACK, AT_ACK, AT_DATA, AT_FIN, N_POINTS };

/* The packets of a connection, in order; side by side with the state that its record had been told in. */
static struct spec conversation(uint32_t point, uint16_t external, bool *from_wan)
{
	static const struct {
		uint8_t flags;
		bool reply;
		uint32_t seq, ack, payload;
	} packets[N_POINTS] = {
		{ TCP_SYN, false, 100, 0, 0 },
		{ TCP_SYN | TCP_ACK_FLAG, true, 500, 101, 0 },
		{ TCP_ACK_FLAG, false, 101, 501, 0 },
		{ TCP_ACK_FLAG, true, 501, 101, 200 },
		{ TCP_ACK_FLAG | TCP_FIN, false, 101, 701, 0 },
	};
	struct spec s = packets[point].reply ? rig_reply(&spec_syn, external) : spec_syn;

	s.tcp_flags = packets[point].flags;
	s.seq = packets[point].seq;
	s.ack = packets[point].ack;
	s.payload = (uint16_t)packets[point].payload;
	*from_wan = packets[point].reply;
	return s;
}

/*
 * ACTIVE dies between any two packets of a connection, of which the peer had heard up to any earlier one: whatever
 * comes next passes, from either side, and all after it. Spec: R13, R18, B1
 */
static void check_survivors(void)
{
	for (uint32_t told = AT_SYN; told < N_POINTS; told++) {
		for (uint32_t next = AT_SYN; next < N_POINTS; next++) {
			struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
			uint16_t external = 0;
			bool wan;

			for (uint32_t i = AT_SYN; i <= told; i++) {
				struct spec s = conversation(i, external, &wan);
				struct fp_frame f = rig_in(a, wan ? WAN : LAN, &s);

				if (i == AT_SYN)
					external = out_sport(&f);
			}
			while (rig_drain(a, recs, RECS))
				core_import(&b->core, recs, 1, b->now_ns);
			CHECK_EQ(390, rig_stats(b).flows, 1);
			core_set_role(&b->core, FP_ROLE_ACTIVE, 4, b->now_ns);
			/* Retransmissions of what came before, and all that may follow. */
			for (uint32_t i = next; i < N_POINTS; i++) {
				struct spec s = conversation(i, external, &wan);
				struct fp_frame f = rig_in(b, wan ? WAN : LAN, &s);

				CHECK_EQ(391, f.verdict, wan ? V_REVERSE : V_SNAT);
			}
			rig_walk(b, recs, 1);
			CHECK_EQ(392, recs[0].state, FP_ST_FIN_WAIT);
			rig_free(a);
			rig_free(b);
		}
	}
}

int main(void)
{
	check_merge();
	check_conflict();
	check_garbage();
	check_full();
	check_workers();
	check_warm();
	check_leaders();
	check_forms();
	check_forms_refused();
	check_owners();
	check_news();
	check_fin_taken_back();
	check_survivors();
	return check_done("import");
}
