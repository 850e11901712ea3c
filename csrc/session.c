/* SPDX-License-Identifier: Apache-2.0 */
/**
 * session.c - birth and death of records
 *
 * Invariants, between any two calls:
 *   - a live record is in the index under both of its flow keys, a leader under its mapping's keys too; no
 *     other record is in it;
 *   - the live SNAT sessions with ports of one (inside endpoint, protocol, pool) stand in one ring, have the
 *     same external port, and exactly one of them is the leader; no other record is in a ring;
 *   - a leader, live or tombstone, holds its port's bit;
 *   - a live record is on the wheel.
 */
#include "evict.h"
#include "session.h"
#include "tcptrack.h"

/* ---- what the peer hears ---- */

bool session_filter_passes(const struct core *c, uint32_t idx)
{
	const struct policy_sync sync = session_sync_rule(c, c->table.rec[idx].hot.rule);

	return sync.filter == FP_SYNC_NOW ||
	       (sync.filter == FP_SYNC_AFTER && tour_of_age(c, idx, sync.after_s));
}

bool session_is_told(const struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	if (!c->changes.track || !session_survives(c, f) ||
	    c->changes.lost & shard_bit(c->table.rec[idx].cold.shard))
		return false;
	/* What it has heard of once it goes on to hear of. */
	return f->epoch != EPOCH_NEVER || session_filter_passes(c, idx);
}

bool session_put_off(struct core *c, uint32_t idx)
{
	const uint32_t due_ms = (uint32_t)(c->now_ns / NS_PER_MS) + c->cfg->sync.lazy_ms;
	uint8_t *admin = &c->table.rec[idx].cold.admin;

	if (!(*admin & ADMIN_LAZY) && !changes_push_lazy(&c->changes, idx, due_ms))
		return false;
	*admin |= ADMIN_LAZY;
	return true;
}

void session_tell(struct core *c, uint32_t idx, bool urgent)
{
	uint8_t *admin = &c->table.rec[idx].cold.admin;

	if (!session_is_told(c, idx) || *admin & ADMIN_QUEUED)
		return;
	if (urgent || !digest_knows(c, idx) || !session_put_off(c, idx)) {
		if (!changes_push(&c->changes, idx)) {
			digest_lose(c, c->table.rec[idx].cold.shard);
			return;
		}
		*admin |= ADMIN_QUEUED;
	}
	counter_set(&c->stat.dirty, changes_pending(&c->changes));
}

void session_changed(struct core *c, uint32_t idx, struct session_was was, bool urgent)
{
	digest_leave(c, idx, was);
	c->table.rec[idx].hot.version++;
	session_tell(c, idx, urgent);
}

static void identify(struct core *c, uint32_t idx)
{
	c->table.link[idx].id = session_next_id(c);
	c->flow_seq++;
	c->table.rec[idx].cold.origin = c->cfg->origin;
}

uint32_t session_shard(const struct fp_config *cfg, const struct flow_hot *f)
{
	if (f->form == FP_FORM_STATIC || !nat_has_ports(f->proto))
		return core_shard(cfg, &f->remote, f->remote_port, f->proto);
	return core_shard(cfg, &f->inside, f->inside_port, f->proto);
}

/* ---- look up ---- */

uint32_t record_find(const struct core *c, const struct flow_hot *f, uint32_t side, enum key_kind kind)
{
	struct flow_key key = flow_key_of(f, side, kind);

	return flow_find(&c->table, &c->hash, &key, flow_hash(&c->table, &key)) >> 1;
}

uint32_t mapping_by_external(const struct core *c, uint32_t pool, uint8_t proto, be16 port)
{
	const struct flow_hot f = { .pool = (uint8_t)pool, .proto = proto, .external_port = port };

	return record_find(c, &f, SIDE_IN, KEY_MAPPING);
}

uint32_t mapping_has_remote(const struct core *c, uint32_t leader, const struct fp_addr *remote)
{
	uint32_t idx = leader;

	for (uint32_t i = 0; i < MAPPING_WALK_MAX; i++) {
		if (addr_eq(&c->table.rec[idx].hot.remote, remote))
			return V_GO_ON;
		idx = c->table.link[idx].map_next; /* behind the leader stands who came last */
		if (idx == leader)
			return V_FILTERED;
	}
	return V_FILTERED_UNSEEN;
}

