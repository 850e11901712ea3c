/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_transfer.c - records from one node to the other: changes, bulk, tombstones, import, takeover
 */
#include <errno.h>

#include "rig.h"

enum { RECS = 4096 };

static struct fp_flow_rec recs[RECS];

static struct rig *rig_passive(uint32_t flow_cap)
{
	struct rig *r = rig_new(0, 1, flow_cap);

	/* The other node: an identity and table secret of its own. */
	r->cfg.origin = 2;
	r->cfg.flow_id_base = 5000000;
	r->core.table.key.k[0] ^= 0x1234;
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	return r;
}

static struct rig *rig_tracking(uint32_t flow_cap)
{
	struct rig *r = rig_new(0, 1, flow_cap);

	core_track(&r->core, true);
	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	return r;
}

/* Move all changes of @from to @to. */
static uint32_t sync(struct rig *from, struct rig *to)
{
	uint32_t n, total = 0;

	while ((n = core_drain(&from->core, recs, 7, from->now_ns)) > 0) {
		while (n && recs[n - 1].op == FP_OP_BULK_END)
			n--;
		core_import(&to->core, recs, n, to->now_ns);
		total += n;
	}
	core_ack(&from->core, from->core.changes.ev_seq);
	return total;
}

static struct spec data_from_server(uint16_t external)
{
	struct spec s = rig_reply(&spec_syn, external);

	s.tcp_flags = TCP_ACK_FLAG;
	s.seq = 777777; /* long after what the record knows */
	s.ack = 888888;
	s.payload = 100;
	return s;
}

static int by_key(const void *left, const void *right)
{
	const struct fp_flow_rec *a = left, *b = right;

	if (a->form != b->form)
		return a->form - b->form;
	if (a->proto != b->proto)
		return a->proto - b->proto;
	if (a->inside_port != b->inside_port)
		return a->inside_port - b->inside_port;
	return memcmp(&a->remote, &b->remote, sizeof(a->remote));
}

/* Both tables hold the same records: keys, ports, states, identities, versions. */
static bool same_tables(struct rig *a, struct rig *b)
{
	static struct fp_flow_rec ra[RECS], rb[RECS];
	uint32_t n = rig_walk(a, ra, RECS), m = rig_walk(b, rb, RECS);

	if (n != m)
		return false;
	qsort(ra, n, sizeof(*ra), by_key);
	qsort(rb, n, sizeof(*rb), by_key);
	for (uint32_t i = 0; i < n; i++)
		if (by_key(&ra[i], &rb[i]) || ra[i].id != rb[i].id || ra[i].origin != rb[i].origin ||
		    ra[i].version != rb[i].version || ra[i].state != rb[i].state ||
		    ra[i].external_port != rb[i].external_port || !addr_eq(&ra[i].external, &rb[i].external))
			return false;
	return true;
}

static void check_events(void)
{
	struct rig *r = rig_tracking(1000);

	rig_connect(r, 40001);
	CHECK_EQ(1, rig_stats(r).dirty, 1);
	CHECK_EQ(2, core_drain(&r->core, recs, RECS, r->now_ns),
		 1); /* coalesced: three changes, one record */
	CHECK_EQ(3, recs[0].form, FP_FORM_SNAT);
	CHECK_EQ(4, recs[0].pool, 0);
	CHECK_EQ(5, recs[0].state, FP_ST_ESTABLISHED);
	CHECK_EQ(6, recs[0].op, FP_OP_UPSERT);
	CHECK_EQ(7, recs[0].ev_seq, 1);
	CHECK_EQ(9, recs[0].version, 3);
	CHECK_EQ(10, recs[0].inside_port, be16_of(40001).raw);
	CHECK_EQ(11, recs[0].in_port, LAN);
	CHECK_EQ(12, recs[0].out_port, WAN);
	CHECK(13, recs[0].remaining_ms >= 7440000 && recs[0].remaining_ms < 7440300);
	CHECK_EQ(14, core_drain(&r->core, recs, RECS, r->now_ns), 0);
	/* Packets that change no state change no record. */
	struct spec s = spec_syn;
	s.tcp_flags = TCP_ACK_FLAG;
	rig_in(r, LAN, &s);
	CHECK_EQ(15, core_drain(&r->core, recs, RECS, r->now_ns), 0);
	rig_free(r);
}

