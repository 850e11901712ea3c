/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_session.c - sessions of every form, mappings, limits by source, and who goes when there is no room
 */
#include "../evict.h"
#include "../session.h"
#include "rig.h"

enum { TCP = IPPROTO_NUM_TCP, UDP = IPPROTO_NUM_UDP, GRE = 47, ESP = 50 };

static struct fp_addr v4(be32 addr)
{
	return addr_from_v4(addr);
}

static struct session_path outbound(be32 inside, uint16_t port, be32 remote, uint16_t remote_port)
{
	return (struct session_path){ .in_port = LAN,
				      .out_port = WAN,
				      .form = FP_FORM_SNAT,
				      .inside = v4(inside),
				      .remote = v4(remote),
				      .inside_port = be16_of(port),
				      .remote_port = be16_of(remote_port) };
}

static struct session_path inbound(be32 inside, uint16_t port, be32 remote, uint16_t remote_port)
{
	struct session_path path = outbound(inside, port, remote, remote_port);

	path.inbound = true;
	return path;
}

/* A forward of the VIP's port 80 to the client's port 8080. */
static struct session_path forwarded(be32 remote, uint16_t remote_port)
{
	struct session_path path = inbound(CLIENT, 8080, remote, remote_port);

	path.form = FP_FORM_STATIC;
	path.external_port = be16_of(80);
	return path;
}

static struct session_path untranslated(be32 inside, uint16_t port, be32 remote, uint16_t remote_port)
{
	struct session_path path = outbound(inside, port, remote, remote_port);

	path.form = FP_FORM_NONE;
	path.pool = POOL_NONE;
	return path;
}

static uint32_t open_idx(struct rig *r, uint8_t proto, const struct session_path *path, uint32_t *idx)
{
	const struct spec s = {
		.src = CLIENT, .dst = SERVER, .proto = TCP, .sport = 1, .dport = 1, .tcp_flags = TCP_SYN
	};
	struct fp_frame f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &s);
	struct pkt p;

	/* Of the packet only the protocol matters, and what TCP's first segment says. */
	FP_ASSERT(pkt_parse_ip(&p, &f) == V_GO_ON && pkt_parse_l4(&p) == V_GO_ON);
	p.proto = proto;
	r->core.now_ns = r->now_ns;
	return session_open(&r->core, &p, path, idx);
}

static uint32_t try_open(struct rig *r, uint8_t proto, struct session_path path)
{
	uint32_t idx = FLOW_NONE;

	return open_idx(r, proto, &path, &idx);
}

/* Open, and return the record. */
static uint32_t opened(struct rig *r, uint8_t proto, struct session_path path)
{
	uint32_t idx = FLOW_NONE;

	FP_ASSERT(open_idx(r, proto, &path, &idx) == V_GO_ON);
	return idx;
}

static bool is_found(struct rig *r, uint32_t idx)
{
	const struct flow_hot *f = &r->core.table.rec[idx].hot;

	return record_find(&r->core, f, SIDE_OUT, KEY_FLOW) == idx &&
	       record_find(&r->core, f, SIDE_IN, KEY_FLOW) == idx;
}

static struct rig *rig_counting(uint32_t sessions, uint32_t ports)
{
	struct rig *r = rig_new(0, 1, 1000);
	size_t size = quota_mem_size(r->cfg.flow_cap);
	static struct quota quota;

	r->cfg.limits = (struct fp_limits){ .sessions_per_source = sessions, .ports_per_source = ports };
	quota_init(&quota, r->cfg.flow_cap, memset(aligned_alloc(CACHE_LINE, size), 0, size));
	core_set_quota(&r->core, &quota);
	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	return r;
}

static void rig_counting_free(struct rig *r)
{
	free(r->core.quota->count);
	rig_free(r);
}

/* ---- mappings ---- */

