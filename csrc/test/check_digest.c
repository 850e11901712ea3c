/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_digest.c - both nodes have the same digests at the same point of the stream, whatever happens; and what
 * differs is found and repaired
 *
 * Spec: B5
 */
#include "../digest.h"
#include "../session.h"
#include "pair.h"

enum { CLIENTS = 160, RECS = 4096 };

static uint64_t seed;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 11) % n;
}

/* ---- the hash ---- */

/*
 * A record of each family; the numbers are those of another implementation, which with a key of zeros says what
 * Python says of bytes (PYTHONHASHSEED=0).
 */
static void check_hash(void)
{
	struct rig *r = rig_active();
	struct session_was was = { .state = FP_ST_ESTABLISHED, .flags = 0xff };
	struct flow_hot *f = &r->core.table.rec[1].hot;

	r->core.digest_key[0] = UINT64_C(0x0706050403020100);
	r->core.digest_key[1] = UINT64_C(0x0f0e0d0c0b0a0908);
	r->core.table.link[1].id = UINT64_C(0x1122334455667788);
	r->core.table.rec[1].cold.origin = 2;
	*f = (struct flow_hot){
		.inside = addr_from_v4(CLIENT),
		.remote = addr_from_v4(SERVER),
		.inside_port = be16_of(40001),
		.remote_port = be16_of(443),
		.external_port = be16_of(2048),
		.proto = IPPROTO_NUM_TCP,
		.pool = 0,
		.zones = LAN << 4 | WAN,
		.version = 7,
		.rule = 9,
		.form = FP_FORM_SNAT,
	};
	CHECK_EQ(1, digest_hash(&r->core, 1, was), UINT64_C(0x5e45fae39feeab49));
	f->remote = (struct fp_addr){ .b = { 0x20, 1, 0xd, 0xb8, [15] = 1 } };
	f->inside = (struct fp_addr){ .b = { 0x20, 1, 0xd, 0xb8, [15] = 2 } };
	f->pool = POOL_NONE;
	CHECK_EQ(2, digest_hash(&r->core, 1, was), UINT64_C(0x631f57d712dbe390));
	rig_free(r);
}

/* ---- any traffic ---- */

/* A client's conversation: what it said last does not matter, anything may come next. */
struct client {
	uint8_t proto;
	uint16_t sport, external;
};

static struct client clients[CLIENTS];

static void packet(struct pair *p, struct client *cl)
{
	static const uint8_t kinds[] = { TCP_SYN,      TCP_ACK_FLAG, TCP_ACK_FLAG, TCP_ACK_FLAG | TCP_FIN,
					 TCP_ACK_FLAG, TCP_RST };
	struct spec s = cl->proto == IPPROTO_NUM_TCP ? spec_syn : spec_udp;
	const bool out = rnd(2) || !cl->external;
	const uint32_t kind = rnd(ARRAY_SIZE(kinds));
	struct fp_frame f;

	s.sport = cl->sport;
	if (!out)
		s = rig_reply(&s, cl->external);
	if (cl->proto == IPPROTO_NUM_TCP) {
		s.tcp_flags = kinds[kind];
		s.seq = s.tcp_flags & TCP_SYN ? 100 : 101;
		s.ack = out ? 501 : 101;
		if (!out)
			s.seq = s.tcp_flags & TCP_SYN ? 500 : 501;
		if (!out && s.tcp_flags & TCP_SYN)
			s.tcp_flags |= TCP_ACK_FLAG;
	}
	f = rig_in(p->active, out ? LAN : WAN, &s);
	if (out && f.verdict == V_SNAT)
		cl->external = out_sport(&f);
}

