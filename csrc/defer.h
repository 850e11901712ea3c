/* SPDX-License-Identifier: Apache-2.0 */
/**
 * defer.h - frames that may not leave yet: the lease is over (lease.h), and the pulse thread asks whether we have our role
 *
 * Theory of operation
 *   The answer takes a millisecond or so, and with the cross-connect cut it comes as a frame that a worker has to
 *   read. So a worker never waits for it. What needs the role and is ready to leave is copied here, in order, and the
 *   worker goes on. Once the lease is renewed, the next pass sends all of it before anything newer; if the role is lost,
 *   nothing of it leaves. While any frame is here, every other that needs the role queues up behind it.
 *
 *   Bounded in bytes, in frames and in time: what has no room is dropped as `lease`, and so is everything here once the
 *   oldest is older than DEFER_MAX_NS. A frame that is dropped from here counts twice: as what it was to become, and as
 *   what became of it.
 *
 * Context: the worker's thread. Memory: the copies are touched only when there are any.
 */
#ifndef DEFER_H
#define DEFER_H

#include "lease.h"

enum {
	DEFER_BYTES = 4 << 20, /* a gigabit per second for 30 ms */
	DEFER_FRAMES = 2048
};

#define DEFER_MAX_NS LEASE_PATIENCE_NS

/**
 * struct defer - The frames of one worker that wait
 * @frames:   the oldest first
 * @room:     their bytes, each with its headroom
 * @used:     bytes of @room
 * @n:        frames
 * @since_ns: when the first came
 * @leaving:  they are being sent
 */
struct defer {
	struct fp_frame *frames;
	uint8_t *room;
	size_t used;
	uint32_t n;
	uint64_t since_ns;
	bool leaving;
};

/**
 * defer_init() - Make room
 *
 * Return: 0 or -ENOMEM; defer_free() is due either way.
 */
int defer_init(struct defer *d);
void defer_free(struct defer *d);

/**
 * defer_put() - Copy a frame behind those that wait
 *
 * Return: false if there is no room, or if this frame is one of them.
 */
bool defer_put(struct defer *d, const struct fp_frame *frame, uint64_t now_ns);

/* defer_clear() - Nothing waits any more */
static inline void defer_clear(struct defer *d)
{
	d->n = 0;
	d->used = 0;
	d->leaving = false;
}

#endif /* DEFER_H */
