/* SPDX-License-Identifier: Apache-2.0 */
/**
 * bench_fastpath.c - what a packet, a session and its end cost in a core, with no I/O
 *
 *   bench_fastpath [FLOWS_MAX]     default: 4,000,000; prints one JSON object a line
 *
 * A packet goes through the whole step: parse and validate, lookup, TCP state, NAT, TTL, checksums, next hop,
 * counters. Half of the packets are TCP within a tracked connection, half are UDP; half go out, half come in;
 * frames have 64 bytes, FCS included. They are written between the measured parts into the buffers of a
 * worker's burst, so they are in the cache as they are after a read().
 *
 * Beside it runs a probe: the same frames, one lookup in an open table of 32-byte slots, one rewrite; nothing
 * is validated, tracked or counted. It says what the machine's memory costs at that moment, so that ratios may
 * be compared where absolute figures may not.
 *
 * The machine is not ours alone: other processes, and other guests of its host, slow it for a burst or for
 * seconds. So all parts take turns in short slices; a slice's figure is the median of its bursts. Printed are
 * the quietest slice ("ns") and the median slice ("ns_median").
 */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "frames.h"

enum {
	FLOWS_MAX = 4000000,
	REMOTES = 50,          /* flows of one inside endpoint, where they share a mapping */
	POOLS = 4,             /* where each session has a mapping of its own: as many ports as there are */
	OWN_SESSIONS = 393216, /* of those, half TCP, half UDP: 3 of 4 ports */
	SLICES = 12,
	SLICE_BURSTS = 800,
	LIVES = 3, /* times that all sessions are born and expire */
	REFUSED_MAX = 50,
	BLOCK_BURSTS = 16, /* two workers: bursts between two barriers */
	BLOCKS = 900,
	MEM_FLOWS = 1048576,
	STRIDE = FP_FRAME_MAX + CACHE_LINE, /* as in worker.room: neighbours in different sets of the cache */
	FRAME_LEN = 60
};

enum tcp_step { STEP_SYN, STEP_SYN_ACK, STEP_DATA_OUT, STEP_DATA_IN };

/* An inside endpoint, and what stands for it. */
struct endpoint {
	be32 inside, external;
	be16 inside_port, external_port;
	uint8_t proto;
};

/* A slot of the probe's table; all zero: empty. */
struct probe_slot {
	be32 src, dst;
	be16 sport, dport;
	uint32_t proto;
	be32 new_addr;
	be16 new_port;
	uint16_t side;
	uint8_t mac[8];
};

/* A core, its traffic, and what was measured. */
struct lane {
	struct fp_config cfg;
	struct core core;
	void *mem;
	size_t mem_size;
	struct fib *fib;
	struct endpoint *endpoints;
	uint32_t n_endpoints, remotes, n_flows, next, n_refused;
	uint64_t rng, now_ns;
	struct probe_slot *probe;
	uint64_t probe_mask;
	uint8_t *room;
	struct fp_frame frames[FP_BURST_MAX * BLOCK_BURSTS];
	uint64_t *solo, *both; /* two workers: ns of each block */
};

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint32_t next_random(struct lane *l, uint32_t n)
{
	l->rng ^= l->rng << 13;
	l->rng ^= l->rng >> 7;
	l->rng ^= l->rng << 17;
	return (uint32_t)((l->rng >> 32) * n >> 32);
}

