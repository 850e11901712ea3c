/* SPDX-License-Identifier: Apache-2.0 */
/**
 * xc_watch.c - netlink as an alarm clock, an ioctl for the truth
 */
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "xc_watch.h"

/* Running: up, and with a carrier (netdevice(7)). */
static bool is_running(const struct xc_watch *w)
{
	struct ifreq req = { 0 };

	memcpy(req.ifr_name, w->name, sizeof(w->name));
	return ioctl(w->fd, SIOCGIFFLAGS, &req) == 0 && (req.ifr_flags & IFF_RUNNING);
}

int xc_watch_open(struct xc_watch *w, const char *name)
{
	const struct sockaddr_nl links = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };

	static_assert(FP_NAME_MAX == IFNAMSIZ, "a name fits struct ifreq");
	memcpy(w->name, name, sizeof(w->name));
	w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (w->fd < 0)
		return -errno;
	if (bind(w->fd, (const struct sockaddr *)&links, sizeof(links)))
		return -errno;
	w->up = is_running(w);
	return 0;
}

void xc_watch_close(struct xc_watch *w)
{
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
}

bool xc_watch_lost(struct xc_watch *w)
{
	const bool was = w->up;
	uint8_t message[1];

	/* What they say does not matter, nor that one did not fit (ENOBUFS): the device is asked. */
	while (recv(w->fd, message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC) >= 0 || errno == ENOBUFS)
		;
	w->up = is_running(w);
	return was && !w->up;
}
