/* SPDX-License-Identifier: Apache-2.0 */
/**
 * admit.c - what a packet that belongs to no session may open
 */
#include "admit.h"
#include "icmp.h"
#include "local.h"
#include "policy.h"
#include "reject.h"
#include "steer.h"

enum { PROTO_DCCP = 33, PROTO_AH = 51, PROTO_UDP_LITE = 136 };

/*
 * struct attempt - A packet and what is known of its case
 * @src, @dst: as the packet has them
 * @query:     as the rules see it
 * @otherwise: verdict if no rule matches; V_GO_ON: it may pass
 */
struct attempt {
	struct pkt *p;
	struct fp_addr src, dst;
	struct policy_query query;
	struct policy_decision decision;
	uint32_t otherwise;
};

/* ---- what any session asks ---- */

/* R10: a segment that opens no session and belongs to none is dropped. Of ICMP only requests open any. */
static uint32_t check_opener(const struct core *c, const struct pkt *p)
{
	const uint8_t relevant = TCP_SYN | TCP_ACK_FLAG | TCP_RST | TCP_FIN;

	if (p->proto == IPPROTO_NUM_TCP && (p->tcp_flags & relevant) != TCP_SYN &&
	    (c->cfg->syn_check || (p->tcp_flags & (TCP_SYN | TCP_RST))))
		return V_SYN_CHECK;
	if (p->proto == IPPROTO_NUM_ICMP && p->icmp_type != ICMP_ECHO_REQUEST)
		return V_NO_SESSION;
	return pkt_l4_csum_ok(p) ? V_GO_ON : V_L4_CHECKSUM;
}

/*
 * Protocols without ports: the well-known ones, and those that the rule names. With a checksum over the addresses
 * they cannot be translated without knowing them (RFC 4302, RFC 4340, RFC 3828).
 */
static bool proto_passes(const struct attempt *a, bool translated)
{
	const uint8_t proto = a->p->proto;

	if (nat_has_ports(proto))
		return true;
	if (translated && (proto == PROTO_DCCP || proto == PROTO_AH || proto == PROTO_UDP_LITE))
		return false;
	return admit_proto(proto, a->decision.rule && a->decision.explicit_proto);
}

/* What the rules say; the packet may become an answer. */
static uint32_t decide(struct core *c, struct attempt *a)
{
	struct policy_decision *d = &a->decision;
	uint32_t verdict;

	*d = (struct policy_decision){ 0 };
	if (c->policy) {
		policy_decide(c->policy, &a->query, d);
		policy_count(c->policy, c->worker, d->rule);
	}
	if (!d->rule)
		return a->otherwise;
	if (d->action == FP_ALLOW)
		return V_GO_ON;
	verdict = d->action == FP_REJECT ? reject_packet(c, a->p) : (uint32_t)V_RULE_DENIED;
	if (d->log)
		core_log(c, &a->query, d, verdict, NULL);
	return verdict;
}

static struct attempt attempt_of(struct pkt *p)
{
	const bool icmp = p->proto == IPPROTO_NUM_ICMP;
	struct attempt a = { .p = p, .src = addr_from_v4(p->src), .dst = addr_from_v4(p->dst) };

	a.query = (struct policy_query){
		.src = a.src,
		.dst = a.dst,
		.sport = icmp ? 0 : be16_host(p->sport),
		.dport = icmp ? 0 : be16_host(p->dport),
		.proto = p->proto,
		.in_port = p->frame->port,
	};
	return a;
}

static void take_decision(struct session_path *path, const struct policy_decision *d)
{
	path->rule = d->rule;
	path->max_per_source = d->max_per_source;
}

/* ---- from inside ---- */

/* Which address the inside endpoint gets. Spec: RFC 4787 REQ-2 (paired). */
static uint32_t choose_pool(const struct core *c, const struct attempt *a, struct session_path *path)
{
	uint32_t pool = nat_pool_among(&c->nat, a->decision.pools, path->out_port, &path->inside);

	if (pool == NAT_POOL_NONE)
		return V_NO_POOL;
	if (!nat_has_ports(a->p->proto))
		pool = nat_pool_of_addr(&c->nat, c->nat.pools[pool].v4);
	path->form = FP_FORM_SNAT;
	path->pool = (uint8_t)pool;
	return V_GO_ON;
}

