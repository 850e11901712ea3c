/* SPDX-License-Identifier: Apache-2.0 */
/**
 * base.h - what every file of the fast path leans on: byte order in the type, asserts, counters
 */
#ifndef BASE_H
#define BASE_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fp_abi.h"

/*
 * For what every packet goes through, and for what hardly any does: the first is one piece of code without calls,
 * which would cost a tenth of it, and the second is kept out of its way.
 */
#define HOT  inline __attribute__((always_inline))
#define COLD __attribute__((cold, noinline))

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define CACHE_LINE    64
#define CACHE_ALIGNED __attribute__((aligned(CACHE_LINE)))

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S  UINT64_C(1000000000)

/* Stays on in release builds; for what only a bug of ours can break, never for what a peer can send. */
#define FP_ASSERT(cond)                   \
	do {                              \
		if (unlikely(!(cond)))    \
			__builtin_trap(); \
	} while (0)

static inline uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t max_u32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/*
 * Bring a line into the cache by loading from it. A load that nobody waits for costs what a prefetch costs,
 * but it is never dropped: where a prefetch also misses the TLB, it often is (README.md, "Cost of a packet").
 */
static inline void touch_line(const void *line)
{
	(void)*(const volatile uint32_t *)line;
}

/* ---- byte order: a value in network order has a type of its own ---- */

typedef struct {
	uint16_t raw;
} be16;

typedef struct {
	uint32_t raw;
} be32;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the columns of sync_wire and the swaps below");

static inline be16 be16_of(uint16_t host)
{
	return (be16){ __builtin_bswap16(host) };
}

static inline uint16_t be16_host(be16 v)
{
	return __builtin_bswap16(v.raw);
}

static inline be32 be32_of(uint32_t host)
{
	return (be32){ __builtin_bswap32(host) };
}

static inline uint32_t be32_host(be32 v)
{
	return __builtin_bswap32(v.raw);
}

/* Loads and stores that need no alignment. */
static inline be16 be16_load(const uint8_t *p)
{
	be16 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline be32 be32_load(const uint8_t *p)
{
	be32 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void be16_store(uint8_t *p, be16 v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void be32_store(uint8_t *p, be32 v)
{
	memcpy(p, &v, sizeof(v));
}

static inline uint64_t u64_load(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* ---- addresses: IPv6, or IPv4 as ::ffff:a.b.c.d ---- */

static inline bool addr_eq(const struct fp_addr *a, const struct fp_addr *b)
{
	return ((u64_load(a->b) ^ u64_load(b->b)) | (u64_load(a->b + 8) ^ u64_load(b->b + 8))) == 0;
}

static inline bool addr_is_zero(const struct fp_addr *a)
{
	return (u64_load(a->b) | u64_load(a->b + 8)) == 0;
}

static inline bool addr_is_v4(const struct fp_addr *a)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

static inline struct fp_addr addr_from_v4(be32 v4)
{
	struct fp_addr a = { .b = { [10] = 0xff, [11] = 0xff } };

	be32_store(a.b + 12, v4);
	return a;
}

static inline be32 addr_v4(const struct fp_addr *a)
{
	return be32_load(a->b + 12);
}

/* ---- counters: written by one worker, read by the control thread at any time ---- */

typedef struct {
	_Atomic uint64_t v;
} counter;

/* Single writer, so load + store is enough; relaxed, because a reader wants the value and no order. */
static inline void counter_add(counter *c, uint64_t n)
{
	atomic_store_explicit(&c->v, atomic_load_explicit(&c->v, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline void counter_set(counter *c, uint64_t n)
{
	atomic_store_explicit(&c->v, n, memory_order_relaxed);
}

static inline uint64_t counter_read(const counter *c)
{
	/* Older C11 libraries want a non-const pointer; the object itself is not changed. */
	return atomic_load_explicit(&((counter *)(uintptr_t)c)->v, memory_order_relaxed);
}

#endif /* BASE_H */