static int by_size(const void *left, const void *right)
{
	const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static double median_of(uint64_t *took, uint32_t n)
{
	const uint64_t *middle = took + n / 2;

	FP_ASSERT(n);
	qsort(took, n, sizeof(*took), by_size);
	return (double)*middle;
}

static void *huge_alloc(size_t size)
{
	void *mem = aligned_alloc(2 << 20, (size + (2 << 20) - 1) & ~(size_t)((2 << 20) - 1));

	FP_ASSERT(mem);
	madvise(mem, size, MADV_HUGEPAGE);
	memset(mem, 0, size);
	return mem;
}

/* ---- frames ---- */

static const uint8_t *template_of(uint8_t proto, enum tcp_step step)
{
	static uint8_t made[2][4][FP_FRAME_MAX];
	static const struct spec tcp[] = {
		[STEP_SYN] = { .tcp_flags = TCP_SYN, .seq = 100 },
		[STEP_SYN_ACK] = { .tcp_flags = TCP_SYN | TCP_ACK_FLAG, .seq = 500, .ack = 101 },
		[STEP_DATA_OUT] = { .tcp_flags = TCP_ACK_FLAG | TCP_PSH,
				    .seq = 101,
				    .ack = 501,
				    .payload = 6 },
		[STEP_DATA_IN] = { .tcp_flags = TCP_ACK_FLAG | TCP_PSH,
				   .seq = 501,
				   .ack = 107,
				   .payload = 6 },
	};
	uint8_t *frame = made[proto == IPPROTO_NUM_TCP][step];
	bool inbound = step == STEP_SYN_ACK || step == STEP_DATA_IN;
	uint32_t port = inbound ? WAN : LAN;

	if (!frame[ETH_TYPE]) {
		struct spec s = proto == IPPROTO_NUM_TCP ? tcp[step] : (struct spec){ .payload = 18 };

		s.proto = proto;
		s.sport = s.dport = 443;
		frames_ipv4(frame, (uint8_t)port, mac_virtual[port], &s);
	}
	return frame;
}

/* Packet @k of a burst: the @remote'th flow of endpoint @e. */
static void write_packet(struct lane *l, uint32_t k, const struct endpoint *e, uint32_t remote,
			 enum tcp_step step)
{
	const bool inbound = step == STEP_SYN_ACK || step == STEP_DATA_IN;
	struct fp_frame *f = &l->frames[k];
	uint8_t *ip = f->data + ETH_LEN, *l4 = ip + IPV4_LEN;
	const uint32_t sum_at = e->proto == IPPROTO_NUM_TCP ? TCP_CSUM : UDP_CSUM;
	be32 inside = inbound ? e->external : e->inside, server = be32_of(0xc0000200 + remote);
	be16 port = inbound ? e->external_port : e->inside_port;
	uint32_t addrs = csum_delta32(be32_of(0), inside) + csum_delta32(be32_of(0), server);

	memcpy(f->data, template_of(e->proto, step), FRAME_LEN);
	be32_store(ip + (inbound ? IP_DST : IP_SRC), inside);
	be32_store(ip + (inbound ? IP_SRC : IP_DST), server);
	be16_store(ip + IP_CSUM, csum_update(be16_load(ip + IP_CSUM), addrs));
	be16_store(l4 + (inbound ? L4_DPORT : L4_SPORT), port);
	be16_store(l4 + sum_at,
		   csum_update(be16_load(l4 + sum_at), addrs + csum_delta16(be16_of(443), port)));
	f->len = FRAME_LEN;
	f->port = inbound ? WAN : LAN;
	f->src = FP_SRC_WIRE;
	f->vnet = (struct fp_vnet){ 0 };
}

enum order { SEQUENTIAL, RANDOM };
enum traffic { MIXED, ONLY_UDP, ONLY_TCP };

/* Packets @first.. of known sessions, outbound and inbound by turns. */
static void write_burst(struct lane *l, uint32_t first, enum order order, enum traffic traffic)
{
	for (uint32_t k = first; k < first + FP_BURST_MAX; k++) {
		uint32_t i = order == RANDOM ? next_random(l, l->n_flows) : l->next++ % l->n_flows;
		uint32_t at = i / l->remotes;

		if (traffic != MIXED) /* endpoints of the two protocols alternate */
			at = (at & ~1u) | (traffic == ONLY_TCP);
		write_packet(l, k, &l->endpoints[at], i % l->remotes, k & 1 ? STEP_DATA_IN : STEP_DATA_OUT);
	}
}

/* ---- the step ---- */

static uint64_t timed_step(struct lane *l, uint32_t first, uint32_t n, uint32_t batch)
{
	uint64_t begin = clock_ns();

	for (uint32_t i = first; i < first + n; i += batch) {
		core_step(&l->core, l->frames + i, batch, l->now_ns);
		core_account(&l->core, l->frames + i, batch);
	}
	begin = clock_ns() - begin;
	l->now_ns += UINT64_C(100) * n;
	return begin;
}

/* A nearly full index refuses a session or two in a million (hash.h). */
static void expect(struct lane *l, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++) {
		const uint32_t verdict = l->frames[k].verdict;

		l->n_refused += verdict == V_TABLE_FULL || verdict == V_TABLE_FULL_SENT;
		FP_ASSERT(verdict == V_SNAT || verdict == V_REVERSE || l->n_refused < REFUSED_MAX);
	}
}

