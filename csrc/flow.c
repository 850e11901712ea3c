/* SPDX-License-Identifier: Apache-2.0 */
/**
 * flow.c - slots of the record table, and their keys in the index
 */
#include "flow.h"

struct flow_key flow_key_of(const struct flow_hot *f, uint32_t side, enum key_kind kind)
{
	struct flow_key key = { .proto = f->proto, .side = (uint8_t)side, .kind = (uint8_t)kind };

	if (side == SIDE_OUT) {
		key.a = f->inside;
		key.pa = f->inside_port;
		key.pool = kind == KEY_MAPPING ? f->pool : 0;
	} else {
		if (f->pool == POOL_NONE)
			key.a = f->inside;
		key.pa = f->external_port;
		key.pool = f->pool;
	}
	if (kind == KEY_FLOW) {
		key.b = f->remote;
		key.pb = f->remote_port;
	}
	return key;
}

uint32_t flow_alloc(struct flow_table *t)
{
	uint32_t idx = t->free;
	uint8_t queued;

	if (idx) {
		t->free = t->link[idx].wheel_next;
		/* The next one to be taken. */
		__builtin_prefetch(&t->link[t->free], 1);
		__builtin_prefetch(&t->rec[t->free].hot, 1);
		__builtin_prefetch(&t->rec[t->free].cold, 1);
	} else {
		if (t->n_fresh == t->cap)
			return FLOW_NONE;
		idx = ++t->n_fresh;
	}
	t->n_free--;
	queued = t->rec[idx].cold.admin & (ADMIN_QUEUED | ADMIN_LAZY);
	memset(&t->rec[idx].hot, 0, sizeof(t->rec[idx].hot));
	memset(&t->rec[idx].cold, 0, sizeof(t->rec[idx].cold));
	memset(&t->link[idx], 0, sizeof(t->link[idx]));
	t->rec[idx].cold.admin = queued;
	t->rec[idx].hot.adj[SIDE_OUT] = ADJ_NONE;
	t->rec[idx].hot.adj[SIDE_IN] = ADJ_NONE;
	return idx;
}

void flow_free(struct flow_table *t, uint32_t idx)
{
	FP_ASSERT(t->rec[idx].hot.kind != REC_FREE);
	t->rec[idx].hot.kind = REC_FREE;
	t->link[idx].wheel_next = t->free;
	t->free = idx;
	t->n_free++;
}

bool flow_index(struct flow_table *t, struct hash *h, uint32_t idx, enum key_kind kind)
{
	const struct flow_hot *f = &t->rec[idx].hot;
	struct flow_key out = flow_key_of(f, SIDE_OUT, kind), in = flow_key_of(f, SIDE_IN, kind);
	uint64_t out_hash = flow_hash(t, &out);

	if (!hash_insert(h, out_hash, idx << 1 | SIDE_OUT))
		return false;
	if (hash_insert(h, flow_hash(t, &in), idx << 1 | SIDE_IN))
		return true;
	hash_remove(h, out_hash, idx << 1 | SIDE_OUT);
	return false;
}

void flow_unindex(struct flow_table *t, struct hash *h, uint32_t idx, enum key_kind kind)
{
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		struct flow_key key = flow_key_of(&t->rec[idx].hot, side, kind);

		FP_ASSERT(hash_remove(h, flow_hash(t, &key), idx << 1 | side));
	}
}

uint32_t flow_find(const struct flow_table *t, const struct hash *h, const struct flow_key *key,
		   uint64_t hash)
{
	const uint32_t reach = hash_bucket(h, hash, 0)->reach;
	uint16_t tag = hash_tag(hash);

	for (uint32_t probe = 0; probe <= reach; probe++) {
		const struct hash_bucket *b = hash_bucket(h, hash, probe);

		for (uint32_t match = hash_match(b, tag); match; match &= match - 1) {
			uint32_t entry = b->entry[__builtin_ctz(match)];

			if (flow_matches(t, entry, key))
				return entry;
		}
	}
	return 0;
}
