/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_lane.c - the short way of batches and acknowledgements, between two data planes without threads
 *
 * Spec: B1, R20
 */
#include <errno.h>

#include "../clock.h"
#include "../cols.h"
#include "../lane.h"
#include "dataplane.h"

enum { RECORDS = 8, WINDOW = 4, WINDOW_BYTES = 100000, PAUSE_US = 1000 };

static uint64_t now_ns = 1000 * NS_PER_S;

static const struct fp_channel_cfg limits = {
	.batch_records = RECORDS,
	.window_batches = WINDOW,
	.window_bytes = WINDOW_BYTES,
	.pause_us = PAUSE_US,
	.frame_max = 65536,
};

static fp_dp *open_node(uint32_t role)
{
	struct fp_config cfg = frames_config(N_WORKERS, 4096);
	fp_dp *dp;

	if (role == FP_ROLE_PASSIVE) {
		cfg.origin = 2;
		cfg.pulse.node_index = 1;
		cfg.flow_id_base = 5000000;
	}
	cfg.sync.commit = FP_COMMIT_STRICT;
	cfg.sync.hold_ms = 20;
	cfg.sync.hold_frames = 64;
	dp = open_config(cfg);
	dp->test_now_ns = now_ns;
	REQUIRE(commit_fib(dp) == 0 && fp_set_role(dp, role, 2) == 0);
	REQUIRE(role == FP_ROLE_PASSIVE || fp_sync_track(dp, 1) == 0);
	return dp;
}

/* A packet of a session, at whichever worker it belongs to. */
static uint32_t step(fp_dp *dp, uint16_t sport, uint8_t proto, uint8_t tcp_flags)
{
	const struct spec spec = { .src = CLIENT,
				   .dst = SERVER,
				   .proto = proto,
				   .sport = sport,
				   .dport = 53,
				   .tcp_flags = tcp_flags };
	uint8_t data[FP_FRAME_MAX];
	uint32_t verdict = V_HANDOFF;

	for (uint32_t i = 0; i < N_WORKERS && verdict == V_HANDOFF; i++) {
		struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

		REQUIRE(fp_test_step(dp, i, now_ns, &f, 1) == 0);
		verdict = f.verdict;
	}
	return verdict;
}

static void births(fp_dp *dp, uint32_t n)
{
	static uint16_t sport = 1024;

	while (n--) {
		const uint32_t verdict = step(dp, sport++, IPPROTO_NUM_UDP, 0);

		REQUIRE(verdict == V_SNAT || verdict == V_HELD);
	}
}

static void resume(struct lane *l, enum fp_lane mode, uint64_t seq)
{
	const struct fp_lane_state in = {
		.mode = mode, .sent_seq = seq, .acked_seq = seq, .received_seq = seq, .imported_seq = seq
	};

	REQUIRE(lane_resume(l, &in, &(struct fp_sent){ .n = 0 }, 0) == 0);
}

/* A node and its lane, from batch @seq on. */
static fp_dp *open_lane(struct lane *l, enum fp_lane mode, uint64_t seq)
{
	fp_dp *dp = open_node(mode == FP_LANE_SEND ? FP_ROLE_ACTIVE : FP_ROLE_PASSIVE);

	lane_init(l, dp, &limits);
	resume(l, mode, seq);
	return dp;
}

static void shut(fp_dp *dp, struct lane *l)
{
	lane_free(l);
	fp_close(dp);
}

static void pause_over(void)
{
	now_ns += (uint64_t)PAUSE_US * 1000;
}

static uint32_t put_next(struct lane *l, const uint8_t **frame)
{
	pause_over();
	return lane_put(l, frame, now_ns);
}

/* Number of the batch, and how many records are in it. */
static uint64_t seq_of(const uint8_t *frame, uint32_t size, int *n)
{
	static struct fp_flow_rec recs[LEFT_MAX];
	struct fp_error err;
	uint64_t seq = 0;
	uint32_t at, unknown;

	REQUIRE(size > FRAME_HEAD && frame_len(frame, size, limits.frame_max) == size);
	at = wire_read_batch(frame + FRAME_HEAD, size - FRAME_HEAD, &seq);
	REQUIRE(at);
	*n = fp_sections_unpack(frame + FRAME_HEAD + at, size - FRAME_HEAD - at, recs, LEFT_MAX, &unknown,
				&err);
	return seq;
}

