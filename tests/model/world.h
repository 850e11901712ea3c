/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two nodes over the role table, the paths between them, their disks and their fences; included by the
 * checker that spin generates and by walk.c. `now` is the state of the world (promela.py), the nodes' own
 * states are numbers, and whoever holds the real core says what follows from one (role_table.py).
 */
#ifndef FLEXHA_MODEL_WORLD_H
#define FLEXHA_MODEL_WORLD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { INIT, JOINING, PASSIVE, ACTIVE, MAINTENANCE, FAULT }; /* flexha.core.events.Role */

enum { /* role_table.Kind */
       E_STARTED,
       E_TIMER,
       E_STOP,
       E_ASK,
       E_PERSISTED,
       E_FOUND,
       E_CHANGED,
       E_LOST,
       E_FENCED,
       E_HUNG,
       E_SYNCED,
       E_DRAINED,
       E_DRAIN_FAILED,
       E_GO,
       E_PASSED_ON,
       E_SETTLED,
};

enum { T_HOLD, T_HANDOVER, T_LEAVE, T_WIRES, T_CLAIM }; /* role_table.Timer */

/* What may happen to one node: first what happens by itself, from FAULTS on what the world does to it. */
enum {
	HEAR,
	FENCE,
	TELL_FENCED,
	SILENCE,
	HOLD,
	HANDOVER_LATE,
	LEAVE,
	WIRES_LATE,
	PERSISTED,
	GO,
	PASSED,
	SYNCED,
	DRAINED,
	DRAIN_FAILED,
	PARKED,
	PASSED_ON,
	YIELD,
	FAULTS,
	CRASH = FAULTS,
	CRASH_WRITTEN,
	RESTART,
	STOP,
	FAILOVER,
	ENTER,
	EXIT,
	HANG,
	UNHANG,
	SLOW,
	CUT,
	HEAL,
	MOVES,
};

/* What is wrong with a world (`now.bad`). */
enum { DUAL = 1, TERM_TWICE, TERM_FALLS, CLAIM_BESIDE, IMPOSSIBLE, STUCK };

static const char *const names[] = {
	"hear",      "fence",  "tell-fenced",   "silence", "hold",    "handover-late", "leave",  "wires-late",
	"persisted", "go",     "passed",        "synced",  "drained", "drain-failed",  "parked", "passed-on",
	"yield",     "crash",  "crash-written", "restart", "stop",    "failover",      "enter",  "exit",
	"hang",      "unhang", "slow",          "cut",     "heal",
};

struct cell {
	int64_t key;
	int32_t state, attributes, go, passed, orders;
};

#define CELLS (1u << 22)
static struct cell *cells;
static int ask_fd = -1;
static uint32_t attributes_of[1u << 22];
static unsigned long long beyond;

#ifndef DELIVERED
#define DELIVERED(node, event, state)
#endif

static void transfer(int fd, void *data, size_t size, int writes)
{
	for (char *at = data; size;) {
		const ssize_t n = writes ? write(fd, at, size) : read(fd, at, size);
		if (n <= 0)
			exit(3);
		at += n;
		size -= (size_t)n;
	}
}

static const struct cell *ask(int state, int event)
{
	const int64_t key = ((int64_t)state << 32 | event) + 1;
	uint32_t slot = (uint32_t)((uint64_t)key * 0x9e3779b97f4a7c15ull >> 42);

	if (!cells) {
		cells = calloc(CELLS, sizeof(*cells));
		ask_fd = atoi(getenv("FLEXHA_MODEL_FD"));
	}
	while (cells[slot].key && cells[slot].key != key)
		slot = (slot + 1) % CELLS;
	if (!cells[slot].key) {
		int32_t question[2] = { state, event };
		transfer(ask_fd, question, sizeof(question), 1);
		transfer(0, &cells[slot].state, 5 * sizeof(int32_t), 0);
		cells[slot].key = key;
		if (cells[slot].state >= 0)
			attributes_of[cells[slot].state] = (uint32_t)cells[slot].attributes;
	}
	return &cells[slot];
}

/* ---- what a node's state says ---- */
static uint32_t bits(int i, int shift, uint32_t mask)
{
	return attributes_of[now.st[i]] >> shift & mask;
}

