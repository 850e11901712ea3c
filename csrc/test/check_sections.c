/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_sections.c - records to the sections of a batch and back; what no peer sends is refused, and named
 */
#include <errno.h>

#include "../cols.h"
#include "check.h"
#include "frames.h"

enum { N = 40, ROOM = 16384 };

static uint8_t columns[N_COLS][N * 32];
static struct fp_error err;
static uint32_t unknown;

static struct fp_cols scratch(void)
{
	uint8_t *at[N_COLS];
	struct fp_cols cols;

	for (uint32_t i = 0; i < N_COLS; i++)
		at[i] = columns[i];
	memcpy(&cols, at, sizeof(cols));
	return cols;
}

static struct fp_flow_rec record(uint32_t i, uint8_t op, bool is_v6)
{
	const struct fp_addr v6 = { .b = { 0x20, 1, 0xd, 0xb8, [15] = 7 } };
	struct fp_flow_rec rec = {
		.id = UINT64_C(0x100000001) + i,
		.origin = 1,
		.op = op,
		.form = FP_FORM_STATIC,
		.proto = IPPROTO_NUM_TCP,
		.inside = is_v6 ? v6 : addr_from_v4(CLIENT),
		.remote = is_v6 ? v6 : addr_from_v4(SERVER),
		.inside_port = be16_of((uint16_t)(1000 + i)).raw,
		.remote_port = be16_of(443).raw,
		.has = (uint32_t)fp_cols_of(op, 0),
	};

	if (op == FP_OP_DELETE)
		return rec;
	rec.version = i + 7;
	rec.state = FP_ST_ESTABLISHED;
	rec.rule = op == FP_OP_STATE ? 0 : 300;
	if (op == FP_OP_OPEN) {
		rec.external = is_v6 ? v6 : addr_from_v4(WAN_VIP);
		rec.external_port = be16_of((uint16_t)(40000 + i)).raw;
		rec.out_port = WAN;
	}
	if (op == FP_OP_REST) {
		rec.remaining_ms = 1000 * i;
		rec.win[0] = (struct fp_tcp_win){ .end = i, .max_end = i + 1, .max_win = 65535, .scale = 7 };
		rec.packets[0] = i;
		rec.bytes[1] = UINT64_C(1) << 40;
	}
	return rec;
}

static const uint8_t ops[] = { FP_OP_OPEN, FP_OP_STATE, FP_OP_REST, FP_OP_DELETE };

static int unpack(const uint8_t *data, uint32_t len, struct fp_flow_rec *out)
{
	memset(&err, 0, sizeof(err));
	return fp_sections_unpack(data, len, out, N, &unknown, &err);
}

static int pack(const struct fp_flow_rec *recs, uint32_t n, uint8_t *out, uint32_t *len)
{
	struct fp_cols cols = scratch();

	return fp_sections_pack(recs, n, &cols, out, ROOM, len);
}

/* Each op and family, together and in their order; a marker ends them. */
static void check_round_trip(void)
{
	static uint8_t data[ROOM];
	struct fp_flow_rec in[N] = { 0 }, out[N], want[N];
	uint32_t n = 0, len;

	for (uint32_t i = 0; i < N - 1; i++)
		in[i] = record(i, ops[i % 4], i / 4 % 2);
	in[N - 1].op = FP_OP_SWEPT;
	for (uint32_t op = 0; op < 4; op++)
		for (uint32_t v6 = 0; v6 < 2; v6++)
			for (uint32_t i = 0; i < N - 1; i++)
				if (in[i].op == ops[op] && i / 4 % 2 == v6)
					want[n++] = in[i];
	CHECK_EQ(1, n, N - 1);
	CHECK_EQ(2, pack(in, N, data, &len), N - 1);
	CHECK_EQ(3, data[0], 0x98);
	CHECK_EQ(4, unpack(data, len, out), N - 1);
	CHECK(5, memcmp(out, want, (N - 1) * sizeof(*out)) == 0);
	CHECK_EQ(6, unknown, 0);
	for (uint32_t cut = 0; cut < len; cut++) { /* wherever it is cut, it is refused, and that is said */
		uint8_t *part = malloc(cut ? cut : 1);

		REQUIRE(part);
		memcpy(part, data, cut);
		CHECK_EQ(7, unpack(part, cut, out), -EBADMSG);
		CHECK(8, err.text[0] != 0);
		free(part);
	}
	data[len] = 0xc0;
	CHECK_EQ(9, unpack(data, len + 1, out), -EBADMSG);
}

