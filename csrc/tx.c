/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tx.c - what a worker sends, and where to
 */
#include "batch.h"
#include "clock.h"
#include "fence_look.h"
#include "handoff.h"
#include "plane.h"
#include "tx.h"

#define LOOK_AGAIN_NS (NS_PER_MS / 10)

/* Deaf, but not for so long that the peer would seem dead. */
static uint64_t patience_ns(const struct worker *w)
{
	const struct fp_pulse_cfg *cfg = &w->plane->cfg->pulse;

	return min_u64(LEASE_PATIENCE_NS / 2, cfg->interval_ms * NS_PER_MS * cfg->dead_after / 3);
}

enum fence_says tx_look(struct worker *w)
{
	const struct fence *fence = &w->plane->fence;
	enum fence_says says = fence_look(fence);
	const struct timespec slice = timespec_of(LOOK_AGAIN_NS);
	uint64_t until_ns, begun_ns;

	if (likely(says != FENCE_EXPIRED))
		return says;
	until_ns = fence_lease(fence);
	if (w->lease_waited == until_ns)
		return says;
	begun_ns = clock_now();
	while (says == FENCE_EXPIRED && clock_now() < begun_ns + patience_ns(w) &&
	       !atomic_load_explicit(&w->plane->stop, memory_order_relaxed)) {
		if (w->index == 0)
			tx_for_others(w, &w->plane->pulse->tx);
		clock_nanosleep(CLOCK_MONOTONIC, 0, &slice, NULL);
		says = fence_look(fence);
	}
	w->lease_waited = says == FENCE_EXPIRED ? until_ns : 0;
	return says;
}

bool tx_is_fenced(struct worker *w, struct fp_frame *f, enum fence_says says)
{
	if (!f->fenced || says == FENCE_OPEN)
		return false;
	f->verdict = says == FENCE_EXPIRED ? V_LEASE : V_FENCED;
	counter_add(&w->ports[f->out_port].tx_dropped, 1);
	return true;
}

/* @may_collect: the frame stays, and batch_flush() will be called */
static void send_wire(struct worker *w, struct fp_frame *f, enum fence_says says, bool may_collect)
{
	struct chan *ch = &w->plane->ports[f->out_port].wire[w->index];
	struct port_counters *pc = &w->ports[f->out_port];
	uint64_t bytes;
	int sent;

	if (tx_is_fenced(w, f, says))
		return;
	if (may_collect && batch_tx(w, f))
		return;
	sent = port_tx(ch, f, f->fenced ? &w->plane->fence : NULL, &bytes);
	if (sent == -ECANCELED) {
		f->verdict = V_FENCED;
		counter_add(&pc->tx_dropped, 1);
	} else if (sent < 0) {
		f->verdict = V_TX_FAILED;
		counter_add(&pc->tx_errors, 1);
	} else {
		counter_add(&pc->tx_frames, (uint64_t)sent);
		counter_add(&pc->tx_bytes, bytes);
	}
}

static void send_host(struct worker *w, struct fp_frame *f)
{
	struct chan *ch = &w->plane->ports[f->out_port].host[w->index];
	struct port_counters *pc = &w->ports[f->out_port];
	uint64_t bytes;

	if (port_tx(ch, f, NULL, &bytes) < 0) {
		f->verdict = V_HOST_FULL;
		counter_add(&pc->host_tx_errors, 1);
	} else {
		counter_add(&pc->host_tx_frames, 1);
	}
}

struct fp_punt *tx_reserve_punt(struct worker *w)
{
	struct fp_punt *punt = ring_reserve_one(&w->punts);

	if (!punt)
		counter_add(&w->stat_punts_lost, 1);
	return punt;
}

static void send_punt(struct worker *w, struct fp_frame *f, uint64_t now_ns)
{
	struct fp_punt *punt = tx_reserve_punt(w);

	if (!punt) {
		f->verdict = V_PUNT_FULL;
		return;
	}
	*punt = (struct fp_punt){
		.t_ns = now_ns,
		.kind = FP_PUNT_FRAME,
		.port = f->out_port,
		.len = min_u32(f->len, sizeof(punt->data)),
	};
	memcpy(punt->data, f->data, punt->len);
	w->signal |= ring_submit(&w->punts, 1);
}

static void send_pulse(struct worker *w, struct fp_frame *f, uint64_t now_ns)
{
	if (!pulse_hear(w->plane->pulse, w->index, f, now_ns)) {
		f->verdict = V_PUNT_FULL;
		counter_add(&w->stat_pulse_lost, 1);
	}
}

void tx_burst(struct worker *w, struct fp_frame *frames, uint32_t n, uint64_t now_ns)
{
	enum fence_says says = FENCE_CLOSED;
	uint32_t until_fence = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct fp_frame *f = &frames[i];

		switch (f->out) {
		case FP_OUT_WIRE:
			if (until_fence == 0) {
				batch_flush(w);
				says = tx_look(w);
				until_fence = FP_TX_BURST;
			}
			until_fence--;
			send_wire(w, f, says, true);
			break;
		case FP_OUT_HOST: send_host(w, f); break;
		case FP_OUT_PUNT: send_punt(w, f, now_ns); break;
		case FP_OUT_PULSE: send_pulse(w, f, now_ns); break;
		case FP_OUT_HANDOFF: handoff_send(w, f); break;
		case FP_OUT_CONDUIT:
			if (f->fenced)
				batch_flush(w);
			if (!f->fenced || !tx_is_fenced(w, f, tx_look(w)))
				conduit_send(w, f);
			break;
		default: break; /* dropped, or parked by the core */
		}
	}
	batch_flush(w);
	conduit_flush(w);
	core_account(&w->core, frames, n);
}

bool tx_for_others(struct worker *w, struct ring *ring)
{
	uint32_t n = FP_TX_BURST;
	struct port_frame *slots = ring_peek(ring, &n);
	const bool inject = ring == &w->plane->inject;
	/* Heartbeats need no role; the answer that everybody waits for may depend on them. */
	const enum fence_says says = inject && n ? tx_look(w) : FENCE_CLOSED;

	for (uint32_t i = 0; i < n; i++) {
		struct fp_frame f = {
			.data = slots[i].data,
			.len = slots[i].len,
			.out_port = slots[i].port,
			.fenced = slots[i].fenced,
			.verdict = V_COUNT,
		};

		send_wire(w, &f, says, false);
		if (f.verdict != V_COUNT && inject)
			counter_add(&w->stat_inject_lost, 1);
		if (unlikely(w->tap))
			capture_sent(w->tap, &f, 1, inject ? FP_CAPTURE_CONTROL : FP_CAPTURE_PULSE,
				     clock_now());
	}
	ring_release(ring, n);
	return n > 0;
}
