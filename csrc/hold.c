/* SPDX-License-Identifier: Apache-2.0 */
/**
 * hold.c - frames that wait until the peer knows of their session
 */
#include "hold.h"

enum { SMALL, BIG };

static uint32_t big_slots(const struct fp_config *cfg)
{
	if (!cfg->sync.hold_frames)
		return 0;
	for (uint32_t i = 0; i < cfg->n_ports; i++)
		if (cfg->ports[i].offload)
			return HOLD_BIG;
	return 0;
}

static size_t slots_size(const struct fp_config *cfg)
{
	const size_t bytes = (cfg->sync.hold_frames + big_slots(cfg)) * sizeof(struct held);

	return (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

size_t hold_mem_size(const struct fp_config *cfg)
{
	return slots_size(cfg) + (size_t)cfg->sync.hold_frames * FP_FRAME_MAX +
	       (size_t)big_slots(cfg) * FP_FRAME_BIG;
}

static bool is_big(const struct hold *h, uint32_t at)
{
	return at >= h->n_small;
}

static uint8_t *data_of(const struct hold *h, uint32_t at)
{
	const size_t small = (size_t)min_u32(at, h->n_small) * FP_FRAME_MAX;

	return h->data + small + (is_big(h, at) ? (size_t)(at - h->n_small) * FP_FRAME_BIG : 0);
}

static uint32_t size_class(uint32_t len)
{
	return len > FP_FRAME_MAX ? BIG : SMALL;
}

/* ---- chains ---- */

static void append(struct hold *h, struct hold_chain *to, uint16_t first, uint16_t last, uint32_t n)
{
	h->slots[last].next = HOLD_NONE;
	*(to->n ? &h->slots[to->tail].next : &to->head) = first;
	to->tail = last;
	to->n += n;
}

static uint16_t take(struct hold *h, struct hold_chain *from)
{
	const uint16_t at = from->head;

	from->head = h->slots[at].next;
	from->n--;
	return at;
}

static void free_slot(struct hold *h, uint16_t at)
{
	counter_set(&h->n, counter_read(&h->n) - 1);
	counter_set(&h->bytes, counter_read(&h->bytes) - h->slots[at].len);
	append(h, &h->unused[is_big(h, at)], at, at, 1);
}

void hold_init(struct hold *h, void *mem, const struct fp_config *cfg)
{
	*h = (struct hold){ .slots = mem, .n_small = cfg->sync.hold_frames, .n_big = big_slots(cfg) };
	h->data = (uint8_t *)mem + slots_size(cfg);
	for (uint32_t at = 0; at < h->n_small + h->n_big; at++)
		append(h, &h->unused[is_big(h, at)], (uint16_t)at, (uint16_t)at, 1);
}

/* ---- frames ---- */

bool hold_has_room(const struct hold *h, uint32_t len)
{
	return len <= FP_FRAME_BIG && h->unused[size_class(len)].n;
}

bool hold_put(struct hold *h, struct hold_chain *chain, const struct fp_frame *frame, uint64_t now_ns)
{
	uint16_t at;

	if (!hold_has_room(h, frame->len))
		return false;
	at = take(h, &h->unused[size_class(frame->len)]);
	h->slots[at] = (struct held){
		.at_ns = now_ns,
		.len = frame->len,
		.l4_sport = frame->l4_sport,
		.l4_dport = frame->l4_dport,
		.vnet = frame->vnet,
		.l4_known = frame->l4_known,
		.port = frame->port,
		.src = frame->src,
		.hops = frame->hops,
	};
	memcpy(data_of(h, at), frame->data, frame->len);
	append(h, chain, at, at, 1);
	counter_add(&h->n, 1);
	counter_add(&h->bytes, frame->len);
	return true;
}

uint32_t hold_release(struct hold *h, struct hold_chain *chain)
{
	const uint32_t n = chain->n;

	if (n)
		append(h, &h->ready, chain->head, chain->tail, n);
	*chain = (struct hold_chain){ 0 };
	return n;
}

uint32_t hold_drop(struct hold *h, struct hold_chain *chain)
{
	const uint32_t n = chain->n;

	while (chain->n)
		free_slot(h, take(h, chain));
	return n;
}

bool hold_pop(struct hold *h, struct fp_frame *out, uint64_t *at_ns)
{
	const struct held *slot;
	uint16_t at;

	if (!hold_is_ready(h))
		return false;
	at = take(h, &h->ready);
	slot = &h->slots[at];
	memcpy(out->data, data_of(h, at), slot->len);
	out->len = slot->len;
	out->port = slot->port;
	out->src = slot->src;
	out->hops = slot->hops;
	out->vnet = slot->vnet;
	out->l4_known = slot->l4_known;
	out->l4_sport = slot->l4_sport;
	out->l4_dport = slot->l4_dport;
	*at_ns = slot->at_ns;
	free_slot(h, at);
	return true;
}