/* ---- the probe ---- */

static uint64_t probe_hash(be32 src, be32 dst, be16 sport, be16 dport, uint8_t proto)
{
	return hash_fold(((uint64_t)src.raw << 32 | dst.raw) ^ UINT64_C(0x9e3779b97f4a7c15),
			 ((uint64_t)sport.raw << 32 | (uint64_t)dport.raw << 8 | proto) ^
				 UINT64_C(0xc2b2ae3d27d4eb4f));
}

/* Two slots a line: the lookup hardly ever leaves the first one, which holds half a slot on average. */
static void probe_add(struct lane *l, struct probe_slot s)
{
	uint64_t at = probe_hash(s.src, s.dst, s.sport, s.dport, (uint8_t)s.proto) & l->probe_mask & ~1ull;

	while (l->probe[at].proto)
		at = (at + 1) & l->probe_mask;
	l->probe[at] = s;
}

static void probe_fill(struct lane *l)
{
	uint64_t n = 64;

	while (n < (uint64_t)l->n_flows * 2 * 3)
		n *= 2;
	l->probe = huge_alloc(n * sizeof(*l->probe));
	l->probe_mask = n - 1;
	for (uint32_t i = 0; i < l->n_flows; i++) {
		const struct endpoint *e = &l->endpoints[i / l->remotes];
		be32 server = be32_of(0xc0000200 + i % l->remotes);

		probe_add(l, (struct probe_slot){ .src = e->inside,
						  .dst = server,
						  .sport = e->inside_port,
						  .dport = be16_of(443),
						  .proto = e->proto,
						  .new_addr = e->external,
						  .new_port = e->external_port });
		probe_add(l, (struct probe_slot){ .src = server,
						  .dst = e->external,
						  .sport = be16_of(443),
						  .dport = e->external_port,
						  .proto = e->proto,
						  .side = 1,
						  .new_addr = e->inside,
						  .new_port = e->inside_port });
	}
}

static void probe_rewrite(struct fp_frame *f, const struct probe_slot *s)
{
	uint8_t *ip = f->data + ETH_LEN, *l4 = ip + IPV4_LEN;
	uint32_t addr_at = s->side ? IP_DST : IP_SRC, port_at = s->side ? L4_DPORT : L4_SPORT;
	uint32_t sum_at = s->proto == IPPROTO_NUM_TCP ? TCP_CSUM : UDP_CSUM;
	uint32_t delta = csum_delta32(be32_load(ip + addr_at), s->new_addr);

	be16_store(ip + IP_CSUM, csum_update(be16_load(ip + IP_CSUM), delta + 0xfffe)); /* TTL - 1 */
	ip[IP_TTL]--;
	delta += csum_delta16(be16_load(l4 + port_at), s->new_port);
	be16_store(l4 + sum_at, csum_update(be16_load(l4 + sum_at), delta));
	be32_store(ip + addr_at, s->new_addr);
	be16_store(l4 + port_at, s->new_port);
	memcpy(f->data, s->mac, 8);
}

static uint64_t timed_probe(struct lane *l)
{
	const struct probe_slot *slots[FP_BURST_MAX];
	uint64_t begin = clock_ns();

	for (uint32_t k = 0; k < FP_BURST_MAX; k++) {
		const uint8_t *ip = l->frames[k].data + ETH_LEN, *l4 = ip + IPV4_LEN;

		slots[k] = &l->probe[probe_hash(be32_load(ip + IP_SRC), be32_load(ip + IP_DST),
						be16_load(l4 + L4_SPORT), be16_load(l4 + L4_DPORT),
						ip[IP_PROTO]) &
				     l->probe_mask & ~1ull];
	}
	for (uint32_t k = 0; k < FP_BURST_MAX; k++)
		touch_line(slots[k]);
	for (uint32_t k = 0; k < FP_BURST_MAX; k++) {
		const uint8_t *ip = l->frames[k].data + ETH_LEN, *l4 = ip + IPV4_LEN;
		const struct probe_slot *s = slots[k];

		while (s->src.raw != be32_load(ip + IP_SRC).raw || s->dst.raw != be32_load(ip + IP_DST).raw ||
		       s->sport.raw != be16_load(l4 + L4_SPORT).raw ||
		       s->dport.raw != be16_load(l4 + L4_DPORT).raw || s->proto != ip[IP_PROTO])
			s = s + 1 < l->probe + l->probe_mask + 1 ? s + 1 : l->probe;
		probe_rewrite(&l->frames[k], s);
	}
	return clock_ns() - begin;
}

