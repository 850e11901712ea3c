/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_conduit.c - packets that land on PASSIVE: handed over before any session is looked for, taken by ACTIVE
 *
 * Two nodes of the same network, and a wire between them that the test writes on. Spec: R8, R9, R16; RFC 8926.
 */
#include "../conduit.h"
#include "datagram.h"

enum { PAIR_ID = 0x12345678, PACKET_ROOM = CONDUIT_LEN + 256 + FP_FRAME_MAX };

/* ACTIVE of term 4, PASSIVE who knows that, and a packet between them. */
struct nodes {
	struct rig *active, *passive;
	uint8_t packet[PACKET_ROOM];
	uint32_t len;
	uint8_t room[FP_FRAME_MAX];
};

static struct rig *node(uint32_t n_workers, uint32_t worker, uint32_t role)
{
	struct fp_config cfg = frames_config(n_workers, 1000);
	struct rig *r;

	cfg.pulse.pair_id = PAIR_ID;
	cfg.pulse.xc_addr = addr_from_v4(IP4(169, 254, 100, 1));
	cfg.pulse.xc_peer_addr = addr_from_v4(IP4(169, 254, 100, 2));
	cfg.pulse.xc_plen = 30;
	r = rig_make(&cfg, worker);
	core_set_role(&r->core, role, 4, r->now_ns);
	return r;
}

static struct nodes *nodes_new(void)
{
	struct nodes *n = calloc(1, sizeof(*n));

	REQUIRE(n);
	n->active = node(1, 0, FP_ROLE_ACTIVE);
	n->passive = node(1, 0, FP_ROLE_PASSIVE);
	n->passive->core.conduit = conduit_orders(true, 4, 0, 0, 0);
	return n;
}

static void nodes_free(struct nodes *n)
{
	rig_free(n->active);
	rig_free(n->passive);
	free(n);
}

static uint32_t sport_of(const struct nodes *n)
{
	return CONDUIT_SPORT + (uint32_t)n->packet[CONDUIT_SHARD_AT];
}

/* What PASSIVE has given out, on the wire between. */
static void encode(struct nodes *n, const struct fp_frame *f)
{
	conduit_header(&n->passive->core, f, n->packet);
	memcpy(n->packet + CONDUIT_LEN, f->data, f->len);
	n->len = CONDUIT_LEN + f->len;
}

static uint32_t take_from(struct nodes *n, uint32_t sport, uint32_t len, struct fp_frame *f)
{
	*f = (struct fp_frame){ .data = n->room };
	return conduit_take(&n->active->core, n->packet, len, sport, f);
}

static uint32_t take(struct nodes *n, struct fp_frame *f)
{
	return take_from(n, sport_of(n), n->len, f);
}

/* A frame of a wire lands on PASSIVE and crosses over; what ACTIVE makes of it. */
static struct fp_frame cross_frame(struct nodes *n, struct fp_frame *f)
{
	struct fp_frame taken = { .verdict = V_COUNT };

	rig_step(n->passive, f);
	if (f->verdict != V_CONDUIT_TO)
		return *f;
	CHECK_EQ(1, f->out, FP_OUT_CONDUIT);
	CHECK(2, f->owner < FP_SHARDS);
	encode(n, f);
	CHECK_EQ(3, take(n, &taken), V_GO_ON);
	CHECK_EQ(4, taken.port, f->port);
	rig_step(n->active, &taken);
	return taken;
}

static struct fp_frame cross_to(struct nodes *n, uint8_t port, const uint8_t *mac, const struct spec *s)
{
	struct fp_frame f = frames_ipv4(n->passive->data, port, mac, s);

	return cross_frame(n, &f);
}

static struct fp_frame cross(struct nodes *n, uint8_t port, const struct spec *s)
{
	return cross_to(n, port, mac_self[port], s);
}

