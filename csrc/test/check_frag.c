/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_frag.c - fragments through a core: every order, every trick, bounded memory, and time that passes
 *
 * Spec: RFC 4787 REQ-13, REQ-14; RFC 791; RFC 1858, RFC 3128 (tiny fragments); RFC 5722 (overlaps);
 *       RFC 8200 section 4.5 (duplicates); RFC 6864 section 5.3.1 (identification)
 */
#include "../ip_cut.h"
#include "datagram.h"

static const struct spec spec_out = { .src = IP4_INIT(198, 51, 100, 10),
				      .dst = IP4_INIT(192, 0, 2, 10),
				      .proto = IPPROTO_NUM_UDP,
				      .sport = 4000,
				      .dport = 53 };

static struct spec reply_to(const struct whole *w)
{
	const uint8_t *l4 = w->packet + IPV4_LEN;

	return (struct spec){ .src = SERVER,
			      .dst = WAN_VIP,
			      .proto = w->packet[IP_PROTO],
			      .sport = be16_host(be16_load(l4 + L4_DPORT)),
			      .dport = be16_host(be16_load(l4 + L4_SPORT)) };
}

/* The property: whatever the order, what leaves is the translation of the datagram, both ways. */
static void check_orders(void)
{
	static struct datagram d, back;
	static struct whole w;
	struct rig *r = rig_active();
	struct spec s;

	for (uint32_t i = 0; i < 300; i++) {
		const uint32_t payload = 1 + rnd(20000), size = 8 * (40 + rnd(140));

		datagram_make(&d, LAN, &spec_out, payload, (uint16_t)i);
		datagram_cut(&d, max_u32(size, (payload / 60 + 8) / 8 * 8));
		if (i % 3 == 1)
			shuffle(&d);
		for (uint32_t a = 0; i % 3 == 2 && a < d.n / 2; a++) {
			const struct part tmp = d.parts[a];

			d.parts[a] = d.parts[d.n - 1 - a];
			d.parts[d.n - 1 - a] = tmp;
		}
		if (d.n < 2)
			continue;
		send_all(r, &d, &w, V_SNAT);
		CHECK(10, whole_ok(&w));
		CHECK_EQ(11, w.n, d.n);
		CHECK(12, be32_load(w.packet + IP_SRC).raw == WAN_VIP.raw);
		CHECK(13, memcmp(w.packet + IPV4_LEN + UDP_LEN, d.packet + IPV4_LEN + UDP_LEN, payload) == 0);
		s = reply_to(&w);
		datagram_make(&back, WAN, &s, payload, 7);
		memcpy(back.parts, d.parts, sizeof(d.parts));
		back.n = d.n;
		send_all(r, &back, &w, V_REVERSE);
		CHECK(14, whole_ok(&w));
		CHECK(15, be32_load(w.packet + IP_DST).raw == CLIENT.raw);
		CHECK_EQ(16, be16_host(be16_load(w.packet + IPV4_LEN + L4_DPORT)), 4000);
		CHECK_EQ(17, be16_host(w.id), 7); /* from outside it is the sender's own */
		CHECK_EQ(18, r->core.frags.n, 0); /* complete: forgotten at once */
	}
	CHECK_EQ(19, rig_stats(r).frags_held, 0);
	rig_free(r);
}