/* ---- a lane ---- */

/* Inside endpoints whose sessions are this lane's; several workers share the traffic as the shards say. */
static void make_endpoints(struct lane *l)
{
	l->endpoints = calloc(l->n_endpoints + 1, sizeof(*l->endpoints));
	FP_ASSERT(l->endpoints);
	for (uint32_t n = 0, i = 0; n < l->n_endpoints + (l->n_endpoints & 1); i++) {
		struct endpoint *e = &l->endpoints[n];
		struct fp_addr addr;

		e->inside = be32_of(0x0a000000 + i / 50);
		e->inside_port = be16_of((uint16_t)(2000 + i % 50));
		e->proto = n & 1 ? IPPROTO_NUM_TCP : IPPROTO_NUM_UDP;
		addr = addr_from_v4(e->inside);
		n += core_shard(&l->cfg, &addr, e->inside_port, e->proto) % l->cfg.n_workers ==
		     l->core.worker;
	}
	l->n_endpoints += l->n_endpoints & 1;
}

static struct lane *lane_new(uint32_t n_flows, uint32_t remotes, uint32_t cap, uint32_t worker,
			     uint32_t n_workers)
{
	const struct fp_route routes[] = {
		frames_route(IP4(0, 0, 0, 0), 0, ISP, WAN),
		frames_route(IP4(10, 0, 0, 0), 8, CLIENT, LAN),
	};
	const struct fp_neigh neighs[] = { frames_neigh(CLIENT, mac_client, LAN),
					   frames_neigh(ISP, mac_isp, WAN) };
	struct lane *l = huge_alloc(sizeof(*l));

	l->cfg = frames_config(n_workers, cap);
	l->cfg.pulse.udp_port = 1;
	for (; remotes == 1 && l->cfg.n_pools < POOLS; l->cfg.n_pools++) {
		l->cfg.pools[l->cfg.n_pools] = l->cfg.pools[0];
		l->cfg.pools[l->cfg.n_pools].addr = addr_from_v4(IP4(203, 0, 114, l->cfg.n_pools));
	}
	l->rng = UINT64_C(88172645463325252) + worker;
	l->now_ns = 1000 * NS_PER_S;
	l->remotes = remotes;
	l->n_flows = n_flows;
	l->n_endpoints = (n_flows + remotes - 1) / remotes;
	l->mem_size = core_mem_size(&l->cfg);
	l->mem = huge_alloc(l->mem_size);
	FP_ASSERT(core_init(&l->core, &l->cfg, worker, l->mem, l->mem_size) == 0);
	l->fib = fib_build(huge_alloc(fib_mem_size(2, 2)), 1, routes, 2, neighs, 2);
	core_set_fib(&l->core, l->fib);
	core_set_role(&l->core, FP_ROLE_ACTIVE, 2, l->now_ns);
	make_endpoints(l);
	l->room = huge_alloc((size_t)FP_BURST_MAX * BLOCK_BURSTS * STRIDE);
	for (uint32_t k = 0; k < FP_BURST_MAX * BLOCK_BURSTS; k++)
		l->frames[k].data = l->room + (size_t)k * STRIDE;
	return l;
}

static void lane_free(struct lane *l)
{
	free(l->endpoints);
	free(l->probe);
	free(l->room);
	free(l->fib);
	free(l->mem);
	free(l);
}

/*
 * A policy whose last rule allows everything, behind others that take none of our packets: each of them denies
 * one host of the outside a service. Freed with the lane's core by the end of the program.
 */
