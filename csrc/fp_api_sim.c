/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api_sim.c - the boundary: the pulse thread of a simulated node, whose clock and network are the caller's
 *
 * Theory of operation
 *   Everything that decides is that of pulse.c and pulse_thread.c: a turn here is a turn of the thread. What it would
 *   send is handed back, and what it would receive comes by the ring that workers use.
 *
 *   While nothing comes, the thread wakes two hundred times a second to renew its lease. Nobody sees these turns; so
 *   they are made up for, at the very times that they are due, when somebody looks (run_until()), and the caller is told
 *   only when something may be seen (next_ns). Who was stopped makes up for nothing: then it was away.
 */
#include <errno.h>
#include <stdlib.h>

#include "pulse.h"

/**
 * struct fp_sim - A pulse without a thread
 * @bell:   nobody sleeps behind it
 * @turn:   where heartbeats go
 * @away:   it had no turn for a while
 * @moves:  control, and the worker, get on
 */
struct fp_sim {
	struct fp_config cfg;
	struct fence fence;
	struct doorbell bell;
	struct pulse pulse;
	struct fp_sim_turn *turn;
	bool away;
	struct {
		bool control, worker;
	} moves;
};

enum { RESTLESS_MAX = 100 }; /* turns at one time */

static_assert(sizeof(((struct fp_sim_turn *)0)->said[0]) == HB_LEN, "room for a heartbeat");

static bool carry(struct pulse *p, uint32_t path, const uint8_t *payload)
{
	struct fp_sim *sim = (struct fp_sim *)((char *)p - offsetof(struct fp_sim, pulse));
	struct fp_sim_turn *t = sim->turn;

	if (!t || t->n_said == FP_SIM_SAID_MAX)
		return false;
	t->path[t->n_said] = (uint8_t)path;
	memcpy(t->said[t->n_said++], payload, HB_LEN);
	return true;
}