/* RFC 4787 REQ-1, REQ-8: a stranger that the filter lets in becomes a session of the mapping. */
static void check_inbound_of_a_mapping(void)
{
	struct rig *r = rig_active();
	const be32 stranger = IP4(192, 0, 2, 77);
	struct fp_addr server = v4(SERVER), other = v4(stranger), nobody = v4(IP4(192, 0, 2, 78));
	uint32_t first = opened(r, UDP, outbound(CLIENT, 5000, SERVER, 53)), second, leader;
	be16 port = r->core.table.rec[first].hot.external_port;

	leader = mapping_by_external(&r->core, 0, UDP, port);
	CHECK_EQ(1, leader, first);
	CHECK_EQ(2, mapping_by_external(&r->core, 0, TCP, port), FLOW_NONE);
	CHECK_EQ(3, mapping_by_external(&r->core, 0, UDP, be16_of(be16_host(port) ^ 128)), FLOW_NONE);
	CHECK_EQ(4, mapping_has_remote(&r->core, leader, &server), V_GO_ON);
	CHECK_EQ(5, mapping_has_remote(&r->core, leader, &other), V_FILTERED);
	second = opened(r, UDP, inbound(CLIENT, 5000, stranger, 999));
	CHECK_EQ(6, r->core.table.rec[second].hot.external_port.raw, port.raw);
	CHECK_EQ(7, r->core.table.rec[second].hot.flags, FP_RF_INBOUND);
	CHECK_EQ(8, mapping_has_remote(&r->core, leader, &other), V_GO_ON);
	CHECK_EQ(9, mapping_has_remote(&r->core, leader, &nobody), V_FILTERED);
	CHECK(10, is_found(r, first) && is_found(r, second));
	CHECK_EQ(11, rig_stats(r).mappings, 1);
	CHECK_EQ(12, rig_stats(r).flows, 2);
	/* Its packets come through, and the first answer makes it established. */
	const struct spec in = {
		.src = stranger, .dst = WAN_VIP, .proto = UDP, .sport = 999, .dport = be16_host(port)
	};
	const struct spec out = { .src = CLIENT, .dst = stranger, .proto = UDP, .sport = 5000, .dport = 999 };
	CHECK_EQ(13, rig_in(r, WAN, &in).verdict, V_REVERSE);
	CHECK_EQ(14, r->core.table.rec[second].hot.state, FP_ST_NEW);
	CHECK_EQ(15, rig_in(r, LAN, &out).verdict, V_SNAT);
	CHECK_EQ(16, r->core.table.rec[second].hot.state, FP_ST_ESTABLISHED);
	/* Nobody opens a mapping from outside. */
	CHECK_EQ(17, try_open(r, UDP, inbound(CLIENT, 5001, stranger, 999)), V_NO_SESSION);
	rig_free(r);
}

/* The mapping stays while any of its sessions does, whichever goes first. */
static void check_leadership(void)
{
	struct rig *r = rig_active();
	uint32_t idx[4];
	be16 port;

	for (uint32_t gone = 0; gone < 4; gone++) {
		for (uint32_t i = 0; i < 4; i++)
			idx[i] = opened(r, UDP, outbound(CLIENT, 5000, IP4(192, 0, 2, i + 1), 53));
		port = r->core.table.rec[idx[0]].hot.external_port;
		for (uint32_t i = 0; i < 4; i++) {
			uint32_t leader = mapping_by_external(&r->core, 0, UDP, port);

			CHECK(20, leader && flow_is_leader(&r->core.table, leader));
			CHECK(21, !nat_port_claim(&r->core.nat, 0, UDP, port));
			record_remove(&r->core, idx[(gone + i) % 4], true);
		}
		CHECK_EQ(22, mapping_by_external(&r->core, 0, UDP, port), FLOW_NONE);
		CHECK_EQ(23, rig_stats(r).mappings, 0);
		CHECK(24, nat_port_claim(&r->core.nat, 0, UDP, port));
		nat_port_free(&r->core.nat, 0, UDP, port, r->now_ns);
	}
	CHECK_EQ(25, r->core.table.n_free, r->core.table.cap);
	rig_free(r);
}

