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

enum fence_says tx_look(const struct worker *w)
{
	const enum fence_says says = fence_look(&w->plane->fence);

	/* Nobody overtakes those that wait. */
	return says == FENCE_OPEN && unlikely(w->defer.n) && !w->defer.leaving ? FENCE_EXPIRED : says;
}

bool tx_is_fenced(struct worker *w, struct fp_frame *f, enum fence_says says)
{
	if (!f->fenced || says == FENCE_OPEN)
		return false;
	if (says == FENCE_EXPIRED && defer_put(&w->defer, f, clock_now()))
		return true;
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

/*
 * A burst may take as long as the peer waits for a heartbeat: 64 offload frames are 256 KiB and some system calls. So
 * those of ports leave between its parts.
 */
static void send_heartbeats(struct worker *w)
{
	struct pulse *p = w->plane->pulse;

	if (w->index == 0 && p && unlikely(!ring_is_empty(&p->tx)))
		tx_for_others(w, &p->tx);
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
				send_heartbeats(w);
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

/* Those that waited, by the wire or the conduit; as many leave after one look as of any others. */
static void send_deferred(struct worker *w)
{
	struct defer *d = &w->defer;
	enum fence_says says = FENCE_CLOSED;
	uint32_t was[DEFER_FRAMES];

	d->leaving = true;
	for (uint32_t i = 0; i < d->n; i++) {
		struct fp_frame *f = &d->frames[i];

		was[i] = f->verdict;
		if (i % FP_TX_BURST == 0) {
			batch_flush(w);
			says = tx_look(w);
		}
		if (f->out == FP_OUT_WIRE)
			send_wire(w, f, says, true);
		else if (!tx_is_fenced(w, f, says))
			conduit_send(w, f);
	}
	batch_flush(w);
	conduit_flush(w);
	for (uint32_t i = 0; i < d->n; i++) {
		if (d->frames[i].verdict != was[i]) /* as it was, it is counted already */
			counter_add(&w->core.verdicts[d->frames[i].verdict], 1);
	}
	defer_clear(d);
}

void tx_deferred(struct worker *w, uint64_t now_ns)
{
	struct defer *d = &w->defer;
	enum fence_says says;

	if (likely(d->n == 0))
		return;
	says = fence_look(&w->plane->fence);
	if (says == FENCE_OPEN) {
		send_deferred(w);
	} else if (says == FENCE_CLOSED || now_ns - d->since_ns > DEFER_MAX_NS) {
		counter_add(&w->core.verdicts[says == FENCE_CLOSED ? V_FENCED : V_LEASE], d->n);
		for (uint32_t i = 0; i < d->n; i++)
			counter_add(&w->ports[d->frames[i].out_port].tx_dropped, 1);
		defer_clear(d);
	}
}

bool tx_for_others(struct worker *w, struct ring *ring)
{
	uint32_t n = FP_TX_BURST, done;
	struct port_frame *slots = ring_peek(ring, &n);
	const bool inject = ring == &w->plane->inject;
	/* Heartbeats need no role; the answer that everybody waits for depends on them. */
	const enum fence_says says = inject && n ? tx_look(w) : FENCE_CLOSED;

	for (done = 0; done < n; done++) {
		struct fp_frame f = {
			.data = slots[done].data,
			.len = slots[done].len,
			.out = FP_OUT_WIRE,
			.out_port = slots[done].port,
			.fenced = slots[done].fenced,
			.verdict = V_COUNT,
		};

		if (f.fenced && says == FENCE_EXPIRED) /* it waits where it is */
			break;
		send_wire(w, &f, says, false);
		if (f.verdict != V_COUNT && inject)
			counter_add(&w->stat_inject_lost, 1);
		if (unlikely(w->tap))
			capture_sent(w->tap, &f, 1, inject ? FP_CAPTURE_CONTROL : FP_CAPTURE_PULSE,
				     clock_now());
	}
	ring_release(ring, done);
	return done > 0;
}
