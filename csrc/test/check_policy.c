/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_policy.c - rules and forwards, against a slow and obvious search
 */
#include "../policy.h"
#include "../session_log.h"
#include "../validate.h"
#include "check.h"

enum { RULES = 300, PREFIXES = 900, SERVICES = 700 };

static struct fp_config node = { .n_workers = 2, .n_ports = 3, .n_pools = 3 };
static uint64_t rng = 88172645463325252u;

static uint32_t below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 32) % n;
}

static struct fp_addr v4(uint32_t host)
{
	return addr_from_v4(be32_of(host));
}

static struct policy *build(const struct fp_policy_cfg *cfg)
{
	return policy_build(aligned_alloc(64, policy_mem_size(cfg, node.n_workers)), cfg, &node);
}

static struct fp_rule any_rule(uint32_t id, enum fp_action action)
{
	return (struct fp_rule){ .id = id, .action = action, .sport_hi = UINT16_MAX };
}

/* ---- the oracle ---- */

static bool prefix_takes(const struct fp_prefix *p, const struct fp_addr *addr)
{
	for (uint32_t bit = 0; bit < p->plen; bit++) {
		if ((p->addr.b[bit / 8] ^ addr->b[bit / 8]) & 0x80 >> bit % 8)
			return false;
	}
	return true;
}

static bool list_takes(const struct fp_policy_cfg *cfg, uint32_t first, uint32_t n,
		       const struct fp_addr *addr)
{
	bool any = n == 0;

	for (uint32_t i = first; i < first + n; i++)
		any |= prefix_takes(&cfg->prefixes[i], addr);
	return any;
}

static bool rule_takes(const struct fp_policy_cfg *cfg, const struct fp_rule *r, const struct policy_query *q)
{
	bool service = r->n_services == 0;

	for (uint32_t i = r->first_service; i < r->first_service + r->n_services; i++) {
		const struct fp_service *s = &cfg->services[i];

		service |= (s->proto == 0 || s->proto == q->proto) && q->dport >= s->port_lo &&
			   q->dport <= s->port_hi;
	}
	return service && (r->in_ports == 0 || r->in_ports >> q->in_port & 1) &&
	       (r->out_ports == 0 || r->out_ports >> q->out_port & 1) && q->sport >= r->sport_lo &&
	       q->sport <= r->sport_hi && list_takes(cfg, r->first_src, r->n_src, &q->src) &&
	       list_takes(cfg, r->first_dst, r->n_dst, &q->dst);
}

static uint32_t slow_rule(const struct fp_policy_cfg *cfg, const struct policy_query *q)
{
	for (uint32_t i = 0; i < cfg->n_rules; i++) {
		if (rule_takes(cfg, &cfg->rules[i], q))
			return i + 1;
	}
	return 0;
}

/* ---- random policies: few values, so that much matches and borders are met ---- */

static uint16_t some_port(void)
{
	static const uint16_t ports[] = { 0, 1, 79, 80, 81, 443, 1023, 1024, 8000, 8080, 65534, 65535 };

	return ports[below(ARRAY_SIZE(ports))];
}

static uint8_t some_proto(void)
{
	static const uint8_t protos[] = { 1, 6, 17, 47, 255 };

	return protos[below(ARRAY_SIZE(protos))];
}

static struct fp_addr some_addr(void)
{
	struct fp_addr addr = { { 0x20, 0x01, 0x0d, 0xb8 } };

	if (below(3)) {
		addr = v4((below(2) ? 0x0a000000 : 0xfffffff0) + below(4) * 0x10000 + below(3) * 0x100 +
			  below(4));
		return below(40) ? addr : v4(UINT32_MAX);
	}
	for (uint32_t i = 4; i < 16; i += 3)
		addr.b[i] = (uint8_t)below(3);
	return addr;
}

static struct fp_prefix some_prefix(void)
{
	struct fp_prefix p = { .addr = some_addr() };

	p.plen = (uint8_t)(addr_is_v4(&p.addr) ? 104 + below(25) : 32 + below(97));
	if (below(30) == 0)
		p.plen = (uint8_t)below(97);
	return p;
}

static struct fp_service some_service(void)
{
	struct fp_service s = { .proto = some_proto(), .port_lo = some_port(), .port_hi = some_port() };

	if (s.port_lo > s.port_hi)
		s.port_lo = s.port_hi;
	if (below(10) == 0)
		s = (struct fp_service){ .port_hi = UINT16_MAX };
	return s;
}

static struct fp_rule some_rule(uint32_t id)
{
	struct fp_rule r = any_rule(id, below(3));

	r.in_ports = (uint8_t)(below(2) ? 0 : below(8));
	r.out_ports = (uint8_t)(below(2) ? 0 : below(8));
	r.n_src = below(4);
	r.first_src = below(PREFIXES - r.n_src);
	r.n_dst = below(4);
	r.first_dst = below(PREFIXES - r.n_dst);
	r.n_services = below(3);
	r.first_service = below(SERVICES - r.n_services);
	if (below(4) == 0) {
		r.sport_lo = some_port();
		r.sport_hi = max_u32(r.sport_lo, some_port());
	}
	return r;
}

