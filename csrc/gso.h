/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gso.h - offload frames: many TCP segments or UDP datagrams in one, checksums still to be made
 *
 * Theory of operation
 *   With virtio_net_hdr (struct fp_vnet) the kernel hands us what a socket made: one frame of up to 64 KiB
 *   (gso_type, gso_size), whose checksum field holds the sum of the pseudo-header alone (NEEDS_CSUM). It is
 *   translated like any other packet, once, and passed on with the header; whoever puts it on a real wire
 *   cuts it. gso_check() makes sure that nothing else of the core must doubt struct fp_vnet; pkt_parse_l4()
 *   adds that it speaks of the very header that was parsed. Only where the way out takes no offload frames
 *   are they cut here, in software.
 *
 *   Lengths and the IP header's checksum of a segment depend on its size, so a segment is not an offload
 *   frame's prefix: each gets both checksums anew.
 */
#ifndef GSO_H
#define GSO_H

#include "base.h"

/* A frame as on the wire; nearly all are, where offload is off. */
static inline bool gso_is_plain(const struct fp_frame *frame)
{
	return likely(!((frame->vnet.flags & FP_VNET_NEEDS_CSUM) | frame->vnet.gso_type));
}

/**
 * gso_check() - Check .vnet against the frame's length and headers
 * @frame: at least an Ethernet header long
 *
 * Completes checksums that are neither TCP's nor UDP's: the core translates no others while they are partial.
 * Frames that would become more segments than a sender has reason to make are refused: cutting them costs a
 * write each.
 * Return: false when it contradicts the frame.
 */
bool gso_check(struct fp_frame *frame);

/**
 * gso_wire_len() - The longest frame that this one becomes on a wire
 * @frame: after gso_check()
 */
uint32_t gso_segment_len(const struct fp_frame *frame); /* the same for one with a .gso_type */

static inline uint32_t gso_wire_len(const struct fp_frame *frame)
{
	return likely(frame->vnet.gso_type == FP_GSO_NONE) ? frame->len : gso_segment_len(frame);
}

/**
 * gso_complete() - Make the checksum of a frame that is one segment (NEEDS_CSUM)
 *
 * Spec: RFC 768, RFC 1071; a sum of zero becomes all ones, which TCP takes as well.
 */
void gso_complete(struct fp_frame *frame);

/**
 * struct gso_cut - Where cutting an offload frame has got to
 * @frame:   the frame
 * @headers: bytes of it that all segments share
 * @ip:      offset of its IP header
 * @done:    bytes of payload that are in segments
 * @n:       segments so far
 */
struct gso_cut {
	const struct fp_frame *frame;
	uint32_t headers, ip, done, n;
};

/**
 * gso_cut_begin() - Get ready to cut
 * @frame: after gso_check(), with a .gso_type; it stays as it is
 *
 * Return: false if it is neither IPv4 nor IPv6 right behind the Ethernet header, or its segments are longer than
 *         FP_FRAME_MAX.
 */
bool gso_cut_begin(struct gso_cut *cut, const struct fp_frame *frame);

/**
 * gso_cut_next() - The next segment, with all its checksums
 * @seg: .data has FP_FRAME_MAX bytes of room; .len and .vnet are set, nothing else
 *
 * IPv4: identifications count up. TCP: CWR goes to the first segment, FIN and PSH to the last.
 * Return: false when there is none.
 * Spec:   RFC 3168 section 6.1.2 (CWR).
 */
bool gso_cut_next(struct gso_cut *cut, struct fp_frame *seg);

#endif /* GSO_H */
