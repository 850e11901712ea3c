/* SPDX-License-Identifier: Apache-2.0 */
/**
 * xc.c - UDP on the cross-connect
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <unistd.h>

#include "xc.h"

/* Older than both in the C library. */
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* ---- addresses ---- */

socklen_t xc_sockaddr(const struct fp_addr *addr, uint16_t port, struct sockaddr_storage *ss)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ss;

	memset(ss, 0, sizeof(*ss));
	if (addr_is_v4(addr)) {
		*v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
		memcpy(&v4->sin_addr, addr->b + 12, 4);
		return sizeof(*v4);
	}
	*v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
	memcpy(&v6->sin6_addr, addr->b, 16);
	return sizeof(*v6);
}

bool xc_is_from(const struct sockaddr_storage *from, const struct fp_addr *addr)
{
	if (from->ss_family == AF_INET)
		return memcmp(&((const struct sockaddr_in *)from)->sin_addr, addr->b + 12, 4) == 0;
	return memcmp(&((const struct sockaddr_in6 *)from)->sin6_addr, addr->b, 16) == 0;
}

static uint16_t port_of(const struct sockaddr_storage *from)
{
	if (from->ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)from)->sin_port);
	return ntohs(((const struct sockaddr_in6 *)from)->sin6_port);
}

int xc_ttl_of(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		int ttl;

		if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
		    (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT)) {
			memcpy(&ttl, CMSG_DATA(c), sizeof(ttl));
			return ttl;
		}
	}
	return -1;
}

/* ---- sockets ---- */

static int option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) ? -errno : 0;
}

/* Larger than the system's limit, if we may. */
static void set_buffer(int fd, int name, int forced, int bytes)
{
	if (option(fd, SOL_SOCKET, forced, bytes))
		option(fd, SOL_SOCKET, name, bytes);
}

int xc_open(const struct fp_addr *self, uint16_t port, bool shared)
{
	struct sockaddr_storage ss;
	const socklen_t len = xc_sockaddr(self, port, &ss);
	const int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return -errno;
	rc = shared ? option(fd, SOL_SOCKET, SO_REUSEPORT, 1) : 0;
	if (rc == 0 && bind(fd, (const struct sockaddr *)&ss, len))
		rc = -errno;
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

int xc_sends(int fd, bool v4, int ttl, int buffer)
{
	int rc = option(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_UNICAST_HOPS, ttl);

	if (rc == 0)
		rc = option(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER,
			    v4 ? IP_PMTUDISC_PROBE : IPV6_PMTUDISC_PROBE);
	set_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, buffer);
	option(fd, SOL_SOCKET, SO_RCVBUF, 0); /* nobody reads it */
	return rc;
}

int xc_receives(int fd, bool v4, int buffer)
{
	set_buffer(fd, SO_RCVBUF, SO_RCVBUFFORCE, buffer);
	option(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
	option(fd, IPPROTO_UDP, UDP_GRO, 1); /* without it, they come one by one */
	return option(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT, 1);
}

int xc_steer(int fd, uint32_t at, uint32_t n)
{
	struct sock_filter code[] = {
		{ BPF_LD | BPF_B | BPF_ABS, 0, 0, at },
		{ BPF_ALU | BPF_MOD | BPF_K, 0, 0, n },
		{ BPF_RET | BPF_A, 0, 0, 0 },
	};
	const struct sock_fprog program = { .len = ARRAY_SIZE(code), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) ? -errno : 0;
}

/* ---- out ---- */

static void put_control(struct msghdr *msg, int level, int type, const void *value, size_t len)
{
	struct cmsghdr *c = (struct cmsghdr *)((uint8_t *)msg->msg_control + msg->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), value, len);
	msg->msg_controllen += CMSG_SPACE(len);
}

int xc_send(int fd, const struct xc_peer *peer, const uint8_t *data, uint32_t len, uint16_t size, uint8_t tos)
{
	const bool v4 = peer->to.ss_family == AF_INET;
	const int value = tos;
	_Alignas(struct cmsghdr)
		uint8_t control[CMSG_SPACE(sizeof(value)) + CMSG_SPACE(sizeof(size))] = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	struct msghdr msg = {
		.msg_name = (void *)(uintptr_t)&peer->to,
		.msg_namelen = peer->len,
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
	};
	ssize_t sent;

	put_control(&msg, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &value, sizeof(value));
	if (size)
		put_control(&msg, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size));
	do
		sent = sendmsg(fd, &msg, MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

/* ---- in ---- */

/* What the kernel says beside a datagram. */
static void read_control(struct msghdr *msg, struct xc_datagram *d, uint32_t *missed)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		int size;

		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&size, CMSG_DATA(c), sizeof(size));
			d->size = size > 0 ? (uint32_t)size : d->size;
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
			memcpy(missed, CMSG_DATA(c), sizeof(*missed));
		}
	}
}

uint32_t xc_receive(int fd, const struct fp_addr *peer, struct xc_datagram *out, uint32_t *missed)
{
	_Alignas(struct cmsghdr) uint8_t control[XC_BURST_MAX][128];
	struct sockaddr_storage from[XC_BURST_MAX];
	struct mmsghdr msgs[XC_BURST_MAX];
	struct iovec iov[XC_BURST_MAX];
	int n;

	for (uint32_t i = 0; i < XC_BURST_MAX; i++) {
		iov[i] = (struct iovec){ out[i].data, XC_DATAGRAM_MAX };
		msgs[i].msg_hdr = (struct msghdr){
			.msg_name = &from[i],
			.msg_namelen = sizeof(from[i]),
			.msg_iov = &iov[i],
			.msg_iovlen = 1,
			.msg_control = control[i],
			.msg_controllen = sizeof(control[i]),
		};
	}
	n = recvmmsg(fd, msgs, XC_BURST_MAX, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		struct xc_datagram *d = &out[i];

		d->len = d->size = msgs[i].msg_len;
		d->sport = port_of(&from[i]);
		d->ttl = xc_ttl_of(&msgs[i].msg_hdr);
		d->is_from = xc_is_from(&from[i], peer);
		read_control(&msgs[i].msg_hdr, d, missed);
	}
	return n < 0 ? 0 : (uint32_t)n;
}