/* ---- quotas ---- */

enum { COUNT_SESSIONS, COUNT_PORTS, COUNT_RULES };

/* Who is counted, and what of his. */
static uint64_t quota_key(const struct core *c, const struct fp_addr *addr, uint32_t what)
{
	return hash_words3(c->table.key, (uint64_t[3]){ u64_load(addr->b), u64_load(addr->b + 8), what });
}

static uint64_t quota_key_of(const struct core *c, const struct flow_hot *f, uint8_t bit)
{
	if (bit == ADMIN_COUNTED)
		return quota_key(c, &f->inside, COUNT_SESSIONS);
	if (bit == ADMIN_PORT_COUNTED)
		return quota_key(c, &f->inside, COUNT_PORTS);
	/* A rule's limit is one of those who open: of inside addresses, or of those outside. */
	return quota_key(c, f->flags & FP_RF_INBOUND ? &f->remote : &f->inside,
			 COUNT_RULES + (uint32_t)f->rule);
}

/* Count; @bits gets what will have to be given back. */
static bool quota_count(struct core *c, const struct flow_hot *f, uint8_t bit, uint32_t limit, uint8_t *bits)
{
	if (!quota_take(c->quota, quota_key_of(c, f, bit), limit))
		return false;
	*bits |= bit;
	return true;
}

static void quota_return(struct core *c, const struct flow_hot *f, uint8_t bits)
{
	static const uint8_t all[] = { ADMIN_COUNTED, ADMIN_PORT_COUNTED, ADMIN_RULE_COUNTED };

	for (uint32_t i = 0; i < ARRAY_SIZE(all); i++)
		if (bits & all[i])
			quota_give(c->quota, quota_key_of(c, f, all[i]));
}

static bool counts_sessions(const struct core *c, const struct flow_hot *f)
{
	/* Who is spoken to has no say in it. */
	return c->quota && c->cfg->limits.sessions_per_source && !(f->flags & FP_RF_INBOUND);
}

static bool counts_ports(const struct core *c)
{
	return c->quota && c->cfg->limits.ports_per_source;
}

/* Return: V_GO_ON, or which limit is reached. */
static uint32_t count_session(struct core *c, const struct flow_hot *f, uint32_t rule_limit, uint8_t *bits)
{
	if (counts_sessions(c, f) &&
	    !quota_count(c, f, ADMIN_COUNTED, c->cfg->limits.sessions_per_source, bits))
		return V_SOURCE_LIMIT;
	if (c->quota && rule_limit && !quota_count(c, f, ADMIN_RULE_COUNTED, rule_limit, bits))
		return V_SOURCE_LIMIT;
	return V_GO_ON;
}

static uint32_t limit_of_rule(const struct core *c, uint16_t rule)
{
	return c->policy && rule && rule <= c->policy->n_rules ? c->policy->decisions[rule - 1].max_per_source
							       : 0;
}

void session_count(struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	uint8_t *admin = &c->table.rec[idx].cold.admin;

	if (counts_sessions(c, f))
		quota_count(c, f, ADMIN_COUNTED, 0, admin);
	if (counts_ports(c) && flow_is_leader(&c->table, idx))
		quota_count(c, f, ADMIN_PORT_COUNTED, 0, admin);
	if (c->quota && limit_of_rule(c, f->rule))
		quota_count(c, f, ADMIN_RULE_COUNTED, 0, admin);
}

void session_set_rule(struct core *c, uint32_t idx, uint16_t rule)
{
	struct flow_hot *f = &c->table.rec[idx].hot;
	uint8_t *admin = &c->table.rec[idx].cold.admin;

	if (f->rule == rule && !(*admin & ADMIN_RULE_COUNTED) == !limit_of_rule(c, rule))
		return;
	if (f->rule != rule) {
		digest_leave(c, idx, session_was(f));
		if (f->epoch >= EPOCH_FIRST)
			f->epoch = EPOCH_OLD; /* its next word is a first one: only that names the rule */
	}
	quota_return(c, f, *admin & ADMIN_RULE_COUNTED);
	*admin &= (uint8_t)~ADMIN_RULE_COUNTED;
	f->rule = rule;
	if (c->quota && limit_of_rule(c, rule))
		quota_count(c, f, ADMIN_RULE_COUNTED, 0, admin);
}

