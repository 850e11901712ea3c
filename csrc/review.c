/* SPDX-License-Identifier: Apache-2.0 */
/**
 * review.c - live sessions under rules that came after them
 *
 * A session keeps what was decided when it was opened until its rules change. Then each is asked about again
 * with the endpoints of its opener, page by page: what would not be opened today, or not with this translation,
 * is closed, and the peer hears of it as of any other end.
 */
#include <errno.h>

#include "session.h"
#include "step.h"

static uint16_t query_port(const struct flow_hot *f, be16 port)
{
	return f->proto == 1 ? 0 : be16_host(port); /* an identifier is no port */
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

static bool serves(const struct core *c, const struct policy_decision *d, const struct flow_hot *f)
{
	if (d->pools)
		return d->pools >> f->pool & 1;
	return c->cfg->pools[f->pool].out_port == (f->zones & 0xfu);
}

/*
 * The endpoints of a forward belong to it, in shards of its own: a session that was there before it, or that
 * it no longer has, must go.
 */
static bool fits_forwards(const struct core *c, const struct flow_hot *f)
{
	const uint16_t external = be16_host(f->external_port);
	const struct fp_forward *forward;

	if (f->form == FP_FORM_NONE || !nat_has_ports(f->proto))
		return true;
	if (f->form == FP_FORM_SNAT)
		return !policy_reserves(c->policy, f->pool, external, f->proto) &&
		       !policy_forward_out(c->policy, &f->inside, be16_host(f->inside_port), f->proto);
	forward = policy_forward_in(c->policy, f->pool, external, f->proto);
	return forward && forward->inside_port == be16_host(f->inside_port) &&
	       addr_eq(&forward->inside, &f->inside);
}

/* Nobody's rule: what goes out, and what a forward or the filtering of a pool has let in. */
static bool built_in_allows(const struct core *c, const struct flow_hot *f, const struct policy_query *q)
{
	if (f->form == FP_FORM_NONE)
		return false;
	if (f->form == FP_FORM_STATIC || session_opener(f) == SIDE_IN)
		return true;
	return c->policy->default_outbound == FP_ALLOW && serves(c, &(struct policy_decision){ 0 }, f) &&
	       c->ports[q->out_port].outside;
}

static bool rule_allows(const struct core *c, const struct flow_hot *f, const struct policy_query *q,
			const struct policy_decision *d)
{
	if (d->action != FP_ALLOW || (!nat_has_ports(f->proto) && !d->explicit_proto))
		return false;
	if (f->form == FP_FORM_STATIC || (f->form == FP_FORM_SNAT && session_opener(f) == SIDE_IN))
		return true; /* what comes in by a mapping or a forward is translated by that */
	if (f->form == FP_FORM_NONE)
		return d->form == FP_FORM_NONE || !c->ports[q->out_port].outside;
	return d->form == FP_FORM_SNAT && serves(c, d, f);
}

/* Return: whether it stays. */
static bool review(struct core *c, uint32_t idx)
{
	struct flow_hot *f = &c->table.rec[idx].hot;
	const struct policy_query q = opener(f);
	struct policy_decision d;
	bool changed;

	if (!fits_forwards(c, f))
		return false;
	policy_decide(c->policy, &q, &d);
	if (!(d.rule ? rule_allows(c, f, &q, &d) : built_in_allows(c, f, &q)))
		return false;
	changed = f->rule != d.rule;
	session_set_rule(c, idx, d.rule);
	if (changed)
		session_changed(c, idx);
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
		if (c->table.rec[*slot].hot.kind != REC_FLOW || review(c, *slot))
			continue;
		counter_add(&c->stat.flows_closed, 1);
		record_remove(c, *slot, true);
		closed++;
	}
	*done = !c->policy || *slot > c->table.n_fresh;
	return closed;
}
