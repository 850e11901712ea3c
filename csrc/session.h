/* SPDX-License-Identifier: Apache-2.0 */
/**
 * session.h - sessions from birth to death: record, external port, timer, and what the peer is told
 */
#ifndef SESSION_H
#define SESSION_H

#include "digest.h"
#include "pkt.h"
#include "step.h"

/**
 * struct session_path - What was decided for a new session
 * @in_port:        inside port
 * @out_port:       outside (or other inside) port
 * @form:           enum fp_form
 * @pool:           SNAT: the pool; STATIC and portless: the first one with the address; NONE: POOL_NONE
 * @rule:           rule that allows it; 0 = built in
 * @inbound:        opened by the remote side
 * @inside:         inside address
 * @remote:         remote address
 * @inside_port:    ICMP: the identifier; portless: 0
 * @remote_port:    ICMP and portless: 0
 * @external_port:  STATIC: the forward's; else 0: a mapping has its own
 * @max_per_source: sessions that this rule allows to one address that opens them; 0 = as many as there are
 *
 * Between two inside ports (form NONE) the smaller endpoint is the inside one.
 */
struct session_path {
	uint8_t in_port, out_port;
	uint8_t form, pool;
	uint16_t rule;
	bool inbound;
	struct fp_addr inside, remote;
	be16 inside_port, remote_port, external_port;
	uint32_t max_per_source;
};

/**
 * session_open() - Make a session for its first packet
 * @p:    parsed, its checksums verified, allowed to open a session
 * @path: what it becomes; SNAT that is opened by the remote side needs a mapping that is there
 * @idx:  out: its record
 * Return: V_GO_ON, or why not (nothing is left behind then).
 */
uint32_t session_open(struct core *c, const struct pkt *p, const struct session_path *path, uint32_t *idx);

/**
 * session_adopt() - Make a record of a session that the peer has opened, if nothing here is in its way
 * @want:  its endpoints, proto, pool, form, zones, flags and rule
 * @shard: that they have
 * @idx:   out: its record
 * Return: V_GO_ON, or why not (nothing is left behind then). Nobody gives way to it.
 */
uint32_t session_adopt(struct core *c, const struct flow_hot *want, uint32_t shard, uint32_t *idx);

/**
 * session_reopen() - An opener on a closed session: the same endpoints, a new identity
 */
void session_reopen(struct core *c, uint32_t idx, const struct pkt *p);

/**
 * session_changed() - The record changed in a way that the peer must know
 * @was:    before
 * @urgent: it should know it soon
 */
void session_changed(struct core *c, uint32_t idx, struct session_was was, bool urgent);

/**
 * session_tell() - Queue what the peer has not been told of a record, if it is to know it at all
 */
void session_tell(struct core *c, uint32_t idx, bool urgent);

/**
 * session_put_off() - Queue what can wait of a record: a change, or the windows of a TCP session
 * Return: false when there is no room.
 */
bool session_put_off(struct core *c, uint32_t idx);

/**
 * session_filter_passes() - Has its rule nothing against that the peer hears of it by now?
 */
bool session_filter_passes(const struct core *c, uint32_t idx);

/**
 * session_is_told() - May the peer be told of it now?
 */
bool session_is_told(const struct core *c, uint32_t idx);

/**
 * session_count() - Count an imported session for its source, whatever the limits say
 */
void session_count(struct core *c, uint32_t idx);

/**
 * session_set_rule() - Another rule, or the same one with another number, allows a live session
 */
void session_set_rule(struct core *c, uint32_t idx, uint16_t rule);

/**
 * session_shard() - Who owns the record of these endpoints
 * @f: form, proto, and the inside and remote endpoint are used
 */
uint32_t session_shard(const struct fp_config *cfg, const struct flow_hot *f);

/* session_next_id() - Identity of the next session that is made here; they grow */
static inline uint64_t session_next_id(const struct core *c)
{
	return c->cfg->flow_id_base + (c->flow_seq + 1) * c->cfg->n_workers + c->worker;
}

/**
 * session_timeout() - Lifetime of a record in its state, in wheel ticks
 */
static inline uint32_t session_timeout(const struct core *c, const struct flow_hot *f)
{
	uint32_t state = unlikely(f->flags & FP_RF_RESET) ? FP_ST_CLOSED : f->state;

	return c->timeout_ticks[nat_proto_of(f->proto)][state];
}

