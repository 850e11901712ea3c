/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_local.c - frames that belong to no session: the node's own, ARP and echo of the VIP, VRRP, pulse
 */
#include "rig.h"

static void check_from_outside(void)
{
	struct rig *r = rig_active();
	struct spec s = { .src = SERVER,
			  .dst = WAN_VIP,
			  .proto = IPPROTO_NUM_TCP,
			  .sport = 80,
			  .dport = 40000,
			  .tcp_flags = TCP_SYN };

	CHECK_EQ(120, rig_in(r, WAN, &s).verdict, V_NO_SESSION);
	s.dport = 80; /* below the pool's range */
	CHECK_EQ(121, rig_in(r, WAN, &s).verdict, V_VIP_SERVICE);
	s.dst = CLIENT;
	CHECK_EQ(122, rig_in(r, WAN, &s).verdict, V_OUTSIDE_DENIED);
	s.dst = WAN_VIP;
	s.proto = IPPROTO_NUM_ICMP;
	s.type = ICMP_TIME_EXCEEDED;
	CHECK_EQ(123, rig_in(r, WAN, &s).verdict, V_ICMP_ERROR_BAD);
	s.type = ICMP_ECHO_REPLY;
	s.sport = 40000;
	CHECK_EQ(124, rig_in(r, WAN, &s).verdict, V_NO_SESSION);
	rig_free(r);
}

static void check_arp(void)
{
	struct rig *r = rig_active();
	struct fp_frame f = frames_arp(r->data, LAN, mac_broadcast, 1, CLIENT, LAN_VIP);
	const uint8_t *arp = r->data + ETH_LEN;

	CHECK_EQ(140, rig_step(r, &f), V_ARP_VIP);
	CHECK_EQ(141, f.out, FP_OUT_WIRE);
	CHECK_EQ(142, f.out_port, LAN);
	CHECK_EQ(143, f.fenced, 1);
	CHECK(144, mac_eq(r->data + ETH_DST, mac_client) && mac_eq(r->data + ETH_SRC, mac_virtual[LAN]));
	CHECK_EQ(145, arp[7], 2);
	CHECK(146, mac_eq(arp + 8, mac_virtual[LAN]) && mac_eq(arp + 18, mac_client));
	CHECK_EQ(147, be32_load(arp + 14).raw, LAN_VIP.raw);
	CHECK_EQ(148, be32_load(arp + 24).raw, CLIENT.raw);
	f = frames_arp(r->data, LAN, mac_broadcast, 1, IP4(0, 0, 0, 0), LAN_VIP); /* RFC 5227 probe */
	CHECK_EQ(149, rig_step(r, &f), V_ARP_VIP);
	f = frames_arp(r->data, LAN, mac_broadcast, 1, LAN_VIP, LAN_VIP); /* gratuitous */
	CHECK_EQ(150, rig_step(r, &f), V_ARP_VIP_CLAIM);
	f = frames_arp(r->data, LAN, mac_broadcast, 1, CLIENT, LAN_SELF);
	CHECK_EQ(151, rig_step(r, &f), V_HOST_ARP);
	CHECK_EQ(152, f.out, FP_OUT_HOST);
	CHECK(153, mac_eq(r->data + ETH_DST, mac_broadcast));
	f = frames_arp(r->data, WAN, mac_broadcast, 1, CLIENT, LAN_VIP); /* on the wrong wire */
	CHECK_EQ(154, rig_step(r, &f), V_HOST_ARP);
	f = frames_arp(r->data, LAN, mac_self[LAN], 2, CLIENT, LAN_SELF);
	CHECK_EQ(155, rig_step(r, &f), V_HOST_ARP);
	for (uint32_t len = ETH_LEN; len < ETH_LEN + 28; len++) {
		f = frames_arp(r->data, LAN, mac_broadcast, 1, CLIENT, LAN_VIP);
		f.len = len;
		CHECK_EQ(156, rig_step(r, &f), V_ARP_MALFORMED);
	}
	f = frames_arp(r->data, LAN, mac_broadcast, 1, CLIENT, LAN_VIP);
	r->data[ETH_LEN + 4] = 8;
	CHECK_EQ(157, rig_step(r, &f), V_ARP_MALFORMED);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	f = frames_arp(r->data, LAN, mac_broadcast, 1, CLIENT, LAN_VIP);
	CHECK_EQ(158, rig_step(r, &f), V_ARP_VIP_NOT_ACTIVE);
	CHECK_EQ(159, f.out, FP_OUT_NONE);
	rig_free(r);
}