/* ---- birth ---- */

/* Take a place in the ring behind the leader, or begin one. */
static void ring_join(struct flow_table *t, uint32_t idx, uint32_t leader)
{
	struct flow_link *l = &t->link[idx];

	if (!leader) {
		l->map_next = l->map_prev = idx;
		return;
	}
	l->map_prev = leader;
	l->map_next = t->link[leader].map_next;
	t->link[l->map_next].map_prev = idx;
	t->link[leader].map_next = idx;
}

uint32_t record_insert(struct core *c, const struct flow_hot *want, uint32_t leader, uint32_t shard)
{
	struct flow_table *t = &c->table;
	uint32_t idx = flow_alloc(t);
	struct flow_hot *f = &t->rec[idx].hot;
	bool leads = session_has_mapping(want) && !leader;

	if (!idx)
		return FLOW_NONE;
	f->inside = want->inside;
	f->remote = want->remote;
	f->inside_port = want->inside_port;
	f->remote_port = want->remote_port;
	f->external_port = want->external_port;
	f->proto = want->proto;
	f->pool = want->pool;
	f->zones = want->zones;
	f->flags = want->flags;
	f->rule = want->rule;
	f->form = want->form;
	f->epoch = EPOCH_NEVER;
	f->kind = REC_FLOW;
	f->state = FP_ST_NEW;
	t->rec[idx].cold.shard = shard & (FP_SHARDS - 1);
	if (!flow_index(t, &c->hash, idx, KEY_FLOW)) {
		flow_free(t, idx);
		return FLOW_NONE;
	}
	if (leads && !flow_index(t, &c->hash, idx, KEY_MAPPING)) {
		flow_unindex(t, &c->hash, idx, KEY_FLOW);
		flow_free(t, idx);
		return FLOW_NONE;
	}
	if (session_has_mapping(want))
		ring_join(t, idx, leader);
	if (leads) {
		t->rec[idx].cold.admin |= ADMIN_LEADER;
		counter_add(&c->stat.mappings, 1);
	}
	counter_add(&c->stat.flows, 1);
	return idx;
}

static void start_state(struct core *c, uint32_t idx, const struct pkt *p)
{
	struct flow_hot *f = &c->table.rec[idx].hot;

	f->state = FP_ST_NEW;
	if (p->proto == IPPROTO_NUM_TCP)
		tcptrack_open(f, &c->table.rec[idx].cold, p, &c->tcp);
	identify(c, idx);
	births_push(c, idx);
	session_touch(c, f);
	wheel_schedule(&c->wheel, &c->table, idx, f->deadline_tick);
	session_changed(c, idx, session_was(f), true);
	if (c->commit.on && session_is_told_at_birth(c, f))
		commit_born(c, idx, p);
}

static struct flow_hot endpoints(const struct core *c, const struct pkt *p, const struct session_path *path)
{
	struct flow_hot f = { .inside = path->inside,
			      .remote = path->remote,
			      .inside_port = path->inside_port,
			      .remote_port = path->remote_port,
			      .external_port = path->external_port,
			      .proto = p->proto,
			      .pool = path->form == FP_FORM_NONE ? POOL_NONE : path->pool,
			      .zones = (uint8_t)(path->in_port << 4 | path->out_port),
			      .rule = path->rule,
			      .form = path->form };

	if (path->form == FP_FORM_NONE)
		f.external_port = path->inside_port;
	if (path->inbound)
		f.flags |= FP_RF_INBOUND;
	if (nat_pool_of_addr(&c->nat, addr_v4(&path->remote)) != NAT_POOL_NONE)
		f.flags |= FP_RF_HAIRPIN;
	return f;
}

