/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_gso.c - offload frames: what is refused, translated, completed and cut, against a full recomputation
 */
#include "../gso.h"
#include "check.h"
#include "rig.h"

enum { MSS = 1448, BIG_PAYLOAD = 44 * MSS + 100 };

static uint8_t room[FP_FRAME_BIG], cut_room[FP_FRAME_MAX], was[FP_FRAME_BIG];

static uint32_t l4_header(uint8_t proto)
{
	return proto == IPPROTO_NUM_TCP ? TCP_LEN : UDP_LEN;
}

static uint8_t *csum_field(struct fp_frame *f)
{
	return f->data + f->vnet.csum_start + f->vnet.csum_offset;
}

/* Sum of the pseudo-header, as the kernel leaves it for whoever completes the checksum. */
static be16 pseudo(const struct fp_frame *f, uint32_t l4_len)
{
	const uint8_t *ip = f->data + ETH_LEN;

	return (be16){ csum_fold(csum_pseudo_v4(be32_load(ip + IP_SRC), be32_load(ip + IP_DST), ip[IP_PROTO],
						(uint16_t)l4_len)) };
}

/* What a socket made: a frame of any length with a partial checksum; @gso_size 0: of one segment. */
static struct fp_frame offloaded(uint8_t port, const struct spec *s, uint16_t gso_size)
{
	struct spec head = *s;
	struct fp_frame f;
	uint8_t *ip = room + ETH_LEN;
	const uint32_t header = l4_header(s->proto), l4_len = header + s->payload;

	head.payload = 0;
	f = frames_ipv4(room, port, mac_virtual[port], &head);
	for (uint32_t i = 0; i < s->payload; i++)
		ip[IPV4_LEN + header + i] = (uint8_t)(i * 31 + (i >> 8));
	f.len = ETH_LEN + IPV4_LEN + l4_len;
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)(IPV4_LEN + l4_len)));
	frames_fix_ip_csum(ip);
	if (s->proto == IPPROTO_NUM_UDP)
		be16_store(ip + IPV4_LEN + UDP_LENGTH, be16_of((uint16_t)l4_len));
	f.vnet = (struct fp_vnet){
		.flags = FP_VNET_NEEDS_CSUM,
		.gso_type = gso_size == 0                 ? FP_GSO_NONE
			    : s->proto == IPPROTO_NUM_TCP ? FP_GSO_TCPV4
							  : FP_GSO_UDP_L4,
		.gso_size = gso_size,
		.hdr_len = (uint16_t)(ETH_LEN + IPV4_LEN + header),
		.csum_start = ETH_LEN + IPV4_LEN,
		.csum_offset = s->proto == IPPROTO_NUM_TCP ? TCP_CSUM : UDP_CSUM,
	};
	be16_store(csum_field(&f), pseudo(&f, l4_len));
	return f;
}

static const struct spec spec_bulk = { .src = IP4_INIT(198, 51, 100, 10),
				       .dst = IP4_INIT(192, 0, 2, 10),
				       .proto = IPPROTO_NUM_TCP,
				       .sport = 40001,
				       .dport = 80,
				       .tcp_flags = TCP_ACK_FLAG | TCP_PSH,
				       .seq = 101,
				       .ack = 501,
				       .payload = BIG_PAYLOAD };

/* ---- refused ---- */

static uint32_t verdict_of(struct rig *r, struct fp_vnet vnet, uint32_t len)
{
	struct fp_frame f = offloaded(LAN, &spec_bulk, MSS);

	f.vnet = vnet;
	f.len = len;
	be16_store(f.data + ETH_LEN + IP_TOTAL, be16_of((uint16_t)(len - ETH_LEN)));
	frames_fix_ip_csum(f.data + ETH_LEN);
	return rig_step(r, &f);
}

