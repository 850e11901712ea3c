/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_nat.c - external ports: shard and parity, range, exhaustion, claims, pools
 */
#include "../nat.h"
#include "check.h"

enum { TCP = 6, UDP = 17, ICMP = 1 };

static const uint64_t NOW = UINT64_C(86400) * NS_PER_S;

static struct fp_config config(uint16_t lo, uint16_t hi)
{
	return (struct fp_config){
		.n_pools = 3,
		.n_workers = 1,
		.table_key = { 1, 2, 3 },
		.pools = { { .addr = addr_from_v4(be32_of(0xcb007103)),
			     .port_lo = lo,
			     .port_hi = hi,
			     .out_port = 1 },
			   { .addr = addr_from_v4(be32_of(0xcb007104)),
			     .port_lo = 1024,
			     .port_hi = 65535,
			     .out_port = 2 },
			   { .addr = addr_from_v4(be32_of(0xcb007105)),
			     .port_lo = 1024,
			     .port_hi = 65535,
			     .out_port = 1 } },
	};
}

static void check_alloc(void)
{
	struct fp_config cfg = config(1024, 65535);
	struct nat n;
	void *mem = malloc(nat_mem_size(&cfg));
	uint32_t got = 0, wrong_parity = 0, wrong_shard = 0, twice = 0;
	static bool seen[65536];

	nat_init(&n, &cfg, 0, mem);
	for (;; got++) {
		uint16_t p = be16_host(nat_port_alloc(&n, 0, TCP, 37, 1, NOW));

		if (!p)
			break;
		wrong_shard += nat_port_shard(p) != 37 || p < 1024;
		wrong_parity += (p & 1) != 1 && got < 504;
		twice += seen[p];
		seen[p] = true;
	}
	CHECK_EQ(1, got, 1008); /* 64512 ports / 64 shards */
	CHECK_EQ(2, wrong_shard, 0);
	CHECK_EQ(3, wrong_parity, 0); /* the other parity only when this one is exhausted */
	CHECK_EQ(4, twice, 0);
	/* Other shards, protocols and pools have their own. */
	CHECK(5, nat_port_alloc(&n, 0, TCP, 38, 1, NOW).raw);
	CHECK(6, nat_port_alloc(&n, 0, UDP, 37, 1, NOW).raw);
	CHECK(7, nat_port_alloc(&n, 1, TCP, 37, 1, NOW).raw);
	nat_port_free(&n, 0, TCP, be16_of(1024 + 37 * 2), NOW);
	CHECK_EQ(8, be16_host(nat_port_alloc(&n, 0, TCP, 37, 1, NOW)), 1024 + 37 * 2);
	free(mem);
}

/* RFC 6056: no port of a pool is likelier than another, wherever in all of them the pool lies. */
static void check_spread(void)
{
	struct fp_config cfg = config(10000, 19999);
	enum { BLOCKS = (19999 >> 7) - (10000 >> 7) + 1, DRAWS = 200 * BLOCKS };
	uint32_t drawn[65536 >> 7] = { 0 }, most = 0, none = 0;
	struct nat n;
	void *mem = malloc(nat_mem_size(&cfg));

	nat_init(&n, &cfg, 0, mem);
	for (uint32_t i = 0; i < DRAWS; i++) {
		be16 port = nat_port_alloc(&n, 0, UDP, 37, 1, NOW);

		drawn[be16_host(port) >> 7]++;
		nat_port_free(&n, 0, UDP, port, NOW);
	}
	for (uint32_t block = 10000 >> 7; block < 19999 >> 7; block++) { /* the last has none of this shard */
		most = drawn[block] > most ? drawn[block] : most;
		none += drawn[block] == 0;
	}
	CHECK(10,
	      most < 2 * DRAWS / BLOCKS + 200); /* a block whose neighbour lies half outside gets its share */
	CHECK_EQ(11, none, 0);
	free(mem);
}

