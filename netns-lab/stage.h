/* SPDX-License-Identifier: Apache-2.0 */
/**
 * stage.h - which packet of a short TCP connection a frame is
 *
 * A connection is: handshake, one request, one answer, and the client closes first. Each frame of it belongs
 * to a stage; the stages stand in the order in which they happen. What a frame is depends on its flags and
 * on what the connection has shown before: a segment without payload is the handshake's ACK until the client
 * has sent data, and an acknowledgement of something later from then on. A retransmission has the stage of
 * what it repeats.
 */
#ifndef STAGE_H
#define STAGE_H

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum stage {
	STAGE_SYN,
	STAGE_SYN_ACK,
	STAGE_ACK,
	STAGE_DATA,
	STAGE_DATA_ACK,
	STAGE_ANSWER,
	STAGE_ANSWER_ACK,
	STAGE_FIN,
	STAGE_FIN_ACK,
	STAGE_FIN_REPLY,
	STAGE_LAST_ACK,
	STAGE_RST, /* after all others: nothing waits for it, and while frames are held so is it */
	N_STAGES
};

static const char *const stage_names[N_STAGES] = {
	"syn",        "syn-ack", "ack",     "data",      "data-ack", "answer",
	"answer-ack", "fin",     "fin-ack", "fin-reply", "last-ack", "rst",
};

enum { SHOWN_DATA = 1, SHOWN_FIN = 2, SHOWN_FIN_REPLY = 4 };

/**
 * struct segment - what the stage of a frame depends on
 * @client:    the client's endpoint as it is seen on this wire, network order: names the connection
 * @port:      its port
 * @to_server: direction
 * @flags:     TCP's
 * @payload:   bytes
 */
struct segment {
	uint32_t client;
	uint16_t port;
	bool to_server;
	uint8_t flags;
	uint32_t payload;
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

static inline uint16_t be16_at(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

/* Read @frame (Ethernet) into @s; false if it is not TCP over IPv4 of the @server's @port (network order). */
static inline bool segment_of(const uint8_t *frame, size_t len, uint32_t server, uint16_t port,
			      struct segment *s)
{
	const uint8_t *ip = frame + 14, *tcp;
	uint32_t source, target;
	uint16_t source_port, target_port;
	size_t ip_len, total;

	if (len < 14 + 20 || be16_at(frame + 12) != 0x0800 || ip[0] >> 4 != 4 || ip[9] != 6)
		return false;
	ip_len = (size_t)(ip[0] & 15) * 4;
	total = be16_at(ip + 2);
	if (ip_len < 20 || total < ip_len + 20 || total > len - 14 || be16_at(ip + 6) & 0x1fff)
		return false;
	tcp = ip + ip_len;
	if ((size_t)(tcp[12] >> 4) * 4 < 20 || ip_len + (size_t)(tcp[12] >> 4) * 4 > total)
		return false;
	memcpy(&source, ip + 12, 4);
	memcpy(&target, ip + 16, 4);
	memcpy(&source_port, tcp, 2);
	memcpy(&target_port, tcp + 2, 2);
	s->flags = tcp[13];
	s->payload = (uint32_t)(total - ip_len - (size_t)(tcp[12] >> 4) * 4);
	s->to_server = target == server && target_port == port;
	if (!s->to_server && (source != server || source_port != port))
		return false;
	s->client = s->to_server ? source : target;
	s->port = s->to_server ? source_port : target_port;
	return true;
}

/* The stage of @s, on a connection that has @shown so far; @shown is brought up to date. */
static inline enum stage stage_of(const struct segment *s, uint32_t *shown)
{
	if (s->flags & TCP_RST)
		return STAGE_RST;
	if (s->flags & TCP_SYN)
		return s->flags & TCP_ACK ? STAGE_SYN_ACK : STAGE_SYN;
	if (s->flags & TCP_FIN) {
		*shown |= s->to_server ? SHOWN_FIN : SHOWN_FIN_REPLY;
		return s->to_server ? STAGE_FIN : STAGE_FIN_REPLY;
	}
	if (s->payload) {
		*shown |= s->to_server ? SHOWN_DATA : 0;
		return s->to_server ? STAGE_DATA : STAGE_ANSWER;
	}
	if (!s->to_server)
		return *shown & SHOWN_FIN ? STAGE_FIN_ACK : STAGE_DATA_ACK;
	if (*shown & SHOWN_FIN_REPLY)
		return STAGE_LAST_ACK;
	return *shown & SHOWN_DATA ? STAGE_ANSWER_ACK : STAGE_ACK;
}

#endif /* STAGE_H */
