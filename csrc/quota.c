/* SPDX-License-Identifier: Apache-2.0 */
/**
 * quota.c - counts by address, over all workers
 */
#include "quota.h"

enum { SESSIONS_PER_BUCKET = 64 };

#define COUNT_MASK ((UINT64_C(1) << QUOTA_COUNT_BITS) - 1)

size_t quota_mem_size(uint32_t flow_cap)
{
	return ((size_t)flow_cap / SESSIONS_PER_BUCKET + 1) * sizeof(struct quota_bucket);
}

void quota_init(struct quota *q, uint32_t flow_cap, void *mem)
{
	q->buckets = mem;
	q->n = flow_cap / SESSIONS_PER_BUCKET + 1;
}

static _Atomic uint64_t *bucket_of(const struct quota *q, uint64_t key)
{
	return q->buckets[(key & COUNT_MASK) * q->n >> QUOTA_COUNT_BITS].word;
}

/* The word of a count of one; never 0. */
static uint64_t first_of(uint64_t key)
{
	uint64_t tag = key & ~COUNT_MASK;

	return (tag ? tag : COUNT_MASK + 1) | 1;
}

static uint32_t count_of(uint64_t word)
{
	return (uint32_t)(word & COUNT_MASK);
}

static bool is_whose(uint64_t word, uint64_t key)
{
	return word && ((word ^ first_of(key)) & ~COUNT_MASK) == 0;
}

/* The counts say nothing about other memory, so relaxed order will do everywhere. */
static bool swap(_Atomic uint64_t *word, uint64_t from, uint64_t to)
{
	return atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_relaxed,
						       memory_order_relaxed);
}

enum quota_answer quota_take(struct quota *q, uint64_t key, uint32_t limit)
{
	_Atomic uint64_t *words = bucket_of(q, key);

	for (;;) {
		uint32_t empty = QUOTA_WORDS, i = 0;
		uint64_t word = 0;

		for (; i < QUOTA_WORDS; i++) {
			word = atomic_load_explicit(&words[i], memory_order_relaxed);
			if (is_whose(word, key))
				break;
			if (!word)
				empty = min_u32(empty, i);
		}
		if (i < QUOTA_WORDS) {
			if (limit && count_of(word) >= limit)
				return QUOTA_NONE_LEFT;
			if (count_of(word) == COUNT_MASK)
				return QUOTA_UNCOUNTED;
			if (swap(&words[i], word, word + 1))
				return QUOTA_TAKEN;
		} else {
			if (empty == QUOTA_WORDS)
				return QUOTA_UNCOUNTED;
			if (swap(&words[empty], 0, first_of(key)))
				return QUOTA_TAKEN;
		}
	}
}

void quota_give(struct quota *q, uint64_t key)
{
	_Atomic uint64_t *words = bucket_of(q, key);

	for (;;) {
		uint64_t word = 0;
		uint32_t i = 0;

		for (; i < QUOTA_WORDS; i++) {
			word = atomic_load_explicit(&words[i], memory_order_relaxed);
			if (is_whose(word, key))
				break;
		}
		FP_ASSERT(i < QUOTA_WORDS);
		if (swap(&words[i], word, count_of(word) == 1 ? 0 : word - 1))
			return;
	}
}
