/* SPDX-License-Identifier: Apache-2.0 */
/**
 * sections.c - flow records to the sections of a batch message and back (flexha/core/SYNC.md, "Sections")
 *
 * The sections are a msgpack array of maps {"op", "n", "f", "cols"}, one for each op and address family, and each
 * column of "cols" (cols.c) is a bin. What is written is in order and as short as it gets; what is read may have
 * its keys in any order, and keys, columns and ops that this version does not know. Nothing is allocated, and
 * skipping needs no stack: a hostile message costs no more than its length. Everything here is a pure function.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "cols.h"

/* As the columns are called in the message: enum col. */
static const char *const names[N_COLS] = {
	[COL_ID_LOW] = "id_low",
	[COL_ID_HIGH] = "id_high",
	[COL_ORIGIN] = "origin",
	[COL_VERSION] = "version",
	[COL_FORM] = "form",
	[COL_PROTO] = "proto",
	[COL_STATE] = "state",
	[COL_FLAGS] = "flags",
	[COL_IN_PORT] = "in_port",
	[COL_OUT_PORT] = "out_port",
	[COL_RULE] = "rule",
	[COL_INSIDE] = "inside",
	[COL_REMOTE] = "remote",
	[COL_EXTERNAL] = "external",
	[COL_INSIDE_PORT] = "inside_port",
	[COL_REMOTE_PORT] = "remote_port",
	[COL_EXTERNAL_PORT] = "external_port",
	[COL_REMAINING_MS] = "remaining_ms",
	[COL_WIN] = "win",
	[COL_COUNTERS] = "counters",
};

/* Who replaces a session comes before who is gone, and what is told of a session after its first word. */
static const uint8_t order_of_ops[] = { FP_OP_OPEN, FP_OP_STATE, FP_OP_REST, FP_OP_DELETE };
static const char *const op_names[] = {
	[FP_OP_OPEN] = "OPEN", [FP_OP_DELETE] = "DELETE", [FP_OP_STATE] = "STATE", [FP_OP_REST] = "REST"
};

enum {
	SECTIONS_MAX = 16,
	SECTION_HEAD_MAX = 32, /* all of a section but its columns */
	COLUMN_HEAD_MAX = 20,  /* name, and the bin's head */
};

/* ---- msgpack, written ---- */

static uint8_t *put_be(uint8_t *p, uint64_t value, uint32_t bytes)
{
	for (uint32_t shift = bytes * 8; shift > 0; shift -= 8)
		*p++ = (uint8_t)(value >> (shift - 8));
	return p;
}

static uint8_t *put_uint(uint8_t *p, uint32_t value)
{
	if (value < 128)
		return put_be(p, value, 1);
	*p++ = value <= UINT8_MAX ? 0xcc : value <= UINT16_MAX ? 0xcd : 0xce;
	return put_be(p, value, value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : 4);
}

static uint8_t *put_name(uint8_t *p, const char *name)
{
	uint8_t *head = p++;

	while (*name)
		*p++ = (uint8_t)*name++;
	*head = (uint8_t)(0xa0 | (p - head - 1)); /* below 32 */
	return p;
}

static uint8_t *put_bin(uint8_t *p, const uint8_t *data, uint32_t len)
{
	*p++ = len <= UINT8_MAX ? 0xc4 : len <= UINT16_MAX ? 0xc5 : 0xc6;
	p = put_be(p, len, len <= UINT8_MAX ? 1 : len <= UINT16_MAX ? 2 : 4);
	memcpy(p, data, len);
	return p + len;
}

static uint8_t *put_map_head(uint8_t *p, uint32_t pairs)
{
	if (pairs < 16)
		return put_be(p, 0x80 | pairs, 1);
	*p++ = 0xde;
	return put_be(p, pairs, 2);
}

