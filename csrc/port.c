/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port.c - what every driver leaves to us: frames for a way out that takes no offload frames, and messages
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "fence_look.h"
#include "gso.h"
#include "ip_cut.h"
#include "port.h"

/* May another frame leave? Counted over all that one becomes; for the first the caller has looked. */
static bool may_go_on(const struct fence *fence, uint32_t n)
{
	return !fence || n == 0 || n % FP_TX_BURST || fence_look(fence) == FENCE_OPEN;
}

static int tx_one(struct chan *ch, const struct fp_frame *frame, uint64_t *bytes)
{
	const int rc = ch->ops->tx(ch, frame);

	if (rc == 0)
		*bytes += frame->len;
	return rc;
}

/* A frame as on a wire, or its fragments; @n: frames before it. Returns frames with it, or -errno. */
static int tx_plain(struct chan *ch, const struct fp_frame *frame, const struct fence *fence, uint32_t n,
		    uint64_t *bytes)
{
	uint8_t room[FP_FRAME_MAX];
	struct fp_frame part = { .data = room };
	struct ip_cut cut;
	int rc;

	if (likely(!ch->len_max || gso_wire_len(frame) <= ch->len_max) ||
	    !ip_cut_begin(&cut, frame, ch->len_max)) {
		if (!may_go_on(fence, n))
			return -ECANCELED;
		rc = tx_one(ch, frame, bytes);
		return rc ? rc : (int)n + 1;
	}
	while (ip_cut_next(&cut, &part)) {
		if (!may_go_on(fence, n))
			return -ECANCELED;
		rc = tx_one(ch, &part, bytes);
		if (rc) /* the datagram is lost anyway */
			return rc;
		n++;
	}
	return (int)n;
}

static int tx_segments(struct chan *ch, const struct fp_frame *frame, const struct fence *fence,
		       uint64_t *bytes)
{
	uint8_t room[FP_FRAME_MAX];
	struct fp_frame seg = { .data = room };
	struct gso_cut cut;
	int n = 0;

	if (!gso_cut_begin(&cut, frame))
		return -EPROTONOSUPPORT;
	while (gso_cut_next(&cut, &seg)) {
		n = tx_plain(ch, &seg, fence, (uint32_t)n, bytes);
		if (n < 0) /* the queue is full: the rest would be lost as well */
			return n;
	}
	return n;
}

bool port_tx_is_plain(const struct chan *ch, const struct fp_frame *frame)
{
	return (gso_is_plain(frame) || ch->vnet) && (!ch->len_max || gso_wire_len(frame) <= ch->len_max);
}

int port_tx(struct chan *ch, struct fp_frame *frame, const struct fence *fence, uint64_t *bytes)
{
	const bool long_ones = ch->len_max && gso_wire_len(frame) > ch->len_max;

	*bytes = 0;
	if (!gso_is_plain(frame) && (!ch->vnet || long_ones)) {
		if (frame->vnet.gso_type)
			return tx_segments(ch, frame, fence, bytes);
		gso_complete(frame);
	}
	return tx_plain(ch, frame, fence, 0, bytes);
}

struct fp_vnet port_vnet_of(const struct fp_frame *frame)
{
	struct fp_vnet vnet = frame->vnet;

	vnet.flags &= FP_VNET_NEEDS_CSUM;
	if (vnet.hdr_len > frame->len) /* padding was cut off */
		vnet.hdr_len = (uint16_t)frame->len;
	return vnet;
}

int port_fail(struct fp_error *err, int rc, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	return rc;
}

int port_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues, struct fp_error *err)
{
	switch (cfg->driver) {
	case FP_DRIVER_MEM: return port_mem_open(port, cfg, n_queues, err);
	case FP_DRIVER_PACKET: return port_packet_open(port, cfg, n_queues, err);
	default: return port_tap_open(port, cfg, n_queues, err);
	}
}
