/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lifeline.c - the life line: who may hold it, and what its end says
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "lifeline.h"

/* Newer than the C library's headers in places. */
#ifndef IPV6_MINHOPCOUNT
#define IPV6_MINHOPCOUNT 73
#endif

static const uint8_t magic[4] = { 'F', 'X', 'L', 'L' };

/* ---- what is said ---- */

static void put_be(uint8_t *p, uint64_t v, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static uint64_t get_be(const uint8_t *p, uint32_t n)
{
	uint64_t v = 0;

	for (uint32_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static bool make_hello(const struct lifeline *l, uint8_t *out)
{
	memset(out, 0, LIFELINE_HELLO);
	memcpy(out, magic, sizeof(magic));
	out[4] = LIFELINE_VERSION;
	out[5] = (uint8_t)l->cfg->node_index;
	put_be(out + 8, l->cfg->pair_id, 4);
	put_be(out + 12, l->cfg->incarnation, 8);
	return getrandom(out + 20, 8, 0) == 8;
}

/* Is it the peer's, by what it says of itself? */
static bool is_hello(const struct lifeline *l, const uint8_t *hello)
{
	return memcmp(hello, magic, sizeof(magic)) == 0 && hello[4] == LIFELINE_VERSION &&
	       hello[5] == 1 - l->cfg->node_index && get_be(hello + 8, 4) == l->cfg->pair_id &&
	       get_be(hello + 12, 8) != 0;
}

static uint64_t incarnation_of(const uint8_t *hello)
{
	return get_be(hello + 12, 8);
}

static uint64_t mac_of(const uint8_t *key, const uint8_t *own, const uint8_t *other)
{
	uint8_t both[2 * LIFELINE_HELLO];

	memcpy(both, own, LIFELINE_HELLO);
	memcpy(both + LIFELINE_HELLO, other, LIFELINE_HELLO);
	return siphash24(key, both, sizeof(both));
}

static bool is_proof(const struct heartbeat_keys *keys, const struct guest *g)
{
	const uint64_t proof = get_be(g->said + LIFELINE_HELLO, LIFELINE_PROOF);

	for (uint32_t i = 0; i < keys->n; i++) {
		if (mac_of(keys->key[i], g->said, g->own) == proof)
			return true;
	}
	return false;
}

/* Of a fresh connection whatever we say fits its buffer. */
static bool say(int fd, const uint8_t *what, uint32_t len)
{
	return send(fd, what, len, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)len;
}

static bool say_proof(const struct heartbeat_keys *keys, const struct guest *g)
{
	uint8_t proof[LIFELINE_PROOF];

	put_be(proof, mac_of(keys->key[0], g->own, g->said), sizeof(proof));
	return say(g->fd, proof, sizeof(proof));
}

static void say_bye(int fd)
{
	const uint8_t bye = LIFELINE_BYE;

	say(fd, &bye,
	    1); /* if it cannot be said, the connection is broken, and its end will not be heard either */
}

/* ---- sockets ---- */

static int option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

/* A socket whose segments come from the next node, and go no further. Return: it, or -errno. */
static int open_socket(const struct fp_pulse_cfg *cfg, uint16_t port)
{
	const bool v4 = addr_is_v4(&cfg->xc_addr);
	const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
	const int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			      IPPROTO_TCP);
	struct sockaddr_storage self;
	const socklen_t len = xc_sockaddr(&cfg->xc_addr, port, &self);
	int rc;

	if (fd < 0)
		return -errno;
	rc = option(fd, SOL_SOCKET, SO_REUSEADDR, 1); /* our last life's connections may linger */
	if (rc == 0)
		rc = option(fd, level, v4 ? IP_TTL : IPV6_UNICAST_HOPS, HB_TTL);
	if (rc == 0)
		rc = option(fd, level, v4 ? IP_MINTTL : IPV6_MINHOPCOUNT, HB_TTL);
	if (rc == 0)
		rc = option(fd, level, v4 ? IP_TOS : IPV6_TCLASS, HB_DSCP_TOS);
	if (rc == 0)
		rc = option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (rc == 0 && bind(fd, (const struct sockaddr *)&self, len))
		rc = -errno;
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

static int watch(const struct lifeline *l, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	return epoll_ctl(l->epfd, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

/* ---- guests ---- */

/* Before we have said our proof nobody can believe in the connection: it may go without a word. */
static void dismiss(struct guest *g)
{
	if (g->calls && g->state == GUEST_PROOF)
		say_bye(g->fd);
	close(g->fd); /* and it leaves the epoll set */
	*g = (struct guest){ 0 };
}

static void refuse(struct lifeline *l, struct guest *g)
{
	counter_add(&l->bad, 1);
	dismiss(g);
}

/* Room for one more; who has waited longest goes. */
static struct guest *make_room(struct lifeline *l)
{
	struct guest *oldest = &l->guests[0];

	for (uint32_t i = 0; i < LIFELINE_GUESTS; i++) {
		struct guest *g = &l->guests[i];

		if (g->state == GUEST_NONE)
			return g;
		if (g->until_ns < oldest->until_ns)
			oldest = g;
	}
	refuse(l, oldest);
	return oldest;
}

static void take_in(struct lifeline *l, int fd, bool calls, uint64_t now_ns)
{
	struct guest *g = make_room(l);

	*g = (struct guest){
		.fd = fd,
		.state = calls ? GUEST_CONNECTS : GUEST_HELLO,
		.calls = calls,
		.until_ns = now_ns + LIFELINE_INTRODUCE_NS,
	};
	/* EPOLLOUT tells that it is connected, or cannot be; then EPOLLIN alone is of interest. */
	if (!make_hello(l, g->own) || watch(l, fd, calls ? EPOLLOUT : EPOLLIN))
		dismiss(g);
}

static void accept_guests(struct lifeline *l, uint64_t now_ns)
{
	for (uint32_t i = 0; i < LIFELINE_GUESTS; i++) {
		struct sockaddr_storage from;
		socklen_t len = sizeof(from);
		const int fd = accept4(l->listen_fd, (struct sockaddr *)&from, &len,
				       SOCK_NONBLOCK | SOCK_CLOEXEC); /* it inherits the options */

		if (fd < 0)
			return;
		if (xc_is_from(&from, &l->cfg->xc_peer_addr)) {
			take_in(l, fd, false, now_ns);
			continue;
		}
		counter_add(&l->bad, 1);
		close(fd);
	}
}

static void call(struct lifeline *l, uint64_t now_ns)
{
	struct sockaddr_storage peer;
	const socklen_t len = xc_sockaddr(&l->cfg->xc_peer_addr, l->cfg->udp_port, &peer);
	const int fd = open_socket(l->cfg, 0);

	l->call_ns = now_ns + LIFELINE_RETRY_NS;
	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)&peer, len) && errno != EINPROGRESS) {
		close(fd);
		return;
	}
	take_in(l, fd, true, now_ns);
}

static bool is_connected(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0;
}

/* The call has been answered, or not: who does not listen is of an older version, or still starting. */
static void greet(struct lifeline *l, struct guest *g)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = g->fd };

	if (!is_connected(g->fd) || !say(g->fd, g->own, sizeof(g->own)) ||
	    epoll_ctl(l->epfd, EPOLL_CTL_MOD, g->fd, &ev))
		dismiss(g);
	else
		g->state = GUEST_HELLO;
}

