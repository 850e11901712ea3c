/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_admit.c - what may open a session, and of which form: forwards, no NAT, protocols without ports, zones
 */
#include "estate.h"

enum { GRE = 47, ESP = 50, SCTP = 132, UDP_LITE = 136, VRRP = 112 };

static struct spec udp(be32 src, uint16_t sport, be32 dst, uint16_t dport)
{
	return (struct spec){ .src = src,
			      .dst = dst,
			      .proto = IPPROTO_NUM_UDP,
			      .sport = sport,
			      .dport = dport,
			      .payload = 20 };
}

static struct spec bare(uint8_t proto, be32 src, be32 dst)
{
	return (struct spec){ .src = src, .dst = dst, .proto = proto, .payload = 40 };
}

/* An ICMP error from @from to @to about the first @n bytes of @ip. */
static struct fp_frame complain(struct rig *r, uint8_t port, be32 from, be32 to, const uint8_t *ip,
				uint32_t n)
{
	struct spec s = {
		.src = from, .dst = to, .proto = IPPROTO_NUM_ICMP, .type = ICMP_UNREACHABLE, .payload = n
	};
	uint8_t quote[100];
	struct fp_frame f;

	memcpy(quote, ip, n);
	f = frames_ipv4(r->data, port, port == DMZ ? mac_dmz : mac_virtual[port], &s);
	r->data[ETH_LEN + IPV4_LEN + ICMP_CODE] = 3;
	memcpy(r->data + ETH_LEN + IPV4_LEN + ICMP_LEN, quote, n);
	frames_fix_l4_csum(r->data + ETH_LEN, ICMP_LEN + n);
	rig_step(r, &f);
	return f;
}

static void check_forward(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = { .forwards = { estate_forward(0, IPPROTO_NUM_UDP, 443, DMZ_SERVER, 8443) },
			       .n_forwards = 1 };
	void *policy = estate_policy(r, &rules);
	struct spec s = udp(SERVER, 7000, WAN_VIP, 443), back;
	uint8_t seen[60];
	struct fp_frame f = estate_in(r, WAN, &s);
	struct fp_flow_rec rec;

	CHECK_EQ(1, f.verdict, V_REVERSE);
	CHECK(2, estate_reached(&f, DMZ, DMZ_SERVER, 8443) && frames_csums_ok(&f));
	CHECK_EQ(3, out_src(&f).raw, SERVER.raw); /* the server sees who it is */
	memcpy(seen, f.data + ETH_LEN, sizeof(seen));
	CHECK_EQ(4, rig_walk(r, &rec, 1), 1);
	CHECK(5, rec.form == FP_FORM_STATIC && (rec.flags & FP_RF_INBOUND) && rec.in_port == DMZ &&
			 rec.out_port == WAN);
	back = estate_answer(&f);
	f = estate_in(r, DMZ, &back);
	CHECK_EQ(6, f.verdict, V_SNAT);
	CHECK(7, estate_reached(&f, WAN, SERVER, 7000) && frames_csums_ok(&f));
	CHECK(8, out_src(&f).raw == WAN_VIP.raw && out_sport(&f) == 443);
	CHECK_EQ(9, rig_stats(r).flows, 1);
	/* An error about it from inside is from the address that outside knows (RFC 5508 REQ-5). */
	f = complain(r, DMZ, DMZ_SERVER, SERVER, seen, 28);
	CHECK_EQ(10, f.verdict, V_ICMP_ERROR_OUT);
	CHECK(11, out_src(&f).raw == WAN_VIP.raw && frames_csums_ok(&f));
	CHECK_EQ(12, be32_load(f.data + ETH_LEN + IPV4_LEN + ICMP_LEN + IP_DST).raw, WAN_VIP.raw);
	/* The server begins: from outside it is the same endpoint. */
	s = udp(DMZ_SERVER, 8443, IP4(192, 0, 2, 77), 53);
	f = estate_in(r, DMZ, &s);
	CHECK_EQ(13, f.verdict, V_SNAT);
	CHECK(14, out_src(&f).raw == WAN_VIP.raw && out_sport(&f) == 443);
	s.sport = 8445; /* from elsewhere it is a client */
	f = estate_in(r, DMZ, &s);
	CHECK(15, f.verdict == V_SNAT && out_sport(&f) >= 1024);
	s = udp(SERVER, 7000, WAN_VIP, 444);
	CHECK_EQ(16, estate_in(r, WAN, &s).verdict, V_VIP_SERVICE);
	s.dport = 4440;
	CHECK_EQ(17, estate_in(r, WAN, &s).verdict, V_NO_SESSION);
	free(policy);
	/* A rule for some, and for nobody else. */
	rules.rules[0] = estate_rule(FP_DENY, FP_FORM_SNAT);
	rules.rules[0].in_ports = 1 << WAN;
	rules.n_rules = 1;
	policy = estate_policy(r, &rules);
	s = udp(SERVER, 7002, WAN_VIP, 443);
	CHECK_EQ(18, estate_in(r, WAN, &s).verdict, V_RULE_DENIED);
	s = udp(CLIENT, 7002, SERVER, 443);
	CHECK_EQ(19, estate_in(r, LAN, &s).verdict, V_SNAT);
	/* Only outside comes from outside. */
	rules.n_rules = 0;
	free(policy);
	policy = estate_policy(r, &rules);
	s = udp(CLIENT2, 7004, WAN_VIP, 443);
	CHECK_EQ(20, estate_in(r, WAN, &s).verdict, V_SPOOFED_INSIDE);
	free(policy);
	rig_free(r);
}

