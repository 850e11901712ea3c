/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_icmp.c - ICMP errors: translated with what they quote, and made
 */
#include "../icmp.h"
#include "rig.h"

#define ROUTER     IP4(192, 0, 2, 254)
#define LAN_ROUTER IP4(198, 51, 100, 250)
#define QUOTE_AT   (ETH_LEN + IPV4_LEN + ICMP_LEN)

/**
 * struct complaint - An ICMP error in words
 * @port:      port that it arrives at
 * @src:       who complains
 * @type_code: of ICMP
 * @rest:      second word of the ICMP header
 * @quoted:    bytes that it quotes; 0 = all
 */
struct complaint {
	uint8_t port;
	be32 src;
	uint16_t type_code;
	uint32_t rest;
	uint32_t quoted;
};

/* Make the outer checksums right. */
static void seal(struct fp_frame *f)
{
	uint8_t *ip = f->data + ETH_LEN;

	frames_fix_ip_csum(ip);
	frames_fix_l4_csum(ip, f->len - ETH_LEN - IPV4_LEN);
}

/* An error about the packet in @sent, to its source. */
static struct fp_frame complain(struct rig *r, const struct complaint *w, const struct fp_frame *sent)
{
	uint8_t quote[FP_FRAME_MAX];
	uint32_t len = w->quoted ? w->quoted : sent->len - ETH_LEN;
	struct spec s = { .src = w->src, .proto = IPPROTO_NUM_ICMP, .payload = len };
	struct fp_frame f;

	memcpy(quote, sent->data + ETH_LEN, len);
	s.dst = out_src(sent);
	f = frames_ipv4(r->data, w->port, mac_virtual[w->port], &s);
	memcpy(f.data + QUOTE_AT, quote, len);
	be16_store(f.data + ETH_LEN + IPV4_LEN + ICMP_TYPE, be16_of(w->type_code));
	be32_store(f.data + ETH_LEN + IPV4_LEN + ICMP_ID, be32_of(w->rest));
	seal(&f);
	return f;
}

/* The quoted packet of an error is byte for byte what was sent, @len bytes of it. */
static bool quotes(const struct fp_frame *f, const struct fp_frame *sent, uint32_t len)
{
	return memcmp(f->data + QUOTE_AT, sent->data + ETH_LEN, len) == 0;
}

static struct fp_frame built(uint8_t *data, const struct spec *s)
{
	return frames_ipv4(data, LAN, mac_virtual[LAN], s);
}

/* Of all protocols and lengths: what the client is told quotes what it sent, but for the TTL it had there. */
static void check_from_outside(void)
{
	static const struct spec *const specs[] = { &spec_syn, &spec_udp, &spec_echo };
	static const uint16_t types[] = { ICMP_UNREACHABLE << 8 | 3, ICMP_UNREACHABLE << 8 | 4,
					  ICMP_TIME_EXCEEDED << 8, ICMP_PARAMETER_PROBLEM << 8 };
	uint8_t room[FP_FRAME_MAX], sent_room[FP_FRAME_MAX];

	for (uint32_t i = 0; i < ARRAY_SIZE(specs); i++) {
		struct rig *r = rig_active();
		struct fp_frame out = rig_in(r, LAN, specs[i]), sent = built(sent_room, specs[i]);
		const uint32_t whole = out.len - ETH_LEN;

		CHECK_EQ(1, out.verdict, V_SNAT);
		memcpy(room, out.data, out.len);
		out.data = room;
		sent.data[ETH_LEN + IP_TTL] = out.data[ETH_LEN + IP_TTL];
		frames_fix_ip_csum(sent.data + ETH_LEN);
		for (uint32_t len = IPV4_LEN + 8; len <= whole; len++) {
			const struct complaint w = { .port = WAN,
						     .src = ROUTER,
						     .type_code = types[len % ARRAY_SIZE(types)],
						     .rest = 1280 + len,
						     .quoted = len };
			struct fp_frame f = complain(r, &w, &out);
			const uint8_t *icmp = f.data + ETH_LEN + IPV4_LEN;

			CHECK_EQ(2, rig_step(r, &f), V_ICMP_ERROR_IN);
			CHECK_EQ(3, f.out, FP_OUT_WIRE);
			CHECK_EQ(4, f.out_port, LAN);
			CHECK_EQ(5, f.fenced, 1);
			CHECK_EQ(6, out_dst(&f).raw, CLIENT.raw); /* RFC 5508 REQ-4 c */
			CHECK_EQ(7, out_src(&f).raw, ROUTER.raw);
			CHECK_EQ(8, f.data[ETH_LEN + IP_TTL], 63);
			CHECK(9, frames_csums_ok(&f));
			CHECK_EQ(10, be16_host(be16_load(icmp)), w.type_code); /* REQ-4 b */
			CHECK_EQ(11, be32_host(be32_load(icmp + 4)), w.rest);
			/* REQ-4 a, all checksums included, but for one of which only half is there. */
			CHECK(12, quotes(&f, &sent, len - (len == IPV4_LEN + TCP_CSUM + 1)));
			CHECK(13, mac_eq(f.data, mac_client) && mac_eq(f.data + ETH_SRC, mac_virtual[LAN]));
		}
		rig_free(r);
	}
}

