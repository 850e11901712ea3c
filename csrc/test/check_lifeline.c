/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_lifeline.c - two ends of a life line on the loopback, strangers, and a process that is killed. Spec: R13, B2
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../clock.h"
#include "../lifeline.h"
#include "../pulse.h"
#include "check.h"

enum { PAIR = 7, PORT = 47853, A_LIFE = 100, B_LIFE = 200 };

/* Of the loopback. Not frames.h: it has other things of the same names as <netinet/in.h>. */
#define LOOPBACK(n) be32_of(0x7f000000 | (n))
#define A_ADDR      LOOPBACK(31)
#define B_ADDR      LOOPBACK(32)

static const struct heartbeat_keys the_keys = { .key = { { 1, 2, 3 } }, .n = 1 };
static const struct heartbeat_keys other_keys = { .key = { { 3, 2, 1 } }, .n = 1 };
static const struct heartbeat_keys both_keys = { .key = { { 3, 2, 1 }, { 1, 2, 3 } }, .n = 2 };

/* One end, and what its node would know. */
struct end {
	struct fp_pulse_cfg cfg;
	struct lifeline l;
	const struct heartbeat_keys *keys;
	bool heard;
	uint64_t peer, dead, late_ns;
};

static void end_open(struct end *e, uint32_t node_index, uint64_t incarnation)
{
	memset(e, 0, sizeof(*e));
	e->cfg = (struct fp_pulse_cfg){
		.udp_port = PORT,
		.pair_id = PAIR,
		.node_index = node_index,
		.incarnation = incarnation,
		.xc_addr = addr_from_v4(node_index ? B_ADDR : A_ADDR),
		.xc_peer_addr = addr_from_v4(node_index ? A_ADDR : B_ADDR),
	};
	e->keys = &the_keys;
	e->heard = true;
	REQUIRE(lifeline_open(&e->l, &e->cfg) == 0);
}

static void end_pass(struct end *e)
{
	const uint64_t dead = lifeline_pass(&e->l, e->keys, e->heard, e->peer, clock_now() + e->late_ns);

	if (dead)
		e->dead = dead;
}

typedef bool (*condition)(const struct end *a, const struct end *b);

static bool both_stand(const struct end *a, const struct end *b)
{
	return counter_read(&a->l.stands) && counter_read(&b->l.stands);
}

static bool none_stands(const struct end *a, const struct end *b)
{
	return !counter_read(&a->l.stands) && !counter_read(&b->l.stands);
}

static bool a_falls(const struct end *a, const struct end *b)
{
	(void)b;
	return !counter_read(&a->l.stands);
}

static bool b_falls(const struct end *a, const struct end *b)
{
	(void)a;
	return !counter_read(&b->l.stands);
}

static bool a_refuses(const struct end *a, const struct end *b)
{
	(void)b;
	return counter_read(&a->l.bad) > 0;
}

/* Both threads take their turns until something is so. */
static bool pump(struct end *a, struct end *b, condition is_so)
{
	const uint64_t deadline = clock_now() + 5 * NS_PER_S;

	while (!is_so(a, b)) {
		struct pollfd fds[] = { { .fd = a->l.epfd, .events = POLLIN },
					{ .fd = b->l.epfd, .events = POLLIN } };

		if (clock_now() > deadline)
			return false;
		poll(fds, 2, 1);
		if (a->l.epfd >= 0)
			end_pass(a);
		if (b->l.epfd >= 0)
			end_pass(b);
	}
	return true;
}

static void check_a_death(void)
{
	struct end a, b;

	end_open(&a, 0, A_LIFE);
	end_open(&b, 1, B_LIFE);
	b.heard = false; /* nobody is called who is not heard */
	end_pass(&b);
	CHECK_EQ(1, lifeline_deadline(&b.l, false, 0), UINT64_MAX);
	b.heard = true;
	CHECK(2, pump(&a, &b, both_stand));
	CHECK_EQ(3, a.l.incarnation, B_LIFE);
	CHECK_EQ(4, b.l.incarnation, A_LIFE);
	CHECK_EQ(5, lifeline_deadline(&b.l, true, A_LIFE), UINT64_MAX);
	lifeline_close(&b.l); /* as its kernel does it */
	CHECK(6, pump(&a, &b, a_falls));
	CHECK_EQ(7, a.dead, B_LIFE);
	/* The next one; then the other way round. */
	end_open(&b, 1, B_LIFE + 1);
	CHECK(8, pump(&a, &b, both_stand));
	CHECK_EQ(9, a.l.incarnation, B_LIFE + 1);
	lifeline_close(&a.l);
	CHECK(10, pump(&a, &b, b_falls));
	CHECK_EQ(11, b.dead, A_LIFE);
	CHECK_EQ(12, counter_read(&b.l.bad), 0);
	lifeline_close(&b.l);
}