#define ROLE(i)       (bits(i, 0, 7))
#define TERM(i)       (bits(i, 3, 7))
#define TIMER(i, t)   (bits(i, 7 + (t), 1))
#define PERSISTING(i) (bits(i, 12, 15))
#define PHASE(i)      (bits(i, 16, 3))
#define WIRES(i)      (bits(i, 18, 3))
#define IS_SYNCED(i)  (bits(i, 21, 1))
#define FOLLOWS(i)    (ROLE(i) == JOINING || ROLE(i) == PASSIVE)
#define REIGNS(i)     (now.alive[i] && ROLE(i) == ACTIVE && now.fence[i])

/* The heartbeat: role, term, ready, hung, incarnation; C has its role from the fence. */
static int heartbeat(int i)
{
	const int word = (int)bits(i, 0, 127);
	const int role = ROLE(i) == ACTIVE && !now.fence[i] ? (word & ~7) | JOINING : word;

	return role | now.hung[i] << 7 | now.inc[i] << 8 | 1 << 12;
}

static int heard_role(int i)
{
	return now.last[i] & 7;
}

static void forget(int i)
{
	now.alive[i] = now.last[i] = now.live[i] = now.gave[i] = now.fence[i] = now.fpend[i] = 0;
	now.hung[i] = now.told[i] = 0;
	now.go[0] = now.go[1] = now.passed[0] = now.passed[1] = 0;
	now.inc[i] = (now.inc[i] + 1) & 15;
	now.st[i] = i;
}

/* One event to the core of a node, and what its orders do to the world. */
static void deliver(int i, int event)
{
	const struct cell *cell;
	const uint32_t was_role = ROLE(i), was_term = TERM(i), was_wires = WIRES(i);

	if (now.bad || now.over || !now.alive[i])
		return;
	cell = ask(now.st[i], event);
	DELIVERED(i, event, cell->state);
	if (cell->state == -1) {
		now.over = 1;
		beyond++;
		return;
	}
	if (cell->state < 0) {
		now.bad = IMPOSSIBLE;
		return;
	}
	now.st[i] = (short)cell->state;
	if (cell->orders & 2) { /* Stop */
		forget(i);
		return;
	}
	if (TERM(i) < was_term)
		now.bad = TERM_FALLS;
	if (cell->orders & 1) { /* SetRole(ACTIVE) */
		if (now.reigned >> TERM(i) & 1)
			now.bad = TERM_TWICE;
		if (was_role != ACTIVE && now.live[i] && heard_role(i) == ACTIVE &&
		    (uint32_t)(now.last[i] >> 3 & 7) >= TERM(i))
			now.bad = CLAIM_BESIDE;
		now.reigned |= 1 << TERM(i);
		now.fence[i] = 1;
	}
	if (ROLE(i) != ACTIVE)
		now.fence[i] = now.fpend[i] = 0;
	if (WIRES(i) != was_wires)
		now.told[i] = 0;
	if (cell->go)
		now.go[1 - i] = now.up && now.alive[1 - i] ? cell->go : 0;
	if (cell->passed)
		now.passed[1 - i] = now.up && now.alive[1 - i] ? cell->passed : 0;
}

