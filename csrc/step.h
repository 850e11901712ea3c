/* SPDX-License-Identifier: Apache-2.0 */
/**
 * step.h - one worker's core: everything between rx and tx, with time as an argument
 *
 * Theory of operation
 *   A core owns the sessions of its shards (worker = shard mod n_workers) and nobody else touches them,
 *   so nothing here locks, blocks, allocates, reads a clock or makes a system call. The shell (worker.c)
 *   reads frames, hands them to core_step(), sends what comes out and calls core_account(); between
 *   bursts it calls core_expire(), core_drain() and whatever the control thread asked for.
 *
 *   A frame comes out with exactly one verdict and at most one destination (fp_frame.out):
 *     NONE     drop; or parked by the core (FP_OUT_WAIT tells the two apart)
 *     WIRE     send on the wire of out_port; if `fenced`, only while ACTIVE (look again before tx)
 *     HOST     write to the host TAP of out_port
 *     PUNT     give to the control plane (VRRP)
 *     PULSE    a heartbeat that came in on out_port, checked down to UDP: give it to the pulse thread
 *     WAIT     next_hop is not resolved, it is a fragment before the first one, or the peer does not have its
 *              session yet; the core keeps a copy, the shell forgets the frame
 *     CONDUIT  give to the peer (conduit.h), steered by the shard in .owner
 *     HANDOFF  worker `owner` must core_step() it as it is now, .port, .src and .l4_* included. Ownership is a
 *              function of the frame alone, so the owner never hands it on as it is. A fragment crosses twice at
 *              most: to the owner of its datagram (frag.h), and from there with .l4_* to that of the flow. Whoever
 *              translated the first half of a hairpin may hand on the second.
 *
 *   Memory: one zeroed block of core_mem_size() bytes, aligned to a cache line, given to core_init().
 *
 * Context: the owning worker's thread, except where a function says "any thread"; before the workers
 * start, the control thread.
 */
#ifndef STEP_H
#define STEP_H

#include "base.h"
#include "changes.h"
#include "commit.h"
#include "fib.h"
#include "flow.h"
#include "frag.h"
#include "hash.h"
#include "nat.h"
#include "park.h"
#include "policy.h"
#include "quota.h"
#include "session_log.h"
#include "tcptrack.h"
#include "tour.h"
#include "verdict.h"
#include "wheel.h"

struct policy;

/**
 * struct core_port - What the packet path needs of a port, ready to use
 * @mac_word:  mac_word() of the port MAC
 * @vmac_word: the same of the virtual MAC; one that no frame has, if there is none
 * @mac:      port MAC
 * @vmac:     virtual MAC, if @has_vmac
 * @tx_mac:   source of what is routed: the virtual MAC, or the port MAC where there is none
 * @has_vmac: VRRP runs on this port
 * @outside:  zone
 * @len_max:  longest frame on the wire; an offload frame is judged by its segments
 */
struct core_port {
	uint64_t mac_word, vmac_word;
	uint8_t mac[6], vmac[6], tx_mac[6];
	bool has_vmac, outside;
	uint32_t len_max;
};

/* What core_stats_read() and core_sync_stats_read() report; fp_worker_stats and fp_sync_stats explain it. */
struct core_counters {
	counter steps, frames, lookups;
	counter flows, mappings, tombstones, dirty, neigh_waiting;
	counter flows_created, flows_expired, flows_closed, flows_imported, import_refused;
	counter events_lost, import_conflicts;
	counter lazy, lost_shards, sweep_done, sweep_total;
	counter told[FP_OP_REST + 1];
	counter repaired, import_unknown, scrub_errors;
	counter evicted_closed, evicted_embryonic;
};

/**
 * struct repairs - What repair sweeps have put right
 * @shards: under a repair sweep now
 * @log:    the first ones since the log was last taken
 * @n:      of them
 */
struct repairs {
	uint64_t shards;
	struct fp_repair log[64];
	uint32_t n;
};