/* Room for all of it, or none is used. */
static void check_room(void)
{
	static uint8_t data[ROOM];
	struct fp_flow_rec rec = record(1, FP_OP_REST, true);
	struct fp_cols cols = scratch();
	uint32_t len, used;

	CHECK_EQ(20, pack(&rec, 1, data, &len), 1);
	for (uint32_t cap = 1; cap < len; cap++) {
		uint8_t *out = malloc(cap);

		REQUIRE(out);
		CHECK_EQ(21, fp_sections_pack(&rec, 1, &cols, out, cap, &used), -ENOBUFS);
		free(out);
	}
	CHECK_EQ(22, fp_sections_pack(&rec, 0, &cols, data, ROOM, &used), 0);
	CHECK_EQ(23, used, 1);
	CHECK_EQ(24, data[0], 0x90);
	CHECK_EQ(25, fp_sections_pack(&rec, 1, NULL, data, ROOM, &used), -EINVAL);
	CHECK_EQ(26, fp_sections_pack(&rec, 1, &cols, NULL, ROOM, &used), -EINVAL);
	CHECK_EQ(27, fp_sections_unpack(NULL, 0, &rec, 1, &unknown, &err), -EINVAL);
	CHECK_EQ(28, fp_sections_unpack(data, 1, &rec, 1, NULL, &err), -EINVAL);
}

/* ---- sections made by hand ---- */

struct text {
	uint8_t data[4096];
	uint32_t len;
};

static void put(struct text *t, const void *data, size_t len)
{
	REQUIRE(t->len + len <= sizeof(t->data));
	memcpy(t->data + t->len, data, len);
	t->len += (uint32_t)len;
}

static void put_byte(struct text *t, uint32_t byte)
{
	const uint8_t b = (uint8_t)byte;

	put(t, &b, 1);
}

static void put_name(struct text *t, const char *name)
{
	put_byte(t, 0xa0 | (uint32_t)strlen(name));
	put(t, name, strlen(name));
}

static void put_bin(struct text *t, const char *name, const void *data, uint32_t len)
{
	put_name(t, name);
	put_byte(t, 0xc4);
	put_byte(t, len);
	put(t, data, len);
}

/* The columns of DELETE for @n records, but for `id_low`. */
static void put_rest_of_delete(struct text *t)
{
	put_bin(t, "id_high", "\1\0\0\0", 4);
	put_bin(t, "origin", "\1\0", 2);
	put_bin(t, "form", "\2", 1);
	put_bin(t, "proto", "\6", 1);
	put_bin(t, "inside", "\12\0\0\1", 4);
	put_bin(t, "remote", "\300\0\2\12", 4);
	put_bin(t, "inside_port", "\3\350", 2);
	put_bin(t, "remote_port", "\1\273", 2);
}

static void put_head(struct text *t, uint32_t n)
{
	put_byte(t, 0x84);
	put_name(t, "op");
	put_byte(t, FP_OP_DELETE);
	put_name(t, "n");
	put_byte(t, n);
	put_name(t, "f");
	put_byte(t, 4);
	put_name(t, "cols");
}

/* As msgpack would have written it: keys in this order, each value in its shortest form. */
static void check_bytes(void)
{
	struct text want = { .len = 0 };
	struct fp_flow_rec recs[2] = { record(0, FP_OP_DELETE, false), record(1, FP_OP_DELETE, false) };
	static uint8_t data[ROOM];
	uint32_t len;

	recs[0].inside = recs[1].inside = addr_from_v4(be32_of(0x0a000001));
	recs[0].remote = recs[1].remote = addr_from_v4(be32_of(0xc000020a));
	recs[0].form = recs[1].form = 2;
	recs[1].inside_port = recs[0].inside_port;
	put_byte(&want, 0x91);
	put_head(&want, 2);
	put_byte(&want, 0x89);
	put_bin(&want, "id_low", "\1\0\0\0\2\0\0\0", 8);
	put_rest_of_delete(&want);
	CHECK_EQ(40, pack(recs, 2, data, &len), 2);
	CHECK_EQ(41, len, want.len);
	CHECK(42, memcmp(data, want.data, len) == 0);
}

