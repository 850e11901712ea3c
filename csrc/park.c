/* SPDX-License-Identifier: Apache-2.0 */
/**
 * park.c - waiting for neighbours
 */
#include "park.h"
#include "hash.h"

static struct parked *free_slot(struct park *park)
{
	for (uint32_t i = 0; i < PARK_FRAMES; i++)
		if (!park->slots[i].until_ns)
			return &park->slots[i];
	return NULL;
}

bool park_frame(struct park *park, const struct fp_frame *frame, uint32_t port,
		const struct fp_addr *next_hop, uint16_t verdict, uint64_t now_ns)
{
	struct parked *slot;
	uint32_t same = 0;

	for (uint32_t i = 0; i < park->n; i++) {
		const struct parked *other = &park->slots[park->order[i]];

		same += other->port == port && addr_eq(&other->next_hop, next_hop);
	}
	slot = park->n < PARK_FRAMES && same < PARK_PER_NEIGH ? free_slot(park) : NULL;
	if (!slot)
		return false;
	slot->next_hop = *next_hop;
	slot->until_ns = now_ns + PARK_S * NS_PER_S;
	slot->len = frame->len;
	slot->vnet = frame->vnet;
	slot->port = (uint16_t)port;
	slot->verdict = verdict;
	memcpy(slot->data, frame->data, frame->len);
	park->order[park->n++] = (uint16_t)(slot - park->slots);
	return true;
}

void park_remove(struct park *park, uint32_t i)
{
	park->slots[park->order[i]].until_ns = 0;
	park->n--;
	memmove(&park->order[i], &park->order[i + 1], (park->n - i) * sizeof(park->order[0]));
}

uint32_t park_expire(struct park *park, uint64_t now_ns)
{
	uint32_t n = 0;

	/* All wait equally long: the oldest one is the first to go. */
	while (park->n && park->slots[park->order[0]].until_ns <= now_ns) {
		park_remove(park, 0);
		n++;
	}
	return n;
}

static bool add_want(struct neigh_wants *w, const struct neigh_want *want, uint64_t now_ns)
{
	const struct hash_key key = { { 0, 0 } };
	const uint64_t moved = !mac_is_zero(want->mac);
	uint64_t words[3] = { u64_load(want->addr.b), u64_load(want->addr.b + 8), want->port | moved << 32 };
	uint32_t i = (uint32_t)hash_words3(key, words) % WANTS_RECENT;
	struct neigh_want *recent = &w->recent[i];

	/* Two neighbours in one place chase each other out; the worst is to ask too often. */
	if (w->recent_ns[i] && now_ns < w->recent_ns[i] + NS_PER_S && recent->port == want->port &&
	    addr_eq(&recent->addr, &want->addr) && mac_eq(recent->mac, want->mac))
		return false;
	if (w->n == WANTS_MAX)
		return false; /* not remembered: the next frame asks again */
	*recent = *want;
	w->recent_ns[i] = max_u64(now_ns, 1);
	w->queue[w->n++] = *want;
	return true;
}

void neigh_wants_add(struct neigh_wants *w, uint32_t port, const struct fp_addr *addr, uint64_t now_ns)
{
	add_want(w, &(struct neigh_want){ .addr = *addr, .port = (uint16_t)port }, now_ns);
}

void neigh_wants_moved(struct neigh_wants *w, uint32_t port, const struct fp_addr *addr, const uint8_t *mac,
		       uint64_t now_ns)
{
	struct neigh_want want = { .addr = *addr, .port = (uint16_t)port };

	if (now_ns >= w->moves_ns + NS_PER_S) {
		w->moves_ns = now_ns;
		w->n_moves = 0;
	}
	if (w->n_moves == MOVES_MAX)
		return;
	memcpy(want.mac, mac, ETH_ALEN);
	w->n_moves += add_want(w, &want, now_ns);
}
