/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port.h - batched packet I/O: the seam between the workers and what carries frames
 *
 *   driver   wire                                      host
 *   tap      multi-queue TAP, one queue per worker     TAP in the node's namespace
 *   mem      a pair of rings per worker                a pair of rings per worker
 *
 * A port has two sides. Every worker reads its own queue of the wire; worker 0 alone reads the host side.
 * Every worker writes to both.
 */
#ifndef PORT_H
#define PORT_H

#include "base.h"

struct chan;

/**
 * struct chan_ops - What a driver does with one queue
 * @rx: fill at most n frames (.data has FP_FRAME_MAX bytes of room), set .len; returns how many, 0 when
 *      nothing waits, or -errno
 * @tx: send one frame; 0 or -errno; never blocks
 */
struct chan_ops {
	int (*rx)(struct chan *ch, struct fp_frame *frames, uint32_t n);
	int (*tx)(struct chan *ch, const uint8_t *data, uint32_t len);
};

/**
 * struct chan - One queue of one side of a port
 * @ops: driver
 * @fd:  readable when frames wait
 * @mem: port_mem.c's rings
 */
struct chan {
	const struct chan_ops *ops;
	int fd;
	struct mem_chan *mem;
};

/**
 * struct port - A data-plane attachment
 * @cfg:         its configuration
 * @n_queues:    queues of each side, one per worker
 * @wire:        towards the wire
 * @host:        towards the node's own kernel; TAP: one queue, shared
 * @set_carrier: tell the host side whether the wire is alive
 * @close:       undo port_open()
 */
struct port {
	const struct fp_port_cfg *cfg;
	uint32_t n_queues;
	struct chan wire[FP_WORKERS_MAX];
	struct chan host[FP_WORKERS_MAX];
	int (*set_carrier)(struct port *port, bool up);
	void (*close)(struct port *port);
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
 * port_mem_open() - Make the rings of an in-memory port
 *
 * Return: 0 or -errno.
 */
int port_mem_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues, struct fp_error *err);

/**
 * port_mem_put() - A frame arrives at an in-memory port
 * @src: enum fp_src, the side it arrives at
 *
 * Context: one thread for each (queue, side).
 * Return:  0, -ENOBUFS when the ring is full, -EMSGSIZE.
 */
int port_mem_put(struct port *port, uint32_t queue, enum fp_src src, const uint8_t *data, uint32_t len);

/**
 * port_mem_take() - Take a frame that was sent to an in-memory port
 * @data: FP_FRAME_MAX bytes of room
 *
 * Context: one thread for each (queue, side).
 * Return:  its length, 0 when none waits.
 */
uint32_t port_mem_take(struct port *port, uint32_t queue, enum fp_src side, uint8_t *data);

static inline int port_open(struct port *port, const struct fp_port_cfg *cfg, uint32_t n_queues,
			    struct fp_error *err)
{
	return cfg->driver == FP_DRIVER_MEM ? port_mem_open(port, cfg, n_queues, err)
					    : port_tap_open(port, cfg, n_queues, err);
}

#endif /* PORT_H */