static uint64_t seq_now(struct lane *l, int *n)
{
	const uint8_t *frame = NULL;
	const uint32_t size = lane_put(l, &frame, now_ns);

	return seq_of(frame, size, n);
}

static uint64_t next_seq(struct lane *l, int *n)
{
	pause_over();
	return seq_now(l, n);
}

static bool acknowledge(struct lane *l, uint64_t seq)
{
	uint8_t frame[LANE_ACK_MAX];
	const uint32_t n = wire_put_ack(frame, seq);

	REQUIRE(n <= sizeof(frame) && frame_len(frame, n, 64) == n);
	return lane_take(l, frame + FRAME_HEAD, n - FRAME_HEAD, now_ns);
}

/* ---- sending ---- */

/* Whatever its number is, and as msgpack would have written it. */
static void check_numbers(void)
{
	static const uint64_t before[] = {
		0, 1, 126, 127, 254, 255, 65534, 65535, UINT32_MAX - 1, UINT32_MAX, UINT64_C(1) << 63
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(before); i++) {
		const uint8_t *frame;
		struct lane l;
		fp_dp *dp = open_lane(&l, FP_LANE_SEND, before[i]);
		uint32_t size;
		int n;

		births(dp, 3);
		size = put_next(&l, &frame);
		CHECK_EQ(1, seq_of(frame, size, &n), before[i] + 1);
		CHECK_EQ(2, n, 3);
		CHECK_EQ(3, l.st.sent_seq, before[i] + 1);
		CHECK_EQ(4, l.st.n_new, 1);
		CHECK_EQ(5, l.st.records_out, 3);
		CHECK_EQ(6, l.st.bytes_out, size);
		CHECK_EQ(7, l.st.said_ns, now_ns);
		CHECK_EQ(8, acknowledge(&l, before[i]), 0);
		CHECK_EQ(9, acknowledge(&l, before[i] + 1), 1);
		CHECK_EQ(10, l.n, 0);
		CHECK_EQ(11, l.window_bytes, 0);
		CHECK_EQ(12, l.st.n_new, 0);
		shut(dp, &l);
	}
}

/* Full batches follow each other at once; the last one waits for nothing, and what comes behind it for the pause. */
static void check_pause(void)
{
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 0);
	int n;

	births(dp, 2 * RECORDS + 1);
	CHECK_EQ(20, next_seq(&l, &n), 1);
	CHECK_EQ(21, n, RECORDS);
	CHECK_EQ(22, lane_wait_ns(&l, now_ns), 0);
	CHECK_EQ(23, seq_now(&l, &n), 2);
	CHECK_EQ(24, n, RECORDS);
	CHECK_EQ(25, seq_now(&l, &n), 3);
	CHECK_EQ(26, n, 1);
	births(dp, 1);
	CHECK_EQ(27, lane_put(&l, &frame, now_ns), 0);
	CHECK_EQ(28, lane_wait_ns(&l, now_ns + 400), PAUSE_US * 1000 - 400);
	CHECK_EQ(29, next_seq(&l, &n), 4);
	CHECK_EQ(30, n, 1);
	CHECK_EQ(31, acknowledge(&l, 4), 1);
	CHECK_EQ(32, atomic_load(&dp->plane.changes_to), -1); /* it looks by itself */
	CHECK_EQ(33, put_next(&l, &frame), 0);
	CHECK_EQ(34, atomic_load(&dp->plane.changes_to), dp->plane.changes_fd);
	CHECK(35, l.awaited && !l.due);
	CHECK_EQ(36, lane_wait_ns(&l, now_ns), UINT64_MAX);
	births(dp, 1);
	pause_over();
	CHECK_EQ(37, lane_put(&l, &frame, now_ns), 0); /* nobody has rung */
	lane_rung(&l);
	CHECK_EQ(38, next_seq(&l, &n), 5);
	CHECK_EQ(39, atomic_load(&dp->plane.changes_to), -1);
	shut(dp, &l);
}

