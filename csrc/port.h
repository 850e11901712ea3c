/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port.h - batched packet I/O: the seam between the workers and what carries frames
 *
 *   driver   wire                                      host
 *   tap      multi-queue TAP, one queue per worker     TAP in the node's namespace
 *   packet   AF_PACKET on a device that exists, one    the same, or a veth pair where there is no /dev/net/tun
 *            socket and ring per worker
 *   mem      a pair of rings per worker                a pair of rings per worker
 *
 * A port has two sides. Every worker reads its own queue of the wire; worker 0 alone reads the host side.
 * Every worker writes to both.
 */
#ifndef PORT_H
#define PORT_H

#include "base.h"

struct chan;
struct fence;

/* A burst ends here, so that what was read is still in the cache when it is written: 4 frames of 64 KiB. */
enum { PORT_RX_BYTES = 256 << 10 };

struct piece {
	uint8_t *data;
	uint32_t len;
};

/**
 * struct chan_ops - What a driver does with one queue
 * @rx: fill at most n frames, set .len and .vnet, stop at PORT_RX_BYTES; returns how many, 0 when nothing
 *      waits, or -errno. .data has FP_FRAME_MAX bytes of room, or FP_FRAME_BIG if the port's cfg.offload is set
 * @tx: send one frame, whose .vnet is all zero unless the queue takes it; 0 or -errno; never blocks
 * @tx_many: NULL, or: send up to FP_TX_BURST frames that are as port_tx_is_plain() says; bit i of what it returns is
 *           set if frames[i] left
 *
 * A queue whose frames are read and written each by a call of its own may say what the call is to be, so that
 * many are made at once (batch.h); these are NULL where there is no such call.
 *
 * @rx_piece: where a frame is to be read to, and how much at most; false: not this one
 * @rx_done:  @got bytes were read there: set .len and .vnet
 * @tx_piece: what is to be written; false: not this one
 */
struct chan_ops {
	int (*rx)(struct chan *ch, struct fp_frame *frames, uint32_t n);
	int (*tx)(struct chan *ch, const struct fp_frame *frame);
	uint32_t (*tx_many)(struct chan *ch, struct fp_frame *const *frames, uint32_t n);
	bool (*rx_piece)(const struct chan *ch, const struct fp_frame *frame, struct piece *piece);
	void (*rx_done)(const struct chan *ch, struct fp_frame *frame, uint32_t got);
	bool (*tx_piece)(const struct chan *ch, const struct fp_frame *frame, struct piece *piece);
};

/**
 * struct chan - One queue of one side of a port
 * @ops: driver
 * @fd:  readable when frames wait
 * @vnet: takes offload frames (gso.h)
 * @len_max: longest frame that may leave, Ethernet header included; 0 = any
 * @mem: port_mem.c's rings
 * @packet: port_packet.c's ring
 * @expected: frames that a burst is likely to have (batch.c)
 * @missed: frames that the kernel could not hand over; added to by rx, taken by the worker
 */
struct chan {
	const struct chan_ops *ops;
	int fd;
	bool vnet;
	uint32_t len_max;
	struct mem_chan *mem;
	struct packet_chan *packet;
	uint32_t expected;
	uint32_t missed;
};

/**
 * struct port - A data-plane attachment
 * @cfg:         its configuration
 * @n_queues:    queues of each side, one per worker
 * @wire:        towards the wire
 * @host:        towards the node's own kernel; but in memory: one queue, shared
 * @set_carrier: tell the host side whether the wire is alive
 * @close:       undo port_open()
 * @rtnl:        port_veth.c: a socket of the namespace that the host device is in
 */
struct port {
	const struct fp_port_cfg *cfg;
	uint32_t n_queues;
	struct chan wire[FP_WORKERS_MAX];
	struct chan host[FP_WORKERS_MAX];
	int (*set_carrier)(struct port *port, bool up);
	void (*close)(struct port *port);
	int rtnl;
};

/* A whole frame on its way to a port's wire, from a thread that is no worker. */
struct port_frame {
	uint32_t len;
	uint8_t port;
	bool fenced; /* may leave only while ACTIVE */
	uint8_t data[FP_FRAME_MAX];
};

/**
 * port_tap_open() - Make the wire TAP and the host TAP in the caller's network namespace
 *
 * Return: 0, or -errno with @err saying which device refused what.
 */
int port_tap_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues, struct fp_error *err);

/**
 * port_tap_open_host(), port_tap_close_host() - The host side alone, for ports whose wire is no TAP
 */
int port_tap_open_host(struct port *port, struct fp_error *err);
void port_tap_close_host(struct port *port);

