/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lease.h - the time for which this node may believe that it still has its role
 *
 * Theory of operation
 *   Whoever sleeps is taken for dead, and does not know it when he wakes: a node that was stopped for a second
 *   finds its fence as it left it, ACTIVE, and its queues full of packets to forward. So the fence is worth
 *   something for a short time only. The pulse thread renews that lease in every pass, and no frame that needs the
 *   role is sent without a look at both (fence.h, tx.c). When the thread has itself been away for longer than the
 *   lease, it does not renew, but asks: probes on every path, as for a suspicion (suspect.h), which the peer answers
 *   at once.
 *
 *   state    event                                                becomes   what follows
 *   held     a pass, in time                                      held      renewed
 *   held     a pass, too late                                     asking    probes; nothing is sent that needs the role
 *   asking   the peer answers a probe of this question            held      what it says is obeyed first: a higher
 *                                                                           term has fenced us by then
 *   asking   a pass, too late again                               asking    the question is put anew
 *   asking   no path is heard, and LEASE_ASK_NS are over          held      nobody is there who could reign
 *   asking   LEASE_PATIENCE_NS are over                           held      it is there, and does not hear us; did it
 *                                                                           reign, its heartbeats would say so
 *
 *   Why this is enough: a peer that takes over because of silence has not heard us for longer than the lease. One that
 *   suspected us and got no answer has asked for longer than the lease. In both cases the thread was away for so long,
 *   and the lease ended before the peer began. What the peer's answer cannot tell yet is what it is about to do:
 *   once it has judged us dead it keeps silent for a while about our probes, unless it reigns (pulse.c).
 *
 *   A node whose peer does not answer probes (an older version) has no lease to lose. Nor does one without a peer.
 *
 * Time is an argument; there is no I/O here.
 */
#ifndef LEASE_H
#define LEASE_H

#include "base.h"

#define LEASE_ASK_NS      (10 * NS_PER_MS)
#define LEASE_PATIENCE_NS (100 * NS_PER_MS)
#define LEASE_PROBE_NS    (2 * NS_PER_MS)

enum lease_end { LEASE_NO_END, LEASE_ANSWERED, LEASE_UNANSWERED };

/**
 * struct lease - The pulse thread's side of it
 * @ns:            how long it lasts; 0: for ever
 * @pass_ns:       when the thread last passed; 0: not yet
 * @asking:        not renewed until somebody answers
 * @asked_ns:      since when
 * @next_probe_ns: when to ask again
 * @stall_ns:      how long the thread was away
 * @end:           how asking ended, until it is reported
 * @ended_ns:      when
 * @path:          @end is LEASE_ANSWERED: where the answer came
 * @asked:         how often it had to ask
 * @unanswered:    ... and nobody answered
 * @longest_ns:    the longest time that it was away
 * @is_asking:     @asking, for control
 */
struct lease {
	uint64_t ns;
	uint64_t pass_ns;
	bool asking;
	uint64_t asked_ns, next_probe_ns, stall_ns;
	enum lease_end end;
	uint64_t ended_ns;
	uint32_t path;
	counter asked, unanswered, longest_ns, is_asking;
};

/**
 * lease_pass() - The thread begins a pass
 * @may_ask: the peer answers probes
 */
void lease_pass(struct lease *l, bool may_ask, uint64_t now_ns);

/**
 * lease_answer() - The peer has answered a probe, and what it says has been obeyed
 * @answers: t_ns of that probe
 */
void lease_answer(struct lease *l, uint32_t path, uint64_t answers, uint64_t now_ns);

/**
 * lease_probe() - Is a probe due?
 * Return: true once for each; the caller sends it on every path.
 */
bool lease_probe(struct lease *l, uint64_t now_ns);

/**
 * lease_until() - End a pass
 * @heard: some path is
 *
 * Return: until when the fence is worth something; 0: as before.
 */
uint64_t lease_until(struct lease *l, bool heard);

/* lease_deadline() - When to pass again, at the latest */
static inline uint64_t lease_deadline(const struct lease *l)
{
	if (l->ns == 0)
		return UINT64_MAX;
	return l->asking ? l->next_probe_ns : l->pass_ns + l->ns / 2;
}

#endif /* LEASE_H */
