/* SPDX-License-Identifier: Apache-2.0 */
/**
 * commit.h - output commit: no packet of a session leaves before the peer could go on with it
 *
 * DOC: Theory of Operation
 *
 * While control says that a peer is in sync (commit_set()), a session that is born and told to the peer holds its
 * packets, by the mode of the rule that allows it:
 *
 *   mode      its packets
 *   async     leave at once
 *   bounded   wait for the peer's acknowledgement, at most sync.hold_ms; then they leave. Once that has gone on for
 *             COMMIT_DEGRADE_MS the worker is degraded: it holds no new sessions until the lag that it measures
 *             is short again, or, when no session is born that it could be measured by, for COMMIT_QUIET_MS
 *   strict    wait for the acknowledgement; what has waited COMMIT_STRICT_S is dropped
 *
 * FP_RF_HELD on the record's first line says that its packets wait: a bit that is tested together with what every
 * packet tests anyway. A packet is put aside as it came, before it changes anything (hold.h), and once it may go it
 * goes through core_step() from the beginning. The shell steps released frames before it reads others, so the
 * packets of a session leave in the order in which they came.
 *
 *   commit_born()    the session is made: a birth, with or without holding
 *   commit_told()    its first record has got a place in the stream of events
 *   commit_acked()   the peer has it live: the lag is known, and what it holds may go
 *   commit_refused() the peer has heard of it, and did not take it: that acknowledgement is not for this session.
 *                    What it holds waits on, as its mode says, for a sweep to tell it anew
 *   commit_due()     time is up
 *   commit_forget()  the session is gone: what it holds is dropped
 *
 * Births stand in a table of COMMIT_BIRTHS, found by the record's index. Those that were told are in a queue in the
 * order of the stream, those that hold and whose time runs in a queue for each mode, in the order of their deadlines.
 * A birth that does not hold is there for its lag alone, and takes a place only while half of the table is free.
 *
 * Everything is bounded. What finds no room:
 *
 *   a new session, bounded: it does not hold, and its packets leave (counted: hold_unheld)
 *   a new session, strict: refused (hold_full)
 *   a packet of a session that holds: dropped (hold_full)
 *
 * Of one session at most one slot in HOLD_EACH_SHARE is taken.
 *
 * The second half of a hairpin is a session of its own, about which no rule is asked: the default mode holds.
 */
#ifndef COMMIT_H
#define COMMIT_H

#include "hold.h"
#include "lag.h"

struct core;
struct flow_hot;
struct pkt;

enum {
	COMMIT_BIRTHS = 8192,    /* of one worker, not acknowledged; all of them indices of 16 bits */
	COMMIT_STRICT_S = 3,     /* as long as a frame waits for a neighbour */
	COMMIT_DEGRADE_MS = 100, /* of sessions let go, and none acknowledged in time: this peer is slow */
	COMMIT_RECOVER_MS =
		200, /* a degraded worker holds again after so long without a lag that was too long */
	COMMIT_QUIET_MS = 10000, /* ... or so long with nothing that the peer has not acknowledged */
	COMMIT_MODES = 3,
	COMMIT_NONE = UINT16_MAX
};

static_assert((int)COMMIT_BIRTHS < (int)COMMIT_NONE, "indices are 16 bits");

/**
 * struct birth - A session that the peer has not acknowledged yet
 * @id:      identity of the session
 * @born_ns: when it was made
 * @ev_seq:  number of the event that told it; 0: it was not told yet
 * @again:   number of the last event that told it: a sweep may have begun since @ev_seq
 * @since_ns: in a queue of deadlines: since when its packets wait
 * @idx:     its record; FLOW_NONE: it is gone, and only its lag is of interest
 * @chain:   the next one of its bucket, or of the free ones
 * @later:   told: the next one in the order of the stream
 * @before, @behind: in a queue of deadlines
 * @frames:  what it holds
 * @mode:    enum fp_commit
 * @holds:   FP_RF_HELD is set
 * @timed:   it is in the queue of deadlines of its mode
 * @refused: the peer did not take it; until it is told anew
 */
struct birth {
	uint64_t id;
	uint64_t born_ns;
	uint64_t ev_seq;
	uint64_t again;
	uint64_t since_ns;
	uint32_t idx;
	uint16_t chain, later, before, behind;
	struct hold_chain frames;
	uint8_t mode;
	bool holds, timed, refused;
};

struct commit_queue {
	uint16_t head, tail;
};

