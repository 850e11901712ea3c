/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api_capture.c - the boundary: packets for `flexhactl capture`
 */
#include <errno.h>

#include "dp.h"

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
	return plane_ask_all(&dp->plane, &req, dp_now(dp));
}

int fp_capture_drain(fp_dp *dp, uint32_t worker, uint8_t *out, uint32_t cap)
{
	if (!dp_worker(dp, worker) || !out || cap > INT32_MAX)
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
	rc = plane_ask_all(&dp->plane, &req, dp_now(dp));
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
