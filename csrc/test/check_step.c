/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_step.c - frames in, verdicts and frames out: sessions, next hops, limits, bad input
 */
#include "rig.h"

static void check_tcp(void)
{
	struct rig *r = rig_active();
	struct fp_frame f = rig_in(r, LAN, &spec_syn);
	struct fp_addr client = addr_from_v4(CLIENT);
	struct spec reply;
	uint16_t external = out_sport(&f);

	CHECK_EQ(1, f.verdict, V_SNAT);
	CHECK_EQ(2, f.out, FP_OUT_WIRE);
	CHECK_EQ(3, f.out_port, WAN);
	CHECK_EQ(4, f.fenced, 1);
	CHECK_EQ(5, out_src(&f).raw, WAN_VIP.raw); /* R12 */
	CHECK_EQ(6, out_dst(&f).raw, SERVER.raw);
	CHECK_EQ(7, out_dport(&f), 80);
	CHECK_EQ(8, external & 1, 40001 & 1); /* RFC 4787 REQ-4 */
	CHECK_EQ(9, nat_port_shard(external), core_shard(&r->cfg, &client, be16_of(40001), IPPROTO_NUM_TCP));
	CHECK(10, mac_eq(f.data + ETH_DST, mac_isp) && mac_eq(f.data + ETH_SRC, mac_virtual[WAN]));
	CHECK_EQ(11, f.data[ETH_LEN + IP_TTL], 63);
	CHECK(12, frames_csums_ok(&f));
	reply = rig_reply(&spec_syn, external);
	reply.tcp_flags = TCP_SYN | TCP_ACK_FLAG;
	reply.ack = 101;
	f = rig_in(r, WAN, &reply);
	CHECK_EQ(13, f.verdict, V_REVERSE);
	CHECK_EQ(14, f.out_port, LAN);
	CHECK_EQ(15, out_dst(&f).raw, CLIENT.raw);
	CHECK_EQ(16, out_dport(&f), 40001);
	CHECK_EQ(17, out_src(&f).raw, SERVER.raw);
	CHECK(18, mac_eq(f.data + ETH_DST, mac_client) && mac_eq(f.data + ETH_SRC, mac_virtual[LAN]));
	CHECK(19, frames_csums_ok(&f));
	CHECK_EQ(20, rig_stats(r).flows, 1);
	CHECK_EQ(21, rig_stats(r).mappings, 1);
	/* Another remote, same inside endpoint: the same external endpoint (RFC 4787 REQ-1). */
	struct spec other = spec_syn;
	other.dst = IP4(192, 0, 2, 11);
	f = rig_in(r, LAN, &other);
	CHECK_EQ(22, out_sport(&f), external);
	CHECK_EQ(23, rig_stats(r).mappings, 1);
	/* A stranger at the right port: filtered by address and port. */
	reply.src = IP4(192, 0, 2, 99);
	CHECK_EQ(24, rig_in(r, WAN, &reply).verdict, V_FILTERED);
	reply.dport ^= 2;
	CHECK_EQ(25, rig_in(r, WAN, &reply).verdict, V_NO_SESSION);
	rig_free(r);
}

