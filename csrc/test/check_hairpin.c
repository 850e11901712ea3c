/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_hairpin.c - inside hosts that know each other by addresses of ours: RFC 4787 REQ-9, RFC 5508 REQ-7
 */
#include "estate.h"

/* CLIENT2's mapping, made by a query to the server: its external port. */
static uint16_t expose(struct rig *r)
{
	struct spec s = spec_udp;
	struct fp_frame f;

	s.src = CLIENT2;
	s.sport = 6000;
	f = estate_in(r, LAN, &s);
	return out_sport(&f);
}

static struct spec to_exposed(struct rig *r)
{
	struct spec s = spec_udp;
	struct fp_frame f;

	s.src = CLIENT2;
	s.sport = 6000;
	f = estate_in(r, LAN, &s);
	s.src = CLIENT;
	s.dst = out_src(&f);
	s.sport = 5000;
	s.dport = out_sport(&f);
	return s;
}

static void check_both_ways(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct spec s = to_exposed(r), back;
	struct fp_frame f = estate_in(r, LAN, &s);

	CHECK_EQ(1, f.verdict, V_HAIRPIN);
	CHECK(2, estate_reached(&f, LAN, CLIENT2, 6000));
	CHECK(3, nat_pool_of_addr(&r->core.nat, out_src(&f)) != NAT_POOL_NONE); /* REQ-9 a */
	CHECK(4, frames_csums_ok(&f));
	CHECK_EQ(5, f.data[ETH_LEN + IP_TTL], 63); /* one router, one hop */
	CHECK_EQ(6, rig_stats(r).flows, 3);
	back = estate_answer(&f);
	f = estate_in(r, LAN, &back);
	CHECK_EQ(7, f.verdict, V_HAIRPIN);
	CHECK(8, estate_reached(&f, LAN, CLIENT, 5000));
	CHECK_EQ(9, out_src(&f).raw, s.dst.raw);
	CHECK_EQ(10, out_sport(&f), s.dport);
	CHECK(11, frames_csums_ok(&f));
	CHECK_EQ(12, rig_stats(r).flows, 3);
	/* As outside sees it: the source is the same as for any other remote (REQ-1). */
	f = estate_in(r, LAN, &spec_udp);
	CHECK_EQ(13, out_sport(&f), back.dport);
	CHECK_EQ(14, out_src(&f).raw, back.dst.raw);
	/* A client reaches itself. */
	s.src = CLIENT2;
	s.sport = 6000;
	f = estate_in(r, LAN, &s);
	CHECK_EQ(15, f.verdict, V_HAIRPIN);
	CHECK(16, estate_reached(&f, LAN, CLIENT2, 6000));
	rig_free(r);
}

/* The second half is filtered like anything from outside, with the external source. */
static void check_filtering(void)
{
	for (uint32_t filtering = FP_FILTER_ADF; filtering <= FP_FILTER_APDF; filtering++) {
		struct fp_config cfg = estate_config(1);
		struct spec s, other = spec_udp;
		struct rig *r;

		cfg.n_pools = 1;
		cfg.pools[0].filtering = (uint8_t)filtering;
		r = estate_new(&cfg, 0);
		s = to_exposed(r);
		CHECK_EQ(20, estate_in(r, LAN, &s).verdict, V_FILTERED);
		/* CLIENT2 has sent to that address, to another port. */
		other.src = CLIENT2;
		other.sport = 6000;
		other.dst = WAN_VIP;
		other.dport = s.dport ^ 2;
		estate_in(r, LAN, &other);
		CHECK_EQ(21, estate_in(r, LAN, &s).verdict,
			 filtering == FP_FILTER_ADF ? V_HAIRPIN : V_FILTERED);
		rig_free(r);
	}
}