static void check_window(void)
{
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 100);
	uint32_t sizes[WINDOW], n_put = 0;

	for (uint32_t i = 0; i < WINDOW; i++) {
		births(dp, 1 + i);
		sizes[i] = put_next(&l, &frame);
		CHECK(40, sizes[i] > 0);
	}
	births(dp, 1);
	CHECK_EQ(41, put_next(&l, &frame), 0);
	CHECK_EQ(42, lane_wait_ns(&l, now_ns), UINT64_MAX); /* an acknowledgement will come, or control */
	CHECK_EQ(43, l.window_bytes, sizes[0] + sizes[1] + sizes[2] + sizes[3]);
	CHECK_EQ(44, acknowledge(&l, 102), 1);
	CHECK_EQ(45, l.window_bytes, sizes[2] + sizes[3]);
	CHECK_EQ(46, l.n, 2);
	CHECK_EQ(47, lane_wait_ns(&l, now_ns), 0);
	CHECK(48, put_next(&l, &frame) > 0);
	CHECK_EQ(49, acknowledge(&l, 105), 1);
	l.window_max = 3 * sizes[0]; /* by bytes: what crosses the bound is the last one */
	for (uint32_t i = 0; i < WINDOW; i++) {
		births(dp, 1);
		n_put += put_next(&l, &frame) > 0;
	}
	CHECK_EQ(50, n_put, 3);
	for (uint32_t i = 0; i < 200; i++) { /* round and round the ring */
		births(dp, 1);
		CHECK_EQ(51, acknowledge(&l, l.st.sent_seq), 1);
		CHECK(52, put_next(&l, &frame) > 0);
	}
	CHECK_EQ(53, l.st.sent_seq, 308);
	shut(dp, &l);
}

/* What is no plain acknowledgement of what is on its way is left to control, and nothing has happened. */
static void check_bad_acks(void)
{
	static const uint64_t bad[] = { 0, 9, 10, 13, 1000, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX };
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 10);
	uint8_t odd[LANE_ACK_MAX + 1];
	uint32_t size;

	for (uint32_t i = 0; i < 2; i++) {
		births(dp, 1);
		CHECK(60, put_next(&l, &frame) > 0);
	}
	for (uint32_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_EQ(61, acknowledge(&l, bad[i]), 0);
	size = wire_put_ack(odd, 11) - FRAME_HEAD;
	for (uint32_t n = 0; n < size; n++) { /* cut, each in its own memory */
		uint8_t *cut = malloc(n ? n : 1);

		REQUIRE(cut);
		memcpy(cut, odd + FRAME_HEAD, n);
		CHECK_EQ(62, lane_take(&l, cut, n, now_ns), 0);
		CHECK_EQ(63, lane_is_mine(&l, cut, n), 0);
		free(cut);
	}
	odd[FRAME_HEAD + size] = 0;
	CHECK_EQ(64, lane_take(&l, odd + FRAME_HEAD, size + 1, now_ns), 0); /* one byte more */
	for (uint32_t first = 0x80; first <= UINT8_MAX; first++) { /* of another type, or not whole */
		odd[FRAME_HEAD + size - 1] = (uint8_t)first;
		CHECK_EQ(65, lane_take(&l, odd + FRAME_HEAD, size, now_ns), 0);
	}
	CHECK_EQ(66, l.n, 2);
	CHECK_EQ(67, l.st.acked_seq, 10);
	CHECK_EQ(68, l.st.bytes_in, 0);
	CHECK_EQ(69, l.st.heard_ns, 0);
	CHECK_EQ(70, acknowledge(&l, 12), 1);
	CHECK_EQ(71, l.st.bytes_in, size + FRAME_HEAD);
	shut(dp, &l);
}

static uint64_t pending(const fp_dp *dp)
{
	return counter_read(&dp->plane.workers[0].core.commit.pending) +
	       counter_read(&dp->plane.workers[1].core.commit.pending);
}

