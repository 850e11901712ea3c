/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api_sync.c - the boundary: changes out, records in, digests
 */
#include <errno.h>

#include "dp.h"

/* ---- changes out ---- */

int fp_sync_track(fp_dp *dp, uint32_t on)
{
	const struct request req = { .kind = REQ_TRACK, .on = on != 0 };
	int rc;

	if (!dp)
		return -EINVAL;
	rc = plane_ask_all(&dp->plane, &req, dp_now(dp));
	for (uint32_t i = 0; i < dp->plane.n_workers && rc == 0; i++) {
		struct worker *w = &dp->plane.workers[i];
		uint32_t n;

		/* What was drained before is of no use to anybody after the change. */
		for (n = UINT32_MAX; ring_peek(&w->events, &n), n > 0; n = UINT32_MAX)
			ring_release(&w->events, n);
	}
	if (rc == 0) {
		dp->left.at = dp->left.n = dp->left.n_spans = 0;
		dp->digests_due = 0;
	}
	return rc;
}

int fp_sweep_start(fp_dp *dp, uint64_t shards)
{
	const struct request req = { .kind = REQ_SWEEP, .shards = shards };

	return dp ? plane_ask_all(&dp->plane, &req, dp_now(dp)) : -EINVAL;
}

/* What a lane has taken, and left to control, comes first: worker by worker, as it was taken. */
static int take_left(struct dp_left *left, uint32_t worker, struct fp_flow_rec *out, uint32_t cap)
{
	uint32_t n = 0;

	while (left->at < left->n && n < cap && dp_left_worker(left) == worker)
		out[n++] = left->rec[left->at++];
	if (left->at == left->n)
		left->at = left->n = left->n_spans = 0;
	return (int)n;
}

int fp_events_drain(fp_dp *dp, uint32_t worker, struct fp_flow_rec *out, uint32_t cap, uint64_t *lost)
{
	struct worker *w = dp_worker(dp, worker);
	int n;

	if (!w || !out || !lost || cap > INT32_MAX)
		return -EINVAL;
	if (dp->left.n) {
		*lost = 0; /* said when these are through */
		return take_left(&dp->left, worker, out, cap);
	}
	if (!dp->plane.running) {
		while (worker_drain(w, dp_now(dp)))
			;
	}
	*lost = counter_read(&w->core.stat.lost_shards);
	n = dp_take(&w->events, out, cap);
	if (n > 0 && atomic_load(&w->events_blocked)) /* pairs with worker_drain(): released, then looked */
		doorbell_ring(&w->bell);
	return n;
}

int fp_events_await(fp_dp *dp, uint32_t on)
{
	if (!dp)
		return -EINVAL;
	atomic_store(&dp->plane.changes_to,
		     on ? dp->plane.events_fd : -1); /* pairs with worker_drain(): published, then looked */
	return 0;
}

int fp_commit_set(fp_dp *dp, uint32_t on)
{
	const struct request req = { .kind = REQ_COMMIT, .on = on != 0 };

	return dp ? plane_tell_all(&dp->plane, &req, dp_now(dp)) : -EINVAL;
}

int fp_events_ack(fp_dp *dp, uint32_t worker, uint64_t ev_seq)
{
	struct worker *w = dp_worker(dp, worker);

	if (!w)
		return -EINVAL;
	worker_ack(w, ev_seq, dp_now(dp));
	return 0;
}

int fp_events_refused(fp_dp *dp, uint32_t worker, uint64_t ev_seq, const struct fp_flow_rec *rec, uint32_t n)
{
	struct request req = { .kind = REQ_REFUSED, .told = rec, .n = n, .ev_seq = ev_seq };

	if (!dp_worker(dp, worker) || (n && !rec) || n > INT32_MAX)
		return -EINVAL;
	return plane_ask(&dp->plane, worker, &req, dp_now(dp));
}

/* A worker writes its digests when it is asked to; so nobody asks while they are still to be read. */
int fp_digest_ask(fp_dp *dp)
{
	if (!dp)
		return -EINVAL;
	for (uint32_t i = 0; i < dp->plane.n_workers; i++) {
		struct request req = { .kind = REQ_DIGEST_ASK };
		int rc;

		if (dp->digests_due & 1u << i)
			continue;
		rc = plane_ask(&dp->plane, i, &req, dp_now(dp));
		if (rc < 0)
			return rc;
		dp->digests_due |= 1u << i;
	}
	return 0;
}

int fp_digest_read(fp_dp *dp, uint32_t worker, struct fp_digest *out)
{
	const struct worker *w = dp_worker(dp, worker);

	if (!w || !out)
		return -EINVAL;
	memcpy(out, w->core.digest_told, sizeof(w->core.digest_told)); /* the marker came through the ring */
	dp->digests_due &= ~(1u << worker);
	return 0;
}

/* ---- records in ---- */

