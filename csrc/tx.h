/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tx.h - what a worker sends, and the fence in front of it
 *
 * The fence is read again before each FP_TX_BURST frames for a wire: so many, and no more, may leave after this
 * node has lost its role. When the lease is over (lease.h), such frames wait aside (defer.h) while the pulse thread
 * asks the peer.
 *
 * Context: the worker's thread.
 */
#ifndef TX_H
#define TX_H

#include "worker.h"

/**
 * tx_look() - Does this node have its role?
 * Return: FENCE_EXPIRED, too, while older frames wait for the lease.
 */
enum fence_says tx_look(const struct worker *w);

/**
 * tx_is_fenced() - May the frame not leave, since the fence @says so?
 * Return: true if so; then it waits aside, or has its verdict and is counted.
 */
bool tx_is_fenced(struct worker *w, struct fp_frame *f, enum fence_says says);

/* tx_burst() - Send what core_step() decided: to wires, hosts, control, the pulse thread and other workers */
void tx_burst(struct worker *w, struct fp_frame *frames, uint32_t n, uint64_t now_ns);

/**
 * tx_deferred() - Send what waited for the lease, if that was renewed; drop it if it can no longer be
 */
void tx_deferred(struct worker *w, uint64_t now_ns);

/**
 * tx_for_others() - Send frames of control or of the pulse thread; worker 0 does it
 * @ring: struct port_frame
 *
 * Return: true if there were any.
 */
bool tx_for_others(struct worker *w, struct ring *ring);

/* tx_reserve_punt() - A slot of the punt ring, or NULL and a count */
struct fp_punt *tx_reserve_punt(struct worker *w);

#endif /* TX_H */
