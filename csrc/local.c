/* SPDX-License-Identifier: Apache-2.0 */
/**
 * local.c - frames that belong to no session
 */
#include "local.h"
#include "gso.h"
#include "icmp.h"
#include "policy.h"
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

uint32_t local_pass_on(const struct core *c, struct fp_frame *frame)
{
	const struct fp_port_cfg *port = &c->cfg->ports[frame->port];
	const uint16_t ethertype = be16_host(be16_load(frame->data + ETH_TYPE));

	if (mac_is_zero(port->peer_mac) || (ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_ARP))
		return V_VMAC_NOT_ACTIVE;
	memcpy(frame->data + ETH_DST, port->peer_mac, ETH_ALEN);
	memcpy(frame->data + ETH_SRC, port->mac, ETH_ALEN);
	frame->out = FP_OUT_WIRE;
	return V_PASSED_ON;
}

uint32_t local_frame(struct core *c, struct fp_frame *frame, enum mac_class to)
{
	uint16_t ethertype = be16_host(be16_load(frame->data + ETH_TYPE));
	uint32_t verdict;

	if (to == MAC_OTHER)
		return V_NOT_FOR_US;
	if (to == MAC_VMAC && c->role != FP_ROLE_ACTIVE)
		return unlikely(c->passes_on) ? local_pass_on(c, frame) : (uint32_t)V_VMAC_NOT_ACTIVE;
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

/* The cross-connect is between the two nodes: nobody else has an address there, and nothing is routed to it. */
static bool is_xc(const struct core *c, be32 v4)
{
	const struct fp_pulse_cfg *cfg = &c->cfg->pulse;

	return cfg->xc_plen &&
	       ((be32_host(v4) ^ be32_host(addr_v4(&cfg->xc_addr))) >> (32 - cfg->xc_plen)) == 0;
}

/* First or last address of a port's prefix: the whole subnet's, not a host's (RFC 1812 section 4.2.3.1). */
bool local_is_subnet(const struct core *c, be32 v4)
{
	for (uint32_t i = 0; i < c->cfg->n_ports; i++) {
		const struct fp_port_cfg *port = &c->cfg->ports[i];
		uint32_t hosts = port->plen < 32 ? UINT32_MAX >> port->plen : 0;
		uint32_t addr = be32_host(v4), own = be32_host(addr_v4(&port->addr));

		/* A /31 or /32 has hosts only (RFC 3021). */
		if (hosts > 1 && ((addr ^ own) & ~hosts) == 0 &&
		    ((addr & hosts) == 0 || (addr & hosts) == hosts))
			return true;
	}
	return false;
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
	if (p->frame->src == FP_SRC_CONDUIT) /* it says nothing of this wire */
		return V_PULSE_BAD;
	p->frame->out = FP_OUT_PULSE;
	return V_PULSE;
}

/* Does a port of an address of ours belong to the NAT: by a pool's range, or a forward? */
static bool is_nat_port(const struct core *c, const struct pkt *p)
{
	const uint32_t pool = nat_pool_of_addr(&c->nat, p->dst);

	if (pool == NAT_POOL_NONE)
		return false;
	switch (p->proto) {
	case IPPROTO_NUM_ICMP:
	case IPPROTO_NUM_TCP:
	case IPPROTO_NUM_UDP:
		return nat_pool_of_v4(&c->nat, p->dst, p->dport) != NAT_POOL_NONE ||
		       policy_reserves(c->policy, (uint8_t)pool, be16_host(p->dport), p->proto);
	default: return true;
	}
}

/*
 * On an address that is the kernel's and a pool's, the pool's ports and the forwards are the NAT's. Of echo, and of
 * what has no ports, only sessions are; they are looked for before this.
 */
static bool is_shared_with_nat(const struct core *c, const struct pkt *p, uint32_t l4)
{
	if (c->role != FP_ROLE_ACTIVE || p->options || l4 != V_GO_ON)
		return false;
	if (p->fragment && !p->frame->l4_known) /* it may be; the first one will say */
		return nat_pool_of_addr(&c->nat, p->dst) != NAT_POOL_NONE;
	switch (p->proto) {
	case IPPROTO_NUM_ICMP: return pkt_is_icmp_error(p) && icmp_error_is_nat(c, p);
	case IPPROTO_NUM_TCP:
	case IPPROTO_NUM_UDP: return is_nat_port(c, p);
	default: return false;
	}
}

/* Sources that nobody has, or only we. */
static uint32_t check_source(const struct core *c, const struct pkt *p, const struct fp_addr *src)
{
	if (p->frame->src == FP_SRC_HAIRPIN) /* a packet that we translated to an address of ours */
		return V_GO_ON;
	if (p->src.raw == p->dst.raw)
		return V_LAND;
	/* While we are not ACTIVE, the peer may well speak to us as the VIP. */
	if (is_own(c, src) || (c->role == FP_ROLE_ACTIVE && vip_serves(c, src)))
		return V_SPOOFED_OWN;
	return V_GO_ON;
}

/* ICMP beyond what a session takes: echo of the VIP. V_GO_ON: as good as TCP and UDP, or an error. */
static uint32_t check_icmp(const struct core *c, const struct pkt *p, bool to_us, bool from_outside)
{
	switch (p->icmp_type) {
	case ICMP_ECHO_REQUEST:
		if (to_us)
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
	struct fp_addr src = addr_from_v4(p->src), dst = addr_from_v4(p->dst);
	uint32_t verdict = check_source(c, p, &src);
	bool to_us;

	if (verdict != V_GO_ON)
		return verdict;
	if (is_own(c, &dst) && !is_shared_with_nat(c, p, l4))
		return own_address(c, p, l4);
	if (is_xc(c, p->src))
		return V_MARTIAN_SOURCE;
	if (is_xc(c, p->dst))
		return V_MARTIAN_DESTINATION;
	if (c->role != FP_ROLE_ACTIVE)
		return V_NOT_ACTIVE;
	if (is_martian(p->src))
		return V_MARTIAN_SOURCE;
	if (is_martian(p->dst))
		return V_MARTIAN_DESTINATION;
	if (local_is_subnet(c, p->src))
		return V_BROADCAST_SOURCE;
	if (local_is_subnet(c, p->dst))
		return V_BROADCAST_DESTINATION;
	if (p->options)
		return V_IP_OPTIONS;
	if (p->fragment && !p->frame->l4_known) /* the rest can be said once the first one has come */
		return V_GO_ON;
	if (l4 != V_GO_ON)
		return l4;
	to_us = vip_serves(c, &dst);
	if (p->proto == IPPROTO_NUM_ICMP) {
		verdict = check_icmp(c, p, to_us, c->ports[p->frame->port].outside);
		if (verdict != V_GO_ON || pkt_is_icmp_error(p))
			return verdict;
	}
	return to_us && !is_nat_port(c, p) ? V_VIP_SERVICE : V_GO_ON;
}