static int can(int i, int move)
{
	const int j = 1 - i;

	if (now.bad || now.over)
		return 0;
	switch (move) {
	case CUT: return i == 0 && now.up && now.cuts;
	case HEAL: return i == 0 && !now.up;
	case RESTART: return !now.alive[i] && now.restarts;
	}
	if (!now.alive[i])
		return 0;
	switch (move) {
	case HEAR:
		return now.up && now.alive[j] && ROLE(j) != INIT &&
		       (now.last[i] != heartbeat(j) || (!now.live[i] && !now.gave[i]));
	case FENCE: return now.up && REIGNS(i) && REIGNS(j) && TERM(j) > TERM(i);
	case TELL_FENCED: return now.fpend[i];
	case SILENCE: return now.live[i] && (!now.up || !now.alive[j]);
	case HOLD: /* it is longer than heartbeats take, both ways */
		return TIMER(i, T_HOLD) && !can(i, HEAR) && !can(j, HEAR);
	case HANDOVER_LATE: return TIMER(i, T_HANDOVER);
	case LEAVE: return TIMER(i, T_LEAVE);
	case WIRES_LATE: return TIMER(i, T_WIRES);
	case PERSISTED: return PERSISTING(i) != 0;
	case GO: return now.up && now.go[i];
	case PASSED: return now.up && now.passed[i];
	case SYNCED:
		return FOLLOWS(i) && !IS_SYNCED(i) && now.up && REIGNS(j) &&
		       !now.go[i]; /* by the same stream */
	case DRAINED: return (PHASE(i) == 1 || PHASE(i) == 3) && now.up && now.alive[j] && FOLLOWS(j);
	case DRAIN_FAILED: return (PHASE(i) == 1 || PHASE(i) == 3) && (!now.up || !now.alive[j]);
	case PARKED: return PHASE(i) == 2;
	case PASSED_ON: return WIRES(i) == 2 && !now.told[i];
	case YIELD: /* csrc/pulse.c: peer_may_take_over() */
		return now.hung[i] && REIGNS(i) && now.live[i] && now.up && heard_role(i) == PASSIVE &&
		       (now.last[i] >> 6 & 3) == 1;
	case CRASH: return now.crashes;
	case CRASH_WRITTEN: return now.crashes && PERSISTING(i);
	case STOP: return now.stops;
	case FAILOVER: return now.asks && ROLE(i) == ACTIVE;
	case ENTER: return now.asks && ROLE(i) != MAINTENANCE;
	case EXIT: return ROLE(i) == MAINTENANCE;
	case HANG: return now.hangs && !now.hung[i];
	case UNHANG: return now.hung[i];
	case SLOW: return now.slow && TIMER(i, T_CLAIM);
	}
	return 0;
}

static void hear(int i)
{
	const int was = now.last[i], is = heartbeat(1 - i), reigned = (was & 7) == ACTIVE;

	if (was && was >> 8 != is >> 8 && now.live[i]) {
		now.live[i] = 0;
		deliver(i, E_LOST | (was & 255) << 5 | (is & 255) << 13);
	}
	if (!now.alive[i])
		return;
	now.gave[i] = (is >> 7 & 1) && (is & 7) != ACTIVE && (now.gave[i] || (was && reigned));
	now.last[i] = (short)is;
	if (now.gave[i]) {
		if (now.live[i]) {
			now.live[i] = 0;
			deliver(i, E_LOST | (is & 255) << 5 | 255 << 13);
		}
	} else if (now.live[i]) {
		deliver(i, E_CHANGED | (is & 255) << 5 | (was & 255) << 13);
	} else {
		now.live[i] = 1;
		deliver(i, E_FOUND | (is & 255) << 5);
	}
}

/* Nothing more comes by itself: is all well? */
static int is_well(void)
{
	int healthy = 0, reigning = 0;

	for (int i = 0; i < 2; i++) {
		if (!now.alive[i])
			continue;
		if (PHASE(i) || WIRES(i) || TIMER(i, T_CLAIM) || (ROLE(i) == ACTIVE && !now.fence[i]))
			return 0;
		healthy += (FOLLOWS(i) || ROLE(i) == ACTIVE) && !now.hung[i];
		reigning += REIGNS(i);
	}
	return (!healthy || reigning) && (reigning < 2 || !now.up);
}

static void look(void)
{
	int quiet = 1;

	if (now.bad || now.over)
		return;
	if (REIGNS(0) && REIGNS(1)) {
		if (!now.split || (now.up && !can(0, FENCE) && !can(1, FENCE)))
			now.bad = DUAL;
	} else if (now.up && !now.hung[0] && !now.hung[1] && !can(0, HEAR) && !can(1, HEAR) &&
		   !TIMER(0, T_CLAIM) && !TIMER(1, T_CLAIM)) {
		now.split = 0;
	}
	for (int i = 0; i < 2 && quiet; i++) {
		for (int move = 0; move < FAULTS && quiet; move++)
			quiet = !can(i, move);
	}
	if (quiet && !now.bad && !is_well())
		now.bad = STUCK;
}

static void tell(const char *name, int i)
{
	static const char *const roles[] = { "INIT", "JOINING", "PASSIVE", "ACTIVE", "MAINTENANCE", "FAULT" };

	printf("%c %-14s", 'a' + i, name);
	for (int n = 0; n < 2; n++)
		printf(" %c %s%s %d%s", 'a' + n, now.alive[n] ? "" : "dead ", roles[ROLE(n)], (int)TERM(n),
		       now.fence[n] ? " open" : "");
	printf("%s\n", now.up ? "" : " (cut)");
}

