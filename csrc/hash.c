/* SPDX-License-Identifier: Apache-2.0 */
/**
 * hash.c - insertion into and removal from the index
 */
#include "hash.h"

enum { HASH_LOAD = 7 }; /* entries a bucket when the table is full */

uint32_t hash_buckets(uint32_t n_entries)
{
	return n_entries / HASH_LOAD + 1;
}

size_t hash_mem_size(uint32_t n_buckets)
{
	return ((size_t)n_buckets + HASH_PROBES - 1) * sizeof(struct hash_bucket);
}

/* An entry stands @probe buckets behind its home. */
static void note_spill(struct hash_bucket *home, uint32_t probe)
{
	home->spill++;
	home->reach = (uint16_t)max_u32(home->reach, probe);
}

bool hash_insert(struct hash *h, uint64_t hash, uint32_t entry)
{
	for (uint32_t probe = 0; probe < HASH_PROBES; probe++) {
		struct hash_bucket *b = hash_bucket(h, hash, probe);
		uint32_t empty = hash_match(b, 0);

		if (!empty)
			continue;
		uint32_t way = (uint32_t)__builtin_ctz(empty);
		b->tag[way] = hash_tag(hash);
		b->entry[way] = entry;
		if (probe)
			note_spill(hash_bucket(h, hash, 0), probe);
		return true;
	}
	return false;
}

bool hash_remove(struct hash *h, uint64_t hash, uint32_t entry)
{
	struct hash_bucket *home = hash_bucket(h, hash, 0);

	for (uint32_t probe = 0; probe <= home->reach; probe++) {
		struct hash_bucket *b = hash_bucket(h, hash, probe);
		uint32_t match = hash_match(b, hash_tag(hash));

		for (; match; match &= match - 1) {
			uint32_t way = (uint32_t)__builtin_ctz(match);

			if (b->entry[way] != entry)
				continue;
			b->tag[way] = 0;
			b->entry[way] = 0;
			if (probe && --home->spill == 0)
				home->reach = 0;
			return true;
		}
	}
	return false;
}
