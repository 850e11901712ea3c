/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pulse.c - what heartbeats say, and the rules of silence; time is an argument (pulse_thread.c has the clock)
 */
#include <errno.h>

#include "pulse.h"

#define ANSWER_NS   NS_PER_MS
#define TELL_NS     NS_PER_S          /* between two reports of questions about the lease */
#define DIED_NS     (20 * NS_PER_MS)  /* for what a dead peer has said to arrive */
#define TAKEOVER_NS (50 * NS_PER_MS)  /* for control to begin a reign after the peer was judged dead */
#define STALE_NS    (500 * NS_PER_MS) /* slow wires, and threads that get no CPU */
#define AHEAD_NS    (10 * NS_PER_MS)  /* between a look at the clock and one at the frames */
enum {
	DRIFT_SHARE = 100
}; /* of a second, clocks of two nodes go apart in one: while they are steered, too */

static uint64_t dead_ns(const struct pulse *p)
{
	return p->cfg->pulse.dead_after * pulse_interval_ns(p);
}

/* What the path that was heard last has beyond that: see pulse.h. */
static uint64_t doubt_ns(const struct pulse *p)
{
	return dead_ns(p) < DOUBT_BELOW_MS * NS_PER_MS && p->peer_answers
		       ? p->cfg->pulse.confirm_ms * NS_PER_MS
		       : 0;
}

/* When a path that is alive was heard last; 0: none is. */
static uint64_t last_heard_ns(const struct pulse *p)
{
	uint64_t last_ns = 0;

	for (uint32_t i = 0; i < FP_PATHS_MAX; i++) {
		if (p->paths[i].alive && p->paths[i].quiet_since_ns > last_ns)
			last_ns = p->paths[i].quiet_since_ns;
	}
	return last_ns;
}

static uint64_t silent_at(const struct pulse *p, const struct pulse_path *pp, uint64_t last_ns)
{
	return pp->quiet_since_ns + dead_ns(p) + (pp->quiet_since_ns == last_ns ? doubt_ns(p) : 0);
}

static const struct heartbeat_keys *keys_of(const struct pulse *p)
{
	return &p->keys[atomic_load_explicit(&p->keys_seen, memory_order_relaxed)];
}

static bool is_heard(const struct pulse *p)
{
	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		if (p->paths[i].alive)
			return true;
	}
	return false;
}

/* Whom a path answers, and what he said last, by his own clock. */
struct echo {
	uint64_t incarnation, heard;
};

/*
 * The peer as we know it, or who introduced himself. While the former is heard there, by turns, so that a lie costs
 * the peer no more than every other heartbeat.
 */
static struct echo echo_of(const struct pulse *p, const struct pulse_path *pp)
{
	if (pp->introduced && (!pp->alive || pp->tx_seq % 2))
		return (struct echo){ pp->introduced, pp->introduced_ns };
	return (struct echo){ p->peer.incarnation, is_heard(p) ? p->peer_t_ns : 0 };
}

static bool is_asking(const struct pulse *p)
{
	return p->suspicion.probing || p->lease.asking || p->doubts;
}

/*
 * When its probes may be answered. Who was judged dead and asks whether it still has its role would be told that we do
 * not reign, a moment before we do. A role that we have, we may tell.
 */
static uint64_t silent_until(const struct pulse *p)
{
	return p->judged_ns && !fence_is_active(p->fence) ? p->judged_ns + TAKEOVER_NS : 0;
}

/* What control wants said, and what it cannot say of itself. */
static uint8_t flags_of(const struct pulse *p, uint64_t said)
{
	uint32_t flags = (uint32_t)(said >> 32);

	if (counter_read(&p->hung))
		flags = (flags & ~(uint32_t)FP_HB_READY) | FP_HB_HUNG;
	if (is_asking(p))
		flags |= FP_HB_PROBE;
	return (uint8_t)flags;
}

