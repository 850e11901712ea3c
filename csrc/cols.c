/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cols.c - flow records to columns and back: a section of a sync batch (sections.c, flexha/core/SYNC.md)
 *
 * A section holds records of one op and one address family. A column is a packed little-endian array with one
 * element for each record, or with one in all when it would be the same for each; addresses are 4 or 16 bytes,
 * ports stay in network order; an id is two columns, since its high half hardly ever changes. A receiver skips
 * columns that it does not know, and some may be missing, so both may grow apart by a version. Everything here is
 * a pure function.
 *
 *   op       required ("id": id_low and id_high)                                               optional
 *   OPEN     id origin version form proto state flags in_port out_port inside remote external  rule
 *            inside_port remote_port external_port
 *   STATE    id origin version form proto state flags inside remote inside_port remote_port
 *   REST     as STATE                                                  rule remaining_ms win counters
 *   DELETE   id origin form proto inside remote inside_port remote_port
 */
#include <errno.h>

#include "cols.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "columns are copied, not swapped");

enum {
	FAMILY_V4 = 4,
	FAMILY_V6 = 6,
	WIN_LEN = 14, /* of one direction: three u32, two u8 */
	CHUNK = 128,  /* records whose columns are copied while they are in the cache */
	REMAINING_MS_MAX = 31 * 24 * 3600 * 1000u
};

static_assert(sizeof(struct fp_cols) == N_COLS * sizeof(uint8_t *), "enum col follows struct fp_cols");

/* What a column carries: a piece of the record as it is, an address, or the windows. */
enum shape { PLAIN, ADDRESS, WINDOWS };

struct field {
	uint16_t at, size;
	enum shape shape;
};

#define FIELD(member, size, shape) { offsetof(struct fp_flow_rec, member), size, shape }
static const struct field fields[N_COLS] = {
	[COL_ID_LOW] = FIELD(id, 4, PLAIN),
	[COL_ID_HIGH] = { offsetof(struct fp_flow_rec, id) + 4, 4, PLAIN },
	[COL_ORIGIN] = FIELD(origin, 2, PLAIN),
	[COL_VERSION] = FIELD(version, 4, PLAIN),
	[COL_FORM] = FIELD(form, 1, PLAIN),
	[COL_PROTO] = FIELD(proto, 1, PLAIN),
	[COL_STATE] = FIELD(state, 1, PLAIN),
	[COL_FLAGS] = FIELD(flags, 1, PLAIN),
	[COL_IN_PORT] = FIELD(in_port, 1, PLAIN),
	[COL_OUT_PORT] = FIELD(out_port, 1, PLAIN),
	[COL_RULE] = FIELD(rule, 2, PLAIN),
	[COL_INSIDE] = FIELD(inside, 16, ADDRESS),
	[COL_REMOTE] = FIELD(remote, 16, ADDRESS),
	[COL_EXTERNAL] = FIELD(external, 16, ADDRESS),
	[COL_INSIDE_PORT] = FIELD(inside_port, 2, PLAIN),
	[COL_REMOTE_PORT] = FIELD(remote_port, 2, PLAIN),
	[COL_EXTERNAL_PORT] = FIELD(external_port, 2, PLAIN),
	[COL_REMAINING_MS] = FIELD(remaining_ms, 4, PLAIN),
	[COL_WIN] = FIELD(win, 2 * WIN_LEN, WINDOWS),
	[COL_COUNTERS] = FIELD(packets, 32, PLAIN),
};
#undef FIELD

static_assert(offsetof(struct fp_flow_rec, bytes) == offsetof(struct fp_flow_rec, packets) + 16,
	      "the counters are one piece");

enum {
	KEY = COL_BIT(COL_ID_LOW) | COL_BIT(COL_ID_HIGH) | COL_BIT(COL_ORIGIN) | COL_BIT(COL_FORM) |
		COL_BIT(COL_PROTO) | COL_BIT(COL_INSIDE) | COL_BIT(COL_REMOTE) | COL_BIT(COL_INSIDE_PORT) |
		COL_BIT(COL_REMOTE_PORT),
	NEWS = KEY | COL_BIT(COL_VERSION) | COL_BIT(COL_STATE) | COL_BIT(COL_FLAGS),
	FIRST = NEWS | COL_BIT(COL_IN_PORT) | COL_BIT(COL_OUT_PORT) | COL_BIT(COL_EXTERNAL) |
		COL_BIT(COL_EXTERNAL_PORT),
	LATER = COL_BIT(COL_RULE) | COL_BIT(COL_REMAINING_MS) | COL_BIT(COL_WIN) | COL_BIT(COL_COUNTERS)
};
static const uint32_t required_of[] = {
	[FP_OP_OPEN] = FIRST, [FP_OP_DELETE] = KEY, [FP_OP_STATE] = NEWS, [FP_OP_REST] = NEWS
};
static const uint32_t columns_of[] = { [FP_OP_OPEN] = FIRST | COL_BIT(COL_RULE),
				       [FP_OP_DELETE] = KEY,
				       [FP_OP_STATE] = NEWS,
				       [FP_OP_REST] = NEWS | LATER };