/* A host asks for the VIP from another MAC address: the kernel does not hear it, so it must be told. */
static void check_arp_merge(void)
{
	static const uint8_t none[ETH_ALEN], second[ETH_ALEN] = { 2, 9, 9, 9, 9, 9 };
	const struct fp_addr client = addr_from_v4(CLIENT);
	struct rig *r = rig_active();
	struct neigh_want wants[4];
	const struct {
		be32 sender;
		const uint8_t *mac;
		uint32_t n;
	} asked[] = {
		{ CLIENT, mac_client, 0 },            /* as we know it */
		{ CLIENT, none, 0 },                  /* nobody's */
		{ IP4(198, 51, 100, 99), second, 0 }, /* we send nothing there */
		{ IP4(0, 0, 0, 0), second, 0 },       /* RFC 5227 probe */
		{ CLIENT, second, 1 },                /* moved */
		{ CLIENT, second, 0 },                /* said within this second */
		{ CLIENT, mac_stranger, 1 },          /* moved again */
	};

	for (uint32_t role = FP_ROLE_ACTIVE;; role = FP_ROLE_PASSIVE) {
		const bool active = role == FP_ROLE_ACTIVE;

		core_set_role(&r->core, role, 2 + !active, r->now_ns);
		for (uint32_t i = 0; i < ARRAY_SIZE(asked); i++) {
			struct fp_frame f = frames_arp(r->data, LAN, mac_broadcast, 1, asked[i].sender,
						       LAN_VIP);

			memcpy(r->data + ETH_LEN + 8, asked[i].mac, ETH_ALEN);
			CHECK_EQ(300, rig_step(r, &f), active ? V_ARP_VIP : V_ARP_VIP_NOT_ACTIVE);
			CHECK_EQ(301, core_neigh_wanted(&r->core, wants, 4), asked[i].n);
			if (asked[i].n == 0)
				continue;
			CHECK(302, wants[0].port == LAN && addr_eq(&wants[0].addr, &client));
			CHECK(303, mac_eq(wants[0].mac, asked[i].mac));
		}
		if (!active)
			break;
		rig_sleep(r, 2);
	}
	/* Without a FIB nothing is known; a neighbour that is wanted may have moved within the same second. */
	core_set_fib(&r->core, NULL);
	rig_sleep(r, 2);
	struct fp_frame f = frames_arp(r->data, LAN, mac_broadcast, 1, CLIENT, LAN_VIP);

	memcpy(r->data + ETH_LEN + 8, second, ETH_ALEN);
	CHECK_EQ(304, rig_step(r, &f), V_ARP_VIP_NOT_ACTIVE);
	CHECK_EQ(305, core_neigh_wanted(&r->core, wants, 4), 0);
	neigh_wants_add(&r->core.wants, LAN, &client, r->now_ns);
	neigh_wants_moved(&r->core.wants, LAN, &client, second, r->now_ns);
	CHECK_EQ(306, core_neigh_wanted(&r->core, wants, 4), 2);
	CHECK(307, mac_is_zero(wants[0].mac) && mac_eq(wants[1].mac, second));
	/* Whoever makes up addresses is heard so often in a second, and then no more. */
	for (uint32_t turn = 0; turn < 2; turn++) {
		uint32_t n = 0;

		rig_sleep(r, 2);
		for (uint32_t i = 0; i < 2 * MOVES_MAX; i++) {
			const uint8_t mac[ETH_ALEN] = { 2, 8, 0, 0, (uint8_t)(i >> 8), (uint8_t)i };

			neigh_wants_moved(&r->core.wants, LAN, &client, mac, r->now_ns);
			n += core_neigh_wanted(&r->core, wants, 4);
		}
		CHECK_EQ(308, n, MOVES_MAX);
	}
	rig_free(r);
}