/* RFC 4787 REQ-8; RFC 5382 REQ-3 */
static void check_filtering(void)
{
	static const struct {
		uint8_t filtering;
		uint32_t same_host, other_host;
	} cases[] = { { FP_FILTER_EIF, V_REVERSE, V_REVERSE },
		      { FP_FILTER_ADF, V_REVERSE, V_FILTERED },
		      { FP_FILTER_APDF, V_FILTERED, V_FILTERED } };

	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fp_config cfg = estate_config(1);
		struct spec s = udp(CLIENT, 5000, SERVER, 53), in;
		struct fp_frame f;
		struct rig *r;
		uint16_t external;

		cfg.n_pools = 1;
		cfg.pools[0].filtering = cases[i].filtering;
		r = estate_new(&cfg, 0);
		f = estate_in(r, LAN, &s);
		external = out_sport(&f);
		in = udp(SERVER, 54, WAN_VIP, external);
		f = estate_in(r, WAN, &in);
		CHECK_EQ(30, f.verdict, cases[i].same_host);
		if (f.verdict == V_REVERSE)
			CHECK(31, estate_reached(&f, LAN, CLIENT, 5000) && frames_csums_ok(&f));
		in.src = IP4(192, 0, 2, 99);
		f = estate_in(r, WAN, &in);
		CHECK_EQ(32, f.verdict, cases[i].other_host);
		if (f.verdict == V_REVERSE) { /* answered from the same endpoint */
			in = estate_answer(&f);
			f = estate_in(r, LAN, &in);
			CHECK(33, f.verdict == V_SNAT && out_sport(&f) == external);
		}
		in = udp(SERVER, 53, WAN_VIP, external ^ 2);
		CHECK_EQ(34, estate_in(r, WAN, &in).verdict, V_NO_SESSION);
		rig_free(r);
	}
}

static struct rules untranslated(uint8_t in_ports)
{
	struct rules rules = { .rules = { estate_rule(FP_ALLOW, FP_FORM_NONE) }, .n_rules = 1 };

	rules.rules[0].in_ports = in_ports;
	return rules;
}

