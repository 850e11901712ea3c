/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pulse.h - heartbeats: what we say on every path, and what silence on a path means
 *
 * DOC: Theory of Operation
 *
 * Path 0 is the cross-connect: a UDP socket of the pulse thread. Path 1 + i is port i: the thread builds
 * whole Ethernet frames, worker 0 sends them, and whichever worker receives one passes its payload on.
 * Python's interpreter lock has no say in any of this.
 *
 *   path       event                                      becomes   reported
 *   silent     heartbeat of the peer                      alive     PATH_UP
 *   alive      dead_after intervals without one           silent    PATH_DOWN
 *   silent     silence                                    silent    nothing: a path never heard is no news
 *
 * Time during which this thread itself did not run is not silence: after a stall (SIGSTOP, a starved CPU)
 * every path gets the time back, or the node that stopped would declare the one that went on dead.
 *
 * Reports are differences between what is and what was reported last, so a full events ring delays and
 * merges them, and loses none. Whether the peer is dead is not decided here (flexha/core/heartbeat.py); one
 * thing is done at once: a term above ours, claimed by an ACTIVE peer, fences us.
 *
 * Whom we believe. LAN and WAN are full of strangers, and an address is easily forged: without the MAC of the
 * pair's key for this very path a heartbeat is bad, whatever else it says. That leaves replays, and what comes
 * late or twice. A heartbeat is believed if it is new in four ways:
 *
 *   its echo          is our incarnation: it was said since we live, by somebody who hears us. What was recorded
 *                     before we started bears another one
 *   its incarnation   is not lower than that of the peer as we know it: it is of no past life
 *   its number        is higher than the last one on this path
 *   its age           it names a heartbeat or a probe of ours by our own clock, and that was of late; what the peer says
 *                     while it does not hear us is timed by the peer's clock instead, as it went when it last did. So
 *                     nobody can hold heartbeats back to let a dead node seem alive
 *
 * All else counts as replayed, and changes nothing: it does not even break a silence. A peer that we do not know
 * introduces itself by a heartbeat whose echo is not ours yet; we answer by echoing its incarnation on that path, at
 * once if it asks, and believe what it says next. While the known peer is heard there, every other heartbeat answers
 * it, and its next word ends the introduction: who lies about being the peer's next life breaks no path. So two nodes
 * know each other after one heartbeat each way, and no recording does, whatever it is of: to be heard, one has to
 * hear.
 *
 * An incarnation is the wall clock at the start, in nanoseconds, or one more than the last one of this node if
 * that is higher (state_dir/incarnation): it grows from start to start even if the clock was set back.
 *
 * Silence is slow proof. When something speaks for the peer's death (suspect.h), probes ask on every path, and either
 * an answer comes, or a much shorter silence makes all paths silent at once. Only a peer that is heard, and says that
 * it hears us, can be suspected: a fault may pass one direction only, and who does not hear a question is not dead. All
 * others are timed as ever, those of an older version, too.
 *
 * Proof needs no silence. When the life line ends (lifeline.h), the process at its other end is gone: all paths are silent
 * at once. What is still under way of what it said is not believed for DIED_NS; should it be heard after that, it
 * lives all the same, and terms decide.
 *
 * Timers of a few milliseconds are no longer than a busy kernel may take to pass a datagram on. So where dead_after
 * intervals are less than DOUBT_BELOW_MS, the path that was heard last has confirm_ms more before it is silent, too,
 * and probes ask meanwhile: nobody is taken for dead by such a silence who was not asked.
 *
 * A part of this node may hang while the thread speaks on (progress.h). Then it says so, and that it is not ready. If
 * it is ACTIVE, and the peer may take over, it lowers the fence and says that at once: the peer begins to reign without
 * waiting for a silence that would not come. Without such a peer it goes on, for half a node is better than none. The
 * fence stays as it is until control wakes and joins the pair anew.
 *
 * Keys change while heartbeats go on: control fills the set that is not in use, and the thread turns to it
 * between two passes.
 *
 * pulse.c takes now_ns as an argument and does no I/O: tests drive it with a clock of their own.
 */
#ifndef PULSE_H
#define PULSE_H

#include <pthread.h>

#include "doorbell.h"
#include "fence.h"
#include "heartbeat_wire.h"
#include "lease.h"
#include "lifeline.h"
#include "port.h"
#include "progress.h"
#include "ring.h"
#include "siphash.h"
#include "suspect.h"
#include "xc_watch.h"

