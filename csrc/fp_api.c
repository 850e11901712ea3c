/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api.c - the boundary: every fp_* function of fp_abi.h, but for the columns (cols.c)
 *
 * Checks each argument, then leaves the work to plane.c and pulse.c. All of it runs on the control
 * thread. fp_source_hash() stands in the file that ffi_build.py generates.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "clock.h"
#include "dp.h"
#include "policy.h"
#include "validate.h"

/* The sizes that flexha/fastpath/lib.py asserts; cffi would report a difference only on first use. */
static_assert(sizeof(struct fp_addr) == 16, "fp_addr");
static_assert(sizeof(struct fp_port_cfg) == 448, "fp_port_cfg");
static_assert(sizeof(struct fp_pool_cfg) == 48, "fp_pool_cfg");
static_assert(sizeof(struct fp_config) == 4200, "fp_config");
static_assert(sizeof(struct fp_flow_rec) == 160, "fp_flow_rec");
static_assert(sizeof(struct fp_route) == 40, "fp_route");
static_assert(sizeof(struct fp_neigh) == 24, "fp_neigh");
static_assert(sizeof(struct fp_prefix) == 24, "fp_prefix");
static_assert(sizeof(struct fp_service) == 6, "fp_service");
static_assert(sizeof(struct fp_rule) == 48, "fp_rule");
static_assert(sizeof(struct fp_forward) == 28, "fp_forward");
static_assert(sizeof(struct fp_policy_cfg) == 56, "fp_policy_cfg");
static_assert(sizeof(struct fp_session_log) == 80, "fp_session_log");
static_assert(sizeof(struct fp_pool_use) == 12, "fp_pool_use");
static_assert(sizeof(struct fp_vnet) == 10, "fp_vnet");
static_assert(sizeof(struct fp_frame) == 56, "fp_frame");
static_assert(sizeof(struct fp_punt) == 296, "fp_punt");
static_assert(sizeof(struct fp_pulse_event) == 48, "fp_pulse_event");
static_assert(sizeof(struct fp_worker_stats) == 216, "fp_worker_stats");
static_assert(sizeof(struct fp_bpf) == 8, "fp_bpf");
static_assert(sizeof(struct fp_capture_cfg) == 56, "fp_capture_cfg");
static_assert(sizeof(struct fp_capture_rec) == 72, "fp_capture_rec");
static_assert(sizeof(struct fp_cols) == 168, "fp_cols");

static uint64_t now_of(const fp_dp *dp)
{
	return dp->test_now_ns && !dp->plane.running ? dp->test_now_ns : clock_now();
}

static struct worker *worker_of(const fp_dp *dp, uint32_t worker)
{
	return dp && worker < dp->plane.n_workers ? &dp->plane.workers[worker] : NULL;
}

/* ---- life ---- */

int fp_open(const struct fp_config *cfg, fp_dp **out, struct fp_error *err)
{
	fp_dp *dp;
	int rc;

	if (!cfg || !out || !err)
		return -EINVAL;
	*out = NULL;
	err->text[0] = '\0';
	rc = validate_config(cfg, err);
	if (rc)
		return rc;
	dp = aligned_alloc(CACHE_LINE, sizeof(*dp));
	if (!dp)
		return -ENOMEM;
	memset(dp, 0, sizeof(*dp));
	dp->cfg = *cfg;
	dp->plane.pulse = &dp->pulse;
	dp->plane.events_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = dp->plane.events_fd < 0 ? -errno : plane_open(&dp->plane, &dp->cfg, err);
	if (rc == 0)
		rc = pulse_open(&dp->pulse, &dp->cfg, &dp->plane.fence, &dp->plane.workers[0].bell,
				dp->plane.events_fd, err);
	if (rc) {
		if (err->text[0] == '\0')
			snprintf(err->text, sizeof(err->text), "out of resources: %s", strerror(-rc));
		fp_close(dp);
		return rc;
	}
	*out = dp;
	return 0;
}