/* RFC 5382 REQ-8 */
static void check_forward_tcp(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = { .forwards = { estate_forward(0, IPPROTO_NUM_TCP, 443, DMZ_SERVER, 8443) },
			       .n_forwards = 1 };
	void *policy = estate_policy(r, &rules);
	struct spec s = spec_syn, back;
	struct fp_flow_rec rec[4];
	struct fp_frame f;

	s.dst = WAN_VIP;
	s.dport = 443;
	f = estate_in(r, LAN, &s);
	CHECK_EQ(30, f.verdict, V_HAIRPIN);
	CHECK(31, estate_reached(&f, DMZ, DMZ_SERVER, 8443));
	back = estate_answer(&f);
	back.tcp_flags = TCP_SYN | TCP_ACK_FLAG;
	back.seq = 500;
	back.ack = 101;
	f = estate_in(r, DMZ, &back);
	CHECK_EQ(32, f.verdict, V_HAIRPIN);
	CHECK(33, estate_reached(&f, LAN, CLIENT, 40001));
	CHECK_EQ(34, out_sport(&f), 443);
	s.tcp_flags = TCP_ACK_FLAG;
	s.seq = 101;
	s.ack = 501;
	f = estate_in(r, LAN, &s);
	CHECK_EQ(35, f.verdict, V_HAIRPIN);
	CHECK(36, frames_csums_ok(&f));
	CHECK_EQ(37, rig_walk(r, rec, 4), 2);
	CHECK(38, rec[0].state == FP_ST_ESTABLISHED && rec[1].state == FP_ST_ESTABLISHED);
	/* The server by its own forward. */
	s = (struct spec){ .src = DMZ_SERVER,
			   .dst = WAN_VIP,
			   .proto = IPPROTO_NUM_TCP,
			   .sport = 999,
			   .dport = 443,
			   .tcp_flags = TCP_SYN };
	f = estate_in(r, DMZ, &s);
	CHECK_EQ(39, f.verdict, V_HAIRPIN);
	CHECK(40, estate_reached(&f, DMZ, DMZ_SERVER, 8443));
	free(policy);
	rig_free(r);
}

/* An error about @f from @from; its quote is the packet as it was received. */
static struct fp_frame complain(struct rig *r, uint8_t port, be32 from, const struct fp_frame *f)
{
	struct spec s = {
		.src = from, .dst = out_src(f), .proto = IPPROTO_NUM_ICMP, .type = ICMP_UNREACHABLE
	};
	uint8_t quote[60];
	struct fp_frame error;
	uint32_t n = min_u32(f->len - ETH_LEN, sizeof(quote));

	memcpy(quote, f->data + ETH_LEN, n);
	s.payload = n;
	error = frames_ipv4(r->data, port, port == DMZ ? mac_dmz : mac_virtual[port], &s);
	r->data[ETH_LEN + IPV4_LEN + ICMP_CODE] = 3;
	memcpy(r->data + ETH_LEN + IPV4_LEN + ICMP_LEN, quote, n);
	frames_fix_l4_csum(r->data + ETH_LEN, ICMP_LEN + n);
	rig_step(r, &error);
	return error;
}

/* RFC 5508 REQ-7 */
static void check_errors(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct spec s = to_exposed(r);
	struct fp_frame f = estate_in(r, LAN, &s);
	const uint8_t *quote = r->data + ETH_LEN + IPV4_LEN + ICMP_LEN;

	f = complain(r, LAN, CLIENT2, &f);
	CHECK_EQ(50, f.verdict, V_ICMP_ERROR_IN);
	CHECK(51, f.out == FP_OUT_WIRE && f.out_port == LAN);
	CHECK_EQ(52, out_dst(&f).raw, CLIENT.raw);
	CHECK_EQ(53, out_src(&f).raw, s.dst.raw); /* the sender knows it by no other */
	CHECK_EQ(54, be32_load(quote + IP_SRC).raw, CLIENT.raw);
	CHECK_EQ(55, be32_load(quote + IP_DST).raw, s.dst.raw);
	CHECK_EQ(56, be16_host(be16_load(quote + IPV4_LEN + L4_SPORT)), 5000);
	CHECK_EQ(57, be16_host(be16_load(quote + IPV4_LEN + L4_DPORT)), s.dport);
	CHECK_EQ(58, csum_fold(csum_sum(quote, IPV4_LEN)), 0xffff);
	CHECK(59, frames_csums_ok(&f));
	/* About what left for the DMZ and does not fit there, we complain ourselves. */
	struct rules rules = { .forwards = { estate_forward(0, IPPROTO_NUM_UDP, 443, DMZ_SERVER, 8443) },
			       .n_forwards = 1 };
	void *policy = estate_policy(r, &rules);
	s = spec_udp;
	s.sport = 5002;
	s.dst = WAN_VIP;
	s.dport = 443;
	s.payload = 1400;
	s.frag = 0x4000;
	f = estate_in(r, LAN, &s);
	CHECK_EQ(60, f.verdict, V_ICMP_ERROR_IN);
	CHECK_EQ(61, out_dst(&f).raw, CLIENT.raw);
	CHECK_EQ(62, be16_host(be16_load(f.data + ETH_LEN + IPV4_LEN + 6)), 1280);
	CHECK_EQ(63, be16_host(be16_load(quote + IPV4_LEN + L4_SPORT)), 5002);
	CHECK(64, frames_csums_ok(&f));
	s.payload = 10;
	s.ttl = 1;
	CHECK_EQ(65, estate_in(r, LAN, &s).verdict, V_TTL_EXCEEDED_SENT);
	CHECK_EQ(66, out_dst(&f).raw, CLIENT.raw);
	s.ttl = 2;
	f = estate_in(r, LAN, &s);
	CHECK_EQ(67, f.verdict, V_HAIRPIN);
	CHECK_EQ(68, f.data[ETH_LEN + IP_TTL], 1);
	free(policy);
	rig_free(r);
}

