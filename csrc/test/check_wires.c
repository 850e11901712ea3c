/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_wires.c - parked wires, and passing on: what a planned move of the role does between two workers
 *
 * Spec: B3, R15
 */
#include "../clock.h"
#include "../local.h"
#include "../wires.h"
#include "dataplane.h"

enum { WAITING = 200, EARLY = 100 }; /* more than a burst in each queue, and less than a queue holds */

static fp_dp *open_node(uint32_t hold_frames)
{
	struct fp_config cfg = frames_config(N_WORKERS, 4096);
	struct fp_error err;
	fp_dp *dp;

	cfg.sync.commit = hold_frames ? FP_COMMIT_STRICT : FP_COMMIT_ASYNC;
	cfg.sync.hold_ms = 20;
	cfg.sync.hold_frames = hold_frames;
	dp = open_config(cfg);
	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0);
	return dp;
}

/* Datagram @number of a session, in the queue of the session. */
static void put_numbered(struct side *side, uint16_t session, be32 dst, uint16_t number)
{
	const struct spec spec = { .src = CLIENT,
				   .dst = dst,
				   .proto = IPPROTO_NUM_UDP,
				   .sport = (uint16_t)(20000 + session),
				   .dport = 53,
				   .payload = 20 };
	uint8_t data[FP_FRAME_MAX];
	const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

	be16_store(data + ETH_LEN + IP_ID, be16_of(number));
	frames_fix_ip_csum(data + ETH_LEN);
	put(side, LAN, session, data, f.len);
}

static void wires(fp_dp *dp, enum fp_wires mode)
{
	const uint64_t deadline = clock_now() + RUN_LIMIT_S * NS_PER_S;

	REQUIRE(fp_wires_set(dp, mode) == 0);
	while (fp_wires_settled(dp) != 1) {
		REQUIRE(clock_now() < deadline);
		sched_yield();
	}
}

static void wait_ended(fp_dp *dp, uint64_t n)
{
	const uint64_t deadline = clock_now() + RUN_LIMIT_S * NS_PER_S;

	while (n_ended(dp) < n) {
		REQUIRE(clock_now() < deadline);
		sched_yield();
	}
}

/* A frame that was passed on: from this port to the peer's, and as it came but for that. */
static void see_passed_on(struct side *side, uint8_t *data, uint32_t len)
{
	static uint16_t last[2];
	const uint32_t session = be16_host(be16_load(data + ETH_LEN + IPV4_LEN + L4_SPORT)) - 20000;
	const uint16_t number = be16_host(be16_load(data + ETH_LEN + IP_ID));

	if (be32_load(data + ETH_LEN + IP_SRC).raw != CLIENT.raw) /* a heartbeat */
		return;
	CHECK(1, mac_eq(data + ETH_DST, mac_peer) && mac_eq(data + ETH_SRC, mac_self[LAN]));
	CHECK_EQ(2, data[ETH_LEN + IP_TTL], 64);
	CHECK(3, len == ETH_LEN + IPV4_LEN + UDP_LEN + 20);
	REQUIRE(session < ARRAY_SIZE(last));
	CHECK(4, number > last[session]);
	last[session] = number;
	atomic_fetch_add(&side->received, 1);
}

/* All that comes while nobody forwards waits, and goes to the peer in its order. */
static void check_move(void)
{
	fp_dp *dp = open_node(0);
	struct side side = { .dp = dp };
	uint8_t data[FP_FRAME_MAX];

	for (uint32_t i = 1; i <= EARLY; i++)
		put_numbered(&side, i % 2, SERVER, (uint16_t)i);
	wires(dp, FP_WIRES_PARK);
	for (uint32_t i = EARLY + 1; i <= EARLY + WAITING; i++)
		put_numbered(&side, i % 2, SERVER, (uint16_t)i);
	REQUIRE(fp_set_role(dp, FP_ROLE_JOINING, 2) == 0);
	CHECK_EQ(10, total(dp, V_FENCED) + total(dp, V_VMAC_NOT_ACTIVE), 0);
	CHECK(11, n_ended(dp) <= EARLY);
	CHECK_EQ(12, take_all(dp, WAN, data, NULL, &side), n_ended(dp));
	wires(dp, FP_WIRES_PASS_ON);
	CHECK_EQ(13, n_ended(dp), EARLY + WAITING);
	put_numbered(&side, 0, SERVER, EARLY + WAITING + 1); /* of a switch that has not learned yet */
	wait_ended(dp, EARLY + WAITING + 1);
	take_all(dp, LAN, data, see_passed_on, &side);
	CHECK_EQ(14, side.received, total(dp, V_PASSED_ON));
	CHECK_EQ(15, total(dp, V_PASSED_ON) + total(dp, V_SNAT), EARLY + WAITING + 1);
	wires(dp, FP_WIRES_READ);
	put_numbered(&side, 0, SERVER, 0);
	wait_ended(dp, EARLY + WAITING + 2);
	CHECK_EQ(16, total(dp, V_VMAC_NOT_ACTIVE), 1);
	fp_close(dp);
}

