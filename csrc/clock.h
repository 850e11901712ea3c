/* SPDX-License-Identifier: Apache-2.0 */
/**
 * clock.h - the only clock of the data path: CLOCK_BOOTTIME, which goes on while the machine is suspended
 */
#ifndef CLOCK_H
#define CLOCK_H

#include <time.h>

#include "base.h"

static inline uint64_t clock_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static inline struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };
}

#endif /* CLOCK_H */
