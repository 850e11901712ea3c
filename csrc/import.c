/* SPDX-License-Identifier: Apache-2.0 */
/**
 * import.c - records of the other node; transfer.c tells them there
 *
 * Theory of operation
 *   Identity is (origin, id), but records are merged by key (inside and remote endpoint, protocol), for a slot or an
 *   index hash means nothing on the other node. The peer is ACTIVE and this node is not, so the peer's word wins:
 *
 *     here                                        what is imported
 *     nothing under the key                       OPEN: inserted
 *     same identity, older version or state       refused, unless a sweep has it for the first time: this node may
 *                                                 have been ACTIVE, and have counted versions that the peer has not
 *     same identity                               updated; within a sweep's epoch a state never goes backwards
 *     another identity, form or external end      OPEN: replaced
 *     external end held by another session        OPEN: that one goes, with its mapping: a conflict, counted
 *     same identity, newer version                STATE, REST: overtaken within their batch: only windows and counters
 *     nothing, or another identity                STATE, REST: counted (import_unknown); the audit will repair it;
 *                                                 of an older identity: overtaken, nothing to do
 *                                                 DELETE: nothing to do
 *     same identity                               DELETE: removed
 *
 *   What follows from the endpoints (shard, pool, FP_RF_HAIRPIN, which sessions share a mapping) is computed
 *   here; the peer's word is not asked.
 *
 *   Which records were not taken is said by their fate (enum fp_taken); ACTIVE hears of them with the acknowledgement,
 *   and does not count it for them (core_refused()). A record that no node of this configuration can have ends the
 *   connection, since both compare their configuration first (flexha/core/agreed.py).
 *
 *   A sweep begins with a new epoch of its shards (digest.h), and ends by removing what is still of an older one.
 *   In a repair sweep what the walk brings should be here already, and be the same: what was not is logged.
 *
 *   Where both nodes reigned, the other way round: what core_import_end() would remove of the one that has yielded, and
 *   somebody uses (core_stranded()), the ACTIVE one takes if nothing of its own is in the way (core_adopt()).
 */
#include <errno.h>

#include "cols.h"
#include "digest.h"
#include "evict.h"
#include "nexthop.h"
#include "session.h"
#include "tcptrack.h"

/* ---- what a record may be ---- */

/* IPv6 sessions come with a later version. */
static bool is_later(const struct fp_flow_rec *r)
{
	return !addr_is_v4(&r->inside) || !addr_is_v4(&r->remote) ||
	       (r->op == FP_OP_OPEN && !addr_is_v4(&r->external));
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
 * check_record() - Can there be such a record? Nothing of it has been used yet.
 * @shard: that its endpoints have
 * @pool:  out, of FP_OP_OPEN
 */
static bool check_record(const struct core *c, const struct fp_flow_rec *r, uint32_t shard, uint8_t *pool)
{
	if (r->op > FP_OP_REST || !r->id || !r->origin || !r->proto || r->form > FP_FORM_NONE ||
	    !addr_v4(&r->inside).raw || !addr_v4(&r->remote).raw || !ports_sane(r))
		return false;
	if (r->op == FP_OP_DELETE)
		return true;
	return state_sane(r) &&
	       (r->op != FP_OP_OPEN || (zones_sane(c, r) && external_sane(c, r, shard, pool)));
}

static bool same_identity(const struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	return c->table.link[idx].id == r->id && c->table.rec[idx].cold.origin == r->origin;
}

/* What never changes while a session lives. */
static bool same_shape(const struct flow_hot *f, const struct flow_hot *want)
{
	return f->form == want->form && f->pool == want->pool &&
	       f->external_port.raw == want->external_port.raw && f->zones == want->zones &&
	       !((f->flags ^ want->flags) & FP_RF_INBOUND);
}

/* Older than what this node was told in this epoch. */
static bool is_outdated(const struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	return r->version < f->version || (digest_knows(c, idx) && r->state < f->state);
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
		.rule = r->rule,
		.form = r->form,
	};

	if (nat_pool_of_addr(&c->nat, addr_v4(&r->remote)) != NAT_POOL_NONE)
		f.flags |= FP_RF_HAIRPIN;
	return f;
}