/* Each worker hears of its own last event, as the batches that are acknowledged have it. */
static void check_marks(void)
{
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 0);
	uint64_t marks[2][N_WORKERS], tombs;

	REQUIRE(fp_commit_set(dp, 1) == 0);
	births(dp, 6);
	CHECK_EQ(80, pending(dp), 6);
	CHECK(81, put_next(&l, &frame) > 0);
	births(dp, 6);
	CHECK(82, put_next(&l, &frame) > 0);
	for (uint32_t i = 0; i < 2; i++)
		memcpy(marks[i], l.window[l.head + i].sent.marks, sizeof(marks[i]));
	CHECK_EQ(83, pending(dp), 12);
	CHECK_EQ(84, acknowledge(&l, 1), 1);
	CHECK_EQ(85, pending(dp), 6);
	for (uint32_t i = 0; i < N_WORKERS; i++) {
		CHECK(86, marks[0][i] > 0 && marks[1][i] > marks[0][i]);
		CHECK_EQ(87, atomic_load(&dp->plane.workers[i].acked), marks[0][i]);
	}
	CHECK_EQ(88, acknowledge(&l, 2), 1);
	CHECK_EQ(89, pending(dp), 0);
	for (uint32_t i = 0; i < N_WORKERS; i++)
		CHECK_EQ(90, atomic_load(&dp->plane.workers[i].acked), marks[1][i]);
	now_ns += 1000 * NS_PER_S; /* they end: the peer is told, and their tombstones wait for it */
	for (uint32_t i = 0; i < N_WORKERS; i++)
		REQUIRE(fp_test_expire(dp, i, now_ns) >= 0);
	lane_rung(&l);
	while (put_next(&l, &frame))
		;
	tombs = dp->plane.workers[0].core.changes.n_tombs + dp->plane.workers[1].core.changes.n_tombs;
	CHECK_EQ(91, tombs, 12);
	CHECK_EQ(92, acknowledge(&l, l.st.sent_seq), 1);
	tombs = dp->plane.workers[0].core.changes.n_tombs + dp->plane.workers[1].core.changes.n_tombs;
	CHECK_EQ(93, tombs, 0);
	shut(dp, &l);
}

/* ---- what is left to control ---- */

static uint32_t drain_all(fp_dp *dp, struct fp_flow_rec *recs, uint32_t cap, uint64_t *lost)
{
	uint32_t n = 0;

	*lost = 0;
	for (uint32_t round = 0; round < 2;
	     round++) /* what is left is in the lane's order of workers, not in ours */
		for (uint32_t i = 0; i < N_WORKERS; i++) {
			uint64_t its;
			const int got = fp_events_drain(dp, i, recs + n, cap - n, &its);

			REQUIRE(got >= 0);
			for (int k = 1; k < got; k++)
				CHECK(100, recs[n + (uint32_t)k].ev_seq > recs[n + (uint32_t)k - 1].ev_seq);
			n += (uint32_t)got;
			*lost |= its;
		}
	return n;
}

/* A marker: all that was taken with it is control's, in its order, and before what comes behind. */
static void check_marker(void)
{
	static struct fp_flow_rec recs[64];
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 0);
	uint32_t n, n_markers = 0, n_open = 0;
	uint64_t lost;

	REQUIRE(fp_sweep_start(dp, 1) == 0);
	births(dp, 3);
	CHECK_EQ(110, put_next(&l, &frame), 0);
	CHECK_EQ(111, l.asks, FP_ASK_DRAIN);
	CHECK_EQ(112, l.st.sent_seq, 0);
	CHECK(113, dp->left.n > 0);
	births(dp, 2); /* behind it, while control is not there yet */
	CHECK_EQ(114, put_next(&l, &frame), 0);
	CHECK_EQ(115, acknowledge(&l, 1), 0);
	CHECK_EQ(116, fp_events_drain(dp, dp_left_worker(&dp->left) ^ 1, recs, 64, &lost), 0);
	CHECK_EQ(117, fp_events_drain(dp, dp_left_worker(&dp->left), recs, 1, &lost), 1);
	CHECK_EQ(118, lost, 0);
	n_markers = recs[0].op >= FP_OP_SWEEP;
	n_open = recs[0].op == FP_OP_OPEN;
	resume(&l, FP_LANE_SEND, 0); /* control has not taken all of it: it is asked again */
	CHECK_EQ(119, put_next(&l, &frame), 0);
	CHECK_EQ(120, l.asks, FP_ASK_DRAIN);
	n = drain_all(dp, recs, 64, &lost);
	n += drain_all(dp, recs + n, 64 - n, &lost);
	for (uint32_t i = 0; i < n; i++) {
		n_markers += recs[i].op >= FP_OP_SWEEP;
		n_open += recs[i].op == FP_OP_OPEN;
	}
	CHECK_EQ(121, n_markers, 2 * N_WORKERS);
	CHECK(122, n_open >= 5); /* a sweep may tell some of them again */
	CHECK_EQ(123, dp->left.n, 0);
	resume(&l, FP_LANE_SEND, 0);
	births(dp, 1);
	CHECK(124, put_next(&l, &frame) > 0);
	shut(dp, &l);
}

