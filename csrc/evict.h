/* SPDX-License-Identifier: Apache-2.0 */
/**
 * evict.h - who goes before his time when table or ports run out
 *
 * Closed sessions go first, then the embryonic ones (only one side has been heard, or a handshake is not
 * complete), the oldest of them first; established ones never do. So a flood of openers displaces itself, and
 * the clients' connections go on.
 *
 * What the peer knows leaves a tombstone, which makes room only when the peer has acknowledged it. Hence a
 * reserve: below 1/16 of free slots closed sessions go, below 1/64 embryonic ones. When the last slot is
 * taken nevertheless, one goes for each session that wants in, as long as fewer tombstones than the reserve
 * are under way; and without one, its shard being lost, while the peer has acknowledged nothing for a second.
 */
#ifndef EVICT_H
#define EVICT_H

#include "step.h"

/**
 * births_push() - Remember that record @idx was born, or born again
 */
void births_push(struct core *c, uint32_t idx);

/**
 * evict_some() - Keep the reserve
 * @budget: sessions to remove at most
 * Return: sessions removed.
 */
uint32_t evict_some(struct core *c, uint32_t budget);

/**
 * evict_again() - Go on in the same tick, when the peer has acknowledged what evict_some() had to leave it
 */
void evict_again(struct core *c, uint64_t now_ns, uint32_t budget);

/**
 * evict_one() - The table is full: make room for one session
 * Return: whether there is room.
 */
bool evict_one(struct core *c);

/**
 * evict_port() - All ports of a slice are taken: take one whose sessions are all closed
 * Return: the port, which is the caller's now; or 0.
 */
be16 evict_port(struct core *c, uint32_t pool, uint8_t proto, uint32_t shard);

#endif /* EVICT_H */