/* A walk is bounded: beyond it the answer is no, not late. */
static void check_many_remotes(void)
{
	struct rig *r = rig_active();
	uint32_t first = opened(r, UDP, outbound(CLIENT, 5000, SERVER, 53)), n = 0;

	const struct fp_addr server = v4(SERVER), nobody = v4(IP4(192, 0, 4, 1));

	for (uint32_t i = 0; i < MAPPING_WALK_MAX - 1; i++)
		opened(r, UDP, outbound(CLIENT, 5000, IP4(192, 0, 3, i), (uint16_t)(100 + i)));
	CHECK_EQ(33, mapping_has_remote(&r->core, first, &nobody), V_FILTERED);
	for (uint32_t i = MAPPING_WALK_MAX - 1; i < 256; i++)
		opened(r, UDP, outbound(CLIENT, 5000, IP4(192, 0, 3, i), (uint16_t)(100 + i)));
	for (uint32_t i = 0; i < 256; i++) {
		struct fp_addr remote = v4(IP4(192, 0, 3, i));
		uint32_t verdict = mapping_has_remote(&r->core, first, &remote);

		CHECK_EQ(30, verdict, i > 256 - MAPPING_WALK_MAX ? V_GO_ON : V_FILTERED_UNSEEN);
		n += verdict == V_GO_ON;
	}
	CHECK_EQ(34, n, MAPPING_WALK_MAX - 1); /* those opened last, and the leader's */
	CHECK_EQ(35, mapping_has_remote(&r->core, first, &server), V_GO_ON);
	CHECK_EQ(36, mapping_has_remote(&r->core, first, &nobody), V_FILTERED_UNSEEN);
	CHECK_EQ(31, rig_stats(r).mappings, 1);
	mapping_remove(&r->core, first, true);
	CHECK_EQ(32, rig_stats(r).flows, 0);
	rig_free(r);
}

/* ---- forms ---- */

static void check_static(void)
{
	struct rig *r = rig_active();
	struct fp_addr server = v4(SERVER);
	uint32_t idx = opened(r, TCP, forwarded(SERVER, 40000));
	const struct flow_hot *f = &r->core.table.rec[idx].hot;
	struct session_path own = outbound(CLIENT, 8080, SERVER, 50000);

	CHECK(40, is_found(r, idx));
	CHECK_EQ(41, be16_host(f->external_port), 80);
	CHECK_EQ(42, f->flags, FP_RF_INBOUND);
	CHECK_EQ(43, f->state, FP_ST_SYN_SENT);
	CHECK_EQ(44, r->core.table.rec[idx].cold.shard, core_shard(&r->cfg, &server, be16_of(40000), TCP));
	CHECK_EQ(45, rig_stats(r).mappings, 0);
	CHECK_EQ(46, try_open(r, TCP, forwarded(SERVER, 40000)), V_ENDPOINT_TAKEN);
	CHECK_EQ(47, try_open(r, TCP, forwarded(SERVER, 40001)), V_GO_ON);
	/* The server speaks first, from the port that it is forwarded. */
	own.form = FP_FORM_STATIC;
	own.external_port = be16_of(80);
	idx = opened(r, TCP, own);
	CHECK(48, is_found(r, idx));
	CHECK_EQ(49, r->core.table.rec[idx].hot.flags, 0);
	rig_sleep(r, 242);
	CHECK_EQ(50, rig_stats(r).flows, 0);
	rig_free(r);
}

static void check_none(void)
{
	struct rig *r = rig_active();
	uint32_t one = opened(r, UDP, untranslated(CLIENT, 5000, SERVER, 53)),
		 two = opened(r, UDP, untranslated(CLIENT2, 5000, SERVER, 53));
	const struct flow_hot *f = &r->core.table.rec[one].hot;
	struct flow_key key;

	/* Same ports and same remote: only the inside address tells them apart, both ways. */
	CHECK(60, is_found(r, one) && is_found(r, two));
	CHECK_EQ(61, f->pool, POOL_NONE);
	CHECK_EQ(62, f->external_port.raw, f->inside_port.raw);
	flow_key_in_none(key.w, CLIENT, be16_of(5000), SERVER, be16_of(53), UDP);
	CHECK_EQ(63, flow_find(&r->core.table, &r->core.hash, &key, flow_hash(&r->core.table, &key)),
		 one << 1 | SIDE_IN);
	flow_key_out(key.w, CLIENT2, be16_of(5000), SERVER, be16_of(53), UDP);
	CHECK_EQ(64, flow_find(&r->core.table, &r->core.hash, &key, flow_hash(&r->core.table, &key)),
		 two << 1 | SIDE_OUT);
	CHECK_EQ(65, rig_stats(r).mappings, 0);
	CHECK_EQ(66, try_open(r, UDP, untranslated(CLIENT, 5000, SERVER, 53)), V_ENDPOINT_TAKEN);
	rig_sleep(r, 302);
	CHECK_EQ(67, r->core.table.n_free, r->core.table.cap);
	rig_free(r);
}

