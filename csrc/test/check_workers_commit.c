/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_workers_commit.c - output commit between threads: births wake control, acknowledgements and deadlines workers
 *
 * Spec: B1, R18
 */
#include <poll.h>

#include "../clock.h"
#include "../commit.h"
#include "dataplane.h"

static fp_dp *open_committed(enum fp_commit mode, uint32_t hold_ms)
{
	struct fp_config cfg = frames_config(N_WORKERS, 4096);
	struct fp_error err;
	fp_dp *dp;

	cfg.sync.commit = mode;
	cfg.sync.hold_ms = hold_ms;
	cfg.sync.hold_frames = 1024;
	cfg.sync.lazy_ms = 100;
	cfg.sync.refresh_s = 30;
	dp = open_config(cfg);
	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0 &&
		fp_sync_track(dp, 1) == 0 && fp_commit_set(dp, 1) == 0);
	return dp;
}

/* What every worker has to tell is acknowledged; with @now_and_then one time in three. */
static uint32_t acknowledge(fp_dp *dp, bool now_and_then)
{
	static struct fp_flow_rec recs[64];
	static uint64_t told[N_WORKERS];
	static uint32_t round;
	uint32_t total_told = 0;
	uint64_t lost;

	for (uint32_t i = 0; i < N_WORKERS; i++) {
		const int n = fp_events_drain(dp, i, recs, ARRAY_SIZE(recs), &lost);

		REQUIRE(n >= 0);
		if (n)
			told[i] = recs[n - 1].ev_seq;
		total_told += (uint32_t)n;
		if (!now_and_then || round++ % 3 == 0)
			REQUIRE(fp_events_ack(dp, i, told[i]) == 0);
	}
	return total_told;
}

static void put_numbered(struct side *side, uint16_t session, uint16_t number)
{
	const struct spec spec = { .src = CLIENT,
				   .dst = SERVER,
				   .proto = IPPROTO_NUM_UDP,
				   .sport = (uint16_t)(20000 + session),
				   .dport = session,
				   .payload = 20 };
	uint8_t data[FP_FRAME_MAX];
	const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

	be16_store(data + ETH_LEN + IP_ID, be16_of(number));
	frames_fix_ip_csum(data + ETH_LEN);
	put(side, LAN, session, data, f.len); /* a session has one queue, perhaps not that of its owner */
}

/*
 * Everybody sleeps but for what is due: birth wakes control, and its acknowledgement wakes the worker. Without its
 * bell the worker would lie until the next tick of the wheel, 134 ms.
 */
static void check_woken(void)
{
	enum { ROUNDS = 21, SOON_MS = 40 };

	fp_dp *dp = open_committed(FP_COMMIT_STRICT, 20);
	struct side side = { .dp = dp };
	struct pollfd born = { .fd = fp_events_fd(dp), .events = POLLIN };
	uint8_t data[FP_FRAME_MAX];
	uint32_t soon = 0;
	uint64_t seen;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		uint64_t since_ns;

		while (poll(&born, 1, 0) > 0)
			REQUIRE(read(born.fd, &seen, sizeof(seen)) == sizeof(seen));
		put_numbered(&side, (uint16_t)(1 + i), 0);
		while (total(dp, V_HELD) < i + 1) {
			REQUIRE(poll(&born, 1, RUN_LIMIT_S * 1000) == 1);
			REQUIRE(read(born.fd, &seen, sizeof(seen)) == sizeof(seen));
		}
		CHECK_EQ(70, take_all(dp, WAN, data, NULL, &side), 0);
		usleep(10000); /* let it fall asleep */
		since_ns = clock_now();
		REQUIRE(acknowledge(dp, false) > 0);
		while (take_all(dp, WAN, data, NULL, &side) == 0) {
			REQUIRE(clock_now() - since_ns < RUN_LIMIT_S * NS_PER_S);
			usleep(500);
		}
		soon += clock_now() - since_ns < SOON_MS * NS_PER_MS;
	}
	CHECK(71, soon > ROUNDS / 2);
	CHECK_EQ(72, total(dp, V_SNAT), ROUNDS);
	fp_close(dp);
}

