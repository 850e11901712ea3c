/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lease.c - renewing the lease, and what is asked when it is over
 */
#include "lease.h"

void lease_pass(struct lease *l, bool may_ask, uint64_t now_ns)
{
	const uint64_t away_ns = l->pass_ns ? now_ns - l->pass_ns : 0;

	l->pass_ns = now_ns;
	if (l->ns == 0 || away_ns <= l->ns || !may_ask)
		return;
	counter_add(&l->asked, !l->asking);
	l->asking = true;
	l->asked_ns = l->next_probe_ns = now_ns; /* who answered before does not know what came after */
	l->stall_ns = away_ns;
}

void lease_answer(struct lease *l, uint64_t answers)
{
	if (answers >= l->asked_ns)
		l->asking = false;
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
		l->asking = false;
	}
	return l->asking ? 0 : l->pass_ns + l->ns;
}
