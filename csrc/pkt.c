/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pkt.c - parsing of IPv4, TCP, UDP and ICMP headers
 */
#include "pkt.h"
#include "csum.h"

uint32_t pkt_parse_ip(struct pkt *p, struct fp_frame *frame)
{
	uint32_t room = frame->len - ETH_LEN, ihl;
	uint8_t *ip = frame->data + ETH_LEN;
	uint16_t frag;

	if (frame->len < ETH_LEN + IPV4_LEN)
		return V_IP_MALFORMED;
	ihl = (uint32_t)(ip[0] & 0xf) * 4;
	p->ip_len = be16_host(be16_load(ip + IP_TOTAL));
	if (ip[0] >> 4 != 4 || ihl < IPV4_LEN || ihl > p->ip_len || p->ip_len > room)
		return V_IP_MALFORMED;
	if (csum_fold(csum_ipv4_header(ip, ihl)) != 0xffff)
		return V_IP_CHECKSUM;
	frag = be16_host(be16_load(ip + IP_FRAG));
	p->frame = frame;
	p->ip = ip;
	p->l4 = ip + ihl;
	p->l4_len = (uint16_t)(p->ip_len - ihl);
	p->src = be32_load(ip + IP_SRC);
	p->dst = be32_load(ip + IP_DST);
	p->proto = ip[IP_PROTO];
	p->options = ihl > IPV4_LEN;
	p->fragment = (frag & (IP_MF | IP_OFFSET)) != 0;
	p->later = (frag & IP_OFFSET) != 0;
	p->sport = p->dport = be16_of(0);
	p->tcp_flags = 0;
	p->icmp_type = 0;
	return V_GO_ON;
}

/* What the driver says of the checksum and of segments must be about this very header. */
static bool vnet_agrees(const struct pkt *p, uint32_t header, uint32_t csum_offset, uint32_t gso_type)
{
	const struct fp_vnet *v = &p->frame->vnet;

	if ((v->flags & FP_VNET_NEEDS_CSUM) &&
	    (p->frame->data + v->csum_start != p->l4 || v->csum_offset != csum_offset))
		return false;
	return v->gso_type == FP_GSO_NONE ||
	       ((uint32_t)(v->gso_type & ~FP_GSO_ECN) == gso_type && p->l4_len > header);
}

static uint32_t parse_tcp(struct pkt *p)
{
	uint32_t header;

	if (p->l4_len < TCP_LEN)
		return V_L4_MALFORMED;
	header = (uint32_t)(p->l4[TCP_OFF] >> 4) * 4;
	if (header < TCP_LEN || header > p->l4_len)
		return V_L4_MALFORMED;
	if (!vnet_agrees(p, header, TCP_CSUM, FP_GSO_TCPV4))
		return V_VNET_MALFORMED;
	p->tcp_flags = p->l4[TCP_FLAGS];
	p->sport = be16_load(p->l4 + L4_SPORT);
	p->dport = be16_load(p->l4 + L4_DPORT);
	return p->sport.raw && p->dport.raw ? V_GO_ON : V_L4_MALFORMED;
}

static uint32_t parse_udp(struct pkt *p)
{
	uint16_t len;

	if (p->l4_len < UDP_LEN)
		return V_L4_MALFORMED;
	len = be16_host(be16_load(p->l4 + UDP_LENGTH));
	if (len < UDP_LEN || (len > p->l4_len && !p->fragment))
		return V_L4_MALFORMED;
	if (!vnet_agrees(p, UDP_LEN, UDP_CSUM, FP_GSO_UDP_L4))
		return V_VNET_MALFORMED;
	p->sport = be16_load(p->l4 + L4_SPORT);
	p->dport = be16_load(p->l4 + L4_DPORT);
	return p->sport.raw && p->dport.raw ? V_GO_ON : V_L4_MALFORMED;
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

uint32_t pkt_parse_l4(struct pkt *p)
{
	if (unlikely(p->later) &&
	    (p->proto == IPPROTO_NUM_TCP || p->proto == IPPROTO_NUM_UDP || p->proto == IPPROTO_NUM_ICMP))
		return parse_later(p);
	switch (p->proto) {
	case IPPROTO_NUM_TCP: return parse_tcp(p);
	case IPPROTO_NUM_UDP: return parse_udp(p);
	case IPPROTO_NUM_ICMP:
		if (p->l4_len < ICMP_LEN)
			return V_L4_MALFORMED;
		/* gso_check() has completed what needed a checksum; and ICMP has no segments. */
		if ((p->frame->vnet.flags & FP_VNET_NEEDS_CSUM) || p->frame->vnet.gso_type)
			return V_VNET_MALFORMED;
		p->icmp_type = p->l4[ICMP_TYPE];
		if (p->icmp_type == ICMP_ECHO_REQUEST || p->icmp_type == ICMP_ECHO_REPLY)
			p->sport = p->dport = be16_load(p->l4 + ICMP_ID);
		return V_GO_ON;
	default: return parse_portless(p);
	}
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
