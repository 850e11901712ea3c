/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tapcopy.c - the floor of the forwarding benchmark: two TAPs, and a copy between them
 *
 * What any gateway on TAP devices pays before it does anything: one read and one write per frame, in one
 * thread. Only the MAC addresses are rewritten, because the hosts on both wires must be told apart; there
 * is no parsing, no table, no NAT. With --offload frames carry a virtio_net_hdr and may be TSO frames of
 * 64 KiB, which is the floor of a gateway that uses segmentation offload.
 *
 *   tapcopy [--offload] LEFT LEFT_MAC LEFT_HOST_MAC RIGHT RIGHT_MAC RIGHT_HOST_MAC
 *
 * A frame for LEFT_MAC that comes in on LEFT leaves on RIGHT, from RIGHT_MAC to RIGHT_HOST_MAC; and the
 * other way round. Everything else is dropped. Prints "ready" once both devices are there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	BURST = 64, /* frames from one side before the other has its turn */
	FRAME_MAX = 65536 + 64,
};

/**
 * struct side - one TAP and the host behind it
 * @fd:   the TAP, non-blocking
 * @mac:  address that stands for us on this wire
 * @host: address of the host that frames go to
 */
struct side {
	int fd;
	uint8_t mac[ETH_ALEN];
	uint8_t host[ETH_ALEN];
};

static void die(const char *what)
{
	fprintf(stderr, "tapcopy: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void parse_mac(const char *text, uint8_t mac[ETH_ALEN])
{
	for (int i = 0; i < ETH_ALEN; i++) {
		char *end;

		mac[i] = (uint8_t)strtoul(text, &end, 16);
		if (end != text + 2 || *end != (i < ETH_ALEN - 1 ? ':' : '\0')) {
			errno = EINVAL;
			die(text);
		}
		text = end + 1;
	}
}

static int open_tap(const char *name, bool offload)
{
	struct ifreq ifr = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0)) };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		die("/dev/net/tun");
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		die(name);
	if (offload && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0)
		die("TUNSETOFFLOAD");
	return fd;
}

/* Give the frame its next hop's address; false if it is not for us. */
static bool readdress(const struct side *from, const struct side *to, uint8_t *frame, size_t len)
{
	struct ether_header *eth = (struct ether_header *)frame;

	if (len < sizeof(*eth) || memcmp(eth->ether_dhost, from->mac, ETH_ALEN) != 0)
		return false;
	memcpy(eth->ether_dhost, to->host, ETH_ALEN);
	memcpy(eth->ether_shost, to->mac, ETH_ALEN);
	return true;
}

/*
 * Move up to a burst of frames: read all, then write all, as the gateway does, because a receiver that is
 * woken once a burst costs the machine less. Returns false when @from has no more.
 */
static bool copy(const struct side *from, const struct side *to, size_t header)
{
	static uint8_t frames[BURST][FRAME_MAX];
	ssize_t lens[BURST];
	int n = 0;

	for (; n < BURST; n++) {
		lens[n] = read(from->fd, frames[n], FRAME_MAX);
		if (lens[n] < 0 && errno != EAGAIN)
			die("read");
		if (lens[n] < 0)
			break;
	}
	for (int i = 0; i < n; i++) {
		if ((size_t)lens[i] < header ||
		    !readdress(from, to, frames[i] + header, (size_t)lens[i] - header))
			continue;
		/* A full queue on the other wire is a lost frame, as it would be on a switch. */
		if (write(to->fd, frames[i], (size_t)lens[i]) < 0 && errno != EAGAIN && errno != EIO)
			die("write");
	}
	return n == BURST;
}

int main(int argc, char **argv)
{
	bool offload = argc > 1 && strcmp(argv[1], "--offload") == 0;
	char **arg = argv + 1 + offload;
	size_t header = offload ? sizeof(struct virtio_net_hdr) : 0;
	struct side left, right;

	if (argc - 1 - offload != 6) {
		fprintf(stderr,
			"usage: tapcopy [--offload] LEFT LEFT_MAC LEFT_HOST_MAC RIGHT RIGHT_MAC RIGHT_HOST_MAC\n");
		return 2;
	}
	left.fd = open_tap(arg[0], offload);
	parse_mac(arg[1], left.mac);
	parse_mac(arg[2], left.host);
	right.fd = open_tap(arg[3], offload);
	parse_mac(arg[4], right.mac);
	parse_mac(arg[5], right.host);
	puts("ready");
	fflush(stdout);
	for (;;) {
		bool more = copy(&left, &right, header);

		more |= copy(&right, &left, header);
		if (!more) {
			struct pollfd fds[] = { { .fd = left.fd, .events = POLLIN },
						{ .fd = right.fd, .events = POLLIN } };

			if (poll(fds, 2, -1) < 0 && errno != EINTR)
				die("poll");
		}
	}
}