void pulse_compose(const struct pulse *p, uint32_t path, uint64_t now_ns, uint8_t *out)
{
	const struct fp_pulse_cfg *cfg = &p->cfg->pulse;
	const uint64_t word = fence_read(p->fence);
	const uint64_t said = atomic_load_explicit(&p->said, memory_order_relaxed);
	const struct pulse_path *pp = &p->paths[path];
	const struct echo echo = echo_of(p, pp);
	const struct heartbeat hb = {
		.node_index = (uint8_t)cfg->node_index,
		.role = (uint8_t)fence_role(word),
		.flags = flags_of(p, said),
		.pair_id = cfg->pair_id,
		.interval_ms = cfg->interval_ms,
		.priority = (uint32_t)said,
		.control_beat = atomic_load_explicit(&p->control_beat, memory_order_relaxed),
		.incarnation = cfg->incarnation,
		.term = fence_term(word),
		.seq = pp->tx_seq + 1,
		.t_ns = now_ns,
		.echo = echo.incarnation,
		.answers = now_ns < silent_until(p) ? 0 : p->probe_heard,
		.heard = echo.heard,
	};

	heartbeat_encode(&hb, keys_of(p)->key[0], path, out);
}

/* A peer that restarted counts from 1 again, on every path. */
static void begin_incarnation(struct pulse *p, uint32_t path, uint64_t incarnation)
{
	p->peer = (struct fp_peer){ .incarnation = incarnation };
	p->peer_t_ns = 0;
	p->probe_heard = 0;
	p->died_ns = 0;
	p->peer_path = path;
	p->peer_known = true;
	p->peer_reported = false;
	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		p->paths[i].rx_seq = 0;
		p->paths[i].introduced = 0;
	}
}

static void learn_peer(struct pulse *p, uint32_t path, const struct heartbeat *hb)
{
	const struct fp_peer said = {
		.incarnation = hb->incarnation,
		.term = hb->term,
		.role = hb->role,
		.flags = hb->flags & ~(uint32_t)FP_HB_PROBE, /* is no news */
		.priority = hb->priority,
		.control_beat = hb->control_beat,
	};

	if (hb->t_ns < p->peer_t_ns) /* overtaken by a newer one on a faster path */
		return;
	p->peer_t_ns = hb->t_ns;
	if (said.term != p->peer.term || said.role != p->peer.role || said.flags != p->peer.flags ||
	    said.priority != p->peer.priority) {
		p->peer_reported = false;
		p->peer_path = path;
	}
	p->peer = said;
	p->peer_answers = hb->extended;
	p->peer_hears = hb->heard != 0;
	if (!p->peer_hears) /* its silence says nothing: it was not asked */
		p->suspicion.probing = false;
}

/* Was it said of late, because it names something that we said of late? */
static bool is_proved(const struct pulse *p, const struct heartbeat *hb, uint64_t now_ns)
{
	const uint64_t named_ns = hb->heard > hb->answers ? hb->heard : hb->answers;

	/* A worker reads the clock before its frames: one of them may name what was said in between. */
	return named_ns && now_ns + AHEAD_NS - named_ns <= AHEAD_NS + STALE_NS + 2 * dead_ns(p);
}

/*
 * Else it may have been held back on its way. A peer that does not hear us has nothing of ours to name; but its clock
 * is known from what it could prove before.
 */
static bool is_fresh(const struct pulse *p, const struct heartbeat *hb, bool newer, uint64_t now_ns)
{
	const uint64_t since_ns = now_ns > p->proved_ns ? now_ns - p->proved_ns : 0;
	const uint64_t apart_ns = STALE_NS + since_ns / DRIFT_SHARE;

	if (!hb->extended || is_proved(p, hb, now_ns))
		return true;
	return !newer && (int64_t)(now_ns - hb->t_ns - p->behind_ns) <= (int64_t)apart_ns;
}

/* A life that we do not know, or the peer, whose clock may have jumped while it was not heard. */
static void introduce(struct pulse_path *pp, const struct heartbeat *hb)
{
	if (hb->incarnation < pp->introduced) /* an earlier life: nobody's by now, and recorded */
		return;
	if (hb->incarnation == pp->introduced && hb->t_ns < pp->introduced_ns) /* recorded, too */
		return;
	pp->introduced = hb->incarnation;
	pp->introduced_ns = hb->t_ns;
	if (hb->flags & FP_HB_PROBE &&
	    !pp->alive) /* he may have slept, and will believe us only after an answer */
		pp->answer_due = true;
}