/* One section: those of @rec of this op and family. Return: its end, NULL if it does not fit. */
static uint8_t *put_section(uint8_t *p, const uint8_t *end, const struct fp_flow_rec *rec, uint32_t n,
			    uint32_t op, uint32_t family, struct fp_cols *scratch)
{
	const uint32_t columns = (uint32_t)fp_cols_of(op, 0);
	const uint8_t *data[N_COLS];
	uint32_t constant = 0;
	const int count = cols_pack(rec, n, family, op, scratch, &constant);

	if (count < 0 || end - p < SECTION_HEAD_MAX)
		return NULL;
	memcpy(data, scratch, sizeof(data));
	*p++ = 0x84;
	p = put_uint(put_name(p, "op"), op);
	p = put_uint(put_name(p, "n"), (uint32_t)count);
	p = put_uint(put_name(p, "f"), family);
	p = put_name(p, "cols");
	p = put_map_head(p, (uint32_t)__builtin_popcount(columns));
	for (uint32_t left = columns; left; left &= left - 1) {
		const enum col col = (enum col)__builtin_ctz(left);
		const uint32_t len = cols_width(col, family) *
				     (constant & COL_BIT(col) ? 1 : (uint32_t)count);

		if (end - p < (ptrdiff_t)len + COLUMN_HEAD_MAX)
			return NULL;
		p = put_bin(put_name(p, names[col]), data[col], len);
	}
	return p;
}

int fp_sections_pack(const struct fp_flow_rec *rec, uint32_t n, struct fp_cols *scratch, uint8_t *out,
		     uint32_t cap, uint32_t *used)
{
	uint32_t counts[8];
	uint8_t *p = out, n_sections = 0;
	const uint8_t *end;
	int packed;

	if (!scratch || !out || !used || cap == 0)
		return -EINVAL;
	packed = cols_census(rec, n, counts);
	if (packed < 0)
		return packed;
	end = out + cap;
	p++; /* the array's head */
	for (uint32_t i = 0; i < ARRAY_SIZE(order_of_ops); i++) {
		for (uint32_t v6 = 0; v6 < 2; v6++) {
			if (counts[order_of_ops[i] * 2 + v6] == 0)
				continue;
			p = put_section(p, end, rec, (uint32_t)packed, order_of_ops[i], v6 ? 6 : 4, scratch);
			if (!p)
				return -ENOBUFS;
			n_sections++;
		}
	}
	*out = (uint8_t)(0x90 | n_sections);
	*used = (uint32_t)(p - out);
	return packed;
}

/* ---- msgpack, read ---- */

enum kind { UINT, STR, BIN, ARRAY, MAP, OTHER };

struct item {
	enum kind kind;
	uint64_t value;      /* the number, the length, or how many follow */
	const uint8_t *data; /* of a str or bin */
};

/* What is not yet read; @bad: it ended too early, or is no msgpack. */
struct reader {
	const uint8_t *at, *end;
	bool bad;
};

static uint64_t get_be(struct reader *r, uint32_t bytes)
{
	uint64_t value = 0;

	if ((size_t)(r->end - r->at) < bytes) {
		r->bad = true;
		return 0;
	}
	while (bytes--)
		value = value << 8 | *r->at++;
	return value;
}

static const uint8_t *get_bytes(struct reader *r, uint64_t len)
{
	const uint8_t *data = r->at;

	if ((size_t)(r->end - r->at) < len) {
		r->bad = true;
		return NULL;
	}
	r->at += len;
	return data;
}

/* The next value, without what a container holds. */
static struct item get_item(struct reader *r)
{
	/* By the first byte, from 0xc0 on: what it is, and how long its number is. */
	static const struct {
		uint8_t kind, bytes;
	} heads[32] = {
		[0x00] = { OTHER, 0 }, [0x02] = { OTHER, 0 }, [0x03] = { OTHER, 0 }, /* nil, false, true */
		[0x04] = { BIN, 1 },   [0x05] = { BIN, 2 },   [0x06] = { BIN, 4 },   [0x0a] = { OTHER, 4 },
		[0x0b] = { OTHER, 8 }, [0x0c] = { UINT, 1 },  [0x0d] = { UINT, 2 },  [0x0e] = { UINT, 4 },
		[0x0f] = { UINT, 8 },  [0x10] = { OTHER, 1 }, [0x11] = { OTHER, 2 }, [0x12] = { OTHER, 4 },
		[0x13] = { OTHER, 8 }, [0x19] = { STR, 1 },   [0x1a] = { STR, 2 },   [0x1b] = { STR, 4 },
		[0x1c] = { ARRAY, 2 }, [0x1d] = { ARRAY, 4 }, [0x1e] = { MAP, 2 },   [0x1f] = { MAP, 4 },
	};
	const uint8_t first = (uint8_t)get_be(r, 1);
	struct item item = { OTHER, 0, NULL };

