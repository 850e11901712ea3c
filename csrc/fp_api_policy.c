/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api_policy.c - the boundary: rules, forwards, review, and what rules have decided
 */
#include <errno.h>
#include <stdio.h>

#include "dp.h"
#include "policy.h"
#include "validate.h"

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
	if (plane_hangs(&dp->plane)) {
		snprintf(err->text, sizeof(err->text), "a worker hangs, and would not obey");
		return -EBUSY;
	}
	block = dp_push_snapshot(&dp->policies, policy_mem_size(cfg, dp->cfg.n_workers));
	if (!block)
		return -ENOMEM;
	req.policy = policy = policy_build(block->mem, cfg, &dp->cfg);
	rc = plane_tell_all(&dp->plane, &req, dp_now(dp));
	if (rc == 0 && block->older)
		policy_carry_hits(policy, cfg, block->older->mem);
	/* As with next hops: a worker that did not answer may still read an older one. */
	if (rc == 0)
		dp_free_snapshots(&block->older);
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
		rc = plane_ask(&dp->plane, cur->worker, &req, dp_now(dp));
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
		n += dp_take(&dp->plane.workers[i].log, out + n, cap - (uint32_t)n);
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
		int rc = plane_ask(&dp->plane, i, &req, dp_now(dp));

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
	policy = dp_policy(dp);
	n = policy ? min_u32(cap, policy->n_rules + 1) : 0;
	for (uint32_t i = 0; i < n; i++)
		out[i] = policy_hits(policy, i);
	return (int)n;
}
