/* SPDX-License-Identifier: Apache-2.0 */
/**
 * transfer.c - records between the two nodes: changes and bulk out, import in
 *
 * Theory of operation
 *   Out: a change queues the record's index, once; draining copies what the record is by then. A delete is
 *   a tombstone in the same queue, so the order of events is kept: whoever reuses an endpoint of a deleted
 *   record is queued behind it. The bulk walk runs when no change is waiting.
 *
 *   In: identity is (origin, id), but records are merged by key (inside and remote endpoint, protocol), for
 *   a slot or an index hash means nothing on the other node. The peer is ACTIVE and this node is not, so
 *   the peer's word wins:
 *
 *     here                                        what is imported
 *     nothing under the key                       inserted
 *     same identity, older version or state       refused, unless a bulk has it for the first time
 *     same identity                               updated; a TCP state never goes backwards
 *     another identity, or other external end     replaced
 *     external end held by another session        that one goes, with its mapping: a conflict, counted
 *     a delete                                    removes the record if the identity is the same
 *
 *   What follows from the endpoints (shard, pool, FP_RF_HAIRPIN, which sessions share a mapping) is computed
 *   here; the peer's word is not asked.
 */
#include <errno.h>

#include "evict.h"
#include "nexthop.h"
#include "session.h"
#include "step.h"
#include "tcptrack.h"

/* ---- out ---- */

static uint32_t remaining_ms(const struct core *c, const struct flow_hot *f)
{
	uint64_t due_ns = (uint64_t)session_deadline(c, f) << WHEEL_TICK_SHIFT;

	return due_ns > c->now_ns ? (uint32_t)((due_ns - c->now_ns) / NS_PER_MS) : 0;
}

static void export_windows(const struct flow_cold *cold, struct fp_flow_rec *out)
{
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		out->win[side].end = cold->end[side];
		out->win[side].max_end = cold->max_end[side];
		out->win[side].max_win = cold->max_win[side];
		out->win[side].scale = tcptrack_scale(cold, side);
		out->win[side].flags = cold->wflags[side] &
				       (TCP_WIN_SCALE_KNOWN | TCP_WIN_SACK | TCP_WIN_SYN);
		out->packets[side] = cold->packets[side];
		out->bytes[side] = cold->bytes[side];
	}
}

static void export_record(const struct core *c, uint32_t idx, struct fp_flow_rec *out)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	const struct flow_cold *cold = &c->table.rec[idx].cold;
	bool tomb = f->kind == REC_TOMB;

	memset(out, 0, sizeof(*out));
	out->id = c->table.link[idx].id;
	out->origin = cold->origin;
	out->op = tomb ? FP_OP_DELETE : FP_OP_UPSERT;
	out->form = f->form;
	out->proto = f->proto;
	out->state = f->state;
	out->flags = f->flags;
	out->shard = cold->shard;
	out->version = f->version;
	out->remaining_ms = tomb ? 0 : remaining_ms(c, f);
	out->inside = f->inside;
	out->remote = f->remote;
	out->external = f->pool == POOL_NONE ? f->inside : c->cfg->pools[f->pool].addr;
	out->inside_port = f->inside_port.raw;
	out->remote_port = f->remote_port.raw;
	out->external_port = f->external_port.raw;
	out->in_port = f->zones >> 4;
	out->out_port = f->zones & 0xf;
	out->pool = f->pool;
	out->rule = f->rule;
	export_windows(cold, out);
}

/* The delete of a tombstone was told by event @ev_seq; its identity is not needed any more. */
static void dig_grave(struct core *c, uint32_t idx, uint64_t ev_seq)
{
	struct changes *ch = &c->changes;

	c->table.link[idx].id = ev_seq;
	c->table.link[idx].wheel_next = FLOW_NONE;
	if (ch->grave_first)
		c->table.link[ch->grave_last].wheel_next = idx;
	else
		ch->grave_first = idx;
	ch->grave_last = idx;
}