/* Both directions of a session land on PASSIVE, which never looks for it. Spec: R8, R9. */
static void check_session(void)
{
	struct nodes *n = nodes_new();
	const struct spec *specs[] = { &spec_syn, &spec_udp, &spec_echo };

	for (uint32_t i = 0; i < ARRAY_SIZE(specs); i++) {
		struct fp_frame f = cross(n, LAN, specs[i]);
		struct spec reply;
		uint16_t external = out_sport(&f);

		CHECK_EQ(10, f.verdict, V_SNAT);
		CHECK(11, f.out == FP_OUT_WIRE && f.out_port == WAN && f.fenced);
		CHECK(12, mac_eq(f.data + ETH_SRC, mac_virtual[WAN]) && mac_eq(f.data + ETH_DST, mac_isp));
		CHECK_EQ(13, f.data[ETH_LEN + IP_TTL], 63);
		CHECK(14, frames_csums_ok(&f));
		if (specs[i]->proto == IPPROTO_NUM_ICMP)
			external = be16_host(be16_load(f.data + ETH_LEN + IPV4_LEN + ICMP_ID));
		reply = rig_reply(specs[i], external);
		reply.tcp_flags = reply.tcp_flags ? TCP_SYN | TCP_ACK_FLAG : 0;
		reply.ack = specs[i]->seq + 1;
		f = cross(n, WAN, &reply);
		CHECK_EQ(15, f.verdict, V_REVERSE);
		CHECK(16, f.out_port == LAN && mac_eq(f.data + ETH_DST, mac_client));
		CHECK_EQ(17, out_dst(&f).raw, CLIENT.raw);
	}
	CHECK_EQ(18, rig_stats(n->passive).lookups, 0);
	CHECK_EQ(19, rig_stats(n->passive).flows, 0);
	CHECK_EQ(20, rig_stats(n->active).lookups, 6);
	CHECK_EQ(21, rig_stats(n->active).flows, 3);
	CHECK_EQ(22, rig_count(n->passive, V_CONDUIT_TO), 6);
	nodes_free(n);
}

/* What has no session of its own: the VIP answers, errors go back to whoever sent, by the wire of ACTIVE. */
static void check_no_session(void)
{
	struct nodes *n = nodes_new();
	struct spec s = spec_udp;
	struct fp_frame f;

	s.ttl = 1;
	f = cross(n, LAN, &s);
	CHECK_EQ(30, f.verdict, V_TTL_EXCEEDED_SENT);
	CHECK(31, f.out_port == LAN && mac_eq(f.data + ETH_DST, mac_client) && frames_csums_ok(&f));
	s = spec_echo;
	s.dst = LAN_VIP;
	f = cross(n, LAN, &s);
	CHECK_EQ(32, f.verdict, V_VIP_ECHO);
	CHECK(33, f.out_port == LAN && mac_eq(f.data + ETH_DST, mac_client));
	s = spec_syn;
	s.dst = LAN_SELF; /* PASSIVE's own, here: its kernel's */
	CHECK_EQ(34, cross(n, LAN, &s).verdict, V_HOST);
	s = spec_udp;
	s.src = LAN_SELF;
	CHECK_EQ(35, cross(n, LAN, &s).verdict, V_SPOOFED_OWN);
	s = spec_udp;
	s.dst = IP4(169, 254, 100, 1); /* nothing is routed to the cross-connect, or from it */
	s.dport = 6081;
	CHECK_EQ(36, cross(n, LAN, &s).verdict, V_MARTIAN_DESTINATION);
	s = spec_udp;
	s.src = IP4(169, 254, 100, 2);
	CHECK_EQ(37, cross(n, WAN, &s).verdict, V_MARTIAN_SOURCE);
	CHECK_EQ(38, rig_in(n->active, LAN, &s).verdict, V_MARTIAN_SOURCE);
	s.src = IP4(169, 254, 100, 4); /* outside of the /30 */
	CHECK_EQ(39, cross(n, WAN, &s).verdict, V_OUTSIDE_DENIED);
	nodes_free(n);
}

/* Fragments, the first one last: they wait at ACTIVE, and remember where they came from. */
static void check_fragments(void)
{
	static struct datagram d;
	struct nodes *n = nodes_new();
	struct fp_frame f, held = { .data = n->room };

	datagram_make(&d, LAN, &spec_udp, 2000, 77);
	datagram_cut(&d, 1200);
	for (uint32_t i = 2; i-- > 0;) {
		f = fragment(n->passive->data, &d, d.parts[i].from, d.parts[i].len, i == 0);
		memcpy(f.data + ETH_DST, mac_self[LAN], ETH_ALEN);
		f = cross_frame(n, &f);
		CHECK_EQ(40, f.verdict, i ? V_FRAG_HELD : V_SNAT);
		CHECK_EQ(41, n->packet[15], 1);
	}
	CHECK_EQ(42, core_frags_ready(&n->active->core, &held, 1, n->active->now_ns), 1);
	CHECK_EQ(43, held.src, FP_SRC_CONDUIT);
	CHECK_EQ(44, rig_step(n->active, &held), V_SNAT);
	nodes_free(n);
}

