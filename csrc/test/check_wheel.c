/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_wheel.c - timers: order, earlier and later deadlines, the horizon, a standstill
 */
#include "../wheel.h"
#include "check.h"

enum { CAP = 1000 };

static struct flow_rec recs[CAP + 1];
static struct flow_link links[CAP + 1];
static uint32_t slots[WHEEL_SLOTS];

static struct flow_table table(void)
{
	memset(links, 0, sizeof(links));
	memset(slots, 0, sizeof(slots));
	return (struct flow_table){ .rec = recs, .link = links, .cap = CAP };
}

/* One record, or FLOW_NONE. */
static uint32_t wheel_next(struct wheel *w, struct flow_table *t, uint32_t now_tick)
{
	uint32_t idx;

	return wheel_take(w, t, now_tick, &idx, 1) ? idx : FLOW_NONE;
}

static void check_order(void)
{
	struct flow_table t = table();
	struct wheel w = { .slots = slots, .tick = 100 };

	CHECK_EQ(1, wheel_next(&w, &t, 100), FLOW_NONE);
	wheel_schedule(&w, &t, 1, 110);
	wheel_schedule(&w, &t, 2, 105);
	wheel_schedule(&w, &t, 3, 105);
	CHECK_EQ(2, wheel_next(&w, &t, 104), FLOW_NONE);
	CHECK_EQ(3, wheel_next(&w, &t, 105), 3);
	CHECK_EQ(4, wheel_next(&w, &t, 105), 2);
	CHECK_EQ(5, wheel_next(&w, &t, 105), FLOW_NONE);
	CHECK_EQ(6, wheel_next(&w, &t, 200), 1);
	CHECK_EQ(7, wheel_next(&w, &t, 200), FLOW_NONE);
	/* The past is looked at next, never in the slot under the hand: a look must come to an end. */
	wheel_schedule(&w, &t, 4, 50);
	CHECK_EQ(8, wheel_next(&w, &t, 200), FLOW_NONE);
	CHECK_EQ(9, wheel_next(&w, &t, 201), 4);
}

static void check_move(void)
{
	struct flow_table t = table();
	struct wheel w = { .slots = slots, .tick = 100 };

	wheel_schedule(&w, &t, 1, 150);
	wheel_schedule(&w, &t, 1, 120); /* earlier */
	CHECK_EQ(20, wheel_next(&w, &t, 119), FLOW_NONE);
	CHECK_EQ(21, wheel_next(&w, &t, 120), 1);
	wheel_schedule(&w, &t, 1, 150);
	wheel_schedule(&w, &t, 1, 160); /* later */
	CHECK_EQ(22, wheel_next(&w, &t, 159), FLOW_NONE);
	CHECK_EQ(26, wheel_next(&w, &t, 160), 1);
	CHECK_EQ(23, wheel_next(&w, &t, 300), FLOW_NONE);
	for (uint32_t i = 1; i <= 3; i++)
		wheel_schedule(&w, &t, i, 400);
	wheel_cancel(&w, &t, 2); /* from the middle */
	wheel_cancel(&w, &t, 3); /* from the head */
	wheel_cancel(&w, &t, 3); /* not on the wheel: nothing to do */
	CHECK_EQ(24, wheel_next(&w, &t, 400), 1);
	CHECK_EQ(25, wheel_next(&w, &t, 400), FLOW_NONE);
}

/* Several at once; what is left behind stands at the head of its slot, and can be taken off. */
static void check_take(void)
{
	struct flow_table t = table();
	struct wheel w = { .slots = slots, .tick = 100 };
	uint32_t idx[8];

	for (uint32_t i = 1; i <= 6; i++)
		wheel_schedule(&w, &t, i, 110 + i / 5);
	CHECK_EQ(30, wheel_take(&w, &t, 300, idx, 2), 2);
	CHECK(31, idx[0] == 4 && idx[1] == 3);
	wheel_cancel(&w, &t, 2);
	wheel_cancel(&w, &t, 4); /* off already */
	CHECK_EQ(32, wheel_take(&w, &t, 300, idx, 8), 3);
	CHECK(33, idx[0] == 1 && idx[1] == 6 && idx[2] == 5);
	CHECK_EQ(34, w.tick, 300);
	CHECK_EQ(35, wheel_take(&w, &t, 300, idx, 8), 0);
}

static void check_horizon(void)
{
	struct flow_table t = table();
	struct wheel w = { .slots = slots, .tick = 100 };

	wheel_schedule(&w, &t, 1, 100 + 60000);
	CHECK_EQ(41, wheel_next(&w, &t, 100 + WHEEL_SLOTS - 2), FLOW_NONE);
	CHECK_EQ(42, wheel_next(&w, &t, 100 + WHEEL_SLOTS - 1), 1);
}

/* The hand stood still (PASSIVE): one turn finds all, whatever slot they stand in. */
static void check_standstill(void)
{
	struct flow_table t = table();
	struct wheel w = { .slots = slots, .tick = 100 };
	uint32_t found = 0;

	for (uint32_t i = 1; i <= CAP; i++)
		wheel_schedule(&w, &t, i, 100 + i * 4);
	while (wheel_next(&w, &t, 10000000))
		found++;
	CHECK_EQ(60, found, CAP);
	CHECK_EQ(61, w.tick, 10000000);
}

static void check_time(void)
{
	CHECK_EQ(80, wheel_tick(0), 0);
	CHECK_EQ(81, wheel_tick(UINT64_C(1) << WHEEL_TICK_SHIFT), 1);
	/* A span in ticks is never shorter than the span. */
	for (uint32_t s = 1; s < 8000; s += 7)
		CHECK(82, ((uint64_t)(wheel_ticks_s(s) - 1) << WHEEL_TICK_SHIFT) >= s * NS_PER_S);
}

int main(void)
{
	check_order();
	check_move();
	check_take();
	check_horizon();
	check_standstill();
	check_time();
	return check_done("wheel");
}