/* Of the peer as it lives now, said since we live, of late, and after what was heard: see pulse.h. */
static bool is_new(struct pulse *p, uint32_t path, const struct heartbeat *hb, uint64_t now_ns)
{
	struct pulse_path *pp = &p->paths[path];
	const bool newer = !p->peer_known || hb->incarnation > p->peer.incarnation;
	const bool passed = !newer && (hb->incarnation != p->peer.incarnation || hb->seq <= pp->rx_seq);
	const bool echoes = hb->echo == p->cfg->pulse.incarnation;

	if (passed || !echoes || !is_fresh(p, hb, newer, now_ns)) {
		/* In silence a stranger's first word is an introduction; else, or repeated, it may be a replay. */
		if (!newer || pp->alive || pp->introduced == hb->incarnation)
			counter_add(&pp->replayed, 1);
		if (newer || (!passed && echoes && !pp->alive))
			introduce(pp, hb);
		return false;
	}
	if (newer)
		begin_incarnation(p, path, hb->incarnation);
	return true;
}

/* Said by a process that is no more. */
static bool is_of_the_dead(const struct pulse *p, const struct heartbeat *hb, uint64_t now_ns)
{
	return p->died_ns && hb->incarnation == p->peer.incarnation && now_ns < p->died_ns + DIED_NS;
}

static void mark_heard(struct pulse *p, struct pulse_path *pp, uint64_t seq, uint64_t now_ns)
{
	if (!is_heard(p)) /* whoever forgot the peer when it fell silent must hear who it is again */
		p->peer_reported = false;
	if (pp->rx_seq != 0)
		counter_add(&pp->lost, seq - pp->rx_seq - 1);
	pp->rx_seq = seq;
	pp->introduced = 0; /* the peer lives: nobody else has its name now */
	pp->alive = true;
	pp->quiet_since_ns = now_ns;
	counter_add(&pp->received, 1);
	counter_set(&pp->last_heard_ns, now_ns);
	counter_set(&pp->is_alive, 1);
}

/* An answer has come. If nothing but a flood spoke against the peer, the next one has less weight. */
static void refute(struct pulse *p, uint32_t path, uint64_t answers, uint64_t now_ns)
{
	struct suspicion *s = &p->suspicion;
	const bool was_probing = s->probing;
	uint64_t rest_ns;

	suspect_answer(s, path, answers, now_ns);
	if (!was_probing || s->probing || s->marks != FP_MARK_VMAC)
		return;
	s->end = SUSPECT_NO_END; /* switches forget every now and then: no news */
	if (p->floods_refuted < FLOOD_SHIFT_MAX)
		p->floods_refuted++;
	rest_ns = now_ns + (FLOOD_REST_NS << p->floods_refuted);
	p->flood_calm_ns = rest_ns + FLOOD_CALM_NS;
	atomic_store_explicit(&p->flood_rest_ns, rest_ns, memory_order_relaxed);
}

/* It is answered by every path: the one that it came by may pass one direction only. */
static void hear_probe(struct pulse *p, uint64_t t_ns)
{
	p->probe_heard = t_ns;
	for (uint32_t i = 0; i < pulse_n_paths(p); i++)
		p->paths[i].answer_due = p->paths[i].used;
}

int pulse_receive(struct pulse *p, uint32_t path, const uint8_t *payload, uint32_t len, uint64_t now_ns)
{
	const struct fp_pulse_cfg *cfg = &p->cfg->pulse;
	struct pulse_path *pp = &p->paths[path];
	struct heartbeat hb;

	if (!pp->used || !heartbeat_decode(payload, len, keys_of(p), path, &hb) ||
	    hb.pair_id != cfg->pair_id || hb.node_index != 1 - cfg->node_index || hb.seq == 0) {
		counter_add(&pp->bad, 1);
		return -EBADMSG;
	}
	if (is_of_the_dead(p, &hb, now_ns) || !is_new(p, path, &hb, now_ns))
		return -ESTALE;
	if (is_proved(p, &hb, now_ns)) {
		p->proved_ns = now_ns;
		p->behind_ns = now_ns - hb.t_ns;
	}
	mark_heard(p, pp, hb.seq, now_ns);
	learn_peer(p, path, &hb);
	if (hb.flags & FP_HB_PROBE && hb.t_ns > p->probe_heard)
		hear_probe(p, hb.t_ns);
	refute(p, path, hb.answers, now_ns);
	if (hb.role == FP_ROLE_ACTIVE && fence_heard(p->fence, hb.term))
		p->fenced_unreported = true;
	lease_answer(&p->lease, path, hb.answers, now_ns);
	return 0;
}