/* Who is not ACTIVE hands over if it is told to; what is sent to the virtual MAC, only where it is told to. */
static void check_orders(void)
{
	static const uint32_t roles[] = { FP_ROLE_JOINING, FP_ROLE_PASSIVE, FP_ROLE_MAINTENANCE,
					  FP_ROLE_FAULT };
	struct nodes *n = nodes_new();
	struct core *c = &n->passive->core;

	for (uint32_t i = 0; i < ARRAY_SIZE(roles); i++) {
		core_set_role(c, roles[i], 4, n->passive->now_ns);
		CHECK_EQ(50, cross(n, LAN, &spec_udp).verdict, V_SNAT);
	}
	CHECK_EQ(51, cross_to(n, LAN, mac_virtual[LAN], &spec_udp).verdict, V_VMAC_NOT_ACTIVE);
	c->conduit = conduit_orders(true, 4, 1u << LAN, 0, 0);
	CHECK_EQ(52, cross_to(n, LAN, mac_virtual[LAN], &spec_udp).verdict, V_SNAT);
	CHECK_EQ(53, cross_to(n, WAN, mac_virtual[WAN], &spec_udp).verdict, V_VMAC_NOT_ACTIVE);
	CHECK_EQ(54, cross_to(n, LAN, mac_stranger, &spec_udp).verdict, V_NOT_FOR_US);
	c->conduit = CONDUIT_OFF;
	CHECK_EQ(55, cross(n, LAN, &spec_udp).verdict, V_NOT_ACTIVE);
	CHECK_EQ(56, cross_to(n, LAN, mac_virtual[LAN], &spec_udp).verdict, V_VMAC_NOT_ACTIVE);
	c->conduit = conduit_orders(true, 4, 0, 0, 0);
	core_set_role(c, FP_ROLE_ACTIVE, 5, n->passive->now_ns);
	CHECK_EQ(57, cross(n, LAN, &spec_udp).verdict, V_SNAT); /* by itself */
	CHECK_EQ(58, rig_count(n->passive, V_SNAT), 1);
	nodes_free(n);
}

/* Roles change while packets are under way: what is not for this reign is dropped, and nothing goes back. */
static void check_reign(void)
{
	struct nodes *n = nodes_new();
	struct core *c = &n->active->core;
	struct fp_frame f;

	CHECK_EQ(60, cross(n, LAN, &spec_udp).verdict, V_SNAT);
	core_set_role(c, FP_ROLE_ACTIVE, 6, n->active->now_ns);
	CHECK_EQ(61, take(n, &f), V_CONDUIT_TERM);
	core_set_role(c, FP_ROLE_PASSIVE, 7, n->active->now_ns);
	c->conduit = conduit_orders(true, 7, 0, 0, 0);
	CHECK_EQ(62, take(n, &f), V_CONDUIT_NOT_ACTIVE);
	core_set_role(c, FP_ROLE_ACTIVE, 4, n->active->now_ns);
	CHECK_EQ(63, take(n, &f), V_GO_ON);
	core_set_role(c, FP_ROLE_PASSIVE, 7,
		      n->active->now_ns); /* between rx and the hand-off to its owner */
	CHECK_EQ(64, rig_step(n->active, &f), V_CONDUIT_NOT_ACTIVE);
	CHECK_EQ(65, f.out, FP_OUT_NONE);
	c->passes_on = true; /* it has handed over, and the other one reigns */
	CHECK_EQ(66, take(n, &f), V_GO_ON);
	CHECK_EQ(67, rig_step(n->active, &f), V_PASSED_ON);
	CHECK_EQ(68, f.out, FP_OUT_WIRE);
	CHECK(69, f.out_port == LAN && mac_eq(f.data + ETH_DST, mac_peer) &&
			  mac_eq(f.data + ETH_SRC, mac_self[LAN]));
	nodes_free(n);
}

