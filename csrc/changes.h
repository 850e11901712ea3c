/* SPDX-License-Identifier: Apache-2.0 */
/**
 * changes.h - what the peer has not heard, or not acknowledged, yet
 *
 * Two FIFOs of record indices. `dirty`: each record at most once (ADMIN_QUEUED), so a slow or absent peer
 * costs a queue entry a record, never more, and the FIFO of as many entries as records cannot overflow.
 * `graves`: tombstones whose delete was drained, with the event's number; core_ack() frees them in order.
 */
#ifndef CHANGES_H
#define CHANGES_H

#include "base.h"

/**
 * struct grave - A delete that the peer has to acknowledge
 * @ev_seq: event that told it
 * @idx:    tombstone
 * @pad:    0
 */
struct grave {
	uint64_t ev_seq;
	uint32_t idx;
	uint32_t pad;
};

/**
 * struct changes - Queues towards the peer
 * @track:       changes are remembered at all
 * @bulk:        a bulk walk is under way
 * @bulk_slot:   next record of the bulk walk
 * @ev_seq:      number of the last event drained
 * @dirty:       FIFO of record indices
 * @dirty_cap:   power of two
 * @dirty_head:  next to drain; free running
 * @dirty_tail:  next to fill; free running
 * @graves:      FIFO of drained deletes
 * @grave_cap:   power of two
 * @grave_head:  oldest; free running
 * @grave_tail:  next to fill; free running
 * @n_tombs:     tombstones in all: waiting to be drained, or to be acknowledged
 * @tombs_max:   beyond it a delete is not quarantined but lost (a bulk pass repairs it)
 */
struct changes {
	bool track;
	bool bulk;
	uint32_t bulk_slot;
	uint64_t ev_seq;
	uint32_t *dirty;
	uint32_t dirty_cap, dirty_head, dirty_tail;
	struct grave *graves;
	uint32_t grave_cap, grave_head, grave_tail;
	uint32_t n_tombs, tombs_max;
};

static inline uint32_t changes_pending(const struct changes *ch)
{
	return ch->dirty_tail - ch->dirty_head;
}

/**
 * changes_push() - Queue a record; the caller has seen that it is not queued already
 */
static inline void changes_push(struct changes *ch, uint32_t idx)
{
	FP_ASSERT(changes_pending(ch) < ch->dirty_cap);
	ch->dirty[ch->dirty_tail++ & (ch->dirty_cap - 1)] = idx;
}

/**
 * changes_pop() - Take the oldest queued record; there is one
 */
static inline uint32_t changes_pop(struct changes *ch)
{
	return ch->dirty[ch->dirty_head++ & (ch->dirty_cap - 1)];
}

static inline bool changes_has_grave(const struct changes *ch)
{
	return ch->grave_head != ch->grave_tail;
}

/**
 * changes_dig() - Remember that the delete of tombstone @idx was told by event @ev_seq
 */
static inline void changes_dig(struct changes *ch, uint32_t idx, uint64_t ev_seq)
{
	FP_ASSERT(ch->grave_tail - ch->grave_head < ch->grave_cap);
	ch->graves[ch->grave_tail++ & (ch->grave_cap - 1)] = (struct grave){ .ev_seq = ev_seq, .idx = idx };
}

static inline const struct grave *changes_oldest_grave(const struct changes *ch)
{
	return &ch->graves[ch->grave_head & (ch->grave_cap - 1)];
}

#endif /* CHANGES_H */