enum {
	PULSE_PATH_XC = 0,
	PULSE_RX_SLOTS = 64,
	PULSE_TX_SLOTS = 64,
	PULSE_EVENT_SLOTS = 64,
	DOUBT_BELOW_MS = 50,
	PULSE_FIFO_BELOW_MS = 20 /* a shorter interval is refused without SCHED_FIFO */
};

/**
 * struct pulse_path - One way to hear the peer
 * @used:           configured
 * @alive:          heard within dead_after intervals
 * @reported:       @alive as control knows it
 * @rx_seq:         highest sequence number heard of this incarnation; 0 = none
 * @introduced:     incarnation of a peer that we do not know yet, to be echoed here; 0 = none
 * @introduced_ns:  when that one spoke here, by its own clock
 * @tx_seq:         last sequence number sent
 * @quiet_since_ns: when silence began
 * @answer_due:     a probe of the peer is to be answered here, now
 * @answered_ns:    when one was last answered here
 */
struct pulse_path {
	bool used, alive, reported;
	uint64_t rx_seq, tx_seq;
	uint64_t introduced, introduced_ns;
	uint64_t quiet_since_ns;
	uint64_t answered_ns;
	bool answer_due;
	counter sent, received, lost, bad, replayed, last_heard_ns, is_alive;
};

/**
 * struct pulse_worker - What the thread looks at to see a worker move
 * @passes: bumped by the worker in every pass
 * @bell:   wakes it; NULL: it is not watched
 */
struct pulse_worker {
	CACHE_ALIGNED _Atomic uint32_t passes;
	struct doorbell *bell;
};

/* A payload that a worker heard on a port. */
struct pulse_heard {
	uint64_t t_ns;
	uint32_t path;
	uint32_t len;
	uint8_t payload[HB_LEN];
};

/**
 * struct pulse - The thread, its paths and its view of the peer
 * @cfg:               the node's configuration
 * @fence:             role and term: read for what we say, lowered when the peer reigns
 * @said:              flags (upper half) and priority that we announce; written by control
 * @control_beat:      bumped by control
 * @bursts_wanted:     bumped by control: send on all paths now
 * @bursts_done:       the thread's copy
 * @keys:              two sets, of which one is in use
 * @keys_held:         index of the set that control wants; written by control
 * @keys_seen:         index of the set in use; written by the thread, by control while there is none
 * @paths:             PULSE_PATH_XC, then the ports
 * @next_send_ns:      when the next heartbeats are due
 * @last_tick_ns:      when silence was last judged
 * @peer:              what the peer says of itself
 * @peer_t_ns:         the peer's clock in the newest heartbeat: paths may reorder
 * @peer_path:         where that one came from
 * @behind_ns:         our clock less the peer's, and the way, when a heartbeat last proved that it was new
 * @proved_ns:         ... and when that was
 * @probe_heard:       t_ns of the peer's newest probe, on any path; 0 = none
 * @peer_known:        @peer is valid
 * @peer_reported:     control knows @peer
 * @peer_answers:      it is of a version that answers probes
 * @peer_hears:        ... and says that it hears us
 * @fenced_unreported: FP_PULSE_FENCED is due
 * @suspicion:         whether it is dead
 * @lease:             how long the fence may be believed
 * @asked_active:      it was ACTIVE when it began to ask
 * @lease_told_ns:     when control was last told of such a question
 * @doubts:            the last path is late, and the peer is asked
 * @doubt_probe_ns:    when to ask again
 * @judged_ns:         when all paths fell silent
 * @line:              the life line
 * @died_ns:           when the peer's incarnation was proven dead; 0: it was not
 * @died_unreported:   FP_PULSE_DIED is due
 * @standing:          suspect.h: what the workers are told
 * @flooded:           FP_MARK_VMAC was said, and @standing is to answer that
 * @flood_rest_ns:     ... may be said again from then on; written by workers, too
 * @floods_refuted:    how often in a row it was not so
 * @flood_calm_ns:     ... and from then on that is forgotten
 * @workers:           who must move
 * @control:           whether control does
 * @worker:            whether each worker does
 * @hung:              of enum fp_hung, now
 * @hung_workers:      which ones, a bit each; control and a channel's thread read it
 * @hung_told:         of @hung, what control knows
 * @yielded:           the fence was lowered because of it, and control is to know
 * @xc:                the cross-connect's carrier
 * @rx:                one ring per worker: what it heard
 * @n_rx:              workers
 * @tx:                frames for worker 0 to send
 * @tx_bell:           wakes worker 0
 * @bell:              wakes the thread
 * @marked:            of enum fp_mark: what other threads have noticed
 * @events:            to control
 * @events_fd:         signalled when @events was empty
 * @xc_fd:             UDP socket; -1 = no cross-connect
 * @carry:             takes what is sent, in place of sockets and rings (fp_api_sim.c); NULL: they do
 * @thread:            valid while @running
 * @running:           between pulse_start() and pulse_stop()
 * @stop:              the thread shall end
 */