/* Without ports the external address is one client's towards each remote. */
static void check_portless(void)
{
	struct rig *r = rig_active();
	struct fp_addr server = v4(SERVER);
	uint32_t idx = opened(r, GRE, outbound(CLIENT, 0, SERVER, 0));

	CHECK(80, is_found(r, idx));
	CHECK_EQ(81, r->core.table.rec[idx].hot.external_port.raw, 0);
	CHECK_EQ(82, r->core.table.rec[idx].cold.shard, core_shard(&r->cfg, &server, be16_of(0), GRE));
	CHECK_EQ(83, try_open(r, GRE, outbound(CLIENT2, 0, SERVER, 0)), V_ENDPOINT_TAKEN);
	CHECK_EQ(84, try_open(r, ESP, outbound(CLIENT2, 0, SERVER, 0)), V_GO_ON);
	CHECK_EQ(85, try_open(r, GRE, outbound(CLIENT2, 0, IP4(192, 0, 2, 11), 0)), V_GO_ON);
	CHECK_EQ(86, rig_stats(r).mappings, 0);
	rig_sleep(r, 298);
	CHECK_EQ(87, rig_stats(r).flows, 3);
	rig_sleep(r, 4);
	CHECK_EQ(88, rig_stats(r).flows, 0);
	CHECK_EQ(89, try_open(r, GRE, outbound(CLIENT2, 0, SERVER, 0)), V_GO_ON);
	rig_free(r);
}

static void check_hairpin_flag(void)
{
	struct rig *r = rig_active();
	uint32_t idx = opened(r, UDP, outbound(CLIENT, 5000, WAN_VIP, 3000));

	CHECK_EQ(100, r->core.table.rec[idx].hot.flags, FP_RF_HAIRPIN);
	rig_free(r);
}

/* ---- limits ---- */

/* RFC 6888 REQ-5. */
static void check_session_limit(void)
{
	struct rig *r = rig_counting(3, 0);
	uint32_t idx[3];

	for (uint32_t i = 0; i < 3; i++)
		idx[i] = opened(r, UDP, outbound(CLIENT, 5000, SERVER, (uint16_t)(i + 1)));
	CHECK_EQ(120, try_open(r, UDP, outbound(CLIENT, 6000, SERVER, 9)), V_SOURCE_LIMIT);
	CHECK_EQ(121, try_open(r, UDP, outbound(CLIENT2, 6000, SERVER, 9)), V_GO_ON);
	/* Who is spoken to is not held to account. */
	CHECK_EQ(122, try_open(r, TCP, forwarded(SERVER, 40000)), V_GO_ON);
	record_remove(&r->core, idx[1], true);
	CHECK_EQ(123, try_open(r, UDP, outbound(CLIENT, 6000, SERVER, 9)), V_GO_ON);
	CHECK_EQ(124, try_open(r, UDP, outbound(CLIENT, 6001, SERVER, 9)), V_SOURCE_LIMIT);
	CHECK_EQ(125, rig_stats(r).mappings, 3); /* what is refused leaves no port behind */
	rig_sleep(r, 302);
	for (uint32_t i = 0; i < 3; i++)
		CHECK_EQ(126, try_open(r, UDP, outbound(CLIENT, 7000, SERVER, (uint16_t)(i + 1))), V_GO_ON);
	rig_counting_free(r);
}

/* RFC 6888 REQ-4. */
static void check_port_limit(void)
{
	struct rig *r = rig_counting(0, 2);
	uint32_t first = opened(r, UDP, outbound(CLIENT, 5000, SERVER, 53));

	opened(r, TCP, outbound(CLIENT, 5001, SERVER, 53));
	CHECK_EQ(140, try_open(r, UDP, outbound(CLIENT, 5002, SERVER, 53)), V_PORT_LIMIT);
	/* Another session of a mapping takes no port, and leadership takes none either. */
	CHECK_EQ(141, try_open(r, UDP, outbound(CLIENT, 5000, SERVER, 54)), V_GO_ON);
	record_remove(&r->core, first, true);
	CHECK_EQ(142, try_open(r, UDP, outbound(CLIENT, 5002, SERVER, 53)), V_PORT_LIMIT);
	rig_sleep(r, 302);
	CHECK_EQ(143, try_open(r, UDP, outbound(CLIENT, 5002, SERVER, 53)), V_GO_ON);
	rig_counting_free(r);
}