static void fire(int i, int move)
{
	switch (move) {
	case HEAR: hear(i); break;
	case FENCE:
		now.fence[i] = 0;
		now.fpend[i] = (unsigned char)TERM(1 - i);
		break;
	case TELL_FENCED: {
		const int term = now.fpend[i];
		now.fpend[i] = 0;
		deliver(i, E_FENCED | term << 5);
		break;
	}
	case SILENCE:
		now.live[i] = 0;
		deliver(i, E_LOST | (now.last[i] & 255) << 5 | 255 << 13);
		break;
	case HOLD: deliver(i, E_TIMER | T_HOLD << 5); break;
	case HANDOVER_LATE: deliver(i, E_TIMER | T_HANDOVER << 5); break;
	case LEAVE: deliver(i, E_TIMER | T_LEAVE << 5); break;
	case WIRES_LATE: deliver(i, E_TIMER | T_WIRES << 5); break;
	case PERSISTED: {
		const int term = (int)PERSISTING(i);
		now.disk[i] = (unsigned char)term;
		deliver(i, E_PERSISTED | term << 5);
		break;
	}
	case GO: {
		const int term = now.go[i];
		now.go[i] = 0;
		if (FOLLOWS(i))
			deliver(i, E_GO | term << 5);
		break;
	}
	case PASSED: {
		const int term = now.passed[i];
		now.passed[i] = 0;
		deliver(i, E_PASSED_ON | term << 5);
		break;
	}
	case SYNCED: deliver(i, E_SYNCED | 1 << 5); break;
	case DRAINED: deliver(i, E_DRAINED); break;
	case DRAIN_FAILED: deliver(i, E_DRAIN_FAILED); break;
	case PARKED: deliver(i, E_SETTLED | 1 << 5); break;
	case PASSED_ON:
		now.told[i] = 1;
		deliver(i, E_SETTLED | 2 << 5);
		break;
	case YIELD:
		now.fence[i] = 0;
		deliver(i, E_HUNG | 2 << 5);
		break;
	case CRASH_WRITTEN:
		now.disk[i] = (unsigned char)PERSISTING(i);
		/* fall through */
	case CRASH:
		now.crashes--;
		forget(i);
		break;
	case RESTART:
		now.restarts--;
		now.alive[i] = 1;
		deliver(i, E_STARTED | now.disk[i] << 5);
		break;
	case STOP:
		now.stops--;
		deliver(i, E_STOP);
		break;
	case FAILOVER:
		now.asks--;
		deliver(i, E_ASK);
		break;
	case ENTER:
		now.asks--;
		deliver(i, E_ASK | 1 << 5);
		break;
	case EXIT: deliver(i, E_ASK | 2 << 5); break;
	case HANG:
		now.hangs--;
		now.hung[i] = 1;
		now.split = 1; /* it counts as lost, and may claim for itself */
		if (can(i, YIELD))
			now.fence[i] = 0, deliver(i, E_HUNG | 2 << 5);
		else
			deliver(i, E_HUNG | 1 << 5);
		break;
	case UNHANG:
		now.hung[i] = 0;
		deliver(i, E_HUNG);
		break;
	case SLOW:
		now.slow--;
		deliver(i, E_TIMER | T_CLAIM << 5);
		break;
	case CUT:
		now.cuts--;
		now.up = 0;
		now.split = 1;
		now.go[0] = now.go[1] = now.passed[0] = now.passed[1] = 0;
		break;
	case HEAL: now.up = 1; break;
	}
	look();
	if (getenv("FLEXHA_MODEL_TRACE"))
		tell(names[move], i);
}

/* What promela.py reads of the checker's words. */
__attribute__((unused)) static void fault(void)
{
	printf("wrong: %d\n", now.bad);
}

__attribute__((destructor)) static void count(void)
{
	printf("beyond: %llu\n", beyond);
}

static void begin(void)
{
	now.up = 1;
	now.st[0] = 0;
	now.st[1] = 1;
	for (int i = 0; i < 2; i++) {
		now.alive[i] = 1;
		deliver(i, E_STARTED);
	}
}

#endif