static void check_claim(void)
{
	struct fp_config cfg = config(20000, 20127);
	struct nat n;
	void *mem = malloc(nat_mem_size(&cfg));

	nat_init(&n, &cfg, 0, mem);
	CHECK(20, nat_port_claim(&n, 0, ICMP, be16_of(20000)));
	CHECK(21, !nat_port_claim(&n, 0, ICMP, be16_of(20000)));
	CHECK(22, nat_port_claim(&n, 0, TCP, be16_of(20000)));
	CHECK(23, !nat_port_claim(&n, 0, TCP, be16_of(19999)));
	CHECK(24, !nat_port_claim(&n, 0, TCP, be16_of(20128)));
	CHECK(25, nat_port_claim(&n, 0, TCP, be16_of(20127)));
	/* A range of 128 ports has one even and one odd port of each shard. */
	for (uint32_t shard = 0; shard < FP_SHARDS; shard++) {
		uint16_t a = be16_host(nat_port_alloc(&n, 0, UDP, shard, 0, NOW));
		uint16_t b = be16_host(nat_port_alloc(&n, 0, UDP, shard, 0, NOW));

		CHECK(26, a >= 20000 && a <= 20127 && b >= 20000 && b <= 20127);
		CHECK(27, (a & 1) == 0 && (b & 1) == 1);
		CHECK_EQ(28, nat_port_alloc(&n, 0, UDP, shard, 0, NOW).raw, 0);
	}
	/* What was claimed is never given to a new connection. */
	CHECK(29, be16_host(nat_port_alloc(&n, 0, TCP, nat_port_shard(20000), 0, NOW)) == 20001);
	nat_port_free(&n, 0, TCP, be16_of(20000), NOW);
	CHECK_EQ(30, be16_host(nat_port_alloc(&n, 0, TCP, nat_port_shard(20000), 0, NOW)), 20000);
	free(mem);
}

static void check_random(void)
{
	struct fp_config cfg = config(1024, 65535);
	struct nat n;
	void *mem = malloc(nat_mem_size(&cfg));
	uint32_t ascending = 0;
	uint16_t last = 0;

	nat_init(&n, &cfg, 0, mem);
	for (uint32_t i = 0; i < 100; i++) {
		uint16_t p = be16_host(nat_port_alloc(&n, 0, TCP, 5, 0, NOW));

		ascending += p > last;
		last = p;
	}
	CHECK(40, ascending > 25 && ascending < 75);
	free(mem);
}

static void check_pools(void)
{
	struct fp_config cfg = config(30000, 40000);
	struct fp_addr vip = addr_from_v4(be32_of(0xcb007103)), other = addr_from_v4(be32_of(0xcb007109));
	struct fp_addr even = addr_from_v4(be32_of(0x0a000002)), odd = addr_from_v4(be32_of(0x0a000003));
	struct nat n;
	void *mem = malloc(nat_mem_size(&cfg));

	nat_init(&n, &cfg, 0, mem);
	CHECK_EQ(60, nat_pool_of(&n, &vip, be16_of(30000)), 0);
	CHECK_EQ(61, nat_pool_of(&n, &vip, be16_of(29999)), NAT_POOL_NONE);
	CHECK_EQ(62, nat_pool_of(&n, &other, be16_of(30000)), NAT_POOL_NONE);
	CHECK_EQ(63, nat_pool_for(&n, 2, &even), 1);
	CHECK_EQ(64, nat_pool_for(&n, 7, &even), NAT_POOL_NONE);
	/* Two pools of one port share the clients; a client keeps its own. */
	CHECK_EQ(65, nat_pool_for(&n, 1, &even), 0);
	CHECK_EQ(66, nat_pool_for(&n, 1, &odd), 2);
	free(mem);
}

/*
 * Where anybody may send to a port, a port that was given back rests: two spans at most, one at least.
 * Spec: RFC 6888 REQ-8.
 */
