/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_hash.c - the index: insertion, removal, spill, full buckets, the hash function's spread
 */
#include "../hash.h"
#include "check.h"

static bool has(const struct hash *h, uint64_t hash, uint32_t entry)
{
	for (uint32_t probe = 0; probe <= hash_bucket(h, hash, 0)->reach; probe++) {
		const struct hash_bucket *b = hash_bucket(h, hash, probe);

		for (uint32_t m = hash_match(b, hash_tag(hash)); m; m &= m - 1)
			if (b->entry[__builtin_ctz(m)] == entry)
				return true;
	}
	return false;
}

static struct hash make(uint32_t n_entries)
{
	uint32_t n = hash_buckets(n_entries);
	struct hash h = { .n = n, .buckets = aligned_alloc(64, hash_mem_size(n)) };

	FP_ASSERT(h.buckets);
	memset(h.buckets, 0, hash_mem_size(n));
	return h;
}

static void check_basics(void)
{
	struct hash h = make(100);
	uint64_t hash = UINT64_C(0xabcd000000000003);

	CHECK(1, hash_buckets(0) >= 1);
	/* The load that is promised: 7 of ten ways. */
	CHECK_EQ(2, hash_buckets(700000), 100001);
	CHECK(3, !has(&h, hash, 7));
	CHECK(4, hash_insert(&h, hash, 7));
	CHECK(5, has(&h, hash, 7));
	CHECK(6, !has(&h, hash, 8));
	CHECK(7, !hash_remove(&h, hash, 8));
	CHECK(8, hash_remove(&h, hash, 7));
	CHECK(9, !has(&h, hash, 7));
	CHECK(10, !hash_remove(&h, hash, 7));
	/* A hash whose tag bits are all zero must not look like an empty way. */
	CHECK_EQ(11, hash_tag(3), 1);
	CHECK(12, hash_insert(&h, 3, 9));
	CHECK(13, has(&h, 3, 9));
	free(h.buckets);
}

/* All entries want one bucket: HASH_WAYS stay, the others spill, and none is lost when any of them goes. */
static void check_collisions(void)
{
	enum { ROOM = HASH_WAYS * HASH_PROBES };
	struct hash h = make(100);
	uint64_t hash = UINT64_C(0x1234000000000001);
	uint32_t inserted = 0;

	for (uint32_t i = 1; i <= ROOM + 5; i++)
		inserted += hash_insert(&h, hash, i);
	CHECK_EQ(20, inserted, ROOM);
	CHECK_EQ(21, hash_bucket(&h, hash, 0)->spill, ROOM - HASH_WAYS);
	CHECK_EQ(27, hash_bucket(&h, hash, 0)->reach, HASH_PROBES - 1);
	for (uint32_t i = 1; i <= ROOM; i++)
		CHECK(22, has(&h, hash, i));
	for (uint32_t i = 1; i <= HASH_WAYS; i++)
		CHECK(23, hash_remove(&h, hash, i));
	for (uint32_t i = HASH_WAYS + 1; i <= ROOM; i++)
		CHECK(24, has(&h, hash, i));
	for (uint32_t i = HASH_WAYS + 1; i <= ROOM; i++)
		CHECK(25, hash_remove(&h, hash, i));
	CHECK_EQ(26, hash_bucket(&h, hash, 0)->spill, 0);
	CHECK_EQ(28, hash_bucket(&h, hash, 0)->reach, 0); /* nobody looks further than he must */
	free(h.buckets);
}

