/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_fib.c - longest prefix match and neighbours, against a slow and obvious search
 */
#include "../fib.h"
#include "check.h"

static struct fp_addr v4(uint32_t host)
{
	return addr_from_v4(be32_of(host));
}

static struct fp_route route(uint32_t prefix, uint32_t plen, uint8_t port)
{
	return (struct fp_route){ .prefix = v4(prefix), .plen = (uint8_t)(96 + plen), .port = port };
}

static struct fib *build(const struct fp_route *r, uint32_t n, const struct fp_neigh *h, uint32_t m)
{
	return fib_build(aligned_alloc(64, fib_mem_size(n, m)), 7, r, n, h, m);
}

static int port_of(const struct fib *fib, uint32_t dst)
{
	struct fp_addr addr = v4(dst);
	const struct fp_route *r = fib_route(fib, &addr);

	return r ? r->port : -1;
}

static void check_lpm(void)
{
	const struct fp_route routes[] = {
		route(0x00000000, 0, 1),  route(0x0a000000, 8, 2),
		route(0x0a010000, 16, 3), route(0x0a0102ff, 24, 4), /* host bits are ignored */
		route(0x0a010203, 32, 5), route(0x0a010203, 32, 6), /* the first one wins */
	};
	struct fib *fib = build(routes, ARRAY_SIZE(routes), NULL, 0), *empty = build(NULL, 0, NULL, 0);
	struct fib *lan = build(routes + 1, 1, NULL, 0);

	CHECK_EQ(1, port_of(fib, 0x08080808), 1);
	CHECK_EQ(2, port_of(fib, 0x0aff0000), 2);
	CHECK_EQ(3, port_of(fib, 0x0a01ff00), 3);
	CHECK_EQ(4, port_of(fib, 0x0a010200), 4);
	CHECK_EQ(5, port_of(fib, 0x0a010203), 5);
	CHECK_EQ(6, fib->n_routes, 5);
	CHECK_EQ(7, port_of(empty, 0x0a010203), -1);
	CHECK_EQ(8, port_of(lan, 0x0a010203), 2);
	CHECK_EQ(9, port_of(lan, 0x0b010203), -1);
	free(fib);
	free(empty);
	free(lan);
}

/* Which port, or 100 and more: unreachable. */
static int zone_of(const struct fib *fib, uint32_t dst)
{
	struct fp_addr addr = v4(dst);
	const struct fp_route *r = fib_route(fib, &addr);

	return r ? r->port + 100 * (r->way == FP_WAY_NOWHERE) : -1;
}

/* Ports 2 and 3 are inside. */
static void check_unreachable(void)
{
	struct fp_route routes[] = {
		route(0x00000000, 0, 1),  route(0x0a000000, 8, 2),  /* covers inside */
		route(0x0a010000, 16, 3), route(0x14000000, 8, 1),  /* covers outside */
		route(0x14010000, 16, 3), route(0x14010000, 16, 1), /* known elsewhere */
		route(0x14020000, 16, 3), route(0x14020100, 24, 1), /* and a part of it */
		route(0x1e000000, 8, 3),
	};
	const struct fp_addr behind = v4(0x0a010001);
	struct fib *fib;

	for (uint32_t i = 2; i < 9; i += 2)
		routes[i].way = FP_WAY_NOWHERE;
	routes[1].gateway = v4(0x0a000001);
	fib = build(routes, ARRAY_SIZE(routes), NULL, 0);
	CHECK_EQ(30, zone_of(fib, 0x0a010001), 103);
	fib_cover(fib, 1u << 2 | 1u << 3);
	CHECK_EQ(31, zone_of(fib, 0x0a010001), 2);
	CHECK(32, addr_eq(&fib_route(fib, &behind)->gateway, &routes[1].gateway));
	CHECK_EQ(33, zone_of(fib, 0x14010001), 1);
	CHECK_EQ(34, zone_of(fib, 0x14020001), 103);
	CHECK_EQ(35, zone_of(fib, 0x14020101), 1);
	CHECK_EQ(36, zone_of(fib, 0x1e000001), 103);
	CHECK_EQ(37, zone_of(fib, 0x1f000001), 1);
	CHECK_EQ(38, fib->n_routes, ARRAY_SIZE(routes) - 1);
	free(fib);
}

static void check_v6(void)
{
	struct fp_route routes[] = { { .plen = 32, .port = 1 },
				     { .plen = 48, .port = 2 },
				     { .plen = 128, .port = 3 },
				     { .plen = 0, .port = 4 } };
	struct fp_addr dst = { { 0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9 } };
	struct fib *fib;

	for (uint32_t i = 0; i < 3; i++)
		routes[i].prefix = dst;
	fib = build(routes, 4, NULL, 0);
	CHECK_EQ(20, fib_route(fib, &dst)->port, 3);
	dst.b[15] = 8;
	CHECK_EQ(21, fib_route(fib, &dst)->port, 2);
	dst.b[5] = 2;
	CHECK_EQ(22, fib_route(fib, &dst)->port, 1);
	dst.b[0] = 0xfe;
	CHECK_EQ(23, fib_route(fib, &dst)->port, 4);
	free(fib);
}

static int slow_port(const struct fp_route *r, uint32_t n, uint32_t dst)
{
	int best = -1, best_plen = -1;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t plen = r[i].plen - 96u, mask = plen ? ~0u << (32 - plen) : 0;

		if (((be32_host(addr_v4(&r[i].prefix)) ^ dst) & mask) == 0 && (int)plen > best_plen) {
			best_plen = (int)plen;
			best = r[i].port;
		}
	}
	return best;
}

static void check_random(void)
{
	enum { N = 2000 };
	static struct fp_route routes[N];
	uint32_t x = 1, differ = 0;
	struct fib *fib;

	for (uint32_t i = 0; i < N; i++) {
		x = x * 1664525 + 1013904223;
		routes[i] = route(x & 0x0fffffff, 1 + (x >> 8) % 32, (uint8_t)(i % 7));
	}
	fib = build(routes, N, NULL, 0);
	for (uint32_t i = 0; i < 20000; i++) {
		x = x * 1664525 + 1013904223;
		differ += port_of(fib, x & 0x0fffffff) != slow_port(routes, N, x & 0x0fffffff);
	}
	CHECK_EQ(40, differ, 0);
	free(fib);
}

static void check_neighs(void)
{
	enum { N = 5000 };
	static struct fp_neigh neighs[N];
	struct fp_addr addr = v4(0x0a000000 + 17);
	uint32_t wrong = 0;
	struct fib *fib;

	for (uint32_t i = 0; i < N; i++)
		neighs[i] = (struct fp_neigh){ .addr = v4(0x0a000000 + i / 2), .port = i & 1 };
	fib = build(NULL, 0, neighs, N);
	for (uint32_t i = 0; i < N; i++)
		wrong += fib_neigh(fib, neighs[i].port, &neighs[i].addr) != i;
	CHECK_EQ(60, wrong, 0);
	CHECK_EQ(61, fib_neigh(fib, 2, &addr), FIB_NO_NEIGH);
	addr = v4(0x0b000000);
	CHECK_EQ(62, fib_neigh(fib, 0, &addr), FIB_NO_NEIGH);
	CHECK_EQ(63, fib_mem_size(FIB_ROUTES_MAX + 1, 0), 0);
	CHECK_EQ(64, fib_mem_size(0, FIB_NEIGHS_MAX + 1), 0);
	free(fib);
}

int main(void)
{
	check_lpm();
	check_unreachable();
	check_v6();
	check_random();
	check_neighs();
	return check_done("fib");
}