int fp_start(fp_dp *dp, struct fp_error *err)
{
	sigset_t all, old;
	int rc;

	if (!dp || !err)
		return -EINVAL;
	err->text[0] = '\0';
	if (dp->plane.running)
		return -EALREADY;
	/* Threads inherit the mask: signals are for the control thread, whose event loop waits for them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = plane_start(&dp->plane, err);
	if (rc == 0)
		rc = pulse_start(&dp->pulse, err);
	if (rc)
		plane_stop(&dp->plane);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

int fp_stop(fp_dp *dp)
{
	if (!dp)
		return -EINVAL;
	/* Pulse first: its goodbye leaves through worker 0. */
	pulse_stop(&dp->pulse);
	plane_stop(&dp->plane);
	return 0;
}

static void free_snapshots(struct snapshot **list)
{
	while (*list) {
		struct snapshot *block = *list;

		*list = block->older;
		free(block->mem);
		free(block);
	}
}

void fp_close(fp_dp *dp)
{
	if (!dp)
		return;
	fp_stop(dp);
	pulse_close(&dp->pulse);
	plane_close(&dp->plane);
	capture_free(dp->capture);
	free_snapshots(&dp->fibs);
	free_snapshots(&dp->policies);
	if (dp->plane.events_fd >= 0)
		close(dp->plane.events_fd);
	free(dp);
}

/* ---- role and fence, host side ---- */

int fp_set_role(fp_dp *dp, uint32_t role, uint64_t term)
{
	if (!dp || role > FP_ROLE_FAULT || term > TERM_MAX)
		return -EINVAL;
	return plane_set_role(&dp->plane, role, term, now_of(dp));
}

int fp_fence_read(const fp_dp *dp, uint32_t *role, uint64_t *term)
{
	uint64_t word;

	if (!dp || !role || !term)
		return -EINVAL;
	word = fence_read(&dp->plane.fence);
	*role = fence_role(word);
	*term = fence_term(word);
	return 0;
}

int fp_port_carrier(fp_dp *dp, uint32_t port, uint32_t up)
{
	struct port *p;

	if (!dp || port >= dp->cfg.n_ports)
		return -EINVAL;
	p = &dp->plane.ports[port];
	return p->set_carrier(p, up != 0);
}

int fp_port_reopen(fp_dp *dp, uint32_t port, struct fp_error *err)
{
	if (!dp || !err || port >= dp->cfg.n_ports)
		return -EINVAL;
	return plane_reopen_port(&dp->plane, port, clock_now(), err);
}

/* ---- pulse ---- */

int fp_pulse_set(fp_dp *dp, uint32_t flags, uint32_t priority)
{
	if (!dp || flags > UINT8_MAX)
		return -EINVAL;
	pulse_say(&dp->pulse, flags, priority);
	return 0;
}

int fp_pulse_burst(fp_dp *dp)
{
	if (!dp)
		return -EINVAL;
	pulse_burst(&dp->pulse);
	return 0;
}

int fp_control_beat(fp_dp *dp)
{
	if (!dp)
		return -EINVAL;
	atomic_fetch_add_explicit(&dp->pulse.control_beat, 1, memory_order_relaxed);
	return 0;
}

/* Take at most @cap slots of a ring, across its end. */
static int take(struct ring *ring, void *out, uint32_t cap)
{
	uint8_t *dst = out;
	uint32_t taken = 0;

	while (taken < cap) {
		uint32_t n = cap - taken;
		const void *src = ring_peek(ring, &n);

		if (n == 0)
			break;
		memcpy(dst + (size_t)taken * ring->slot_size, src, (size_t)n * ring->slot_size);
		ring_release(ring, n);
		taken += n;
	}
	return (int)taken;
}

int fp_pulse_events(fp_dp *dp, struct fp_pulse_event *out, uint32_t cap)
{
	if (!dp || !out || cap > INT32_MAX)
		return -EINVAL;
	return take(&dp->pulse.events, out, cap);
}

int fp_pulse_keys(fp_dp *dp, const uint8_t (*keys)[16], uint32_t n)
{
	static const uint8_t no_key[16];

	if (!dp || !keys || n < 1 || n > FP_PULSE_KEYS_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		if (memcmp(keys[i], no_key, sizeof(no_key)) == 0)
			return -EINVAL;
	}
	return pulse_keys(&dp->pulse, keys, n);
}

int fp_pulse_stats(const fp_dp *dp, struct fp_path_stats *out, uint32_t n_paths)
{
	if (!dp || !out || n_paths > FP_PATHS_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < n_paths; i++)
		pulse_stats_read(&dp->pulse, i, &out[i]);
	return 0;
}

