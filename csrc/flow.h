/* SPDX-License-Identifier: Apache-2.0 */
/**
 * flow.h - the records: flows and mappings, and the index that finds them
 *
 * Theory of operation
 *   A flow has three endpoints: inside (the client), remote (the server), external (what the server sees
 *   instead of the client: an address of a pool and a port). A mapping (RFC 4787 endpoint-independent
 *   mapping) says which external endpoint stands for an inside endpoint; it owns the external port and the
 *   list of its flows, and goes when the last of them goes.
 *
 *   A record has three parts: `hot`, the line that each packet reads; `cold`, the line that each packet
 *   counts in; and, in a parallel array, `link`, what only slow events touch. Index 0 is never used and
 *   means "none". Each record stands twice in one hash index, once for each direction:
 *
 *     entry = index << 1 | side
 *               side 0 (outbound)                        side 1 (inbound)
 *     flow      inside + remote endpoint, proto          pool, external port + remote endpoint, proto
 *     mapping   inside endpoint, proto, pool             pool, external port, proto
 *
 *   Life of a slot: FREE -> FLOW or MAPPING -> (TOMB_FLOW or TOMB_MAPPING) -> FREE. A tombstone is out of
 *   the index, but keeps slot and external port until the peer has acknowledged its delete, so that no new
 *   connection meets the old one's port on the other node.
 */
#ifndef FLOW_H
#define FLOW_H

#include "base.h"
#include "hash.h"

enum rec_kind { REC_FREE, REC_FLOW, REC_MAPPING, REC_TOMB_FLOW, REC_TOMB_MAPPING };
enum flow_side { SIDE_OUT, SIDE_IN };

enum { FLOW_NONE = 0, ADJ_NONE = 0xffff };

/**
 * struct flow_hot - line 0: every packet
 * @inside:        inside address
 * @remote:        remote address; zero in mappings
 * @inside_port:   ICMP: the identifier
 * @remote_port:   ICMP: 0
 * @external_port: ICMP: the identifier that stands for it
 * @proto:         IANA
 * @pool:          index of the pool whose address is the external address
 * @kind:          enum rec_kind
 * @state:         enum fp_state
 * @flags:         FP_RF_*
 * @zones:         inside port << 4 | outside port: a flow pins its zones
 * @deadline_tick: wheel tick at which it is due if nothing else happens
 * @adj_gen:       generation of the FIB that @adj belongs to
 * @adj:           by side: index of the next hop's neighbour; ADJ_NONE = look it up
 * @map:           mapping of a flow
 * @version:       grows with each exported change
 */
struct flow_hot {
	struct fp_addr inside;
	struct fp_addr remote;
	be16 inside_port;
	be16 remote_port;
	be16 external_port;
	uint8_t proto;
	uint8_t pool;
	uint8_t kind;
	uint8_t state;
	uint8_t flags;
	uint8_t zones;
	uint32_t deadline_tick;
	uint32_t adj_gen;
	uint16_t adj[2];
	uint32_t map;
	uint32_t version;
};

/**
 * struct flow_cold - line 1: what each packet counts, and the TCP windows
 * @packets: by side
 * @bytes:   by side, IP length
 * @end:     highest sequence number sent + length; by side: 0 = inside's
 * @max_end: highest acknowledgement of the other side + its window
 * @max_win: largest window advertised, scaled
 * @scale:   window scale
 * @wflags:  1: scale known, 2: SACK permitted, 4: @end is valid (local)
 * @origin:  who made the record
 * @admin:   enum flow_admin
 * @shard:   owner
 */
struct flow_cold {
	uint64_t packets[2];
	uint64_t bytes[2];
	uint32_t end[2];
	uint32_t max_end[2];
	uint32_t max_win[2];
	uint8_t scale[2];
	uint8_t wflags[2];
	uint16_t origin;
	uint8_t admin;
	uint8_t shard;
};

enum flow_admin {
	ADMIN_QUEUED = 1,          /* in the dirty queue; belongs to the slot, survives its reuse */
	ADMIN_FIN_ACKED_ORIG = 2,  /* the FIN from inside was acknowledged */
	ADMIN_FIN_ACKED_REPLY = 4, /* the FIN from outside was acknowledged */
	ADMIN_LENIENT = 8,         /* imported, or opened in the middle: windows are not to be trusted */
	ADMIN_IMPLIED = 16         /* mapping made for an imported flow; its own record did not come (yet) */
};

/**
 * struct flow_link - half a line: slow events only
 * @id:         identity, together with flow_cold.origin
 * @wheel_next: timer wheel; in a free slot the free list
 * @wheel_prev: timer wheel
 * @sched_tick: wheel tick at which the wheel looks at it; 0 = not on the wheel
 * @map_next:   mapping: its first flow; flow: next flow of the same mapping
 * @map_prev:   flow: the one before, or the mapping itself
 * @epoch:      core.import_epoch when it was last imported
 * @pad:        0
 */
struct flow_link {
	uint64_t id;
	uint32_t wheel_next, wheel_prev;
	uint32_t sched_tick;
	uint32_t map_next, map_prev;
	uint16_t epoch;
	uint16_t pad;
};

/**
 * struct flow_rec - What the packets of a session touch
 * @hot:  line 0
 * @cold: line 1
 *
 * Two neighbouring lines share a page: one TLB miss for both, and 10 ns a packet less than two arrays.
 */
struct flow_rec {
	struct flow_hot hot;
	struct flow_cold cold;
};

static_assert(sizeof(struct flow_hot) == CACHE_LINE, "one line");
static_assert(sizeof(struct flow_cold) == CACHE_LINE, "one line");
static_assert(sizeof(struct flow_link) == CACHE_LINE / 2, "half a line");
static_assert(offsetof(struct flow_hot, kind) == 40, "the key stands first");