/* What the rules say of sessions by their source port changes; the order of rules, too. */
static void change_rules(struct pair *p, void **mem)
{
	struct rules rules = {
		.rules = { estate_rule(FP_ALLOW, FP_FORM_SNAT), estate_rule(FP_ALLOW, FP_FORM_SNAT),
			   estate_rule(FP_ALLOW, FP_FORM_SNAT), estate_rule(FP_ALLOW, FP_FORM_SNAT) },
		.n_rules = 4
	};
	uint32_t slot = 0;
	bool done = false;
	void *old = *mem;

	for (uint32_t i = 0; i < 3; i++) {
		rules.rules[i].sport_lo = (uint16_t)(40000 + rnd(CLIENTS));
		rules.rules[i].sync = (uint8_t)rnd(FP_SYNC_AFTER + 1);
		rules.rules[i].sync_after_s = (uint16_t)(1 + rnd(5));
		rules.rules[i].action = rnd(8) ? FP_ALLOW : FP_DENY;
	}
	*mem = estate_policy(p->active, &rules);
	core_set_policy(&p->passive->core, p->active->core.policy);
	while (!done)
		core_review(&p->active->core, &slot, 64, &done, p->active->now_ns);
	free(old);
}

/* Both were ACTIVE for a while, and each has opened sessions of its own. */
static void split(struct pair *p)
{
	core_set_role(&p->passive->core, FP_ROLE_ACTIVE, 9, p->passive->now_ns);
	for (uint32_t i = 0; i < 2; i++) {
		struct rig *swap = p->active;

		for (uint32_t k = 0; k < 40; k++)
			packet(p, &clients[rnd(CLIENTS)]);
		p->active = p->passive;
		p->passive = swap;
	}
}

static void event(struct pair *p, void **mem)
{
	switch (rnd(40)) {
	case 0: pair_sleep_ms(p, 1000 * rnd(400)); break;
	case 1: pair_sleep_ms(p, 1000 * rnd(4)); break;
	case 2: change_rules(p, mem); break;
	case 3: pair_ask(p); break;
	case 4: core_ack(&p->active->core, p->acked); break;
	case 5:
		if (p->active->core.changes.lost)
			pair_sweep(p, p->active->core.changes.lost, false);
		break;
	case 6: pair_sweep(p, (uint64_t)rnd(1 << 16) << rnd(48), rnd(2)); break;
	case 7:
		if (rnd(4) == 0)
			CHECK_EQ(10, pair_audit(p), 0);
		break;
	case 8:
		if (rnd(12))
			break;
		if (rnd(2))
			split(p);
		pair_takeover(p, 10);
		pair_sweep(p, UINT64_MAX, false);
		break;
	case 9 ... 13: pair_sleep_ms(p, rnd(60)); break;
	case 14 ... 18: pair_drain(p, rnd(40), rnd(50)); break;
	/* One digest at a time is in the ring: what it says is read with the marker. */
	case 19 ... 21: pair_deliver(p, p->n); break;
	default: packet(p, &clients[rnd(CLIENTS)]); break;
	}
}

/* What the first knows to be known, and all that the second has, in the same words. */
static bool same_records(struct pair *p)
{
	static struct fp_flow_rec recs[RECS], there[RECS];
	uint32_t n, m, known = 0;

	commit_set(&p->active->core, true); /* as control says once the digests agree */
	n = rig_walk(p->active, recs, RECS);
	commit_set(&p->active->core, false);
	m = rig_walk(p->passive, there, RECS);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t k = 0;

		if (recs[i].fate != FP_FATE_LIVES)
			continue;
		known++;
		while (k < m && (there[k].id != recs[i].id || there[k].origin != recs[i].origin))
			k++;
		if (k == m || !addr_eq(&there[k].inside, &recs[i].inside) ||
		    there[k].state != recs[i].state || there[k].version != recs[i].version ||
		    there[k].rule != recs[i].rule || (there[k].flags ^ recs[i].flags) & FLOW_FLAGS_TOLD ||
		    there[k].external_port != recs[i].external_port)
			return false;
	}
	return known == m;
}