/* The client, or a router before it, complains about a reply. */
static void check_from_inside(void)
{
	static const struct spec *const specs[] = { &spec_syn, &spec_udp, &spec_echo };
	uint8_t room[FP_FRAME_MAX], sent_room[FP_FRAME_MAX];

	for (uint32_t i = 0; i < ARRAY_SIZE(specs); i++) {
		struct rig *r = rig_active();
		struct fp_frame out = rig_in(r, LAN, specs[i]), reply, sent;
		struct spec back = rig_reply(specs[i], out_sport(&out));

		if (specs[i]->proto == IPPROTO_NUM_ICMP)
			back.sport = be16_host(be16_load(out.data + ETH_LEN + IPV4_LEN + ICMP_ID));
		back.tcp_flags = TCP_SYN | TCP_ACK_FLAG;
		back.ack = 101;
		sent = frames_ipv4(sent_room, WAN, mac_virtual[WAN], &back);
		reply = rig_in(r, WAN, &back);
		CHECK_EQ(20, reply.verdict, V_REVERSE);
		memcpy(room, reply.data, reply.len);
		reply.data = room;
		sent.data[ETH_LEN + IP_TTL] = reply.data[ETH_LEN + IP_TTL];
		frames_fix_ip_csum(sent.data + ETH_LEN);
		for (uint32_t who = 0; who < 2; who++) {
			const struct complaint w = { .port = LAN,
						     .src = who ? LAN_ROUTER : CLIENT,
						     .type_code = ICMP_UNREACHABLE << 8 | 3 };
			struct fp_frame f = complain(r, &w, &reply);

			CHECK_EQ(21, rig_step(r, &f), V_ICMP_ERROR_OUT);
			CHECK_EQ(22, f.out_port, WAN);
			CHECK_EQ(23, out_src(&f).raw, WAN_VIP.raw); /* RFC 5508 REQ-5 */
			CHECK_EQ(24, out_dst(&f).raw, SERVER.raw);
			CHECK(25, frames_csums_ok(&f));
			CHECK(26, quotes(&f, &sent, reply.len - ETH_LEN));
			CHECK(27, mac_eq(f.data, mac_isp) && mac_eq(f.data + ETH_SRC, mac_virtual[WAN]));
		}
		rig_free(r);
	}
}

