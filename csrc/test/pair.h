/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pair.h - two nodes and what lies between them: events as the ring, the sections of a batch and the peer see them
 *
 * What pair_drain() takes out of ACTIVE waits in a ring, as in the shell, until pair_deliver() carries it over: cut
 * behind each marker, packed and unpacked by op, in the order OPEN, STATE, REST, DELETE, and imported at once. A
 * sweep begins at the peer where its marker stands.
 */
#ifndef PAIR_H
#define PAIR_H

#include "../cols.h"
#include "estate.h"

enum { PAIR_RING = 1024 };

/**
 * struct pair - Two nodes
 * @active, @passive: who is who now
 * @ring:             drained, and not delivered yet
 * @n:                of them
 * @acked:            the last event delivered
 * @asked:            for a digest, whose marker has not been delivered yet
 * @sweeping:         shards of the sweep whose FP_OP_SWEPT has not been delivered yet; one at a time
 * @repair:           it is to repair
 * @compared:         digests of shards that were compared
 * @differed:         ... and were not the same
 */
struct pair {
	struct rig *active, *passive;
	struct fp_flow_rec ring[PAIR_RING];
	uint32_t n;
	uint64_t acked;
	bool asked;
	uint64_t sweeping;
	bool repair;
	uint64_t compared, differed;
};

static inline struct pair *pair_new(const struct fp_config *cfg)
{
	struct pair *p = calloc(1, sizeof(*p));

	FP_ASSERT(p);
	p->active = estate_new(cfg, 0);
	p->passive = estate_new(cfg, 0);
	p->passive->cfg.origin = 2;
	p->passive->cfg.flow_id_base = 5000000;
	p->passive->core.table.key.k[0] ^= 0x1234;
	core_set_role(&p->passive->core, FP_ROLE_PASSIVE, 2, p->passive->now_ns);
	core_track(&p->active->core, true);
	return p;
}

static inline void pair_free(struct pair *p)
{
	rig_free(p->active);
	rig_free(p->passive);
	free(p);
}

/* The same records through columns, as another process gets them. */
static inline void pair_import(struct pair *p, const struct fp_flow_rec *recs, uint32_t n)
{
	static const enum fp_op order[] = { FP_OP_OPEN, FP_OP_STATE, FP_OP_REST, FP_OP_DELETE };
	static uint8_t store[N_COLS][PAIR_RING * 32];
	static struct fp_flow_rec out[PAIR_RING];
	uint32_t total = 0;

	for (uint32_t i = 0; i < ARRAY_SIZE(order); i++) {
		const uint32_t columns = (uint32_t)fp_cols_of(order[i], 0);
		uint32_t constant;
		uint8_t *at[N_COLS];
		struct fp_cols cols;
		int count;

		for (uint32_t col = 0; col < N_COLS; col++)
			at[col] = columns & 1u << col ? store[col] : NULL;
		memcpy(&cols, at, sizeof(cols));
		count = cols_pack(recs, n, 4, order[i], &cols, &constant);
		REQUIRE(count >= 0);
		REQUIRE(cols_unpack(&cols, (uint32_t)count, 4, order[i], constant, out + total) == count);
		total += (uint32_t)count;
	}
	REQUIRE(total == n);
	REQUIRE(core_import(&p->passive->core, out, n, p->passive->now_ns) >= 0);
}

static inline void pair_compare(struct pair *p)
{
	struct fp_digest here[FP_SHARDS];

	core_digests(&p->passive->core, here);
	for (uint32_t i = 0; i < FP_SHARDS; i++) {
		const struct fp_digest *told = &p->active->core.digest_told[i];

		if (!told->known)
			continue;
		p->compared++;
		p->differed += told->sum != here[i].sum || told->n != here[i].n;
	}
}

static inline void pair_marker(struct pair *p, const struct fp_flow_rec *mark)
{
	if (mark->op == FP_OP_DIGEST) {
		p->asked = false;
		pair_compare(p);
		return;
	}
	if (mark->op == FP_OP_SWEEP) {
		REQUIRE(core_import_begin(&p->passive->core, mark->id, p->repair) == 0);
		return;
	}
	p->sweeping = 0;
	REQUIRE(core_import_end(&p->passive->core, mark->id) >= 0);
}

/* Carry the first @n events over. */
static inline void pair_deliver(struct pair *p, uint32_t n)
{
	uint32_t begin = 0;

	n = min_u32(n, p->n);
	for (uint32_t i = 0; i < n; i++) {
		if (p->ring[i].op < FP_OP_SWEEP)
			continue;
		pair_import(p, p->ring + begin, i - begin);
		pair_marker(p, &p->ring[i]);
		begin = i + 1;
	}
	pair_import(p, p->ring + begin, n - begin);
	if (n)
		p->acked = p->ring[n - 1].ev_seq;
	p->n -= n;
	memmove(p->ring, p->ring + n, p->n * sizeof(p->ring[0]));
}

static inline void pair_drain(struct pair *p, uint32_t cap, uint32_t slots)
{
	cap = min_u32(cap, PAIR_RING - p->n);
	if (cap)
		p->n += core_drain(&p->active->core, p->ring + p->n, cap, slots, p->active->now_ns);
}

/* As control does, which asks again when it has read the answer. */
static inline void pair_ask(struct pair *p)
{
	if (!p->asked)
		core_digest_ask(&p->active->core);
	p->asked = true;
}

static inline void pair_sweep(struct pair *p, uint64_t shards, bool repair)
{
	if (p->sweeping || !shards)
		return;
	p->sweeping = shards;
	p->repair = repair;
	core_sweep_start(&p->active->core, shards);
}

/* All is told, and live at the peer. */
static inline void pair_settle(struct pair *p)
{
	do {
		if (p->active->core.changes.lost)
			pair_sweep(p, p->active->core.changes.lost, false);
		pair_drain(p, PAIR_RING, UINT32_MAX);
		pair_deliver(p, PAIR_RING);
	} while (core_has_more(&p->active->core) || p->active->core.changes.lost || p->sweeping);
	core_ack(&p->active->core, p->acked);
}

/* ... and all digests have been compared. Return: how many differed. */
static inline uint64_t pair_audit(struct pair *p)
{
	uint64_t differed, compared;

	pair_settle(p);
	differed = p->differed;
	compared = p->compared;
	pair_ask(p);
	pair_settle(p);
	REQUIRE(p->compared >= compared + FP_SHARDS);
	return p->differed - differed;
}

static inline void pair_sleep_ms(struct pair *p, uint32_t ms)
{
	p->active->now_ns += ms * NS_PER_MS;
	p->passive->now_ns += ms * NS_PER_MS;
	while (core_expire(&p->active->core, p->active->now_ns, 64) == 64)
		;
	REQUIRE(core_drain(&p->passive->core, p->ring + p->n, PAIR_RING - p->n, UINT32_MAX,
			   p->passive->now_ns) == 0); /* it scrubs, and says nothing */
}

/* The passive node takes over; what was in the ring is gone. */
static inline void pair_takeover(struct pair *p, uint64_t term)
{
	struct rig *dead = p->active;

	p->active = p->passive;
	p->passive = dead;
	p->n = 0;
	p->acked = 0;
	p->asked = false;
	p->sweeping = 0;
	core_set_role(&p->passive->core, FP_ROLE_PASSIVE, term, p->passive->now_ns);
	core_set_role(&p->active->core, FP_ROLE_ACTIVE, term, p->active->now_ns);
	core_track(&p->passive->core, false);
	core_track(&p->active->core, true);
}

#endif /* PAIR_H */
