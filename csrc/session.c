/* SPDX-License-Identifier: Apache-2.0 */
/**
 * session.c - birth and death of records
 *
 * Invariants, between any two calls:
 *   - a live record (REC_FLOW, REC_MAPPING) is in the index twice; no other record is in it;
 *   - a live flow's mapping is live, has the flow in its list, and has the same external port;
 *   - a mapping, live or tombstone, holds its port's bit;
 *   - a live flow is on the wheel; so is an imported mapping, because its flows may never come.
 */
#include "session.h"
#include "tcptrack.h"

static void queue_change(struct core *c, uint32_t idx)
{
	if (!c->changes.track || (c->table.rec[idx].cold.admin & ADMIN_QUEUED))
		return;
	c->table.rec[idx].cold.admin |= ADMIN_QUEUED;
	changes_push(&c->changes, idx);
	counter_set(&c->stat.dirty, changes_pending(&c->changes));
}

void session_changed(struct core *c, uint32_t idx)
{
	c->table.rec[idx].hot.version++;
	queue_change(c, idx);
}

static void gauges(struct core *c, uint32_t idx, uint64_t step)
{
	counter_add(c->table.rec[idx].hot.kind == REC_FLOW ? &c->stat.flows : &c->stat.mappings, step);
}

void record_identify(struct core *c, uint32_t idx)
{
	c->table.link[idx].id = c->cfg->flow_id_base + ++c->flow_seq * c->cfg->n_workers + c->worker;
	c->table.rec[idx].cold.origin = c->cfg->origin;
}

/* ---- birth ---- */

uint32_t mapping_insert(struct core *c, const struct flow_hot *m, uint32_t shard)
{
	struct flow_table *t = &c->table;
	uint32_t idx = flow_alloc(t);
	struct flow_hot *f = &t->rec[idx].hot;

	if (!idx)
		return FLOW_NONE;
	f->inside = m->inside;
	f->inside_port = m->inside_port;
	f->external_port = m->external_port;
	f->proto = m->proto;
	f->pool = m->pool;
	f->zones = m->zones;
	f->kind = REC_MAPPING;
	f->state = FP_ST_NEW;
	t->rec[idx].cold.shard = (uint8_t)shard;
	t->link[idx].epoch = c->import_epoch;
	if (!flow_index(t, &c->hash, idx)) {
		flow_free(t, idx);
		return FLOW_NONE;
	}
	gauges(c, idx, 1);
	return idx;
}

uint32_t flow_insert(struct core *c, const struct flow_hot *key, uint32_t map)
{
	struct flow_table *t = &c->table;
	uint32_t idx = flow_alloc(t), first = t->link[map].map_next;
	struct flow_hot *f = &t->rec[idx].hot;

	if (!idx)
		return FLOW_NONE;
	f->inside = key->inside;
	f->remote = key->remote;
	f->inside_port = key->inside_port;
	f->remote_port = key->remote_port;
	f->external_port = t->rec[map].hot.external_port;
	f->proto = key->proto;
	f->pool = t->rec[map].hot.pool;
	f->zones = key->zones;
	f->kind = REC_FLOW;
	f->state = FP_ST_NEW;
	f->map = map;
	t->rec[idx].cold.shard = t->rec[map].cold.shard;
	t->link[idx].epoch = c->import_epoch;
	if (!flow_index(t, &c->hash, idx)) {
		flow_free(t, idx);
		return FLOW_NONE;
	}
	t->link[idx].map_prev = map;
	t->link[idx].map_next = first;
	if (first)
		t->link[first].map_prev = idx;
	t->link[map].map_next = idx;
	gauges(c, idx, 1);
	return idx;
}

/* The mapping of an inside endpoint; a new one gets a port (endpoint-independent: RFC 4787 REQ-1). */
static uint32_t mapping_open(struct core *c, struct flow_hot *m, uint32_t *verdict)
{
	struct flow_key key = { .a = m->inside,
				.pa = m->inside_port,
				.proto = m->proto,
				.pool = m->pool,
				.side = SIDE_OUT,
				.kind = REC_MAPPING };
	uint32_t entry = flow_find(&c->table, &c->hash, &key, flow_hash(&c->table, &key));
	uint32_t shard, idx;

	if (entry)
		return entry >> 1;
	shard = core_shard(c->cfg, &m->inside, m->inside_port, m->proto);
	m->external_port = nat_port_alloc(&c->nat, m->pool, m->proto, shard, be16_host(m->inside_port) & 1);
	if (!m->external_port.raw) {
		*verdict = V_PORTS_EXHAUSTED;
		return FLOW_NONE;
	}
	idx = mapping_insert(c, m, shard);
	if (!idx) {
		nat_port_free(&c->nat, m->pool, m->proto, m->external_port);
		*verdict = V_TABLE_FULL;
		return FLOW_NONE;
	}
	record_identify(c, idx);
	session_changed(c, idx);
	return idx;
}

static void start_state(struct core *c, uint32_t idx, const struct pkt *p)
{
	struct flow_hot *f = &c->table.rec[idx].hot;

	f->state = FP_ST_NEW;
	if (p->proto == IPPROTO_NUM_TCP)
		tcptrack_open(f, &c->table.rec[idx].cold, p);
	record_identify(c, idx);
	session_touch(c, f);
	wheel_schedule(&c->wheel, &c->table, idx, f->deadline_tick);
	session_changed(c, idx);
}