/* ---- repairs ---- */

static bool is_repair(const struct core *c, uint32_t shard)
{
	return c->repairs.shards & shard_bit(shard);
}

static void log_repair(struct core *c, const struct flow_hot *f, uint32_t shard, enum fp_repair_kind kind)
{
	struct repairs *log = &c->repairs;

	counter_add(&c->stat.repaired, 1);
	if (log->n == ARRAY_SIZE(log->log))
		return;
	log->log[log->n++] = (struct fp_repair){
		.inside = f->inside,
		.remote = f->remote,
		.inside_port = f->inside_port.raw,
		.remote_port = f->remote_port.raw,
		.proto = f->proto,
		.kind = (uint8_t)kind,
		.shard = (uint8_t)shard,
	};
}

uint32_t core_repairs_take(struct core *c, struct fp_repair *out, uint32_t cap)
{
	const uint32_t n = min_u32(c->repairs.n, cap);

	memcpy(out, c->repairs.log, n * sizeof(*out));
	c->repairs.n -= n;
	memmove(c->repairs.log, c->repairs.log + n, c->repairs.n * sizeof(*out));
	return n;
}

/* ---- progress ---- */

static void import_time(struct core *c, uint32_t idx, uint32_t remaining)
{
	struct flow_hot *f = &c->table.rec[idx].hot;
	uint64_t due_ns = c->now_ns + (uint64_t)remaining * NS_PER_MS;
	uint32_t timeout = session_timeout(c, f);

	/* Beyond the timeout of its state nobody lives, whatever the peer says. */
	f->deadline_tick = min_u32(wheel_tick(due_ns) + 1, wheel_tick(c->now_ns) + timeout);
	wheel_schedule(&c->wheel, &c->table, idx, f->deadline_tick);
}

/*
 * What any op but DELETE says. The record is out of the digest. Flags go as they come, for ACTIVE takes an RST, or a
 * FIN that was forged, back (tcptrack.h); what this node saw acknowledged of such a FIN, when it was ACTIVE, goes too.
 */
static void take_news(struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	const uint8_t said = FLOW_FLAGS_TOLD & ~FP_RF_INBOUND;
	struct flow_cold *cold = &c->table.rec[idx].cold;
	struct flow_hot *f = &c->table.rec[idx].hot;

	f->state = r->state;
	f->flags = (uint8_t)((f->flags & ~said) | (r->flags & said) | FP_RF_IMPORTED);
	f->version = r->version;
	if (!(f->flags & FP_RF_FIN_ORIG))
		cold->admin &= (uint8_t)~ADMIN_FIN_ACKED_ORIG;
	if (!(f->flags & FP_RF_FIN_REPLY))
		cold->admin &= (uint8_t)~ADMIN_FIN_ACKED_REPLY;
}

static void take_windows(struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	struct flow_cold *cold = &c->table.rec[idx].cold;

	if (r->has & COL_BIT(COL_WIN) && r->proto == IPPROTO_NUM_TCP)
		tcptrack_import(cold, r->win);
	for (uint32_t side = SIDE_OUT; r->has & COL_BIT(COL_COUNTERS) && side <= SIDE_IN; side++) {
		cold->packets[side] = r->packets[side];
		cold->bytes[side] = r->bytes[side];
	}
}

/* What may have come besides. */
static void take_rest(struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	take_windows(c, idx, r);
	import_time(c, idx, r->has & COL_BIT(COL_REMAINING_MS) ? r->remaining_ms : UINT32_MAX);
}

