/* SPDX-License-Identifier: Apache-2.0 */
/**
 * store.h - frames for the virtual MAC that came while ACTIVE was suspected
 *
 * Theory of operation
 *   A switch that has lost ACTIVE's port floods what is for the virtual MAC, and PASSIVE hears what ACTIVE does not.
 *   That is a mark (suspect.h), and the frame is worth keeping: if ACTIVE is dead, nobody else has it.
 *
 *   the peer (pulse_standing())         a frame for the virtual MAC     what is kept
 *   calm                                may mark, and is kept then      is dropped if it is of an older suspicion
 *   asked, or dead a moment ago         is kept, in order               waits
 *   dead, and this node begins to reign is forwarded                    goes first, as if just received
 *   calm again, or dead for too long    as above                        is dropped: it was a copy
 *
 *   A role that comes in any other way than by death releases nothing: a living ACTIVE has had these frames, too.
 *   Bounded in frames, in bytes and, by SUSPECT_PARK_NS, in time.
 *
 * Context: the worker's thread. Memory: reserved at the start, and touched only when there are any.
 */
#ifndef STORE_H
#define STORE_H

#include "base.h"

enum {
	STORE_FRAMES = 1024,
	STORE_BYTES = 2 << 20 /* 30 offload frames of 64 KiB; all of the others have room */
};

/**
 * struct store - The frames of one worker
 * @frames:   the oldest first
 * @room:     their bytes
 * @used:     bytes of @room
 * @n:        frames
 * @left:     how many of them have been taken
 * @since_ns: when the first came
 * @number:   of the suspicion that they are of
 */
struct store {
	struct fp_frame *frames;
	uint8_t *room;
	size_t used;
	uint32_t n, left;
	uint64_t since_ns;
	uint32_t number;
};

/**
 * store_init() - Reserve memory
 *
 * Return: 0 or -ENOMEM; store_free() is due either way.
 */
int store_init(struct store *s);
void store_free(struct store *s);

/**
 * store_put() - Copy a frame behind those that are kept
 * @number: of the suspicion; counts for the first frame
 *
 * Return: false if there is no room.
 */
bool store_put(struct store *s, const struct fp_frame *frame, uint32_t number, uint64_t now_ns);

/**
 * store_take() - Take the oldest frames, as from rx
 * @out: .data has as much room as where the frames came from
 *
 * Return: how many; 0 once there are none, and then there is all of the room again.
 */
uint32_t store_take(struct store *s, struct fp_frame *out, uint32_t cap);

/* store_clear() - Nothing is kept any more */
static inline void store_clear(struct store *s)
{
	s->n = s->left = 0;
	s->used = 0;
}

#endif /* STORE_H */
