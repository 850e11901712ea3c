/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_import.c - a sync peer that sends anything: columns to records, records into the table, and then traffic
 *
 * The first byte: bit 0 columns or raw records, bit 1 address family 6, bit 2 a bulk around the import, bit 3 that
 * the node was busy before. The rest is the columns one after the other, or the records.
 */
#include "fuzz_core.h"

enum { N_MAX = 64 };

static struct fuzz_core z;

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

		core_step(&z.core, &f, 1, now_ns);
		core_account(&z.core, &f, 1);
		f = frames_ipv4(data, WAN, mac_virtual[WAN], &in);
		core_step(&z.core, &f, 1, now_ns);
		core_account(&z.core, &f, 1);
	}
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
	fuzz_core_reset(&z);
	if (how & 8) {
		core_set_role(&z.core, FP_ROLE_ACTIVE, 2, now_ns);
		core_track(&z.core, true);
		traffic(now_ns);
	}
	core_set_role(&z.core, FP_ROLE_PASSIVE, 4, now_ns);
	if (how & 1) {
		n = min_u32((uint32_t)(size / sizeof(*recs)), N_MAX);
		memcpy(recs, data, n * sizeof(*recs));
	} else {
		n = unpack(data, size, how & 2 ? 6 : 4, recs);
	}
	if (how & 4)
		REQUIRE(core_import_begin(&z.core) == 0);
	REQUIRE(core_import(&z.core, recs, n, now_ns) <= (int)n);
	REQUIRE(core_import(&z.core, recs, n, now_ns) <= (int)n); /* the same again: a resent batch */
	fuzz_core_judge(&z);
	if (how & 4)
		REQUIRE(core_import_end(&z.core) >= 0);
	fuzz_core_judge(&z);
	while (!done)
		REQUIRE(core_walk(&z.core, &slot, recs, N_MAX, &done, now_ns) <= N_MAX);
	core_track(&z.core, true);
	core_bulk_start(&z.core);
	while (core_drain(&z.core, recs, N_MAX, now_ns) == N_MAX)
		;
	core_set_role(&z.core, FP_ROLE_ACTIVE, 6, now_ns);
	traffic(now_ns);
	fuzz_core_judge(&z);
	core_expire(&z.core, now_ns + 10000 * NS_PER_S, 1024);
	fuzz_core_judge(&z);
	return 0;
}