static void check_random(uint32_t n_rules)
{
	static struct fp_rule rules[RULES];
	static struct fp_prefix prefixes[PREFIXES];
	static struct fp_service services[SERVICES];
	struct fp_policy_cfg cfg = { .rules = rules,
				     .prefixes = prefixes,
				     .services = services,
				     .n_rules = n_rules,
				     .n_prefixes = PREFIXES,
				     .n_services = SERVICES };
	uint32_t differ = 0, matched = 0;
	struct fp_error err;
	struct policy *policy;

	for (uint32_t i = 0; i < PREFIXES; i++)
		prefixes[i] = some_prefix();
	for (uint32_t i = 0; i < SERVICES; i++)
		services[i] = some_service();
	for (uint32_t i = 0; i < n_rules; i++)
		rules[i] = some_rule(i + 1);
	CHECK_EQ(1, validate_policy(&cfg, &node, &err), 0);
	policy = build(&cfg);
	for (uint32_t i = 0; i < 5000; i++) {
		struct policy_query q = { .src = some_addr(),
					  .dst = some_addr(),
					  .sport = some_port(),
					  .dport = some_port(),
					  .proto = some_proto(),
					  .in_port = (uint8_t)below(3),
					  .out_port = (uint8_t)below(3) };
		uint32_t slow = slow_rule(&cfg, &q);
		struct policy_decision d;

		policy_decide(policy, &q, &d);
		differ += d.rule != slow || (slow && d.action != rules[slow - 1].action);
		matched += slow > 0;
	}
	CHECK_EQ(2, differ, 0);
	CHECK(3, n_rules < 10 || matched > 500);
	free(policy);
}

static void check_decision(void)
{
	const struct fp_service gre = { .proto = 47, .port_hi = UINT16_MAX };
	struct fp_rule rule = any_rule(1, FP_REJECT);
	struct fp_policy_cfg cfg = { .rules = &rule, .services = &gre, .n_rules = 1, .n_services = 1 };
	struct policy_query q = { .src = v4(1), .dst = v4(2), .proto = 47 };
	struct policy_decision d;
	struct policy *policy;

	rule.n_services = 1;
	rule.form = FP_FORM_NONE;
	rule.log = rule.explicit_proto = 1;
	rule.pools = 5;
	rule.max_per_source = 77;
	policy = build(&cfg);
	policy_decide(policy, &q, &d);
	CHECK_EQ(10, d.rule, 1);
	CHECK_EQ(11, d.action, FP_REJECT);
	CHECK_EQ(12, d.form, FP_FORM_NONE);
	CHECK(13, d.log == 1 && d.explicit_proto && d.pools == 5 && d.max_per_source == 77);
	q.proto = 46;
	policy_decide(policy, &q, &d);
	CHECK_EQ(14, d.rule, 0);
	CHECK(15, d.action == 0 && d.pools == 0 && !d.explicit_proto);
	free(policy);
	policy = build(&(struct fp_policy_cfg){ .default_outbound = FP_DENY });
	policy_decide(policy, &q, &d);
	CHECK_EQ(16, d.rule, 0);
	CHECK_EQ(17, policy->default_outbound, FP_DENY);
	CHECK(18, !policy_forward_in(policy, 0, 80, 6) && !policy_forward_in(NULL, 0, 80, 6));
	free(policy);
}

static void check_forwards(void)
{
	enum { N = POLICY_FORWARDS_MAX };
	static struct fp_forward f[N];
	struct fp_policy_cfg cfg = { .forwards = f, .n_forwards = N };
	struct fp_addr other = v4(0x0b000001);
	uint32_t wrong = 0;
	struct fp_error err;
	struct policy *policy;

	node.pools[0].addr = node.pools[2].addr = v4(0xc0000264);
	node.pools[1].addr = v4(0xc0000265);
	for (uint32_t i = 0; i < N; i++)
		f[i] = (struct fp_forward){ .id = i + 1,
					    .inside = v4(0x0a000000 + i / 2),
					    .proto = i & 1 ? 6 : 17,
					    .inside_port = 80,
					    .external_port = (uint16_t)(1 + i / 2),
					    .pool = 2 };
	CHECK_EQ(30, validate_policy(&cfg, &node, &err), 0);
	policy = build(&cfg);
	for (uint32_t i = 0; i < N; i++) {
		const struct fp_forward *in = policy_forward_in(policy, i % 3 == 0 ? 0 : 2,
								f[i].external_port, f[i].proto);
		const struct fp_forward *out = policy_forward_out(policy, &f[i].inside, 80, f[i].proto);

		wrong += !in || in->id != i + 1 || in->pool != 0 || out != in;
	}
	CHECK_EQ(31, wrong, 0);
	CHECK(32, policy_reserves(policy, 0, 1, 6) && policy_reserves(policy, 2, 1, 17));
	CHECK(33, !policy_reserves(policy, 1, 1, 6) && !policy_reserves(policy, 0, N, 6));
	CHECK(34,
	      !policy_forward_out(policy, &other, 80, 6) && !policy_forward_out(policy, &f[0].inside, 81, 6));
	free(policy);
	/* Two external ports of one server: the first forward speaks for it; both are found from outside. */
	f[1] = f[0];
	f[1].id = 2;
	f[1].external_port = 9999;
	cfg.n_forwards = 2;
	policy = build(&cfg);
	CHECK_EQ(35, policy_forward_out(policy, &f[0].inside, 80, 17)->id, 1);
	CHECK_EQ(36, policy_forward_in(policy, 0, 9999, 17)->id, 2);
	free(policy);
	/* One external port for two servers, under two pools with one address. */
	f[1] = f[0];
	f[1].id = 2;
	f[1].pool = 0;
	CHECK(37, validate_policy(&cfg, &node, &err) < 0 && strstr(err.text, "forwards[1]"));
}