int fp_sim_open(const struct fp_pulse_cfg *cfg, uint32_t n_ports, uint64_t now_ns, fp_sim **out)
{
	const size_t size = (sizeof(struct fp_sim) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
	struct fp_error err = { "" };
	struct fp_sim *sim;
	int rc;

	if (!cfg || !out || n_ports > FP_PORTS_MAX)
		return -EINVAL;
	sim = aligned_alloc(CACHE_LINE, size);
	if (!sim)
		return -ENOMEM;
	memset(sim, 0, size);
	sim->cfg.n_workers = 1;
	sim->cfg.n_ports = n_ports;
	sim->cfg.pulse = *cfg;
	sim->cfg.pulse.xc_addr = (struct fp_addr){ 0 }; /* no sockets */
	for (uint32_t i = 0; i < n_ports; i++)
		sim->cfg.ports[i].peer_mac[0] = 2;
	sim->bell.fd = -1;
	rc = pulse_open(&sim->pulse, &sim->cfg, &sim->fence, &sim->bell, -1, &err);
	doorbell_free(&sim->pulse.bell); /* some thousand nodes live and die in a process */
	if (rc) {
		fp_sim_close(sim);
		return rc;
	}
	sim->pulse.paths[PULSE_PATH_XC].used = true;
	sim->pulse.carry = carry;
	sim->pulse.last_tick_ns = sim->pulse.next_send_ns = now_ns; /* as pulse_run() begins */
	sim->moves.control = sim->moves.worker = true;
	pulse_watch_worker(&sim->pulse, 0, &sim->bell);
	*out = sim;
	return 0;
}

void fp_sim_close(fp_sim *sim)
{
	if (!sim)
		return;
	pulse_close(&sim->pulse);
	free(sim);
}

static void take_turn(struct fp_sim *sim, uint64_t now_ns)
{
	if (sim->moves.worker)
		pulse_moves(&sim->pulse, 0);
	if (sim->moves.control)
		atomic_fetch_add(&sim->pulse.control_beat, 1);
	pulse_turn(&sim->pulse, 0, now_ns);
}

static uint64_t due_ns(const struct fp_sim *sim)
{
	const uint64_t at_ns = pulse_next_deadline(&sim->pulse);

	return at_ns > sim->pulse.last_tick_ns ? at_ns : sim->pulse.last_tick_ns;
}

/* Return: -ELOOP: the thread would not rest. */
static int run_until(struct fp_sim *sim, uint64_t now_ns)
{
	uint32_t restless = 0;

	while (!sim->away && due_ns(sim) < now_ns) {
		restless = due_ns(sim) > sim->pulse.last_tick_ns ? 0 : restless + 1;
		if (restless > RESTLESS_MAX)
			return -ELOOP;
		take_turn(sim, due_ns(sim));
	}
	sim->away = false;
	return 0;
}

/* When something may be seen: a lease that is renewed in time is not. */
static uint64_t seen_ns(struct fp_sim *sim)
{
	const uint64_t lease_ns = sim->pulse.lease.ns;
	uint64_t next_ns;

	if (!sim->pulse.lease.asking)
		sim->pulse.lease.ns = 0;
	next_ns = pulse_next_deadline(&sim->pulse);
	sim->pulse.lease.ns = lease_ns;
	return next_ns;
}

static void tell(struct fp_sim *sim, struct fp_sim_turn *t)
{
	const uint64_t word = fence_read(&sim->fence);

	t->next_ns = seen_ns(sim);
	t->lease_until_ns = fence_lease(&sim->fence);
	t->term = fence_term(word);
	t->role = fence_role(word);
	t->alive = 0;
	for (uint32_t i = 0; i < pulse_n_paths(&sim->pulse); i++)
		t->alive |= (uint32_t)sim->pulse.paths[i].alive << i;
	t->events = !ring_is_empty(&sim->pulse.events);
	sim->turn = NULL;
}

static int begin(struct fp_sim *sim, uint64_t now_ns, struct fp_sim_turn *t)
{
	if (!sim || !t)
		return -EINVAL;
	t->n_said = 0;
	sim->turn = t;
	return run_until(sim, now_ns);
}

int fp_sim_turn(fp_sim *sim, uint64_t now_ns, struct fp_sim_turn *turn)
{
	const int rc = begin(sim, now_ns, turn);

	if (rc)
		return rc;
	take_turn(sim, now_ns);
	tell(sim, turn);
	return 0;
}

int fp_sim_hear(fp_sim *sim, uint32_t path, const uint8_t *payload, uint32_t len, uint64_t now_ns,
		struct fp_sim_turn *turn)
{
	struct pulse_heard *slot;
	int rc;

	if (!payload || len > HB_LEN || !sim || path > sim->cfg.n_ports)
		return -EINVAL;
	rc = begin(sim, now_ns, turn);
	if (rc)
		return rc;
	slot = ring_reserve_one(&sim->pulse.rx[0]);
	if (slot) {
		*slot = (struct pulse_heard){ .t_ns = now_ns, .path = path, .len = len };
		memcpy(slot->payload, payload, len);
		ring_submit(&sim->pulse.rx[0], 1);
	}
	take_turn(sim, now_ns);
	tell(sim, turn);
	return slot ? 0 : -ENOBUFS;
}

int fp_sim_look(fp_sim *sim, uint64_t now_ns, struct fp_sim_turn *turn)
{
	const int rc = begin(sim, now_ns, turn);

	if (rc)
		return rc;
	tell(sim, turn);
	return 0;
}

int fp_sim_stop(fp_sim *sim, uint64_t now_ns)
{
	int rc;

	if (!sim)
		return -EINVAL;
	rc = run_until(sim, now_ns);
	sim->away = true;
	return rc;
}

int fp_sim_moves(fp_sim *sim, uint32_t control, uint32_t worker)
{
	if (!sim)
		return -EINVAL;
	sim->moves.control = control;
	sim->moves.worker = worker;
	return 0;
}

int fp_sim_mark(fp_sim *sim, uint32_t mark)
{
	if (!sim)
		return -EINVAL;
	pulse_mark(&sim->pulse, mark);
	return 0;
}

int fp_sim_flood(fp_sim *sim, uint64_t now_ns)
{
	if (!sim)
		return -EINVAL;
	return pulse_flooded(&sim->pulse, now_ns);
}

int fp_sim_died(fp_sim *sim, uint64_t incarnation, uint64_t now_ns)
{
	int rc;

	if (!sim)
		return -EINVAL;
	rc = run_until(sim, now_ns);
	pulse_died(&sim->pulse, incarnation, now_ns);
	return rc;
}

int fp_sim_set_role(fp_sim *sim, uint32_t role, uint64_t term)
{
	return sim ? fence_set(&sim->fence, role, term) : -EINVAL;
}

int fp_sim_say(fp_sim *sim, uint32_t flags, uint32_t priority)
{
	if (!sim)
		return -EINVAL;
	pulse_say(&sim->pulse, flags, priority);
	return 0;
}

int fp_sim_burst(fp_sim *sim)
{
	if (!sim)
		return -EINVAL;
	pulse_burst(&sim->pulse);
	return 0;
}

int fp_sim_events(fp_sim *sim, struct fp_pulse_event *out, uint32_t cap)
{
	const struct fp_pulse_event *slot;
	uint32_t n;

	if (!sim || !out)
		return -EINVAL;
	for (n = 0; n < cap; n++) {
		slot = ring_peek_one(&sim->pulse.events);
		if (!slot)
			break;
		out[n] = *slot;
		ring_release(&sim->pulse.events, 1);
	}
	return (int)n;
}