static void check_udp_and_echo(void)
{
	struct rig *r = rig_active();
	struct fp_flow_rec rec[8];
	struct fp_frame f = rig_in(r, LAN, &spec_udp);
	struct spec reply = rig_reply(&spec_udp, out_sport(&f));

	CHECK_EQ(40, f.verdict, V_SNAT);
	CHECK(41, frames_csums_ok(&f));
	f = rig_in(r, WAN, &reply);
	CHECK_EQ(42, f.verdict, V_REVERSE);
	CHECK_EQ(43, out_dport(&f), 5000);
	CHECK(44, frames_csums_ok(&f));
	/* Without a checksum it stays without. */
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_udp);
	be16_store(r->data + ETH_LEN + IPV4_LEN + UDP_CSUM, be16_of(0));
	CHECK_EQ(45, rig_step(r, &f), V_SNAT);
	CHECK_EQ(46, be16_load(r->data + ETH_LEN + IPV4_LEN + UDP_CSUM).raw, 0);
	f = rig_in(r, LAN, &spec_echo);
	CHECK_EQ(47, f.verdict, V_SNAT);
	CHECK(48, frames_csums_ok(&f));
	reply = rig_reply(&spec_echo, be16_host(be16_load(f.data + ETH_LEN + IPV4_LEN + ICMP_ID)));
	f = rig_in(r, WAN, &reply);
	CHECK_EQ(49, f.verdict, V_REVERSE);
	CHECK_EQ(50, be16_host(be16_load(f.data + ETH_LEN + IPV4_LEN + ICMP_ID)), 77);
	CHECK(51, frames_csums_ok(&f));
	CHECK_EQ(52, rig_walk(r, rec, 8), 2);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(53, rec[i].state, FP_ST_ESTABLISHED);
		CHECK_EQ(54, rec[i].packets[0], rec[i].proto == IPPROTO_NUM_UDP ? 2 : 1);
		CHECK_EQ(55, rec[i].packets[1], 1);
	}
	/* Link padding is cut off. */
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_udp);
	f.len += 11;
	CHECK_EQ(56, rig_step(r, &f), V_SNAT);
	CHECK_EQ(57, f.len, ETH_LEN + IPV4_LEN + UDP_LEN + 31);
	rig_free(r);
}

/* R10 */
static void check_syn_check(void)
{
	struct rig *r = rig_active();
	static const uint8_t flags[] = { TCP_ACK_FLAG, TCP_SYN | TCP_ACK_FLAG, TCP_RST,
					 TCP_FIN | TCP_ACK_FLAG };
	struct spec s = spec_syn;

	for (uint32_t i = 0; i < ARRAY_SIZE(flags); i++) {
		s.tcp_flags = flags[i];
		CHECK_EQ(60, rig_in(r, LAN, &s).verdict, V_SYN_CHECK);
	}
	CHECK_EQ(61, rig_stats(r).flows, 0);
	s.tcp_flags = TCP_SYN | TCP_FIN;
	CHECK_EQ(62, rig_in(r, LAN, &s).verdict, V_TCP_FLAGS);
	r->cfg.syn_check = 0;
	s.tcp_flags = TCP_ACK_FLAG;
	CHECK_EQ(63, rig_in(r, LAN, &s).verdict, V_SNAT);
	s.sport++;
	s.tcp_flags = TCP_RST;
	CHECK_EQ(64, rig_in(r, LAN, &s).verdict, V_SYN_CHECK);
	rig_free(r);
}