/* ---- punts and injected frames ---- */

int fp_events_fd(const fp_dp *dp)
{
	return dp ? dp->plane.events_fd : -EINVAL;
}

int fp_punts_drain(fp_dp *dp, struct fp_punt *out, uint32_t cap)
{
	int n = 0;

	if (!dp || !out || cap > INT32_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < dp->plane.n_workers; i++)
		n += take(&dp->plane.workers[i].punts, out + n, cap - (uint32_t)n);
	return n;
}

int fp_inject(fp_dp *dp, uint32_t port, const uint8_t *frame, uint32_t len, uint32_t fenced)
{
	struct port_frame *slot;

	if (!dp || !frame || port >= dp->cfg.n_ports || len < 14 || len > FP_FRAME_MAX)
		return -EINVAL;
	slot = ring_reserve_one(&dp->plane.inject);
	if (!slot) {
		dp->inject_lost++;
		return -ENOBUFS;
	}
	slot->len = len;
	slot->port = (uint8_t)port;
	slot->fenced = fenced != 0;
	memcpy(slot->data, frame, len);
	ring_submit(&dp->plane.inject, 1);
	doorbell_ring(&dp->plane.workers[0].bell);
	return 0;
}

/* ---- next hops ---- */

static bool next_hops_are_valid(const fp_dp *dp, const struct fp_route *routes, uint32_t n_routes,
				const struct fp_neigh *neighs, uint32_t n_neighs)
{
	if ((n_routes && !routes) || (n_neighs && !neighs))
		return false;
	for (uint32_t i = 0; i < n_routes; i++) {
		if (routes[i].plen > 128 || routes[i].port >= dp->cfg.n_ports)
			return false;
	}
	for (uint32_t i = 0; i < n_neighs; i++) {
		if (neighs[i].port >= dp->cfg.n_ports)
			return false;
	}
	return true;
}

/* Memory for a snapshot, in front of those that workers may still read. */
static struct snapshot *push_snapshot(struct snapshot **list, size_t size)
{
	struct snapshot *block = malloc(sizeof(*block));

