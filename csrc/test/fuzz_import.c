/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_import.c - a sync peer that sends anything: sections to records, records into the table, and then traffic
 *
 * The first byte: bit 0 sections (msgpack) or raw records, bit 1 half of the shards only, bit 2 a sweep around the
 * import, bit 3 that the node was busy before, bit 4 that the sweep is a repair. The rest is the sections, or the
 * records.
 */
#include "../digest.h"
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

/* What was accepted comes out as it went in, but for what its columns do not carry. */
static void judge_sections(const struct fp_flow_rec *recs, uint32_t n)
{
	static uint8_t columns[20][N_MAX * 32], packed[N_MAX * 512], again[N_MAX * 512];
	static struct fp_flow_rec back[N_MAX];
	uint8_t *at[ARRAY_SIZE(columns)];
	uint32_t size, same, unknown;
	struct fp_cols scratch;
	struct fp_error err;

	for (uint32_t i = 0; i < n;
	     i++) { /* an IPv6 section may hold mapped addresses: they would come out as IPv4 */
		const bool is_v4 = addr_is_v4(&recs[i].inside);

		if (addr_is_v4(&recs[i].remote) != is_v4 ||
		    (recs[i].op == FP_OP_OPEN && addr_is_v4(&recs[i].external) != is_v4))
			return;
	}
	for (uint32_t i = 0; i < ARRAY_SIZE(columns); i++)
		at[i] = columns[i];
	memcpy(&scratch, at, sizeof(scratch));
	REQUIRE(fp_sections_pack(recs, n, &scratch, packed, sizeof(packed), &size) == (int)n);
	REQUIRE(fp_sections_unpack(packed, size, back, N_MAX, &unknown, &err) == (int)n);
	REQUIRE(unknown == 0);
	REQUIRE(fp_sections_pack(back, n, &scratch, again, sizeof(again), &same) == (int)n);
	REQUIRE(same == size && memcmp(packed, again, size) == 0);
}

static uint32_t unpack(const uint8_t *data, size_t size, struct fp_flow_rec *recs)
{
	uint32_t unknown;
	struct fp_error err;
	const int n = fp_sections_unpack(data, (uint32_t)size, recs, N_MAX, &unknown, &err);

	if (n < 0) {
		REQUIRE(err.text[0]);
		return 0;
	}
	judge_sections(recs, (uint32_t)n);
	return (uint32_t)n;
}

/* The digests are those of the records, whatever came. */
static void judge_digests(void)
{
	struct digest count[FP_SHARDS] = { { 0 } };
	const struct core *c = &z.core;

	for (uint32_t idx = 1; idx <= c->table.n_fresh; idx++) {
		const struct flow_rec *rec = &c->table.rec[idx];

		if (rec->hot.kind != REC_FLOW || !digest_knows(c, idx) || rec->cold.dirty)
			continue;
		count[rec->cold.shard].sum += digest_hash(c, idx, session_was(&rec->hot));
		count[rec->cold.shard].n++;
	}
	for (uint32_t i = 0; i < FP_SHARDS; i++)
		REQUIRE(count[i].sum == c->digest[i].sum && count[i].n == c->digest[i].n);
}

static void judge(void)
{
	fuzz_core_judge(&z);
	judge_digests();
}

static void drain(uint64_t now_ns)
{
	static struct fp_flow_rec told[N_MAX];

	while (core_drain(&z.core, told, N_MAX, UINT32_MAX, now_ns) || core_has_more(&z.core))
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct fp_flow_rec recs[N_MAX];
	uint64_t now_ns = 1000 * NS_PER_S;
	uint32_t n, slot = 0;
	uint64_t shards;
	uint8_t how;
	bool done = false;

	if (size == 0)
		return 0;
	how = *data++;
	size--;
	shards = how & 2 ? UINT64_C(0x5555555555555555) : UINT64_MAX;
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
		n = unpack(data, size, recs);
	}
	if (how & 4)
		REQUIRE(core_import_begin(&z.core, shards, how & 16) == 0);
	REQUIRE(core_import(&z.core, recs, n, now_ns) <= (int)n);
	REQUIRE(core_import(&z.core, recs, n, now_ns) <= (int)n); /* the same again: a resent batch */
	judge();
	if (how & 4)
		REQUIRE(core_import_end(&z.core, shards) >= 0);
	judge();
	while (!done)
		REQUIRE(core_walk(&z.core, &slot, recs, N_MAX, &done, now_ns) <= N_MAX);
	core_track(&z.core, true);
	core_sweep_start(&z.core, UINT64_MAX);
	drain(now_ns);
	judge();
	core_set_role(&z.core, FP_ROLE_ACTIVE, 6, now_ns);
	traffic(now_ns);
	judge();
	drain(now_ns);
	judge();
	core_expire(&z.core, now_ns + 10000 * NS_PER_S, 1024);
	judge();
	return 0;
}