static void check_refusals(void)
{
	struct rig *r = rig_active();
	const struct fp_vnet good = offloaded(LAN, &spec_bulk, MSS).vnet;
	const struct fp_vnet bad[] = {
		{ .gso_type = FP_GSO_TCPV4, .gso_size = MSS, .csum_start = 34, .csum_offset = 16 },
		{ .flags = 1, .gso_type = FP_GSO_TCPV4, .csum_start = 34, .csum_offset = 16 },
		{ .flags = 1, .gso_type = 3, .gso_size = MSS, .csum_start = 34, .csum_offset = 16 },
		{ .flags = 1, .gso_type = 2, .gso_size = MSS, .csum_start = 34, .csum_offset = 16 },
		{ .flags = 1,
		  .gso_type = FP_GSO_TCPV6,
		  .gso_size = MSS,
		  .csum_start = 34,
		  .csum_offset = 16 },
		{ .flags = 1,
		  .gso_type = FP_GSO_UDP_L4,
		  .gso_size = MSS,
		  .csum_start = 34,
		  .csum_offset = 6 },
		{ .flags = 1, .gso_type = FP_GSO_TCPV4, .gso_size = MSS, .csum_start = 34, .csum_offset = 6 },
		{ .flags = 1,
		  .gso_type = FP_GSO_TCPV4,
		  .gso_size = MSS,
		  .csum_start = 36,
		  .csum_offset = 16 },
		{ .flags = 1,
		  .gso_type = FP_GSO_TCPV4,
		  .gso_size = MSS,
		  .csum_start = 14,
		  .csum_offset = 16 },
		{ .flags = 1, .csum_start = 65535, .csum_offset = 65535 },
		{ .flags = 1, .csum_start = 2014, .csum_offset = 16 },
		{ .flags = 1, .csum_start = 13, .csum_offset = 16 },
		{ .flags = 1, .csum_start = 50, .csum_offset = 16 },
	};

	rig_connect(r, spec_bulk.sport);
	for (uint32_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(100 + (int)i, verdict_of(r, bad[i], i < 9 ? 2014 : 1400), V_VNET_MALFORMED);
	CHECK_EQ(1, verdict_of(r, good, ETH_LEN + IPV4_LEN + TCP_LEN), V_VNET_MALFORMED); /* no payload */
	CHECK_EQ(2, verdict_of(r, good, 2014), V_SNAT);
	CHECK_EQ(3, verdict_of(r, (struct fp_vnet){ 0 }, 2014), V_OVERSIZED);
	CHECK_EQ(4, rig_count(r, V_VNET_MALFORMED), ARRAY_SIZE(bad) + 1);
	rig_free(r);
}

/* A frame of many tiny segments would cost a write for each where it is cut. */
static void check_segments(void)
{
	struct rig *r = rig_active();
	struct spec tcp = spec_bulk, udp = spec_udp;
	struct fp_frame f;

	rig_connect(r, spec_bulk.sport);
	f = offloaded(LAN, &tcp, 1);
	CHECK_EQ(5, rig_step(r, &f), V_VNET_MALFORMED);
	tcp.payload = 512 * 100 + 1;
	f = offloaded(LAN, &tcp, 100);
	CHECK_EQ(6, rig_step(r, &f), V_VNET_MALFORMED);
	tcp.payload--;
	f = offloaded(LAN, &tcp, 100);
	CHECK_EQ(7, rig_step(r, &f), V_SNAT);
	udp.payload = 513;
	f = offloaded(LAN, &udp, 1);
	CHECK_EQ(8, rig_step(r, &f), V_VNET_MALFORMED);
	udp.payload = 128 * 500; /* the most that a socket makes */
	f = offloaded(LAN, &udp, 500);
	CHECK_EQ(9, rig_step(r, &f), V_SNAT);
	rig_free(r);
}

/* What counts is the length of the segments, on the way in and on the way out. */
static void check_lengths(void)
{
	struct rig *r = rig_active();
	struct fp_frame f = offloaded(LAN, &spec_bulk, 1461);

	rig_connect(r, spec_bulk.sport);
	CHECK_EQ(10, rig_step(r, &f), V_OVERSIZED);
	f = offloaded(LAN, &spec_bulk, 1460);
	CHECK_EQ(11, rig_step(r, &f), V_SNAT);
	r->core.ports[WAN].len_max = ETH_LEN + 1400;
	f = offloaded(LAN, &spec_bulk, 1361);
	CHECK_EQ(12, rig_step(r, &f), V_SNAT); /* its segments are cut into fragments on the way out */
	f = offloaded(LAN, &spec_bulk, 1360);
	CHECK_EQ(13, rig_step(r, &f), V_SNAT);
	rig_fib(r, false);
	f = offloaded(LAN, &spec_bulk, 1360);
	CHECK_EQ(14, rig_step(r, &f), V_NEIGH_BIG);
	CHECK_EQ(15, f.out, FP_OUT_NONE);
	rig_free(r);
}

/* ---- translated ---- */

/* The field must hold the sum of the new pseudo-header, and nothing else may have changed. */
static void check_partial(int n, struct fp_frame *f, uint32_t payload)
{
	uint8_t *ip = f->data + ETH_LEN;
	const uint32_t header = l4_header(ip[IP_PROTO]);
	const be16 want = pseudo(f, header + payload);

	CHECK(n, f->vnet.flags == FP_VNET_NEEDS_CSUM);
	CHECK_EQ(n + 1, be16_load(csum_field(f)).raw % 0xffff, want.raw % 0xffff);
	CHECK(n + 2, memcmp(ip + IPV4_LEN + header, was + ETH_LEN + IPV4_LEN + header, payload) == 0);
	CHECK_EQ(n + 3, csum_fold(csum_sum(ip, IPV4_LEN)), 0xffff);
	if (f->vnet.gso_type)
		return;
	gso_complete(f);
	CHECK(n + 4, frames_csums_ok(f));
}

static void check_rewriting(void)
{
	struct rig *r = rig_active();
	const uint16_t external = rig_connect(r, spec_bulk.sport);
	struct spec reply = rig_reply(&spec_bulk, external), udp = spec_udp;
	struct fp_frame f = offloaded(LAN, &spec_bulk, MSS);

	memcpy(was, room, f.len);
	CHECK_EQ(20, rig_step(r, &f), V_SNAT);
	CHECK(21, out_src(&f).raw == WAN_VIP.raw && out_sport(&f) == external);
	check_partial(22, &f, BIG_PAYLOAD);
	reply.seq = 501;
	reply.ack = 101;
	for (uint32_t payload = 0; payload < 40; payload++) {
		reply.payload = payload;
		f = offloaded(WAN, &reply, 0);
		memcpy(was, room, f.len);
		CHECK_EQ(30, rig_step(r, &f), V_REVERSE);
		check_partial(31, &f, payload);
	}
	for (uint16_t sport = 5000; sport < 5100; sport++) {
		udp.sport = sport;
		udp.payload = sport % 7;
		f = offloaded(LAN, &udp, 0);
		memcpy(was, room, f.len);
		CHECK_EQ(40, rig_step(r, &f), V_SNAT);
		check_partial(41, &f, udp.payload);
	}
	udp.payload = 9000;
	f = offloaded(LAN, &udp, 1200);
	memcpy(was, room, f.len);
	CHECK_EQ(50, rig_step(r, &f), V_SNAT);
	check_partial(51, &f, udp.payload);
	rig_free(r);
}

/* A checksum that is still to be made, or was verified, opens and closes sessions; a wrong one does not. */
static void check_trust(void)
{
	struct rig *r = rig_active();
	struct spec syn = spec_syn;
	struct fp_frame f = offloaded(LAN, &syn, 0);

	CHECK_EQ(60, rig_step(r, &f), V_SNAT);
	syn.sport++;
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &syn);
	room[ETH_LEN + IPV4_LEN + TCP_CSUM] ^= 1;
	CHECK_EQ(61, rig_step(r, &f), V_L4_CHECKSUM);
	f.vnet.flags = FP_VNET_DATA_VALID;
	CHECK_EQ(62, rig_step(r, &f), V_SNAT);
	rig_free(r);
}