static const struct policy *rules_of(const struct lane *l, uint32_t n)
{
	struct fp_rule *rules = calloc(n, sizeof(*rules));
	struct fp_prefix *prefixes = calloc(n, sizeof(*prefixes));
	struct fp_service *services = calloc(n, sizeof(*services));
	struct fp_policy_cfg cfg = { .rules = rules,
				     .prefixes = prefixes,
				     .services = services,
				     .n_rules = n,
				     .n_prefixes = n,
				     .n_services = n };
	const struct policy *policy;

	FP_ASSERT(rules && prefixes && services);
	for (uint32_t i = 0; i < n; i++) {
		rules[i] = (struct fp_rule){ .id = i + 1,
					     .action = FP_DENY,
					     .sport_hi = UINT16_MAX,
					     .first_dst = i,
					     .n_dst = 1,
					     .first_service = i,
					     .n_services = 1 };
		prefixes[i] = (struct fp_prefix){ .addr = addr_from_v4(be32_of(0xc6336400 + 7 * i)),
						  .plen = 128 };
		services[i] = (struct fp_service){ .proto = i % 2 ? IPPROTO_NUM_TCP : IPPROTO_NUM_UDP,
						   .port_lo = (uint16_t)i,
						   .port_hi = (uint16_t)(i + 100) };
	}
	rules[n - 1] = (struct fp_rule){ .id = n, .action = FP_ALLOW, .sport_hi = UINT16_MAX };
	policy = policy_build(huge_alloc(policy_mem_size(&cfg, 1)), &cfg, l->core.cfg);
	free(rules);
	free(prefixes);
	free(services);
	return policy;
}

/* Drain what a peer would be told, as the shell does between bursts; the peer holds it at once. */
static void drain(struct lane *l)
{
	static struct fp_flow_rec told[2 * FP_BURST_MAX];
	uint32_t n;

	do {
		n = core_drain(&l->core, told, ARRAY_SIZE(told), FP_BURST_MAX, l->now_ns);
		if (n)
			core_ack(&l->core, told[n - 1].ev_seq);
	} while (n == ARRAY_SIZE(told));
}

/* Open sessions; where a peer is told of changes, that is part of the time. Returns ns of a session. */
static double open_all(struct lane *l, bool tracked)
{
	const uint32_t n_bursts = (l->n_flows + FP_BURST_MAX - 1) / FP_BURST_MAX;
	uint64_t *took = calloc(n_bursts + 1, sizeof(*took));
	double median;

	FP_ASSERT(took);
	core_track(&l->core, tracked);
	for (uint32_t burst = 0; burst < n_bursts; burst++) {
		for (uint32_t k = 0; k < FP_BURST_MAX; k++) {
			uint32_t i = (burst * FP_BURST_MAX + k) % l->n_flows;

			write_packet(l, k, &l->endpoints[i / l->remotes], i % l->remotes, STEP_SYN);
		}
		took[burst] = timed_step(l, 0, FP_BURST_MAX, FP_BURST_MAX);
		if (tracked) {
			uint64_t begin = clock_ns();

			drain(l);
			took[burst] += clock_ns() - begin;
		}
		expect(l, FP_BURST_MAX);
		for (uint32_t k = 0; k < FP_BURST_MAX; k++) {
			uint32_t i = (burst * FP_BURST_MAX + k) % l->n_flows;
			struct endpoint *e = &l->endpoints[i / l->remotes];

			e->external = be32_load(l->frames[k].data + ETH_LEN + IP_SRC);
			e->external_port = be16_load(l->frames[k].data + ETH_LEN + IPV4_LEN + L4_SPORT);
		}
	}
	core_track(&l->core, false);
	median = median_of(took, n_bursts) / FP_BURST_MAX;
	free(took);
	return median;
}

/* What the servers answer: connections are established, UDP has been seen both ways. */
static void establish(struct lane *l)
{
	for (enum tcp_step step = STEP_SYN_ACK; step <= STEP_DATA_IN; step++) {
		for (uint32_t first = 0; first < l->n_flows; first += FP_BURST_MAX) {
			for (uint32_t k = 0; k < FP_BURST_MAX; k++) {
				uint32_t i = (first + k) % l->n_flows;

				write_packet(l, k, &l->endpoints[i / l->remotes], i % l->remotes, step);
			}
			timed_step(l, 0, FP_BURST_MAX, FP_BURST_MAX);
			expect(l, FP_BURST_MAX);
		}
	}
}

/* ---- figures ---- */

static void figure(const char *name, double value)
{
	printf("{\"name\": \"%s\", \"value\": %.4g}\n", name, value);
	fflush(stdout);
}

/* A way to send packets of known sessions; batch 0 is the probe. */
struct variant {
	enum order order;
	enum traffic traffic;
	uint32_t batch;
};

