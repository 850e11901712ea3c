/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pkt.h - headers: where they are in a frame, and what was found to be sound
 *
 * pkt_parse_*() look at raw lengths; whoever comes later uses only struct pkt, whose pointers are known to
 * have the bytes that their comments promise.
 */
#ifndef PKT_H
#define PKT_H

#include "base.h"
#include "csum.h"
#include "flow.h"
#include "verdict.h"

enum {
	ETH_LEN = 14,
	ETH_ALEN = 6,
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_ARP = 0x0806,
	ETHERTYPE_IPV6 = 0x86dd,
	IPV4_LEN = 20,
	TCP_LEN = 20,
	UDP_LEN = 8,
	ICMP_LEN = 8,
	IPPROTO_NUM_ICMP = 1,
	IPPROTO_NUM_TCP = 6,
	IPPROTO_NUM_UDP = 17,
	IPPROTO_NUM_VRRP = 112,
	ICMP_ECHO_REPLY = 0,
	ICMP_UNREACHABLE = 3,
	ICMP_ECHO_REQUEST = 8,
	ICMP_TIME_EXCEEDED = 11,
	ICMP_PARAMETER_PROBLEM = 12
};

enum { IP_DF = 0x4000, IP_MF = 0x2000, IP_OFFSET = 0x1fff }; /* of the word at IP_FRAG */

/* Offsets within the headers. */
enum {
	ETH_DST = 0,
	ETH_SRC = 6,
	ETH_TYPE = 12,
	IP_TOTAL = 2,
	IP_ID = 4,
	IP_FRAG = 6,
	IP_TTL = 8,
	IP_PROTO = 9,
	IP_CSUM = 10,
	IP_SRC = 12,
	IP_DST = 16,
	L4_SPORT = 0,
	L4_DPORT = 2,
	TCP_SEQ = 4,
	TCP_ACK = 8,
	TCP_OFF = 12,
	TCP_FLAGS = 13,
	TCP_WINDOW = 14,
	TCP_CSUM = 16,
	UDP_LENGTH = 4,
	UDP_CSUM = 6,
	ICMP_TYPE = 0,
	ICMP_CODE = 1,
	ICMP_CSUM = 2,
	ICMP_ID = 4
};

enum tcp_flag { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK_FLAG = 16, TCP_CWR = 128 };

/**
 * struct pkt - An IPv4 packet, parsed
 * @frame:     the frame it came in
 * @ip:        IPv4 header, @l4 - @ip bytes of it
 * @l4:        what follows: @l4_len bytes, all within the frame
 * @ip_len:    total length of the IP packet
 * @l4_len:    without link padding
 * @src:       source address
 * @dst:       destination address
 * @sport:     after pkt_parse_l4(): source port; ICMP echo: the identifier
 * @dport:     after pkt_parse_l4(): destination port; ICMP echo: the identifier
 * @proto:     IANA
 * @tcp_flags: after pkt_parse_l4()
 * @icmp_type: after pkt_parse_l4(); 0 in other protocols
 * @options:   there are IP options
 * @fragment:  a fragment, the first one included
 * @later:     a fragment, not the first: @l4 is no header
 * @key:       what the index is asked for (step.c)
 * @hash:      of @key (step.c)
 * @entry:     guess of the record (step.c)
 */
struct pkt {
	struct fp_frame *frame;
	uint8_t *ip;
	uint8_t *l4;
	uint16_t ip_len, l4_len;
	be32 src, dst;
	be16 sport, dport;
	uint8_t proto, tcp_flags, icmp_type;
	bool options, fragment, later;
	struct flow_key key;
	uint64_t hash;
	uint32_t entry;
};

/* pkt_odd_header() - Length of a header with another first byte than that of one without options; 0: malformed */
COLD uint32_t pkt_odd_header(uint8_t first);

/* pkt_vnet_agrees() - What the driver says of the checksum and of segments must be about this very header */
bool pkt_vnet_agrees(const struct pkt *p, uint32_t header, uint32_t csum_offset, uint32_t gso_type);

/* pkt_parse_other() - pkt_parse_l4() of what is neither TCP nor UDP, or a later fragment */
uint32_t pkt_parse_other(struct pkt *p);

/**
 * pkt_parse_ip() - Check the IPv4 header of a frame, its checksum included
 * Return: V_GO_ON, or why not.
 */
