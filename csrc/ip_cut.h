/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ip_cut.h - IPv4 packets that are longer than the next wire allows, cut into fragments
 *
 * Done on the way out, like the segments of an offload frame (gso.h): for the core it is one packet, which
 * needs no more room than it came in. Fragments can be cut again (RFC 791 section 3.2). Packets with options
 * are not routed, so there are none to copy.
 */
#ifndef IP_CUT_H
#define IP_CUT_H

#include "base.h"

/**
 * ip_cut_may() - May an IPv4 packet be cut? Not if its sender forbids it (DF), nor if it has options
 * @ip: its header
 */
bool ip_cut_may(const uint8_t *ip);

/**
 * struct ip_cut - Where cutting a packet has got to
 * @frame:   the frame
 * @len_max: longest fragment, Ethernet header included
 * @len:     bytes behind the IP header
 * @done:    those of them that are in fragments
 * @n:       fragments so far
 */
struct ip_cut {
	const struct fp_frame *frame;
	uint32_t len_max, len, done, n;
};

/**
 * ip_cut_begin() - Get ready to cut
 * @frame:   no offload frame, its checksums made; it stays as it is
 * @len_max: room for at least the headers and 8 bytes
 *
 * Return: false if it is not IPv4, or may not be cut.
 */
bool ip_cut_begin(struct ip_cut *cut, const struct fp_frame *frame, uint32_t len_max);

/**
 * ip_cut_next() - The next fragment
 * @out: .data has FP_FRAME_MAX bytes of room; .len and .vnet are set, nothing else
 *
 * Return: false when there is none.
 * Spec:   RFC 791 section 3.2.
 */
bool ip_cut_next(struct ip_cut *cut, struct fp_frame *out);

#endif /* IP_CUT_H */