/* A move that fails: the node reads on, and forwards what has waited. */
static void check_return(void)
{
	fp_dp *dp = open_node(0);
	struct side side = { .dp = dp };
	uint8_t data[FP_FRAME_MAX];

	for (uint32_t round = 0; round < 2; round++) {
		const uint64_t before = total(dp, V_SNAT);

		wires(dp, FP_WIRES_PARK);
		for (uint32_t i = 1; i <= WAITING; i++)
			put_numbered(&side, i % 2, SERVER, (uint16_t)i);
		if (round == 1)
			REQUIRE(fp_set_role(dp, FP_ROLE_JOINING, 2) == 0 &&
				fp_set_role(dp, FP_ROLE_ACTIVE, 4) == 0);
		CHECK_EQ(20, total(dp, V_SNAT), before);
		wires(dp, FP_WIRES_READ);
		wait_ended(dp, (uint64_t)WAITING * (round + 1));
		CHECK_EQ(21, total(dp, V_SNAT), before + WAITING);
		CHECK_EQ(22, take_all(dp, WAN, data, NULL, &side), WAITING);
	}
	CHECK_EQ(23, fp_wires_set(dp, FP_WIRES_PASS_ON + 1), (uint64_t)-EINVAL);
	CHECK_EQ(24, fp_wires_set(NULL, FP_WIRES_READ), (uint64_t)-EINVAL);
	CHECK_EQ(25, fp_wires_settled(NULL), (uint64_t)-EINVAL);
	fp_close(dp);
}

/* Nothing has come to rest while a packet waits for the peer's acknowledgement. */
static void check_held(void)
{
	static struct fp_flow_rec recs[64];
	fp_dp *dp = open_node(1024);
	struct side side = { .dp = dp };
	uint64_t lost, settled_after = 0;

	REQUIRE(fp_sync_track(dp, 1) == 0 && fp_commit_set(dp, 1) == 0);
	put_numbered(&side, 0, SERVER, 1);
	put_numbered(&side, 1, SERVER, 1);
	while (total(dp, V_HELD) < 2)
		sched_yield();
	REQUIRE(fp_wires_set(dp, FP_WIRES_PARK) == 0);
	for (uint32_t i = 0; i < 20; i++) {
		settled_after += (uint64_t)fp_wires_settled(dp);
		usleep(500);
	}
	CHECK_EQ(30, settled_after, 0);
	while (fp_wires_settled(dp) != 1) {
		for (uint32_t i = 0; i < N_WORKERS; i++) {
			const int n = fp_events_drain(dp, i, recs, ARRAY_SIZE(recs), &lost);

			REQUIRE(n >= 0);
			if (n)
				REQUIRE(fp_events_ack(dp, i, recs[n - 1].ev_seq) == 0);
		}
	}
	CHECK_EQ(31, total(dp, V_SNAT), 2);
	fp_close(dp);
}

/* A frame waits for its neighbour, whose answer would come by a wire: read on for it, but not for long. */
static void check_neighbour(void)
{
	const be32 nobody = IP4(203, 0, 113, 6);
	fp_dp *dp = open_node(0);
	struct side side = { .dp = dp };
	uint64_t since_ns;

	put_numbered(&side, 0, nobody, 1);
	while (total(dp, V_NEIGH_WAIT) == 0)
		sched_yield();
	since_ns = clock_now();
	REQUIRE(fp_wires_set(dp, FP_WIRES_PARK) == 0);
	put_numbered(&side, 0, SERVER, 1); /* one of both queues is that of the worker that waits */
	put_numbered(&side, 1, SERVER, 1);
	wait_ended(dp, 1);
	while (fp_wires_settled(dp) != 1)
		sched_yield();
	CHECK(40, clock_now() - since_ns >= WIRES_PATIENCE_MS * NS_PER_MS);
	fp_close(dp);
}

/* One worker alone, step by step: only IPv4 and ARP, only to a peer that is known by the port. */
static void check_frames(void)
{
	fp_dp *dp = open_config(frames_config(1, 4096));
	struct core *c = &dp->plane.workers[0].core;
	uint8_t data[FP_FRAME_MAX];
	const struct spec spec = {
		.src = CLIENT, .dst = SERVER, .proto = IPPROTO_NUM_UDP, .sport = 1, .dport = 53
	};

	REQUIRE(fp_set_role(dp, FP_ROLE_PASSIVE, 2) == 0 && fp_wires_set(dp, FP_WIRES_PASS_ON) == 0);
	for (uint32_t port = 0; port < N_PORTS; port++) {
		static const uint16_t types[] = { ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6 };

		for (uint32_t i = 0; i < ARRAY_SIZE(types); i++) {
			const bool passes = port == LAN && types[i] != ETHERTYPE_IPV6;
			struct fp_frame f = frames_ipv4(data, port, mac_virtual[port], &spec);

			be16_store(data + ETH_TYPE, be16_of(types[i]));
			core_step(c, &f, 1, clock_now());
			CHECK_EQ(50 + i, f.verdict, passes ? V_PASSED_ON : V_VMAC_NOT_ACTIVE);
			CHECK_EQ(55, f.out, passes ? FP_OUT_WIRE : FP_OUT_NONE);
			CHECK_EQ(56, f.fenced, 0);
			CHECK_EQ(57, f.out_port, port);
		}
	}
	fp_close(dp);
}

int main(void)
{
	check_move();
	check_return();
	check_held();
	check_neighbour();
	check_frames();
	return check_done("wires");
}