static void check_tombstones(void)
{
	struct rig *r = rig_tracking(1000);
	struct fp_frame f = rig_in(r, LAN, &spec_udp);
	uint16_t external = out_sport(&f);
	struct spec other = spec_udp;
	uint64_t last;

	other.dst = IP4(192, 0, 2, 11);
	rig_in(r, LAN, &other);
	core_drain(&r->core, recs, RECS, r->now_ns);
	rig_sleep(r, 302);
	CHECK_EQ(20, rig_stats(r).flows, 0);
	CHECK_EQ(21, rig_stats(r).tombstones, 2);
	CHECK_EQ(22, core_drain(&r->core, recs, RECS, r->now_ns), 2);
	CHECK_EQ(23, recs[0].op, FP_OP_DELETE);
	CHECK_EQ(25, recs[1].op, FP_OP_DELETE);
	CHECK_EQ(26, recs[0].ev_seq + 1, recs[1].ev_seq);
	last = recs[1].ev_seq;
	/* Slot and port are quarantined until the peer has acknowledged the delete; the port by the last one. */
	CHECK_EQ(27, r->core.table.n_free, r->core.table.cap - 2);
	CHECK(28, !nat_port_claim(&r->core.nat, 0, IPPROTO_NUM_UDP, be16_of(external)));
	core_ack(&r->core, last - 1);
	CHECK_EQ(29, rig_stats(r).tombstones, 1);
	CHECK(33, !nat_port_claim(&r->core.nat, 0, IPPROTO_NUM_UDP, be16_of(external)));
	core_ack(&r->core, last);
	CHECK_EQ(30, rig_stats(r).tombstones, 0);
	CHECK_EQ(31, r->core.table.n_free, r->core.table.cap);
	CHECK(32, nat_port_claim(&r->core.nat, 0, IPPROTO_NUM_UDP, be16_of(external)));
	core_ack(&r->core, UINT64_MAX); /* nonsense does no harm */
	rig_free(r);
}

/* The peer is slow: deletes beyond the limit are lost, counted, and nothing is stuck. */
static void check_too_many_tombstones(void)
{
	struct rig *r = rig_tracking(800);
	struct spec s = spec_udp;
	uint32_t deletes = 0, n;

	for (uint32_t i = 0; i < 200; i++) {
		s.sport = (uint16_t)(5000 + i);
		rig_in(r, LAN, &s);
	}
	rig_sleep(r, 302);
	CHECK_EQ(40, rig_stats(r).tombstones, 100);
	CHECK_EQ(41, rig_stats(r).events_lost, 100);
	CHECK_EQ(42, r->core.table.n_free, 700);
	n = core_drain(&r->core, recs, RECS, r->now_ns);
	for (uint32_t i = 0; i < n; i++)
		deletes += recs[i].op == FP_OP_DELETE;
	CHECK_EQ(43, deletes, 100);
	core_track(&r->core, false);
	CHECK_EQ(44, r->core.table.n_free, 800);
	CHECK_EQ(45, rig_stats(r).tombstones, 0);
	/* Without a peer deletes are free. */
	rig_in(r, LAN, &spec_udp);
	rig_sleep(r, 302);
	CHECK_EQ(46, r->core.table.n_free, 800);
	CHECK_EQ(47, rig_stats(r).dirty, 0);
	rig_free(r);
}

/* Tracking stops while deletes wait in both queues. */
static void check_forget(void)
{
	struct rig *r = rig_tracking(1000);

	rig_in(r, LAN, &spec_udp);
	rig_in(r, LAN, &spec_echo);
	rig_sleep(r, 62);
	core_drain(&r->core, recs, 2, r->now_ns);
	rig_sleep(r, 302);
	CHECK(50, rig_stats(r).tombstones == 2);
	core_track(&r->core, false);
	CHECK_EQ(51, rig_stats(r).tombstones, 0);
	CHECK_EQ(52, r->core.table.n_free, r->core.table.cap);
	core_track(&r->core, true);
	rig_in(r, LAN, &spec_udp);
	CHECK_EQ(53, core_drain(&r->core, recs, RECS, r->now_ns), 1);
	rig_free(r);
}

