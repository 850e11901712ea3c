/* SPDX-License-Identifier: Apache-2.0 */
/**
 * hash.h - bucketised index from a keyed hash to 32-bit entries
 *
 * A bucket is one cache line: ten 16-bit tags and ten entries. A lookup compares all tags of the home
 * bucket at once and touches a record only if its tag agrees (a false agreement: 1 in 6,500). An entry
 * that finds its home bucket full goes to one of the next HASH_PROBES - 1 buckets, and the home bucket's
 * `spill` counts it and `reach` says how far it may be, so that a lookup leaves the home bucket only if something
 * did spill, and goes no further. At the load that hash_buckets() provides for (7 entries a bucket on average when
 * all is full) 1 bucket in 9 spills; at half of it, 1 in 1000. In a full index that changes all the time two entries
 * in 10^5 find ten buckets full, and each further bucket less than half of the rest: HASH_PROBES are enough for
 * 10^15. It must not happen, for the peer's index has another key: it would have no room for what this node has.
 *
 * The index knows nothing of records: flow.c compares keys.
 */
#ifndef HASH_H
#define HASH_H

#include "base.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { HASH_WAYS = 10, HASH_PROBES = 40 };

/**
 * struct hash_bucket - One cache line of the index
 * @tag:   upper bits of the hash; 0 = empty
 * @spill: entries whose home this is, but which stand in one of the next buckets
 * @reach: how many buckets behind this one an entry of them may stand in, since there was none
 * @entry: what the user stored
 */
struct hash_bucket {
	uint16_t tag[HASH_WAYS];
	uint16_t spill;
	uint16_t reach;
	uint32_t entry[HASH_WAYS];
};

static_assert(sizeof(struct hash_bucket) == CACHE_LINE, "a bucket is a cache line");

/**
 * struct hash - An index
 * @buckets: home buckets, and HASH_PROBES - 1 behind them, so that a probe never wraps around
 * @n:       number of home buckets
 */
struct hash {
	struct hash_bucket *buckets;
	uint32_t n;
};

/**
 * hash_buckets() - How many home buckets @n_entries need
 */
uint32_t hash_buckets(uint32_t n_entries);

/**
 * hash_mem_size() - Bytes of @n_buckets home buckets and those behind them
 */
size_t hash_mem_size(uint32_t n_buckets);

/**
 * hash_insert() - Add an entry; the caller knows that it is not there
 * Return: false when all HASH_PROBES buckets are full.
 */
bool hash_insert(struct hash *h, uint64_t hash, uint32_t entry);

/**
 * hash_remove() - Take an entry out
 * Return: false when it is not there.
 */
bool hash_remove(struct hash *h, uint64_t hash, uint32_t entry);

static inline uint16_t hash_tag(uint64_t hash)
{
	uint16_t tag = (uint16_t)(hash >> 48);

	return tag ? tag : 1;
}

static inline struct hash_bucket *hash_bucket(const struct hash *h, uint64_t hash, uint32_t probe)
{
	/* Multiply and shift: any number of buckets will do. The tag is made of other bits of the hash. */
	return &h->buckets[((uint64_t)(uint32_t)hash * h->n >> 32) + probe];
}

/* Bit i is set when way i has @tag. */
static inline uint32_t hash_match(const struct hash_bucket *b, uint16_t tag)
{
	uint32_t match;

#ifdef __SSE2__
	__m128i want = _mm_set1_epi16((short)tag);
	__m128i have = _mm_loadu_si128((const __m128i *)(const void *)b->tag);
	__m128i same = _mm_packs_epi16(_mm_cmpeq_epi16(have, want), _mm_setzero_si128());

	match = (uint32_t)_mm_movemask_epi8(same);
#else
	match = 0;
	for (uint32_t i = 0; i < 8; i++)
		match |= (uint32_t)(b->tag[i] == tag) << i;
#endif
	return match | (uint32_t)(b->tag[8] == tag) << 8 | (uint32_t)(b->tag[9] == tag) << 9;
}

static inline void hash_prefetch(const struct hash *h, uint64_t hash)
{
	__builtin_prefetch(hash_bucket(h, hash, 0));
}

/* ---- the hash function: keyed, so that nobody outside can aim at one bucket ---- */

/**
 * struct hash_key - Secret of a hash
 */
struct hash_key {
	uint64_t k[2];
};

static inline struct hash_key hash_key_load(const uint8_t bytes[16])
{
	return (struct hash_key){ { u64_load(bytes), u64_load(bytes + 8) } };
}

/* Both halves of a 64 x 64 bit product, folded. */
static inline uint64_t hash_fold(uint64_t a, uint64_t b)
{
	__extension__ typedef unsigned __int128 u128;
	u128 product = (u128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The odd constants keep a zero key from making a zero product. */
static inline uint64_t hash_words5(struct hash_key key, const uint64_t w[5])
{
	uint64_t k0 = key.k[0] ^ UINT64_C(0x9e3779b97f4a7c15), k1 = key.k[1] ^ UINT64_C(0xc2b2ae3d27d4eb4f);
	uint64_t first = hash_fold(w[0] ^ w[4] ^ k0, w[1] ^ k1);
	uint64_t second = hash_fold(w[2] ^ k1, w[3] ^ (w[4] << 1) ^ k0);

	return hash_fold(first ^ k1 ^ w[4], second ^ k0);
}

static inline uint64_t hash_words3(struct hash_key key, const uint64_t w[3])
{
	uint64_t k0 = key.k[0] ^ UINT64_C(0x9e3779b97f4a7c15), k1 = key.k[1] ^ UINT64_C(0xc2b2ae3d27d4eb4f);

	/* The last fold is for keys that differ in w[2] only: one fold of a sequence is still a sequence. */
	return hash_fold(hash_fold(hash_fold(w[0] ^ k0, w[1] ^ k1) ^ k1, w[2] ^ k0) ^ k1, k0);
}

#endif /* HASH_H */