static HOT uint32_t pkt_parse_ip(struct pkt *p, struct fp_frame *frame)
{
	uint32_t room = frame->len - ETH_LEN, ihl = IPV4_LEN, ip_len;
	uint8_t *ip = frame->data + ETH_LEN;
	uint16_t frag;

	if (frame->len < ETH_LEN + IPV4_LEN)
		return V_IP_MALFORMED;
	if (unlikely(ip[0] != 0x45))
		ihl = pkt_odd_header(ip[0]);
	ip_len = be16_host(be16_load(ip + IP_TOTAL));
	if (unlikely(ihl == 0 || ihl > ip_len || ip_len > room))
		return V_IP_MALFORMED;
	if (unlikely(csum_fold(csum_ipv4_header(ip, ihl)) != 0xffff))
		return V_IP_CHECKSUM;
	frag = be16_host(be16_load(ip + IP_FRAG));
	p->frame = frame;
	p->ip = ip;
	p->l4 = ip + ihl;
	p->ip_len = (uint16_t)ip_len;
	p->l4_len = (uint16_t)(ip_len - ihl);
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

/*
 * TCP and UDP at once, without a branch between them: which of the two comes next, nobody can predict. Both say
 * a length in one 16-bit word: TCP that of its header, whose flags are in the same word; UDP that of all.
 */
static HOT uint32_t pkt_parse_ports(struct pkt *p)
{
	const uint32_t tcp = 0u - (p->proto == IPPROTO_NUM_TCP); /* all ones, or none */
	const uint32_t least = UDP_LEN + (tcp & (TCP_LEN - UDP_LEN));
	uint32_t word, said;

	if (unlikely(p->l4_len < least))
		return V_L4_MALFORMED;
	word = be16_host(be16_load(p->l4 + UDP_LENGTH + (tcp & (TCP_OFF - UDP_LENGTH))));
	said = (tcp & (word >> 12) * 4) | (~tcp & word);
	/* Of a datagram in fragments the first one has its TCP header, but not all that UDP speaks of. */
	if (unlikely(said < least || (said > p->l4_len && (tcp || !p->fragment))))
		return V_L4_MALFORMED;
	if (p->frame->vnet.flags | p->frame->vnet.gso_type &&
	    !pkt_vnet_agrees(p, UDP_LEN + (tcp & (said - UDP_LEN)), UDP_CSUM + (tcp & (TCP_CSUM - UDP_CSUM)),
			     tcp ? FP_GSO_TCPV4 : FP_GSO_UDP_L4))
		return V_VNET_MALFORMED;
	p->tcp_flags = (uint8_t)(tcp & word);
	p->sport = be16_load(p->l4 + L4_SPORT);
	p->dport = be16_load(p->l4 + L4_DPORT);
	return likely(p->sport.raw && p->dport.raw) ? V_GO_ON : V_L4_MALFORMED;
}

/**
 * pkt_parse_l4() - Check the TCP, UDP or ICMP header, and that .vnet agrees with it; not their checksums
 *
 * Of other protocols the length is checked; their ports are 0.
 *
 * A first fragment has its header and not all of what the header speaks of. A later one has none: it gets what
 * the first said, from the frame (.l4_*), and the flags of a mere ACK.
 * Return: V_GO_ON, or why not.
 */
static HOT uint32_t pkt_parse_l4(struct pkt *p)
{
	const uint64_t with_ports = UINT64_C(1) << IPPROTO_NUM_TCP | UINT64_C(1) << IPPROTO_NUM_UDP;

	if (likely(p->proto < 64 && (with_ports >> p->proto & 1) && !p->later))
		return pkt_parse_ports(p);
	return pkt_parse_other(p);
}

/**
 * pkt_l4_csum_ok() - Verify the TCP, UDP or ICMP checksum over the whole packet
 *
 * UDP without a checksum is fine, as are other protocols; so is what never was on a wire (NEEDS_CSUM), or was
 * verified (DATA_VALID); a fragment's is about the whole datagram, and cannot be verified.
 */
bool pkt_l4_csum_ok(const struct pkt *p);

/* What complains about another packet. Source Quench is not among them: nobody may act on it (RFC 6633). */
static inline bool pkt_is_icmp_error(const struct pkt *p)
{
	return p->icmp_type == ICMP_UNREACHABLE || p->icmp_type == ICMP_TIME_EXCEEDED ||
	       p->icmp_type == ICMP_PARAMETER_PROBLEM;
}

static inline bool mac_eq(const uint8_t *a, const uint8_t *b)
{
	return be32_load(a).raw == be32_load(b).raw && be16_load(a + 4).raw == be16_load(b + 4).raw;
}

/* The six bytes as a number: one comparison. */
static inline uint64_t mac_word(const uint8_t *mac)
{
	return be32_load(mac).raw | (uint64_t)be16_load(mac + 4).raw << 32;
}

static inline bool mac_is_zero(const uint8_t *mac)
{
	return !be32_load(mac).raw && !be16_load(mac + 4).raw;
}

static inline bool mac_is_group(const uint8_t *mac)
{
	return mac[0] & 1;
}

#endif /* PKT_H */