/* Echo is known by its identifier; TCP by its ports, its flags tracked by the first fragment alone. */
static void check_protocols(void)
{
	static struct datagram d;
	static struct whole w;
	struct rig *r = rig_active();
	struct spec s = { .src = CLIENT,
			  .dst = SERVER,
			  .proto = IPPROTO_NUM_ICMP,
			  .sport = 77,
			  .type = ICMP_ECHO_REQUEST };
	be16 id;

	datagram_make(&d, LAN, &s, 4000, 1);
	datagram_cut(&d, 1480);
	shuffle(&d);
	send_all(r, &d, &w, V_SNAT);
	CHECK(20, whole_ok(&w));
	id = be16_load(w.packet + IPV4_LEN + ICMP_ID);
	s = (struct spec){ .src = SERVER, .dst = WAN_VIP, .proto = IPPROTO_NUM_ICMP, .sport = be16_host(id) };
	datagram_make(&d, WAN, &s, 4000, 1);
	datagram_cut(&d, 1480);
	shuffle(&d);
	send_all(r, &d, &w, V_REVERSE);
	CHECK(21, whole_ok(&w));
	CHECK_EQ(22, be16_host(be16_load(w.packet + IPV4_LEN + ICMP_ID)), 77);

	s = spec_out;
	s.proto = IPPROTO_NUM_TCP;
	s.tcp_flags = TCP_SYN;
	datagram_make(&d, LAN, &s, 100, 2);
	datagram_cut(&d, 64);
	send_all(r, &d, &w, V_SNAT);
	CHECK(23, whole_ok(&w));
	CHECK_EQ(24, rig_stats(r).flows_created, 2);
	/* Neither sends a session's fragment without a session, nor opens one. */
	s.sport = 4001;
	s.tcp_flags = TCP_ACK_FLAG;
	datagram_make(&d, LAN, &s, 100, 3);
	CHECK_EQ(25, step_piece(r, &d, 0, 64, true), V_SYN_CHECK);
	CHECK_EQ(26, step_piece(r, &d, 64, 56, false), V_FRAG_NO_SESSION);
	/* Echo to the VIP in fragments; an error in fragments. */
	s = (struct spec){ .src = CLIENT,
			   .dst = LAN_VIP,
			   .proto = IPPROTO_NUM_ICMP,
			   .sport = 7,
			   .type = ICMP_ECHO_REQUEST };
	datagram_make(&d, LAN, &s, 100, 4);
	CHECK_EQ(27, step_piece(r, &d, 0, 64, true), V_FRAG_VIP_ECHO);
	CHECK_EQ(28, step_piece(r, &d, 64, 44, false), V_FRAG_VIP_ECHO);
	s.dst = SERVER;
	s.type = ICMP_UNREACHABLE;
	datagram_make(&d, LAN, &s, 100, 5);
	CHECK_EQ(29, step_piece(r, &d, 64, 44, false), V_FRAG_HELD);
	CHECK_EQ(30, step_piece(r, &d, 0, 64, true), V_FRAG_ICMP);
	CHECK_EQ(31, rig_count(r, V_FRAG_ICMP), 2); /* with the one that was held */
	/* To the node itself: its kernel puts them together. */
	s = spec_out;
	s.dst = LAN_SELF;
	datagram_make(&d, LAN, &s, 100, 6);
	CHECK_EQ(32, step_piece(r, &d, 64, 44, false), V_HOST);
	rig_free(r);
}

struct trick {
	const char *name;
	uint8_t proto;
	uint32_t n;
	struct {
		uint16_t from, len;
		bool mf;
		uint16_t verdict;
	} pieces[6];
};

#define HELD V_FRAG_HELD
#define SENT V_SNAT

