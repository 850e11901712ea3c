/* SPDX-License-Identifier: Apache-2.0 */
/**
 * policy.h - rules and port forwards: an immutable snapshot
 *
 * Built by the control thread into memory of its own and handed to all workers, as next hops are (fib.h).
 *
 * Theory of operation
 *   The first rule that matches decides. Each field of a packet (source, destination, protocol with
 *   destination port, source port, port in, port out) is looked up by itself: the ends of all prefixes or
 *   ranges that stand in rules cut the field's space into intervals, and each interval has a vector with a
 *   bit for every rule that takes it (Lakshman and Stiliadis, SIGCOMM 1998). The rules that match are the
 *   vectors' AND; its first bit is the answer. A list within a rule costs nothing at lookup, the order of
 *   rules is never compared, and the searches of the fields do not wait for each other.
 *
 *   Hits are counted in the snapshot, a row for each worker, so that a swap loses none: control adds those
 *   of the old snapshot to the new one after no worker uses the old any more.
 */
#ifndef POLICY_H
#define POLICY_H

#include "ranks.h"

enum {
	POLICY_RULES_MAX = 4096,
	POLICY_FORWARDS_MAX = 1024,
	POLICY_PREFIXES_MAX = 16384,
	POLICY_SERVICES_MAX = 16384,
	POLICY_NO_FORWARD = 0xffff
};

/**
 * struct policy_query - A packet that belongs to no session, as rules see it
 * @src, @dst:   inside address untranslated, destination behind a forward
 * @sport, @dport: host order; 0 for protocols without ports, and for ICMP
 * @proto:       IANA
 * @in_port, @out_port: ports that it comes from and leaves by
 */
struct policy_query {
	struct fp_addr src, dst;
	uint16_t sport, dport;
	uint8_t proto, in_port, out_port;
};

/**
 * struct policy_sync - When the peer is told of a session
 * @filter:  enum fp_sync_filter
 * @commit:  enum fp_commit, or FP_COMMIT_DEFAULT
 * @after_s: FP_SYNC_AFTER
 */
struct policy_sync {
	uint8_t filter, commit;
	uint16_t after_s;
};

/**
 * struct policy_decision - What is to be done with it
 * @rule:           number of the rule, 0: none matched, the rest is zero
 * @action:         enum fp_action
 * @form:           FP_FORM_SNAT or FP_FORM_NONE
 * @pools:          a bit for each pool; 0: the pools of the port it leaves by
 * @log:            the session, or the refusal, is to be logged
 * @max_per_source: sessions of one inside address; 0: no limit of the rule's own
 * @sync:           when the peer is told
 * @explicit_proto: the rule names the protocol
 */
struct policy_decision {
	uint16_t rule;
	uint8_t action, form, pools, log;
	uint32_t max_per_source;
	struct policy_sync sync;
	bool explicit_proto;
};

/**
 * struct policy - A snapshot
 * @n_workers:        rows of @hits
 * @n_rules:          rules
 * @n_words:          64-bit words of a vector
 * @n_forwards:       forwards
 * @has_after:        there are rules with FP_SYNC_AFTER
 * @default_outbound: what no rule matches, from inside to outside: FP_ALLOW or FP_DENY
 * @bucket_mask:      size of @by_external and of @by_inside - 1
 * @canonical:        for each pool, the first one with the same address
 * @hits_stride:      counters in a row of @hits
 * @src4, @dst4:      IPv4 addresses
 * @service:          protocol << 16 | destination port
 * @sport:            source port
 * @src6, @dst6:      all other addresses
 *                    For these six, ranks.user is where the vectors begin, in bytes from .base, one for
 *                    each interval.
 * @in, @out:         a vector for each port
 * @decisions:        what each rule decides
 * @forwards:         as given, their pools canonical
 * @by_external, @by_inside: open addressing: index into @forwards, POLICY_NO_FORWARD = empty
 * @hits:             a row of n_rules + 1 for each worker; [0]: no rule matched
 * @hits_before:      n_rules + 1, carried over from the snapshot before
 */
struct policy {
	uint32_t n_workers;
	uint32_t n_rules;
	uint32_t n_words;
	uint32_t n_forwards;
	bool has_after;
	uint32_t default_outbound;
	uint32_t bucket_mask;
	uint8_t canonical[FP_POOLS_MAX];
	uint32_t hits_stride;
	const uint64_t *in, *out;
	struct policy_decision *decisions;
	struct fp_forward *forwards;
	uint16_t *by_external, *by_inside;
	counter *hits;
	uint64_t *hits_before;
	struct ranks src4, dst4, service, sport, src6, dst6;
};

/**
 * policy_mem_size() - Bytes that policy_build() wants for a configuration that validate_policy() accepted
 */
size_t policy_mem_size(const struct fp_policy_cfg *cfg, uint32_t n_workers);

/**
 * policy_build() - Build a snapshot
 * @mem:  policy_mem_size() bytes, aligned to a cache line
 * @cfg:  host bits of its prefixes are ignored
 * @node: its pools and workers
 *
 * Return: the snapshot, which lives in @mem (free @mem to free it).
 */
struct policy *policy_build(void *mem, const struct fp_policy_cfg *cfg, const struct fp_config *node);

/**
 * policy_carry_hits() - Go on counting where an older snapshot, which no worker uses any more, stopped
 * @cfg:  that @policy was built from: fp_rule.was says which rule was which
 */
void policy_carry_hits(struct policy *policy, const struct fp_policy_cfg *cfg, const struct policy *old);

/**
 * policy_decide() - First matching rule
 */
void policy_decide(const struct policy *policy, const struct policy_query *query,
		   struct policy_decision *decision);

/* policy_find_in(), policy_find_out() - the forwards below, once it is known that there are any */
const struct fp_forward *policy_find_in(const struct policy *policy, uint8_t pool, uint16_t external_port,
					uint8_t proto);
const struct fp_forward *policy_find_out(const struct policy *policy, const struct fp_addr *inside,
					 uint16_t inside_port, uint8_t proto);

/**
 * policy_forward_in() - The forward of an external port
 * @policy: NULL: there are none
 * @pool:   any with the address
 * Return: the forward, or NULL.
 */
static inline const struct fp_forward *policy_forward_in(const struct policy *policy, uint8_t pool,
							 uint16_t external_port, uint8_t proto)
{
	return policy && policy->n_forwards ? policy_find_in(policy, pool, external_port, proto) : NULL;
}

/**
 * policy_forward_out() - The forward of an inside server's port; the first one, when there are several
 * Return: the forward, or NULL.
 */
static inline const struct fp_forward *policy_forward_out(const struct policy *policy,
							  const struct fp_addr *inside, uint16_t inside_port,
							  uint8_t proto)
{
	return policy && policy->n_forwards ? policy_find_out(policy, inside, inside_port, proto) : NULL;
}

/**
 * policy_reserves() - Whether a forward holds an external port, so that no session may be given it
 */
static inline bool policy_reserves(const struct policy *policy, uint8_t pool, uint16_t external_port,
				   uint8_t proto)
{
	return policy_forward_in(policy, pool, external_port, proto) != NULL;
}

/**
 * policy_count() - Count a decision
 * @rule: policy_decision.rule
 * Context: worker @worker, which alone writes its row.
 */
static inline void policy_count(const struct policy *policy, uint32_t worker, uint16_t rule)
{
	counter_add(&policy->hits[(size_t)worker * policy->hits_stride + rule], 1);
}

/**
 * policy_hits() - Decisions of a rule by all workers; any thread
 */
uint64_t policy_hits(const struct policy *policy, uint32_t rule);

#endif /* POLICY_H */
