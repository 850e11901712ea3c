/* SPDX-License-Identifier: Apache-2.0 */
/**
 * wheel.c - timers of the records
 */
#include "wheel.h"

static uint32_t *slot_of(struct wheel *w, uint32_t tick)
{
	return &w->slots[tick % WHEEL_SLOTS];
}

static void link_in(struct wheel *w, struct flow_table *t, uint32_t idx, uint32_t tick)
{
	struct flow_link *l = &t->link[idx];
	uint32_t *head = slot_of(w, tick);

	l->sched_tick = tick;
	l->wheel_prev = FLOW_NONE;
	l->wheel_next = *head;
	if (*head)
		t->link[*head].wheel_prev = idx;
	*head = idx;
}

void wheel_cancel(struct wheel *w, struct flow_table *t, uint32_t idx)
{
	struct flow_link *l = &t->link[idx];

	if (!l->sched_tick)
		return;
	if (l->wheel_prev)
		t->link[l->wheel_prev].wheel_next = l->wheel_next;
	else
		*slot_of(w, l->sched_tick) = l->wheel_next;
	if (l->wheel_next)
		t->link[l->wheel_next].wheel_prev = l->wheel_prev;
	l->sched_tick = 0;
	l->wheel_next = FLOW_NONE;
	l->wheel_prev = FLOW_NONE;
}

void wheel_schedule(struct wheel *w, struct flow_table *t, uint32_t idx, uint32_t tick)
{
	struct flow_link *l = &t->link[idx];

	/* From the next tick on: a slot that is being looked at must not grow, or the look never ends. */
	tick = max_u32(tick, w->tick + 1);
	tick = min_u32(tick, w->tick + WHEEL_SLOTS - 1);
	if (l->sched_tick) {
		if (l->sched_tick <= tick)
			return;
		wheel_cancel(w, t, idx);
	}
	link_in(w, t, idx, tick);
}

uint32_t wheel_next(struct wheel *w, struct flow_table *t, uint32_t now_tick)
{
	/* After a long standstill (PASSIVE, or stopped) one turn looks at every slot. */
	if (now_tick > w->tick + WHEEL_SLOTS)
		w->tick = now_tick - WHEEL_SLOTS;
	for (;;) {
		uint32_t idx = *slot_of(w, w->tick);

		if (idx) {
			uint32_t after = t->link[idx].wheel_next;

			/* The caller is going to look at it; the one after it is next. */
			__builtin_prefetch(&t->link[after]);
			__builtin_prefetch(&t->rec[after].hot);
			wheel_cancel(w, t, idx);
			return idx;
		}
		if (w->tick >= now_tick)
			return FLOW_NONE;
		w->tick++;
	}
}
