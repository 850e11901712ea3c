/* SPDX-License-Identifier: Apache-2.0 */
/**
 * xc.h - UDP on the cross-connect: what heartbeats and the conduit need of the kernel's sockets
 *
 * Apart from the headers of packets (pkt.h), because <netinet/in.h> has other things of the same names.
 */
#ifndef XC_H
#define XC_H

#include <sys/socket.h>

#include "base.h"

enum { XC_BURST_MAX = 8, XC_DATAGRAM_MAX = 64 << 10 };

/**
 * struct xc_peer - Where datagrams go
 * @to:  address and port
 * @len: bytes of it
 */
struct xc_peer {
	struct sockaddr_storage to;
	socklen_t len;
};

/**
 * struct xc_datagram - What was received
 * @data:   XC_DATAGRAM_MAX bytes of room
 * @len:    bytes
 * @size:   bytes of each datagram but the last that the kernel has put together here; @len: it is one
 * @sport:  UDP source port, host order
 * @ttl:    TTL or hop limit
 * @is_from: it has the peer's address
 */
struct xc_datagram {
	uint8_t *data;
	uint32_t len, size;
	uint16_t sport;
	int ttl;
	bool is_from;
};

/**
 * xc_sockaddr() - An address as the kernel wants it
 * @port: host order
 * Return: bytes of @ss that are used.
 */
socklen_t xc_sockaddr(const struct fp_addr *addr, uint16_t port, struct sockaddr_storage *ss);

/* xc_is_from() - Is this the sender of a message? */
bool xc_is_from(const struct sockaddr_storage *from, const struct fp_addr *addr);

/* xc_ttl_of() - The TTL or hop limit that the kernel noted; -1 if it did not */
int xc_ttl_of(struct msghdr *msg);

/**
 * xc_open() - A socket bound to our end
 * @shared: other sockets of ours may have the same port
 * Return: it, or -errno.
 */
int xc_open(const struct fp_addr *self, uint16_t port, bool shared);

/**
 * xc_sends() - Get a socket ready to send much
 *
 * Nothing is cut on the way, and nobody may tell us of a smaller MTU: it is a cable.
 * Return: 0 or -errno.
 */
int xc_sends(int fd, bool v4, int ttl, int buffer);

/**
 * xc_receives() - Get a socket ready for xc_receive()
 * Return: 0 or -errno.
 */
int xc_receives(int fd, bool v4, int buffer);

/**
 * xc_steer() - Let a byte of each datagram choose among sockets that share a port, modulo their number
 * @fd: any of them; they are numbered in the order in which they were bound
 * @at: offset of the byte behind the UDP header
 * Return: 0 or -errno.
 */
int xc_steer(int fd, uint32_t at, uint32_t n);

/**
 * xc_send() - Send, without waiting
 * @size: 0, or: the kernel is to cut it into datagrams of this size
 * Return: 0 or -errno.
 */
int xc_send(int fd, const struct xc_peer *peer, const uint8_t *data, uint32_t len, uint16_t size,
	    uint8_t tos);

/**
 * xc_receive() - Receive what waits, up to XC_BURST_MAX
 * @missed: how many the socket had no room for, ever; stays if the kernel does not say
 * Return: how many.
 */
uint32_t xc_receive(int fd, const struct fp_addr *peer, struct xc_datagram *out, uint32_t *missed);

#endif /* XC_H */