static void lose(fp_dp *dp, uint64_t shards)
{
	counter_set(&dp->plane.workers[0].core.stat.lost_shards, shards);
}

/* Lost shards: what was told before leaves first; then control looks, and finds out which. */
static void check_lost(void)
{
	static struct fp_flow_rec recs[64];
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 0);
	uint64_t lost;

	births(dp, 3);
	lose(dp, 4);
	CHECK(130, put_next(&l, &frame) > 0);
	CHECK_EQ(131, l.asks, FP_ASK_DRAIN);
	CHECK_EQ(132, lane_wait_ns(&l, now_ns), UINT64_MAX);
	CHECK_EQ(133, drain_all(dp, recs, 64, &lost), 0);
	CHECK_EQ(134, lost, 4);
	resume(&l, FP_LANE_SEND, 1);
	CHECK_EQ(135, put_next(&l, &frame), 0); /* still, and nothing else */
	CHECK_EQ(136, l.asks, FP_ASK_DRAIN);
	lose(dp, 0);
	resume(&l, FP_LANE_SEND, 1);
	births(dp, 2 * RECORDS);
	lose(dp, 4);
	CHECK(137, put_next(&l, &frame) > 0); /* it is full: more comes before */
	CHECK_EQ(138, l.asks, 0);
	while (lane_put(&l, &frame, now_ns))
		;
	CHECK_EQ(139, l.asks, FP_ASK_DRAIN);
	CHECK_EQ(140, l.st.records_out, 2 * RECORDS);
	shut(dp, &l);
}

/* The lane goes while something is left: control finds it, and who tracks anew is rid of it. */
static void check_left_behind(void)
{
	static struct fp_flow_rec recs[64];
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 0);
	uint64_t lost;
	uint32_t left;

	REQUIRE(fp_sweep_start(dp, 1) == 0);
	births(dp, 1);
	CHECK_EQ(150, put_next(&l, &frame), 0);
	left = dp->left.n;
	CHECK(151, left >= 1 + N_WORKERS);
	lane_free(&l);
	CHECK(152, drain_all(dp, recs, 64, &lost) >= left);
	lane_init(&l, dp, &limits);
	resume(&l, FP_LANE_SEND, 0);
	REQUIRE(fp_sweep_start(dp, 1) == 0);
	CHECK_EQ(153, put_next(&l, &frame), 0);
	CHECK(154, dp->left.n > 0);
	REQUIRE(fp_sync_track(dp, 0) == 0);
	CHECK_EQ(155, dp->left.n, 0);
	CHECK_EQ(156, drain_all(dp, recs, 64, &lost), 0);
	REQUIRE(fp_sync_track(dp, 1) == 0);
	resume(&l, FP_LANE_SEND, 0);
	births(dp, 1);
	CHECK(157, put_next(&l, &frame) > 0);
	shut(dp, &l);
}

/* Whom a change wakes: one of both, never the one who has gone. */
static void check_awaited(void)
{
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 0);
	const _Atomic int *to = &dp->plane.changes_to;
	struct fp_lane_state st;

	CHECK_EQ(160, atomic_load(to), -1); /* it is about to look */
	CHECK_EQ(161, put_next(&l, &frame), 0);
	CHECK_EQ(162, atomic_load(to), dp->plane.changes_fd);
	lane_hold(&l, &st);
	REQUIRE(fp_events_await(dp, 1) == 0); /* control has looked meanwhile */
	resume(&l, FP_LANE_SEND, 0);
	births(dp, 1);
	CHECK(163, put_next(&l, &frame) > 0); /* nobody has to ring for it */
	CHECK_EQ(164, acknowledge(&l, 1), 1);
	CHECK_EQ(165, put_next(&l, &frame), 0);
	CHECK_EQ(166, atomic_load(to), dp->plane.changes_fd);
	lane_hold(&l, &st);
	resume(&l, FP_LANE_OFF, 1);
	CHECK_EQ(167, atomic_load(to), -1);
	CHECK(168, !l.awaited);
	REQUIRE(fp_events_await(dp, 1) == 0);
	resume(&l, FP_LANE_RECEIVE, 1);
	CHECK_EQ(169, atomic_load(to), dp->plane.events_fd);
	resume(&l, FP_LANE_SEND, 1);
	CHECK_EQ(170, put_next(&l, &frame), 0);
	lane_hold(&l, &st);
	REQUIRE(fp_events_await(dp, 1) == 0);
	lane_free(&l);
	CHECK_EQ(171, atomic_load(to), dp->plane.events_fd); /* control's word stands */
	shut(dp, &l);
}