/* The inside endpoint's side of a session that leaves by an outside port, or seems to (hairpin). */
static uint32_t outbound_path(struct core *c, const struct attempt *a, struct session_path *path,
			      bool translate)
{
	const struct pkt *p = a->p;
	const bool icmp = p->proto == IPPROTO_NUM_ICMP;
	const struct fp_forward *forward =
		icmp ? NULL : policy_forward_out(c->policy, &a->src, be16_host(p->sport), p->proto);

	path->in_port = p->frame->port;
	path->inside = a->src;
	path->inside_port = p->sport;
	path->remote = a->dst;
	path->remote_port = icmp ? be16_of(0) : p->dport;
	take_decision(path, &a->decision);
	if (forward) { /* seen from outside, a server is one endpoint, whoever begins */
		path->form = FP_FORM_STATIC;
		path->pool = forward->pool;
		path->external_port = be16_of(forward->external_port);
		return V_GO_ON;
	}
	if (!translate) {
		path->form = FP_FORM_NONE;
		path->pool = POOL_NONE;
		return V_GO_ON;
	}
	return choose_pool(c, a, path);
}

/* The smaller endpoint is the inside one, whoever opens: steer.h. */
static uint32_t between_zones(struct core *c, struct attempt *a, struct session_path *path,
			      const struct nexthop *nh)
{
	const struct pkt *p = a->p;
	const bool icmp = p->proto == IPPROTO_NUM_ICMP, forth = steer_smaller(p->src, p->dst);
	uint32_t verdict = V_INSIDE_DENIED;

	if (nh->port != p->frame->port) {
		a->otherwise = V_INSIDE_DENIED;
		verdict = decide(c, a);
	}
	if (verdict != V_GO_ON)
		return verdict;
	if (!proto_passes(a, false))
		return V_PROTOCOL;
	*path = (struct session_path){
		.in_port = forth ? p->frame->port : (uint8_t)nh->port,
		.out_port = forth ? (uint8_t)nh->port : p->frame->port,
		.form = FP_FORM_NONE,
		.pool = POOL_NONE,
		.inbound = !forth,
		.inside = forth ? a->src : a->dst,
		.remote = forth ? a->dst : a->src,
		.inside_port = forth ? p->sport : p->dport,
		.remote_port = icmp    ? be16_of(0)
			       : forth ? p->dport
				       : p->sport,
	};
	take_decision(path, &a->decision);
	return V_GO_ON;
}

static uint32_t from_inside(struct core *c, struct attempt *a, struct session_path *path, struct nexthop *nh)
{
	struct nexthop back;
	uint32_t verdict = nexthop_find(c, &a->dst, nh);
	bool zones;

	if (verdict != V_GO_ON)
		return verdict;
	zones = !c->ports[nh->port].outside;
	if (nexthop_route(c, &a->src, false, V_NO_RETURN_ROUTE, &back) != V_GO_ON ||
	    (zones && back.port != a->p->frame->port))
		return V_NO_RETURN_ROUTE;
	a->query.out_port = (uint8_t)nh->port;
	if (zones) {
		verdict = between_zones(c, a, path, nh);
	} else {
		a->otherwise = c->policy && c->policy->default_outbound == FP_DENY ? V_RULE_DENIED : V_GO_ON;
		verdict = decide(c, a);
		path->out_port = (uint8_t)nh->port;
		if (verdict == V_GO_ON)
			verdict = outbound_path(c, a, path, a->decision.form != FP_FORM_NONE);
		if (verdict == V_GO_ON && !proto_passes(a, path->form != FP_FORM_NONE))
			verdict = V_PROTOCOL;
	}
	return verdict == V_GO_ON ? icmp_check_egress(c, a->p, nh) : verdict;
}