static void check_none(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = untranslated(1 << DMZ);
	void *policy = estate_policy(r, &rules);
	struct spec s = udp(DMZ_SERVER, 5000, SERVER, 53), back, ping = spec_echo;
	uint8_t seen[60];
	struct fp_frame f = estate_in(r, DMZ, &s);
	struct fp_flow_rec rec;

	CHECK_EQ(40, f.verdict, V_ROUTED);
	CHECK(41, estate_reached(&f, WAN, SERVER, 53) && frames_csums_ok(&f));
	CHECK(42, out_src(&f).raw == DMZ_SERVER.raw && out_sport(&f) == 5000);
	CHECK_EQ(43, f.data[ETH_LEN + IP_TTL], 63);
	CHECK_EQ(44, rig_walk(r, &rec, 1), 1);
	CHECK(45, rec.form == FP_FORM_NONE && rec.pool == FP_POOL_NONE && rec.rule == 1);
	memcpy(seen, f.data + ETH_LEN, sizeof(seen));
	back = estate_answer(&f);
	f = estate_in(r, WAN, &back);
	CHECK_EQ(46, f.verdict, V_ROUTED);
	CHECK(47, estate_reached(&f, DMZ, DMZ_SERVER, 5000) && frames_csums_ok(&f));
	/* An error is passed as it is. */
	f = complain(r, WAN, ISP, DMZ_SERVER, seen, 48);
	CHECK_EQ(48, f.verdict, V_ICMP_ERROR_IN);
	CHECK(49, memcmp(f.data + ETH_LEN + IPV4_LEN + ICMP_LEN, seen, 48) == 0 && frames_csums_ok(&f));
	/* Not from a zone that has nothing to do with it. */
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &back);
	CHECK(50, verdict_is_drop(rig_step(r, &f)));
	back.sport++;
	CHECK_EQ(51, estate_in(r, WAN, &back).verdict, V_OUTSIDE_DENIED);
	ping.src = DMZ_SERVER;
	f = estate_in(r, DMZ, &ping);
	CHECK_EQ(52, f.verdict, V_ROUTED);
	ping.src = SERVER;
	ping.dst = DMZ_SERVER;
	CHECK_EQ(53, estate_in(r, WAN, &ping).verdict, V_ICMP_TYPE); /* not its turn */
	ping.type = ICMP_ECHO_REPLY;
	CHECK_EQ(54, estate_in(r, WAN, &ping).verdict, V_ROUTED);
	free(policy);
	/* From outside, by a rule that says so. */
	rules = untranslated(1 << WAN);
	policy = estate_policy(r, &rules);
	s = udp(SERVER, 9000, DMZ_SERVER, 53);
	f = estate_in(r, WAN, &s);
	CHECK_EQ(55, f.verdict, V_ROUTED);
	CHECK(56, estate_reached(&f, DMZ, DMZ_SERVER, 53));
	back = estate_answer(&f);
	f = estate_in(r, DMZ, &back);
	CHECK_EQ(57, f.verdict, V_ROUTED);
	CHECK(58, estate_reached(&f, WAN, SERVER, 9000) && out_src(&f).raw == DMZ_SERVER.raw);
	free(policy);
	rules.rules[0].form = FP_FORM_SNAT; /* "allow" alone means by NAT, and outside has none */
	policy = estate_policy(r, &rules);
	s.sport++;
	CHECK_EQ(59, estate_in(r, WAN, &s).verdict, V_OUTSIDE_DENIED);
	free(policy);
	rig_free(r);
}

