/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port_tap.c - port on two TAP devices: one is plugged into the wire, one faces the node's own kernel
 *
 * A TAP's queue hands out one frame a read and takes one a write; there is no batched call. With offload a
 * frame is what a socket made, up to 64 KiB, with a struct virtio_net_hdr in front of it. The devices go
 * when the process goes, whatever way it ends: a dead node leaves no link behind that looks alive.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "port.h"

/* Newer than the headers of Debian 12; a kernel that does not know them says so. */
enum { OFFLOAD_USO4 = 0x20, OFFLOAD_USO6 = 0x40 };

static_assert(sizeof(struct fp_vnet) == sizeof(struct virtio_net_hdr) &&
		      offsetof(struct fp_vnet, hdr_len) == offsetof(struct virtio_net_hdr, hdr_len) &&
		      offsetof(struct fp_vnet, gso_size) == offsetof(struct virtio_net_hdr, gso_size) &&
		      offsetof(struct fp_vnet, csum_start) == offsetof(struct virtio_net_hdr, csum_start) &&
		      offsetof(struct fp_vnet, csum_offset) == offsetof(struct virtio_net_hdr, csum_offset),
	      "read and written as it is");
static_assert((int)FP_VNET_NEEDS_CSUM == VIRTIO_NET_HDR_F_NEEDS_CSUM &&
		      (int)FP_VNET_DATA_VALID == VIRTIO_NET_HDR_F_DATA_VALID &&
		      (int)FP_GSO_TCPV4 == VIRTIO_NET_HDR_GSO_TCPV4 &&
		      (int)FP_GSO_TCPV6 == VIRTIO_NET_HDR_GSO_TCPV6 &&
		      (int)FP_GSO_ECN == VIRTIO_NET_HDR_GSO_ECN,
	      "virtio_net_hdr");

static bool tap_tx_piece(const struct chan *ch, const struct fp_frame *frame, struct piece *piece)
{
	const struct fp_vnet vnet = port_vnet_of(frame);

	*piece = (struct piece){ frame->data, frame->len };
	if (!ch->vnet)
		return true;
	if (!frame->headroom)
		return false;
	piece->data -= sizeof(vnet);
	piece->len += (uint32_t)sizeof(vnet);
	memcpy(piece->data, &vnet, sizeof(vnet));
	return true;
}

static bool tap_rx_piece(const struct chan *ch, const struct fp_frame *frame, struct piece *piece)
{
	*piece = (struct piece){ frame->data, FP_FRAME_MAX };
	if (ch->vnet)
		*piece = (struct piece){ frame->data - sizeof(struct fp_vnet),
					 FP_FRAME_BIG + (uint32_t)sizeof(struct fp_vnet) };
	return !ch->vnet || frame->headroom;
}

static void tap_rx_done(const struct chan *ch, struct fp_frame *frame, uint32_t got)
{
	frame->vnet = (struct fp_vnet){ 0 };
	frame->len = got;
	if (!ch->vnet)
		return;
	memcpy(&frame->vnet, frame->data - sizeof(frame->vnet), sizeof(frame->vnet));
	frame->len -= (uint32_t)sizeof(frame->vnet); /* the kernel writes all of the header */
}

/* One frame; false and errno if there is none. With room in front the header is read there: one piece, not two. */
static bool read_frame(const struct chan *ch, struct fp_frame *frame)
{
	const struct iovec iov[] = { { &frame->vnet, sizeof(frame->vnet) }, { frame->data, FP_FRAME_BIG } };
	struct piece piece;
	ssize_t got;

	if (tap_rx_piece(ch, frame, &piece)) {
		got = read(ch->fd, piece.data, piece.len);
		if (got >= 0)
			tap_rx_done(ch, frame, (uint32_t)got);
	} else {
		got = readv(ch->fd, iov, ARRAY_SIZE(iov));
		frame->len = (uint32_t)(got - (ssize_t)sizeof(frame->vnet));
	}
	return got >= 0;
}

static int tap_rx(struct chan *ch, struct fp_frame *frames, uint32_t n)
{
	uint32_t i = 0, n_bytes = 0;

	while (i < n && n_bytes < PORT_RX_BYTES) {
		if (!read_frame(ch, &frames[i])) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN || i > 0) /* a lasting error comes again with the next burst */
				break;
			return -errno;
		}
		n_bytes += frames[i++].len;
	}
	return (int)i;
}

static ssize_t write_frame(const struct chan *ch, const struct fp_frame *frame)
{
	struct fp_vnet vnet = port_vnet_of(frame);
	const struct iovec iov[] = { { &vnet, sizeof(vnet) }, { frame->data, frame->len } };
	struct piece piece;

	return tap_tx_piece(ch, frame, &piece) ? write(ch->fd, piece.data, piece.len)
					       : writev(ch->fd, iov, ARRAY_SIZE(iov));
}

