/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_progress.c - a part of a node hangs: who notices, who gives up the role, and what is said of it. Spec: R13, B2
 */
#include "../pulse.h"
#include "check.h"
#include "frames.h"

#define MS(n) ((uint64_t)(n) * NS_PER_MS)

enum { PATH = 2, CONTROL_MS = 1000, WORKER_MS = 400, N_WORKERS = 2 };

static void check_moves_late_hangs(void)
{
	struct progress p = { 0 };

	CHECK_EQ(1, progress_look(&p, 7, MS(100), MS(5000)), PROGRESS_MOVES);
	CHECK_EQ(2, progress_look(&p, 7, MS(100), MS(5049)), PROGRESS_MOVES);
	CHECK_EQ(3, progress_look(&p, 7, MS(100), MS(5050)), PROGRESS_LATE);
	CHECK_EQ(4, progress_look(&p, 7, MS(100), MS(5099)), PROGRESS_LATE);
	CHECK_EQ(5, progress_look(&p, 7, MS(100), MS(5100)), PROGRESS_HANGS);
	CHECK_EQ(6, progress_look(&p, 7, 0, MS(9000)), PROGRESS_MOVES);
	CHECK_EQ(7, progress_look(&p, 8, MS(100), MS(9001)), PROGRESS_MOVES);
	CHECK_EQ(8, progress_look(&p, 8, MS(100), MS(9101)), PROGRESS_HANGS);
}

static void check_time_that_nobody_looked(void)
{
	struct progress p = { 0 };

	progress_give_back(&p, 0, MS(5000)); /* the first look ever */
	progress_look(&p, 7, MS(500), MS(5000));
	progress_give_back(&p, MS(5000), MS(5100)); /* in time */
	CHECK_EQ(10, p.since_ns, MS(5000));
	progress_give_back(&p, MS(5100), MS(9100));
	CHECK_EQ(11, p.since_ns, MS(8900));
	CHECK_EQ(12, progress_look(&p, 7, MS(500), MS(9100)), PROGRESS_MOVES);
}

/* ---- a pulse without its thread ---- */

struct bench {
	struct fp_config cfg;
	struct fence fence;
	struct doorbell bells[N_WORKERS];
	struct pulse pulse;
	int events_fd;
	uint64_t now_ns, seq;
	bool control_moves, worker_moves[N_WORKERS];
	uint32_t peer_role, peer_flags;
};