static void check_portless(void)
{
	static const uint8_t protos[] = { GRE, ESP, SCTP };
	struct fp_config cfg = estate_config(1);
	struct rig *r;
	struct spec s;
	struct fp_frame f;

	cfg.n_pools = 1;
	r = estate_new(&cfg, 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(protos); i++) {
		uint8_t seen[80];

		s = bare(protos[i], CLIENT, SERVER);
		f = estate_in(r, LAN, &s);
		CHECK_EQ(70, f.verdict, V_SNAT);
		CHECK(71,
		      out_src(&f).raw == WAN_VIP.raw && out_dst(&f).raw == SERVER.raw && frames_csums_ok(&f));
		for (uint32_t b = 0; b < 40; b++)
			CHECK_EQ(72, f.data[ETH_LEN + IPV4_LEN + b], (uint8_t)(b * 7 + 1));
		memcpy(seen, f.data + ETH_LEN, 60);
		s = bare(protos[i], SERVER, WAN_VIP);
		f = estate_in(r, WAN, &s);
		CHECK_EQ(73, f.verdict, V_REVERSE);
		CHECK(74, out_dst(&f).raw == CLIENT.raw && frames_csums_ok(&f));
		/* Only one inside host can have it. */
		s = bare(protos[i], CLIENT2, SERVER);
		CHECK_EQ(75, estate_in(r, LAN, &s).verdict, V_ENDPOINT_TAKEN_SENT);
		s = bare(protos[i], IP4(192, 0, 2, 99), WAN_VIP);
		CHECK_EQ(76, estate_in(r, WAN, &s).verdict, V_NO_SESSION);
		/* A quote may end with the IP header, or with any byte behind it. */
		for (uint32_t n = 20; n <= 60; n += 4) {
			f = complain(r, WAN, ISP, WAN_VIP, seen, n);
			CHECK_EQ(77, f.verdict, V_ICMP_ERROR_IN);
			CHECK(78, out_dst(&f).raw == CLIENT.raw && frames_csums_ok(&f));
			CHECK_EQ(79, be32_load(f.data + ETH_LEN + IPV4_LEN + ICMP_LEN + IP_SRC).raw,
				 CLIENT.raw);
			CHECK_EQ(80, csum_fold(csum_sum(f.data + ETH_LEN + IPV4_LEN + ICMP_LEN, 20)), 0xffff);
		}
	}
	s = bare(VRRP, CLIENT, SERVER);
	CHECK_EQ(81, estate_in(r, LAN, &s).verdict, V_PROTOCOL);
	struct rules rules = { .rules = { estate_rule(FP_ALLOW, FP_FORM_SNAT) }, .n_rules = 1 };
	void *policy = estate_policy(r, &rules);
	CHECK_EQ(82, estate_in(r, LAN, &s).verdict, V_PROTOCOL); /* "anything" does not name it */
	for (uint32_t i = 0; i < ARRAY_SIZE(protos); i++) {      /* but what passes without any rule passes */
		s = bare(protos[i], CLIENT, IP4(192, 0, 2, 80));
		CHECK_EQ(86, estate_in(r, LAN, &s).verdict, V_SNAT);
	}
	s = bare(VRRP, CLIENT, SERVER);
	free(policy);
	rules.rules[0].explicit_proto = 1;
	policy = estate_policy(r, &rules);
	CHECK_EQ(83, estate_in(r, LAN, &s).verdict, V_SNAT);
	s = bare(UDP_LITE, CLIENT, SERVER); /* its checksum covers the addresses */
	CHECK_EQ(84, estate_in(r, LAN, &s).verdict, V_PROTOCOL);
	free(policy);
	rules.rules[0].form = FP_FORM_NONE;
	policy = estate_policy(r, &rules);
	CHECK_EQ(85, estate_in(r, LAN, &s).verdict, V_ROUTED);
	free(policy);
	rig_free(r);
}