/* A heartbeat says of a wire that it is whole; one that took another way does not count. */
static void check_heartbeat(void)
{
	struct nodes *n = nodes_new();
	const struct spec s = { .src = LAN_PEER,
				.dst = LAN_SELF,
				.proto = IPPROTO_NUM_UDP,
				.sport = 47850,
				.dport = 47850,
				.ttl = 255,
				.payload = 72 };
	struct fp_frame f = frames_ipv4(n->passive->data, LAN, mac_self[LAN], &s);

	f.out_port = LAN;
	encode(n, &f);
	CHECK_EQ(70, take(n, &f), V_GO_ON);
	CHECK_EQ(71, rig_step(n->active, &f), V_PULSE_BAD);
	nodes_free(n);
}

/* The sender's shard is the owner's, so that nothing is handed on: for all kinds of keys. */
static void check_steering(void)
{
	enum { WORKERS = 4 };
	struct nodes *n = nodes_new();
	struct rig *workers[WORKERS];
	uint32_t owned = 0;

	for (uint32_t i = 0; i < WORKERS; i++)
		workers[i] = node(WORKERS, i, FP_ROLE_ACTIVE);
	for (uint32_t i = 0; i < 400; i++) {
		struct spec s = i % 2 ? spec_udp : spec_echo;
		const uint8_t port = i % 4 < 2 ? LAN : WAN;
		struct fp_frame f = { .data = n->room };

		s.sport = (uint16_t)(2000 + i * 7);
		if (i % 8 == 1)
			s = (struct spec){ .src = CLIENT, .dst = SERVER, .proto = 47, .payload = 8 + i % 16 };
		if (port == WAN) {
			s = rig_reply(&s, (uint16_t)(20000 + i * 13));
			s.sport = s.proto == IPPROTO_NUM_ICMP ? s.sport : 53;
		}
		f = frames_ipv4(n->passive->data, port, mac_self[port], &s);
		CHECK_EQ(80, rig_step(n->passive, &f), V_CONDUIT_TO);
		encode(n, &f);
		REQUIRE(conduit_take(&workers[f.owner % WORKERS]->core, n->packet, n->len, sport_of(n),
				     &(struct fp_frame){ .data = n->room }) == V_GO_ON);
		REQUIRE(take(n, &f) == V_GO_ON);
		owned += rig_step(workers[n->packet[CONDUIT_SHARD_AT] % WORKERS], &f) != V_HANDOFF;
	}
	CHECK_EQ(81, owned, 400);
	for (uint32_t i = 0; i < WORKERS; i++)
		rig_free(workers[i]);
	nodes_free(n);
}

/* ---- from ACTIVE ---- */

/* The port is down: its prefix goes by the peer. */
static void lose_port(struct rig *r, uint8_t port)
{
	struct fp_route routes[] = {
		frames_route(IP4(0, 0, 0, 0), 0, ISP, WAN),
		frames_route(IP4(198, 51, 100, 0), 24, IP4(0, 0, 0, 0), LAN),
		frames_route(IP4(203, 0, 113, 0), 29, IP4(0, 0, 0, 0), WAN),
	};
	const struct fp_neigh neighs[] = { frames_neigh(CLIENT, mac_client, LAN),
					   frames_neigh(ISP, mac_isp, WAN) };
	void *mem = aligned_alloc(CACHE_LINE, fib_mem_size(ARRAY_SIZE(routes), ARRAY_SIZE(neighs)));
	struct fib *old = r->fib;

	REQUIRE(mem);
	for (uint32_t i = 0; i < ARRAY_SIZE(routes); i++) {
		if (routes[i].port == port)
			routes[i].way = FP_WAY_PEER;
	}
	r->fib = fib_build(mem, ++r->generation, routes, ARRAY_SIZE(routes), neighs, ARRAY_SIZE(neighs));
	core_set_fib(&r->core, r->fib);
	free(old);
}

/* What ACTIVE has given out crosses over; what PASSIVE makes of it. */
static struct fp_frame cross_back(struct nodes *n, const struct fp_frame *f)
{
	struct fp_frame taken = { .data = n->passive->data };
	uint8_t packet[PACKET_ROOM];

