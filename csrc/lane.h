/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lane.h - the short way of what a busy sync stream is made of: batches and acknowledgements
 *
 * Some hundred batches a second cross the cross-connect, and to wake Python on both nodes for each costs more
 * than the batch. A lane does with them what flexha/core/sync.py does, and nothing else:
 *
 *   sending     takes changes out of the workers' rings, numbers a batch, and keeps it until it is acknowledged;
 *               an acknowledgement frees tombstones and lets go what waits for it
 *   receiving   makes the next batch live; one acknowledgement answers for all of a turn
 *
 * What it does not take has not happened: the frame goes to control, in its place. So does what it cannot do: a
 * marker among the changes, lost shards, records that were not taken (enum fp_ask). Control holds the lane before it
 * looks at the stream, learns where it stands (struct fp_lane_state), and gives it a mode again afterwards.
 *
 * Owned by a channel (channel.h), under whose lock everything here is called.
 */
#ifndef LANE_H
#define LANE_H

#include "dp.h"
#include "sync_wire.h"

/**
 * struct lane_sent - A batch that is not acknowledged
 * @frame: its bytes, as they were sent; NULL: control has them
 */
struct lane_sent {
	struct fp_sent sent;
	uint8_t *frame;
};

/**
 * struct lane - State of the short way
 * @dp:             whose sessions; NULL: none, always off
 * @st:             where it stands, as control is told
 * @held:           whatever @st.mode is: control is at work
 * @asks:           enum fp_ask: until control has looked, nothing goes on
 * @batch_records:  in one batch at most
 * @window_batches: unacknowledged ones at most, and
 * @window_max:     their bytes: beyond it nothing is taken
 * @pause_ns:       between two batches that are not full
 * @window:         ring of the unacknowledged, from @head on
 * @cap, @head, @n: its room, its first, how many
 * @window_bytes:   their frames
 * @drain_from:     worker whose turn is next
 * @due:            something may wait to be taken
 * @awaited:        ... or will ring for it
 * @pause_until_ns: not before
 * @rec:            room for the records of a batch, and for its fates afterwards
 * @scratch:        their columns
 * @out:            room for a frame
 * @out_cap:        so much
 */
struct lane {
	fp_dp *dp;
	struct fp_lane_state st;
	bool held;
	uint32_t asks;
	uint32_t batch_records, window_batches, window_max;
	uint64_t pause_ns;
	struct lane_sent *window;
	uint32_t cap, head, n;
	uint64_t window_bytes;
	uint32_t drain_from;
	bool due, awaited;
	uint64_t pause_until_ns;
	struct fp_flow_rec *rec;
	struct fp_cols scratch;
	uint8_t *out;
	uint32_t out_cap;
};

void lane_init(struct lane *l, fp_dp *dp, const struct fp_channel_cfg *cfg);

void lane_free(struct lane *l);

/**
 * lane_is_mine() - Whether a frame could go the short way in the lane's mode, held or not
 * @payload: behind its length
 */
bool lane_is_mine(const struct lane *l, const uint8_t *payload, uint32_t n);

/**
 * lane_take() - A frame has come
 * Return: false: it is for control.
 */
bool lane_take(struct lane *l, const uint8_t *payload, uint32_t n, uint64_t now_ns);

/**
 * lane_ack() - Acknowledge what lane_take() has made live, if there is anything
 * @out: room for LANE_ACK_MAX bytes
 * Return: bytes of the frame, or 0.
 */
uint32_t lane_ack(struct lane *l, uint8_t *out, uint64_t now_ns);

/**
 * lane_put() - The next batch, if it is time for one
 * @frame: set to its bytes, which the window keeps
 * Return: how many; 0: nothing to tell now.
 */
uint32_t lane_put(struct lane *l, const uint8_t **frame, uint64_t now_ns);

/**
 * lane_wait_ns() - Until lane_put() is to be called again; UINT64_MAX: when something has rung or come
 */
uint64_t lane_wait_ns(const struct lane *l, uint64_t now_ns);

/* The workers have rung. */
static inline void lane_rung(struct lane *l)
{
	l->due = true;
}

/* lane_hold() - Rest, and tell control */
void lane_hold(struct lane *l, struct fp_lane_state *out);

/**
 * lane_resume() - Go on, from where control says
 * Return: 0, -EINVAL: what it says fits nothing, or -ENOMEM; off in either case.
 */
int lane_resume(struct lane *l, const struct fp_lane_state *in, const struct fp_sent *window, uint32_t n);

/* lane_sent() - The oldest of those that control has not seen, whose bytes it has then; -ENOBUFS, -EINVAL: none */
int lane_sent(struct lane *l, struct fp_sent *out, uint8_t *frame, uint32_t cap);

#endif /* LANE_H */
