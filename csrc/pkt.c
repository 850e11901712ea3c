/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pkt.c - parsing of IPv4, TCP, UDP and ICMP headers: what is not of every packet
 */
#include "pkt.h"

uint32_t pkt_odd_header(uint8_t first)
{
	const uint32_t ihl = (uint32_t)(first & 0xf) * 4;

	return first >> 4 == 4 && ihl >= IPV4_LEN ? ihl : 0;
}

bool pkt_vnet_agrees(const struct pkt *p, uint32_t header, uint32_t csum_offset, uint32_t gso_type)
{
	const struct fp_vnet *v = &p->frame->vnet;

	if ((v->flags & FP_VNET_NEEDS_CSUM) &&
	    (p->frame->data + v->csum_start != p->l4 || v->csum_offset != csum_offset))
		return false;
	return v->gso_type == FP_GSO_NONE ||
	       ((uint32_t)(v->gso_type & ~FP_GSO_ECN) == gso_type && p->l4_len > header);
}

static uint32_t parse_icmp(struct pkt *p)
{
	if (p->l4_len < ICMP_LEN)
		return V_L4_MALFORMED;
	/* gso_check() has completed what needed a checksum; and ICMP has no segments. */
	if ((p->frame->vnet.flags & FP_VNET_NEEDS_CSUM) || p->frame->vnet.gso_type)
		return V_VNET_MALFORMED;
	p->icmp_type = p->l4[ICMP_TYPE];
	if (p->icmp_type == ICMP_ECHO_REQUEST || p->icmp_type == ICMP_ECHO_REPLY)
		p->sport = p->dport = be16_load(p->l4 + ICMP_ID);
	return V_GO_ON;
}

/* What the first fragment said. */
static uint32_t parse_later(struct pkt *p)
{
	p->sport = (be16){ p->frame->l4_sport };
	p->dport = (be16){ p->frame->l4_dport };
	if (p->proto == IPPROTO_NUM_TCP)
		p->tcp_flags = TCP_ACK_FLAG;
	if (p->proto == IPPROTO_NUM_ICMP) {
		p->icmp_type = (uint8_t)be16_host(p->dport);
		p->dport = p->sport;
	}
	return V_GO_ON;
}

/* Protocols that are passed by their addresses: the fixed part of their headers must be there. */
static uint32_t parse_portless(const struct pkt *p)
{
	enum { PROTO_GRE = 47, PROTO_ESP = 50, PROTO_SCTP = 132 };
	const uint32_t header = p->later                ? 0
				: p->proto == PROTO_GRE ? 4
							: /* RFC 2784 section 2 */
					p->proto == PROTO_ESP ? 8
							      : /* RFC 4303 section 2: SPI, sequence number */
					p->proto == PROTO_SCTP ? 12
							       : /* RFC 9260 section 3.1 */
					0;

	/* gso_check() has completed what needed a checksum; and none of them has segments. */
	if ((p->frame->vnet.flags & FP_VNET_NEEDS_CSUM) || p->frame->vnet.gso_type)
		return V_VNET_MALFORMED;
	return p->l4_len < header ? V_L4_MALFORMED : V_GO_ON;
}

uint32_t pkt_parse_other(struct pkt *p)
{
	if (p->later &&
	    (p->proto == IPPROTO_NUM_TCP || p->proto == IPPROTO_NUM_UDP || p->proto == IPPROTO_NUM_ICMP))
		return parse_later(p);
	return p->proto == IPPROTO_NUM_ICMP ? parse_icmp(p) : parse_portless(p);
}

bool pkt_l4_csum_ok(const struct pkt *p)
{
	uint64_t sum;

	if (p->fragment || (p->frame->vnet.flags & (FP_VNET_NEEDS_CSUM | FP_VNET_DATA_VALID)))
		return true;
	switch (p->proto) {
	case IPPROTO_NUM_ICMP: sum = csum_sum(p->l4, p->l4_len); break;
	case IPPROTO_NUM_TCP:
		sum = csum_sum(p->l4, p->l4_len) + csum_pseudo_v4(p->src, p->dst, p->proto, p->l4_len);
		break;
	case IPPROTO_NUM_UDP: {
		uint16_t len = be16_host(be16_load(p->l4 + UDP_LENGTH));

		if (!be16_load(p->l4 + UDP_CSUM).raw)
			return true;
		sum = csum_sum(p->l4, len) + csum_pseudo_v4(p->src, p->dst, p->proto, len);
		break;
	}
	default: return true; /* theirs to judge */
	}
	return csum_fold(sum) == 0xffff;
}