/* What we answer or give to control leaves complete. */
static void check_completed(void)
{
	struct rig *r = rig_active();
	struct spec echo = spec_echo, advert = {
		.src = ISP, .dst = IP4(224, 0, 0, 18), .ttl = 255, .proto = IPPROTO_NUM_VRRP, .payload = 40
	};
	struct fp_frame f;

	echo.dst = LAN_VIP;
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &echo);
	be16_store(room + ETH_LEN + IPV4_LEN + ICMP_CSUM, be16_of(0));
	f.vnet = (struct fp_vnet){ .flags = FP_VNET_NEEDS_CSUM, .csum_start = 34, .csum_offset = ICMP_CSUM };
	CHECK_EQ(70, rig_step(r, &f), V_VIP_ECHO);
	CHECK(71, f.vnet.flags == 0 && frames_csums_ok(&f));
	f = frames_ipv4(room, WAN, mac_vrrp, &advert);
	be16_store(room + ETH_LEN + IPV4_LEN + 6, be16_of(0));
	f.vnet = (struct fp_vnet){ .flags = FP_VNET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6 };
	CHECK_EQ(72, rig_step(r, &f), V_VRRP);
	CHECK_EQ(73, csum_fold(csum_sum(room + ETH_LEN + IPV4_LEN, 40)), 0xffff);
	CHECK(74, f.vnet.flags == 0);
	rig_free(r);
}

