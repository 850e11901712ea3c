/* SPDX-License-Identifier: Apache-2.0 */
/**
 * probe.h - what the lab's traffic programs share: clock, errors, addresses, logs
 *
 * The programs are C because they measure milliseconds beside two daemons on two slow cores: an
 * interpreter's own pauses would be most of what they see. Each speaks JSON lines on stdout, of which it leaves
 * out those that tell of progress while nobody reads, and keeps its samples in memory until the end, since
 * writing a file can stall for longer than a failover lasts.
 */
#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE /* accept4, ppoll */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS   1000000ull
#define NS_PER_S    1000000000ull
#define SOURCES_MAX 16

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t); /* the clock of flexhad's history */
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn)) static inline void die(const char *what)
{
	perror(what);
	exit(1);
}

static inline struct sockaddr_in endpoint(const char *address, const char *port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };

	if (inet_pton(AF_INET, address, &sa.sin_addr) != 1) {
		fprintf(stderr, "not an IPv4 address: %s\n", address);
		exit(2);
	}
	return sa;
}

/* A probe must run when its time comes, whatever else the machine does: real-time if we may. */
static inline void run_in_real_time(void)
{
	struct sched_param param = { .sched_priority = 10 };

	if (sched_setscheduler(0, SCHED_FIFO, &param) < 0)
		perror("probe: without SCHED_FIFO, jitter will show");
	if (mlockall(MCL_CURRENT) < 0)
		perror("probe: mlockall");
}

/*
 * Would a line on stdout be taken at once? A pipe that is writable has room for PIPE_BUF bytes. Who measures must not
 * wait for its reader: a full pipe would look like sessions that stall.
 */
static inline int is_read(void)
{
	struct pollfd out = { .fd = STDOUT_FILENO, .events = POLLOUT };

	return poll(&out, 1, 0) == 1 && out.revents == POLLOUT;
}

/* The distinct source addresses that a server saw. */
struct sources {
	struct in_addr seen[SOURCES_MAX];
	uint32_t n;
};

static inline void sources_add(struct sources *s, struct in_addr address)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->seen[i].s_addr == address.s_addr)
			return;
	if (s->n < SOURCES_MAX)
		s->seen[s->n++] = address;
}

static inline void sources_print(const struct sources *s)
{
	char text[INET_ADDRSTRLEN];

	printf("\"sources\": [");
	for (uint32_t i = 0; i < s->n; i++)
		printf("%s\"%s\"", i ? ", " : "", inet_ntop(AF_INET, &s->seen[i], text, sizeof(text)));
	printf("]");
}

/* Samples of fixed size, kept in memory: @cap is address space, touched only as it fills. */
struct samples {
	char *data;
	size_t size, n, cap;
};

static inline struct samples samples_open(size_t size, size_t cap)
{
	struct samples s = { .size = size, .cap = cap };

	s.data = mmap(NULL, size * cap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		      -1, 0);
	if (s.data == MAP_FAILED)
		die("mmap");
	return s;
}

static inline void samples_add(struct samples *s, const void *sample)
{
	if (s->n < s->cap)
		memcpy(s->data + s->size * s->n++, sample, s->size);
}

static inline void samples_write(const struct samples *s, const char *path)
{
	FILE *file = fopen(path, "wb");

	if (!file || fwrite(s->data, s->size, s->n, file) != s->n || fclose(file) != 0)
		die(path);
}

#endif /* PROBE_H */
