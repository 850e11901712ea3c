/* SPDX-License-Identifier: Apache-2.0 */
/**
 * reject.c - answers to what a rule rejects
 */
#include "reject.h"
#include "csum.h"
#include "icmp.h"
#include "nexthop.h"

enum { RST_TTL = 64, RST_LEN = IPV4_LEN + TCP_LEN };

/*
 * Put a RST in the place of @p. With an ACK, its sequence number is what the sender waits for; without, what
 * acknowledges all of the segment convinces the sender that the answer is to it.
 */
static void write_rst(struct pkt *p)
{
	const uint32_t header = (uint32_t)(p->l4[TCP_OFF] >> 4) * 4;
	const uint32_t seg_len = p->l4_len - header + !!(p->tcp_flags & TCP_SYN) + !!(p->tcp_flags & TCP_FIN);
	const uint32_t seg_seq = be32_host(be32_load(p->l4 + TCP_SEQ));
	const be32 seg_ack = be32_load(p->l4 + TCP_ACK);
	uint8_t *ip = p->ip, *tcp = ip + IPV4_LEN;

	memset(ip, 0, RST_LEN);
	ip[0] = 0x45;
	be16_store(ip + IP_TOTAL, be16_of(RST_LEN));
	be16_store(ip + IP_FRAG, be16_of(IP_DF));
	ip[IP_TTL] = RST_TTL;
	ip[IP_PROTO] = IPPROTO_NUM_TCP;
	be32_store(ip + IP_SRC, p->dst);
	be32_store(ip + IP_DST, p->src);
	be16_store(ip + IP_CSUM, (be16){ (uint16_t)~csum_fold(csum_sum(ip, IPV4_LEN)) });
	be16_store(tcp + L4_SPORT, p->dport);
	be16_store(tcp + L4_DPORT, p->sport);
	tcp[TCP_OFF] = TCP_LEN / 4 << 4;
	if (p->tcp_flags & TCP_ACK_FLAG) {
		be32_store(tcp + TCP_SEQ, seg_ack);
		tcp[TCP_FLAGS] = TCP_RST;
	} else {
		be32_store(tcp + TCP_ACK, be32_of(seg_seq + seg_len));
		tcp[TCP_FLAGS] = TCP_RST | TCP_ACK_FLAG;
	}
	be16_store(tcp + TCP_CSUM,
		   (be16){ (uint16_t)~csum_fold(csum_sum(tcp, TCP_LEN) +
						csum_pseudo_v4(p->dst, p->src, IPPROTO_NUM_TCP, TCP_LEN)) });
	p->frame->len = ETH_LEN + RST_LEN;
	p->frame->vnet = (struct fp_vnet){ 0 };
}

uint32_t reject_packet(struct core *c, struct pkt *p)
{
	struct nexthop back;

	if (p->proto != IPPROTO_NUM_TCP)
		return icmp_prohibit(c, p);
	if (p->tcp_flags & TCP_RST || !icmp_may_answer(c, p, &back))
		return V_RULE_DENIED;
	if (!icmp_take_token(c, p))
		return V_ICMP_LIMITED;
	write_rst(p);
	return nexthop_send(c, p->frame, &back, V_REJECTED_RST);
}