static uint32_t drain_changes(struct core *c, struct fp_flow_rec *out, uint32_t cap)
{
	struct changes *ch = &c->changes;
	uint32_t n = 0;

	while (n < cap && changes_pending(ch)) {
		uint32_t idx = changes_pop(ch);

		c->table.rec[idx].cold.admin &= (uint8_t)~ADMIN_QUEUED;
		if (c->table.rec[idx].hot.kind == REC_FREE)
			continue; /* its tombstone was given up */
		export_record(c, idx, &out[n]);
		out[n].ev_seq = ++ch->ev_seq;
		if (out[n].op == FP_OP_DELETE)
			dig_grave(c, idx, ch->ev_seq);
		n++;
	}
	counter_set(&c->stat.dirty, changes_pending(ch));
	return n;
}

static bool is_live(const struct core *c, uint32_t idx)
{
	return c->table.rec[idx].hot.kind == REC_FLOW;
}

static uint32_t drain_bulk(struct core *c, struct fp_flow_rec *out, uint32_t cap)
{
	struct changes *ch = &c->changes;
	uint32_t n = 0;

	for (; n < cap && ch->bulk_slot <= c->table.n_fresh; ch->bulk_slot++) {
		if (!is_live(c, ch->bulk_slot) || !session_survives(c, &c->table.rec[ch->bulk_slot].hot))
			continue;
		export_record(c, ch->bulk_slot, &out[n]);
		out[n].flags |= FP_RF_BULK;
		out[n].ev_seq = ++ch->ev_seq;
		n++;
	}
	if (n < cap) {
		out[n++] = (struct fp_flow_rec){ .op = FP_OP_BULK_END, .ev_seq = ++ch->ev_seq };
		ch->bulk = false;
	}
	return n;
}

uint32_t core_drain(struct core *c, struct fp_flow_rec *out, uint32_t cap, uint64_t now_ns)
{
	uint32_t n;

	c->now_ns = now_ns;
	n = drain_changes(c, out, cap);
	if (c->changes.bulk && n < cap)
		n += drain_bulk(c, out + n, cap - n);
	return n;
}

static void free_tomb(struct core *c, uint32_t idx)
{
	record_release(c, idx);
	counter_set(&c->stat.tombstones, --c->changes.n_tombs);
}

void core_ack(struct core *c, uint64_t ev_seq)
{
	struct changes *ch = &c->changes;

	while (ch->grave_first && c->table.link[ch->grave_first].id <= ev_seq) {
		uint32_t idx = ch->grave_first;

		ch->grave_first = c->table.link[idx].wheel_next;
		free_tomb(c, idx);
	}
}

/* Forget what was to be told: the queue, and with it all tombstones. */
static void forget_changes(struct core *c)
{
	core_ack(c, UINT64_MAX);
	while (changes_pending(&c->changes)) {
		uint32_t idx = changes_pop(&c->changes);

		c->table.rec[idx].cold.admin &= (uint8_t)~ADMIN_QUEUED;
		if (c->table.rec[idx].hot.kind == REC_TOMB)
			free_tomb(c, idx);
	}
	counter_set(&c->stat.dirty, 0);
}

void core_track(struct core *c, bool on)
{
	if (!on) {
		forget_changes(c);
		c->changes.bulk = false;
	}
	c->changes.track = on;
}

void core_bulk_start(struct core *c)
{
	c->changes.bulk = true;
	c->changes.bulk_slot = 1;
}

uint32_t core_walk(struct core *c, uint32_t *slot, struct fp_flow_rec *out, uint32_t cap, bool *done,
		   uint64_t now_ns)
{
	uint32_t n = 0;

	c->now_ns = now_ns;
	for (*slot = max_u32(*slot, 1); n < cap && *slot <= c->table.n_fresh; ++*slot)
		if (is_live(c, *slot))
			export_record(c, *slot, &out[n++]);
	*done = *slot > c->table.n_fresh;
	return n;
}