struct pulse {
	const struct fp_config *cfg;
	struct fence *fence;
	_Atomic uint64_t said;
	_Atomic uint32_t control_beat;
	_Atomic uint32_t bursts_wanted;
	uint32_t bursts_done;
	struct heartbeat_keys keys[2];
	_Atomic uint32_t keys_held, keys_seen;
	struct pulse_path paths[FP_PATHS_MAX];
	uint64_t next_send_ns;
	uint64_t last_tick_ns;
	struct fp_peer peer;
	uint64_t peer_t_ns;
	uint64_t behind_ns, proved_ns;
	uint32_t peer_path;
	uint64_t probe_heard;
	bool peer_known, peer_reported, peer_answers, peer_hears, fenced_unreported;
	struct suspicion suspicion;
	struct lease lease;
	bool asked_active;
	uint64_t lease_told_ns;
	bool doubts;
	uint64_t doubt_probe_ns;
	uint64_t judged_ns;
	struct lifeline line;
	uint64_t died_ns;
	bool died_unreported;
	_Atomic uint32_t standing;
	bool flooded;
	_Atomic uint64_t flood_rest_ns;
	uint32_t floods_refuted;
	uint64_t flood_calm_ns;
	struct pulse_worker workers[FP_WORKERS_MAX];
	struct progress control, worker[FP_WORKERS_MAX];
	counter hung;
	_Atomic uint32_t hung_workers;
	uint32_t hung_told;
	bool yielded;
	struct xc_watch xc;
	struct ring rx[FP_WORKERS_MAX];
	uint32_t n_rx;
	struct ring tx;
	struct doorbell *tx_bell;
	struct doorbell bell;
	_Atomic uint32_t marked;
	struct ring events;
	int events_fd;
	int xc_fd;
	bool (*carry)(struct pulse *p, uint32_t path, const uint8_t *payload);
	pthread_t thread;
	bool running;
	_Atomic bool stop;
};

/**
 * pulse_open() - Bind the cross-connect's socket and make the rings
 * @p:         zeroed
 * @tx_bell:   worker 0's
 * @events_fd: eventfd towards control
 *
 * Return: 0, or -errno with @err saying what failed; pulse_close() is due either way.
 */
int pulse_open(struct pulse *p, const struct fp_config *cfg, struct fence *fence, struct doorbell *tx_bell,
	       int events_fd, struct fp_error *err);
void pulse_close(struct pulse *p);

/**
 * pulse_start() - Start the thread, with SCHED_FIFO where the system allows it
 *
 * Return: 0, with a remark in @err if it runs without SCHED_FIFO; -errno.
 */
int pulse_start(struct pulse *p, struct fp_error *err);
void pulse_stop(struct pulse *p);

/**
 * pulse_watch_worker() - A worker that hangs is a reason to give up the role
 * @bell: wakes it
 *
 * Context: control, before the thread starts.
 */
void pulse_watch_worker(struct pulse *p, uint32_t worker, struct doorbell *bell);

/* ---- control thread ---- */
void pulse_say(struct pulse *p, uint32_t flags, uint32_t priority);
void pulse_burst(struct pulse *p);

/**
 * pulse_keys() - Sign with the first of @n keys, and believe all of them
 *
 * Return: 0; -EBUSY while the keys given last are not in use yet, which is over within an interval.
 */
int pulse_keys(struct pulse *p, const uint8_t (*keys)[SIPHASH_KEY_LEN], uint32_t n);
void pulse_stats_read(const struct pulse *p, uint32_t path, struct fp_path_stats *out);
void pulse_lease_read(const struct pulse *p, struct fp_lease_stats *out);
void pulse_line_read(const struct pulse *p, struct fp_line_stats *out);

