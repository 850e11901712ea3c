/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port_packet.c - port on a device that exists, a NIC or a veth: AF_PACKET sockets with a ring
 *
 * DOC: Theory of Operation
 *
 * The device has no address and is in a namespace of its own, so that no kernel answers beside us. Each worker
 * has a socket on it, and the sockets share the frames (PACKET_FANOUT, by hash of the flow); a fanout that
 * steers otherwise than our shards costs a hand-off and nothing else.
 *
 *   what came            in the ring                     worker
 *   up to SLOT_SIZE      the frame                       copies it, gives the slot back
 *   an offload frame     its head, TP_STATUS_COPY        reads it from the socket, in one piece
 *   neither              its head                        missed: the socket's buffer was full
 *
 * Slots are small so that thousands fit; the socket's queue is in the order of the slots, so a frame that is
 * there is the one that the slot speaks of. TPACKET_V3 has slots of any size, but would hand a block on only when
 * it is full or a timer of milliseconds says so.
 *
 * Frames leave by write calls (many at once: batch.h), not by a second ring: a veth copies what hangs in a ring
 * before it passes it on (the receiver may keep it for long), so it would be copied twice. csrc/README.md has the
 * figures.
 *
 * All of this carries a struct virtio_net_hdr, whatever cfg.offload says, because a veth hands over what the
 * neighbour's sockets made. Without offload it is cut and completed here, before anybody sees it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "gso.h"
#include "netns.h"
#include "port.h"

/* Newer than the headers of Debian 12. */
#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000
#endif

enum {
	WIRE_SLOTS = 2048, /* what arrives at 200,000 frames/s while a worker waits 10 ms for a CPU */
	SLOT_SIZE = 2048,  /* header, and a frame of MTU 1500 */
	BLOCK_SIZE = 1 << 16,
	QUEUE_BYTES = 32 << 20, /* offload frames that wait in the socket */
	SEND_BYTES = 4 << 20,
	VLAN_BYTES = 4
};

/**
 * struct packet_chan - The ring of one socket
 * @ring:    mapped slots
 * @n_slots: how many, a power of two
 * @next:    number of the slot that is filled next
 * @error:   what the device said meanwhile, as errno
 * @cutting: without offload: @whole is being cut
 * @whole:   ... the offload frame, in room of its own
 * @cut:     ... how far
 */
struct packet_chan {
	uint8_t *ring;
	uint32_t n_slots, next;
	int error;
	bool cutting;
	struct fp_frame whole;
	struct gso_cut cut;
};

/* ---- rx ---- */

static struct tpacket2_hdr *slot_at(const struct packet_chan *pc)
{
	return (struct tpacket2_hdr *)(pc->ring + (size_t)(pc->next & (pc->n_slots - 1)) * SLOT_SIZE);
}

/* The frame that the slot only has the head of. False: it was too long for anybody. */
static bool read_whole(const struct chan *ch, struct fp_frame *frame)
{
	struct iovec iov[] = { { &frame->vnet, sizeof(frame->vnet) },
			       { frame->data, FP_FRAME_BIG - VLAN_BYTES } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = ARRAY_SIZE(iov) };
	ssize_t len;

	do {
		len = recvmsg(ch->fd, &msg, MSG_DONTWAIT);
		if (len < 0 && errno != EINTR && errno != EAGAIN)
			ch->packet->error = errno; /* the device's, told once; the frame still waits */
	} while (len < 0 && errno != EAGAIN);
	if (len < (ssize_t)sizeof(frame->vnet) || (msg.msg_flags & MSG_TRUNC))
		return false;
	frame->len = (uint32_t)len - (uint32_t)sizeof(frame->vnet);
	return true;
}

/* The kernel took the tag out; without it the frame would pass for one of this wire. */
static void put_vlan_tag_back(struct fp_frame *frame, const struct tpacket2_hdr *slot, uint32_t status)
{
	const uint16_t tag[] = { htons((status & TP_STATUS_VLAN_TPID_VALID) ? slot->tp_vlan_tpid
									    : ETH_P_8021Q),
				 htons(slot->tp_vlan_tci) };
	const uint32_t at = 2 * ETH_ALEN;

	if (frame->len < at)
		return;
	memmove(frame->data + at + VLAN_BYTES, frame->data + at, frame->len - at);
	memcpy(frame->data + at, tag, sizeof(tag));
	frame->len += VLAN_BYTES;
	frame->vnet.hdr_len += frame->vnet.hdr_len ? VLAN_BYTES : 0;
	frame->vnet.csum_start += (frame->vnet.flags & FP_VNET_NEEDS_CSUM) ? VLAN_BYTES : 0;
}

