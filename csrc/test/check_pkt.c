/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_pkt.c - the parser: sound packets, every truncation of them, and every bit of them flipped
 *
 * Frames stand at the very end of an allocation, so that AddressSanitizer sees a read beyond the frame.
 */
#include "check.h"
#include "frames.h"

static const struct spec tcp = { .proto = IPPROTO_NUM_TCP,
				 .src = { 0x0100000a },
				 .dst = { 0x0200000a },
				 .sport = 1000,
				 .dport = 80,
				 .tcp_flags = TCP_SYN,
				 .payload = 33 };
static const struct spec udp = { .proto = IPPROTO_NUM_UDP,
				 .src = { 0x0100000a },
				 .dst = { 0x0200000a },
				 .sport = 1000,
				 .dport = 53,
				 .payload = 20 };
static const struct spec echo = { .proto = IPPROTO_NUM_ICMP,
				  .src = { 0x0100000a },
				  .dst = { 0x0200000a },
				  .sport = 77,
				  .type = ICMP_ECHO_REQUEST,
				  .payload = 20 };

static uint8_t room[FP_FRAME_MAX];

static uint32_t parse(struct fp_frame *f, struct pkt *p)
{
	uint32_t verdict = pkt_parse_ip(p, f);

	if (verdict == V_GO_ON && !p->fragment)
		verdict = pkt_parse_l4(p);
	return verdict;
}

/* Parse an exact copy of the first @len bytes; whatever is found sound must be readable. */
static uint32_t parse_copy(const uint8_t *data, uint32_t len)
{
	uint8_t *exact = malloc(len ? len : 1);
	struct fp_frame f = { .data = exact, .len = len };
	struct pkt p;
	uint32_t verdict;

	memcpy(exact, data, len);
	verdict = parse(&f, &p);
	if (verdict == V_GO_ON && !p.fragment) {
		CHECK(90, p.l4 + p.l4_len <= exact + len);
		pkt_l4_csum_ok(&p);
	}
	free(exact);
	return verdict;
}

static void check_sound(void)
{
	struct fp_frame f = frames_ipv4(room, LAN, mac_virtual[LAN], &tcp);
	struct pkt p = { .frame = NULL };

	CHECK_EQ(1, parse(&f, &p), V_GO_ON);
	CHECK_EQ(2, be16_host(p.sport), 1000);
	CHECK_EQ(3, be16_host(p.dport), 80);
	CHECK_EQ(4, p.l4_len, TCP_LEN + 33);
	CHECK_EQ(5, p.tcp_flags, TCP_SYN);
	CHECK(6, pkt_l4_csum_ok(&p));
	room[ETH_LEN + IPV4_LEN + TCP_LEN + 5] ^= 1;
	CHECK(7, !pkt_l4_csum_ok(&p));
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &udp);
	CHECK_EQ(8, parse(&f, &p), V_GO_ON);
	CHECK(9, pkt_l4_csum_ok(&p));
	be16_store(p.l4 + UDP_CSUM, be16_of(0));
	CHECK(10, pkt_l4_csum_ok(&p)); /* no checksum */
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &echo);
	CHECK_EQ(11, parse(&f, &p), V_GO_ON);
	CHECK_EQ(12, be16_host(p.sport), 77);
	CHECK(13, pkt_l4_csum_ok(&p));
	/* Padding of the link is not part of the packet. */
	f.len += 9;
	CHECK_EQ(14, parse(&f, &p), V_GO_ON);
	CHECK_EQ(15, p.l4_len, ICMP_LEN + 20);
	CHECK(16, pkt_l4_csum_ok(&p));
}

static void check_truncated(void)
{
	const struct spec *all[] = { &tcp, &udp, &echo };

	for (uint32_t s = 0; s < ARRAY_SIZE(all); s++) {
		struct fp_frame f = frames_ipv4(room, LAN, mac_virtual[LAN], all[s]);

		for (uint32_t len = ETH_LEN; len < f.len; len++)
			CHECK_EQ(20, parse_copy(room, len), V_IP_MALFORMED);
		CHECK_EQ(21, parse_copy(room, f.len), V_GO_ON);
		/* Cut, with a total length that agrees: then the L4 header is too short, or UDP's length lies. */
		for (uint32_t ip_len = IPV4_LEN; ip_len < f.len - ETH_LEN; ip_len++) {
			uint32_t verdict;

			be16_store(room + ETH_LEN + IP_TOTAL, be16_of((uint16_t)ip_len));
			frames_fix_ip_csum(room + ETH_LEN);
			verdict = parse_copy(room, ETH_LEN + ip_len);
			if (all[s]->proto == IPPROTO_NUM_UDP || ip_len < IPV4_LEN + ICMP_LEN)
				CHECK_EQ(22, verdict, V_L4_MALFORMED);
			else
				CHECK(23, verdict == V_GO_ON || verdict == V_L4_MALFORMED);
		}
	}
}