static void check_bulk(void)
{
	struct rig *r = rig_new(0, 1, 1000);
	uint32_t n, upserts = 0;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	for (uint16_t i = 0; i < 10; i++)
		rig_connect(r, (uint16_t)(40001 + i));
	core_bulk_start(&r->core);
	n = core_drain(&r->core, recs, 5, r->now_ns);
	CHECK_EQ(60, n, 5);
	CHECK(61, recs[0].flags & FP_RF_BULK);
	core_track(&r->core, true);
	rig_connect(r, 41001); /* a change goes before the rest of the walk */
	n = core_drain(&r->core, recs, RECS, r->now_ns);
	CHECK_EQ(62, recs[0].flags & FP_RF_BULK, 0);
	CHECK_EQ(63, recs[0].inside_port, be16_of(41001).raw);
	for (uint32_t i = 0; i < n; i++)
		upserts += recs[i].op == FP_OP_UPSERT;
	CHECK_EQ(64, upserts, 1 + 5 + 1); /* the change, the rest, and the change once more */
	CHECK_EQ(65, recs[n - 1].op, FP_OP_BULK_END);
	CHECK_EQ(66, recs[n - 1].ev_seq, 5 + n);
	CHECK_EQ(67, core_drain(&r->core, recs, RECS, r->now_ns), 0);
	/* An empty table: only the end. */
	rig_free(r);
	r = rig_active();
	core_bulk_start(&r->core);
	CHECK_EQ(68, core_drain(&r->core, recs, RECS, r->now_ns), 1);
	CHECK_EQ(69, recs[0].op, FP_OP_BULK_END);
	rig_free(r);
}

/* R13, R19: what one node knows, the other one forwards. */
static void check_takeover(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	uint16_t tcp = rig_connect(a, 40001), udp;
	struct fp_frame f = rig_in(a, LAN, &spec_udp);
	struct spec s;

	udp = out_sport(&f);
	CHECK_EQ(80, sync(a, b), 2);
	CHECK(81, same_tables(a, b));
	s = data_from_server(tcp);
	CHECK_EQ(82, rig_in(b, WAN, &s).verdict, V_VMAC_NOT_ACTIVE);
	/* Years may pass: PASSIVE expires nothing. */
	rig_sleep(b, 100000000);
	CHECK_EQ(83, rig_stats(b).flows, 2);
	core_set_role(&b->core, FP_ROLE_ACTIVE, 4, b->now_ns);
	rig_sleep(b, 0);
	CHECK_EQ(84, rig_stats(b).flows, 2);
	f = rig_in(b, WAN, &s);
	CHECK_EQ(85, f.verdict, V_REVERSE);
	CHECK_EQ(86, out_dport(&f), 40001);
	CHECK(87, frames_csums_ok(&f));
	s = rig_reply(&spec_udp, udp);
	CHECK_EQ(88, rig_in(b, WAN, &s).verdict, V_REVERSE);
	/* New connections do not collide with inherited ports. */
	for (uint32_t i = 0; i < 400; i++) {
		s = spec_syn;
		s.sport = (uint16_t)(10000 + i);
		f = rig_in(b, LAN, &s);
		CHECK(89, f.verdict == V_SNAT && out_sport(&f) != tcp);
	}
	CHECK_EQ(90, core_import(&b->core, recs, 1, b->now_ns), -EPERM);
	CHECK_EQ(91, core_import_begin(&b->core), -EPERM);
	CHECK_EQ(92, core_import_end(&b->core), -EPERM);
	/* Each got its full time from the takeover on. */
	rig_sleep(b, 298);
	CHECK_EQ(93, rig_stats(b).flows, 2);
	rig_sleep(b, 4);
	CHECK_EQ(94, rig_stats(b).flows, 1);
	rig_sleep(b, 7440 - 302 - 2);
	CHECK_EQ(95, rig_stats(b).flows, 1);
	rig_sleep(b, 4);
	CHECK_EQ(96, rig_stats(b).flows, 0);
	CHECK_EQ(97, rig_stats(b).mappings, 0);
	CHECK_EQ(98, b->core.table.n_free, b->core.table.cap);
	rig_free(a);
	rig_free(b);
}