/* An error changes nothing of the session but what the receiver makes of it. */
static void check_session_unmoved(void)
{
	struct rig *r = rig_active();
	uint8_t room[FP_FRAME_MAX];
	struct fp_flow_rec before[4], after[4];
	struct complaint w = { .port = WAN, .src = ROUTER, .type_code = ICMP_UNREACHABLE << 8 | 3 };
	struct fp_frame out = rig_in(r, LAN, &spec_udp), f;

	memcpy(room, out.data, out.len);
	out.data = room;
	rig_sleep(r, 200);
	CHECK_EQ(40, rig_walk(r, before, 4), 1);
	f = complain(r, &w, &out);
	CHECK_EQ(41, rig_step(r, &f), V_ICMP_ERROR_IN);
	CHECK_EQ(42, rig_walk(r, after, 4), 1);
	CHECK(43, memcmp(before, after, sizeof(before[0])) == 0);
	rig_sleep(r, 102); /* 302 s after the last packet */
	CHECK_EQ(44, rig_stats(r).flows, 0);
	f = complain(r, &w, &out);
	CHECK_EQ(45, rig_step(r, &f), V_ICMP_ERROR_NO_SESSION);
	rig_free(r);
}

static void damage(struct fp_frame *f, uint32_t at, uint8_t mask)
{
	f->data[at] ^= mask;
	seal(f);
}

static void check_bad_quotes(void)
{
	struct rig *r = rig_active();
	uint8_t room[FP_FRAME_MAX];
	const struct complaint w = { .port = WAN, .src = ROUTER, .type_code = ICMP_UNREACHABLE << 8 | 3 };
	struct complaint cut = w;
	struct fp_frame out = rig_in(r, LAN, &spec_udp), f;

	memcpy(room, out.data, out.len);
	out.data = room;
	for (cut.quoted = 1; cut.quoted < IPV4_LEN + 8; cut.quoted++) {
		f = complain(r, &cut, &out);
		CHECK_EQ(60, rig_step(r, &f), V_ICMP_ERROR_BAD);
	}
	f = complain(r, &w, &out);
	f.data[f.len - 1] ^= 1;
	CHECK_EQ(61, rig_step(r, &f), V_L4_CHECKSUM); /* RFC 5508 REQ-3 */
	f = complain(r, &w, &out);
	damage(&f, QUOTE_AT + IP_CSUM, 1);
	CHECK_EQ(62, rig_step(r, &f), V_ICMP_ERROR_BAD); /* REQ-3 a */
	f = complain(r, &w, &out);
	damage(&f, QUOTE_AT + IPV4_LEN + UDP_CSUM, 1);
	CHECK_EQ(63, rig_step(r, &f), V_ICMP_ERROR_IN); /* REQ-3 c */
	f = complain(r, &w, &out);
	f.data[QUOTE_AT] = 0x65; /* version 6 */
	frames_fix_ip_csum(f.data + QUOTE_AT);
	seal(&f);
	CHECK_EQ(64, rig_step(r, &f), V_ICMP_ERROR_BAD);
	for (uint32_t ihl = 0; ihl < 16; ihl++) {
		f = complain(r, &w, &out);
		f.data[QUOTE_AT] = (uint8_t)(0x40 | ihl);
		frames_fix_ip_csum(f.data + QUOTE_AT);
		seal(&f);
		rig_step(r, &f);
		/* With options the ports stand elsewhere: some other session, or none. */
		CHECK(65, ihl == 5 ? f.verdict == V_ICMP_ERROR_IN
				   : f.verdict == V_ICMP_ERROR_BAD || f.verdict == V_ICMP_ERROR_NO_SESSION);
	}
	f = complain(r, &w, &out);
	be16_store(f.data + QUOTE_AT + IP_FRAG, be16_of(100)); /* a later fragment */
	frames_fix_ip_csum(f.data + QUOTE_AT);
	seal(&f);
	CHECK_EQ(66, rig_step(r, &f), V_ICMP_ERROR_BAD);
	f = complain(r, &w, &out);
	be16_store(f.data + QUOTE_AT + IP_TOTAL, be16_of(IPV4_LEN + 7));
	frames_fix_ip_csum(f.data + QUOTE_AT);
	seal(&f);
	CHECK_EQ(67, rig_step(r, &f), V_ICMP_ERROR_BAD);
	/* Quotes somebody else's packet. */
	f = complain(r, &w, &out);
	be32_store(f.data + QUOTE_AT + IP_SRC, IP4(203, 0, 113, 2));
	frames_fix_ip_csum(f.data + QUOTE_AT);
	seal(&f);
	CHECK_EQ(68, rig_step(r, &f), V_ICMP_ERROR_BAD);
	/* A session of no one: other port, other remote, other protocol, outside the pool. */
	static const struct {
		uint32_t at;
		uint8_t mask;
	} strange[] = {
		{ IPV4_LEN + 1, 2 }, { IP_DST + 3, 1 }, { IP_PROTO, 1 }, { IP_PROTO, 4 }, { IPV4_LEN, 0xff }
	};
	for (uint32_t i = 0; i < ARRAY_SIZE(strange); i++) {
		f = complain(r, &w, &out);
		f.data[QUOTE_AT + strange[i].at] ^= strange[i].mask;
		frames_fix_ip_csum(f.data + QUOTE_AT);
		seal(&f);
		CHECK_EQ(69, rig_step(r, &f), V_ICMP_ERROR_NO_SESSION);
	}
	rig_free(r);
}

