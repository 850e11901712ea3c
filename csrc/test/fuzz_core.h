/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_core.h - the core of the fuzzers: the network of estate.h with forwards, rules, limits and little room
 *
 * Every input begins with the same core; a copy of one costs a twentieth of core_init().
 */
#ifndef FUZZ_CORE_H
#define FUZZ_CORE_H

#include "../session.h"
#include "estate.h"
#include "fuzz.h"

enum { FUZZ_FLOW_CAP = 64, FUZZ_POLICIES = 4 };

/**
 * struct fuzz_core - A core, as it is and as it was
 * @core, @mem:         in use
 * @pristine:           the same, unused
 * @pristine_mem:       ...
 * @mem_size:           of either
 * @cfg:                of both
 * @quota:              counts by source
 * @fibs:               without and with neighbours
 * @policies:           [0] is none
 */
struct fuzz_core {
	struct core core, pristine;
	uint8_t *mem, *pristine_mem;
	size_t mem_size;
	struct fp_config cfg;
	struct quota quota;
	struct fib *fibs[2];
	struct policy *policies[FUZZ_POLICIES];
};

static inline struct fp_rule fuzz_rule(uint8_t action, uint8_t form, uint8_t in_ports, uint16_t sport_lo)
{
	struct fp_rule rule = estate_rule(action, form);

	rule.in_ports = in_ports;
	rule.sport_lo = sport_lo;
	return rule;
}

/* Ports of forwards are within reach of a mutation of what goes out. */
static inline void fuzz_policies(struct fuzz_core *z)
{
	const struct fp_forward forwards[6] = {
		estate_forward(0, IPPROTO_NUM_TCP, 443, CLIENT2, 8443),
		estate_forward(0, IPPROTO_NUM_UDP, 4430, CLIENT2, 8443),
		estate_forward(0, IPPROTO_NUM_TCP, 80, DMZ_SERVER, 8080),
		estate_forward(0, IPPROTO_NUM_UDP, 53, CLIENT2, 53),
		estate_forward(1, IPPROTO_NUM_TCP, 443, CLIENT, 443),
		estate_forward(1, IPPROTO_NUM_UDP, 5000, DMZ_SERVER, 5000),
	};
	struct rules open = { .rules = { fuzz_rule(FP_ALLOW, FP_FORM_NONE, 1 << DMZ, 0),
					 fuzz_rule(FP_ALLOW, FP_FORM_NONE, 1 << WAN, 0),
					 fuzz_rule(FP_REJECT, FP_FORM_SNAT, 1 << LAN, 60000),
					 fuzz_rule(FP_ALLOW, FP_FORM_SNAT, 1 << LAN, 40000) },
			      .n_rules = 4,
			      .n_forwards = ARRAY_SIZE(forwards) };
	struct rules strict = { .rules = { fuzz_rule(FP_DENY, FP_FORM_SNAT, 1 << WAN, 1000),
					   fuzz_rule(FP_ALLOW, FP_FORM_SNAT, 0, 0),
					   fuzz_rule(FP_REJECT, FP_FORM_SNAT, 0, 0) },
				.services = { { .proto = 89, .port_hi = 65535 },
					      { .proto = IPPROTO_NUM_UDP, .port_hi = 1023 } },
				.n_rules = 3,
				.n_services = 2,
				.n_forwards = 2,
				.deny = true };
	struct rules other = { .rules = { fuzz_rule(FP_ALLOW, FP_FORM_SNAT, 0, 0) }, .n_rules = 1 };
	void *mem; /* for good */

	open.rules[3].pools = 1 << 1;
	open.rules[3].max_per_source = 3;
	strict.rules[1].n_services = 2;
	strict.rules[1].explicit_proto = 1;
	strict.rules[1].log = strict.rules[2].log = 1;
	memcpy(open.forwards, forwards, sizeof(forwards));
	memcpy(strict.forwards, forwards, sizeof(forwards));
	other.rules[0].pools = 1 << 1;
	z->policies[1] = estate_compile(&z->cfg, &open, &mem);
	z->policies[2] = estate_compile(&z->cfg, &strict, &mem);
	z->policies[3] = estate_compile(&z->cfg, &other, &mem);
}

static inline void fuzz_core_make(struct fuzz_core *z)
{
	z->cfg = estate_config(1);
	z->cfg.flow_cap = FUZZ_FLOW_CAP;
	z->cfg.pools[0].filtering = FP_FILTER_ADF;
	z->cfg.limits =
		(struct fp_limits){ .sessions_per_source = 40, .ports_per_source = 20, .port_reuse_s = 1 };
	z->mem_size = (core_mem_size(&z->cfg) + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	z->mem = aligned_alloc(CACHE_LINE, z->mem_size);
	z->pristine_mem = aligned_alloc(CACHE_LINE, z->mem_size);
	REQUIRE(z->mem != NULL && z->pristine_mem != NULL);
	memset(z->mem, 0, z->mem_size);
	quota_init(&z->quota, FUZZ_FLOW_CAP, aligned_alloc(CACHE_LINE, quota_mem_size(FUZZ_FLOW_CAP)));
	REQUIRE(z->quota.count != NULL);
	z->fibs[0] = estate_fib(1, false);
	z->fibs[1] = estate_fib(2, true);
	fuzz_policies(z);
	REQUIRE(core_init(&z->pristine, &z->cfg, 0, z->mem, z->mem_size) == 0);
	core_set_quota(&z->pristine, &z->quota);
	core_set_fib(&z->pristine, z->fibs[1]);
	core_set_policy(&z->pristine, z->policies[1]);
	memcpy(z->pristine_mem, z->mem, z->mem_size);
}

/* As if nothing had happened. */
static inline void fuzz_core_reset(struct fuzz_core *z)
{
	if (!z->mem)
		fuzz_core_make(z);
	memcpy(z->mem, z->pristine_mem, z->mem_size);
	memset((void *)z->quota.count, 0, quota_mem_size(FUZZ_FLOW_CAP));
	z->core = z->pristine;
}

/* What session.c promises of every record. */
static inline void fuzz_core_judge(const struct fuzz_core *z)
{
	const struct core *c = &z->core;
	uint32_t flows = 0, leaders = 0;

	for (uint32_t idx = 1; idx <= c->table.n_fresh; idx++) {
		const struct flow_hot *f = &c->table.rec[idx].hot;
		uint32_t leader = FLOW_NONE;

		if (f->kind != REC_FLOW)
			continue;
		flows++;
		REQUIRE(record_find(c, f, SIDE_OUT, KEY_FLOW) == idx);
		REQUIRE(record_find(c, f, SIDE_IN, KEY_FLOW) == idx);
		REQUIRE(session_shard(&z->cfg, f) == c->table.rec[idx].cold.shard);
		REQUIRE(c->table.link[idx].wheel_prev != 0);
		REQUIRE((c->table.link[idx].map_next != FLOW_NONE) == session_has_mapping(f));
		if (session_has_mapping(f)) {
			leader = record_find(c, f, SIDE_OUT, KEY_MAPPING);
			REQUIRE(leader &&
				leader == mapping_by_external(c, f->pool, f->proto, f->external_port));
			REQUIRE(c->table.link[c->table.link[idx].map_next].map_prev == idx);
		}
		REQUIRE(flow_is_leader(&c->table, idx) == (leader == idx));
		leaders += leader == idx;
	}
	REQUIRE(flows == counter_read(&c->stat.flows));
	REQUIRE(leaders == counter_read(&c->stat.mappings));
}

#endif /* FUZZ_CORE_H */
