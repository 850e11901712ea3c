/* SPDX-License-Identifier: Apache-2.0 */
/**
 * core.c - life, time, role and next hops of a worker's core
 */
#include <errno.h>

#include "digest.h"
#include "evict.h"
#include "nexthop.h"
#include "policy.h"
#include "session.h"
#include "step.h"

enum {
	INDEX_ENTRIES = 4, /* of a session at most: two of its own, two of its mapping */
	URGENT_SHARE = 4,  /* entries of the queues of changes (changes.h) */
	LAZY_SHARE = 16,
	QUEUE_MIN = 4096, /* ... but so many at least, or as many as records */
	TOMBS_SHARE = 8   /* at most 1/8 of the records may wait for the peer's acknowledgement */
};

/* ---- memory ---- */

struct layout {
	uint32_t cap;
	uint32_t n_buckets;
	uint32_t urgent, lazy;
	size_t rec, link, buckets, slices, wheel, dirty, lazies, births, park, frags, commit, size;
};

static size_t place(size_t *at, size_t bytes)
{
	size_t here = *at;

	*at += (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	return here;
}

static struct layout plan(const struct fp_config *cfg)
{
	struct layout l = { .cap = (cfg->flow_cap + cfg->n_workers - 1) / cfg->n_workers };
	size_t at = 0, slots = (size_t)l.cap + 1; /* slot 0 is "none" */

	l.urgent = min_u32(l.cap, max_u32(l.cap / URGENT_SHARE, QUEUE_MIN));
	l.lazy = min_u32(l.cap, max_u32(l.cap / LAZY_SHARE, QUEUE_MIN));
	l.n_buckets = hash_buckets(INDEX_ENTRIES * l.cap);
	l.rec = place(&at, slots * sizeof(struct flow_rec));
	l.link = place(&at, slots * sizeof(struct flow_link));
	l.buckets = place(&at, hash_mem_size(l.n_buckets));
	l.slices = place(&at, nat_mem_size(cfg));
	l.wheel = place(&at, wheel_mem_size());
	l.dirty = place(&at, l.urgent * sizeof(uint32_t));
	l.lazies = place(&at, l.lazy * sizeof(struct changes_lazy));
	l.births = place(&at, l.cap * sizeof(uint32_t));
	l.park = place(&at, park_mem_size());
	l.frags = place(&at, frag_mem_size());
	l.commit = place(&at, commit_mem_size(cfg, l.cap));
	l.size = at;
	return l;
}

size_t core_mem_size(const struct fp_config *cfg)
{
	return plan(cfg).size;
}

static void init_ports(struct core *c)
{
	for (uint32_t i = 0; i < c->cfg->n_ports; i++) {
		const struct fp_port_cfg *p = &c->cfg->ports[i];
		struct core_port *port = &c->ports[i];

		memcpy(port->mac, p->mac, ETH_ALEN);
		memcpy(port->vmac, p->vmac, ETH_ALEN);
		port->mac_word = mac_word(p->mac);
		port->vmac_word = mac_is_zero(p->vmac) ? UINT64_MAX : mac_word(p->vmac);
		port->has_vmac = !mac_is_zero(p->vmac);
		memcpy(port->tx_mac, port->has_vmac ? p->vmac : p->mac, ETH_ALEN);
		port->outside = p->zone == FP_ZONE_OUTSIDE;
		port->len_max = ETH_LEN + p->mtu;
		c->n_inside += !port->outside;
	}
}

static void init_timeouts(struct core *c)
{
	const struct fp_timeouts *t = &c->cfg->timeouts;

	for (uint32_t state = 0; state < FP_ST_COUNT; state++) {
		c->timeout_ticks[NAT_TCP][state] = wheel_ticks_s(t->tcp_transitory_s);
		c->timeout_ticks[NAT_UDP][state] = wheel_ticks_s(t->udp_s);
		c->timeout_ticks[NAT_ICMP][state] = wheel_ticks_s(t->icmp_s);
	}
	/* Half closed is open: one direction goes on for as long as it likes. */
	for (uint32_t state = FP_ST_ESTABLISHED; state <= FP_ST_FIN_WAIT; state++)
		c->timeout_ticks[NAT_TCP][state] = wheel_ticks_s(t->tcp_established_s);
	for (uint32_t state = FP_ST_CLOSING; state < FP_ST_COUNT; state++)
		c->timeout_ticks[NAT_TCP][state] = wheel_ticks_s(t->tcp_closing_s);
}

int core_init(struct core *c, const struct fp_config *cfg, uint32_t worker, void *mem, size_t size)
{
	struct layout l = plan(cfg);
	uint8_t *base = mem;

	if (!mem || size < l.size || (uintptr_t)mem % CACHE_LINE || worker >= cfg->n_workers || !l.cap)
		return -EINVAL;
	memset(c, 0, sizeof(*c));
	c->cfg = cfg;
	c->worker = worker;
	c->role = FP_ROLE_INIT;
	c->tcp.strict = cfg->tcp_strict;
	init_ports(c);
	init_timeouts(c);
	memcpy(c->digest_key, cfg->shard_key, sizeof(c->digest_key));
	memset(c->epoch, EPOCH_FIRST, sizeof(c->epoch));
	c->table.rec = (struct flow_rec *)(void *)(base + l.rec);
	c->table.link = (struct flow_link *)(void *)(base + l.link);
	c->table.cap = l.cap;
	c->table.n_free = l.cap;
	c->table.key = hash_key_load(cfg->table_key);
	c->hash.buckets = (struct hash_bucket *)(void *)(base + l.buckets);
	c->hash.n = l.n_buckets;
	nat_init(&c->nat, cfg, worker, base + l.slices);
	c->wheel.slots = (uint32_t *)(void *)(base + l.wheel);
	c->changes.dirty = (uint32_t *)(void *)(base + l.dirty);
	c->changes.dirty_cap = l.urgent;
	c->changes.lazy = (struct changes_lazy *)(void *)(base + l.lazies);
	c->changes.lazy_cap = l.lazy;
	c->changes.tombs_max = l.cap / TOMBS_SHARE;
	c->births.ring = (uint32_t *)(void *)(base + l.births);
	c->births.cap = l.cap;
	c->park.slots = (struct parked *)(void *)(base + l.park);
	frag_init(&c->frags, base + l.frags, cfg, worker);
	commit_init(&c->commit, base + l.commit, cfg, l.cap);
	return 0;
}

/* ---- time ---- */

static void drop_parked(struct core *c, uint64_t until_ns, enum fp_verdict verdict)
{
	uint32_t n = park_expire(&c->park, until_ns);

	if (!n)
		return;
	counter_add(&c->verdicts[verdict], n);
	counter_set(&c->stat.neigh_waiting, c->park.n);
}

uint32_t core_expire(struct core *c, uint64_t now_ns, uint32_t budget)
{
	uint32_t n;

	c->now_ns = now_ns;
	drop_parked(c, now_ns, V_NEIGH_TIMEOUT); /* there are some of ACTIVE's, too */
	if (c->role != FP_ROLE_ACTIVE)
		return 0;
	frag_expire(&c->frags, now_ns, c->verdicts);
	n = session_expire(c, budget); /* first: nobody goes before his time for want of what is due anyway */
	return n + evict_some(c, budget - n);
}

/* ---- role ---- */

void core_set_role(struct core *c, uint32_t role, uint64_t term, uint64_t now_ns)
{
	c->now_ns = now_ns;
	if (role == FP_ROLE_ACTIVE && c->role != FP_ROLE_ACTIVE) {
		c->active_since_ns = now_ns;
		c->tcp.watch++;
	}
	c->role = role;
	c->term = term;
	if (role != FP_ROLE_ACTIVE) {
		drop_parked(c, UINT64_MAX, V_FENCED);
		frag_clear(&c->frags, V_FENCED, c->verdicts);
		commit_clear(c, V_FENCED);
	}
}

/* ---- next hops ---- */

void core_set_fib(struct core *c, const struct fib *fib)
{
	c->fib = fib;
}

void core_set_quota(struct core *c, struct quota *quota)
{
	c->quota = quota;
}

void core_set_policy(struct core *c, const struct policy *policy)
{
	c->policy = policy;
	c->has_forwards = policy && policy->n_forwards;
	c->nat.policy = policy;
}

/* ---- log of sessions ---- */

void core_log(struct core *c, const struct policy_query *q, const struct policy_decision *d, uint32_t verdict,
	      const struct flow_hot *f)
{
	struct fp_session_log *line = session_log_reserve(&c->log, c->now_ns);

	if (!line)
		return;
	*line = (struct fp_session_log){
		.t_ns = c->now_ns,
		.rule = d->rule,
		.verdict = verdict,
		.src = q->src,
		.dst = q->dst,
		.sport = q->sport,
		.dport = q->dport,
		.proto = q->proto,
		.in_port = q->in_port,
		.out_port = q->out_port,
		.opened = f != NULL,
	};
	if (!f || f->form == FP_FORM_NONE)
		return;
	line->external = c->cfg->pools[f->pool].addr;
	line->external_port = be16_host(f->external_port);
}

uint32_t core_log_take(struct core *c, struct fp_session_log *out, uint32_t cap)
{
	const uint32_t n = min_u32(c->log.n, cap);

	memcpy(out, c->log.slots, n * sizeof(*out));
	c->log.n -= n;
	memmove(c->log.slots, c->log.slots + n, c->log.n * sizeof(*out));
	return n;
}

uint32_t core_retry_parked(struct core *c, struct fp_frame *out, uint32_t cap, uint64_t now_ns)
{
	uint32_t n = 0, i = 0;

	c->now_ns = now_ns;
	if (!c->fib)
		return 0;
	while (i < c->park.n && n < cap) {
		const struct parked *slot = &c->park.slots[c->park.order[i]];
		uint32_t neigh = fib_neigh(c->fib, slot->port, &slot->next_hop);
		struct fp_frame *frame = &out[n];

		if (neigh == FIB_NO_NEIGH) {
			i++;
			continue;
		}
		memcpy(frame->data, slot->data, slot->len);
		frame->len = slot->len;
		frame->vnet = slot->vnet;
		frame->verdict = slot->verdict;
		frame->port = (uint8_t)slot->port;
		frame->src = FP_SRC_WIRE;
		nexthop_dress(c, frame, slot->port, c->fib->neighs[neigh].mac);
		park_remove(&c->park, i);
		n++;
	}
	counter_set(&c->stat.neigh_waiting, c->park.n);
	return n;
}

uint32_t core_neigh_wanted(struct core *c, struct neigh_want *out, uint32_t cap)
{
	uint32_t n = min_u32(c->wants.n, cap);

	memcpy(out, c->wants.queue, n * sizeof(*out));
	c->wants.n -= n;
	memmove(c->wants.queue, c->wants.queue + n, c->wants.n * sizeof(*out));
	return n;
}

/* ---- counters ---- */

void core_stats_read(const struct core *c, struct fp_worker_stats *out)
{
	const struct core_counters *s = &c->stat;

	out->steps = counter_read(&s->steps);
	out->frames = counter_read(&s->frames);
	out->lookups = counter_read(&s->lookups);
	out->flows = counter_read(&s->flows);
	out->mappings = counter_read(&s->mappings);
	out->tombstones = counter_read(&s->tombstones);
	out->flows_created = counter_read(&s->flows_created);
	out->flows_expired = counter_read(&s->flows_expired);
	out->flows_closed = counter_read(&s->flows_closed);
	out->flows_imported = counter_read(&s->flows_imported);
	out->import_refused = counter_read(&s->import_refused);
	out->import_conflicts = counter_read(&s->import_conflicts);
	out->events_lost = counter_read(&s->events_lost);
	out->dirty = counter_read(&s->dirty);
	out->neigh_waiting = counter_read(&s->neigh_waiting);
	out->frags_held = counter_read(&c->frags.n_held);
	out->frags_evicted = counter_read(&c->frags.evicted);
	out->evicted_closed = counter_read(&s->evicted_closed);
	out->evicted_embryonic = counter_read(&s->evicted_embryonic);
	out->log_lost = counter_read(&c->log.lost);
}

uint32_t core_verdicts_read(const struct core *c, uint64_t *out, uint32_t cap)
{
	uint32_t n = min_u32(cap, V_COUNT);

	for (uint32_t i = 0; i < n; i++)
		out[i] = counter_read(&c->verdicts[i]);
	return n;
}
