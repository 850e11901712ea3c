/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api_test.c - the boundary: what only tests call, while no thread runs
 */
#include <errno.h>

#include "dp.h"
#include "policy.h"

int fp_test_step(fp_dp *dp, uint32_t worker, uint64_t now_ns, struct fp_frame *io, uint32_t n)
{
	struct worker *w = dp_worker(dp, worker);

	if (!w || (n && !io) || n > FP_BURST_MAX)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	for (uint32_t i = 0; i < n; i++) {
		if (!io[i].data || io[i].len > FP_FRAME_BIG || io[i].port >= dp->cfg.n_ports ||
		    io[i].src > FP_SRC_ACTIVE)
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
	struct worker *w = dp_worker(dp, worker);

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

int fp_test_held(fp_dp *dp, uint32_t worker, uint64_t now_ns, struct fp_frame *io, uint32_t n)
{
	struct worker *w = dp_worker(dp, worker);

	if (!w || (n && !io) || n > FP_BURST_MAX)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	dp->test_now_ns = now_ns;
	commit_due(&w->core, now_ns);
	n = core_held_ready(&w->core, io, n, now_ns);
	core_step(&w->core, io, n, now_ns);
	core_account(&w->core, io, n);
	return (int)n;
}

int fp_test_expire(fp_dp *dp, uint32_t worker, uint64_t now_ns)
{
	struct worker *w = dp_worker(dp, worker);
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
	if (dp_policy(dp))
		policy_decide(dp_policy(dp), &query, &decision);
	return decision.rule;
}

int fp_test_heartbeat(fp_dp *dp, uint8_t *out, uint32_t cap)
{
	if (!dp || !out || cap < HB_LEN)
		return -EINVAL;
	if (dp->plane.running)
		return -EBUSY;
	pulse_compose(&dp->pulse, PULSE_PATH_XC, dp_now(dp), out);
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
