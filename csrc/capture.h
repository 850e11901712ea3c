/* SPDX-License-Identifier: Apache-2.0 */
/**
 * capture.h - what a node received, what it made of it, and why: packets for `flexhactl capture`
 *
 * DOC: Theory of Operation
 *
 * A record is one packet: the frame as it was received, the frame as it was sent, and its verdict. While a
 * capture is on, a worker notes the frames of a burst before core_step(), which rewrites them in place, and
 * publishes those that are wanted after tx, when verdicts are final. A capture that is off is a pointer that
 * is NULL: one load and two branches a burst.
 *
 * A packet is wanted when it touches one of the ports, has one of the verdicts, and the filter matches the
 * frame as it was received or as it was sent. Filters look at the whole frame, whatever the snaplen.
 *
 *   where the frame comes from         as received   as sent
 *   the wire                           yes           if it left through a wire; an answer that we made, too
 *   the wire, by a hand-off ring       at its owner  the same; the worker that handed it on is silent, unless
 *                                                    the ring was full
 *   the wire, parked or held           neigh_wait,   a record of its own once it leaves or is refused
 *                                      frag_held,    (FP_CAPTURE_WAITED)
 *                                      held
 *   this node's kernel                 -             yes, sent or refused
 *   a hairpin turn, at another worker  -             yes, sent or refused
 *   control plane, pulse thread        -             yes, sent or refused; without a verdict when sent
 *
 * Frames that end in the core while they wait (neigh_timeout, frag_timeout, hold_dropped) are counted, but no
 * longer there to be seen. A fragment that was held at one worker and whose session is another's is seen as
 * received at both. An offload frame is one frame, with what struct fp_vnet says of it, and so is one that is cut on
 * its way out.
 *
 * Records go through one ring per worker, in chunks of CAPTURE_CHUNK bytes; each stands in one piece, if need
 * be behind a filler at the end of the array. A full ring loses the packet and counts it; nothing waits.
 *
 * Control makes and frees a capture, and tells workers of it by mailbox (REQ_CAPTURE); in between it reads
 * the consumer's end of the rings and the lost counters, and everything else belongs to the worker.
 */
#ifndef CAPTURE_H
#define CAPTURE_H

#include "ring.h"

enum { CAPTURE_CHUNK = 64, CAPTURE_RING_BYTES = 4 << 20 };

/**
 * struct capture_note - A frame before core_step()
 * @len:     bytes
 * @cap_len: of those kept in the tap's scratch
 * @vnet:    what the driver said
 * @port:    where it arrived
 * @from:    enum fp_capture_from
 * @matched: by the filter
 */
struct capture_note {
	uint32_t len;
	uint32_t cap_len;
	struct fp_vnet vnet;
	uint8_t port;
	uint8_t from;
	bool matched;
};

/**
 * struct capture_tap - One worker's share
 * @capture:   what is wanted
 * @ring:      to control
 * @worker:    its number
 * @n_packets: published or lost so far
 * @lost_told: losses that records have told of
 * @t_ns:      when the burst was received
 * @notes:     frames of the burst
 * @scratch:   their first bytes, @stride apart
 * @stride:    a multiple of CACHE_LINE
 * @lost:      packets that found the ring full
 */
struct capture_tap {
	struct ring ring;
	const struct capture *capture;
	uint32_t worker;
	uint32_t stride;
	uint64_t n_packets;
	uint64_t lost_told;
	uint64_t t_ns;
	uint8_t *scratch;
	struct capture_note notes[FP_BURST_MAX];
	counter lost;
};

/**
 * struct capture - What is wanted: immutable while workers know of it
 * @snaplen:     bytes of each frame
 * @ports:       a bit each
 * @any_verdict: @verdicts does not matter
 * @verdicts:    a bit each
 * @n_insns:     0: every frame matches
 * @insns:       the filter
 * @n_taps:      workers
 * @taps:        one per worker
 */
struct capture {
	uint32_t snaplen;
	uint32_t ports;
	bool any_verdict;
	uint64_t verdicts[FP_CAPTURE_VERDICT_WORDS];
	uint32_t n_insns;
	struct fp_bpf insns[FP_BPF_MAX];
	uint32_t n_taps;
	struct capture_tap *taps;
};

/* ---- control ---- */

/**
 * capture_make() - Check what is wanted, and allocate
 *
 * Return: 0 with *@out, or -EINVAL, -ENOMEM with the reason in @err.
 */
int capture_make(struct capture **out, const struct fp_capture_cfg *cfg, uint32_t n_workers,
		 struct fp_error *err);

/* capture_free() - No worker may know of it any more */
void capture_free(struct capture *capture);

/**
 * capture_drain() - Take records
 * @out: room for @cap bytes; records stand one behind the other, each .size bytes long
 *
 * Return: bytes, 0 when nothing waits, or -EMSGSIZE when not even one record fits.
 */
int capture_drain(struct capture_tap *tap, uint8_t *out, uint32_t cap);

/* ---- the worker's own thread ---- */

/**
 * capture_before() - Note a burst before core_step()
 * @from: FP_CAPTURE_WIRE, where .src says more, or FP_CAPTURE_WAITED
 */
void capture_before(struct capture_tap *tap, const struct fp_frame *frames, uint32_t n,
		    enum fp_capture_from from, uint64_t now_ns);

/* capture_after() - Publish what is wanted of the burst that was noted, after tx */
void capture_after(struct capture_tap *tap, const struct fp_frame *frames, uint32_t n, uint64_t now_ns);

/**
 * capture_sent() - Publish frames that were not received in this burst, after tx
 * @from: where they come from; .verdict is V_COUNT for one that has none
 */
void capture_sent(struct capture_tap *tap, const struct fp_frame *frames, uint32_t n,
		  enum fp_capture_from from, uint64_t now_ns);

#endif /* CAPTURE_H */
