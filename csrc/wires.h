/* SPDX-License-Identifier: Apache-2.0 */
/**
 * wires.h - whether the workers read the wires, and what a node that has handed over does with what comes
 *
 * DOC: Theory of Operation
 *
 * A planned move of the role loses nothing: while nobody forwards, arrivals wait in the queues of the wires,
 * which hold thousands, and need no memory of ours.
 *
 *   mode      the workers                                     settled, which control waits for
 *   READ      read the wires                                  at once
 *   PARK      leave them alone, and finish what they have     nothing that was read waits: not in a hand-off
 *             read                                            ring, and not for the peer
 *   PASS_ON   read them; not ACTIVE, they send what is for    each worker has found its queue of each wire
 *             the virtual MAC to the peer's port MAC          empty once: what waited has gone
 *
 * Passed on, a frame leaves by the wire it came by, with this port's own MAC as its source: switches learn
 * nothing wrong, and the peer, which reigns, takes it as one that it has to route. So the peer may be silent
 * until it has all of them in their order, and only then announce the virtual MAC.
 *
 * The conduit counts as a wire: what the peer sent by it while we reigned waits there, and goes back to it by the
 * wire that it had come by at the peer's.
 *
 * A frame that waits for its neighbour needs an answer that comes by a wire: before it parks, a worker reads on for
 * at most WIRES_PATIENCE_MS.
 *
 * Control writes the word plane.wires, each worker its own two: wires_seen once it does as told, wires_settled
 * once that is settled. A new word makes all that was said about an older one void, so a number stands in it.
 */
#ifndef WIRES_H
#define WIRES_H

#include "plane.h"

enum { WIRES_PATIENCE_MS = 50 };

/**
 * plane_set_wires() - Tell the workers what to do with the wires; returns at once
 * @mode: enum fp_wires
 *
 * Context: control thread.
 * Return:  0, or -EINVAL for an unknown mode.
 */
int plane_set_wires(struct plane *pl, uint32_t mode, uint64_t now_ns);

/* plane_wires_settled() - Whether all workers have settled what they were told last; control thread */
bool plane_wires_settled(const struct plane *pl);

/* ---- the worker's own thread; control while no thread runs ---- */

/* wires_obey() - Do what control says; between the fence and the wires */
void wires_obey(struct worker *w, uint64_t now_ns);

/* wires_settle() - At the end of a pass: say so if what control said last is settled */
void wires_settle(struct worker *w);

/* wires_is_unsettled() - Whether the worker has to look again soon */
static inline bool wires_is_unsettled(const struct worker *w)
{
	return atomic_load_explicit(&((struct worker *)(uintptr_t)w)->wires_settled, memory_order_relaxed) !=
	       w->wires_asked;
}

#endif /* WIRES_H */
