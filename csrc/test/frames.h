/* SPDX-License-Identifier: Apache-2.0 */
/**
 * frames.h - a small network to test on, and frames of it
 *
 *   client 198.51.100.10 -- lan, port 0, VIP .1 [node] wan, port 1, VIP 203.0.113.3 -- isp .1 -- server
 */
#ifndef FRAMES_H
#define FRAMES_H

#include "../csum.h"
#include "../fib.h"
#include "../pkt.h"
#include "../step.h"

enum { LAN, WAN, N_PORTS };

/* For static initialisers, which be32_of() is not allowed in. */
#define IP4_INIT(a, b, c, d) { (uint32_t)(d) << 24 | (c) << 16 | (b) << 8 | (a) }
#define IP4(a, b, c, d)      be32_of((uint32_t)(a) << 24 | (b) << 16 | (c) << 8 | (d))
#define CLIENT               IP4(198, 51, 100, 10)
#define CLIENT2              IP4(198, 51, 100, 11)
#define LAN_VIP              IP4(198, 51, 100, 1)
#define LAN_SELF             IP4(198, 51, 100, 2)
#define LAN_PEER             IP4(198, 51, 100, 3)
#define WAN_VIP              IP4(203, 0, 113, 3)
#define WAN_SELF             IP4(203, 0, 113, 4)
#define ISP                  IP4(203, 0, 113, 1)
#define SERVER               IP4(192, 0, 2, 10)

static const uint8_t mac_client[6] = { 2, 0, 0, 0, 0, 0x10 };
static const uint8_t mac_isp[6] = { 2, 0, 0, 0, 0, 0x20 };
static const uint8_t mac_peer[6] = { 2, 0, 0, 0, 0, 0x30 };
static const uint8_t mac_stranger[6] = { 2, 0, 0, 0, 0, 0x40 };
static const uint8_t mac_self[N_PORTS][6] = { { 2, 0, 0, 0, 1, 0 }, { 2, 0, 0, 0, 1, 1 } };
static const uint8_t mac_virtual[N_PORTS][6] = { { 0, 0, 0x5e, 0, 1, 10 }, { 0, 0, 0x5e, 0, 1, 20 } };
static const uint8_t mac_broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
static const uint8_t mac_vrrp[6] = { 1, 0, 0x5e, 0, 0, 18 };

/**
 * frames_config() - A node of one LAN and one WAN port
 */
static inline struct fp_config frames_config(uint32_t n_workers, uint32_t flow_cap)
{
	struct fp_config cfg = {
		.abi_version = FP_ABI_VERSION,
		.n_workers = n_workers,
		.n_ports = N_PORTS,
		.n_pools = 1,
		.flow_cap = flow_cap,
		.syn_check = 1,
		.tcp_strict = 1,
		.tcp_lenient_s = 30,
		.origin = 1,
		.shard_key = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
		.table_key = { 9, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8 },
		.flow_id_base = 1000,
		.sync = { .lazy_ms = 100, .refresh_s = 30 },
		.timeouts = { .tcp_transitory_s = 240,
			      .tcp_established_s = 7440,
			      .tcp_closing_s = 240,
			      .udp_s = 300,
			      .icmp_s = 60 },
		.pulse = { .udp_port = 47850, .mac_key = { 1 } },
		.ports = {
			{ .name = "lan", .zone = FP_ZONE_INSIDE, .mtu = 1500, .plen = 24, .n_vips = 1,
			  .vrid = 10, .addr = addr_from_v4(LAN_SELF), .peer_addr = addr_from_v4(LAN_PEER),
			  .vip = { addr_from_v4(LAN_VIP) } },
			{ .name = "wan", .zone = FP_ZONE_OUTSIDE, .mtu = 1500, .plen = 29, .n_vips = 1,
			  .vrid = 20, .addr = addr_from_v4(WAN_SELF), .vip = { addr_from_v4(WAN_VIP) } },
		},
		.pools = { { .name = "vip", .addr = addr_from_v4(WAN_VIP), .port_lo = 1024, .port_hi = 65535,
			     .out_port = WAN, .filtering = FP_FILTER_APDF, .survives = 1 } },
	};

	for (uint32_t i = 0; i < N_PORTS; i++) {
		memcpy(cfg.ports[i].mac, mac_self[i], 6);
		memcpy(cfg.ports[i].vmac, mac_virtual[i], 6);
	}
	memcpy(cfg.ports[LAN].peer_mac, mac_peer, 6);
	return cfg;
}

