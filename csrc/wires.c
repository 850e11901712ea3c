/* SPDX-License-Identifier: Apache-2.0 */
/**
 * wires.c - parking the wires, and passing on
 */
#include <sys/epoll.h>

#include "wires.h"

enum { MODE_BITS = 2, MODE_MASK = (1 << MODE_BITS) - 1 };

static uint32_t mode_of(uint64_t word)
{
	return word & MODE_MASK;
}

/* ---- control ---- */

int plane_set_wires(struct plane *pl, uint32_t mode, uint64_t now_ns)
{
	const uint64_t number = atomic_load_explicit(&pl->wires, memory_order_relaxed) >> MODE_BITS;

	if (mode > FP_WIRES_PASS_ON)
		return -EINVAL;
	atomic_store(&pl->wires, (number + 1) << MODE_BITS | mode); /* pairs with wires_obey() */
	for (uint32_t i = 0; i < pl->n_workers; i++) {
		if (pl->running)
			doorbell_ring(&pl->workers[i].bell);
		else
			wires_obey(&pl->workers[i], now_ns);
	}
	for (uint32_t i = 0; i < pl->n_workers && !pl->running; i++)
		wires_settle(&pl->workers[i]);
	return 0;
}

bool plane_wires_settled(const struct plane *pl)
{
	const uint64_t word = atomic_load_explicit(&((struct plane *)(uintptr_t)pl)->wires,
						   memory_order_relaxed);

	for (uint32_t i = 0; i < pl->n_workers; i++)
		if (atomic_load(&pl->workers[i].wires_settled) != word) /* pairs with wires_settle() */
			return false;
	return true;
}

/* ---- the worker ---- */

/* Level-triggered, a queue that nobody reads would keep the worker awake. One that was forgotten stays so. */
static void watch_wires(struct worker *w, bool on)
{
	struct epoll_event conduit = { .events = on ? EPOLLIN : 0, .data.u32 = SOURCE_CONDUIT };

	epoll_ctl(w->epfd, EPOLL_CTL_MOD, w->plane->conduit.rx[w->index], &conduit); /* if there is one */
	for (uint32_t p = 0; p < w->plane->cfg->n_ports; p++) {
		struct epoll_event ev = { .events = on ? EPOLLIN : 0, .data.u32 = SOURCE_WIRE + p };

		epoll_ctl(w->epfd, EPOLL_CTL_MOD, w->plane->ports[p].wire[w->index].fd, &ev);
	}
}

/* The conduit is one: what the peer has sent by it to the ACTIVE node waits as well, and is passed on. */
static uint32_t all_wires(const struct worker *w)
{
	const uint32_t conduit = w->plane->conduit.rx[w->index] >= 0 ? 1u << SOURCE_CONDUIT : 0;

	return ((1u << w->plane->cfg->n_ports) - 1) << SOURCE_WIRE | conduit;
}

static void ring_others(const struct worker *w)
{
	for (uint32_t i = 0; i < w->plane->n_workers; i++)
		if (i != w->index)
			doorbell_ring(&w->plane->workers[i].bell);
}

void wires_obey(struct worker *w, uint64_t now_ns)
{
	const uint64_t word = atomic_load_explicit(&w->plane->wires, memory_order_acquire);
	const bool park = mode_of(word) == FP_WIRES_PARK;

	if (likely(word == w->wires_word))
		return;
	if (word != w->wires_asked) {
		w->wires_asked = word;
		w->wires_until_ns = now_ns + WIRES_PATIENCE_MS * NS_PER_MS;
	}
	if (park && w->core.park.n && now_ns < w->wires_until_ns)
		return;
	w->wires_word = word;
	if (park != (w->parked != 0))
		watch_wires(w, !park);
	w->parked = park ? all_wires(w) : 0;
	w->core.passes_on = mode_of(word) == FP_WIRES_PASS_ON;
	w->unread = w->core.passes_on ? all_wires(w) : 0;
	w->ready = (w->ready | w->unread) & ~w->parked;
	atomic_store(&w->wires_seen, word); /* pairs with has_come_to_rest() */
	if (park && w->plane->running)
		ring_others(w);
}

/* Nobody hands on what he has read any more, and what was handed on, or waited for the peer, has gone. */
static bool has_come_to_rest(const struct worker *w)
{
	struct plane *pl = w->plane;

	for (uint32_t i = 0; i < pl->n_workers; i++)
		if (atomic_load(&pl->workers[i].wires_seen) != w->wires_word)
			return false;
	for (uint32_t from = 0; from < pl->n_workers; from++)
		if (from != w->index && !ring_is_empty(handoff_ring(pl, from, w->index)))
			return false;
	return counter_read(&w->core.commit.hold.n) == 0;
}

void wires_settle(struct worker *w)
{
	if (likely(!wires_is_unsettled(w)) || w->wires_word != w->wires_asked)
		return;
	if (w->parked ? !has_come_to_rest(w) : w->unread != 0)
		return;
	atomic_store(&w->wires_settled, w->wires_word); /* pairs with plane_wires_settled() */
	w->signal = true;
}
