/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_cols.c - records to columns and back; what no peer sends is refused
 */
#include "../cols.h"
#include "check.h"
#include "frames.h"

enum { N = 50, ADDR_MAX = 16 };

/* Columns of N records at most. */
struct store {
	uint8_t id_low[N * 4], id_high[N * 4], form[N], proto[N], state[N], flags[N], in_port[N], out_port[N];
	uint8_t origin[N * 2], version[N * 4], remaining_ms[N * 4], rule[N * 2];
	uint8_t inside[N * ADDR_MAX], remote[N * ADDR_MAX], external[N * ADDR_MAX];
	uint8_t inside_port[N * 2], remote_port[N * 2], external_port[N * 2], win[N * 28], counters[N * 32];
};

static struct fp_cols cols_of(struct store *s)
{
	return (struct fp_cols){
		.id_low = s->id_low,
		.id_high = s->id_high,
		.form = s->form,
		.proto = s->proto,
		.state = s->state,
		.flags = s->flags,
		.in_port = s->in_port,
		.out_port = s->out_port,
		.origin = s->origin,
		.version = s->version,
		.remaining_ms = s->remaining_ms,
		.rule = s->rule,
		.inside = s->inside,
		.remote = s->remote,
		.external = s->external,
		.inside_port = s->inside_port,
		.remote_port = s->remote_port,
		.external_port = s->external_port,
		.win = s->win,
		.counters = s->counters,
	};
}

static struct fp_addr v6(uint8_t last)
{
	return (struct fp_addr){ .b = { 0x20, 1, 0xd, 0xb8, [15] = last } };
}

static struct fp_flow_rec record(uint32_t i, bool is_v6)
{
	struct fp_flow_rec rec = {
		.id = UINT64_C(0x123456789a) + i,
		.origin = 1,
		.op = FP_OP_OPEN,
		.form = FP_FORM_STATIC,
		.proto = IPPROTO_NUM_TCP,
		.state = FP_ST_ESTABLISHED,
		.flags = FP_RF_INBOUND,
		.version = i + 7,
		.remaining_ms = 1000 * i,
		.inside = is_v6 ? v6(1) : addr_from_v4(CLIENT),
		.remote = is_v6 ? v6(2) : addr_from_v4(SERVER),
		.external = is_v6 ? v6(3) : addr_from_v4(WAN_VIP),
		.inside_port = be16_of((uint16_t)(1000 + i)).raw,
		.remote_port = be16_of(443).raw,
		.external_port = be16_of((uint16_t)(40000 + i)).raw,
		.out_port = WAN,
		.rule = 9,
		.win = { { .end = i, .max_end = i + 1, .max_win = 65535, .scale = 7, .flags = 3 },
			 { .end = ~i, .max_end = i, .max_win = 1, .scale = 14, .flags = 1 } },
		.packets = { i, i + 1 },
		.bytes = { UINT64_C(1) << 40, 3 },
	};

	return rec;
}

/* What of a record the columns of its op carry. */
static struct fp_flow_rec carried(struct fp_flow_rec r, uint32_t has)
{
	const struct fp_flow_rec all = r;

#define KEEP(member, col)                                       \
	do {                                                    \
		if (!(has & COL_BIT(col)))                      \
			memset(&r.member, 0, sizeof(r.member)); \
	} while (0)
	KEEP(version, COL_VERSION);
	KEEP(state, COL_STATE);
	KEEP(flags, COL_FLAGS);
	KEEP(in_port, COL_IN_PORT);
	KEEP(out_port, COL_OUT_PORT);
	KEEP(rule, COL_RULE);
	KEEP(external, COL_EXTERNAL);
	KEEP(external_port, COL_EXTERNAL_PORT);
	KEEP(remaining_ms, COL_REMAINING_MS);
	KEEP(win, COL_WIN);
	KEEP(packets, COL_COUNTERS);
	KEEP(bytes, COL_COUNTERS);
#undef KEEP
	r.op = all.op;
	r.has = has;
	return r;
}

