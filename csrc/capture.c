/* SPDX-License-Identifier: Apache-2.0 */
/**
 * capture.c - packets for `flexhactl capture`
 */
#include <stdio.h>

#include "bpf.h"
#include "capture.h"
#include "verdict.h"

enum {
	IS_FILLER = 0xff, /* in .from: skipped by the consumer */
	IN = 0,           /* of fp_capture_rec.side */
	OUT = 1,
	RECORD_ALIGN = 8
};

static_assert(CAPTURE_RING_BYTES / CAPTURE_CHUNK >
		      2 * (FP_FRAME_BIG + sizeof(struct fp_capture_rec)) / CAPTURE_CHUNK,
	      "the largest record fits in the ring");
static_assert(V_COUNT <= FP_CAPTURE_VERDICT_WORDS * 64, "a bit for each verdict");

/* ---- control ---- */

static int check_cfg(const struct fp_capture_cfg *cfg, struct fp_error *err)
{
	const char *wrong;
	uint32_t at;

	if (cfg->snaplen == 0 || cfg->snaplen > FP_FRAME_BIG) {
		snprintf(err->text, sizeof(err->text), "snaplen is %u, not 1..%d", cfg->snaplen,
			 FP_FRAME_BIG);
		return -EINVAL;
	}
	if (cfg->n_insns == 0)
		return 0;
	if (cfg->insns) {
		wrong = bpf_check(cfg->insns, cfg->n_insns, &at);
		if (!wrong)
			return 0;
		snprintf(err->text, sizeof(err->text), "filter, instruction %u: %s", at, wrong);
	}
	return -EINVAL;
}

static int make_tap(struct capture_tap *tap, const struct capture *capture, uint32_t worker)
{
	tap->capture = capture;
	tap->worker = worker;
	tap->stride = (capture->snaplen + CACHE_LINE - 1) & ~(uint32_t)(CACHE_LINE - 1);
	tap->scratch = aligned_alloc(CACHE_LINE, (size_t)tap->stride * FP_BURST_MAX);
	if (!tap->scratch)
		return -ENOMEM;
	return ring_init(&tap->ring, CAPTURE_CHUNK, CAPTURE_RING_BYTES / CAPTURE_CHUNK);
}

int capture_make(struct capture **out, const struct fp_capture_cfg *cfg, uint32_t n_workers,
		 struct fp_error *err)
{
	struct capture *capture;
	int rc = check_cfg(cfg, err);

	if (rc)
		return rc;
	capture = calloc(1, sizeof(*capture));
	if (!capture)
		return -ENOMEM;
	capture->snaplen = cfg->snaplen;
	capture->ports = cfg->ports;
	capture->any_verdict = cfg->any_verdict;
	memcpy(capture->verdicts, cfg->verdicts, sizeof(capture->verdicts));
	capture->n_insns = cfg->n_insns;
	if (cfg->n_insns)
		memcpy(capture->insns, cfg->insns, cfg->n_insns * sizeof(cfg->insns[0]));
	capture->taps = aligned_alloc(CACHE_LINE, sizeof(struct capture_tap) * n_workers);
	rc = capture->taps ? 0 : -ENOMEM;
	if (capture->taps) {
		memset(capture->taps, 0, sizeof(struct capture_tap) * n_workers);
		capture->n_taps = n_workers;
	}
	for (uint32_t i = 0; i < n_workers && rc == 0; i++)
		rc = make_tap(&capture->taps[i], capture, i);
	if (rc) {
		capture_free(capture);
		return rc;
	}
	*out = capture;
	return 0;
}

void capture_free(struct capture *capture)
{
	if (!capture)
		return;
	for (uint32_t i = 0; i < capture->n_taps; i++) {
		ring_free(&capture->taps[i].ring);
		free(capture->taps[i].scratch);
	}
	free(capture->taps);
	free(capture);
}

