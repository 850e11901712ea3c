/* SPDX-License-Identifier: Apache-2.0 */
/**
 * dp.h - what stands behind the handle that Python holds; for the files fp_api*.c and the checks
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
 * struct dp_left - Changes that a lane took out of the rings and left to control: a marker is among them
 * @rec:     room for LEFT_MAX, once there was a lane
 * @n, @at:  so many, and the next one
 * @spans:   by worker, in the order in which they were taken
 */
struct dp_left {
	struct fp_flow_rec *rec;
	uint32_t n, at, n_spans;
	struct {
		uint32_t worker, end;
	} spans[FP_WORKERS_MAX];
};

enum { LEFT_MAX = 4096 };

/* dp_left_worker() - Whose the next one is; there is one */
static inline uint32_t dp_left_worker(const struct dp_left *left)
{
	uint32_t i = 0;

	while (left->spans[i].end <= left->at)
		i++;
	return left->spans[i].worker;
}

/**
 * struct fp_dp - The data plane of one node
 * @cfg:            copy of what fp_open() was given
 * @plane:          ports, workers, fence
 * @pulse:          heartbeats
 * @fibs:           next hops, the newest snapshot first
 * @policies:       rules, the newest snapshot first
 * @fib_generation: of the newest one of @fibs
 * @fib_owed:       a worker has not taken that one
 * @inject_lost:    frames that found the ring full
 * @capture:        the one that runs, or waits to be freed; NULL
 * @capture_off:    no worker knows of @capture any more
 * @digests_due:    a bit for each worker that was asked for its digests, and has not been read since
 * @left:           changes that a lane has left to control
 * @test_now_ns:    clock of the tests, once one of them has set it
 */
struct fp_dp {
	struct fp_config cfg;
	struct plane plane;
	struct pulse pulse;
	struct snapshot *fibs;
	struct snapshot *policies;
	uint32_t fib_generation;
	bool fib_owed;
	uint64_t inject_lost;
	struct capture *capture;
	bool capture_off;
	uint32_t digests_due;
	struct dp_left left;
	uint64_t test_now_ns;
};

/* dp_now() - The time; the tests' own while no thread runs */
uint64_t dp_now(const struct fp_dp *dp);

/* dp_worker() - A worker by its number; NULL: there is none */
struct worker *dp_worker(const struct fp_dp *dp, uint32_t worker);

/* dp_policy() - The newest snapshot of rules; NULL: there is none */
static inline const struct policy *dp_policy(const struct fp_dp *dp)
{
	return dp->policies ? dp->policies->mem : NULL;
}

/* dp_take() - Take at most @cap slots of a ring, across its end; returns how many */
int dp_take(struct ring *ring, void *out, uint32_t cap);

/* dp_push_snapshot() - Memory for a snapshot, in front of those that workers may still read; or NULL */
struct snapshot *dp_push_snapshot(struct snapshot **list, size_t size);

/* dp_free_snapshots() - Free all of a list */
void dp_free_snapshots(struct snapshot **list);

#endif /* DP_H */
