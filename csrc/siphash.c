/* SPDX-License-Identifier: Apache-2.0 */
/**
 * siphash.c - SipHash-2-4
 */
#include "siphash.h"

/* The algorithm's own byte order, little-endian, on every host. */
static uint64_t load_le(const uint8_t *p, size_t n)
{
	uint64_t x = 0;

	for (size_t i = 0; i < n; i++)
		x |= (uint64_t)p[i] << (8 * i);
	return x;
}

static void absorb(struct sip *s, uint64_t word)
{
	s->v3 ^= word;
	sip_round(s);
	sip_round(s);
	s->v0 ^= word;
}

uint64_t siphash24(const uint8_t *key, const uint8_t *data, size_t len)
{
	struct sip s = sip_start(load_le(key, 8), load_le(key + 8, 8));
	size_t at = 0;

	for (; len - at >= 8; at += 8)
		absorb(&s, load_le(data + at, 8));
	absorb(&s, (uint64_t)(len & 0xff) << 56 | load_le(data + at, len - at));
	s.v2 ^= 0xff;
	for (unsigned i = 0; i < 4; i++)
		sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
