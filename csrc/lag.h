/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lag.h - a histogram of delays: four buckets an octave from 32 us up, so that a percentile is right to a fifth
 *
 *   bucket     0      1      2      3      4      5      6   ...
 *   us      0..32  32..40 40..48 48..56 56..64 64..80 80..96 ...   the upper end excluded; the last has none
 */
#ifndef LAG_H
#define LAG_H

#include "base.h"

enum { LAG_FIRST_SHIFT = 5, LAG_PER_OCTAVE_SHIFT = 2 };

/**
 * struct lag_histogram - How often a delay was how long
 * @count: by bucket
 */
struct lag_histogram {
	counter count[FP_LAG_BUCKETS];
};

static inline uint32_t lag_bucket(uint64_t ns)
{
	const uint64_t us = ns / 1000;
	uint32_t octave, quarter;

	if (us < 1u << LAG_FIRST_SHIFT)
		return 0;
	octave = 63u - (uint32_t)__builtin_clzll(us);
	quarter = (uint32_t)(us >> (octave - LAG_PER_OCTAVE_SHIFT)) & ((1u << LAG_PER_OCTAVE_SHIFT) - 1);
	return min_u32(1 + ((octave - LAG_FIRST_SHIFT) << LAG_PER_OCTAVE_SHIFT) + quarter,
		       FP_LAG_BUCKETS - 1);
}

/* The upper end of a bucket; of the last one UINT64_MAX. */
static inline uint64_t lag_bucket_us(uint32_t bucket)
{
	const uint32_t n = 1u << LAG_PER_OCTAVE_SHIFT;

	if (bucket >= FP_LAG_BUCKETS - 1)
		return UINT64_MAX;
	if (bucket == 0)
		return 1u << LAG_FIRST_SHIFT;
	return (uint64_t)(n + 1 + (bucket - 1) % n)
	       << (LAG_FIRST_SHIFT - LAG_PER_OCTAVE_SHIFT + (bucket - 1) / n);
}

static inline void lag_count(struct lag_histogram *h, uint64_t ns)
{
	counter_add(&h->count[lag_bucket(ns)], 1);
}

#endif /* LAG_H */
