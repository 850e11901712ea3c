/* SPDX-License-Identifier: Apache-2.0 */
/**
 * cols.h - numbers of the columns: their places in struct fp_cols, their bits in fp_flow_rec.has
 */
#ifndef COLS_H
#define COLS_H

#include "base.h"

enum col {
	COL_ID_LOW,
	COL_ID_HIGH,
	COL_ORIGIN,
	COL_VERSION,
	COL_FORM,
	COL_PROTO,
	COL_STATE,
	COL_FLAGS,
	COL_IN_PORT,
	COL_OUT_PORT,
	COL_RULE,
	COL_INSIDE,
	COL_REMOTE,
	COL_EXTERNAL,
	COL_INSIDE_PORT,
	COL_REMOTE_PORT,
	COL_EXTERNAL_PORT,
	COL_REMAINING_MS,
	COL_WIN,
	COL_COUNTERS,
	N_COLS
};

/* Bytes of an element of the column. */
uint32_t cols_width(enum col col, uint32_t family);

/* 4 or 6. */
int cols_family(const struct fp_flow_rec *rec);

/* Records before the first marker. @counts: how they divide, [op * 2 + is_v6] of 8. */
int cols_census(const struct fp_flow_rec *rec, uint32_t n, uint32_t *counts);

/**
 * cols_pack - those records of @rec that are of one op and family, as columns
 * @cols: room for @n elements each; a null column is left out
 * @constant: bit i: column i has the same value throughout, and its first element says so
 *
 * Return: how many there are, -EINVAL
 */
int cols_pack(const struct fp_flow_rec *rec, uint32_t n, uint32_t family, uint32_t op, struct fp_cols *cols,
	      uint32_t *constant);

/**
 * cols_unpack - columns as records
 * @cols: a null column did not come
 * @constant: bit i: column i holds one element, for all
 *
 * Return: @n, -EINVAL for values that no peer sends: nothing of the batch is to be used then
 */
int cols_unpack(const struct fp_cols *cols, uint32_t n, uint32_t family, uint32_t op, uint32_t constant,
		struct fp_flow_rec *rec);

#define COL_BIT(col) (UINT32_C(1) << (col))

#endif /* COLS_H */
