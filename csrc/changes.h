/* SPDX-License-Identifier: Apache-2.0 */
/**
 * changes.h - what the peer has not heard, or not acknowledged, yet
 *
 * `dirty` is a FIFO of record indices, each at most once (ADMIN_QUEUED): a slow or absent peer costs a queue
 * entry a record, never more, and a queue of as many entries as records cannot overflow. Tombstones whose
 * delete was drained stand in a list of their own, in the order of the events, linked through flow_link;
 * core_ack() frees them from its beginning.
 */
#ifndef CHANGES_H
#define CHANGES_H

#include "base.h"

/**
 * struct changes - Queues towards the peer
 * @track:       changes are remembered at all
 * @bulk:        a bulk walk is under way
 * @bulk_slot:   next record of the bulk walk
 * @ev_seq:      number of the last event drained
 * @dirty:       FIFO of record indices
 * @dirty_cap:   its size
 * @dirty_head:  next to drain
 * @n_dirty:     entries
 * @grave_first: oldest drained tombstone, or FLOW_NONE
 * @grave_last:  youngest
 * @n_tombs:     tombstones in all: waiting to be drained, or to be acknowledged
 * @tombs_max:   beyond it a delete is not quarantined but lost (a bulk pass repairs it)
 */
struct changes {
	bool track;
	bool bulk;
	uint32_t bulk_slot;
	uint64_t ev_seq;
	uint32_t *dirty;
	uint32_t dirty_cap, dirty_head, n_dirty;
	uint32_t grave_first, grave_last;
	uint32_t n_tombs, tombs_max;
};

static inline uint32_t changes_pending(const struct changes *ch)
{
	return ch->n_dirty;
}

/**
 * changes_push() - Queue a record; the caller has seen that it is not queued already
 */
static inline void changes_push(struct changes *ch, uint32_t idx)
{
	uint64_t at = (uint64_t)ch->dirty_head + ch->n_dirty;

	FP_ASSERT(ch->n_dirty < ch->dirty_cap);
	ch->dirty[at < ch->dirty_cap ? at : at - ch->dirty_cap] = idx;
	ch->n_dirty++;
}

/**
 * changes_pop() - Take the oldest queued record; there is one
 */
static inline uint32_t changes_pop(struct changes *ch)
{
	uint32_t idx = ch->dirty[ch->dirty_head];

	if (++ch->dirty_head == ch->dirty_cap)
		ch->dirty_head = 0;
	ch->n_dirty--;
	return idx;
}

#endif /* CHANGES_H */
