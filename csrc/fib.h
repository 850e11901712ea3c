/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fib.h - next hops: an immutable snapshot of routes and neighbours
 *
 * Built by the control thread into memory of its own, then handed to all workers, which only read it.
 * Routes are sorted by length and prefix: one binary search for each length in use, longest first. Flows
 * cache the result together with the snapshot's generation, so that a lookup is rare.
 *
 * Unreachable routes say which zone a prefix belongs to while nothing leads there. They lose against another
 * route of the same prefix; fib_cover() lets them give way to a shorter one that leads inside.
 */
#ifndef FIB_H
#define FIB_H

#include "base.h"

enum {
	FIB_ROUTES_MAX = 1 << 20,
	FIB_NEIGHS_MAX = 65535 - 1, /* a flow caches a neighbour as 16 bits; FIB_NO_NEIGH is taken */
	FIB_NO_NEIGH = 0xffff
};

/**
 * struct fib_len - The routes of one prefix length
 * @plen:  length in the 128-bit form
 * @first: index of the first one in fib.routes
 * @n:     how many
 */
struct fib_len {
	uint32_t plen;
	uint32_t first;
	uint32_t n;
};

/**
 * struct fib - A snapshot
 * @generation: never 0; another one for each snapshot
 * @n_lens:     prefix lengths in use
 * @lens:       longest first
 * @n_routes:   routes
 * @routes:     sorted by length, then by prefix
 * @n_neighs:   neighbours
 * @neighs:     in the order given
 * @bucket_mask: size of @buckets - 1
 * @buckets:    open addressing: index into @neighs, FIB_NO_NEIGH = empty
 */
struct fib {
	uint32_t generation;
	uint32_t n_lens;
	struct fib_len lens[129];
	uint32_t n_routes;
	struct fp_route *routes;
	uint32_t n_neighs;
	struct fp_neigh *neighs;
	uint32_t bucket_mask;
	uint16_t *buckets;
};

/**
 * fib_mem_size() - Bytes that fib_build() wants; 0 when a number is beyond FIB_*_MAX
 */
size_t fib_mem_size(uint32_t n_routes, uint32_t n_neighs);

/**
 * fib_build() - Build a snapshot
 * @mem:        fib_mem_size() bytes, aligned to a cache line
 * @generation: not 0, not that of the snapshot before
 * @routes:     host bits beyond plen are ignored; of equal prefixes the best way wins, then the first one
 *
 * Return: the snapshot, which lives in @mem (free @mem to free it).
 */
struct fib *fib_build(void *mem, uint32_t generation, const struct fp_route *routes, uint32_t n_routes,
		      const struct fp_neigh *neighs, uint32_t n_neighs);

/**
 * fib_cover() - What an unreachable route is for goes by a shorter route, if that leads to one of these ports
 * @ports: a bit each
 *
 * So a prefix of an inside zone is reached by way of another one, but never by the route to the ISP.
 */
void fib_cover(struct fib *fib, uint32_t ports);

/**
 * fib_route() - Longest prefix match
 * Return: the route, unreachable or not, or NULL.
 */
const struct fp_route *fib_route(const struct fib *fib, const struct fp_addr *dst);

/**
 * fib_neigh() - Find a neighbour on a port
 * Return: index into fib->neighs, or FIB_NO_NEIGH.
 */
uint32_t fib_neigh(const struct fib *fib, uint32_t port, const struct fp_addr *addr);

#endif /* FIB_H */