/* ---- in ---- */

static bool addrs_sane(const struct fp_flow_rec *r)
{
	/* IPv6 sessions come with a later version. */
	return addr_is_v4(&r->inside) && addr_v4(&r->inside).raw && addr_is_v4(&r->remote) &&
	       addr_v4(&r->remote).raw && addr_is_v4(&r->external);
}

static bool zones_sane(const struct core *c, const struct fp_flow_rec *r)
{
	if (r->in_port >= c->cfg->n_ports || r->out_port >= c->cfg->n_ports || c->ports[r->in_port].outside)
		return false;
	if (c->ports[r->out_port].outside)
		return true;
	/* Between two inside zones nothing is translated, and the order of the ends is fixed. */
	return r->form == FP_FORM_NONE &&
	       flow_in_order(&r->inside, (be16){ r->inside_port }, &r->remote, (be16){ r->remote_port });
}

static bool ports_sane(const struct fp_flow_rec *r)
{
	if (!nat_has_ports(r->proto))
		return !r->inside_port && !r->remote_port && !r->external_port;
	if (r->proto == IPPROTO_NUM_ICMP)
		return !r->remote_port;
	return r->inside_port && r->remote_port;
}

static bool state_sane(const struct fp_flow_rec *r)
{
	if (r->proto == IPPROTO_NUM_TCP)
		return r->state >= FP_ST_SYN_SENT && r->state < FP_ST_COUNT;
	return r->state == FP_ST_NEW || r->state == FP_ST_ESTABLISHED;
}

/* The pool that has the external end, as this node counts them. False: no record can have such an end. */
static bool external_sane(const struct core *c, const struct fp_flow_rec *r, uint32_t shard, uint8_t *pool)
{
	be16 port = { r->external_port };
	bool ports = nat_has_ports(r->proto);

	switch (r->form) {
	case FP_FORM_NONE:
		*pool = POOL_NONE;
		return addr_eq(&r->external, &r->inside) && r->external_port == r->inside_port;
	case FP_FORM_STATIC:
		*pool = (uint8_t)nat_pool_of_addr(&c->nat, addr_v4(&r->external));
		if (r->proto == IPPROTO_NUM_ICMP || !ports || !port.raw)
			return false;
		break;
	case FP_FORM_SNAT:
		*pool = (uint8_t)(ports ? nat_pool_of(&c->nat, &r->external, port)
					: nat_pool_of_addr(&c->nat, addr_v4(&r->external)));
		if (ports && nat_port_shard(be16_host(port)) != shard)
			return false;
		break;
	default: return false;
	}
	/* What hangs on an address of the peer's only is nothing that this node could go on with. */
	return *pool != POOL_NONE && c->cfg->pools[*pool].survives;
}

/**
 * check_record() - May this record be merged at all? Nothing of it has been used yet.
 * @shard: that its endpoints have
 * @pool:  out
 */
static bool check_record(const struct core *c, const struct fp_flow_rec *r, uint32_t shard, uint8_t *pool)
{
	return r->op <= FP_OP_DELETE && r->id && r->origin && r->proto && r->rule <= UINT16_MAX &&
	       state_sane(r) && addrs_sane(r) && ports_sane(r) && zones_sane(c, r) &&
	       external_sane(c, r, shard, pool);
}

static bool same_identity(const struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	return c->table.link[idx].id == r->id && c->table.rec[idx].cold.origin == r->origin;
}

static bool same_external(const struct flow_hot *f, const struct flow_hot *want)
{
	return f->form == want->form && f->pool == want->pool &&
	       f->external_port.raw == want->external_port.raw;
}

