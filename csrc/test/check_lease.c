/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_lease.c - the lease with a clock in hand, two nodes of which one stops, and a thread that looks meanwhile.
 * Spec: B2
 */
#include "../clock.h"
#include "../fence_look.h"
#include "../pulse.h"
#include "check.h"
#include "frames.h"

#define MS(n) ((uint64_t)(n) * NS_PER_MS)
#define LEASE MS(15)

/* ---- the lease alone ---- */

static struct lease held(uint64_t now_ns)
{
	struct lease l = { .ns = LEASE };

	lease_pass(&l, true, now_ns);
	CHECK_EQ(1, lease_until(&l, true), now_ns + LEASE);
	return l;
}

static void check_renewed_in_time(void)
{
	struct lease l = held(MS(100));

	CHECK_EQ(10, lease_deadline(&l), MS(100) + LEASE / 2);
	lease_pass(&l, true, MS(115)); /* just in time */
	CHECK(11, !lease_probe(&l, MS(115)));
	CHECK_EQ(12, lease_until(&l, true), MS(130));
	CHECK_EQ(13, counter_read(&l.asked), 0);
}

static void check_too_late_is_asked(void)
{
	struct lease l = held(MS(100));

	lease_pass(&l, true, MS(115) + 1);
	CHECK_EQ(20, lease_until(&l, true), 0);
	CHECK_EQ(21, l.stall_ns, LEASE + 1);
	CHECK(22, lease_probe(&l, MS(115) + 1) && !lease_probe(&l, MS(117)));
	lease_pass(&l, true, MS(118));
	CHECK(23, lease_probe(&l, MS(118)));
	lease_answer(&l, 1, MS(115), MS(118)); /* to something older */
	CHECK_EQ(24, lease_until(&l, true), 0);
	lease_answer(&l, 1, MS(118), MS(118));
	CHECK_EQ(25, lease_until(&l, true), MS(133));
	CHECK_EQ(26, counter_read(&l.asked), 1);
	CHECK_EQ(27, counter_read(&l.unanswered), 0);
}

/* An answer to what was asked before the second stop says nothing of what happened in it. */
static void check_asked_anew(void)
{
	struct lease l = held(MS(100));

	lease_pass(&l, true, MS(1000));
	lease_pass(&l, true, MS(2000));
	lease_answer(&l, 1, MS(1000), MS(2000));
	CHECK_EQ(30, lease_until(&l, true), 0);
	CHECK(31, lease_probe(&l, MS(2000)));
	lease_answer(&l, 1, MS(2000), MS(2000));
	CHECK_EQ(32, lease_until(&l, true), MS(2015));
	CHECK_EQ(33, counter_read(&l.asked), 1);
}

static void check_nobody_answers(void)
{
	struct lease l = held(MS(100));

	lease_pass(&l, true, MS(200));
	lease_pass(&l, true, MS(209));
	CHECK_EQ(40, lease_until(&l, false), 0);
	lease_pass(&l, true, MS(210));
	CHECK_EQ(41, lease_until(&l, true), 0); /* it is heard: have patience */
	CHECK_EQ(42, lease_until(&l, false), MS(225));
	CHECK_EQ(43, counter_read(&l.unanswered), 1);
	lease_pass(&l, true, MS(300));
	for (uint64_t t = 310; t < 400; t += 10) {
		lease_pass(&l, true, MS(t));
		CHECK_EQ(44, lease_until(&l, true), 0);
	}
	lease_pass(&l, true, MS(400));
	CHECK_EQ(45, lease_until(&l, true), MS(415));
}

static void check_nobody_to_ask(void)
{
	struct lease l = held(MS(100)), none = { 0 };

	lease_pass(&l, false, MS(200));
	CHECK_EQ(50, lease_until(&l, false), MS(215));
	lease_pass(&none, true, MS(100));
	lease_pass(&none, true, MS(200));
	CHECK_EQ(51, lease_until(&none, true), UINT64_MAX);
	CHECK_EQ(52, lease_deadline(&none), UINT64_MAX);
}

/* ---- two nodes, a step a millisecond ---- */

enum { QUEUE = 64, A = 0, B = 1, PATH = 2 };

struct datagram {
	uint8_t bytes[HB_LEN];
};

struct node {
	struct fp_config cfg;
	struct fence fence;
	struct doorbell tx_bell;
	struct pulse pulse;
	int events_fd;
	bool stopped;
	uint64_t next_ns;
	struct datagram in[QUEUE];
	uint32_t n_in;
};

static struct fp_config config(uint32_t index)
{
	struct fp_config cfg = frames_config(1, 64);