/* A connection that was synced as SYN_SENT and went on: its ACK is progress. Then back again, three times. */
static void check_hand_offs(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	struct fp_frame f = rig_in(a, LAN, &spec_syn);
	uint16_t external = out_sport(&f);
	struct spec ack = spec_syn;

	sync(a, b);
	rig_connect(a, 40001); /* not synced */
	ack.tcp_flags = TCP_ACK_FLAG;
	ack.seq = 101;
	for (uint32_t i = 0; i < 3; i++) {
		struct rig *old = i & 1 ? b : a, *new = i & 1 ? a : b;

		core_set_role(&old->core, FP_ROLE_PASSIVE, 3 + i, old->now_ns);
		core_set_role(&new->core, FP_ROLE_ACTIVE, 4 + i, new->now_ns);
		core_track(&new->core, true);
		f = rig_in(new, LAN, &ack);
		CHECK_EQ(110, f.verdict, V_SNAT);
		CHECK_EQ(111, out_sport(&f), external);
		/* The old one comes back and gets a bulk. */
		CHECK_EQ(112, core_import_begin(&old->core), 0);
		core_bulk_start(&new->core);
		sync(new, old);
		core_import_end(&old->core);
		CHECK(113, same_tables(old, new));
		CHECK_EQ(114, rig_stats(old).flows, 1);
		rig_walk(old, recs, 2);
		CHECK_EQ(115, recs[0].state, FP_ST_ESTABLISHED);
	}
	rig_free(a);
	rig_free(b);
}

static void check_sweep(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);

	for (uint16_t i = 0; i < 20; i++)
		rig_connect(a, (uint16_t)(40001 + i));
	sync(a, b);
	/* The second life of a's data: half of it is gone, and b never heard of the deletes. */
	core_track(&a->core, false);
	rig_sleep(a, 3000);
	for (uint16_t i = 0; i < 10; i++) {
		struct spec s = spec_syn;

		s.sport = (uint16_t)(40001 + i);
		s.tcp_flags = TCP_ACK_FLAG;
		rig_in(a, LAN, &s);
	}
	rig_sleep(a, 5000);
	CHECK_EQ(130, rig_stats(a).flows, 10);
	core_import_begin(&b->core);
	core_bulk_start(&a->core);
	sync(a, b);
	CHECK_EQ(131, rig_stats(b).flows, 20);
	CHECK_EQ(132, core_import_end(&b->core), 10);
	CHECK(133, same_tables(a, b));
	CHECK_EQ(134, core_import_end(&b->core), 0);
	/* Bulks that never end: what none of the last 255 brought is as stale as what the last one did not. */
	for (uint32_t i = 0; i < 256; i++)
		CHECK_EQ(135, core_import_begin(&b->core), 0);
	CHECK_EQ(136, core_import_end(&b->core), 10);
	CHECK_EQ(137, rig_stats(b).flows, 0);
	rig_free(a);
	rig_free(b);
}

/* Deletes: of the right identity only. */
static void check_import_delete(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	struct fp_flow_rec del;

	rig_in(a, LAN, &spec_udp);
	sync(a, b);
	rig_walk(a, recs, 2);
	del = recs[0];
	del.op = FP_OP_DELETE;
	del.id++;
	core_import(&b->core, &del, 1, b->now_ns);
	CHECK_EQ(140, rig_stats(b).flows, 1);
	rig_sleep(a, 302);
	CHECK_EQ(141, sync(a, b), 1);
	CHECK_EQ(142, rig_stats(b).flows, 0);
	CHECK_EQ(143, rig_stats(b).mappings, 0);
	CHECK_EQ(144, b->core.table.n_free, b->core.table.cap);
	CHECK_EQ(145, rig_stats(a).tombstones, 0);
	rig_free(a);
	rig_free(b);
}

static struct fp_flow_rec tcp_record(struct rig *from, uint16_t sport)
{
	uint32_t n;

	rig_connect(from, sport);
	n = rig_walk(from, recs, RECS);
	for (uint32_t i = 0; i < n; i++)
		if (recs[i].inside_port == be16_of(sport).raw)
			return recs[i];
	return (struct fp_flow_rec){ 0 };
}

static void check_merge(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct fp_flow_rec rec = tcp_record(a, 40001), other;

	CHECK_EQ(160, core_import(&b->core, &rec, 1, b->now_ns), 1);
	CHECK_EQ(161, rig_stats(b).mappings, 1);
	CHECK_EQ(162, core_import(&b->core, &rec, 1, b->now_ns), 1); /* the same again */
	other = rec;
	other.version--;
	CHECK_EQ(163, core_import(&b->core, &other, 1, b->now_ns), 0);
	other = rec;
	other.state = FP_ST_SYN_SENT; /* never backwards */
	other.version++;
	CHECK_EQ(164, core_import(&b->core, &other, 1, b->now_ns), 0);
	rig_walk(b, recs, RECS);
	CHECK_EQ(165, recs[0].state, FP_ST_ESTABLISHED);
	CHECK_EQ(166, rig_stats(b).import_refused, 2);
	other.id += 7; /* another connection of the same endpoints: replaced, whatever its state */
	other.version = 1;
	CHECK_EQ(167, core_import(&b->core, &other, 1, b->now_ns), 1);
	rig_walk(b, recs, RECS);
	CHECK_EQ(168, recs[0].state, FP_ST_SYN_SENT);
	CHECK_EQ(169, rig_stats(b).flows, 1);
	rig_free(a);
	rig_free(b);
}

