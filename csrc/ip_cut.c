/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ip_cut.c - cutting IPv4 packets into fragments
 */
#include "ip_cut.h"
#include "csum.h"
#include "pkt.h"

enum { HEADERS = ETH_LEN + IPV4_LEN, UNIT = 8, VERSION_AND_LENGTH = 0x45 };

bool ip_cut_may(const uint8_t *ip)
{
	return ip[0] == VERSION_AND_LENGTH && !(be16_host(be16_load(ip + IP_FRAG)) & IP_DF);
}

bool ip_cut_begin(struct ip_cut *cut, const struct fp_frame *frame, uint32_t len_max)
{
	const uint8_t *ip = frame->data + ETH_LEN;
	uint32_t total;

	if (frame->len <= HEADERS || be16_host(be16_load(frame->data + ETH_TYPE)) != ETHERTYPE_IPV4 ||
	    !ip_cut_may(ip) || len_max < HEADERS + UNIT)
		return false;
	total = be16_host(be16_load(ip + IP_TOTAL));
	if (total <= IPV4_LEN || total > frame->len - ETH_LEN)
		return false;
	*cut = (struct ip_cut){ .frame = frame,
				.len_max = min_u32(len_max, FP_FRAME_MAX),
				.len = total - IPV4_LEN };
	return true;
}

bool ip_cut_next(struct ip_cut *cut, struct fp_frame *out)
{
	const uint32_t left = cut->len - cut->done;
	const bool last = left <= cut->len_max - HEADERS;
	const uint32_t n = last ? left : (cut->len_max - HEADERS) / UNIT * UNIT;
	uint8_t *ip = out->data + ETH_LEN;
	uint32_t frag;

	if (left == 0)
		return false;
	memcpy(out->data, cut->frame->data, HEADERS);
	memcpy(out->data + HEADERS, cut->frame->data + HEADERS + cut->done, n);
	out->len = HEADERS + n;
	out->vnet = (struct fp_vnet){ 0 };
	/* The packet may be a fragment: offsets go on from its own, and only its own last one may be the last. */
	frag = be16_host(be16_load(ip + IP_FRAG));
	frag = (frag + cut->done / UNIT) | (last ? 0u : (uint32_t)IP_MF);
	be16_store(ip + IP_FRAG, be16_of((uint16_t)frag));
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)(IPV4_LEN + n)));
	be16_store(ip + IP_CSUM, be16_of(0));
	be16_store(ip + IP_CSUM, (be16){ (uint16_t)~csum_fold(csum_sum(ip, IPV4_LEN)) });
	cut->done += n;
	cut->n++;
	return true;
}
