/* SPDX-License-Identifier: Apache-2.0 */
/**
 * stall.c - one thread of a process stands still for a while; the others run on
 *
 *   stall TID MS
 *
 * A debugger's stop (PTRACE_INTERRUPT) holds one thread, where SIGSTOP holds all of them: this is how a control
 * plane hangs while its fast path forwards. Prints a JSON line when the thread stands, and one when it runs.
 */
#include "probe.h"

#include <sys/ptrace.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
	struct timespec pause;
	pid_t tid;
	long ms;

	if (argc != 3)
		return fprintf(stderr, "see the head of stall.c\n"), 2;
	tid = (pid_t)strtol(argv[1], NULL, 10);
	ms = strtol(argv[2], NULL, 10);
	pause = (struct timespec){ ms / 1000, ms % 1000 * (long)NS_PER_MS };
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0)
		die("stall: seize");
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0 || waitpid(tid, NULL, __WALL) != tid)
		die("stall: interrupt");
	printf("{\"event\": \"stalled\", \"t_ns\": %llu}\n", (unsigned long long)now_ns());
	nanosleep(&pause, NULL);
	if (ptrace(PTRACE_DETACH, tid, NULL, NULL) < 0)
		die("stall: detach");
	printf("{\"event\": \"done\", \"t_ns\": %llu}\n", (unsigned long long)now_ns());
	return 0;
}