/* ---- cut ---- */

static void check_cut(int n, struct fp_frame *big, uint16_t gso_size, uint32_t payload)
{
	struct fp_frame seg = { .data = cut_room };
	struct gso_cut cut;
	const uint8_t *ip = cut_room + ETH_LEN, *l4 = ip + IPV4_LEN;
	const bool tcp = big->data[ETH_LEN + IP_PROTO] == IPPROTO_NUM_TCP;
	const uint32_t headers = ETH_LEN + IPV4_LEN + l4_header(big->data[ETH_LEN + IP_PROTO]);
	const uint8_t *flags = big->data + ETH_LEN + IPV4_LEN + TCP_FLAGS;
	uint32_t done = 0, id = be16_host(be16_load(big->data + ETH_LEN + 4));

	REQUIRE(gso_check(big) && gso_cut_begin(&cut, big));
	for (uint32_t i = 0; gso_cut_next(&cut, &seg); i++) {
		const uint32_t left = payload - done;

		CHECK_EQ(n, seg.len, headers + min_u32(left, gso_size));
		CHECK(n + 1, gso_is_plain(&seg) && frames_csums_ok(&seg));
		CHECK(n + 2, memcmp(cut_room + headers, big->data + headers + done, seg.len - headers) == 0);
		CHECK_EQ(n + 3, be16_host(be16_load(ip + 4)), (id + i) & 0xffff);
		if (tcp) {
			const uint8_t last = left <= gso_size ? *flags
							      : (uint8_t)(*flags & ~(TCP_FIN | TCP_PSH));

			CHECK_EQ(n + 4, be32_host(be32_load(l4 + TCP_SEQ)), 101 + done);
			CHECK_EQ(n + 5, l4[TCP_FLAGS], i == 0 ? last : (uint8_t)(last & ~TCP_CWR));
		} else {
			CHECK_EQ(n + 6, be16_host(be16_load(l4 + UDP_LENGTH)), seg.len - ETH_LEN - IPV4_LEN);
		}
		done += seg.len - headers;
	}
	CHECK_EQ(n + 7, done, payload);
}

