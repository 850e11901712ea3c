/* SPDX-License-Identifier: Apache-2.0 */
/**
 * wheel.h - timers of the records: one wheel of 4096 slots of 2^27 ns (134 ms)
 *
 * A record is on the wheel once, in the slot of flow_link.sched_tick. A packet that refreshes a session only
 * writes flow_hot.deadline_tick; the wheel finds out when it looks at the record and puts it back to where
 * it belongs. It is moved at once only when the deadline becomes earlier. Deadlines beyond the horizon
 * (9 minutes) wait at the horizon.
 */
#ifndef WHEEL_H
#define WHEEL_H

#include "base.h"
#include "flow.h"

enum { WHEEL_SLOTS = 4096, WHEEL_TICK_SHIFT = 27 };

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
 * wheel_schedule() - Put a record on the wheel, or move it to an earlier slot
 * @tick: when to look at it; a tick already gone by is looked at next
 */
void wheel_schedule(struct wheel *w, struct flow_table *t, uint32_t idx, uint32_t tick);

/**
 * wheel_cancel() - Take a record off the wheel, if it is on it
 */
void wheel_cancel(struct wheel *w, struct flow_table *t, uint32_t idx);

/**
 * wheel_next() - Take the next record off the wheel that is to be looked at by @now_tick
 * Return: index, or FLOW_NONE when the wheel has arrived at @now_tick.
 */
uint32_t wheel_next(struct wheel *w, struct flow_table *t, uint32_t now_tick);

#endif /* WHEEL_H */
