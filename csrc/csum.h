/* SPDX-License-Identifier: Apache-2.0 */
/**
 * csum.h - the Internet checksum, whole (RFC 1071) and incremental (RFC 1624)
 *
 * Sums are taken over 16-bit words as they lie in memory; one's complement addition does not care about
 * byte order, so nothing is swapped.
 */
#ifndef CSUM_H
#define CSUM_H

#include "base.h"

/**
 * csum_sum() - One's complement sum of bytes, not yet folded
 *
 * A part other than the last must have an even length. Any length up to 64 KiB fits without overflow.
 */
uint64_t csum_sum(const uint8_t *data, uint32_t len);

/*
 * Added to itself with its halves exchanged, a sum has in its upper half what both halves make together: the
 * carry that falls out of the lower half is added where it belongs, and the one out of the top is that very carry.
 */
static inline uint16_t csum_fold32(uint32_t sum)
{
	return (uint16_t)((sum + (sum << 16 | sum >> 16)) >> 16);
}

static inline uint16_t csum_fold(uint64_t sum)
{
	return csum_fold32((uint32_t)((sum + (sum << 32 | sum >> 32)) >> 32));
}

/**
 * csum_ipv4_header() - The same for an IPv4 header
 * @len: a multiple of 4, at least 20
 */
static inline uint64_t csum_ipv4_header(const uint8_t *ip, uint32_t len)
{
	uint64_t sum = (uint64_t)be32_load(ip).raw + be32_load(ip + 4).raw + be32_load(ip + 8).raw +
		       be32_load(ip + 12).raw + be32_load(ip + 16).raw;

	return likely(len == 20) ? sum : sum + csum_sum(ip + 20, len - 20);
}

/**
 * csum_pseudo_v4() - Sum of the IPv4 pseudo-header of TCP and UDP
 * @len: of the TCP or UDP packet, header and data
 */
static inline uint64_t csum_pseudo_v4(be32 src, be32 dst, uint8_t proto, uint16_t len)
{
	return (uint64_t)src.raw + dst.raw + be16_of(proto).raw + be16_of(len).raw;
}

/* What changes a sum when a field changes: ~old + new (RFC 1624, equation 3). Deltas may be added up. */
static inline uint32_t csum_delta16(be16 old, be16 new)
{
	return (uint32_t)(uint16_t)~old.raw + new.raw;
}

static inline uint32_t csum_delta32(be32 old, be32 new)
{
	uint32_t o = ~old.raw;

	return (o & 0xffff) + (o >> 16) + (new.raw & 0xffff) + (new.raw >> 16);
}

/* A delta is a sum of a few 16-bit words, and far from overflowing. */
static inline be16 csum_update(be16 csum, uint32_t delta)
{
	return (be16){ (uint16_t)~csum_fold32((uint16_t)~csum.raw + delta) };
}

/* The same for a field that holds no checksum yet, but the sum of the pseudo-header (FP_VNET_NEEDS_CSUM). */
static inline be16 csum_update_partial(be16 sum, uint32_t delta)
{
	return (be16){ csum_fold32(sum.raw + delta) };
}

/**
 * csum_update_udp() - The same for UDP, where 0 means "no checksum"
 *
 * Spec: RFC 768: a zero stays zero; a result of zero is sent as all ones.
 */
static inline be16 csum_update_udp(be16 csum, uint32_t delta)
{
	be16 new;

	if (csum.raw == 0)
		return csum;
	new = csum_update(csum, delta);
	return new.raw ? new : (be16){ 0xffff };
}

#endif /* CSUM_H */