static const struct variant variants[] = {
	{ SEQUENTIAL, MIXED, 0 }, { RANDOM, MIXED, 0 },      { SEQUENTIAL, MIXED, 1 },
	{ SEQUENTIAL, MIXED, 8 }, { SEQUENTIAL, MIXED, 64 }, { RANDOM, MIXED, 1 },
	{ RANDOM, MIXED, 8 },     { RANDOM, MIXED, 64 },     { RANDOM, ONLY_UDP, 64 },
	{ RANDOM, ONLY_TCP, 64 },
};

/* A table of some size, and the median of each slice, ns a packet. */
struct series {
	struct lane *lane;
	double slices[ARRAY_SIZE(variants)][SLICES];
};

static double run_slice(struct lane *l, const struct variant *v)
{
	static uint64_t took[SLICE_BURSTS];

	for (uint32_t i = 0; i < SLICE_BURSTS; i++) {
		write_burst(l, 0, v->order, v->traffic);
		if (v->batch) {
			took[i] = timed_step(l, 0, FP_BURST_MAX, v->batch);
			expect(l, FP_BURST_MAX);
		} else {
			took[i] = timed_probe(l);
		}
	}
	return median_of(took, SLICE_BURSTS) / FP_BURST_MAX;
}

static int by_value(const void *left, const void *right)
{
	const double a = *(const double *)left, b = *(const double *)right;

	return a < b ? -1 : a > b;
}

static void print_series(struct series *s)
{
	static const char *const orders[] = { "sequential", "random" };
	static const char *const traffics[] = { "mixed", "udp", "tcp" };

	for (uint32_t i = 0; i < ARRAY_SIZE(variants); i++) {
		const struct variant *v = &variants[i];

		qsort(s->slices[i], SLICES, sizeof(double), by_value);
		printf("{\"flows\": %u, \"order\": \"%s\", \"traffic\": \"%s\", \"batch\": %u, "
		       "\"ns\": %.2f, \"ns_median\": %.2f}\n",
		       s->lane->n_flows, orders[v->order], traffics[v->traffic], v->batch, s->slices[i][0],
		       s->slices[i][SLICES / 2]);
	}
	fflush(stdout);
}

/* All sizes by turns, so that whatever slows the machine for a while slows them alike. */
static void known_sessions(uint32_t most)
{
	static const uint32_t sizes[] = { 1000, 10000, 100000, 1000000, FLOWS_MAX };
	static struct series all[ARRAY_SIZE(sizes)];
	uint32_t n = 0;

	for (; n < ARRAY_SIZE(sizes) && sizes[n] <= most; n++) {
		struct lane *l = lane_new(sizes[n], REMOTES, sizes[n] + sizes[n] / 16 + 4096, 0, 1);
		double open_ns = open_all(l, false);

		if (sizes[n] == 1000000)
			figure("new_sessions_shared_mapping_per_s", 1e9 / open_ns);
		establish(l);
		probe_fill(l);
		all[n].lane = l;
	}
	for (uint32_t slice = 0; slice < SLICES; slice++) {
		for (uint32_t i = 0; i < n * ARRAY_SIZE(variants); i++) {
			struct series *s = &all[i % n];

			s->slices[i / n][slice] = run_slice(s->lane, &variants[i / n]);
		}
	}
	for (uint32_t i = 0; i < n; i++) {
		print_series(&all[i]);
		lane_free(all[i].lane);
	}
}

/* Sessions that are due go; told to a peer or not. Returns ns of one, the median of parts of the table. */
static double expire_all(struct lane *l, bool tracked)
{
	enum { BUDGET = 1024 };
	static uint64_t took[OWN_SESSIONS / BUDGET + 2];
	uint32_t n = 0;

	core_track(&l->core, tracked);
	l->now_ns += 400 * NS_PER_S;
	for (bool more = true; more && n < ARRAY_SIZE(took); n++) {
		uint64_t begin = clock_ns();

		more = core_expire(&l->core, l->now_ns, BUDGET) == BUDGET;
		if (tracked)
			drain(l);
		took[n] = clock_ns() - begin;
	}
	FP_ASSERT(counter_read(&l->core.stat.flows) == 0);
	l->now_ns += 300 * NS_PER_S; /* ports rest before somebody else gets them (RFC 6888 REQ-8) */
	core_track(&l->core, false);
	return median_of(took, n - 1) / BUDGET;
}