/* ---- the line ---- */

static void drop_line(struct lifeline *l)
{
	close(l->fd);
	l->fd = -1;
	counter_set(&l->stands, 0);
}

static void give_up_line(struct lifeline *l)
{
	if (l->fd < 0)
		return;
	say_bye(l->fd);
	drop_line(l);
}

static void become_line(struct lifeline *l, struct guest *g)
{
	give_up_line(l); /* the peer has made another one, or lives anew */
	l->fd = g->fd;
	l->incarnation = incarnation_of(g->said);
	l->bye = false;
	*g = (struct guest){ 0 };
	counter_add(&l->made, 1);
	counter_set(&l->stands, 1);
}

/* Return: the connection is still the guest's. */
static bool hear_hello(struct lifeline *l, const struct heartbeat_keys *keys, struct guest *g)
{
	if (!is_hello(l, g->said) || (l->fd >= 0 && incarnation_of(g->said) < l->incarnation)) {
		refuse(l, g);
		return false;
	}
	if (!(g->calls ? say_proof(keys, g) : say(g->fd, g->own, sizeof(g->own)))) {
		dismiss(g);
		return false;
	}
	g->state = GUEST_PROOF;
	return true;
}

static void hear_proof(struct lifeline *l, const struct heartbeat_keys *keys, struct guest *g)
{
	if (!is_proof(keys, g))
		refuse(l, g);
	else if (!g->calls && !say_proof(keys, g))
		dismiss(g);
	else
		become_line(l, g);
}

/* No more than its hello and its proof is ever read of a guest. */
static void hear(struct lifeline *l, const struct heartbeat_keys *keys, struct guest *g)
{
	const uint32_t wants = g->state == GUEST_HELLO ? LIFELINE_HELLO : LIFELINE_HELLO + LIFELINE_PROOF;
	ssize_t n;

	/* NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): it does not block */
	n = recv(g->fd, g->said + g->n_said, wants - g->n_said, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		refuse(l, g); /* gone before it had proven anything */
		return;
	}
	g->n_said += (uint32_t)n;
	if (g->n_said < wants)
		return;
	if (g->state == GUEST_PROOF)
		hear_proof(l, keys, g);
	else if (hear_hello(l, keys, g))
		hear(l, keys, g);
}