/* Takeover must not begin with a pile of unresolved neighbours: keep those of both directions warm. */
static void warm_neighbours(struct core *c, uint32_t idx)
{
	for (uint32_t side = SIDE_OUT; side <= SIDE_IN; side++) {
		struct nexthop nh;

		if (nexthop_flow(c, idx, side, &nh) == V_GO_ON && nh.neigh == FIB_NO_NEIGH && !nh.peer)
			neigh_wants_add(&c->wants, nh.port, &nh.addr, c->now_ns);
	}
}

/* ---- OPEN ---- */

/* Whoever stands in the way goes, with all that shares its external port. */
static void evict(struct core *c, uint32_t idx)
{
	counter_add(&c->stat.import_conflicts, 1);
	mapping_remove(c, idx, false);
}

/*
 * Make a record of imported endpoints, after whatever contradicts it has gone.
 * Return: index, or FLOW_NONE when there is no room.
 */
static uint32_t insert(struct core *c, const struct flow_hot *want, uint32_t shard)
{
	uint32_t leader = FLOW_NONE, holder = record_find(c, want, SIDE_IN, KEY_FLOW), idx;
	bool mapped = session_has_mapping(want);

	if (holder)
		evict(c, holder);
	if (mapped) {
		leader = record_find(c, want, SIDE_OUT, KEY_MAPPING);
		if (leader && c->table.rec[leader].hot.external_port.raw != want->external_port.raw) {
			evict(c, leader);
			leader = FLOW_NONE;
		}
	}
	if (mapped && !leader) {
		holder = record_find(c, want, SIDE_IN, KEY_MAPPING);
		if (holder)
			evict(c, holder);
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

/* A session that is here as the peer says, if it is; else whatever is under its key goes. */
static uint32_t keep_or_remove(struct core *c, const struct fp_flow_rec *r, const struct flow_hot *want,
			       uint32_t idx)
{
	if (idx && !(same_identity(c, idx, r) && same_shape(&c->table.rec[idx].hot, want))) {
		record_remove(c, idx, false);
		return FLOW_NONE;
	}
	return idx;
}

static bool import_open(struct core *c, const struct fp_flow_rec *r, const struct flow_hot *want,
			uint32_t shard)
{
	const bool check = r->flags & FP_RF_BULK && is_repair(c, shard);
	const uint32_t here = record_find(c, want, SIDE_OUT, KEY_FLOW);
	uint32_t idx = here;
	uint64_t hash = 0;
	bool is_new;

	if (idx && same_identity(c, idx, r) && digest_knows(c, idx) && is_outdated(c, idx, r))
		return false;
	idx = keep_or_remove(c, r, want, idx);
	is_new = !idx;
	if (is_new)
		idx = insert(c, want, shard);
	if (!idx)
		return false;
	if (is_new) {
		c->table.link[idx].id = r->id;
		c->table.rec[idx].cold.origin = r->origin;
		if (r->proto == IPPROTO_NUM_TCP)
			tcptrack_import(&c->table.rec[idx].cold, (const struct fp_tcp_win[2]){ 0 });
		births_push(c, idx);
	} else {
		hash = digest_hash(c, idx, session_was(&c->table.rec[idx].hot));
		digest_leave(c, idx, session_was(&c->table.rec[idx].hot));
	}
	session_set_rule(c, idx, want->rule);
	take_news(c, idx, r);
	take_rest(c, idx, r);
	digest_enter(c, idx);
	if (check && is_new)
		log_repair(c, want, shard, here ? FP_REPAIR_DIFFERED : FP_REPAIR_MISSING);
	else if (check && hash != digest_hash(c, idx, session_was(&c->table.rec[idx].hot)))
		log_repair(c, want, shard, FP_REPAIR_DIFFERED);
	warm_neighbours(c, idx);
	return true;
}

/* ---- the other ops ---- */

/*
 * The sections of a batch come by op, not by time. So a word may find that another session of the same ends has been
 * opened behind it (the numbers of a node grow, and our sessions are older than those that the peer made of them) ...
 */
static bool is_replaced(const struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	return c->table.rec[idx].cold.origin == r->origin ? r->id < c->table.link[idx].id
							  : r->origin == c->cfg->origin;
}

/* ... or a later word of the same session has come before it: then only what that has not said is news. */
static bool is_overtaken(const struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	return digest_knows(c, idx) && r->version < c->table.rec[idx].hot.version;
}

/* FP_OP_STATE, FP_OP_REST */
static bool import_news(struct core *c, const struct fp_flow_rec *r, const struct flow_hot *want)
{
	const uint32_t idx = record_find(c, want, SIDE_OUT, KEY_FLOW);
	const struct flow_hot *f = &c->table.rec[idx].hot;
	bool known;

	if (!idx || !same_identity(c, idx, r)) {
		if (idx && is_replaced(c, idx, r))
			return true;
		counter_add(&c->stat.import_unknown, 1);
		return false;
	}
	if (f->form != r->form || (f->flags ^ r->flags) & FP_RF_INBOUND ||
	    (is_outdated(c, idx, r) && !is_overtaken(c, idx, r))) {
		counter_add(&c->stat.import_refused, 1);
		return false;
	}
	if (is_overtaken(c, idx, r)) {
		take_windows(c, idx, r);
		return true;
	}
	known = digest_knows(c, idx);
	digest_leave(c, idx, session_was(f));
	if (r->has & COL_BIT(COL_RULE))
		session_set_rule(c, idx, r->rule);
	take_news(c, idx, r);
	take_rest(c, idx, r);
	if (known) /* else a sweep is on, and will come to it */
		digest_enter(c, idx);
	return true;
}

static bool import_delete(struct core *c, const struct fp_flow_rec *r, const struct flow_hot *want)
{
	uint32_t idx = record_find(c, want, SIDE_OUT, KEY_FLOW);

	if (idx && same_identity(c, idx, r))
		record_remove(c, idx, false);
	return true;
}

/* Return: 1 taken, 0 refused or somebody else's. */
static int import_record(struct core *c, struct fp_flow_rec *r)
{
	struct flow_hot want = hot_of(c, r);
	uint32_t shard = session_shard(c->cfg, &want);
	bool taken;

	if (shard % c->cfg->n_workers != c->worker)
		return 0;
	if (is_later(r) || !check_record(c, r, shard, &want.pool)) {
		counter_add(&c->stat.import_refused, 1);
		r->fate = is_later(r) ? FP_NOT_TAKEN : FP_ABSURD;
		return 0;
	}
	switch (r->op) {
	case FP_OP_OPEN:
		taken = import_open(c, r, &want, shard);
		counter_add(&c->stat.import_refused, !taken);
		break;
	case FP_OP_DELETE: taken = import_delete(c, r, &want); break;
	default: taken = import_news(c, r, &want); break;
	}
	counter_add(&c->stat.flows_imported, taken);
	if (unlikely(!taken))
		r->fate = FP_NOT_TAKEN;
	return taken;
}

int core_import(struct core *c, struct fp_flow_rec *recs, uint32_t n, uint64_t now_ns)
{
	int taken = 0;

	if (c->role == FP_ROLE_ACTIVE)
		return -EPERM;
	c->now_ns = now_ns;
	/* Who listens has nothing to tell any more; quarantined ports must not refuse the peer's. */
	core_forget_changes(c);
	for (uint32_t i = 0; i < n; i++)
		taken += import_record(c, &recs[i]);
	return taken;
}

/* ---- what the other node has opened while both reigned ---- */

/* All of it is news. */
static void begin_adopted(struct core *c, uint32_t idx, const struct fp_flow_rec *r)
{
	const struct session_was was = { .state = r->state, .flags = r->flags };

	c->table.link[idx].id = r->id;
	c->table.rec[idx].cold.origin = r->origin;
	if (r->proto == IPPROTO_NUM_TCP)
		tcptrack_import(&c->table.rec[idx].cold, (const struct fp_tcp_win[2]){ 0 });
	births_push(c, idx);
	take_news(c, idx, r);
	take_rest(c, idx, r);
	session_changed(c, idx, was, true);
	warm_neighbours(c, idx);
}

/* Return: 1 taken, 0 refused or somebody else's. */
static int adopt_record(struct core *c, struct fp_flow_rec *r)
{
	struct flow_hot want = hot_of(c, r);
	uint32_t shard = session_shard(c->cfg, &want), idx;

	if (shard % c->cfg->n_workers != c->worker)
		return 0;
	r->fate = FP_NOT_TAKEN;
	if (is_later(r) || r->op != FP_OP_OPEN || !check_record(c, r, shard, &want.pool)) {
		r->fate = is_later(r) ? FP_NOT_TAKEN : FP_ABSURD;
		return 0;
	}
	if (r->proto == IPPROTO_NUM_TCP && (r->state >= FP_ST_TIME_WAIT || r->flags & FP_RF_RESET))
		return 0;
	idx = record_find(c, &want, SIDE_OUT, KEY_FLOW);
	if (idx && same_identity(c, idx, r)) { /* offered again */
		r->fate = FP_TAKEN;
		return 1;
	}
	if (session_adopt(c, &want, shard, &idx) != V_GO_ON)
		return 0;
	begin_adopted(c, idx, r);
	if (c->policy && !review_stays(c, idx)) {
		record_remove(c, idx, true);
		return 0;
	}
	r->fate = FP_TAKEN;
	return 1;
}

int core_adopt(struct core *c, struct fp_flow_rec *recs, uint32_t n, uint64_t now_ns)
{
	int taken = 0;

	if (c->role != FP_ROLE_ACTIVE)
		return -EPERM;
	c->now_ns = now_ns;
	for (uint32_t i = 0; i < n; i++)
		taken += adopt_record(c, &recs[i]);
	counter_add(&c->stat.flows_imported, (uint64_t)taken);
	return taken;
}

/* ---- what the other node refused ---- */

static void take_refusal(struct core *c, const struct fp_flow_rec *r, uint64_t ev_seq)
{
	const struct flow_hot want = hot_of(c, r);
	const uint32_t idx = record_find(c, &want, SIDE_OUT, KEY_FLOW);

	if (!idx || !same_identity(c, idx, r))
		return; /* another worker's, or it has gone meanwhile */
	commit_refused(c, idx, ev_seq);
	/* A sweep that began since may have told it anew; what the peer says of that is yet to come. */
	if (ev_seq >= c->changes.sweep_ev)
		c->table.rec[idx].cold.refused = 1;
}

int core_refused(struct core *c, const struct fp_flow_rec *recs, uint32_t n, uint64_t ev_seq)
{
	if (c->role != FP_ROLE_ACTIVE)
		return 0; /* it was, when it told them */
	for (uint32_t i = 0; i < n; i++)
		take_refusal(c, &recs[i], ev_seq);
	return 0;
}

/* ---- sweeps ---- */

int core_import_begin(struct core *c, uint64_t shards, bool repair)
{
	if (c->role == FP_ROLE_ACTIVE)
		return -EPERM;
	core_forget_changes(c);
	digest_forget(c, shards);
	c->repairs.shards = repair ? c->repairs.shards | shards : c->repairs.shards & ~shards;
	return 0;
}

int core_import_end(struct core *c, uint64_t shards)
{
	int n = 0;

	if (c->role == FP_ROLE_ACTIVE)
		return -EPERM;
	for (uint32_t idx = 1; idx <= c->table.n_fresh; idx++) {
		const struct flow_rec *rec = &c->table.rec[idx];

		if (rec->hot.kind != REC_FLOW || !(shards & shard_bit(rec->cold.shard)) ||
		    digest_knows(c, idx))
			continue;
		if (is_repair(c, rec->cold.shard))
			log_repair(c, &rec->hot, rec->cold.shard, FP_REPAIR_EXTRA);
		record_remove(c, idx, false);
		n++;
	}
	c->repairs.shards &= ~shards;
	return n;
}