/*
 * Fill @frame from a slot. Room: FP_FRAME_BIG, or FP_FRAME_MAX unless the frame is in the socket.
 * False: there is no frame for us.
 */
static bool fill(struct chan *ch, struct fp_frame *frame, const struct tpacket2_hdr *slot, uint32_t status)
{
	const uint8_t *raw = (const uint8_t *)slot + slot->tp_mac;

	if (status & TP_STATUS_COPY) {
		if (!read_whole(ch, frame))
			return false;
	} else if (slot->tp_snaplen < slot->tp_len) {
		return false;
	} else {
		memcpy(&frame->vnet, raw - sizeof(frame->vnet), sizeof(frame->vnet));
		memcpy(frame->data, raw, slot->tp_snaplen);
		frame->len = slot->tp_snaplen;
	}
	if (status & TP_STATUS_VLAN_VALID)
		put_vlan_tag_back(frame, slot, status);
	return true;
}

/* What a port with offload wants of a slot. */
static bool fill_any(struct chan *ch, struct fp_frame *frame, const struct tpacket2_hdr *slot,
		     uint32_t status)
{
	const bool filled = fill(ch, frame, slot, status);

	ch->missed += !filled;
	return filled;
}

/* An offload frame for a port without offload: next_frame() hands it out in pieces. */
static bool begin_cut(struct chan *ch, const struct tpacket2_hdr *slot, uint32_t status)
{
	struct packet_chan *pc = ch->packet;
	struct fp_frame *whole = &pc->whole;

	return fill(ch, whole, slot, status) && whole->vnet.gso_type && gso_check(whole) &&
	       (!ch->len_max || gso_wire_len(whole) <= ch->len_max) && gso_cut_begin(&pc->cut, whole);
}

/* As fill(), for a port without offload: a frame as on the wire. */
static bool fill_plain(struct chan *ch, struct fp_frame *frame, const struct tpacket2_hdr *slot,
		       uint32_t status)
{
	struct fp_vnet vnet;

	memcpy(&vnet, (const uint8_t *)slot + slot->tp_mac - sizeof(vnet), sizeof(vnet));
	if (vnet.gso_type || (status & TP_STATUS_COPY)) {
		ch->packet->cutting = begin_cut(ch, slot, status);
		ch->missed += !ch->packet->cutting;
		return false;
	}
	if (!fill(ch, frame, slot, status) || (!gso_is_plain(frame) && !gso_check(frame))) {
		ch->missed++;
		return false;
	}
	if (!gso_is_plain(frame))
		gso_complete(frame);
	frame->vnet = (struct fp_vnet){ 0 };
	return true;
}

static bool is_ours(const struct tpacket2_hdr *slot)
{
	const struct sockaddr_ll *from =
		(const void *)((const uint8_t *)slot + TPACKET_ALIGN(sizeof(struct tpacket2_hdr)));

	return from->sll_pkttype == PACKET_OUTGOING;
}

