/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_store.c - frames that are kept under suspicion: order, bounds; and what a worker does with them
 *
 * Spec: R13, B2
 */
#include "../clock.h"
#include "dataplane.h"

enum { N_FRAMES = 100, SIZE = ETH_LEN + IPV4_LEN + UDP_LEN + 20 };

static void check_room(void)
{
	static uint8_t data[FP_FRAME_BIG], room[FP_BURST_MAX][FP_FRAME_MAX], big_room[FP_FRAME_BIG];
	const struct fp_frame small = { .data = data, .len = 60, .port = 1, .src = FP_SRC_WIRE };
	const struct fp_frame big = { .data = data, .len = sizeof(data) };
	struct fp_frame out[FP_BURST_MAX], out_big = { .data = big_room };
	struct store s = { 0 };
	uint32_t n, seen = 0;

	REQUIRE(store_init(&s) == 0);
	for (uint32_t i = 0; i < FP_BURST_MAX; i++)
		out[i] = (struct fp_frame){ .data = room[i], .headroom = 1 };
	for (uint32_t i = 0; i < STORE_FRAMES; i++) {
		data[0] = (uint8_t)i;
		CHECK(1, store_put(&s, &small, 3 + i, 7 + i));
	}
	CHECK(2, !store_put(&s, &small, 0, 0));
	CHECK(3, s.since_ns == 7 && s.number == 3);
	while ((n = store_take(&s, out, FP_BURST_MAX)) > 0) {
		for (uint32_t i = 0; i < n; i++) {
			CHECK_EQ(4, out[i].data[0], (uint8_t)seen++);
			CHECK(5, out[i].data == room[i] && out[i].headroom && out[i].port == 1);
		}
	}
	CHECK_EQ(6, seen, STORE_FRAMES);
	CHECK(7, s.n == 0 && s.used == 0);
	for (n = 0; store_put(&s, &big, 0, 0); n++)
		;
	CHECK_EQ(8, n, STORE_BYTES / FP_FRAME_BIG);
	CHECK(9, s.used <= STORE_BYTES);
	CHECK(10, store_take(&s, &out_big, 1) == 1 && !memcmp(big_room, data, sizeof(data)));
	store_clear(&s);
	CHECK_EQ(11, store_take(&s, out, 1), 0);
	store_free(&s);
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
	CHECK_EQ(20, len, SIZE);
	CHECK_EQ(21, be16_host(be16_load(data + ETH_LEN + IP_ID)), atomic_fetch_add(&side->received, 1));
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

/* What the pulse thread would say; it has been stopped. */
static void stand(fp_dp *dp, uint32_t number, enum suspect_state state)
{
	atomic_store_explicit(&dp->plane.pulse->standing, number << SUSPECT_STATE_BITS | state,
			      memory_order_release);
}

static void set_role(fp_dp *dp, uint32_t role, uint64_t term)
{
	fence_renew(&dp->plane.fence, UINT64_MAX);
	REQUIRE(fp_set_role(dp, role, term) == 0);
}

static uint64_t put_some(struct side *side, uint64_t already)
{
	for (uint32_t i = 0; i < N_FRAMES; i++)
		put_numbered(side, (uint16_t)i);
	wait_counted(side->dp, V_SUSPECT_WAIT, already + N_FRAMES);
	return already + N_FRAMES;
}

static void check_worker(void)
{
	fp_dp *dp = open_config(frames_config(1, 4096));
	struct side side = { .dp = dp };
	uint8_t data[FP_FRAME_MAX];
	struct fp_error err;
	uint64_t kept = 0;

	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_PASSIVE, 2) == 0);
	pulse_stop(&dp->pulse);
	take_all(dp, WAN, data, NULL, &side); /* its heartbeats */
	/* The first frame is a mark, and is kept; ACTIVE lives, and the next one is none for a while. */
	put_numbered(&side, 0);
	wait_counted(dp, V_SUSPECT_WAIT, ++kept);
	CHECK_EQ(30, atomic_exchange(&dp->pulse.marked, 0), FP_MARK_VMAC);
	atomic_store(&dp->pulse.flood_rest_ns, UINT64_MAX);
	stand(dp, 1, SUSPECT_CALM);
	wait_counted(dp, V_SUSPECT_DROPPED, 1);
	put_numbered(&side, 0);
	wait_counted(dp, V_VMAC_NOT_ACTIVE, 1);
	/* Too old. */
	stand(dp, 1, SUSPECT_ASKED);
	kept = put_some(&side, kept);
	wait_counted(dp, V_SUSPECT_DROPPED, 1 + N_FRAMES);
	/* A role that comes without a death: a living ACTIVE has had them. */
	kept = put_some(&side, kept);
	set_role(dp, FP_ROLE_ACTIVE, 3);
	wait_counted(dp, V_SUSPECT_DROPPED, 1 + 2 * N_FRAMES);
	CHECK_EQ(31, take_all(dp, WAN, data, NULL, &side), 0);
	set_role(dp, FP_ROLE_PASSIVE, 3);
	/* Its heir: all of them in order, before what is newer. */
	stand(dp, 1, SUSPECT_DEAD);
	put_some(&side, kept);
	set_role(dp, FP_ROLE_ACTIVE, 4);
	put_numbered(&side, N_FRAMES);
	take_until(&side, N_FRAMES + 1);
	CHECK_EQ(32, total(dp, V_SUSPECT_DROPPED), 1 + 2 * N_FRAMES);
	CHECK_EQ(33, total(dp, V_SNAT), N_FRAMES + 1);
	fp_close(dp);
}

int main(void)
{
	check_room();
	check_worker();
	return check_done("store");
}
