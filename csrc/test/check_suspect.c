/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_suspect.c - suspicion with a clock in hand: marks, probes, answers, stalls. Spec: R13, B2
 */
#include "../suspect.h"
#include "check.h"

#define MS(n)   ((uint64_t)(n) * NS_PER_MS)
#define CONFIRM MS(15)

enum { CARRIER = 1, FLOOD = 2 };

static void check_silence_confirms(void)
{
	struct suspicion s = { 0 };

	CHECK(1, !suspect_probe(&s, MS(1)) && !suspect_judge(&s, MS(1)));
	CHECK_EQ(2, suspect_deadline(&s), UINT64_MAX);
	suspect_mark(&s, CARRIER, CONFIRM, MS(100));
	CHECK_EQ(3, suspect_deadline(&s), MS(100));
	for (uint64_t t = 100; t < 115; t++) {
		CHECK_EQ(4, suspect_probe(&s, MS(t)), t % 2 == 0);
		CHECK(5, !suspect_judge(&s, MS(t)));
	}
	suspect_mark(&s, FLOOD, CONFIRM, MS(114)); /* noted; the time runs on */
	CHECK_EQ(6, suspect_deadline(&s), MS(115));
	CHECK(7, suspect_judge(&s, MS(115)));
	CHECK(8, !suspect_judge(&s, MS(116)) && !suspect_probe(&s, MS(116)));
	CHECK_EQ(9, s.end, SUSPECT_CONFIRMED);
	CHECK_EQ(10, s.marks, CARRIER | FLOOD);
	CHECK_EQ(11, s.probes, 8);
	CHECK_EQ(12, s.ended_ns - s.begun_ns, CONFIRM);
}

/* What answers something older than the suspicion says nothing of now. */
static void check_one_answer_refutes(void)
{
	struct suspicion s = { 0 };

	suspect_mark(&s, CARRIER, CONFIRM, MS(100));
	CHECK(20, suspect_probe(&s, MS(100)));
	suspect_answer(&s, 1, 0, MS(101));
	suspect_answer(&s, 1, MS(100) - 1, MS(101));
	CHECK(21, s.probing);
	suspect_answer(&s, 2, MS(100), MS(103));
	CHECK(22, !s.probing);
	CHECK_EQ(23, s.end, SUSPECT_REFUTED);
	CHECK_EQ(24, s.path, 2);
	CHECK_EQ(25, s.rtt_ns, MS(3));
	CHECK(26, !suspect_judge(&s, MS(200)) && !suspect_probe(&s, MS(200)));
	suspect_answer(&s, 1, MS(100), MS(201));
	CHECK_EQ(27, s.path, 2);
	suspect_mark(&s, FLOOD, CONFIRM, MS(300)); /* another one, which that answer does not refute */
	CHECK_EQ(28, s.marks, FLOOD);
	CHECK_EQ(29, s.end, SUSPECT_NO_END);
	suspect_answer(&s, 1, MS(100), MS(301));
	CHECK(30, s.probing);
}

/* Who did not listen has heard no silence. */
static void check_a_stall_of_ours_is_given_back(void)
{
	struct suspicion s = { 0 };

	suspect_stall(&s, MS(50), MS(90)); /* calm: of no interest */
	suspect_mark(&s, CARRIER, CONFIRM, MS(100));
	CHECK(40, suspect_probe(&s, MS(100)));
	suspect_stall(&s, MS(50), MS(100)); /* before it began */
	CHECK_EQ(41, s.until_ns, MS(115));
	suspect_stall(&s, MS(100), MS(102)); /* no longer than from probe to probe */
	CHECK_EQ(42, s.until_ns, MS(115));
	suspect_stall(&s, MS(102), MS(132));
	CHECK_EQ(43, s.until_ns, MS(143));
	CHECK(44, !suspect_judge(&s, MS(132)) && suspect_probe(&s, MS(132)));
	suspect_answer(&s, 0, MS(132), MS(133));
	CHECK_EQ(45, s.end, SUSPECT_REFUTED);
}

/* Nobody is dead who was not asked. */
static void check_nothing_is_confirmed_unasked(void)
{
	struct suspicion s = { 0 };

	suspect_mark(&s, CARRIER, CONFIRM, MS(100));
	CHECK(50, !suspect_judge(&s, MS(200)));
	CHECK(51, suspect_probe(&s, MS(200)));
	CHECK(52, suspect_judge(&s, MS(200)));
}

int main(void)
{
	check_silence_confirms();
	check_one_answer_refutes();
	check_a_stall_of_ours_is_given_back();
	check_nothing_is_confirmed_unasked();
	return check_done("suspect");
}
