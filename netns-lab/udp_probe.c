/* SPDX-License-Identifier: Apache-2.0 */
/**
 * udp_probe.c - a UDP flow with a sequence number every interval, echoed, each arrival stamped
 *
 *   udp_probe server ADDRESS PORT LOG
 *   udp_probe client ADDRESS PORT TO TO_PORT INTERVAL_US LOG
 *
 * The server accepts only the source endpoint that it saw first, so that a mapping which a failover lost,
 * and that the survivor made anew with another NAT port, does not pass for one that survived. LOG holds
 * struct arrival records: what the server received, and the echoes that the client got back. SIGTERM ends
 * either; it then prints one JSON line.
 */
#include "probe.h"

#include <poll.h>
#include <signal.h>

#define MAGIC        0x46585542u /* "FXUB" */
#define ARRIVALS_MAX (4u << 20)
#define ECHO_WAIT_NS (500 * NS_PER_MS) /* how long the client waits for the last echoes */

struct datagram {
	uint32_t magic;
	uint32_t seq;
};

struct arrival {
	uint64_t t_ns;
	uint32_t seq;
	uint32_t pad;
};

static volatile sig_atomic_t stopping;

static void stop(int signum)
{
	(void)signum;
	stopping = 1;
}

static int udp_socket(struct sockaddr_in local)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int room = 4 << 20;

	if (fd < 0 || bind(fd, (struct sockaddr *)&local, sizeof(local)) < 0)
		die("udp_probe: bind");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	return fd;
}

/* Next datagram of ours within @timeout_ns. Return: 1, or 0 on timeout or signal. */
static int receive(int fd, uint64_t timeout_ns, struct datagram *d, struct sockaddr_in *from)
{
	struct timespec timeout = { (time_t)(timeout_ns / NS_PER_S), (long)(timeout_ns % NS_PER_S) };
	struct pollfd waiting = { .fd = fd, .events = POLLIN };
	socklen_t len = sizeof(*from);

	if (ppoll(&waiting, 1, &timeout, NULL) <= 0)
		return 0;
	/* An ICMP error (no route while nobody is ACTIVE) is reported here too, and is no datagram. */
	if (recvfrom(fd, d, sizeof(*d), MSG_DONTWAIT, (struct sockaddr *)from, &len) != (ssize_t)sizeof(*d))
		return 0;
	return ntohl(d->magic) == MAGIC;
}

static void serve(char **argv)
{
	struct samples arrivals = samples_open(sizeof(struct arrival), ARRIVALS_MAX);
	struct sockaddr_in first = { 0 }, from;
	struct sources sources = { 0 };
	uint64_t foreign = 0;
	struct datagram d;
	int fd = udp_socket(endpoint(argv[0], argv[1]));

	printf("{\"event\": \"listening\"}\n");
	while (!stopping) {
		if (!receive(fd, 100 * NS_PER_MS, &d, &from))
			continue;
		struct arrival a = { .t_ns = now_ns(), .seq = ntohl(d.seq) };

		sources_add(&sources, from.sin_addr);
		if (!first.sin_port)
			first = from;
		if (from.sin_addr.s_addr != first.sin_addr.s_addr || from.sin_port != first.sin_port) {
			foreign++;
			continue;
		}
		samples_add(&arrivals, &a);
		sendto(fd, &d, sizeof(d), 0, (struct sockaddr *)&from, sizeof(from));
	}
	samples_write(&arrivals, argv[2]);
	printf("{\"event\": \"done\", \"received\": %zu, \"foreign\": %llu, \"source_port\": %u, ",
	       arrivals.n, (unsigned long long)foreign, ntohs(first.sin_port));
	sources_print(&sources);
	printf("}\n");
}

static void probe(char **argv)
{
	struct samples echoes = samples_open(sizeof(struct arrival), ARRIVALS_MAX);
	uint64_t interval_ns = strtoull(argv[4], NULL, 10) * 1000;
	struct sockaddr_in to = endpoint(argv[2], argv[3]), from;
	int fd = udp_socket(endpoint(argv[0], argv[1]));
	uint64_t due = now_ns(), end = 0;
	uint32_t seq = 0;
	struct datagram d;

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("udp_probe: connect");
	printf("{\"event\": \"sending\"}\n");
	for (;;) {
		uint64_t now = now_ns();

		if (stopping && !end)
			end = now + ECHO_WAIT_NS;
		if (end && (now >= end || echoes.n >= seq))
			break;
		if (!end && now >= due) {
			d = (struct datagram){ htonl(MAGIC), htonl(seq++) };
			send(fd, &d, sizeof(d), MSG_DONTWAIT); /* refused or lost: the sequence tells */
			due += interval_ns;
			continue;
		}
		if (receive(fd, end ? 10 * NS_PER_MS : due - now, &d, &from)) {
			struct arrival a = { .t_ns = now_ns(), .seq = ntohl(d.seq) };

			samples_add(&echoes, &a);
		}
	}
	samples_write(&echoes, argv[5]);
	printf("{\"event\": \"done\", \"sent\": %u, \"echoed\": %zu}\n", seq, echoes.n);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = stop };

	sigaction(SIGTERM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	run_in_real_time();
	if (argc == 5 && strcmp(argv[1], "server") == 0)
		serve(argv + 2);
	else if (argc == 8 && strcmp(argv[1], "client") == 0)
		probe(argv + 2);
	else
		return fprintf(stderr, "see the head of udp_probe.c\n"), 2;
	return 0;
}