static void check_bad_input(void)
{
	struct rig *r = rig_active();
	struct spec s = spec_syn;
	struct fp_frame f;

	s.ttl = 1;
	CHECK_EQ(80, rig_in(r, LAN, &s).verdict, V_TTL_EXCEEDED_SENT);
	s = spec_udp;
	s.frag = 185;
	CHECK_EQ(81, rig_in(r, LAN, &s).verdict, V_FRAG_HELD);
	s.frag = 8191;
	CHECK_EQ(82, rig_in(r, LAN, &s).verdict, V_FRAG_BEYOND);
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_syn);
	r->data[ETH_LEN + IP_CSUM] ^= 1;
	CHECK_EQ(83, rig_step(r, &f), V_IP_CHECKSUM);
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_syn);
	r->data[ETH_LEN + IPV4_LEN + TCP_SEQ] ^= 1;
	CHECK_EQ(84, rig_step(r, &f), V_L4_CHECKSUM);
	for (uint32_t len = 0; len < ETH_LEN; len++) {
		f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_syn);
		f.len = len;
		CHECK_EQ(85, rig_step(r, &f), V_RUNT);
	}
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_syn);
	f.len = 1515;
	CHECK_EQ(86, rig_step(r, &f), V_OVERSIZED);
	s = spec_syn;
	s.proto = 112;
	CHECK_EQ(87, rig_in(r, LAN, &s).verdict, V_PROTOCOL);
	s = spec_echo;
	s.type = ICMP_UNREACHABLE;
	CHECK_EQ(88, rig_in(r, LAN, &s).verdict, V_ICMP_ERROR_BAD);
	s.type = 13;
	CHECK_EQ(89, rig_in(r, LAN, &s).verdict, V_ICMP_TYPE);
	s.type = ICMP_ECHO_REPLY;
	CHECK_EQ(90, rig_in(r, LAN, &s).verdict, V_ICMP_TYPE);
	s = spec_syn;
	s.src = IP4(127, 0, 0, 1);
	CHECK_EQ(91, rig_in(r, LAN, &s).verdict, V_MARTIAN_SOURCE);
	s.src = LAN_VIP;
	CHECK_EQ(92, rig_in(r, LAN, &s).verdict, V_SPOOFED_OWN);
	s = spec_syn;
	s.dst = IP4(239, 1, 1, 1);
	CHECK_EQ(93, rig_in(r, LAN, &s).verdict, V_MARTIAN_DESTINATION);
	s = spec_syn;
	s.src = IP4(10, 9, 9, 9); /* would be routed back to the Internet */
	CHECK_EQ(94, rig_in(r, LAN, &s).verdict, V_NO_RETURN_ROUTE);
	s = spec_syn;
	s.dst = CLIENT2;
	CHECK_EQ(95, rig_in(r, LAN, &s).verdict, V_INSIDE_DENIED);
	s.dst = WAN_VIP;
	s.dport = 80; /* below the pool's range */
	CHECK_EQ(96, rig_in(r, LAN, &s).verdict, V_VIP_SERVICE);
	s.dst = LAN_VIP;
	CHECK_EQ(97, rig_in(r, LAN, &s).verdict, V_VIP_SERVICE);
	CHECK_EQ(98, rig_stats(r).flows, 0);
	/* IP options: a header of 24 bytes. */
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_udp);
	r->data[ETH_LEN] = 0x46;
	frames_fix_ip_csum(r->data + ETH_LEN);
	CHECK_EQ(99, rig_step(r, &f), V_IP_OPTIONS);
	rig_free(r);
}

static void check_neighbours(void)
{
	struct rig *r = rig_active();
	uint8_t room[4][FP_FRAME_MAX];
	struct fp_frame f, out[4];
	struct neigh_want wants[4];
	struct fp_addr isp = addr_from_v4(ISP);

	for (uint32_t i = 0; i < 4; i++)
		out[i] = (struct fp_frame){ .data = room[i] };
	rig_fib(r, false);
	f = rig_in(r, LAN, &spec_syn);
	CHECK_EQ(240, f.verdict, V_NEIGH_WAIT);
	CHECK_EQ(241, f.out, FP_OUT_WAIT);
	CHECK(242, addr_eq(&f.next_hop, &isp));
	CHECK_EQ(243, core_neigh_wanted(&r->core, wants, 4), 1);
	CHECK(244, wants[0].port == WAN && addr_eq(&wants[0].addr, &isp));
	rig_in(r, LAN, &spec_syn);
	CHECK_EQ(245, core_neigh_wanted(&r->core, wants, 4), 0); /* once a second */
	for (uint32_t i = 0; i < PARK_PER_NEIGH - 2; i++)
		CHECK_EQ(246, rig_in(r, LAN, &spec_syn).verdict, V_NEIGH_WAIT);
	CHECK_EQ(247, rig_in(r, LAN, &spec_syn).verdict, V_NEIGH_FULL);
	CHECK_EQ(248, rig_stats(r).neigh_waiting, PARK_PER_NEIGH);
	CHECK_EQ(249, core_retry_parked(&r->core, out, 4, r->now_ns), 0);
	rig_fib(r, true);
	CHECK_EQ(250, core_retry_parked(&r->core, out, 4, r->now_ns), 4);
	CHECK_EQ(251, out[0].verdict, V_SNAT);
	CHECK_EQ(252, out[0].out, FP_OUT_WIRE);
	CHECK(253, mac_eq(out[0].data, mac_isp) && frames_csums_ok(&out[0]));
	CHECK_EQ(254, core_retry_parked(&r->core, out, 4, r->now_ns), 4);
	CHECK_EQ(255, core_retry_parked(&r->core, out, 4, r->now_ns), 0);
	CHECK_EQ(256, rig_in(r, LAN, &spec_syn).verdict, V_SNAT);
	/* Nobody answers; then the fence falls. */
	rig_fib(r, false);
	rig_in(r, LAN, &spec_syn);
	rig_sleep(r, PARK_S + 1);
	CHECK_EQ(257, rig_count(r, V_NEIGH_TIMEOUT), 1);
	rig_in(r, LAN, &spec_syn);
	CHECK_EQ(258, core_neigh_wanted(&r->core, wants, 4), 1);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	CHECK_EQ(259, rig_count(r, V_FENCED), 1);
	CHECK_EQ(260, rig_stats(r).neigh_waiting, 0);
	rig_free(r);
}

