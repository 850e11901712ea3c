/* SPDX-License-Identifier: Apache-2.0 */
/**
 * evict.c - who goes before his time when table or ports run out
 */
#include "evict.h"
#include "session.h"

enum {
	CLOSED_SHARE = 16,    /* below 1/16 free slots closed sessions go */
	EMBRYONIC_SHARE = 64, /* below 1/64 embryonic ones, too */
	SCAN_MAX = 4096,      /* slots looked at in one core_expire(), in memory order */
	SCAN_ONE_MAX = 1024,  /* slots looked at for one packet */
	SCAN_REST_MS = 10,    /* when there was none, packets do not look again for so long */
	BIRTHS_MAX = 256,     /* births looked at for one packet */
	PORT_TRIES = 32,
	PORT_SHARERS_MAX = 8, /* a mapping of more sessions is left alone */
	BIRTH_IDX_BITS = 25   /* of an entry; the rest is of the session's identity */
};

/* ---- births: a FIFO of record indices, cleaned only when somebody looks ---- */

static uint32_t birth_of(const struct core *c, uint32_t idx)
{
	uint64_t mark = c->table.link[idx].id * UINT64_C(0x9e3779b97f4a7c15) >> 57;

	return (uint32_t)mark << BIRTH_IDX_BITS | idx;
}

static uint32_t births_pop(struct births *b)
{
	uint32_t entry = b->ring[b->head];

	if (++b->head == b->cap)
		b->head = 0;
	b->n--;
	return entry;
}

static void births_append(struct births *b, uint32_t entry)
{
	uint64_t at = (uint64_t)b->head + b->n;

	b->ring[at < b->cap ? at : at - b->cap] = entry;
	b->n++;
}

/* The session of an entry, if it still is embryonic; else FLOW_NONE. */
static uint32_t embryo_of(const struct core *c, uint32_t entry)
{
	uint32_t idx = entry & ((UINT32_C(1) << BIRTH_IDX_BITS) - 1);
	const struct flow_hot *f = &c->table.rec[idx].hot;

	return f->kind == REC_FLOW && f->state < FP_ST_ESTABLISHED && birth_of(c, idx) == entry ? idx
												: FLOW_NONE;
}

void births_push(struct core *c, uint32_t idx)
{
	struct births *b = &c->births;

	/* As many entries as records: when it is full, most of what stands at its head is stale. */
	for (uint32_t i = 0; b->n == b->cap && i < BIRTHS_MAX; i++) {
		uint32_t entry = births_pop(b);

		if (embryo_of(c, entry) && i < BIRTHS_MAX - 1)
			births_append(b, entry); /* gets younger: better than to lose it */
	}
	births_append(b, birth_of(c, idx));
}

/* ---- table ---- */

static bool evict_embryo(struct core *c, uint32_t tries)
{
	while (c->births.n && tries--) {
		uint32_t idx = embryo_of(c, births_pop(&c->births));

		if (!idx)
			continue;
		counter_add(&c->stat.evicted_embryonic, 1);
		record_remove(c, idx, true);
		return true;
	}
	return false;
}

static void evict_closed(struct core *c, uint32_t idx)
{
	counter_add(&c->stat.flows_closed, 1);
	counter_add(&c->stat.evicted_closed, 1);
	record_remove(c, idx, true);
}

/* A hand goes round the slots. Return: sessions removed. */
static uint32_t sweep_closed(struct core *c, uint32_t budget, uint32_t scan)
{
	struct flow_table *t = &c->table;
	uint32_t n = 0;

	scan = min_u32(scan, t->n_fresh);
	for (uint32_t i = 0; n < budget && i < scan; i++) {
		uint32_t idx = c->evict_hand % t->n_fresh + 1;

		c->evict_hand = idx;
		if (t->rec[idx].hot.kind != REC_FLOW || !tcptrack_is_over(&t->rec[idx].hot))
			continue;
		evict_closed(c, idx);
		n++;
	}
	return n;
}