int cols_family(const struct fp_flow_rec *rec)
{
	if (!rec)
		return -EINVAL;
	return addr_is_v4(&rec->inside) ? FAMILY_V4 : FAMILY_V6;
}

int cols_census(const struct fp_flow_rec *rec, uint32_t n, uint32_t *counts)
{
	uint32_t i = 0;

	if ((n && !rec) || !counts || n > INT32_MAX)
		return -EINVAL;
	memset(counts, 0, 2 * ARRAY_SIZE(columns_of) * sizeof(*counts));
	for (; i < n && rec[i].op < ARRAY_SIZE(columns_of); i++)
		counts[rec[i].op * 2 + !addr_is_v4(&rec[i].inside)]++;
	return (int)i;
}

int fp_cols_of(uint32_t op, uint32_t required)
{
	if (op >= ARRAY_SIZE(columns_of))
		return -EINVAL;
	return (int)(required ? required_of[op] : columns_of[op]);
}

/* ---- one column ---- */

uint32_t cols_width(enum col col, uint32_t family)
{
	return fields[col].shape == ADDRESS && family == FAMILY_V4 ? 4 : fields[col].size;
}

static void put_win(uint8_t *p, const struct fp_tcp_win win[2])
{
	for (uint32_t side = 0; side < 2; side++, p += WIN_LEN) {
		memcpy(p, &win[side].end, 4);
		memcpy(p + 4, &win[side].max_end, 4);
		memcpy(p + 8, &win[side].max_win, 4);
		p[12] = win[side].scale;
		p[13] = win[side].flags;
	}
}

static void get_win(const uint8_t *p, struct fp_tcp_win win[2])
{
	for (uint32_t side = 0; side < 2; side++, p += WIN_LEN) {
		memcpy(&win[side].end, p, 4);
		memcpy(&win[side].max_end, p + 4, 4);
		memcpy(&win[side].max_win, p + 8, 4);
		win[side].scale = p[12];
		win[side].flags = p[13];
	}
}

/*
 * Columns are copied one after the other, by loops that know how wide an element is: a million records pass here
 * in a bulk, and what a copy of unknown length costs is several times the copy.
 */
static HOT bool gather_fixed(uint8_t *to, const uint8_t *first, const uint8_t *from, const uint16_t *which,
			     uint32_t n, const uint32_t width)
{
	bool same = true;

	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *element = from + (size_t)which[i] * sizeof(struct fp_flow_rec);

		memcpy(to + (size_t)i * width, element, width);
		same &= memcmp(first, to + (size_t)i * width, width) == 0;
	}
	return same;
}

static bool gather_windows(uint8_t *to, const uint8_t *first, const struct fp_flow_rec *rec,
			   const uint16_t *which, uint32_t n)
{
	bool same = true;

	for (uint32_t i = 0; i < n; i++, to += (size_t)2 * WIN_LEN) {
		put_win(to, rec[which[i]].win);
		same &= memcmp(first, to, (size_t)2 * WIN_LEN) == 0;
	}
	return same;
}

/* Elements of the records @which, to @to. Return: each is as @first, the column's first one. */
static bool gather(uint8_t *to, const uint8_t *first, enum col col, uint32_t width,
		   const struct fp_flow_rec *rec, const uint16_t *which, uint32_t n)
{
	/* IPv4 is the end of the mapped address */
	const uint8_t *from = (const uint8_t *)rec + fields[col].at + fields[col].size - width;

	if (fields[col].shape == WINDOWS)
		return gather_windows(to, first, rec, which, n);
	switch (width) {
	case 1: return gather_fixed(to, first, from, which, n, 1);
	case 2: return gather_fixed(to, first, from, which, n, 2);
	case 4: return gather_fixed(to, first, from, which, n, 4);
	case 8: return gather_fixed(to, first, from, which, n, 8);
	case 16: return gather_fixed(to, first, from, which, n, 16);
	default: return gather_fixed(to, first, from, which, n, width);
	}
}

static HOT void scatter_fixed(uint8_t *to, const uint8_t *from, size_t step, uint32_t n, const uint32_t width)
{
	for (uint32_t i = 0; i < n; i++, to += sizeof(struct fp_flow_rec), from += step)
		memcpy(to, from, width);
}

/* IPv4 zeros are "none", as all-zero addresses are in the record. */
static void scatter_v4(uint8_t *to, const uint8_t *from, size_t step, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++, to += sizeof(struct fp_flow_rec), from += step) {
		const be32 v4 = be32_load(from);
		const struct fp_addr mapped = addr_from_v4(v4);

		if (v4.raw)
			memcpy(to, &mapped, sizeof(mapped));
	}
}

