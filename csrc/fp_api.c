/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api.c - the boundary: life, role, pulse, next hops and counters
 *
 * The rest of fp_abi.h: fp_api_policy.c, fp_api_sync.c, fp_api_capture.c, fp_api_test.c; the columns are in cols.c.
 * Each function checks its arguments, then leaves the work to plane.c and pulse.c. All of it runs on the control
 * thread. fp_source_hash() stands in the file that ffi_build.py generates.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#include "clock.h"
#include "conduit.h"
#include "dp.h"
#include "policy.h"
#include "validate.h"
#include "wires.h"

/* The sizes that flexha/fastpath/lib.py asserts; cffi would report a difference only on first use. */
static_assert(sizeof(struct fp_addr) == 16, "fp_addr");
static_assert(sizeof(struct fp_port_cfg) == 448, "fp_port_cfg");
static_assert(sizeof(struct fp_pool_cfg) == 48, "fp_pool_cfg");
static_assert(sizeof(struct fp_conduit_stats) == 64, "fp_conduit_stats");
static_assert(sizeof(struct fp_config) == 4248, "fp_config");
static_assert(sizeof(struct fp_flow_rec) == 160, "fp_flow_rec");
static_assert(sizeof(struct fp_route) == 40, "fp_route");
static_assert(sizeof(struct fp_neigh) == 24, "fp_neigh");
static_assert(sizeof(struct fp_prefix) == 24, "fp_prefix");
static_assert(sizeof(struct fp_service) == 6, "fp_service");
static_assert(sizeof(struct fp_rule) == 52, "fp_rule");
static_assert(sizeof(struct fp_forward) == 28, "fp_forward");
static_assert(sizeof(struct fp_policy_cfg) == 56, "fp_policy_cfg");
static_assert(sizeof(struct fp_session_log) == 80, "fp_session_log");
static_assert(sizeof(struct fp_pool_use) == 12, "fp_pool_use");
static_assert(sizeof(struct fp_vnet) == 10, "fp_vnet");
static_assert(sizeof(struct fp_frame) == 56, "fp_frame");
static_assert(sizeof(struct fp_punt) == 296, "fp_punt");
static_assert(sizeof(struct fp_pulse_event) == 80, "fp_pulse_event");
static_assert(sizeof(struct fp_lease_stats) == 40, "fp_lease_stats");
static_assert(sizeof(struct fp_line_stats) == 24, "fp_line_stats");
static_assert(sizeof(struct fp_worker_stats) == 224, "fp_worker_stats");
static_assert(sizeof(struct fp_bpf) == 8, "fp_bpf");
static_assert(sizeof(struct fp_capture_cfg) == 56, "fp_capture_cfg");
static_assert(sizeof(struct fp_capture_rec) == 72, "fp_capture_rec");
static_assert(sizeof(struct fp_cols) == 160, "fp_cols");
static_assert(sizeof(struct fp_sync_cfg) == 24, "fp_sync_cfg");
static_assert(sizeof(struct fp_digest) == 16, "fp_digest");
static_assert(sizeof(struct fp_repair) == 40, "fp_repair");
static_assert(sizeof(struct fp_sync_stats) == 1208, "fp_sync_stats");

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
	dp->plane.changes_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	rc = dp->plane.events_fd < 0 || dp->plane.changes_fd < 0 ? -errno
								 : plane_open(&dp->plane, &dp->cfg, err);
	if (rc == 0)
		rc = pulse_open(&dp->pulse, &dp->cfg, &dp->plane.fence, &dp->plane.workers[0].bell,
				dp->plane.events_fd, err);
	for (uint32_t i = 0; i < dp->cfg.n_workers && rc == 0; i++)
		pulse_watch_worker(&dp->pulse, i, &dp->plane.workers[i].bell);
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

/* On fault: tables take no memory before they are used. */
int fp_memory_lock(void)
{
	return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) ? -errno : 0;
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

void fp_close(fp_dp *dp)
{
	if (!dp)
		return;
	fp_stop(dp);
	pulse_close(&dp->pulse);
	plane_close(&dp->plane);
	capture_free(dp->capture);
	dp_free_snapshots(&dp->fibs);
	dp_free_snapshots(&dp->policies);
	if (dp->plane.events_fd >= 0)
		close(dp->plane.events_fd);
	if (dp->plane.changes_fd >= 0)
		close(dp->plane.changes_fd);
	free(dp->left.rec);
	free(dp);
}

