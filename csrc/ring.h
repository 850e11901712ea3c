/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ring.h - single-producer, single-consumer ring of fixed-size slots
 *
 * DOC: Theory of Operation
 *
 *              producer                         consumer
 *   look       ring_reserve(): free slots       ring_peek(): filled slots
 *   publish    ring_submit(): n are filled      ring_release(): n are free again
 *
 * Both looks hand out a *contiguous* span, so a burst costs one publication, and a slot is filled and read
 * in place. A span ends at the end of the array; the next look begins at its start. Looks may be repeated;
 * only a publication moves a cursor. Each side's cursors have a cache line of their own; the copy of the
 * other side's cursor is refreshed only when the old one shows too little.
 *
 * Prohibited
 *   two producers or two consumers    the cursors are not compare-and-swapped; give each pair its own ring
 *   submit more than was reserved     the consumer would read slots that nobody wrote
 *   release more than was peeked      the producer would overwrite what nobody read
 *   blocking when full                a full ring is the caller's verdict, counted, never a stall
 *
 * Memory order: publishing a cursor releases, looking at the other side's cursor acquires: the tail carries
 * the slots' content to the consumer, the head carries the consumer's last reads back to the producer. Both
 * are seq_cst on top of that, so that "publish, then look whether the other side sleeps" cannot miss "lie
 * down, then look once more" (doorbell.h), whichever side waits for the other.
 *
 * ring_submit() also says whether the consumer had caught up, which is when a consumer that is woken by a
 * file descriptor needs to be.
 */
#ifndef RING_H
#define RING_H

#include <errno.h>

#include "base.h"

struct ring {
	/* line 0: constant after ring_init() */
	uint8_t *slots;
	uint32_t slot_size;
	uint32_t mask;
	/* line 1: the producer's */
	CACHE_ALIGNED _Atomic uint32_t tail;
	uint32_t head_seen;
	/* line 2: the consumer's */
	CACHE_ALIGNED _Atomic uint32_t head;
	uint32_t tail_seen;
};

/**
 * ring_init() - Allocate the slots
 * @r:         zeroed ring
 * @slot_size: bytes; rounded up by the caller if slots hold aligned structs
 * @cap:       slots, a power of two
 *
 * Return: 0, -EINVAL or -ENOMEM.
 */
static inline int ring_init(struct ring *r, uint32_t slot_size, uint32_t cap)
{
	if (slot_size == 0 || cap == 0 || (cap & (cap - 1)) != 0)
		return -EINVAL;
	r->slots = aligned_alloc(CACHE_LINE,
				 ((size_t)slot_size * cap + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	if (!r->slots)
		return -ENOMEM;
	r->slot_size = slot_size;
	r->mask = cap - 1;
	return 0;
}

static inline void ring_free(struct ring *r)
{
	free(r->slots);
	r->slots = NULL;
}

/**
 * ring_reserve() - The next free slots
 * @r: ring
 * @n: in: how many are wanted; out: how many there are, 0 when the ring is full
 *
 * Context: producer.
 * Return:  the first of *n contiguous slots.
 */
static inline void *ring_reserve(struct ring *r, uint32_t *n)
{
	const uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	const uint32_t cap = r->mask + 1;

	if (cap - (tail - r->head_seen) < *n) /* seq_cst: pairs with ring_release() */
		r->head_seen = atomic_load_explicit(&r->head, memory_order_seq_cst);
	*n = min_u32(*n, min_u32(cap - (tail - r->head_seen), cap - (tail & r->mask)));
	return r->slots + (size_t)(tail & r->mask) * r->slot_size;
}

/**
 * ring_submit() - Publish the first @n reserved slots
 *
 * The order is total (seq_cst) so that the answer can be trusted: either the consumer's next ring_peek()
 * sees the slots, or we see here that it had released everything before them.
 *
 * Context: producer.
 * Return:  true if the consumer had caught up, and so may be asleep.
 */
static inline bool ring_submit(struct ring *r, uint32_t n)
{
	const uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	atomic_store_explicit(&r->tail, tail + n, memory_order_seq_cst); /* pairs with ring_peek() */
	return n != 0 && atomic_load_explicit(&r->head, memory_order_seq_cst) == tail;
}

/**
 * ring_peek() - The oldest filled slots
 * @r: ring
 * @n: in: how many are wanted; out: how many there are, 0 when the ring is empty
 *
 * Context: consumer.
 * Return:  the first of *n contiguous slots.
 */
static inline void *ring_peek(struct ring *r, uint32_t *n)
{
	const uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

	if (r->tail_seen - head < *n) /* seq_cst: pairs with ring_submit() */
		r->tail_seen = atomic_load_explicit(&r->tail, memory_order_seq_cst);
	*n = min_u32(*n, min_u32(r->tail_seen - head, r->mask + 1 - (head & r->mask)));
	return r->slots + (size_t)(head & r->mask) * r->slot_size;
}

/**
 * ring_release() - Give the first @n peeked slots back
 *
 * Context: consumer.
 */
static inline void ring_release(struct ring *r, uint32_t n)
{
	const uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

	atomic_store_explicit(&r->head, head + n, memory_order_seq_cst); /* pairs with ring_reserve() */
}

/* The consumer's view: whether anything waits. */
static inline bool ring_is_empty(struct ring *r)
{
	uint32_t one = 1;

	ring_peek(r, &one);
	return one == 0;
}

/* The producer's view: whether there is no room. */
static inline bool ring_is_full(struct ring *r)
{
	uint32_t one = 1;

	ring_reserve(r, &one);
	return one == 0;
}

/* One slot at a time, where bursts do not occur: NULL when full / empty. */
static inline void *ring_reserve_one(struct ring *r)
{
	uint32_t one = 1;
	void *slot = ring_reserve(r, &one);

	return one ? slot : NULL;
}

static inline void *ring_peek_one(struct ring *r)
{
	uint32_t one = 1;
	void *slot = ring_peek(r, &one);

	return one ? slot : NULL;
}

#endif /* RING_H */
