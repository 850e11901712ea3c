/* SPDX-License-Identifier: Apache-2.0 */
/**
 * worker.h - a thread of the data plane: rx, core_step(), fence, tx
 *
 * DOC: Theory of Operation
 *
 * A worker owns one core (step.h), one queue of every port's wire, and the consumer's end of everything
 * that others want from it; worker 0 also reads the host TAPs and sends for the control plane and the pulse
 * thread. Nothing is shared but what stands in the table:
 *
 *   what                 producer        consumer       when full
 *   handoff[from][to]    worker `from`   worker `to`    V_HANDOFF_FULL
 *   events               worker          control        changes stay marked in the core, and coalesce
 *   punts                worker          control        V_PUNT_FULL, punts_lost
 *   pulse->rx[worker]    worker          pulse          V_PUNT_FULL, pulse_lost
 *   pulse->tx            pulse           worker 0       the heartbeat counts as lost
 *   tap->ring            worker         control        the packet is not captured, and counted
 *   inject               control         worker 0       -ENOBUFS
 *   conduit.rx[worker]   the peer        worker         rx_missed
 *   conduit.tx[shard]    every worker    the peer       V_CONDUIT_FULL
 *   mailbox              control         worker         one request at a time; control waits for it
 *   pulse->standing  pulse           workers        one word
 *   fence, acked, wires, conduit.orders: one word each, written by control (fence: pulse too), read by workers
 *
 * The mailbox is no ring because control waits for each answer anyway: a request is posted, taken, done. One
 * that its worker has not taken when control's patience ends is withdrawn, so a late worker never touches
 * memory that control took back.
 *
 *   mailbox    by          becomes     prohibited
 *   IDLE       control     POSTED      a worker never touches the request while IDLE
 *   POSTED     worker      TAKEN       control must not change the request any more
 *   POSTED     control     IDLE        withdrawn: -ETIMEDOUT
 *   TAKEN      worker      DONE        control must not withdraw it: it waits on
 *   DONE       control     IDLE
 */
#ifndef WORKER_H
#define WORKER_H

#include <pthread.h>

#include "capture.h"
#include "conduit_io.h"
#include "defer.h"
#include "doorbell.h"
#include "fence.h"
#include "port.h"
#include "pulse.h"
#include "ring.h"
#include "step.h"
#include "store.h"
#include "uring.h"

enum { PUNT_SLOTS = 256, LOG_SLOTS = 512, EVENTS_CAP_DEFAULT = 8192, LENT_MAX = 32 };

/* What a worker reads, a bit each in worker.ready. */
enum {
	SOURCE_WIRE = 0,                          /* + port */
	SOURCE_HOST = SOURCE_WIRE + FP_PORTS_MAX, /* + port */
	SOURCE_BELL = SOURCE_HOST + FP_PORTS_MAX,
	SOURCE_CONDUIT,
	N_SOURCES
};

enum request_kind {
	REQ_FIB,          /* use another snapshot */
	REQ_POLICY,       /* use another snapshot */
	REQ_REVIEW,       /* core_review() */
	REQ_POOLS,        /* nat_count_free() */
	REQ_COMMIT,       /* commit_set() */
	REQ_TRACK,        /* core_track() */
	REQ_SWEEP,        /* core_sweep_start() */
	REQ_DIGEST_ASK,   /* core_digest_ask() */
	REQ_DIGESTS,      /* core_digests() */
	REQ_REPAIRS,      /* core_repairs_take() */
	REQ_IMPORT,       /* core_import() */
	REQ_REFUSED,      /* core_refused() */
	REQ_IMPORT_BEGIN, /* core_import_begin() */
	REQ_IMPORT_END,   /* core_import_end() */
	REQ_STRANDED,     /* core_stranded() */
	REQ_ADOPT,        /* core_adopt() */
	REQ_WALK,         /* core_walk() */
	REQ_CAPTURE,      /* use another capture */
	REQ_WIRE          /* use another channel for a port's wire */
};

