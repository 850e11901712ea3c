/* SPDX-License-Identifier: Apache-2.0 */
/**
 * heartbeat_wire.h - layout of a heartbeat: the payload of one UDP datagram, all in network order
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +---------------+---------------+---------------+---------------+
 * 0 |                        magic "FXHB"                           |
 *   +---------------+---------------+---------------+---------------+
 * 4 |  version = 2  |  node index   |     role      |     flags     |
 *   +---------------+---------------+---------------+---------------+
 * 8 |                           pair_id                             |
 *   +---------------------------------------------------------------+
 * 12|                         interval_ms                           |
 *   +---------------------------------------------------------------+
 * 16|                      incarnation (64 bits)                    |
 * 24|                         term (64 bits)                        |
 * 32|               seq (64 bits): per path, from 1                 |
 *   +---------------------------------------------------------------+
 * 40|                          priority                             |
 *   +---------------------------------------------------------------+
 * 44|                        control_beat                           |
 *   +---------------------------------------------------------------+
 * 48|        t_ns (64 bits): CLOCK_BOOTTIME of the sender           |
 * 56|        echo (64 bits): incarnation of the peer, as heard      |
 * 64|        MAC (64 bits): SipHash-2-4                             |
 *   +---------------------------------------------------------------+
 * 72|        answers (64 bits): t_ns of the newest probe of the     |
 *   |        peer that was heard on any path; 0: none               |
 * 80|        heard (64 bits): t_ns of the newest heartbeat of the   |
 *   |        peer that was heard on any path; 0: it is silent       |
 * 88|        MAC of all that stands before it                       |
 *   +---------------------------------------------------------------+
 *
 * The echo is what makes a heartbeat new to its receiver: nobody could have said, before the receiver started,
 * which incarnation it would have (pulse.h).
 *
 * The MAC is that of the 64 bytes before it and of one more, the number of the path (0 = xc, 1 + i = port i,
 * the same on both nodes): what was recorded on one path is worth nothing on another.
 *
 * What stands behind byte 72 came later, under a MAC of its own (of the 88 bytes before it, and the path's number): a
 * peer of an older version says and reads the first 72 bytes only. A longer payload of the same version is
 * accepted, and what follows is ignored. flexha/core/heartbeat_wire.py says the same in Python; a unit test holds
 * both together.
 */
#ifndef HEARTBEAT_WIRE_H
#define HEARTBEAT_WIRE_H

#include "base.h"
#include "siphash.h"

enum {
	HB_VERSION = 2,
	HB_MAC_AT = 64,
	HB_LEN_LEAST = 72,
	HB_MAC_ALL_AT = 88,
	HB_LEN = 96,
	HB_FRAME_LEN = 14 + 20 + 8 + HB_LEN, /* with Ethernet, IPv4 and UDP headers */
	HB_TTL = 255,                        /* a heartbeat is never routed: GTSM, RFC 5082 */
	HB_DSCP_TOS = 0xc0                   /* CS6, network control: RFC 4594 §3.1 */
};

struct heartbeat {
	uint8_t node_index;
	uint8_t role;
	uint8_t flags;
	uint32_t pair_id;
	uint32_t interval_ms;
	uint32_t priority;
	uint32_t control_beat;
	uint64_t incarnation;
	uint64_t term;
	uint64_t seq;
	uint64_t t_ns;
	uint64_t echo;
	uint64_t answers; /* 0: none, or a peer of an older version */
	uint64_t heard;   /* 0: nothing that would be no silence, or a peer of an older version */
	bool extended;    /* read: it has what stands behind byte 72 */
};

/**
 * struct heartbeat_keys - Keys of the MAC: the first signs, all are believed
 */
struct heartbeat_keys {
	uint8_t key[FP_PULSE_KEYS_MAX][SIPHASH_KEY_LEN];
	uint32_t n;
};

/**
 * heartbeat_encode() - Write and authenticate the heartbeat that leaves by a path
 * @key: 16 bytes
 * @out: HB_LEN bytes
 */
void heartbeat_encode(const struct heartbeat *hb, const uint8_t *key, uint32_t path, uint8_t *out);

/**
 * heartbeat_decode() - Read a heartbeat that came by a path
 *
 * Return: false for what is truncated, does not bear the MAC of one of @keys (nothing else is looked at then), is
 *         of another version or holds impossible values.
 */
bool heartbeat_decode(const uint8_t *payload, uint32_t len, const struct heartbeat_keys *keys, uint32_t path,
		      struct heartbeat *hb);

/**
 * heartbeat_frame() - Ethernet, IPv4 and UDP around a heartbeat that leaves by a port
 * @port:    port MAC to port MAC, never the virtual ones
 * @payload: HB_LEN bytes
 * @frame:   HB_FRAME_LEN bytes
 */
void heartbeat_frame(const struct fp_port_cfg *port, uint16_t udp_port, const uint8_t *payload,
		     uint8_t *frame);

#endif /* HEARTBEAT_WIRE_H */
