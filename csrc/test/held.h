/* SPDX-License-Identifier: Apache-2.0 */
/**
 * held.h - a core whose peer is in sync, on which packets wait for the acknowledgement of their sessions
 */
#ifndef HELD_H
#define HELD_H

#include "../session.h"
#include "estate.h"

enum {
	HOLD_MS = 20,
	HOLD_US = HOLD_MS * 1000,
	RECOVER_US = COMMIT_RECOVER_MS * 1000,
	DEGRADE_US = COMMIT_DEGRADE_MS * 1000,
	STRICT_US = COMMIT_STRICT_S * 1000000,
	HOLD_FRAMES = 64,
	OUT_MAX = 256
};

/* What left, in order: which session, which of its packets, when, and as what. */
struct sent {
	uint16_t session, number, verdict;
	uint64_t at_ns;
};

static struct sent sent[OUT_MAX];
static uint32_t n_sent;
static uint8_t rooms[FP_BURST_MAX][FP_FRAME_BIG];

static inline struct fp_config held_config(enum fp_commit mode)
{
	struct fp_config cfg = estate_config(1);

	cfg.sync.commit = mode;
	cfg.sync.hold_ms = HOLD_MS;
	cfg.sync.hold_frames = HOLD_FRAMES;
	cfg.sync.lazy_ms = 100;
	cfg.sync.refresh_s = 3600;
	cfg.ports[LAN].offload = cfg.ports[WAN].offload = 1;
	return cfg;
}

/* An ACTIVE node whose peer is in sync. */
static inline struct rig *held_make(const struct fp_config *cfg)
{
	struct rig *r = estate_new(cfg, 0);

	core_track(&r->core, true);
	commit_set(&r->core, true);
	n_sent = 0;
	return r;
}

static inline struct rig *held_make_as(enum fp_commit mode)
{
	const struct fp_config cfg = held_config(mode);

	return held_make(&cfg);
}

static inline void note(const struct rig *r, const struct fp_frame *f)
{
	if (f->out != FP_OUT_WIRE)
		return;
	REQUIRE(n_sent < OUT_MAX);
	sent[n_sent++] = (struct sent){ out_dport(f), be16_host(be16_load(f->data + ETH_LEN + IP_ID)),
					f->verdict, r->now_ns };
}

/* Step what may go, as the worker does before it reads anything else. Return: how many frames. */
static inline uint32_t release(struct rig *r)
{
	struct fp_frame frames[FP_BURST_MAX];
	uint32_t n, total = 0;

	commit_due(&r->core, r->now_ns);
	do {
		for (uint32_t i = 0; i < FP_BURST_MAX; i++)
			frames[i] = (struct fp_frame){ .data = rooms[i] };
		n = core_held_ready(&r->core, frames, FP_BURST_MAX, r->now_ns);
		core_step(&r->core, frames, n, r->now_ns);
		core_account(&r->core, frames, n);
		for (uint32_t i = 0; i < n; i++)
			note(r, &frames[i]);
		total += n;
	} while (n);
	return total;
}

/* The worker's drain: everything that waits to be told; the number of the last event. */
static inline uint64_t tell(struct rig *r)
{
	static uint64_t last;
	struct fp_flow_rec recs[32];
	uint32_t n;

	do {
		n = core_drain(&r->core, recs, ARRAY_SIZE(recs), 1000, r->now_ns);
		if (n)
			last = recs[n - 1].ev_seq;
	} while (n == ARRAY_SIZE(recs));
	return last;
}

static inline uint32_t ack(struct rig *r, uint64_t ev_seq)
{
	core_ack(&r->core, ev_seq);
	return release(r);
}

/* A client's datagram: packet @number of session @session. */
static inline struct fp_frame packet(struct rig *r, uint16_t session, uint16_t number)
{
	struct spec s = spec_udp;
	struct fp_frame f;

	s.sport = (uint16_t)(10000 + session);
	s.dport = session;
	f = frames_ipv4(r->data, LAN, mac_virtual[LAN], &s);
	be16_store(r->data + ETH_LEN + IP_ID, be16_of(number));
	frames_fix_ip_csum(r->data + ETH_LEN);
	rig_step(r, &f);
	note(r, &f);
	return f;
}

static inline void later(struct rig *r, uint64_t us)
{
	r->now_ns += us * 1000;
}

static inline uint64_t histogram_sum(const struct lag_histogram *h)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < FP_LAG_BUCKETS; i++)
		n += counter_read(&h->count[i]);
	return n;
}

#endif