static void hear_guest(struct lifeline *l, const struct heartbeat_keys *keys, struct guest *g,
		       uint64_t now_ns)
{
	if (g->state == GUEST_NONE)
		return;
	if (g->state != GUEST_CONNECTS)
		hear(l, keys, g);
	if (g->state == GUEST_NONE || now_ns < g->until_ns)
		return;
	if (g->state == GUEST_CONNECTS)
		dismiss(g);
	else
		refuse(l, g);
}

/* Return: the line has ended as it ends when the process at the other end is gone. */
static bool hear_line(struct lifeline *l)
{
	uint8_t byte;
	ssize_t n;
	bool dead;

	/* NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): it does not block */
	while ((n = recv(l->fd, &byte, 1, MSG_DONTWAIT)) == 1) {
		if (byte != LIFELINE_BYE || l->bye) { /* who speaks so is not the peer any more */
			counter_add(&l->bad, 1);
			give_up_line(l);
			return false;
		}
		l->bye = true;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	dead = !l->bye && (n == 0 || errno == ECONNRESET);
	drop_line(l);
	return dead;
}

/* ---- life ---- */

static bool is_calling(const struct lifeline *l)
{
	for (uint32_t i = 0; i < LIFELINE_GUESTS; i++) {
		if (l->guests[i].state != GUEST_NONE)
			return true;
	}
	return false;
}

static bool wants_to_call(const struct lifeline *l, bool heard)
{
	return l->listen_fd < 0 && l->fd < 0 && heard && !is_calling(l);
}

/* Those of our calls that the other side has taken: epoll says which, all others have to wait. */
static void hear_answers(struct lifeline *l)
{
	struct epoll_event ev[LIFELINE_GUESTS + 2];
	const int n = epoll_wait(l->epfd, ev, (int)ARRAY_SIZE(ev), 0);

	for (int i = 0; i < n; i++) {
		for (uint32_t k = 0; k < LIFELINE_GUESTS; k++) {
			struct guest *g = &l->guests[k];

			if (g->state == GUEST_CONNECTS && g->fd == ev[i].data.fd)
				greet(l, g);
		}
	}
}

uint64_t lifeline_pass(struct lifeline *l, const struct heartbeat_keys *keys, bool heard, uint64_t peer,
		       uint64_t now_ns)
{
	uint64_t dead = 0;

	if (l->epfd < 0)
		return 0;
	if (l->fd >= 0 && hear_line(l))
		dead = l->incarnation;
	if (l->fd >= 0 && l->incarnation < peer)
		give_up_line(l);
	if (l->listen_fd >= 0)
		accept_guests(l, now_ns);
	hear_answers(l);
	for (uint32_t i = 0; i < LIFELINE_GUESTS; i++)
		hear_guest(l, keys, &l->guests[i], now_ns);
	if (!dead && wants_to_call(l, heard) && now_ns >= l->call_ns)
		call(l, now_ns);
	return dead;
}

uint64_t lifeline_deadline(const struct lifeline *l, bool heard, uint64_t peer)
{
	uint64_t deadline = UINT64_MAX;

	if (l->epfd < 0)
		return deadline;
	if (l->fd >= 0 && l->incarnation < peer)
		return 0;
	for (uint32_t i = 0; i < LIFELINE_GUESTS; i++) {
		if (l->guests[i].state != GUEST_NONE)
			deadline = min_u64(deadline, l->guests[i].until_ns);
	}
	return wants_to_call(l, heard) ? min_u64(deadline, l->call_ns) : deadline;
}

int lifeline_open(struct lifeline *l, const struct fp_pulse_cfg *cfg)
{
	l->cfg = cfg;
	l->fd = l->listen_fd = -1;
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (l->epfd < 0)
		return -errno;
	if (cfg->node_index != 0)
		return 0;
	l->listen_fd = open_socket(cfg, cfg->udp_port);
	if (l->listen_fd < 0)
		return l->listen_fd;
	return listen(l->listen_fd, LIFELINE_GUESTS) ? -errno : watch(l, l->listen_fd, EPOLLIN);
}

void lifeline_bye(struct lifeline *l)
{
	if (l->epfd < 0)
		return;
	give_up_line(l);
	for (uint32_t i = 0; i < LIFELINE_GUESTS; i++) {
		if (l->guests[i].state != GUEST_NONE)
			dismiss(&l->guests[i]);
	}
}

void lifeline_close(struct lifeline *l)
{
	if (!l->cfg) /* never opened */
		return;
	for (uint32_t i = 0; i < LIFELINE_GUESTS; i++) {
		if (l->guests[i].state != GUEST_NONE)
			close(l->guests[i].fd);
	}
	if (l->fd >= 0)
		close(l->fd);
	if (l->listen_fd >= 0)
		close(l->listen_fd);
	if (l->epfd >= 0)
		close(l->epfd);
	l->fd = l->listen_fd = l->epfd = -1;
}