/**
 * struct commit - Output commit of one worker
 * @on:          a peer is in sync
 * @unknown_id:  while it is not: nobody has acknowledged our sessions of this id and later ones; 0: none at all
 * @is_degraded: bounded sessions are not held
 * @missed:      while it is: sessions that found no place in @births, from the first to the last such; once the last
 *               (or one after it) was told, the number of that event. All 0: there are none
 * @late_ns:     when a session was let go, and none has been acknowledged within hold_ms since; 0: none
 * @bad_ns:      when the lag was last found to be too long
 * @cap:         places in @births
 * @n_buckets:   a power of two
 * @n:           births
 * @n_untold:    of them, those that were not told yet
 * @each:        frames of one session at most
 * @births:      the table
 * @buckets:     by record: first birth, or COMMIT_NONE
 * @unused:      free places
 * @told:        births in the order of the stream
 * @timed:       by mode: births whose time runs, in the order of their deadlines
 * @hold:        frames
 * @lag:         from creation to acknowledgement
 * @held_for:    how long frames were held
 * @holding:     gauge: sessions that hold
 * @pending:     gauge: @n
 * @degraded:    gauge: @is_degraded
 * @released:    frames that left because the peer has their session, or because there is none any more
 * @expired:     frames that left because hold_ms were over
 * @full:        frames and sessions that were refused for want of room
 * @dropped:     frames that waited and were dropped: strict, or their session ended
 * @unheld:      sessions that should have been held and were not: no room, or degraded
 * @degradations: how often @is_degraded became true
 */
struct commit {
	bool on;
	bool is_degraded;
	uint64_t unknown_id;
	struct {
		uint64_t from, until, ev_seq;
	} missed;
	uint64_t late_ns, bad_ns;
	uint32_t cap, n_buckets, n, n_untold, each;
	struct birth *births;
	uint16_t *buckets;
	uint16_t unused;
	struct commit_queue told;
	struct commit_queue timed[COMMIT_MODES];
	struct hold hold;
	struct lag_histogram lag, held_for;
	counter holding, pending, degraded;
	counter released, expired, full, dropped, unheld, degradations;
};

/**
 * commit_mem_size() - Bytes that commit_init() wants
 * @flow_cap: records of the worker
 */
size_t commit_mem_size(const struct fp_config *cfg, uint32_t flow_cap);

/**
 * commit_init() - Set up; commit is off
 * @mem: aligned to CACHE_LINE
 */
void commit_init(struct commit *m, void *mem, const struct fp_config *cfg, uint32_t flow_cap);

/**
 * commit_set() - A peer is in sync, or none is any more
 *
 * Off: everything that is held may go, and nothing is held from now on.
 */
void commit_set(struct core *c, bool on);

/**
 * commit_refuses() - Must a session like this not be opened?
 * @f: what it would be
 *
 * A strict one whose birth cannot be remembered must not: none of its packets may leave.
 */
bool commit_refuses(const struct core *c, const struct flow_hot *f);

/**
 * commit_born() - A session was made whose first record will be told
 * @p: the packet that made it
 *
 * Sets FP_RF_HELD if it holds; there is a slot for @p then.
 */
void commit_born(struct core *c, uint32_t idx, const struct pkt *p);

/**
 * commit_told() - The record was written into the stream as event @ev_seq, with all that a takeover needs
 *
 * To be called for each FP_OP_OPEN; events have growing numbers.
 */
void commit_told(struct core *c, uint32_t idx, uint64_t ev_seq);

/**
 * commit_acked() - The peer has everything up to @ev_seq live
 */
void commit_acked(struct core *c, uint64_t ev_seq);

/**
 * commit_refused() - The peer did not take it; before commit_acked() with the same @ev_seq
 */
void commit_refused(struct core *c, uint32_t idx, uint64_t ev_seq);

/**
 * commit_due() - Let go, or drop, what has waited long enough
 */
void commit_due(struct core *c, uint64_t now_ns);

/**
 * commit_deadline() - When commit_due() has something to do; UINT64_MAX: never
 */
uint64_t commit_deadline(const struct core *c);

/**
 * commit_forget() - The record goes, or begins a new life
 */
void commit_forget(struct core *c, uint32_t idx);

/**
 * commit_hold() - Put a packet of a session with FP_RF_HELD aside, as it is now
 * Return: V_HELD, or V_HOLD_FULL.
 */
COLD uint32_t commit_hold(struct core *c, struct fp_frame *frame, uint32_t idx);

/**
 * commit_pop() - The next frame that may go
 * @out: .data has room for the longest frame of the node's ports; filled in as from rx
 * Return: false when there is none.
 */
bool commit_pop(struct core *c, struct fp_frame *out);

/**
 * commit_clear() - Drop everything that is held, and hold nothing from now on: this node does not forward any more
 */
void commit_clear(struct core *c, uint32_t verdict);

/* commit_nobody() - Nobody has what was told so far: there is another peer, or none */
void commit_nobody(struct core *c);

/**
 * commit_is_unacked() - Is this session among those that the peer has not acknowledged?
 *
 * While no peer is in sync, nobody acknowledges what is told: then each that is new since is. Where it cannot be
 * known of one (there were too many at a time), it is taken to be one of them.
 */
bool commit_is_unacked(const struct core *c, uint32_t idx);

/**
 * commit_stats_read() - Fill the fields of @out that are about held packets and lag; any thread
 */
void commit_stats_read(const struct commit *m, struct fp_sync_stats *out);

#endif /* COMMIT_H */
