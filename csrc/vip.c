/* SPDX-License-Identifier: Apache-2.0 */
/**
 * vip.c - answers for virtual addresses
 */
#include "vip.h"
#include "conduit.h"
#include "csum.h"
#include "nexthop.h"

enum {
	ARP_LEN = 28,
	ARP_HTYPE_PTYPE = 0,
	ARP_HLEN_PLEN = 4,
	ARP_OP = 6,
	ARP_SHA = 8,
	ARP_SPA = 14,
	ARP_THA = 18,
	ARP_TPA = 24,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
	VIP_TTL = 64
};

bool vip_of_port(const struct core *c, uint32_t port, const struct fp_addr *addr)
{
	const struct fp_port_cfg *p = &c->cfg->ports[port];

	for (uint32_t i = 0; i < p->n_vips; i++)
		if (addr_eq(&p->vip[i], addr))
			return true;
	return false;
}

bool vip_of_node(const struct core *c, const struct fp_addr *addr)
{
	for (uint32_t port = 0; port < c->cfg->n_ports; port++)
		if (vip_of_port(c, port, addr))
			return true;
	return false;
}

/* Is it an address of the kernel's? */
static bool is_own(const struct core *c, const struct fp_addr *addr)
{
	for (uint32_t i = 0; i < c->cfg->n_ports; i++)
		if (addr_eq(&c->cfg->ports[i].addr, addr))
			return true;
	return false;
}

static bool is_pool(const struct core *c, be32 v4, uint32_t out_port)
{
	for (uint32_t i = 0; i < c->cfg->n_pools; i++)
		if (c->nat.pools[i].v4.raw == v4.raw && c->cfg->pools[i].out_port == out_port)
			return true;
	return false;
}

bool vip_serves(const struct core *c, const struct fp_addr *addr)
{
	return vip_of_node(c, addr) ||
	       (nat_pool_of_addr(&c->nat, addr_v4(addr)) != NAT_POOL_NONE && !is_own(c, addr));
}

/* What we answer ARP requests for on a port: its VIPs, and its pools' addresses of its own prefix. */
static bool is_on_link(const struct core *c, uint32_t port, be32 v4)
{
	const struct fp_port_cfg *cfg = &c->cfg->ports[port];
	const struct fp_addr addr = addr_from_v4(v4);
	const uint32_t host_bits = cfg->plen < 32 ? UINT32_MAX >> cfg->plen : 0;

	if (vip_of_port(c, port, &addr))
		return true;
	return ((be32_host(v4) ^ be32_host(addr_v4(&cfg->addr))) & ~host_bits) == 0 && is_pool(c, v4, port) &&
	       !is_own(c, &addr);
}

/* The kernel would take a known neighbour's new MAC address from any request of its, and this one it never sees. */
static void merge(struct core *c, uint32_t port, be32 ip, const uint8_t *mac)
{
	const struct fp_addr addr = addr_from_v4(ip);
	const uint32_t neigh = c->fib ? fib_neigh(c->fib, port, &addr) : FIB_NO_NEIGH;

	if (neigh != FIB_NO_NEIGH && !mac_is_zero(mac) && !mac_eq(c->fib->neighs[neigh].mac, mac))
		neigh_wants_moved(&c->wants, port, &addr, mac, c->now_ns);
}

uint32_t vip_arp(struct core *c, struct fp_frame *frame)
{
	static const uint8_t ether_ipv4[6] = { 0, 1, 8, 0, 6, 4 }; /* htype, ptype, hlen, plen */
	const struct core_port *port = &c->ports[frame->port];
	uint8_t *arp = frame->data + ETH_LEN;
	uint8_t asked_mac[ETH_ALEN];
	be32 sender_ip, target_ip;
	bool borrows;

	if (frame->len < ETH_LEN + ARP_LEN || memcmp(arp + ARP_HTYPE_PTYPE, ether_ipv4, sizeof(ether_ipv4)))
		return V_ARP_MALFORMED;
	sender_ip = be32_load(arp + ARP_SPA);
	target_ip = be32_load(arp + ARP_TPA);
	if (be16_host(be16_load(arp + ARP_OP)) != ARP_REQUEST || !is_on_link(c, frame->port, target_ip))
		return V_HOST_ARP;
	if (sender_ip.raw == target_ip.raw)
		return V_ARP_VIP_CLAIM;
	if (mac_is_group(arp + ARP_SHA))
		return V_ARP_MALFORMED;
	merge(c, frame->port, sender_ip, arp + ARP_SHA);
	borrows = c->role != FP_ROLE_ACTIVE && conduit_borrows(c->conduit, frame->port);
	if (c->role != FP_ROLE_ACTIVE && !borrows)
		return V_ARP_VIP_NOT_ACTIVE;
	if (conduit_lends(c->conduit, frame->port)) /* the peer answers */
		return V_ARP_VIP_NOT_ACTIVE;
	memcpy(asked_mac, arp + ARP_SHA, ETH_ALEN);
	be16_store(arp + ARP_OP, be16_of(ARP_REPLY));
	memcpy(arp + ARP_THA, asked_mac, ETH_ALEN);
	be32_store(arp + ARP_TPA, sender_ip);
	memcpy(arp + ARP_SHA, borrows ? port->vmac : port->tx_mac, ETH_ALEN);
	be32_store(arp + ARP_SPA, target_ip);
	frame->vnet = (struct fp_vnet){ 0 };
	nexthop_dress(c, frame, frame->port, asked_mac);
	if (borrows) /* not fenced: for the peer, which has the role */
		memcpy(frame->data + ETH_SRC, port->vmac, ETH_ALEN);
	return V_ARP_VIP;
}

uint32_t vip_echo(const struct core *c, const struct pkt *p)
{
	struct fp_frame *frame = p->frame;
	uint8_t asker_mac[ETH_ALEN];
	be16 type_code, reply = be16_of(ICMP_ECHO_REPLY << 8);

	if (!pkt_l4_csum_ok(p))
		return V_L4_CHECKSUM;
	memcpy(asker_mac, frame->data + ETH_SRC, ETH_ALEN);
	type_code = be16_load(p->l4 + ICMP_TYPE);
	be16_store(p->l4 + ICMP_TYPE, reply);
	be16_store(p->l4 + ICMP_CSUM,
		   csum_update(be16_load(p->l4 + ICMP_CSUM), csum_delta16(type_code, reply)));
	be32_store(p->ip + IP_SRC, p->dst);
	be32_store(p->ip + IP_DST, p->src);
	p->ip[IP_TTL] = VIP_TTL;
	be16_store(p->ip + IP_CSUM, be16_of(0));
	be16_store(p->ip + IP_CSUM, (be16){ (uint16_t)~csum_fold(csum_sum(p->ip, IPV4_LEN)) });
	frame->len = ETH_LEN + p->ip_len;
	frame->vnet = (struct fp_vnet){ 0 };
	if (conduit_lends(c->conduit,
			  frame->port)) { /* it came by the peer's wire, and the answer leaves by it */
		(void)conduit_from_active(c, frame, frame->port);
		return V_VIP_ECHO;
	}
	nexthop_dress(c, frame, frame->port, asker_mac);
	return V_VIP_ECHO;
}
