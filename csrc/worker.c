/* SPDX-License-Identifier: Apache-2.0 */
/**
 * worker.c - the loop of the data path: the only one, and the only clock in it
 *
 * A pass reads a burst from every source that may have one, and sends what core_step() made of it before it
 * reads the next. Between bursts the worker obeys the fence, does what control asked for, turns the wheel
 * and drains changes; each of these is bounded, so that none delays packets for long.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include "batch.h"
#include "clock.h"
#include "conduit.h"
#include "evict.h"
#include "handoff.h"
#include "plane.h"
#include "tx.h"
#include "wires.h"

enum {
	EXPIRE_BUDGET = 1024, /* records looked at in one pass */
	DRAIN_BURST = 256,    /* records drained in one pass */
	WALK_BUSY = 64,       /* records that a walk looks at in a pass with traffic, ... */
	WALK_IDLE = 2048,     /* ... and in one without */
	WANTS_BURST = 16,
	IDLE_SLEEP_MS = 1000,
	HUGE_PAGE = 2 << 20
};

/* ---- rx ---- */

/* A frame for the virtual MAC that this node may not forward: is it worth keeping (store.h)? */
static uint32_t keep_flooded(struct worker *w, const struct fp_frame *f, uint64_t now_ns)
{
	struct pulse *pulse = w->plane->pulse;
	const uint32_t standing = pulse_standing(pulse);

	if (f->src != FP_SRC_WIRE || f->hops || conduit_takes_vmac(w->core.conduit, f->port))
		return V_VMAC_NOT_ACTIVE;
	if (w->store.n == 0 && suspect_state(standing) == SUSPECT_CALM && !pulse_flooded(pulse, now_ns))
		return V_VMAC_NOT_ACTIVE;
	return store_put(&w->store, f, suspect_number(standing), now_ns) ? V_SUSPECT_WAIT : V_SUSPECT_FULL;
}

static COLD void keep_all_flooded(struct worker *w, struct fp_frame *frames, uint32_t n, uint64_t now_ns)
{
	for (uint32_t i = 0; i < n; i++) {
		if (frames[i].verdict == V_VMAC_NOT_ACTIVE)
			frames[i].verdict = (uint16_t)keep_flooded(w, &frames[i], now_ns);
	}
}

static void step_and_send_from(struct worker *w, struct fp_frame *frames, uint32_t n, uint64_t now_ns,
			       enum fp_capture_from from)
{
	struct capture_tap *tap = w->tap;

	if (unlikely(tap))
		capture_before(tap, frames, n, from, clock_now());
	core_step(&w->core, frames, n, now_ns);
	if (unlikely(w->core.role == FP_ROLE_PASSIVE))
		keep_all_flooded(w, frames, n, now_ns);
	tx_burst(w, frames, n, now_ns);
	if (unlikely(tap))
		capture_after(tap, frames, n, clock_now());
}

static void step_and_send(struct worker *w, struct fp_frame *frames, uint32_t n, uint64_t now_ns)
{
	step_and_send_from(w, frames, n, now_ns, FP_CAPTURE_WIRE);
}

