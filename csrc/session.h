/* SPDX-License-Identifier: Apache-2.0 */
/**
 * session.h - sessions from birth to death: flow, mapping, port, timer, and what the peer is told
 */
#ifndef SESSION_H
#define SESSION_H

#include "pkt.h"
#include "step.h"

/**
 * struct session_path - Where a new session goes
 * @in_port:  inside port that it came in by
 * @out_port: outside port that its first packet leaves by
 */
struct session_path {
	uint8_t in_port, out_port;
};

/**
 * session_open() - Make a session for its first packet
 * @p:    parsed, its checksums verified, allowed to open a session
 * @path: ports
 * @idx:  out: the flow
 * Return: V_GO_ON, or why not (nothing is left behind then).
 */
uint32_t session_open(struct core *c, const struct pkt *p, const struct session_path *path, uint32_t *idx);

/**
 * session_reopen() - A SYN on a closed session: the same endpoints, a new identity
 */
void session_reopen(struct core *c, uint32_t idx, const struct pkt *p);

/**
 * session_changed() - The record changed in a way that the peer must know
 */
void session_changed(struct core *c, uint32_t idx);

/**
 * session_timeout() - Lifetime of a record in its state, in wheel ticks
 */
static inline uint32_t session_timeout(const struct core *c, const struct flow_hot *f)
{
	return c->timeout_ticks[nat_proto_of(f->proto)][f->state];
}

/* A packet keeps its session alive; a closed one runs out whatever comes. The wheel finds out by itself. */
static inline void session_touch(const struct core *c, struct flow_hot *f)
{
	if (likely(f->state < FP_ST_TIME_WAIT))
		f->deadline_tick = wheel_tick(c->now_ns) + session_timeout(c, f);
}

/**
 * session_deadline() - When a record is due, the grace after a takeover included
 *
 * While not ACTIVE nothing is due: what is shown is what the record would get if this node took over now.
 */
uint32_t session_deadline(const struct core *c, const struct flow_hot *f);

/**
 * session_expire() - The wheel found the record: remove it, or put it back
 */
void session_expire(struct core *c, uint32_t idx);

/**
 * mapping_insert() - Make a mapping of certain endpoints
 * @m: inside, inside_port, external_port, proto, pool and zones are used; the port has been taken
 * Return: index, or FLOW_NONE when the table is full.
 */
uint32_t mapping_insert(struct core *c, const struct flow_hot *m, uint32_t shard);

/**
 * flow_insert() - Make a flow under a mapping
 * @f: all of the key is used
 * @map: its mapping
 * Return: index, or FLOW_NONE when the table is full.
 */
uint32_t flow_insert(struct core *c, const struct flow_hot *f, uint32_t map);

/**
 * record_identify() - Give a record an identity of this node
 */
void record_identify(struct core *c, uint32_t idx);

/**
 * record_remove() - Remove a record; a mapping takes its flows with it, a last flow its mapping
 * @tell: the peer must hear of it: leave a tombstone if changes are tracked. Without, a mapping that has a
 *        record of its own stays when its last flow goes: its own delete will come.
 */
void record_remove(struct core *c, uint32_t idx, bool tell);

/**
 * record_release() - Free the slot of a record that is out of all lists, and a mapping's port
 */
void record_release(struct core *c, uint32_t idx);

#endif /* SESSION_H */