/* Between inside ports: by a rule, whichever side opens, and as the ports were. */
static void check_zones(void)
{
	struct fp_config cfg = estate_config(1);

	for (uint32_t forth = 0; forth < 2; forth++) {
		struct rig *r = estate_new(&cfg, 0);
		const uint8_t from = forth ? LAN : DMZ, to = forth ? DMZ : LAN;
		const be32 opener = forth ? CLIENT : DMZ_SERVER, other = forth ? DMZ_SERVER : CLIENT;
		struct spec s = udp(opener, 5000, other, 53), back, fake;
		struct rules rules = untranslated((uint8_t)(1 << from));
		struct spec ping = { .src = opener,
				     .dst = other,
				     .proto = IPPROTO_NUM_ICMP,
				     .sport = 9,
				     .type = ICMP_ECHO_REQUEST };
		struct fp_flow_rec rec;
		uint8_t seen[48];
		struct fp_frame f;
		void *policy;

		CHECK_EQ(90, estate_in(r, from, &s).verdict, V_INSIDE_DENIED);
		policy = estate_policy(r, &rules);
		f = estate_in(r, from, &s);
		CHECK_EQ(91, f.verdict, V_ROUTED);
		CHECK(92, estate_reached(&f, to, other, 53) && frames_csums_ok(&f));
		memcpy(seen, f.data + ETH_LEN, sizeof(seen));
		back = estate_answer(&f);
		f = estate_in(r, to, &back);
		CHECK_EQ(93, f.verdict, V_ROUTED);
		CHECK(94, estate_reached(&f, from, opener, 5000));
		CHECK_EQ(95, rig_walk(r, &rec, 1), 1);
		/* The smaller address, which is the server's, is "inside". */
		CHECK_EQ(96, be32_load(rec.inside.b + 12).raw, DMZ_SERVER.raw);
		CHECK(97,
		      rec.in_port == DMZ && rec.out_port == LAN && !(rec.flags & FP_RF_INBOUND) == !forth);
		CHECK_EQ(98, rec.state, FP_ST_ESTABLISHED);
		f = complain(r, to, other, opener, seen, 48);
		CHECK(99, f.out == FP_OUT_WIRE && f.out_port == from && out_dst(&f).raw == opener.raw);
		CHECK_EQ(100, estate_in(r, from, &ping).verdict, V_ROUTED);
		ping.src = other;
		ping.dst = opener;
		ping.type = ICMP_ECHO_REPLY;
		CHECK_EQ(101, estate_in(r, to, &ping).verdict, V_ROUTED);
		CHECK_EQ(102, rig_stats(r).flows, 2);
		/* Outside knows the endpoints; what it sends is not of the session. */
		fake = back;
		CHECK(103, verdict_is_drop(estate_in(r, WAN, &fake).verdict));
		fake = udp(other, 60000, opener, 60000); /* the rule is for the other direction */
		CHECK_EQ(104, estate_in(r, to, &fake).verdict, V_INSIDE_DENIED);
		CHECK_EQ(105, estate_in(r, from, &fake).verdict, V_NO_RETURN_ROUTE);
		fake.src = CLIENT2;
		fake.dst = CLIENT;
		CHECK_EQ(106, estate_in(r, LAN, &fake).verdict, V_INSIDE_DENIED);
		free(policy);
		rig_free(r);
	}
}

/* Each kind of address that lies has a counter of its own. */
static void check_liars(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	const struct {
		uint8_t port;
		be32 src, dst;
		uint32_t verdict;
	} cases[] = {
		{ WAN, SERVER, SERVER, V_LAND },
		{ WAN, WAN_VIP, WAN_VIP, V_LAND },
		{ WAN, WAN_SELF, WAN_SELF, V_LAND },
		{ LAN, CLIENT, CLIENT, V_LAND },
		{ WAN, WAN_VIP, CLIENT, V_SPOOFED_OWN },
		{ WAN, SECOND, WAN_VIP, V_SPOOFED_OWN },
		{ LAN, LAN_SELF, SERVER, V_SPOOFED_OWN },
		{ LAN, WAN_SELF, LAN_SELF, V_SPOOFED_OWN },
		{ LAN, IP4(127, 0, 0, 1), SERVER, V_MARTIAN_SOURCE },
		{ WAN, IP4(0, 0, 0, 0), WAN_VIP, V_MARTIAN_SOURCE },
		{ WAN, IP4(255, 255, 255, 255), WAN_VIP, V_MARTIAN_SOURCE },
		{ WAN, IP4(240, 0, 0, 1), WAN_VIP, V_MARTIAN_SOURCE },
		{ LAN, CLIENT, IP4(255, 255, 255, 255), V_MARTIAN_DESTINATION },
		{ LAN, CLIENT, IP4(224, 0, 0, 5), V_MARTIAN_DESTINATION },
		{ LAN, CLIENT, IP4(127, 1, 1, 1), V_MARTIAN_DESTINATION },
		{ LAN, IP4(198, 51, 100, 255), SERVER, V_BROADCAST_SOURCE },
		{ LAN, IP4(198, 51, 100, 0), SERVER, V_BROADCAST_SOURCE },
		{ LAN, CLIENT, IP4(10, 7, 0, 255), V_BROADCAST_DESTINATION },
		{ WAN, SERVER, IP4(198, 51, 100, 255), V_BROADCAST_DESTINATION },
		{ LAN, IP4(192, 0, 2, 5), SERVER, V_NO_RETURN_ROUTE },
		{ LAN, DMZ_SERVER, CLIENT2, V_NO_RETURN_ROUTE },
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct spec s = udp(cases[i].src, 5000, cases[i].dst, 2000);
		struct fp_frame f = estate_in(r, cases[i].port, &s);

		CHECK_EQ(1000 + (int)i, f.verdict, cases[i].verdict);
		CHECK_EQ(120, f.out, FP_OUT_NONE);
	}
	CHECK_EQ(121, rig_stats(r).flows, 0);
	rig_free(r);
}

