/* SPDX-License-Identifier: Apache-2.0 */
/**
 * digest.c - sums over the records that both nodes know
 */
#include "digest.h"

#include "siphash.h"

/* ---- the hash ---- */

/* @len bytes in words; the last one is filled up with zeros, and there is one. */
static inline uint64_t siphash13(const uint64_t key[2], const uint64_t *words, size_t len)
{
	struct sip s = sip_start(key[0], key[1]);

	for (size_t i = 0; i <= len / 8; i++) {
		const uint64_t word = i < len / 8 ? words[i] : words[i] | (uint64_t)(len & 0xff) << 56;

		s.v3 ^= word;
		sip_round(&s);
		s.v0 ^= word;
	}
	s.v2 ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static const struct fp_addr *external_of(const struct core *c, const struct flow_hot *f)
{
	return f->pool == POOL_NONE ? &f->inside : &c->cfg->pools[f->pool].addr;
}

uint64_t digest_hash(const struct core *c, uint32_t idx, struct session_was was)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	const struct fp_addr *external = external_of(c, f);
	const uint64_t flags = was.flags & FLOW_FLAGS_TOLD;
	/* Little-endian, as cols_pack() demands. */
	uint64_t w[11] = {
		c->table.link[idx].id,
		c->table.rec[idx].cold.origin | (uint64_t)f->rule << 16 | (uint64_t)f->version << 32,
		f->inside_port.raw | (uint64_t)f->remote_port.raw << 16 |
			(uint64_t)f->external_port.raw << 32 | (uint64_t)was.state << 48 | flags << 56,
		f->form | (uint64_t)f->proto << 8 | (uint64_t)(f->zones >> 4) << 16 |
			(uint64_t)(f->zones & 0xf) << 24,
	};

	if (likely(addr_is_v4(&f->inside))) {
		w[4] = addr_v4(&f->inside).raw | (uint64_t)addr_v4(&f->remote).raw << 32;
		w[5] = addr_v4(external).raw;
		return siphash13(c->digest_key, w, 44);
	}
	memcpy(&w[4], &f->inside, 16);
	memcpy(&w[6], &f->remote, 16);
	memcpy(&w[8], external, 16);
	return siphash13(c->digest_key, w, 80);
}

/* ---- the sums ---- */

/* What is in the digest, and, once the tour has passed the record, in its own count (tour.h). */
static void add(struct core *c, uint32_t idx, uint64_t hash, uint32_t n)
{
	const uint32_t shard = c->table.rec[idx].cold.shard;

	c->digest[shard].sum += hash;
	c->digest[shard].n += n;
	if (idx >= c->tour.slot)
		return;
	c->tour.scrub[shard].sum += hash;
	c->tour.scrub[shard].n += n;
}

void digest_leave(struct core *c, uint32_t idx, struct session_was was)
{
	struct flow_cold *cold = &c->table.rec[idx].cold;

	if (digest_knows(c, idx) && !cold->dirty)
		add(c, idx, -digest_hash(c, idx, was), UINT32_MAX);
	cold->dirty = 1;
}

void digest_enter(struct core *c, uint32_t idx)
{
	struct flow_rec *rec = &c->table.rec[idx];

	rec->hot.epoch = c->epoch[rec->cold.shard];
	rec->cold.dirty = 0;
	add(c, idx, digest_hash(c, idx, session_was(&rec->hot)), 1);
}

/* ---- epochs ---- */

/* The numbers come round: let no record seem to be of an epoch that is still to come. */
static void age_all(struct core *c, uint64_t shards)
{
	for (uint32_t idx = 1; idx <= c->table.n_fresh; idx++) {
		struct flow_rec *rec = &c->table.rec[idx];

		if (shards & shard_bit(rec->cold.shard) && rec->hot.epoch >= EPOCH_FIRST)
			rec->hot.epoch = EPOCH_OLD;
	}
}

void digest_forget(struct core *c, uint64_t shards)
{
	uint64_t around = 0;

	for (uint64_t left = shards & digest_own(c); left; left &= left - 1) {
		const uint32_t shard = (uint32_t)__builtin_ctzll(left);

		c->digest[shard] = (struct digest){ 0 };
		c->tour.scrub[shard] = (struct digest){ 0 };
		if (++c->epoch[shard] == 0) {
			c->epoch[shard] = EPOCH_FIRST;
			around |= shard_bit(shard);
		}
	}
	if (around)
		age_all(c, around);
}

void digest_lose(struct core *c, uint32_t shard)
{
	digest_forget(c, shard_bit(shard));
	c->changes.lost |= shard_bit(shard);
	c->changes.sweep &= ~shard_bit(shard);
	counter_set(&c->stat.lost_shards, c->changes.lost);
	counter_add(&c->stat.events_lost, 1);
}
