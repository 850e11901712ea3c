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

	l->wheel_prev = WHEEL_HEAD | tick % WHEEL_SLOTS;
	l->wheel_next = *head;
	if (*head)
		t->link[*head].wheel_prev = idx;
	*head = idx;
}

void wheel_cancel(struct wheel *w, struct flow_table *t, uint32_t idx)
{
	struct flow_link *l = &t->link[idx];

	if (!l->wheel_prev)
		return;
	if (l->wheel_prev & WHEEL_HEAD)
		w->slots[l->wheel_prev & ~WHEEL_HEAD] = l->wheel_next;
	else
		t->link[l->wheel_prev].wheel_next = l->wheel_next;
	if (l->wheel_next)
		t->link[l->wheel_next].wheel_prev = l->wheel_prev;
	l->wheel_next = FLOW_NONE;
	l->wheel_prev = FLOW_NONE;
}

void wheel_schedule(struct wheel *w, struct flow_table *t, uint32_t idx, uint32_t tick)
{
	wheel_cancel(w, t, idx);
	/* From the next tick on: a slot that is being looked at must not grow, or the look never ends. */
	tick = max_u32(tick, w->tick + 1);
	link_in(w, t, idx, min_u32(tick, w->tick + WHEEL_SLOTS - 1));
}

uint32_t wheel_take(struct wheel *w, struct flow_table *t, uint32_t now_tick, uint32_t *idx, uint32_t cap)
{
	uint32_t n = 0;

	/* After a long standstill (PASSIVE, or stopped) one turn looks at every slot. */
	if (now_tick > w->tick + WHEEL_SLOTS)
		w->tick = now_tick - WHEEL_SLOTS;
	for (;;) {
		uint32_t *head = slot_of(w, w->tick), at = *head;

		for (; at && n < cap; n++) {
			struct flow_link *l = &t->link[at];

			__builtin_prefetch(&t->rec[at].hot, 1);
			__builtin_prefetch(&t->rec[at].cold, 1);
			idx[n] = at;
			at = l->wheel_next;
			l->wheel_next = FLOW_NONE;
			l->wheel_prev = FLOW_NONE;
		}
		*head = at;
		if (at) {
			t->link[at].wheel_prev = WHEEL_HEAD | w->tick % WHEEL_SLOTS;
			return n;
		}
		if (w->tick >= now_tick)
			return n;
		w->tick++;
	}
}
