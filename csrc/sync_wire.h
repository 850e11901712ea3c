/* SPDX-License-Identifier: Apache-2.0 */
/**
 * sync_wire.h - frames of the sync connection, and the two kinds of them that a lane reads and writes
 *
 * A frame is a length of four bytes, big-endian, and a map of msgpack; flexha/core/SYNC.md says what is in it, and
 * flexha/core/sync_wire.py reads and writes all kinds. What is not written as it would be written there is none of
 * ours: it is for control, which knows whether it is wrong. Pure functions.
 */
#ifndef SYNC_WIRE_H
#define SYNC_WIRE_H

#include "base.h"

enum {
	FRAME_HEAD = 4,     /* the length in front of each frame */
	LANE_ACK_MAX = 32,  /* bytes of an acknowledgement's frame */
	LANE_HEAD_MAX = 64, /* ... of what stands before the sections of a batch */
};

/**
 * frame_len() - Length of the frame that begins here, its head included
 * @n:   bytes that are there
 * @max: that a frame may have behind its head
 * Return: 0: it is not whole. One that cannot be is no more than its head: control says what is wrong with it.
 */
size_t frame_len(const uint8_t *at, size_t n, uint32_t max);

/* wire_read_ack() - Is it an acknowledgement of @seq that says nothing else? @payload: behind its head */
bool wire_read_ack(const uint8_t *payload, uint32_t n, uint64_t *seq);

/* wire_read_batch() - Where the sections of batch @seq begin; 0: it is none */
uint32_t wire_read_batch(const uint8_t *payload, uint32_t n, uint64_t *seq);

/* wire_put_ack() - The frame, in at most LANE_ACK_MAX bytes; returns how many */
uint32_t wire_put_ack(uint8_t *out, uint64_t seq);

/* wire_put_batch() - The frame up to its sections of @used bytes, in at most LANE_HEAD_MAX; returns how many */
uint32_t wire_put_batch(uint8_t *out, uint64_t seq, uint32_t used);

#endif /* SYNC_WIRE_H */