/* Split brain healed: both gave the same external port, or one client two of them. The peer's word wins. */
static void check_conflict(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct fp_flow_rec first = tcp_record(a, 40001), second = first;
	struct spec s;
	uint32_t n;

	/* b holds another inside endpoint of the same shard at first's external port. */
	for (uint32_t port = 1024; port < 65000; port++) {
		second.inside_port = be16_of((uint16_t)port).raw;
		if (port != 40001 &&
		    core_shard(&b->cfg, &second.inside, (be16){ second.inside_port }, IPPROTO_NUM_TCP) ==
			    nat_port_shard(be16_host((be16){ first.external_port })))
			break;
	}
	second.id = 99;
	CHECK_EQ(180, core_import(&b->core, &second, 1, b->now_ns), 1);
	CHECK_EQ(181, core_import(&b->core, &first, 1, b->now_ns), 1);
	CHECK_EQ(182, rig_stats(b).import_conflicts, 1);
	CHECK_EQ(183, rig_stats(b).flows, 1);
	CHECK_EQ(184, rig_stats(b).mappings, 1);
	/* The same client at another external port. */
	second = first;
	second.id = 100;
	second.external_port = be16_of(be16_host((be16){ first.external_port }) ^ 0x80).raw;
	CHECK_EQ(185, core_import(&b->core, &second, 1, b->now_ns), 1);
	CHECK_EQ(186, rig_stats(b).flows, 1);
	CHECK_EQ(187, rig_stats(b).mappings, 1);
	n = rig_walk(b, recs, RECS);
	CHECK(188, n == 1 && recs[0].external_port == second.external_port);
	core_set_role(&b->core, FP_ROLE_ACTIVE, 4, b->now_ns);
	s = data_from_server(be16_host((be16){ second.external_port }));
	CHECK_EQ(189, rig_in(b, WAN, &s).verdict, V_REVERSE);
	s = data_from_server(be16_host((be16){ first.external_port }));
	CHECK_EQ(190, rig_in(b, WAN, &s).verdict, V_NO_SESSION);
	rig_free(a);
	rig_free(b);
}

/* Whatever a peer sends, the worst is a refusal. */
static void check_garbage(void)
{
	struct rig *a = rig_active(), *b = rig_passive(500);
	struct fp_flow_rec good = tcp_record(a, 40001), r;
	uint64_t x = 88172645463325252u;
	uint8_t *byte = (uint8_t *)&r;

#define REFUSED(n, change)                                               \
	do {                                                             \
		r = good;                                                \
		change;                                                  \
		CHECK_EQ(n, core_import(&b->core, &r, 1, b->now_ns), 0); \
	} while (0)
	REFUSED(200, r.proto = 47);
	REFUSED(201, r.form = FP_FORM_NONE + 1);
	REFUSED(202, r.op = FP_OP_BULK_END);
	REFUSED(203, r.state = FP_ST_COUNT);
	REFUSED(204, r.state = FP_ST_NONE);
	REFUSED(205, r.state = FP_ST_NEW);
	REFUSED(206, r.in_port = 200);
	REFUSED(207, r.in_port = WAN);
	REFUSED(208, r.out_port = LAN);
	REFUSED(209, r.external.b[15]++);
	REFUSED(210, r.external_port = be16_of(80).raw);
	REFUSED(211, r.external_port =
			     be16_of(be16_host((be16){ r.external_port }) ^ 2).raw); /* another shard's */
	REFUSED(212, r.inside.b[0] = 0x20);
	REFUSED(213, memset(&r.remote, 0, sizeof(r.remote)));
	REFUSED(214, r.remote_port = 0);
	REFUSED(215, r.id = 0);
	REFUSED(216, r.form = FP_FORM_NONE); /* with an external end of its own */
	REFUSED(223, r.rule = 65536);
	REFUSED(224, r.proto = 0);
#undef REFUSED
	CHECK_EQ(217, rig_stats(b).import_refused, 19);
	CHECK_EQ(218, rig_stats(b).flows, 0);
	for (uint32_t i = 0; i < 200000; i++) {
		r = good;
		for (uint32_t flips = 0; flips < 3; flips++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			byte[x % sizeof(r)] = (uint8_t)(x >> 32);
		}
		/* Mostly records that are taken: another client, or another remote port. */
		if (x & 1)
			r.remote_port = (uint16_t)(x >> 20);
		core_import(&b->core, &r, 1, b->now_ns);
	}
	CHECK(219, rig_stats(b).flows <= 500);
	core_import_begin(&b->core);
	core_import_end(&b->core);
	CHECK_EQ(220, rig_stats(b).flows, 0);
	CHECK_EQ(221, rig_stats(b).mappings, 0);
	CHECK_EQ(222, b->core.table.n_free, b->core.table.cap);
	rig_free(a);
	rig_free(b);
}