static void read_drops(struct chan *ch)
{
	struct tpacket_stats stats = { 0 };
	socklen_t len = sizeof(stats);

	/* Reading them sets them to zero, and ends TP_STATUS_LOSING. */
	if (getsockopt(ch->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0)
		ch->missed += stats.tp_drops;
}

static bool next_frame(struct chan *ch, struct fp_frame *frame)
{
	struct packet_chan *pc = ch->packet;

	for (;;) {
		struct tpacket2_hdr *slot = slot_at(pc);
		uint32_t status;
		bool filled;

		if (pc->cutting) {
			if (gso_cut_next(&pc->cut, frame))
				return true;
			pc->cutting = false;
		}
		status = __atomic_load_n(&slot->tp_status, __ATOMIC_ACQUIRE); /* pairs with the kernel's */
		if (!(status & TP_STATUS_USER))
			return false;
		if (status & TP_STATUS_LOSING)
			read_drops(ch);
		filled = ch->vnet ? fill_any(ch, frame, slot, status) : fill_plain(ch, frame, slot, status);
		filled = filled && !is_ours(slot);
		__atomic_store_n(&slot->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		pc->next++;
		if (filled)
			return true;
	}
}

/* What the device has to say when it has no frames: unless asked for, epoll would report it for ever. */
static int device_error(struct chan *ch)
{
	int error = ch->packet->error;
	socklen_t len = sizeof(error);

	ch->packet->error = 0;
	if (error == 0 && getsockopt(ch->fd, SOL_SOCKET, SO_ERROR, &error, &len))
		error = errno;
	return -error;
}

static int packet_rx(struct chan *ch, struct fp_frame *frames, uint32_t n)
{
	uint32_t i = 0, n_bytes = 0;

	while (i < n && n_bytes < PORT_RX_BYTES && next_frame(ch, &frames[i]))
		n_bytes += frames[i++].len;
	return i > 0 ? (int)i : device_error(ch);
}

/* ---- tx ---- */

static int packet_tx(struct chan *ch, const struct fp_frame *frame)
{
	struct fp_vnet vnet = port_vnet_of(frame);
	const struct iovec iov[] = { { &vnet, sizeof(vnet) }, { frame->data, frame->len } };
	ssize_t sent;

	do {
		sent = writev(ch->fd, iov, ARRAY_SIZE(iov));
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

/* A frame that is refused does not stop those behind it. */
static uint32_t packet_tx_many(struct chan *ch, struct fp_frame *const *frames, uint32_t n)
{
	struct fp_vnet vnet[FP_TX_BURST];
	struct iovec iov[FP_TX_BURST][2];
	struct mmsghdr msgs[FP_TX_BURST] = { 0 };
	uint32_t sent = 0, done = 0;

	for (uint32_t i = 0; i < n; i++) {
		vnet[i] = port_vnet_of(frames[i]);
		iov[i][0] = (struct iovec){ &vnet[i], sizeof(vnet[i]) };
		iov[i][1] = (struct iovec){ frames[i]->data, frames[i]->len };
		msgs[i].msg_hdr.msg_iov = iov[i];
		msgs[i].msg_hdr.msg_iovlen = ARRAY_SIZE(iov[i]);
	}
	while (done < n) {
		const int rc = sendmmsg(ch->fd, &msgs[done], n - done, MSG_DONTWAIT);

		if (rc > 0) {
			sent |= ((1u << rc) - 1) << done;
			done += (uint32_t)rc;
		} else if (errno != EINTR) {
			done++; /* an error is the first one's: else it would have said how many left */
		}
	}
	return sent;
}

const struct chan_ops packet_ops = { .rx = packet_rx, .tx = packet_tx, .tx_many = packet_tx_many };

/* ---- life ---- */

static int set(int fd, int name, int value)
{
	return setsockopt(fd, SOL_PACKET, name, &value, sizeof(value)) ? -errno : 0;
}

static void set_buffer(int fd, int force, int name, int bytes)
{
	/* The first asks for CAP_NET_ADMIN of the machine; without it net.core.[rw]mem_max is the limit. */
	if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof(bytes)))
		setsockopt(fd, SOL_SOCKET, name, &bytes, sizeof(bytes));
}

static int map_ring(struct chan *ch, uint32_t n_slots)
{
	const struct tpacket_req req = {
		.tp_block_size = BLOCK_SIZE,
		.tp_block_nr = n_slots / (BLOCK_SIZE / SLOT_SIZE),
		.tp_frame_size = SLOT_SIZE,
		.tp_frame_nr = n_slots,
	};
	void *ring;

	if (setsockopt(ch->fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)))
		return -errno;
	ring = mmap(NULL, (size_t)n_slots * SLOT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		    ch->fd, 0);
	if (ring == MAP_FAILED)
		return -errno;
	ch->packet->ring = ring;
	ch->packet->n_slots = n_slots;
	return 0;
}

static int join_fanout(int fd, int *group)
{
	const int how = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
	socklen_t len = sizeof(*group);
	int rc;

	if (*group >= 0)
		return set(fd, PACKET_FANOUT, (*group & 0xffff) | how << 16);
	rc = set(fd, PACKET_FANOUT, (how | PACKET_FANOUT_FLAG_UNIQUEID) << 16);
	if (rc == 0 && getsockopt(fd, SOL_PACKET, PACKET_FANOUT, group, &len))
		rc = -errno;
	*group &= 0xffff;
	return rc;
}

static int attach(struct chan *ch, const char *device, int *fanout)
{
	const int index = (int)if_nametoindex(device);
	const struct packet_mreq promiscuous = { .mr_ifindex = index, .mr_type = PACKET_MR_PROMISC };
	const struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = index,
	};

	if (index == 0)
		return -ENODEV;
	if (setsockopt(ch->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)) ||
	    bind(ch->fd, (const struct sockaddr *)&address, sizeof(address)))
		return -errno;
	return fanout ? join_fanout(ch->fd, fanout) : 0;
}