/* Slots that are free, or will be when the peer has caught up. */
static uint32_t in_reserve(const struct core *c)
{
	return c->table.n_free + c->changes.n_tombs;
}

uint32_t evict_some(struct core *c, uint32_t budget)
{
	const struct changes *ch = &c->changes;
	uint32_t cap = c->table.cap, n = 0;

	if (c->table.n_free >= cap / CLOSED_SHARE)
		return 0;
	/* Rests while the peer is behind; and a small table's budget is no more than it may leave in tombstones. */
	if (ch->n_tombs <= ch->tombs_max / 2) {
		const uint32_t most = ch->track ? min_u32(budget, ch->tombs_max / 2 - ch->n_tombs + 1)
						: budget;

		n = sweep_closed(c, most, SCAN_MAX);
		if (n < most)
			c->evict_scan_ns = c->now_ns + SCAN_REST_MS * NS_PER_MS;
	}
	while (n < budget && in_reserve(c) < cap / EMBRYONIC_SHARE && evict_embryo(c, SCAN_MAX))
		n++;
	return n;
}

void evict_again(struct core *c, uint64_t now_ns, uint32_t budget)
{
	const struct changes *ch = &c->changes;

	if (likely(c->table.n_free >= c->table.cap / CLOSED_SHARE) || c->role != FP_ROLE_ACTIVE ||
	    !ch->track || ch->n_tombs > ch->tombs_max / 4 || now_ns < c->evict_scan_ns)
		return;
	c->now_ns = now_ns;
	evict_some(c, budget);
}

/* For a packet: a look at a part of the table, and not for every packet. */
static bool evict_one_closed(struct core *c)
{
	if (c->now_ns < c->evict_scan_ns)
		return false;
	if (sweep_closed(c, 1, SCAN_ONE_MAX))
		return true;
	c->evict_scan_ns = c->now_ns + SCAN_REST_MS * NS_PER_MS;
	return false;
}

bool evict_one(struct core *c)
{
	const bool room_comes = in_reserve(c) >= max_u32(c->table.cap / EMBRYONIC_SHARE, 1);

	/* Who waits for a peer that is away waits for nothing: then one goes without a tombstone. */
	if ((!room_comes || changes_unheard(&c->changes, c->now_ns)) && !evict_one_closed(c))
		evict_embryo(c, BIRTHS_MAX);
	return c->table.n_free > 0;
}

/* ---- ports ---- */

static bool all_closed(const struct core *c, uint32_t leader)
{
	uint32_t idx = leader;

	for (uint32_t i = 0; i < PORT_SHARERS_MAX; i++) {
		if (!tcptrack_is_over(&c->table.rec[idx].hot))
			return false;
		idx = c->table.link[idx].map_next;
		if (idx == leader)
			return true;
	}
	return false;
}

/* Remove the mapping, but keep its port. */
static void strip(struct core *c, uint32_t leader)
{
	const struct flow_hot f = c->table.rec[leader].hot;

	while (c->table.link[leader].map_next != leader)
		evict_closed(c, c->table.link[leader].map_next);
	evict_closed(c, leader);
	if (c->table.rec[leader].hot.kind ==
	    REC_TOMB) /* its delete is told before the port's new session is */
		c->table.rec[leader].cold.admin &= (uint8_t)~ADMIN_LEADER;
	else
		FP_ASSERT(nat_port_claim(&c->nat, f.pool, f.proto, f.external_port));
}

be16 evict_port(struct core *c, uint32_t pool, uint8_t proto, uint32_t shard)
{
	if (proto != IPPROTO_NUM_TCP) /* nothing else closes */
		return be16_of(0);
	for (uint32_t i = 0; i < PORT_TRIES; i++) {
		be16 port = nat_port_random(&c->nat, pool, shard);
		uint32_t leader = mapping_by_external(c, pool, proto, port);

		if (!leader || !all_closed(c, leader))
			continue;
		strip(c, leader);
		return port;
	}
	return be16_of(0);
}
