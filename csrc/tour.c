/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tour.c - sessions refreshed, digests counted anew, sessions that have come of age
 */
#include "digest.h"
#include "session.h"
#include "tour.h"
#include "transfer.h"

enum {
	SCRUB_PASSIVE_S = 60,
	OF_AGE_S = 1,
	ANEW_PER_S = 16384, /* after a sweep: so many slots, if refresh_s leaves the time */
	PREFETCH = 8
};

/* ---- ages ---- */

static void note_ages(struct core *c)
{
	const uint64_t now_s = c->now_ns / NS_PER_S;

	uint64_t given = c->tour.ages[c->tour.age_s % AGES_S];

	if (c->tour.age_s == now_s)
		return;
	/* Of seconds in which nobody looked the least is known: who was born then seems younger. */
	for (uint64_t s = max_u64(c->tour.age_s, now_s > AGES_S ? now_s - AGES_S : 0) + 1; s < now_s; s++)
		c->tour.ages[s % AGES_S] = given;
	c->tour.ages[now_s % AGES_S] = c->flow_seq;
	c->tour.age_s = now_s;
}

bool tour_of_age(const struct core *c, uint32_t idx, uint32_t after_s)
{
	uint64_t born;

	if (c->table.rec[idx].cold.origin != c->cfg->origin)
		return true; /* the peer's: it knows it, or did */
	if (after_s >= AGES_S || c->tour.age_s < after_s)
		return false;
	born = c->table.link[idx].id - c->cfg->flow_id_base;
	return born <= c->tour.ages[(c->tour.age_s - after_s) % AGES_S] * c->cfg->n_workers + c->worker;
}

/* ---- one record ---- */

/* Packets since the last full round came by, a tick or so ago more or less; or a sweep that has told it anew. */
static bool is_due(const struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	const uint32_t touched = f->deadline_tick - session_timeout(c, f);

	return !tcptrack_is_over(f) && (c->tour.anew & shard_bit(c->table.rec[idx].cold.shard) ||
					c->tour.tick - touched <= c->tour.full_tick - c->tour.last_tick + 1);
}

static uint32_t visit_full(struct core *c, uint32_t idx, struct fp_flow_rec *out)
{
	struct digest *scrub = &c->tour.scrub[c->table.rec[idx].cold.shard];

	if (!digest_knows(c, idx) || c->table.rec[idx].cold.dirty)
		return 0;
	scrub->sum += digest_hash(c, idx, session_was(&c->table.rec[idx].hot));
	scrub->n++;
	if (c->role != FP_ROLE_ACTIVE || !c->changes.track || !is_due(c, idx))
		return 0;
	transfer_tell(c, idx, FP_OP_REST, out);
	return 1;
}

/* Return: records written to @out, 0 or 1. */
static uint32_t visit(struct core *c, uint32_t idx, struct fp_flow_rec *out)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	if (f->kind != REC_FLOW)
		return 0;
	if (f->epoch == EPOCH_NEVER && c->role == FP_ROLE_ACTIVE &&
	    session_sync_rule(c, f->rule).filter == FP_SYNC_AFTER)
		session_tell(c, idx, true);
	return c->tour.full ? visit_full(c, idx, out) : 0;
}

/* ---- rounds ---- */

static bool has_after(const struct core *c)
{
	return c->role == FP_ROLE_ACTIVE && c->changes.track && c->policy && c->policy->has_after;
}

static uint64_t full_ns(const struct core *c)
{
	return (c->role == FP_ROLE_ACTIVE ? c->cfg->sync.refresh_s : SCRUB_PASSIVE_S) * NS_PER_S;
}

static uint64_t round_ns(const struct core *c)
{
	if (c->tour.anew)
		return min_u64(full_ns(c), max_u32(OF_AGE_S, c->table.n_fresh / ANEW_PER_S) * NS_PER_S);
	return c->tour.full && !has_after(c) ? full_ns(c) : OF_AGE_S * NS_PER_S;
}

/* Shards of which a sweep has told all; of whose walk is not over yet: later. */
static uint64_t swept(const struct core *c)
{
	return c->tour.swept & ~c->changes.sweep;
}

static void begin_round(struct core *c)
{
	struct tour *t = &c->tour;
	const bool broken_off = t->slot && t->full;

	t->slot = 1;
	t->begun_ns = c->now_ns;
	t->anew = swept(c);
	t->swept &= ~t->anew;
	t->full = t->anew || !t->full_ns || c->now_ns - t->full_ns >= full_ns(c) || !has_after(c);
	if (!t->full)
		return;
	t->full_ns = c->now_ns;
	if (!broken_off) /* else whom that round has not come to is due since the one before it */
		t->last_tick = t->full_tick;
	t->full_tick = wheel_tick(c->now_ns);
	memset(t->scrub, 0, sizeof(t->scrub));
}

static void end_round(struct core *c)
{
	struct tour *t = &c->tour;

	t->slot = 0;
	t->anew = 0;
	for (uint32_t shard = c->worker; t->full && shard < FP_SHARDS; shard += c->cfg->n_workers) {
		if (t->scrub[shard].sum == c->digest[shard].sum && t->scrub[shard].n == c->digest[shard].n)
			continue;
		counter_add(&c->stat.scrub_errors, 1);
		if (c->role == FP_ROLE_ACTIVE)
			digest_lose(c, shard);
		else
			c->digest[shard] = t->scrub[shard];
	}
}

/* How far the round should be by now. */
static uint32_t goal(const struct core *c)
{
	const uint64_t elapsed = c->now_ns - c->tour.begun_ns, all = round_ns(c);

	if (elapsed >= all)
		return c->table.n_fresh;
	return (uint32_t)(c->table.n_fresh * (elapsed / NS_PER_MS) / (all / NS_PER_MS));
}

uint32_t tour_walk(struct core *c, struct fp_flow_rec *out, uint32_t cap, uint32_t slots)
{
	struct tour *t = &c->tour;
	uint32_t n = 0;

	if (t->tick != wheel_tick(c->now_ns)) {
		t->tick = wheel_tick(c->now_ns);
		note_ages(c);
		/* Windows that a sweep left out do not wait for the end of a round; but a round in their haste ends. */
		if (!t->slot || (swept(c) && !t->anew))
			begin_round(c);
		t->goal = goal(c);
	}
	for (; t->slot && t->slot <= t->goal && slots && n < cap; slots--) {
		transfer_prefetch(c, t->slot + PREFETCH);
		n += visit(c, t->slot, &out[n]);
		t->slot++;
	}
	t->more = t->slot && t->slot <= t->goal;
	if (t->slot > c->table.n_fresh && c->now_ns - t->begun_ns >= round_ns(c))
		end_round(c);
	return n;
}