/* Options in the quote are stepped over (RFC 5508 REQ-3 b); padding behind it is left alone (RFC 4884). */
static void check_odd_quotes(void)
{
	struct rig *r = rig_active();
	uint8_t room[FP_FRAME_MAX];
	struct complaint w = { .port = WAN, .src = ROUTER, .type_code = ICMP_TIME_EXCEEDED << 8 };
	struct spec tiny = spec_udp;
	struct fp_frame out, f;
	uint8_t *q;

	tiny.payload = 0;
	out = rig_in(r, LAN, &tiny);
	memset(room, 0, sizeof(room));
	memcpy(room, out.data, ETH_LEN + IPV4_LEN);
	memset(room + ETH_LEN + IPV4_LEN, 1, 8); /* two words of NOP */
	memcpy(room + ETH_LEN + IPV4_LEN + 8, out.data + ETH_LEN + IPV4_LEN, UDP_LEN);
	room[ETH_LEN] = 0x47;
	be16_store(room + ETH_LEN + IP_TOTAL, be16_of(IPV4_LEN + 8 + UDP_LEN));
	frames_fix_ip_csum(room + ETH_LEN);
	out.data = room;
	out.len += 8;
	w.quoted = 128; /* zeros behind it */
	f = complain(r, &w, &out);
	CHECK_EQ(80, rig_step(r, &f), V_ICMP_ERROR_IN);
	CHECK(81, frames_csums_ok(&f));
	q = f.data + QUOTE_AT;
	CHECK_EQ(82, be32_load(q + IP_SRC).raw, CLIENT.raw);
	CHECK_EQ(83, be16_host(be16_load(q + 28)), 5000);
	CHECK_EQ(84, csum_fold(csum_sum(q, 28)), 0xffff);
	for (uint32_t i = IPV4_LEN + 8 + UDP_LEN; i < 128; i++)
		CHECK_EQ(85, q[i], 0);
	rig_free(r);
}

