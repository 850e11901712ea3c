/* SPDX-License-Identifier: Apache-2.0 */
/**
 * store.c - a bounded queue of frames that is filled, and then emptied
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

int store_init(struct store *s)
{
	s->frames = calloc(STORE_FRAMES, sizeof(*s->frames));
	s->room = aligned_alloc(CACHE_LINE, STORE_BYTES);
	return s->frames && s->room ? 0 : -ENOMEM;
}

void store_free(struct store *s)
{
	free(s->frames);
	free(s->room);
}

bool store_put(struct store *s, const struct fp_frame *frame, uint32_t number, uint64_t now_ns)
{
	const size_t size = (frame->len + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	struct fp_frame *copy;

	if (s->n == STORE_FRAMES || size > STORE_BYTES - s->used)
		return false;
	if (s->n == 0) {
		s->since_ns = now_ns;
		s->number = number;
	}
	copy = &s->frames[s->n++];
	*copy = *frame;
	copy->data = s->room + s->used;
	memcpy(copy->data, frame->data, frame->len);
	s->used += size;
	return true;
}

uint32_t store_take(struct store *s, struct fp_frame *out, uint32_t cap)
{
	const uint32_t n = min_u32(cap, s->n - s->left);

	for (uint32_t i = 0; i < n; i++) {
		const struct fp_frame *kept = &s->frames[s->left++];
		uint8_t *data = out[i].data;
		const uint8_t headroom = out[i].headroom;

		out[i] = *kept;
		out[i].data = data;
		out[i].headroom = headroom;
		memcpy(data, kept->data, kept->len);
	}
	if (n == 0)
		store_clear(s);
	return n;
}