static bool submit(struct pulse *p, const struct fp_pulse_event *what)
{
	struct fp_pulse_event *ev = ring_reserve_one(&p->events);

	if (!ev)
		return false;
	*ev = *what;
	if (ring_submit(&p->events, 1))
		eventfd_signal(p->events_fd);
	return true;
}

static bool report(struct pulse *p, enum fp_pulse_kind kind, uint32_t path, uint64_t now_ns)
{
	return submit(
		p, &(struct fp_pulse_event){ .t_ns = now_ns, .kind = kind, .path = path, .peer = p->peer });
}

/* Before what the paths say, so that control knows why they are silent. */
static void report_suspicion(struct pulse *p, uint64_t now_ns)
{
	struct suspicion *s = &p->suspicion;
	const struct fp_pulse_event what = {
		.t_ns = now_ns,
		.kind = s->end == SUSPECT_REFUTED ? FP_PULSE_REFUTED : FP_PULSE_DEAD,
		.path = s->path,
		.peer = p->peer,
		.marks = s->marks,
		.probes = s->probes,
		.asked_us = (uint32_t)((s->ended_ns - s->begun_ns) / 1000),
		.rtt_us = (uint32_t)(s->rtt_ns / 1000),
	};

	if (s->end == SUSPECT_NO_END)
		return;
	/* There was no room to say it, and it is heard again: then it is no longer so. */
	if ((s->end == SUSPECT_CONFIRMED && is_heard(p)) || submit(p, &what))
		s->end = SUSPECT_NO_END;
}

/* Likewise, if it is heard again before that could be said. */
static void report_death(struct pulse *p, uint64_t now_ns)
{
	if (p->died_unreported && (is_heard(p) || report(p, FP_PULSE_DIED, PULSE_PATH_XC, now_ns)))
		p->died_unreported = false;
}

/* Of interest while it reigned; under load the counters will do. */
static void report_lease(struct pulse *p, uint64_t now_ns)
{
	struct lease *l = &p->lease;
	const struct fp_pulse_event what = {
		.t_ns = now_ns,
		.kind = FP_PULSE_LEASE,
		.path = l->path,
		.peer = p->peer,
		.asked_us = (uint32_t)((l->ended_ns - l->asked_ns) / 1000),
		.stall_us = (uint32_t)min_u64(l->stall_ns / 1000, UINT32_MAX),
		.answered = l->end == LEASE_ANSWERED,
	};
	/* Within a short stall nobody has begun and ended a reign. */
	const bool rests = p->lease_told_ns && now_ns < p->lease_told_ns + TELL_NS &&
			   l->stall_ns < dead_ns(p);

	if (l->end == LEASE_NO_END || l->asking)
		return;
	if (p->asked_active && !rests) {
		if (!submit(p, &what))
			return;
		p->lease_told_ns = now_ns;
	}
	l->end = LEASE_NO_END;
}

static void report_hang(struct pulse *p, uint64_t now_ns)
{
	const uint32_t hung = (uint32_t)counter_read(&p->hung);
	const uint32_t workers = atomic_load_explicit(&p->hung_workers, memory_order_relaxed);
	const struct fp_pulse_event what = {
		.t_ns = now_ns,
		.kind = FP_PULSE_HUNG,
		.peer = p->peer,
		.hung = hung | (p->yielded ? FP_HUNG_YIELDED : 0),
		.worker = hung & FP_HUNG_WORKER ? (uint32_t)__builtin_ctz(workers) : 0,
	};

	if ((p->yielded || hung != p->hung_told) && submit(p, &what)) {
		p->hung_told = hung;
		p->yielded = false;
	}
}

static void report_changes(struct pulse *p, uint64_t now_ns)
{
	report_hang(p, now_ns);
	report_lease(p, now_ns);
	report_suspicion(p, now_ns);
	report_death(p, now_ns);
	if (p->fenced_unreported)
		p->fenced_unreported = !report(p, FP_PULSE_FENCED, p->peer_path, now_ns);
	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		struct pulse_path *pp = &p->paths[i];

		if (pp->alive != pp->reported &&
		    report(p, pp->alive ? FP_PULSE_PATH_UP : FP_PULSE_PATH_DOWN, i, now_ns))
			pp->reported = pp->alive;
	}
	if (p->peer_known && !p->peer_reported)
		p->peer_reported = report(p, FP_PULSE_PEER, p->peer_path, now_ns);
}