	CHECK_EQ(200, f->verdict, V_CONDUIT_OUT);
	CHECK(201, f->out == FP_OUT_CONDUIT && f->fenced && f->owner < FP_SHARDS);
	conduit_header(&n->active->core, f, packet);
	memcpy(packet + CONDUIT_LEN, f->data, f->len);
	CHECK_EQ(202, packet[12], 1);
	CHECK_EQ(203,
		 conduit_take(&n->passive->core, packet, CONDUIT_LEN + f->len,
			      CONDUIT_SPORT + (uint32_t)f->owner, &taken),
		 V_GO_ON);
	CHECK_EQ(204, taken.src, FP_SRC_ACTIVE);
	rig_step(n->passive, &taken);
	return taken;
}

/* ACTIVE has no WAN: it translates, and the peer sends, in its own name; the reply lands there. Spec: R8. */
static void check_by_the_peers_port(uint8_t lost)
{
	struct nodes *n = nodes_new();
	struct spec reply;
	struct fp_frame f;

	lose_port(n->active, lost);
	f = lost == LAN ? cross(n, LAN, &spec_udp) : rig_in(n->active, LAN, &spec_udp);
	if (lost == WAN) {
		f = cross_back(n, &f);
		CHECK_EQ(210, f.verdict, V_CONDUIT_FROM);
		CHECK(211, f.out == FP_OUT_WIRE && f.out_port == WAN && !f.fenced);
		CHECK(212, mac_eq(f.data + ETH_SRC, mac_self[WAN]) && mac_eq(f.data + ETH_DST, mac_isp));
		CHECK_EQ(213, f.data[ETH_LEN + IP_TTL], 63);
	} else {
		CHECK_EQ(214, f.verdict, V_SNAT);
	}
	CHECK_EQ(215, out_src(&f).raw, WAN_VIP.raw);
	reply = rig_reply(&spec_udp, out_sport(&f));
	f = lost == WAN ? cross(n, WAN, &reply) : rig_in(n->active, WAN, &reply);
	if (lost == LAN) {
		f = cross_back(n, &f);
		CHECK_EQ(216, f.verdict, V_CONDUIT_FROM);
		CHECK(217, mac_eq(f.data + ETH_SRC, mac_self[LAN]) && mac_eq(f.data + ETH_DST, mac_client));
	} else {
		CHECK_EQ(218, f.verdict, V_REVERSE);
	}
	CHECK_EQ(219, out_dst(&f).raw, CLIENT.raw);
	CHECK(220, f.out_port == LAN && frames_csums_ok(&f));
	CHECK_EQ(221, rig_stats(n->passive).lookups, 0);
	CHECK_EQ(222, rig_stats(n->active).flows, 1);
	nodes_free(n);
}

/* The peer resolves the neighbour, with the frame waiting; another reign, role or way, and it is dropped. */
static void check_peer_sends(void)
{
	struct nodes *n = nodes_new();
	struct core *c = &n->passive->core;
	uint8_t packet[PACKET_ROOM], room[FP_FRAME_MAX];
	struct fp_frame f, out = { .data = room };
	uint32_t len;

	lose_port(n->active, WAN);
	f = rig_in(n->active, LAN, &spec_udp);
	rig_fib(n->passive, false);
	CHECK_EQ(230, cross_back(n, &f).verdict, V_NEIGH_WAIT);
	rig_fib(n->passive, true);
	CHECK_EQ(231, core_retry_parked(c, &out, 1, n->passive->now_ns), 1);
	CHECK(232, out.verdict == V_CONDUIT_FROM && !out.fenced && mac_eq(out.data + ETH_SRC, mac_self[WAN]));
	rig_fib(n->passive, false);
	CHECK_EQ(233, cross_back(n, &f).verdict, V_NEIGH_WAIT);
	rig_sleep(n->passive, 4);
	CHECK_EQ(234, rig_count(n->passive, V_NEIGH_TIMEOUT), 1);
	rig_fib(n->passive, true);
	lose_port(n->passive, WAN);
	CHECK_EQ(235, cross_back(n, &f).verdict, V_NO_ROUTE); /* never back again */
	rig_fib(n->passive, true);
	conduit_header(&n->active->core, &f, packet);
	memcpy(packet + CONDUIT_LEN, f.data, f.len);
	len = CONDUIT_LEN + f.len;
	c->conduit = conduit_orders(true, 6, 0, 0, 0);
	CHECK_EQ(236, conduit_take(c, packet, len, CONDUIT_SPORT + (uint32_t)f.owner, &out), V_CONDUIT_TERM);
	c->conduit = CONDUIT_OFF;
	CHECK_EQ(237, conduit_take(c, packet, len, CONDUIT_SPORT + (uint32_t)f.owner, &out), V_CONDUIT_TERM);
	c->conduit = conduit_orders(true, 4, 0, 0, 0);
	CHECK_EQ(238, conduit_take(c, packet, len, CONDUIT_SPORT + (uint32_t)f.owner, &out), V_GO_ON);
	core_set_role(c, FP_ROLE_ACTIVE, 5, n->passive->now_ns);
	CHECK_EQ(239, rig_step(n->passive, &out), V_CONDUIT_NOT_PASSIVE);
	CHECK_EQ(240, conduit_take(c, packet, len, CONDUIT_SPORT + (uint32_t)f.owner, &out),
		 V_CONDUIT_NOT_PASSIVE);
	nodes_free(n);
}

