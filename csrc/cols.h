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

#define COL_BIT(col) (UINT32_C(1) << (col))

#endif /* COLS_H */
