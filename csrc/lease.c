/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lease.c - renewing the lease, and what is asked when it is over
 */
#include "lease.h"

static void end(struct lease *l, enum lease_end how, uint64_t now_ns)
{
	l->asking = false;
	l->end = how;
	l->ended_ns = now_ns;
	counter_set(&l->is_asking, 0);
}

void lease_pass(struct lease *l, bool may_ask, uint64_t now_ns)
{
	const uint64_t away_ns = l->pass_ns ? now_ns - l->pass_ns : 0;

	l->pass_ns = now_ns;
	if (l->ns == 0 || away_ns <= l->ns)
		return;
	if (away_ns > counter_read(&l->longest_ns))
		counter_set(&l->longest_ns, away_ns);
	if (!may_ask)
		return;
	counter_add(&l->asked, !l->asking);
	l->asking = true;
	counter_set(&l->is_asking, 1);
	l->asked_ns = l->next_probe_ns = now_ns; /* who answered before does not know what came after */
	l->stall_ns = away_ns;
}

void lease_answer(struct lease *l, uint32_t path, uint64_t answers, uint64_t now_ns)
{
	if (!l->asking || answers < l->asked_ns)
		return;
	end(l, LEASE_ANSWERED, now_ns);
	l->path = path;
}

bool lease_probe(struct lease *l, uint64_t now_ns)
{
	if (!l->asking || now_ns < l->next_probe_ns)
		return false;
	l->next_probe_ns = now_ns + LEASE_PROBE_NS; /* late: no catching up in a burst */
	return true;
}

uint64_t lease_until(struct lease *l, bool heard)
{
	if (l->ns == 0)
		return UINT64_MAX;
	if (l->asking && l->pass_ns >= l->asked_ns + (heard ? LEASE_PATIENCE_NS : LEASE_ASK_NS)) {
		counter_add(&l->unanswered, 1);
		end(l, LEASE_UNANSWERED, l->pass_ns);
	}
	return l->asking ? 0 : l->pass_ns + l->ns;
}