/* A port for a new mapping. */
static uint32_t take_port(struct core *c, struct flow_hot *f, uint32_t shard, uint8_t *bits)
{
	uint32_t parity = be16_host(f->inside_port) & 1;

	if (counts_ports(c) && !quota_count(c, f, ADMIN_PORT_COUNTED, c->cfg->limits.ports_per_source, bits))
		return V_PORT_LIMIT;
	f->external_port = nat_port_alloc(&c->nat, f->pool, f->proto, shard, parity, c->now_ns);
	if (!f->external_port.raw)
		f->external_port = evict_port(c, f->pool, f->proto, shard);
	return f->external_port.raw ? V_GO_ON : V_PORTS_EXHAUSTED;
}

/*
 * The external end of a new session: its mapping's port, or one from the pool (endpoint-independent mapping:
 * RFC 4787 REQ-1). Return: V_GO_ON, or why there is none.
 */
static uint32_t external_end(struct core *c, struct flow_hot *f, uint32_t shard, uint32_t *leader,
			     uint8_t *bits)
{
	uint32_t verdict = V_GO_ON;

	*leader = FLOW_NONE;
	if (session_has_mapping(f)) {
		*leader = record_find(c, f, SIDE_OUT, KEY_MAPPING);
		if (*leader)
			f->external_port = c->table.rec[*leader].hot.external_port;
		else if (f->flags & FP_RF_INBOUND)
			return V_NO_SESSION;
		else
			verdict = take_port(c, f, shard, bits);
	}
	if (verdict != V_GO_ON || (session_has_mapping(f) && !*leader))
		return verdict;
	/* The end is not this session's alone: towards this remote somebody else may have it. */
	return record_find(c, f, SIDE_OUT, KEY_FLOW) || record_find(c, f, SIDE_IN, KEY_FLOW)
		       ? V_ENDPOINT_TAKEN
		       : V_GO_ON;
}

uint32_t session_open(struct core *c, const struct pkt *p, const struct session_path *path, uint32_t *idx)
{
	struct flow_hot f = endpoints(c, p, path);
	uint32_t shard = session_shard(c->cfg, &f), leader, verdict;
	uint8_t bits = 0;

	if (commit_refuses(c, &f))
		return V_HOLD_FULL;
	if (unlikely(!c->table.n_free) && !evict_one(c))
		return V_TABLE_FULL;
	verdict = count_session(c, &f, path->max_per_source, &bits);
	if (verdict == V_GO_ON)
		verdict = external_end(c, &f, shard, &leader, &bits);
	if (verdict != V_GO_ON) {
		quota_return(c, &f, bits);
		return verdict;
	}
	*idx = record_insert(c, &f, leader, shard);
	if (!*idx) {
		if (session_has_mapping(&f) && !leader)
			nat_port_free(&c->nat, f.pool, f.proto, f.external_port, c->now_ns);
		quota_return(c, &f, bits);
		return V_TABLE_FULL;
	}
	c->table.rec[*idx].cold.admin |= bits;
	start_state(c, *idx, p);
	counter_add(&c->stat.flows_created, 1);
	return V_GO_ON;
}

/* Has somebody else what this session would have? */
static bool is_taken(const struct core *c, const struct flow_hot *want, uint32_t leader)
{
	if (record_find(c, want, SIDE_OUT, KEY_FLOW) || record_find(c, want, SIDE_IN, KEY_FLOW))
		return true;
	if (!session_has_mapping(want))
		return false;
	return leader ? c->table.rec[leader].hot.external_port.raw != want->external_port.raw
		      : record_find(c, want, SIDE_IN, KEY_MAPPING) != FLOW_NONE;
}