static void check_random(uint64_t run, bool scarce)
{
	struct fp_config cfg = estate_config(1);
	struct pair *p;
	void *mem = NULL;
	uint64_t unknown;

	seed = run * UINT64_C(0x9e3779b97f4a7c15) + 1;
	cfg.flow_cap = scarce ? 120 : 1000;
	p = pair_new(&cfg);
	if (scarce) { /* no room for what a peer that lags has not heard */
		p->active->core.changes.dirty_cap = p->passive->core.changes.dirty_cap = 24;
		p->active->core.changes.lazy_cap = p->passive->core.changes.lazy_cap = 6;
	}
	for (uint32_t i = 0; i < CLIENTS; i++)
		clients[i] = (struct client){ .proto = i % 4 ? IPPROTO_NUM_TCP : IPPROTO_NUM_UDP,
					      .sport = (uint16_t)(40000 + i) };
	pair_sweep(p, UINT64_MAX, false);
	for (uint32_t i = 0; i < 4000; i++)
		event(p, &mem);
	CHECK_EQ(20, pair_audit(p), 0);
	CHECK(21, same_records(p));
	CHECK_EQ(22, p->differed, 0);
	/* Neither has forgotten to count anything. */
	unknown = counter_read(&p->active->core.stat.scrub_errors) +
		  counter_read(&p->passive->core.stat.scrub_errors);
	CHECK_EQ(23, unknown, 0);
	if (check_failed)
		fprintf(stderr, "run %u of the %s\n", (unsigned)run, scarce ? "scarce" : "plenty");
	pair_free(p);
	free(mem);
}

/* ---- repairs ---- */

static struct pair *pair_with_sessions(uint32_t n)
{
	struct fp_config cfg = estate_config(1);
	struct pair *p = pair_new(&cfg);

	pair_sweep(p, UINT64_MAX, false);
	for (uint32_t i = 0; i < n; i++)
		rig_connect(p->active, (uint16_t)(40001 + 2 * i));
	CHECK_EQ(30, pair_audit(p), 0);
	return p;
}

static uint64_t differing(struct pair *p)
{
	struct fp_digest here[FP_SHARDS];
	uint64_t shards = 0;

	core_digests(&p->passive->core, here);
	for (uint32_t i = 0; i < FP_SHARDS; i++)
		if (here[i].sum != p->active->core.digest_told[i].sum)
			shards |= shard_bit(i);
	return shards;
}

/* Sweep what differs. Return: what was logged. */
static uint32_t repair(struct pair *p, struct fp_repair *log)
{
	CHECK(40, pair_audit(p) > 0);
	pair_sweep(p, differing(p), true);
	CHECK_EQ(41, pair_audit(p), 0);
	CHECK(42, same_records(p));
	return core_repairs_take(&p->passive->core, log, 64);
}

