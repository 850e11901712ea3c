/* SPDX-License-Identifier: Apache-2.0 */
/**
 * nat.h - external ports
 *
 * Port p of a pool belongs to shard (p >> 1) & 63: a packet for a pool address names its shard, and so its
 * worker, by its port alone, and the lowest bit stays free to keep the parity of the inside port (RFC 4787
 * REQ-4). For each (pool, protocol, shard) there are two bitmaps, even and odd, of 512 bits: bit b stands
 * for port b << 7 | shard << 1 | parity. A set bit is taken, quarantined, or outside the pool's range.
 * The search starts at a random place (RFC 6056: ports are not to be guessed).
 *
 * Where anybody may send to a port (endpoint-independent filtering), a UDP or ICMP port that was given back
 * rests before somebody else gets it, or he would hear what was meant for the one before (RFC 6888 REQ-8; TCP
 * is tracked: exception A; other filtering: exception C). Two more bitmaps hold what rests: freed in this span
 * of limits.port_reuse_s, and in the one before; so a port rests for one span at least and two at most.
 */
#ifndef NAT_H
#define NAT_H

#include "policy.h"

enum nat_proto { NAT_TCP, NAT_UDP, NAT_ICMP, NAT_PROTOS };
enum { NAT_WORDS = 512 / 64, NAT_POOL_NONE = FP_POOL_NONE };

/**
 * struct nat_slice - Ports of one (pool, protocol, shard)
 * @taken:   by parity
 * @resting: by span of time mod 2, and parity
 * @span:    the last one that was looked at
 */
struct nat_slice {
	uint64_t taken[2][NAT_WORDS];
	uint64_t resting[2][2][NAT_WORDS];
	uint64_t span;
};

/**
 * struct nat_pool - What each packet asks of a pool
 * @v4:      its address
 * @port_lo: first port, host order
 * @n_ports: ports from there on
 */
struct nat_pool {
	be32 v4;
	uint16_t port_lo;
	uint16_t n_ports;
};

/**
 * struct nat - All slices
 * @cfg:    pools
 * @policy: forwards, whose ports are not given to anybody; NULL: there are none
 * @slices: [pool][enum nat_proto][shard / n_workers], those of the shards of this worker
 * @n_workers: among which the shards are divided
 * @n_own:  shards of a worker, at most
 * @rng:    state of xorshift64*, seeded from the table key; never 0
 * @pools:  pools, ready to use
 * @n_pools: their number
 */
struct nat {
	const struct fp_config *cfg;
	const struct policy *policy;
	struct nat_slice *slices;
	uint32_t n_workers, n_own;
	uint64_t rng;
	struct nat_pool pools[FP_POOLS_MAX];
	uint32_t n_pools;
};

/**
 * nat_mem_size() - Bytes for one worker's slices of @cfg
 */
size_t nat_mem_size(const struct fp_config *cfg);

/**
 * nat_init() - All ports of the pools' ranges are free
 * @worker: whose shards it is for
 * @mem:    nat_mem_size() bytes
 */
void nat_init(struct nat *n, const struct fp_config *cfg, uint32_t worker, void *mem);

/**
 * nat_proto_of() - Whose ports and timeouts a protocol has; those without ports live as long as UDP
 */
extern const uint8_t nat_protos[256]; /* each packet asks; comparisons could not be predicted */

static inline enum nat_proto nat_proto_of(uint8_t proto)
{
	return (enum nat_proto)nat_protos[proto];
}

/* TCP, UDP and ICMP echo have ports (or an identifier); all else is told apart by addresses alone. */
static inline bool nat_has_ports(uint8_t proto)
{
	return proto == 6 || proto == 17 || proto == 1;
}

/* Shard of an external port. */
static inline uint32_t nat_port_shard(uint16_t port_host)
{
	return (port_host >> 1) & (FP_SHARDS - 1);
}

/**
 * nat_port_alloc() - Pick a free external port
 * @shard:  shard of the inside endpoint
 * @proto:  IPPROTO_*
 * @parity: of the inside port; the other parity is taken only when this one is exhausted
 *
 * Return:  port (never 0), or 0 when the slice is exhausted.
 * Spec:    RFC 4787 REQ-3, REQ-4; RFC 6056; RFC 6888 REQ-8.
 */
be16 nat_port_alloc(struct nat *n, uint32_t pool, uint8_t proto, uint32_t shard, uint32_t parity,
		    uint64_t now_ns);

/**
 * nat_port_random() - Any port of a pool and shard, taken or not
 */
be16 nat_port_random(struct nat *n, uint32_t pool, uint32_t shard);

/**
 * nat_port_claim() - Take one certain port (an imported mapping), resting or not
 * Return: false when it is taken or not in the pool's range.
 */
bool nat_port_claim(struct nat *n, uint32_t pool, uint8_t proto, be16 port);

/**
 * nat_port_free() - Give a port back
 */
void nat_port_free(struct nat *n, uint32_t pool, uint8_t proto, be16 port, uint64_t now_ns);

/**
 * nat_count_free() - Ports of each pool that may be taken
 * @worker: the shards that it owns are counted
 * @free:   FP_POOLS_MAX of them, added to
 */
void nat_count_free(const struct nat *n, uint32_t worker, struct fp_pool_use *free);

/**
 * nat_pool_of() - The pool that has this external endpoint
 * Return: index, or NAT_POOL_NONE.
 */
uint32_t nat_pool_of(const struct nat *n, const struct fp_addr *addr, be16 port);

static inline uint32_t nat_pool_of_v4(const struct nat *n, be32 addr, be16 port)
{
	for (uint32_t i = 0; i < n->n_pools; i++)
		if (n->pools[i].v4.raw == addr.raw &&
		    (uint32_t)be16_host(port) - n->pools[i].port_lo < n->pools[i].n_ports)
			return i;
	return NAT_POOL_NONE;
}

/**
 * nat_pool_of_addr() - The first pool with this address, whatever its ports
 * Return: index, or NAT_POOL_NONE.
 */
static inline uint32_t nat_pool_of_addr(const struct nat *n, be32 addr)
{
	for (uint32_t i = 0; i < n->n_pools; i++)
		if (n->pools[i].v4.raw == addr.raw)
			return i;
	return NAT_POOL_NONE;
}

/**
 * nat_pool_for() - The pool that serves @inside when it leaves by @out_port
 *
 * Several pools of one port share the clients; a client always gets the same one.
 * Return: index, or NAT_POOL_NONE.
 * Spec:   RFC 4787 REQ-2 (IP address pooling: paired).
 */
uint32_t nat_pool_for(const struct nat *n, uint32_t out_port, const struct fp_addr *inside);

/**
 * nat_pool_among() - The same, of certain pools
 * @pools: a bit for each pool; 0: all
 */
uint32_t nat_pool_among(const struct nat *n, uint32_t pools, uint32_t out_port, const struct fp_addr *inside);

#endif /* NAT_H */