static void check_vip_echo(void)
{
	struct rig *r = rig_active();
	struct spec s = spec_echo;
	struct fp_frame f;

	s.dst = LAN_VIP;
	f = rig_in(r, LAN, &s);
	CHECK_EQ(160, f.verdict, V_VIP_ECHO);
	CHECK_EQ(161, f.out_port, LAN);
	CHECK_EQ(162, out_src(&f).raw, LAN_VIP.raw);
	CHECK_EQ(163, out_dst(&f).raw, CLIENT.raw);
	CHECK_EQ(164, f.data[ETH_LEN + IPV4_LEN], ICMP_ECHO_REPLY);
	CHECK(165, frames_csums_ok(&f));
	CHECK(166, mac_eq(f.data + ETH_SRC, mac_virtual[LAN]) && mac_eq(f.data + ETH_DST, mac_client));
	s.dst = WAN_VIP;
	s.src = SERVER;
	f = rig_in(r, WAN, &s);
	CHECK_EQ(167, f.verdict, V_VIP_ECHO);
	f = frames_ipv4(r->data, WAN, mac_virtual[WAN], &s);
	r->data[f.len - 1] ^= 1;
	CHECK_EQ(168, rig_step(r, &f), V_L4_CHECKSUM);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	CHECK_EQ(169, rig_in(r, WAN, &s).verdict, V_VMAC_NOT_ACTIVE);
	rig_free(r);
}

/* What a node does that is not ACTIVE: everything for itself, nothing for others. */
static void check_passive(void)
{
	struct rig *r = rig_new(0, 1, 1000);
	static const uint32_t roles[] = { FP_ROLE_INIT, FP_ROLE_JOINING, FP_ROLE_PASSIVE, FP_ROLE_MAINTENANCE,
					  FP_ROLE_FAULT };
	struct spec s = spec_syn;
	struct fp_frame f;

	for (uint32_t i = 0; i < ARRAY_SIZE(roles); i++) {
		core_set_role(&r->core, roles[i], 2, r->now_ns);
		f = rig_in(r, LAN, &spec_syn);
		CHECK_EQ(180, f.verdict, V_VMAC_NOT_ACTIVE);
		CHECK_EQ(181, f.out, FP_OUT_NONE);
		f = frames_ipv4(r->data, LAN, mac_self[LAN], &spec_syn);
		CHECK_EQ(182, rig_step(r, &f), V_NOT_ACTIVE);
		s.dst = LAN_SELF;
		f = frames_ipv4(r->data, LAN, mac_self[LAN], &s);
		CHECK_EQ(183, rig_step(r, &f), V_HOST);
		CHECK_EQ(184, f.out, FP_OUT_HOST);
		CHECK_EQ(185, f.fenced, 0);
	}
	CHECK_EQ(186, rig_stats(r).flows, 0);
	rig_free(r);
}

static void check_ethernet(void)
{
	struct rig *r = rig_active();
	struct fp_frame f = frames_ipv4(r->data, LAN, mac_stranger, &spec_syn);

	CHECK_EQ(200, rig_step(r, &f), V_NOT_FOR_US);
	f = frames_ipv4(r->data, LAN, mac_virtual[WAN], &spec_syn); /* the other port's virtual MAC */
	CHECK_EQ(201, rig_step(r, &f), V_NOT_FOR_US);
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_syn);
	memcpy(r->data + ETH_SRC, mac_self[LAN], 6);
	CHECK_EQ(202, rig_step(r, &f), V_OWN_SOURCE);
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &spec_syn);
	be16_store(r->data + ETH_TYPE, be16_of(ETHERTYPE_IPV6));
	CHECK_EQ(203, rig_step(r, &f), V_IPV6_NOT_FORWARDED);
	be16_store(r->data + ETH_TYPE, be16_of(0x88cc));
	CHECK_EQ(204, rig_step(r, &f), V_ETHERTYPE);
	memcpy(r->data + ETH_DST, mac_self[LAN], 6);
	CHECK_EQ(205, rig_step(r, &f), V_HOST);
	be16_store(r->data + ETH_TYPE, be16_of(ETHERTYPE_IPV6));
	CHECK_EQ(206, rig_step(r, &f), V_HOST);
	memcpy(r->data + ETH_DST, mac_broadcast, 6);
	CHECK_EQ(207, rig_step(r, &f), V_HOST_MULTICAST);
	/* Routed as well when it is sent to the port MAC. */
	f = frames_ipv4(r->data, LAN, mac_self[LAN], &spec_syn);
	CHECK_EQ(208, rig_step(r, &f), V_SNAT);
	/* For the node, but sent to the virtual MAC: the kernel wants to see its own. */
	struct spec s = spec_syn;
	s.dst = WAN_SELF;
	f = rig_in(r, LAN, &s);
	CHECK_EQ(209, f.verdict, V_HOST);
	CHECK(210, mac_eq(f.data + ETH_DST, mac_self[LAN]));
	/* From the kernel. */
	f = frames_ipv4(r->data, LAN, mac_client, &spec_syn);
	f.src = FP_SRC_HOST;
	CHECK_EQ(211, rig_step(r, &f), V_HOST_OUT);
	CHECK_EQ(212, f.out, FP_OUT_WIRE);
	CHECK_EQ(213, f.fenced, 0);
	memcpy(r->data + ETH_SRC, mac_virtual[LAN], 6);
	CHECK_EQ(214, rig_step(r, &f), V_HOST_VMAC);
	rig_free(r);
}

