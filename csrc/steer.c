/* SPDX-License-Identifier: Apache-2.0 */
/**
 * steer.c - keys and shards of all that is not plain outbound NAT
 */
#include "steer.h"

static uint32_t shard_of(const struct core *c, be32 addr, be16 port, uint8_t proto)
{
	struct fp_addr a = addr_from_v4(addr);

	return core_shard(c->cfg, &a, port, proto);
}

bool steer_is_inside(const struct core *c, be32 v4)
{
	struct fp_addr dst = addr_from_v4(v4);
	const struct fp_route *route = c->fib ? fib_route(c->fib, &dst) : NULL;

	return route && route->port < c->cfg->n_ports && !c->ports[route->port].outside;
}

bool steer_inbound(const struct core *c, const struct steer *s, uint32_t pool, struct flow_key *key,
		   uint32_t *shard)
{
	const bool icmp = s->proto == IPPROTO_NUM_ICMP, portless = !nat_has_ports(s->proto);
	const be16 none = be16_of(0), remote_port = icmp ? none : s->sport;
	const uint32_t by_addr = nat_pool_of_addr(&c->nat, s->dst);
	const struct fp_forward *forward;

	if (by_addr == NAT_POOL_NONE) {
		flow_key_in_none(key->w, s->dst, s->dport, s->src, remote_port, s->proto);
		*shard = portless ? shard_of(c, s->src, none, s->proto)
				  : shard_of(c, s->dst, s->dport, s->proto);
		return true;
	}
	forward = icmp ? NULL : policy_forward_in(c->policy, (uint8_t)by_addr, be16_host(s->dport), s->proto);
	if (forward || portless) {
		flow_key_in(key->w, by_addr, s->dport, s->src, s->sport, s->proto);
		*shard = shard_of(c, s->src, s->sport, s->proto);
		return true;
	}
	if (pool == NAT_POOL_NONE)
		return false;
	flow_key_in(key->w, pool, s->dport, s->src, remote_port, s->proto);
	*shard = nat_port_shard(be16_host(s->dport));
	return true;
}

void steer_zones(const struct core *c, const struct steer *s, struct flow_key *key, uint32_t *shard)
{
	const bool src_inside = steer_smaller(s->src, s->dst);
	const be32 inside = src_inside ? s->src : s->dst, remote = src_inside ? s->dst : s->src;
	const be16 inside_port = src_inside ? s->sport : s->dport, none = be16_of(0);
	const be16 remote_port = s->proto == IPPROTO_NUM_ICMP ? none : src_inside ? s->dport : s->sport;

	if (src_inside)
		flow_key_out(key->w, inside, inside_port, remote, remote_port, s->proto);
	else
		flow_key_in_none(key->w, inside, inside_port, remote, remote_port, s->proto);
	*shard = nat_has_ports(s->proto) ? shard_of(c, inside, inside_port, s->proto)
					 : shard_of(c, remote, none, s->proto);
}

uint32_t steer_outbound_shard(const struct core *c, const struct steer *s)
{
	struct fp_addr src = addr_from_v4(s->src);

	if (!nat_has_ports(s->proto))
		return shard_of(c, s->dst, be16_of(0), s->proto);
	if (c->has_forwards && s->proto != IPPROTO_NUM_ICMP &&
	    policy_forward_out(c->policy, &src, be16_host(s->sport), s->proto))
		return shard_of(c, s->dst, s->dport, s->proto);
	return core_shard(c->cfg, &src, s->sport, s->proto);
}