static const struct trick tricks[] = {
	{ "tiny UDP", IPPROTO_NUM_UDP, 1, { { 0, 4, false, V_L4_MALFORMED } } },
	{ "tiny TCP", IPPROTO_NUM_TCP, 2, { { 0, 16, true, V_FRAG_TINY }, { 16, 80, false, V_FRAG_TINY } } },
	{ "TCP flags in the second", IPPROTO_NUM_TCP, 1, { { 8, 80, false, V_FRAG_TINY } } },
	{ "TCP flags written over",
	  IPPROTO_NUM_TCP,
	  3,
	  { { 0, 40, true, SENT }, { 8, 32, false, V_FRAG_TINY }, { 40, 60, false, V_FRAG_TINY } } },
	{ "across an edge, from behind",
	  IPPROTO_NUM_UDP,
	  3,
	  { { 0, 40, true, SENT }, { 32, 40, true, V_FRAG_OVERLAP }, { 40, 40, false, V_FRAG_OVERLAP } } },
	{ "across an edge, from before",
	  IPPROTO_NUM_UDP,
	  3,
	  { { 40, 40, false, HELD }, { 0, 48, true, V_FRAG_OVERLAP }, { 0, 40, true, V_FRAG_OVERLAP } } },
	{ "around",
	  IPPROTO_NUM_UDP,
	  3,
	  { { 40, 8, true, HELD }, { 32, 40, true, V_FRAG_OVERLAP }, { 0, 40, true, V_FRAG_OVERLAP } } },
	{ "twice, and within",
	  IPPROTO_NUM_UDP,
	  6,
	  { { 0, 40, true, SENT },
	    { 40, 40, true, SENT },
	    { 40, 40, true, V_FRAG_DUPLICATE },
	    { 48, 8, true, V_FRAG_DUPLICATE },
	    { 0, 80, true, V_FRAG_DUPLICATE },
	    { 80, 28, false, SENT } } },
	{ "a second end",
	  IPPROTO_NUM_UDP,
	  3,
	  { { 0, 40, true, SENT }, { 80, 20, false, SENT }, { 40, 16, false, V_FRAG_MALFORMED } } },
	{ "beyond the end",
	  IPPROTO_NUM_UDP,
	  3,
	  { { 40, 20, false, HELD }, { 64, 8, true, V_FRAG_MALFORMED }, { 0, 40, true, V_FRAG_MALFORMED } } },
	{ "an end before what came",
	  IPPROTO_NUM_UDP,
	  2,
	  { { 80, 8, true, HELD }, { 40, 20, false, V_FRAG_MALFORMED } } },
	{ "odd length, not the last", IPPROTO_NUM_UDP, 1, { { 40, 21, true, V_FRAG_MALFORMED } } },
	{ "empty", IPPROTO_NUM_UDP, 1, { { 40, 0, false, V_FRAG_MALFORMED } } },
	{ "more than 65,535 bytes", IPPROTO_NUM_UDP, 1, { { 65504, 40, true, V_FRAG_BEYOND } } },
	{ "65,535 bytes", IPPROTO_NUM_UDP, 1, { { 65504, 11, false, HELD } } },
};

static void check_tricks(void)
{
	static struct datagram d;

	for (uint32_t i = 0; i < ARRAY_SIZE(tricks); i++) {
		struct rig *r = rig_active();
		struct spec s = spec_out;
		unsigned failed = check_failed;

		s.proto = tricks[i].proto;
		s.tcp_flags = TCP_SYN;
		datagram_make(&d, LAN, &s, 100, 9);
		for (uint32_t k = 0; k < tricks[i].n; k++) {
			CHECK_EQ(40,
				 step_piece(r, &d, tricks[i].pieces[k].from, tricks[i].pieces[k].len,
					    tricks[i].pieces[k].mf),
				 tricks[i].pieces[k].verdict);
		}
		if (check_failed != failed)
			fprintf(stderr, "  ... %s\n", tricks[i].name);
		rig_free(r);
	}
}

static void check_time(void)
{
	static struct datagram d;
	struct rig *r = rig_active();

	datagram_make(&d, LAN, &spec_out, 3000, 1);
	CHECK_EQ(50, step_piece(r, &d, 1480, 1480, true), V_FRAG_HELD);
	CHECK_EQ(51, rig_stats(r).frags_held, 1);
	rig_sleep(r, FRAG_WAIT_S - 1);
	CHECK_EQ(52, rig_count(r, V_FRAG_TIMEOUT), 0);
	rig_sleep(r, 1);
	CHECK_EQ(53, rig_count(r, V_FRAG_TIMEOUT), 1);
	CHECK_EQ(54, rig_stats(r).frags_held, 0);
	CHECK_EQ(55, r->core.frags.n, 0);
	/* A datagram that never ends is forgotten as well, and so is one that was refused. */
	CHECK_EQ(56, step_piece(r, &d, 0, 1480, true), V_SNAT);
	datagram_make(&d, LAN, &spec_out, 3000, 2);
	CHECK_EQ(57, step_piece(r, &d, 8, 1, true), V_FRAG_MALFORMED);
	CHECK_EQ(58, step_piece(r, &d, 0, 1480, true), V_FRAG_MALFORMED);
	CHECK_EQ(59, r->core.frags.n, 2);
	rig_sleep(r, FRAG_LIVE_S);
	CHECK_EQ(60, r->core.frags.n, 0);
	CHECK_EQ(61, step_piece(r, &d, 0, 1480, true), V_SNAT);
	/* No longer ACTIVE: nothing is kept for a time that may not come. */
	datagram_make(&d, LAN, &spec_out, 3000, 3);
	CHECK_EQ(62, step_piece(r, &d, 1480, 1480, true), V_FRAG_HELD);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	CHECK_EQ(63, rig_count(r, V_FENCED), 1);
	CHECK_EQ(64, r->core.frags.n, 0);
	CHECK_EQ(65, step_piece(r, &d, 0, 1480, true), V_VMAC_NOT_ACTIVE);
	rig_free(r);
}