/* A full table refuses, and takes again when there is room. */
static void check_full(void)
{
	struct rig *a = rig_active(), *b = rig_passive(20);
	uint32_t n, taken = 0;

	for (uint16_t i = 0; i < 25; i++)
		rig_connect(a, (uint16_t)(40001 + i));
	n = rig_walk(a, recs, RECS);
	taken = (uint32_t)core_import(&b->core, recs, n, b->now_ns);
	CHECK_EQ(240, taken, 20);
	CHECK_EQ(241, rig_stats(b).import_refused, 5);
	CHECK_EQ(242, b->core.table.n_free, 0);
	rig_free(a);
	rig_free(b);
}

/* A batch goes to every worker; each takes what its shards own. */
static void check_workers(void)
{
	struct rig *a = rig_active(),
		   *w[3] = { rig_new(0, 3, 1000), rig_new(1, 3, 1000), rig_new(2, 3, 1000) };
	uint32_t n, taken[3], total = 0;

	for (uint16_t i = 0; i < 60; i++)
		rig_connect(a, (uint16_t)(40001 + i * 2));
	n = rig_walk(a, recs, RECS);
	for (uint32_t i = 0; i < 3; i++) {
		taken[i] = (uint32_t)core_import(&w[i]->core, recs, n, w[i]->now_ns);
		total += taken[i];
		CHECK(250, taken[i] > 5);
	}
	CHECK_EQ(251, total, 60);
	for (uint32_t i = 0; i < 3; i++)
		rig_free(w[i]);
	rig_free(a);
}

/* An imported flow's neighbours are asked for while PASSIVE. */
static void check_warm(void)
{
	struct rig *a = rig_active(), *b = rig_passive(1000);
	struct fp_flow_rec rec = tcp_record(a, 40001);
	struct neigh_want wants[4];

	rig_fib(b, false);
	core_import(&b->core, &rec, 1, b->now_ns);
	CHECK_EQ(260, core_neigh_wanted(&b->core, wants, 4), 2);
	CHECK_EQ(261, wants[0].port + wants[1].port, LAN + WAN);
	rig_free(a);
	rig_free(b);
}

/*
 * Sessions of one mapping come in any order, and the leader that the other node had may go first: the external
 * port stays as long as one of them is left. Spec: RFC 4787 REQ-1.
 */
static void check_leaders(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	struct spec s = spec_udp;
	struct fp_frame f;
	uint16_t external = 0;
	uint32_t n;

	for (uint32_t i = 0; i < 5; i++) {
		s.dst = IP4(192, 0, 2, 10 + i);
		f = rig_in(a, LAN, &s);
		CHECK(280, i == 0 || out_sport(&f) == external);
		external = out_sport(&f);
	}
	CHECK_EQ(281, rig_stats(a).mappings, 1);
	n = core_drain(&a->core, recs, RECS, a->now_ns);
	CHECK_EQ(282, n, 5);
	for (uint32_t i = n; i-- > 0;)
		CHECK_EQ(283, core_import(&b->core, &recs[i], 1, b->now_ns), 1);
	CHECK_EQ(284, rig_stats(b).mappings, 1);
	for (uint32_t i = 0; i < n; i++) {
		recs[i].op = FP_OP_DELETE;
		CHECK(285, !nat_port_claim(&b->core.nat, 0, IPPROTO_NUM_UDP, be16_of(external)));
		CHECK_EQ(286, core_import(&b->core, &recs[i], 1, b->now_ns), 1);
		CHECK_EQ(287, rig_stats(b).mappings, i < n - 1);
	}
	CHECK_EQ(288, b->core.table.n_free, b->core.table.cap);
	CHECK(289, nat_port_claim(&b->core.nat, 0, IPPROTO_NUM_UDP, be16_of(external)));
	rig_free(a);
	rig_free(b);
}

