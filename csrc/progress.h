/* SPDX-License-Identifier: Apache-2.0 */
/**
 * progress.h - whether control and the workers get anywhere
 *
 * Theory of operation
 *   Who dies falls silent. A node of which only a part hangs does not: the pulse thread speaks on for a control plane
 *   that decides nothing any more, or for a worker that forwards nothing. So that thread looks at a count of each,
 *   which moves while it lives: control's beat, and the passes of each worker. A worker that sleeps is rung for once
 *   it has not moved for half its time, so that sleep is no sign of death.
 *
 *   Time during which the pulse thread itself was away is given back: who was stopped with everybody else does not
 *   hang (lease.h has what follows from that). Control that has not begun to beat yet does not hang either.
 *
 *   What follows from a hang is decided in pulse.c.
 *
 * Time is an argument; there is no I/O here.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include "base.h"

/* The pulse thread looks more often than this, unless it is away. */
#define PROGRESS_LOOK_NS (100 * NS_PER_MS)

/**
 * struct progress - Of one thread, as the pulse thread has seen it
 * @count:    of its beats or passes, when that was looked at last
 * @since_ns: when it was first seen to be that
 */
struct progress {
	uint32_t count;
	uint64_t since_ns;
};

enum progress_is { PROGRESS_MOVES, PROGRESS_LATE, PROGRESS_HANGS };

/* progress_give_back() - Nobody looked from @since_ns on */
static inline void progress_give_back(struct progress *p, uint64_t since_ns, uint64_t now_ns)
{
	if (since_ns && now_ns > since_ns + PROGRESS_LOOK_NS)
		p->since_ns += now_ns - since_ns - PROGRESS_LOOK_NS;
}

/**
 * progress_look() - Has it moved since it was looked at last?
 * @limit_ns: a thread that has not for so long hangs; 0: never
 */
static inline enum progress_is progress_look(struct progress *p, uint32_t count, uint64_t limit_ns,
					     uint64_t now_ns)
{
	uint64_t still_ns;

	if (count != p->count || p->since_ns == 0) {
		p->count = count;
		p->since_ns = now_ns;
	}
	still_ns = now_ns > p->since_ns ? now_ns - p->since_ns : 0;
	if (limit_ns == 0 || still_ns < limit_ns / 2)
		return PROGRESS_MOVES;
	return still_ns < limit_ns ? PROGRESS_LATE : PROGRESS_HANGS;
}

#endif /* PROGRESS_H */
