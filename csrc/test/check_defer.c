/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_defer.c - frames that wait for the lease: order, bytes, headroom, bounds; and a worker that does not wait with them
 *
 * Spec: B2
 */
#include "../clock.h"
#include "dataplane.h"

enum { N_FRAMES = 100 };

static void check_room(void)
{
	struct defer d = { 0 };
	static uint8_t data[FP_FRAME_BIG];
	const struct fp_frame small = { .data = data, .len = 60, .out_port = 1 };
	const struct fp_frame big = { .data = data, .len = sizeof(data) };
	uint32_t n = 0;

	REQUIRE(defer_init(&d) == 0);
	for (uint32_t i = 0; i < DEFER_FRAMES; i++) {
		data[0] = (uint8_t)i;
		CHECK(1, defer_put(&d, &small, 7 + i));
	}
	CHECK(2, !defer_put(&d, &small, 0));
	CHECK_EQ(3, d.since_ns, 7);
	for (uint32_t i = 0; i < DEFER_FRAMES; i++) {
		CHECK_EQ(4, d.frames[i].data[0], (uint8_t)i);
		CHECK_EQ(5, d.frames[i].out_port, 1);
		memset(d.frames[i].data - FP_HEADROOM, 0xff,
		       FP_HEADROOM); /* the driver's, and nobody else's */
	}
	for (uint32_t i = 0; i < DEFER_FRAMES; i++)
		CHECK_EQ(6, d.frames[i].data[0], (uint8_t)i);
	defer_clear(&d);
	while (defer_put(&d, &big, 0))
		n++;
	CHECK_EQ(7, n, DEFER_BYTES / (FP_FRAME_BIG + FP_HEADROOM + CACHE_LINE));
	CHECK(8, d.used <= DEFER_BYTES);
	defer_clear(&d);
	d.leaving = true;
	CHECK(9, !defer_put(&d, &small, 0));
	defer_free(&d);
}

static void put_numbered(struct side *side, uint16_t number)
{
	const struct spec spec = { .src = CLIENT,
				   .dst = SERVER,
				   .proto = IPPROTO_NUM_UDP,
				   .sport = 20000,
				   .dport = 53,
				   .payload = 20 };
	uint8_t data[FP_FRAME_MAX];
	const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

	be16_store(data + ETH_LEN + IP_ID, be16_of(number));
	frames_fix_ip_csum(data + ETH_LEN);
	while (port_mem_put(&side->dp->plane.ports[LAN], 0, FP_SRC_WIRE, data, f.len) == -ENOBUFS)
		sched_yield();
}

/* The next number, and no other. */
static void see_numbered(struct side *side, uint8_t *data, uint32_t len)
{
	const uint16_t number = be16_host(be16_load(data + ETH_LEN + IP_ID));

	CHECK_EQ(20, len, ETH_LEN + IPV4_LEN + UDP_LEN + 20);
	CHECK_EQ(21, number, atomic_fetch_add(&side->received, 1));
}

static void wait_counted(fp_dp *dp, enum fp_verdict verdict, uint64_t n)
{
	const uint64_t deadline = clock_now() + RUN_LIMIT_S * NS_PER_S;

	while (total(dp, verdict) < n) {
		REQUIRE(clock_now() < deadline);
		sched_yield();
	}
}

static void take_until(struct side *side, uint64_t n)
{
	const uint64_t deadline = clock_now() + RUN_LIMIT_S * NS_PER_S;
	uint8_t data[FP_FRAME_MAX];

	while (atomic_load(&side->received) < n) {
		REQUIRE(clock_now() < deadline);
		take_all(side->dp, WAN, data, see_numbered, side);
	}
}

/* It reads on while the lease is over; what it has translated leaves later, or never. */
static void check_worker(void)
{
	fp_dp *dp = open_config(frames_config(1, 4096));
	struct fence *fence = &dp->plane.fence;
	struct side side = { .dp = dp };
	uint8_t data[FP_FRAME_MAX];
	struct fp_error err;
	uint16_t number = 0;

	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0);
	pulse_stop(&dp->pulse);               /* the lease is ours now */
	take_all(dp, WAN, data, NULL, &side); /* its heartbeats */
	fence_renew(fence, 1);
	while (number < N_FRAMES)
		put_numbered(&side, number++);
	wait_counted(dp, V_SNAT, N_FRAMES);
	CHECK_EQ(30, take_all(dp, WAN, data, NULL, &side), 0);
	fence_renew(fence, UINT64_MAX);
	put_numbered(&side, number++);
	take_until(&side, N_FRAMES + 1);
	CHECK_EQ(31, total(dp, V_LEASE), 0);
	fence_renew(fence, 1);
	put_numbered(&side, 0);
	wait_counted(dp, V_LEASE, 1); /* it has waited long enough */
	put_numbered(&side, 0);
	wait_counted(dp, V_SNAT, N_FRAMES + 3);
	REQUIRE(fp_set_role(dp, FP_ROLE_PASSIVE, 2) == 0);
	fence_renew(fence, UINT64_MAX);
	wait_counted(dp, V_FENCED, 1);
	CHECK_EQ(32, take_all(dp, WAN, data, NULL, &side), 0);
	fp_close(dp);
}

int main(void)
{
	check_room();
	check_worker();
	return check_done("defer");
}
