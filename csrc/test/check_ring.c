/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_ring.c - the ring alone, and two threads that sleep on each other's doorbells
 */
#include <poll.h>
#include <pthread.h>

#include "check.h"
#include "doorbell.h"
#include "ring.h"

static struct ring *make_ring(uint32_t slot_size, uint32_t cap)
{
	struct ring *r = aligned_alloc(CACHE_LINE, sizeof(*r));

	REQUIRE(r != NULL);
	memset(r, 0, sizeof(*r));
	REQUIRE(ring_init(r, slot_size, cap) == 0);
	return r;
}

static void free_ring(struct ring *r)
{
	ring_free(r);
	free(r);
}

static void check_capacity_is_a_power_of_two(void)
{
	struct ring r = { 0 };

	CHECK_EQ(1, ring_init(&r, 8, 0), -EINVAL);
	CHECK_EQ(2, ring_init(&r, 8, 3), -EINVAL);
	CHECK_EQ(3, ring_init(&r, 0, 4), -EINVAL);
}

static void check_spans_end_with_the_array(void)
{
	struct ring *r = make_ring(sizeof(uint32_t), 4);
	uint32_t n = 8;
	uint32_t *slots = ring_reserve(r, &n);

	CHECK_EQ(4, n, 4);
	for (uint32_t i = 0; i < 3; i++)
		slots[i] = i;
	CHECK(5, ring_submit(r, 3)); /* the consumer had caught up */
	n = 2;
	slots = ring_peek(r, &n);
	CHECK_EQ(6, n, 2);
	CHECK_EQ(7, slots[1], 1);
	ring_release(r, 2);
	n = 8;
	slots = ring_reserve(r, &n); /* one slot up to the end, though three are free */
	CHECK_EQ(8, n, 1);
	slots[0] = 3;
	CHECK(9, !ring_submit(r, 1)); /* slot 2 still waits */
	n = 8;
	ring_reserve(r, &n);
	CHECK_EQ(10, n, 2);
	n = 8;
	slots = ring_peek(r, &n);
	CHECK_EQ(11, n, 2);
	CHECK_EQ(12, slots[0], 2);
	CHECK_EQ(13, slots[1], 3);
	ring_release(r, 2);
	CHECK(14, ring_is_empty(r));
	free_ring(r);
}

static void check_full_and_empty(void)
{
	struct ring *r = make_ring(8, 2);
	uint32_t n = 2;

	CHECK(15, ring_is_empty(r));
	CHECK(16, !ring_is_full(r));
	CHECK(17, ring_peek_one(r) == NULL);
	CHECK(18, ring_reserve_one(r) != NULL);
	ring_submit(r, 1);
	CHECK(19, ring_reserve_one(r) != NULL);
	ring_submit(r, 1);
	CHECK(20, ring_is_full(r));
	CHECK(21, ring_reserve_one(r) == NULL);
	CHECK(22, !ring_submit(r, 0)); /* nothing published, nobody to wake */
	CHECK(23, ring_peek(r, &n) != NULL);
	CHECK_EQ(24, n, 2);
	ring_release(r, n);
	CHECK(25, ring_is_empty(r));
	free_ring(r);
}

static void check_cursors_may_wrap_around(void)
{
	struct ring *r = make_ring(sizeof(uint32_t), 8);

	atomic_store(&r->head, UINT32_MAX - 2);
	atomic_store(&r->tail, UINT32_MAX - 2);
	r->head_seen = r->tail_seen = UINT32_MAX - 2;
	for (uint32_t i = 0; i < 20; i++) {
		uint32_t *slot = ring_reserve_one(r);

		REQUIRE(slot != NULL);
		*slot = i;
		ring_submit(r, 1);
		slot = ring_peek_one(r);
		REQUIRE(slot != NULL);
		CHECK_EQ(28, *slot, i);
		ring_release(r, 1);
	}
	free_ring(r);
}

/* ---- two threads ---- */

enum { N_ITEMS = 200000, SLEEP_LIMIT_MS = 5000 };

struct pair {
	struct ring *ring;
	struct doorbell full;  /* wakes the consumer */
	struct doorbell empty; /* wakes the producer */
};

/* Sleep on a doorbell; a wake-up that is lost shows as a timeout. */
static void nap(struct doorbell *bell)
{
	struct pollfd pfd = { .fd = bell->fd, .events = POLLIN };
	uint64_t n;

	REQUIRE(poll(&pfd, 1, SLEEP_LIMIT_MS) == 1);
	REQUIRE(read(bell->fd, &n, sizeof(n)) == sizeof(n));
}

static void *produce(void *arg)
{
	struct pair *p = arg;
	uint64_t next = 0;

	while (next < N_ITEMS) {
		uint32_t n = 1 + (uint32_t)(next * 7 % 13);
		uint64_t *slots = ring_reserve(p->ring, &n);

		if (n == 0) {
			doorbell_lie_down(&p->empty);
			if (ring_is_full(p->ring))
				nap(&p->empty);
			doorbell_get_up(&p->empty);
			continue;
		}
		for (uint32_t i = 0; i < n; i++)
			slots[i] = next++;
		ring_submit(p->ring, n);
		doorbell_ring(&p->full);
	}
	return NULL;
}

static void *consume(void *arg)
{
	struct pair *p = arg;
	uint64_t next = 0;

	while (next < N_ITEMS) {
		uint32_t n = 1 + (uint32_t)(next * 5 % 11);
		const uint64_t *slots = ring_peek(p->ring, &n);

		if (n == 0) {
			doorbell_lie_down(&p->full);
			if (ring_is_empty(p->ring))
				nap(&p->full);
			doorbell_get_up(&p->full);
			continue;
		}
		for (uint32_t i = 0; i < n && next < N_ITEMS; i++)
			REQUIRE(slots[i] == next++);
		ring_release(p->ring, n);
		doorbell_ring(&p->empty);
	}
	return NULL;
}

static void check_two_threads_lose_nothing_and_always_wake(void)
{
	struct pair *p = aligned_alloc(CACHE_LINE, sizeof(*p));
	pthread_t producer, consumer;

	REQUIRE(p != NULL);
	memset(p, 0, sizeof(*p));
	p->ring = make_ring(sizeof(uint64_t), 16);
	REQUIRE(doorbell_init(&p->full) == 0);
	REQUIRE(doorbell_init(&p->empty) == 0);
	REQUIRE(pthread_create(&producer, NULL, produce, p) == 0);
	REQUIRE(pthread_create(&consumer, NULL, consume, p) == 0);
	pthread_join(producer, NULL);
	pthread_join(consumer, NULL);
	doorbell_free(&p->full);
	doorbell_free(&p->empty);
	free_ring(p->ring);
	free(p);
}

int main(void)
{
	check_capacity_is_a_power_of_two();
	check_spans_end_with_the_array();
	check_full_and_empty();
	check_cursors_may_wrap_around();
	check_two_threads_lose_nothing_and_always_wake();
	return check_done("ring");
}
