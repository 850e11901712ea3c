/* SPDX-License-Identifier: Apache-2.0 */
/**
 * dp.h - what stands behind the handle that Python holds; for fp_api.c and the checks
 */
#ifndef DP_H
#define DP_H

#include "plane.h"
#include "pulse.h"

/* A snapshot of next hops, and the ones before it that a worker may still read. */
struct fib_block {
	struct fib_block *older;
	void *mem;
};

/**
 * struct fp_dp - The data plane of one node
 * @cfg:            copy of what fp_open() was given
 * @plane:          ports, workers, fence
 * @pulse:          heartbeats
 * @fibs:           the newest snapshot first
 * @fib_generation: of the newest snapshot
 * @inject_lost:    frames that found the ring full
 * @test_now_ns:    clock of the tests, once one of them has set it
 */
struct fp_dp {
	struct fp_config cfg;
	struct plane plane;
	struct pulse pulse;
	struct fib_block *fibs;
	uint32_t fib_generation;
	uint64_t inject_lost;
	uint64_t test_now_ns;
};

#endif /* DP_H */