/* Who goes on purpose says so, and his line proves nothing. */
static void check_goodbye(void)
{
	struct end a, b;

	end_open(&a, 0, A_LIFE);
	end_open(&b, 1, B_LIFE);
	CHECK(20, pump(&a, &b, both_stand));
	b.heard = false;
	lifeline_bye(&b.l);
	CHECK(21, pump(&a, &b, none_stands));
	b.heard = true; /* and it is made anew */
	CHECK(22, pump(&a, &b, both_stand));
	lifeline_bye(&a.l);
	CHECK(23, pump(&a, &b, both_stand));
	CHECK_EQ(24, a.dead | b.dead, 0);
	CHECK_EQ(25, counter_read(&a.l.made), 3);
	CHECK_EQ(26, counter_read(&a.l.bad) + counter_read(&b.l.bad), 0);
	lifeline_close(&a.l);
	lifeline_close(&b.l);
}

/* What became of an older incarnation says nothing of the one that lives. */
static void check_incarnations(void)
{
	struct end a, b, young;

	end_open(&a, 0, A_LIFE);
	end_open(&b, 1, B_LIFE);
	CHECK(30, pump(&a, &b, both_stand));
	/* Another process under the same name; the old one has not been closed yet. */
	end_open(&young, 1, B_LIFE + 1);
	CHECK(31, pump(&a, &young, both_stand));
	CHECK_EQ(32, a.l.incarnation, B_LIFE + 1);
	CHECK(33, pump(&a, &b, b_falls));
	CHECK_EQ(34, b.dead, 0); /* it was told goodbye */
	b.late_ns = LIFELINE_RETRY_NS;
	CHECK(35, pump(&a, &b, a_refuses)); /* it calls again, in vain */
	CHECK_EQ(36, a.l.incarnation, B_LIFE + 1);
	CHECK(37, counter_read(&a.l.stands) && !counter_read(&b.l.stands));
	lifeline_close(&b.l);
	/* Heartbeats know of a younger one still. */
	a.peer = B_LIFE + 2;
	CHECK_EQ(38, lifeline_deadline(&a.l, true, a.peer), 0);
	young.heard = false;
	CHECK(39, pump(&a, &young, none_stands));
	CHECK_EQ(40, a.dead | young.dead, 0);
	lifeline_close(&a.l);
	lifeline_close(&young.l);
}

/* The set is changed on one node first: what the other signs with is believed as well. */
static void check_keys(void)
{
	struct end a, b;

	end_open(&a, 0, A_LIFE);
	end_open(&b, 1, B_LIFE);
	a.keys = &both_keys;
	b.keys = &both_keys;
	CHECK(50, pump(&a, &b, both_stand));
	lifeline_bye(&b.l);
	b.keys = &other_keys;
	CHECK(51, pump(&a, &b, none_stands) && pump(&a, &b, both_stand));
	lifeline_bye(&b.l);
	a.keys = &the_keys;
	CHECK(52, pump(&a, &b, a_refuses));
	CHECK_EQ(53, counter_read(&a.l.stands), 0);
	CHECK_EQ(54, a.dead | b.dead, 0);
	lifeline_close(&a.l);
	lifeline_close(&b.l);
}

/* ---- strangers ---- */

static int stranger(be32 addr)
{
	const struct fp_addr self = addr_from_v4(addr), peer = addr_from_v4(A_ADDR);
	const int fd = socket(AF_INET, SOCK_STREAM, 0), ttl = HB_TTL;
	struct sockaddr_storage ss;
	socklen_t len = xc_sockaddr(&self, 0, &ss);

	REQUIRE(fd >= 0 && setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)) == 0);
	REQUIRE(bind(fd, (struct sockaddr *)&ss, len) == 0);
	len = xc_sockaddr(&peer, PORT, &ss);
	REQUIRE(connect(fd, (struct sockaddr *)&ss, len) == 0);
	return fd;
}