static void check_next_hops(void)
{
	struct rig *r = rig_active();
	const struct fp_route lan_only = frames_route(IP4(198, 51, 100, 0), 24, IP4(0, 0, 0, 0), LAN);
	const struct fp_route to_lan[] = { frames_route(IP4(0, 0, 0, 0), 0, CLIENT2, LAN) };
	const struct fp_route to_wan[] = { frames_route(IP4(0, 0, 0, 0), 0, ISP, WAN) };
	struct fib *a = fib_build(aligned_alloc(64, fib_mem_size(1, 0)), 100, &lan_only, 1, NULL, 0);
	struct fib *b = fib_build(aligned_alloc(64, fib_mem_size(1, 0)), 101, to_lan, 1, NULL, 0);
	struct fib *d = fib_build(aligned_alloc(64, fib_mem_size(1, 0)), 102, to_wan, 1, NULL, 0);
	struct spec reply, syn2 = spec_syn;
	uint16_t external = rig_connect(r, 40001);

	reply = rig_reply(&spec_syn, external);
	reply.tcp_flags = TCP_ACK_FLAG;
	core_set_fib(&r->core, a);
	syn2.sport = 40003;
	CHECK_EQ(280, rig_in(r, LAN, &syn2).verdict, V_NO_ROUTE);
	CHECK_EQ(281, rig_in(r, LAN, &spec_syn).verdict, V_NO_ROUTE);
	core_set_fib(&r->core, b);
	CHECK_EQ(282, rig_in(r, LAN, &spec_syn).verdict, V_ZONE_UNREACHABLE);
	/* The client's zone is gone: a reply must not follow the default route to the ISP. */
	core_set_fib(&r->core, d);
	CHECK_EQ(283, rig_in(r, WAN, &reply).verdict, V_ZONE_UNREACHABLE);
	core_set_fib(&r->core, r->fib);
	CHECK_EQ(284, rig_in(r, WAN, &reply).verdict, V_REVERSE);
	/* Too long for the port that it leaves by. */
	r->core.ports[WAN].len_max = ETH_LEN + 576;
	syn2.payload = 600;
	syn2.frag = 0x4000;
	CHECK_EQ(285, rig_in(r, LAN, &syn2).verdict, V_FRAG_NEEDED_SENT);
	free(a);
	free(b);
	free(d);
	rig_free(r);
}

static void check_expiry(void)
{
	struct rig *r = rig_active();
	struct spec syn = spec_syn;

	rig_connect(r, 40001);
	syn.sport = 40003;
	rig_in(r, LAN, &syn); /* stays SYN_SENT */
	rig_in(r, LAN, &spec_udp);
	rig_in(r, LAN, &spec_echo);
	CHECK_EQ(300, rig_stats(r).flows, 4);
	rig_sleep(r, 59);
	CHECK_EQ(301, rig_stats(r).flows, 4);
	rig_sleep(r, 3); /* 62 s: echo is gone */
	CHECK_EQ(302, rig_stats(r).flows, 3);
	rig_sleep(r, 176);
	CHECK_EQ(303, rig_stats(r).flows, 3);
	rig_sleep(r, 4); /* 242 s: the half-open one is gone */
	CHECK_EQ(304, rig_stats(r).flows, 2);
	rig_in(r, LAN, &spec_udp); /* keeps it */
	rig_sleep(r, 298);
	CHECK_EQ(305, rig_stats(r).flows, 2);
	rig_sleep(r, 4);
	CHECK_EQ(306, rig_stats(r).flows, 1);
	CHECK_EQ(307, rig_stats(r).mappings, 1);
	rig_sleep(r, 7440 - 242 - 302 - 1);
	CHECK_EQ(308, rig_stats(r).flows, 1);
	rig_sleep(r, 4);
	CHECK_EQ(309, rig_stats(r).flows, 0);
	CHECK_EQ(310, rig_stats(r).mappings, 0);
	CHECK_EQ(311, rig_stats(r).flows_expired, 4);
	CHECK_EQ(312, r->core.table.n_free, r->core.table.cap);
	rig_free(r);
}

