/* SPDX-License-Identifier: Apache-2.0 */
/**
 * frag.h - datagrams that come in fragments: which flow they belong to, and what is not to be believed
 *
 * Theory of operation
 *   Only the first fragment of a datagram names ports. All its fragments, the first included, go to one
 *   worker (frag_shard()); there the table learns the ports from the first, and writes them on the others
 *   (fp_frame.l4_*), which from then on are treated like any packet of their flow: by its owner, who
 *   rewrites their addresses. Nothing is put together, so a datagram costs no more than its packets. Fragments
 *   that come before their first are held, and released in order of arrival once it is there.
 *
 *   What came is remembered in units of 8 bytes, exactly, as a sorted list of spans. A fragment that lies
 *   within what came is a duplicate and is dropped alone: what came first counts. One that lies across its
 *   edge is made up, and damns the datagram (the spirit of RFC 5722): what of it is still to come is refused
 *   with the verdict that the first offender met, without looking further.
 *
 *   Everything is bounded: datagrams, fragments and spans of a datagram, frames held, and time. The place of
 *   a datagram follows from a keyed hash; where all FRAG_WAYS places of its set are taken, the oldest there
 *   goes. With no room for another held frame the datagram goes that has waited longest for its first.
 *
 *   On the way out of a translated network two hosts may use one identification for the same destination,
 *   and the receiver would mix their datagrams (RFC 6864 section 5.3.1; RFC 7857 asks for it). So a datagram
 *   that comes from inside in fragments, or is cut on its way out, gets a new identification; workers share
 *   them out by their residue.
 *
 * Pure: time is an argument.
 */
#ifndef FRAG_H
#define FRAG_H

#include "hash.h"
#include "pkt.h"

enum {
	FRAG_WAYS = 8,
	FRAG_SETS = 64,
	FRAG_DATAGRAMS = FRAG_WAYS * FRAG_SETS, /* of one worker, in progress or refused */
	FRAG_MAX = 128,                         /* fragments of a datagram; 64 KiB at an MTU of 576 are 119 */
	FRAG_SPANS = FRAG_MAX / 2,              /* any order of FRAG_MAX fragments leaves no more gaps */
	FRAG_HELD = 256,                        /* frames held, of one worker */
	FRAG_HELD_EACH = 64,                    /* of one datagram; 64 KiB at an MTU of 1500 are 45 */
	FRAG_WAIT_S = 5,                        /* how long a fragment waits for the first */
	FRAG_LIVE_S = 15 /* how long after the first, or the refusal, others may come */
};

/**
 * struct frag_key - What tells one datagram from another (RFC 791), and where it came from
 * @src:   source address
 * @dst:   destination address
 * @id:    identification, as it came
 * @proto: IANA
 * @port:  port that it came in by
 * @used:  the place is taken
 * @pad:   0
 */
struct frag_key {
	be32 src, dst;
	be16 id;
	uint8_t proto, port;
	uint8_t used;
	uint8_t pad[3];
};

static_assert(sizeof(struct frag_key) == 16, "a set's keys are two cache lines");

enum frag_state { FRAG_WAITING, FRAG_KNOWN, FRAG_REFUSED, FRAG_STATES };

/* What came of a datagram: [from, to) in units of 8 bytes. */
struct frag_span {
	uint16_t from, to;
};

/**
 * struct frag_datagram - A datagram in progress
 * @until_ns: when it is forgotten
 * @state:    enum frag_state
 * @verdict:  FRAG_REFUSED: of all that is still to come
 * @sport:    FRAG_KNOWN: fp_frame.l4_sport
 * @dport:    FRAG_KNOWN: fp_frame.l4_dport
 * @id:       identification that it leaves with
 * @n:        fragments that came, duplicates included
 * @n_spans:  entries of @spans
 * @end:      where it ends, in units of 8 bytes; 0 = the last fragment has not come
 * @n_held:   frames held
 * @held:     the first of them; @held_last the last
 * @older:    in the list of its state; FRAG_NONE = none
 * @newer:    in the list of its state; FRAG_NONE = none
 * @spans:    what came, sorted; neighbours do not touch
 */
