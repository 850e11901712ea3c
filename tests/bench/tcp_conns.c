/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcp_conns.c - TCP connections as fast as they go: connect, one request, one response, close
 *
 *   tcp_conns serve PORT                          until it is killed
 *   tcp_conns load ADDRESS PORT PARALLEL SECONDS  PARALLEL connections at a time; prints one JSON object
 *
 * The server closes first, as HTTP/1.0 does: TIME_WAIT is at its end, and the client's ports are free again at
 * once. So the client comes back with a port that server and gateway still know.
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	MESSAGE = 64, /* bytes of a request, and of a response */
	EVENTS = 64,
	FDS_MAX = 4096,
	PARALLEL_MAX = 1024,
	STALL_MS = 5000, /* no connection at all has moved: the gateway does not forward */
};

struct counts {
	uint64_t done, failed;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "tcp_conns: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct sockaddr_in address_of(const char *host, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)strtoul(port, NULL, 10)) };

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1 || !a.sin_port) {
		errno = EINVAL;
		die(host);
	}
	return a;
}

static void watch(int epfd, int fd, uint32_t events, int op)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	if (epoll_ctl(epfd, op, fd, &ev) < 0)
		die("epoll_ctl");
}

/* ---- server ---- */

static void accept_all(int epfd, int listener)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		watch(epfd, fd, EPOLLIN, EPOLL_CTL_ADD);
	}
}

static void answer(int fd)
{
	char message[MESSAGE];

	/* The request fits one segment, so it comes whole or, after an error, not at all. */
	if (read(fd, message, sizeof(message)) > 0 && write(fd, message, sizeof(message)) < 0)
		(void)errno; /* the client has gone meanwhile; closing is all there is to do */
	close(fd);
}

static _Noreturn void serve(const char *port)
{
	struct sockaddr_in here = address_of("0.0.0.0", port);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
	int epfd = epoll_create1(EPOLL_CLOEXEC);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (listener < 0 || epfd < 0 || bind(listener, (struct sockaddr *)&here, sizeof(here)) < 0 ||
	    listen(listener, PARALLEL_MAX) < 0)
		die("listen");
	watch(epfd, listener, EPOLLIN, EPOLL_CTL_ADD);
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event ev[EVENTS];
		int n = epoll_wait(epfd, ev, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			if (ev[i].data.fd == listener)
				accept_all(epfd, listener);
			else
				answer(ev[i].data.fd);
		}
	}
}

/* ---- client ---- */

static void begin(int epfd, const struct sockaddr_in *there, struct counts *counts)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)there, sizeof(*there)) < 0 && errno != EINPROGRESS) {
		counts->failed++;
		close(fd);
		return;
	}
	watch(epfd, fd, EPOLLOUT, EPOLL_CTL_ADD);
}

/* One event of a connection; true when it has ended. */
static bool step(int epfd, const struct epoll_event *ev, struct counts *counts)
{
	char message[MESSAGE] = { 0 };
	int fd = ev->data.fd;
	ssize_t got;

	if (ev->events & EPOLLOUT) {
		if (write(fd, message, sizeof(message)) == sizeof(message)) {
			watch(epfd, fd, EPOLLIN, EPOLL_CTL_MOD);
			return false;
		}
		counts->failed++;
	} else {
		got = read(fd, message, sizeof(message));
		if (got > 0)
			return false; /* the end of the stream is the next event */
		if (got == 0)
			counts->done++;
		else
			counts->failed++;
	}
	close(fd);
	return true;
}

static int load(const struct sockaddr_in *there, unsigned long parallel, double seconds)
{
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	double start = now_s(), end = start;
	struct counts counts = { 0 };

	if (parallel < 1 || parallel > PARALLEL_MAX) {
		errno = ERANGE;
		die("PARALLEL");
	}
	for (unsigned long i = 0; i < parallel; i++)
		begin(epfd, there, &counts);
	while (end - start < seconds) {
		struct epoll_event ev[EVENTS];
		int n = epoll_wait(epfd, ev, EVENTS, STALL_MS);

		if (n == 0)
			break;
		for (int i = 0; i < n; i++) {
			if (step(epfd, &ev[i], &counts))
				begin(epfd, there, &counts);
		}
		end = now_s();
	}
	printf("{\"done\": %llu, \"failed\": %llu, \"seconds\": %.6f}\n", (unsigned long long)counts.done,
	       (unsigned long long)counts.failed, end - start);
	return 0;
}

int main(int argc, char **argv)
{
	const struct rlimit fds = { FDS_MAX, FDS_MAX };

	setrlimit(RLIMIT_NOFILE, &fds);
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve(argv[2]);
	if (argc == 6 && strcmp(argv[1], "load") == 0) {
		struct sockaddr_in there = address_of(argv[2], argv[3]);

		return load(&there, strtoul(argv[4], NULL, 10), strtod(argv[5], NULL));
	}
	fprintf(stderr, "usage: tcp_conns serve PORT | tcp_conns load ADDRESS PORT PARALLEL SECONDS\n");
	return 2;
}
