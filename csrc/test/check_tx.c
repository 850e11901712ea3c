/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_tx.c - what waits for worker 0 while it sends a burst: heartbeats do not, they leave between its parts; what is
 * collected for the conduit leaves after another look at the fence
 *
 * Spec: R13, B2
 */
#include "../tx.h"
#include "dataplane.h"

enum { N_HEARTBEATS = 12, OF_BURST = 0, OF_PULSE = 1 };

static void put_heartbeats(fp_dp *dp)
{
	for (uint32_t i = 0; i < N_HEARTBEATS; i++) {
		struct port_frame *slot = ring_reserve_one(&dp->pulse.tx);

		REQUIRE(slot != NULL);
		*slot = (struct port_frame){ .len = 60, .port = WAN, .data = { OF_PULSE, (uint8_t)i } };
		ring_submit(&dp->pulse.tx, 1);
	}
}

static void send_burst(fp_dp *dp, uint32_t worker)
{
	static uint8_t room[FP_BURST_MAX][FP_HEADROOM + FP_FRAME_MAX];
	struct fp_frame frames[FP_BURST_MAX];

	for (uint32_t i = 0; i < FP_BURST_MAX; i++) {
		frames[i] = (struct fp_frame){ .data = room[i] + FP_HEADROOM,
					       .len = 60,
					       .out = FP_OUT_WIRE,
					       .out_port = WAN,
					       .verdict = V_ROUTED };
		frames[i].data[0] = OF_BURST;
		frames[i].data[1] = (uint8_t)i;
	}
	tx_burst(&dp->plane.workers[worker], frames, FP_BURST_MAX, 1);
}

/* What comes out of a queue, in order; true for a heartbeat. */
static uint32_t order_of(fp_dp *dp, uint32_t queue, bool *is_pulse)
{
	uint8_t data[FP_FRAME_MAX];
	uint32_t n = 0, next[2] = { 0 };

	while (port_mem_take(&dp->plane.ports[WAN], queue, FP_SRC_WIRE, data) > 0) {
		REQUIRE(n < FP_BURST_MAX + N_HEARTBEATS);
		is_pulse[n++] = data[0] == OF_PULSE;
		CHECK_EQ(1, data[1], next[data[0]]++);
	}
	return n;
}

/* As many as a look at the fence is good for leave at a time: before the first, the ninth and so on of the burst. */
static void check_heartbeats_do_not_wait(void)
{
	fp_dp *dp = open_config(frames_config(N_WORKERS, 4096));
	bool is_pulse[FP_BURST_MAX + N_HEARTBEATS];

	put_heartbeats(dp);
	send_burst(dp, 0);
	REQUIRE(order_of(dp, 0, is_pulse) == FP_BURST_MAX + N_HEARTBEATS);
	for (uint32_t i = 0; i < ARRAY_SIZE(is_pulse); i++)
		CHECK_EQ(10, is_pulse[i], i < 8 || (i >= 16 && i < 20));
	fp_close(dp);
}

/* They are worker 0's to send. */
static void check_another_worker_leaves_them(void)
{
	fp_dp *dp = open_config(frames_config(N_WORKERS, 4096));
	bool is_pulse[FP_BURST_MAX + N_HEARTBEATS];

	put_heartbeats(dp);
	send_burst(dp, 1);
	CHECK_EQ(20, order_of(dp, 1, is_pulse), FP_BURST_MAX);
	CHECK_EQ(21, order_of(dp, 0, is_pulse), 0);
	CHECK(22, !ring_is_empty(&dp->pulse.tx));
	fp_close(dp);
}

/* Two frames for the conduit, collected while all was well, and then sent as the fence is by then; their verdict. */
static uint32_t verdict_of_collected(bool fenced, uint32_t role, uint64_t lease_until_ns)
{
	fp_dp *dp = open_config(frames_config(N_WORKERS, 4096));
	struct worker *w = &dp->plane.workers[0];
	static uint8_t data[2][FP_FRAME_MAX], room[XC_DATAGRAM_MAX];
	struct fp_frame frames[2];
	uint32_t verdict;

	w->conduit_tx.room = room;
	fence_renew(&dp->plane.fence, UINT64_MAX);
	REQUIRE(fence_set(&dp->plane.fence, FP_ROLE_ACTIVE, 2) == 0);
	for (uint32_t i = 0; i < 2; i++) {
		frames[i] = (struct fp_frame){
			.data = data[i], .len = 60, .out_port = WAN, .fenced = fenced, .verdict = V_ROUTED
		};
		conduit_send(w, &frames[i]);
	}
	CHECK_EQ(30, frames[0].verdict, V_ROUTED);
	REQUIRE(fence_set(&dp->plane.fence, role, 2) == 0);
	fence_renew(&dp->plane.fence, lease_until_ns);
	conduit_flush(w);
	verdict = frames[0].verdict;
	CHECK_EQ(31, frames[1].verdict, verdict);
	CHECK_EQ(32, counter_read(&w->ports[WAN].tx_dropped), verdict == V_CONDUIT_FULL ? 0 : 2);
	CHECK_EQ(33, counter_read(&w->conduit.tx_calls), verdict == V_CONDUIT_FULL ? 2 : 0);
	CHECK_EQ(34, w->conduit_tx.n, 0);
	w->conduit_tx.room = NULL;
	fp_close(dp);
	return verdict;
}

/* V_CONDUIT_FULL: they were sent; here is no socket that takes them. */
static void check_what_was_collected_needs_the_role_still(void)
{
	CHECK_EQ(40, verdict_of_collected(true, FP_ROLE_ACTIVE, UINT64_MAX), V_CONDUIT_FULL);
	CHECK_EQ(41, verdict_of_collected(true, FP_ROLE_PASSIVE, UINT64_MAX), V_FENCED);
	CHECK_EQ(42, verdict_of_collected(true, FP_ROLE_ACTIVE, 1), V_LEASE);
	CHECK_EQ(43, verdict_of_collected(false, FP_ROLE_PASSIVE, UINT64_MAX), V_CONDUIT_FULL);
}

int main(void)
{
	check_what_was_collected_needs_the_role_still();
	check_heartbeats_do_not_wait();
	check_another_worker_leaves_them();
	return check_done("tx");
}
