/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_quota.c - counts by source: limits, made-up sources, and threads that count at the same time
 */
#include <pthread.h>

#include "../hash.h"
#include "../quota.h"
#include "check.h"

enum { THREADS = 4, ROUNDS = 20000, FLOWS = 1 << 20 };

static struct quota make(uint32_t flow_cap)
{
	size_t size = quota_mem_size(flow_cap);
	void *mem = aligned_alloc(CACHE_LINE, size);
	struct quota q;

	FP_ASSERT(mem);
	memset(mem, 0, size);
	quota_init(&q, flow_cap, mem);
	return q;
}

static bool is_empty(const struct quota *q)
{
	for (size_t i = 0; i < (size_t)QUOTA_ROWS * q->width; i++)
		if (q->count[i])
			return false;
	return true;
}

static uint64_t key(uint64_t who)
{
	const struct hash_key secret = { { UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210) } };

	return hash_words3(secret, (uint64_t[3]){ who, 0, 0 });
}

static void check_limit(void)
{
	struct quota q = make(1000);

	for (uint32_t i = 0; i < 5; i++)
		CHECK(1, quota_take(&q, key(7), 5));
	CHECK(2, !quota_take(&q, key(7), 5));
	CHECK(3, quota_take(&q, key(8), 5)); /* somebody else */
	CHECK(4, quota_take(&q, key(7), 0)); /* no limit, but counted */
	CHECK(5, !quota_take(&q, key(7), 6));
	for (uint32_t i = 0; i < 6; i++)
		quota_give(&q, key(7));
	CHECK(6, quota_take(&q, key(7), 1));
	quota_give(&q, key(7));
	quota_give(&q, key(8));
	CHECK(7, is_empty(&q));
	free(q.count);
}

/* As many as one takes before being refused. */
static uint32_t take_all(struct quota *q, uint64_t who, uint32_t limit)
{
	uint32_t n = 0;

	while (quota_take(q, key(who), limit))
		n++;
	return n;
}

/*
 * A table full of sessions and mappings of as many addresses: whoever comes is limited still, and not much
 * earlier than without.
 */
static void check_made_up_sources(void)
{
	enum { LIMIT = 100, OTHERS = 1000, SPOOFED = 2 * FLOWS };
	struct quota q = make(FLOWS);
	uint32_t least = LIMIT, most = 0;

	for (uint64_t i = 0; i < SPOOFED; i++)
		FP_ASSERT(quota_take(&q, key(i), LIMIT));
	for (uint64_t i = 0; i < OTHERS; i++) {
		uint32_t n = take_all(&q, SPOOFED + i, LIMIT);

		least = min_u32(least, n);
		most = max_u32(most, n);
		for (; n; n--)
			quota_give(&q, key(SPOOFED + i));
	}
	CHECK(20, most <= LIMIT);
	CHECK(21, least >= LIMIT - 30);
	for (uint64_t i = 0; i < SPOOFED; i++)
		quota_give(&q, key(i));
	CHECK(22, is_empty(&q));
	free(q.count);
}

/* Neighbours who all take what they may do not take from each other. */
static void check_busy_sources(void)
{
	enum { LIMIT = 500, BUSY = FLOWS / LIMIT };
	struct quota q = make(FLOWS);
	uint32_t refused = 0;

	for (uint64_t i = 0; i < BUSY; i++)
		refused += take_all(&q, i, LIMIT) < LIMIT;
	CHECK_EQ(30, refused, 0);
	free(q.count);
}

static void *count_and_give(void *arg)
{
	struct quota *q = arg;
	uintptr_t taken = 0;

	for (uint32_t i = 0; i < ROUNDS; i++)
		taken += quota_take(q, key(i % 3 + 1), 0);
	for (uint32_t i = 0; i < ROUNDS; i++)
		quota_give(q, key(i % 3 + 1));
	return (void *)taken;
}

static void *take_to_the_limit(void *arg)
{
	uintptr_t taken = 0;

	for (uint32_t i = 0; i < ROUNDS; i++)
		taken += quota_take(arg, key(9), ROUNDS);
	return (void *)taken;
}

static uint64_t in_threads(void *(*work)(void *), struct quota *q)
{
	pthread_t threads[THREADS];
	uint64_t taken = 0;
	void *result;

	for (uint32_t i = 0; i < THREADS; i++)
		FP_ASSERT(pthread_create(&threads[i], NULL, work, q) == 0);
	for (uint32_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &result);
		taken += (uintptr_t)result;
	}
	return taken;
}

static void check_threads(void)
{
	struct quota q = make(1000);
	uint64_t taken;

	CHECK_EQ(40, in_threads(count_and_give, &q), THREADS * ROUNDS);
	CHECK(41, is_empty(&q));
	taken = in_threads(take_to_the_limit, &q);
	CHECK(42, taken >= ROUNDS - THREADS && taken < ROUNDS + THREADS);
	free(q.count);
}

int main(void)
{
	check_limit();
	check_made_up_sources();
	check_busy_sources();
	check_threads();
	return check_done("quota");
}