static uint32_t chunks_of(uint32_t size)
{
	return (size + CAPTURE_CHUNK - 1) / CAPTURE_CHUNK;
}

int capture_drain(struct capture_tap *tap, uint8_t *out, uint32_t cap)
{
	uint32_t taken = 0;

	while (true) {
		uint32_t n = UINT32_MAX, done = 0;
		const uint8_t *span = ring_peek(&tap->ring, &n);

		while (done < n) {
			struct fp_capture_rec head;

			memcpy(&head, span + (size_t)done * CAPTURE_CHUNK,
			       min_u32(sizeof(head), (n - done) * CAPTURE_CHUNK));
			if (head.from != IS_FILLER) {
				if (head.size > cap - taken)
					break;
				memcpy(out + taken, span + (size_t)done * CAPTURE_CHUNK, head.size);
				taken += head.size;
			}
			done += chunks_of(head.size);
		}
		ring_release(&tap->ring, done);
		if (done < n && taken == 0)
			return -EMSGSIZE;
		if (done < n || n == 0)
			return (int)taken;
	}
}

/* ---- what is wanted ---- */

static bool matches(const struct capture *cap, const uint8_t *data, uint32_t len)
{
	return cap->n_insns == 0 || bpf_run(cap->insns, data, len) != 0;
}

static bool wants_verdict(const struct capture *cap, uint32_t verdict)
{
	if (cap->any_verdict)
		return true;
	return verdict < V_COUNT && (cap->verdicts[verdict / 64] >> verdict % 64 & 1);
}

static bool wants_port(const struct capture *cap, uint32_t port)
{
	return cap->ports >> port & 1;
}

/* ---- publishing ---- */

/* Contiguous chunks for a record, or NULL when the ring is full. */
static uint8_t *reserve(struct ring *ring, uint32_t n_chunks)
{
	uint32_t n = n_chunks;
	uint8_t *slot = ring_reserve(ring, &n);
	const uint8_t *end = ring->slots + (size_t)(ring->mask + 1) * CAPTURE_CHUNK;

	if (n == n_chunks)
		return slot;
	if (n == 0 || slot + (size_t)n * CAPTURE_CHUNK != end)
		return NULL;
	/* What is left before the end of the array is too short. */
	memcpy(slot, &(struct fp_capture_rec){ .size = n * CAPTURE_CHUNK, .from = IS_FILLER }, CAPTURE_CHUNK);
	ring_submit(ring, n);
	n = n_chunks;
	slot = ring_reserve(ring, &n);
	return n == n_chunks ? slot : NULL;
}

static struct fp_capture_side side_of(uint64_t t_ns, uint32_t port, uint32_t len, uint32_t cap_len,
				      const struct fp_vnet *vnet)
{
	return (struct fp_capture_side){
		.t_ns = t_ns,
		.len = len,
		.cap_len = cap_len,
		.port = (uint8_t)port,
		.vnet_flags = vnet->flags,
		.gso_type = vnet->gso_type,
		.gso_size = vnet->gso_size,
	};
}

/* @in: the place of a note, or FP_BURST_MAX; @out: NULL if nothing was sent. */
static void publish(struct capture_tap *tap, uint32_t in, const struct fp_frame *out,
		    enum fp_capture_from from, uint32_t verdict, uint64_t now_ns)
{
	const struct capture_note *note = in < FP_BURST_MAX ? &tap->notes[in] : NULL;
	struct fp_capture_rec rec = {
		.verdict = verdict < V_COUNT ? (uint16_t)verdict : FP_CAPTURE_NO_VERDICT,
		.worker = (uint8_t)tap->worker,
		.from = (uint8_t)from,
		.side = { { .port = FP_CAPTURE_NO_PORT }, { .port = FP_CAPTURE_NO_PORT } },
	};
	const uint64_t lost = counter_read(&tap->lost);
	uint8_t *to;

