/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tour.h - a slow walk over a worker's own records, all the time
 *
 *   what                                               where           how often
 *   sessions with traffic since the last one: REST     ACTIVE          fp_sync_cfg.refresh_s
 *   sessions that a sweep has told: REST               ACTIVE          once, in a quick round right behind it
 *   the digests counted anew and compared (scrub)      both nodes      refresh_s; PASSIVE: a minute
 *   sessions whose rule says "after", and it is time   ACTIVE          while there are such rules: a second
 *
 * Of a TCP connection that begins the windows are told by the queues (transfer.c), before the tour comes by.
 *
 * A round goes along with the time: in each tick of the wheel it does its share of the records, some at a time,
 * between the bursts. What changes behind the walker changes both counts of the scrub (digest.c), so at the end of
 * a round they are the same, unless a record has changed that nobody told of. Then ACTIVE has lost the shard and
 * sweeps it; PASSIVE takes what it has counted, which differs from ACTIVE's, and the audit repairs it.
 *
 * Nobody has room for the age of a session, but the numbers in identities grow: who is older than the number that
 * was given out some seconds ago is older than that.
 */
#ifndef TOUR_H
#define TOUR_H

#include "base.h"

struct core;
struct flow_hot;

enum { AGES_S = 3601 };

/**
 * struct digest - Of a shard
 * @sum: of the hashes of its records, modulo 2^64
 * @n:   records
 */
struct digest {
	uint64_t sum;
	uint32_t n;
};

/**
 * struct tour - The walk
 * @slot:      next record; 0: no round is under way
 * @goal:      the round may go up to here in this tick
 * @tick:      wheel tick that @goal is of
 * @more:      it is behind @goal
 * @full:      this round does all; otherwise it only looks for who has come of age
 * @begun_ns:  when this round began
 * @full_ns:   when the last full one began
 * @full_tick: the same; sessions that had traffic since are told
 * @last_tick: when the full one before that began
 * @swept:     shards of which a sweep has told records, without their windows and counters
 * @anew:      of them, those that this round tells the rest of, quiet sessions included; 0: it is not a quick one
 * @scrub:     digests of the records that this round has passed
 * @age_s:     second up to which @ages is filled in
 * @ages:      by second: identities given out when it began
 */
struct tour {
	uint32_t slot, goal, tick;
	bool more, full;
	uint64_t begun_ns, full_ns;
	uint32_t full_tick, last_tick;
	uint64_t swept, anew;
	struct digest scrub[FP_SHARDS];
	uint64_t age_s;
	uint64_t ages[AGES_S];
};

/**
 * tour_walk() - Go on
 * @out:   FP_OP_REST of sessions with traffic
 * @slots: records to look at, at most
 * Return: records written to @out.
 */
uint32_t tour_walk(struct core *c, struct fp_flow_rec *out, uint32_t cap, uint32_t slots);

/**
 * tour_of_age() - Is the session as old as its rule wants it to be before the peer hears of it?
 */
bool tour_of_age(const struct core *c, uint32_t idx, uint32_t after_s);

#endif /* TOUR_H */