/* What an error must not do on its own account. */
static void check_refused_errors(void)
{
	struct rig *r = rig_active();
	uint8_t room[FP_FRAME_MAX];
	struct complaint w = { .port = WAN, .src = ROUTER, .type_code = ICMP_UNREACHABLE << 8 | 3 };
	struct fp_frame out = rig_in(r, LAN, &spec_udp), f;

	memcpy(room, out.data, out.len);
	out.data = room;
	f = complain(r, &w, &out);
	f.data[ETH_LEN + IP_TTL] = 1;
	seal(&f);
	CHECK_EQ(100, rig_step(r, &f), V_TTL_EXPIRED); /* and no error about it */
	CHECK_EQ(101, f.out, FP_OUT_NONE);
	r->core.ports[LAN].len_max = ETH_LEN + 60;
	f = complain(r, &w, &out);
	be16_store(f.data + ETH_LEN + IP_FRAG, be16_of(0x4000));
	seal(&f);
	CHECK_EQ(102, rig_step(r, &f), V_TOO_BIG);
	r->core.ports[LAN].len_max = ETH_LEN + 1500;
	w.src = LAN_VIP;
	f = complain(r, &w, &out);
	CHECK_EQ(103, rig_step(r, &f), V_SPOOFED_OWN);
	w.src = ROUTER;
	w.type_code = 4 << 8; /* Source Quench, RFC 6633 */
	f = complain(r, &w, &out);
	CHECK_EQ(104, rig_step(r, &f), V_ICMP_TYPE);
	w.type_code = ICMP_UNREACHABLE << 8;
	f = complain(r, &w, &out);
	be16_store(f.data + ETH_LEN + IP_FRAG, be16_of(0x2000));
	seal(&f);
	CHECK_EQ(105, rig_step(r, &f), V_FRAG_MALFORMED); /* its length is odd */
	/* The session's quote from the wrong side. */
	w.port = LAN;
	w.src = CLIENT2;
	f = complain(r, &w, &out);
	CHECK_EQ(106, rig_step(r, &f), V_ICMP_ERROR_NO_SESSION);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	w.port = WAN;
	f = complain(r, &w, &out);
	CHECK_EQ(107, rig_step(r, &f), V_VMAC_NOT_ACTIVE);
	f = complain(r, &w, &out);
	memcpy(f.data, mac_self[WAN], 6);
	CHECK_EQ(108, rig_step(r, &f), V_NOT_ACTIVE);
	rig_free(r);
}

/* The owner of an error is the owner of the session that it is about. */
static void check_owner(void)
{
	struct rig *w[2] = { rig_new(0, 2, 4000), rig_new(1, 2, 4000) };
	uint8_t room[FP_FRAME_MAX];
	uint32_t owned[2] = { 0, 0 };

	for (uint32_t i = 0; i < 2; i++)
		core_set_role(&w[i]->core, FP_ROLE_ACTIVE, 2, w[i]->now_ns);
	for (uint32_t i = 0; i < 100; i++) {
		struct complaint about = { .port = WAN, .src = ROUTER, .type_code = ICMP_TIME_EXCEEDED << 8 };
		struct spec s = spec_udp, back;
		struct fp_frame out, f;
		uint32_t owner = 0;

		s.sport = (uint16_t)(5000 + i * 3);
		out = rig_in(w[0], LAN, &s);
		if (out.out == FP_OUT_HANDOFF)
			rig_step(w[owner = out.owner], &out);
		owned[owner]++;
		memcpy(room, out.data, out.len);
		out.data = room;
		f = complain(w[owner ^ 1], &about, &out);
		CHECK_EQ(120, rig_step(w[owner ^ 1], &f), V_HANDOFF);
		CHECK_EQ(121, f.owner, owner);
		CHECK_EQ(122, rig_step(w[owner], &f), V_ICMP_ERROR_IN);
		back = rig_reply(&s, out_sport(&out));
		out = rig_in(w[owner], WAN, &back);
		CHECK_EQ(123, out.verdict, V_REVERSE);
		memcpy(room, out.data, out.len);
		out.data = room;
		about.port = LAN;
		about.src = CLIENT;
		f = complain(w[owner ^ 1], &about, &out);
		CHECK_EQ(124, rig_step(w[owner ^ 1], &f), V_HANDOFF);
		CHECK_EQ(125, f.owner, owner);
		CHECK_EQ(126, rig_step(w[owner], &f), V_ICMP_ERROR_OUT);
	}
	CHECK(127, owned[0] > 25 && owned[1] > 25);
	rig_free(w[0]);
	rig_free(w[1]);
}

/* ---- our own ---- */