static void check_vrrp_and_pulse(void)
{
	struct rig *r = rig_active();
	struct spec s = { .src = LAN_PEER,
			  .dst = IP4(224, 0, 0, 18),
			  .proto = IPPROTO_NUM_VRRP,
			  .ttl = 255,
			  .payload = 12 };
	struct fp_frame f = frames_ipv4(r->data, LAN, mac_vrrp, &s);

	CHECK_EQ(220, rig_step(r, &f), V_VRRP);
	CHECK_EQ(221, f.out, FP_OUT_PUNT);
	s.ttl = 1; /* wrong, but the VRRP machine counts that */
	f = frames_ipv4(r->data, LAN, mac_vrrp, &s);
	CHECK_EQ(222, rig_step(r, &f), V_VRRP);
	s.dst = IP4(224, 0, 0, 5);
	f = frames_ipv4(r->data, LAN, mac_vrrp, &s);
	CHECK_EQ(223, rig_step(r, &f), V_HOST_MULTICAST);
	s = (struct spec){ .src = LAN_PEER,
			   .dst = LAN_SELF,
			   .proto = IPPROTO_NUM_UDP,
			   .sport = 1,
			   .dport = 47850,
			   .ttl = 255,
			   .payload = 64 };
	f = frames_ipv4(r->data, LAN, mac_self[LAN], &s);
	CHECK_EQ(224, rig_step(r, &f), V_PULSE);
	CHECK_EQ(225, f.out, FP_OUT_PULSE);
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	f = frames_ipv4(r->data, LAN, mac_self[LAN], &s);
	CHECK_EQ(226, rig_step(r, &f), V_PULSE);
	s.ttl = 254;
	f = frames_ipv4(r->data, LAN, mac_self[LAN], &s);
	CHECK_EQ(227, rig_step(r, &f), V_PULSE_BAD);
	s.ttl = 255;
	s.src = CLIENT;
	f = frames_ipv4(r->data, LAN, mac_self[LAN], &s);
	CHECK_EQ(228, rig_step(r, &f), V_PULSE_BAD);
	s.src = LAN_PEER;
	f = frames_ipv4(r->data, LAN, mac_self[LAN], &s);
	r->data[f.len - 1] ^= 1;
	CHECK_EQ(229, rig_step(r, &f), V_PULSE_BAD);
	/* The same UDP port of a host on the Internet is nobody's business. */
	core_set_role(&r->core, FP_ROLE_ACTIVE, 4, r->now_ns);
	s = spec_udp;
	s.dport = 47850;
	CHECK_EQ(230, rig_in(r, LAN, &s).verdict, V_SNAT);
	rig_free(r);
}

int main(void)
{
	check_from_outside();
	check_arp();
	check_arp_merge();
	check_vip_echo();
	check_passive();
	check_ethernet();
	check_vrrp_and_pulse();
	return check_done("local");
}