/* Whatever comes, memory is bounded, and every frame is accounted for. */
static void check_bounds(void)
{
	static struct datagram d;
	struct rig *r = rig_active();
	uint64_t in = 0, ended = 0;

	/* Never-ending: too many fragments, too many held. */
	datagram_make(&d, LAN, &spec_out, 20000, 1);
	for (uint32_t i = 0; i < FRAG_MAX; i++)
		CHECK_EQ(70, step_piece(r, &d, i * 8, 8, true), V_SNAT);
	CHECK_EQ(71, step_piece(r, &d, FRAG_MAX * 8, 8, true), V_FRAG_TOO_MANY);
	datagram_make(&d, LAN, &spec_out, 20000, 2);
	for (uint32_t i = 0; i < FRAG_HELD_EACH; i++)
		CHECK_EQ(72, step_piece(r, &d, 16 + i * 8, 8, true), V_FRAG_HELD);
	CHECK_EQ(73, step_piece(r, &d, 16 + FRAG_HELD_EACH * 8, 8, true), V_FRAG_TOO_MANY);
	CHECK_EQ(74, rig_stats(r).frags_held, 0);
	rig_free(r);

	r = rig_active();
	for (uint32_t i = 0; i < 3000; i++) {
		datagram_make(&d, LAN, &spec_out, 3000, (uint16_t)i);
		in++;
		CHECK_EQ(75, step_piece(r, &d, 1480, 1480, true), V_FRAG_HELD);
		CHECK(76, rig_stats(r).frags_held <= FRAG_HELD);
		CHECK(77, r->core.frags.n <= FRAG_DATAGRAMS);
	}
	CHECK(78, rig_count(r, V_FRAG_TABLE_FULL) >= 3000 - FRAG_HELD);
	CHECK(79, rig_stats(r).frags_evicted > 0);
	/* The youngest are still there: their first releases them. */
	CHECK_EQ(80, step_piece(r, &d, 0, 1480, true), V_SNAT);
	CHECK_EQ(81, drain(r, NULL, V_SNAT), 1);
	rig_sleep(r, FRAG_LIVE_S);
	ended = rig_count(r, V_FRAG_TABLE_FULL) + rig_count(r, V_FRAG_TIMEOUT);
	CHECK_EQ(82, ended + 1, in);
	CHECK_EQ(83, rig_stats(r).frags_held, 0);
	rig_free(r);
}

/* Two clients use one identification for one destination: outside it must not be one. */
static void check_identification(void)
{
	static struct datagram d[2];
	struct rig *r = rig_active();
	struct spec s = spec_out;
	be16 ids[2], again;

	for (uint32_t i = 0; i < 2; i++) {
		s.src = i ? CLIENT2 : CLIENT;
		datagram_make(&d[i], LAN, &s, 3000, 42);
		CHECK_EQ(90, step_piece(r, &d[i], 0, 1480, true), V_SNAT);
		ids[i] = be16_load(r->data + ETH_LEN + IP_ID);
	}
	CHECK(91, ids[0].raw != ids[1].raw);
	for (uint32_t i = 0; i < 2; i++) {
		CHECK_EQ(92, step_piece(r, &d[i], 1480, 1480, true), V_SNAT);
		again = be16_load(r->data + ETH_LEN + IP_ID);
		CHECK(93, again.raw == ids[i].raw);
	}
	rig_free(r);
}

