/* SPDX-License-Identifier: Apache-2.0 */
/**
 * udp_blast.c - small UDP packets: as fast as they go, with a sink that counts them; or one at a time
 *
 *   udp_blast recv PORT SECONDS               counts for SECONDS after the first packet
 *   udp_blast open ADDRESS PORT FLOWS         one packet per flow, slowly: sessions are open and known to a peer
 *   udp_blast send ADDRESS PORT FLOWS SECONDS one socket per flow, in turn; the same flows each time
 *   udp_blast echo PORT                       sends each packet back, until it is killed
 *   udp_blast ping ADDRESS PORT COUNT         COUNT packets one after the other; their round trips
 *
 * recv, send and ping print one JSON object. They are bounded: the sender by SECONDS, the sink by SECONDS after
 * its first packet, and by START_S if there is none.
 */
#define _GNU_SOURCE /* recvmmsg, sendmmsg */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH = 64,
	FLOWS_MAX = 10000,
	FIRST_PORT = 20000, /* source port of the first flow */
	PAYLOAD = 18,       /* a frame of 60 bytes, the smallest on Ethernet (64 with its FCS) */
	START_S = 20,       /* how long the sink waits for a first packet */
	RCVBUF = 8388608,
	SECONDS_MAX = 60,
	PINGS_MAX = 100000,
	PING_LOST_MS = 1000,
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "udp_blast: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint16_t parse_port(const char *text)
{
	unsigned long port = strtoul(text, NULL, 10);

	if (port < 1 || port > UINT16_MAX) {
		errno = ERANGE;
		die(text);
	}
	return (uint16_t)port;
}

static double parse_seconds(const char *text)
{
	double seconds = strtod(text, NULL);

	if (!(seconds > 0 && seconds <= SECONDS_MAX)) {
		errno = ERANGE;
		die(text);
	}
	return seconds;
}

static int sink(uint16_t port, double seconds)
{
	static uint8_t room[BATCH][2048];
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec iov[BATCH];
	struct timeval wait = { .tv_sec = START_S };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = RCVBUF;
	double first = 0, end = 0;
	uint64_t n = 0;

	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	for (int i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ room[i], sizeof(room[i]) };
		messages[i].msg_hdr.msg_iov = &iov[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	puts("ready");
	fflush(stdout);
	do {
		int got = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);

		if (got < 0 && errno != EAGAIN)
			die("recvmmsg");
		if (got < 0)
			break; /* silence: the sender has ended */
		if (n == 0) {
			struct timeval short_wait = { .tv_usec = 200000 };

			first = now_s();
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &short_wait, sizeof(short_wait));
		}
		n += (uint64_t)got;
		end = now_s();
	} while (end - first < seconds);
	printf("{\"received\": %llu, \"seconds\": %.6f}\n", (unsigned long long)n, end - first);
	return 0;
}

/* One socket for each flow, from FIRST_PORT on. */
static void open_flows(const char *address, uint16_t port, unsigned long flows, int *fds)
{
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(port) };

	if (flows < 1 || flows > FLOWS_MAX || inet_pton(AF_INET, address, &there.sin_addr) != 1) {
		errno = EINVAL;
		die(address);
	}
	for (unsigned long i = 0; i < flows; i++) {
		struct sockaddr_in here = { .sin_family = AF_INET,
					    .sin_port = htons((uint16_t)(FIRST_PORT + i)) };

		fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (fds[i] < 0 || bind(fds[i], (struct sockaddr *)&here, sizeof(here)) < 0 ||
		    connect(fds[i], (struct sockaddr *)&there, sizeof(there)) < 0)
			die("connect");
	}
}

/* ECONNREFUSED is an ICMP error of the far end, ENOBUFS a full queue on this one. */
static uint64_t sent_of(int n)
{
	if (n < 0 && errno != ECONNREFUSED && errno != ENOBUFS)
		die("sendmmsg");
	return n > 0 ? (uint64_t)n : 0;
}

static int open_sessions(const int *fds, unsigned long flows)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	uint8_t payload[PAYLOAD] = { 0 };

	for (unsigned long i = 0; i < flows; i++) {
		sent_of((int)send(fds[i], payload, sizeof(payload), 0));
		if (i % (BATCH / 4) == 0)
			nanosleep(&pause, NULL);
	}
	return 0;
}