/* pulse_hung_workers() - Which workers hang, a bit each; any thread may ask */
static inline uint32_t pulse_hung_workers(const struct pulse *p)
{
	return atomic_load_explicit(&p->hung_workers, memory_order_relaxed);
}

/**
 * pulse_hear() - A worker received a heartbeat
 * @frame: an Ethernet frame that core_step() called FP_OUT_PULSE
 *
 * Context: worker thread @worker.
 * Return:  false when the ring is full.
 */
bool pulse_hear(struct pulse *p, uint32_t worker, const struct fp_frame *frame, uint64_t now_ns);

/**
 * pulse_mark() - Something speaks for the peer's death
 * @mark: of enum fp_mark
 *
 * Context: any thread.
 */
void pulse_mark(struct pulse *p, uint32_t mark);

/**
 * pulse_flooded() - A frame for the virtual MAC has come, and this node is not ACTIVE
 *
 * Context: worker thread.
 * Return:  true if that is a mark now; false while it has to rest.
 */
bool pulse_flooded(struct pulse *p, uint64_t now_ns);

/* pulse_standing() - How it stands with the peer: a word of suspect.h; any thread may ask */
static inline uint32_t pulse_standing(const struct pulse *p)
{
	return atomic_load_explicit(&p->standing, memory_order_acquire); /* pairs with tell_workers() */
}

/* pulse_moves() - Context: worker thread @worker, once in every pass */
static inline void pulse_moves(struct pulse *p, uint32_t worker)
{
	_Atomic uint32_t *passes = &p->workers[worker].passes;

	atomic_store_explicit(passes, atomic_load_explicit(passes, memory_order_relaxed) + 1,
			      memory_order_relaxed); /* it alone writes */
}

/**
 * pulse_turn() - What the thread does between two rests
 * @woke: which of its sockets may have something, a bit each (pulse_thread.c); the rings are looked at anyway
 *
 * Context: pulse thread; before it starts, whoever has none.
 */
void pulse_turn(struct pulse *p, uint32_t woke, uint64_t now_ns);

/* ---- the rules, with time as an argument ---- */

/**
 * pulse_compose() - Write the heartbeat that @path would carry next
 * @out: HB_LEN bytes
 */
void pulse_compose(const struct pulse *p, uint32_t path, uint64_t now_ns, uint8_t *out);

/**
 * pulse_receive() - A datagram arrived on @path
 *
 * Return: 0; -EBADMSG for what is forged, malformed, another pair's or our own; -ESTALE for what is not new.
 */
int pulse_receive(struct pulse *p, uint32_t path, const uint8_t *payload, uint32_t len, uint64_t now_ns);

/**
 * pulse_suspect() - Something speaks for the peer's death: ask it
 * @mark: of enum fp_mark
 */
void pulse_suspect(struct pulse *p, uint32_t mark, uint64_t now_ns);

/**
 * pulse_died() - The process of the peer's @incarnation is proven dead
 */
void pulse_died(struct pulse *p, uint64_t incarnation, uint64_t now_ns);

/**
 * pulse_answer_due() - Is a probe to be answered on @path now?
 *
 * Return: true once for each probe, and once in ANSWER_NS at most: who floods us with them gets no more.
 */
bool pulse_answer_due(struct pulse *p, uint32_t path, uint64_t now_ns);

/**
 * pulse_pass() - The thread begins a pass: first of all, notice whether it was away
 */
void pulse_pass(struct pulse *p, uint64_t now_ns);

/**
 * pulse_probe() - Is a probe due, for whatever reason?
 * Return: true once for each; the caller sends it on every path.
 */
bool pulse_probe(struct pulse *p, uint64_t now_ns);

/**
 * pulse_tick() - Judge silence, renew the lease, and report what changed
 */
void pulse_tick(struct pulse *p, uint64_t now_ns);

/**
 * pulse_next_deadline() - When the thread must look again even if nothing arrives
 */
uint64_t pulse_next_deadline(const struct pulse *p);

static inline uint64_t pulse_interval_ns(const struct pulse *p)
{
	return p->cfg->pulse.interval_ms * NS_PER_MS;
}

/* Of the life line, as of now. */
static inline bool pulse_may_call(const struct pulse *p)
{
	return p->paths[PULSE_PATH_XC].alive;
}

static inline uint32_t pulse_n_paths(const struct pulse *p)
{
	return 1 + p->cfg->n_ports;
}

#endif /* PULSE_H */