static void check_time_exceeded(void)
{
	struct rig *r = rig_active();
	uint8_t room[FP_FRAME_MAX];
	struct spec s = spec_udp;
	struct fp_frame f, sent;
	uint16_t external;

	s.ttl = 1;
	sent = built(room, &s);
	f = rig_in(r, LAN, &s);
	CHECK_EQ(140, f.verdict, V_TTL_EXCEEDED_SENT);
	CHECK_EQ(141, f.out, FP_OUT_WIRE);
	CHECK_EQ(142, f.out_port, LAN);
	CHECK_EQ(143, f.fenced, 1);
	CHECK_EQ(144, out_src(&f).raw, LAN_VIP.raw);
	CHECK_EQ(145, out_dst(&f).raw, CLIENT.raw);
	CHECK(146, frames_csums_ok(&f));
	CHECK_EQ(147, be32_host(be32_load(f.data + ETH_LEN + IPV4_LEN)) >> 16, ICMP_TIME_EXCEEDED << 8);
	CHECK_EQ(148, be32_load(f.data + ETH_LEN + IPV4_LEN + ICMP_ID).raw, 0);
	CHECK(149, quotes(&f, &sent, sent.len - ETH_LEN));
	CHECK_EQ(150, f.len, sent.len + IPV4_LEN + ICMP_LEN);
	CHECK(151, mac_eq(f.data, mac_client) && mac_eq(f.data + ETH_SRC, mac_virtual[LAN]));
	CHECK_EQ(152, f.data[ETH_LEN + IP_TTL], 64);
	CHECK_EQ(153, rig_stats(r).flows, 0); /* it opened nothing */
	/* No more than 576 bytes; and a session is neither needed nor touched. */
	s.ttl = 64;
	external = (uint16_t)(f = rig_in(r, LAN, &s), out_sport(&f));
	s.ttl = 1;
	s.payload = 1400;
	sent = built(room, &s);
	f = rig_in(r, LAN, &s);
	CHECK_EQ(154, f.verdict, V_TTL_EXCEEDED_SENT);
	CHECK_EQ(155, f.len, ETH_LEN + ICMP_ERROR_LEN_MAX);
	CHECK(156, frames_csums_ok(&f) && quotes(&f, &sent, ICMP_ERROR_LEN_MAX - IPV4_LEN - ICMP_LEN));
	/* Towards the client: the server is told by the WAN's VIP. */
	s = rig_reply(&spec_udp, external);
	s.ttl = 1;
	f = rig_in(r, WAN, &s);
	CHECK_EQ(157, f.verdict, V_TTL_EXCEEDED_SENT);
	CHECK_EQ(158, f.out_port, WAN);
	CHECK(159, out_src(&f).raw == WAN_VIP.raw && out_dst(&f).raw == SERVER.raw);
	CHECK(160, mac_eq(f.data, mac_isp) && mac_eq(f.data + ETH_SRC, mac_virtual[WAN]));
	/* A port without VIP speaks for itself. */
	r->cfg.ports[LAN].n_vips = 0;
	s = spec_udp;
	s.ttl = 1;
	f = rig_in(r, LAN, &s);
	CHECK_EQ(161, out_src(&f).raw, LAN_SELF.raw);
	/* The sender's neighbour entry is missing: the answer waits. */
	rig_fib(r, false);
	f = rig_in(r, LAN, &s);
	CHECK_EQ(162, f.verdict, V_NEIGH_WAIT);
	CHECK_EQ(163, f.out_port, LAN);
	rig_free(r);
}

static void check_frag_needed(void)
{
	struct rig *r = rig_active();
	uint8_t room[FP_FRAME_MAX];
	struct spec s = spec_udp;
	struct fp_frame f, sent;

	r->core.ports[WAN].len_max = ETH_LEN + 1280;
	s.payload = 1280 - IPV4_LEN - UDP_LEN;
	s.frag = 0x4000;
	CHECK_EQ(180, rig_in(r, LAN, &s).verdict, V_SNAT);
	s.payload++;
	sent = built(room, &s);
	f = rig_in(r, LAN, &s);
	CHECK_EQ(181, f.verdict, V_FRAG_NEEDED_SENT);
	CHECK_EQ(182, f.out_port, LAN);
	CHECK_EQ(183, be32_host(be32_load(f.data + ETH_LEN + IPV4_LEN)) >> 16, ICMP_UNREACHABLE << 8 | 4);
	CHECK_EQ(184, be32_host(be32_load(f.data + ETH_LEN + IPV4_LEN + ICMP_ID)), 1280); /* RFC 1191 */
	CHECK(185, frames_csums_ok(&f) && quotes(&f, &sent, ICMP_ERROR_LEN_MAX - IPV4_LEN - ICMP_LEN));
	CHECK(186, out_src(&f).raw == LAN_VIP.raw && out_dst(&f).raw == CLIENT.raw);
	s.frag = 0;
	CHECK_EQ(187, rig_in(r, LAN, &s).verdict, V_SNAT); /* port_tx() cuts it */
	rig_free(r);
}

