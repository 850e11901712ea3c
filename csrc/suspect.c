/* SPDX-License-Identifier: Apache-2.0 */
/**
 * suspect.c - marks, probes, and what ends a suspicion
 */
#include "suspect.h"

void suspect_mark(struct suspicion *s, uint32_t mark, uint64_t confirm_ns, uint64_t now_ns)
{
	if (!s->probing)
		*s = (struct suspicion){
			.probing = true,
			.begun_ns = now_ns,
			.until_ns = now_ns + confirm_ns,
			.next_probe_ns = now_ns,
		};
	s->marks |= mark;
}

void suspect_stall(struct suspicion *s, uint64_t since_ns, uint64_t now_ns)
{
	const uint64_t from_ns = since_ns > s->begun_ns ? since_ns : s->begun_ns;

	if (s->probing && now_ns > from_ns + SUSPECT_PROBE_NS)
		s->until_ns += now_ns - from_ns - SUSPECT_PROBE_NS;
}

bool suspect_probe(struct suspicion *s, uint64_t now_ns)
{
	if (!s->probing || now_ns < s->next_probe_ns)
		return false;
	s->next_probe_ns = now_ns + SUSPECT_PROBE_NS; /* late: no catching up in a burst */
	s->probes++;
	return true;
}

static void end(struct suspicion *s, enum suspect_end how, uint64_t now_ns)
{
	s->probing = false;
	s->end = how;
	s->ended_ns = now_ns;
}

void suspect_answer(struct suspicion *s, uint32_t path, uint64_t answers, uint64_t now_ns)
{
	if (!s->probing || answers < s->begun_ns)
		return;
	end(s, SUSPECT_REFUTED, now_ns);
	s->path = path;
	s->rtt_ns = now_ns > answers ? now_ns - answers : 0;
}

bool suspect_judge(struct suspicion *s, uint64_t now_ns)
{
	if (!s->probing || s->probes == 0 || now_ns < s->until_ns)
		return false;
	end(s, SUSPECT_CONFIRMED, now_ns);
	return true;
}
