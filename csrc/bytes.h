/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bytes.h - what waits of a stream of bytes: a buffer that grows
 *
 * Bytes are written behind @end and taken at @at. What is there is moved to the front only where at least half as
 * much has been taken: so a byte is moved twice at most, however full the buffer is kept.
 */
#ifndef BYTES_H
#define BYTES_H

#include <stdlib.h>

#include "base.h"

/**
 * struct bytes - Zeroed: empty
 * @data, @cap: its memory
 * @at, @end:   what is in it
 */
struct bytes {
	uint8_t *data;
	size_t cap, at, end;
};

enum { BYTES_MIN = 65536 };

static inline size_t bytes_held(const struct bytes *b)
{
	return b->end - b->at;
}

/* bytes_reserve() - Room for @n more behind what is there; false: no memory, and it is as it was */
static inline bool bytes_reserve(struct bytes *b, size_t n)
{
	const size_t held = bytes_held(b);
	size_t cap = b->cap;
	uint8_t *data;

	if (held == 0)
		b->at = b->end = 0;
	if (cap - b->end >= n)
		return true;
	if (b->at && b->at >= held / 2) {
		memmove(b->data, b->data + b->at, held);
		b->at = 0;
		b->end = held;
	}
	while (cap - b->end < n)
		cap = cap ? 2 * cap : BYTES_MIN;
	if (cap == b->cap)
		return true;
	data = realloc(b->data, cap);
	if (!data)
		return false;
	b->data = data;
	b->cap = cap;
	return true;
}

/* bytes_append() - likewise, and put them there */
static inline bool bytes_append(struct bytes *b, const uint8_t *data, size_t n)
{
	if (n == 0)
		return true;
	if (!bytes_reserve(b, n))
		return false;
	memcpy(b->data + b->end, data, n);
	b->end += n;
	return true;
}

static inline void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){ 0 };
}

#endif /* BYTES_H */