int packet_chan_open(struct chan *ch, const char *device, bool vnet, uint32_t n_slots, int *fanout)
{
	int rc;

	ch->ops = &packet_ops;
	ch->vnet = vnet;
	ch->packet = calloc(1, sizeof(*ch->packet));
	if (!ch->packet)
		return -ENOMEM;
	ch->packet->whole.data = vnet ? NULL : malloc(FP_FRAME_BIG);
	if (!vnet && !ch->packet->whole.data)
		return -ENOMEM;
	/* Protocol 0: it hears nothing before it is bound. */
	ch->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (ch->fd < 0)
		return -errno;
	set_buffer(ch->fd, SO_RCVBUFFORCE, SO_RCVBUF, QUEUE_BYTES);
	set_buffer(ch->fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BYTES);
	rc = set(ch->fd, PACKET_VERSION, TPACKET_V2);
	if (rc == 0)
		rc = set(ch->fd, PACKET_VNET_HDR, 1);
	if (rc == 0)
		rc = set(ch->fd, PACKET_COPY_THRESH, 1);
	if (rc == 0)
		rc = set(ch->fd, PACKET_QDISC_BYPASS, 1);
	if (rc == 0)
		rc = set(ch->fd, PACKET_IGNORE_OUTGOING, 1);
	if (rc == 0)
		rc = map_ring(ch, n_slots);
	return rc ? rc : attach(ch, device, fanout);
}

void packet_chan_close(struct chan *ch)
{
	if (ch->packet) {
		if (ch->packet->ring)
			munmap(ch->packet->ring, (size_t)ch->packet->n_slots * SLOT_SIZE);
		free(ch->packet->whole.data);
		free(ch->packet);
	}
	if (ch->fd >= 0)
		close(ch->fd);
	ch->packet = NULL;
	ch->fd = -1;
}

static const char *why(int error)
{
	switch (error) {
	case ENODEV: return "there is no such device";
	case ENETDOWN:
	case EINVAL: return "it is down, or takes no ring of ours: set it up";
	case EPERM: return "not permitted: CAP_NET_RAW is missing";
	default: return strerror(error);
	}
}

int port_packet_open_wire(const struct port *port, struct chan *wire, struct fp_error *err)
{
	const struct fp_port_cfg *cfg = port->cfg;
	int group = -1, home, rc;

	for (uint32_t q = 0; q < port->n_queues; q++)
		wire[q] = (struct chan){ .fd = -1 };
	rc = netns_enter(cfg->wire_netns, &home);
	if (rc)
		return port_fail(err, rc, "port %s: network namespace %s: %s", cfg->name, cfg->wire_netns,
				 strerror(-rc));
	for (uint32_t q = 0; q < port->n_queues && rc == 0; q++)
		rc = packet_chan_open(&wire[q], cfg->wire_dev, cfg->offload, WIRE_SLOTS,
				      port->n_queues > 1 ? &group : NULL);
	netns_leave(home);
	return rc ? port_fail(err, rc, "port %s: device %s: %s", cfg->name, cfg->wire_dev, why(-rc)) : 0;
}

static void packet_close(struct port *port)
{
	for (uint32_t q = 0; q < port->n_queues; q++)
		packet_chan_close(&port->wire[q]);
	if (port->cfg->host_veth)
		port_veth_close_host(port);
	else
		port_tap_close_host(port);
}

int port_packet_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues,
		     struct fp_error *err)
{
	int rc;

	port->cfg = cfg;
	port->n_queues = n_queues;
	port->set_carrier = cfg->host_veth ? port_veth_set_carrier : port_tap_set_carrier;
	port->close = packet_close;
	port->rtnl = -1;
	for (uint32_t q = 0; q < n_queues; q++)
		port->host[q].fd = -1;
	rc = port_packet_open_wire(port, port->wire, err);
	if (rc == 0)
		rc = cfg->host_veth ? port_veth_open_host(port, err) : port_tap_open_host(port, err);
	if (rc)
		packet_close(port);
	return rc;
}