static bool peer_reigns(const struct pulse *p)
{
	return p->peer.role == FP_ROLE_ACTIVE && !(p->peer.flags & FP_HB_BYE);
}

void pulse_suspect(struct pulse *p, uint32_t mark, uint64_t now_ns)
{
	p->flooded |= (mark & FP_MARK_VMAC) != 0;
	if (mark & FP_MARK_VMAC && now_ns > p->flood_calm_ns)
		p->floods_refuted = 0;
	if (mark & FP_MARK_VMAC && !peer_reigns(p))
		mark &= ~(uint32_t)FP_MARK_VMAC;
	if (!mark)
		return;
	if (p->cfg->pulse.confirm_ms && p->peer_known && p->peer_hears && is_heard(p))
		suspect_mark(&p->suspicion, mark, p->cfg->pulse.confirm_ms * NS_PER_MS, now_ns);
}

static uint64_t answer_from(const struct pulse *p, const struct pulse_path *pp)
{
	const uint64_t rested_ns = pp->answered_ns + ANSWER_NS, until_ns = silent_until(p);

	return rested_ns > until_ns ? rested_ns : until_ns;
}

bool pulse_answer_due(struct pulse *p, uint32_t path, uint64_t now_ns)
{
	struct pulse_path *pp = &p->paths[path];

	if (!pp->answer_due || now_ns < answer_from(p, pp))
		return false;
	pp->answer_due = false;
	pp->answered_ns = now_ns;
	return true;
}

static void fall_silent(struct pulse_path *pp)
{
	pp->alive = false;
	counter_set(&pp->is_alive, 0);
}

/* Who has said goodbye, or was taken for dead before, has no more to prove. */
void pulse_died(struct pulse *p, uint64_t incarnation, uint64_t now_ns)
{
	if (!p->peer_known || p->peer.incarnation != incarnation || p->peer.flags & FP_HB_BYE || !is_heard(p))
		return;
	p->suspicion = (struct suspicion){ 0 }; /* there is nobody left to ask */
	for (uint32_t i = 0; i < pulse_n_paths(p); i++)
		fall_silent(&p->paths[i]);
	p->doubts = false;
	p->judged_ns = p->died_ns = now_ns;
	p->died_unreported = true;
}

static void renew(struct pulse *p)
{
	const uint64_t until_ns = lease_until(&p->lease, is_heard(p));

	if (until_ns)
		fence_renew(p->fence, until_ns);
}

void pulse_pass(struct pulse *p, uint64_t now_ns)
{
	const bool was_asking = p->lease.asking;

	lease_pass(&p->lease, p->peer_known && p->peer_answers, now_ns);
	if (p->lease.asking && !was_asking)
		p->asked_active = fence_is_active(p->fence);
}

static bool control_hangs(struct pulse *p, uint64_t now_ns)
{
	const uint32_t beat = atomic_load_explicit(&p->control_beat, memory_order_relaxed);
	const uint64_t limit_ns = p->cfg->pulse.control_dead_ms * NS_PER_MS;

	progress_give_back(&p->control, p->last_tick_ns, now_ns);
	return beat && progress_look(&p->control, beat, limit_ns, now_ns) == PROGRESS_HANGS;
}

static bool worker_hangs(struct pulse *p, uint32_t i, uint64_t now_ns)
{
	struct pulse_worker *w = &p->workers[i];
	const uint32_t passes = atomic_load_explicit(&w->passes, memory_order_relaxed);
	enum progress_is is;

	if (!w->bell)
		return false;
	progress_give_back(&p->worker[i], p->last_tick_ns, now_ns);
	is = progress_look(&p->worker[i], passes, p->cfg->pulse.worker_dead_ms * NS_PER_MS, now_ns);
	if (is != PROGRESS_MOVES)
		doorbell_ring(w->bell); /* it may only sleep */
	return is == PROGRESS_HANGS;
}

static bool peer_may_take_over(const struct pulse *p)
{
	return p->peer.role == FP_ROLE_PASSIVE && (p->peer.flags & FP_HB_READY) &&
	       !(p->peer.flags & FP_HB_HUNG) && is_heard(p);
}

