/* SPDX-License-Identifier: Apache-2.0 */
/**
 * udp_blast.c - small UDP packets as fast as they go, and a sink that counts them
 *
 *   udp_blast recv PORT SECONDS               counts for SECONDS after the first packet
 *   udp_blast send ADDRESS PORT FLOWS SECONDS one socket per flow, in turn
 *
 * Each prints one JSON object. Both are bounded: the sender by SECONDS, the sink by SECONDS after its first
 * packet, and by START_S if there is none.
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH = 64,
	FLOWS_MAX = 1000,
	PAYLOAD = 18, /* a frame of 60 bytes, the smallest on Ethernet (64 with its FCS) */
	START_S = 20, /* how long the sink waits for a first packet */
	RCVBUF = 8388608,
	SECONDS_MAX = 60,
};

static void die(const char *what)
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

static int blast(const char *address, uint16_t port, unsigned long flows, double seconds)
{
	static int fds[FLOWS_MAX];
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct mmsghdr messages[BATCH] = { 0 };
	uint8_t payload[PAYLOAD] = { 0 };
	struct iovec iov = { payload, sizeof(payload) };
	/* With many flows the bursts are short, so that a table sees another flow after a few packets. */
	unsigned int batch = flows > 1 ? BATCH / 8 : BATCH;
	uint64_t sent = 0;
	double start, end;

	if (flows < 1 || flows > FLOWS_MAX || inet_pton(AF_INET, address, &there.sin_addr) != 1) {
		errno = EINVAL;
		die(address);
	}
	for (unsigned long i = 0; i < flows; i++) {
		fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&there, sizeof(there)) < 0)
			die("connect");
	}
	for (int i = 0; i < BATCH; i++) {
		messages[i].msg_hdr.msg_iov = &iov;
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	start = end = now_s();
	for (unsigned long turn = 0; end - start < seconds; turn++) {
		int n = sendmmsg(fds[turn % flows], messages, batch, 0);

		/* ECONNREFUSED is an ICMP error of the far end, ENOBUFS a full queue on this one. */
		if (n < 0 && errno != ECONNREFUSED && errno != ENOBUFS)
			die("sendmmsg");
		sent += n > 0 ? (uint64_t)n : 0;
		if (turn % 16 == 0)
			end = now_s();
	}
	printf("{\"sent\": %llu, \"seconds\": %.6f}\n", (unsigned long long)sent, end - start);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "recv") == 0)
		return sink(parse_port(argv[2]), parse_seconds(argv[3]));
	if (argc == 6 && strcmp(argv[1], "send") == 0)
		return blast(argv[2], parse_port(argv[3]), strtoul(argv[4], NULL, 10),
			     parse_seconds(argv[5]));
	fprintf(stderr, "usage: udp_blast recv PORT SECONDS | udp_blast send ADDRESS PORT FLOWS SECONDS\n");
	return 2;
}