/* A closed session runs out early, and a SYN on it is a new one. */
static void check_close(void)
{
	struct rig *r = rig_active();
	uint16_t external = rig_connect(r, 40001);
	struct spec rst = spec_syn;
	struct fp_flow_rec rec[2];
	uint64_t id;
	struct fp_frame f;

	rig_walk(r, rec, 2);
	id = rec[0].id;
	rst.tcp_flags = TCP_RST | TCP_ACK_FLAG;
	rst.seq = 101;
	rst.ack = 501;
	CHECK_EQ(320, rig_in(r, LAN, &rst).verdict, V_SNAT);
	f = rig_in(r, LAN, &spec_syn);
	CHECK_EQ(321, f.verdict, V_SNAT);
	CHECK_EQ(322, out_sport(&f), external);
	CHECK_EQ(323, rig_walk(r, rec, 2), 1);
	CHECK_EQ(324, rec[0].state, FP_ST_SYN_SENT);
	CHECK(325, rec[0].id != id && rec[0].version == 1 && rec[0].packets[0] == 1);
	rig_connect(r, 40001);
	rig_in(r, LAN, &rst);
	rig_sleep(r, 243); /* not 7,440 s */
	CHECK_EQ(326, rig_stats(r).flows, 0);
	rig_free(r);
}

static void check_limits(void)
{
	struct rig *r = rig_new(0, 1, 20);
	struct spec s = spec_udp;
	uint32_t passed = 0;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	for (uint32_t i = 0; i < 30; i++) {
		struct fp_frame f;
		struct spec reply;

		s.sport = (uint16_t)(5000 + i);
		f = rig_in(r, LAN, &s);
		if (f.verdict != V_SNAT)
			continue;
		passed++;
		reply = rig_reply(&s, out_sport(&f));
		rig_in(r, WAN, &reply); /* established: nobody is sent away for another's sake */
	}
	CHECK_EQ(340, passed, 20);
	CHECK_EQ(341, rig_count(r, V_TABLE_FULL_SENT), 10);
	s.sport = 5000;
	CHECK_EQ(342, rig_in(r, LAN, &s).verdict, V_SNAT); /* the old ones go on */
	rig_sleep(r, 302);
	CHECK_EQ(343, r->core.table.n_free, 20);
	s.sport = 6000;
	CHECK_EQ(344, rig_in(r, LAN, &s).verdict, V_SNAT);
	rig_free(r);
	r = rig_active();
	r->cfg.pools[0].out_port = LAN;
	CHECK_EQ(345, rig_in(r, LAN, &spec_udp).verdict, V_NO_POOL);
	rig_free(r);
}

/* A nearly full table: what is closed goes before its time, what is open stays. */
static void check_reclaim(void)
{
	struct rig *r = rig_new(0, 1, 800);
	struct spec rst = spec_syn;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	rst.tcp_flags = TCP_RST | TCP_ACK_FLAG;
	rst.seq = 101;
	rst.ack = 501;
	for (uint32_t i = 0; i < 780; i++) {
		rst.sport = (uint16_t)(10000 + i);
		rig_connect(r, rst.sport);
		if (i == 600) {
			rig_sleep(r, 1);
			CHECK_EQ(350, rig_stats(r).flows, 601); /* there is room: nothing is in a hurry */
		}
		if (i >= 50)
			rig_in(r, LAN, &rst);
	}
	rig_sleep(r, 1);
	CHECK(351, r->core.table.n_free >= 800 / 16);
	CHECK_EQ(352, rig_stats(r).flows_closed, 64); /* as many as the budget of a call allows */
	rst.tcp_flags = TCP_ACK_FLAG;
	for (uint32_t i = 0; i < 50; i++) {
		rst.sport = (uint16_t)(10000 + i);
		CHECK_EQ(353, rig_in(r, LAN, &rst).verdict, V_SNAT);
	}
	rig_free(r);
}