/* ---- holding ---- */

static void check_hold(void)
{
	static uint8_t copy[WINDOW_BYTES];
	const uint8_t *frame;
	struct lane l;
	fp_dp *dp = open_lane(&l, FP_LANE_SEND, 50);
	struct fp_sent sent[3];
	struct fp_lane_state st;
	uint32_t sizes[3];
	int n;

	for (uint32_t i = 0; i < 3; i++) {
		births(dp, 1 + i);
		sizes[i] = put_next(&l, &frame);
	}
	CHECK_EQ(180, lane_sent(&l, &sent[0], copy, sizeof(copy)), -EINVAL); /* not while it runs */
	lane_hold(&l, &st);
	CHECK_EQ(181, st.mode, FP_LANE_SEND);
	CHECK_EQ(182, st.n_new, 3);
	CHECK_EQ(183, st.sent_seq, 53);
	births(dp, 1);
	CHECK_EQ(184, put_next(&l, &frame), 0);
	CHECK_EQ(185, acknowledge(&l, 51), 0);
	CHECK_EQ(186, lane_wait_ns(&l, now_ns), UINT64_MAX);
	CHECK_EQ(187, lane_resume(&l, &st, NULL, 0), -EINVAL); /* control has not seen all of them */
	CHECK_EQ(188, l.st.mode, FP_LANE_OFF);
	CHECK_EQ(189, l.n, 0);

	resume(&l, FP_LANE_SEND, 50);
	for (uint32_t i = 0; i < 3; i++) {
		births(dp, 1 + i);
		sizes[i] = put_next(&l, &frame);
	}
	lane_hold(&l, &st);
	CHECK_EQ(190, lane_sent(&l, &sent[0], copy, sizes[0] - 1), -ENOBUFS);
	for (uint32_t i = 0; i < 3; i++) {
		CHECK_EQ(191, lane_sent(&l, &sent[i], copy, sizeof(copy)), sizes[i]);
		CHECK_EQ(192, seq_of(copy, sizes[i], &n), 51 + i);
		CHECK_EQ(193, sent[i].n, n);
		CHECK_EQ(194, sent[i].size, sizes[i]);
	}
	CHECK_EQ(195, lane_sent(&l, &sent[0], copy, sizeof(copy)), -EINVAL);
	REQUIRE(lane_resume(&l, &st, NULL, 0) == 0); /* as it was */
	CHECK_EQ(196, l.n, 3);
	CHECK_EQ(197, l.st.n_new, 0);
	CHECK_EQ(198, l.st.records_out, 0);
	CHECK_EQ(199, acknowledge(&l, 51), 1);
	births(dp, 1);
	CHECK_EQ(200, next_seq(&l, &n), 54);
	lane_hold(&l, &st);
	CHECK_EQ(201, st.n_new, 1); /* the last one only */
	CHECK_EQ(202, lane_sent(&l, &sent[0], copy, sizeof(copy)), l.window[(l.head + 2) % l.cap].sent.size);
	CHECK_EQ(203, seq_of(copy, sent[0].size, &n), 54);
	st.sent_seq++; /* ... but control has sent something itself */
	CHECK_EQ(204, lane_resume(&l, &st, NULL, 0), -EINVAL);
	st = (struct fp_lane_state){ .mode = FP_LANE_SEND, .sent_seq = 55, .acked_seq = 52 };
	CHECK_EQ(205, lane_resume(&l, &st, sent, 2), -EINVAL);
	CHECK_EQ(206, l.st.mode, FP_LANE_OFF);
	CHECK_EQ(207, lane_resume(&l, &st, sent, 3), 0);
	CHECK_EQ(208, l.window_bytes, sent[0].size + sent[1].size + sent[2].size);
	CHECK_EQ(209, acknowledge(&l, 56), 0);
	CHECK_EQ(210, acknowledge(&l, 55), 1);
	CHECK_EQ(211, l.window_bytes, 0);
	st = (struct fp_lane_state){ .mode = FP_LANE_SEND, .sent_seq = 1, .acked_seq = 2 };
	CHECK_EQ(212, lane_resume(&l, &st, sent, 0), -EINVAL);
	CHECK_EQ(213, lane_resume(&l, &st, sent, 3), -EINVAL);
	st = (struct fp_lane_state){ .mode = 77 };
	CHECK_EQ(214, lane_resume(&l, &st, NULL, 0), 0);
	CHECK_EQ(215, l.st.mode, FP_LANE_OFF);
	shut(dp, &l);
}

