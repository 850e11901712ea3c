/* SPDX-License-Identifier: Apache-2.0 */
/**
 * transfer.h - how a record is told to the peer; for the walks that do it besides the queues
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include "step.h"

/**
 * transfer_tell() - Write the next event
 * @op: but for FP_OP_DELETE the peer then knows the record as it is; of FP_OP_STATE and FP_OP_REST it knew an
 *      earlier version, or this one
 */
void transfer_tell(struct core *c, uint32_t idx, enum fp_op op, struct fp_flow_rec *out);

/* A walk in the order of memory asks for what comes next. */
static inline void transfer_prefetch(const struct core *c, uint32_t idx)
{
	__builtin_prefetch(&c->table.rec[idx].hot);
	__builtin_prefetch(&c->table.rec[idx].cold);
	__builtin_prefetch(&c->table.link[idx]);
}

#endif /* TRANSFER_H */