/* Records that were changed on their way, or in the peer's memory, one that is missing, one too many. */
static void check_repairs(void)
{
	struct pair *p = pair_with_sessions(50);
	struct rig *b = p->passive;
	struct fp_repair log[64];
	struct fp_flow_rec rec;
	uint32_t slot = 7, n;
	bool done;

	/* A bit flipped on the wire. */
	core_walk(&b->core, &slot, &rec, 1, &done, b->now_ns);
	rec.op = FP_OP_STATE;
	rec.flags |= FP_RF_FIN_ORIG;
	CHECK_EQ(50, core_import(&b->core, &rec, 1, b->now_ns), 1);
	n = repair(p, log);
	CHECK_EQ(51, n, 1);
	CHECK_EQ(52, log[0].kind, FP_REPAIR_DIFFERED);
	CHECK(53, addr_eq(&log[0].inside, &rec.inside) && log[0].inside_port == rec.inside_port);
	CHECK_EQ(54, counter_read(&b->core.stat.repaired), 1);
	/* One is missing. */
	record_remove(&b->core, 9, false);
	n = repair(p, log);
	CHECK_EQ(55, n, 1);
	CHECK_EQ(56, log[0].kind, FP_REPAIR_MISSING);
	/* Its port was changed: the peer's word replaces what has the external port. */
	slot = 12;
	core_walk(&b->core, &slot, &rec, 1, &done, b->now_ns);
	record_remove(&b->core, 12, false);
	rec.inside_port ^= be16_of(1).raw; /* the same shard */
	CHECK_EQ(57, core_import(&b->core, &rec, 1, b->now_ns), 1);
	n = repair(p, log);
	CHECK_EQ(58, n, 1);
	CHECK_EQ(59, log[0].kind, FP_REPAIR_MISSING);
	CHECK_EQ(74, counter_read(&b->core.stat.import_conflicts), 1);
	/* One too many. */
	rec.external_port ^= be16_of(0x80).raw;
	rec.id += 1000;
	CHECK_EQ(75, core_import(&b->core, &rec, 1, b->now_ns), 1);
	n = repair(p, log);
	CHECK_EQ(76, n, 1);
	CHECK_EQ(77, log[0].kind, FP_REPAIR_EXTRA);
	/* A flip of the memory that nobody was told of: the scrub finds it. */
	b->core.table.rec[3].hot.version ^= 4;
	for (uint32_t i = 0; i < 70 * 4; i++)
		pair_sleep_ms(p, 500);
	CHECK_EQ(60, counter_read(&b->core.stat.scrub_errors), 1);
	n = repair(p, log);
	CHECK_EQ(61, n, 1);
	CHECK_EQ(62, log[0].kind, FP_REPAIR_DIFFERED);
	/* The same on ACTIVE: nobody knows what the peer has, so all of the shard is told again. */
	p->active->core.table.rec[3].hot.version ^= 4;
	for (uint32_t i = 0; i < 70 * 4 && !p->active->core.changes.lost; i++) {
		pair_sleep_ms(p, 500);
		pair_drain(p, PAIR_RING, UINT32_MAX);
		pair_deliver(p, PAIR_RING);
	}
	CHECK(63, p->active->core.changes.lost == shard_bit(p->active->core.table.rec[3].cold.shard));
	CHECK_EQ(64, pair_audit(p), 0);
	CHECK(65, same_records(p));
	/* Without a repair nothing is logged, whatever a sweep brings. */
	pair_sweep(p, UINT64_MAX, false);
	CHECK_EQ(66, pair_audit(p), 0);
	CHECK_EQ(67, core_repairs_take(&b->core, log, 64), 0);
	pair_free(p);
}

/* The log keeps the first ones; all are counted. */
static void check_log_is_bounded(void)
{
	struct pair *p = pair_with_sessions(200);
	struct fp_repair log[200];

	for (uint32_t idx = 1; idx <= 200; idx++)
		record_remove(&p->passive->core, idx, false);
	pair_sweep(p, UINT64_MAX, true);
	CHECK_EQ(70, pair_audit(p), 0);
	CHECK_EQ(71, core_repairs_take(&p->passive->core, log, 200), 64);
	CHECK_EQ(72, counter_read(&p->passive->core.stat.repaired), 200);
	CHECK_EQ(73, core_repairs_take(&p->passive->core, log, 200), 0);
	pair_free(p);
}

/* Epochs come round after 253 sweeps: what none of the last ones brought is still stale. */
static void check_epochs(void)
{
	struct pair *p = pair_with_sessions(20);

	for (uint32_t i = 0; i < 600; i++) {
		if (i % 100 == 0)
			rig_connect(p->active, (uint16_t)(41000 + i));
		pair_sweep(p, i % 3 ? UINT64_MAX : UINT64_C(0xff), false);
		if (i % 7 == 0)
			CHECK_EQ(80, pair_audit(p), 0);
	}
	CHECK_EQ(81, pair_audit(p), 0);
	CHECK(82, same_records(p));
	for (uint32_t i = 0; i < 300; i++)
		core_import_begin(&p->passive->core, UINT64_MAX, false);
	CHECK_EQ(83, core_import_end(&p->passive->core, UINT64_MAX), 26);
	pair_free(p);
}

int main(void)
{
	check_hash();
	for (uint64_t run = 0; run < 60; run++)
		check_random(run, run & 1);
	check_repairs();
	check_log_is_bounded();
	check_epochs();
	return check_done("digest");
}