	cfg.pulse = (struct fp_pulse_cfg){
		.interval_ms = 50,
		.dead_after = 3,
		.udp_port = 47850,
		.pair_id = 7,
		.node_index = index,
		.incarnation = 100 + index,
		.confirm_ms = 15,
		.lease_ms = 15,
		.mac_key = { 1, 2, 3 },
	};
	memcpy(cfg.ports[PATH - 1].peer_mac, mac_peer, ETH_ALEN);
	return cfg;
}

static struct node *node_open(struct fp_config cfg)
{
	struct node *n = aligned_alloc(CACHE_LINE, (sizeof(*n) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
	struct fp_error err = { "" };

	REQUIRE(n != NULL);
	memset(n, 0, sizeof(*n));
	n->cfg = cfg;
	n->events_fd = eventfd(0, EFD_NONBLOCK);
	REQUIRE(n->events_fd >= 0 && doorbell_init(&n->tx_bell) == 0);
	REQUIRE(pulse_open(&n->pulse, &n->cfg, &n->fence, &n->tx_bell, n->events_fd, &err) == 0);
	return n;
}

static void node_close(struct node *n)
{
	pulse_close(&n->pulse);
	doorbell_free(&n->tx_bell);
	close(n->events_fd);
	free(n);
}

static void send_to(struct node *from, struct node *to, uint64_t now_ns)
{
	REQUIRE(to->n_in < QUEUE);
	pulse_compose(&from->pulse, PATH, now_ns, to->in[to->n_in++].bytes);
	from->pulse.paths[PATH].tx_seq++;
}

/* As pulse_run() does it. */
static void node_pass(struct node *n, struct node *peer, uint64_t now_ns)
{
	if (n->stopped)
		return;
	pulse_pass(&n->pulse, now_ns);
	for (uint32_t i = 0; i < n->n_in; i++)
		pulse_receive(&n->pulse, PATH, n->in[i].bytes, HB_LEN, now_ns);
	n->n_in = 0;
	if (pulse_answer_due(&n->pulse, PATH, now_ns))
		send_to(n, peer, now_ns);
	pulse_tick(&n->pulse, now_ns);
	if (pulse_probe(&n->pulse, now_ns) || now_ns >= n->next_ns) {
		send_to(n, peer, now_ns);
		n->next_ns = now_ns + MS(50);
	}
}

static void run(struct node **n, uint64_t from_ms, uint64_t to_ms)
{
	for (uint64_t t = from_ms; t < to_ms; t++) {
		node_pass(n[A], n[B], MS(t));
		node_pass(n[B], n[A], MS(t));
	}
}

static bool speaks(const struct node *n, uint64_t at_ms)
{
	return fence_is_active(&n->fence) && MS(at_ms) < fence_lease(&n->fence);
}

static void open_pair(struct node **n)
{
	n[A] = node_open(config(A));
	n[B] = node_open(config(B));
	run(n, 1000, 1300);
	CHECK(100, n[A]->pulse.paths[PATH].alive && n[B]->pulse.paths[PATH].alive);
	CHECK_EQ(101, fence_set(&n[A]->fence, FP_ROLE_ACTIVE, 4), 0);
	CHECK(102, speaks(n[A], 1300));
}

static void close_pair(struct node **n)
{
	node_close(n[A]);
	node_close(n[B]);
}

/* It wakes before anybody missed it, asks, and goes on. */
static void check_a_short_stop(void)
{
	struct node *n[2];

	open_pair(n);
	n[A]->stopped = true;
	run(n, 1300, 1340);
	CHECK(110, !speaks(n[A], 1315));
	n[A]->stopped = false;
	node_pass(n[A], n[B], MS(1340));
	CHECK(111, !speaks(n[A], 1340));
	run(n, 1341, 1345);
	CHECK(112, speaks(n[A], 1345));
	CHECK_EQ(113, counter_read(&n[A]->pulse.lease.asked), 1);
	close_pair(n);
}

/* Spec: B2: the node that was taken for dead never speaks, and learns who reigns from the answer. */
static void check_a_long_stop(void)
{
	struct node *n[2];

	open_pair(n);
	n[A]->stopped = true;
	run(n, 1300, 1600);
	CHECK(120, !n[B]->pulse.paths[PATH].alive);
	CHECK_EQ(121, fence_set(&n[B]->fence, FP_ROLE_ACTIVE, 5), 0);
	run(n, 1600, 2000);
	n[A]->stopped = false;
	for (uint64_t t = 2000; t < 2100; t++) {
		run(n, t, t + 1);
		CHECK(122, !speaks(n[A], t));
	}
	CHECK(123, !fence_is_active(&n[A]->fence));
	CHECK(124, speaks(n[B], 2100));
	close_pair(n);
}

/* It wakes after it was judged dead, but before the other one reigns: that one does not say "I do not reign". */
static void check_woken_between_judgement_and_reign(void)
{
	struct node *n[2];
	uint64_t t = 1300;

	open_pair(n);
	n[A]->stopped = true;
	for (; n[B]->pulse.paths[PATH].alive; t++)
		run(n, t, t + 1);
	n[A]->stopped = false;
	for (uint64_t reigns = t + 20; t < reigns; t++) {
		run(n, t, t + 1);
		CHECK(130, !speaks(n[A], t));
	}
	CHECK_EQ(131, fence_set(&n[B]->fence, FP_ROLE_ACTIVE, 5), 0);
	for (uint64_t end = t + 100; t < end; t++) {
		run(n, t, t + 1);
		CHECK(132, !speaks(n[A], t));
	}
	CHECK(133, !fence_is_active(&n[A]->fence));
	close_pair(n);
}

/* It had no reason to: then it says so, a little later. */
static void check_judged_and_not_followed(void)
{
	struct node *n[2];
	uint64_t t = 1300;

	open_pair(n);
	n[A]->stopped = true;
	for (; n[B]->pulse.paths[PATH].alive; t++)
		run(n, t, t + 1);
	n[A]->stopped = false;
	run(n, t, t + 60);
	CHECK(140, speaks(n[A], t + 60));
	CHECK_EQ(141, counter_read(&n[A]->pulse.lease.unanswered), 0);
	close_pair(n);
}

/* Both were away, as when the machine below them was: both ask, both answer. */
static void check_both_stop(void)
{
	struct node *n[2];

	open_pair(n);
	n[A]->stopped = n[B]->stopped = true;
	run(n, 1300, 1900);
	n[A]->stopped = n[B]->stopped = false;
	run(n, 1900, 1910);
	CHECK(150, speaks(n[A], 1910));
	close_pair(n);
}

/* Spec: B2: the lease is over before the other one can begin, however little it waits. */
static void check_lease_ends_before_a_reign_begins(void)
{
	struct fp_config cfg = config(A);
	struct node *n;

	cfg.pulse.interval_ms = 5;
	n = node_open(cfg);
	CHECK_EQ(160, n->pulse.lease.ns, MS(10));
	node_close(n);
	cfg = config(A);
	cfg.pulse.lease_ms = 40;
	n = node_open(cfg);
	CHECK_EQ(161, n->pulse.lease.ns, MS(15)); /* confirm_ms */
	node_close(n);
	cfg.pulse.confirm_ms = 0;
	n = node_open(cfg);
	CHECK_EQ(162, n->pulse.lease.ns, MS(40));
	node_close(n);
}

/* ---- threads ---- */

static void *look(void *arg)
{
	const struct fence *fence = arg;
	uint64_t n_open = 0;

	for (uint32_t i = 0; i < 100000; i++)
		n_open += fence_look(fence) == FENCE_OPEN;
	return (void *)(uintptr_t)
		n_open; // NOLINT(performance-no-int-to-ptr): a number, never used as an address
}

static void check_looks_while_it_is_renewed(void)
{
	struct fp_config cfg = config(A);
	struct fp_error err = { "" };
	pthread_t thread;
	struct node *n;

	cfg.pulse.interval_ms = 20;
	n = node_open(cfg);
	CHECK_EQ(170, fence_set(&n->fence, FP_ROLE_ACTIVE, 4), 0);
	CHECK(171, fence_look(&n->fence) == FENCE_OPEN);
	REQUIRE(pulse_start(&n->pulse, &err) == 0);
	REQUIRE(pthread_create(&thread, NULL, look, &n->fence) == 0);
	pthread_join(thread, NULL);
	pulse_stop(&n->pulse);
	CHECK(172, fence_look(&n->fence) == FENCE_OPEN); /* nobody renews it, and nobody needs to */
	fence_renew(&n->fence, 1);
	CHECK(173, fence_look(&n->fence) == FENCE_EXPIRED);
	CHECK_EQ(174, fence_set(&n->fence, FP_ROLE_PASSIVE, 4), 0);
	CHECK(175, fence_look(&n->fence) == FENCE_CLOSED);
	node_close(n);
}

int main(void)
{
	check_renewed_in_time();
	check_too_late_is_asked();
	check_asked_anew();
	check_nobody_answers();
	check_nobody_to_ask();
	check_a_short_stop();
	check_a_long_stop();
	check_woken_between_judgement_and_reign();
	check_judged_and_not_followed();
	check_both_stop();
	check_lease_ends_before_a_reign_begins();
	check_looks_while_it_is_renewed();
	return check_done("lease");
}
