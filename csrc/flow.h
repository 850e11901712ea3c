/* SPDX-License-Identifier: Apache-2.0 */
/**
 * flow.h - the records: one for each session, and the index that finds them
 *
 * Theory of operation
 *   A session has three endpoints, whoever opened it: inside (the client, or a server behind a forward),
 *   remote, and external: what the remote side sees instead of inside. enum fp_form says where that comes from:
 *     SNAT     an address of a pool and a port (ICMP: identifier) that was allocated from it
 *     STATIC   an address of a pool and the port of a forward
 *     NONE     it is the inside endpoint
 *   Protocols without ports have ports 0 and an external address only.
 *
 *   An endpoint-independent mapping (RFC 4787 REQ-1) is no record: it is the set of SNAT sessions with the same
 *   inside endpoint, protocol and pool. They share the external port, and stand in a ring (flow_link.map_*).
 *   One of them, the leader, owns the port and is in the index under the keys of the mapping besides its own.
 *   When it goes, the next one takes over; when the last one goes, the port is free.
 *
 *   A record has three parts: `hot`, the line that each packet reads; `cold`, the line that each packet
 *   counts in; and, in a parallel array, `link`, what only slow events touch. Index 0 is never used and
 *   means "none". The index has two entries of each record, one for each direction, and two more of a leader:
 *
 *     entry = index << 1 | side
 *               side 0 (outbound)                        side 1 (inbound)
 *     flow      inside + remote endpoint, proto          pool, external port + remote endpoint, proto
 *                                                        NONE: inside address too, pool FP_POOL_NONE
 *     mapping   inside endpoint, proto, pool             pool, external port, proto
 *
 *   Pool of STATIC and of portless sessions: the first pool with the address (nat_pool_of_addr()).
 *
 *   Life of a slot: FREE -> FLOW -> (TOMB) -> FREE. A tombstone is out of the index, but keeps the slot, and a
 *   leader's external port, until the peer has acknowledged its delete, so that no new connection meets the
 *   old one's port on the other node.
 */
#ifndef FLOW_H
#define FLOW_H

#include "base.h"
#include "hash.h"

enum {
	FLOW_FLAGS_TOLD = FP_RF_FIN_ORIG | FP_RF_FIN_REPLY | FP_RF_INBOUND | FP_RF_RESET
}; /* the rest is local */
enum rec_kind { REC_FREE, REC_FLOW, REC_TOMB };
enum key_kind { KEY_FLOW = 1, KEY_MAPPING = 2 };
enum flow_side { SIDE_OUT, SIDE_IN };

enum { FLOW_NONE = 0, ADJ_NONE = 0xffff, POOL_NONE = FP_POOL_NONE };

/**
 * struct flow_hot - line 0: every packet
 * @inside:        inside address
 * @remote:        remote address
 * @inside_port:   ICMP: the identifier
 * @remote_port:   ICMP: 0
 * @external_port: ICMP: the identifier that stands for it; form NONE: the inside port
 * @proto:         IANA
 * @pool:          index of the pool whose address is the external address, or POOL_NONE
 * @kind:          enum rec_kind
 * @state:         enum fp_state
 * @flags:         FP_RF_*
 * @zones:         inside port << 4 | outside (or other inside) port: a flow pins its zones
 * @deadline_tick: wheel tick at which it is due if nothing else happens
 * @adj_gen:       generation of the FIB that @adj belongs to
 * @adj:           by side: index of the next hop's neighbour; ADJ_NONE = look it up
 * @version:       grows with each exported change
 * @rule:          rule that allowed it, 0 = built in; changed by session_set_rule() only
 * @form:          enum fp_form
 * @epoch:         what the peer knows of it (digest.h)
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
	uint32_t version;
	uint16_t rule;
	uint8_t form;
	uint8_t epoch;
};

/**
 * struct flow_cold - line 1: what each packet counts, and the TCP windows
 * @packets: by side
 * @bytes:   by side, IP length
 * @end:     highest sequence number sent + length; by side: 0 = inside's
 * @max_end: highest acknowledgement of the other side + its window: no segment begins beyond
 * @max_win: largest window advertised, scaled
 * @scales:  window scales, inside's in the low half
 * @wflags:  TCP_WIN_* (tcptrack.h)
 * @watch:   tcptrack_mode.watch when a segment last passed here
 * @origin:  who made the record
 * @admin:   enum flow_admin
 * @shard:   owner
 * @dirty:   the peer has not been told of its last change; outside of the digest
 * @refused: the peer has said that it does not have it; until it is told anew
 */