static void check_rule_limit(void)
{
	struct rig *r = rig_counting(0, 0);
	struct session_path path = outbound(CLIENT, 5000, SERVER, 25), from = forwarded(SERVER, 40000);
	uint32_t idx[2];

	path.rule = 4;
	path.max_per_source = 2;
	for (uint32_t i = 0; i < 2; i++) {
		path.inside_port = be16_of((uint16_t)(5000 + i));
		idx[i] = opened(r, TCP, path);
	}
	path.inside_port = be16_of(5002);
	CHECK_EQ(160, try_open(r, TCP, path), V_SOURCE_LIMIT);
	path.rule = 5; /* its own count */
	CHECK_EQ(161, try_open(r, TCP, path), V_GO_ON);
	path.inside_port = be16_of(5003);
	path.rule = 4;
	session_set_rule(&r->core, idx[0], 6);
	CHECK_EQ(162, try_open(r, TCP, path), V_GO_ON);
	/* From outside it is the stranger who opens. */
	from.rule = 7;
	from.max_per_source = 1;
	CHECK_EQ(163, try_open(r, TCP, from), V_GO_ON);
	from.remote_port = be16_of(40001);
	CHECK_EQ(164, try_open(r, TCP, from), V_SOURCE_LIMIT);
	from.remote = v4(IP4(192, 0, 2, 11));
	CHECK_EQ(165, try_open(r, TCP, from), V_GO_ON);
	rig_sleep(r, 242);
	for (uint32_t i = 0; i < QUOTA_ROWS * r->core.quota->width; i++)
		CHECK_EQ(166, r->core.quota->count[i], 0);
	rig_counting_free(r);
}

/* What the peer has let in counts here too, but is never refused. */
static void check_imported_count(void)
{
	struct rig *a = rig_active(), *r = rig_counting(2, 1);
	static struct fp_flow_rec recs[8];
	uint32_t n;

	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	for (uint32_t i = 0; i < 4; i++)
		opened(a, UDP, outbound(CLIENT, (uint16_t)(5000 + i), SERVER, 53));
	n = rig_walk(a, recs, 8);
	CHECK_EQ(180, core_import(&r->core, recs, n, r->now_ns), 4);
	CHECK_EQ(181, core_import(&r->core, recs, n, r->now_ns), 4); /* once more: counted once */
	core_set_role(&r->core, FP_ROLE_ACTIVE, 4, r->now_ns);
	CHECK_EQ(182, try_open(r, UDP, outbound(CLIENT, 6000, SERVER, 53)), V_SOURCE_LIMIT);
	rig_sleep(r, 302);
	CHECK_EQ(183, try_open(r, UDP, outbound(CLIENT, 6000, SERVER, 53)), V_GO_ON);
	CHECK_EQ(184, try_open(r, UDP, outbound(CLIENT, 6001, SERVER, 53)), V_PORT_LIMIT);
	rig_free(a);
	rig_counting_free(r);
}

/* ---- no room ---- */

static void answer(struct rig *r, uint16_t sport)
{
	struct spec s = spec_udp;
	struct fp_frame f;

	s.sport = sport;
	f = rig_in(r, LAN, &s);
	s = rig_reply(&s, out_sport(&f));
	rig_in(r, WAN, &s);
}

