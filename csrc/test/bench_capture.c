/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bench_capture.c - what a packet pays for capture: while it is off, and while it is on
 *
 * Bursts of a known session's packets through core_step(), as a worker does it (worker.c), without I/O. The
 * variants take turns, so that a machine that is busy with something else is busy for all of them. The
 * best turn of each, which nothing disturbed, and in brackets the median and the worst.
 */
#include <inttypes.h>
#include <stdio.h>

#include "../capture.h"
#include "../clock.h"
#include "rig.h"

enum { ROUNDS = 20000, TURNS = 15, BURST = FP_BURST_MAX, FRAME_LEN = 64, DRAIN = 256 << 10 };
enum variant { BARE, OFF, NO_MATCH, EVERYTHING, N_VARIANTS };

static const char *const names[N_VARIANTS] = {
	[BARE] = "without the code",
	[OFF] = "off",
	[NO_MATCH] = "on, 'host 10.1.2.3', which no packet matches",
	[EVERYTHING] = "on, every packet, drained by the same thread",
};

/* What libpcap makes of 'host 10.1.2.3'. */
static const struct fp_bpf host[] = {
	{ 0x28, 0, 0, 12 },     { 0x15, 0, 4, 0x800 },      { 0x20, 0, 0, 26 },    { 0x15, 8, 0, 0x0a010203 },
	{ 0x20, 0, 0, 30 },     { 0x15, 6, 7, 0x0a010203 }, { 0x15, 1, 0, 0x806 }, { 0x15, 0, 5, 0x8035 },
	{ 0x20, 0, 0, 28 },     { 0x15, 2, 0, 0x0a010203 }, { 0x20, 0, 0, 38 },    { 0x15, 0, 1, 0x0a010203 },
	{ 0x06, 0, 0, 262144 }, { 0x06, 0, 0, 0 },
};

static uint8_t first[BURST][FP_FRAME_MAX], data[BURST][FP_FRAME_MAX], drained[DRAIN];
static struct fp_frame proto[BURST], frames[BURST];

static void step(struct rig *r)
{
	core_step(&r->core, frames, BURST, r->now_ns);
	core_account(&r->core, frames, BURST);
}

/* As worker.c: step_and_send_from() does it. */
static void step_tapped(struct rig *r, struct capture_tap *volatile *place)
{
	struct capture_tap *tap = *place;

	if (unlikely(tap))
		capture_before(tap, frames, BURST, FP_CAPTURE_WIRE, clock_now());
	core_step(&r->core, frames, BURST, r->now_ns);
	core_account(&r->core, frames, BURST);
	if (unlikely(tap))
		capture_after(tap, frames, BURST, clock_now());
}

static double turn(struct rig *r, enum variant variant, struct capture_tap *tap)
{
	struct capture_tap *volatile place = tap;
	uint64_t ns = 0, from;

	for (uint32_t round = 0; round < ROUNDS; round++) {
		for (uint32_t i = 0; i < BURST; i++) {
			memcpy(data[i], first[i], FRAME_LEN);
			frames[i] = proto[i];
		}
		from = clock_now();
		if (variant == BARE)
			step(r);
		else
			step_tapped(r, &place);
		ns += clock_now() - from;
		while (tap && capture_drain(tap, drained, DRAIN) > 0)
			;
	}
	return (double)ns / ROUNDS / BURST;
}

static int by_size(const void *left, const void *right)
{
	const double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static struct capture *make(const struct fp_bpf *insns, uint32_t n_insns)
{
	const struct fp_capture_cfg cfg = { .snaplen = FP_FRAME_BIG,
					    .ports = UINT32_MAX,
					    .any_verdict = 1,
					    .insns = insns,
					    .n_insns = n_insns };
	struct capture *capture;
	struct fp_error err;

	REQUIRE(capture_make(&capture, &cfg, 1, &err) == 0);
	return capture;
}

int main(void)
{
	static double ns[N_VARIANTS][TURNS];
	struct capture *captures[N_VARIANTS] = { [NO_MATCH] = make(host, ARRAY_SIZE(host)),
						 [EVERYTHING] = make(NULL, 0) };
	struct rig *r = rig_active();

	for (uint32_t i = 0; i < BURST; i++) {
		const struct spec spec = { .src = CLIENT,
					   .dst = SERVER,
					   .proto = IPPROTO_NUM_UDP,
					   .sport = (uint16_t)(20000 + i),
					   .dport = 53,
					   .payload = FRAME_LEN - ETH_LEN - IPV4_LEN - UDP_LEN };

		proto[i] = frames_ipv4(first[i], LAN, mac_virtual[LAN], &spec);
		proto[i].data = data[i];
	}
	for (uint32_t t = 0; t < TURNS; t++) {
		for (enum variant v = 0; v < N_VARIANTS; v++)
			ns[v][t] = turn(r, v, captures[v] ? &captures[v]->taps[0] : NULL);
	}
	REQUIRE(frames[0].verdict == V_SNAT);
	for (enum variant v = 0; v < N_VARIANTS; v++) {
		qsort(ns[v], TURNS, sizeof(ns[v][0]), by_size);
		printf("%6.1f ns a packet  (%.1f, %.1f)  capture %s\n", ns[v][0], ns[v][TURNS / 2],
		       ns[v][TURNS - 1], names[v]);
		capture_free(captures[v]);
	}
	rig_free(r);
	return 0;
}
