/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_import.c - a sync peer that sends anything: columns to records, records into the table, and then traffic
 *
 * The first byte: bit 0 columns or raw records, bit 1 address family 6, bit 2 a bulk around the import, bit 3 that
 * the node was busy before. The rest is the columns one after the other, or the records.
 */
#include "../session.h"
#include "check.h"
#include "frames.h"
#include "fuzz.h"

enum { FLOW_CAP = 64, N_MAX = 64 };

static struct fp_config cfg;
static struct core core, pristine_core;
static struct fib *fib;
static struct quota quota;
static uint8_t *mem, *pristine_mem;
static size_t mem_size;

static void make_core(void)
{
	cfg = frames_config(1, FLOW_CAP);
	cfg.limits =
		(struct fp_limits){ .sessions_per_source = 40, .ports_per_source = 20, .port_reuse_s = 1 };
	mem_size = (core_mem_size(&cfg) + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	mem = aligned_alloc(CACHE_LINE, mem_size);
	pristine_mem = aligned_alloc(CACHE_LINE, mem_size);
	REQUIRE(mem != NULL && pristine_mem != NULL);
	memset(mem, 0, mem_size);
	fib = frames_fib(1, true);
	quota_init(&quota, FLOW_CAP, aligned_alloc(CACHE_LINE, quota_mem_size(FLOW_CAP)));
	REQUIRE(quota.buckets != NULL);
	REQUIRE(core_init(&pristine_core, &cfg, 0, mem, mem_size) == 0);
	core_set_quota(&pristine_core, &quota);
	memcpy(pristine_mem, mem, mem_size);
}

/* Every input begins with the same core; a copy of one costs a twentieth of core_init(). */
static void reset(void)
{
	if (!mem)
		make_core();
	memcpy(mem, pristine_mem, mem_size);
	memset(quota.buckets, 0, quota_mem_size(FLOW_CAP));
	core = pristine_core;
	core_set_fib(&core, fib);
}

static void traffic(uint64_t now_ns)
{
	static uint8_t data[FP_FRAME_MAX];

	for (uint16_t i = 0; i < 8; i++) {
		const struct spec out = { .src = CLIENT,
					  .dst = SERVER,
					  .proto = IPPROTO_NUM_UDP,
					  .sport = (uint16_t)(1000 + i),
					  .dport = 53 };
		const struct spec in = { .src = SERVER,
					 .dst = WAN_VIP,
					 .proto = IPPROTO_NUM_TCP,
					 .sport = 443,
					 .dport = (uint16_t)(40000 + i),
					 .tcp_flags = TCP_ACK_FLAG };
		struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &out);

		core_step(&core, &f, 1, now_ns);
		core_account(&core, &f, 1);
		f = frames_ipv4(data, WAN, mac_virtual[WAN], &in);
		core_step(&core, &f, 1, now_ns);
		core_account(&core, &f, 1);
	}
}

/* What session.c promises of every record. */
static void check_invariants(void)
{
	uint32_t flows = 0, leaders = 0;

	for (uint32_t idx = 1; idx <= core.table.n_fresh; idx++) {
		const struct flow_hot *f = &core.table.rec[idx].hot;
		uint32_t leader = FLOW_NONE;

		if (f->kind != REC_FLOW)
			continue;
		flows++;
		REQUIRE(record_find(&core, f, SIDE_OUT, KEY_FLOW) == idx);
		REQUIRE(record_find(&core, f, SIDE_IN, KEY_FLOW) == idx);
		REQUIRE(session_shard(&cfg, f) == core.table.rec[idx].cold.shard);
		REQUIRE(core.table.link[idx].wheel_prev != 0);
		REQUIRE((core.table.link[idx].map_next != FLOW_NONE) == session_has_mapping(f));
		if (session_has_mapping(f)) {
			leader = record_find(&core, f, SIDE_OUT, KEY_MAPPING);
			REQUIRE(leader &&
				leader == mapping_by_external(&core, f->pool, f->proto, f->external_port));
			REQUIRE(core.table.link[core.table.link[idx].map_next].map_prev == idx);
		}
		REQUIRE(flow_is_leader(&core.table, idx) == (leader == idx));
		leaders += leader == idx;
	}
	REQUIRE(flows == counter_read(&core.stat.flows));
	REQUIRE(leaders == counter_read(&core.stat.mappings));
}

/* Cut the input into columns; each record takes a slice of every column. */
static uint32_t unpack(const uint8_t *data, size_t size, uint32_t family, struct fp_flow_rec *recs)
{
	const uint32_t addr = family == 4 ? 4 : 16;
	const uint32_t per_record = 8 + 7 + 2 + 4 * 4 + 3 * addr + 3 * 2 + 28 + 32;
	const uint32_t n = min_u32((uint32_t)(size / per_record), N_MAX);
	const uint8_t *p = data;
	struct fp_cols cols;

#define COLUMN(name, width) (cols.name = (uint8_t *)(uintptr_t)p, p += (size_t)n * (width))
	COLUMN(id, 8);
	COLUMN(op, 1);
	COLUMN(form, 1);
	COLUMN(proto, 1);
	COLUMN(state, 1);
	COLUMN(flags, 1);
	COLUMN(in_port, 1);
	COLUMN(out_port, 1);
	COLUMN(origin, 2);
	COLUMN(version, 4);
	COLUMN(remaining_ms, 4);
	COLUMN(pool, 4);
	COLUMN(rule, 4);
	COLUMN(inside, addr);
	COLUMN(remote, addr);
	COLUMN(external, addr);
	COLUMN(inside_port, 2);
	COLUMN(remote_port, 2);
	COLUMN(external_port, 2);
	COLUMN(win, 28);
	COLUMN(counters, 32);
#undef COLUMN
	return fp_cols_unpack(&cols, n, family, recs) < 0 ? 0 : n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fp_flow_rec recs[N_MAX];
	uint64_t now_ns = 1000 * NS_PER_S;
	uint32_t n, slot = 0;
	uint8_t how;
	bool done = false;

	if (size == 0)
		return 0;
	how = *data++;
	size--;
	reset();
	if (how & 8) {
		core_set_role(&core, FP_ROLE_ACTIVE, 2, now_ns);
		core_track(&core, true);
		traffic(now_ns);
	}
	core_set_role(&core, FP_ROLE_PASSIVE, 4, now_ns);
	if (how & 1) {
		n = min_u32((uint32_t)(size / sizeof(*recs)), N_MAX);
		memcpy(recs, data, n * sizeof(*recs));
	} else {
		n = unpack(data, size, how & 2 ? 6 : 4, recs);
	}
	if (how & 4)
		REQUIRE(core_import_begin(&core) == 0);
	REQUIRE(core_import(&core, recs, n, now_ns) <= (int)n);
	REQUIRE(core_import(&core, recs, n, now_ns) <= (int)n); /* the same again: a resent batch */
	check_invariants();
	if (how & 4)
		REQUIRE(core_import_end(&core) >= 0);
	check_invariants();
	while (!done)
		REQUIRE(core_walk(&core, &slot, recs, N_MAX, &done, now_ns) <= N_MAX);
	core_track(&core, true);
	core_bulk_start(&core);
	while (core_drain(&core, recs, N_MAX, now_ns) == N_MAX)
		;
	core_set_role(&core, FP_ROLE_ACTIVE, 6, now_ns);
	traffic(now_ns);
	check_invariants();
	core_expire(&core, now_ns + 10000 * NS_PER_S, 1024);
	check_invariants();
	return 0;
}
