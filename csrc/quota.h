/* SPDX-License-Identifier: Apache-2.0 */
/**
 * quota.h - how many sessions and ports an address has, over all workers
 *
 * A table without locks, shared by the cores: the sessions of one inside address belong to many shards. A
 * bucket is a cache line of eight words; a word is the tag of who is counted (40 bits) and the count (24 bits),
 * 0 = empty. A count that falls to 0 leaves its word empty.
 *
 * A full bucket counts nobody more: what is not counted is not limited either, and the caller counts how often
 * that happens. When two workers count the first of somebody's at the same time while a word before becomes
 * empty, he may get two words; then he gets up to twice his limit until one of them is empty again.
 */
#ifndef QUOTA_H
#define QUOTA_H

#include "base.h"

enum { QUOTA_WORDS = 8, QUOTA_COUNT_BITS = 24 };

/**
 * struct quota_bucket - One cache line
 * @word: tag << QUOTA_COUNT_BITS | count
 */
struct quota_bucket {
	_Atomic uint64_t word[QUOTA_WORDS];
};

static_assert(sizeof(struct quota_bucket) == CACHE_LINE, "a bucket is a cache line");

/**
 * struct quota - The table
 * @buckets: all of them
 * @n:       their number
 */
struct quota {
	struct quota_bucket *buckets;
	uint32_t n;
};

enum quota_answer {
	QUOTA_TAKEN,     /* counted: quota_give() is due */
	QUOTA_NONE_LEFT, /* the limit is reached */
	QUOTA_UNCOUNTED  /* no room to count */
};

/**
 * quota_mem_size() - Bytes for the counts of a node
 * @flow_cap: its sessions
 */
size_t quota_mem_size(uint32_t flow_cap);

/**
 * quota_init() - Nothing is counted
 * @mem: quota_mem_size() bytes, zeroed, aligned to a cache line
 */
void quota_init(struct quota *q, uint32_t flow_cap, void *mem);

/**
 * quota_take() - Count one more
 * @key:   of who is counted: bucket by the lower 24 bits, tag by the upper 40
 * @limit: 0 = none
 * Context: any worker's thread.
 */
enum quota_answer quota_take(struct quota *q, uint64_t key, uint32_t limit);

/**
 * quota_give() - Count one less; it was QUOTA_TAKEN
 * Context: any worker's thread.
 */
void quota_give(struct quota *q, uint64_t key);

#endif /* QUOTA_H */
