/* SPDX-License-Identifier: Apache-2.0 */
/**
 * hold.h - frames that wait until the peer knows of their session
 *
 * Theory of operation
 *   A frame is copied as it came, with all that core_step() is told of a frame, so that it can be stepped anew.
 *   Slots are of two sizes: FP_FRAME_MAX, and FP_FRAME_BIG where a port has offload; both are a fixed number, and
 *   nothing else is allocated. Slots stand in chains: the frames of each session in order of arrival (commit.c),
 *   those that are free, and those that may go. A chain is released by hanging it behind those that may go, so the
 *   order within a session is that of arrival.
 *
 * Pure: time is an argument.
 */
#ifndef HOLD_H
#define HOLD_H

#include "base.h"

enum {
	HOLD_BIG = 16,           /* offload frames held, of one worker */
	HOLD_FRAMES_MAX = 32768, /* frames held, of one worker */
	HOLD_EACH_SHARE = 4,     /* of its slots a session may have one in so many */
	HOLD_NONE = UINT16_MAX
};

static_assert((int)HOLD_FRAMES_MAX + (int)HOLD_BIG < (int)HOLD_NONE, "indices are 16 bits");

/**
 * struct held - A frame that is held; its bytes are elsewhere
 * @at_ns: when it came
 * @len:   length
 * @next:  the next of its chain; HOLD_NONE: none
 * @l4_sport, @l4_dport, @l4_known: as in struct fp_frame, like all that follows
 * @vnet:  what the driver said of it
 * @port:  port that it came in by
 * @src:   enum fp_src
 * @hops:  how often it was handed on
 */
struct held {
	uint64_t at_ns;
	uint32_t len;
	uint16_t next;
	uint16_t l4_sport, l4_dport;
	struct fp_vnet vnet;
	uint8_t l4_known;
	uint8_t port, src, hops;
};

/* A chain of frames; zero is an empty one. */
struct hold_chain {
	uint16_t head, tail;
	uint32_t n;
};

/**
 * struct hold - The frames of one worker that wait
 * @slots:   the short ones, then the long ones
 * @data:    FP_FRAME_MAX bytes of each short one, then FP_FRAME_BIG of each long one
 * @n_small: short slots
 * @n_big:   long slots
 * @unused:  slots that are free: short, long
 * @ready:   frames that may go
 * @n:       gauge: frames, those that may go included
 * @bytes:   gauge: of these frames
 */
struct hold {
	struct held *slots;
	uint8_t *data;
	uint32_t n_small, n_big;
	struct hold_chain unused[2];
	struct hold_chain ready;
	counter n, bytes;
};

/**
 * hold_mem_size() - Bytes that hold_init() wants
 */
size_t hold_mem_size(const struct fp_config *cfg);

/**
 * hold_init() - Set up
 * @mem: aligned to CACHE_LINE
 */
void hold_init(struct hold *h, void *mem, const struct fp_config *cfg);

/**
 * hold_has_room() - Whether a frame of @len bytes can be held
 */
bool hold_has_room(const struct hold *h, uint32_t len);

/**
 * hold_put() - Copy a frame to the end of a chain
 *
 * Return: false when there is no slot for it.
 */
bool hold_put(struct hold *h, struct hold_chain *chain, const struct fp_frame *frame, uint64_t now_ns);

/**
 * hold_release() - All frames of a chain may go
 * Return: how many.
 */
uint32_t hold_release(struct hold *h, struct hold_chain *chain);

/**
 * hold_drop() - Forget the frames of a chain
 * Return: how many.
 */
uint32_t hold_drop(struct hold *h, struct hold_chain *chain);

/**
 * hold_pop() - The next frame that may go
 * @out:   .data has room for it; filled in as from rx
 * @at_ns: when it came
 * Return: false when there is none.
 */
bool hold_pop(struct hold *h, struct fp_frame *out, uint64_t *at_ns);

/* Does any frame wait that may go? */
static inline bool hold_is_ready(const struct hold *h)
{
	return h->ready.n != 0;
}

#endif /* HOLD_H */