/**
 * struct request - What control wants of one worker; each kind uses a few of the fields
 * @kind: what
 * @on:   REQ_TRACK, REQ_COMMIT; REQ_IMPORT_BEGIN: a repair
 * @shards: REQ_SWEEP, REQ_IMPORT_BEGIN, REQ_IMPORT_END, REQ_STRANDED: a bit each
 * @since_ns: REQ_STRANDED
 * @n:    records at @in or @told, or room at @out or @repairs
 * @slot: REQ_WALK, REQ_STRANDED: cursor, updated
 * @done: REQ_WALK, REQ_STRANDED: set at the end of the table
 * @fib:  REQ_FIB
 * @policy: REQ_POLICY
 * @use:  REQ_POOLS: free ports, added to
 * @in:   REQ_IMPORT, REQ_ADOPT
 * @told: REQ_REFUSED
 * @ev_seq: REQ_REFUSED
 * @out:  REQ_WALK, REQ_STRANDED
 * @digests: REQ_DIGESTS: FP_SHARDS of them, of which a worker writes its own
 * @repairs: REQ_REPAIRS
 * @capture: REQ_CAPTURE; NULL: none
 * @port: REQ_WIRE
 * @wire: REQ_WIRE: the new channel; then the old one
 */
struct request {
	enum request_kind kind;
	bool on;
	uint64_t shards;
	uint64_t since_ns;
	uint32_t n;
	uint32_t slot;
	bool done;
	const struct fib *fib;
	const struct policy *policy;
	struct fp_pool_use *use;
	struct fp_flow_rec *in;
	const struct fp_flow_rec *told;
	uint64_t ev_seq;
	struct fp_flow_rec *out;
	struct fp_digest *digests;
	struct fp_repair *repairs;
	struct capture *capture;
	uint32_t port;
	struct chan *wire;
};

enum mailbox_state { MAILBOX_IDLE, MAILBOX_POSTED, MAILBOX_TAKEN, MAILBOX_DONE };

struct mailbox {
	_Atomic uint32_t state; /* enum mailbox_state */
	int result;
	struct request req;
};

struct port_counters {
	counter rx_frames, rx_bytes, tx_frames, tx_bytes, rx_errors, tx_errors, tx_dropped;
	counter host_rx_frames, host_tx_frames, host_tx_errors;
	counter rx_missed;
};

/**
 * struct lent - Room for an offload frame, which crosses a hand-off ring as a pointer
 * @data: FP_FRAME_BIG bytes
 * @out:  another worker has it; that one clears it, its owner sets it
 */
struct lent {
	uint8_t *data;
	_Atomic bool out;
};

/**
 * struct batch - Frames collected for one system call (batch.h)
 * @ring:   its requests
 * @many:   NULL, or: they are for this queue, and its driver has a call for many
 * @frames: to be written
 * @pieces: by the ring: what of them
 * @fds:    ... and where to
 * @n:      of them
 */
struct batch {
	struct uring ring;
	struct chan *many;
	struct fp_frame *frames[FP_TX_BURST];
	struct piece pieces[FP_TX_BURST];
	int fds[FP_TX_BURST];
	uint32_t n;
};

/**
 * struct worker - One thread and what it owns
 * @core:           its sessions
 * @core_mem:       memory of the core
 * @core_mem_size:  bytes at @core_mem
 * @plane:          what all workers share (plane.h)
 * @index:          its number
 * @epfd:           what it sleeps in
 * @ready:          sources that may have frames, a bit each (SOURCE_*)
 * @unread:         wires that were not found empty since it began to pass on, bits of @ready
 * @parked:         what it leaves alone, bits of @ready
 * @wires_word:     plane.wires as it was obeyed
 * @wires_asked:    plane.wires as it was seen
 * @wires_until_ns: it waits so long for neighbours before it parks
 * @wires_seen:     copy of @wires_word for the other workers
 * @wires_settled:  the word that is settled, for control to wait for
 * @poll_until_ns:  it polls until then, and sleeps afterwards
 * @traffic:        frames have come since changes were last drained
 * @expire_tick:    wheel tick up to which core_expire() is through
 * @fence_word:     the fence as the core was told
 * @defer:          frames that wait for the lease
 * @store:          frames that wait for a takeover
 * @signal:         events_fd must be signalled at the end of the pass
 * @signal_changes: changes_fd must be
 * @tap:            where captured packets go; NULL while there is no capture
 * @frames:         rx burst
 * @batch:          how it is read and written
 * @conduit_tx:     packets for the peer that are being collected
 * @conduit_rx:     datagrams of the peer that are being taken apart
 * @conduit:        counters of both
 * @room:           buffers for @frames and @lent
 * @lent:           spare room: a frame that is handed on leaves with its buffer, and one of these replaces it
 * @handoff:        scratch for frames of a hand-off ring
 * @stat_wakeups:   returns from sleep
 * @stat_polls:     passes that found nothing, while it polled
 * @stat_handed_on: frames given to the workers that own their sessions
 * @stat_taken_over: frames taken from other workers
 * @stat_punts_lost: punts that found the ring full
 * @stat_pulse_lost: heartbeats that found the ring full
 * @stat_inject_lost: injected frames that were fenced, or that the port refused
 * @ports:          counters of each port's share
 * @bell:           wakes the thread
 * @obeyed:         copy of @fence_word for control to wait for
 * @events_blocked: the thread found @events full and has more to say
 * @acked:          written by control: what the peer holds
 * @acked_seen:     the thread's copy
 * @wants_acks:     written before it lies down: an acknowledgement is worth waking it
 * @events:         to control
 * @punts:          to control
 * @log:            to control: struct fp_session_log
 * @mailbox:        from control
 * @thread:         valid while the plane runs
 */
