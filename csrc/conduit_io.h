/* SPDX-License-Identifier: Apache-2.0 */
/**
 * conduit_io.h - the conduit's sockets on the cross-connect
 *
 * One socket for each worker to receive with, all on the conduit's port (SO_REUSEPORT); a program in the kernel
 * chooses among them by the shard in the option, so that a packet comes to the worker that owns its session. One
 * socket for each shard to send with, shared by all workers: its source port is the shard's. What the kernel makes
 * one big datagram of (UDP_SEGMENT, UDP_GRO) is therefore of one shard.
 *
 * The kernel keeps order within a socket and a cable; so order within a session is that of the wire it came by.
 */
#ifndef CONDUIT_IO_H
#define CONDUIT_IO_H

#include "xc.h"

struct plane;
struct worker;

enum {
	CONDUIT_SEGMENTS = 64, /* of one datagram that the kernel cuts: UDP_MAX_SEGMENTS before Linux 6.9 */
	CONDUIT_DATAGRAM_MAX =
		65000 /* a little less than the longest UDP datagram (65,507 bytes over IPv4) */
};

/**
 * struct conduit_io - What the workers share
 * @rx:     by worker; -1: there is no conduit
 * @tx:     by shard
 * @peer:   where to
 * @orders: conduit.h; written by control
 * @cuts:   the kernel takes UDP_SEGMENT, as far as we know
 */
struct conduit_io {
	int rx[FP_WORKERS_MAX];
	int tx[FP_SHARDS];
	struct xc_peer peer;
	_Atomic uint64_t orders;
	_Atomic bool cuts;
};

/**
 * struct conduit_tx - Packets collected for one datagram that the kernel cuts
 * @room:     packets, each with its header, one behind the other
 * @len:      bytes there
 * @size:     of each but the last
 * @n:        packets
 * @shard:    of all
 * @tos:      DSCP of all
 * @closed:   the last one is shorter: nothing may follow
 * @fenced:   they need the role, and leave after another look at the fence
 * @frames:   what they were made of
 * @n_frames: of them; an offload frame becomes many packets
 */
struct conduit_tx {
	uint8_t *room;
	uint32_t len, size, n;
	uint8_t shard, tos;
	bool closed, fenced;
	struct fp_frame *frames[CONDUIT_SEGMENTS];
	uint32_t n_frames;
};

/**
 * struct conduit_rx - Datagrams that were read, and what of them has been taken
 * @room: of all datagrams
 * @datagrams: as read
 * @n:    of them
 * @next: the one being taken, from @at on
 * @at:   bytes of it that are taken
 */
struct conduit_rx {
	uint8_t *room;
	struct xc_datagram datagrams[XC_BURST_MAX];
	uint32_t n, next, at;
};

struct conduit_counters {
	counter tx_frames, tx_bytes, tx_calls, tx_lost, rx_frames, rx_bytes, rx_calls, rx_missed;
};

/* conduit_init() - Nothing is open */
void conduit_init(struct conduit_io *io);

/**
 * conduit_open() - Open all sockets, if the configuration has a conduit
 *
 * Return: 0, or -errno with @err saying what failed; conduit_close() is due either way.
 */
int conduit_open(struct conduit_io *io, const struct fp_config *cfg, struct fp_error *err);
void conduit_close(struct conduit_io *io);

/* conduit_worker_open() - Room for one worker; conduit_worker_close() is due either way */
int conduit_worker_open(struct worker *w);
void conduit_worker_close(struct worker *w);

/**
 * conduit_send() - Collect a frame with FP_OUT_CONDUIT
 *
 * It stays as it is until conduit_flush(), which changes the .verdict of what could not be sent.
 */
void conduit_send(struct worker *w, struct fp_frame *frame);
void conduit_flush(struct worker *w);

/**
 * conduit_read() - Read what waits; all that was read before has been taken
 * Return: false if nothing more waits.
 */
bool conduit_read(struct worker *w);

/**
 * conduit_next() - The next frames of what was read, in w->frames
 *
 * What is refused is counted here.
 * Return: how many; 0 when all are taken.
 */
uint32_t conduit_next(struct worker *w);

#endif /* CONDUIT_IO_H */