static bool is_closed(struct end *a, int fd)
{
	const uint64_t deadline = clock_now() + 5 * NS_PER_S;
	uint8_t bytes[64];

	while (clock_now() < deadline) {
		const ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return true;
		end_pass(a);
	}
	return false;
}

static void check_strangers(void)
{
	static const uint8_t garbage[64] = "GET / HTTP/1.1";
	uint8_t hello[LIFELINE_HELLO + LIFELINE_PROOF] = "FXLL\1\1";
	uint64_t bad = 0;
	struct end a, b;
	int fd;

	end_open(&a, 0, A_LIFE);
	end_open(&b, 1, B_LIFE);
	CHECK(60, pump(&a, &b, both_stand));
	fd = stranger(LOOPBACK(33)); /* not the peer's address */
	CHECK(61, is_closed(&a, fd));
	CHECK_EQ(62, counter_read(&a.l.bad), ++bad);
	close(fd);
	fd = stranger(B_ADDR);
	REQUIRE(send(fd, garbage, sizeof(garbage), 0) == sizeof(garbage));
	CHECK(63, is_closed(&a, fd));
	CHECK_EQ(64, counter_read(&a.l.bad), ++bad);
	close(fd);
	/* A hello as it should be, and a proof that is none. */
	fd = stranger(B_ADDR);
	hello[11] = PAIR;
	hello[19] = B_LIFE;
	REQUIRE(send(fd, hello, sizeof(hello), 0) == sizeof(hello));
	CHECK(65, is_closed(&a, fd));
	CHECK_EQ(66, counter_read(&a.l.bad), ++bad);
	close(fd);
	/* One that says nothing has a second. */
	fd = stranger(B_ADDR);
	end_pass(&a);
	a.late_ns = LIFELINE_INTRODUCE_NS;
	CHECK(67, is_closed(&a, fd));
	CHECK_EQ(68, counter_read(&a.l.bad), ++bad);
	a.late_ns = 0;
	close(fd);
	/* Each byte of a hello, wrong. */
	for (uint32_t i = 0; i < 12; i++) {
		if (i == 6 || i == 7)
			continue; /* for versions to come */
		fd = stranger(B_ADDR);
		hello[i] ^= 0x40;
		REQUIRE(send(fd, hello, LIFELINE_HELLO, 0) == LIFELINE_HELLO);
		CHECK(69, is_closed(&a, fd));
		hello[i] ^= 0x40;
		CHECK_EQ(70, counter_read(&a.l.bad), ++bad);
		close(fd);
	}
	/* The line has not noticed any of it. */
	CHECK(71, both_stand(&a, &b) && !a.dead && !b.dead);
	CHECK_EQ(72, counter_read(&a.l.made), 1);
	lifeline_close(&b.l);
	CHECK(73, pump(&a, &b, a_falls));
	CHECK_EQ(74, a.dead, B_LIFE);
	lifeline_close(&a.l);
}

