/* SPDX-License-Identifier: Apache-2.0 */
/**
 * siphash.h - SipHash-2-4 with a 64-bit tag: authenticates short messages (Aumasson and Bernstein, 2012)
 *
 * For messages between the nodes; digest.c makes SipHash-1-3 of the same rounds. The flow table's hash is
 * another one (hash.h): faster, and no MAC.
 */
#ifndef SIPHASH_H
#define SIPHASH_H

#include "base.h"

enum { SIPHASH_KEY_LEN = 16 };

/**
 * struct sip - State of the hash
 */
struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline struct sip sip_start(uint64_t k0, uint64_t k1)
{
	return (struct sip){ k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
			     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573) };
}

static inline uint64_t sip_rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = sip_rotl(s->v1, 13) ^ s->v0;
	s->v3 = sip_rotl(s->v3, 16) ^ s->v2;
	s->v0 = sip_rotl(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = sip_rotl(s->v1, 17) ^ s->v2;
	s->v3 = sip_rotl(s->v3, 21) ^ s->v0;
	s->v2 = sip_rotl(s->v2, 32);
}

/**
 * siphash24() - The tag of @len bytes under @key
 * @key: SIPHASH_KEY_LEN bytes
 */
uint64_t siphash24(const uint8_t *key, const uint8_t *data, size_t len);

#endif /* SIPHASH_H */
