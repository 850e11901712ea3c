/* SPDX-License-Identifier: Apache-2.0 */
/**
 * handoff.c - frames of another worker's sessions, on their way to it
 */
#include <errno.h>

#include "handoff.h"
#include "plane.h"

int handoff_make_room(struct worker *w)
{
	const struct fp_config *cfg = w->plane->cfg;
	uint32_t n = FP_BURST_MAX;
	size_t size = FP_FRAME_MAX, stride;
	uint8_t *data;

	for (uint32_t p = 0; p < cfg->n_ports; p++) {
		if (cfg->ports[p].offload)
			size = FP_FRAME_BIG;
	}
	if (size == FP_FRAME_BIG && cfg->n_workers > 1)
		n += LENT_MAX;
	/* No power of two: the first lines of all frames would share two sets of the L1 cache. */
	stride = FP_HEADROOM + size;
	w->room = aligned_alloc(CACHE_LINE, n * stride);
	if (!w->room)
		return -ENOMEM;
	data = w->room + FP_HEADROOM;
	for (uint32_t i = 0; i < FP_BURST_MAX; i++)
		w->frames[i] = (struct fp_frame){ .data = data + i * stride, .headroom = 1 };
	for (uint32_t i = FP_BURST_MAX; i < n; i++)
		w->lent[i - FP_BURST_MAX].data = data + i * stride;
	return 0;
}

/*
 * Room that a frame can leave with; the frame gets the spare buffer instead. What was handed to us itself (the
 * second half of a hairpin) is in a buffer that goes back to its worker, so it is copied.
 */
static struct lent *lend(struct worker *w, struct fp_frame *f)
{
	const bool ours = f >= w->frames && f < w->frames + FP_BURST_MAX;

	for (uint32_t i = 0; i < LENT_MAX; i++) {
		struct lent *lent = &w->lent[i];
		uint8_t *spare = lent->data;

		if (!spare || atomic_load_explicit(&lent->out,
						   memory_order_acquire)) /* pairs with handoff_give_back() */
			continue;
		if (ours) {
			lent->data = f->data;
			f->data = spare;
		} else {
			memcpy(spare, f->data, f->len);
		}
		atomic_store_explicit(&lent->out, true, memory_order_relaxed); /* the ring publishes it */
		return lent;
	}
	return NULL;
}

void handoff_give_back(struct lent *lent)
{
	if (lent)
		atomic_store_explicit(&lent->out, false, memory_order_release); /* pairs with lend() */
}

void handoff_send(struct worker *w, struct fp_frame *f)
{
	struct plane *pl = w->plane;
	struct ring *ring = handoff_ring(pl, w->index, f->owner);
	struct handoff_frame *slot;
	struct lent *lent = NULL;

	if (unlikely(f->hops >= HANDOFF_HOPS_MAX)) {
		f->verdict = V_HANDOFF_LOOP;
		return;
	}
	slot = ring_reserve_one(ring);
	if (slot && f->len > FP_FRAME_MAX) {
		lent = lend(w, f);
		slot = lent ? slot : NULL;
	}
	if (!slot) {
		f->verdict = V_HANDOFF_FULL;
		return;
	}
	slot->len = f->len;
	slot->port = f->port;
	slot->src = f->src;
	slot->hops = (uint8_t)(f->hops + 1);
	slot->vnet = f->vnet;
	slot->l4_known = f->l4_known;
	slot->l4_sport = f->l4_sport;
	slot->l4_dport = f->l4_dport;
	slot->lent = lent;
	if (!lent)
		memcpy(slot->data, f->data, f->len);
	ring_submit(ring, 1);
	counter_add(&w->stat_handed_on, 1);
	doorbell_ring(&pl->workers[f->owner].bell);
}