/* A pool on the node's own address: its ports are the NAT's, all else is the kernel's. */
static void check_interface_address(void)
{
	struct fp_config cfg = estate_config(1);
	struct spec s = udp(CLIENT, 5000, SERVER, 53), in;
	uint8_t seen[48];
	struct rig *r;
	struct fp_frame f;

	cfg.n_pools = 1;
	cfg.pools[0].addr = addr_from_v4(WAN_SELF);
	cfg.pools[0].port_lo = 32768;
	cfg.pools[0].port_hi = 40959;
	cfg.pools[0].filtering = FP_FILTER_APDF;
	r = estate_new(&cfg, 0);
	f = estate_in(r, LAN, &s);
	CHECK_EQ(130, f.verdict, V_SNAT);
	CHECK(131, out_src(&f).raw == WAN_SELF.raw && out_sport(&f) >= 32768 && out_sport(&f) <= 40959);
	memcpy(seen, f.data + ETH_LEN, sizeof(seen));
	in = estate_answer(&f);
	f = estate_in(r, WAN, &in);
	CHECK(132, f.verdict == V_REVERSE && estate_reached(&f, LAN, CLIENT, 5000));
	in.dport ^= 2;
	CHECK_EQ(133, estate_in(r, WAN, &in).verdict, V_NO_SESSION);
	in.dport = 40960;
	CHECK_EQ(134, estate_in(r, WAN, &in).verdict, V_HOST);
	in.dport = 22;
	f = estate_in(r, WAN, &in);
	CHECK(135, f.verdict == V_HOST && f.out == FP_OUT_HOST);
	in = spec_echo;
	in.src = SERVER;
	in.dst = WAN_SELF;
	CHECK_EQ(136, estate_in(r, WAN, &in).verdict, V_HOST);
	in.type = ICMP_ECHO_REPLY; /* of the kernel's own ping, whatever its identifier */
	in.sport = 33000;
	CHECK_EQ(137, estate_in(r, WAN, &in).verdict, V_HOST);
	in = bare(GRE, SERVER, WAN_SELF);
	CHECK_EQ(138, estate_in(r, WAN, &in).verdict, V_HOST);
	s = bare(GRE, CLIENT, SERVER);
	CHECK_EQ(139, estate_in(r, LAN, &s).verdict, V_SNAT);
	CHECK_EQ(140, estate_in(r, WAN, &in).verdict, V_REVERSE);
	/* Errors about what either of the two sent. */
	CHECK_EQ(141, complain(r, WAN, ISP, WAN_SELF, seen, 48).verdict, V_ICMP_ERROR_IN);
	be16_store(seen + IPV4_LEN + L4_SPORT, be16_of(2222));
	CHECK_EQ(142, complain(r, WAN, ISP, WAN_SELF, seen, 48).verdict, V_HOST);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	in = udp(SERVER, 53, WAN_SELF, 33000);
	f = frames_ipv4(r->data, WAN, mac_self[WAN], &in);
	CHECK_EQ(143, rig_step(r, &f), V_HOST);
	rig_free(r);
}

/* An address of a pool that is on the link is answered for as a VIP is. */
static void check_pool_address(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct spec ping = spec_echo;
	struct fp_frame f = frames_arp(r->data, WAN, mac_broadcast, 1, ISP, SECOND);

	CHECK_EQ(150, rig_step(r, &f), V_ARP_VIP);
	CHECK(151, mac_eq(r->data + ETH_SRC, mac_virtual[WAN]) && f.fenced);
	f = frames_arp(r->data, LAN, mac_broadcast, 1, CLIENT, SECOND); /* not on this link */
	CHECK_EQ(152, rig_step(r, &f), V_HOST_ARP);
	ping.src = SERVER;
	ping.dst = SECOND;
	f = estate_in(r, WAN, &ping);
	CHECK_EQ(153, f.verdict, V_VIP_ECHO);
	CHECK_EQ(154, out_src(&f).raw, SECOND.raw);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	f = frames_arp(r->data, WAN, mac_broadcast, 1, ISP, SECOND);
	CHECK_EQ(155, rig_step(r, &f), V_ARP_VIP_NOT_ACTIVE);
	rig_free(r);
}

