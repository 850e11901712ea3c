/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_reject.c - what the sender of a rejected packet is told
 */
#include "estate.h"
#include "../icmp.h"

static struct rules reject_all(void)
{
	return (struct rules){ .rules = { estate_rule(FP_REJECT, FP_FORM_SNAT) }, .n_rules = 1 };
}

static uint32_t tcp_u32(const struct fp_frame *f, uint32_t at)
{
	return be32_host(be32_load(f->data + ETH_LEN + IPV4_LEN + at));
}

/* RFC 9293 section 3.10.7.1 */
static void check_rst(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = reject_all();
	void *policy = estate_policy(r, &rules);
	struct spec s = spec_syn;
	struct fp_frame f;

	s.payload = 10; /* TCP Fast Open: data counts */
	f = estate_in(r, LAN, &s);
	CHECK_EQ(1, f.verdict, V_REJECTED_RST);
	CHECK(2, estate_reached(&f, LAN, CLIENT, 40001));
	CHECK_EQ(3, out_src(&f).raw, SERVER.raw);
	CHECK_EQ(4, out_sport(&f), 80);
	CHECK_EQ(5, f.data[ETH_LEN + IPV4_LEN + TCP_FLAGS], TCP_RST | TCP_ACK_FLAG);
	CHECK_EQ(6, tcp_u32(&f, TCP_SEQ), 0);
	CHECK_EQ(7, tcp_u32(&f, TCP_ACK), 100 + 1 + 10);
	CHECK_EQ(8, f.len, ETH_LEN + IPV4_LEN + TCP_LEN);
	CHECK(9, frames_csums_ok(&f));
	CHECK(10, mac_eq(f.data + ETH_DST, mac_client) && mac_eq(f.data + ETH_SRC, mac_virtual[LAN]));
	/* With an ACK, the RST has the number that the sender waits for. */
	r->cfg.syn_check = 0;
	s.tcp_flags = TCP_ACK_FLAG;
	s.ack = 4711;
	f = estate_in(r, LAN, &s);
	CHECK_EQ(11, f.verdict, V_REJECTED_RST);
	CHECK_EQ(12, f.data[ETH_LEN + IPV4_LEN + TCP_FLAGS], TCP_RST);
	CHECK_EQ(13, tcp_u32(&f, TCP_SEQ), 4711);
	CHECK_EQ(14, tcp_u32(&f, TCP_ACK), 0);
	CHECK(15, frames_csums_ok(&f));
	/* Never to a RST. */
	s.tcp_flags = TCP_RST;
	f = estate_in(r, LAN, &s);
	CHECK_EQ(16, f.verdict, V_SYN_CHECK);
	CHECK_EQ(17, f.out, FP_OUT_NONE);
	CHECK_EQ(18, rig_stats(r).flows, 0);
	free(policy);
	rig_free(r);
}

/* RFC 1812 section 5.2.7.1 */
static void check_prohibited(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = reject_all();
	void *policy = estate_policy(r, &rules);
	struct spec gre = { .src = CLIENT, .dst = SERVER, .proto = 47, .payload = 40 };
	struct fp_frame f = estate_in(r, LAN, &spec_udp);
	const uint8_t *icmp = f.data + ETH_LEN + IPV4_LEN;

	CHECK_EQ(20, f.verdict, V_REJECTED_ICMP);
	CHECK_EQ(21, out_dst(&f).raw, CLIENT.raw);
	CHECK_EQ(22, out_src(&f).raw, LAN_VIP.raw);
	CHECK_EQ(23, icmp[ICMP_TYPE] << 8 | icmp[ICMP_CODE], ICMP_UNREACHABLE << 8 | 13);
	CHECK_EQ(24, be32_load(icmp + ICMP_LEN + IP_DST).raw, SERVER.raw);
	CHECK(25, frames_csums_ok(&f));
	CHECK_EQ(26, estate_in(r, LAN, &spec_echo).verdict, V_REJECTED_ICMP);
	CHECK_EQ(27, estate_in(r, LAN, &gre).verdict, V_REJECTED_ICMP);
	free(policy);
	rig_free(r);
}

/* Both kinds draw from the same tokens as our other errors; what is not said is a denial. */
static void check_restraint(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = reject_all();
	void *policy = estate_policy(r, &rules);
	struct spec s = spec_syn;

	for (uint32_t i = 0; i < ICMP_BURST; i++)
		CHECK_EQ(40, estate_in(r, LAN, i % 2 ? &spec_udp : &spec_syn).verdict,
			 i % 2 ? V_REJECTED_ICMP : V_REJECTED_RST);
	CHECK_EQ(41, estate_in(r, LAN, &spec_syn).verdict, V_ICMP_LIMITED);
	CHECK_EQ(42, estate_in(r, LAN, &spec_udp).verdict, V_ICMP_LIMITED);
	r->now_ns += NS_PER_S;
	CHECK_EQ(43, estate_in(r, LAN, &spec_syn).verdict, V_REJECTED_RST);
	/* A source that is inside, but not where this came from: the answer would be aimed at it. */
	s.src = DMZ_SERVER;
	CHECK_EQ(44, estate_in(r, LAN, &s).verdict, V_RULE_DENIED);
	free(policy);
	rules.rules[0].action = FP_DENY;
	policy = estate_policy(r, &rules);
	CHECK_EQ(45, estate_in(r, LAN, &spec_syn).verdict, V_RULE_DENIED);
	free(policy);
	rules.n_rules = 0;
	rules.deny = true;
	policy = estate_policy(r, &rules);
	CHECK_EQ(46, estate_in(r, LAN, &spec_syn).verdict, V_RULE_DENIED);
	free(policy);
	rig_free(r);
}

/* Someone outside learns that a forward is not for him from the address that he asked. */
static void check_from_outside(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = reject_all();
	struct spec s = { .src = SERVER,
			  .dst = WAN_VIP,
			  .proto = IPPROTO_NUM_TCP,
			  .sport = 999,
			  .dport = 443,
			  .tcp_flags = TCP_SYN,
			  .seq = 7 };
	struct fp_frame f;
	void *policy;

	rules.forwards[rules.n_forwards++] = estate_forward(0, IPPROTO_NUM_TCP, 443, DMZ_SERVER, 8443);
	policy = estate_policy(r, &rules);
	f = estate_in(r, WAN, &s);
	CHECK_EQ(60, f.verdict, V_REJECTED_RST);
	CHECK_EQ(61, out_src(&f).raw, WAN_VIP.raw);
	CHECK_EQ(62, out_sport(&f), 443);
	CHECK_EQ(63, tcp_u32(&f, TCP_ACK), 8);
	s.dst = DMZ_SERVER;
	CHECK_EQ(64, estate_in(r, WAN, &s).verdict, V_REJECTED_RST);
	free(policy);
	rig_free(r);
}

int main(void)
{
	check_rst();
	check_prohibited();
	check_restraint();
	check_from_outside();
	return check_done("reject");
}