	if (!block)
		return NULL;
	block->mem = aligned_alloc(CACHE_LINE, (size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	if (!block->mem) {
		free(block);
		return NULL;
	}
	block->older = *list;
	*list = block;
	return block;
}

static bool is_inside(const fp_dp *dp, uint32_t port)
{
	return dp->cfg.ports[port].zone == FP_ZONE_INSIDE;
}

/*
 * Build from what leads somewhere now and from what belongs to inside ports, route or not: whose link is down
 * keeps its zone, and nothing for it follows the default route to the ISP.
 */
static struct fib *build_fib(const fp_dp *dp, void *mem, const struct fp_route *routes, uint32_t n_routes,
			     const struct fp_neigh *neighs, uint32_t n_neighs)
{
	struct fp_route *all = malloc(((size_t)n_routes + FP_PORTS_MAX) * sizeof(*all));
	uint32_t n = n_routes, inside = 0;
	struct fib *fib;

	if (!all)
		return NULL;
	if (n)
		memcpy(all, routes, n * sizeof(*all));
	for (uint32_t i = 0; i < dp->cfg.n_ports; i++) {
		const struct fp_port_cfg *port = &dp->cfg.ports[i];

		if (!is_inside(dp, i))
			continue;
		inside |= 1u << i;
		if (!addr_is_zero(&port->addr))
			all[n++] = (struct fp_route){ .prefix = port->addr,
						      .plen = (uint8_t)(96 + port->plen),
						      .port = (uint8_t)i,
						      .unreachable = 1 };
	}
	fib = fib_build(mem, dp->fib_generation, all, n, neighs, n_neighs);
	fib_cover(fib, inside);
	free(all);
	return fib;
}

int fp_fib_commit(fp_dp *dp, const struct fp_route *routes, uint32_t n_routes, const struct fp_neigh *neighs,
		  uint32_t n_neighs)
{
	struct request req = { .kind = REQ_FIB };
	struct snapshot *block;
	size_t size;
	int rc;

	if (!dp || !next_hops_are_valid(dp, routes, n_routes, neighs, n_neighs))
		return -EINVAL;
	size = n_routes > FIB_ROUTES_MAX ? 0 : fib_mem_size(n_routes + FP_PORTS_MAX, n_neighs);
	if (size == 0)
		return -E2BIG;
	block = push_snapshot(&dp->fibs, size);
	if (!block)
		return -ENOMEM;
	if (++dp->fib_generation == 0)
		dp->fib_generation = 1;
	req.fib = build_fib(dp, block->mem, routes, n_routes, neighs, n_neighs);
	if (!req.fib) {
		dp->fibs = block->older;
		free(block->mem);
		free(block);
		return -ENOMEM;
	}
	rc = plane_tell_all(&dp->plane, &req, now_of(dp));
	/* A worker that did not answer may still read an older snapshot: keep them for the next commit. */
	if (rc == 0)
		free_snapshots(&block->older);
	return rc;
}

/* ---- policy ---- */

static const struct policy *policy_of(const fp_dp *dp)
{
	return dp->policies ? dp->policies->mem : NULL;
}

int fp_policy_commit(fp_dp *dp, const struct fp_policy_cfg *cfg, struct fp_error *err)
{
	struct request req = { .kind = REQ_POLICY };
	struct snapshot *block;
	struct policy *policy;
	int rc;

	if (!dp || !cfg || !err)
		return -EINVAL;
	err->text[0] = '\0';
	rc = validate_policy(cfg, &dp->cfg, err);
	if (rc)
		return rc;
	block = push_snapshot(&dp->policies, policy_mem_size(cfg, dp->cfg.n_workers));
	if (!block)
		return -ENOMEM;
	req.policy = policy = policy_build(block->mem, cfg, &dp->cfg);
	rc = plane_tell_all(&dp->plane, &req, now_of(dp));
	if (rc == 0 && block->older)
		policy_carry_hits(policy, cfg, block->older->mem);
	/* As with next hops: a worker that did not answer may still read an older one. */
	if (rc == 0)
		free_snapshots(&block->older);
	return rc;
}

int fp_policy_review(fp_dp *dp, struct fp_cursor *cur, uint32_t budget, uint32_t *closed)
{
	if (!dp || !cur || !closed || budget == 0 || budget > INT32_MAX)
		return -EINVAL;
	while (!cur->done && budget > 0) {
		struct request req = { .kind = REQ_REVIEW, .slot = cur->slot, .n = budget };
		int rc;

		if (cur->worker >= dp->plane.n_workers)
			return -EINVAL;
		rc = plane_ask(&dp->plane, cur->worker, &req, now_of(dp));
		if (rc < 0)
			return rc;
		*closed += (uint32_t)rc;
		budget -= min_u32(budget, max_u32(req.slot - max_u32(cur->slot, 1), 1));
		cur->slot = req.slot;
		if (req.done) {
			cur->slot = 0;
			cur->done = ++cur->worker == dp->plane.n_workers;
		}
	}
	return 0;
}

int fp_session_log_drain(fp_dp *dp, struct fp_session_log *out, uint32_t cap)
{
	int n = 0;

	if (!dp || !out || cap > INT32_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < dp->plane.n_workers; i++)
		n += take(&dp->plane.workers[i].log, out + n, cap - (uint32_t)n);
	return n;
}

int fp_pools_read(fp_dp *dp, struct fp_pool_use *out, uint32_t cap)
{
	struct fp_pool_use free[FP_POOLS_MAX] = { { 0 } };
	uint32_t n;

	if (!dp || !out)
		return -EINVAL;
	n = min_u32(cap, dp->cfg.n_pools);
	for (uint32_t i = 0; i < dp->plane.n_workers; i++) {
		struct request req = { .kind = REQ_POOLS, .use = free };
		int rc = plane_ask(&dp->plane, i, &req, now_of(dp));

		if (rc < 0)
			return rc;
	}
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t all = dp->cfg.pools[i].port_hi - dp->cfg.pools[i].port_lo + 1u;

		out[i] = (struct fp_pool_use){ all - free[i].tcp, all - free[i].udp, all - free[i].icmp };
	}
	return (int)n;
}

int fp_policy_hits(const fp_dp *dp, uint64_t *out, uint32_t cap)
{
	const struct policy *policy;
	uint32_t n;

	if (!dp || !out)
		return -EINVAL;
	policy = policy_of(dp);
	n = policy ? min_u32(cap, policy->n_rules + 1) : 0;
	for (uint32_t i = 0; i < n; i++)
		out[i] = policy_hits(policy, i);
	return (int)n;
}

/* ---- sync: changes out ---- */

int fp_sync_track(fp_dp *dp, uint32_t on)
{
	const struct request req = { .kind = REQ_TRACK, .on = on != 0 };
	int rc;

	if (!dp)
		return -EINVAL;
	rc = plane_ask_all(&dp->plane, &req, now_of(dp));
	for (uint32_t i = 0; i < dp->plane.n_workers && rc == 0; i++) {
		struct worker *w = &dp->plane.workers[i];
		uint32_t n;

		/* What was drained before is of no use to anybody after the change. */
		for (n = UINT32_MAX; ring_peek(&w->events, &n), n > 0; n = UINT32_MAX)
			ring_release(&w->events, n);
		w->lost_seen = counter_read(&w->core.stat.events_lost);
	}
	return rc;
}

int fp_bulk_start(fp_dp *dp)
{
	const struct request req = { .kind = REQ_BULK };

	return dp ? plane_ask_all(&dp->plane, &req, now_of(dp)) : -EINVAL;
}

int fp_events_drain(fp_dp *dp, uint32_t worker, struct fp_flow_rec *out, uint32_t cap, uint64_t *lost)
{
	struct worker *w = worker_of(dp, worker);
	uint64_t lost_now;
	int n;

	if (!w || !out || !lost || cap > INT32_MAX)
		return -EINVAL;
	if (!dp->plane.running) {
		while (worker_drain(w, now_of(dp)))
			;
	}
	lost_now = counter_read(&w->core.stat.events_lost);
	*lost = lost_now - w->lost_seen;
	w->lost_seen = lost_now;
	n = take(&w->events, out, cap);
	if (n > 0 && atomic_load(&w->events_blocked)) /* pairs with worker_drain(): released, then looked */
		doorbell_ring(&w->bell);
	return n;
}

int fp_events_ack(fp_dp *dp, uint32_t worker, uint64_t ev_seq)
{
	struct worker *w = worker_of(dp, worker);

	if (!w)
		return -EINVAL;
	worker_ack(w, ev_seq);
	return 0;
}

/* ---- sync: records in ---- */

int fp_flows_import(fp_dp *dp, const struct fp_flow_rec *rec, uint32_t n)
{
	const struct request req = { .kind = REQ_IMPORT, .in = rec, .n = n };

	if (!dp || (n && !rec) || n > INT32_MAX)
		return -EINVAL;
	return plane_ask_all(&dp->plane, &req, now_of(dp));
}

int fp_import_begin(fp_dp *dp)
{
	const struct request req = { .kind = REQ_IMPORT_BEGIN };

	return dp ? plane_ask_all(&dp->plane, &req, now_of(dp)) : -EINVAL;
}

int fp_import_end(fp_dp *dp)
{
	const struct request req = { .kind = REQ_IMPORT_END };

	return dp ? plane_ask_all(&dp->plane, &req, now_of(dp)) : -EINVAL;
}

int fp_flows_walk(fp_dp *dp, struct fp_cursor *cur, struct fp_flow_rec *out, uint32_t cap)
{
	int n = 0;

	if (!dp || !cur || !out || cap == 0 || cap > INT32_MAX)
		return -EINVAL;
	while (!cur->done && (uint32_t)n < cap) {
		struct request req = {
			.kind = REQ_WALK, .slot = cur->slot, .out = out + n, .n = cap - (uint32_t)n
		};
		int got;

		if (cur->worker >= dp->plane.n_workers)
			return -EINVAL;
		got = plane_ask(&dp->plane, cur->worker, &req, now_of(dp));
		if (got < 0)
			return got;
		n += got;
		cur->slot = req.slot;
		if (req.done) {
			cur->slot = 0;
			cur->done = ++cur->worker == dp->plane.n_workers;
		}
	}
	return n;
}

/* ---- capture ---- */

int fp_capture_start(fp_dp *dp, const struct fp_capture_cfg *cfg, struct fp_error *err)
{
	struct request req = { .kind = REQ_CAPTURE };
	int rc;

	if (!dp || !cfg || !err)
		return -EINVAL;
	err->text[0] = '\0';
	if (dp->capture)
		return -EALREADY;
	rc = capture_make(&dp->capture, cfg, dp->plane.n_workers, err);
	if (rc)
		return rc;
	dp->capture_off = false;
	req.capture = dp->capture;
	return plane_ask_all(&dp->plane, &req, now_of(dp));
}

int fp_capture_drain(fp_dp *dp, uint32_t worker, uint8_t *out, uint32_t cap)
{
	if (!worker_of(dp, worker) || !out || cap > INT32_MAX)
		return -EINVAL;
	return dp->capture ? capture_drain(&dp->capture->taps[worker], out, cap) : 0;
}

int fp_capture_lost(const fp_dp *dp, uint64_t *lost)
{
	if (!dp || !lost)
		return -EINVAL;
	*lost = 0;
	for (uint32_t i = 0; dp->capture && i < dp->plane.n_workers; i++)
		*lost += counter_read(&dp->capture->taps[i].lost);
	return 0;
}

int fp_capture_stop(fp_dp *dp)
{
	const struct request req = { .kind = REQ_CAPTURE };
	int rc;

	if (!dp)
		return -EINVAL;
	if (!dp->capture || dp->capture_off)
		return 0;
	rc = plane_ask_all(&dp->plane, &req, now_of(dp));
	dp->capture_off = rc == 0; /* a worker that did not answer still writes to it */
	return rc;
}

int fp_capture_free(fp_dp *dp)
{
	const int rc = fp_capture_stop(dp);

	if (rc == 0) {
		capture_free(dp->capture);
		dp->capture = NULL;
	}
	return rc;
}

/* ---- counters ---- */

int fp_verdict_count(void)
{
	return V_COUNT;
}

const char *fp_verdict_name(uint32_t verdict)
{
	return verdict_name(verdict);
}

const char *fp_verdict_help(uint32_t verdict)
{
	return verdict_help(verdict);
}

int fp_verdict_is_drop(uint32_t verdict)
{
	return verdict < V_COUNT ? verdict_is_drop(verdict) : -EINVAL;
}

int fp_verdicts_read(const fp_dp *dp, uint32_t worker, uint64_t *out, uint32_t cap)
{
	const struct worker *w = worker_of(dp, worker);

	if (!w || !out)
		return -EINVAL;
	return (int)core_verdicts_read(&w->core, out, cap);
}

int fp_worker_stats_read(const fp_dp *dp, uint32_t worker, struct fp_worker_stats *out)
{
	const struct worker *w = worker_of(dp, worker);

	if (!w || !out)
		return -EINVAL;
	*out = (struct fp_worker_stats){
		.wakeups = counter_read(&w->stat_wakeups),
		.polls = counter_read(&w->stat_polls),
		.handed_on = counter_read(&w->stat_handed_on),
		.taken_over = counter_read(&w->stat_taken_over),
		.cpu_ns = worker_cpu_ns(w),
		.punts_lost = counter_read(&w->stat_punts_lost),
		.pulse_lost = counter_read(&w->stat_pulse_lost),
		.inject_lost = counter_read(&w->stat_inject_lost) + (worker == 0 ? dp->inject_lost : 0),
	};
	core_stats_read(&w->core, out);
	return 0;
}

int fp_port_stats_read(const fp_dp *dp, uint32_t port, struct fp_port_stats *out)
{
	if (!dp || !out || port >= dp->cfg.n_ports)
		return -EINVAL;
	*out = (struct fp_port_stats){ 0 };
	for (uint32_t i = 0; i < dp->plane.n_workers; i++) {
		const struct port_counters *pc = &dp->plane.workers[i].ports[port];

		out->rx_frames += counter_read(&pc->rx_frames);
		out->rx_bytes += counter_read(&pc->rx_bytes);
		out->tx_frames += counter_read(&pc->tx_frames);
		out->tx_bytes += counter_read(&pc->tx_bytes);
		out->rx_errors += counter_read(&pc->rx_errors);
		out->tx_errors += counter_read(&pc->tx_errors);
		out->tx_dropped += counter_read(&pc->tx_dropped);
		out->host_rx_frames += counter_read(&pc->host_rx_frames);
		out->host_tx_frames += counter_read(&pc->host_tx_frames);
		out->host_tx_errors += counter_read(&pc->host_tx_errors);
		out->rx_missed += counter_read(&pc->rx_missed);
	}
	return 0;
}

/* ---- tests ---- */

int fp_test_step(fp_dp *dp, uint32_t worker, uint64_t now_ns, struct fp_frame *io, uint32_t n)
{
	struct worker *w = worker_of(dp, worker);

	if (!w || (n && !io) || n > FP_BURST_MAX)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	for (uint32_t i = 0; i < n; i++) {
		if (!io[i].data || io[i].len > FP_FRAME_BIG || io[i].port >= dp->cfg.n_ports ||
		    io[i].src > FP_SRC_HAIRPIN)
			return -EINVAL;
	}
	dp->test_now_ns = now_ns;
	if (w->tap)
		capture_before(w->tap, io, n, FP_CAPTURE_WIRE, now_ns);
	core_step(&w->core, io, n, now_ns);
	if (w->tap)
		capture_after(w->tap, io, n, now_ns);
	core_account(&w->core, io, n);
	worker_ask_neighbours(w, now_ns);
	worker_report_sessions(w);
	return 0;
}

int fp_test_frags(fp_dp *dp, uint32_t worker, uint64_t now_ns, struct fp_frame *io, uint32_t n)
{
	struct worker *w = worker_of(dp, worker);

	if (!w || (n && !io) || n > FP_BURST_MAX)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	dp->test_now_ns = now_ns;
	n = core_frags_ready(&w->core, io, n, now_ns);
	core_step(&w->core, io, n, now_ns);
	core_account(&w->core, io, n);
	return (int)n;
}

int fp_test_expire(fp_dp *dp, uint32_t worker, uint64_t now_ns)
{
	struct worker *w = worker_of(dp, worker);
	struct fp_worker_stats before = { 0 }, after = { 0 };

	if (!w)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	dp->test_now_ns = now_ns;
	core_stats_read(&w->core, &before);
	while (core_expire(&w->core, now_ns, FP_BURST_MAX) == FP_BURST_MAX)
		;
	core_stats_read(&w->core, &after);
	return (int)(after.flows_expired - before.flows_expired);
}

int fp_test_shard(const fp_dp *dp, const struct fp_addr *addr, uint16_t port_be, uint8_t proto)
{
	if (!dp || !addr)
		return -EINVAL;
	return (int)core_shard(&dp->cfg, addr, (be16){ port_be }, proto);
}

int fp_test_policy(const fp_dp *dp, const struct fp_addr *src, const struct fp_addr *dst, uint32_t sport,
		   uint32_t dport, uint32_t proto, uint32_t in_port, uint32_t out_port)
{
	struct policy_decision decision = { 0 };
	struct policy_query query;

	if (!dp || !src || !dst || in_port >= FP_PORTS_MAX || out_port >= FP_PORTS_MAX)
		return -EINVAL;
	query = (struct policy_query){
		.src = *src,
		.dst = *dst,
		.sport = (uint16_t)sport,
		.dport = (uint16_t)dport,
		.proto = (uint8_t)proto,
		.in_port = (uint8_t)in_port,
		.out_port = (uint8_t)out_port,
	};
	if (policy_of(dp))
		policy_decide(policy_of(dp), &query, &decision);
	return decision.rule;
}

int fp_test_heartbeat(fp_dp *dp, uint8_t *out, uint32_t cap)
{
	if (!dp || !out || cap < HB_LEN)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	pulse_compose(&dp->pulse, PULSE_PATH_XC, now_of(dp), out);
	return HB_LEN;
}

int fp_test_pulse_rx(fp_dp *dp, uint32_t path, const uint8_t *payload, uint32_t len, uint64_t now_ns)
{
	if (!dp || !payload || path > dp->cfg.n_ports)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	dp->test_now_ns = now_ns;
	return pulse_receive(&dp->pulse, path, payload, len, now_ns);
}

int fp_test_pulse_tick(fp_dp *dp, uint64_t now_ns)
{
	if (!dp)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	dp->test_now_ns = now_ns;
	pulse_tick(&dp->pulse, now_ns);
	return 0;
}
