/* SPDX-License-Identifier: Apache-2.0 */
/**
 * quota.c - counts by address, over all workers
 */
#include "quota.h"

/* Two bytes a session; a small node has room enough for its addresses not to meet. */
enum { SESSIONS_PER_COLUMN = 8, WIDTH_MIN = 4096 };

static uint32_t width_of(uint32_t flow_cap)
{
	return max_u32(flow_cap / SESSIONS_PER_COLUMN, WIDTH_MIN);
}

size_t quota_mem_size(uint32_t flow_cap)
{
	const size_t size = (size_t)QUOTA_ROWS * width_of(flow_cap) * sizeof(uint32_t);

	return (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
}

void quota_init(struct quota *q, uint32_t flow_cap, void *mem)
{
	q->count = mem;
	q->width = width_of(flow_cap);
}

/* The two halves of the hash make as many as there are rows (Kirsch and Mitzenmacher 2006). */
static _Atomic uint32_t *counter_of(const struct quota *q, uint64_t key, uint32_t row)
{
	const uint32_t hash = (uint32_t)key + row * ((uint32_t)(key >> 32) | 1);

	return &q->count[row * (size_t)q->width + ((uint64_t)hash * q->width >> 32)];
}

/* The counts say nothing about other memory, so relaxed order will do everywhere. */
bool quota_take(struct quota *q, uint64_t key, uint32_t limit)
{
	uint32_t least = UINT32_MAX;

	/* Counted first and asked then: of two workers that take the last one, one sees the other. */
	for (uint32_t row = 0; row < QUOTA_ROWS; row++)
		least = min_u32(least,
				atomic_fetch_add_explicit(counter_of(q, key, row), 1, memory_order_relaxed));
	if (!limit || least < limit)
		return true;
	quota_give(q, key);
	return false;
}

void quota_give(struct quota *q, uint64_t key)
{
	for (uint32_t row = 0; row < QUOTA_ROWS; row++) {
		uint32_t before = atomic_fetch_sub_explicit(counter_of(q, key, row), 1, memory_order_relaxed);

		FP_ASSERT(before);
	}
}