static void check_ports_exhausted(void)
{
	struct rig *r = rig_new(0, 1, 8000);
	struct spec s = spec_udp;
	uint64_t passed = 0, exhausted = 0;

	/* Two external ports in each shard, and no more. */
	for (uint32_t shard = 0; shard < FP_SHARDS; shard++)
		for (uint32_t i = 0; i < 1006; i++)
			nat_port_alloc(&r->core.nat, 0, IPPROTO_NUM_UDP, shard, 0, r->now_ns);
	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	for (uint32_t i = 0; i < 2000; i++) {
		s.sport = (uint16_t)(1024 + i);
		uint32_t verdict = rig_in(r, LAN, &s).verdict;

		passed += verdict == V_SNAT;
		exhausted += verdict == V_PORTS_EXHAUSTED || verdict == V_PORTS_EXHAUSTED_SENT;
	}
	CHECK_EQ(360, passed, 2 * FP_SHARDS);
	CHECK_EQ(361, passed + exhausted, 2000);
	CHECK_EQ(362, rig_stats(r).mappings, 2 * FP_SHARDS);
	rig_free(r);
}

/* Two workers: each frame has one owner, both ways, and the owner never hands it on. */
static void check_handoff(void)
{
	struct rig *w[2] = { rig_new(0, 2, 4000), rig_new(1, 2, 4000) };
	uint32_t handed = 0;

	for (uint32_t i = 0; i < 2; i++)
		core_set_role(&w[i]->core, FP_ROLE_ACTIVE, 2, w[i]->now_ns);
	for (uint32_t i = 0; i < 200; i++) {
		struct spec s = spec_udp, reply;
		struct fp_frame f;
		uint32_t owner = 0;

		s.sport = (uint16_t)(5000 + i * 3);
		f = rig_in(w[0], LAN, &s);
		if (f.out == FP_OUT_HANDOFF) {
			handed++;
			owner = f.owner;
			CHECK_EQ(380, owner, 1);
			CHECK_EQ(381, rig_step(w[owner], &f), V_SNAT);
		} else {
			CHECK_EQ(382, f.verdict, V_SNAT);
		}
		reply = rig_reply(&s, out_sport(&f));
		f = rig_in(w[owner ^ 1], WAN, &reply);
		CHECK_EQ(383, f.verdict, V_HANDOFF);
		CHECK_EQ(384, f.owner, owner);
		CHECK_EQ(385, rig_step(w[owner], &f), V_REVERSE);
		CHECK_EQ(386, out_dport(&f), s.sport);
	}
	CHECK(387, handed > 50 && handed < 150);
	rig_free(w[0]);
	rig_free(w[1]);
}

/* More than one burst in one step, the packets of one session among them. */
static void check_burst(void)
{
	enum { N = 2 * FP_BURST_MAX + 5 };
	static uint8_t room[N][FP_FRAME_MAX];
	struct rig *r = rig_active();
	struct fp_frame frames[N];
	uint64_t total = 0;

	for (uint32_t i = 0; i < N; i++) {
		struct spec s = spec_udp;

		s.sport = (uint16_t)(5000 + i % 40);
		frames[i] = frames_ipv4(room[i], LAN, mac_virtual[LAN], &s);
	}
	core_step(&r->core, frames, N, r->now_ns);
	core_account(&r->core, frames, N);
	CHECK_EQ(400, rig_count(r, V_SNAT), N);
	CHECK_EQ(401, rig_stats(r).flows, 40);
	for (uint32_t i = 0; i < N; i++)
		CHECK_EQ(402, out_sport(&frames[i]), out_sport(&frames[i % 40]));
	for (uint32_t v = 0; v < V_COUNT; v++)
		total += rig_count(r, v);
	CHECK_EQ(403, total, N);
	rig_free(r);
}