/* ---- forms ---- */

static struct fp_flow_rec base_record(uint32_t id)
{
	return (struct fp_flow_rec){ .id = id,
				     .origin = 1,
				     .proto = IPPROTO_NUM_UDP,
				     .state = FP_ST_ESTABLISHED,
				     .version = 1,
				     .remaining_ms = 1000,
				     .inside = addr_from_v4(CLIENT),
				     .remote = addr_from_v4(SERVER),
				     .external = addr_from_v4(WAN_VIP),
				     .inside_port = be16_of(5000).raw,
				     .remote_port = be16_of(53).raw,
				     .in_port = LAN,
				     .out_port = WAN };
}

static struct fp_flow_rec static_record(void)
{
	struct fp_flow_rec r = base_record(11);

	r.form = FP_FORM_STATIC;
	r.flags = FP_RF_INBOUND;
	r.external_port = be16_of(80).raw;
	return r;
}

static struct fp_flow_rec none_record(void)
{
	struct fp_flow_rec r = base_record(12);

	r.form = FP_FORM_NONE;
	r.external = r.inside;
	r.external_port = r.inside_port;
	r.pool = FP_POOL_NONE;
	return r;
}

static struct fp_flow_rec gre_record(void)
{
	struct fp_flow_rec r = base_record(13);

	r.proto = 47;
	r.inside_port = r.remote_port = 0;
	return r;
}

static int taken(struct rig *r, struct fp_flow_rec rec)
{
	return core_import(&r->core, &rec, 1, r->now_ns);
}

/* Every form comes and goes; what follows from the ends is computed here. */
static void check_forms(void)
{
	struct rig *b = rig_passive(1000);
	struct fp_flow_rec recs3[] = { static_record(), none_record(), gre_record() };
	struct fp_flow_rec hairpin = none_record();

	for (uint32_t i = 0; i < 3; i++) {
		struct fp_flow_rec out;

		recs3[i].flags |= FP_RF_HAIRPIN; /* a lie */
		CHECK_EQ(300, taken(b, recs3[i]), 1);
		CHECK_EQ(301, rig_walk(b, &out, 1), 1);
		CHECK_EQ(302, out.form, recs3[i].form);
		CHECK_EQ(303, out.pool, recs3[i].pool);
		CHECK_EQ(304, out.external_port, recs3[i].external_port);
		CHECK(305, addr_eq(&out.external, &recs3[i].external));
		CHECK_EQ(306, out.flags, FP_RF_IMPORTED | (recs3[i].flags & FP_RF_INBOUND));
		CHECK_EQ(307, rig_stats(b).mappings, 0);
		recs3[i].op = FP_OP_DELETE;
		CHECK_EQ(308, taken(b, recs3[i]), 1);
		CHECK_EQ(309, rig_stats(b).flows, 0);
	}
	hairpin.remote = addr_from_v4(WAN_VIP);
	CHECK_EQ(310, taken(b, hairpin), 1);
	rig_walk(b, recs, 1);
	CHECK_EQ(311, recs[0].flags, FP_RF_IMPORTED | FP_RF_HAIRPIN);
	/* Two clients behind the same end: the peer's later word wins. */
	CHECK_EQ(312, taken(b, gre_record()), 1);
	hairpin = gre_record();
	hairpin.id = 99;
	hairpin.inside = addr_from_v4(CLIENT2);
	CHECK_EQ(313, taken(b, hairpin), 1);
	CHECK_EQ(314, rig_stats(b).import_conflicts, 1);
	CHECK_EQ(315, rig_stats(b).flows, 2);
	rig_free(b);
}

