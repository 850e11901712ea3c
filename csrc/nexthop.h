/* SPDX-License-Identifier: Apache-2.0 */
/**
 * nexthop.h - the last step of a routed packet: where to, and with which Ethernet addresses
 */
#ifndef NEXTHOP_H
#define NEXTHOP_H

#include "gso.h"
#include "ip_cut.h"
#include "pkt.h"
#include "step.h"

/**
 * struct nexthop - Where a packet goes
 * @addr:  neighbour's address
 * @port:  port that it is on
 * @neigh: index into the FIB's neighbours, or FIB_NO_NEIGH while its MAC address is not known, or @peer
 * @peer:  the peer's port, not ours
 */
struct nexthop {
	struct fp_addr addr;
	uint32_t port;
	uint32_t neigh;
	bool peer;
};

/**
 * nexthop_find() - Next hop towards an address, in whatever zone it lies
 * Return: V_GO_ON, V_NO_ROUTE, or V_ZONE_UNREACHABLE: it lies in an inside zone, and nothing leads there.
 */
uint32_t nexthop_find(const struct core *c, const struct fp_addr *dst, struct nexthop *nh);

/**
 * nexthop_route() - Next hop towards an address
 * @outside: zone that it must lie in
 * @denied:  verdict if it lies in the other one
 * Return: V_GO_ON, V_NO_ROUTE, V_ZONE_UNREACHABLE or @denied.
 */
uint32_t nexthop_route(const struct core *c, const struct fp_addr *dst, bool outside, uint32_t denied,
		       struct nexthop *nh);

/* nexthop_flow_anew() - nexthop_flow() of a session whose record holds no current next hop */
COLD uint32_t nexthop_flow_anew(const struct core *c, uint32_t idx, uint32_t side, struct nexthop *nh);

/**
 * nexthop_flow() - Next hop of a session in a direction, from the record's cache if it is current
 *
 * A flow pins its zones: where the route leads into another zone now, the packet is dropped. One between two
 * inside ports pins the ports, because a rule allowed it for them.
 * Return: V_GO_ON, V_NO_ROUTE or V_ZONE_UNREACHABLE.
 */
static HOT uint32_t nexthop_flow(const struct core *c, uint32_t idx, uint32_t side, struct nexthop *nh)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	if (unlikely(!c->fib || f->adj_gen != c->fib->generation || f->adj[side] == ADJ_NONE))
		return nexthop_flow_anew(c, idx, side, nh);
	nh->neigh = f->adj[side];
	nh->port = c->fib->neighs[nh->neigh].port;
	nh->peer = false;
	return V_GO_ON; /* .addr is for a missing neighbour only */
}

/*
 * May the packet leave there, as it is or in fragments? V_GO_ON, V_TTL_EXPIRED or V_TOO_BIG. The segments of an
 * offload frame are what the next wire carries.
 */
static inline uint32_t nexthop_fits(const struct core *c, const struct pkt *p, const struct nexthop *nh)
{
	const uint32_t len = p->frame->vnet.gso_type ? gso_wire_len(p->frame) : (uint32_t)ETH_LEN + p->ip_len;

	if (unlikely(p->ip[IP_TTL] <= 1))
		return V_TTL_EXPIRED;
	if (likely(len <= c->ports[nh->port].len_max))
		return V_GO_ON;
	return ip_cut_may(p->ip) ? V_GO_ON : V_TOO_BIG; /* port_tx() cuts it */
}

/* nexthop_leads_back() - Does the way to a session's inside host lead out of this port now? */
COLD bool nexthop_leads_back(const struct core *c, const struct flow_hot *f, uint32_t port);

/**
 * nexthop_from() - May a packet of a session come from where it came?
 *
 * What comes from inside must come by the port that the session was opened by, or that its host is behind by now: a
 * rule allowed it for that zone, and a host of another one may well forge the source. What comes from outside
 * has a key that says as much, if the session is translated; if not, only the port does. And what comes to
 * a hairpin session from its remote, an address of ours, must come from ourselves.
 *
 * Return: V_GO_ON or V_SPOOFED_SESSION.
 */
static inline uint32_t nexthop_from(const struct core *c, const struct fp_frame *frame,
				    const struct flow_hot *f, uint32_t side)
{
	const uint32_t in_port = f->zones >> 4, out_port = f->zones & 15;
	bool fits = true;

	if (side == SIDE_OUT)
		fits = frame->port == in_port ||
		       (c->ports[out_port].outside && !c->ports[frame->port].outside &&
			nexthop_leads_back(c, f, frame->port));
	else if (f->form == FP_FORM_NONE) /* between inside ports: by port; else by zone */
		fits = c->ports[out_port].outside ? c->ports[frame->port].outside : frame->port == out_port;
	else if (f->flags & FP_RF_HAIRPIN)
		fits = frame->src == FP_SRC_HAIRPIN;
	return likely(fits) ? V_GO_ON : V_SPOOFED_SESSION;
}

/**
 * nexthop_again() - Let a packet to an address of ours come in again where the session says it went out
 * Return: V_AGAIN.
 */
static inline uint32_t nexthop_again(const struct core *c, struct fp_frame *frame, const struct flow_hot *f)
{
	frame->port = f->zones & 15;
	frame->src = FP_SRC_HAIRPIN;
	memcpy(frame->data + ETH_DST, c->ports[frame->port].tx_mac, ETH_ALEN);
	return V_AGAIN;
}

/**
 * nexthop_dress() - Write the Ethernet addresses and destine the frame to the wire, fenced
 */
static HOT void nexthop_dress(const struct core *c, struct fp_frame *frame, uint32_t port,
			      const uint8_t dst_mac[6])
{
	const bool reigns = likely(c->role ==
				   FP_ROLE_ACTIVE); /* else it is sent for the peer, in our own name */

	memcpy(frame->data + ETH_DST, dst_mac, ETH_ALEN);
	memcpy(frame->data + ETH_SRC, reigns ? c->ports[port].tx_mac : c->ports[port].mac, ETH_ALEN);
	frame->out = FP_OUT_WIRE;
	frame->out_port = (uint8_t)port;
	frame->fenced = reigns;
}

/* nexthop_wait() - nexthop_send() of a frame whose neighbour is not known, or not ours */
COLD uint32_t nexthop_wait(struct core *c, struct fp_frame *frame, const struct nexthop *nh,
			   uint32_t verdict);

/**
 * nexthop_send() - Address a frame that is complete but for its Ethernet addresses, or park it
 * @verdict: what it is if all goes well
 * Return: the verdict; @frame says where it goes.
 */
static HOT uint32_t nexthop_send(struct core *c, struct fp_frame *frame, const struct nexthop *nh,
				 uint32_t verdict)
{
	if (unlikely(nh->neigh == FIB_NO_NEIGH))
		return nexthop_wait(c, frame, nh, verdict);
	nexthop_dress(c, frame, nh->port, c->fib->neighs[nh->neigh].mac);
	return verdict;
}

#endif /* NEXTHOP_H */