static inline struct fp_route frames_route(be32 prefix, uint8_t plen, be32 gateway, uint8_t port)
{
	struct fp_route r = { .prefix = addr_from_v4(prefix), .plen = (uint8_t)(96 + plen), .port = port };

	if (gateway.raw)
		r.gateway = addr_from_v4(gateway);
	return r;
}

static inline struct fp_neigh frames_neigh(be32 addr, const uint8_t *mac, uint8_t port)
{
	struct fp_neigh n = { .addr = addr_from_v4(addr), .port = port };

	memcpy(n.mac, mac, 6);
	return n;
}

/**
 * frames_fib() - LAN and WAN on link, a default route; both neighbours, or none
 */
static inline struct fib *frames_fib(uint32_t generation, bool neighbours)
{
	const struct fp_route routes[] = {
		frames_route(IP4(0, 0, 0, 0), 0, ISP, WAN),
		frames_route(IP4(198, 51, 100, 0), 24, IP4(0, 0, 0, 0), LAN),
		frames_route(IP4(203, 0, 113, 0), 29, IP4(0, 0, 0, 0), WAN),
	};
	const struct fp_neigh neighs[] = {
		frames_neigh(CLIENT, mac_client, LAN),
		frames_neigh(CLIENT2, mac_client, LAN),
		frames_neigh(ISP, mac_isp, WAN),
	};
	size_t size = fib_mem_size(ARRAY_SIZE(routes), ARRAY_SIZE(neighs));
	void *mem = aligned_alloc(CACHE_LINE, size);

	FP_ASSERT(mem);
	return fib_build(mem, generation, routes, ARRAY_SIZE(routes), neighs,
			 neighbours ? ARRAY_SIZE(neighs) : 0);
}

/**
 * struct spec - A packet in words
 * @src:       source address
 * @dst:       destination address
 * @proto:     IPPROTO_NUM_*; anything else gets no L4 header
 * @sport:     host order; ICMP: the identifier
 * @dport:     host order
 * @tcp_flags: TCP_*
 * @type:      ICMP type
 * @ttl:       0 = 64
 * @frag:      flags and offset of the IP header
 * @window:    TCP; 0 = 1000
 * @seq:       TCP
 * @ack:       TCP
 * @payload:   bytes after the L4 header
 */
struct spec {
	be32 src, dst;
	uint8_t proto;
	uint16_t sport, dport;
	uint8_t tcp_flags, type, ttl;
	uint16_t frag;
	uint16_t window;
	uint32_t seq, ack;
	uint32_t payload;
};

static inline void frames_fix_ip_csum(uint8_t *ip)
{
	be16_store(ip + IP_CSUM, be16_of(0));
	be16_store(ip + IP_CSUM, (be16){ (uint16_t)~csum_fold(csum_sum(ip, (uint32_t)(ip[0] & 0xf) * 4)) });
}

static inline uint32_t frames_l4(uint8_t *l4, const struct spec *s)
{
	switch (s->proto) {
	case IPPROTO_NUM_TCP:
		be16_store(l4 + L4_SPORT, be16_of(s->sport));
		be16_store(l4 + L4_DPORT, be16_of(s->dport));
		be32_store(l4 + TCP_SEQ, be32_of(s->seq));
		be32_store(l4 + TCP_ACK, be32_of(s->ack));
		l4[TCP_OFF] = 5 << 4;
		l4[TCP_FLAGS] = s->tcp_flags;
		be16_store(l4 + TCP_WINDOW, be16_of(s->window ? s->window : 1000));
		return TCP_LEN;
	case IPPROTO_NUM_UDP:
		be16_store(l4 + L4_SPORT, be16_of(s->sport));
		be16_store(l4 + L4_DPORT, be16_of(s->dport));
		be16_store(l4 + UDP_LENGTH, be16_of((uint16_t)(UDP_LEN + s->payload)));
		return UDP_LEN;
	case IPPROTO_NUM_ICMP:
		l4[ICMP_TYPE] = s->type;
		be16_store(l4 + ICMP_ID, be16_of(s->sport));
		return ICMP_LEN;
	default: return 0;
	}
}