/* The oldest that is not established goes; established ones stay. */
static void check_embryonic(bool tracked)
{
	struct rig *r = rig_new(0, 1, 128);
	struct fp_flow_rec rec[128];
	uint32_t first = 0, n;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	core_track(&r->core, tracked);
	for (uint16_t i = 0; i < 100; i++)
		answer(r, (uint16_t)(10000 + i));
	for (uint16_t i = 0; i < 28; i++)
		opened(r, TCP, outbound(CLIENT, (uint16_t)(20000 + i), SERVER, 80));
	CHECK_EQ(200, r->core.table.n_free, 0);
	rig_tell_all(r);
	if (tracked) {
		/* The slot comes free with the peer's acknowledgement: a reserve is kept from then on. */
		CHECK_EQ(201, try_open(r, TCP, outbound(CLIENT, 30000, SERVER, 80)), V_TABLE_FULL);
		CHECK_EQ(202, try_open(r, TCP, outbound(CLIENT, 30000, SERVER, 80)), V_TABLE_FULL);
		CHECK_EQ(203, try_open(r, TCP, outbound(CLIENT, 30000, SERVER, 80)), V_TABLE_FULL);
		CHECK_EQ(204, rig_stats(r).tombstones, 2); /* 1/64 */
		rig_tell_all(r);
		core_ack(&r->core, UINT64_MAX);
		CHECK_EQ(206, r->core.table.n_free, 2);
		first = 1;
	}
	CHECK_EQ(207, try_open(r, TCP, outbound(CLIENT, 30000, SERVER, 80)), V_GO_ON);
	CHECK_EQ(208, rig_stats(r).evicted_embryonic, 1 + first);
	CHECK_EQ(209, rig_stats(r).evicted_closed, 0);
	n = rig_walk(r, rec, 128);
	for (uint32_t i = 0; i < n; i++)
		CHECK(210, rec[i].proto == UDP || be16_host((be16){ rec[i].inside_port }) > 20000 + first);
	CHECK(211, rig_stats(r).flows >= 127);
	rig_free(r);
}

/* While the peer is away, what makes room leaves no tombstone: the shards are lost, and whoever comes gets in. */
static void check_embryonic_alone(void)
{
	struct rig *r = rig_new(0, 1, 128);

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	core_track(&r->core, true);
	for (uint16_t i = 0; i < 128; i++)
		opened(r, TCP, outbound(CLIENT, (uint16_t)(20000 + i), SERVER, 80));
	rig_tell_all(r);
	core_ack(&r->core, UINT64_MAX);
	while (rig_stats(r).tombstones < 2)
		CHECK_EQ(212, try_open(r, TCP, outbound(CLIENT, 30000, SERVER, 80)), V_TABLE_FULL);
	r->now_ns += CHANGES_AWAY_MS * NS_PER_MS;
	CHECK_EQ(213, try_open(r, TCP, outbound(CLIENT, 30000, SERVER, 80)), V_TABLE_FULL);
	r->now_ns++;
	for (uint16_t i = 0; i < 500; i++)
		CHECK_EQ(214, try_open(r, TCP, outbound(CLIENT, (uint16_t)(30000 + i), SERVER, 80)), V_GO_ON);
	CHECK_EQ(215, rig_stats(r).tombstones, 2);
	CHECK(216, r->core.changes.lost != 0);
	CHECK_EQ(217, rig_stats(r).flows, 126);
	/* It is back, and hears of what had a tombstone. */
	rig_tell_all(r);
	core_ack(&r->core, UINT64_MAX);
	CHECK_EQ(218, rig_stats(r).tombstones, 0);
	rig_free(r);
}

/* A closed one goes before any that is opening. */
static void check_closed_first(void)
{
	struct rig *r = rig_new(0, 1, 64);
	struct spec rst = spec_syn;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	for (uint16_t i = 0; i < 63; i++)
		opened(r, UDP, outbound(CLIENT, (uint16_t)(10000 + i), SERVER, 80));
	rig_connect(r, spec_syn.sport);
	rst.tcp_flags = TCP_RST | TCP_ACK_FLAG;
	rst.seq = 101;
	rst.ack = 501;
	rig_in(r, LAN, &rst);
	CHECK_EQ(220, try_open(r, UDP, outbound(CLIENT, 30000, SERVER, 80)), V_GO_ON);
	CHECK_EQ(221, rig_stats(r).evicted_closed, 1);
	CHECK_EQ(222, try_open(r, UDP, outbound(CLIENT, 30001, SERVER, 80)), V_GO_ON);
	CHECK_EQ(223, rig_stats(r).evicted_embryonic, 1);
	rig_free(r);
}