static bool same(const struct fp_flow_rec *a, const struct fp_flow_rec *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static void check_round_trip(int base, uint32_t family, enum fp_op op)
{
	static struct fp_flow_rec in[N], out[N];
	static struct store store;
	struct fp_cols cols = cols_of(&store);
	uint32_t constant;

	for (uint32_t i = 0; i < N; i++) {
		in[i] = record(i, family == 6);
		in[i].op = (uint8_t)op;
	}
	CHECK_EQ(base, cols_family(&in[0]), family);
	CHECK_EQ(base + 1, cols_pack(in, N, family, op, &cols, &constant), N);
	CHECK_EQ(base + 2, cols_unpack(&cols, N, family, op, constant, out), N);
	for (uint32_t i = 0; i < N; i++) {
		const struct fp_flow_rec want = carried(in[i], (uint32_t)fp_cols_of(op, 0));

		CHECK(base + 3, same(&want, &out[i]));
	}
	/* What is the same for all says so once; of identities it is the high half. */
	CHECK_EQ(base + 4, constant & (COL_BIT(COL_ID_HIGH) | COL_BIT(COL_ORIGIN) | COL_BIT(COL_REMOTE_PORT)),
		 COL_BIT(COL_ID_HIGH) | COL_BIT(COL_ORIGIN) | COL_BIT(COL_REMOTE_PORT));
	CHECK_EQ(base + 5, constant & (COL_BIT(COL_ID_LOW) | COL_BIT(COL_INSIDE_PORT)), 0);
	CHECK_EQ(base + 6, constant & ~(uint32_t)fp_cols_of(op, 0), 0);
	/* Ports lie in the column as on the wire. */
	CHECK_EQ(base + 7, store.remote_port[0], 443 >> 8);
	CHECK_EQ(base + 8, store.remote_port[1], 443 & 0xff);
}

/* One that differs in the last record only, or in one that is of another section, is told from one that does not. */
static void check_constants(void)
{
	static struct store store;
	struct fp_flow_rec in[4] = { record(0, false), record(0, false), record(0, false), record(0, true) };
	struct fp_flow_rec out[4];
	struct fp_cols cols = cols_of(&store);
	uint32_t constant;

	in[1].op = FP_OP_DELETE;
	in[1].origin = 7;
	CHECK_EQ(100, cols_pack(in, 4, 4, FP_OP_OPEN, &cols, &constant), 2);
	CHECK_EQ(101, constant, fp_cols_of(FP_OP_OPEN, 0));
	in[2].out_port = 0;
	CHECK_EQ(102, cols_pack(in, 4, 4, FP_OP_OPEN, &cols, &constant), 2);
	CHECK_EQ(103, constant, (uint32_t)fp_cols_of(FP_OP_OPEN, 0) & ~COL_BIT(COL_OUT_PORT));
	CHECK_EQ(104, cols_unpack(&cols, 2, 4, FP_OP_OPEN, constant, out), 2);
	CHECK(105, out[0].out_port == WAN && out[1].out_port == 0 && out[1].id == in[0].id);
	CHECK_EQ(106, cols_pack(in, 4, 4, FP_OP_REST, &cols, &constant), 0);
	CHECK_EQ(107, cols_unpack(&cols, 0, 4, FP_OP_REST, constant, out), 0);
}

/* Both halves of an identity come, where the high one changes within a section, too. */
static void check_identities(void)
{
	static struct store store;
	struct fp_flow_rec in[2] = { record(0, false), record(0, false) }, out[2];
	struct fp_cols cols = cols_of(&store);
	uint32_t constant;

	in[0].id = UINT32_MAX;
	in[1].id = UINT64_C(1) << 32;
	CHECK_EQ(110, cols_pack(in, 2, 4, FP_OP_OPEN, &cols, &constant), 2);
	CHECK_EQ(111, constant & (COL_BIT(COL_ID_LOW) | COL_BIT(COL_ID_HIGH)), 0);
	CHECK_EQ(112, cols_unpack(&cols, 2, 4, FP_OP_OPEN, constant, out), 2);
	CHECK(113, out[0].id == in[0].id && out[1].id == in[1].id);
	CHECK(114, store.id_low[0] == 0xff && store.id_high[0] == 0 && store.id_high[4] == 1);
}

static uint32_t count_of(const uint32_t *counts, size_t op, size_t is_v6)
{
	return counts[2 * op + is_v6];
}

static void check_sections_part(void)
{
	static struct store store;
	struct fp_flow_rec in[5] = {
		record(0, false), record(1, true), record(2, false), { .op = FP_OP_SWEPT }
	};
	struct fp_flow_rec out[4];
	struct fp_cols cols = cols_of(&store);
	uint32_t constant, counts[8];

	in[2].op = FP_OP_DELETE;
	CHECK_EQ(30, cols_pack(in, 3, 4, FP_OP_OPEN, &cols, &constant), 1);
	CHECK_EQ(31, cols_unpack(&cols, 1, 4, FP_OP_OPEN, constant, out), 1);
	CHECK_EQ(32, out[0].id, in[0].id);
	CHECK_EQ(33, cols_pack(in, 3, 6, FP_OP_OPEN, &cols, &constant), 1);
	CHECK_EQ(34, cols_unpack(&cols, 1, 6, FP_OP_OPEN, constant, out), 1);
	CHECK_EQ(35, out[0].id, in[1].id);
	CHECK_EQ(36, cols_census(in, 5, counts), 3);
	CHECK(37, count_of(counts, FP_OP_OPEN, 0) == 1 && count_of(counts, FP_OP_OPEN, 1) == 1 &&
			  count_of(counts, FP_OP_DELETE, 0) == 1);
	CHECK_EQ(38,
		 count_of(counts, FP_OP_STATE, 0) + count_of(counts, FP_OP_REST, 0) +
			 count_of(counts, FP_OP_DELETE, 1),
		 0);
	CHECK_EQ(39, cols_census(in + 3, 1, counts), 0);
}

/* Optional ones may be missing, and it is known that they are; without a required one there is no record. */
static void check_missing_columns(void)
{
	static const enum fp_op ops[] = { FP_OP_OPEN, FP_OP_DELETE, FP_OP_STATE, FP_OP_REST };
	static struct store store;

	for (uint32_t i = 0; i < ARRAY_SIZE(ops); i++) {
		const uint32_t all = (uint32_t)fp_cols_of(ops[i], 0),
			       required = (uint32_t)fp_cols_of(ops[i], 1);
		struct fp_flow_rec in = record(3, false), out;
		uint32_t constant;

		in.op = (uint8_t)ops[i];
		CHECK_EQ(40, required & ~all, 0);
		for (uint32_t left = all; left; left &= left - 1) {
			struct fp_cols cols = cols_of(&store);
			uint8_t *at[N_COLS];

			CHECK_EQ(41, cols_pack(&in, 1, 4, ops[i], &cols, &constant), 1);
			memcpy(at, &cols, sizeof(at));
			at[__builtin_ctz(left)] = NULL;
			memcpy(&cols, at, sizeof(at));
			CHECK_EQ(42, cols_unpack(&cols, 1, 4, ops[i], constant, &out),
				 required & left & -left ? (uint64_t)-22 : 1);
			if (!(required & left & -left)) {
				const struct fp_flow_rec want = carried(in, all & ~(left & -left));

				CHECK(43, same(&want, &out));
			}
		}
	}
	CHECK_EQ(44, fp_cols_of(FP_OP_SWEEP, 0), (uint64_t)-22);
}

static void refuse(int n, struct fp_flow_rec rec)
{
	static struct store store;
	struct fp_flow_rec out;
	struct fp_cols cols = cols_of(&store);
	uint32_t constant;

	CHECK_EQ(n, cols_pack(&rec, 1, 4, rec.op, &cols, &constant), 1);
	CHECK_EQ(n, cols_unpack(&cols, 1, 4, rec.op, constant, &out), (uint64_t)-22);
}

static void check_what_no_peer_sends(void)
{
	struct fp_flow_rec rec;

#define BAD(n, member, value) rec = record(0, false), rec.member = (value), refuse(n, rec)
	BAD(50, form, FP_FORM_NONE + 1);
	BAD(51, proto, 0);
	BAD(52, state, FP_ST_COUNT);
	BAD(53, state, FP_ST_NONE);
	BAD(54, id, 0);
	BAD(55, origin, 0);
	BAD(56, in_port, FP_PORTS_MAX);
	BAD(57, out_port, FP_PORTS_MAX);
	BAD(60, remote, (struct fp_addr){ 0 });
	BAD(61, external, (struct fp_addr){ 0 });
#undef BAD
#define BAD(n, how, member, value) \
	rec = record(0, false), rec.op = (how), rec.member = (value), refuse(n, rec)
	BAD(59, FP_OP_REST, remaining_ms, UINT32_MAX);
	BAD(62, FP_OP_REST, win[1].scale, 15);
	BAD(63, FP_OP_STATE, state, FP_ST_COUNT);
	BAD(64, FP_OP_DELETE, id, 0);
	BAD(65, FP_OP_DELETE, proto, 0);
	BAD(66, FP_OP_DELETE, remote, (struct fp_addr){ 0 });
#undef BAD
}

static void check_arguments(void)
{
	static struct store store;
	struct fp_flow_rec rec = record(0, false);
	struct fp_cols cols = cols_of(&store);
	uint32_t constant, counts[8];

	CHECK_EQ(70, cols_pack(&rec, 1, 5, FP_OP_OPEN, &cols, &constant), (uint64_t)-22);
	CHECK_EQ(71, cols_pack(NULL, 1, 4, FP_OP_OPEN, &cols, &constant), (uint64_t)-22);
	CHECK_EQ(72, cols_unpack(&cols, 1, 0, FP_OP_OPEN, 0, &rec), (uint64_t)-22);
	CHECK_EQ(73, cols_unpack(NULL, 1, 4, FP_OP_OPEN, 0, &rec), (uint64_t)-22);
	CHECK_EQ(74, cols_pack(NULL, 0, 4, FP_OP_OPEN, &cols, &constant), 0);
	CHECK_EQ(75, cols_pack(&rec, 1, 4, FP_OP_SWEEP, &cols, &constant), (uint64_t)-22);
	CHECK_EQ(76, cols_unpack(&cols, 1, 4, FP_OP_DIGEST, 0, &rec), (uint64_t)-22);
	CHECK_EQ(77, cols_census(NULL, 1, counts), (uint64_t)-22);
	CHECK_EQ(78, cols_census(&rec, 1, NULL), (uint64_t)-22);
}

int main(void)
{
	static const enum fp_op ops[] = { FP_OP_OPEN, FP_OP_DELETE, FP_OP_STATE, FP_OP_REST };

	for (uint32_t i = 0; i < ARRAY_SIZE(ops); i++) {
		check_round_trip(10, 4, ops[i]);
		check_round_trip(20, 6, ops[i]);
	}
	check_constants();
	check_identities();
	check_sections_part();
	check_missing_columns();
	check_what_no_peer_sends();
	check_arguments();
	return check_done("cols");
}