static inline void frames_fix_l4_csum(uint8_t *ip, uint32_t l4_len)
{
	uint8_t *l4 = ip + IPV4_LEN;
	uint64_t pseudo = csum_pseudo_v4(be32_load(ip + IP_SRC), be32_load(ip + IP_DST), ip[IP_PROTO],
					 (uint16_t)l4_len);
	uint32_t at = ip[IP_PROTO] == IPPROTO_NUM_TCP   ? TCP_CSUM
		      : ip[IP_PROTO] == IPPROTO_NUM_UDP ? UDP_CSUM
							: ICMP_CSUM;
	be16 sum;

	if (ip[IP_PROTO] == IPPROTO_NUM_ICMP)
		pseudo = 0;
	be16_store(l4 + at, be16_of(0));
	sum.raw = (uint16_t)~csum_fold(csum_sum(l4, l4_len) + pseudo);
	if (ip[IP_PROTO] == IPPROTO_NUM_UDP && !sum.raw)
		sum.raw = 0xffff;
	be16_store(l4 + at, sum);
}

/**
 * frames_ipv4() - Build a frame from the wire of @port
 * @data: FP_FRAME_MAX bytes
 */
static inline struct fp_frame frames_ipv4(uint8_t *data, uint8_t port, const uint8_t *dst_mac,
					  const struct spec *s)
{
	uint8_t *ip = data + ETH_LEN, *l4 = ip + IPV4_LEN;
	uint32_t l4_len;

	memset(data, 0, FP_FRAME_MAX);
	memcpy(data + ETH_DST, dst_mac, 6);
	memcpy(data + ETH_SRC, port == LAN ? mac_client : mac_isp, 6);
	be16_store(data + ETH_TYPE, be16_of(ETHERTYPE_IPV4));
	l4_len = frames_l4(l4, s);
	for (uint32_t i = 0; i < s->payload; i++)
		l4[l4_len + i] = (uint8_t)(i * 7 + 1);
	l4_len += s->payload;
	ip[0] = 0x45;
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)(IPV4_LEN + l4_len)));
	be16_store(ip + IP_FRAG, be16_of(s->frag));
	ip[IP_TTL] = s->ttl ? s->ttl : 64;
	ip[IP_PROTO] = s->proto;
	be32_store(ip + IP_SRC, s->src);
	be32_store(ip + IP_DST, s->dst);
	frames_fix_ip_csum(ip);
	if (s->proto == IPPROTO_NUM_TCP || s->proto == IPPROTO_NUM_UDP || s->proto == IPPROTO_NUM_ICMP)
		frames_fix_l4_csum(ip, l4_len);
	return (struct fp_frame){
		.data = data, .len = ETH_LEN + IPV4_LEN + l4_len, .port = port, .src = FP_SRC_WIRE
	};
}

/**
 * frames_arp() - An ARP frame from the wire of @port
 */
static inline struct fp_frame frames_arp(uint8_t *data, uint8_t port, const uint8_t *dst_mac, uint16_t op,
					 be32 sender, be32 target)
{
	static const uint8_t head[6] = { 0, 1, 8, 0, 6, 4 };
	uint8_t *arp = data + ETH_LEN;

	memset(data, 0, FP_FRAME_MAX);
	memcpy(data + ETH_DST, dst_mac, 6);
	memcpy(data + ETH_SRC, mac_client, 6);
	be16_store(data + ETH_TYPE, be16_of(ETHERTYPE_ARP));
	memcpy(arp, head, sizeof(head));
	be16_store(arp + 6, be16_of(op));
	memcpy(arp + 8, mac_client, 6);
	be32_store(arp + 14, sender);
	be32_store(arp + 24, target);
	return (struct fp_frame){ .data = data, .len = ETH_LEN + 28, .port = port, .src = FP_SRC_WIRE };
}

/* All checksums of an IPv4 frame are right. */
static inline bool frames_csums_ok(struct fp_frame *f)
{
	struct pkt p;

	return pkt_parse_ip(&p, f) == V_GO_ON && pkt_parse_l4(&p) == V_GO_ON && pkt_l4_csum_ok(&p);
}

#endif /* FRAMES_H */