uint32_t session_adopt(struct core *c, const struct flow_hot *want, uint32_t shard, uint32_t *idx)
{
	const bool mapped = session_has_mapping(want);
	const uint32_t leader = mapped ? record_find(c, want, SIDE_OUT, KEY_MAPPING) : FLOW_NONE;
	const bool leads = mapped && !leader;
	uint32_t verdict;
	uint8_t bits = 0;

	*idx = FLOW_NONE;
	if (is_taken(c, want, leader))
		return V_ENDPOINT_TAKEN;
	if (!c->table.n_free)
		return V_TABLE_FULL;
	verdict = count_session(c, want, limit_of_rule(c, want->rule), &bits);
	if (verdict == V_GO_ON && leads && counts_ports(c) &&
	    !quota_count(c, want, ADMIN_PORT_COUNTED, c->cfg->limits.ports_per_source, &bits))
		verdict = V_PORT_LIMIT;
	if (verdict == V_GO_ON && leads &&
	    !nat_port_claim(&c->nat, want->pool, want->proto, want->external_port))
		verdict = V_ENDPOINT_TAKEN;
	if (verdict == V_GO_ON) {
		*idx = record_insert(c, want, leader, shard);
		if (*idx) {
			c->table.rec[*idx].cold.admin |= bits;
			return V_GO_ON;
		}
		if (leads)
			nat_port_free(&c->nat, want->pool, want->proto, want->external_port, c->now_ns);
		verdict = V_TABLE_FULL;
	}
	quota_return(c, want, bits);
	return verdict;
}

void session_reopen(struct core *c, uint32_t idx, const struct pkt *p)
{
	const uint8_t stays = ADMIN_QUEUED | ADMIN_LAZY | ADMIN_LEADER | ADMIN_COUNTED | ADMIN_PORT_COUNTED |
			      ADMIN_RULE_COUNTED;
	struct flow_cold *cold = &c->table.rec[idx].cold;
	struct flow_hot *f = &c->table.rec[idx].hot;
	const struct flow_cold was = *cold;

	commit_forget(c, idx);
	digest_leave(c, idx, session_was(f));
	if (f->epoch != EPOCH_NEVER)
		f->epoch = EPOCH_REPLACED;
	memset(cold, 0, sizeof(*cold));
	cold->admin = was.admin & stays;
	cold->shard = was.shard;
	f->flags &= FP_RF_INBOUND | FP_RF_HAIRPIN;
	f->version = 0;
	start_state(c, idx, p);
	counter_add(&c->stat.flows_closed, 1);
	counter_add(&c->stat.flows_created, 1);
}

/* ---- time ---- */

void session_moved(struct core *c, uint32_t idx, struct session_was was, uint32_t timeout)
{
	struct flow_hot *f = &c->table.rec[idx].hot;

	f->deadline_tick = wheel_tick(c->now_ns) + session_timeout(c, f);
	/* Only of an earlier deadline the wheel must hear. */
	if (session_timeout(c, f) < timeout)
		wheel_schedule(&c->wheel, &c->table, idx, f->deadline_tick);
	session_changed(c, idx, was, f->state == FP_ST_ESTABLISHED && was.state != FP_ST_ESTABLISHED);
}

uint32_t session_deadline(const struct core *c, const struct flow_hot *f)
{
	uint64_t since = c->role == FP_ROLE_ACTIVE ? c->active_since_ns : c->now_ns;

	return max_u32(f->deadline_tick, wheel_tick(since) + session_timeout(c, f));
}

/* Is it due? If not, it goes back on the wheel; if so, what its removal will touch is asked for. */
static bool is_due(struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	uint32_t deadline = session_deadline(c, f);

	if (deadline > wheel_tick(c->now_ns)) {
		wheel_schedule(&c->wheel, &c->table, idx, deadline);
		return false;
	}
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		struct flow_key key = flow_key_of(f, side, KEY_FLOW);

		hash_prefetch(&c->hash, flow_hash(&c->table, &key));
		if (!flow_is_leader(&c->table, idx))
			continue;
		key = flow_key_of(f, side, KEY_MAPPING);
		hash_prefetch(&c->hash, flow_hash(&c->table, &key));
	}
	return true;
}

static uint32_t expire_batch(struct core *c, uint32_t cap)
{
	enum { BATCH = 32 };
	uint32_t idx[BATCH], due[BATCH], n_due = 0;
	uint32_t n = wheel_take(&c->wheel, &c->table, wheel_tick(c->now_ns), idx, min_u32(cap, BATCH));

	for (uint32_t i = 0; i < n; i++)
		if (is_due(c, idx[i]))
			due[n_due++] = idx[i];
	for (uint32_t i = 0; i < n_due; i++) {
		bool closed = tcptrack_is_over(&c->table.rec[due[i]].hot);

		counter_add(closed ? &c->stat.flows_closed : &c->stat.flows_expired, 1);
		record_remove(c, due[i], true);
	}
	return n;
}

