/* SPDX-License-Identifier: Apache-2.0 */
/**
 * defer.c - room for frames that may not leave yet
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "defer.h"

int defer_init(struct defer *d)
{
	d->frames = calloc(DEFER_FRAMES, sizeof(*d->frames));
	d->room = aligned_alloc(CACHE_LINE, DEFER_BYTES);
	return d->frames && d->room ? 0 : -ENOMEM;
}

void defer_free(struct defer *d)
{
	free(d->frames);
	free(d->room);
}

bool defer_put(struct defer *d, const struct fp_frame *frame, uint64_t now_ns)
{
	const size_t size = (FP_HEADROOM + frame->len + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	struct fp_frame *copy;

	if (d->leaving || d->n == DEFER_FRAMES || size > DEFER_BYTES - d->used)
		return false;
	if (d->n == 0)
		d->since_ns = now_ns;
	copy = &d->frames[d->n++];
	*copy = *frame;
	copy->data = d->room + d->used + FP_HEADROOM;
	copy->headroom = 1;
	memcpy(copy->data, frame->data, frame->len);
	d->used += size;
	return true;
}
