/* SPDX-License-Identifier: Apache-2.0 */
/**
 * gso.c - offload frames checked, their checksums completed, and cut into segments
 */
#include "gso.h"
#include "csum.h"
#include "pkt.h"

enum {
	IPV6_LEN = 40,
	IPV6_PAYLOAD_LEN = 4,
	IPV6_SRC = 8,
	IPV6_ADDRS_LEN = 32,
	IPV4_ADDRS_LEN = 8,
	CSUM_LEN = 2,
	/*
	 * Each segment costs a write where they are cut. A UDP socket makes at most 128 of them (UDP_MAX_SEGMENTS);
	 * TCP makes 64 KiB into 131 at the smallest path MTU that Linux believes (552), and a receiver whose MSS is
	 * below 128 has no window for 64 KiB of them.
	 */
	SEGMENTS_MAX = 512
};

static bool is_tcp(const struct fp_vnet *v)
{
	return (v->gso_type & ~FP_GSO_ECN) != FP_GSO_UDP_L4;
}

/* Ethernet, IP and TCP or UDP headers of an offload frame. */
static uint32_t headers_len(const struct fp_frame *frame)
{
	const uint8_t *l4 = frame->data + frame->vnet.csum_start;

	return frame->vnet.csum_start + (is_tcp(&frame->vnet) ? (uint32_t)(l4[TCP_OFF] >> 4) * 4 : UDP_LEN);
}

static bool check_gso(const struct fp_frame *frame)
{
	const struct fp_vnet *v = &frame->vnet;
	const uint32_t type = v->gso_type & ~FP_GSO_ECN, fixed = is_tcp(v) ? TCP_LEN : UDP_LEN;
	uint32_t headers;

	if (type != FP_GSO_TCPV4 && type != FP_GSO_TCPV6 && type != FP_GSO_UDP_L4)
		return false;
	/* Segments need checksums of their own, so the kernel never says one without the other. */
	if (!(v->flags & FP_VNET_NEEDS_CSUM) || v->gso_size == 0 ||
	    v->csum_offset != (is_tcp(v) ? TCP_CSUM : UDP_CSUM) || v->csum_start < ETH_LEN + IPV4_LEN ||
	    v->csum_start + fixed > frame->len)
		return false;
	headers = headers_len(frame);
	return headers >= v->csum_start + fixed && headers < frame->len &&
	       frame->len - headers <= SEGMENTS_MAX * (uint32_t)v->gso_size;
}

bool gso_check(struct fp_frame *frame)
{
	const struct fp_vnet *v = &frame->vnet;

	if ((v->flags & FP_VNET_NEEDS_CSUM) &&
	    (v->csum_start < ETH_LEN || (uint32_t)v->csum_start + v->csum_offset + CSUM_LEN > frame->len))
		return false;
	if (v->gso_type != FP_GSO_NONE)
		return check_gso(frame);
	if (v->csum_offset != TCP_CSUM && v->csum_offset != UDP_CSUM)
		gso_complete(frame);
	return true;
}

uint32_t gso_segment_len(const struct fp_frame *frame)
{
	return min_u32(frame->len, headers_len(frame) + frame->vnet.gso_size);
}

static void store_csum(uint8_t *at, uint64_t sum)
{
	const uint16_t csum = (uint16_t)~csum_fold(sum);

	be16_store(at, (be16){ csum ? csum : 0xffff });
}

void gso_complete(struct fp_frame *frame)
{
	uint8_t *start = frame->data + frame->vnet.csum_start;

	store_csum(start + frame->vnet.csum_offset, csum_sum(start, frame->len - frame->vnet.csum_start));
	frame->vnet = (struct fp_vnet){ 0 };
}

bool gso_cut_begin(struct gso_cut *cut, const struct fp_frame *frame)
{
	const uint16_t ethertype = be16_host(be16_load(frame->data + ETH_TYPE));

	const uint32_t version = frame->data[ETH_LEN] >> 4;

	*cut = (struct gso_cut){ .frame = frame, .headers = headers_len(frame), .ip = ETH_LEN };
	if (gso_segment_len(frame) > FP_FRAME_MAX) /* it may come from a wire, unseen by the core */
		return false;
	if (ethertype == ETHERTYPE_IPV4)
		return version == 4;
	return ethertype == ETHERTYPE_IPV6 && version == 6 && frame->vnet.csum_start >= ETH_LEN + IPV6_LEN;
}

/* Lengths and identification of the IP header; returns the sum of the pseudo-header. */
static uint64_t fix_ip(const struct gso_cut *cut, uint8_t *ip, uint32_t len, uint32_t l4_len)
{
	const be16 proto = be16_of(is_tcp(&cut->frame->vnet) ? IPPROTO_NUM_TCP : IPPROTO_NUM_UDP);
	const uint64_t sum = (uint64_t)proto.raw + be16_of((uint16_t)l4_len).raw;

	if (ip[0] >> 4 == 6) {
		be16_store(ip + IPV6_PAYLOAD_LEN, be16_of((uint16_t)(len - IPV6_LEN)));
		return sum + csum_sum(ip + IPV6_SRC, IPV6_ADDRS_LEN);
	}
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)len));
	be16_store(ip + IP_ID, be16_of((uint16_t)(be16_host(be16_load(ip + IP_ID)) + cut->n)));
	be16_store(ip + IP_CSUM, be16_of(0));
	be16_store(ip + IP_CSUM,
		   (be16){ (uint16_t)~csum_fold(csum_sum(ip, cut->frame->vnet.csum_start - cut->ip)) });
	return sum + csum_sum(ip + IP_SRC, IPV4_ADDRS_LEN);
}

static void fix_tcp(const struct gso_cut *cut, uint8_t *tcp, bool last)
{
	be32_store(tcp + TCP_SEQ, be32_of(be32_host(be32_load(tcp + TCP_SEQ)) + cut->done));
	if (cut->n > 0)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
	if (!last)
		tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
}

bool gso_cut_next(struct gso_cut *cut, struct fp_frame *seg)
{
	const struct fp_vnet *v = &cut->frame->vnet;
	const uint32_t left = cut->frame->len - cut->headers - cut->done;
	const uint32_t payload = min_u32(left, v->gso_size);
	const uint32_t l4_len = cut->headers - v->csum_start + payload;
	uint8_t *l4 = seg->data + v->csum_start;
	uint64_t sum;

	if (left == 0)
		return false;
	memcpy(seg->data, cut->frame->data, cut->headers);
	memcpy(seg->data + cut->headers, cut->frame->data + cut->headers + cut->done, payload);
	seg->len = cut->headers + payload;
	seg->vnet = (struct fp_vnet){ 0 };
	sum = fix_ip(cut, seg->data + cut->ip, seg->len - cut->ip, l4_len);
	if (is_tcp(v))
		fix_tcp(cut, l4, left == payload);
	else
		be16_store(l4 + UDP_LENGTH, be16_of((uint16_t)l4_len));
	be16_store(l4 + v->csum_offset, be16_of(0));
	store_csum(l4 + v->csum_offset, sum + csum_sum(l4, l4_len));
	cut->done += payload;
	cut->n++;
	return true;
}