static void check_contradictory(void)
{
	struct fp_frame f = frames_ipv4(room, LAN, mac_virtual[LAN], &tcp);
	uint8_t *ip = room + ETH_LEN;
	struct pkt p;

	ip[IP_CSUM] ^= 1;
	CHECK_EQ(40, parse(&f, &p), V_IP_CHECKSUM);
	for (uint32_t first = 0; first < 256; first++) {
		f = frames_ipv4(room, LAN, mac_virtual[LAN], &tcp);
		ip[0] = (uint8_t)first;
		if (first >> 4 == 4 && (first & 0xf) >= 5)
			continue;
		CHECK_EQ(41, parse(&f, &p), V_IP_MALFORMED); /* version, or header length */
	}
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &tcp);
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)(f.len - ETH_LEN + 1)));
	CHECK_EQ(42, parse(&f, &p), V_IP_MALFORMED);
	be16_store(ip + IP_TOTAL, be16_of(19));
	CHECK_EQ(43, parse(&f, &p), V_IP_MALFORMED);
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &tcp);
	ip[IPV4_LEN + TCP_OFF] = 4 << 4;
	CHECK_EQ(44, parse(&f, &p), V_L4_MALFORMED);
	ip[IPV4_LEN + TCP_OFF] = 15 << 4; /* 60 bytes of header in 53 */
	CHECK_EQ(45, parse(&f, &p), V_L4_MALFORMED);
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &udp);
	be16_store(ip + IPV4_LEN + UDP_LENGTH, be16_of(7));
	CHECK_EQ(46, parse(&f, &p), V_L4_MALFORMED);
	be16_store(ip + IPV4_LEN + UDP_LENGTH, be16_of(29));
	CHECK_EQ(47, parse(&f, &p), V_L4_MALFORMED);
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &udp);
	be16_store(ip + IPV4_LEN + L4_DPORT, be16_of(0));
	CHECK_EQ(48, parse(&f, &p), V_L4_MALFORMED);
}

static void check_kinds(void)
{
	struct spec s = tcp;
	struct fp_frame f;
	struct pkt p;

	s.frag = 0x2000;
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &s);
	CHECK_EQ(60, parse(&f, &p), V_GO_ON);
	CHECK(61, p.fragment);
	s.frag = 100;
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &s);
	CHECK_EQ(62, parse(&f, &p), V_GO_ON);
	CHECK(63, p.fragment);
	s.frag = 0x4000; /* don't fragment */
	f = frames_ipv4(room, LAN, mac_virtual[LAN], &s);
	CHECK_EQ(64, parse(&f, &p), V_GO_ON);
	CHECK(65, !p.fragment);
	s.frag = 0;
	/* Without ports: the fixed part of the header must be there. */
	static const struct {
		uint8_t proto, header;
	} portless[] = { { 47, 4 }, { 50, 8 }, { 132, 12 }, { 4, 0 } };
	for (uint32_t i = 0; i < ARRAY_SIZE(portless); i++) {
		s.proto = portless[i].proto;
		s.payload = portless[i].header;
		f = frames_ipv4(room, LAN, mac_virtual[LAN], &s);
		CHECK_EQ(66, parse(&f, &p), V_GO_ON);
		CHECK_EQ(67, p.sport.raw | p.dport.raw, 0);
		if (!s.payload--)
			continue;
		f = frames_ipv4(room, LAN, mac_virtual[LAN], &s);
		CHECK_EQ(68, parse(&f, &p), V_L4_MALFORMED);
	}
}

static void check_flips(void)
{
	const struct spec *all[] = { &tcp, &udp, &echo };

	for (uint32_t s = 0; s < ARRAY_SIZE(all); s++) {
		struct fp_frame f = frames_ipv4(room, LAN, mac_virtual[LAN], all[s]);

		for (uint32_t bit = ETH_LEN * 8; bit < f.len * 8; bit++) {
			room[bit / 8] ^= (uint8_t)(1 << bit % 8);
			parse_copy(room, f.len);
			frames_fix_ip_csum(room + ETH_LEN); /* reads IHL * 4 bytes: the room is larger */
			parse_copy(room, f.len);
			f = frames_ipv4(room, LAN, mac_virtual[LAN], all[s]);
		}
	}
}

int main(void)
{
	check_sound();
	check_truncated();
	check_contradictory();
	check_kinds();
	check_flips();
	return check_done("pkt");
}