static struct bench *bench_open(void)
{
	struct bench *b = aligned_alloc(CACHE_LINE, (sizeof(*b) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
	struct fp_error err = { "" };

	REQUIRE(b != NULL);
	memset(b, 0, sizeof(*b));
	b->cfg = frames_config(N_WORKERS, 64);
	b->cfg.pulse = (struct fp_pulse_cfg){
		.interval_ms = 50,
		.dead_after = 3,
		.udp_port = 47850,
		.pair_id = 7,
		.incarnation = 100,
		.control_dead_ms = CONTROL_MS,
		.worker_dead_ms = WORKER_MS,
		.mac_key = { 1, 2, 3 },
	};
	memcpy(b->cfg.ports[PATH - 1].peer_mac, mac_peer, ETH_ALEN);
	b->events_fd = eventfd(0, EFD_NONBLOCK);
	REQUIRE(b->events_fd >= 0);
	for (uint32_t i = 0; i < N_WORKERS; i++)
		REQUIRE(doorbell_init(&b->bells[i]) == 0);
	REQUIRE(pulse_open(&b->pulse, &b->cfg, &b->fence, &b->bells[0], b->events_fd, &err) == 0);
	for (uint32_t i = 0; i < N_WORKERS; i++) {
		pulse_watch_worker(&b->pulse, i, &b->bells[i]);
		b->worker_moves[i] = true;
	}
	b->control_moves = true;
	b->peer_role = FP_ROLE_PASSIVE;
	b->peer_flags = FP_HB_READY;
	b->now_ns = MS(1000);
	pulse_say(&b->pulse, FP_HB_READY | FP_HB_WAN_UP, 150);
	return b;
}

static void bench_close(struct bench *b)
{
	pulse_close(&b->pulse);
	for (uint32_t i = 0; i < N_WORKERS; i++)
		doorbell_free(&b->bells[i]);
	close(b->events_fd);
	free(b);
}

static void hear_peer(struct bench *b)
{
	const struct heartbeat hb = {
		.node_index = 1,
		.role = (uint8_t)b->peer_role,
		.flags = (uint8_t)b->peer_flags,
		.pair_id = 7,
		.interval_ms = 50,
		.incarnation = 55,
		.term = 3,
		.seq = ++b->seq,
		.t_ns = b->now_ns,
		.echo = 100,
		.heard = b->now_ns,
	};
	uint8_t payload[HB_LEN];

	heartbeat_encode(&hb, b->cfg.pulse.mac_key, PATH, payload);
	CHECK_EQ(20, pulse_receive(&b->pulse, PATH, payload, HB_LEN, b->now_ns), 0);
}

/* Steps of 10 ms, in which everybody moves who does, and the peer is heard. */
static void run(struct bench *b, uint32_t ms)
{
	for (uint32_t t = 0; t < ms; t += 10) {
		b->now_ns += MS(10);
		if (b->control_moves)
			atomic_fetch_add(&b->pulse.control_beat, 1);
		for (uint32_t i = 0; i < N_WORKERS; i++) {
			if (b->worker_moves[i])
				pulse_moves(&b->pulse, i);
		}
		hear_peer(b);
		pulse_tick(&b->pulse, b->now_ns);
	}
}

static uint32_t flags_said(struct bench *b)
{
	const struct heartbeat_keys keys = { .key = { { 1, 2, 3 } }, .n = 1 };
	uint8_t payload[HB_LEN];
	struct heartbeat hb;

	pulse_compose(&b->pulse, PATH, b->now_ns, payload);
	CHECK(21, heartbeat_decode(payload, HB_LEN, &keys, PATH, &hb));
	return hb.flags;
}

/* The next report of a hang, or one of nothing. */
static struct fp_pulse_event next_hang(struct bench *b)
{
	const struct fp_pulse_event *slot = ring_peek_one(&b->pulse.events);
	struct fp_pulse_event ev = { 0 };

	for (; slot && ev.kind != FP_PULSE_HUNG; slot = ring_peek_one(&b->pulse.events)) {
		ev = *slot;
		ring_release(&b->pulse.events, 1);
	}
	return ev.kind == FP_PULSE_HUNG ? ev : (struct fp_pulse_event){ 0 };
}

static struct bench *bench_active(void)
{
	struct bench *b = bench_open();

	run(b, 3000);
	CHECK_EQ(22, fence_set(&b->fence, FP_ROLE_ACTIVE, 4), 0);
	run(b, 3000);
	CHECK(23, fence_is_active(&b->fence));
	CHECK_EQ(24, flags_said(b), FP_HB_READY | FP_HB_WAN_UP);
	CHECK_EQ(25, next_hang(b).hung, 0);
	return b;
}

static void check_control_hangs_beside_a_ready_peer(void)
{
	struct bench *b = bench_active();
	const uint32_t bursts = atomic_load(&b->pulse.bursts_wanted);
	const struct fp_pulse_event *slot;
	struct fp_lease_stats stats;

	b->control_moves = false;
	run(b, CONTROL_MS - 10);
	CHECK(30, fence_is_active(&b->fence));
	run(b, 10);
	CHECK_EQ(31, fence_read(&b->fence), fence_word(FP_ROLE_PASSIVE, 4));
	CHECK_EQ(32, flags_said(b), FP_HB_WAN_UP | FP_HB_HUNG);
	CHECK_EQ(33, atomic_load(&b->pulse.bursts_wanted), bursts + 1); /* the peer hears at once */
	pulse_lease_read(&b->pulse, &stats);
	CHECK_EQ(34, stats.hung, FP_HUNG_CONTROL);
	b->peer_role = FP_ROLE_ACTIVE; /* in the term that we have */
	run(b, 1000);
	CHECK_EQ(35, next_hang(b).hung, FP_HUNG_CONTROL | FP_HUNG_YIELDED);
	CHECK_EQ(36, next_hang(b).hung, 0); /* told once */
	/* It wakes: the fence is for control to set. */
	b->control_moves = true;
	run(b, 100);
	CHECK_EQ(37, flags_said(b), FP_HB_READY | FP_HB_WAN_UP);
	slot = ring_peek_one(&b->pulse.events);
	CHECK(39, slot && slot->kind == FP_PULSE_HUNG && slot->hung == 0); /* that is told, too */
	CHECK_EQ(38, fence_read(&b->fence), fence_word(FP_ROLE_PASSIVE, 4));
	bench_close(b);
}

/* Half a node is better than none; but once there is a whole one, that reigns. */
static void check_nobody_could_take_over(void)
{
	struct bench *b = bench_active();

	b->peer_flags = 0;
	b->control_moves = false;
	run(b, 5000);
	CHECK(40, fence_is_active(&b->fence));
	CHECK_EQ(41, next_hang(b).hung, FP_HUNG_CONTROL);
	CHECK(42, flags_said(b) & FP_HB_HUNG);
	b->peer_flags = FP_HB_READY | FP_HB_HUNG; /* it is no better */
	run(b, 100);
	CHECK(43, fence_is_active(&b->fence));
	b->peer_flags = FP_HB_READY;
	run(b, 10);
	CHECK(44, !fence_is_active(&b->fence));
	CHECK_EQ(45, next_hang(b).hung, FP_HUNG_CONTROL | FP_HUNG_YIELDED);
	bench_close(b);
}

static void check_a_silent_peer_takes_nothing_over(void)
{
	struct bench *b = bench_active();

	for (uint32_t i = 0; i < 200; i++) {
		b->now_ns += MS(10);
		pulse_tick(&b->pulse, b->now_ns);
	}
	CHECK(50, fence_is_active(&b->fence));
	CHECK_EQ(51, next_hang(b).hung, FP_HUNG_WORKER);
	bench_close(b);
}

static void check_a_worker_hangs(void)
{
	struct bench *b = bench_active();
	struct fp_pulse_event ev;

	b->worker_moves[1] = false;
	doorbell_lie_down(&b->bells[1]);
	run(b, WORKER_MS / 2 - 10);
	CHECK(60, doorbell_is_asleep(&b->bells[1]));
	run(b, 10);
	CHECK(61, !doorbell_is_asleep(&b->bells[1])); /* it may only sleep */
	CHECK(62, fence_is_active(&b->fence));
	run(b, WORKER_MS / 2);
	CHECK(63, !fence_is_active(&b->fence));
	ev = next_hang(b);
	CHECK_EQ(64, ev.hung, FP_HUNG_WORKER | FP_HUNG_YIELDED);
	CHECK_EQ(65, ev.worker, 1);
	CHECK_EQ(66, pulse_hung_workers(&b->pulse), 1 << 1);
	b->worker_moves[1] = true;
	run(b, 10);
	CHECK_EQ(67, pulse_hung_workers(&b->pulse), 0);
	bench_close(b);
}

/* Spec: B2: who was stopped with everybody else does not hang; lease.h has what he has to do. */
static void check_everybody_was_stopped(void)
{
	struct bench *b = bench_active();

	b->now_ns += MS(60000);
	b->control_moves = b->worker_moves[0] = b->worker_moves[1] = false; /* the thread looks first */
	run(b, 100);
	CHECK_EQ(70, next_hang(b).hung, 0);
	b->control_moves = b->worker_moves[0] = b->worker_moves[1] = true;
	run(b, 2000);
	CHECK_EQ(71, next_hang(b).hung, 0);
	CHECK(72, fence_is_active(&b->fence));
	bench_close(b);
}

static void check_control_that_has_not_begun(void)
{
	struct bench *b = bench_open();

	b->control_moves = false;
	run(b, 5000);
	CHECK_EQ(80, flags_said(b), FP_HB_READY | FP_HB_WAN_UP);
	b->pulse.next_send_ns = UINT64_MAX;
	CHECK_EQ(81, pulse_next_deadline(&b->pulse), b->now_ns + PROGRESS_LOOK_NS / 2);
	bench_close(b);
}

int main(void)
{
	check_moves_late_hangs();
	check_time_that_nobody_looked();
	check_control_hangs_beside_a_ready_peer();
	check_nobody_could_take_over();
	check_a_silent_peer_takes_nothing_over();
	check_a_worker_hangs();
	check_everybody_was_stopped();
	check_control_that_has_not_begun();
	return check_done("progress");
}