static int tap_tx(struct chan *ch, const struct fp_frame *frame)
{
	ssize_t sent;

	do
		sent = write_frame(ch, frame);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

static const struct chan_ops tap_ops = {
	.rx = tap_rx,
	.tx = tap_tx,
	.rx_piece = tap_rx_piece,
	.rx_done = tap_rx_done,
	.tx_piece = tap_tx_piece,
};

/* What TUNSETIFF's errno means here, for people. */
static const char *why(int error)
{
	switch (error) {
	case EBUSY: return "a device of that name exists already (is another flexhad running?)";
	case EPERM: return "not permitted: CAP_NET_ADMIN is missing";
	case EINVAL: return "that name is taken by a device that is no multi-queue TAP, or is no valid name";
	case ENOENT: return "/dev/net/tun does not exist: load the module tun";
	default: return strerror(error);
	}
}

/**
 * tap_queue() - Open one queue of a TAP, making the device with the first one
 * @flags: beside IFF_TAP and IFF_NO_PI
 *
 * Return: file descriptor, or -errno.
 */
static int tap_queue(const char *dev, short flags)
{
	struct ifreq ifr = { .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | flags) };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return -errno;
	memcpy(ifr.ifr_name, dev, sizeof(ifr.ifr_name));
	if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

/*
 * Tell the kernel which frames we take. What it may not hand us it cuts and sums itself, so less of it costs
 * speed and nothing else. What we hand to it has no such limits.
 */
static int take_offloads(int fd)
{
	static const unsigned int offers[] = {
		TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | OFFLOAD_USO4 | OFFLOAD_USO6,
		TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
		TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
		TUN_F_CSUM,
		0,
	};
	int header = sizeof(struct fp_vnet);

	if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
		return -errno;
	for (uint32_t i = 0; i < ARRAY_SIZE(offers); i++) {
		if (ioctl(fd, TUNSETOFFLOAD, offers[i]) == 0)
			return 0;
	}
	return -errno;
}

/* Open one queue of a port's TAP as tap_queue() does, and dress it for offload if that is configured. */
static int port_queue(const struct fp_port_cfg *cfg, const char *dev, short flags)
{
	int fd = tap_queue(dev, (short)(flags | (cfg->offload ? IFF_VNET_HDR : 0)));
	int rc;

	if (fd < 0 || !cfg->offload)
		return fd;
	rc = take_offloads(fd);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

/* Give a device of the caller's namespace its MTU and, unless NULL, its MAC. */
static int dress(const char *dev, uint32_t mtu, const uint8_t *mac)
{
	struct ifreq ifr = { .ifr_mtu = (int)mtu };
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = 0;

	if (sock < 0)
		return -errno;
	memcpy(ifr.ifr_name, dev, sizeof(ifr.ifr_name));
	if (ioctl(sock, SIOCSIFMTU, &ifr) < 0)
		rc = -errno;
	if (rc == 0 && mac) {
		ifr.ifr_hwaddr = (struct sockaddr){ .sa_family = ARPHRD_ETHER };
		memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
		if (ioctl(sock, SIOCSIFHWADDR, &ifr) < 0)
			rc = -errno;
	}
	close(sock);
	return rc;
}

static void tap_close(struct port *port)
{
	for (uint32_t q = 0; q < port->n_queues; q++) {
		if (port->wire[q].fd >= 0)
			close(port->wire[q].fd);
		port->wire[q].fd = -1;
	}
	port_tap_close_host(port);
}

void port_tap_close_host(struct port *port)
{
	/* All workers share the host TAP's only queue. */
	if (port->host[0].fd >= 0)
		close(port->host[0].fd);
	for (uint32_t q = 0; q < port->n_queues; q++)
		port->host[q].fd = -1;
}

int port_tap_set_carrier(struct port *port, bool up)
{
	unsigned int carrier = up;

	return ioctl(port->host[0].fd, TUNSETCARRIER, &carrier) < 0 ? -errno : 0;
}

static int open_wire(struct port *port, struct fp_error *err)
{
	const struct fp_port_cfg *cfg = port->cfg;
	int rc;

	for (uint32_t q = 0; q < port->n_queues; q++) {
		/* IFF_TUN_EXCL: the first queue must make the device, not find somebody else's. */
		int fd = port_queue(cfg, cfg->wire_dev,
				    (short)(IFF_MULTI_QUEUE | (q == 0 ? IFF_TUN_EXCL : 0)));

		if (fd < 0)
			return port_fail(err, fd, "port %s: wire TAP %s: %s", cfg->name, cfg->wire_dev,
					 why(-fd));
		port->wire[q] = (struct chan){ .ops = &tap_ops, .fd = fd, .vnet = cfg->offload };
	}
	/* Its own MAC stays the kernel's random one: a bridge swallows frames for its ports' own addresses. */
	rc = dress(cfg->wire_dev, cfg->mtu, NULL);
	if (rc)
		return port_fail(err, rc, "port %s: MTU %u of %s: %s", cfg->name, cfg->mtu, cfg->wire_dev,
				 strerror(-rc));
	return 0;
}

int port_tap_open_host(struct port *port, struct fp_error *err)
{
	const struct fp_port_cfg *cfg = port->cfg;
	int fd = port_queue(cfg, cfg->host_dev, (short)IFF_TUN_EXCL);
	int rc;

	if (fd < 0)
		return port_fail(err, fd, "port %s: host TAP %s: %s", cfg->name, cfg->host_dev, why(-fd));
	for (uint32_t q = 0; q < port->n_queues; q++)
		port->host[q] = (struct chan){ .ops = &tap_ops, .fd = fd, .vnet = cfg->offload };
	rc = dress(cfg->host_dev, cfg->mtu, cfg->mac);
	if (rc)
		return port_fail(err, rc, "port %s: MTU and MAC of %s: %s", cfg->name, cfg->host_dev,
				 strerror(-rc));
	return 0;
}

int port_tap_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues, struct fp_error *err)
{
	int rc;

	port->cfg = cfg;
	port->n_queues = n_queues;
	port->set_carrier = port_tap_set_carrier;
	port->close = tap_close;
	for (uint32_t q = 0; q < n_queues; q++)
		port->wire[q].fd = port->host[q].fd = -1;
	rc = open_wire(port, err);
	if (rc == 0)
		rc = port_tap_open_host(port, err);
	if (rc)
		tap_close(port);
	return rc;
}
