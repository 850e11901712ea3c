/* SPDX-License-Identifier: Apache-2.0 */
/**
 * quota.h - how many sessions and ports an address has, over all workers
 *
 * A count-min sketch without locks, shared by the cores: the sessions of one inside address belong to many
 * shards. Whoever is counted has one counter in each of four rows, by a keyed hash; others may share it, so a
 * counter says at least as much as is true of each, and the least of the four is what holds.
 *
 * Thus nobody is ever without a limit, however many addresses there are (a host may make them up), and no
 * address needs room of its own. The price: with a full table, others' counts add up to a dozen or two in all
 * four counters of somebody, who is then refused that much before his limit; with a tenth of the table in use,
 * to one at most. Nobody can aim at another's counters without the key. Workers that count for one address at the
 * same moment may pass its limit by one each.
 */
#ifndef QUOTA_H
#define QUOTA_H

#include "base.h"

enum { QUOTA_ROWS = 4 };

/**
 * struct quota - The table
 * @count: QUOTA_ROWS rows of @width
 * @width: counters of a row
 */
struct quota {
	_Atomic uint32_t *count;
	uint32_t width;
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
 * @key:   of who is counted: a keyed hash
 * @limit: 0 = none
 * Context: any worker's thread.
 * Return: whether the limit allows it; then quota_give() is due.
 */
bool quota_take(struct quota *q, uint64_t key, uint32_t limit);

/**
 * quota_give() - Count one less; it was taken
 * Context: any worker's thread.
 */
void quota_give(struct quota *q, uint64_t key);

#endif /* QUOTA_H */
