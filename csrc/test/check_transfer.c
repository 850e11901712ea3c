/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_transfer.c - records to the other node: changes, sweeps, tombstones, lost shards, takeover
 */
#include <errno.h>

#include "../digest.h"
#include "../session.h"
#include "../tcptrack.h"
#include "rig.h"

enum { RECS = 4096 };

static struct fp_flow_rec recs[RECS];

/* Move all changes of @from to @to. */
static uint32_t sync(struct rig *from, struct rig *to)
{
	uint32_t n, total = 0;

	while ((n = rig_drain(from, recs, 7)) > 0) {
		uint32_t k = 0;

		for (uint32_t i = 0; i < n; i++)
			if (recs[i].op < FP_OP_SWEEP)
				recs[k++] = recs[i];
		core_import(&to->core, recs, k, to->now_ns);
		total += k;
	}
	core_ack(&from->core, from->core.changes.ev_seq);
	return total;
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
	CHECK_EQ(2, rig_drain(r, recs, RECS), 1); /* coalesced: three changes, one record */
	CHECK_EQ(3, recs[0].form, FP_FORM_SNAT);
	CHECK_EQ(4, recs[0].pool, 0);
	CHECK_EQ(5, recs[0].state, FP_ST_ESTABLISHED);
	CHECK_EQ(6, recs[0].op, FP_OP_OPEN);
	CHECK_EQ(7, recs[0].ev_seq, 1);
	CHECK_EQ(9, recs[0].version, 3);
	CHECK_EQ(10, recs[0].inside_port, be16_of(40001).raw);
	CHECK_EQ(11, recs[0].in_port, LAN);
	CHECK_EQ(12, recs[0].out_port, WAN);
	CHECK(13, recs[0].remaining_ms >= 7440000 && recs[0].remaining_ms < 7440300);
	CHECK_EQ(14, rig_drain(r, recs, RECS), 0);
	/* Packets that change no state change no record. */
	struct spec s = spec_syn;
	s.tcp_flags = TCP_ACK_FLAG;
	rig_in(r, LAN, &s);
	CHECK_EQ(15, rig_drain(r, recs, RECS), 0);
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
	rig_drain(r, recs, RECS);
	rig_sleep(r, 302);
	CHECK_EQ(20, rig_stats(r).flows, 0);
	CHECK_EQ(21, rig_stats(r).tombstones, 2);
	CHECK_EQ(22, rig_drain(r, recs, RECS), 2);
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

static void open_udp(struct rig *r, uint32_t n)
{
	struct spec s = spec_udp;

	for (uint32_t i = 0; i < n; i++) {
		s.sport = (uint16_t)(5000 + i);
		rig_in(r, LAN, &s);
	}
}

/* The peer is slow: where there are too many deletes, or changes, shards are lost, and nothing is stuck. */
static void check_lost_shards(void)
{
	struct rig *r = rig_tracking(800);
	uint32_t deletes = 0, opens = 0, n;
	uint64_t lost;

	open_udp(r, 200);
	rig_tell_all(r);
	rig_sleep(r, 302);
	CHECK_EQ(40, rig_stats(r).tombstones, 100);
	CHECK(41, rig_stats(r).events_lost > 0);
	CHECK_EQ(42, r->core.table.n_free, 700);
	lost = r->core.changes.lost;
	CHECK_EQ(43, counter_read(&r->core.stat.lost_shards), lost);
	n = rig_drain(r, recs, RECS);
	for (uint32_t i = 0; i < n; i++)
		deletes += recs[i].op == FP_OP_DELETE;
	CHECK_EQ(44, deletes, 100);
	/* Nothing of a lost shard is told, and its deletes leave nothing behind, until a sweep. */
	open_udp(r, 200);
	n = rig_drain(r, recs, RECS);
	for (uint32_t i = 0; i < n; i++)
		CHECK(45, !(lost >> recs[i].shard & 1));
	core_sweep_start(&r->core, lost);
	opens = n;
	n = rig_drain(r, recs, RECS);
	CHECK(46, n > 2 && recs[0].op == FP_OP_SWEEP && recs[0].id == lost);
	for (uint32_t i = 1; i < n - 1; i++)
		CHECK(47, recs[i].op == FP_OP_OPEN && lost >> recs[i].shard & 1);
	CHECK(48, recs[n - 1].op == FP_OP_SWEPT && recs[n - 1].id == lost);
	CHECK_EQ(49, opens + n - 2, 200);
	CHECK_EQ(270, counter_read(&r->core.stat.lost_shards), 0);
	/* A queue that is full. */
	r->core.changes.dirty_cap = 50;
	r->core.changes.dirty_head = 0;
	r->core.changes.lazy_cap = 0;
	for (uint32_t i = 0; i < 200; i++)
		rig_connect(r, (uint16_t)(20000 + i));
	CHECK_EQ(271, r->core.changes.n_dirty, 50);
	lost = r->core.changes.lost;
	CHECK(272, lost != 0);
	n = rig_drain(r, recs, RECS);
	for (uint32_t i = 0; i < n; i++)
		CHECK(273, !(lost >> recs[i].shard & 1));
	/* A shard that is lost under a sweep is not among those that were walked. */
	core_sweep_start(&r->core, lost);
	rig_drain(r, recs, 2);
	digest_lose(&r->core, (uint32_t)__builtin_ctzll(lost));
	n = rig_drain(r, recs, RECS);
	CHECK(274, recs[n - 1].op == FP_OP_SWEPT && recs[n - 1].id == (lost & (lost - 1)));
	CHECK_EQ(275, r->core.changes.lost, lost & -lost);
	core_track(&r->core, false);
	CHECK_EQ(276, rig_stats(r).tombstones, 0);
	CHECK_EQ(277, counter_read(&r->core.stat.lost_shards), 0);
	/* Without a peer deletes are free. */
	rig_sleep(r, 8000);
	CHECK_EQ(278, r->core.table.n_free, 800);
	CHECK_EQ(279, rig_stats(r).dirty, 0);
	rig_free(r);
}

/* Short lives through a small full table, with a peer that follows: the old make room, and no shard is lost. */
static void check_churn(void)
{
	struct rig *a = rig_tracking(800), *b = rig_passive(800);

	for (uint32_t turn = 0; turn < 100; turn++) {
		for (uint32_t i = 0; i < 40; i++) {
			const uint16_t sport = (uint16_t)(10000 + turn * 40 + i);
			struct spec s = spec_syn;

			CHECK(284, rig_connect(a, sport) != 0);
			s.sport = sport;
			s.tcp_flags = TCP_RST | TCP_ACK_FLAG;
			s.seq = 101;
			s.ack = 501;
			rig_in(a, LAN, &s);
		}
		sync(a, b);
		core_expire(&a->core, a->now_ns, 1024);
		CHECK(285, rig_stats(a).tombstones <= 100 / 2 + 1);
		sync(a, b);
	}
	CHECK_EQ(286, rig_stats(a).flows_created, 4000);
	CHECK(287, rig_stats(a).flows > 700 && same_tables(a, b));
	CHECK_EQ(288, rig_stats(a).events_lost, 0);
	rig_free(a);
	rig_free(b);
}

/* A delete of what the peer was never told of is none, and takes no room. */
static void check_never_told(void)
{
	struct rig *r = rig_tracking(800);

	open_udp(r, 100);
	rig_sleep(r, 302);
	CHECK_EQ(280, rig_stats(r).tombstones, 0);
	CHECK_EQ(281, r->core.table.n_free, 800);
	CHECK_EQ(282, rig_drain(r, recs, RECS), 0);
	CHECK_EQ(283, rig_stats(r).events_lost, 0);
	rig_free(r);
}

static struct spec segment(uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct spec s = spec_syn;

	s.tcp_flags = flags;
	s.seq = seq;
	s.ack = ack;
	return s;
}

/* The four packets that close a connection of rig_connect(). */
static void close_session(struct rig *r, uint16_t external)
{
	struct spec s = segment(TCP_ACK_FLAG | TCP_FIN, 101, 501), reply;

	rig_in(r, LAN, &s);
	s.dst = SERVER;
	reply = rig_reply(&s, external);
	reply.seq = 501;
	reply.ack = 102;
	rig_in(r, WAN, &reply);
	s = segment(TCP_ACK_FLAG, 102, 502);
	rig_in(r, LAN, &s);
}

/* Open, exchange, close: three words, however the drains fall. Spec: R23 */
static void check_whole_life(void)
{
	for (uint32_t how = 0; how < 4; how++) {
		struct rig *r = rig_tracking(1000);
		uint32_t n = 0, ops[4] = { 0 };
		uint16_t external;

		external = rig_connect(r, 40001);
		if (how & 1)
			n += rig_drain(r, recs + n, RECS - n);
		close_session(r, external);
		CHECK_EQ(290, r->core.table.rec[1].hot.state, FP_ST_TIME_WAIT);
		if (how & 2)
			n += rig_drain(r, recs + n, RECS - n);
		r->now_ns += 101 * NS_PER_MS;
		n += rig_drain(r, recs + n, RECS - n);
		CHECK_EQ(291, rig_stats(r).dirty, 0);
		rig_sleep(r, 242);
		n += rig_drain(r, recs + n, RECS - n);
		for (uint32_t i = 0; i < n; i++)
			ops[recs[i].op]++;
		CHECK_EQ(292, ops[FP_OP_OPEN], 1);
		CHECK_EQ(293, ops[FP_OP_STATE], how & 1);
		CHECK_EQ(294, ops[FP_OP_DELETE], 1);
		CHECK_EQ(295, ops[FP_OP_REST], 0);
		CHECK_EQ(296, n, 2 + (how & 1));
		rig_free(r);
	}
}

/* What can wait does, for lazy_ms and no longer; what cannot takes it along. */
static void check_lazy(void)
{
	struct rig *r = rig_tracking(1000);
	struct spec s = spec_udp, reply;
	struct fp_frame f = rig_in(r, LAN, &s);
	const uint16_t udp = out_sport(&f), external = rig_connect(r, 40001);

	CHECK_EQ(300, rig_drain(r, recs, RECS), 2);
	reply = rig_reply(&s, udp);
	rig_in(r, WAN, &reply); /* both directions: ESTABLISHED */
	CHECK_EQ(301, rig_drain(r, recs, RECS), 0);
	CHECK_EQ(302, counter_read(&r->core.stat.lazy), 2); /* and the windows of the TCP connection */
	r->now_ns += 99 * NS_PER_MS;
	CHECK_EQ(303, rig_drain(r, recs, RECS), 0);
	r->now_ns += 1 * NS_PER_MS;
	CHECK_EQ(304, rig_drain(r, recs, RECS), 2);
	CHECK(305, recs[1].op == FP_OP_STATE && recs[1].state == FP_ST_ESTABLISHED && recs[1].version == 2);
	/* A digest does not wait. */
	s = segment(TCP_ACK_FLAG | TCP_FIN, 101, 501);
	rig_in(r, LAN, &s);
	core_digest_ask(&r->core);
	CHECK_EQ(306, rig_drain(r, recs, RECS), 2);
	CHECK(307, recs[0].op == FP_OP_REST && recs[0].state == FP_ST_FIN_WAIT);
	CHECK_EQ(308, recs[1].op, FP_OP_DIGEST);
	/* Room in the lazy queue is short: told at once. */
	r->core.changes.lazy_cap = 0;
	reply = rig_reply(&spec_syn, external);
	reply.tcp_flags = TCP_ACK_FLAG | TCP_FIN;
	reply.seq = 501;
	reply.ack = 102;
	rig_in(r, WAN, &reply);
	CHECK_EQ(309, rig_drain(r, recs, RECS), 1);
	rig_free(r);
}

static bool same_digests(struct rig *a, struct rig *b)
{
	struct fp_digest ours[FP_SHARDS], theirs[FP_SHARDS];

	core_digests(&a->core, ours);
	core_digests(&b->core, theirs);
	return memcmp(ours, theirs, sizeof(ours)) == 0;
}

/* What both nodes know of the windows of record 1. */
static bool same_windows(const struct rig *a, const struct rig *b)
{
	const struct flow_cold *ours = &a->core.table.rec[1].cold, *theirs = &b->core.table.rec[1].cold;
	const uint32_t in = SIDE_IN, out = SIDE_OUT;

	return memcmp(ours->end, theirs->end, sizeof(ours->end)) == 0 &&
	       memcmp(ours->max_end, theirs->max_end, sizeof(ours->max_end)) == 0 &&
	       ours->scales == theirs->scales && theirs->wflags[in] & theirs->wflags[out] & TCP_WIN_SYN;
}

/*
 * The windows of a connection that goes on are told lazy_ms after it is known as established, and never before; the
 * first words stay small, and from then on a change that can wait brings them, too. Spec: R10, R19
 */
static void check_windows_follow(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	struct fp_frame f = rig_in(a, LAN, &spec_syn);
	const uint16_t external = out_sport(&f);
	struct spec s;

	CHECK(330, sync(a, b) == 1 && recs[0].op == FP_OP_OPEN);
	s = rig_reply(&spec_syn, external);
	s.tcp_flags = TCP_SYN | TCP_ACK_FLAG;
	s.seq = 500;
	s.ack = 101;
	rig_in(a, WAN, &s);
	CHECK_EQ(331, sync(a, b), 0);
	a->now_ns += 100 * NS_PER_MS; /* embryonic: only the state */
	CHECK(332, rig_drain(a, recs, RECS) == 1 && recs[0].op == FP_OP_STATE);
	CHECK(333, core_import(&b->core, recs, 1, b->now_ns) == 1 && !same_windows(a, b));
	s = segment(TCP_ACK_FLAG, 101, 501);
	rig_in(a, LAN, &s);
	CHECK(334, rig_drain(a, recs, RECS) == 1 && recs[0].op == FP_OP_STATE);
	CHECK_EQ(335, core_import(&b->core, recs, 1, b->now_ns), 1);
	a->now_ns += 99 * NS_PER_MS;
	CHECK_EQ(336, rig_drain(a, recs, RECS), 0);
	a->now_ns += 1 * NS_PER_MS;
	CHECK(337, rig_drain(a, recs, RECS) == 1 && recs[0].op == FP_OP_REST);
	CHECK_EQ(338, core_import(&b->core, recs, 1, b->now_ns), 1);
	CHECK(339, same_windows(a, b) && same_digests(a, b));
	a->now_ns += NS_PER_S;
	CHECK_EQ(340, rig_drain(a, recs, RECS), 0);
	s = segment(TCP_ACK_FLAG | TCP_FIN, 101, 501);
	rig_in(a, LAN, &s);
	CHECK_EQ(341, rig_drain(a, recs, RECS), 0);
	a->now_ns += 100 * NS_PER_MS;
	CHECK(342, rig_drain(a, recs, RECS) == 1 && recs[0].op == FP_OP_REST);
	CHECK_EQ(343, core_import(&b->core, recs, 1, b->now_ns), 1);
	CHECK(344, same_tables(a, b) && same_windows(a, b) && same_digests(a, b));
	/* No room to wait: then what must be told is, and no more. */
	a->core.changes.lazy_cap = 0;
	rig_connect(a, 40002);
	CHECK(345, sync(a, b) == 1 && recs[0].op == FP_OP_OPEN);
	a->now_ns += 100 * NS_PER_MS;
	CHECK_EQ(346, sync(a, b), 0);
	rig_free(a);
	rig_free(b);
}

/* A port that is taken again: the peer has the old session until it hears of the new one. */
static void check_reopened(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	uint16_t external = rig_connect(a, 40001);
	uint64_t id;

	sync(a, b);
	id = recs[0].id;
	close_session(a, external);
	a->now_ns += 101 * NS_PER_MS;
	CHECK_EQ(320, sync(a, b), 1);
	rig_in(a, LAN, &spec_syn);
	CHECK_EQ(321, sync(a, b), 1);
	CHECK(322, recs[0].op == FP_OP_OPEN && recs[0].id != id);
	CHECK(323, same_tables(a, b));
	/* It goes before the peer has heard of it: only a sweep can take back what the peer has. */
	a->core.table.rec[1].hot.state = FP_ST_CLOSED;
	rig_in(a, LAN, &spec_syn);
	record_remove(&a->core, 1, true);
	CHECK(324, a->core.changes.lost == shard_bit(recs[0].shard));
	CHECK_EQ(325, rig_stats(a).tombstones, 0);
	core_sweep_start(&a->core, a->core.changes.lost);
	core_import_begin(&b->core, shard_bit(recs[0].shard), false);
	sync(a, b);
	CHECK_EQ(326, core_import_end(&b->core, UINT64_MAX), 1);
	CHECK(327, same_tables(a, b));
	rig_free(a);
	rig_free(b);
}

/* Tracking stops while deletes wait in both queues. */
static void check_forget(void)
{
	struct rig *r = rig_tracking(1000);

	rig_in(r, LAN, &spec_udp);
	rig_in(r, LAN, &spec_echo);
	rig_drain(r, recs, 2);
	rig_sleep(r, 62);
	rig_drain(r, recs, 1);
	rig_sleep(r, 302);
	CHECK(50, rig_stats(r).tombstones == 2);
	core_track(&r->core, false);
	CHECK_EQ(51, rig_stats(r).tombstones, 0);
	CHECK_EQ(52, r->core.table.n_free, r->core.table.cap);
	core_track(&r->core, true);
	rig_in(r, LAN, &spec_udp);
	CHECK_EQ(53, rig_drain(r, recs, 1), 1);
	CHECK_EQ(54, recs[0].op, FP_OP_OPEN);
	rig_free(r);
}

static void check_bulk(void)
{
	struct rig *r = rig_new(0, 1, 1000);
	uint32_t n, opens = 0;

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	for (uint16_t i = 0; i < 10; i++)
		rig_connect(r, (uint16_t)(40001 + i));
	core_sweep_start(&r->core, UINT64_MAX);
	n = rig_drain(r, recs, 6);
	CHECK_EQ(60, n, 6);
	CHECK(61, recs[0].op == FP_OP_SWEEP && recs[0].id == UINT64_MAX && recs[0].version == 1);
	CHECK(56, recs[1].flags & FP_RF_BULK);
	rig_connect(r, 41001); /* a change goes before the rest of the walk */
	n = rig_drain(r, recs, RECS);
	CHECK_EQ(62, recs[0].flags & FP_RF_BULK, 0);
	CHECK_EQ(63, recs[0].inside_port, be16_of(41001).raw);
	for (uint32_t i = 0; i < n; i++)
		opens += recs[i].op == FP_OP_OPEN;
	CHECK_EQ(64, opens, 1 + 5); /* the change, and the rest; nothing twice */
	CHECK_EQ(65, recs[n - 1].op, FP_OP_SWEPT);
	CHECK_EQ(66, recs[n - 1].ev_seq, 6 + n);
	CHECK_EQ(67, rig_drain(r, recs, RECS), 0);
	/* An empty table: only the end. */
	rig_free(r);
	r = rig_active();
	core_sweep_start(&r->core, UINT64_MAX);
	CHECK_EQ(68, rig_drain(r, recs, RECS), 2);
	CHECK_EQ(69, recs[1].op, FP_OP_SWEPT);
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
	s = rig_data_from_server(tcp);
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
	CHECK_EQ(91, core_import_begin(&b->core, UINT64_MAX, false), -EPERM);
	CHECK_EQ(92, core_import_end(&b->core, UINT64_MAX), -EPERM);
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
		CHECK_EQ(112, core_import_begin(&old->core, UINT64_MAX, false), 0);
		core_sweep_start(&new->core, UINT64_MAX);
		sync(new, old);
		core_import_end(&old->core, UINT64_MAX);
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
	core_import_begin(&b->core, UINT64_MAX, false);
	core_sweep_start(&a->core, UINT64_MAX);
	sync(a, b);
	CHECK_EQ(131, rig_stats(b).flows, 20);
	CHECK_EQ(132, core_import_end(&b->core, UINT64_MAX), 10);
	CHECK(133, same_tables(a, b));
	CHECK_EQ(134, core_import_end(&b->core, UINT64_MAX), 0);
	/* Bulks that never end: what none of the last 255 brought is as stale as what the last one did not. */
	for (uint32_t i = 0; i < 256; i++)
		CHECK_EQ(135, core_import_begin(&b->core, UINT64_MAX, false), 0);
	CHECK_EQ(136, core_import_end(&b->core, UINT64_MAX), 10);
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

static int taken(struct rig *r, struct fp_flow_rec rec)
{
	return core_import(&r->core, &rec, 1, r->now_ns);
}

/* The peer has no use for what hangs on an address of ours alone, nor we for what hangs on its. */
static void check_own_addresses(void)
{
	struct rig *a = rig_tracking(1000), *b = rig_passive(1000);
	struct fp_flow_rec rec = tcp_record(a, 40001);

	rig_drain(a, recs, RECS);
	a->cfg.pools[0].survives = 0;
	rig_connect(a, 40003);
	core_sweep_start(&a->core, UINT64_MAX);
	CHECK_EQ(350, rig_drain(a, recs, RECS), 2);
	CHECK_EQ(351, recs[1].op, FP_OP_SWEPT);
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
	check_lost_shards();
	check_churn();
	check_never_told();
	check_whole_life();
	check_lazy();
	check_windows_follow();
	check_reopened();
	check_forget();
	check_bulk();
	check_takeover();
	check_hand_offs();
	check_sweep();
	check_import_delete();
	check_own_addresses();
	return check_done("transfer");
}
