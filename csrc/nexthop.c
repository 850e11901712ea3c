/* SPDX-License-Identifier: Apache-2.0 */
/**
 * nexthop.c - route, neighbour, Ethernet header
 */
#include "nexthop.h"
#include "conduit.h"

static_assert((int)ADJ_NONE == (int)FIB_NO_NEIGH, "a record caches \"no neighbour\" as it comes");

uint32_t nexthop_find(const struct core *c, const struct fp_addr *dst, struct nexthop *nh)
{
	const struct fp_route *route = c->fib ? fib_route(c->fib, dst) : NULL;

	if (!route || route->port >= c->cfg->n_ports)
		return V_NO_ROUTE;
	if (unlikely(route->way == FP_WAY_NOWHERE))
		return V_ZONE_UNREACHABLE;
	nh->port = route->port;
	nh->addr = addr_is_zero(&route->gateway) ? *dst : route->gateway;
	nh->peer = route->way == FP_WAY_PEER;
	nh->neigh = nh->peer ? (uint32_t)FIB_NO_NEIGH : fib_neigh(c->fib, nh->port, &nh->addr);
	return V_GO_ON;
}

uint32_t nexthop_route(const struct core *c, const struct fp_addr *dst, bool outside, uint32_t denied,
		       struct nexthop *nh)
{
	uint32_t verdict = nexthop_find(c, dst, nh);

	return verdict == V_GO_ON && c->ports[nh->port].outside != outside ? denied : verdict;
}

bool nexthop_leads_back(const struct core *c, const struct flow_hot *f, uint32_t port)
{
	struct nexthop nh;

	return nexthop_find(c, &f->inside, &nh) == V_GO_ON && nh.port == port;
}

/* The route of a session's side, if it still leads to where the session was opened. */
static uint32_t pinned_route(const struct core *c, const struct flow_hot *f, uint32_t side,
			     struct nexthop *nh)
{
	const uint32_t in_port = f->zones >> 4, out_port = f->zones & 15;
	const bool zones = !c->ports[out_port].outside;
	uint32_t verdict = nexthop_route(c, side == SIDE_OUT ? &f->remote : &f->inside,
					 side == SIDE_OUT && !zones, V_ZONE_UNREACHABLE, nh);

	if (verdict == V_GO_ON && zones && nh->port != (side == SIDE_OUT ? out_port : in_port))
		return V_ZONE_UNREACHABLE;
	return verdict;
}

uint32_t nexthop_flow_anew(const struct core *c, uint32_t idx, uint32_t side, struct nexthop *nh)
{
	struct flow_hot *f = &c->table.rec[idx].hot;
	uint32_t verdict = pinned_route(c, f, side, nh);

	if (verdict != V_GO_ON)
		return verdict;
	if (f->adj_gen != c->fib->generation) {
		f->adj_gen = c->fib->generation;
		f->adj[side ^ 1] = ADJ_NONE;
	}
	f->adj[side] = (uint16_t)nh->neigh;
	return V_GO_ON;
}

uint32_t nexthop_wait(struct core *c, struct fp_frame *frame, const struct nexthop *nh, uint32_t verdict)
{
	if (nh->peer)
		return conduit_from_active(c, frame, nh->port);
	neigh_wants_add(&c->wants, nh->port, &nh->addr, c->now_ns);
	if (frame->len > FP_FRAME_MAX) /* TCP sends again; a slot for 64 KiB is not worth its memory */
		return V_NEIGH_BIG;
	if (!park_frame(&c->park, frame, nh->port, &nh->addr, (uint16_t)verdict, c->now_ns))
		return V_NEIGH_FULL;
	counter_set(&c->stat.neigh_waiting, c->park.n);
	frame->out = FP_OUT_WAIT;
	frame->out_port = (uint8_t)nh->port;
	frame->next_hop = nh->addr;
	return V_NEIGH_WAIT;
}
