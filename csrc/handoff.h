/* SPDX-License-Identifier: Apache-2.0 */
/**
 * handoff.h - frames of another worker's sessions, on their way to it
 *
 * Theory of operation
 *   A frame as on the wire is copied into a slot of the ring; its worker steps it there and releases the slot.
 *   An offload frame is too long for that: it leaves with the very buffer that it was read into, and the
 *   burst gets a spare one (worker.lent) in its place. The slot says where it is. Each struct lent has one
 *   owner, which sets .out and exchanges .data while .out is clear; whoever steps the frame clears .out.
 *   So memory is bounded, order is kept, 64 KiB are not copied, and with no spare buffer left the frame is
 *   counted as V_HANDOFF_FULL.
 *
 *   Workers that disagree about whose a frame is, because one of them has not taken over a policy or next hops
 *   yet, would hand it to and fro; so it counts its hops, and ends as V_HANDOFF_LOOP.
 */
#ifndef HANDOFF_H
#define HANDOFF_H

#include "worker.h"

/**
 * handoff_make_room() - Buffers for a burst, and spare ones where offload frames can cross a hand-off ring
 *
 * Return: 0 or -ENOMEM; worker_close() frees them.
 */
int handoff_make_room(struct worker *w);

/**
 * handoff_send() - Hand a frame on to f->owner, or set its verdict
 * @f: one of w->frames; .data may be another buffer afterwards
 */
void handoff_send(struct worker *w, struct fp_frame *f);

/**
 * handoff_give_back() - The frame in a buffer is done with
 * @lent: NULL for a frame that was in the slot itself
 *
 * Context: the worker that was handed the frame.
 */
void handoff_give_back(struct lent *lent);

#endif /* HANDOFF_H */