struct flow_cold {
	uint64_t packets[2];
	uint64_t bytes[2];
	uint32_t end[2];
	uint32_t max_end[2];
	uint32_t max_win[2];
	uint8_t wflags[2];
	uint8_t scales;
	uint8_t watch;
	uint16_t origin;
	uint8_t admin;
	uint8_t shard : 6;
	uint8_t dirty : 1;
	uint8_t refused : 1;
};

static_assert(FP_SHARDS <= 64, "flow_cold.shard");

enum flow_admin {
	ADMIN_QUEUED = 1,          /* in the urgent queue; belongs to the slot, survives its reuse */
	ADMIN_FIN_ACKED_ORIG = 2,  /* the FIN from inside was acknowledged */
	ADMIN_FIN_ACKED_REPLY = 4, /* the FIN from outside was acknowledged */
	ADMIN_LAZY = 8,            /* in the lazy queue; likewise */
	ADMIN_LEADER = 16,         /* of a mapping: owns the external port; a tombstone that still holds it */
	ADMIN_COUNTED = 32,        /* in the quota of its source */
	ADMIN_PORT_COUNTED = 64,   /* leader: its port is in the quota of its source */
	ADMIN_RULE_COUNTED = 128   /* in the quota of its source and rule */
};

/**
 * struct flow_link - slow events only
 * @id:         identity, together with flow_cold.origin; of a tombstone that was drained, its event's number
 * @wheel_next: timer wheel; in a free slot the free list; of a drained tombstone the next one
 * @wheel_prev: timer wheel: the one before, or the slot (wheel.c); 0 = not on the wheel
 * @map_next:   ring of the sessions of one mapping; a session alone is its own neighbour
 * @map_prev:   the same ring, the other way; 0 = no mapping
 */