/* ---- role and fence, conduit, host side ---- */

int fp_wires_set(fp_dp *dp, uint32_t mode)
{
	return dp ? plane_set_wires(&dp->plane, mode, dp_now(dp)) : -EINVAL;
}

int fp_wires_settled(const fp_dp *dp)
{
	return dp ? plane_wires_settled(&dp->plane) : -EINVAL;
}

int fp_set_role(fp_dp *dp, uint32_t role, uint64_t term)
{
	if (!dp || role > FP_ROLE_FAULT || term > TERM_MAX)
		return -EINVAL;
	return plane_set_role(&dp->plane, role, term, dp_now(dp));
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

int fp_conduit_set(fp_dp *dp, uint32_t on, uint64_t term, uint32_t vmac_ports, uint32_t borrowed,
		   uint32_t lent)
{
	if (!dp || term > TERM_MAX || (vmac_ports | borrowed | lent) >> dp->cfg.n_ports)
		return -EINVAL;
	/* Workers look once in a pass; nothing waits for it. */
	atomic_store(&dp->plane.conduit.orders, conduit_orders(on != 0, term, vmac_ports, borrowed, lent));
	for (uint32_t i = 0; i < dp->plane.n_workers && !dp->plane.running; i++)
		worker_obey_conduit(&dp->plane.workers[i]);
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

int fp_pulse_events(fp_dp *dp, struct fp_pulse_event *out, uint32_t cap)
{
	if (!dp || !out || cap > INT32_MAX)
		return -EINVAL;
	return dp_take(&dp->pulse.events, out, cap);
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

int fp_lease_read(const fp_dp *dp, struct fp_lease_stats *out)
{
	if (!dp || !out)
		return -EINVAL;
	pulse_lease_read(&dp->pulse, out);
	return 0;
}

int fp_line_read(const fp_dp *dp, struct fp_line_stats *out)
{
	if (!dp || !out)
		return -EINVAL;
	pulse_line_read(&dp->pulse, out);
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
		n += dp_take(&dp->plane.workers[i].punts, out + n, cap - (uint32_t)n);
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
		if (routes[i].plen > 128 || routes[i].port >= dp->cfg.n_ports ||
		    routes[i].way > FP_WAY_NOWHERE)
			return false;
	}
	for (uint32_t i = 0; i < n_neighs; i++) {
		if (neighs[i].port >= dp->cfg.n_ports)
			return false;
	}
	return true;
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
						      .way = FP_WAY_NOWHERE };
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
	if (dp->fib_owed &&
	    plane_hangs(&dp->plane)) /* what it might read is kept: it must not become ever more */
		return -ETIMEDOUT;
	block = dp_push_snapshot(&dp->fibs, size);
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
	rc = plane_tell_all(&dp->plane, &req, dp_now(dp));
	/* A worker that did not answer may still read an older snapshot: keep them for the next commit. */
	if (rc == 0)
		dp_free_snapshots(&block->older);
	dp->fib_owed = rc != 0;
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
	const struct worker *w = dp_worker(dp, worker);

	if (!w || !out)
		return -EINVAL;
	return (int)core_verdicts_read(&w->core, out, cap);
}

int fp_worker_stats_read(const fp_dp *dp, uint32_t worker, struct fp_worker_stats *out)
{
	const struct worker *w = dp_worker(dp, worker);

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

int fp_conduit_stats_read(const fp_dp *dp, uint32_t worker, struct fp_conduit_stats *out)
{
	const struct worker *w = dp_worker(dp, worker);

	if (!w || !out)
		return -EINVAL;
	*out = (struct fp_conduit_stats){
		.tx_frames = counter_read(&w->conduit.tx_frames),
		.tx_bytes = counter_read(&w->conduit.tx_bytes),
		.tx_calls = counter_read(&w->conduit.tx_calls),
		.tx_lost = counter_read(&w->conduit.tx_lost),
		.rx_frames = counter_read(&w->conduit.rx_frames),
		.rx_bytes = counter_read(&w->conduit.rx_bytes),
		.rx_calls = counter_read(&w->conduit.rx_calls),
		.rx_missed = counter_read(&w->conduit.rx_missed),
	};
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