struct frag_datagram {
	uint64_t until_ns;
	uint16_t state, verdict;
	be16 sport, dport, id;
	uint16_t n, n_spans, end;
	uint16_t n_held, held, held_last;
	uint16_t older, newer;
	struct frag_span spans[FRAG_SPANS];
};

/**
 * struct frag_held - A frame that is held
 * @len:   length
 * @next:  the next of its chain; FRAG_NONE = none
 * @sport: once released: fp_frame.l4_sport
 * @dport: once released: fp_frame.l4_dport
 * @port:  port that it came in by
 * @src:   enum fp_src
 * @data:  the frame
 */
struct frag_held {
	uint32_t len;
	uint16_t next;
	be16 sport, dport;
	uint8_t port, src;
	uint8_t data[FP_FRAME_MAX];
};

/* A list of datagrams in order of age, or a chain of held frames. */
struct frag_list {
	uint16_t head, tail;
};

/**
 * struct frag_table - The datagrams of one worker that come in fragments
 * @key:       of the hash
 * @keys:      FRAG_DATAGRAMS, in sets of FRAG_WAYS
 * @datagrams: the rest of them
 * @slots:     FRAG_HELD frames
 * @ages:      datagrams of each state, the oldest first
 * @n:         datagrams
 * @unused:    slots that are free
 * @ready:     frames whose datagram is known by now
 * @id:        last identification given away
 * @id_step:   number of workers
 * @n_held:    gauge: frames held, or ready
 * @evicted:   datagrams that went because their set was full
 */
struct frag_table {
	struct hash_key key;
	struct frag_key *keys;
	struct frag_datagram *datagrams;
	struct frag_held *slots;
	struct frag_list ages[FRAG_STATES];
	uint32_t n;
	struct frag_list unused, ready;
	uint16_t id, id_step;
	counter n_held, evicted;
};

/**
 * frag_mem_size() - Bytes that frag_init() wants
 */
size_t frag_mem_size(void);

/**
 * frag_init() - Set up a table
 * @mem:    zeroed, aligned to CACHE_LINE
 * @cfg:    keys, number of workers
 * @worker: index of this one
 */
void frag_init(struct frag_table *t, void *mem, const struct fp_config *cfg, uint32_t worker);

/**
 * frag_shard() - Which worker handles the fragments of a datagram, modulo their number; pure
 * @p: after pkt_parse_ip()
 */
uint32_t frag_shard(const struct fp_config *cfg, const struct pkt *p);

/**
 * frag_take() - A fragment has come whose ports nobody has looked up yet
 * @p:        after pkt_parse_ip(), without IP options, a fragment, of this worker
 * @rename:   give the datagram a new identification
 * @verdicts: what happens to other, held frames is counted here
 *
 * Return: V_GO_ON: @p->frame.l4_* say what the first fragment said. V_FRAG_HELD: a copy is kept. Anything
 *         else: why it is dropped.
 */
uint32_t frag_take(struct frag_table *t, struct pkt *p, bool rename, uint64_t now_ns, counter *verdicts);

/**
 * frag_rename() - A whole datagram that will be cut on its way out gets an identification as if it had come in pieces
 */
void frag_rename(struct frag_table *t, const struct pkt *p);

/**
 * frag_pop() - The next held frame whose datagram is known by now
 * @out: .data has FP_FRAME_MAX bytes of room; filled in as from rx, and .l4_*
 * Return: false when there is none.
 */
bool frag_pop(struct frag_table *t, struct fp_frame *out);

static inline bool frag_is_ready(const struct frag_table *t)
{
	return t->ready.head != UINT16_MAX;
}

/**
 * frag_expire() - Forget datagrams whose time is up, and drop what they hold (V_FRAG_TIMEOUT)
 */
void frag_expire(struct frag_table *t, uint64_t now_ns, counter *verdicts);

/**
 * frag_clear() - Forget everything; what is held is dropped
 */
void frag_clear(struct frag_table *t, uint32_t verdict, counter *verdicts);

#endif /* FRAG_H */