/* Spec: RFC 3168 section 6.1.2: one CWR, on the first segment. */
static void check_cutting(void)
{
	struct spec s = spec_bulk;
	struct fp_frame f;

	s.tcp_flags = TCP_ACK_FLAG | TCP_PSH | TCP_FIN | TCP_CWR;
	for (uint16_t size = 536; size <= 1460; size += 77) {
		f = offloaded(LAN, &s, size);
		f.vnet.gso_type |= FP_GSO_ECN;
		be16_store(f.data + ETH_LEN + 4, be16_of(0xfffd)); /* the identification wraps */
		check_cut(80, &f, size, s.payload);
	}
	s = spec_udp;
	for (s.payload = 1; s.payload < 10000; s.payload = s.payload * 2 + 1) {
		f = offloaded(LAN, &s, 1200);
		check_cut(90, &f, 1200, s.payload);
	}
}

/* The same of IPv6, which only a node's own kernel sends today. */
static void check_cutting_v6(void)
{
	enum { HEADERS = ETH_LEN + 40 + TCP_LEN, PAYLOAD = 3000 };

	struct fp_frame f = { .data = room, .len = HEADERS + PAYLOAD }, seg = { .data = cut_room };
	struct gso_cut cut;
	uint32_t done = 0;

	for (uint32_t i = 0; i < f.len; i++)
		room[i] = (uint8_t)(i * 13);
	be16_store(room + ETH_TYPE, be16_of(ETHERTYPE_IPV6));
	room[ETH_LEN] = 0x60;
	room[ETH_LEN + 40 + TCP_OFF] = 5 << 4;
	f.vnet = (struct fp_vnet){ .flags = FP_VNET_NEEDS_CSUM,
				   .gso_type = FP_GSO_TCPV6,
				   .gso_size = 1428,
				   .csum_start = ETH_LEN + 40,
				   .csum_offset = TCP_CSUM };
	REQUIRE(gso_check(&f) && gso_cut_begin(&cut, &f));
	while (gso_cut_next(&cut, &seg)) {
		const uint32_t l4_len = seg.len - ETH_LEN - 40;
		const uint64_t sum = csum_sum(cut_room + ETH_LEN + 8, 32) + be16_of(IPPROTO_NUM_TCP).raw +
				     be16_of((uint16_t)l4_len).raw;

		CHECK_EQ(110, csum_fold(sum + csum_sum(cut_room + ETH_LEN + 40, l4_len)), 0xffff);
		CHECK_EQ(111, be16_host(be16_load(cut_room + ETH_LEN + 4)), l4_len);
		done += seg.len - HEADERS;
	}
	CHECK_EQ(112, done, PAYLOAD);
	be16_store(room + ETH_TYPE, be16_of(0x8100));
	CHECK(113, !gso_cut_begin(&cut, &f));
}

/* A driver cuts what a neighbour sent before the core has looked at it. */
static void check_no_cut(void)
{
	struct fp_frame f = offloaded(LAN, &spec_bulk, FP_FRAME_MAX - ETH_LEN - IPV4_LEN - TCP_LEN);
	struct gso_cut cut;

	CHECK(120, gso_check(&f) && gso_cut_begin(&cut, &f));
	f.vnet.gso_size++;
	CHECK(121, gso_check(&f) && !gso_cut_begin(&cut, &f));
	f.vnet.gso_size = UINT16_MAX;
	CHECK(122, gso_check(&f) && !gso_cut_begin(&cut, &f));
	f.vnet.gso_size = MSS;
	f.data[ETH_LEN] = 0x65;
	CHECK(123, gso_check(&f) && !gso_cut_begin(&cut, &f)); /* IPv4, says Ethernet */
}

int main(void)
{
	check_refusals();
	check_segments();
	check_lengths();
	check_rewriting();
	check_trust();
	check_completed();
	check_cutting();
	check_cutting_v6();
	check_no_cut();
	return check_done("gso");
}