/* Back again: what has been cached of the way holds no longer. */
static void check_return(void)
{
	struct nodes *n = nodes_new();

	CHECK_EQ(250, rig_in(n->active, LAN, &spec_udp).verdict, V_SNAT);
	lose_port(n->active, WAN);
	CHECK_EQ(251, rig_in(n->active, LAN, &spec_udp).verdict, V_CONDUIT_OUT);
	CHECK_EQ(252, rig_in(n->active, LAN, &spec_udp).verdict, V_CONDUIT_OUT);
	rig_fib(n->active, true);
	CHECK_EQ(253, rig_in(n->active, LAN, &spec_udp).verdict, V_SNAT);
	nodes_free(n);
}

/* ---- what nobody of ours sends ---- */

struct damage {
	int n;
	uint32_t at;
	uint8_t value;
	uint32_t verdict;
};

/* Spec: RFC 8926 sections 3.4, 3.5. */
static void check_damage(void)
{
	static const struct damage damages[] = {
		{ 100, 0, 0x43, V_CONDUIT_MALFORMED },  /* version 1 */
		{ 101, 0, 0x02, V_CONDUIT_MALFORMED },  /* the option goes on behind the options */
		{ 102, 0, 0x00, V_CONDUIT_MALFORMED },  /* no option */
		{ 103, 0, 0x04, V_GO_ON },              /* another option, made of the frame's first bytes */
		{ 104, 0, 0x3f, V_CONDUIT_MALFORMED },  /* longer than the packet */
		{ 105, 1, 0xc0, V_CONDUIT_MALFORMED },  /* OAM */
		{ 106, 1, 0x00, V_GO_ON },              /* C is a hint: each option says it of itself */
		{ 107, 1, 0x7f, V_GO_ON },              /* reserved bits are ignored */
		{ 108, 2, 0x08, V_CONDUIT_MALFORMED },  /* no Ethernet within */
		{ 109, 4, 0x35, V_CONDUIT_MALFORMED },  /* another pair */
		{ 110, 7, 0xff, V_GO_ON },              /* reserved */
		{ 111, 8, 0x00, V_CONDUIT_CRITICAL },   /* another class */
		{ 112, 10, 0x82, V_CONDUIT_CRITICAL },  /* another type */
		{ 113, 10, 0x01, V_CONDUIT_MALFORMED }, /* ... that is not critical: then ours is missing */
		{ 114, 11, 0x01, V_CONDUIT_MALFORMED },
		{ 115, 11, 0x03, V_CONDUIT_MALFORMED },
		{ 116, 11, 0xe2, V_GO_ON }, /* reserved bits of the length */
		{ 117, 12, 0x02, V_CONDUIT_MALFORMED },
		{ 122, 12, 0x01, V_CONDUIT_NOT_PASSIVE },
		{ 118, 13, N_PORTS, V_CONDUIT_MALFORMED },
		{ 119, 14, FP_SHARDS, V_CONDUIT_MALFORMED },
		{ 120, 16, 0x01, V_CONDUIT_TERM },
		{ 121, 19, 0x05, V_CONDUIT_TERM },
	};
	struct nodes *n = nodes_new();
	struct fp_frame f;

	cross(n, LAN, &spec_udp);
	for (uint32_t i = 0; i < ARRAY_SIZE(damages); i++) {
		const struct damage *d = &damages[i];
		const uint8_t was = n->packet[d->at];

		n->packet[d->at] = d->value;
		CHECK_EQ(d->n, take(n, &f), d->verdict);
		n->packet[d->at] = was;
	}
	CHECK_EQ(130, take(n, &f), V_GO_ON);
	CHECK_EQ(131, take_from(n, sport_of(n) + 1, n->len, &f), V_CONDUIT_FOREIGN);
	CHECK_EQ(132, take_from(n, 6081, n->len, &f), V_CONDUIT_FOREIGN);
	for (uint32_t len = 0; len < CONDUIT_LEN; len++)
		CHECK_EQ(133, take_from(n, sport_of(n), len, &f), V_CONDUIT_MALFORMED);
	nodes_free(n);
}

