/* SPDX-License-Identifier: Apache-2.0 */
/**
 * batch.c - the frames of a worker's burst, read and written by few system calls
 */
#include <errno.h>

#include "batch.h"
#include "plane.h"
#include "tx.h"

enum {
	WORTH_IT = 4,    /* frames, from which on a batch is cheaper than calls of their own */
	MORE = 4,        /* reads beyond those that found a frame */
	LONG_ONES = 4096 /* bytes a frame; copying them is what costs */
};

void batch_open(struct worker *w)
{
	const struct plane *pl = w->plane;

	for (uint32_t p = 0; p < pl->cfg->n_ports; p++) {
		if (pl->ports[p].wire[w->index].ops->rx_piece) {
			uring_open(&w->batch.ring); /* without it, one call a frame */
			return;
		}
	}
}

void batch_close(struct worker *w)
{
	if (uring_is_open(&w->batch.ring))
		uring_close(&w->batch.ring);
}

/* ---- reading ---- */

/* A frame may have come after a read that found none: then that one's buffer changes places with it. */
static void move_frame(struct fp_frame *frames, uint32_t from, uint32_t to)
{
	struct fp_frame kept = frames[to];

	frames[to] = frames[from];
	frames[from] = kept;
}

static int collect(struct worker *w, struct chan *ch, uint32_t n_asked)
{
	const int32_t *res = w->batch.ring.res;
	uint32_t n = 0;
	int error = 0;

	for (uint32_t i = 0; i < n_asked; i++) {
		if (res[i] < 0) {
			error = res[i] == -EAGAIN || res[i] == -EINTR ? error : res[i];
			continue;
		}
		if (i != n)
			move_frame(w->frames, i, n);
		ch->ops->rx_done(ch, &w->frames[n++], (uint32_t)res[i]);
	}
	if (error == -EOPNOTSUPP) { /* a kernel whose TAPs do not know RWF_NOWAIT */
		batch_close(w);
		return (int)n;
	}
	return n ? (int)n : error; /* a lasting error comes again with the next burst */
}

static uint32_t expect(const struct fp_frame *frames, uint32_t n, uint32_t n_asked)
{
	uint64_t n_bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		n_bytes += frames[i].len;
	if (n < WORTH_IT || n_bytes > (uint64_t)n * LONG_ONES)
		return 0;
	return min_u32(n < n_asked ? n + MORE : 2 * n, FP_BURST_MAX);
}

int batch_rx(struct worker *w, struct chan *ch)
{
	struct uring *ring = &w->batch.ring;
	uint32_t n_asked = ch->expected;
	struct piece piece;
	int n;

	if (!uring_is_open(ring) || !ch->ops->rx_piece)
		return ch->ops->rx(ch, w->frames, FP_BURST_MAX);
	if (n_asked == 0) {
		n_asked = FP_BURST_MAX;
		n = ch->ops->rx(ch, w->frames, FP_BURST_MAX);
	} else {
		for (uint32_t i = 0; i < n_asked; i++) {
			FP_ASSERT(ch->ops->rx_piece(ch, &w->frames[i], &piece));
			uring_add(ring, false, ch->fd, piece.data, piece.len);
		}
		n = collect(w, ch, uring_run(ring));
	}
	ch->expected = n > 0 ? expect(w->frames, (uint32_t)n, n_asked) : 0;
	return n;
}

/* ---- writing ---- */

/* By the ring; false if it cannot be. */
static bool list(struct batch *b, const struct chan *ch, const struct fp_frame *frame)
{
	if (!uring_is_open(&b->ring) || !ch->ops->tx_piece || !ch->ops->tx_piece(ch, frame, &b->pieces[b->n]))
		return false;
	b->fds[b->n] = ch->fd;
	return true;
}

bool batch_tx(struct worker *w, struct fp_frame *frame)
{
	struct chan *ch = &w->plane->ports[frame->out_port].wire[w->index];
	struct chan *many = ch->ops->tx_many ? ch : NULL;
	struct batch *b = &w->batch;

	if (b->many != many)
		batch_flush(w);
	if (!port_tx_is_plain(ch, frame) || (!many && !list(b, ch, frame))) {
		batch_flush(w);
		return false;
	}
	FP_ASSERT(b->n < FP_TX_BURST);
	b->many = many;
	b->frames[b->n++] = frame;
	return true;
}

/* What is collected; bit i of what it returns is set if frames[i] left. */
static uint32_t write_all(struct batch *b)
{
	uint32_t sent = 0;

	if (b->many)
		return b->many->ops->tx_many(b->many, b->frames, b->n);
	for (uint32_t i = 0; i < b->n; i++)
		uring_add(&b->ring, true, b->fds[i], b->pieces[i].data, b->pieces[i].len);
	uring_run(&b->ring);
	for (uint32_t i = 0; i < b->n; i++)
		sent |= (uint32_t)(b->ring.res[i] >= 0) << i;
	return sent;
}

/* The last look at the fence, right before the system call: a stop since the frames were collected ends here. */
static void drop_fenced(struct worker *w)
{
	const enum fence_says says = tx_look(w);
	struct batch *b = &w->batch;
	uint32_t n = 0;

	if (likely(says == FENCE_OPEN))
		return;
	for (uint32_t i = 0; i < b->n; i++) {
		if (tx_is_fenced(w, b->frames[i], says))
			continue;
		b->frames[n] = b->frames[i];
		b->pieces[n] = b->pieces[i];
		b->fds[n++] = b->fds[i];
	}
	b->n = n;
}

void batch_flush(struct worker *w)
{
	struct batch *b = &w->batch;
	uint32_t sent;

	if (b->n == 0)
		return;
	drop_fenced(w);
	sent = b->n ? write_all(b) : 0;
	for (uint32_t i = 0; i < b->n; i++) {
		struct port_counters *pc = &w->ports[b->frames[i]->out_port];

		if (sent & 1u << i) {
			counter_add(&pc->tx_frames, 1);
			counter_add(&pc->tx_bytes, b->frames[i]->len);
		} else {
			b->frames[i]->verdict = V_TX_FAILED;
			counter_add(&pc->tx_errors, 1);
		}
	}
	b->n = 0;
	b->many = NULL;
}
