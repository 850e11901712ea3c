/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_commit_order.c - packets, news, acknowledgements, ends and deadlines in any order, against a model
 *
 * Each session's packets leave in the order in which they came and in the time that its mode allows; what is counted
 * adds up at every step.
 *
 * Spec: B1, R18
 */
#include "datagram.h"
#include "held.h"

enum { SESSIONS = 40, KINDS = 3 };

/* What is known of a session; its mode follows from its number. */
struct model_session {
	uint16_t next_in, next_out;
	uint64_t arrived_ns[1 << 12];
	uint64_t told;
};

static enum fp_commit mode_of(uint16_t session)
{
	static const enum fp_commit modes[KINDS] = { FP_COMMIT_ASYNC, FP_COMMIT_BOUNDED, FP_COMMIT_STRICT };

	return modes[session % KINDS];
}

/* Sessions of a kind have the destination ports of a service. */
static void *rules_by_number(struct rig *r)
{
	struct rules rules = { .n_rules = KINDS, .n_services = 0 };
	static struct fp_service services[SESSIONS + KINDS];
	struct fp_policy_cfg cfg = { .rules = rules.rules,
				     .services = services,
				     .default_outbound = FP_DENY };
	uint32_t n = 0;
	void *mem;

	for (uint32_t kind = 0; kind < KINDS; kind++) {
		rules.rules[kind] = estate_rule(FP_ALLOW, FP_FORM_SNAT);
		rules.rules[kind].id = kind + 1;
		rules.rules[kind].commit = (uint8_t)mode_of((uint16_t)kind);
		rules.rules[kind].first_service = n;
		for (uint32_t session = kind; session < SESSIONS + KINDS; session += KINDS)
			services[n++] = (struct fp_service){ IPPROTO_NUM_UDP, 0, (uint16_t)session,
							     (uint16_t)session };
		rules.rules[kind].n_services = n - rules.rules[kind].first_service;
	}
	cfg.n_rules = KINDS;
	cfg.n_services = n;
	mem = aligned_alloc(CACHE_LINE, (policy_mem_size(&cfg, 1) + 63) & ~(size_t)63);
	REQUIRE(mem);
	core_set_policy(&r->core, policy_build(mem, &cfg, &r->cfg));
	return mem;
}

struct model {
	struct model_session sessions[SESSIONS + KINDS];
	uint64_t acked;
	uint32_t in, out;
};

/* What left since the last look: in order, in time, and nothing of a strict session that was not acknowledged. */
static void look(struct rig *r, struct model *m)
{
	for (uint32_t i = 0; i < n_sent; i++) {
		struct model_session *s = &m->sessions[sent[i].session];
		const enum fp_commit mode = mode_of(sent[i].session);

		CHECK(230, sent[i].number >= s->next_out); /* drops leave gaps, never another order */
		s->next_out = (uint16_t)(sent[i].number + 1);
		CHECK(231, mode != FP_COMMIT_BOUNDED ||
				   sent[i].at_ns - s->arrived_ns[sent[i].number] <= HOLD_MS * NS_PER_MS);
		CHECK(232, mode != FP_COMMIT_ASYNC || sent[i].at_ns == s->arrived_ns[sent[i].number]);
		CHECK(233, mode != FP_COMMIT_STRICT || (s->told && s->told <= m->acked));
		m->out++;
	}
	n_sent = 0;
	for (uint32_t v = 0, total = 0; v < V_COUNT; v++) {
		total += verdict_is_drop(v) ? (uint32_t)rig_count(r, v) : 0;
		if (v == V_COUNT - 1)
			CHECK_EQ(234, m->in, m->out + total + counter_read(&r->core.commit.hold.n));
	}
}

/* The peer is told; whose OPEN has got which number is noted. Return: the last number. */
static uint64_t tell_model(struct rig *r, struct model *m, uint32_t cap)
{
	static struct fp_flow_rec recs[64];
	const uint32_t n = core_drain(&r->core, recs, min_u32(cap, ARRAY_SIZE(recs)), 1000, r->now_ns);

	for (uint32_t i = 0; i < n; i++)
		if (recs[i].op == FP_OP_OPEN)
			m->sessions[be16_host((be16){ recs[i].remote_port })].told = recs[i].ev_seq;
	return n ? recs[n - 1].ev_seq : 0;
}

static void check_any_order(uint32_t run)
{
	static struct model m;
	const struct fp_config cfg = held_config(FP_COMMIT_BOUNDED);
	struct rig *r = held_make(&cfg);
	void *mem = rules_by_number(r);
	uint64_t last = 0;

	m = (struct model){ 0 };
	for (uint32_t i = 0; i < 3000; i++) {
		const uint16_t session = (uint16_t)(1 + rnd(SESSIONS));
		struct model_session *s = &m.sessions[session];
		const uint32_t what = rnd(100);

		if (what < 60 && s->next_in < ARRAY_SIZE(s->arrived_ns)) {
			s->arrived_ns[s->next_in] = r->now_ns;
			packet(r, session, s->next_in++);
			m.in++;
		} else if (what < 75) {
			last = max_u64(last, tell_model(r, &m, 1 + rnd(64)));
		} else if (what < 85) {
			m.acked = m.acked + rnd((uint32_t)(last - m.acked) + 1);
			ack(r, m.acked);
		} else if (what == 85) { /* it ends before its time */
			const struct flow_hot key = { .inside = addr_from_v4(spec_udp.src),
						      .remote = addr_from_v4(spec_udp.dst),
						      .inside_port = be16_of((uint16_t)(10000 + session)),
						      .remote_port = be16_of(session),
						      .proto = IPPROTO_NUM_UDP };
			const uint32_t idx = record_find(&r->core, &key, SIDE_OUT, KEY_FLOW);

			if (idx)
				record_remove(&r->core, idx, true);
			s->told = 0;
		} else {
			/* The worker wakes in time for every deadline. */
			const uint64_t then = r->now_ns + rnd(run % 2 ? 40000 : 4000) * UINT64_C(1000);

			while (commit_deadline(&r->core) <= then) {
				r->now_ns = max_u64(r->now_ns, commit_deadline(&r->core));
				release(r);
			}
			r->now_ns = then;
		}
		release(r);
		look(r, &m);
	}
	/* In the end the peer has everything, and nothing is left. */
	do {
		m.acked = max_u64(m.acked, last);
		last = tell_model(r, &m, 64);
	} while (last);
	ack(r, m.acked);
	look(r, &m);
	CHECK_EQ(240, counter_read(&r->core.commit.hold.n), 0);
	CHECK_EQ(241, counter_read(&r->core.commit.pending), 0);
	CHECK_EQ(242, counter_read(&r->core.commit.holding), 0);
	CHECK_EQ(243, rig_count(r, V_HELD),
		 histogram_sum(&r->core.commit.held_for) + rig_count(r, V_HOLD_DROPPED));
	CHECK_EQ(244, rig_count(r, V_HELD),
		 counter_read(&r->core.commit.released) + counter_read(&r->core.commit.expired) +
			 counter_read(&r->core.commit.dropped));
	rig_free(r);
	free(mem);
}

int main(void)
{
	for (uint32_t run = 0; run < 30; run++)
		check_any_order(run);
	return check_done("commit order");
}
