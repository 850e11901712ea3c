/* SPDX-License-Identifier: Apache-2.0 */
/**
 * changes.h - what the peer has not heard, or not acknowledged, yet
 *
 * Two FIFOs of record indices, in each of which a record stands at most once (ADMIN_QUEUED, ADMIN_LAZY): what is
 * popped is told as it is by then, so changes coalesce.
 *
 *   urgent   births, TCP connections that are established, deletes: told with the next drain. A quarter as many
 *            entries as records
 *   lazy     all else, and the windows of open TCP connections: told once fp_sync_cfg.lazy_ms have gone by, so that
 *            the next changes go with it. A 16th as many; a change that finds no room is urgent, windows wait for
 *            the tour
 *
 * A slow or absent peer thus costs an entry a record, never more; and when there is no room for it the shard is
 * lost: nothing of it is told until a sweep has told all of it (digest.h).
 *
 * Tombstones whose delete was drained stand in a list of their own, in the order of the events, linked through
 * flow_link; core_ack() frees them from its beginning.
 */
#ifndef CHANGES_H
#define CHANGES_H

#include "base.h"

/**
 * struct changes_lazy - A change that can wait
 * @idx:    record
 * @due_ms: when it is told; wraps
 */
struct changes_lazy {
	uint32_t idx, due_ms;
};

/**
 * struct changes - Queues towards the peer
 * @track:        changes are remembered at all
 * @digest_asked: FP_OP_DIGEST is due when nothing waits any more
 * @ev_seq:       number of the last event drained
 * @lost:         a bit for each shard that is lost
 * @sweep_asked:  shards of a sweep that is to begin with the next event
 * @sweep:        shards that a walk tells all records of; 0 while there is none
 * @asked:        a sweep is to begin, perhaps of no shard of ours
 * @sweeping:     a walk is under way
 * @sweep_slot:   its next record
 * @sweep_no:     its number: how often core_sweep_start() was called
 * @sweep_ev:     event that began the last one
 * @dirty:        urgent: record indices
 * @dirty_cap:    its size
 * @dirty_head:   next to drain
 * @n_dirty:      entries
 * @lazy, @lazy_cap, @lazy_head, @n_lazy: likewise
 * @grave_first:  oldest drained tombstone, or FLOW_NONE
 * @grave_last:   youngest
 * @n_tombs:      tombstones in all: waiting to be drained, or to be acknowledged
 * @tombs_max:    beyond it a delete makes its shard a lost one
 * @tombs_ns:     the peer's last acknowledgement, or the first tombstone since there was none, if that is later
 */
struct changes {
	bool track, digest_asked, asked, sweeping;
	uint64_t ev_seq;
	uint64_t lost, sweep_asked, sweep;
	uint32_t sweep_slot, sweep_no;
	uint64_t sweep_ev;
	uint32_t *dirty;
	uint32_t dirty_cap, dirty_head, n_dirty;
	struct changes_lazy *lazy;
	uint32_t lazy_cap, lazy_head, n_lazy;
	uint32_t grave_first, grave_last;
	uint32_t n_tombs, tombs_max;
	uint64_t tombs_ns;
};

enum { CHANGES_AWAY_MS = 1000 };

/**
 * changes_unheard() - Tombstones wait for a peer that has acknowledged nothing for so long that it may be away
 */
static inline bool changes_unheard(const struct changes *ch, uint64_t now_ns)
{
	return ch->n_tombs && now_ns > ch->tombs_ns + CHANGES_AWAY_MS * NS_PER_MS;
}

static inline uint32_t changes_pending(const struct changes *ch)
{
	return ch->n_dirty + ch->n_lazy;
}

/**
 * changes_push() - Queue a record, which is not queued already
 * Return: false when there is no room.
 */
static inline bool changes_push(struct changes *ch, uint32_t idx)
{
	uint64_t at = (uint64_t)ch->dirty_head + ch->n_dirty;

	if (ch->n_dirty == ch->dirty_cap)
		return false;
	ch->dirty[at < ch->dirty_cap ? at : at - ch->dirty_cap] = idx;
	ch->n_dirty++;
	return true;
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

/**
 * changes_push_lazy() - The same of a change that can wait
 */
static inline bool changes_push_lazy(struct changes *ch, uint32_t idx, uint32_t due_ms)
{
	uint64_t at = (uint64_t)ch->lazy_head + ch->n_lazy;

	if (ch->n_lazy == ch->lazy_cap)
		return false;
	ch->lazy[at < ch->lazy_cap ? at : at - ch->lazy_cap] = (struct changes_lazy){ idx, due_ms };
	ch->n_lazy++;
	return true;
}

static inline uint32_t changes_pop_lazy(struct changes *ch)
{
	uint32_t idx = ch->lazy[ch->lazy_head].idx;

	if (++ch->lazy_head == ch->lazy_cap)
		ch->lazy_head = 0;
	ch->n_lazy--;
	return idx;
}

/**
 * changes_wait_ms() - Until the first lazy change is due; @otherwise when none waits
 */
static inline uint32_t changes_wait_ms(const struct changes *ch, uint32_t now_ms, uint32_t otherwise)
{
	int32_t wait;

	if (!ch->n_lazy)
		return otherwise;
	wait = (int32_t)(ch->lazy[ch->lazy_head].due_ms - now_ms);
	return wait > 0 ? min_u32((uint32_t)wait, otherwise) : 0;
}

#endif /* CHANGES_H */
