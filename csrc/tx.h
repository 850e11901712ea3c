/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tx.h - what a worker sends, and the fence in front of it
 *
 * The fence is read again before each FP_TX_BURST frames for a wire: so many, and no more, may leave after this
 * node has lost its role.
 *
 * Context: the worker's thread.
 */
#ifndef TX_H
#define TX_H

#include "worker.h"

/* tx_burst() - Send what core_step() decided: to wires, hosts, control, the pulse thread and other workers */
void tx_burst(struct worker *w, struct fp_frame *frames, uint32_t n, uint64_t now_ns);

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
