/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cols.c - flow records to columns and back: the sync batch's layout (flexha/core/sync_wire.py)
 *
 * A column is a packed little-endian array with one element for each record; addresses are 4 or 16 bytes,
 * ports stay in network order. A receiver skips columns that it does not know and reads zero for those that
 * are missing, so both may grow apart by a version. Everything here is a pure function.
 */
#include <errno.h>

#include "base.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "columns are copied, not swapped");

enum {
	FAMILY_V4 = 4,
	FAMILY_V6 = 6,
	WIN_LEN = 14,      /* of one direction: three u32, two u8 */
	COUNTERS_LEN = 32, /* packets[2], bytes[2] */
	REMAINING_MS_MAX = 31 * 24 * 3600 * 1000u
};

int fp_rec_family(const struct fp_flow_rec *rec)
{
	if (!rec)
		return -EINVAL;
	return addr_is_v4(&rec->inside) ? FAMILY_V4 : FAMILY_V6;
}

/* ---- one field of one record ---- */

static void put(uint8_t *col, uint32_t i, const void *value, size_t size)
{
	if (col)
		memcpy(col + i * size, value, size);
}

static void get(const uint8_t *col, uint32_t i, void *value, size_t size)
{
	if (col)
		memcpy(value, col + i * size, size);
}

static void put_addr(uint8_t *col, uint32_t i, const struct fp_addr *addr, uint32_t family)
{
	if (family == FAMILY_V4)
		put(col, i, addr->b + 12, 4);
	else
		put(col, i, addr->b, sizeof(addr->b));
}

/* IPv4 zeros are "none", as all-zero addresses are in the record. */
static void get_addr(const uint8_t *col, uint32_t i, struct fp_addr *addr, uint32_t family)
{
	be32 v4;

	if (!col)
		return;
	if (family == FAMILY_V6) {
		memcpy(addr->b, col + (size_t)i * sizeof(addr->b), sizeof(addr->b));
		return;
	}
	v4 = be32_load(col + (size_t)i * 4);
	if (v4.raw)
		*addr = addr_from_v4(v4);
}

static void put_win(uint8_t *col, uint32_t i, const struct fp_tcp_win win[2])
{
	for (uint32_t side = 0; col && side < 2; side++) {
		uint8_t *p = col + (size_t)WIN_LEN * (2 * i + side);

		memcpy(p, &win[side].end, 4);
		memcpy(p + 4, &win[side].max_end, 4);
		memcpy(p + 8, &win[side].max_win, 4);
		p[12] = win[side].scale;
		p[13] = win[side].flags;
	}
}

static void get_win(const uint8_t *col, uint32_t i, struct fp_tcp_win win[2])
{
	for (uint32_t side = 0; col && side < 2; side++) {
		const uint8_t *p = col + (size_t)WIN_LEN * (2 * i + side);

		memcpy(&win[side].end, p, 4);
		memcpy(&win[side].max_end, p + 4, 4);
		memcpy(&win[side].max_win, p + 8, 4);
		win[side].scale = p[12];
		win[side].flags = p[13];
	}
}

static void put_counters(uint8_t *col, uint32_t i, const struct fp_flow_rec *rec)
{
	if (!col)
		return;
	memcpy(col + (size_t)i * COUNTERS_LEN, rec->packets, sizeof(rec->packets));
	memcpy(col + (size_t)i * COUNTERS_LEN + 16, rec->bytes, sizeof(rec->bytes));
}

static void get_counters(const uint8_t *col, uint32_t i, struct fp_flow_rec *rec)
{
	if (!col)
		return;
	memcpy(rec->packets, col + (size_t)i * COUNTERS_LEN, sizeof(rec->packets));
	memcpy(rec->bytes, col + (size_t)i * COUNTERS_LEN + 16, sizeof(rec->bytes));
}

/* ---- one record ---- */