/* Many at once: who has waited longest goes, and the peer gets in. */
static void check_a_crowd(void)
{
	int fds[3 * LIFELINE_GUESTS];
	struct end a, b;

	end_open(&a, 0, A_LIFE);
	end_open(&b, 1, B_LIFE);
	for (uint32_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = stranger(B_ADDR);
		end_pass(&a);
	}
	CHECK_EQ(80, counter_read(&a.l.bad), ARRAY_SIZE(fds) - LIFELINE_GUESTS);
	CHECK(81, pump(&a, &b, both_stand));
	for (uint32_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	lifeline_close(&a.l);
	lifeline_close(&b.l);
}

/* What was recorded of a line that stood fits no other one. */
static void check_replay(void)
{
	uint8_t said[LIFELINE_HELLO + LIFELINE_PROOF];
	struct end a, b;
	uint64_t bad;
	int fd;

	end_open(&a, 0, A_LIFE);
	end_open(&b, 1, B_LIFE);
	/* Up to the moment at which a has heard all of it, but for its own answer. */
	while (!counter_read(&a.l.stands)) {
		for (uint32_t i = 0; i < LIFELINE_GUESTS; i++) {
			if (a.l.guests[i].state != GUEST_NONE)
				memcpy(said, a.l.guests[i].said, LIFELINE_HELLO);
			if (b.l.guests[i].state == GUEST_PROOF) {
				/* as b has said it */
				const struct guest *g = &b.l.guests[i];
				uint8_t both[2 * LIFELINE_HELLO];
				uint64_t mac;

				memcpy(both, g->own, LIFELINE_HELLO);
				memcpy(both + LIFELINE_HELLO, g->said, LIFELINE_HELLO);
				mac = siphash24(the_keys.key[0], both, sizeof(both));
				for (uint32_t k = 0; k < LIFELINE_PROOF; k++)
					said[LIFELINE_HELLO + k] = (uint8_t)(mac >> (56 - 8 * k));
				memcpy(said, g->own, LIFELINE_HELLO);
			}
		}
		end_pass(&b);
		end_pass(&a);
	}
	CHECK(90, pump(&a, &b, both_stand));
	bad = counter_read(&a.l.bad);
	fd = stranger(B_ADDR);
	REQUIRE(send(fd, said, sizeof(said), 0) == sizeof(said));
	CHECK(91, is_closed(&a, fd));
	CHECK_EQ(92, counter_read(&a.l.bad), bad + 1);
	CHECK_EQ(93, counter_read(&a.l.made), 1);
	CHECK(94, both_stand(&a, &b));
	close(fd);
	lifeline_close(&a.l);
	lifeline_close(&b.l);
}

/* ---- two processes, each with its pulse thread ---- */

struct node {
	struct fp_config cfg;
	struct fence fence;
	struct doorbell bell;
	struct pulse pulse;
};

static struct node *node_start(uint32_t node_index)
{
	struct node *n = aligned_alloc(CACHE_LINE, (sizeof(*n) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
	struct fp_error err = { "" };

	REQUIRE(n != NULL);
	memset(n, 0, sizeof(*n));
	n->cfg.n_workers = 1;
	n->cfg.pulse = (struct fp_pulse_cfg){
		.interval_ms = 50,
		.dead_after = 100, /* silence is not what is waited for */
		.udp_port = PORT,
		.pair_id = PAIR,
		.node_index = node_index,
		.incarnation = node_index ? B_LIFE : A_LIFE,
		.mac_key = { 1 },
		.xc_addr = addr_from_v4(node_index ? B_ADDR : A_ADDR),
		.xc_peer_addr = addr_from_v4(node_index ? A_ADDR : B_ADDR),
	};
	REQUIRE(doorbell_init(&n->bell) == 0);
	REQUIRE(pulse_open(&n->pulse, &n->cfg, &n->fence, &n->bell, eventfd(0, EFD_NONBLOCK), &err) == 0);
	REQUIRE(pulse_start(&n->pulse, &err) == 0);
	return n;
}

static bool wait_kind(struct node *n, uint32_t kind, struct fp_pulse_event *out)
{
	const uint64_t deadline = clock_now() + 4 * NS_PER_S; /* less than the silence */

	while (clock_now() < deadline) {
		const struct fp_pulse_event *slot = ring_peek_one(&n->pulse.events);

		if (!slot) {
			poll(NULL, 0, 1);
			continue;
		}
		*out = *slot;
		ring_release(&n->pulse.events, 1);
		if (out->kind == kind)
			return true;
	}
	return false;
}

static void check_a_killed_process(void)
{
	const uint64_t deadline = clock_now() + 10 * NS_PER_S;
	struct fp_pulse_event ev = { 0 };
	struct node *a;
	pid_t b;

	b = fork();
	REQUIRE(b >= 0);
	if (b == 0) {
		node_start(1);
		for (;;)
			pause();
	}
	a = node_start(0);
	CHECK(104, wait_kind(a, FP_PULSE_PEER, &ev)); /* by heartbeats */
	while (!counter_read(&a->pulse.line.stands) && clock_now() < deadline)
		poll(NULL, 0, 1);
	CHECK(100, counter_read(&a->pulse.line.stands));
	kill(b, SIGKILL);
	CHECK(101, wait_kind(a, FP_PULSE_DIED, &ev));
	CHECK_EQ(102, ev.peer.incarnation, B_LIFE);
	CHECK_EQ(103, waitpid(b, NULL, 0), b);
	pulse_stop(&a->pulse);
	close(a->pulse.events_fd);
	pulse_close(&a->pulse);
	doorbell_free(&a->bell);
	free(a);
}

int main(void)
{
	check_a_killed_process();
	check_a_death();
	check_goodbye();
	check_incarnations();
	check_keys();
	check_strangers();
	check_a_crowd();
	check_replay();
	return check_done("lifeline");
}