static struct fp_frame step_owner(struct rig **w, uint8_t port, const struct spec *s, uint32_t *owner)
{
	struct fp_frame f = frames_ipv4(w[0]->data, port, port == DMZ ? mac_dmz : mac_virtual[port], s);

	*owner = 0;
	rig_step(w[0], &f);
	if (f.out == FP_OUT_HANDOFF) {
		*owner = f.owner;
		rig_step(w[*owner], &f);
	}
	return f;
}

/* Whoever owns the first packet of a session owns its answers, whatever its form: nobody else has the record. */
static void check_owners(void)
{
	struct fp_config cfg = estate_config(3);
	struct rig *w[3];
	struct rules rules = { .rules = { estate_rule(FP_ALLOW, FP_FORM_NONE) },
			       .forwards = { estate_forward(0, IPPROTO_NUM_UDP, 443, DMZ_SERVER, 8443) },
			       .n_rules = 1,
			       .n_forwards = 1 };
	uint32_t owned[3] = { 0 };
	void *policy[3];

	rules.rules[0].in_ports = 1 << DMZ;
	rules.rules[0].explicit_proto = 1;
	for (uint32_t i = 0; i < 3; i++) {
		w[i] = estate_new(&cfg, i);
		policy[i] = estate_policy(w[i], &rules);
	}
	for (uint16_t i = 0; i < 60; i++) {
		const be32 far = IP4(192, 0, 2, (uint32_t)i + 1);
		const struct {
			uint8_t port;
			struct spec s;
		} first[] = {
			{ LAN, udp(CLIENT, 5000 + i * 2, far, 53) },          /* SNAT */
			{ WAN, udp(far, 5000 + i * 2, WAN_VIP, 443) },        /* STATIC, in */
			{ DMZ, udp(DMZ_SERVER, 8443, far, 700 + i) },         /* STATIC, out */
			{ DMZ, udp(DMZ_SERVER, 5000 + i * 2, far, 53) },      /* NONE */
			{ DMZ, udp(DMZ_SERVER, 5000 + i * 2, CLIENT, 1000) }, /* zones */
			{ LAN, bare(GRE, CLIENT, far) },                      /* without ports */
			{ DMZ, bare(ESP, DMZ_SERVER, far) },
			{ DMZ,
			  { .src = DMZ_SERVER,
			    .dst = far,
			    .proto = IPPROTO_NUM_ICMP,
			    .sport = 900 + i,
			    .type = ICMP_ECHO_REQUEST } },
		};

		for (uint32_t k = 0; k < ARRAY_SIZE(first); k++) {
			uint32_t owner, again;
			struct fp_frame f = step_owner(w, first[k].port, &first[k].s, &owner);
			struct spec back;

			CHECK_EQ(160 + (int)k, f.out, FP_OUT_WIRE);
			back = estate_answer(&f);
			back.payload = 20;
			if (back.proto == IPPROTO_NUM_ICMP) {
				back.sport = be16_host(be16_load(f.data + ETH_LEN + IPV4_LEN + ICMP_ID));
				back.type = ICMP_ECHO_REPLY;
			}
			f = step_owner(w, f.out_port, &back, &again);
			CHECK_EQ(170 + (int)k, f.out, FP_OUT_WIRE);
			CHECK_EQ(180 + (int)k, again, owner);
			CHECK_EQ(190 + (int)k, f.out_port, first[k].port);
			owned[owner]++;
		}
	}
	CHECK(200, owned[0] > 50 && owned[1] > 50 && owned[2] > 50);
	for (uint32_t i = 0; i < 3; i++) {
		free(policy[i]);
		rig_free(w[i]);
	}
}

int main(void)
{
	check_forward();
	check_filtering();
	check_none();
	check_portless();
	check_zones();
	check_liars();
	check_interface_address();
	check_pool_address();
	check_owners();
	return check_done("admit");
}