static void check_forms_refused(void)
{
	struct rig *b = rig_passive(1000);
	struct fp_flow_rec r;

#define REFUSED(n, make, change)             \
	do {                                 \
		r = make();                  \
		change;                      \
		CHECK_EQ(n, taken(b, r), 0); \
	} while (0)
	REFUSED(320, static_record, r.proto = IPPROTO_NUM_ICMP);
	REFUSED(321, static_record, r.external_port = 0);
	REFUSED(322, static_record, r.external.b[15]++);
	REFUSED(323, static_record, (r.proto = 47, r.inside_port = r.remote_port = r.external_port = 0));
	REFUSED(324, none_record, r.external = addr_from_v4(WAN_VIP));
	REFUSED(325, none_record, r.external_port ^= 1);
	REFUSED(326, none_record, r.in_port = WAN);
	REFUSED(327, none_record, r.remote_port = 0);
	/* Two inside zones: the larger end cannot be the inside one; and nothing else goes between them. */
	REFUSED(328, none_record, (r.out_port = LAN, r.remote = addr_from_v4(IP4(10, 0, 0, 1))));
	REFUSED(329, static_record, r.out_port = LAN);
	REFUSED(330, gre_record, r.inside_port = 1);
	REFUSED(331, gre_record, r.external_port = 1);
	REFUSED(332, gre_record, r.external = addr_from_v4(CLIENT));
	REFUSED(333, gre_record, r.state = FP_ST_SYN_SENT);
	REFUSED(334, gre_record, r.in_port = FP_PORTS_MAX);
#undef REFUSED
	CHECK_EQ(335, rig_stats(b).import_refused, 15);
	r = none_record();
	r.out_port = LAN;
	r.remote = addr_from_v4(IP4(198, 51, 100, 200));
	CHECK_EQ(336, taken(b, r), 1);
	rig_free(b);
}

/* Each record has one owner, whatever its form. */
static void check_owners(void)
{
	struct rig *w[3] = { rig_new(0, 3, 1000), rig_new(1, 3, 1000), rig_new(2, 3, 1000) };
	struct fp_flow_rec (*const make[])(void) = { static_record, none_record, gre_record };
	struct fp_addr end;

	for (uint32_t i = 0; i < ARRAY_SIZE(make); i++) {
		for (uint32_t k = 0; k < 30; k++) {
			struct fp_flow_rec r = make[i]();
			be16 port = { 0 };
			int n = 0;

			r.id += 100ull * k;
			r.inside.b[15] = (uint8_t)(10 + k);
			r.remote.b[15] = (uint8_t)(10 + k);
			if (r.form == FP_FORM_NONE)
				r.external = r.inside;
			end = r.form == FP_FORM_NONE ? r.inside : r.remote;
			port.raw = r.form == FP_FORM_NONE ? r.inside_port : r.remote_port;
			for (uint32_t j = 0; j < 3; j++)
				n += taken(w[j], r) << 4 * j;
			CHECK_EQ(340, n, 1 << 4 * (core_shard(&w[0]->cfg, &end, port, r.proto) % 3));
		}
	}
	for (uint32_t j = 0; j < 3; j++)
		rig_free(w[j]);
}

/* The peer has no use for what hangs on an address of ours alone, nor we for what hangs on its. */
static void check_own_addresses(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	struct fp_flow_rec rec = tcp_record(a, 40001);

	core_drain(&a->core, recs, RECS, a->now_ns);
	a->cfg.pools[0].survives = 0;
	rig_connect(a, 40003);
	core_bulk_start(&a->core);
	CHECK_EQ(350, core_drain(&a->core, recs, RECS, a->now_ns), 1);
	CHECK_EQ(351, recs[0].op, FP_OP_BULK_END);
	CHECK_EQ(352, rig_walk(a, recs, RECS), 2); /* people see them */
	rig_sleep(a, 7442);
	CHECK_EQ(353, rig_stats(a).flows, 0);
	CHECK_EQ(354, rig_stats(a).tombstones, 0);
	b->cfg.pools[0].survives = 0;
	CHECK_EQ(355, taken(b, rec), 0);
	rig_free(a);
	rig_free(b);
}

int main(void)
{
	check_events();
	check_tombstones();
	check_too_many_tombstones();
	check_forget();
	check_bulk();
	check_takeover();
	check_hand_offs();
	check_sweep();
	check_import_delete();
	check_merge();
	check_conflict();
	check_garbage();
	check_full();
	check_workers();
	check_warm();
	check_leaders();
	check_forms();
	check_forms_refused();
	check_owners();
	check_own_addresses();
	return check_done("transfer");
}
