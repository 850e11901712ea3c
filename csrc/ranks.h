/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ranks.h - in which interval of a sorted list a key lies: static search trees, a few cache lines deep
 *
 * The keys, ascending, stand in nodes of one cache line (128-bit keys: two lines). Above them stands a level
 * that holds the first key of each node, and so on up to a single node, which stands in the tree's own struct.
 * A search reads one node a level and takes no branch on what it finds: 4,000 keys of 32 bits are two misses
 * behind the first one, where a binary search has nine.
 */
#ifndef RANKS_H
#define RANKS_H

#include "base.h"

enum { RANK_WAYS = 16, RANK_WAYS_WIDE = 8, RANK_LEVELS_MAX = 6 };

/* An address as a number. */
struct rank_wide {
	uint64_t hi, lo;
};

/**
 * struct ranks - A search tree over ascending keys, the first of which is 0
 * @base:     where @level counts from
 * @n_levels: levels below @top
 * @user:     whoever built it keeps something here, in the line that a search reads anyway
 * @level:    where each of them begins, in bytes; level 0 has all keys
 * @size:     keys of each; nodes are filled up with the largest key
 * @n_top:    keys of @top
 * @top:      the highest level, a node
 */
struct ranks {
	CACHE_ALIGNED const uint8_t *base;
	uint32_t user;
	uint16_t n_levels;
	uint16_t n_top;
	uint32_t level[RANK_LEVELS_MAX];
	uint32_t size[RANK_LEVELS_MAX];
	union {
		uint32_t narrow[RANK_WAYS];
		struct rank_wide wide[RANK_WAYS_WIDE];
	} top;
};

static_assert(offsetof(struct ranks, top) == CACHE_LINE, "a line, and the lines of the highest node");

static inline bool rank_wide_le(struct rank_wide a, struct rank_wide b)
{
	return (a.hi < b.hi) | ((a.hi == b.hi) & (a.lo <= b.lo));
}

/* Keys of a node that are not above @key. The largest key of all counts what fills up the node, too. */
static inline uint32_t rank_count(const uint32_t *node, uint32_t key)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < RANK_WAYS; i++)
		n += node[i] <= key;
	return n;
}

static inline uint32_t rank_count_wide(const struct rank_wide *node, struct rank_wide key)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < RANK_WAYS_WIDE; i++)
		n += rank_wide_le(node[i], key);
	return n;
}

/**
 * ranks_top() - Begin a search: the node of the highest level below the top; the index, where there is none
 */
static inline uint32_t ranks_top(const struct ranks *r, uint32_t key)
{
	return min_u32(rank_count(r->top.narrow, key), r->n_top) - 1;
}

/**
 * ranks_down() - Go on: from node @at of level @level to one of its keys
 */
static inline uint32_t ranks_down(const struct ranks *r, uint32_t level, uint32_t at, uint32_t key)
{
	const uint32_t *keys = (const uint32_t *)(const void *)(r->base + r->level[level]);

	return min_u32(at * RANK_WAYS + rank_count(keys + (size_t)at * RANK_WAYS, key), r->size[level]) - 1;
}

static inline void ranks_prefetch(const struct ranks *r, uint32_t level, uint32_t at)
{
	__builtin_prefetch(r->base + r->level[level] + (size_t)at * CACHE_LINE);
}

/**
 * ranks_find() - Index of the last key that is not above @key
 */
static inline uint32_t ranks_find(const struct ranks *r, uint32_t key)
{
	uint32_t at = ranks_top(r, key);

	for (uint32_t l = r->n_levels; l-- > 0;)
		at = ranks_down(r, l, at, key);
	return at;
}

static inline uint32_t ranks_find_wide(const struct ranks *r, struct rank_wide key)
{
	uint32_t at = min_u32(rank_count_wide(r->top.wide, key), r->n_top) - 1;

	for (uint32_t l = r->n_levels; l-- > 0;) {
		const struct rank_wide *keys =
			(const struct rank_wide *)(const void *)(r->base + r->level[l]);

		at = at * RANK_WAYS_WIDE + rank_count_wide(keys + (size_t)at * RANK_WAYS_WIDE, key);
		at = min_u32(at, r->size[l]) - 1;
	}
	return at;
}

#endif /* RANKS_H */