/**
 * struct births - FIFO of the sessions that were born, to know the oldest embryonic one (evict.c)
 * @ring: identity and index of the record
 * @cap:  entries: as many as records
 * @head: oldest
 * @n:    entries in use, stale ones included
 */
struct births {
	uint32_t *ring;
	uint32_t cap, head, n;
};

/**
 * struct core - one worker's part of the data plane
 * @cfg:             the configuration; outlives the core, never changes
 * @fib:             current next hops; NULL until the first core_set_fib()
 * @policy:          rules and forwards; NULL: everything may go out, nothing comes in
 * @has_forwards:    @policy has any
 * @n_inside:        inside ports
 * @worker:          this worker's index
 * @role:            enum fp_role as core_set_role() left it; only ACTIVE forwards
 * @term:            its term
 * @passes_on:       the role was handed over a moment ago: what is still sent here goes to the peer (wires.h)
 * @conduit:         what the shell was told last, a word of conduit.h
 * @active_since_ns: when ACTIVE began; every session lives its full timeout from here on
 * @now_ns:          time of the call in progress
 * @tcp:             how TCP windows are taken just now
 * @flow_seq:        last flow id made here
 * @ports:           ports
 * @timeout_ticks:   lifetime by enum nat_proto and enum fp_state
 * @table:           records
 * @hash:            index of both directions of all sessions and mappings
 * @nat:             external ports of the shards
 * @wheel:           timers
 * @changes:         what the peer has not heard yet
 * @park:            frames that wait for a neighbour
 * @frags:           datagrams that come in fragments
 * @commit:          sessions that the peer has not acknowledged, and the packets that wait for that
 * @log:             what rules with `log` have decided
 * @wants:           neighbours that the control plane must resolve
 * @icmp_due_ns:     token buckets of our own ICMP errors (icmp.c): to inside, to outside
 * @epoch:           by shard: of the records that both nodes know (digest.h)
 * @digest:          by shard: of those records
 * @digest_key:      the pair's
 * @digest_told:     as of the last FP_OP_DIGEST; control reads it when it has drained that
 * @tour:            the walk that looks after all records
 * @repairs:         of repair sweeps
 * @births:          sessions in the order of their birth
 * @quota:           counts by address, shared by all workers; NULL: there are no limits
 * @evict_hand:      hand of the clock that removes closed sessions when the table is nearly full
 * @evict_scan_ns:   no packet looks for closed sessions before: there were none
 * @verdicts:        packets by verdict
 * @stat:            other counters
 */
struct core {
	const struct fp_config *cfg;
	const struct fib *fib;
	const struct policy *policy;
	bool has_forwards;
	uint32_t n_inside;
	uint32_t worker;
	uint32_t role;
	uint64_t term;
	bool passes_on;
	uint64_t conduit;
	uint64_t active_since_ns;
	uint64_t now_ns;
	struct tcptrack_mode tcp;
	uint64_t flow_seq;
	struct core_port ports[FP_PORTS_MAX];
	uint32_t timeout_ticks[NAT_PROTOS][FP_ST_COUNT];
	struct flow_table table;
	struct hash hash;
	struct nat nat;
	struct wheel wheel;
	struct changes changes;
	struct park park;
	struct frag_table frags;
	struct commit commit;
	struct neigh_wants wants;
	struct session_log log;
	uint64_t icmp_due_ns[2];
	uint8_t epoch[FP_SHARDS];
	struct digest digest[FP_SHARDS];
	uint64_t digest_key[2];
	struct fp_digest digest_told[FP_SHARDS];
	struct tour tour;
	struct repairs repairs;
	struct births births;
	struct quota *quota;
	uint32_t evict_hand;
	uint64_t evict_scan_ns;
	CACHE_ALIGNED counter verdicts[V_COUNT];
	struct core_counters stat;
};

/* ---- life (core.c) ---- */

/**
 * core_mem_size() - Bytes that core_init() wants for one worker of @cfg
 */
size_t core_mem_size(const struct fp_config *cfg);