uint32_t session_open(struct core *c, const struct pkt *p, const struct session_path *path, uint32_t *idx)
{
	struct flow_hot key = { .inside = addr_from_v4(p->src),
				.remote = addr_from_v4(p->dst),
				.inside_port = p->sport,
				.proto = p->proto,
				.zones = (uint8_t)(path->in_port << 4 | path->out_port) };
	uint32_t pool = nat_pool_for(&c->nat, path->out_port, &key.inside), verdict = V_GO_ON, map;

	if (pool == NAT_POOL_NONE)
		return V_NO_POOL;
	/* A new session takes a flow and perhaps a mapping; without both, nothing is begun. */
	if (c->table.n_free < 2)
		return V_TABLE_FULL;
	key.pool = (uint8_t)pool;
	if (p->proto != IPPROTO_NUM_ICMP)
		key.remote_port = p->dport;
	map = mapping_open(c, &key, &verdict);
	if (!map)
		return verdict;
	*idx = flow_insert(c, &key, map);
	if (!*idx) {
		if (!c->table.link[map].map_next)
			record_remove(c, map, true);
		return V_TABLE_FULL;
	}
	start_state(c, *idx, p);
	counter_add(&c->stat.flows_created, 1);
	return V_GO_ON;
}

void session_reopen(struct core *c, uint32_t idx, const struct pkt *p)
{
	struct flow_cold *cold = &c->table.rec[idx].cold;
	uint8_t queued = cold->admin & ADMIN_QUEUED, shard = cold->shard;

	memset(cold, 0, sizeof(*cold));
	cold->admin = queued;
	cold->shard = shard;
	c->table.rec[idx].hot.flags = 0;
	c->table.rec[idx].hot.version = 0;
	start_state(c, idx, p);
	counter_add(&c->stat.flows_closed, 1);
	counter_add(&c->stat.flows_created, 1);
}

/* ---- time ---- */

uint32_t session_deadline(const struct core *c, const struct flow_hot *f)
{
	uint64_t since = c->role == FP_ROLE_ACTIVE ? c->active_since_ns : c->now_ns;

	return max_u32(f->deadline_tick, wheel_tick(since) + session_timeout(c, f));
}

void session_expire(struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	uint32_t deadline = session_deadline(c, f), now = wheel_tick(c->now_ns);

	if (f->kind == REC_MAPPING && c->table.link[idx].map_next)
		deadline = now + session_timeout(c, f); /* lives as long as its flows; look again later */
	if (deadline > now) {
		wheel_schedule(&c->wheel, &c->table, idx, deadline);
		return;
	}
	if (f->kind == REC_FLOW)
		counter_add(f->state >= FP_ST_TIME_WAIT ? &c->stat.flows_closed : &c->stat.flows_expired, 1);
	record_remove(c, idx, true);
}

/* ---- death ---- */

void record_release(struct core *c, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	if (f->kind == REC_MAPPING || f->kind == REC_TOMB_MAPPING)
		nat_port_free(&c->nat, f->pool, f->proto, f->external_port);
	flow_free(&c->table, idx);
}

/* Out of index and wheel; then a tombstone, or free at once. */
static void bury(struct core *c, uint32_t idx, bool tell)
{
	struct flow_hot *f = &c->table.rec[idx].hot;

	flow_unindex(&c->table, &c->hash, idx);
	wheel_cancel(&c->wheel, &c->table, idx);
	gauges(c, idx, UINT64_MAX);
	if (!tell || !c->changes.track) {
		record_release(c, idx);
		return;
	}
	if (c->changes.n_tombs >= c->changes.tombs_max) {
		counter_add(&c->stat.events_lost, 1);
		record_release(c, idx);
		return;
	}
	f->kind = f->kind == REC_FLOW ? REC_TOMB_FLOW : REC_TOMB_MAPPING;
	counter_set(&c->stat.tombstones, ++c->changes.n_tombs);
	session_changed(c, idx);
}

static void flow_remove(struct core *c, uint32_t idx, bool tell)
{
	struct flow_link *l = &c->table.link[idx];

	c->table.link[l->map_prev].map_next = l->map_next;
	if (l->map_next)
		c->table.link[l->map_next].map_prev = l->map_prev;
	l->map_next = FLOW_NONE;
	l->map_prev = FLOW_NONE;
	bury(c, idx, tell);
}

/* The peer deletes its mapping itself; should it die before that, the wheel does it after the takeover. */
static void await_delete(struct core *c, uint32_t map)
{
	struct flow_hot *f = &c->table.rec[map].hot;

	f->deadline_tick = wheel_tick(c->now_ns) + session_timeout(c, f);
	wheel_schedule(&c->wheel, &c->table, map, f->deadline_tick);
}

void record_remove(struct core *c, uint32_t idx, bool tell)
{
	uint32_t map = idx;

	if (c->table.rec[idx].hot.kind == REC_FLOW) {
		map = c->table.rec[idx].hot.map;
		flow_remove(c, idx, tell);
		if (c->table.link[map].map_next)
			return;
		if (!tell && !(c->table.rec[map].cold.admin & ADMIN_IMPLIED)) {
			await_delete(c, map);
			return;
		}
	}
	FP_ASSERT(c->table.rec[map].hot.kind == REC_MAPPING);
	while (c->table.link[map].map_next)
		flow_remove(c, c->table.link[map].map_next, tell);
	bury(c, map, tell);
}