/* port_tap_set_carrier() - struct port.set_carrier where the host side is a TAP */
int port_tap_set_carrier(struct port *port, bool up);

/**
 * port_packet_open() - Open AF_PACKET sockets on the device cfg.wire_dev in cfg.wire_netns, and make the host side
 *
 * Return: 0, or -errno with @err saying which device refused what.
 */
int port_packet_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues,
		     struct fp_error *err);

/**
 * port_packet_open_wire() - Open the wire's sockets alone, on the device that has the name now
 * @wire: room for port->n_queues channels, for which packet_chan_close() is due either way
 *
 * Return: as port_packet_open().
 */
int port_packet_open_wire(const struct port *port, struct chan *wire, struct fp_error *err);

/**
 * packet_chan_open() - An AF_PACKET socket with a ring on a device of the caller's network namespace
 * @ch:      zeroed; .ops, .fd and .packet are set
 * @device:  is up
 * @vnet:    offload frames may come and go; else what comes is cut and completed (gso.h)
 * @n_slots: frames in the ring, a power of two
 * @fanout:  NULL, or: join these sockets' fanout group; *fanout is its id, or -1: make one
 *
 * Return: 0 or -errno; packet_chan_close() is due either way.
 */
int packet_chan_open(struct chan *ch, const char *device, bool vnet, uint32_t n_slots, int *fanout);
void packet_chan_close(struct chan *ch);
extern const struct chan_ops packet_ops;

/**
 * port_veth_open_host() - Make the host side: a veth pair, whose far end is in a nameless namespace
 *
 * Nobody but our socket holds that namespace; so, like a TAP, the pair goes when the process goes.
 * Return: 0, or -errno with @err saying what was refused.
 */
int port_veth_open_host(struct port *port, struct fp_error *err);
void port_veth_close_host(struct port *port);

/* port_veth_set_carrier() - struct port.set_carrier where the host side is a veth pair */
int port_veth_set_carrier(struct port *port, bool up);

/**
 * port_mem_open() - Make the rings of an in-memory port
 *
 * Return: 0 or -errno.
 */
int port_mem_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues, struct fp_error *err);

/**
 * port_tx() - Send a frame; where the queue takes no offload frames, as segments with their checksums made;
 *             where it is longer than the wire allows and may be, in fragments (ip_cut.h)
 * @fence: NULL, or: stop unless ACTIVE; looked at before each FP_TX_BURST frames but the first, for which
 *         the caller has looked
 * @bytes: set to what left
 *
 * Return: how many frames that were, -ECANCELED when fenced halfway, or what the driver said.
 */
int port_tx(struct chan *ch, struct fp_frame *frame, const struct fence *fence, uint64_t *bytes);

/* Is it one frame there as it is, with nothing to be cut or completed? */
bool port_tx_is_plain(const struct chan *ch, const struct fp_frame *frame);

/**
 * port_mem_put_frame() - A frame arrives at an in-memory port
 * @src:   enum fp_src, the side it arrives at
 * @frame: .data, .len and .vnet; longer than FP_FRAME_MAX, or with .vnet, only where the port has offload
 *
 * Context: one thread for each (queue, side).
 * Return:  0, -ENOBUFS when the ring is full, -EMSGSIZE.
 */
int port_mem_put_frame(struct port *port, uint32_t queue, enum fp_src src, const struct fp_frame *frame);

/**
 * port_mem_take_frame() - Take a frame that was sent to an in-memory port
 * @frame: .data has room, as for chan_ops.rx; .len and .vnet are set
 *
 * Context: one thread for each (queue, side).
 * Return:  its length, 0 when none waits.
 */
uint32_t port_mem_take_frame(struct port *port, uint32_t queue, enum fp_src side, struct fp_frame *frame);

/* The same for frames as on the wire. */
static inline int port_mem_put(struct port *port, uint32_t queue, enum fp_src src, const uint8_t *data,
			       uint32_t len)
{
	const struct fp_frame frame = { .data = (uint8_t *)(uintptr_t)data, .len = len };

	return port_mem_put_frame(port, queue, src, &frame);
}

static inline uint32_t port_mem_take(struct port *port, uint32_t queue, enum fp_src side, uint8_t *data)
{
	struct fp_frame frame = { .data = data };

	return port_mem_take_frame(port, queue, side, &frame);
}

/* port_vnet_of() - The virtio header of a frame that leaves, as the kernel wants it */
struct fp_vnet port_vnet_of(const struct fp_frame *frame);

/* port_fail() - Put a message into @err; returns @rc */
int port_fail(struct fp_error *err, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* port_open() - What the driver of @cfg does; see port_*_open() */
int port_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues, struct fp_error *err);

#endif /* PORT_H */