/*
 * To an address of ours that stands for another inside host. Only the half to outside is opened here; the packet
 * then comes in again there. Where a forward leads is known, where a mapping leads another worker may know: rules
 * see the pool's address then. Always translated: the other host must answer to us. Spec: RFC 4787 REQ-9 a.
 */
static uint32_t hairpin(struct core *c, struct attempt *a, struct session_path *path)
{
	struct pkt *p = a->p;
	const uint32_t by_addr = nat_pool_of_addr(&c->nat, p->dst);
	const struct fp_forward *forward = policy_forward_in(c->policy, (uint8_t)by_addr, be16_host(p->dport),
							     p->proto);
	struct nexthop nh;
	uint32_t verdict;

	if (!nat_has_ports(p->proto))
		return V_HAIRPIN_PORTLESS;
	if (nexthop_route(c, &a->src, false, V_NO_RETURN_ROUTE, &nh) != V_GO_ON)
		return V_NO_RETURN_ROUTE;
	path->out_port = (uint8_t)c->cfg->pools[by_addr].out_port;
	a->query.out_port = path->out_port;
	a->otherwise = c->policy && c->policy->default_outbound == FP_DENY && !forward ? V_RULE_DENIED
										       : V_GO_ON;
	if (forward) {
		verdict = nexthop_route(c, &forward->inside, false, V_ZONE_UNREACHABLE, &nh);
		if (verdict != V_GO_ON)
			return verdict;
		a->query.dst = forward->inside;
		a->query.dport = forward->inside_port;
		a->query.out_port = (uint8_t)nh.port;
	}
	verdict = decide(c, a);
	if (verdict != V_GO_ON)
		return verdict;
	if (p->ip[IP_TTL] <= 1)
		return icmp_refuse(c, p, NULL, V_TTL_EXPIRED);
	return outbound_path(c, a, path, true);
}

/* ---- from outside ---- */

/* Address and port of whom a port of the NAT stands for. */
static uint32_t behind_port(const struct core *c, const struct attempt *a, struct session_path *path)
{
	const struct pkt *p = a->p;
	const uint32_t by_addr = nat_pool_of_addr(&c->nat, p->dst);
	const struct fp_forward *forward = policy_forward_in(c->policy, (uint8_t)by_addr, be16_host(p->dport),
							     p->proto);
	const struct flow_hot *leader;
	uint32_t pool, idx;

	path->external_port = p->dport;
	if (forward) {
		path->form = FP_FORM_STATIC;
		path->pool = forward->pool;
		path->inside = forward->inside;
		path->inside_port = be16_of(forward->inside_port);
		return V_GO_ON;
	}
	if (p->proto != IPPROTO_NUM_TCP && p->proto != IPPROTO_NUM_UDP)
		return V_NO_SESSION;
	pool = nat_pool_of_v4(&c->nat, p->dst, p->dport);
	idx = mapping_by_external(c, pool, p->proto, p->dport);
	if (!idx)
		return V_NO_SESSION;
	if (c->cfg->pools[pool].filtering == FP_FILTER_APDF)
		return V_FILTERED;
	if (c->cfg->pools[pool].filtering == FP_FILTER_ADF) {
		uint32_t verdict = mapping_has_remote(c, idx, &a->src);

		if (verdict != V_GO_ON)
			return verdict;
	}
	leader = &c->table.rec[idx].hot;
	path->form = FP_FORM_SNAT;
	path->pool = (uint8_t)pool;
	path->inside = leader->inside;
	path->inside_port = leader->inside_port;
	return V_GO_ON;
}

/* An inside host's address does not come from outside. */
static uint32_t routed_outside(const struct core *c, const struct fp_addr *src)
{
	struct nexthop back;
	uint32_t verdict = nexthop_route(c, src, true, V_SPOOFED_INSIDE, &back);

	switch (verdict) {
	case V_NO_ROUTE: return V_NO_RETURN_ROUTE;
	case V_ZONE_UNREACHABLE: return V_SPOOFED_INSIDE;
	default: return verdict;
	}
}