/* ---- receiving ---- */

/* Both nodes, and what the one has told the other. */
struct two {
	fp_dp *active, *passive;
	struct lane send, receive;
};

static struct two *open_two(uint64_t seq)
{
	struct two *t = calloc(1, sizeof(*t));

	REQUIRE(t);
	t->active = open_lane(&t->send, FP_LANE_SEND, seq);
	t->passive = open_lane(&t->receive, FP_LANE_RECEIVE, seq);
	return t;
}

static void shut_two(struct two *t)
{
	shut(t->active, &t->send);
	shut(t->passive, &t->receive);
	free(t);
}

static bool receive(struct lane *l, const uint8_t *frame, uint32_t size)
{
	return lane_take(l, frame + FRAME_HEAD, size - FRAME_HEAD, now_ns);
}

static uint64_t flows(const fp_dp *dp)
{
	struct fp_sync_stats st;
	uint64_t sum = 0;

	for (uint32_t i = 0; i < N_WORKERS; i++) {
		REQUIRE(fp_sync_stats_read(dp, i, &st) == 0);
		sum += dp->plane.workers[i].core.table.n_fresh;
	}
	return sum;
}

static void check_receive(void)
{
	struct two *t = open_two(126);
	const uint8_t *frame[3];
	uint8_t ack[LANE_ACK_MAX];
	uint32_t size[3], n;
	uint64_t seq;

	for (uint32_t i = 0; i < 3; i++) {
		births(t->active, 2);
		size[i] = put_next(&t->send, &frame[i]);
	}
	CHECK_EQ(220, lane_ack(&t->receive, ack, now_ns), 0);
	CHECK_EQ(221, receive(&t->receive, frame[1], size[1]), 0); /* a gap */
	CHECK_EQ(222, receive(&t->receive, frame[0], size[0]), 1);
	CHECK_EQ(223, flows(t->passive), 2);
	CHECK_EQ(224, receive(&t->receive, frame[0], size[0]), 0); /* again */
	for (n = 1; n < 12; n++) /* cut: it is the next one, but nothing of it is used */
		CHECK_EQ(225, receive(&t->receive, frame[1], size[1] - n), 0);
	CHECK_EQ(226, lane_is_mine(&t->receive, frame[1] + FRAME_HEAD, size[1] - FRAME_HEAD - 1), 1);
	CHECK_EQ(227, flows(t->passive), 2);
	CHECK_EQ(228, t->receive.st.received_seq, 127);
	CHECK_EQ(229, receive(&t->receive, frame[1], size[1]), 1);
	CHECK_EQ(230, t->receive.st.records_in, 4);
	CHECK_EQ(231, t->receive.st.bytes_in, size[0] + size[1]);
	n = lane_ack(&t->receive, ack, now_ns); /* one for both */
	CHECK_EQ(232, frame_len(ack, n, 64), n);
	CHECK(233, wire_read_ack(ack + FRAME_HEAD, n - FRAME_HEAD, &seq) && seq == 128);
	CHECK_EQ(234, lane_ack(&t->receive, ack, now_ns), 0);
	CHECK_EQ(235, t->receive.st.imported_seq, 128);
	CHECK_EQ(236, lane_is_mine(&t->receive, ack + FRAME_HEAD, n - FRAME_HEAD), 0);
	CHECK_EQ(237, receive(&t->receive, ack, n), 0);
	CHECK_EQ(238, receive(&t->send, ack, n), 1);
	CHECK_EQ(239, t->send.n, 1);
	resume(&t->receive, FP_LANE_OFF, 128);
	CHECK_EQ(240, receive(&t->receive, frame[2], size[2]), 0);
	CHECK_EQ(241, lane_is_mine(&t->receive, frame[2] + FRAME_HEAD, size[2] - FRAME_HEAD), 0);
	REQUIRE(fp_set_role(t->passive, FP_ROLE_ACTIVE, 4) == 0);
	resume(&t->receive, FP_LANE_RECEIVE, 128);
	CHECK_EQ(242, receive(&t->receive, frame[2], size[2]),
		 0); /* who forwards takes nothing: control says so */
	CHECK_EQ(243, t->receive.st.received_seq, 128);
	CHECK_EQ(244, t->receive.asks, 0);
	shut_two(t);
}