/**
 * core_init() - Set up a core
 * @c:      storage for the core itself
 * @cfg:    validated by the caller; kept by reference
 * @worker: index of the worker, < cfg->n_workers
 * @mem:    zeroed, aligned to CACHE_LINE (better: to a huge page)
 * @size:   bytes at @mem, at least core_mem_size()
 *
 * Role is INIT, tracking is off, there is no FIB, nothing is counted in a quota.
 * Return: 0, or -EINVAL when @mem does not suit.
 */
int core_init(struct core *c, const struct fp_config *cfg, uint32_t worker, void *mem, size_t size);

/**
 * core_set_quota() - Count the sessions and ports of each source
 * @quota: shared by the cores of the node; before the first packet
 */
void core_set_quota(struct core *c, struct quota *quota);

/* ---- packets (step.c) ---- */

/**
 * core_step() - Take frames from rx to their verdicts, in place
 * @c:      core
 * @frames: .data, .len, .port, .src and .vnet filled in; from rx or from a hand-off
 * @n:      any number; worked on in bursts of FP_BURST_MAX
 * @now_ns: CLOCK_BOOTTIME
 */
void core_step(struct core *c, struct fp_frame *frames, uint32_t n, uint64_t now_ns);

/**
 * core_frags_ready() - Fragments that were held, and whose datagram is known by now
 * @out: .data points to FP_FRAME_MAX bytes each; filled in as from rx
 *
 * To be given to core_step() after each burst, until none comes: they cannot make others ready.
 * Return: how many.
 */
static inline uint32_t core_frags_ready(struct core *c, struct fp_frame *out, uint32_t cap, uint64_t now_ns)
{
	uint32_t n = 0;

	c->now_ns = now_ns;
	while (n < cap && frag_pop(&c->frags, &out[n]))
		n++;
	return n;
}

/**
 * core_held_ready() - Frames that were held for the peer (commit.h) and may go
 * @out: .data has room for the longest frame of the node's ports; filled in as from rx
 *
 * To be given to core_step() before any frame that came later, until none comes.
 * Return: how many.
 */
static inline uint32_t core_held_ready(struct core *c, struct fp_frame *out, uint32_t cap, uint64_t now_ns)
{
	uint32_t n = 0;

	c->now_ns = now_ns;
	while (n < cap && commit_pop(c, &out[n]))
		n++;
	return n;
}

/**
 * core_account() - Count the verdicts, once what happened to the frames is known
 * @frames: from core_step() or core_retry_parked(), after tx. Where the shell could not do what the core
 *          decided, it has changed .verdict: V_FENCED, V_TX_FAILED, V_HANDOFF_FULL, V_HOST_FULL...
 */
void core_account(struct core *c, const struct fp_frame *frames, uint32_t n);

/**
 * core_shard() - Shard of an endpoint; pure, the same on both nodes of a pair
 * @port:   as on the wire; for ICMP echo the identifier
 * Return: 0..FP_SHARDS-1; the owner is worker (shard % cfg->n_workers).
 */
uint32_t core_shard(const struct fp_config *cfg, const struct fp_addr *addr, be16 port, uint8_t proto);

/* ---- time and role (core.c) ---- */

/**
 * core_expire() - Let sessions that are due go; does nothing while not ACTIVE
 * @budget: records to look at, at most; one takes up to 2 us when nothing of it is in the cache
 *
 * Also gives up parked frames that waited too long.
 * Return: records looked at; == @budget means that there is more to do.
 */
uint32_t core_expire(struct core *c, uint64_t now_ns, uint32_t budget);

/**
 * core_set_role() - Obey the fence
 *
 * Becoming ACTIVE touches no record (takeover time must not depend on their number). Ceasing to be ACTIVE
 * drops the parked and the held frames (V_FENCED), turns output commit off, and stops the wheel.
 */
void core_set_role(struct core *c, uint32_t role, uint64_t term, uint64_t now_ns);

/* ---- next hops (core.c, park.c), policy (core.c) ---- */

/**
 * core_set_fib() - Use another snapshot of next hops from the next burst on
 * @fib: lives until it is replaced; shared by all workers, read only
 *
 * Call core_retry_parked() afterwards, until it returns 0.
 */