static void check_verdicts(void)
{
	for (uint32_t v = 0; v < V_COUNT; v++) {
		CHECK(420, verdict_name(v) && verdict_help(v));
		for (uint32_t u = 0; u < v; u++)
			CHECK(421, strcmp(verdict_name(u), verdict_name(v)) != 0);
	}
	CHECK(422, !verdict_name(V_COUNT) && !verdict_help(V_COUNT) && !verdict_is_drop(V_COUNT));
	CHECK(423, verdict_is_drop(V_SYN_CHECK) && !verdict_is_drop(V_SNAT) && !verdict_is_drop(V_HANDOFF));
}

/* A SYN with @n bytes of options, a multiple of 4. */
static struct fp_frame syn_with(struct rig *r, uint8_t port, const struct spec *s, const uint8_t *options,
				uint32_t n)
{
	struct spec wide = *s;
	struct fp_frame f;

	wide.payload = n;
	f = frames_ipv4(r->data, port, mac_virtual[port], &wide);
	r->data[ETH_LEN + IPV4_LEN + TCP_OFF] = (uint8_t)((TCP_LEN + n) / 4 << 4);
	memcpy(r->data + ETH_LEN + IPV4_LEN + TCP_LEN, options, n);
	frames_fix_l4_csum(r->data + ETH_LEN, TCP_LEN + n);
	return f;
}

/* What is promised fits the narrower port, wherever the option stands; RFC 9293 section 3.7.1, RFC 6691. */
static void check_mss(void)
{
	static const struct {
		uint8_t options[8];
		uint32_t at; /* of the value; 0: nothing changes */
	} cases[] = {
		{ { 2, 4, 0x05, 0xb4, 1, 1, 1, 0 }, 2 },    { { 1, 2, 4, 0x05, 0xb4, 1, 1, 0 }, 3 },
		{ { 1, 1, 1, 1, 2, 4, 0x05, 0xb4 }, 6 },    { { 3, 3, 7, 2, 4, 0x05, 0xb4, 0 }, 5 },
		{ { 2, 4, 0x02, 0x18, 1, 1, 1, 0 }, 0 },    { { 2, 4, 0x04, 0xd8, 1, 1, 1, 0 }, 0 },
		{ { 0, 2, 4, 0x05, 0xb4, 1, 1, 1 }, 0 },    { { 1, 1, 1, 1, 1, 2, 4, 0x05 }, 0 },
		{ { 3, 0, 2, 4, 0x05, 0xb4, 1, 1 }, 0 },    { { 3, 200, 2, 4, 0x05, 0xb4, 1, 1 }, 0 },
		{ { 2, 3, 0x05, 2, 4, 0x05, 0xb4, 0 }, 5 }, { { 1, 1, 1, 1, 1, 1, 1, 2 }, 0 },
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++)
		for (uint32_t narrow = LAN; narrow <= WAN; narrow++) {
			struct rig *r = rig_active();
			uint8_t want[8];
			struct spec reply;
			struct fp_frame f;

			memcpy(want, cases[i].options, sizeof(want));
			if (cases[i].at)
				be16_store(want + cases[i].at, be16_of(1240));
			r->core.ports[narrow].len_max = ETH_LEN + 1280;
			f = syn_with(r, LAN, &spec_syn, cases[i].options, 8);
			CHECK_EQ(440, rig_step(r, &f), V_SNAT);
			CHECK(441, memcmp(f.data + ETH_LEN + IPV4_LEN + TCP_LEN, want, 8) == 0);
			CHECK(442, frames_csums_ok(&f));
			reply = rig_reply(&spec_syn, out_sport(&f));
			reply.tcp_flags = TCP_SYN | TCP_ACK_FLAG;
			reply.ack = 101;
			f = syn_with(r, WAN, &reply, cases[i].options, 8);
			CHECK_EQ(443, rig_step(r, &f), V_REVERSE);
			CHECK(444, memcmp(f.data + ETH_LEN + IPV4_LEN + TCP_LEN, want, 8) == 0);
			CHECK(445, frames_csums_ok(&f));
			rig_free(r);
		}
}

int main(void)
{
	check_mss();
	check_tcp();
	check_udp_and_echo();
	check_syn_check();
	check_bad_input();
	check_neighbours();
	check_next_hops();
	check_expiry();
	check_close();
	check_limits();
	check_reclaim();
	check_ports_exhausted();
	check_handoff();
	check_burst();
	check_verdicts();
	return check_done("step");
}
