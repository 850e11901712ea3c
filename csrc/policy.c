/* SPDX-License-Identifier: Apache-2.0 */
/**
 * policy.c - building and searching snapshots of rules and forwards
 */
#include "policy.h"
#include "hash.h"

enum field_kind { SRC4, SRC6, DST4, DST6, SERVICE, SPORT, N_FIELDS };

/* What a rule takes of a field: from @lo to @hi, inclusive. */
struct span {
	struct rank_wide lo, hi;
};

/* ---- memory: a block, cut from its beginning ---- */

static size_t align_up(size_t n)
{
	return (n + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
}

static void *cut(uint8_t **at, size_t bytes)
{
	void *here = *at;

	*at += align_up(bytes);
	return here;
}

/* ---- what rules take of each field ---- */

static bool is_wide(enum field_kind kind)
{
	return kind == SRC6 || kind == DST6;
}

static struct rank_wide wide_of(const struct fp_addr *addr)
{
	return (struct rank_wide){ __builtin_bswap64(u64_load(addr->b)),
				   __builtin_bswap64(u64_load(addr->b + 8)) };
}

/* IPv4-mapped addresses are the values of a field of their own, and no values of the wide one. */
static bool prefix_span(const struct fp_prefix *prefix, bool wide, struct span *out)
{
	const struct rank_wide v4_lo = { 0, UINT64_C(0xffff00000000) },
			       v4_hi = { 0, UINT64_C(0xffffffffffff) };
	const uint32_t host = 128 - prefix->plen;
	const uint64_t hi_mask = host >= 128 ? 0
				 : host > 64 ? ~UINT64_C(0) << (host - 64)
					     : ~UINT64_C(0),
		       lo_mask = host >= 64 ? 0 : ~UINT64_C(0) << host;
	const struct rank_wide addr = wide_of(&prefix->addr);

	out->lo = (struct rank_wide){ addr.hi & hi_mask, addr.lo & lo_mask };
	out->hi = (struct rank_wide){ addr.hi | ~hi_mask, addr.lo | ~lo_mask };
	if (wide)
		return !(rank_wide_le(v4_lo, out->lo) && rank_wide_le(out->hi, v4_hi));
	if (rank_wide_le(out->lo, v4_lo) && rank_wide_le(v4_hi, out->hi)) {
		*out = (struct span){ { 0, 0 }, { 0, UINT32_MAX } };
		return true;
	}
	out->lo = (struct rank_wide){ 0, out->lo.lo & UINT32_MAX };
	out->hi = (struct rank_wide){ 0, out->hi.lo & UINT32_MAX };
	return addr_is_v4(&prefix->addr) && prefix->plen > 96;
}

static uint32_t n_spans(const struct fp_rule *rule, enum field_kind kind)
{
	switch (kind) {
	case SRC4:
	case SRC6: return rule->n_src;
	case DST4:
	case DST6: return rule->n_dst;
	case SERVICE: return rule->n_services;
	default: return rule->sport_lo > 0 || rule->sport_hi < UINT16_MAX;
	}
}

/* The i-th span of a rule; false if it takes nothing of this field. */
static bool span_of(const struct fp_policy_cfg *cfg, const struct fp_rule *rule, enum field_kind kind,
		    uint32_t i, struct span *out)
{
	const struct fp_service *service;

	switch (kind) {
	case SRC4:
	case SRC6: return prefix_span(&cfg->prefixes[rule->first_src + i], kind == SRC6, out);
	case DST4:
	case DST6: return prefix_span(&cfg->prefixes[rule->first_dst + i], kind == DST6, out);
	case SERVICE:
		service = &cfg->services[rule->first_service + i];
		out->lo = (struct rank_wide){ 0, (uint32_t)service->proto << 16 | service->port_lo };
		out->hi = (struct rank_wide){ 0, (uint32_t)service->proto << 16 | service->port_hi };
		if (service->proto == 0)
			*out = (struct span){ { 0, 0 }, { 0, UINT32_MAX } };
		return true;
	default: *out = (struct span){ { 0, rule->sport_lo }, { 0, rule->sport_hi } }; return true;
	}
}

/* Intervals that a field can have: each span begins one, and another begins behind it. */
static uint32_t max_keys(const struct fp_policy_cfg *cfg, enum field_kind kind)
{
	uint32_t n = 0;
	struct span span;

	for (uint32_t r = 0; r < cfg->n_rules; r++) {
		for (uint32_t i = 0; i < n_spans(&cfg->rules[r], kind); i++)
			n += span_of(cfg, &cfg->rules[r], kind, i, &span);
	}
	return 2 * n + 1;
}

/* ---- sizes ---- */

static uint32_t n_words(const struct fp_policy_cfg *cfg)
{
	return (cfg->n_rules + 63) / 64;
}

static uint32_t ways_of(bool wide)
{
	return wide ? RANK_WAYS_WIDE : RANK_WAYS;
}

static size_t key_size(bool wide)
{
	return wide ? sizeof(struct rank_wide) : sizeof(uint32_t);
}

static uint32_t whole_nodes(uint32_t n, bool wide)
{
	return (n + ways_of(wide) - 1) / ways_of(wide) * ways_of(wide);
}

static size_t ranks_size(uint32_t n, bool wide)
{
	size_t size = 0;

	for (; n > ways_of(wide); n = (n + ways_of(wide) - 1) / ways_of(wide))
		size += align_up(whole_nodes(n, wide) * key_size(wide));
	return size;
}

/* At most half full. */
static uint32_t n_buckets(uint32_t n_forwards)
{
	uint32_t n = 2;

	while (n < n_forwards * 2)
		n *= 2;
	return n;
}

static uint32_t hits_stride(uint32_t n_rules)
{
	return (uint32_t)(align_up((n_rules + 1) * sizeof(counter)) / sizeof(counter));
}

/* While building: the keys of one field. */
static size_t scratch_size(const struct fp_policy_cfg *cfg)
{
	uint32_t most = 0;

	for (uint32_t kind = 0; kind < N_FIELDS; kind++)
		most = max_u32(most, max_keys(cfg, kind));
	return align_up(most * sizeof(struct rank_wide));
}

size_t policy_mem_size(const struct fp_policy_cfg *cfg, uint32_t n_workers)
{
	const size_t vector = n_words(cfg) * sizeof(uint64_t);
	size_t size = align_up(sizeof(struct policy)) + 2 * align_up(FP_PORTS_MAX * vector) +
		      align_up(cfg->n_rules * sizeof(struct policy_decision)) +
		      align_up(cfg->n_forwards * sizeof(struct fp_forward)) +
		      2 * align_up(n_buckets(cfg->n_forwards) * sizeof(uint16_t)) +
		      n_workers * (size_t)hits_stride(cfg->n_rules) * sizeof(counter) +
		      align_up((cfg->n_rules + 1) * sizeof(uint64_t));

	for (uint32_t kind = 0; kind < N_FIELDS; kind++) {
		uint32_t n = max_keys(cfg, kind);

		size += ranks_size(n, is_wide(kind)) + align_up(n * vector);
	}
	return size + scratch_size(cfg);
}

/* ---- building: a field ---- */

static int key_order(const void *left, const void *right)
{
	const struct rank_wide *a = left, *b = right;

	if (a->hi != b->hi)
		return a->hi < b->hi ? -1 : 1;
	return a->lo < b->lo ? -1 : a->lo > b->lo;
}

/* Where intervals begin, ascending, each once; the first is 0. */
static uint32_t collect_keys(const struct fp_policy_cfg *cfg, enum field_kind kind, struct rank_wide *keys)
{
	uint32_t n = 1, unique = 1;
	struct span span;

	keys[0] = (struct rank_wide){ 0, 0 };
	for (uint32_t r = 0; r < cfg->n_rules; r++) {
		for (uint32_t i = 0; i < n_spans(&cfg->rules[r], kind); i++) {
			if (!span_of(cfg, &cfg->rules[r], kind, i, &span))
				continue;
			keys[n++] = span.lo;
			span.hi.lo++;
			span.hi.hi += span.hi.lo == 0;
			keys[n] = span.hi;
			/* Behind the largest value there is no interval. */
			n += is_wide(kind) ? (span.hi.hi | span.hi.lo) != 0 : span.hi.lo <= UINT32_MAX;
		}
	}
	qsort(keys, n, sizeof(*keys), key_order);
	for (uint32_t i = 1; i < n; i++) {
		if (key_order(&keys[i], &keys[unique - 1]))
			keys[unique++] = keys[i];
	}
	return unique;
}

/* Every @step-th key, in nodes filled up with the largest one. */
static void write_level(void *level, const struct rank_wide *keys, uint32_t n, uint32_t step, bool wide)
{
	const uint32_t size = (n + step - 1) / step;
	uint32_t *narrow = level;

	memset(level, 0xff, whole_nodes(size, wide) * key_size(wide));
	for (uint32_t i = 0; i < size; i++) {
		if (wide)
			((struct rank_wide *)level)[i] = keys[(size_t)i * step];
		else
			narrow[i] = (uint32_t)keys[(size_t)i * step].lo;
	}
}

static void build_ranks(struct ranks *ranks, const struct rank_wide *keys, uint32_t n, bool wide,
			uint8_t **at)
{
	uint32_t step = 1, size = n;

	ranks->base = *at;
	while (size > ways_of(wide)) {
		FP_ASSERT(ranks->n_levels < RANK_LEVELS_MAX);
		ranks->size[ranks->n_levels] = size;
		ranks->level[ranks->n_levels++] = (uint32_t)(*at - ranks->base);
		write_level(cut(at, whole_nodes(size, wide) * key_size(wide)), keys, n, step, wide);
		step *= ways_of(wide);
		size = (n + step - 1) / step;
	}
	ranks->n_top = (uint16_t)size;
	write_level(&ranks->top, keys, n, step, wide);
}

static uint32_t find(const struct ranks *ranks, bool wide, struct rank_wide key)
{
	return wide ? ranks_find_wide(ranks, key) : ranks_find(ranks, (uint32_t)key.lo);
}

static void build_field(struct ranks *field, const struct fp_policy_cfg *cfg, enum field_kind kind,
			struct rank_wide *keys, uint8_t **at)
{
	const bool wide = is_wide(kind);
	const uint32_t n = collect_keys(cfg, kind, keys), words = n_words(cfg);
	const size_t size = (size_t)n * words * sizeof(uint64_t);
	uint64_t *vectors;
	struct span span;

	build_ranks(field, keys, n, wide, at);
	field->user = (uint32_t)(*at - field->base);
	vectors = memset(cut(at, size), 0, size);
	for (uint32_t r = 0; r < cfg->n_rules; r++) {
		const struct fp_rule *rule = &cfg->rules[r];
		const uint64_t bit = UINT64_C(1) << (r % 64);

		for (uint32_t k = 0; k < n && n_spans(rule, kind) == 0; k++)
			vectors[(size_t)k * words + r / 64] |= bit;
		for (uint32_t i = 0; i < n_spans(rule, kind); i++) {
			if (!span_of(cfg, rule, kind, i, &span))
				continue;
			for (uint32_t k = find(field, wide, span.lo), end = find(field, wide, span.hi);
			     k <= end; k++)
				vectors[(size_t)k * words + r / 64] |= bit;
		}
	}
}

static const uint64_t *build_ports(const struct fp_policy_cfg *cfg, bool in, uint8_t **at)
{
	const uint32_t words = n_words(cfg);
	const size_t size = FP_PORTS_MAX * sizeof(uint64_t) * words;
	uint64_t *vectors = cut(at, size);

	memset(vectors, 0, size);
	for (uint32_t r = 0; r < cfg->n_rules; r++) {
		const uint8_t mask = in ? cfg->rules[r].in_ports : cfg->rules[r].out_ports;

		for (uint32_t port = 0; port < FP_PORTS_MAX; port++) {
			if (mask == 0 || mask & 1u << port)
				vectors[(size_t)port * words + r / 64] |= UINT64_C(1) << (r % 64);
		}
	}
	return vectors;
}

static void build_decisions(struct policy *policy, const struct fp_policy_cfg *cfg, uint8_t **at)
{
	policy->decisions = cut(at, cfg->n_rules * sizeof(struct policy_decision));
	for (uint32_t r = 0; r < cfg->n_rules; r++) {
		const struct fp_rule *rule = &cfg->rules[r];

		policy->has_after |= rule->sync == FP_SYNC_AFTER;
		policy->decisions[r] = (struct policy_decision){
			.rule = (uint16_t)(r + 1),
			.action = rule->action,
			.form = rule->form,
			.pools = rule->pools,
			.log = rule->log,
			.max_per_source = rule->max_per_source,
			.sync = { rule->sync, rule->commit, rule->sync_after_s },
			.explicit_proto = rule->explicit_proto,
		};
	}
}

/* ---- forwards ---- */

/* No secret: forwards are configured, and the tables are half empty. */
static uint32_t bucket_of(const struct policy *policy, const struct fp_addr *addr, uint32_t port,
			  uint8_t proto)
{
	const struct hash_key key = { { 0, 0 } };
	uint64_t w[3] = { u64_load(addr->b), u64_load(addr->b + 8), (uint64_t)port << 8 | proto };

	return (uint32_t)hash_words3(key, w) & policy->bucket_mask;
}

static uint32_t external_bucket(const struct policy *policy, uint8_t pool, uint16_t port, uint8_t proto)
{
	static const struct fp_addr none;

	return bucket_of(policy, &none, (uint32_t)pool << 16 | port, proto);
}

static void enter(const struct policy *policy, uint16_t *buckets, uint32_t b, uint32_t index)
{
	while (buckets[b] != POLICY_NO_FORWARD)
		b = (b + 1) & policy->bucket_mask;
	buckets[b] = (uint16_t)index;
}

const struct fp_forward *policy_find_in(const struct policy *policy, uint8_t pool, uint16_t external_port,
					uint8_t proto)
{
	const uint8_t canonical = pool < FP_POOLS_MAX ? policy->canonical[pool] : pool;

	for (uint32_t b = external_bucket(policy, canonical, external_port, proto);
	     policy->by_external[b] != POLICY_NO_FORWARD; b = (b + 1) & policy->bucket_mask) {
		const struct fp_forward *f = &policy->forwards[policy->by_external[b]];

		if (f->pool == canonical && f->external_port == external_port && f->proto == proto)
			return f;
	}
	return NULL;
}

const struct fp_forward *policy_find_out(const struct policy *policy, const struct fp_addr *inside,
					 uint16_t inside_port, uint8_t proto)
{
	for (uint32_t b = bucket_of(policy, inside, inside_port, proto);
	     policy->by_inside[b] != POLICY_NO_FORWARD; b = (b + 1) & policy->bucket_mask) {
		const struct fp_forward *f = &policy->forwards[policy->by_inside[b]];

		if (f->inside_port == inside_port && f->proto == proto && addr_eq(&f->inside, inside))
			return f;
	}
	return NULL;
}

static void build_forwards(struct policy *policy, const struct fp_policy_cfg *cfg, uint8_t **at)
{
	const size_t bytes = n_buckets(cfg->n_forwards) * sizeof(uint16_t);

	policy->n_forwards = cfg->n_forwards;
	policy->bucket_mask = n_buckets(cfg->n_forwards) - 1;
	policy->forwards = cut(at, cfg->n_forwards * sizeof(struct fp_forward));
	policy->by_external = cut(at, bytes);
	policy->by_inside = cut(at, bytes);
	memset(policy->by_external, 0xff, bytes);
	memset(policy->by_inside, 0xff, bytes);
	for (uint32_t i = 0; i < cfg->n_forwards; i++) {
		struct fp_forward *f = &policy->forwards[i];

		*f = cfg->forwards[i];
		f->pool = policy->canonical[f->pool];
		enter(policy, policy->by_external,
		      external_bucket(policy, f->pool, f->external_port, f->proto), i);
		if (!policy_find_out(policy, &f->inside, f->inside_port, f->proto))
			enter(policy, policy->by_inside,
			      bucket_of(policy, &f->inside, f->inside_port, f->proto), i);
	}
}

static void find_canonical(struct policy *policy, const struct fp_config *node)
{
	for (uint32_t i = 0; i < FP_POOLS_MAX; i++) {
		policy->canonical[i] = (uint8_t)i;
		for (uint32_t j = i; j-- > 0 && i < node->n_pools;) {
			if (addr_eq(&node->pools[j].addr, &node->pools[i].addr))
				policy->canonical[i] = (uint8_t)j;
		}
	}
}

/* ---- the whole ---- */

/* The fields take what is left of the block; its end holds the keys of one of them meanwhile. */
static void build_fields(struct policy *policy, const struct fp_policy_cfg *cfg, uint8_t *mem, uint8_t *at)
{
	struct ranks *const fields[N_FIELDS] = {
		[SRC4] = &policy->src4, [SRC6] = &policy->src6,       [DST4] = &policy->dst4,
		[DST6] = &policy->dst6, [SERVICE] = &policy->service, [SPORT] = &policy->sport,
	};
	uint8_t *keys = mem + policy_mem_size(cfg, policy->n_workers) - scratch_size(cfg);

	for (uint32_t kind = 0; kind < N_FIELDS; kind++)
		build_field(fields[kind], cfg, kind, (struct rank_wide *)(void *)keys, &at);
	FP_ASSERT(at <= keys);
}

struct policy *policy_build(void *mem, const struct fp_policy_cfg *cfg, const struct fp_config *node)
{
	struct policy *policy = mem;
	uint8_t *at = mem;
	size_t hits;

	cut(&at, sizeof(*policy));
	memset(policy, 0, sizeof(*policy));
	policy->n_workers = node->n_workers;
	policy->n_rules = cfg->n_rules;
	policy->n_words = n_words(cfg);
	policy->default_outbound = cfg->default_outbound;
	policy->hits_stride = hits_stride(cfg->n_rules);
	find_canonical(policy, node);
	build_decisions(policy, cfg, &at);
	policy->in = build_ports(cfg, true, &at);
	policy->out = build_ports(cfg, false, &at);
	build_forwards(policy, cfg, &at);
	hits = node->n_workers * (size_t)policy->hits_stride * sizeof(counter);
	policy->hits = cut(&at, hits);
	memset(policy->hits, 0, hits);
	policy->hits_before = cut(&at, (cfg->n_rules + 1) * sizeof(uint64_t));
	memset(policy->hits_before, 0, (cfg->n_rules + 1) * sizeof(uint64_t));
	build_fields(policy, cfg, mem, at);
	return policy;
}

void policy_carry_hits(struct policy *policy, const struct fp_policy_cfg *cfg, const struct policy *old)
{
	policy->hits_before[0] = policy_hits(old, 0);
	for (uint32_t r = 0; r < cfg->n_rules; r++) {
		const uint32_t was = cfg->rules[r].was;

		if (was > 0 && was <= old->n_rules)
			policy->hits_before[r + 1] = policy_hits(old, was);
	}
}

uint64_t policy_hits(const struct policy *policy, uint32_t rule)
{
	uint64_t sum = policy->hits_before[rule];

	for (uint32_t w = 0; w < policy->n_workers; w++)
		sum += counter_read(&policy->hits[(size_t)w * policy->hits_stride + rule]);
	return sum;
}

/* ---- searching ---- */

/* A search under way; those of a packet go down together, so that their misses overlap. */
struct search {
	const struct ranks *ranks;
	uint32_t key;
	uint32_t at;
};

static const uint64_t *vector_at(const struct policy *policy, const struct ranks *field, uint32_t interval)
{
	const uint64_t *vectors = (const uint64_t *)(const void *)(field->base + field->user);

	return vectors + (size_t)interval * policy->n_words;
}

static void search_all(struct search *s, uint32_t n)
{
	uint32_t levels = 0;

	for (uint32_t i = 0; i < n; i++)
		levels = max_u32(levels, s[i].ranks->n_levels);
	for (uint32_t i = 0; i < n; i++)
		s[i].at = ranks_top(s[i].ranks, s[i].key);
	while (levels-- > 0) {
		for (uint32_t i = 0; i < n; i++) {
			if (levels < s[i].ranks->n_levels)
				ranks_prefetch(s[i].ranks, levels, s[i].at);
		}
		for (uint32_t i = 0; i < n; i++) {
			if (levels < s[i].ranks->n_levels)
				s[i].at = ranks_down(s[i].ranks, levels, s[i].at, s[i].key);
		}
	}
}

static void prefetch_vector(const struct policy *policy, const uint64_t *vector)
{
	for (uint32_t w = 0; w < policy->n_words; w += CACHE_LINE / sizeof(*vector))
		__builtin_prefetch(vector + w);
}

/* The vectors of the fields that are searched for. */
static void find_vectors(const struct policy *policy, const struct policy_query *q, const uint64_t **vectors)
{
	struct search s[4];
	uint32_t n = 0, n_vectors = 0;

	s[n++] = (struct search){ .ranks = &policy->service, .key = (uint32_t)q->proto << 16 | q->dport };
	s[n++] = (struct search){ .ranks = &policy->sport, .key = q->sport };
	if (likely(addr_is_v4(&q->src)))
		s[n++] = (struct search){ .ranks = &policy->src4, .key = be32_host(addr_v4(&q->src)) };
	else
		vectors[n_vectors++] = vector_at(policy, &policy->src6,
						 ranks_find_wide(&policy->src6, wide_of(&q->src)));
	if (likely(addr_is_v4(&q->dst)))
		s[n++] = (struct search){ .ranks = &policy->dst4, .key = be32_host(addr_v4(&q->dst)) };
	else
		vectors[n_vectors++] = vector_at(policy, &policy->dst6,
						 ranks_find_wide(&policy->dst6, wide_of(&q->dst)));
	search_all(s, n);
	for (uint32_t i = 0; i < n; i++) {
		vectors[n_vectors] = vector_at(policy, s[i].ranks, s[i].at);
		prefetch_vector(policy, vectors[n_vectors++]);
	}
}

void policy_decide(const struct policy *policy, const struct policy_query *q,
		   struct policy_decision *decision)
{
	const uint32_t words = policy->n_words;
	const uint64_t *in, *out, *v[4];

	*decision = (struct policy_decision){ 0 };
	if (words == 0)
		return;
	FP_ASSERT(q->in_port < FP_PORTS_MAX && q->out_port < FP_PORTS_MAX);
	in = policy->in + (size_t)q->in_port * words;
	out = policy->out + (size_t)q->out_port * words;
	prefetch_vector(policy, in);
	prefetch_vector(policy, out);
	find_vectors(policy, q, v);
	for (uint32_t w = 0; w < words; w++) {
		const uint64_t match = in[w] & out[w] & v[0][w] & v[1][w] & v[2][w] & v[3][w];

		if (match) {
			*decision = policy->decisions[w * 64 + (uint32_t)__builtin_ctzll(match)];
			return;
		}
	}
}
