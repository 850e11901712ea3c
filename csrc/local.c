/* SPDX-License-Identifier: Apache-2.0 */
/**
 * local.c - frames that belong to no session
 */
#include "local.h"
#include "gso.h"
#include "vip.h"

enum { TTL_ADJACENT = 255 }; /* RFC 5082: cannot come from further away than this wire */

static const uint8_t vrrp_group[4] = { 224, 0, 0, 18 };

static uint32_t to_host(const struct core *c, struct fp_frame *frame, uint32_t verdict)
{
	/* The kernel takes a frame for the virtual MAC for somebody else's. */
	if (!mac_is_group(frame->data + ETH_DST))
		memcpy(frame->data + ETH_DST, c->ports[frame->port].mac, ETH_ALEN);
	frame->out = FP_OUT_HOST;
	return verdict;
}

enum mac_class local_classify(const struct core *c, const struct fp_frame *frame)
{
	const struct core_port *port = &c->ports[frame->port];
	const uint8_t *dst = frame->data + ETH_DST;

	if (port->has_vmac && mac_eq(dst, port->vmac))
		return MAC_VMAC;
	if (mac_eq(dst, port->mac))
		return MAC_PORT;
	return mac_is_group(dst) ? MAC_GROUP : MAC_OTHER;
}

uint32_t local_from_host(const struct core *c, struct fp_frame *frame)
{
	const struct core_port *port = &c->ports[frame->port];

	if (port->has_vmac && mac_eq(frame->data + ETH_SRC, port->vmac))
		return V_HOST_VMAC;
	frame->out = FP_OUT_WIRE;
	return V_HOST_OUT;
}

/* Group-addressed IPv4: VRRP for the control plane, all else for the kernel. */
static uint32_t group_ipv4(const struct core *c, struct fp_frame *frame)
{
	struct pkt p;
	uint32_t verdict = pkt_parse_ip(&p, frame);

	if (verdict != V_GO_ON)
		return verdict;
	if (p.proto != IPPROTO_NUM_VRRP || p.dst.raw != be32_load(vrrp_group).raw)
		return to_host(c, frame, V_HOST_MULTICAST);
	if (frame->vnet.gso_type)
		return V_VNET_MALFORMED;
	if (frame->vnet.flags & FP_VNET_NEEDS_CSUM) /* control plane verifies */
		gso_complete(frame);
	frame->out = FP_OUT_PUNT;
	return V_VRRP;
}

uint32_t local_frame(const struct core *c, struct fp_frame *frame, enum mac_class to)
{
	uint16_t ethertype = be16_host(be16_load(frame->data + ETH_TYPE));
	uint32_t verdict;

	if (to == MAC_OTHER)
		return V_NOT_FOR_US;
	if (to == MAC_VMAC && c->role != FP_ROLE_ACTIVE)
		return V_VMAC_NOT_ACTIVE;
	if (ethertype == ETHERTYPE_ARP) {
		verdict = vip_arp(c, frame);
		return verdict == V_HOST_ARP ? to_host(c, frame, verdict) : verdict;
	}
	if (to == MAC_GROUP)
		return ethertype == ETHERTYPE_IPV4 ? group_ipv4(c, frame)
						   : to_host(c, frame, V_HOST_MULTICAST);
	if (to == MAC_PORT)
		return to_host(c, frame, V_HOST);
	return ethertype == ETHERTYPE_IPV6 ? V_IPV6_NOT_FORWARDED : V_ETHERTYPE;
}

/* 0/8, 127/8, 224/4 and 240/4 are nobody's to send from or to route to (RFC 1812 section 5.3.7). */
static bool is_martian(be32 v4)
{
	uint8_t first = (uint8_t)(be32_host(v4) >> 24);

	return first == 0 || first == 127 || first >= 224;
}

static bool is_own(const struct core *c, const struct fp_addr *addr)
{
	for (uint32_t i = 0; i < c->cfg->n_ports; i++)
		if (addr_eq(&c->cfg->ports[i].addr, addr))
			return true;
	return false;
}

/* Whoever speaks to the heartbeat port of a port that has a peer must be that peer. */
static uint32_t own_address(const struct core *c, const struct pkt *p, uint32_t l4)
{
	const struct fp_port_cfg *port = &c->cfg->ports[p->frame->port];
	struct fp_addr src = addr_from_v4(p->src), dst = addr_from_v4(p->dst);

	if (p->fragment || l4 != V_GO_ON || p->proto != IPPROTO_NUM_UDP || mac_is_zero(port->peer_mac) ||
	    be16_host(p->dport) != c->cfg->pulse.udp_port || !addr_eq(&dst, &port->addr))
		return to_host(c, p->frame, V_HOST);
	if (!addr_eq(&src, &port->peer_addr) || p->ip[IP_TTL] != TTL_ADJACENT || p->options ||
	    !pkt_l4_csum_ok(p))
		return V_PULSE_BAD;
	p->frame->out = FP_OUT_PULSE;
	return V_PULSE;
}

/* ICMP beyond what a session takes: echo of the VIP. V_GO_ON: as good as TCP and UDP, or an error. */
static uint32_t check_icmp(const struct core *c, const struct pkt *p, bool to_vip, bool from_outside)
{
	switch (p->icmp_type) {
	case ICMP_ECHO_REQUEST:
		if (to_vip)
			return p->fragment ? (uint32_t)V_FRAG_VIP_ECHO : vip_echo(c, p);
		return V_GO_ON;
	case ICMP_ECHO_REPLY: return from_outside ? V_GO_ON : V_ICMP_TYPE;
	case ICMP_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM: return V_GO_ON;
	default: return V_ICMP_TYPE;
	}
}

uint32_t local_ipv4(const struct core *c, struct pkt *p, uint32_t l4)
{
	bool outside = c->ports[p->frame->port].outside, to_vip, to_pool;
	struct fp_addr src = addr_from_v4(p->src), dst = addr_from_v4(p->dst);
	uint32_t verdict;

	if (is_own(c, &dst))
		return own_address(c, p, l4);
	if (c->role != FP_ROLE_ACTIVE)
		return V_NOT_ACTIVE;
	to_vip = vip_of_node(c, &dst);
	if (is_martian(p->src) || is_own(c, &src) || vip_of_node(c, &src))
		return V_MARTIAN_SOURCE;
	if (is_martian(p->dst))
		return V_MARTIAN_DESTINATION;
	if (p->options)
		return V_IP_OPTIONS;
	if (p->fragment && !p->frame->l4_known) /* the rest can be said once the first one has come */
		return V_GO_ON;
	if (l4 != V_GO_ON)
		return l4;
	if (p->proto == IPPROTO_NUM_ICMP) {
		verdict = check_icmp(c, p, to_vip, outside);
		if (verdict != V_GO_ON || pkt_is_icmp_error(p))
			return verdict;
	}
	to_pool = nat_pool_of(&c->nat, &dst, p->dport) != NAT_POOL_NONE;
	if (to_pool)
		return outside ? V_NO_SESSION : V_HAIRPIN;
	if (to_vip)
		return V_VIP_SERVICE;
	return outside ? V_OUTSIDE_DENIED : V_GO_ON;
}