static void check_rest(void)
{
	struct fp_config cfg = config(20000, 20127);
	const uint64_t span = 120 * NS_PER_S, begin = NOW / span * span;
	struct nat n;
	void *mem = malloc(nat_mem_size(&cfg));
	be16 port;

	cfg.limits.port_reuse_s = 120;
	nat_init(&n, &cfg, 0, mem);
	/* Two ports of the shard; one is taken all the time. */
	CHECK(80, nat_port_claim(&n, 0, UDP, be16_of(20001)));
	for (uint64_t late = 0; late < span; late += span / 4) {
		const uint64_t freed = begin + late;

		nat_init(&n, &cfg, 0, mem);
		CHECK(81, nat_port_claim(&n, 0, UDP, be16_of(20001)));
		CHECK(82, nat_port_claim(&n, 0, UDP, be16_of(20000)));
		nat_port_free(&n, 0, UDP, be16_of(20000), freed);
		for (uint64_t t = 0; t <= span; t += span / 8)
			CHECK(83, !nat_port_alloc(&n, 0, UDP, nat_port_shard(20000), 0, freed + t).raw);
		CHECK_EQ(84,
			 be16_host(nat_port_alloc(&n, 0, UDP, nat_port_shard(20000), 0, begin + 2 * span)),
			 20000);
	}
	/* After a long silence nothing rests. */
	nat_port_free(&n, 0, UDP, be16_of(20000), begin);
	CHECK(85, nat_port_alloc(&n, 0, UDP, nat_port_shard(20000), 0, begin + 1000 * span).raw);
	/* What the peer has given out is taken, resting or not. */
	nat_port_free(&n, 0, UDP, be16_of(20000), begin + 1000 * span);
	CHECK(86, nat_port_claim(&n, 0, UDP, be16_of(20000)));
	nat_port_free(&n, 0, UDP, be16_of(20000), begin + 1000 * span);
	/* ICMP as UDP; TCP is tracked (exception A); other filtering knows the remote (exception C). */
	for (uint32_t i = 0; i < 3; i++) {
		const uint8_t proto = i == 0 ? ICMP : i == 1 ? TCP : UDP;

		cfg.pools[0].filtering = i == 2 ? FP_FILTER_ADF : FP_FILTER_EIF;
		nat_init(&n, &cfg, 0, mem);
		port = nat_port_alloc(&n, 0, proto, 5, 0, begin);
		CHECK(87, nat_port_alloc(&n, 0, proto, 5, 1, begin).raw && port.raw);
		nat_port_free(&n, 0, proto, port, begin);
		CHECK_EQ(88, nat_port_alloc(&n, 0, proto, 5, 0, begin).raw, i == 0 ? 0 : port.raw);
	}
	free(mem);
}

/* The ports of forwards are not given to anybody. */
static void check_reserved(void)
{
	struct fp_config cfg = config(20000, 20127);
	const struct fp_forward forwards[] = {
		{ .external_port = 20000, .inside_port = 1, .proto = UDP, .id = 1 },
		{ .external_port = 20003, .inside_port = 2, .proto = UDP, .id = 2 },
	};
	const struct fp_policy_cfg rules = { .forwards = forwards, .n_forwards = 2 };
	struct policy *policy = policy_build(aligned_alloc(64, policy_mem_size(&rules, 1)), &rules, &cfg);
	struct nat n;
	void *mem = malloc(nat_mem_size(&cfg));

	nat_init(&n, &cfg, 0, mem);
	n.policy = policy;
	CHECK_EQ(100, be16_host(nat_port_alloc(&n, 0, UDP, nat_port_shard(20000), 0, NOW)), 20001);
	CHECK_EQ(101, nat_port_alloc(&n, 0, UDP, nat_port_shard(20000), 0, NOW).raw, 0);
	CHECK_EQ(102, be16_host(nat_port_alloc(&n, 0, UDP, nat_port_shard(20003), 1, NOW)), 20002);
	CHECK_EQ(103, be16_host(nat_port_alloc(&n, 0, TCP, nat_port_shard(20000), 0, NOW)), 20000);
	free(policy);
	free(mem);
}

/* Workers have slices of their own shards only, and all together every port once. */
static void check_workers(void)
{
	struct fp_config cfg = config(1024, 65535);
	uint32_t total = 0, wrong = 0;

	cfg.n_workers = 3;
	for (uint32_t worker = 0; worker < 3; worker++) {
		struct nat n;
		void *mem = malloc(nat_mem_size(&cfg));

		nat_init(&n, &cfg, worker, mem);
		for (uint32_t shard = worker; shard < FP_SHARDS; shard += 3)
			for (be16 p; (p = nat_port_alloc(&n, 0, UDP, shard, 0, NOW)).raw; total++)
				wrong += nat_port_shard(be16_host(p)) != shard;
		free(mem);
	}
	CHECK_EQ(120, total, 64512);
	CHECK_EQ(121, wrong, 0);
}

int main(void)
{
	check_rest();
	check_reserved();
	check_workers();
	check_alloc();
	check_spread();
	check_claim();
	check_random();
	check_pools();
	return check_done("nat");
}