	if (first < 0x80 || first >= 0xe0) {
		item.kind = first < 0x80 ? UINT : OTHER; /* or a small negative number */
		item.value = first;
	} else if (first < 0xc0) {
		item.kind = first < 0x90 ? MAP : first < 0xa0 ? ARRAY : STR;
		item.value = first & (first < 0xa0 ? 0x0f : 0x1f);
	} else if (first == 0xc1 || (first >= 0xc7 && first <= 0xc9) || (first >= 0xd4 && first <= 0xd8)) {
		r->bad = true; /* never used; extension types: this protocol has none */
	} else {
		item.kind = (enum kind)heads[first - 0xc0].kind;
		item.value = get_be(r, heads[first - 0xc0].bytes);
		/* A number that is not negative is one, in whatever form it comes. */
		if (first >= 0xd0 && first <= 0xd3 && item.value >> ((8u << (first - 0xd0)) - 1) == 0)
			item.kind = UINT;
	}
	if (item.kind == STR || item.kind == BIN)
		item.data = get_bytes(r, item.value);
	return item;
}

/* Pass over what @item holds. Each value takes a byte at least, so this ends with the message. */
static void skip_inside(struct reader *r, struct item item)
{
	uint64_t left = 1;

	for (;;) {
		left += item.kind == ARRAY ? item.value : item.kind == MAP ? 2 * item.value : 0;
		if (--left == 0 || r->bad)
			return;
		item = get_item(r);
	}
}

static bool is_text(const struct item *item, const char *text)
{
	return item->kind == STR && item->data && item->value == strlen(text) &&
	       memcmp(item->data, text, item->value) == 0;
}

/* ---- sections, read ---- */

__attribute__((format(printf, 3, 4))) static int refuse(struct fp_error *err, int rc, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(err->text, sizeof(err->text), format, args);
	va_end(args);
	return rc;
}

static int truncated(struct fp_error *err)
{
	return refuse(err, -EBADMSG, "the sections of a batch are not whole, or not msgpack");
}

struct section {
	struct item op, n, family;
	struct reader cols; /* where their map begins; at NULL: there is none */
};

static int read_section(struct reader *r, struct section *s, struct fp_error *err)
{
	const struct item map = get_item(r);

	*s = (struct section){ .op.kind = OTHER, .n.kind = OTHER, .family.kind = OTHER };
	if (!r->bad && map.kind != MAP)
		return refuse(err, -EDOM, "a section of a batch is not a map");
	for (uint64_t i = 0; i < map.value && !r->bad; i++) {
		const struct item key = get_item(r);
		const struct reader here = *r;
		struct item value;

		if (!r->bad && key.kind != STR)
			return refuse(err, -EBADMSG, "a key of a section is not a string");
		value = get_item(r);
		skip_inside(r, value);
		if (is_text(&key, "op"))
			s->op = value;
		else if (is_text(&key, "n"))
			s->n = value;
		else if (is_text(&key, "f"))
			s->family = value;
		else if (is_text(&key, "cols"))
			s->cols = here;
	}
	return r->bad ? truncated(err) : 0;
}

/* The column that is called so, N_COLS if none is. They come in order, so it is probably @guess. */
static enum col column_of(const struct item *key, enum col guess)
{
	if (guess < N_COLS && is_text(key, names[guess]))
		return guess;
	for (uint32_t col = 0; col < N_COLS; col++)
		if (is_text(key, names[col]))
			return (enum col)col;
	return N_COLS;
}