/* Workers share identifications out among them, also when all have been used once. */
static void check_shares(void)
{
	const struct fp_config cfg = frames_config(3, 1024);
	uint8_t data[FP_FRAME_MAX];
	struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec_out);
	struct pkt p;

	REQUIRE(pkt_parse_ip(&p, &f) == V_GO_ON);
	for (uint32_t worker = 0; worker < cfg.n_workers; worker++) {
		struct rig *r = rig_make(&cfg, worker);
		uint32_t n_others = 0;

		for (uint32_t i = 0; i < 3 * (UINT16_MAX / 3); i++) {
			frag_rename(&r->core.frags, &p);
			n_others += be16_host(be16_load(p.ip + IP_ID)) % cfg.n_workers != worker;
		}
		CHECK_EQ(94, n_others, 0);
		CHECK_EQ(95, csum_fold(csum_ipv4_header(p.ip, IPV4_LEN)), 0xffff);
		rig_free(r);
	}
}

/* A packet that is too long for the way out is cut there, and so is a fragment; put together it is the same. */
static void check_cutting(void)
{
	static struct datagram d;
	static struct whole w;
	uint8_t data[FP_FRAME_MAX], room[FP_FRAME_MAX];
	struct fp_frame out = { .data = room };
	struct ip_cut cut;

	for (uint32_t i = 0; i < 200; i++) {
		const uint32_t len_max = ETH_LEN + 68 + rnd(1433);

		datagram_make(&d, LAN, &spec_out, 1000 + rnd(3000), 5);
		datagram_cut(&d, 1480);
		w = (struct whole){ 0 };
		for (uint32_t k = 0; k < d.n; k++) {
			const struct part *part = &d.parts[k];
			const struct fp_frame f = fragment(data, &d, part->from, part->len, k + 1 < d.n);

			REQUIRE(ip_cut_begin(&cut, &f, len_max));
			while (ip_cut_next(&cut, &out)) {
				CHECK(100, out.len <= len_max);
				whole_add(&w, &out);
			}
			CHECK(101, cut.n > 1 || part->len <= len_max - 34);
		}
		CHECK(102, whole_ok(&w));
		CHECK(103, memcmp(w.packet + IPV4_LEN, d.packet + IPV4_LEN, d.len - IPV4_LEN) == 0);
	}
	out = frames_ipv4(data, LAN, mac_virtual[LAN], &spec_out);
	be16_store(data + ETH_LEN + IP_FRAG, be16_of(0x4000));
	CHECK(104, !ip_cut_begin(&cut, &out, 100));
}

/* The core lets it pass only where its sender allows it to be cut. Spec: RFC 4787 REQ-13. */
static void check_narrow(void)
{
	struct rig *r = rig_active();
	struct spec s = spec_out;
	struct fp_frame f;

	r->core.ports[WAN].len_max = ETH_LEN + 1000;
	s.payload = 1400;
	CHECK_EQ(110, rig_in(r, LAN, &s).verdict, V_SNAT);
	s.frag = 0x4000;
	CHECK_EQ(111, rig_in(r, LAN, &s).verdict, V_FRAG_NEEDED_SENT);
	s.frag = MF; /* a first fragment that is too long itself */
	f = rig_in(r, LAN, &s);
	CHECK_EQ(112, f.verdict, V_SNAT);
	CHECK_EQ(113, f.len, ETH_LEN + IPV4_LEN + UDP_LEN + 1400);
	rig_free(r);
}

int main(void)
{
	check_orders();
	check_protocols();
	check_tricks();
	check_time();
	check_bounds();
	check_identification();
	check_shares();
	check_cutting();
	check_narrow();
	return check_done("frag");
}
