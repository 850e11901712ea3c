/* SPDX-License-Identifier: Apache-2.0 */
/**
 * uring.h - many reads or writes for one system call: io_uring, without its library
 *
 * DOC: Theory of Operation
 *
 * A TAP hands out one frame a read and takes one a write, and most of what that costs is the way into the kernel
 * and back. So a worker lists its reads or writes in a ring, enters the kernel once, and finds all results there
 * when it comes back: the files are non-blocking, so nothing is left under way, and the order is kept.
 *
 *   uring_add()  up to URING_MAX times
 *   uring_run()  the only system call
 *   .res[i]      what read() or write() would have returned, or -errno, in the order of uring_add()
 *
 * Where the kernel, its policy or a sandbox does not allow it, uring_open() fails and the caller goes on with
 * one call a frame.
 *
 * Context: one thread, the one that opened it.
 */
#ifndef URING_H
#define URING_H

#include "base.h"

struct io_uring_sqe;
struct io_uring_cqe;

enum { URING_MAX = 64 };

/**
 * struct uring - A ring
 * @fd:      of the ring; negative: not open
 * @n:       requests added since uring_run()
 * @res:     results
 * @map:     both queues
 * @map_len: bytes at @map
 * @sqes:    requests
 * @cqes:    completions
 * @sq_tail: next request, in @map
 * @cq_head: next completion to take, in @map
 * @cq_tail: end of the completions, in @map
 * @sq_array: which request stands where, in @map
 * @sq_mask: of indices into @sqes
 * @cq_mask: of indices into @cqes
 */
struct uring {
	int fd;
	uint32_t n;
	int32_t res[URING_MAX];
	void *map;
	size_t map_len;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	_Atomic uint32_t *sq_tail, *cq_head, *cq_tail;
	uint32_t *sq_array;
	uint32_t sq_mask, cq_mask;
};

/**
 * uring_open() - Make a ring
 *
 * No file is registered with it, though that would be a little faster: the kernel would let go of it some time
 * after the process has ended, and a TAP has to go with the process.
 *
 * Return: 0, or -errno; uring_close() is due only after 0.
 */
int uring_open(struct uring *u);
void uring_close(struct uring *u);

static inline bool uring_is_open(const struct uring *u)
{
	return u->fd >= 0;
}

/**
 * uring_add() - List a read into, or a write from, a buffer
 * @fd: non-blocking
 */
void uring_add(struct uring *u, bool write, int fd, void *data, uint32_t len);

/**
 * uring_run() - Carry out what is listed
 *
 * Return: how many that were; .res holds their results.
 */
uint32_t uring_run(struct uring *u);

#endif /* URING_H */
