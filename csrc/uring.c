/* SPDX-License-Identifier: Apache-2.0 */
/**
 * uring.c - many reads or writes for one system call
 */
#include <errno.h>
#include <unistd.h>

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "uring.h"

static int setup(struct io_uring_params *params)
{
	/* One thread, which asks for results when it enters: nothing has to interrupt it. */
	const uint32_t flags[] = { IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0 };
	long fd = -1;

	for (uint32_t i = 0; fd < 0 && i < ARRAY_SIZE(flags); i++) {
		*params = (struct io_uring_params){ .flags = flags[i] };
		fd = syscall(__NR_io_uring_setup, URING_MAX, params);
		if (fd < 0 && errno != EINVAL) /* flags that an older kernel does not know */
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}

static int map_queues(struct uring *u, const struct io_uring_params *p)
{
	const size_t sq = p->sq_off.array + p->sq_entries * sizeof(uint32_t);
	const size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	uint8_t *map;

	if (!(p->features & IORING_FEAT_SINGLE_MMAP))
		return -ENOSYS;
	u->map_len = sq > cq ? sq : cq;
	map = mmap(NULL, u->map_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd,
		   IORING_OFF_SQ_RING);
	if (map == MAP_FAILED)
		return -errno;
	u->map = map;
	u->sqes = mmap(NULL, p->sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, u->fd, IORING_OFF_SQES);
	if (u->sqes == MAP_FAILED) {
		int rc = -errno;

		munmap(map, u->map_len);
		return rc;
	}
	u->cqes = (struct io_uring_cqe *)(void *)(map + p->cq_off.cqes);
	u->sq_tail = (_Atomic uint32_t *)(void *)(map + p->sq_off.tail);
	u->cq_head = (_Atomic uint32_t *)(void *)(map + p->cq_off.head);
	u->cq_tail = (_Atomic uint32_t *)(void *)(map + p->cq_off.tail);
	u->sq_array = (uint32_t *)(void *)(map + p->sq_off.array);
	u->sq_mask = p->sq_entries - 1;
	u->cq_mask = p->cq_entries - 1;
	return 0;
}

int uring_open(struct uring *u)
{
	struct io_uring_params params;
	int rc;

	*u = (struct uring){ .fd = setup(&params) };
	if (u->fd < 0)
		return u->fd;
	rc = map_queues(u, &params);
	if (rc) {
		close(u->fd);
		u->fd = -1;
	}
	return rc;
}

void uring_close(struct uring *u)
{
	munmap(u->sqes, (u->sq_mask + 1) * sizeof(struct io_uring_sqe));
	munmap(u->map, u->map_len);
	close(u->fd);
	u->fd = -1;
}

void uring_add(struct uring *u, bool write, int fd, void *data, uint32_t len)
{
	const uint32_t at = (atomic_load_explicit(u->sq_tail, memory_order_relaxed) + u->n) & u->sq_mask;

	FP_ASSERT(u->n < URING_MAX);
	u->sqes[at] = (struct io_uring_sqe){
		.opcode = write ? IORING_OP_WRITE : IORING_OP_READ,
		.fd = fd,
		.off = UINT64_MAX, /* no position */
		.rw_flags =
			RWF_NOWAIT, /* O_NONBLOCK would not do: the ring would wait in the caller's place */
		.addr = (uintptr_t)data,
		.len = len,
		.user_data = u->n,
	};
	u->sq_array[at] = at;
	u->n++;
}

static uint32_t take_results(struct uring *u)
{
	const uint32_t end = atomic_load_explicit(u->cq_tail, memory_order_acquire); /* the kernel's */
	uint32_t head = atomic_load_explicit(u->cq_head, memory_order_relaxed), n = end - head;

	for (; head != end; head++) {
		const struct io_uring_cqe *cqe = &u->cqes[head & u->cq_mask];

		FP_ASSERT(cqe->user_data < URING_MAX);
		u->res[cqe->user_data] = cqe->res;
	}
	atomic_store_explicit(u->cq_head, head, memory_order_release); /* the kernel's */
	return n;
}

uint32_t uring_run(struct uring *u)
{
	const uint32_t n = u->n, tail = atomic_load_explicit(u->sq_tail, memory_order_relaxed);
	uint32_t to_submit = n, done = 0;

	atomic_store_explicit(u->sq_tail, tail + n, memory_order_release); /* the kernel's */
	u->n = 0;
	while (done < n) {
		long rc = syscall(__NR_io_uring_enter, u->fd, to_submit, n - done, IORING_ENTER_GETEVENTS,
				  NULL, 0);

		FP_ASSERT(rc >= 0 || errno == EINTR || errno == EAGAIN || errno == EBUSY);
		if (rc > 0)
			to_submit -= (uint32_t)rc;
		done += take_results(u);
	}
	return n;
}