struct worker {
	struct core core;
	void *core_mem;
	size_t core_mem_size;
	struct plane *plane;
	uint32_t index;
	int epfd;
	uint32_t ready, unread, parked;
	uint64_t wires_word, wires_asked, wires_until_ns;
	uint64_t poll_until_ns;
	bool traffic;
	uint32_t expire_tick;
	uint64_t fence_word;
	struct defer defer;
	struct store store;
	bool signal, signal_changes;
	struct capture_tap *tap;
	struct fp_frame frames[FP_BURST_MAX];
	struct batch batch;
	struct conduit_tx conduit_tx;
	struct conduit_rx conduit_rx;
	struct conduit_counters conduit;
	uint8_t *room;
	struct lent lent[LENT_MAX];
	struct fp_frame handoff[FP_BURST_MAX];
	counter stat_wakeups, stat_polls, stat_handed_on, stat_taken_over, stat_punts_lost, stat_pulse_lost,
		stat_inject_lost;
	struct port_counters ports[FP_PORTS_MAX];
	struct doorbell bell;
	_Atomic uint64_t obeyed;
	_Atomic uint64_t wires_seen, wires_settled;
	_Atomic bool events_blocked;
	_Atomic uint64_t acked;
	uint64_t acked_seen;
	_Atomic bool wants_acks;
	struct ring events;
	struct ring punts;
	struct ring log;
	struct mailbox mailbox;
	pthread_t thread;
};

/**
 * worker_open() - Make core and rings, and watch the queues of the ports, which are open
 * @w: zeroed, but for .bell
 *
 * Return: 0 or -errno; worker_close() is due either way.
 */
int worker_open(struct worker *w, struct plane *pl, uint32_t index);
void worker_close(struct worker *w);

/* worker_start() - Start the thread, on its CPU if it is pinned; it ends once plane.stop is set and its bell rings */
int worker_start(struct worker *w);

/* ---- the worker's own thread; control while no thread runs ---- */

/* worker_obey_fence() - Tell the core what the fence says */
void worker_obey_fence(struct worker *w, uint64_t now_ns);

/* worker_obey_conduit() - Tell the core what may go to the peer */
void worker_obey_conduit(struct worker *w);

/* worker_execute() - Carry out a request; returns what it returns */
int worker_execute(struct worker *w, struct request *req, uint64_t now_ns);

/**
 * worker_drain() - Move changes from the core to the events ring
 *
 * Return:  true if it stopped before it was through.
 */
bool worker_drain(struct worker *w, uint64_t now_ns);

/* worker_ask_neighbours() - Tell control which neighbours are missing */
void worker_ask_neighbours(struct worker *w, uint64_t now_ns);

/* worker_report_sessions() - Give control what rules with `log` have decided */
void worker_report_sessions(struct worker *w);

/* ---- control thread ---- */

/* worker_cpu_ns() - CPU time that the thread has used; 0 while none runs */
uint64_t worker_cpu_ns(const struct worker *w);

/* worker_ack() - The peer holds this worker's changes up to @ev_seq: what waited for that leaves now */
void worker_ack(struct worker *w, uint64_t ev_seq, uint64_t now_ns);

#endif /* WORKER_H */
