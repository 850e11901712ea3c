/* SPDX-License-Identifier: Apache-2.0 */
/**
 * steer.h - whose packet is it: the key of its session, and the shard that owns that
 *
 * Theory of operation
 *   Both follow from the packet alone (and from what all workers share: configuration, forwards, next hops),
 *   before any table is looked at. Each form of a session has a rule of its own, for both directions:
 *
 *     form            key, from inside    key, from outside        shard
 *     SNAT            inside + remote     pool, port + remote      the inside endpoint's, which the pool's port names
 *     STATIC          inside + remote     pool, port + remote      the remote endpoint's
 *     NONE            inside + remote     inside + remote          the inside endpoint's
 *     without ports   as their form       as their form            the remote address's
 *
 *   Between two inside zones the smaller endpoint is "inside" and the larger one "remote", so that a session
 *   has one key for each direction wherever it was opened. That costs a route lookup, and is asked only where
 *   there are two inside ports.
 */
#ifndef STEER_H
#define STEER_H

#include "pkt.h"
#include "policy.h"
#include "step.h"

/**
 * struct steer - Endpoints of a packet, as it came in
 * @src:     address
 * @dst:     address
 * @sport:   ICMP echo: the identifier; without ports: 0
 * @dport:   the same
 * @proto:   IANA
 * @outside: it came in by an outside port
 */
struct steer {
	be32 src, dst;
	be16 sport, dport;
	uint8_t proto;
	bool outside;
};

/**
 * steer_is_inside() - Does an address lie in an inside zone?
 *
 * Also while nothing leads there: the key of a session must not follow the state of a link (fp_fib_commit()).
 */
bool steer_is_inside(const struct core *c, be32 v4);

/**
 * steer_smaller() - Which of two addresses of inside zones counts as "inside"
 */
static inline bool steer_smaller(be32 a, be32 b)
{
	return be32_host(a) < be32_host(b);
}

/* steer_inbound(), steer_zones() - what is not in the way of most packets: see steer_key() */
bool steer_inbound(const struct core *c, const struct steer *s, uint32_t pool, struct flow_key *key,
		   uint32_t *shard);
void steer_zones(const struct core *c, const struct steer *s, struct flow_key *key, uint32_t *shard);

/* Shard of what comes from inside and leaves by an outside port. */
uint32_t steer_outbound_shard(const struct core *c, const struct steer *s);

/**
 * steer_key() - Key and shard of the session that a packet would belong to
 * @shard: out; left alone where there is one worker
 *
 * Return: false if none can have it: it is for an address of ours, but for no port of the NAT.
 */
static inline bool steer_key(const struct core *c, const struct steer *s, struct flow_key *key,
			     uint32_t *shard)
{
	const bool icmp = s->proto == IPPROTO_NUM_ICMP;

	if (s->outside) {
		uint32_t pool = nat_pool_of_v4(&c->nat, s->dst, s->dport);

		if (unlikely(pool == NAT_POOL_NONE || c->has_forwards))
			return steer_inbound(c, s, pool, key, shard);
		flow_key_in(key->w, pool, s->dport, s->src, icmp ? be16_of(0) : s->sport, s->proto);
		*shard = nat_port_shard(be16_host(s->dport));
		return true;
	}
	if (unlikely(c->n_inside > 1) && steer_is_inside(c, s->dst)) {
		steer_zones(c, s, key, shard);
		return true;
	}
	flow_key_out(key->w, s->src, s->sport, s->dst, icmp ? be16_of(0) : s->dport, s->proto);
	if (c->cfg->n_workers > 1)
		*shard = steer_outbound_shard(c, s);
	return true;
}

#endif /* STEER_H */