static uint32_t from_outside(struct core *c, struct attempt *a, struct session_path *path, struct nexthop *nh)
{
	struct pkt *p = a->p;
	const bool to_pool = nat_pool_of_addr(&c->nat, p->dst) != NAT_POOL_NONE;
	const bool again = p->frame->src == FP_SRC_HAIRPIN, icmp = p->proto == IPPROTO_NUM_ICMP;
	const uint32_t denied = to_pool ? V_ZONE_UNREACHABLE : V_OUTSIDE_DENIED;
	uint32_t verdict = V_GO_ON;

	path->inbound = true;
	path->out_port = p->frame->port;
	path->remote = a->src;
	path->remote_port = icmp ? be16_of(0) : p->sport;
	if (to_pool) {
		verdict = behind_port(c, a, path);
	} else if (!c->policy ||
		   (!icmp && policy_forward_out(c->policy, &a->dst, be16_host(p->dport), p->proto))) {
		/* A server's port is that of its forward: answers could not tell the two apart. */
		verdict = V_OUTSIDE_DENIED;
	} else {
		path->form = FP_FORM_NONE;
		path->pool = POOL_NONE;
		path->inside = a->dst;
		path->inside_port = p->dport;
	}
	if (verdict == V_GO_ON)
		verdict = nexthop_route(c, &path->inside, false, denied, nh);
	if (verdict == V_GO_ON)
		verdict = check_opener(c, p);
	if (verdict == V_GO_ON && !again)
		verdict = routed_outside(c, &a->src);
	if (verdict != V_GO_ON)
		return verdict;
	path->in_port = (uint8_t)nh->port;
	a->query.dst = path->inside;
	a->query.dport = icmp ? 0 : be16_host(path->inside_port);
	a->query.out_port = path->in_port;
	a->otherwise = to_pool ? V_GO_ON : V_OUTSIDE_DENIED;
	if (!again) /* what comes from inside was decided about when it did */
		verdict = decide(c, a);
	if (verdict == V_GO_ON && !to_pool && a->decision.form != FP_FORM_NONE)
		verdict = V_OUTSIDE_DENIED; /* "allow" alone means: by NAT */
	if (verdict == V_GO_ON && !proto_passes(a, to_pool))
		verdict = V_PROTOCOL;
	take_decision(path, &a->decision);
	return verdict == V_GO_ON ? icmp_check_egress(c, p, nh) : verdict;
}

static uint32_t case_of(struct core *c, struct attempt *a, struct session_path *path, struct nexthop *nh)
{
	uint32_t verdict;

	if (c->ports[a->p->frame->port].outside)
		return from_outside(c, a, path, nh);
	verdict = check_opener(c, a->p);
	if (verdict != V_GO_ON)
		return verdict;
	return nat_pool_of_addr(&c->nat, a->p->dst) != NAT_POOL_NONE ? hairpin(c, a, path)
								     : from_inside(c, a, path, nh);
}

/* What its first packet will be counted as. */
static uint32_t passes_as(const struct session_path *path)
{
	return path->form == FP_FORM_NONE ? V_ROUTED : path->inbound ? V_REVERSE : V_SNAT;
}

uint32_t admit_packet(struct core *c, struct pkt *p, uint32_t *entry, struct nexthop *nh)
{
	struct attempt a = attempt_of(p);
	struct session_path path = { 0 };
	uint32_t verdict = case_of(c, &a, &path, nh), idx = FLOW_NONE;

	if (verdict != V_GO_ON)
		return verdict;
	verdict = session_open(c, p, &path, &idx);
	*entry = idx << 1 | (path.inbound ? SIDE_IN : SIDE_OUT);
	if (a.decision.log)
		core_log(c, &a.query, &a.decision, verdict != V_GO_ON ? verdict : passes_as(&path),
			 verdict == V_GO_ON ? &c->table.rec[idx].hot : NULL);
	/* No room to remember it for a moment is no reason to tell its sender that he may not. */
	return verdict == V_GO_ON || verdict == V_HOLD_FULL ? verdict : icmp_no_room(c, p, verdict);
}