static int watch(struct worker *w, int fd, uint32_t source, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u32 = source };

	return epoll_ctl(w->epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

/* Where a frame has come, another one may follow soon: sleep is for later. */
static void note_traffic(struct worker *w, uint64_t now_ns)
{
	w->traffic = true;
	w->poll_until_ns = now_ns + (uint64_t)w->plane->cfg->poll_us * 1000;
}

static void forget_source(struct worker *w, struct chan *ch)
{
	/* The device is gone, with the namespace that it was moved to; epoll would report it for ever. */
	epoll_ctl(w->epfd, EPOLL_CTL_DEL, ch->fd, NULL);
}

static void receive(struct worker *w, uint32_t port, enum fp_src src, uint64_t now_ns)
{
	struct port *p = &w->plane->ports[port];
	struct chan *ch = src == FP_SRC_HOST ? &p->host[w->index] : &p->wire[w->index];
	struct port_counters *pc = &w->ports[port];
	const uint32_t bit = 1u << ((src == FP_SRC_HOST ? SOURCE_HOST : SOURCE_WIRE) + port);
	uint64_t n_bytes = 0;
	int n = src == FP_SRC_HOST ? ch->ops->rx(ch, w->frames, FP_BURST_MAX) : batch_rx(w, ch);

	if (unlikely(ch->missed)) {
		counter_add(&pc->rx_missed, ch->missed);
		ch->missed = 0;
	}
	if (n < 0) {
		w->ready &= ~bit;
		w->unread &= ~bit;
		counter_add(&pc->rx_errors, 1);
		if (n == -EBADFD)
			forget_source(w, ch);
		return;
	}
	for (int i = 0; i < n; i++) {
		w->frames[i].port = (uint8_t)port;
		w->frames[i].src = (uint8_t)src;
		w->frames[i].l4_known = 0;
		w->frames[i].hops = 0;
		n_bytes += w->frames[i].len;
	}
	if (n < FP_BURST_MAX && n_bytes < PORT_RX_BYTES) {
		w->ready &= ~bit;
		w->unread &= ~bit;
	}
	if (src == FP_SRC_HOST) {
		counter_add(&pc->host_rx_frames, (uint64_t)n);
	} else {
		counter_add(&pc->rx_frames, (uint64_t)n);
		counter_add(&pc->rx_bytes, n_bytes);
	}
	if (n > 0) {
		note_traffic(w, now_ns);
		step_and_send(w, w->frames, (uint32_t)n, now_ns);
	}
}

static void receive_conduit(struct worker *w, uint64_t now_ns)
{
	const uint32_t emptied = conduit_read(w) ? 0 : 1u << SOURCE_CONDUIT;
	uint32_t n;

	w->ready &= ~emptied;
	while ((n = conduit_next(w)) > 0) {
		note_traffic(w, now_ns);
		step_and_send_from(w, w->frames, n, now_ns, FP_CAPTURE_CONDUIT);
	}
	w->unread &= ~emptied;
}

static bool receive_handoffs(struct worker *w, uint64_t now_ns)
{
	struct plane *pl = w->plane;
	bool any = false;

	for (uint32_t from = 0; from < pl->n_workers; from++) {
		struct ring *ring = handoff_ring(pl, from, w->index);
		uint32_t n = FP_BURST_MAX;
		struct handoff_frame *slots;

		if (from == w->index)
			continue;
		slots = ring_peek(ring, &n);
		if (n == 0)
			continue;
		for (uint32_t i = 0; i < n; i++) {
			w->handoff[i] = (struct fp_frame){
				.data = slots[i].lent ? slots[i].lent->data : slots[i].data,
				.len = slots[i].len,
				.vnet = slots[i].vnet,
				.port = slots[i].port,
				.src = slots[i].src,
				.hops = slots[i].hops,
				.l4_known = slots[i].l4_known,
				.l4_sport = slots[i].l4_sport,
				.l4_dport = slots[i].l4_dport,
				.headroom = slots[i].lent != NULL,
			};
		}
		counter_add(&w->stat_taken_over, n);
		step_and_send(w, w->handoff, n, now_ns);
		for (uint32_t i = 0; i < n; i++)
			handoff_give_back(slots[i].lent);
		ring_release(ring, n); /* only now: the frames were worked on in place */
		any = true;
	}
	if (any)
		note_traffic(w, now_ns);
	return any;
}

static void obey_acks(struct worker *w, uint64_t now_ns)
{
	const uint64_t acked = atomic_load_explicit(&w->acked, memory_order_acquire); /* worker_ack() */

	if (acked == w->acked_seen)
		return;
	w->core.now_ns = now_ns;
	core_ack(&w->core, acked);
	w->acked_seen = acked;
}

/* Fragments whose datagram became known in the bursts before. */
static void release_fragments(struct worker *w, uint64_t now_ns)
{
	while (unlikely(frag_is_ready(&w->core.frags)))
		step_and_send_from(w, w->frames, core_frags_ready(&w->core, w->frames, FP_BURST_MAX, now_ns),
				   now_ns, FP_CAPTURE_WAITED);
}

/* What the peer has acknowledged, or has let wait too long, leaves before anything newer is read. */
static void release_held(struct worker *w, uint64_t now_ns)
{
	obey_acks(w, now_ns);
	commit_due(&w->core, now_ns);
	while (unlikely(hold_is_ready(&w->core.commit.hold)))
		step_and_send_from(w, w->frames, core_held_ready(&w->core, w->frames, FP_BURST_MAX, now_ns),
				   now_ns, FP_CAPTURE_WAITED);
}

/* What was flooded while ACTIVE was suspected: forwarded after its death, before anything newer; or dropped. */
static void release_flooded(struct worker *w, uint64_t now_ns)
{
	struct store *s = &w->store;
	const bool reigns = w->core.role == FP_ROLE_ACTIVE;
	uint32_t standing, n;
	bool over;

	if (likely(s->n == 0))
		return;
	standing = pulse_standing(w->plane->pulse);
	over = suspect_number(standing) != s->number || now_ns - s->since_ns > SUSPECT_PARK_NS;
	if (!over && !reigns)
		return;
	if (over || suspect_state(standing) != SUSPECT_DEAD) {
		counter_add(&w->core.verdicts[V_SUSPECT_DROPPED], s->n);
		store_clear(s);
		return;
	}
	while ((n = store_take(s, w->frames, FP_BURST_MAX)) > 0)
		step_and_send_from(w, w->frames, n, now_ns, FP_CAPTURE_WAITED);
}

/* ---- between bursts ---- */

void worker_obey_fence(struct worker *w, uint64_t now_ns)
{
	const uint64_t word = fence_read(&w->plane->fence);

	if (word == w->fence_word)
		return;
	core_set_role(&w->core, fence_role(word), fence_term(word), now_ns);
	w->fence_word = word;
	atomic_store(&w->obeyed, word); /* pairs with plane_set_role() */
	sem_post(&w->plane->answered);
}

void worker_obey_conduit(struct worker *w)
{
	w->core.conduit = atomic_load_explicit(&w->plane->conduit.orders, memory_order_relaxed);
}

static void retry_parked(struct worker *w, uint64_t now_ns)
{
	uint32_t n;

	while ((n = core_retry_parked(&w->core, w->frames, FP_BURST_MAX, now_ns)) > 0) {
		tx_burst(w, w->frames, n, now_ns);
		if (unlikely(w->tap))
			capture_sent(w->tap, w->frames, n, FP_CAPTURE_WAITED, clock_now());
	}
}

/* Read and write another channel. Frames that wait in the old one are lost, with the device that they came by. */
static int change_wire(struct worker *w, uint32_t port, struct chan *wire)
{
	struct chan *ch = &w->plane->ports[port].wire[w->index];
	const struct chan old = *ch;
	const int rc = watch(w, wire->fd, SOURCE_WIRE + port, w->parked ? 0 : EPOLLIN);

	if (rc)
		return rc;
	forget_source(w, ch);
	wire->len_max = old.len_max; /* the port's, whatever carries it */
	*ch = *wire;
	*wire = old;
	return 0;
}

int worker_execute(struct worker *w, struct request *req, uint64_t now_ns)
{
	switch (req->kind) {
	case REQ_FIB:
		core_set_fib(&w->core, req->fib);
		retry_parked(w, now_ns);
		return 0;
	case REQ_POLICY: core_set_policy(&w->core, req->policy); return 0;
	case REQ_REVIEW: return core_review(&w->core, &req->slot, req->n, &req->done, now_ns);
	case REQ_POOLS: nat_count_free(&w->core.nat, w->index, req->use); return 0;
	case REQ_COMMIT: commit_set(&w->core, req->on); return 0;
	case REQ_TRACK: core_track(&w->core, req->on); return 0;
	case REQ_SWEEP: core_sweep_start(&w->core, req->shards); return 0;
	case REQ_DIGEST_ASK: core_digest_ask(&w->core); return 0;
	case REQ_DIGESTS: core_digests(&w->core, req->digests); return 0;
	case REQ_REPAIRS: return (int)core_repairs_take(&w->core, req->repairs, req->n);
	case REQ_IMPORT: return core_import(&w->core, req->in, req->n, now_ns);
	case REQ_REFUSED: return core_refused(&w->core, req->told, req->n, req->ev_seq);
	case REQ_IMPORT_BEGIN: return core_import_begin(&w->core, req->shards, req->on);
	case REQ_IMPORT_END: return core_import_end(&w->core, req->shards);
	case REQ_STRANDED:
		return core_stranded(&w->core, req->shards, req->since_ns, &req->slot, req->out, req->n,
				     &req->done, now_ns);
	case REQ_ADOPT: return core_adopt(&w->core, req->in, req->n, now_ns);
	case REQ_WIRE: return change_wire(w, req->port, req->wire);
	case REQ_CAPTURE: w->tap = req->capture ? &req->capture->taps[w->index] : NULL; return 0;
	case REQ_WALK: return (int)core_walk(&w->core, &req->slot, req->out, req->n, &req->done, now_ns);
	}
	return -EINVAL;
}

static bool serve_mailbox(struct worker *w, uint64_t now_ns)
{
	struct mailbox *mb = &w->mailbox;
	uint32_t posted = MAILBOX_POSTED;

	/* The cheap look first; the exchange pairs with plane.c: post(). */
	if (atomic_load_explicit(&mb->state, memory_order_relaxed) != MAILBOX_POSTED ||
	    !atomic_compare_exchange_strong(&mb->state, &posted, MAILBOX_TAKEN))
		return false;
	mb->result = worker_execute(w, &mb->req, now_ns);
	atomic_store(&mb->state, MAILBOX_DONE); /* pairs with plane.c: await() */
	sem_post(&w->plane->answered);
	return true;
}

bool worker_drain(struct worker *w, uint64_t now_ns)
{
	uint32_t n = DRAIN_BURST;
	struct fp_flow_rec *out = ring_reserve(&w->events, &n);
	uint32_t got;

	if (n == 0) {
		/* Asking again before lying down (rest()) pairs with fp_events_drain(), which releases first. */
		atomic_store(&w->events_blocked, true);
		return false;
	}
	got = core_drain(&w->core, out, n, w->traffic ? WALK_BUSY : WALK_IDLE, now_ns);
	w->traffic = false;
	if (ring_submit(&w->events, got)) {
		const int to = atomic_load(&w->plane->changes_to); /* pairs with events_await() */

		w->signal |= to == w->plane->events_fd;
		w->signal_changes |= to == w->plane->changes_fd;
	}
	return got == n || core_has_more(&w->core);
}

void worker_ask_neighbours(struct worker *w, uint64_t now_ns)
{
	struct neigh_want wants[WANTS_BURST];
	const uint32_t n = core_neigh_wanted(&w->core, wants, WANTS_BURST);

	for (uint32_t i = 0; i < n; i++) {
		struct fp_punt *punt = tx_reserve_punt(w);

		if (!punt)
			return;
		*punt = (struct fp_punt){
			.t_ns = now_ns,
			.kind = mac_is_zero(wants[i].mac) ? FP_PUNT_NEIGH_WANTED : FP_PUNT_NEIGH_MOVED,
			.port = wants[i].port,
			.len = sizeof(wants[i].mac),
			.addr = wants[i].addr,
		};
		memcpy(punt->data, wants[i].mac, sizeof(wants[i].mac));
		w->signal |= ring_submit(&w->punts, 1);
	}
}

/* What finds no room stays in the core, which then keeps no more: it counts what it leaves out. */
void worker_report_sessions(struct worker *w)
{
	uint32_t n = w->core.log.n;
	struct fp_session_log *out;

	if (n == 0)
		return;
	out = ring_reserve(&w->log, &n);
	w->signal |= ring_submit(&w->log, core_log_take(&w->core, out, n));
}

static bool turn_wheel(struct worker *w, uint64_t now_ns)
{
	const uint32_t tick = wheel_tick(now_ns);

	if (tick == w->expire_tick) {
		evict_again(&w->core, now_ns, EXPIRE_BUDGET);
		return false;
	}
	if (core_expire(&w->core, now_ns, EXPIRE_BUDGET) == EXPIRE_BUDGET)
		return true;
	w->expire_tick = tick;
	return false;
}

/* ---- the loop ---- */

/* A burst of everything that is ready; true if there is more to do beside the sources. */
static bool pass(struct worker *w)
{
	struct plane *pl = w->plane;
	uint64_t now_ns = clock_now();
	bool busy;

	pulse_moves(pl->pulse, w->index);
	worker_obey_fence(w, now_ns);
	wires_obey(w, now_ns);
	worker_obey_conduit(w);
	busy = serve_mailbox(w, now_ns);
	tx_deferred(w, now_ns);
	release_flooded(w, now_ns);
	release_held(w, now_ns);
	for (uint32_t p = 0; p < pl->cfg->n_ports && w->ready; p++) {
		if (w->ready & 1u << (SOURCE_WIRE + p))
			receive(w, p, FP_SRC_WIRE, now_ns);
		if (w->ready & 1u << (SOURCE_HOST + p))
			receive(w, p, FP_SRC_HOST, now_ns);
	}
	if (w->ready & 1u << SOURCE_CONDUIT)
		receive_conduit(w, now_ns);
	busy |= receive_handoffs(w, now_ns);
	release_fragments(w, now_ns);
	if (w->index == 0) {
		busy |= tx_for_others(w, &pl->pulse->tx);
		busy |= tx_for_others(w, &pl->inject);
	}
	busy |= turn_wheel(w, now_ns);
	worker_ask_neighbours(w, now_ns);
	worker_report_sessions(w);
	busy |= worker_drain(w, now_ns);
	wires_settle(w);
	if (w->signal) {
		w->signal = false;
		eventfd_signal(pl->events_fd);
	}
	if (w->signal_changes) {
		w->signal_changes = false;
		eventfd_signal(pl->changes_fd);
	}
	return busy;
}

/* Whether something was published that nobody would ring for. */
static bool anything_waits(struct worker *w)
{
	struct plane *pl = w->plane;

	if (atomic_load(&pl->stop) || atomic_load(&pl->fence.word) != w->fence_word ||
	    atomic_load(&pl->wires) != w->wires_asked || atomic_load(&w->mailbox.state) == MAILBOX_POSTED)
		return true;
	if (w->index == 0 && !(ring_is_empty(&pl->inject) && ring_is_empty(&pl->pulse->tx)))
		return true;
	for (uint32_t from = 0; from < pl->n_workers; from++) {
		if (from != w->index && !ring_is_empty(handoff_ring(pl, from, w->index)))
			return true;
	}
	if (w->core.commit.n && atomic_load(&w->acked) != w->acked_seen) /* pairs with worker_ack() */
		return true;
	return atomic_load(&w->events_blocked) && !ring_is_full(&w->events);
}

/* Held frames leave in time, not a millisecond late: the rest of the last one is spent awake. */
static int sleep_ms(const struct worker *w)
{
	const uint64_t tick_ns = UINT64_C(1) << WHEEL_TICK_SHIFT, now_ns = clock_now();
	const uint64_t due_ns = commit_deadline(&w->core);
	uint32_t ms;

	if (wires_is_unsettled(w) || w->defer.n || w->store.n)
		return 1;
	if (fence_role(w->fence_word) != FP_ROLE_ACTIVE)
		return IDLE_SLEEP_MS;
	ms = (uint32_t)((tick_ns - now_ns % tick_ns) / NS_PER_MS);
	if (!atomic_load_explicit(&w->events_blocked, memory_order_relaxed))
		ms = changes_wait_ms(&w->core.changes, (uint32_t)(now_ns / NS_PER_MS), ms);
	if (due_ns == UINT64_MAX)
		return (int)ms + 1;
	return (int)min_u64(ms + 1, due_ns > now_ns ? (due_ns - now_ns) / NS_PER_MS : 0);
}

/*
 * Learn which sources are ready; sleep until one is, unless @busy, or while there was traffic a moment ago: to
 * fall asleep and be woken takes longer than the next frame, often. Done after every pass, because a source
 * that is never empty must not keep the others from being looked at.
 */
static void rest(struct worker *w, bool busy)
{
	struct epoll_event ev[N_SOURCES];
	int n;

	if (busy || w->ready) {
		n = epoll_wait(w->epfd, ev, N_SOURCES, 0);
	} else if (w->poll_until_ns > clock_now()) {
		n = epoll_wait(w->epfd, ev, N_SOURCES, 0);
		counter_add(&w->stat_polls, n == 0);
	} else {
		atomic_store_explicit(&w->wants_acks, w->core.commit.n != 0, memory_order_relaxed);
		doorbell_lie_down(&w->bell);
		n = epoll_wait(w->epfd, ev, N_SOURCES, anything_waits(w) ? 0 : sleep_ms(w));
		doorbell_get_up(&w->bell);
		atomic_store_explicit(&w->events_blocked, false, memory_order_relaxed);
		counter_add(&w->stat_wakeups, 1);
	}
	for (int i = 0; i < n; i++) {
		if (ev[i].data.u32 != SOURCE_BELL)
			w->ready |= 1u << ev[i].data.u32;
	}
	w->ready &= ~w->parked; /* a dead wire speaks up all the same */
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;

	batch_open(w);
	while (!atomic_load_explicit(&w->plane->stop, memory_order_acquire))
		rest(w, pass(w));
	if (w->index == 0) {
		/* The last words: priority 0 adverts, goodbye heartbeats. */
		while (tx_for_others(w, &w->plane->inject) || tx_for_others(w, &w->plane->pulse->tx))
			;
	}
	batch_close(w);
	return NULL;
}

/* ---- control thread ---- */

uint64_t worker_cpu_ns(const struct worker *w)
{
	struct timespec used;
	clockid_t clock;

	if (!w->plane->running || pthread_getcpuclockid(w->thread, &clock) || clock_gettime(clock, &used))
		return 0;
	return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
}

void worker_ack(struct worker *w, uint64_t ev_seq, uint64_t now_ns)
{
	atomic_store(&w->acked, ev_seq); /* pairs with obey_acks(), anything_waits() */
	if (!w->plane->running)
		obey_acks(w, now_ns);
	else if (doorbell_is_asleep(&w->bell) &&
		 atomic_load_explicit(&w->wants_acks, memory_order_relaxed)) /* written before it lay down */
		doorbell_ring(&w->bell);
}

/* ---- life ---- */

/* Core memory: aligned for huge pages, and touched now, so that no packet pays for a page fault. */
static int map_core(struct worker *w)
{
	uint8_t *raw;

	w->core_mem_size = (core_mem_size(w->plane->cfg) + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1);
	raw = mmap(NULL, w->core_mem_size + HUGE_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (raw == MAP_FAILED)
		return -ENOMEM;
	w->core_mem = raw + (-(uintptr_t)raw & (HUGE_PAGE - 1));
	/* Give back what alignment left over, so that munmap() of the block is all there is to do. */
	if (w->core_mem != raw)
		munmap(raw, (size_t)((uint8_t *)w->core_mem - raw));
	munmap((uint8_t *)w->core_mem + w->core_mem_size, (size_t)(raw + HUGE_PAGE - (uint8_t *)w->core_mem));
	madvise(w->core_mem, w->core_mem_size, MADV_HUGEPAGE);
	if (madvise(w->core_mem, w->core_mem_size, MADV_POPULATE_WRITE) && errno == ENOMEM)
		return -ENOMEM;
	return 0;
}

static int watch_sources(struct worker *w)
{
	struct plane *pl = w->plane;
	int rc = watch(w, w->bell.fd, SOURCE_BELL, EPOLLIN | EPOLLET);

	for (uint32_t p = 0; p < pl->cfg->n_ports && rc == 0; p++) {
		rc = watch(w, pl->ports[p].wire[w->index].fd, SOURCE_WIRE + p, EPOLLIN);
		if (rc == 0 && w->index == 0)
			rc = watch(w, pl->ports[p].host[0].fd, SOURCE_HOST + p, EPOLLIN);
	}
	if (rc == 0 && pl->conduit.rx[w->index] >= 0)
		rc = watch(w, pl->conduit.rx[w->index], SOURCE_CONDUIT, EPOLLIN);
	return rc;
}

int worker_open(struct worker *w, struct plane *pl, uint32_t index)
{
	const uint32_t events_cap = pl->cfg->events_cap ? pl->cfg->events_cap : EVENTS_CAP_DEFAULT;
	int rc;

	w->plane = pl;
	w->index = index;
	w->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (w->epfd < 0)
		return -errno;
	rc = handoff_make_room(w);
	if (rc == 0)
		rc = conduit_worker_open(w);
	if (rc == 0)
		rc = defer_init(&w->defer);
	if (rc == 0)
		rc = store_init(&w->store);
	if (rc == 0)
		rc = ring_init(&w->events, sizeof(struct fp_flow_rec), events_cap);
	if (rc == 0)
		rc = ring_init(&w->punts, sizeof(struct fp_punt), PUNT_SLOTS);
	if (rc == 0)
		rc = ring_init(&w->log, sizeof(struct fp_session_log), LOG_SLOTS);
	if (rc == 0)
		rc = map_core(w);
	if (rc == 0)
		rc = core_init(&w->core, pl->cfg, index, w->core_mem, w->core_mem_size);
	return rc ? rc : watch_sources(w);
}

void worker_close(struct worker *w)
{
	if (w->core_mem)
		munmap(w->core_mem, w->core_mem_size);
	ring_free(&w->events);
	ring_free(&w->punts);
	ring_free(&w->log);
	free(w->room);
	defer_free(&w->defer);
	store_free(&w->store);
	conduit_worker_close(w);
	doorbell_free(&w->bell);
	if (w->epfd >= 0)
		close(w->epfd);
}

/* The affinity is an attribute of the new thread, so that it never runs anywhere else. */
static int create_thread(struct worker *w)
{
	const uint32_t pinned = w->plane->cfg->pinned[w->index];
	pthread_attr_t attr;
	cpu_set_t cpus;
	int rc;

	if (!pinned)
		return pthread_create(&w->thread, NULL, worker_run, w);
	CPU_ZERO(&cpus);
	CPU_SET(pinned - 1, &cpus);
	pthread_attr_init(&attr);
	rc = pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	if (rc == 0)
		rc = pthread_create(&w->thread, &attr, worker_run, w);
	pthread_attr_destroy(&attr);
	return rc;
}

int worker_start(struct worker *w)
{
	char name[16];
	int rc = create_thread(w);

	if (rc)
		return -rc;
	snprintf(name, sizeof(name), "fx-worker%u", w->index);
	pthread_setname_np(w->thread, name);
	return 0;
}
