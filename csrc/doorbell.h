/* SPDX-License-Identifier: Apache-2.0 */
/**
 * doorbell.h - wakes a thread that sleeps in epoll, and costs one load while it is awake
 *
 *   sleeper                        visitor
 *   doorbell_lie_down()            fill a ring, publish it
 *   look at every ring once more   doorbell_ring()
 *   epoll_wait()
 *   doorbell_get_up()
 *
 * Publication and lie_down are seq_cst, so either the sleeper's second look finds the ring filled, or the
 * visitor finds the sleeper lying down. The eventfd is registered edge-triggered and therefore never read.
 */
#ifndef DOORBELL_H
#define DOORBELL_H

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base.h"

struct doorbell {
	CACHE_ALIGNED _Atomic uint32_t asleep;
	int fd;
};

static inline int doorbell_init(struct doorbell *d)
{
	d->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return d->fd < 0 ? -errno : 0;
}

static inline void doorbell_free(struct doorbell *d)
{
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

static inline void doorbell_lie_down(struct doorbell *d)
{
	atomic_store(&d->asleep, 1); /* pairs with doorbell_ring() */
}

static inline void doorbell_get_up(struct doorbell *d)
{
	atomic_store_explicit(&d->asleep, 0, memory_order_relaxed);
}

/* The only failure of this write is a full counter, and then the eventfd is readable already. */
static inline void eventfd_signal(int fd)
{
	const uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* What was signalled has been heard; of a descriptor that does not block. */
static inline void eventfd_clear(int fd)
{
	uint64_t count;

	/* NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): it does not block */
	(void)!read(fd, &count, sizeof(count));
}

/* Any thread, likewise: whether anybody would hear the bell. */
static inline bool doorbell_is_asleep(const struct doorbell *d)
{
	return atomic_load(&((struct doorbell *)(uintptr_t)d)->asleep); /* pairs with doorbell_lie_down() */
}

/* Any thread, after it has published what the sleeper shall find. */
static inline void doorbell_ring(struct doorbell *d)
{
	if (atomic_load(&d->asleep) && atomic_exchange(&d->asleep, 0)) /* pairs with doorbell_lie_down() */
		eventfd_signal(d->fd);
}

#endif /* DOORBELL_H */
