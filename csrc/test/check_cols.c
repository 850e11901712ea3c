/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_cols.c - records to columns and back; what no peer sends is refused
 */
#include "check.h"
#include "frames.h"

enum { N = 50, ADDR_MAX = 16 };

/* Columns of N records at most. */
struct store {
	uint8_t id[N * 8], op[N], form[N], proto[N], state[N], flags[N], in_port[N], out_port[N];
	uint8_t origin[N * 2], version[N * 4], remaining_ms[N * 4], pool[N * 4], rule[N * 4];
	uint8_t inside[N * ADDR_MAX], remote[N * ADDR_MAX], external[N * ADDR_MAX];
	uint8_t inside_port[N * 2], remote_port[N * 2], external_port[N * 2], win[N * 28], counters[N * 32];
};

static struct fp_cols cols_of(struct store *s)
{
	return (struct fp_cols){
		.id = s->id,
		.op = s->op,
		.form = s->form,
		.proto = s->proto,
		.state = s->state,
		.flags = s->flags,
		.in_port = s->in_port,
		.out_port = s->out_port,
		.origin = s->origin,
		.version = s->version,
		.remaining_ms = s->remaining_ms,
		.pool = s->pool,
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
		.op = FP_OP_UPSERT,
		.form = FP_FORM_STATIC,
		.proto = IPPROTO_NUM_TCP,
		.state = FP_ST_ESTABLISHED,
		.flags = FP_RF_IMPORTED,
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

static bool same(const struct fp_flow_rec *a, const struct fp_flow_rec *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static void check_round_trip(int base, uint32_t family)
{
	static struct fp_flow_rec in[N], out[N];
	static struct store store;
	struct fp_cols cols = cols_of(&store);

	for (uint32_t i = 0; i < N; i++)
		in[i] = record(i, family == 6);
	CHECK_EQ(base, fp_rec_family(&in[0]), family);
	CHECK_EQ(base + 1, fp_cols_pack(in, N, family, &cols), N);
	CHECK_EQ(base + 2, fp_cols_unpack(&cols, N, family, out), N);
	for (uint32_t i = 0; i < N; i++)
		CHECK(base + 3, same(&in[i], &out[i]));
	/* Ports lie in the column as on the wire. */
	CHECK_EQ(base + 4, store.remote_port[0], 443 >> 8);
	CHECK_EQ(base + 5, store.remote_port[1], 443 & 0xff);
}

static void check_families_and_markers_part(void)
{
	static struct store store;
	struct fp_flow_rec in[4] = {
		record(0, false), record(1, true), record(2, false), { .op = FP_OP_BULK_END }
	};
	struct fp_flow_rec out[4];
	struct fp_cols cols = cols_of(&store);

	CHECK_EQ(30, fp_cols_pack(in, 4, 4, &cols), 2);
	CHECK_EQ(31, fp_cols_unpack(&cols, 2, 4, out), 2);
	CHECK(32, same(&in[0], &out[0]) && same(&in[2], &out[1]));
	CHECK_EQ(33, fp_cols_pack(in, 4, 6, &cols), 1);
	CHECK_EQ(34, fp_cols_unpack(&cols, 1, 6, out), 1);
	CHECK(35, same(&in[1], &out[0]));
}

static void check_missing_columns_read_as_zero(void)
{
	static struct store store;
	struct fp_flow_rec in = record(3, false), out;
	struct fp_cols cols = cols_of(&store);

	cols.win = cols.counters = cols.rule = NULL;
	CHECK_EQ(40, fp_cols_pack(&in, 1, 4, &cols), 1);
	CHECK_EQ(41, fp_cols_unpack(&cols, 1, 4, &out), 1);
	CHECK_EQ(42, out.rule, 0);
	CHECK_EQ(43, out.win[0].end, 0);
	CHECK_EQ(44, out.bytes[0], 0);
	CHECK_EQ(45, out.id, in.id);
	cols.inside = NULL; /* without it there is no session */
	CHECK_EQ(46, fp_cols_unpack(&cols, 1, 4, &out), (uint64_t)-22);
}

static void refuse(int n, struct fp_flow_rec rec)
{
	static struct store store;
	struct fp_flow_rec out;
	struct fp_cols cols = cols_of(&store);

	CHECK_EQ(n, fp_cols_pack(&rec, 1, 4, &cols), 1);
	CHECK_EQ(n, fp_cols_unpack(&cols, 1, 4, &out), (uint64_t)-22);
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
	BAD(58, pool, FP_POOLS_MAX);
	BAD(59, remaining_ms, UINT32_MAX);
	BAD(60, remote, (struct fp_addr){ 0 });
	BAD(61, external, (struct fp_addr){ 0 });
	BAD(62, win[1].scale, 15);
	BAD(63, form, FP_FORM_NONE); /* with a pool */
	BAD(65, pool, FP_POOL_NONE); /* translated, but to what? */
	BAD(64, op, FP_OP_BULK_END + 1);
#undef BAD
}

static void check_arguments(void)
{
	static struct store store;
	struct fp_flow_rec rec = record(0, false);
	struct fp_cols cols = cols_of(&store);

	CHECK_EQ(70, fp_cols_pack(&rec, 1, 5, &cols), (uint64_t)-22);
	CHECK_EQ(71, fp_cols_pack(NULL, 1, 4, &cols), (uint64_t)-22);
	CHECK_EQ(72, fp_cols_unpack(&cols, 1, 0, &rec), (uint64_t)-22);
	CHECK_EQ(73, fp_cols_unpack(NULL, 1, 4, &rec), (uint64_t)-22);
	CHECK_EQ(74, fp_cols_pack(NULL, 0, 4, &cols), 0);
}

int main(void)
{
	check_round_trip(10, 4);
	check_round_trip(20, 6);
	check_families_and_markers_part();
	check_missing_columns_read_as_zero();
	check_what_no_peer_sends();
	check_arguments();
	return check_done("cols");
}