void core_set_fib(struct core *c, const struct fib *fib);

/**
 * core_set_policy() - Use another snapshot of rules from the next burst on
 * @policy: lives until it is replaced; shared by all workers, which write their rows of hits and no more
 */
void core_set_policy(struct core *c, const struct policy *policy);

/**
 * core_review() - Close the sessions that the policy in force would not open as they are; ACTIVE only
 * @slot:   in/out cursor, 0 at the beginning
 * @budget: records to look at
 * @done:   set at the end of the table
 * Return:  sessions closed, or -EPERM while not ACTIVE.
 */
int core_review(struct core *c, uint32_t *slot, uint32_t budget, bool *done, uint64_t now_ns);

/**
 * core_log() - A rule with `log` has decided
 * @q:       what it decided about
 * @d:       its decision
 * @verdict: what becomes of the packet
 * @f:       the session that was opened, or NULL
 */
void core_log(struct core *c, const struct policy_query *q, const struct policy_decision *d, uint32_t verdict,
	      const struct flow_hot *f);

/**
 * core_log_take() - Take the lines that wait
 * Return: lines written to @out.
 */
uint32_t core_log_take(struct core *c, struct fp_session_log *out, uint32_t cap);

/**
 * core_retry_parked() - Complete parked frames whose neighbour is known by now
 * @out: .data points to FP_FRAME_MAX bytes each; filled as by core_step(), the verdict included
 * Return: frames filled in, to be sent and then given to core_account(); 0 when none is left that can go.
 */
uint32_t core_retry_parked(struct core *c, struct fp_frame *out, uint32_t cap, uint64_t now_ns);

/**
 * core_neigh_wanted() - Take neighbours to resolve (each at most once a second)
 * Return: entries written to @out.
 */
uint32_t core_neigh_wanted(struct core *c, struct neigh_want *out, uint32_t cap);

/* ---- sync: changes out (transfer.c) ---- */

/**
 * core_track() - Start or stop to remember changes for a peer
 *
 * Either way the peer knows nothing; stopping frees all tombstones.
 */
void core_track(struct core *c, bool on);

/**
 * core_drain() - Take events: urgent changes, lazy ones that are due, a digest, the sweep, the tour
 * @out:   records with .ev_seq growing by one each, never 0
 * @slots: records that each of the walks may look at
 *
 * A record changed twice before it is drained comes out once.
 * Return: records written; there may be more if it is @cap, or if core_has_more().
 */
uint32_t core_drain(struct core *c, struct fp_flow_rec *out, uint32_t cap, uint32_t slots, uint64_t now_ns);

/**
 * core_has_more() - Would core_drain() go on at once?
 */
static inline bool core_has_more(const struct core *c)
{
	return c->changes.n_dirty || c->changes.asked || c->changes.sweeping || c->changes.digest_asked ||
	       c->tour.more;
}

/**
 * core_ack() - The peer holds everything up to @ev_seq: slots and ports of its deletes may be used again, and what
 *              waited for its sessions may go
 */
void core_ack(struct core *c, uint64_t ev_seq);

/**
 * core_forget_changes() - Nobody wants to hear what waits; all tombstones go
 */
void core_forget_changes(struct core *c);

/**
 * core_sweep_start() - FP_OP_SWEEP, all records of these shards, FP_OP_SWEPT; changes are tracked from now on
 * @shards: a bit each; those of other workers are ignored
 *
 * While another one is under way, both become one, which begins anew.
 */
void core_sweep_start(struct core *c, uint64_t shards);

/**
 * core_digest_ask() - Once all that waits is drained: FP_OP_DIGEST, and the digests in .digest_told
 */
void core_digest_ask(struct core *c);

/**
 * core_digests() - Digests of this worker's shards, now; the others' elements of @out stay as they are
 */
void core_digests(const struct core *c, struct fp_digest out[FP_SHARDS]);

/**
 * core_walk() - Copy records for display, no event
 * @slot: in/out cursor, 0 at the beginning
 * @done: set at the end of the table
 * Return: records written.
 */
