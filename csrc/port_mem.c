/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port_mem.c - in-memory port for tests and benchmarks: the frames of each queue cross two rings
 *
 * With offload the slots are long, so there are fewer.
 */
#include <errno.h>
#include <stdio.h>

#include "doorbell.h"
#include "port.h"
#include "ring.h"

enum { MEM_SLOTS = 256, MEM_SLOTS_BIG = 32 };

struct mem_slot {
	uint32_t len;
	struct fp_vnet vnet;
	uint8_t data[];
};

struct mem_chan {
	struct ring in;  /* test -> worker */
	struct ring out; /* worker -> test */
};

static int mem_rx(struct chan *ch, struct fp_frame *frames, uint32_t n)
{
	struct ring *in = &ch->mem->in;
	const uint8_t *slots = ring_peek(in, &n);
	uint64_t seen;

	if (n == 0) {
		/* Make the eventfd unreadable, then look once more; what came in between must be heard of again. */
		if (read(ch->fd, &seen, sizeof(seen)) < 0 && errno != EAGAIN)
			return -errno;
		if (!ring_is_empty(in))
			eventfd_signal(ch->fd);
		return 0;
	}
	for (uint32_t i = 0; i < n; i++) {
		const struct mem_slot *slot = (const void *)(slots + (size_t)i * in->slot_size);

		memcpy(frames[i].data, slot->data, slot->len);
		frames[i].len = slot->len;
		frames[i].vnet = slot->vnet;
	}
	ring_release(in, n);
	return (int)n;
}

static int mem_tx(struct chan *ch, const struct fp_frame *frame)
{
	struct mem_slot *slot = ring_reserve_one(&ch->mem->out);

	if (!slot)
		return -ENOBUFS;
	slot->len = frame->len;
	slot->vnet = frame->vnet;
	memcpy(slot->data, frame->data, frame->len);
	ring_submit(&ch->mem->out, 1);
	return 0;
}

static const struct chan_ops mem_ops = { .rx = mem_rx, .tx = mem_tx };

static int open_chan(struct chan *ch, bool offload)
{
	const uint32_t room = offload ? FP_FRAME_BIG : FP_FRAME_MAX;
	const uint32_t slot_size = (uint32_t)(offsetof(struct mem_slot, data) + room + 7) & ~7u;
	const uint32_t cap = offload ? MEM_SLOTS_BIG : MEM_SLOTS;
	int rc;

	ch->ops = &mem_ops;
	ch->vnet = offload;
	ch->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (ch->fd < 0)
		return -errno;
	ch->mem = aligned_alloc(CACHE_LINE, sizeof(*ch->mem));
	if (!ch->mem)
		return -ENOMEM;
	memset(ch->mem, 0, sizeof(*ch->mem));
	rc = ring_init(&ch->mem->in, slot_size, cap);
	return rc ? rc : ring_init(&ch->mem->out, slot_size, cap);
}

static void close_chan(struct chan *ch)
{
	if (ch->mem) {
		ring_free(&ch->mem->in);
		ring_free(&ch->mem->out);
		free(ch->mem);
	}
	if (ch->fd >= 0)
		close(ch->fd);
	ch->mem = NULL;
	ch->fd = -1;
}

static void mem_close(struct port *port)
{
	for (uint32_t q = 0; q < port->n_queues; q++) {
		close_chan(&port->wire[q]);
		close_chan(&port->host[q]);
	}
}

static int mem_set_carrier(struct port *port, bool up)
{
	(void)port;
	(void)up; /* nobody looks at the carrier of rings */
	return 0;
}

int port_mem_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues, struct fp_error *err)
{
	int rc = 0;

	port->cfg = cfg;
	port->n_queues = n_queues;
	port->set_carrier = mem_set_carrier;
	port->close = mem_close;
	for (uint32_t q = 0; q < n_queues; q++)
		port->wire[q].fd = port->host[q].fd = -1;
	for (uint32_t q = 0; q < n_queues && rc == 0; q++) {
		rc = open_chan(&port->wire[q], cfg->offload);
		if (rc == 0)
			rc = open_chan(&port->host[q], cfg->offload);
	}
	if (rc) {
		mem_close(port);
		snprintf(err->text, sizeof(err->text), "port %s: no memory for its rings", cfg->name);
	}
	return rc;
}

static struct chan *side_of(struct port *port, uint32_t queue, enum fp_src side)
{
	return side == FP_SRC_HOST ? &port->host[queue] : &port->wire[queue];
}

int port_mem_put_frame(struct port *port, uint32_t queue, enum fp_src src, const struct fp_frame *frame)
{
	struct chan *ch = side_of(port, queue, src);
	struct mem_slot *slot;

	if (frame->len > (ch->vnet ? FP_FRAME_BIG : FP_FRAME_MAX))
		return -EMSGSIZE;
	slot = ring_reserve_one(&ch->mem->in);
	if (!slot)
		return -ENOBUFS;
	slot->len = frame->len;
	slot->vnet = ch->vnet ? frame->vnet : (struct fp_vnet){ 0 };
	memcpy(slot->data, frame->data, frame->len);
	if (ring_submit(&ch->mem->in, 1))
		eventfd_signal(ch->fd);
	return 0;
}

uint32_t port_mem_take_frame(struct port *port, uint32_t queue, enum fp_src side, struct fp_frame *frame)
{
	struct ring *out = &side_of(port, queue, side)->mem->out;
	const struct mem_slot *slot = ring_peek_one(out);
	if (!slot)
		return 0;
	frame->len = slot->len;
	frame->vnet = slot->vnet;
	memcpy(frame->data, slot->data, slot->len);
	ring_release(out, 1);
	return frame->len;
}