static void pack_one(const struct fp_flow_rec *rec, uint32_t i, uint32_t family, struct fp_cols *cols)
{
	put(cols->id, i, &rec->id, 8);
	put(cols->op, i, &rec->op, 1);
	put(cols->form, i, &rec->form, 1);
	put(cols->proto, i, &rec->proto, 1);
	put(cols->state, i, &rec->state, 1);
	put(cols->flags, i, &rec->flags, 1);
	put(cols->in_port, i, &rec->in_port, 1);
	put(cols->out_port, i, &rec->out_port, 1);
	put(cols->origin, i, &rec->origin, 2);
	put(cols->version, i, &rec->version, 4);
	put(cols->remaining_ms, i, &rec->remaining_ms, 4);
	put(cols->pool, i, &rec->pool, 4);
	put(cols->rule, i, &rec->rule, 4);
	put_addr(cols->inside, i, &rec->inside, family);
	put_addr(cols->remote, i, &rec->remote, family);
	put_addr(cols->external, i, &rec->external, family);
	put(cols->inside_port, i, &rec->inside_port, 2);
	put(cols->remote_port, i, &rec->remote_port, 2);
	put(cols->external_port, i, &rec->external_port, 2);
	put_win(cols->win, i, rec->win);
	put_counters(cols->counters, i, rec);
}

static void unpack_one(const struct fp_cols *cols, uint32_t i, uint32_t family, struct fp_flow_rec *rec)
{
	get(cols->id, i, &rec->id, 8);
	get(cols->op, i, &rec->op, 1);
	get(cols->form, i, &rec->form, 1);
	get(cols->proto, i, &rec->proto, 1);
	get(cols->state, i, &rec->state, 1);
	get(cols->flags, i, &rec->flags, 1);
	get(cols->in_port, i, &rec->in_port, 1);
	get(cols->out_port, i, &rec->out_port, 1);
	get(cols->origin, i, &rec->origin, 2);
	get(cols->version, i, &rec->version, 4);
	get(cols->remaining_ms, i, &rec->remaining_ms, 4);
	get(cols->pool, i, &rec->pool, 4);
	get(cols->rule, i, &rec->rule, 4);
	get_addr(cols->inside, i, &rec->inside, family);
	get_addr(cols->remote, i, &rec->remote, family);
	get_addr(cols->external, i, &rec->external, family);
	get(cols->inside_port, i, &rec->inside_port, 2);
	get(cols->remote_port, i, &rec->remote_port, 2);
	get(cols->external_port, i, &rec->external_port, 2);
	get_win(cols->win, i, rec->win);
	get_counters(cols->counters, i, rec);
}

/*
 * Values that no conforming peer sends. What a value means in this node (a port's or pool's index, a shard)
 * is for core_import() to judge: a peer of another configuration is no protocol error.
 */
static bool is_plausible(const struct fp_flow_rec *rec)
{
	if (rec->op > FP_OP_DELETE || rec->form > FP_FORM_NONE || rec->origin == 0 || rec->id == 0 ||
	    rec->proto == 0)
		return false;
	if (rec->op == FP_OP_DELETE) /* identity is all that counts of what is gone */
		return true;
	if (rec->state >= FP_ST_COUNT || rec->state == FP_ST_NONE)
		return false;
	if (rec->in_port >= FP_PORTS_MAX || rec->out_port >= FP_PORTS_MAX)
		return false;
	if (rec->form == FP_FORM_NONE ? rec->pool != FP_POOL_NONE : rec->pool >= FP_POOLS_MAX)
		return false;
	if (rec->remaining_ms > REMAINING_MS_MAX)
		return false;
	if (addr_is_zero(&rec->inside) || addr_is_zero(&rec->external) || addr_is_zero(&rec->remote))
		return false;
	return rec->win[0].scale <= 14 && rec->win[1].scale <= 14; /* RFC 7323 §2.3 */
}

/* ---- batches ---- */

int fp_cols_pack(const struct fp_flow_rec *rec, uint32_t n, uint32_t family, struct fp_cols *cols)
{
	uint32_t packed = 0;

	if ((n && !rec) || !cols || n > INT32_MAX || (family != FAMILY_V4 && family != FAMILY_V6))
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		if (rec[i].op != FP_OP_BULK_END && (uint32_t)fp_rec_family(&rec[i]) == family)
			pack_one(&rec[i], packed++, family, cols);
	}
	return (int)packed;
}

int fp_cols_unpack(const struct fp_cols *cols, uint32_t n, uint32_t family, struct fp_flow_rec *rec)
{
	if ((n && !rec) || !cols || n > INT32_MAX || (family != FAMILY_V4 && family != FAMILY_V6))
		return -EINVAL;
	memset(rec, 0, (size_t)n * sizeof(*rec));
	for (uint32_t i = 0; i < n; i++) {
		unpack_one(cols, i, family, &rec[i]);
		if (!is_plausible(&rec[i]))
			return -EINVAL;
	}
	return (int)n;
}