/**
 * struct flow_key - What the index is asked for
 * @a:     side 0: inside address; side 1: zero
 * @b:     flow: remote address; mapping: zero
 * @pa:    side 0: inside port; side 1: external port
 * @pb:    flow: remote port; mapping: 0
 * @proto: IANA
 * @pool:  pool; 0 for a flow on side 0
 * @side:  enum flow_side
 * @kind:  REC_FLOW or REC_MAPPING
 */
struct flow_key {
	union {
		struct {
			struct fp_addr a, b;
			be16 pa, pb;
			uint8_t proto, pool, side, kind;
		};
		uint64_t w[5]; /* for hashing, and for writing it with few and wide stores */
	};
};

static_assert(sizeof(struct flow_key) == 40, "hashed as five words, without padding");

/**
 * struct flow_table - The records
 * @rec:     cap + 1 of them
 * @link:    same index
 * @cap:     records that can be held
 * @n_fresh: slots used at least once
 * @n_free:  slots that can be allocated
 * @free:    first of the freed slots, linked by wheel_next
 * @key:     secret of the index
 */
struct flow_table {
	struct flow_rec *rec;
	struct flow_link *link;
	uint32_t cap;
	uint32_t n_fresh;
	uint32_t n_free;
	uint32_t free;
	struct hash_key key;
};

static inline uint64_t flow_hash(const struct flow_table *t, const struct flow_key *key)
{
	return hash_words5(t->key, key->w);
}

/* The two words of an IPv4 address in a key. */
static inline void flow_key_v4(uint64_t w[2], be32 v4)
{
	w[0] = 0;
	w[1] = (uint64_t)v4.raw << 32 | UINT64_C(0xffff0000);
}

/* The last word of a key, made in a register: narrow stores would stall the wide load that hashes them. */
static inline uint64_t flow_key_tail(be16 pa, be16 pb, uint8_t proto, uint8_t pool, uint8_t side,
				     uint8_t kind)
{
	return pa.raw | (uint64_t)pb.raw << 16 | (uint64_t)proto << 32 | (uint64_t)pool << 40 |
	       (uint64_t)side << 48 | (uint64_t)kind << 56;
}

/* The key of a flow in its two directions, written into the words of a struct flow_key. */
static inline void flow_key_out(uint64_t w[5], be32 inside, be16 inside_port, be32 remote, be16 remote_port,
				uint8_t proto)
{
	flow_key_v4(w, inside);
	flow_key_v4(w + 2, remote);
	w[4] = flow_key_tail(inside_port, remote_port, proto, 0, SIDE_OUT, REC_FLOW);
}

static inline void flow_key_in(uint64_t w[5], uint32_t pool, be16 external_port, be32 remote,
			       be16 remote_port, uint8_t proto)
{
	w[0] = 0;
	w[1] = 0;
	flow_key_v4(w + 2, remote);
	w[4] = flow_key_tail(external_port, remote_port, proto, (uint8_t)pool, SIDE_IN, REC_FLOW);
}

/**
 * flow_key_of() - The key under which record @idx is indexed on @side
 */
struct flow_key flow_key_of(const struct flow_table *t, uint32_t idx, uint32_t side);

/**
 * flow_alloc() - Take a slot
 *
 * All of it is zero but ADMIN_QUEUED. The caller sets kind and key, then calls flow_index().
 * Return: index, or FLOW_NONE when the table is full.
 */
uint32_t flow_alloc(struct flow_table *t);

/**
 * flow_free() - Give a slot back; it is in no list and not in the index
 */
void flow_free(struct flow_table *t, uint32_t idx);

/**
 * flow_index() - Put both directions of a record into the index
 * Return: false when there is no room; nothing is inserted then.
 */
bool flow_index(struct flow_table *t, struct hash *h, uint32_t idx);

/**
 * flow_unindex() - Take both directions out
 */
void flow_unindex(struct flow_table *t, struct hash *h, uint32_t idx);

/**
 * flow_matches() - Is this the record that @key names?
 * @entry: from the index; may be stale
 */
static inline bool flow_matches(const struct flow_table *t, uint32_t entry, const struct flow_key *key)
{
	const struct flow_hot *f = &t->rec[entry >> 1].hot;

	if ((entry & 1) != key->side || f->kind != key->kind || f->proto != key->proto)
		return false;
	if (key->side == SIDE_OUT) {
		if (f->inside_port.raw != key->pa.raw || !addr_eq(&f->inside, &key->a))
			return false;
		if (key->kind == REC_MAPPING)
			return f->pool == key->pool;
	} else {
		if (f->external_port.raw != key->pa.raw || f->pool != key->pool)
			return false;
		if (key->kind == REC_MAPPING)
			return true;
	}
	return f->remote_port.raw == key->pb.raw && addr_eq(&f->remote, &key->b);
}

/**
 * flow_candidate() - First entry of the home bucket whose tag agrees; a guess, to fetch its record early
 */
static inline uint32_t flow_candidate(const struct hash *h, uint64_t hash)
{
	const struct hash_bucket *b = hash_bucket(h, hash, 0);
	uint32_t match = hash_match(b, hash_tag(hash));

	return match ? b->entry[__builtin_ctz(match)] : 0;
}

/* Record 0 is nobody's, but it is there: no need to ask whether there was a guess. */
static inline void flow_touch(const struct flow_table *t, uint32_t entry)
{
	touch_line(&t->rec[entry >> 1].hot);
	touch_line(&t->rec[entry >> 1].cold);
}

/**
 * flow_find() - Look a record up
 * Return: entry (index << 1 | side), or 0.
 */
uint32_t flow_find(const struct flow_table *t, const struct hash *h, const struct flow_key *key,
		   uint64_t hash);

#endif /* FLOW_H */
