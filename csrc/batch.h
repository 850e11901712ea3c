/* SPDX-License-Identifier: Apache-2.0 */
/**
 * batch.h - the frames of a worker's burst, read and written by few system calls (uring.h, or the driver's own)
 *
 * Theory of operation
 *   Reading: nobody says how many frames wait in a queue. So as many reads are asked for as the last burst lets
 *   expect, and a few more; those that find nothing cost little. A burst is expected to be small where the last
 *   one was, or where frames were so long that another call does not matter; then the driver reads by itself. Packet sockets
 *   have a ring instead.
 *
 *   Writing: frames are collected for at most FP_TX_BURST, which is what may leave after one look at the fence; the
 *   last look is taken right before they are written.
 *   Whatever cannot be written as it is (cut, completed, to another worker, to the kernel) makes the collected
 *   ones go first, so the order is kept.
 *
 * Context: the worker's thread.
 */
#ifndef BATCH_H
#define BATCH_H

#include "worker.h"

/**
 * batch_open() - Get ready, if the kernel allows it and a port has such queues
 */
void batch_open(struct worker *w);
void batch_close(struct worker *w);

/**
 * batch_rx() - As chan_ops.rx, into w->frames
 */
int batch_rx(struct worker *w, struct chan *ch);

/**
 * batch_tx() - Collect a frame, one of w->frames, for the wire of its .out_port
 *
 * Return: false if it is to be sent by port_tx() now.
 */
bool batch_tx(struct worker *w, struct fp_frame *frame);

/**
 * batch_flush() - Write what is collected; set the verdict of what could not be
 */
void batch_flush(struct worker *w);

#endif /* BATCH_H */