static void look_for_hangs(struct pulse *p, uint64_t now_ns)
{
	uint32_t hung = control_hangs(p, now_ns) ? FP_HUNG_CONTROL : 0, workers = 0;

	for (uint32_t i = 0; i < p->n_rx; i++) {
		if (worker_hangs(p, i, now_ns))
			workers |= 1u << i;
	}
	if (workers)
		hung |= FP_HUNG_WORKER;
	atomic_store_explicit(&p->hung_workers, workers, memory_order_relaxed); /* pulse_hung_workers() */
	counter_set(&p->hung, hung);
	if (hung && peer_may_take_over(p) && fence_yield(p->fence)) {
		p->yielded = true;
		atomic_fetch_add(&p->bursts_wanted, 1); /* the thread's own: it looks before it rests */
	}
}

bool pulse_probe(struct pulse *p, uint64_t now_ns)
{
	const bool suspects = suspect_probe(&p->suspicion, now_ns), asks = lease_probe(&p->lease, now_ns);

	const bool doubts = p->doubts && now_ns >= p->doubt_probe_ns;

	if (doubts)
		p->doubt_probe_ns = now_ns + SUSPECT_PROBE_NS;
	return suspects || asks || doubts;
}

/* Not listened for so long: it is not silence. */
static void give_back(struct pulse *p, uint64_t not_listened)
{
	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		struct pulse_path *pp = &p->paths[i];

		/* Heard after the stall: nothing to give back. */
		if (pp->alive && pp->quiet_since_ns <= p->last_tick_ns)
			pp->quiet_since_ns += not_listened;
	}
}

static void judge_silence(struct pulse *p, bool dead, uint64_t now_ns)
{
	const uint64_t last_ns = last_heard_ns(p);

	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		struct pulse_path *pp = &p->paths[i];

		if (pp->alive && (dead || now_ns >= silent_at(p, pp, last_ns)))
			fall_silent(pp);
	}
	p->doubts = is_heard(p) && doubt_ns(p) && now_ns >= last_ns + dead_ns(p);
}

static uint64_t parks_until(const struct pulse *p)
{
	return p->judged_ns && !is_heard(p) ? p->judged_ns + SUSPECT_PARK_NS : 0;
}

/* Before control hears of a death: what the workers keep is for the reign that follows. */
static void tell_workers(struct pulse *p, uint64_t now_ns)
{
	const uint32_t was = atomic_load_explicit(&p->standing, memory_order_relaxed);
	uint32_t number = suspect_number(was), state = SUSPECT_CALM;

	if (is_heard(p) && (p->suspicion.probing || p->doubts))
		state = SUSPECT_ASKED;
	else if (now_ns < parks_until(p))
		state = SUSPECT_DEAD;
	if (state == SUSPECT_CALM && (suspect_state(was) != SUSPECT_CALM || p->flooded))
		number++;
	p->flooded = false;
	atomic_store_explicit(&p->standing, number << SUSPECT_STATE_BITS | state,
			      memory_order_release); /* pairs with pulse_standing() */
}

void pulse_tick(struct pulse *p, uint64_t now_ns)
{
	const uint64_t away = now_ns - p->last_tick_ns;
	/* The thread wakes once an interval at least; what is beyond that, it did not listen. */
	const uint64_t not_listened = p->last_tick_ns && away > pulse_interval_ns(p)
					      ? away - pulse_interval_ns(p)
					      : 0;

	const bool was_heard = is_heard(p);
	bool dead;

	look_for_hangs(p, now_ns);
	suspect_stall(&p->suspicion, p->last_tick_ns, now_ns);
	dead = suspect_judge(&p->suspicion, now_ns);
	give_back(p, not_listened);
	judge_silence(p, dead, now_ns);
	p->last_tick_ns = now_ns;
	if (was_heard && !is_heard(p))
		p->judged_ns = now_ns;
	renew(p);
	tell_workers(p, now_ns);
	report_changes(p, now_ns);
}