uint32_t core_walk(struct core *c, uint32_t *slot, struct fp_flow_rec *out, uint32_t cap, bool *done,
		   uint64_t now_ns);

/* ---- sync: records in (import.c) ---- */

/**
 * core_import() - Merge the peer's records
 * @recs: any records of the pair; those whose shard belongs to another worker are skipped, so that the
 *        same batch can be given to every worker; .fate becomes enum fp_taken
 *
 * Records that cannot be taken (unknown pool or port, a conflict, older than ours) are counted in
 * import_refused, news of sessions that are not here in import_unknown. Nothing that stands in @recs can break
 * the core.
 * Return: records taken, or -EPERM while ACTIVE.
 */
int core_import(struct core *c, struct fp_flow_rec *recs, uint32_t n, uint64_t now_ns);

/**
 * core_refused() - The peer has not taken these records of ours; before core_ack() of the same @ev_seq
 * @ev_seq: number of the last event that was told with them
 *
 * The acknowledgement does not count for their sessions: what waits for it waits on, and they die with this node.
 * The digests still hold them, so the audit finds that they are missing there. Records of other workers are skipped.
 */
int core_refused(struct core *c, const struct fp_flow_rec *recs, uint32_t n, uint64_t ev_seq);

/**
 * core_import_begin() - A sweep begins: all that is held of these shards is stale until a record refreshes it
 * @shards: a bit each
 * @repair: the digests differed: log what does
 * Return: 0, or -EPERM while ACTIVE.
 */
int core_import_begin(struct core *c, uint64_t shards, bool repair);

/**
 * core_import_end() - The sweep of these shards is complete: forget what it did not refresh
 * Return: records forgotten, or -EPERM while ACTIVE.
 */
int core_import_end(struct core *c, uint64_t shards);

/**
 * core_stranded() - Copy what core_import_end() is about to forget, and somebody has used since @since_ns
 * @shards: a bit each
 * @slot:   cursor, updated
 * @cap:    room at @out; two records for each session: FP_OP_OPEN, and FP_OP_REST behind it
 * @done:   set at the end of the table
 *
 * What the sweep has not refreshed the ACTIVE node has not, and what it had in conflict is gone already.
 * Return: records written to @out, or -EPERM while ACTIVE.
 */
int core_stranded(struct core *c, uint64_t shards, uint64_t since_ns, uint32_t *slot, struct fp_flow_rec *out,
		  uint32_t cap, bool *done, uint64_t now_ns);

/**
 * core_adopt() - Take sessions that the peer has opened while both nodes reigned, if nothing here is against them
 * @recs: FP_OP_OPEN, with the columns of FP_OP_REST; the fate of those that are not taken is set
 *
 * What is here stays as it is. Who had the role before them is of no matter: from here on they are this node's.
 * Return: sessions taken, those that are here already included, or -EPERM unless ACTIVE.
 */
int core_adopt(struct core *c, struct fp_flow_rec *recs, uint32_t n, uint64_t now_ns);

/**
 * review_stays() - Would the present rules allow a session? If so, it is under the one that does
 */
bool review_stays(struct core *c, uint32_t idx);

/**
 * core_repairs_take() - Take the log of repair sweeps
 * Return: entries written to @out.
 */
uint32_t core_repairs_take(struct core *c, struct fp_repair *out, uint32_t cap);

/* ---- counters (core.c); any thread ---- */

/**
 * core_stats_read() - Fill the core's fields of @out; the shell's own (wakeups, *_lost of its rings) stay
 */
void core_stats_read(const struct core *c, struct fp_worker_stats *out);

/**
 * core_sync_stats_read() - Fill the fields of @out that the queues, sweeps and imports have
 */
void core_sync_stats_read(const struct core *c, struct fp_sync_stats *out);

/**
 * core_verdicts_read() - Packets by verdict
 * Return: entries written, min(@cap, V_COUNT).
 */
uint32_t core_verdicts_read(const struct core *c, uint64_t *out, uint32_t cap);

#endif /* STEP_H */