/* RFC 1812 section 4.3.2.7, and what is forged. */
static void check_silence(void)
{
	struct rig *r = rig_active();
	struct spec s = spec_udp;
	struct fp_frame f;

	s.ttl = 1;
	s.src = IP4(198, 51, 100, 255);
	CHECK_EQ(200, rig_in(r, LAN, &s).verdict, V_BROADCAST_SOURCE);
	s.src = IP4(198, 51, 100, 0);
	CHECK_EQ(201, rig_in(r, LAN, &s).verdict, V_BROADCAST_SOURCE);
	s.src = IP4(10, 9, 9, 9); /* is not routed to where it came from */
	f = rig_in(r, LAN, &s);
	CHECK_EQ(202, f.verdict, V_NO_RETURN_ROUTE);
	CHECK_EQ(203, f.out, FP_OUT_NONE);
	s.src = IP4(224, 0, 0, 9);
	CHECK_EQ(204, rig_in(r, LAN, &s).verdict, V_MARTIAN_SOURCE);
	s = spec_udp;
	s.ttl = 1;
	s.dst = IP4(203, 0, 113, 7);
	CHECK_EQ(205, rig_in(r, LAN, &s).verdict, V_BROADCAST_DESTINATION);
	s.dst = SERVER;
	s.frag = 100; /* RFC 1812 section 4.3.2.7: nobody is told of a later fragment */
	CHECK_EQ(206, rig_in(r, LAN, &s).verdict, V_FRAG_HELD);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	s.frag = 0;
	CHECK_EQ(207, rig_in(r, LAN, &s).verdict, V_VMAC_NOT_ACTIVE);
	rig_free(r);
}

static void check_limit(void)
{
	struct rig *r = rig_active();
	struct spec s = spec_udp;

	s.ttl = 1;
	for (uint32_t i = 0; i < ICMP_BURST; i++)
		CHECK_EQ(220, rig_in(r, LAN, &s).verdict, V_TTL_EXCEEDED_SENT);
	CHECK_EQ(221, rig_in(r, LAN, &s).verdict, V_ICMP_LIMITED);
	s.ttl = 64;
	CHECK_EQ(222, rig_in(r, LAN, &s).verdict, V_SNAT);
	s.ttl = 1;
	r->now_ns += NS_PER_S / ICMP_RATE_PER_S;
	CHECK_EQ(223, rig_in(r, LAN, &s).verdict, V_TTL_EXCEEDED_SENT);
	CHECK_EQ(224, rig_in(r, LAN, &s).verdict, V_ICMP_LIMITED);
	/* However long nothing was said, no more than a full bucket. */
	r->now_ns += 10 * NS_PER_S;
	for (uint32_t i = 0; i < ICMP_BURST; i++)
		CHECK_EQ(225, rig_in(r, LAN, &s).verdict, V_TTL_EXCEEDED_SENT);
	CHECK_EQ(226, rig_in(r, LAN, &s).verdict, V_ICMP_LIMITED);
	CHECK_EQ(227, rig_count(r, V_TTL_EXCEEDED_SENT), 2 * ICMP_BURST + 1);
	rig_free(r);
}

int main(void)
{
	check_from_outside();
	check_from_inside();
	check_session_unmoved();
	check_bad_quotes();
	check_odd_quotes();
	check_refused_errors();
	check_owner();
	check_time_exceeded();
	check_frag_needed();
	check_silence();
	check_limit();
	return check_done("icmp");
}