static int read_cols(struct reader r, const struct section *s, struct fp_flow_rec *rec, uint32_t *unknown,
		     struct fp_error *err)
{
	const uint32_t op = (uint32_t)s->op.value, n = (uint32_t)s->n.value,
		       family = (uint32_t)s->family.value;
	const uint32_t columns = (uint32_t)fp_cols_of(op, 0);
	const uint8_t *data[N_COLS] = { NULL };
	const struct item map = get_item(&r);
	uint32_t constant = 0, has = 0, missing;
	enum col guess = COL_ID_LOW;
	struct fp_cols cols;
	int rc;

	if (map.kind != MAP)
		return refuse(err, -EDOM, "cols of a section is not a map");
	for (uint64_t i = 0; i < map.value; i++) {
		const struct item key = get_item(&r);
		const struct item value = get_item(&r);
		const enum col col = column_of(&key, guess);
		uint32_t width;

		if (key.kind != STR)
			return refuse(err, -EBADMSG, "a key of cols is not a string");
		skip_inside(&r, value);
		if (col == N_COLS || !(columns & COL_BIT(col))) {
			++*unknown;
			continue;
		}
		width = cols_width(col, family);
		if (value.kind != BIN || (value.value != width && value.value != (uint64_t)n * width))
			return refuse(err, -ENODATA,
				      "column %s of %s: %llu bytes, %llu or %u expected for %u records",
				      names[col], op_names[op], (unsigned long long)value.value,
				      (unsigned long long)n * width, width, n);
		data[col] = value.data;
		has |= COL_BIT(col);
		if (value.value == width) /* a column that comes again counts as it came last */
			constant |= COL_BIT(col);
		else
			constant &= ~COL_BIT(col);
		guess = (enum col)(col + 1);
	}
	missing = (uint32_t)fp_cols_of(op, 1) & ~has;
	if (missing)
		return refuse(err, -ENODATA, "column %s of %s is missing", names[__builtin_ctz(missing)],
			      op_names[op]);
	memcpy(&cols, data, sizeof(cols));
	rc = cols_unpack(&cols, n, family, op, constant, rec);
	return rc < 0 ? refuse(err, rc, "a record of %s holds a value that no peer sends", op_names[op]) : rc;
}

int fp_sections_unpack(const uint8_t *in, uint32_t len, struct fp_flow_rec *rec, uint32_t cap,
		       uint32_t *unknown, struct fp_error *err)
{
	struct item array;
	struct reader r;
	uint32_t total = 0;

	if (!in || !rec || !unknown || !err || cap > INT32_MAX)
		return -EINVAL;
	*unknown = 0;
	r = (struct reader){ in, in + len, false };
	array = get_item(&r);
	if (r.bad)
		return truncated(err);
	if (array.kind != ARRAY || array.value > SECTIONS_MAX)
		return refuse(err, -EDOM, "a batch of at most %u sections is an array of them", SECTIONS_MAX);
	for (uint64_t i = 0; i < array.value; i++) {
		struct section s;
		int rc = read_section(&r, &s, err);

		if (rc < 0)
			return rc;
		if (s.op.kind != UINT)
			return refuse(err, -EDOM, "op of a section is not a number");
		if (s.op.value > INT32_MAX || fp_cols_of((uint32_t)s.op.value, 0) < 0) {
			++*unknown;
			continue;
		}
		if (s.n.kind != UINT || s.n.value == 0 || s.n.value > cap - total || s.family.kind != UINT ||
		    (s.family.value != 4 && s.family.value != 6))
			return refuse(
				err, -EDOM,
				"section of %llu records, of family %llu: 1 to %u, of 4 or 6, may follow",
				(unsigned long long)s.n.value, (unsigned long long)s.family.value,
				cap - total);
		if (!s.cols.at)
			return refuse(err, -EDOM, "a section has no cols");
		rc = read_cols(s.cols, &s, rec + total, unknown, err);
		if (rc < 0)
			return rc;
		total += (uint32_t)rc;
	}
	if (r.at != r.end)
		return refuse(err, -EBADMSG, "%zu bytes follow the sections of a batch",
			      (size_t)(r.end - r.at));
	return (int)total;
}
