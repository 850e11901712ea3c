/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcp.h - what the TCP generators share: messages that both ends can check, and a few calls
 *
 * Requests and responses are numbered, and filled from a generator that both ends know.
 */
#ifndef TCP_H
#define TCP_H

#include "probe.h"

#include <signal.h>
#include <sys/epoll.h>

#define REQUEST_LEN  64
#define RESPONSE_LEN 512

struct head {
	uint32_t flow;  /* connection number, network order like the rest */
	uint32_t seq;   /* of the request, from 0 */
	uint32_t sport; /* client's source port: tells the server whether the NAT translated it */
	uint32_t len;
};

/* Fill (@check = 0) or check what follows the head; both ends compute the same bytes. */
static inline int body(uint8_t *message, uint32_t len, int check)
{
	const struct head *h = (const struct head *)message;
	uint64_t x = ((uint64_t)ntohl(h->flow) << 32 | ntohl(h->seq)) * 2654435761u + len;

	for (uint32_t i = sizeof(*h); i < len; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull; /* Knuth's MMIX generator */
		if (check && message[i] != (uint8_t)(x >> 56))
			return 0;
		message[i] = (uint8_t)(x >> 56);
	}
	return 1;
}

static inline void make(uint8_t *message, uint32_t len, uint32_t flow, uint32_t seq, uint32_t sport)
{
	*(struct head *)message = (struct head){ htonl(flow), htonl(seq), htonl(sport), htonl(len) };
	body(message, len, 0);
}

static inline int valid(uint8_t *message, uint32_t len, uint32_t seq)
{
	const struct head *h = (const struct head *)message;

	return ntohl(h->len) == len && ntohl(h->seq) == seq && body(message, len, 1);
}

static volatile sig_atomic_t stopping;

static inline void stop(int signum)
{
	(void)signum;
	stopping = 1;
}

static inline void watch(int epoll, int fd, uint32_t events, int op)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (epoll_ctl(epoll, op, fd, &event) < 0)
		die("epoll_ctl");
}

/* End a connection by RST: the client must count it as lost. */
static inline void refuse(int fd)
{
	struct linger reset = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(fd);
}

#endif /* TCP_H */
