/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pulse_bench.h - a pulse without its thread, whose peer is the test
 */
#ifndef PULSE_BENCH_H
#define PULSE_BENCH_H

#include "../pulse.h"
#include "../siphash.h"
#include "check.h"
#include "frames.h"

enum { PAIR = 7, N_PATHS = 1 + N_PORTS };

#define MS(n) ((uint64_t)(n) * NS_PER_MS)

static inline struct fp_config config(uint32_t node_index)
{
	struct fp_config cfg = frames_config(1, 64);

	cfg.pulse = (struct fp_pulse_cfg){
		.interval_ms = 50,
		.dead_after = 3,
		.udp_port = 47850,
		.pair_id = PAIR,
		.node_index = node_index,
		.incarnation = 100 + node_index,
		.confirm_ms = 15,
		.mac_key = { 0xaa, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 },
	};
	memcpy(cfg.ports[WAN].peer_mac, mac_peer, ETH_ALEN);
	return cfg;
}

/* A pulse without its thread, and what it stands on. */
struct bench {
	struct fp_config cfg;
	struct fence fence;
	struct doorbell tx_bell;
	struct pulse pulse;
	int events_fd;
};

static inline struct bench *bench_open(struct fp_config cfg)
{
	struct bench *b = aligned_alloc(CACHE_LINE, (sizeof(*b) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
	struct fp_error err = { "" };

	REQUIRE(b != NULL);
	memset(b, 0, sizeof(*b));
	b->cfg = cfg;
	b->events_fd = eventfd(0, EFD_NONBLOCK);
	REQUIRE(b->events_fd >= 0 && doorbell_init(&b->tx_bell) == 0);
	REQUIRE(pulse_open(&b->pulse, &b->cfg, &b->fence, &b->tx_bell, b->events_fd, &err) == 0);
	return b;
}

static inline void bench_close(struct bench *b)
{
	pulse_close(&b->pulse);
	doorbell_free(&b->tx_bell);
	close(b->events_fd);
	free(b);
}

static inline int say(struct bench *b, uint32_t path, const struct heartbeat *hb, uint64_t now_ns)
{
	uint8_t payload[HB_LEN];

	heartbeat_encode(hb, b->cfg.pulse.mac_key, path, payload);
	return pulse_receive(&b->pulse, path, payload, HB_LEN, now_ns);
}

/* What the peer says now, PASSIVE and hearing us. */
static inline struct heartbeat words_of_peer(const struct bench *b, uint64_t seq, uint64_t now_ns)
{
	return (struct heartbeat){
		.node_index = 1 - (uint8_t)b->cfg.pulse.node_index,
		.role = FP_ROLE_PASSIVE,
		.pair_id = PAIR,
		.interval_ms = 50,
		.incarnation = 55,
		.seq = seq,
		.t_ns = now_ns,
		.echo = b->cfg.pulse.incarnation,
		.heard = now_ns,
	};
}

/* It says something on a path. */
static inline int hear(struct bench *b, uint32_t path, uint64_t seq, uint8_t role, uint64_t term,
		       uint64_t now_ns)
{
	struct heartbeat hb = words_of_peer(b, seq, now_ns);

	hb.role = role;
	hb.term = term;
	return say(b, path, &hb, now_ns);
}

/* A life of it says which life of ours it has heard. */
static inline int hear_life(struct bench *b, uint32_t path, uint64_t incarnation, uint64_t echo, uint64_t seq,
			    uint64_t now_ns)
{
	struct heartbeat hb = words_of_peer(b, seq, now_ns);

	hb.incarnation = incarnation;
	hb.echo = echo;
	hb.heard = echo ? now_ns : 0;
	return say(b, path, &hb, now_ns);
}

/* The next report, or a kind that does not exist. */
static inline struct fp_pulse_event next_event(struct bench *b)
{
	const struct fp_pulse_event none = { .kind = UINT32_MAX };
	const struct fp_pulse_event *slot = ring_peek_one(&b->pulse.events);
	struct fp_pulse_event ev = slot ? *slot : none;

	if (slot)
		ring_release(&b->pulse.events, 1);
	return ev;
}

static inline void expect(struct bench *b, int n, uint32_t kind, uint32_t path)
{
	const struct fp_pulse_event ev = next_event(b);

	CHECK_EQ(n, ev.kind, kind);
	CHECK_EQ(n, ev.path, path);
}

static inline void expect_nothing(struct bench *b, int n)
{
	CHECK_EQ(n, next_event(b).kind, UINT32_MAX);
}

static inline bool decodes(const uint8_t *bytes, uint32_t len, const uint8_t *key, uint32_t path,
			   struct heartbeat *hb)
{
	struct heartbeat_keys keys = { .n = 1 };

	memcpy(keys.key[0], key, SIPHASH_KEY_LEN);
	return heartbeat_decode(bytes, len, &keys, path, hb);
}

#endif /* PULSE_BENCH_H */