/* All but the pool. */
static struct flow_hot hot_of(const struct core *c, const struct fp_flow_rec *r)
{
	struct flow_hot f = {
		.inside = r->inside,
		.remote = r->remote,
		.inside_port = { r->inside_port },
		.remote_port = { r->remote_port },
		.external_port = { r->external_port },
		.proto = r->proto,
		.zones = (uint8_t)(r->in_port << 4 | (r->out_port & 0xf)),
		.flags = (uint8_t)(FP_RF_IMPORTED | (r->flags & FP_RF_INBOUND)),
		.rule = (uint16_t)r->rule,
		.form = r->form,
	};

	if (nat_pool_of_addr(&c->nat, addr_v4(&r->remote)) != NAT_POOL_NONE)
		f.flags |= FP_RF_HAIRPIN;
	return f;
}

/* Whoever stands in the way goes, with all that shares its external port. */
static void conflict(struct core *c, uint32_t idx)
{
	counter_add(&c->stat.import_conflicts, 1);
	mapping_remove(c, idx, false);
}

static void import_time(struct core *c, uint32_t idx, uint32_t remaining)
{
	struct flow_hot *f = &c->table.rec[idx].hot;
	uint64_t due_ns = c->now_ns + (uint64_t)remaining * NS_PER_MS;
	uint32_t timeout = session_timeout(c, f);

	/* Beyond the timeout of its state nobody lives, whatever the peer says. */
	f->deadline_tick = min_u32(wheel_tick(due_ns) + 1, wheel_tick(c->now_ns) + timeout);
	wheel_schedule(&c->wheel, &c->table, idx, f->deadline_tick);
}

static void import_identity(struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	c->table.link[idx].id = r->id;
	c->table.rec[idx].cold.origin = r->origin;
	c->table.rec[idx].hot.epoch = c->import_epoch;
	c->table.rec[idx].hot.version = r->version;
	c->table.rec[idx].hot.flags |= FP_RF_IMPORTED;
}

static void import_progress(struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	const uint8_t fins = FP_RF_FIN_ORIG | FP_RF_FIN_REPLY;
	struct flow_hot *f = &c->table.rec[idx].hot;
	struct flow_cold *cold = &c->table.rec[idx].cold;

	/* A record that was just inserted is NEW. Spec: TCP state never moves backwards. */
	f->state = (uint8_t)max_u32(f->state, r->state);
	f->flags |= r->flags & fins;
	/* A reset comes and goes with the versions, see tcptrack.h. */
	if (r->proto == IPPROTO_NUM_TCP) {
		f->flags = (uint8_t)((f->flags & ~FP_RF_RESET) | (r->flags & FP_RF_RESET));
		tcptrack_import(cold, r->win);
	}
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		cold->packets[side] = r->packets[side];
		cold->bytes[side] = r->bytes[side];
	}
	import_time(c, idx, r->remaining_ms);
}

/* Takeover must not begin with a pile of unresolved neighbours: keep those of both directions warm. */
static void warm_neighbours(struct core *c, uint32_t idx)
{
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		struct nexthop nh;

		if (nexthop_flow(c, idx, side, &nh) == V_GO_ON && nh.neigh == FIB_NO_NEIGH)
			neigh_wants_add(&c->wants, nh.port, &nh.addr, c->now_ns);
	}
}

/* Older than what this node holds. The first word of a bulk never is: this node may have been ACTIVE, and
 * have counted versions that the peer has not seen. */
static bool is_outdated(const struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	return same_identity(c, idx, r) && f->epoch == c->import_epoch &&
	       (r->version < f->version || r->state < f->state);
}

/*
 * Make a record of imported endpoints, after whatever contradicts it has gone.
 * Return: index, or FLOW_NONE when there is no room.
 */