uint32_t session_expire(struct core *c, uint32_t budget)
{
	uint32_t total = 0, n;

	do {
		n = expire_batch(c, budget - total);
		total += n;
	} while (n && total < budget);
	return total;
}

/* ---- death ---- */

void record_release(struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	if (flow_is_leader(&c->table, idx))
		nat_port_free(&c->nat, f->pool, f->proto, f->external_port, c->now_ns);
	flow_free(&c->table, idx);
}

/* The next session of the ring takes over index keys and port. */
static void pass_leadership(struct core *c, uint32_t from, uint32_t to)
{
	const uint8_t passed = ADMIN_LEADER | ADMIN_PORT_COUNTED;
	struct flow_cold *old = &c->table.rec[from].cold, *new = &c->table.rec[to].cold;

	flow_unindex(&c->table, &c->hash, from, KEY_MAPPING);
	new->admin |= old->admin & passed;
	old->admin &= (uint8_t)~passed;
	/* What was just taken out has left room. */
	FP_ASSERT(flow_index(&c->table, &c->hash, to, KEY_MAPPING));
}

static void ring_leave(struct core *c, uint32_t idx)
{
	struct flow_link *l = &c->table.link[idx];
	uint32_t next = l->map_next;

	if (!next)
		return;
	if (flow_is_leader(&c->table, idx)) {
		if (next != idx) {
			pass_leadership(c, idx, next);
		} else {
			flow_unindex(&c->table, &c->hash, idx, KEY_MAPPING);
			counter_add(&c->stat.mappings, UINT64_MAX);
		}
	}
	c->table.link[l->map_prev].map_next = next;
	c->table.link[next].map_prev = l->map_prev;
	l->map_next = l->map_prev = FLOW_NONE;
}

/*
 * Leave a tombstone, if the peer may hold the record.
 * Return: false when there is none, and the slot may go.
 */
static bool bury(struct core *c, uint32_t idx)
{
	struct flow_rec *rec = &c->table.rec[idx];

	if (rec->hot.epoch == EPOCH_NEVER || !session_is_told(c, idx))
		return false;
	/*
	 * What the peer has under these ends is another session: a delete of this one would not remove it. And a
	 * full table has no slot to spare for a peer that is away.
	 */
	if (rec->hot.epoch == EPOCH_REPLACED || c->changes.n_tombs >= c->changes.tombs_max ||
	    (!c->table.n_free && changes_unheard(&c->changes, c->now_ns)) ||
	    (!(rec->cold.admin & ADMIN_QUEUED) && !changes_push(&c->changes, idx))) {
		digest_lose(c, rec->cold.shard);
		return false;
	}
	rec->cold.admin |= ADMIN_QUEUED;
	rec->hot.kind = REC_TOMB;
	if (!c->changes.n_tombs)
		c->changes.tombs_ns = c->now_ns;
	counter_set(&c->stat.tombstones, ++c->changes.n_tombs);
	counter_set(&c->stat.dirty, changes_pending(&c->changes));
	return true;
}

void record_remove(struct core *c, uint32_t idx, bool tell)
{
	struct flow_hot *f = &c->table.rec[idx].hot;

	FP_ASSERT(f->kind == REC_FLOW);
	commit_forget(c, idx);
	digest_leave(c, idx, session_was(f));
	flow_unindex(&c->table, &c->hash, idx, KEY_FLOW);
	ring_leave(c, idx);
	wheel_cancel(&c->wheel, &c->table, idx);
	counter_add(&c->stat.flows, UINT64_MAX);
	quota_return(c, f, c->table.rec[idx].cold.admin);
	c->table.rec[idx].cold.admin &= (uint8_t)~(ADMIN_COUNTED | ADMIN_PORT_COUNTED | ADMIN_RULE_COUNTED);
	if (!tell || !bury(c, idx))
		record_release(c, idx);
}

void mapping_remove(struct core *c, uint32_t idx, bool tell)
{
	uint32_t next = c->table.link[idx].map_next;

	while (next && next != idx) {
		record_remove(c, next, tell);
		next = c->table.link[idx].map_next;
	}
	record_remove(c, idx, tell);
}