int fp_flows_import(fp_dp *dp, struct fp_flow_rec *rec, uint32_t n)
{
	const struct request req = { .kind = REQ_IMPORT, .in = rec, .n = n };

	if (!dp || (n && !rec) || n > INT32_MAX)
		return -EINVAL;
	return plane_ask_all(&dp->plane, &req, dp_now(dp));
}

int fp_import_begin(fp_dp *dp, uint64_t shards, uint32_t repair)
{
	const struct request req = { .kind = REQ_IMPORT_BEGIN, .shards = shards, .on = repair != 0 };

	return dp ? plane_ask_all(&dp->plane, &req, dp_now(dp)) : -EINVAL;
}

int fp_import_end(fp_dp *dp, uint64_t shards)
{
	const struct request req = { .kind = REQ_IMPORT_END, .shards = shards };

	return dp ? plane_ask_all(&dp->plane, &req, dp_now(dp)) : -EINVAL;
}

/* A cursor's next records: worker by worker, each from where it was. */
static int walk(fp_dp *dp, struct fp_cursor *cur, struct request req, struct fp_flow_rec *out, uint32_t cap,
		uint32_t least)
{
	int n = 0;

	while (!cur->done && (uint32_t)n + least <= cap) {
		int got;

		if (cur->worker >= dp->plane.n_workers)
			return -EINVAL;
		req.slot = cur->slot;
		req.out = out + n;
		req.n = cap - (uint32_t)n;
		got = plane_ask(&dp->plane, cur->worker, &req, dp_now(dp));
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

int fp_flows_stranded(fp_dp *dp, struct fp_cursor *cur, uint64_t shards, uint64_t since_ns,
		      struct fp_flow_rec *out, uint32_t cap)
{
	const struct request req = { .kind = REQ_STRANDED, .shards = shards, .since_ns = since_ns };

	if (!dp || !cur || !out || cap < 2 || cap > INT32_MAX)
		return -EINVAL;
	return walk(dp, cur, req, out, cap, 2);
}

/* Of each session its first words, and, as many places behind, all that may have waited; of the same session. */
static bool joined(struct fp_flow_rec *first, const struct fp_flow_rec *rest)
{
	if (first->op != FP_OP_OPEN || rest->op != FP_OP_REST || first->id != rest->id ||
	    first->origin != rest->origin)
		return false;
	first->has |= rest->has;
	first->remaining_ms = rest->remaining_ms;
	memcpy(first->win, rest->win, sizeof(first->win));
	memcpy(first->packets, rest->packets, sizeof(first->packets));
	memcpy(first->bytes, rest->bytes, sizeof(first->bytes));
	return true;
}

int fp_flows_adopt(fp_dp *dp, struct fp_flow_rec *rec, uint32_t n)
{
	const struct request req = { .kind = REQ_ADOPT, .in = rec, .n = n / 2 };

	if (!dp || (n && !rec) || n > INT32_MAX || n % 2)
		return -EINVAL;
	for (uint32_t i = 0; i < n / 2; i++)
		if (!joined(&rec[i], &rec[n / 2 + i]))
			return -EINVAL;
	return plane_ask_all(&dp->plane, &req, dp_now(dp));
}

int fp_digests(fp_dp *dp, struct fp_digest *out)
{
	if (!dp || !out)
		return -EINVAL;
	memset(out, 0, FP_SHARDS * sizeof(*out));
	for (uint32_t i = 0; i < dp->plane.n_workers; i++) {
		struct request req = { .kind = REQ_DIGESTS, .digests = out };
		int rc = plane_ask(&dp->plane, i, &req, dp_now(dp));

		if (rc < 0)
			return rc;
	}
	return 0;
}

int fp_repairs_drain(fp_dp *dp, struct fp_repair *out, uint32_t cap)
{
	uint32_t n = 0;

	if (!dp || !out || cap > INT32_MAX)
		return -EINVAL;
	for (uint32_t i = 0; i < dp->plane.n_workers && n < cap; i++) {
		struct request req = { .kind = REQ_REPAIRS, .repairs = out + n, .n = cap - n };
		int rc = plane_ask(&dp->plane, i, &req, dp_now(dp));

		if (rc < 0)
			return rc;
		n += (uint32_t)rc;
	}
	return (int)n;
}

int fp_flows_walk(fp_dp *dp, struct fp_cursor *cur, struct fp_flow_rec *out, uint32_t cap)
{
	const struct request req = { .kind = REQ_WALK };

	if (!dp || !cur || !out || cap == 0 || cap > INT32_MAX)
		return -EINVAL;
	return walk(dp, cur, req, out, cap, 1);
}

int fp_sync_stats_read(const fp_dp *dp, uint32_t worker, struct fp_sync_stats *out)
{
	const struct worker *w = dp_worker(dp, worker);

	if (!w || !out)
		return -EINVAL;
	*out = (struct fp_sync_stats){ 0 };
	core_sync_stats_read(&w->core, out);
	return 0;
}

uint64_t fp_lag_bucket_us(uint32_t bucket)
{
	return lag_bucket_us(bucket);
}
