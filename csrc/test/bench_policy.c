/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bench_policy.c - what the lookup of a rule costs, with the snapshot in the cache and flushed from it
 *
 *   bench_policy [rules]     default: 64, 1,000 and 4,096
 *
 * Every rule has prefixes of its own on both sides, a service and, one in four, source ports; the packets match
 * a random one of them. Medians.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "../policy.h"

enum { LOOKUPS = 4096, BATCH = 64, LISTED = 2 };

static uint64_t rng = 88172645463325252u;

static uint32_t next_random(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 16);
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static int by_size(const void *left, const void *right)
{
	const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static uint64_t median(uint64_t *took, uint32_t n)
{
	qsort(took, n, sizeof(*took), by_size);
	return took[n / 2];
}

static void flush(const void *mem, size_t size)
{
#ifdef __SSE2__
	for (size_t i = 0; i < size; i += CACHE_LINE)
		_mm_clflush((const uint8_t *)mem + i);
	_mm_mfence();
#else
	(void)mem, (void)size;
#endif
}

/* A load that misses all caches, as this machine and this clock see it: what figures out of the cache compare with. */
static uint64_t bare_miss_ns(uint64_t none)
{
	static const size_t LINES = 1024;
	static uint64_t took[1024], sum;
	uint64_t *lines = aligned_alloc(CACHE_LINE, LINES * CACHE_LINE);

	memset(lines, 1, LINES * CACHE_LINE);
	for (size_t i = 0; i < LINES; i++) {
		volatile uint64_t *line = &lines[i * 769 % LINES * 8];
		uint64_t t0;

		flush((const void *)(uintptr_t)line, CACHE_LINE);
		t0 = clock_ns();
		sum += *line;
		took[i] = clock_ns() - t0 - none;
	}
	free(lines);
	return median(took, LINES);
}

static void make_rules(struct fp_rule *rules, struct fp_prefix *prefixes, struct fp_service *services,
		       uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		rules[i] = (struct fp_rule){ .id = i + 1,
					     .sport_hi = UINT16_MAX,
					     .n_src = LISTED,
					     .n_dst = LISTED,
					     .first_src = 2 * LISTED * i,
					     .first_dst = 2 * LISTED * i + LISTED,
					     .first_service = i,
					     .n_services = 1 };
		if (i % 4 == 0)
			rules[i].sport_lo = (uint16_t)(1024 + i);
		services[i] = (struct fp_service){ .proto = i & 1 ? 6 : 17,
						   .port_lo = (uint16_t)(i * 7),
						   .port_hi = (uint16_t)(i * 7 + 5) };
		for (uint32_t k = 0; k < 2 * LISTED; k++)
			prefixes[2 * LISTED * i + k] = (struct fp_prefix){
				.addr = addr_from_v4(be32_of((k < LISTED ? 0x0a000000 : 0xc0000000) +
							     (next_random() & 0xffffff))),
				.plen = (uint8_t)(96 + 16 + next_random() % 17)
			};
	}
}

static struct policy_query query_for(const struct fp_rule *rule, const struct fp_prefix *prefixes,
				     const struct fp_service *services)
{
	return (struct policy_query){ .src = prefixes[rule->first_src].addr,
				      .dst = prefixes[rule->first_dst].addr,
				      .sport = 60000,
				      .dport = services[rule->first_service].port_lo,
				      .proto = services[rule->first_service].proto,
				      .out_port = 1 };
}

static void run(uint32_t n)
{
	struct fp_rule *rules = calloc(n, sizeof(*rules));
	struct fp_prefix *prefixes = calloc((size_t)n * 2 * LISTED, sizeof(*prefixes));
	struct fp_service *services = calloc(n, sizeof(*services));
	static const struct fp_config node = { .n_workers = 1, .n_ports = 2 };
	static struct policy_query queries[LOOKUPS];
	static uint64_t warm[LOOKUPS / BATCH], cold[LOOKUPS / BATCH];
	struct fp_policy_cfg cfg = { .rules = rules,
				     .prefixes = prefixes,
				     .services = services,
				     .n_rules = n,
				     .n_prefixes = 2 * LISTED * n,
				     .n_services = n };
	struct policy_decision d;
	uint64_t t0, built, none;
	struct policy *policy;
	uint32_t sum = 0;
	size_t size;

	make_rules(rules, prefixes, services, n);
	t0 = clock_ns();
	size = policy_mem_size(&cfg, 1);
	policy = policy_build(aligned_alloc(CACHE_LINE, size), &cfg, &node);
	built = clock_ns() - t0;
	for (uint32_t i = 0; i < LOOKUPS; i++)
		queries[i] = query_for(&rules[next_random() % n], prefixes, services);
	for (uint32_t i = 0; i < LOOKUPS; i += BATCH) {
		t0 = clock_ns();
		for (uint32_t k = i; k < i + BATCH; k++) {
			policy_decide(policy, &queries[k], &d);
			sum += d.rule;
		}
		warm[i / BATCH] = (clock_ns() - t0) / BATCH;
	}
	none = clock_ns();
	for (uint32_t i = 0; i < 1000; i++)
		clock_ns();
	none = (clock_ns() - none) / 1000;
	for (uint32_t i = 0; i < LOOKUPS / BATCH; i++) {
		flush(policy, size);
		t0 = clock_ns();
		policy_decide(policy, &queries[i], &d);
		cold[i] = clock_ns() - t0 - none;
		sum += d.rule;
	}
	printf("%5u rules  %6zu KiB  built in %6.1f ms  lookup %4" PRIu64 " ns in the cache, %5" PRIu64
	       " ns out of it (one miss: %" PRIu64 " ns)  (%u)\n",
	       n, size >> 10, (double)built / 1e6, median(warm, LOOKUPS / BATCH),
	       median(cold, LOOKUPS / BATCH), bare_miss_ns(none), sum);
	free(policy);
	free(rules);
	free(prefixes);
	free(services);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		run((uint32_t)strtoul(argv[1], NULL, 10));
		return 0;
	}
	run(64);
	run(1000);
	run(POLICY_RULES_MAX);
	return 0;
}
