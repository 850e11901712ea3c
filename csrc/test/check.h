/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check.h - numbered checks of a standalone test program
 *
 * A check is CHECK(n, condition) or CHECK_EQ(n, got, want), with a number that is unique in its file, so that
 * a failure is found by its number even when it comes out of a loop. main() ends with
 * `return check_done(name)`.
 * REQUIRE(condition) ends the program: in threads, and where going on makes no sense.
 */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned check_run, check_failed;

static inline void check_that(const char *file, int line, int n, bool ok, const char *what)
{
	check_run++;
	if (ok)
		return;
	check_failed++;
	fprintf(stderr, "%s:%d: check %d failed: %s\n", file, line, n, what);
}

static inline void check_equal(const char *file, int line, int n, uint64_t got, uint64_t want,
			       const char *what)
{
	check_run++;
	if (got == want)
		return;
	check_failed++;
	fprintf(stderr,
		"%s:%d: check %d failed: %s is %" PRIu64 " (0x%" PRIx64 "), not %" PRIu64 " (0x%" PRIx64
		")\n",
		file, line, n, what, got, got, want, want);
}

#define CHECK(n, cond)         check_that(__FILE__, __LINE__, n, cond, #cond)
#define CHECK_EQ(n, got, want) check_equal(__FILE__, __LINE__, n, (uint64_t)(got), (uint64_t)(want), #got)

#define REQUIRE(cond)                                                                        \
	do {                                                                                 \
		if (!(cond)) {                                                               \
			fprintf(stderr, "%s:%d: required: %s\n", __FILE__, __LINE__, #cond); \
			exit(EXIT_FAILURE);                                                  \
		}                                                                            \
	} while (0)

static inline int check_done(const char *name)
{
	printf("%-16s %u checks, %u failed\n", name, check_run, check_failed);
	return check_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif /* CHECK_H */
