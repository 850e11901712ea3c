/* SPDX-License-Identifier: Apache-2.0 */
/**
 * nat.c - external ports: bitmaps by pool, protocol and shard
 */
#include "nat.h"

enum { IP_PROTO_ICMP = 1, IP_PROTO_TCP = 6, IP_PROTO_UDP = 17 };

const uint8_t nat_protos[256] = {
	[0] = NAT_UDP,         [IP_PROTO_ICMP] = NAT_ICMP, [2 ... 5] = NAT_UDP, [IP_PROTO_TCP] = NAT_TCP,
	[7 ... 255] = NAT_UDP,
};

static struct nat_slice *slice_of(const struct nat *n, uint32_t pool, uint8_t proto, uint32_t shard)
{
	return &n->slices[(pool * NAT_PROTOS + nat_proto_of(proto)) * n->n_own + shard / n->n_workers];
}

static uint32_t shards_of_a_worker(const struct fp_config *cfg)
{
	return (FP_SHARDS + cfg->n_workers - 1) / cfg->n_workers;
}

static bool ports_rest(const struct nat *n, uint32_t pool, uint8_t proto)
{
	return n->cfg->limits.port_reuse_s && proto != IP_PROTO_TCP &&
	       n->cfg->pools[pool].filtering == FP_FILTER_EIF;
}

/* Time goes on: what was freed two spans ago has rested enough. */
static void wake_rested(const struct nat *n, struct nat_slice *s, uint64_t now_ns)
{
	uint64_t span = now_ns / (n->cfg->limits.port_reuse_s * NS_PER_S);

	if (span <= s->span)
		return;
	memset(s->resting[span & 1], 0, sizeof(s->resting[0]));
	if (span > s->span + 1)
		memset(s->resting[~span & 1], 0, sizeof(s->resting[0]));
	s->span = span;
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
	return (size_t)cfg->n_pools * NAT_PROTOS * shards_of_a_worker(cfg) * sizeof(struct nat_slice);
}

/* Where a port's bit is. */
static uint64_t *word_of(uint64_t bits[2][NAT_WORDS], uint16_t port_host, uint64_t *bit)
{
	*bit = UINT64_C(1) << ((port_host >> 7) & 63);
	return &bits[port_host & 1][port_host >> 13];
}

/* All ports of the range are free, whatever it leaves out is taken for good. */
static void init_slices(struct nat *n, uint32_t pool, uint32_t worker)
{
	static const uint8_t protos[] = { IP_PROTO_TCP, IP_PROTO_UDP, IP_PROTO_ICMP };
	const struct fp_pool_cfg *cfg = &n->cfg->pools[pool];
	uint64_t bit;

	for (uint32_t i = 0; i < NAT_PROTOS; i++) {
		for (uint32_t shard = worker; shard < FP_SHARDS; shard += n->n_workers) {
			struct nat_slice *s = slice_of(n, pool, protos[i], shard);

			memset(s, 0, sizeof(*s));
			memset(s->taken, 0xff, sizeof(s->taken));
		}
		for (uint32_t port = cfg->port_lo; port <= cfg->port_hi; port++) {
			uint32_t shard = nat_port_shard((uint16_t)port);

			if (shard % n->n_workers == worker)
				*word_of(slice_of(n, pool, protos[i], shard)->taken, (uint16_t)port,
					 &bit) &= ~bit;
		}
	}
}

void nat_init(struct nat *n, const struct fp_config *cfg, uint32_t worker, void *mem)
{
	n->cfg = cfg;
	n->policy = NULL;
	n->slices = mem;
	n->n_workers = cfg->n_workers;
	n->n_own = shards_of_a_worker(cfg);
	n->rng = u64_load(cfg->table_key) ^ (u64_load(cfg->table_key + 8) << 1) ^ 1;
	if (!n->rng)
		n->rng = 1;
	n->n_pools = cfg->n_pools;
	for (uint32_t pool = 0; pool < cfg->n_pools; pool++) {
		n->pools[pool] = (struct nat_pool){
			.v4 = addr_v4(&cfg->pools[pool].addr),
			.port_lo = cfg->pools[pool].port_lo,
			.n_ports = (uint16_t)(cfg->pools[pool].port_hi - cfg->pools[pool].port_lo + 1),
		};
		init_slices(n, pool, worker);
	}
}

static be16 port_of(uint32_t block, uint32_t shard, uint32_t parity)
{
	return be16_of((uint16_t)(block << 7 | shard << 1 | parity));
}

/* The bits of @word that can be given, but for the ports of forwards. */
static uint64_t free_bits(const struct nat_slice *s, uint32_t parity, uint32_t word, bool rests)
{
	uint64_t busy = s->taken[parity][word];

	if (rests)
		busy |= s->resting[0][parity][word] | s->resting[1][parity][word];
	return ~busy;
}

/* One of those that the pool has a part of: all others would end at its first block, which then is easy to guess. */
static uint32_t block_of(const struct nat *n, uint32_t pool, uint32_t random)
{
	const uint32_t lo = n->cfg->pools[pool].port_lo >> 7, hi = n->cfg->pools[pool].port_hi >> 7;

	return lo + random % (hi - lo + 1);
}

be16 nat_port_alloc(struct nat *n, uint32_t pool, uint8_t proto, uint32_t shard, uint32_t parity,
		    uint64_t now_ns)
{
	struct nat_slice *s = slice_of(n, pool, proto, shard);
	uint32_t start = block_of(n, pool, next_random(n));
	bool rests = ports_rest(n, pool, proto);

	if (rests)
		wake_rested(n, s, now_ns);
	for (uint32_t i = 0; i < 2 * (NAT_WORDS + 1); i++) {
		/* The word of the start is looked at twice: from the start on, and at the end before it. */
		uint32_t word = (start / 64 + i % (NAT_WORDS + 1)) % NAT_WORDS, p = parity ^ (i > NAT_WORDS);
		uint64_t free = free_bits(s, p, word, rests);

		if (i % (NAT_WORDS + 1) == 0)
			free &= ~UINT64_C(0) << (start % 64);
		for (; free; free &= free - 1) {
			uint32_t bit = (uint32_t)__builtin_ctzll(free);
			be16 port = port_of(word * 64 + bit, shard, p);

			if (policy_reserves(n->policy, (uint8_t)pool, be16_host(port), proto))
				continue;
			s->taken[p][word] |= UINT64_C(1) << bit;
			return port;
		}
	}
	return be16_of(0);
}

be16 nat_port_random(struct nat *n, uint32_t pool, uint32_t shard)
{
	const uint32_t random = next_random(n);

	return port_of(block_of(n, pool, random), shard, random >> 31);
}

bool nat_port_claim(struct nat *n, uint32_t pool, uint8_t proto, be16 port)
{
	uint16_t p = be16_host(port);
	uint64_t bit, *word = word_of(slice_of(n, pool, proto, nat_port_shard(p))->taken, p, &bit);

	if (!in_range(n, pool, p) || (*word & bit))
		return false;
	*word |= bit;
	return true;
}

void nat_port_free(struct nat *n, uint32_t pool, uint8_t proto, be16 port, uint64_t now_ns)
{
	uint16_t p = be16_host(port);
	struct nat_slice *s = slice_of(n, pool, proto, nat_port_shard(p));
	uint64_t bit, *word = word_of(s->taken, p, &bit);

	FP_ASSERT(in_range(n, pool, p) && (*word & bit));
	*word &= ~bit;
	if (!ports_rest(n, pool, proto))
		return;
	wake_rested(n, s, now_ns);
	*word_of(s->resting[s->span & 1], p, &bit) |= bit;
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