/* Sessions come and go for long: the list of births neither overflows nor loses the one that waits. */
static void check_births(void)
{
	struct rig *r = rig_new(0, 1, 64);
	uint32_t old;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	old = opened(r, TCP, outbound(CLIENT, 9999, SERVER, 80));
	for (uint32_t i = 0; i < 1000; i++)
		record_remove(&r->core, opened(r, UDP, outbound(CLIENT, (uint16_t)(10000 + i), SERVER, 80)),
			      true);
	for (uint16_t i = 0; i < 63; i++)
		answer(r, (uint16_t)(20000 + i));
	CHECK_EQ(230, r->core.table.n_free, 0);
	CHECK_EQ(231, try_open(r, UDP, outbound(CLIENT, 30000, SERVER, 80)), V_GO_ON);
	CHECK_EQ(232, rig_stats(r).evicted_embryonic, 1);
	CHECK_EQ(233, r->core.table.rec[old].hot.proto, UDP); /* its slot is another's */
	answer(r, 30000);
	rig_free(r);
}

/* All ports of a shard are taken, but some only by connections that are closed. */
static void check_port_of_the_closed(bool tracked)
{
	struct rig *r = rig_new(0, 1, 2000);
	struct fp_addr client = v4(CLIENT);
	uint32_t shard = core_shard(&r->cfg, &client, be16_of(40000), TCP), n = 0, idx;
	be16 port;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	core_track(&r->core, tracked);
	for (uint32_t host = 0; n < 1008; host++) {
		struct fp_addr other = v4(be32_of(be32_host(CLIENT2) + host));

		if (core_shard(&r->cfg, &other, be16_of(40000), TCP) != shard)
			continue;
		opened(r, TCP, outbound(be32_of(be32_host(CLIENT2) + host), 40000, SERVER, 80));
		n++;
	}
	rig_tell_all(r);
	CHECK_EQ(240, try_open(r, TCP, outbound(CLIENT, 40000, SERVER, 80)), V_PORTS_EXHAUSTED);
	for (idx = 1; idx <= n; idx++)
		if (idx % 2)
			r->core.table.rec[idx].hot.state = FP_ST_CLOSED;
	idx = opened(r, TCP, outbound(CLIENT, 40000, SERVER, 80));
	port = r->core.table.rec[idx].hot.external_port;
	CHECK_EQ(241, rig_stats(r).evicted_closed, 1);
	CHECK_EQ(242, mapping_by_external(&r->core, 0, TCP, port), idx);
	CHECK_EQ(243, rig_stats(r).mappings, n);
	CHECK_EQ(244, rig_stats(r).tombstones, tracked);
	/* The delete that is acknowledged later does not take the port away from the new session. */
	core_track(&r->core, false);
	CHECK(245, !nat_port_claim(&r->core.nat, 0, TCP, port));
	record_remove(&r->core, idx, true);
	CHECK(246, nat_port_claim(&r->core.nat, 0, TCP, port));
	rig_free(r);
}

/* Every structure that grows with the number of sessions, each of which has a mapping of its own. */
static void check_memory(void)
{
	enum { SESSIONS = 1 << 20 };
	struct fp_config cfg = frames_config(1, SESSIONS);

	/* What waits for the peer (commit.h) does not grow with them. */
	const size_t fixed = commit_mem_size(&cfg, SESSIONS);

	CHECK(260, core_mem_size(&cfg) - fixed + quota_mem_size(SESSIONS) <= (size_t)200 * SESSIONS);
	CHECK(261, fixed <= 544u << 10);
	cfg.sync.hold_frames = 1024;
	cfg.ports[0].offload = 1;
	CHECK(262, commit_mem_size(&cfg, SESSIONS) - fixed <= 1024 * 2100u + HOLD_BIG * (FP_FRAME_BIG + 64u));
}

int main(void)
{
	check_inbound_of_a_mapping();
	check_leadership();
	check_many_remotes();
	check_static();
	check_none();
	check_portless();
	check_hairpin_flag();
	check_session_limit();
	check_port_limit();
	check_rule_limit();
	check_imported_count();
	check_embryonic(false);
	check_embryonic(true);
	check_embryonic_alone();
	check_closed_first();
	check_births();
	check_port_of_the_closed(false);
	check_port_of_the_closed(true);
	check_memory();
	return check_done("session");
}