/* Is it in a ring that shares an external port? */
static inline bool session_has_mapping(const struct flow_hot *f)
{
	return f->form == FP_FORM_SNAT && nat_has_ports(f->proto);
}

/* The peer cannot use what hangs on an address that only this node has. */
static inline bool session_survives(const struct core *c, const struct flow_hot *f)
{
	return f->pool == POOL_NONE || c->cfg->pools[f->pool].survives;
}

/* When is the peer told of the sessions of a rule? */
static inline struct policy_sync session_sync_rule(const struct core *c, uint16_t rule)
{
	return c->policy && rule && rule <= c->policy->n_rules
		       ? c->policy->decisions[rule - 1].sync
		       : (struct policy_sync){ .commit = FP_COMMIT_DEFAULT };
}

/* Is the peer told of a session like this as soon as it is there? */
static inline bool session_is_told_at_birth(const struct core *c, const struct flow_hot *f)
{
	return c->changes.track && session_survives(c, f) &&
	       session_sync_rule(c, f->rule).filter == FP_SYNC_NOW;
}

/* The side that opened the session. */
static inline uint32_t session_opener(const struct flow_hot *f)
{
	return f->flags & FP_RF_INBOUND ? SIDE_IN : SIDE_OUT;
}

/* A packet keeps its session alive; a closed one runs out whatever comes. The wheel finds out by itself. */
static inline void session_touch(const struct core *c, struct flow_hot *f)
{
	if (likely(f->state < FP_ST_TIME_WAIT))
		f->deadline_tick = wheel_tick(c->now_ns) + session_timeout(c, f);
}

/**
 * session_moved() - The state has changed, or its flags: a new deadline, and the peer must know
 * @was:     before
 * @timeout: session_timeout() as it was before
 */
void session_moved(struct core *c, uint32_t idx, struct session_was was, uint32_t timeout);

/**
 * session_deadline() - When a record is due, the grace after a takeover included
 *
 * While not ACTIVE nothing is due: what is shown is what the record would get if this node took over now.
 */
uint32_t session_deadline(const struct core *c, const struct flow_hot *f);

/**
 * session_expire() - Look at what is due by now: remove it, or put it back
 * @budget: records to look at
 * Return: records looked at; == @budget means that there is more to do.
 */
uint32_t session_expire(struct core *c, uint32_t budget);

/**
 * mapping_by_external() - Who stands behind an external port?
 * Return: the leader of the mapping, or FLOW_NONE.
 */
uint32_t mapping_by_external(const struct core *c, uint32_t pool, uint8_t proto, be16 port);

/**
 * mapping_has_remote() - Has the mapping a session with this remote address (address-dependent filtering)?
 * @leader: from mapping_by_external()
 *
 * Looks at the leader and at the sessions that were opened last, MAPPING_WALK_MAX of them: each may be a miss of
 * the cache, and whoever asks is a stranger who can ask often.
 * Return: V_GO_ON, V_FILTERED, or V_FILTERED_UNSEEN: not among those that were looked at.
 */
uint32_t mapping_has_remote(const struct core *c, uint32_t leader, const struct fp_addr *remote);

enum { MAPPING_WALK_MAX = 32 };

/**
 * record_insert() - Make a record of certain endpoints
 * @want:   endpoints, proto, pool, form, zones, flags and rule are used
 * @leader: its mapping's leader, or FLOW_NONE
 * @shard:  its owner
 *
 * SNAT with ports and without a leader makes the record a leader; the port has been taken.
 * Return: index, or FLOW_NONE when the table is full.
 */
uint32_t record_insert(struct core *c, const struct flow_hot *want, uint32_t leader, uint32_t shard);

/**
 * record_find() - The record that is indexed under the key of these endpoints
 * Return: index, or FLOW_NONE.
 */
uint32_t record_find(const struct core *c, const struct flow_hot *f, uint32_t side, enum key_kind kind);

/**
 * record_remove() - Remove a record
 * @tell: the peer must hear of it: leave a tombstone if changes are tracked
 */
void record_remove(struct core *c, uint32_t idx, bool tell);

/**
 * mapping_remove() - Remove all sessions of a mapping
 * @idx: one of them
 */
void mapping_remove(struct core *c, uint32_t idx, bool tell);

/**
 * record_release() - Free the slot of a record that is out of all lists, and the port that it holds
 */
void record_release(struct core *c, uint32_t idx);

#endif /* SESSION_H */