/* Outside cannot pretend to be us, session or not. */
static void check_spoofs(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct spec s = to_exposed(r), fake,
		    gre = { .src = CLIENT, .dst = WAN_VIP, .proto = 47, .payload = 8 };
	struct fp_frame f = estate_in(r, LAN, &s);

	fake = estate_answer(&f); /* what came to CLIENT2 came from this endpoint of ours */
	s.src = fake.dst;
	s.sport = fake.dport;
	CHECK_EQ(80, estate_in(r, WAN, &s).verdict, V_SPOOFED_SESSION);
	s.sport++;
	CHECK_EQ(81, estate_in(r, WAN, &s).verdict, V_SPOOFED_OWN);
	f = complain(r, WAN, ISP, &f);
	CHECK(82, f.out == FP_OUT_NONE);
	CHECK_EQ(83, estate_in(r, LAN, &gre).verdict, V_HAIRPIN_PORTLESS);
	s = spec_udp;
	s.dst = WAN_VIP;
	s.dport = 80; /* below the pool's range */
	CHECK_EQ(84, estate_in(r, LAN, &s).verdict, V_VIP_SERVICE);
	s.dport = 2000;
	s.dport = (uint16_t)(expose(r) ^ 2);
	CHECK_EQ(85, estate_in(r, LAN, &s).verdict, V_NO_SESSION); /* nobody's port */
	rig_free(r);
}

/* Step at whoever owns the frame, hand-off after hand-off. Return: hand-offs. */
static uint32_t step_all(struct rig **w, struct fp_frame *f, uint32_t first)
{
	uint32_t n = 0;

	rig_step(w[first], f);
	while (f->out == FP_OUT_HANDOFF && n < 4) {
		rig_step(w[f->owner], f);
		n++;
	}
	return n;
}

/* The halves may have different owners: at most one hand-off for each. */
static void check_handoff(void)
{
	struct fp_config cfg = estate_config(2);
	struct rig *w[2] = { estate_new(&cfg, 0), estate_new(&cfg, 1) };
	uint32_t seen[3] = { 0 };

	for (uint16_t i = 0; i < 100; i++) {
		struct spec s = spec_udp, back;
		struct fp_frame f;

		s.src = CLIENT2;
		s.sport = (uint16_t)(6000 + i * 2);
		f = frames_ipv4(w[0]->data, LAN, mac_virtual[LAN], &s);
		step_all(w, &f, 0);
		CHECK_EQ(100, f.verdict, V_SNAT);
		s.dst = out_src(&f);
		s.dport = out_sport(&f);
		s.src = CLIENT;
		s.sport = (uint16_t)(5000 + i * 2);
		f = frames_ipv4(w[0]->data, LAN, mac_virtual[LAN], &s);
		uint32_t n = step_all(w, &f, i % 2);
		CHECK(101, n <= 2);
		seen[min_u32(n, 2)]++;
		CHECK_EQ(102, f.verdict, V_HAIRPIN);
		CHECK(103, estate_reached(&f, LAN, CLIENT2, (uint16_t)(6000 + i * 2)) && frames_csums_ok(&f));
		back = estate_answer(&f);
		f = frames_ipv4(w[0]->data, LAN, mac_virtual[LAN], &back);
		CHECK(104, step_all(w, &f, i % 2) <= 2);
		CHECK_EQ(105, f.verdict, V_HAIRPIN);
		CHECK(106, estate_reached(&f, LAN, CLIENT, s.sport) && frames_csums_ok(&f));
	}
	CHECK(107, seen[0] > 5 && seen[1] > 20 && seen[2] > 5);
	CHECK_EQ(108, rig_stats(w[0]).flows + rig_stats(w[1]).flows, 300);
	rig_free(w[0]);
	rig_free(w[1]);
}

int main(void)
{
	check_both_ways();
	check_filtering();
	check_forward_tcp();
	check_errors();
	check_spoofs();
	check_handoff();
	return check_done("hairpin");
}
