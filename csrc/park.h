/* SPDX-License-Identifier: Apache-2.0 */
/**
 * park.h - frames that wait for a neighbour, and neighbours that the control plane must resolve
 *
 * The kernel of the node's namespace resolves neighbours; it is asked through the control plane, and the
 * answer comes as a new FIB. Meanwhile a few frames wait here, complete but for their Ethernet addresses.
 */
#ifndef PARK_H
#define PARK_H

#include "pkt.h"

enum {
	PARK_FRAMES = 256,  /* of one worker */
	PARK_PER_NEIGH = 8, /* of one neighbour */
	PARK_S = 3,         /* how long a frame waits */
	WANTS_MAX = 64,     /* not yet fetched by the shell */
	WANTS_RECENT = 256, /* remembered, so that the same is not said twice a second */
	MOVES_MAX = 128     /* in a second: whoever is on the link can claim to have moved */
};

/**
 * struct parked - A frame that waits
 * @next_hop: neighbour that is missing
 * @until_ns: when to give up; 0 = the slot is free
 * @len:      length
 * @port:     port to leave by
 * @verdict:  what the frame will have been
 * @vnet:     what the driver said of the frame
 * @data:     the frame
 */
struct parked {
	struct fp_addr next_hop;
	uint64_t until_ns;
	uint32_t len;
	uint16_t port;
	uint16_t verdict;
	struct fp_vnet vnet;
	uint8_t data[FP_FRAME_MAX];
};

/**
 * struct park - The frames of one worker that wait
 * @slots: PARK_FRAMES
 * @order: slots in order of arrival
 * @n:     entries of @order
 */
struct park {
	struct parked *slots;
	uint16_t order[PARK_FRAMES];
	uint32_t n;
};

/**
 * struct neigh_want - A neighbour to resolve, or one that has moved
 * @addr: its address
 * @port: port it is on
 * @mac:  what it says its MAC address is; 0: to be resolved
 */
struct neigh_want {
	struct fp_addr addr;
	uint16_t port;
	uint8_t mac[ETH_ALEN];
};

/**
 * struct neigh_wants - Neighbours to resolve, and neighbours that have moved
 * @queue:     not yet fetched
 * @n:         entries of @queue
 * @recent:    hashed by address: what was named lately
 * @recent_ns: when; 0 = never
 * @moves_ns:  when the second began in which @n_moves are counted
 * @n_moves:   neighbours that have moved
 */
struct neigh_wants {
	struct neigh_want queue[WANTS_MAX];
	uint32_t n;
	struct neigh_want recent[WANTS_RECENT];
	uint64_t recent_ns[WANTS_RECENT];
	uint64_t moves_ns;
	uint32_t n_moves;
};

static inline size_t park_mem_size(void)
{
	return PARK_FRAMES * sizeof(struct parked);
}

/**
 * park_frame() - Keep a copy of a frame until its neighbour is known
 * @verdict: what the frame will have been
 * The frame is no longer than FP_FRAME_MAX.
 * Return: false when too many frames wait, in all or for this neighbour.
 */
bool park_frame(struct park *park, const struct fp_frame *frame, uint32_t port,
		const struct fp_addr *next_hop, uint16_t verdict, uint64_t now_ns);

/**
 * park_remove() - Free the frame at place @i of the order of arrival
 */
void park_remove(struct park *park, uint32_t i);

/**
 * park_expire() - Drop frames that waited too long; at UINT64_MAX: all
 * Return: how many.
 */
uint32_t park_expire(struct park *park, uint64_t now_ns);

/**
 * neigh_wants_add() - Ask the control plane for a neighbour, unless that was done within a second
 */
void neigh_wants_add(struct neigh_wants *w, uint32_t port, const struct fp_addr *addr, uint64_t now_ns);

/**
 * neigh_wants_moved() - Tell the control plane of a neighbour's new MAC address
 * @mac: not 0
 * The same address once a second. Another one at once, because it may be said only once: a limit of one move a
 * second would leave a host that moves twice without its packets until the kernel verifies its address.
 */
void neigh_wants_moved(struct neigh_wants *w, uint32_t port, const struct fp_addr *addr, const uint8_t *mac,
		       uint64_t now_ns);

#endif /* PARK_H */