static void check_load(void)
{
	enum { N = 200000 };
	const struct hash_key key = { { 11, 22 } };
	struct hash h = make(N + N / 32);
	uint32_t missing = 0, failed = 0, spilled = 0;

	for (uint32_t i = 1; i <= N; i++) {
		uint64_t w[5] = { 0, i, 0, i / 7, 42 };

		failed += !hash_insert(&h, hash_words5(key, w), i);
	}
	CHECK_EQ(30, failed, 0);
	for (uint32_t i = 0; i < h.n; i++)
		spilled += h.buckets[i].spill > 0;
	CHECK(34, spilled < h.n / 8); /* 1 in 11 expected when all is full */
	for (uint32_t i = 1; i <= N; i++) {
		uint64_t w[5] = { 0, i, 0, i / 7, 42 };

		missing += !has(&h, hash_words5(key, w), i);
	}
	CHECK_EQ(31, missing, 0);
	for (uint32_t i = 1; i <= N; i += 2) {
		uint64_t w[5] = { 0, i, 0, i / 7, 42 };

		failed += !hash_remove(&h, hash_words5(key, w), i);
	}
	for (uint32_t i = 1; i <= N; i++) {
		uint64_t w[5] = { 0, i, 0, i / 7, 42 };

		missing += has(&h, hash_words5(key, w), i) == (i & 1);
	}
	CHECK_EQ(32, failed, 0);
	CHECK_EQ(33, missing, 0);
	free(h.buckets);
}

/*
 * Full to the last entry, one comes for one that goes, three million times: there always is room, and by far. Two
 * nodes with secrets of their own thus have room for the same sessions. Spec: R19
 */
static void check_full(void)
{
	enum { N = 131072, TURNS = 3000000 };
	const struct hash_key key = { { 33, 44 } };
	struct hash h = make(N);
	uint32_t *held = calloc(N, sizeof(*held)), failed = 0, missing = 0, reach = 0;
	uint64_t rng = 1;

	FP_ASSERT(held);
	for (uint32_t i = 1; i <= N + TURNS; i++) {
		uint32_t at = i - 1;
		uint64_t w[5] = { 0, i, 0, i / 7, 42 };

		if (at >= N) {
			uint64_t old[5] = { 0 };

			rng ^= rng << 13;
			rng ^= rng >> 7;
			rng ^= rng << 17;
			at = (uint32_t)(rng % N);
			old[1] = held[at];
			old[3] = held[at] / 7;
			old[4] = 42;
			missing += !hash_remove(&h, hash_words5(key, old), held[at]);
		}
		failed += !hash_insert(&h, hash_words5(key, w), i);
		held[at] = i;
		reach = max_u32(reach, hash_bucket(&h, hash_words5(key, w), 0)->reach);
	}
	CHECK_EQ(35, failed, 0);
	CHECK_EQ(36, missing, 0);
	CHECK(37, reach >= 10 && reach < HASH_PROBES * 3 / 4);
	free(held);
	free(h.buckets);
}

static void check_function(void)
{
	const struct hash_key a = { { 1, 2 } }, b = { { 1, 3 } };
	uint64_t w[5] = { 0, 0, 0, 0, 0 }, v[5] = { 0, 0, 0, 0, 1 };
	uint32_t bins[64] = { 0 }, worst = 0;

	CHECK(40, hash_words5(a, w) != hash_words5(b, w));
	CHECK(41, hash_words5(a, w) != hash_words5(a, v));
	for (uint32_t i = 0; i < 64000; i++) {
		uint64_t x[3] = { 0, (uint64_t)i << 32, i & 1 };

		bins[hash_words3(a, x) & 63]++;
	}
	for (uint32_t i = 0; i < 64; i++)
		worst = max_u32(worst, bins[i]);
	CHECK(42, worst < 1150); /* 1000 expected, 31.6 the standard deviation */
	/* The ports of one client in a row, as core_shard() sees them: no shard may get twice its share. */
	for (uint64_t secret = 1; secret < 50; secret++) {
		const struct hash_key key = { { secret, secret * 7 } };

		memset(bins, 0, sizeof(bins));
		worst = 0;
		for (uint64_t i = 0; i < 64000; i++) {
			uint64_t x[3] = { 0, UINT64_C(0x0a6433c6ffff0000), i << 8 | 6 };

			bins[hash_words3(key, x) & 63]++;
		}
		for (uint32_t i = 0; i < 64; i++)
			worst = max_u32(worst, bins[i]);
		CHECK(43, worst < 1200);
	}
}

int main(void)
{
	check_basics();
	check_collisions();
	check_load();
	check_full();
	check_function();
	return check_done("hash");
}
