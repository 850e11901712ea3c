/* SPDX-License-Identifier: Apache-2.0 */
/**
 * digest.h - do both nodes hold the same records? A sum over each shard, kept as records change
 *
 * Theory of operation
 *   The digest of a shard is the number of its records that both nodes know in the same version, and the sum, modulo
 *   2^64, of their hashes. The order of arrival is of no matter, and one record goes in or out at the price of
 *   one hash. ACTIVE takes a record out when it changes, and in again, with its new content, when the change is
 *   told; PASSIVE does so when the change comes in. So both have the same digest at the same point of the
 *   stream of changes: behind all that was told before it.
 *
 *   Hash: SipHash-1-3 (Aumasson and Bernstein: one round a word, three at the end) under the pair's shard key of
 *   these bytes, little-endian, but ports and addresses as on the wire:
 *
 *     at   bytes
 *      0   8    id
 *      8   2    origin
 *     10   2    rule; 0 where it was not sent
 *     12   4    version
 *     16   2    inside port
 *     18   2    remote port
 *     20   2    external port
 *     22   1    state
 *     23   1    flags: FIN_ORIG, FIN_REPLY, INBOUND, RESET; the other bits are 0
 *     24   1    form
 *     25   1    protocol
 *     26   1    in_port
 *     27   1    out_port
 *     28   4    0
 *     32   4    inside address, IPv4    or 16, IPv6
 *     36   4    remote address          or 16
 *     40   4    external address        or 16
 *
 *   What a node keeps for itself is not in it: its number of the pool, FP_RF_HAIRPIN and the other local flags,
 *   windows, counters, times.
 *
 *   Who knows what: flow_hot.epoch.
 *
 *     EPOCH_NEVER                 the peer was never told of it: its delete is none
 *     EPOCH_OLD                   told before the last sweep of the shard, or another rule since: told anew as FP_OP_OPEN
 *     EPOCH_REPLACED              reopened, and the peer still has the one before
 *     core.epoch[shard]           told, or imported, since
 *     any other                   as EPOCH_OLD
 *
 *   A shard is lost when a change of it finds no room in the queue: nobody knows what the peer holds of it, so its
 *   epoch moves on, nothing of it is told, and a sweep (transfer.c) is due.
 */
#ifndef DIGEST_H
#define DIGEST_H

#include "step.h"

enum { EPOCH_NEVER, EPOCH_OLD, EPOCH_REPLACED, EPOCH_FIRST };

/**
 * struct session_was - What of a record may change, as it was
 * @state: enum fp_state
 * @flags: FP_RF_*
 */
struct session_was {
	uint8_t state, flags;
};

/* Taken before a record changes, for digest_leave() afterwards. */
static inline struct session_was session_was(const struct flow_hot *f)
{
	return (struct session_was){ .state = f->state, .flags = f->flags };
}

static inline uint64_t shard_bit(uint32_t shard)
{
	return UINT64_C(1) << shard;
}

/* Do both nodes know it? What is told of it need not be its latest version. */
static inline bool digest_knows(const struct core *c, uint32_t idx)
{
	const struct flow_rec *rec = &c->table.rec[idx];

	return rec->hot.epoch == c->epoch[rec->cold.shard];
}

/**
 * digest_hash() - Hash of a record as it was
 */
uint64_t digest_hash(const struct core *c, uint32_t idx, struct session_was was);

/**
 * digest_leave() - A record is about to change, or has, but for its version, rule and identity
 * @was: its state and flags before
 *
 * It is out of the digest of its shard until digest_enter(). Does nothing if it is out already.
 */
void digest_leave(struct core *c, uint32_t idx, struct session_was was);

/**
 * digest_enter() - Both nodes know the record as it is now
 */
void digest_enter(struct core *c, uint32_t idx);

/**
 * digest_forget() - The peer is not known to have anything of these shards
 * @shards: a bit each
 */
void digest_forget(struct core *c, uint64_t shards);

/**
 * digest_lose() - Changes of a shard could not be queued: a sweep of it is due
 */
void digest_lose(struct core *c, uint32_t shard);

/* The shards of this worker. */
static inline uint64_t digest_own(const struct core *c)
{
	uint64_t own = 0;

	for (uint32_t shard = c->worker; shard < FP_SHARDS; shard += c->cfg->n_workers)
		own |= shard_bit(shard);
	return own;
}

#endif /* DIGEST_H */
