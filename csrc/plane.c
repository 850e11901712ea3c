/* SPDX-License-Identifier: Apache-2.0 */
/**
 * plane.c - the workers together: how control asks them, starts and stops them
 */
#include <errno.h>
#include <stdio.h>

#include "plane.h"

enum { ASK_TIMEOUT_S = 2, TELL_TRIES = 5, LOOK_MS = 50 };

/* ---- asking ---- */

static void post(struct worker *w, const struct request *req)
{
	w->mailbox.req = *req;
	atomic_store(&w->mailbox.state, MAILBOX_POSTED); /* pairs with serve_mailbox() */
	doorbell_ring(&w->bell);
}

static bool worker_hangs(const struct plane *pl, uint32_t worker)
{
	return pl->pulse && pulse_hung_workers(pl->pulse) >> worker & 1;
}

bool plane_hangs(const struct plane *pl)
{
	return pl->pulse && pulse_hung_workers(pl->pulse) != 0;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

/* Wait until @answered is posted; false when the time is over, or the worker hangs. */
static bool wait_answer(struct plane *pl, uint32_t worker, const struct timespec *deadline)
{
	for (;;) {
		struct timespec look;

		clock_gettime(CLOCK_MONOTONIC, &look);
		look.tv_nsec += LOOK_MS * (long)NS_PER_MS;
		look.tv_sec += look.tv_nsec / (long)NS_PER_S;
		look.tv_nsec %= (long)NS_PER_S;
		if (sem_clockwait(&pl->answered, CLOCK_MONOTONIC,
				  is_later(&look, deadline) ? deadline : &look) == 0)
			return true;
		if (errno == ETIMEDOUT && (is_later(&look, deadline) || worker_hangs(pl, worker)))
			return false;
	}
}

static struct timespec ask_deadline(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ASK_TIMEOUT_S;
	return ts;
}

static int await(struct worker *w, const struct timespec *deadline)
{
	struct mailbox *mb = &w->mailbox;
	uint32_t posted = MAILBOX_POSTED;
	uint64_t patience = 0;

	while (atomic_load(&mb->state) != MAILBOX_DONE) { /* pairs with serve_mailbox() */
		struct timespec later = *deadline;

		later.tv_sec += (time_t)patience;
		if (wait_answer(w->plane, w->index, &later))
			continue;
		if (atomic_compare_exchange_strong(&mb->state, &posted, MAILBOX_IDLE))
			return -ETIMEDOUT;
		/* Taken: it works on our memory, and each request is bounded. */
		posted = MAILBOX_POSTED;
		patience += ASK_TIMEOUT_S;
	}
	atomic_store_explicit(&mb->state, MAILBOX_IDLE, memory_order_relaxed);
	return mb->result;
}

int plane_ask(struct plane *pl, uint32_t worker, struct request *req, uint64_t now_ns)
{
	struct worker *w = &pl->workers[worker];
	struct timespec deadline;
	int rc;

	pthread_mutex_lock(&pl->asking);
	if (pl->running && worker_hangs(pl, worker)) {
		rc = -ETIMEDOUT;
	} else if (pl->running) {
		deadline = ask_deadline();
		post(w, req);
		rc = await(w, &deadline);
		if (rc != -ETIMEDOUT)
			*req = w->mailbox.req;
	} else {
		rc = worker_execute(w, req, now_ns);
	}
	pthread_mutex_unlock(&pl->asking);
	return rc;
}

int plane_ask_all(struct plane *pl, const struct request *req, uint64_t now_ns)
{
	struct timespec deadline;
	uint32_t asked = 0;
	int sum = 0, error = 0;

	pthread_mutex_lock(&pl->asking);
	deadline = ask_deadline();
	for (uint32_t i = 0; i < pl->n_workers && pl->running; i++) {
		if (worker_hangs(pl, i))
			continue;
		post(&pl->workers[i], req);
		asked |= 1u << i;
	}
	for (uint32_t i = 0; i < pl->n_workers; i++) {
		struct request own = *req;
		int rc = -ETIMEDOUT;

		if (!pl->running)
			rc = worker_execute(&pl->workers[i], &own, now_ns);
		else if (asked >> i & 1)
			rc = await(&pl->workers[i], &deadline);
		if (rc < 0 && error == 0)
			error = rc;
		sum += rc;
	}
	pthread_mutex_unlock(&pl->asking);
	return error ? error : sum;
}

int plane_tell_all(struct plane *pl, const struct request *req, uint64_t now_ns)
{
	int rc = -ETIMEDOUT;

	for (uint32_t i = 0; i < TELL_TRIES && rc == -ETIMEDOUT; i++) {
		rc = plane_ask_all(pl, req, now_ns);
		if (plane_hangs(pl))
			break;
	}
	return rc;
}

int plane_reopen_port(struct plane *pl, uint32_t port, uint64_t now_ns, struct fp_error *err)
{
	struct port *p = &pl->ports[port];
	struct chan wire[FP_WORKERS_MAX];
	int rc;

	if (p->cfg->driver != FP_DRIVER_PACKET)
		return port_fail(err, -EOPNOTSUPP, "port %s: its driver has no device of others",
				 p->cfg->name);
	rc = port_packet_open_wire(p, wire, err);
	for (uint32_t i = 0; i < pl->n_workers && rc == 0; i++) {
		struct request req = { .kind = REQ_WIRE, .port = port, .wire = &wire[i] };

		rc = plane_ask(pl, i, &req, now_ns);
		if (rc)
			port_fail(err, rc, "port %s: worker %u: %s", p->cfg->name, i, strerror(-rc));
	}
	for (uint32_t i = 0; i < pl->n_workers; i++)
		packet_chan_close(&wire[i]); /* the old ones, and what nobody took */
	return rc;
}

static int await_role(struct plane *pl, uint64_t wanted)
{
	struct timespec deadline = ask_deadline();

	for (uint32_t i = 0; i < pl->n_workers; i++) {
		/* The pulse thread may lower the fence meanwhile: then wait no longer for the old word. */
		while (atomic_load(&pl->workers[i].obeyed) != wanted) { /* pairs with worker_obey_fence() */
			if (fence_read(&pl->fence) != wanted)
				return -ESTALE;
			if (!wait_answer(pl, i, &deadline))
				return -ETIMEDOUT;
		}
	}
	return 0;
}

int plane_set_role(struct plane *pl, uint32_t role, uint64_t term, uint64_t now_ns)
{
	int rc = fence_set(&pl->fence, role, term);

	if (rc)
		return rc;
	for (uint32_t i = 0; i < pl->n_workers; i++) {
		struct worker *w = &pl->workers[i];

		if (!pl->running) {
			worker_obey_fence(w, now_ns);
			continue;
		}
		doorbell_ring(&w->bell);
	}
	pthread_mutex_lock(&pl->asking);
	rc = await_role(pl, fence_word(role, term));
	pthread_mutex_unlock(&pl->asking);
	return rc;
}

/* ---- life ---- */

static int open_rings(struct plane *pl)
{
	const uint32_t n = pl->n_workers;
	int rc = ring_init(&pl->inject, sizeof(struct port_frame), INJECT_SLOTS);

	pl->handoff = aligned_alloc(CACHE_LINE, sizeof(struct ring) * n * n);
	if (!pl->handoff)
		return -ENOMEM;
	memset(pl->handoff, 0, sizeof(struct ring) * n * n);
	for (uint32_t i = 0; i < n * n && rc == 0; i++) {
		if (i / n != i % n) /* nobody hands on to himself */
			rc = ring_init(&pl->handoff[i], sizeof(struct handoff_frame), HANDOFF_SLOTS);
	}
	return rc;
}

static int open_quota(struct plane *pl)
{
	const size_t size = quota_mem_size(pl->cfg->flow_cap);
	void *mem = aligned_alloc(CACHE_LINE, size);

	if (!mem)
		return -ENOMEM;
	memset(mem, 0, size);
	quota_init(&pl->quota, pl->cfg->flow_cap, mem);
	return 0;
}

int plane_open(struct plane *pl, const struct fp_config *cfg, struct fp_error *err)
{
	int rc;

	pl->cfg = cfg;
	pl->n_workers = cfg->n_workers;
	conduit_init(&pl->conduit);
	sem_init(&pl->answered, 0, 0);
	pthread_mutex_init(&pl->asking, NULL);
	atomic_store(&pl->changes_to, pl->events_fd);
	pl->workers = aligned_alloc(CACHE_LINE, sizeof(struct worker) * cfg->n_workers);
	if (!pl->workers)
		return -ENOMEM;
	memset(pl->workers, 0, sizeof(struct worker) * cfg->n_workers);
	for (uint32_t i = 0; i < cfg->n_workers; i++)
		pl->workers[i].epfd = pl->workers[i].bell.fd = pl->workers[i].batch.ring.fd = -1;
	for (uint32_t i = 0; i < cfg->n_workers; i++) {
		rc = doorbell_init(&pl->workers[i].bell);
		if (rc)
			return rc;
	}
	rc = open_rings(pl);
	for (uint32_t i = 0; i < cfg->n_ports && rc == 0; i++) {
		rc = port_open(&pl->ports[i], &cfg->ports[i], cfg->n_workers, err);
		for (uint32_t q = 0; q < cfg->n_workers; q++)
			pl->ports[i].wire[q].len_max = ETH_LEN + cfg->ports[i].mtu;
	}
	if (rc == 0)
		rc = open_quota(pl);
	if (rc == 0)
		rc = conduit_open(&pl->conduit, cfg, err);
	for (uint32_t i = 0; i < cfg->n_workers && rc == 0; i++) {
		rc = worker_open(&pl->workers[i], pl, i);
		core_set_quota(&pl->workers[i].core, &pl->quota);
	}
	return rc;
}

void plane_close(struct plane *pl)
{
	if (!pl->cfg) /* never opened */
		return;
	plane_stop(pl);
	for (uint32_t i = 0; i < FP_PORTS_MAX; i++) {
		if (pl->ports[i].close)
			pl->ports[i].close(&pl->ports[i]);
	}
	for (uint32_t i = 0; i < pl->n_workers && pl->workers; i++)
		worker_close(&pl->workers[i]);
	conduit_close(&pl->conduit);
	for (uint32_t i = 0; i < pl->n_workers * pl->n_workers && pl->handoff; i++)
		ring_free(&pl->handoff[i]);
	free(pl->handoff);
	free(pl->quota.count);
	ring_free(&pl->inject);
	free(pl->workers);
	pthread_mutex_destroy(&pl->asking);
	sem_destroy(&pl->answered);
}

int plane_start(struct plane *pl, struct fp_error *err)
{
	int rc = 0;

	atomic_store(&pl->stop, false);
	for (uint32_t i = 0; i < pl->n_workers; i++) {
		rc = worker_start(&pl->workers[i]);
		if (rc == 0)
			continue;
		snprintf(err->text, sizeof(err->text), "worker %u: %s", i, strerror(-rc));
		atomic_store(&pl->stop, true);
		while (i-- > 0) {
			doorbell_ring(&pl->workers[i].bell);
			pthread_join(pl->workers[i].thread, NULL);
		}
		return rc;
	}
	pl->running = true;
	return 0;
}

void plane_stop(struct plane *pl)
{
	if (!pl->running)
		return;
	atomic_store(&pl->stop, true);
	for (uint32_t i = 0; i < pl->n_workers; i++)
		doorbell_ring(&pl->workers[i].bell);
	for (uint32_t i = 0; i < pl->n_workers; i++)
		pthread_join(pl->workers[i].thread, NULL);
	pl->running = false;
}