/* Of a later version, or of another hand: all of this is as good. */
static void check_other_hands(void)
{
	struct fp_flow_rec out[N];
	struct text t = { .len = 0 };

	put_byte(&t, 0xdc); /* array 16 */
	put(&t, "\0\3", 2);
	put_byte(&t, 0x83); /* an op that nobody knows yet, with what it likes */
	put_name(&t, "op");
	put_byte(&t, 77);
	put_name(&t, "n");
	put(&t, "\xcf\0\0\1\0\0\0\0\0", 9);
	put_name(&t, "more");
	put(&t, "\x94\xc0\xcb\0\0\0\0\0\0\0\0\xff\x81\xa1k\x92\xc2\xc3", 18);
	put_byte(&t, 0x86); /* cols first, a key twice, and an unknown one */
	put_name(&t, "cols");
	put_byte(&t, 0x8b);
	put_bin(&t, "app_id", "??", 2);
	put_rest_of_delete(&t);
	put_bin(&t, "id_low", "\1\0\0\0", 4); /* one for both, and then one for each */
	put_bin(&t, "id_low", "\1\0\0\0\2\0\0\0", 8);
	put_name(&t, "f");
	put(&t, "\xd0\4", 2); /* int 8 */
	put_name(&t, "zstd");
	put_byte(&t, 0xc2);
	put_name(&t, "n");
	put_byte(&t, 9);
	put_name(&t, "n");
	put(&t, "\xd1\0\2", 3); /* int 16 */
	put_name(&t, "op");
	put(&t, "\xcd\0\1", 3); /* uint 16 */
	put_byte(&t, 0x81);     /* another unknown op */
	put_name(&t, "op");
	put(&t, "\xce\x7f\0\0\0", 5);
	CHECK_EQ(50, unpack(t.data, t.len, out), 2);
	CHECK_EQ(51, unknown, 3);
	CHECK_EQ(52, out[0].id, UINT64_C(0x100000001));
	CHECK_EQ(53, out[1].id, UINT64_C(0x100000002));
	CHECK_EQ(54, out[1].op, FP_OP_DELETE);
	CHECK_EQ(55, out[1].origin, 1);
}

/* ---- what no peer sends ---- */

static void refused(int n, const struct text *t, int error, const char *says)
{
	struct fp_flow_rec out[N];

	CHECK_EQ(n, unpack(t->data, t->len, out), error);
	CHECK(n, strstr(err.text, says) != NULL);
}

static void check_whole(void)
{
	static const uint8_t in_a_key[] = { 0x91, 0x81, 0xa1, 'x' };
	static const uint8_t many[] = { 0x91, 0x81, 0xa1, 'x', 0xdd, 0, 1, 0x86, 0x9b };
	static uint8_t deep[100002];
	struct fp_flow_rec out[N];

	refused(60, &(struct text){ "\x80", 1 }, -EDOM, "array");
	refused(61, &(struct text){ "\x07", 1 }, -EDOM, "array");
	refused(62, &(struct text){ "\xdd\xff\xff\xff\xff", 5 }, -EDOM, "array");
	refused(63, &(struct text){ "\x91\xc0", 2 }, -EDOM, "map");
	refused(64, &(struct text){ "\x91\xdf\xff\xff\xff\xff", 6 }, -EBADMSG, "whole");
	refused(65, &(struct text){ "\x91\xc1", 2 }, -EBADMSG, "whole");
	refused(66, &(struct text){ "\x91\x81\xa1x\xc7\0\1", 7 }, -EBADMSG, "whole");
	refused(67, &(struct text){ "\x91\x81\xa1x\xd4\1\1", 7 }, -EBADMSG, "whole");
	refused(68, &(struct text){ "\x91\x81\1\1", 4 }, -EBADMSG, "key");
	refused(69, &(struct text){ "\x91\x81\xa1x\xc6\xff\xff\xff\xff", 9 }, -EBADMSG, "whole");
	refused(70, &(struct text){ "\x91\x80", 2 }, -EDOM, "op");
	refused(71, &(struct text){ "\x91\x81\xa2op\xff", 6 }, -EDOM, "op");
	memset(deep, 0x91, sizeof(deep));
	CHECK_EQ(72, unpack(deep, sizeof(deep), out), -EDOM);
	memcpy(deep, in_a_key, sizeof(in_a_key));
	CHECK_EQ(73, unpack(deep, sizeof(deep), out), -EBADMSG);
	memset(deep, 0x80, sizeof(deep));
	memcpy(deep, many, sizeof(many));
	CHECK_EQ(74, unpack(deep, sizeof(deep), out), -EBADMSG); /* one is missing */
}