/* Some records were not taken: control hears which, and what was whole before is acknowledged. */
static void check_part(void)
{
	static struct fp_flow_rec recs[RECORDS];
	static uint8_t out[8192];
	struct two *t = open_two(0);
	struct lane *l = &t->receive;
	const uint8_t *frame;
	uint8_t ack[LANE_ACK_MAX];
	uint32_t size, n, used;
	uint64_t seq, lost;
	struct fp_lane_state st;

	births(t->active, 2);
	size = put_next(&t->send, &frame);
	CHECK_EQ(250, receive(l, frame, size), 1);
	births(t->active, 4);
	n = drain_all(t->active, recs, RECORDS, &lost);
	REQUIRE(n == 4);
	recs[1].external = addr_from_v4(SERVER); /* no pool of ours */
	REQUIRE(fp_sections_pack(recs, n, &t->send.scratch, out + LANE_HEAD_MAX, sizeof(out) - LANE_HEAD_MAX,
				 &used) == (int)n);
	size = wire_put_batch(out, 2, used);
	memmove(out + size, out + LANE_HEAD_MAX, used);
	CHECK_EQ(251, receive(l, out, size + used), 1);
	CHECK_EQ(252, l->asks, FP_ASK_IMPORTED);
	CHECK_EQ(253, receive(l, out, size + used), 0);
	CHECK_EQ(254, l->st.part_n, 4);
	CHECK_EQ(255, l->st.part_taken, 3);
	CHECK_EQ(256, l->rec[1].fate, FP_ABSURD);
	CHECK_EQ(257, l->rec[0].fate, FP_TAKEN);
	CHECK_EQ(258, l->st.records_in, 2); /* control counts the others */
	n = lane_ack(l, ack, now_ns);
	CHECK(259, wire_read_ack(ack + FRAME_HEAD, n - FRAME_HEAD, &seq) && seq == 1);
	CHECK_EQ(260, lane_ack(l, ack, now_ns), 0);
	lane_hold(l, &st);
	CHECK_EQ(261, st.received_seq, 2);
	CHECK_EQ(262, st.imported_seq, 1);
	resume(l, FP_LANE_RECEIVE, 2);
	CHECK_EQ(263, l->st.part_n, 0);
	CHECK_EQ(264, l->asks, 0);
	shut_two(t);
}

/* Without a data plane, without a mode: nothing is the lane's. */
static void check_off(void)
{
	const struct fp_lane_state send = { .mode = FP_LANE_SEND }, receives = { .mode = FP_LANE_RECEIVE };
	const uint8_t *frame;
	struct lane l;
	uint8_t ack[LANE_ACK_MAX];

	lane_init(&l, NULL, &limits);
	CHECK_EQ(270, lane_resume(&l, &send, NULL, 0), -EINVAL);
	CHECK_EQ(271, lane_resume(&l, &receives, NULL, 0), -EINVAL);
	CHECK_EQ(272, l.st.mode, FP_LANE_OFF);
	CHECK_EQ(273, put_next(&l, &frame), 0);
	CHECK_EQ(274, acknowledge(&l, 1), 0);
	CHECK_EQ(275, lane_ack(&l, ack, now_ns), 0);
	CHECK_EQ(276, lane_wait_ns(&l, now_ns), UINT64_MAX);
	lane_free(&l);
}

int main(void)
{
	check_numbers();
	check_pause();
	check_window();
	check_bad_acks();
	check_marks();
	check_marker();
	check_lost();
	check_left_behind();
	check_awaited();
	check_hold();
	check_receive();
	check_part();
	check_off();
	return check_done("lane");
}
