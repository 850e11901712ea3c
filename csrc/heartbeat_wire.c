/* SPDX-License-Identifier: Apache-2.0 */
/**
 * heartbeat_wire.c - heartbeats to bytes and back
 */
#include "csum.h"
#include "fence.h"
#include "heartbeat_wire.h"
#include "pkt.h"
#include "siphash.h"

static_assert(HB_FRAME_LEN == ETH_LEN + IPV4_LEN + UDP_LEN + HB_LEN, "no options anywhere");
static_assert(HB_MAC_AT + sizeof(uint64_t) == HB_LEN_LEAST, "the first MAC ends what all versions have");
static_assert(HB_MAC_ALL_AT + sizeof(uint64_t) == HB_LEN, "the second MAC stands last");
static_assert(FP_PATHS_MAX <= UINT8_MAX, "a path's number is one byte under the MAC");

static void put32(uint8_t *p, uint32_t v)
{
	be32_store(p, be32_of(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

static uint32_t get32(const uint8_t *p)
{
	return be32_host(be32_load(p));
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static const uint8_t hb_magic[4] = { 'F', 'X', 'H', 'B' };

/* Of the first @n bytes and the path. */
static uint64_t mac_of(const uint8_t *payload, uint32_t n, const uint8_t *key, uint32_t path)
{
	uint8_t covered[HB_MAC_ALL_AT + 1];

	memcpy(covered, payload, n);
	covered[n] = (uint8_t)path;
	return siphash24(key, covered, n + 1);
}

void heartbeat_encode(const struct heartbeat *hb, const uint8_t *key, uint32_t path, uint8_t *out)
{
	memcpy(out, hb_magic, sizeof(hb_magic));
	out[4] = HB_VERSION;
	out[5] = hb->node_index;
	out[6] = hb->role;
	out[7] = hb->flags;
	put32(out + 8, hb->pair_id);
	put32(out + 12, hb->interval_ms);
	put64(out + 16, hb->incarnation);
	put64(out + 24, hb->term);
	put64(out + 32, hb->seq);
	put32(out + 40, hb->priority);
	put32(out + 44, hb->control_beat);
	put64(out + 48, hb->t_ns);
	put64(out + 56, hb->echo);
	put64(out + HB_MAC_AT, mac_of(out, HB_MAC_AT, key, path));
	put64(out + 72, hb->answers);
	put64(out + 80, hb->heard);
	put64(out + HB_MAC_ALL_AT, mac_of(out, HB_MAC_ALL_AT, key, path));
}

/* Does the MAC behind the first @n bytes fit? */
static bool is_signed(const uint8_t *payload, uint32_t n, const struct heartbeat_keys *keys, uint32_t path)
{
	const uint64_t mac = get64(payload + n);

	for (uint32_t i = 0; i < keys->n; i++) {
		if (mac_of(payload, n, keys->key[i], path) == mac)
			return true;
	}
	return false;
}

bool heartbeat_decode(const uint8_t *payload, uint32_t len, const struct heartbeat_keys *keys, uint32_t path,
		      struct heartbeat *hb)
{
	const bool extended = len >= HB_LEN;

	if (len < HB_LEN_LEAST || !is_signed(payload, HB_MAC_AT, keys, path) ||
	    (extended && !is_signed(payload, HB_MAC_ALL_AT, keys, path)))
		return false;
	if (memcmp(payload, hb_magic, sizeof(hb_magic)) != 0 || payload[4] != HB_VERSION)
		return false;
	*hb = (struct heartbeat){
		.node_index = payload[5],
		.role = payload[6],
		.flags = payload[7],
		.pair_id = get32(payload + 8),
		.interval_ms = get32(payload + 12),
		.incarnation = get64(payload + 16),
		.term = get64(payload + 24),
		.seq = get64(payload + 32),
		.priority = get32(payload + 40),
		.control_beat = get32(payload + 44),
		.t_ns = get64(payload + 48),
		.echo = get64(payload + 56),
		.answers = extended ? get64(payload + 72) : 0,
		.heard = extended ? get64(payload + 80) : 0,
		.extended = extended,
	};
	return hb->role <= FP_ROLE_FAULT && hb->interval_ms != 0 && hb->term <= TERM_MAX;
}

void heartbeat_frame(const struct fp_port_cfg *port, uint16_t udp_port, const uint8_t *payload,
		     uint8_t *frame)
{
	uint8_t *ip = frame + ETH_LEN;
	uint8_t *udp = ip + IPV4_LEN;
	const uint16_t udp_len = UDP_LEN + HB_LEN;
	const be32 src = addr_v4(&port->addr), dst = addr_v4(&port->peer_addr);
	uint16_t csum;

	memcpy(frame + ETH_DST, port->peer_mac, ETH_ALEN);
	memcpy(frame + ETH_SRC, port->mac, ETH_ALEN);
	be16_store(frame + ETH_TYPE, be16_of(ETHERTYPE_IPV4));
	memset(ip, 0, IPV4_LEN);
	ip[0] = 0x45; /* version 4, five words */
	ip[1] = HB_DSCP_TOS;
	be16_store(ip + IP_TOTAL, be16_of(IPV4_LEN + udp_len));
	be16_store(ip + IP_FRAG, be16_of(0x4000)); /* don't fragment */
	ip[IP_TTL] = HB_TTL;
	ip[IP_PROTO] = IPPROTO_NUM_UDP;
	be32_store(ip + IP_SRC, src);
	be32_store(ip + IP_DST, dst);
	be16_store(ip + IP_CSUM, (be16){ (uint16_t)~csum_fold(csum_sum(ip, IPV4_LEN)) });
	be16_store(udp + L4_SPORT, be16_of(udp_port));
	be16_store(udp + L4_DPORT, be16_of(udp_port));
	be16_store(udp + UDP_LENGTH, be16_of(udp_len));
	be16_store(udp + UDP_CSUM, be16_of(0));
	memcpy(udp + UDP_LEN, payload, HB_LEN);
	csum = (uint16_t)~csum_fold(csum_pseudo_v4(src, dst, IPPROTO_NUM_UDP, udp_len) +
				    csum_sum(udp, udp_len));
	be16_store(udp + UDP_CSUM, (be16){ csum ? csum : 0xffff }); /* RFC 768: zero would mean "none" */
}