	if (note)
		rec.side[IN] = side_of(tap->t_ns, note->port, note->len, note->cap_len, &note->vnet);
	if (out)
		rec.side[OUT] = side_of(now_ns, out->out_port, out->len,
					min_u32(out->len, tap->capture->snaplen), &out->vnet);
	rec.size = (uint32_t)(sizeof(rec) + rec.side[IN].cap_len + rec.side[OUT].cap_len + RECORD_ALIGN - 1) &
		   ~(uint32_t)(RECORD_ALIGN - 1);
	rec.id = tap->n_packets++ * tap->capture->n_taps + tap->worker;
	to = reserve(&tap->ring, chunks_of(rec.size));
	if (!to) {
		counter_add(&tap->lost, 1);
		return;
	}
	rec.lost = lost - tap->lost_told;
	tap->lost_told = lost;
	memcpy(to, &rec, sizeof(rec));
	if (note)
		memcpy(to + sizeof(rec), tap->scratch + (size_t)in * tap->stride, note->cap_len);
	if (out)
		memcpy(to + sizeof(rec) + rec.side[IN].cap_len, out->data, rec.side[OUT].cap_len);
	ring_submit(&tap->ring, chunks_of(rec.size));
}

static enum fp_capture_from origin(const struct fp_frame *f, enum fp_capture_from from)
{
	if (from != FP_CAPTURE_WIRE || f->src == FP_SRC_WIRE)
		return from;
	if (f->src >= FP_SRC_CONDUIT)
		return FP_CAPTURE_CONDUIT;
	return f->src == FP_SRC_HOST ? FP_CAPTURE_HOST : FP_CAPTURE_HAIRPIN;
}

void capture_before(struct capture_tap *tap, const struct fp_frame *frames, uint32_t n,
		    enum fp_capture_from from, uint64_t now_ns)
{
	const struct capture *cap = tap->capture;

	tap->t_ns = now_ns;
	for (uint32_t i = 0; i < n; i++) {
		const struct fp_frame *f = &frames[i];
		const enum fp_capture_from whence = origin(f, from);

		tap->notes[i] = (struct capture_note){
			.len = f->len,
			.cap_len = whence == FP_CAPTURE_WIRE ? min_u32(f->len, cap->snaplen) : 0,
			.vnet = f->vnet,
			.port = f->port,
			.from = (uint8_t)whence,
			.matched = matches(cap, f->data, f->len),
		};
		memcpy(tap->scratch + (size_t)i * tap->stride, f->data, tap->notes[i].cap_len);
	}
}

void capture_after(struct capture_tap *tap, const struct fp_frame *frames, uint32_t n, uint64_t now_ns)
{
	const struct capture *cap = tap->capture;

	for (uint32_t i = 0; i < n; i++) {
		const struct capture_note *note = &tap->notes[i];
		const struct fp_frame *f = &frames[i];
		const bool wire = note->from == FP_CAPTURE_WIRE;
		/* What no wire brought is shown as it would have left, even if it did not. */
		const bool out = !wire || (f->out == FP_OUT_WIRE && !verdict_is_drop(f->verdict));

		if (f->verdict == V_HANDOFF || !wants_verdict(cap, f->verdict) ||
		    !((wire && wants_port(cap, note->port)) || (out && wants_port(cap, f->out_port))))
			continue;
		if (note->matched || (out && matches(cap, f->data, f->len)))
			publish(tap, wire ? i : FP_BURST_MAX, out ? f : NULL, note->from, f->verdict, now_ns);
	}
}

void capture_sent(struct capture_tap *tap, const struct fp_frame *frames, uint32_t n,
		  enum fp_capture_from from, uint64_t now_ns)
{
	const struct capture *cap = tap->capture;

	for (uint32_t i = 0; i < n; i++) {
		const struct fp_frame *f = &frames[i];

		if (wants_verdict(cap, f->verdict) && wants_port(cap, f->out_port) &&
		    matches(cap, f->data, f->len))
			publish(tap, FP_BURST_MAX, f, from, f->verdict, now_ns);
	}
}