/* A section of DELETE in which one thing is wrong. */
static void check_section(void)
{
	static const struct {
		const char *head;
		size_t len;
		int error;
		const char *says;
	} heads[] = {
		{ "\203\242op\1\241n\1\241f\4", 11, -EDOM, "no cols" },
		{ "\204\242op\1\241n\1\241f\4\244cols\300", 17, -EDOM, "not a map" },
		{ "\204\242op\1\241n\0\241f\4\244cols\200", 17, -EDOM, "section of 0 records" },
		{ "\204\242op\1\241n\51\241f\4\244cols\200", 17, -EDOM, "section of 41 records" },
		{ "\204\242op\1\241n\1\241f\5\244cols\200", 17, -EDOM, "family 5" },
		{ "\204\242op\1\241n\1\241f\4\244cols\200", 17, -ENODATA,
		  "column id_low of DELETE is missing" },
		{ "\204\242op\1\241n\1\241f\4\244cols\201\1\1", 19, -EBADMSG, "key of cols" },
		{ "\204\242op\1\241n\1\241f\4\244cols\201\246id_low\2440123", 29, -ENODATA,
		  "column id_low of DELETE: 4 bytes" },
		{ "\204\242op\1\241n\2\241f\4\244cols\201\246id_low\304\00501234", 31, -ENODATA,
		  "8 or 4 expected for 2 records" },
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(heads); i++) {
		struct text t = { "\x91", 1 };

		put(&t, heads[i].head, heads[i].len);
		refused(80 + (int)i, &t, heads[i].error, heads[i].says);
	}
}

/* Values, and the bounds of a batch over all of its sections. */
static void check_batch(void)
{
	struct text t = { "\x91", 1 };
	struct fp_flow_rec out[N];

	put_head(&t, 1);
	put_byte(&t, 0x89);
	put_bin(&t, "id_low", "\0\0\0\0", 4);
	put_bin(&t, "id_high", "\0\0\0\0", 4); /* an id of zero */
	put_bin(&t, "origin", "\1\0", 2);
	put_bin(&t, "form", "\2", 1);
	put_bin(&t, "proto", "\6", 1);
	put_bin(&t, "inside", "\12\0\0\1", 4);
	put_bin(&t, "remote", "\300\0\2\12", 4);
	put_bin(&t, "inside_port", "\3\350", 2);
	put_bin(&t, "remote_port", "\1\273", 2);
	refused(100, &t, -EINVAL, "DELETE");
	t = (struct text){ "\x92", 1 };
	for (uint32_t i = 0; i < 2; i++) { /* what is said once for all makes records cheap */
		put_head(&t, i ? 1 : N);
		put_byte(&t, 0x89);
		put_bin(&t, "id_low", "\1\0\0\0", 4);
		put_rest_of_delete(&t);
	}
	refused(101, &t, -EDOM, "section of 1 records");
	t.data[0] = 0x91;
	CHECK_EQ(102, unpack(t.data, 1 + (t.len - 1) / 2, out), N);
	CHECK_EQ(103, out[N - 1].id, UINT64_C(0x100000001));
	t = (struct text){ "\xdc\0\x11", 3 };
	refused(104, &t, -EDOM, "16 sections");
}

int main(void)
{
	check_round_trip();
	check_room();
	check_bytes();
	check_other_hands();
	check_whole();
	check_section();
	check_batch();
	return check_done("check_sections");
}
