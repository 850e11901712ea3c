/* SPDX-License-Identifier: Apache-2.0 */
/**
 * review.c - live sessions under rules that came after them
 *
 * A session keeps what was decided when it was opened until its rules change. Then each is asked about again
 * with the endpoints of its opener, page by page: what would not be opened today, or not with this translation,
 * is closed, and the peer hears of it as of any other end.
 */
#include <errno.h>

#include "admit.h"
#include "session.h"
#include "step.h"

static uint16_t query_port(const struct flow_hot *f, be16 port)
{
	return f->proto == 1 ? 0 : be16_host(port); /* an identifier is no port */
}

/* From inside to an address of ours: rules saw what is behind a forward there (admit.c, hairpin()). */
static bool see_behind(const struct core *c, const struct flow_hot *f, struct policy_query *q)
{
	const uint32_t pool = nat_pool_of_addr(&c->nat, addr_v4(&f->remote));
	const struct fp_forward *forward = policy_forward_in(c->policy, (uint8_t)pool,
							     be16_host(f->remote_port), f->proto);
	const struct fp_route *route = forward && c->fib ? fib_route(c->fib, &forward->inside) : NULL;

	if (!route)
		return false;
	q->dst = forward->inside;
	q->dport = forward->inside_port;
	q->out_port = route->port;
	return true;
}

/* The packet that opened it, as rules see it. */
static struct policy_query opener(const struct flow_hot *f)
{
	const uint8_t in = f->zones >> 4, out = f->zones & 0xf;

	if (session_opener(f) == SIDE_OUT)
		return (struct policy_query){ .src = f->inside,
					      .dst = f->remote,
					      .sport = query_port(f, f->inside_port),
					      .dport = query_port(f, f->remote_port),
					      .proto = f->proto,
					      .in_port = in,
					      .out_port = out };
	return (struct policy_query){ .src = f->remote,
				      .dst = f->inside,
				      .sport = query_port(f, f->remote_port),
				      .dport = query_port(f, f->inside_port),
				      .proto = f->proto,
				      .in_port = out,
				      .out_port = in };
}

/* Would it leave from the same pool? */
static bool same_pool(const struct core *c, const struct flow_hot *f, uint8_t pools)
{
	uint32_t pool = nat_pool_among(&c->nat, pools, f->zones & 0xf, &f->inside);

	if (pool != NAT_POOL_NONE && !nat_has_ports(f->proto))
		pool = nat_pool_of_addr(&c->nat, c->nat.pools[pool].v4);
	return pool == f->pool;
}

/*
 * The endpoints of a forward belong to it, in shards of its own: a session that was there before it, or that
 * it no longer has, must go.
 */
static bool fits_forwards(const struct core *c, const struct flow_hot *f)
{
	const uint16_t external = be16_host(f->external_port), inside_port = be16_host(f->inside_port);
	const bool zones = !c->ports[f->zones & 0xf].outside;
	const struct fp_forward *forward;

	if (!nat_has_ports(f->proto))
		return true;
	if (f->form != FP_FORM_STATIC)
		return !(f->form == FP_FORM_SNAT &&
			 policy_reserves(c->policy, f->pool, external, f->proto)) &&
		       !(!zones && policy_forward_out(c->policy, &f->inside, inside_port, f->proto));
	forward = policy_forward_in(c->policy, f->pool, external, f->proto);
	return forward && forward->inside_port == inside_port && addr_eq(&forward->inside, &f->inside);
}

/* No rule matches: what goes out, and what a forward or the filtering of a pool has let in. */
static bool built_in_allows(const struct core *c, const struct flow_hot *f, bool behind)
{
	if (f->form == FP_FORM_NONE || !admit_proto(f->proto, false))
		return false;
	if (session_opener(f) == SIDE_IN)
		return true;
	if (c->policy->default_outbound == FP_DENY && !behind)
		return false;
	return f->form == FP_FORM_STATIC || same_pool(c, f, 0);
}

static bool rule_allows(const struct core *c, const struct flow_hot *f, const struct policy_decision *d)
{
	const bool hairpin = f->flags & FP_RF_HAIRPIN;

	if (d->action != FP_ALLOW || !admit_proto(f->proto, d->explicit_proto))
		return false;
	if (f->form == FP_FORM_NONE)
		return d->form == FP_FORM_NONE ||
		       !(c->ports[f->zones >> 4].outside || c->ports[f->zones & 0xf].outside);
	/* What comes in by a mapping or a forward is translated by that, and so is what a server sends. */
	if (f->form == FP_FORM_STATIC || session_opener(f) == SIDE_IN)
		return true;
	return (hairpin || d->form == FP_FORM_SNAT) && same_pool(c, f, d->pools);
}

bool review_stays(struct core *c, uint32_t idx)
{
	struct flow_hot *f = &c->table.rec[idx].hot;
	const bool hairpin = f->flags & FP_RF_HAIRPIN;
	struct policy_query q = opener(f);
	struct policy_decision d;
	bool behind = false, changed;

	if (!fits_forwards(c, f))
		return false;
	if (hairpin && session_opener(f) == SIDE_IN)
		return true; /* decided about when it came from inside: that half is a session of its own */
	if (hairpin) {
		behind = see_behind(c, f, &q);
		/* Where a session may be, another worker may have it; elsewhere there was a forward. */
		if (!behind && nat_pool_of(&c->nat, &f->remote, f->remote_port) == NAT_POOL_NONE)
			return false;
	}
	policy_decide(c->policy, &q, &d);
	if (!(d.rule ? rule_allows(c, f, &d) : built_in_allows(c, f, behind)))
		return false;
	changed = f->rule != d.rule;
	session_set_rule(c, idx, d.rule);
	if (changed)
		session_changed(c, idx, session_was(f), false);
	else if (f->epoch == EPOCH_NEVER)
		session_tell(c, idx, true); /* the rule may say another thing of the peer */
	return true;
}

int core_review(struct core *c, uint32_t *slot, uint32_t budget, bool *done, uint64_t now_ns)
{
	int closed = 0;

	if (c->role != FP_ROLE_ACTIVE)
		return -EPERM;
	c->now_ns = now_ns;
	*slot = max_u32(*slot, 1);
	for (uint32_t n = 0; c->policy && n < budget && *slot <= c->table.n_fresh; ++*slot, n++) {
		if (c->table.rec[*slot].hot.kind != REC_FLOW || review_stays(c, *slot))
			continue;
		counter_add(&c->stat.flows_closed, 1);
		record_remove(c, *slot, true);
		closed++;
	}
	*done = !c->policy || *slot > c->table.n_fresh;
	return closed;
}
