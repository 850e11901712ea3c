/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fib.c - building and searching snapshots of next hops
 */
#include "fib.h"
#include "hash.h"

static size_t align_up(size_t n)
{
	return (n + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

/* At most half full. */
static uint32_t n_buckets(uint32_t n_neighs)
{
	uint32_t n = 2;

	while (n < n_neighs * 2)
		n *= 2;
	return n;
}

size_t fib_mem_size(uint32_t n_routes, uint32_t n_neighs)
{
	if (n_routes > FIB_ROUTES_MAX || n_neighs > FIB_NEIGHS_MAX)
		return 0;
	return align_up(sizeof(struct fib)) + align_up(n_routes * sizeof(struct fp_route)) +
	       align_up(n_neighs * sizeof(struct fp_neigh)) +
	       align_up(n_buckets(n_neighs) * sizeof(uint16_t));
}

static struct fp_addr mask_addr(const struct fp_addr *addr, uint32_t plen)
{
	struct fp_addr masked = *addr;

	for (uint32_t i = 0; i < sizeof(masked.b); i++) {
		uint32_t bits = plen > i * 8 ? min_u32(plen - i * 8, 8) : 0;

		masked.b[i] &= (uint8_t)(0xff00 >> bits);
	}
	return masked;
}

/* Longest first, then by prefix, the better way first, then as given: the copies carry their place in `pad`. */
static int route_order(const void *left, const void *right)
{
	const struct fp_route *a = left, *b = right;
	int by_prefix = memcmp(a->prefix.b, b->prefix.b, sizeof(a->prefix.b));

	if (a->plen != b->plen)
		return a->plen > b->plen ? -1 : 1;
	if (by_prefix || a->way != b->way)
		return by_prefix ? by_prefix : a->way - b->way;
	return memcmp(a->pad, b->pad, sizeof(a->pad));
}

static void add_routes(struct fib *fib, const struct fp_route *routes, uint32_t n)
{
	struct fp_route *out = fib->routes;

	for (uint32_t i = 0; i < n; i++) {
		out[i] = routes[i];
		out[i].plen = (uint8_t)min_u32(routes[i].plen, 128);
		out[i].prefix = mask_addr(&routes[i].prefix, out[i].plen);
		memset(out[i].pad, 0, sizeof(out[i].pad));
		be32_store(out[i].pad, be32_of(i));
	}
	if (n)
		qsort(out, n, sizeof(*out), route_order);
	for (uint32_t i = 0; i < n; i++) {
		const struct fp_route *last = fib->n_routes ? &out[fib->n_routes - 1] : NULL;

		if (last && last->plen == out[i].plen && addr_eq(&last->prefix, &out[i].prefix))
			continue;
		if (!last || last->plen != out[i].plen)
			fib->lens[fib->n_lens++] = (struct fib_len){ .plen = out[i].plen,
								     .first = fib->n_routes };
		fib->lens[fib->n_lens - 1].n++;
		out[fib->n_routes++] = out[i];
	}
}

static uint32_t neigh_bucket(const struct fib *fib, uint32_t port, const struct fp_addr *addr)
{
	/* No secret: neighbours come from our own kernel, which bounds them. */
	const struct hash_key key = { { 0, 0 } };
	uint64_t w[3] = { u64_load(addr->b), u64_load(addr->b + 8), port };

	return (uint32_t)hash_words3(key, w) & fib->bucket_mask;
}

static void add_neighs(struct fib *fib, const struct fp_neigh *neighs, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t b = neigh_bucket(fib, neighs[i].port, &neighs[i].addr);

		if (fib_neigh(fib, neighs[i].port, &neighs[i].addr) != FIB_NO_NEIGH)
			continue;
		while (fib->buckets[b] != FIB_NO_NEIGH)
			b = (b + 1) & fib->bucket_mask;
		fib->buckets[b] = (uint16_t)fib->n_neighs;
		fib->neighs[fib->n_neighs++] = neighs[i];
	}
}

struct fib *fib_build(void *mem, uint32_t generation, const struct fp_route *routes, uint32_t n_routes,
		      const struct fp_neigh *neighs, uint32_t n_neighs)
{
	struct fib *fib = mem;
	uint8_t *at = mem;

	FP_ASSERT(generation && fib_mem_size(n_routes, n_neighs));
	memset(fib, 0, sizeof(*fib));
	fib->generation = generation;
	at += align_up(sizeof(*fib));
	fib->routes = (struct fp_route *)(void *)at;
	at += align_up(n_routes * sizeof(struct fp_route));
	fib->neighs = (struct fp_neigh *)(void *)at;
	at += align_up(n_neighs * sizeof(struct fp_neigh));
	fib->buckets = (uint16_t *)(void *)at;
	fib->bucket_mask = n_buckets(n_neighs) - 1;
	memset(fib->buckets, 0xff, n_buckets(n_neighs) * sizeof(uint16_t));
	add_routes(fib, routes, n_routes);
	add_neighs(fib, neighs, n_neighs);
	return fib;
}

static const struct fp_route *find_exact(const struct fib *fib, const struct fib_len *len,
					 const struct fp_addr *prefix)
{
	uint32_t lo = len->first, hi = len->first + len->n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		int order = memcmp(prefix->b, fib->routes[mid].prefix.b, sizeof(prefix->b));

		if (!order)
			return &fib->routes[mid];
		if (order < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return NULL;
}

/* Longest prefix match among routes of lens[@first] and shorter ones. */
static const struct fp_route *find_from(const struct fib *fib, const struct fp_addr *dst, uint32_t first,
					bool unreachable_too)
{
	for (uint32_t i = first; i < fib->n_lens; i++) {
		struct fp_addr prefix = mask_addr(dst, fib->lens[i].plen);
		const struct fp_route *route = find_exact(fib, &fib->lens[i], &prefix);

		if (route && (unreachable_too || route->way != FP_WAY_NOWHERE))
			return route;
	}
	return NULL;
}

const struct fp_route *fib_route(const struct fib *fib, const struct fp_addr *dst)
{
	return find_from(fib, dst, 0, true);
}

void fib_cover(struct fib *fib, uint32_t ports)
{
	for (uint32_t i = 0; i < fib->n_lens; i++) {
		for (uint32_t k = 0; k < fib->lens[i].n; k++) {
			struct fp_route *route = &fib->routes[fib->lens[i].first + k];
			const struct fp_route *cover;

			if (route->way != FP_WAY_NOWHERE)
				continue;
			cover = find_from(fib, &route->prefix, i + 1, false);
			if (!cover || !(ports >> cover->port & 1))
				continue;
			route->way = cover->way;
			route->port = cover->port;
			route->gateway = cover->gateway;
		}
	}
}

uint32_t fib_neigh(const struct fib *fib, uint32_t port, const struct fp_addr *addr)
{
	uint32_t b = neigh_bucket(fib, port, addr);

	for (; fib->buckets[b] != FIB_NO_NEIGH; b = (b + 1) & fib->bucket_mask) {
		const struct fp_neigh *n = &fib->neighs[fib->buckets[b]];

		if (n->port == port && addr_eq(&n->addr, addr))
			return fib->buckets[b];
	}
	return FIB_NO_NEIGH;
}
