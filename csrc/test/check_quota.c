/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_quota.c - counts by source: limits, full buckets, and threads that count at the same time
 */
#include <pthread.h>

#include "../quota.h"
#include "check.h"

enum { THREADS = 4, ROUNDS = 20000 };

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
	for (uint32_t i = 0; i < q->n; i++)
		for (uint32_t k = 0; k < QUOTA_WORDS; k++)
			if (q->buckets[i].word[k])
				return false;
	return true;
}

static uint64_t key(uint64_t tag, uint64_t bucket)
{
	return tag << QUOTA_COUNT_BITS | bucket;
}

static void check_limit(void)
{
	struct quota q = make(1000);

	for (uint32_t i = 0; i < 5; i++)
		CHECK_EQ(1, quota_take(&q, key(7, 9), 5), QUOTA_TAKEN);
	CHECK_EQ(2, quota_take(&q, key(7, 9), 5), QUOTA_NONE_LEFT);
	CHECK_EQ(3, quota_take(&q, key(8, 9), 5), QUOTA_TAKEN); /* somebody else */
	CHECK_EQ(4, quota_take(&q, key(7, 9), 0), QUOTA_TAKEN); /* no limit, but counted */
	CHECK_EQ(5, quota_take(&q, key(7, 9), 6), QUOTA_NONE_LEFT);
	for (uint32_t i = 0; i < 6; i++)
		quota_give(&q, key(7, 9));
	CHECK_EQ(6, quota_take(&q, key(7, 9), 1), QUOTA_TAKEN);
	quota_give(&q, key(7, 9));
	quota_give(&q, key(8, 9));
	CHECK(7, is_empty(&q));
	/* A tag of zeros is not an empty word. */
	CHECK_EQ(8, quota_take(&q, 0, 1), QUOTA_TAKEN);
	CHECK_EQ(9, quota_take(&q, 0, 1), QUOTA_NONE_LEFT);
	quota_give(&q, 0);
	CHECK(10, is_empty(&q));
	free(q.buckets);
}

static void check_full_bucket(void)
{
	struct quota q = make(1000);

	for (uint64_t i = 1; i <= QUOTA_WORDS; i++)
		CHECK_EQ(20, quota_take(&q, key(i, 3), 1), QUOTA_TAKEN);
	CHECK_EQ(21, quota_take(&q, key(99, 3), 1), QUOTA_UNCOUNTED);
	CHECK_EQ(22, quota_take(&q, key(2, 3), 1), QUOTA_NONE_LEFT);
	quota_give(&q, key(5, 3));
	CHECK_EQ(23, quota_take(&q, key(99, 3), 1), QUOTA_TAKEN);
	free(q.buckets);
}

static void *count_and_give(void *arg)
{
	struct quota *q = arg;
	uintptr_t taken = 0;

	for (uint32_t i = 0; i < ROUNDS; i++)
		taken += quota_take(q, key(i % 3 + 1, 5), 0) == QUOTA_TAKEN;
	for (uint32_t i = 0; i < ROUNDS; i++)
		quota_give(q, key(i % 3 + 1, 5));
	return (void *)taken;
}

static void check_threads(void)
{
	struct quota q = make(1000);
	pthread_t threads[THREADS];
	void *taken;

	for (uint32_t i = 0; i < THREADS; i++)
		FP_ASSERT(pthread_create(&threads[i], NULL, count_and_give, &q) == 0);
	for (uint32_t i = 0; i < THREADS; i++) {
		pthread_join(threads[i], &taken);
		CHECK_EQ(30, (uintptr_t)taken, ROUNDS);
	}
	CHECK(31, is_empty(&q));
	free(q.buckets);
}

int main(void)
{
	check_limit();
	check_full_bucket();
	check_threads();
	return check_done("quota");
}