/* Who looks by himself is not woken; whoever waits again finds what came before, and is woken for what comes. */
static void check_awaited(void)
{
	fp_dp *dp = open_committed(FP_COMMIT_ASYNC, 20);
	struct side side = { .dp = dp };
	struct pollfd born = { .fd = fp_events_fd(dp), .events = POLLIN };
	uint64_t seen;

	for (uint16_t i = 0; i < 20; i++) {
		while (poll(&born, 1, 0) > 0)
			REQUIRE(read(born.fd, &seen, sizeof(seen)) == sizeof(seen));
		REQUIRE(fp_events_await(dp, 0) == 0);
		put_numbered(&side, (uint16_t)(1 + 2 * i), 0);
		while (total(dp, V_SNAT) < 2u * i + 1)
			usleep(500);
		CHECK_EQ(90, poll(&born, 1, 10), 0);
		REQUIRE(fp_events_await(dp, 1) == 0);
		CHECK_EQ(91, acknowledge(dp, 0), 1);
		put_numbered(&side, (uint16_t)(2 + 2 * i), 0);
		REQUIRE(poll(&born, 1, RUN_LIMIT_S * 1000) == 1);
		CHECK_EQ(92, acknowledge(dp, 0), 1);
	}
	fp_close(dp);
}

/* An idle worker lets go what has waited hold_ms, and drops what a strict session has waited for in vain. */
static void check_deadlines(enum fp_commit mode)
{
	fp_dp *dp = open_committed(mode, 20);
	const enum fp_verdict end = mode == FP_COMMIT_STRICT ? V_HOLD_DROPPED : V_SNAT;
	struct side side = { .dp = dp };
	const uint64_t since_ns = clock_now();

	for (uint16_t session = 1; session <= 20; session++)
		put_numbered(&side, session, 0);
	while (total(dp, end) < 20)
		REQUIRE(clock_now() - since_ns < RUN_LIMIT_S * NS_PER_S);
	CHECK(75, clock_now() - since_ns >=
			  (mode == FP_COMMIT_STRICT ? COMMIT_STRICT_S * NS_PER_S : 20 * NS_PER_MS));
	CHECK_EQ(76, total(dp, V_HELD), 20);
	CHECK_EQ(77, n_ended(dp), 20);
	fp_close(dp);
}

/* Each session's packets leave in the order in which they came, whatever is acknowledged when. */
static void check_held_order(void)
{
	enum { SESSIONS = 500, EACH = 20, PACKETS = SESSIONS * EACH, BLOCK = 10 * EACH };

	fp_dp *dp = open_committed(FP_COMMIT_BOUNDED, 1000);
	struct side side = { .dp = dp };
	static uint16_t next[SESSIONS + 1];
	uint8_t data[FP_FRAME_MAX];
	uint32_t round = 0, n_out = 0;
	const uint64_t since_ns = clock_now();
	uint64_t sent = 0;

	memset(next, 0, sizeof(next));
	while (sent < PACKETS || n_ended(dp) < PACKETS || n_out < total(dp, V_SNAT)) {
		uint32_t len;

		/* Some sessions at a time, each packet of one after the other. */
		for (uint32_t i = 0; i < 40 && sent < PACKETS; i++, sent++)
			put_numbered(&side, (uint16_t)(1 + sent / BLOCK * 10 + sent % 10),
				     (uint16_t)(sent % BLOCK / 10));
		for (uint32_t q = 0; q < N_WORKERS; q++) {
			while ((len = port_mem_take(&dp->plane.ports[WAN], q, FP_SRC_WIRE, data)) > 0) {
				const struct fp_frame f = { .data = data, .len = len };
				const uint16_t session =
					be16_host(be16_load(f.data + ETH_LEN + IPV4_LEN + L4_DPORT));
				const uint16_t number = be16_host(be16_load(f.data + ETH_LEN + IP_ID));

				REQUIRE(session >= 1 && session <= SESSIONS);
				CHECK(80, number >= next[session]); /* a full ring leaves gaps */
				next[session] = (uint16_t)(number + 1);
				n_out++;
			}
		}
		acknowledge(dp, true);
		if (++round % 64 == 0) /* the peer goes, and is back */
			REQUIRE(fp_commit_set(dp, 0) == 0 && fp_commit_set(dp, 1) == 0);
		REQUIRE(clock_now() - since_ns < RUN_LIMIT_S * NS_PER_S);
	}
	CHECK_EQ(81, n_ended(dp), PACKETS);
	CHECK(82, total(dp, V_HELD) > SESSIONS / 2);
	CHECK_EQ(83,
		 total(dp, V_SNAT) + total(dp, V_TX_FAILED) + total(dp, V_HANDOFF_FULL) +
			 total(dp, V_HOLD_FULL),
		 PACKETS);
	CHECK(84, total(dp, V_SNAT) > PACKETS / 2);
	fp_close(dp);
}

int main(void)
{
	check_woken();
	check_awaited();
	check_deadlines(FP_COMMIT_BOUNDED);
	check_deadlines(FP_COMMIT_STRICT);
	check_held_order();
	return check_done("workers commit");
}