uint64_t pulse_next_deadline(const struct pulse *p)
{
	const uint64_t last_ns = last_heard_ns(p);
	uint64_t deadline = min_u64(p->next_send_ns, suspect_deadline(&p->suspicion));

	deadline = min_u64(deadline, lease_deadline(&p->lease));
	deadline = min_u64(deadline, lifeline_deadline(&p->line, pulse_may_call(p), p->peer.incarnation));
	if (p->cfg->pulse.control_dead_ms || p->cfg->pulse.worker_dead_ms)
		deadline = min_u64(deadline, p->last_tick_ns + PROGRESS_LOOK_NS / 2);

	if (suspect_state(pulse_standing(p)) == SUSPECT_DEAD)
		deadline = min_u64(deadline, parks_until(p));
	if (doubt_ns(p) && is_heard(p))
		deadline = min_u64(deadline, p->doubts ? p->doubt_probe_ns : last_ns + dead_ns(p));
	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		const struct pulse_path *pp = &p->paths[i];

		if (pp->alive)
			deadline = min_u64(deadline, silent_at(p, pp, last_ns));
		if (pp->answer_due)
			deadline = min_u64(deadline, answer_from(p, pp));
	}
	return deadline;
}

/* ---- control thread ---- */

int pulse_keys(struct pulse *p, const uint8_t (*keys)[SIPHASH_KEY_LEN], uint32_t n)
{
	const uint32_t held = atomic_load(&p->keys_held), next = 1 - held;

	if (p->running && atomic_load(&p->keys_seen) != held) /* the thread still reads the other ones */
		return -EBUSY;
	memcpy(p->keys[next].key, keys, n * sizeof(*keys));
	p->keys[next].n = n;
	atomic_store(&p->keys_held, next);
	if (p->running)
		doorbell_ring(&p->bell);
	else
		atomic_store(&p->keys_seen, next);
	return 0;
}

void pulse_watch_worker(struct pulse *p, uint32_t worker, struct doorbell *bell)
{
	p->workers[worker].bell = bell;
}

void pulse_lease_read(const struct pulse *p, struct fp_lease_stats *out)
{
	const struct lease *l = &p->lease;

	*out = (struct fp_lease_stats){
		.lease_ns = l->ns,
		.asked = counter_read(&l->asked),
		.unanswered = counter_read(&l->unanswered),
		.longest_ns = counter_read(&l->longest_ns),
		.asking = (uint32_t)counter_read(&l->is_asking),
		.hung = (uint32_t)counter_read(&p->hung),
	};
}

void pulse_line_read(const struct pulse *p, struct fp_line_stats *out)
{
	*out = (struct fp_line_stats){
		.made = counter_read(&p->line.made),
		.bad = counter_read(&p->line.bad),
		.stands = (uint32_t)counter_read(&p->line.stands),
	};
}

void pulse_say(struct pulse *p, uint32_t flags, uint32_t priority)
{
	atomic_store_explicit(&p->said, (uint64_t)flags << 32 | priority, memory_order_relaxed);
}

void pulse_mark(struct pulse *p, uint32_t mark)
{
	atomic_fetch_or(&p->marked, mark); /* pairs with pulse_run() */
	doorbell_ring(&p->bell);
}

bool pulse_flooded(struct pulse *p, uint64_t now_ns)
{
	uint64_t rest_ns = atomic_load_explicit(&p->flood_rest_ns, memory_order_relaxed);

	if (now_ns < rest_ns)
		return false;
	/* Another worker may have said it first: then it is said. */
	if (atomic_compare_exchange_strong(&p->flood_rest_ns, &rest_ns, now_ns + FLOOD_REST_NS))
		pulse_mark(p, FP_MARK_VMAC);
	return true;
}

void pulse_burst(struct pulse *p)
{
	atomic_fetch_add(&p->bursts_wanted, 1); /* also publishes what pulse_say() wrote */
	doorbell_ring(&p->bell);
}

void pulse_stats_read(const struct pulse *p, uint32_t path, struct fp_path_stats *out)
{
	const struct pulse_path *pp = &p->paths[path];

	*out = (struct fp_path_stats){
		.sent = counter_read(&pp->sent),
		.received = counter_read(&pp->received),
		.lost = counter_read(&pp->lost),
		.bad = counter_read(&pp->bad),
		.replayed = counter_read(&pp->replayed),
		.last_heard_ns = counter_read(&pp->last_heard_ns),
		.alive = (uint32_t)counter_read(&pp->is_alive),
	};
}