/* More options: unknown ones are skipped, or critical; ours stands once. */
static void check_options(void)
{
	static const uint8_t unknown[8] = { 0x12, 0x34, 0x01, 1, 9, 9, 9, 9 };
	struct nodes *n = nodes_new();
	uint8_t ours[12], *at = n->packet + GENEVE_LEN;
	struct fp_frame f;

	cross(n, LAN, &spec_udp);
	memcpy(ours, at, sizeof(ours));
	memmove(at + 8, at, n->len - GENEVE_LEN);
	memcpy(at, unknown, sizeof(unknown));
	n->packet[0] = 5;
	n->len += 8;
	/* The shard stands elsewhere now, and so does nothing for steering; the packet is fine. */
	CHECK_EQ(140, take_from(n, CONDUIT_SPORT + (uint32_t)ours[6], n->len, &f), V_GO_ON);
	CHECK_EQ(141, rig_step(n->active, &f), V_SNAT);
	at[2] |= 0x80;
	CHECK_EQ(142, take_from(n, CONDUIT_SPORT + (uint32_t)ours[6], n->len, &f), V_CONDUIT_CRITICAL);
	nodes_free(n);

	n = nodes_new();
	at = n->packet + GENEVE_LEN;
	cross(n, LAN, &spec_udp);
	memmove(at + 12, at, n->len - GENEVE_LEN);
	n->packet[0] = 6;
	n->len += 12;
	CHECK_EQ(143, take(n, &f), V_CONDUIT_MALFORMED);
	nodes_free(n);
}

/* Frames within that no wire of ours brings. */
static void check_inner(void)
{
	struct nodes *n = nodes_new();
	struct fp_frame f;

	cross(n, LAN, &spec_udp);
	n->len = CONDUIT_LEN + ETH_LEN - 1;
	CHECK_EQ(150, take(n, &f), V_GO_ON);
	CHECK_EQ(151, rig_step(n->active, &f), V_RUNT);
	n->len = CONDUIT_LEN + ETH_LEN + 1500 + 1;
	CHECK_EQ(152, take(n, &f), V_GO_ON);
	CHECK_EQ(153, rig_step(n->active, &f), V_OVERSIZED);
	n->len = CONDUIT_LEN + FP_FRAME_MAX + 1;
	CHECK_EQ(154, take(n, &f), V_OVERSIZED);
	n->len = CONDUIT_LEN + ETH_LEN + IPV4_LEN - 1;
	CHECK_EQ(155, take(n, &f), V_GO_ON);
	CHECK_EQ(156, rig_step(n->active, &f), V_IP_MALFORMED);
	n->packet[CONDUIT_LEN + ETH_TYPE + 1] = 6; /* ARP */
	CHECK_EQ(157, take(n, &f), V_GO_ON);
	CHECK_EQ(158, rig_step(n->active, &f), V_CONDUIT_MALFORMED);
	nodes_free(n);
}

int main(void)
{
	check_session();
	check_no_session();
	check_fragments();
	check_orders();
	check_reign();
	check_heartbeat();
	check_steering();
	check_by_the_peers_port(LAN);
	check_by_the_peers_port(WAN);
	check_peer_sends();
	check_return();
	check_damage();
	check_options();
	check_inner();
	return check_done("conduit");
}
