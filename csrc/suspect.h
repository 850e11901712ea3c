/* SPDX-License-Identifier: Apache-2.0 */
/**
 * suspect.h - suspicion: is the peer dead, or only something near it?
 *
 * Theory of operation
 *   Timers alone are slow, because they must be longer than any stall. But most deaths leave a mark at once: the
 *   cross-connect loses its carrier, or the dead process's kernel closes the sync connection. A mark is no proof,
 *   for a cable may have been pulled, and connections end for many reasons; it is a reason to ask. So a mark starts
 *   a burst of probes on every path, SUSPECT_PROBE_NS apart, which the peer's pulse thread answers at once:
 *
 *   state      event                                          becomes    what follows
 *   calm       a mark                                         probing    probes
 *   probing    another mark                                   probing    it is noted; the time runs on
 *   probing    an answer to one of these probes               calm       refuted: reported, nothing else
 *   probing    no answer for as long as the mark said         calm       confirmed: the peer is dead
 *   probing    our own thread did not run for a while         probing    the time is given back
 *
 *   A probe is a heartbeat with FP_HB_PROBE; the answer to it names the probe's t_ns, which is our own clock. So an
 *   answer cannot be older than the suspicion, however late it comes; an ordinary heartbeat can, and refutes nothing.
 *
 *   A switch that floods what is for the virtual MAC is the weakest mark: it may only have forgotten where ACTIVE is.
 *   So it counts only while the peer reigns, FLOOD_REST_NS apart at least, and each time that it was refuted doubles
 *   that, up to 64 times; it is news for the history only if it was right.
 *
 *   Time is an argument, and there is no I/O here: pulse_thread.c has the clock and sends.
 */
#ifndef SUSPECT_H
#define SUSPECT_H

#include "base.h"

#define SUSPECT_PROBE_NS (2 * NS_PER_MS)
#define SUSPECT_PARK_NS  (100 * NS_PER_MS) /* so long frames are kept for a takeover (store.h) */
#define FLOOD_REST_NS    (100 * NS_PER_MS) /* between two suspicions by FP_MARK_VMAC */
#define FLOOD_CALM_NS    (10 * NS_PER_S)   /* after so long a rest they are as good as the first */
enum { FLOOD_SHIFT_MAX = 6 };

/*
 * What the workers are told, as one word: enum suspect_state, and how many suspicions are over. The number changes
 * whenever the state becomes calm again, and when a mark was not worth a suspicion.
 */
enum suspect_state { SUSPECT_CALM, SUSPECT_ASKED, SUSPECT_DEAD };
enum { SUSPECT_STATE_BITS = 2 };

static inline enum suspect_state suspect_state(uint32_t word)
{
	return (enum suspect_state)(word & ((1u << SUSPECT_STATE_BITS) - 1));
}

static inline uint32_t suspect_number(uint32_t word)
{
	return word >> SUSPECT_STATE_BITS;
}

enum suspect_end { SUSPECT_NO_END, SUSPECT_REFUTED, SUSPECT_CONFIRMED };

/**
 * struct suspicion - What was marked, and what came of asking
 * @probing:       the peer is being asked
 * @marks:         enum fp_mark, a bit each, since it began
 * @probes:        sent since then, on each path
 * @begun_ns:      when
 * @until_ns:      silence until then confirms it
 * @next_probe_ns: when the next probe is due
 * @end:           how the last one ended, until it is reported
 * @ended_ns:      when
 * @path:          @end is SUSPECT_REFUTED: where the answer came
 * @rtt_ns:        ... and how long it took
 */
struct suspicion {
	bool probing;
	uint32_t marks, probes;
	uint64_t begun_ns, until_ns, next_probe_ns;
	enum suspect_end end;
	uint64_t ended_ns;
	uint32_t path;
	uint64_t rtt_ns;
};

/**
 * suspect_mark() - Something speaks for the peer's death
 * @mark:       of enum fp_mark
 * @confirm_ns: so long a silence confirms it
 */
void suspect_mark(struct suspicion *s, uint32_t mark, uint64_t confirm_ns, uint64_t now_ns);

/* suspect_stall() - Nobody has listened since @since_ns; what is longer than a probe's interval does not count */
void suspect_stall(struct suspicion *s, uint64_t since_ns, uint64_t now_ns);

/**
 * suspect_probe() - Is a probe due?
 * Return: true once for each; the caller sends it on every path.
 */
bool suspect_probe(struct suspicion *s, uint64_t now_ns);

/**
 * suspect_answer() - The peer has answered a probe
 * @answers: t_ns of that probe
 */
void suspect_answer(struct suspicion *s, uint32_t path, uint64_t answers, uint64_t now_ns);

/**
 * suspect_judge() - Has silence confirmed it?
 * Return: true once, when it has.
 */
bool suspect_judge(struct suspicion *s, uint64_t now_ns);

/* suspect_deadline() - When to look again; UINT64_MAX while calm */
static inline uint64_t suspect_deadline(const struct suspicion *s)
{
	return s->probing ? min_u64(s->next_probe_ns, s->until_ns) : UINT64_MAX;
}

#endif /* SUSPECT_H */
