/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bench_step.c - what a packet costs in core_step(), with no I/O: figures to compare, not a check
 *
 *   bench_step [flows]     default: 1,000,000
 *
 * Flows are touched in random order, half of the packets outbound, half inbound, 64 to a burst; frames are
 * written between the measured parts, so they are in the cache as they are after a read(). Medians over
 * bursts: another process on the machine disturbs few of them.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "frames.h"

enum { REMOTES = 20, ROUNDS = 40000 };

struct bench {
	struct fp_config cfg;
	struct core core;
	uint8_t room[FP_BURST_MAX][FP_FRAME_MAX];
	struct fp_frame frames[FP_BURST_MAX];
	uint16_t *external;
	uint64_t rng, now_ns;
};

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint32_t next_random(struct bench *b)
{
	b->rng ^= b->rng << 13;
	b->rng ^= b->rng >> 7;
	b->rng ^= b->rng << 17;
	return (uint32_t)(b->rng >> 16);
}

static int by_size(const void *left, const void *right)
{
	const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static double median_ns(uint64_t *took, uint32_t n)
{
	const uint64_t *middle = took + n / 2;

	qsort(took, n, sizeof(*took), by_size);
	return (double)*middle / FP_BURST_MAX;
}

/* Flow i: inside endpoint i / REMOTES, remote i % REMOTES. */
static void write_packet(struct bench *b, uint32_t k, uint32_t i, bool inbound)
{
	uint32_t inside = i / REMOTES, remote = i % REMOTES;
	struct spec s = { .src = be32_of(0x0a000000 + inside / 50),
			  .dst = be32_of(0xc0000200 + remote),
			  .proto = IPPROTO_NUM_UDP,
			  .sport = (uint16_t)(2000 + inside % 50),
			  .dport = 443,
			  .payload = 18 };

	if (inbound) {
		s.src = s.dst;
		s.dst = WAN_VIP;
		s.sport = s.dport;
		s.dport = b->external[inside];
	}
	b->frames[k] = frames_ipv4(b->room[k], inbound ? WAN : LAN, mac_virtual[inbound ? WAN : LAN], &s);
}

static uint64_t timed_step(struct bench *b)
{
	uint64_t begin = clock_ns();

	core_step(&b->core, b->frames, FP_BURST_MAX, b->now_ns);
	core_account(&b->core, b->frames, FP_BURST_MAX);
	return clock_ns() - begin;
}

static struct bench *setup(uint32_t n_flows)
{
	const struct fp_route routes[] = {
		frames_route(IP4(0, 0, 0, 0), 0, ISP, WAN),
		frames_route(IP4(10, 0, 0, 0), 8, CLIENT, LAN),
	};
	const struct fp_neigh neighs[] = { frames_neigh(CLIENT, mac_client, LAN),
					   frames_neigh(ISP, mac_isp, WAN) };
	/* struct core has members that are aligned to cache lines: calloc() does not do. */
	struct bench *b = aligned_alloc(_Alignof(struct bench), sizeof(*b));
	size_t size;
	void *mem;

	FP_ASSERT(b);
	memset(b, 0, sizeof(*b));
	b->cfg = frames_config(1, n_flows + n_flows / REMOTES + 1000);
	b->cfg.pulse.udp_port = 1;
	b->rng = 88172645463325252u;
	b->now_ns = 1000 * NS_PER_S;
	b->external = calloc(n_flows / REMOTES + 1, sizeof(*b->external));
	size = (core_mem_size(&b->cfg) + (2 << 20) - 1) & ~((size_t)(2 << 20) - 1);
	mem = aligned_alloc(2 << 20, size);
	FP_ASSERT(mem && b->external);
	madvise(mem, size, MADV_HUGEPAGE);
	memset(mem, 0, size);
	FP_ASSERT(core_init(&b->core, &b->cfg, 0, mem, size) == 0);
	core_set_fib(&b->core, fib_build(aligned_alloc(64, fib_mem_size(2, 2)), 1, routes, 2, neighs, 2));
	core_set_role(&b->core, FP_ROLE_ACTIVE, 2, b->now_ns);
	printf("%u flows, %zu MiB\n", n_flows, size >> 20);
	return b;
}

static void open_all(struct bench *b, uint32_t n_flows, const uint32_t *order, const char *what)
{
	uint32_t n_bursts = n_flows / FP_BURST_MAX;
	uint64_t *took = calloc(n_bursts + 1, sizeof(*took)),
		 created = counter_read(&b->core.stat.flows_created);
	double ns;

	FP_ASSERT(n_bursts > 0 && took);
	for (uint32_t burst = 0; burst < n_bursts; burst++) {
		const uint32_t *flows = order + (size_t)burst * FP_BURST_MAX;

		for (uint32_t k = 0; k < FP_BURST_MAX; k++)
			write_packet(b, k, flows[k], false);
		took[burst] = timed_step(b);
		for (uint32_t k = 0; k < FP_BURST_MAX; k++)
			b->external[flows[k] / REMOTES] =
				be16_host(be16_load(b->room[k] + ETH_LEN + IPV4_LEN + L4_SPORT));
	}
	created = counter_read(&b->core.stat.flows_created) - created;
	ns = median_ns(took, n_bursts);
	printf("%s: %.0f ns a session (%.2f M/s), %lu opened, %lu mappings\n", what, ns, 1e3 / ns,
	       (unsigned long)created, (unsigned long)counter_read(&b->core.stat.mappings));
	free(took);
}

int main(int argc, char **argv)
{
	uint32_t n_flows = argc > 1 ? (uint32_t)atoi(argv[1]) / FP_BURST_MAX * FP_BURST_MAX : 1000000;
	struct bench *b = setup(n_flows);
	uint32_t *order = calloc(n_flows, sizeof(*order));
	uint64_t *took = calloc(ROUNDS, sizeof(*took)), begin;

	FP_ASSERT(order && took);
	for (uint32_t i = 0; i < n_flows; i++)
		order[i] = i;
	for (uint32_t i = n_flows - 1; i > 0; i--) {
		uint32_t j = next_random(b) % (i + 1), keep = order[i];

		order[i] = order[j];
		order[j] = keep;
	}
	core_track(&b->core, true);
	open_all(b, n_flows, order, "open, changes tracked");
	for (uint32_t round = 0; round < ROUNDS; round++) {
		for (uint32_t k = 0; k < FP_BURST_MAX; k++)
			write_packet(b, k, order[next_random(b) % n_flows], k & 1);
		b->now_ns += 1000;
		took[round] = timed_step(b);
	}
	printf("known session: %.1f ns a packet, %lu forwarded\n", median_ns(took, ROUNDS),
	       (unsigned long)(counter_read(&b->core.verdicts[V_SNAT]) +
			       counter_read(&b->core.verdicts[V_REVERSE])));
	core_track(&b->core, false);
	b->now_ns += 400 * NS_PER_S;
	begin = clock_ns();
	while (core_expire(&b->core, b->now_ns, 1024) == 1024)
		;
	printf("expire: %.0f ns a session\n", (double)(clock_ns() - begin) / n_flows);
	open_all(b, n_flows, order, "open, slots used before");
	return 0;
}
