/* SPDX-License-Identifier: Apache-2.0 */
/**
 * dp.h - what stands behind the handle that Python holds; for fp_api.c and the checks
 */
#ifndef DP_H
#define DP_H

#include "plane.h"
#include "pulse.h"

/* A snapshot of next hops or of rules, and the ones before it that a worker may still read. */
struct snapshot {
	struct snapshot *older;
	void *mem;
};

/**
 * struct fp_dp - The data plane of one node
 * @cfg:            copy of what fp_open() was given
 * @plane:          ports, workers, fence
 * @pulse:          heartbeats
 * @fibs:           next hops, the newest snapshot first
 * @policies:       rules, the newest snapshot first
 * @fib_generation: of the newest one of @fibs
 * @inject_lost:    frames that found the ring full
 * @capture:        the one that runs, or waits to be freed; NULL
 * @capture_off:    no worker knows of @capture any more
 * @test_now_ns:    clock of the tests, once one of them has set it
 */
struct fp_dp {
	struct fp_config cfg;
	struct plane plane;
	struct pulse pulse;
	struct snapshot *fibs;
	struct snapshot *policies;
	uint32_t fib_generation;
	uint64_t inject_lost;
	struct capture *capture;
	bool capture_off;
	uint64_t test_now_ns;
};

#endif /* DP_H */
