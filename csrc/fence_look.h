/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fence_look.h - the look at the fence before frames leave that need the role; fence.h has the rules, and no clock
 */
#ifndef FENCE_LOOK_H
#define FENCE_LOOK_H

#include "clock.h"
#include "fence.h"

/* fence_look() - FENCE_EXPIRED: ACTIVE, but nobody has said so lately */
static inline enum fence_says fence_look(const struct fence *f)
{
	const uint64_t until_ns = fence_lease(f);

	if (!fence_is_active(f))
		return FENCE_CLOSED;
	return clock_now() < until_ns ? FENCE_OPEN : FENCE_EXPIRED;
}

#endif /* FENCE_LOOK_H */