static uint32_t import_insert(struct core *c, const struct flow_hot *want, uint32_t shard)
{
	uint32_t leader = FLOW_NONE, holder = record_find(c, want, SIDE_IN, KEY_FLOW), idx;
	bool mapped = session_has_mapping(want);

	if (holder)
		conflict(c, holder);
	if (mapped) {
		leader = record_find(c, want, SIDE_OUT, KEY_MAPPING);
		if (leader && c->table.rec[leader].hot.external_port.raw != want->external_port.raw) {
			conflict(c, leader);
			leader = FLOW_NONE;
		}
	}
	if (mapped && !leader) {
		holder = record_find(c, want, SIDE_IN, KEY_MAPPING);
		if (holder)
			conflict(c, holder);
		if (!nat_port_claim(&c->nat, want->pool, want->proto, want->external_port))
			return FLOW_NONE;
	}
	idx = record_insert(c, want, leader, shard);
	if (!idx && mapped && !leader)
		nat_port_free(&c->nat, want->pool, want->proto, want->external_port, c->now_ns);
	if (idx)
		session_count(c, idx);
	return idx;
}

static bool import_flow(struct core *c, const struct fp_flow_rec *r, const struct flow_hot *want,
			uint32_t shard)
{
	uint32_t idx = record_find(c, want, SIDE_OUT, KEY_FLOW);
	bool is_new;

	if (idx && is_outdated(c, idx, r))
		return false;
	if (idx && !(same_identity(c, idx, r) && same_external(&c->table.rec[idx].hot, want))) {
		record_remove(c, idx, false);
		idx = FLOW_NONE;
	}
	is_new = !idx;
	if (is_new)
		idx = import_insert(c, want, shard);
	if (!idx)
		return false;
	c->table.rec[idx].hot.zones = want->zones;
	session_set_rule(c, idx, want->rule);
	import_identity(c, idx, r);
	if (is_new)
		births_push(c, idx);
	import_progress(c, idx, r);
	warm_neighbours(c, idx);
	return true;
}

static void import_delete(struct core *c, const struct fp_flow_rec *r, const struct flow_hot *want)
{
	uint32_t idx = record_find(c, want, SIDE_OUT, KEY_FLOW);

	if (idx && same_identity(c, idx, r))
		record_remove(c, idx, false);
}

/* Return: 1 taken, 0 refused or somebody else's. */
static int import_record(struct core *c, const struct fp_flow_rec *r)
{
	struct flow_hot want = hot_of(c, r);
	uint32_t shard = session_shard(c->cfg, &want);
	bool taken = true;

	if (shard % c->cfg->n_workers != c->worker)
		return 0;
	if (!check_record(c, r, shard, &want.pool)) {
		counter_add(&c->stat.import_refused, 1);
		return 0;
	}
	if (r->op == FP_OP_DELETE)
		import_delete(c, r, &want);
	else
		taken = import_flow(c, r, &want, shard);
	counter_add(taken ? &c->stat.flows_imported : &c->stat.import_refused, 1);
	return taken;
}

int core_import(struct core *c, const struct fp_flow_rec *recs, uint32_t n, uint64_t now_ns)
{
	int taken = 0;

	if (c->role == FP_ROLE_ACTIVE)
		return -EPERM;
	c->now_ns = now_ns;
	/* Who listens has nothing to tell any more; quarantined ports must not refuse the peer's. */
	forget_changes(c);
	for (uint32_t i = 0; i < n; i++)
		taken += import_record(c, &recs[i]);
	return taken;
}

int core_import_begin(struct core *c)
{
	if (c->role == FP_ROLE_ACTIVE)
		return -EPERM;
	forget_changes(c);
	if (++c->import_epoch == 0) { /* the numbers come round: let no record seem to be of this epoch */
		for (uint32_t idx = 1; idx <= c->table.n_fresh; idx++)
			c->table.rec[idx].hot.epoch = 0;
		c->import_epoch = 1;
	}
	return 0;
}

int core_import_end(struct core *c)
{
	int n = 0;

	if (c->role == FP_ROLE_ACTIVE)
		return -EPERM;
	for (uint32_t idx = 1; idx <= c->table.n_fresh; idx++) {
		if (!is_live(c, idx) || c->table.rec[idx].hot.epoch == c->import_epoch)
			continue;
		record_remove(c, idx, false);
		n++;
	}
	return n;
}
