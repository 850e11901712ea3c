/* SPDX-License-Identifier: Apache-2.0 */
/**
 * dataplane.h - a whole data plane of workers on in-memory ports: its wires' ends and its verdicts
 */
#ifndef DATAPLANE_H
#define DATAPLANE_H

#include <sched.h>

#include "../dp.h"
#include "check.h"
#include "frames.h"

enum { N_WORKERS = 2, RUN_LIMIT_S = 60 };

struct side {
	fp_dp *dp;
	_Atomic bool stop;
	_Atomic uint64_t sent, received;
};

static inline fp_dp *open_config(struct fp_config cfg)
{
	struct fp_error err = { "" };
	fp_dp *dp = NULL;

	for (uint32_t i = 0; i < N_PORTS; i++)
		cfg.ports[i].driver = FP_DRIVER_MEM;
	cfg.events_cap = 64; /* small: it must be full at times */
	cfg.pulse.interval_ms = 20;
	cfg.pulse.dead_after = 3;
	cfg.pulse.pair_id = 7;
	if (fp_open(&cfg, &dp, &err))
		fprintf(stderr, "%s\n", err.text);
	REQUIRE(dp != NULL);
	return dp;
}

static inline int commit_fib(fp_dp *dp)
{
	const struct fp_route routes[] = {
		frames_route(IP4(0, 0, 0, 0), 0, ISP, WAN),
		frames_route(IP4(198, 51, 100, 0), 24, IP4(0, 0, 0, 0), LAN),
		frames_route(IP4(203, 0, 113, 0), 29, IP4(0, 0, 0, 0), WAN),
	};
	const struct fp_neigh neighs[] = { frames_neigh(CLIENT, mac_client, LAN),
					   frames_neigh(ISP, mac_isp, WAN) };

	return fp_fib_commit(dp, routes, ARRAY_SIZE(routes), neighs, ARRAY_SIZE(neighs));
}

/* Take everything that was sent on a port; each frame goes to @seen. */
static inline uint32_t take_all(fp_dp *dp, uint32_t port, uint8_t *data,
				void (*seen)(struct side *, uint8_t *, uint32_t), struct side *side)
{
	uint32_t n = 0, len;

	for (uint32_t q = 0; q < dp->plane.n_workers; q++) {
		while ((len = port_mem_take(&dp->plane.ports[port], q, FP_SRC_WIRE, data)) > 0) {
			n++;
			if (seen)
				seen(side, data, len);
		}
	}
	return n;
}

static inline void put(struct side *side, uint32_t port, uint64_t i, const uint8_t *data, uint32_t len)
{
	struct port *p = &side->dp->plane.ports[port];

	while (port_mem_put(p, (uint32_t)(i % N_WORKERS), FP_SRC_WIRE, data, len) == -ENOBUFS)
		sched_yield();
	atomic_fetch_add(&side->sent, 1);
}

static inline uint64_t total(fp_dp *dp, enum fp_verdict verdict)
{
	uint64_t counts[V_COUNT], sum = 0;

	for (uint32_t i = 0; i < dp->plane.n_workers; i++) {
		REQUIRE(fp_verdicts_read(dp, i, counts, V_COUNT) == V_COUNT);
		sum += counts[verdict];
	}
	return sum;
}

/* Frames that have met their end. */
static inline uint64_t n_ended(fp_dp *dp)
{
	uint64_t sum = 0;

	for (enum fp_verdict v = 0; v < V_COUNT; v++)
		sum += v == V_HANDOFF || v == V_NEIGH_WAIT || v == V_FRAG_HELD || v == V_HELD ||
				       v == V_SUSPECT_WAIT
			       ? 0
			       : total(dp, v);
	return sum;
}

#endif