static void check_hits(void)
{
	struct fp_rule rules[2] = { any_rule(1, FP_ALLOW), any_rule(2, FP_DENY) };
	struct fp_policy_cfg cfg = { .rules = rules, .n_rules = 2 };
	struct policy *old = build(&cfg), *policy;

	policy_count(old, 0, 1);
	policy_count(old, 1, 1);
	policy_count(old, 1, 2);
	policy_count(old, 1, 0);
	CHECK_EQ(50, policy_hits(old, 1), 2);
	rules[0].was = 2;
	rules[1].was = 0;
	policy = build(&cfg);
	policy_carry_hits(policy, &cfg, old);
	policy_count(policy, 0, 1);
	CHECK_EQ(51, policy_hits(policy, 1), 2);
	CHECK_EQ(52, policy_hits(policy, 2), 0);
	CHECK_EQ(53, policy_hits(policy, 0), 1);
	free(old);
	free(policy);
}

/* The log's bucket: so many at once, then so many a second. */
static void check_log(void)
{
	static struct session_log log;
	uint64_t now = 5 * NS_PER_S;
	uint32_t n = 0;

	for (uint32_t i = 0; i < 1000; i++)
		n += session_log_reserve(&log, now) != NULL;
	CHECK_EQ(70, n, SESSION_LOG_SLOTS);
	CHECK_EQ(71, counter_read(&log.lost), 1000 - SESSION_LOG_SLOTS);
	log.n = 0;
	CHECK(72, !session_log_reserve(&log, now));
	for (uint32_t i = n = 0; i < 1000; i++) {
		now += NS_PER_MS;
		log.n = 0;
		n += session_log_reserve(&log, now) != NULL;
	}
	CHECK(73, n >= SESSION_LOG_PER_S - 2 && n <= SESSION_LOG_PER_S + 2);
}

static void check_refusals(void)
{
	struct fp_prefix prefix = { .plen = 129 };
	struct fp_service service = { .port_hi = 80 };
	struct fp_rule rule = any_rule(1, FP_ALLOW);
	struct fp_policy_cfg cfg = { .rules = &rule,
				     .prefixes = &prefix,
				     .services = &service,
				     .n_rules = 1,
				     .n_prefixes = 1,
				     .n_services = 1 };
	struct fp_error err;

	CHECK(60, validate_policy(&cfg, &node, &err) < 0 && strstr(err.text, "plen"));
	prefix.plen = 128;
	CHECK(61, validate_policy(&cfg, &node, &err) < 0 && strstr(err.text, "services[0]"));
	service.proto = 6;
	CHECK_EQ(62, validate_policy(&cfg, &node, &err), 0);
	rule.first_src = UINT32_MAX;
	rule.n_src = 1;
	CHECK(63, validate_policy(&cfg, &node, &err) < 0 && strstr(err.text, "rules[0]"));
	rule = any_rule(2, FP_ALLOW);
	CHECK(64, validate_policy(&cfg, &node, &err) < 0);
	rule = any_rule(1, FP_ALLOW);
	rule.action = FP_REJECT + 1;
	CHECK(65, validate_policy(&cfg, &node, &err) < 0);
	rule = any_rule(1, FP_ALLOW);
	rule.pools = 8;
	CHECK(66, validate_policy(&cfg, &node, &err) < 0);
	cfg.n_rules = POLICY_RULES_MAX + 1;
	CHECK(67, validate_policy(&cfg, &node, &err) < 0);
}

int main(void)
{
	check_random(0);
	check_random(1);
	check_random(64);
	check_random(65);
	for (uint32_t i = 0; i < 20; i++)
		check_random(RULES - i);
	check_decision();
	check_forwards();
	check_hits();
	check_log();
	check_refusals();
	return check_done("policy");
}
