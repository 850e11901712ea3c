/* SPDX-License-Identifier: Apache-2.0 */
/**
 * conduit.h - packets between the nodes: what lands on the one that is not ACTIVE goes to the one that is
 *
 * DOC: Theory of Operation
 *
 * A host may send to the MAC address of either node: it has learned that of a port, or a router balances over both.
 * Whoever is not ACTIVE hands such a packet over as it came, Ethernet header included, before it looks at any
 * session: ACTIVE takes it as if its own wire of that port had brought it. Nothing enters the conduit twice: what
 * came by it and finds no ACTIVE node at the end is dropped.
 *
 * The other way round, ACTIVE whose port is down sends by the peer's port of the same number (FP_WAY_PEER): all is done
 * but the Ethernet header, which the peer makes, from its own routes and neighbours and in its own name. ACTIVE
 * looks at its fence before, and the peer at the term; the peer takes it only while it is not ACTIVE itself.
 *
 * On the cross-connect this is Geneve (RFC 8926) over UDP:
 *
 *   bytes   header                                  bytes   option
 *   0       Ver 0, option length 3 words            8..9    class 0xFFF7 (experimental)
 *   1       O 0, C 1                                10      type 0x81: critical
 *   2..3    0x6558: an Ethernet frame               11      length 2 words
 *   4..6    VNI: low 24 bits of the pair's id       12      direction: 0 to ACTIVE, 1 from ACTIVE
 *   7       reserved                                13      port: rank of its name, the same on both nodes
 *                                                   14      shard
 *                                                   15      flags: 1 = fragment
 *                                                   16..19  term of the reign, its low 32 bits
 *
 * The option is critical because the frame means nothing without it: whoever does not know it must drop the packet
 * (RFC 8926 section 3.5). The shard is found from the packet alone, without a look at the table, and steers it to
 * the worker that owns its session on the other node: by the UDP source port, which is the shard's, and by the
 * byte in the option. Should the receiver find another owner it hands the packet on.
 *
 * Term and role are the fence of the conduit: what was sent in another reign is dropped. Nothing is authenticated
 * but by the wire: the cross-connect's address, TTL 255 (RFC 5082), and the MAC addresses of two ends of a cable.
 */
#ifndef CONDUIT_H
#define CONDUIT_H

#include "pkt.h"
#include "step.h"

enum {
	GENEVE_LEN = 8,
	CONDUIT_LEN = 20, /* Geneve header and option */
	CONDUIT_SHARD_AT = 14,
	CONDUIT_TTL = 255,
	CONDUIT_SPORT = 61440 /* UDP source port of shard 0; above what Linux gives away by itself */
};

/*
 * What a worker is told, as one word: on or off (bit 63), in whose term (31..0), and a bit for each port that is
 *   39..32  taken:    what is sent to its virtual MAC goes to the peer, too
 *   47..40  borrowed: we answer ARP for its virtual addresses, for the peer, which has lent it
 *   55..48  lent:     ACTIVE is silent there, since the peer speaks; and once it has handed its role over, what waits
 *                     here of that port goes back by the conduit, since there is no wire
 */
#define CONDUIT_OFF UINT64_C(0)

static inline uint64_t conduit_orders(bool on, uint64_t term, uint32_t vmac_ports, uint32_t borrowed,
				      uint32_t lent)
{
	return (uint64_t)(lent & 0xff) << 48 |
	       (on ? UINT64_C(1) << 63 | (uint64_t)(borrowed & 0xff) << 40 |
				(uint64_t)(vmac_ports & 0xff) << 32 | (uint32_t)term
		   : 0);
}

static inline bool conduit_is_on(uint64_t orders)
{
	return orders >> 63;
}

/* conduit_takes_vmac() - Does what is sent to the virtual MAC of a port go to the peer? */
static inline bool conduit_takes_vmac(uint64_t orders, uint32_t port)
{
	return orders >> (32 + port) & 1;
}

static inline bool conduit_borrows(uint64_t orders, uint32_t port)
{
	return orders >> (40 + port) & 1;
}

static inline bool conduit_lends(uint64_t orders, uint32_t port)
{
	return orders >> (48 + port) & 1;
}

/**
 * conduit_to_active() - A packet to be routed has come to a node that is not ACTIVE
 * @p: after pkt_parse_ip()
 * Return: V_CONDUIT_TO, and .out and .owner (the shard) are set; V_NOT_ACTIVE while the conduit is off.
 */
COLD uint32_t conduit_to_active(struct core *c, struct pkt *p);

/**
 * conduit_from_active() - A packet that is done leaves by the peer's port
 * Return: V_CONDUIT_OUT.
 */
COLD uint32_t conduit_from_active(const struct core *c, struct fp_frame *frame, uint32_t port);

/**
 * conduit_send_for_active() - A frame with FP_SRC_ACTIVE: to the wire
 * @p: after pkt_parse_ip()
 * Return: V_CONDUIT_FROM; or why not.
 */
COLD uint32_t conduit_send_for_active(struct core *c, const struct pkt *p);

/**
 * conduit_header() - What precedes a frame with FP_OUT_CONDUIT on the cross-connect
 * @frame: one frame as on a wire
 */
void conduit_header(const struct core *c, const struct fp_frame *frame, uint8_t out[CONDUIT_LEN]);

/**
 * conduit_take() - What came by the cross-connect, UDP header taken off
 * @packet: as long as @len says
 * @from:   UDP source port
 * @frame:  .data has FP_FRAME_MAX bytes of room; filled in as from rx
 *
 * Return: V_GO_ON: step it; or why it is dropped, which nobody has counted yet.
 */
uint32_t conduit_take(const struct core *c, const uint8_t *packet, uint32_t len, uint32_t from,
		      struct fp_frame *frame);

#endif /* CONDUIT_H */
