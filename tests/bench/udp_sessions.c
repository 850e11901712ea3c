/* SPDX-License-Identifier: Apache-2.0 */
/**
 * udp_sessions.c - one small UDP packet for each new session, at a steady rate
 *
 *   udp_sessions NETNS DEVICE MAC ENDPOINTS FIRST COUNT PER_S
 *
 * Session i goes from inside endpoint i mod ENDPOINTS to its (i / ENDPOINTS)th remote, so that COUNT sessions
 * need ENDPOINTS external ports. FIRST is the number of the first session: a later run goes on where an earlier
 * one has ended. Prints one JSON object at the end.
 */
#define _GNU_SOURCE /* sendmmsg, setns */
#include "raw_wire.h"

#include <netinet/udp.h>

enum {
	PAYLOAD = 18, /* a frame of 60 bytes */
	PORT = 443,
	TICK_NS = 500000,
	SESSIONS_MAX = 16000000,
	PER_S_MAX = 1000000,
};

static void send_one(struct wire *w, uint32_t number, uint32_t endpoints)
{
	const uint32_t endpoint = number % endpoints;
	struct tuple t = { .dst = OUTSIDE_NET + (scatter(endpoint) + number / endpoints) % OUTSIDE_HOSTS + 1,
			   .dport = PORT };
	uint8_t *udp;

	inside_of(endpoint, &t.src, &t.sport);
	udp = wire_ip(w, &t, IPPROTO_UDP, sizeof(struct udphdr) + PAYLOAD);
	memset(udp, 0, sizeof(struct udphdr) + PAYLOAD);
	put16(udp, t.sport);
	put16(udp + 2, t.dport);
	put16(udp + 4, sizeof(struct udphdr) + PAYLOAD);
	memcpy(udp + 6, &(uint16_t){ wire_sum(udp, sizeof(struct udphdr) + PAYLOAD, IPPROTO_UDP) },
	       sizeof(uint16_t));
}

int main(int argc, char **argv)
{
	static struct wire wire;
	const struct timespec tick = { .tv_nsec = TICK_NS };
	uint64_t start, now;
	unsigned long endpoints, first, count, per_s, done = 0;

	if (argc != 8) {
		fprintf(stderr, "usage: udp_sessions NETNS DEVICE MAC ENDPOINTS FIRST COUNT PER_S\n");
		return 2;
	}
	endpoints = parse_number(argv[4], 1, SESSIONS_MAX);
	first = parse_number(argv[5], 0, SESSIONS_MAX);
	count = parse_number(argv[6], 1, SESSIONS_MAX);
	per_s = parse_number(argv[7], 1, PER_S_MAX);
	wire_open(&wire, argv[1], argv[2], argv[3], false);
	start = now = clock_ns(CLOCK_MONOTONIC);
	while (done < count) {
		unsigned long due = (unsigned long)((double)(now - start) * (double)per_s / 1e9) + 1;

		for (; done < count && done < due; done++)
			send_one(&wire, (uint32_t)(first + done), (uint32_t)endpoints);
		wire_flush(&wire);
		nanosleep(&tick, NULL);
		now = clock_ns(CLOCK_MONOTONIC);
	}
	printf("{\"sent\": %llu, \"seconds\": %.6f}\n", (unsigned long long)wire.sent,
	       (double)(now - start) / 1e9);
	return 0;
}
