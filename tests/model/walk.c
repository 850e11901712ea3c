// SPDX-License-Identifier: Apache-2.0
/* A random walk through a world: `walk SEED`; a line for each event that a core gets, and its new state. */
#include <stdio.h>

#include "world_state.h"
static struct world now = { LIMITS };
#define DELIVERED(node, event, state) printf("%d %d %d\n", node, event, state)
#include "world.h"

int main(int argc, char **argv)
{
	uint64_t seed = (argc > 1 ? strtoull(argv[1], NULL, 10) + 1 : 1) * 0x9e3779b97f4a7c15ull;

	begin();
	for (int n = 0; n < 400; n++) {
		int moves[2 * MOVES], count = 0;
		const int last = seed >> 40 & 7 ? 2 * FAULTS : 2 * MOVES; /* mostly, nothing fails */

		for (int at = 0; at < last || (!count && at < 2 * MOVES); at++) {
			if (can(at % 2, at / 2))
				moves[count++] = at;
		}
		if (!count)
			break;
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		const int at = moves[(seed >> 33) % (unsigned)count];
		fire(at % 2, at / 2);
	}
	printf("end %d %d\n", now.bad, now.over);
	return 0;
}