static int blast(const int *fds, unsigned long flows, double seconds)
{
	struct mmsghdr messages[BATCH] = { 0 };
	uint8_t payload[PAYLOAD] = { 0 };
	struct iovec iov = { payload, sizeof(payload) };
	/* With many flows the bursts are short, so that a table sees another flow after a few packets. */
	unsigned int batch = flows > 1 ? BATCH / 8 : BATCH;
	uint64_t sent = 0;
	double start, end;

	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_iov = &iov;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	start = end = now_s();
	for (unsigned long turn = 0; end - start < seconds; turn++) {
		sent += sent_of(sendmmsg(fds[turn % flows], messages, batch, 0));
		if (turn % 16 == 0)
			end = now_s();
	}
	printf("{\"sent\": %llu, \"seconds\": %.6f}\n", (unsigned long long)sent, end - start);
	return 0;
}

static _Noreturn void echo(uint16_t port)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0)
		die("socket");
	puts("ready");
	fflush(stdout);
	for (;;) {
		uint8_t packet[2048];
		struct sockaddr_in from;
		socklen_t len = sizeof(from);
		ssize_t got = recvfrom(fd, packet, sizeof(packet), 0, (struct sockaddr *)&from, &len);

		if (got < 0 || sendto(fd, packet, (size_t)got, 0, (struct sockaddr *)&from, len) < 0)
			die("echo");
	}
}

static int by_size(const void *left, const void *right)
{
	const double a = *(const double *)left, b = *(const double *)right;

	return a < b ? -1 : a > b;
}

static int ping(const char *address, uint16_t port, unsigned long count)
{
	static double took_us[PINGS_MAX];
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct timeval patience = { .tv_sec = PING_LOST_MS / 1000 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	unsigned long n = 0;

	if (count < 1 || count > PINGS_MAX || inet_pton(AF_INET, address, &there.sin_addr) != 1) {
		errno = EINVAL;
		die(address);
	}
	if (fd < 0 || connect(fd, (struct sockaddr *)&there, sizeof(there)) < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	for (unsigned long i = 0; i < count; i++) {
		uint8_t packet[PAYLOAD] = { 0 };
		double begin = now_s();

		if (send(fd, packet, sizeof(packet), 0) < 0)
			die("send");
		if (recv(fd, packet, sizeof(packet), 0) == (ssize_t)sizeof(packet))
			took_us[n++] = (now_s() - begin) * 1e6;
	}
	if (n == 0) {
		errno = ETIMEDOUT;
		die("no answer");
	}
	qsort(took_us, n, sizeof(*took_us), by_size);
	printf("{\"answered\": %lu, \"median_us\": %.2f, \"p99_us\": %.2f}\n", n, took_us[n / 2],
	       took_us[n * 99 / 100]);
	return 0;
}

int main(int argc, char **argv)
{
	const struct rlimit fds = { FLOWS_MAX + 64, FLOWS_MAX + 64 };

	setrlimit(RLIMIT_NOFILE, &fds);
	if (argc == 4 && strcmp(argv[1], "recv") == 0)
		return sink(parse_port(argv[2]), parse_seconds(argv[3]));
	if (argc >= 5 && (strcmp(argv[1], "open") == 0 || strcmp(argv[1], "send") == 0)) {
		static int fds[FLOWS_MAX];
		unsigned long flows = strtoul(argv[4], NULL, 10);

		open_flows(argv[2], parse_port(argv[3]), flows, fds);
		return argc == 6 ? blast(fds, flows, parse_seconds(argv[5])) : open_sessions(fds, flows);
	}
	if (argc == 3 && strcmp(argv[1], "echo") == 0)
		echo(parse_port(argv[2]));
	if (argc == 5 && strcmp(argv[1], "ping") == 0)
		return ping(argv[2], parse_port(argv[3]), strtoul(argv[4], NULL, 10));
	fprintf(stderr, "usage: udp_blast recv PORT SECONDS | udp_blast open ADDRESS PORT FLOWS\n"
			"       udp_blast send ADDRESS PORT FLOWS SECONDS\n"
			"       udp_blast echo PORT | udp_blast ping ADDRESS PORT COUNT\n");
	return 2;
}
