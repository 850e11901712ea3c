/* SPDX-License-Identifier: Apache-2.0 */
/**
 * wheel.h - timers of the records: one wheel of 4096 slots of 2^27 ns (134 ms)
 *
 * A record is on the wheel once. A packet that refreshes a session only writes flow_hot.deadline_tick; the
 * wheel finds out when it looks at the record and puts it back to where it belongs. It has to be moved at once
 * only when the deadline becomes earlier, which whoever makes it so knows (session_moved()). Deadlines beyond
 * the horizon (9 minutes) wait at the horizon.
 *
 * The first record of a slot has the slot in flow_link.wheel_prev, marked by WHEEL_HEAD: so a record can be
 * taken off without knowing when it is due.
 */
#ifndef WHEEL_H
#define WHEEL_H

#include "base.h"
#include "flow.h"

enum { WHEEL_SLOTS = 4096, WHEEL_TICK_SHIFT = 27 };
#define WHEEL_HEAD 0x80000000u

/**
 * struct wheel - Timers
 * @slots: heads of doubly linked lists through flow_link
 * @tick:  the tick that is being looked at, or was last
 */
struct wheel {
	uint32_t *slots;
	uint32_t tick;
};

static inline uint32_t wheel_tick(uint64_t now_ns)
{
	return (uint32_t)(now_ns >> WHEEL_TICK_SHIFT);
}

/* Ticks of a time span, rounded up, so that nothing is due too early. */
static inline uint32_t wheel_ticks_s(uint32_t seconds)
{
	uint64_t ns = (uint64_t)seconds * NS_PER_S;

	return (uint32_t)((ns + (UINT64_C(1) << WHEEL_TICK_SHIFT) - 1) >> WHEEL_TICK_SHIFT) + 1;
}

static inline size_t wheel_mem_size(void)
{
	return WHEEL_SLOTS * sizeof(uint32_t);
}

/**
 * wheel_schedule() - Put a record on the wheel, or move it
 * @tick: when to look at it; a tick already gone by is looked at next
 */
void wheel_schedule(struct wheel *w, struct flow_table *t, uint32_t idx, uint32_t tick);

/**
 * wheel_cancel() - Take a record off the wheel, if it is on it
 */
void wheel_cancel(struct wheel *w, struct flow_table *t, uint32_t idx);

/**
 * wheel_take() - Take records off the wheel that are to be looked at by @now_tick
 *
 * What the caller is going to look at is on its way into the cache.
 * Return: how many, at most @cap; < @cap when the wheel has arrived at @now_tick.
 */
uint32_t wheel_take(struct wheel *w, struct flow_table *t, uint32_t now_tick, uint32_t *idx, uint32_t cap);

#endif /* WHEEL_H */
