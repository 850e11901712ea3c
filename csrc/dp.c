/* SPDX-License-Identifier: Apache-2.0 */
/**
 * dp.c - what the files of the boundary share
 */
#include "clock.h"
#include "dp.h"

uint64_t dp_now(const struct fp_dp *dp)
{
	return dp->test_now_ns && !dp->plane.running ? dp->test_now_ns : clock_now();
}

struct worker *dp_worker(const struct fp_dp *dp, uint32_t worker)
{
	return dp && worker < dp->plane.n_workers ? &dp->plane.workers[worker] : NULL;
}

int dp_take(struct ring *ring, void *out, uint32_t cap)
{
	uint8_t *dst = out;
	uint32_t taken = 0;

	while (taken < cap) {
		uint32_t n = cap - taken;
		const void *src = ring_peek(ring, &n);

		if (n == 0)
			break;
		memcpy(dst + (size_t)taken * ring->slot_size, src, (size_t)n * ring->slot_size);
		ring_release(ring, n);
		taken += n;
	}
	return (int)taken;
}

struct snapshot *dp_push_snapshot(struct snapshot **list, size_t size)
{
	struct snapshot *block = malloc(sizeof(*block));

	if (!block)
		return NULL;
	block->mem = aligned_alloc(CACHE_LINE, (size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	if (!block->mem) {
		free(block);
		return NULL;
	}
	block->older = *list;
	*list = block;
	return block;
}

void dp_free_snapshots(struct snapshot **list)
{
	while (*list) {
		struct snapshot *block = *list;

		*list = block->older;
		free(block->mem);
		free(block);
	}
}