struct flow_link {
	uint64_t id;
	uint32_t wheel_next, wheel_prev;
	uint32_t map_next, map_prev;
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
static_assert(sizeof(struct flow_link) == 24, "memory of a session, see csrc/README.md");
static_assert(offsetof(struct flow_hot, kind) == 40, "the key stands first");

/**
 * struct flow_key - What the index is asked for
 * @a:     side 0: inside address; side 1: zero, or the inside address for POOL_NONE
 * @b:     flow: remote address; mapping: zero
 * @pa:    side 0: inside port; side 1: external port
 * @pb:    flow: remote port; mapping: 0
 * @proto: IANA
 * @pool:  pool, or POOL_NONE; 0 for a flow on side 0
 * @side:  enum flow_side
 * @kind:  enum key_kind
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

/* The keys of a flow in its two directions, written into the words of a struct flow_key. */
static inline void flow_key_out(uint64_t w[5], be32 inside, be16 inside_port, be32 remote, be16 remote_port,
				uint8_t proto)
{
	flow_key_v4(w, inside);
	flow_key_v4(w + 2, remote);
	w[4] = flow_key_tail(inside_port, remote_port, proto, 0, SIDE_OUT, KEY_FLOW);
}

static inline void flow_key_in(uint64_t w[5], uint32_t pool, be16 external_port, be32 remote,
			       be16 remote_port, uint8_t proto)
{
	w[0] = 0;
	w[1] = 0;
	flow_key_v4(w + 2, remote);
	w[4] = flow_key_tail(external_port, remote_port, proto, (uint8_t)pool, SIDE_IN, KEY_FLOW);
}

/* Side 1 of a flow that is not translated. */
static inline void flow_key_in_none(uint64_t w[5], be32 inside, be16 inside_port, be32 remote,
				    be16 remote_port, uint8_t proto)
{
	flow_key_v4(w, inside);
	flow_key_v4(w + 2, remote);
	w[4] = flow_key_tail(inside_port, remote_port, proto, POOL_NONE, SIDE_IN, KEY_FLOW);
}

/**
 * flow_key_of() - The key under which a record of these endpoints is indexed on @side
 * @kind: KEY_FLOW, or KEY_MAPPING for what its leader has besides
 */
struct flow_key flow_key_of(const struct flow_hot *f, uint32_t side, enum key_kind kind);

static inline bool flow_is_leader(const struct flow_table *t, uint32_t idx)
{
	return t->rec[idx].cold.admin & ADMIN_LEADER;
}

/**
 * flow_alloc() - Take a slot
 *
 * All of it is zero but ADMIN_QUEUED and ADMIN_LAZY. The caller sets kind and key, then calls flow_index().
 * Return: index, or FLOW_NONE when the table is full.
 */
uint32_t flow_alloc(struct flow_table *t);

/**
 * flow_free() - Give a slot back; it is in no list and not in the index
 */
void flow_free(struct flow_table *t, uint32_t idx);

/**
 * flow_index() - Put both directions of a record into the index
 * @kind: KEY_FLOW, or KEY_MAPPING when it becomes a leader
 * Return: false when there is no room; nothing is inserted then.
 */
bool flow_index(struct flow_table *t, struct hash *h, uint32_t idx, enum key_kind kind);

/**
 * flow_unindex() - Take both directions out
 */
void flow_unindex(struct flow_table *t, struct hash *h, uint32_t idx, enum key_kind kind);

/* Which of two inside endpoints is "inside"? The smaller one. */
static inline bool flow_in_order(const struct fp_addr *a, be16 pa, const struct fp_addr *b, be16 pb)
{
	int order = memcmp(a, b, sizeof(*a));

	return order < 0 || (order == 0 && be16_host(pa) <= be16_host(pb));
}

/* As flow_matches(), for a mapping. */
static inline bool flow_leads(const struct flow_table *t, uint32_t idx, const struct flow_key *key)
{
	const struct flow_hot *f = &t->rec[idx].hot;

	if (f->proto != key->proto || f->pool != key->pool || !flow_is_leader(t, idx))
		return false;
	return key->side == SIDE_OUT ? f->inside_port.raw == key->pa.raw && addr_eq(&f->inside, &key->a)
				     : f->external_port.raw == key->pa.raw;
}

static_assert(offsetof(struct flow_hot, inside_port) == 32 && offsetof(struct flow_hot, pool) == 39,
	      "ports, protocol and pool are one word; flow_tail_differs()");

/* Ports, protocol and, inbound, the pool. One word against one, whichever side: nobody can predict that. */
static inline uint64_t flow_tail_differs(const struct flow_hot *f, const struct flow_key *key)
{
	static const uint64_t mask[] = { UINT64_C(0x00ff0000ffffffff), UINT64_C(0xffffffffffff0000) };
	const uint64_t tail = u64_load((const uint8_t *)f + offsetof(struct flow_hot, inside_port));
	const uint64_t wanted = (key->w[4] & 0xffff0000) | (key->w[4] & 0xffff) << (key->side * 32) |
				key->w[4] >> 32 << 48;

	return (tail ^ wanted) & mask[key->side];
}

/**
 * flow_matches() - Is this the record that @key names?
 * @entry: from the index; may be stale
 */
static inline bool flow_matches(const struct flow_table *t, uint32_t entry, const struct flow_key *key)
{
	const struct flow_hot *f = &t->rec[entry >> 1].hot;

	if ((entry & 1) != key->side || f->kind != REC_FLOW)
		return false;
	if (unlikely(key->kind == KEY_MAPPING))
		return flow_leads(t, entry >> 1, key);
	if (flow_tail_differs(f, key) || !addr_eq(&f->remote, &key->b))
		return false;
	/* Inbound the external endpoint stands for the inside one, unless it is not translated. */
	return (key->side == SIDE_IN && key->pool != POOL_NONE) || addr_eq(&f->inside, &key->a);
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
