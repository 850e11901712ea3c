/* SPDX-License-Identifier: Apache-2.0 */
/**
 * nat.c - external ports: bitmaps by pool, protocol and shard
 */
#include "nat.h"

enum { IP_PROTO_ICMP = 1, IP_PROTO_TCP = 6, IP_PROTO_UDP = 17, NAT_BLOCKS = NAT_WORDS * 64 };

static struct nat_slice *slice_of(const struct nat *n, uint32_t pool, uint8_t proto, uint32_t shard)
{
	return &n->slices[(pool * NAT_PROTOS + nat_proto_of(proto)) * FP_SHARDS + shard];
}

static bool in_range(const struct nat *n, uint32_t pool, uint16_t port_host)
{
	const struct fp_pool_cfg *p = &n->cfg->pools[pool];

	return port_host >= p->port_lo && port_host <= p->port_hi;
}

/* xorshift64*: good enough to spread ports; what must not be guessed is its seed. */
static uint32_t next_random(struct nat *n)
{
	n->rng ^= n->rng >> 12;
	n->rng ^= n->rng << 25;
	n->rng ^= n->rng >> 27;
	return (uint32_t)((n->rng * UINT64_C(0x2545f4914f6cdd1d)) >> 32);
}

size_t nat_mem_size(const struct fp_config *cfg)
{
	return (size_t)cfg->n_pools * NAT_PROTOS * FP_SHARDS * sizeof(struct nat_slice);
}

void nat_init(struct nat *n, const struct fp_config *cfg, void *mem)
{
	n->cfg = cfg;
	n->slices = mem;
	n->rng = u64_load(cfg->table_key) ^ (u64_load(cfg->table_key + 8) << 1) ^ 1;
	if (!n->rng)
		n->rng = 1;
	n->n_pools = cfg->n_pools;
	memset(mem, 0xff, nat_mem_size(cfg));
	for (uint32_t pool = 0; pool < cfg->n_pools; pool++) {
		n->pools[pool] = (struct nat_pool){
			.v4 = addr_v4(&cfg->pools[pool].addr),
			.port_lo = cfg->pools[pool].port_lo,
			.n_ports = (uint16_t)(cfg->pools[pool].port_hi - cfg->pools[pool].port_lo + 1),
		};
		for (uint32_t port = cfg->pools[pool].port_lo; port <= cfg->pools[pool].port_hi; port++) {
			be16 p = be16_of((uint16_t)port);

			nat_port_free(n, pool, IP_PROTO_TCP, p);
			nat_port_free(n, pool, IP_PROTO_UDP, p);
			nat_port_free(n, pool, IP_PROTO_ICMP, p);
		}
	}
}

/* Return: a block whose bit is clear, set now; or NAT_BLOCKS. */
static uint32_t take_free_block(uint64_t *taken, uint32_t start)
{
	for (uint32_t i = 0; i <= NAT_WORDS; i++) {
		uint32_t word = (start / 64 + i) % NAT_WORDS;
		uint64_t free = ~taken[word];

		/* The word of the start is looked at twice: from the start on, and at the end before it. */
		if (i == 0)
			free &= ~UINT64_C(0) << (start % 64);
		if (!free)
			continue;
		uint32_t bit = (uint32_t)__builtin_ctzll(free);
		taken[word] |= UINT64_C(1) << bit;
		return word * 64 + bit;
	}
	return NAT_BLOCKS;
}

be16 nat_port_alloc(struct nat *n, uint32_t pool, uint8_t proto, uint32_t shard, uint32_t parity)
{
	struct nat_slice *s = slice_of(n, pool, proto, shard);
	uint32_t start = next_random(n) % NAT_BLOCKS;

	for (uint32_t attempt = 0; attempt < 2; attempt++, parity ^= 1) {
		uint32_t block = take_free_block(s->taken[parity], start);

		if (block < NAT_BLOCKS)
			return be16_of((uint16_t)(block << 7 | shard << 1 | parity));
	}
	return be16_of(0);
}

bool nat_port_claim(struct nat *n, uint32_t pool, uint8_t proto, be16 port)
{
	uint16_t p = be16_host(port);
	uint64_t *word = &slice_of(n, pool, proto, nat_port_shard(p))->taken[p & 1][p >> 13];
	uint64_t bit = UINT64_C(1) << ((p >> 7) & 63);

	if (!in_range(n, pool, p) || (*word & bit))
		return false;
	*word |= bit;
	return true;
}

void nat_port_free(struct nat *n, uint32_t pool, uint8_t proto, be16 port)
{
	uint16_t p = be16_host(port);
	uint64_t *word = &slice_of(n, pool, proto, nat_port_shard(p))->taken[p & 1][p >> 13];
	uint64_t bit = UINT64_C(1) << ((p >> 7) & 63);

	FP_ASSERT(in_range(n, pool, p) && (*word & bit));
	*word &= ~bit;
}

uint32_t nat_pool_of(const struct nat *n, const struct fp_addr *addr, be16 port)
{
	return addr_is_v4(addr) ? nat_pool_of_v4(n, addr_v4(addr), port) : NAT_POOL_NONE;
}

uint32_t nat_pool_for(const struct nat *n, uint32_t out_port, const struct fp_addr *inside)
{
	return nat_pool_among(n, 0, out_port, inside);
}

uint32_t nat_pool_among(const struct nat *n, uint32_t pools, uint32_t out_port, const struct fp_addr *inside)
{
	uint32_t candidates[FP_POOLS_MAX], n_candidates = 0;

	for (uint32_t i = 0; i < n->cfg->n_pools; i++)
		if (n->cfg->pools[i].out_port == out_port && (!pools || pools & 1u << i))
			candidates[n_candidates++] = i;
	if (!n_candidates)
		return NAT_POOL_NONE;
	/* By address, with nothing secret or local in it: both nodes must choose the same pool. */
	return candidates[be32_host(be32_load(inside->b + 12)) % n_candidates];
}

static uint32_t free_of(const struct nat_slice *s)
{
	uint32_t n = 0;

	for (uint32_t word = 0; word < NAT_WORDS; word++)
		n += (uint32_t)(__builtin_popcountll(~s->taken[0][word]) +
				__builtin_popcountll(~s->taken[1][word]));
	return n;
}

void nat_count_free(const struct nat *n, uint32_t worker, struct fp_pool_use *free)
{
	for (uint32_t pool = 0; pool < n->n_pools; pool++) {
		for (uint32_t shard = worker; shard < FP_SHARDS; shard += n->cfg->n_workers) {
			free[pool].tcp += free_of(slice_of(n, pool, IP_PROTO_TCP, shard));
			free[pool].udp += free_of(slice_of(n, pool, IP_PROTO_UDP, shard));
			free[pool].icmp += free_of(slice_of(n, pool, IP_PROTO_ICMP, shard));
		}
	}
}