/* A column, from @from, to @n records; @step: from one element to the next, 0 if there is but one. */
static void scatter(const uint8_t *from, size_t step, enum col col, uint32_t width, struct fp_flow_rec *rec,
		    uint32_t n)
{
	uint8_t *to = (uint8_t *)rec + fields[col].at;

	if (fields[col].shape == WINDOWS) {
		for (uint32_t i = 0; i < n; i++, from += step)
			get_win(from, rec[i].win);
		return;
	}
	if (width < fields[col].size) {
		scatter_v4(to, from, step, n);
		return;
	}
	switch (width) {
	case 1: scatter_fixed(to, from, step, n, 1); break;
	case 2: scatter_fixed(to, from, step, n, 2); break;
	case 4: scatter_fixed(to, from, step, n, 4); break;
	case 8: scatter_fixed(to, from, step, n, 8); break;
	case 16: scatter_fixed(to, from, step, n, 16); break;
	default: scatter_fixed(to, from, step, n, width);
	}
}

/* ---- sections ---- */

static bool arguments_ok(const struct fp_flow_rec *rec, uint32_t n, uint32_t family, uint32_t op,
			 const struct fp_cols *cols)
{
	return !(n && !rec) && cols && n <= INT32_MAX && (family == FAMILY_V4 || family == FAMILY_V6) &&
	       op < ARRAY_SIZE(columns_of);
}

int cols_pack(const struct fp_flow_rec *rec, uint32_t n, uint32_t family, uint32_t op, struct fp_cols *cols,
	      uint32_t *constant)
{
	uint8_t *columns[N_COLS];
	uint16_t which[CHUNK];
	uint32_t packed = 0;

	if (!arguments_ok(rec, n, family, op, cols) || !constant)
		return -EINVAL;
	memcpy(columns, cols, sizeof(columns));
	*constant = columns_of[op];
	for (uint32_t i = 0; i < n; i += CHUNK) {
		const uint32_t chunk = min_u32(n - i, CHUNK);
		uint32_t found = 0;

		for (uint32_t k = 0; k < chunk; k++)
			if (rec[i + k].op == op && (uint32_t)cols_family(&rec[i + k]) == family)
				which[found++] = (uint16_t)k;
		for (uint32_t left = columns_of[op]; left; left &= left - 1) {
			const enum col col = (enum col)__builtin_ctz(left);
			const uint32_t width = cols_width(col, family);
			uint8_t *first = columns[col];

			if (first &&
			    !gather(first + (size_t)packed * width, first, col, width, rec + i, which, found))
				*constant &= ~COL_BIT(col);
		}
		packed += found;
	}
	return (int)packed;
}

/*
 * Values that no conforming peer sends. What a value means in this node (a port's index, a pool, a shard) is for
 * core_import() to judge: a peer of another configuration is no protocol error.
 */
static bool is_plausible(const struct fp_flow_rec *rec)
{
	if (rec->form > FP_FORM_NONE || rec->origin == 0 || rec->id == 0 || rec->proto == 0 ||
	    addr_is_zero(&rec->inside) || addr_is_zero(&rec->remote))
		return false;
	if (rec->op == FP_OP_DELETE) /* identity is all that counts of what is gone */
		return true;
	if (rec->state >= FP_ST_COUNT || rec->state == FP_ST_NONE)
		return false;
	if (rec->op == FP_OP_OPEN)
		return rec->in_port < FP_PORTS_MAX && rec->out_port < FP_PORTS_MAX &&
		       !addr_is_zero(&rec->external);
	return rec->remaining_ms <= REMAINING_MS_MAX && rec->win[0].scale <= 14 && /* RFC 7323 §2.3 */
	       rec->win[1].scale <= 14;
}

int cols_unpack(const struct fp_cols *cols, uint32_t n, uint32_t family, uint32_t op, uint32_t constant,
		struct fp_flow_rec *rec)
{
	const uint8_t *columns[N_COLS];
	uint32_t has = 0;

	if (!arguments_ok(rec, n, family, op, cols))
		return -EINVAL;
	memcpy(columns, cols, sizeof(columns));
	for (uint32_t left = columns_of[op]; left; left &= left - 1)
		if (columns[__builtin_ctz(left)])
			has |= left & -left;
	if (n && required_of[op] & ~has)
		return -EINVAL;
	if (n)
		memset(rec, 0, (size_t)n * sizeof(*rec));
	for (uint32_t i = 0; i < n; i += CHUNK) {
		const uint32_t chunk = min_u32(n - i, CHUNK);

		for (uint32_t left = has; left; left &= left - 1) {
			const enum col col = (enum col)__builtin_ctz(left);
			const uint32_t width = cols_width(col, family);
			const size_t step = constant & COL_BIT(col) ? 0 : width;

			scatter(columns[col] + i * step, step, col, width, rec + i, chunk);
		}
		for (uint32_t k = i; k < i + chunk; k++) {
			rec[k].op = (uint8_t)op;
			rec[k].has = has;
			if (!is_plausible(&rec[k]))
				return -EINVAL;
		}
	}
	return (int)n;
}