static void births_and_deaths(void)
{
	struct lane *l = lane_new(OWN_SESSIONS, 1, OWN_SESSIONS + OWN_SESSIONS / 16, 0, 1);
	const struct policy *few = rules_of(l, 64), *many = rules_of(l, 1000);
	double open_ns = 1e9, open_many_ns = 1e9, open_quiet_ns = 1e9, expire_ns = 1e9, expire_told_ns = 1e9;

	for (uint32_t i = 0; i < LIVES; i++) {
		core_set_policy(&l->core, few);
		open_ns = fmin(open_ns, open_all(l, true));
		expire_told_ns = fmin(expire_told_ns, expire_all(l, true));
		core_set_policy(&l->core, many);
		open_many_ns = fmin(open_many_ns, open_all(l, true));
		expire_told_ns = fmin(expire_told_ns, expire_all(l, true));
		core_set_policy(&l->core, NULL);
		open_quiet_ns = fmin(open_quiet_ns, open_all(l, false));
		expire_ns = fmin(expire_ns, expire_all(l, false));
	}
	figure("new_sessions_per_s", 1e9 / open_ns);
	figure("new_sessions_1000_rules_per_s", 1e9 / open_many_ns);
	figure("new_sessions_no_peer_per_s", 1e9 / open_quiet_ns);
	figure("expiry_per_s", 1e9 / expire_ns);
	figure("expiry_told_per_s", 1e9 / expire_told_ns);
	lane_free(l);
}

static void memory(void)
{
	struct fp_config cfg = frames_config(1, MEM_FLOWS);

	figure("bytes_per_session", (double)(core_mem_size(&cfg) + quota_mem_size(MEM_FLOWS)) / MEM_FLOWS);
}

/* ---- two workers at once ---- */

static pthread_barrier_t barrier;

/* Blocks of bursts by turns: worker 0 alone, worker 1 alone, both at the same time. */
static void *two_run(void *arg)
{
	struct lane *l = arg;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(l->core.worker, &cpus);
	pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
	for (uint32_t block = 0; block < BLOCKS; block++) {
		const uint32_t mode = block % 3;

		for (uint32_t i = 0; i < BLOCK_BURSTS; i++)
			write_burst(l, i * FP_BURST_MAX, RANDOM, MIXED);
		pthread_barrier_wait(&barrier);
		if (mode == 2 || mode == l->core.worker)
			(mode == 2 ? l->both : l->solo)[block / 3] =
				timed_step(l, 0, FP_BURST_MAX * BLOCK_BURSTS, FP_BURST_MAX);
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void two_workers(void)
{
	struct lane *lanes[2];
	pthread_t threads[2];
	double solo = 0, both = 0;

	pthread_barrier_init(&barrier, NULL, 2);
	for (uint32_t w = 0; w < 2; w++) {
		lanes[w] = lane_new(500000, REMOTES, 1050000, w, 2);
		open_all(lanes[w], false);
		establish(lanes[w]);
		lanes[w]->solo = calloc(BLOCKS / 3, sizeof(uint64_t));
		lanes[w]->both = calloc(BLOCKS / 3, sizeof(uint64_t));
	}
	for (uint32_t w = 0; w < 2; w++)
		FP_ASSERT(pthread_create(&threads[w], NULL, two_run, lanes[w]) == 0);
	for (uint32_t w = 0; w < 2; w++)
		pthread_join(threads[w], NULL);
	for (uint32_t w = 0; w < 2; w++) {
		solo += 1 / median_of(lanes[w]->solo, BLOCKS / 3) / 2;
		both += 1 / median_of(lanes[w]->both, BLOCKS / 3);
		free(lanes[w]->solo);
		free(lanes[w]->both);
		lane_free(lanes[w]);
	}
	pthread_barrier_destroy(&barrier);
	figure("two_workers_mpps", both * 1e3 * FP_BURST_MAX * BLOCK_BURSTS);
	figure("two_workers_ratio", both / solo);
}

int main(int argc, char **argv)
{
	const uint32_t most = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : FLOWS_MAX;

	memory();
	births_and_deaths();
	two_workers();
	known_sessions(most);
	return 0;
}
