/* SPDX-License-Identifier: Apache-2.0 */
/**
 * step.c - a burst of frames from rx to their verdicts
 *
 * Theory of operation
 *   Memory latency is the cost, so a burst is worked on in passes, each of which asks for the memory that
 *   the next one needs:
 *     prepare   Ethernet, IP and L4 headers, whose worker; the key and its hash     -> bucket
 *     match     tags of the bucket                                                  -> record
 *     act       session, next hop, translation; or what else the frame is
 *   What a session may take ("candidate") is looked up before anything else is asked about the packet:
 *   a frame with a session pays for nothing more. Whatever is not a candidate, or finds no session, goes
 *   the slow way through local.c, which can refuse it with the right reason, and admit.c, which says what
 *   session it may open.
 *   Frames act in the order of arrival, so the second packet of a session finds what the first one made.
 *
 *   Hairpin: a packet for an inside host that is known to its sender by an address of ours has two sessions, that
 *   of its sender, whose remote is our address, and that of its receiver. It is translated by the first, then
 *   begins anew as if it had come in by the outside port (V_AGAIN, FP_SRC_HAIRPIN), and is translated by the
 *   second, perhaps by another worker.
 *
 *   Output commit: a packet of a session that the peer does not have yet is put aside before it has changed
 *   anything (commit.h), and is stepped again, from the beginning, once the peer has it.
 */
#include "step.h"
#include "admit.h"
#include "conduit.h"
#include "csum.h"
#include "gso.h"
#include "icmp.h"
#include "local.h"
#include "nexthop.h"
#include "pkt.h"
#include "session.h"
#include "steer.h"
#include "tcptrack.h"

/* An error about the second half of a hairpin turns round once more. */
enum { TURNS_MAX = 2 };

uint32_t core_shard(const struct fp_config *cfg, const struct fp_addr *addr, be16 port, uint8_t proto)
{
	uint64_t w[3] = { u64_load(addr->b), u64_load(addr->b + 8),
			  (uint64_t)(be16_host(port) >> 1) << 8 | proto };

	return (uint32_t)hash_words3(hash_key_load(cfg->shard_key), w) & (FP_SHARDS - 1);
}

/* ---- pass 1: prepare ---- */

static HOT bool is_heartbeat(const struct core *c, const struct pkt *p)
{
	return unlikely(be16_host(p->dport) == c->cfg->pulse.udp_port) && p->proto == IPPROTO_NUM_UDP &&
	       p->dst.raw == addr_v4(&c->cfg->ports[p->frame->port].addr).raw;
}

/* Requests from outside to an address of ours are answered, whatever identifier they have. */
static bool is_echo_of_session(const struct core *c, const struct pkt *p, bool outside)
{
	return p->icmp_type == ICMP_ECHO_REPLY ||
	       (p->icmp_type == ICMP_ECHO_REQUEST &&
		(!outside || nat_pool_of_addr(&c->nat, p->dst) == NAT_POOL_NONE));
}

/* Fill in p->key if a session may take the packet. */
static HOT bool candidate_key(const struct core *c, struct pkt *p, uint32_t *shard)
{
	const struct steer s = { .src = p->src,
				 .dst = p->dst,
				 .sport = p->sport,
				 .dport = p->dport,
				 .proto = p->proto,
				 .outside = c->ports[p->frame->port].outside };

	if (p->proto == IPPROTO_NUM_ICMP && !is_echo_of_session(c, p, s.outside))
		return false;
	/* Heartbeats are not handed off: whichever worker reads them passes them on. */
	return !is_heartbeat(c, p) && steer_key(c, &s, &p->key, shard);
}

static uint32_t hand_off(struct fp_frame *frame, uint32_t owner)
{
	frame->out = FP_OUT_HANDOFF;
	frame->owner = (uint16_t)owner;
	return V_HANDOFF;
}

/* V_GO_ON once it is known what the first fragment of the datagram says. */
static COLD uint32_t prepare_fragment(struct core *c, struct pkt *p)
{
	const bool ports = p->proto == IPPROTO_NUM_TCP || p->proto == IPPROTO_NUM_UDP ||
			   p->proto == IPPROTO_NUM_ICMP;
	uint32_t verdict = local_ipv4(c, p, V_GO_ON), owner;

	if (verdict != V_GO_ON)
		return verdict;
	if (!ports) {
		p->frame->l4_known = 1;
		p->frame->l4_sport = p->frame->l4_dport = 0;
		return V_GO_ON;
	}
	owner = frag_shard(c->cfg, p) % c->cfg->n_workers;
	if (owner != c->worker)
		return hand_off(p->frame, owner);
	verdict = frag_take(&c->frags, p, !c->ports[p->frame->port].outside, c->now_ns, c->verdicts);
	if (verdict == V_FRAG_HELD)
		p->frame->out = FP_OUT_WAIT;
	return verdict;
}

/* Return: V_GO_ON when p->key is to be looked up. */
static HOT uint32_t prepare_ipv4(struct core *c, struct fp_frame *frame, struct pkt *p)
{
	uint32_t verdict = pkt_parse_ip(p, frame), l4, shard = 0, owner;

	if (verdict != V_GO_ON)
		return verdict;
	if (unlikely(p->fragment) && !frame->l4_known) {
		verdict = prepare_fragment(c, p);
		if (verdict != V_GO_ON)
			return verdict;
	}
	l4 = pkt_parse_l4(p);
	if (c->role != FP_ROLE_ACTIVE || p->options || l4 != V_GO_ON || !candidate_key(c, p, &shard)) {
		verdict = local_ipv4(c, p, l4);
		/* It refuses whatever is not a candidate, but for errors, whose session is in what they quote. */
		if (verdict == V_GO_ON)
			verdict = pkt_is_icmp_error(p) ? icmp_error_key(c, p, &shard) : V_NO_SESSION;
		if (verdict != V_GO_ON)
			return verdict;
	}
	owner = c->cfg->n_workers > 1 ? shard % c->cfg->n_workers : c->worker;
	return owner == c->worker ? (uint32_t)V_GO_ON : hand_off(frame, owner);
}

/* What came by no wire of ours: the second half of a hairpin, from the worker of the first; or by the conduit. */
static COLD uint32_t prepare_inner(struct core *c, struct fp_frame *frame, struct pkt *p)
{
	uint32_t verdict;

	if (frame->src == FP_SRC_HAIRPIN)
		return prepare_ipv4(c, frame, p);
	if (frame->len < ETH_LEN)
		return V_RUNT;
	if (frame->len > c->ports[frame->port].len_max)
		return V_OVERSIZED;
	if (be16_host(be16_load(frame->data + ETH_TYPE)) != ETHERTYPE_IPV4)
		return V_CONDUIT_MALFORMED;
	if (frame->src == FP_SRC_ACTIVE) {
		verdict = pkt_parse_ip(p, frame);
		return verdict == V_GO_ON ? conduit_send_for_active(c, p) : verdict;
	}
	if (unlikely(c->passes_on) &&
	    c->role != FP_ROLE_ACTIVE) { /* sent to us while we were: back, by the wire if there is one */
		if (!conduit_lends(c->conduit, frame->port))
			return local_pass_on(c, frame);
		verdict = pkt_parse_ip(p, frame);
		return verdict == V_GO_ON ? conduit_to_active(c, p) : verdict;
	}
	verdict = prepare_ipv4(c, frame, p);
	return verdict == V_NOT_ACTIVE ? (uint32_t)V_CONDUIT_NOT_ACTIVE : verdict; /* never twice */
}

static HOT uint32_t prepare(struct core *c, struct fp_frame *frame, struct pkt *p)
{
	const struct core_port *port = &c->ports[frame->port];
	enum mac_class to;
	uint32_t verdict;

	frame->out = FP_OUT_NONE;
	frame->out_port = frame->port;
	frame->fenced = 0;
	if (unlikely(frame->src >= FP_SRC_HAIRPIN))
		return prepare_inner(c, frame, p);
	if (frame->len < ETH_LEN)
		return V_RUNT;
	if (!gso_is_plain(frame) && !gso_check(frame))
		return V_VNET_MALFORMED;
	if (gso_wire_len(frame) > port->len_max)
		return V_OVERSIZED;
	if (frame->src == FP_SRC_HOST)
		return local_from_host(c, frame);
	if (mac_word(frame->data + ETH_SRC) == port->mac_word)
		return V_OWN_SOURCE;
	to = local_classify(port, frame);
	if (be16_host(be16_load(frame->data + ETH_TYPE)) != ETHERTYPE_IPV4 ||
	    (to != MAC_PORT &&
	     (to != MAC_VMAC || (c->role != FP_ROLE_ACTIVE && !conduit_takes_vmac(c->conduit, frame->port)))))
		return local_frame(c, frame, to);
	verdict = prepare_ipv4(c, frame, p);
	return unlikely(verdict == V_NOT_ACTIVE) ? conduit_to_active(c, p) : verdict;
}

/* ---- pass 3: act ---- */

static void update_partial(uint8_t *sum, uint32_t delta)
{
	be16_store(sum, csum_update_partial(be16_load(sum), delta));
}

static void decrement_ttl(const struct pkt *p)
{
	be16 ttl = be16_load(p->ip + IP_TTL), new_ttl = { (uint16_t)(ttl.raw - 1) };

	be16_store(p->ip + IP_TTL, new_ttl);
	be16_store(p->ip + IP_CSUM, csum_update(be16_load(p->ip + IP_CSUM), csum_delta16(ttl, new_ttl)));
}

/* Translate one end of the packet, take @hops from its TTL. Spec: RFC 1624, RFC 3022 section 4.1. */
static HOT void rewrite(const struct pkt *p, uint32_t side, be32 new_addr, be16 new_port, uint16_t hops)
{
	uint32_t addr_at = side == SIDE_OUT ? IP_SRC : IP_DST,
		 port_at = side == SIDE_OUT ? L4_SPORT : L4_DPORT;
	be32 old_addr = side == SIDE_OUT ? p->src : p->dst;
	be16 old_port = side == SIDE_OUT ? p->sport : p->dport, ttl = be16_load(p->ip + IP_TTL);
	uint32_t addr_delta = csum_delta32(old_addr, new_addr), port_delta = csum_delta16(old_port, new_port);
	uint32_t delta = addr_delta + port_delta;
	bool partial = p->frame->vnet.flags & FP_VNET_NEEDS_CSUM;
	be16 new_ttl;

	new_ttl.raw = (uint16_t)(ttl.raw - hops); /* TTL is the first byte of the word, the low one here */
	be16_store(p->ip + IP_TTL, new_ttl);
	be32_store(p->ip + addr_at, new_addr);
	be16_store(p->ip + IP_CSUM,
		   csum_update(be16_load(p->ip + IP_CSUM), addr_delta + csum_delta16(ttl, new_ttl)));
	if (unlikely(p->fragment)) {
		/* Whoever parses it again on its way finds what the first says now. */
		*(side == SIDE_OUT || p->proto == IPPROTO_NUM_ICMP ? &p->frame->l4_sport
								   : &p->frame->l4_dport) = new_port.raw;
		if (p->later) /* no header; the first one's checksum was changed for the whole datagram */
			return;
	}
	switch (p->proto) {
	case IPPROTO_NUM_TCP:
		be16_store(p->l4 + port_at, new_port);
		if (partial) /* the pseudo-header has no ports */
			update_partial(p->l4 + TCP_CSUM, addr_delta);
		else
			be16_store(p->l4 + TCP_CSUM, csum_update(be16_load(p->l4 + TCP_CSUM), delta));
		break;
	case IPPROTO_NUM_UDP:
		be16_store(p->l4 + port_at, new_port);
		if (partial)
			update_partial(p->l4 + UDP_CSUM, addr_delta);
		else
			be16_store(p->l4 + UDP_CSUM, csum_update_udp(be16_load(p->l4 + UDP_CSUM), delta));
		break;
	case IPPROTO_NUM_ICMP: /* has no pseudo-header */
		be16_store(p->l4 + ICMP_ID, new_port);
		be16_store(p->l4 + ICMP_CSUM, csum_update(be16_load(p->l4 + ICMP_CSUM), port_delta));
		break;
	default: break; /* without ports */
	}
}

/*
 * A SYN promises no more than fits both ports, so that neither end has to learn of the narrower one by an
 * error that may be lost. Only lowered, never added: without the option 536 holds (RFC 9293 section 3.7.1),
 * which fits any port. Options of other segments are not counted (RFC 6691 section 2).
 */
static COLD void clamp_mss(const struct core *c, const struct pkt *p, uint32_t out_port)
{
	enum { OPT_END = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_MSS_LEN = 4 };
	const uint32_t len_max = min_u32(c->ports[p->frame->port].len_max, c->ports[out_port].len_max);
	const uint32_t header = (uint32_t)(p->l4[TCP_OFF] >> 4) * 4;
	const be16 fits = be16_of((uint16_t)(len_max - (ETH_LEN + IPV4_LEN + TCP_LEN)));
	uint32_t at = TCP_LEN, delta;
	be16 old;

	while (at + OPT_MSS_LEN <= header && p->l4[at] != OPT_END &&
	       (p->l4[at] != OPT_MSS || p->l4[at + 1] != OPT_MSS_LEN)) {
		if (p->l4[at] != OPT_NOP && p->l4[at + 1] < 2)
			return; /* malformed: the endpoint's to judge */
		at += p->l4[at] == OPT_NOP ? 1 : p->l4[at + 1];
	}
	if (at + OPT_MSS_LEN > header || p->l4[at] == OPT_END)
		return;
	old = be16_load(p->l4 + at + 2);
	if (be16_host(old) <= be16_host(fits))
		return;
	be16_store(p->l4 + at + 2, fits);
	if (p->frame->vnet.flags & FP_VNET_NEEDS_CSUM) /* the pseudo-header has no options */
		return;
	/* At an odd place the sum sees it with its bytes swapped (RFC 1071 section 2). */
	delta = at % 2 == 0 ? csum_delta16(old, fits) : csum_delta16(be16_of(old.raw), be16_of(fits.raw));
	be16_store(p->l4 + TCP_CSUM, csum_update(be16_load(p->l4 + TCP_CSUM), delta));
}

/* Of echo the opener sends the requests, the other side the replies. */
static bool is_in_turn(const struct pkt *p, const struct flow_hot *f, uint32_t side)
{
	return p->icmp_type == (side == session_opener(f) ? ICMP_ECHO_REQUEST : ICMP_ECHO_REPLY);
}

/* A session of the same endpoints, which the peer does not know yet. */
static COLD uint32_t reopen(struct core *c, const struct pkt *p, uint32_t idx)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;

	if (commit_refuses(c, f))
		return V_HOLD_FULL;
	session_reopen(c, idx, p);
	return f->flags & FP_RF_HELD ? commit_hold(c, p->frame, idx) : (uint32_t)V_GO_ON;
}

/* Move the state by a packet of a known session; @idx may get a new identity. */
static HOT uint32_t track(struct core *c, const struct pkt *p, uint32_t idx, uint32_t side)
{
	/* in the order of enum tcptrack_result */
	static const uint16_t drops[] = { V_TCP_STATE, V_TCP_WINDOW, V_TCP_RST_WINDOW };
	struct flow_hot *f = &c->table.rec[idx].hot;
	const struct session_was was = session_was(f);
	enum tcptrack_result result;
	uint32_t timeout;

	if (unlikely(p->later))
		return V_GO_ON;
	if (p->proto != IPPROTO_NUM_TCP) {
		if (p->proto == IPPROTO_NUM_ICMP && !is_in_turn(p, f, side))
			return V_ICMP_TYPE;
		if (likely(f->state != FP_ST_NEW) || side == session_opener(f))
			return V_GO_ON;
		f->state = FP_ST_ESTABLISHED;
		session_changed(c, idx, was, false);
		return V_GO_ON;
	}
	/* A damaged segment must not move a state; for the rest the endpoints' check is enough. */
	if ((p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) && !pkt_l4_csum_ok(p))
		return V_L4_CHECKSUM;
	timeout = session_timeout(c, f);
	result = tcptrack_segment(f, &c->table.rec[idx].cold, side, p, &c->tcp);
	if (likely(result == TCPTRACK_PASS))
		return V_GO_ON;
	if (result >= TCPTRACK_DROP)
		return drops[result - TCPTRACK_DROP];
	if (result == TCPTRACK_REOPEN)
		return reopen(c, p, idx);
	session_moved(c, idx, was, timeout);
	return V_GO_ON;
}

/* Count and translate. */
static HOT void translate(struct core *c, const struct pkt *p, uint32_t idx, uint32_t side, uint16_t hops)
{
	const struct flow_hot *f = &c->table.rec[idx].hot;
	struct flow_cold *cold = &c->table.rec[idx].cold;

	cold->packets[side]++;
	cold->bytes[side] += p->ip_len;
	p->frame->len = ETH_LEN + p->ip_len; /* without padding of the link it came from */
	if (unlikely(f->form == FP_FORM_NONE))
		decrement_ttl(p);
	else if (side == SIDE_OUT)
		rewrite(p, side, c->nat.pools[f->pool].v4, f->external_port, hops);
	else
		rewrite(p, side, addr_v4(&f->inside), f->inside_port, hops);
}

/* What a packet of a session is called in the end. */
static HOT uint32_t passed(const struct fp_frame *frame, const struct flow_hot *f, uint32_t side)
{
	if (unlikely(f->form == FP_FORM_NONE))
		return V_ROUTED;
	if (side == SIDE_OUT)
		return V_SNAT;
	return unlikely(frame->src == FP_SRC_HAIRPIN) ? V_HAIRPIN : V_REVERSE;
}

/*
 * What is cut on its way out (port_tx()) must not have the identification of another host's, that hides behind the
 * same address. Spec: RFC 7857 section 10, RFC 6864 section 5.3.1.
 */
static COLD void rename_what_is_cut(struct core *c, const struct pkt *p, const struct nexthop *nh)
{
	const uint32_t len = p->frame->vnet.gso_type ? gso_wire_len(p->frame) : (uint32_t)ETH_LEN + p->ip_len;

	if (!p->fragment && len > c->ports[nh->port].len_max && ip_cut_may(p->ip))
		frag_rename(&c->frags, p);
}

/* Count, translate, send. */
static HOT uint32_t forward(struct core *c, struct pkt *p, uint32_t idx, uint32_t side,
			    const struct nexthop *nh)
{
	if (unlikely(p->tcp_flags & TCP_SYN))
		clamp_mss(c, p, nh->port);
	if (unlikely((uint32_t)ETH_LEN + p->ip_len > c->ports[nh->port].len_max) &&
	    c->table.rec[idx].hot.form != FP_FORM_NONE &&
	    (side == SIDE_OUT || p->frame->src == FP_SRC_HAIRPIN))
		rename_what_is_cut(c, p, nh);
	translate(c, p, idx, side, 1);
	return nexthop_send(c, p->frame, nh, passed(p->frame, &c->table.rec[idx].hot, side));
}

/* The way out of the first half of a hairpin: both halves together are one hop. */
static COLD uint32_t turn_round(struct core *c, struct pkt *p, uint32_t idx)
{
	translate(c, p, idx, SIDE_OUT, 0);
	return nexthop_again(c, p->frame, &c->table.rec[idx].hot);
}

static HOT uint32_t session_packet(struct core *c, struct pkt *p, uint32_t idx, uint32_t side)
{
	struct flow_hot *f = &c->table.rec[idx].hot;
	/* One test for all that is rare. */
	const bool plain = f->form != FP_FORM_NONE && !(f->flags & (FP_RF_HAIRPIN | FP_RF_HELD));
	const bool again = unlikely(!plain) && side == SIDE_OUT && (f->flags & FP_RF_HAIRPIN);
	struct nexthop nh = { .port = p->frame->port };
	uint32_t verdict = V_GO_ON;

	/* All that can refuse the packet comes before what it changes. */
	if (unlikely(!plain || c->n_inside > 1)) {
		verdict = nexthop_from(c, p->frame, f, side);
		if (verdict == V_GO_ON && f->flags & FP_RF_HELD)
			verdict = commit_hold(c, p->frame, idx);
	}
	if (likely(verdict == V_GO_ON && !again))
		verdict = nexthop_flow(c, idx, side, &nh);
	if (likely(verdict == V_GO_ON))
		verdict = icmp_check_egress(c, p, &nh);
	if (likely(verdict == V_GO_ON))
		verdict = track(c, p, idx, side);
	if (unlikely(verdict != V_GO_ON))
		return verdict;
	if (likely(!(p->tcp_flags & TCP_RST))) /* RFC 7857 section 7.1: an RST refreshes nothing */
		session_touch(c, f);
	return unlikely(again) ? turn_round(c, p, idx) : forward(c, p, idx, side, &nh);
}

static __attribute__((noinline)) uint32_t first_packet(struct core *c, struct pkt *p)
{
	uint32_t verdict = local_ipv4(c, p, V_GO_ON), entry;
	struct nexthop nh;

	if (verdict == V_GO_ON)
		verdict = p->later ? (uint32_t)V_FRAG_NO_SESSION : admit_packet(c, p, &entry, &nh);
	if (verdict != V_GO_ON)
		return verdict;
	if (c->table.rec[entry >> 1].hot.flags & FP_RF_HELD)
		return commit_hold(c, p->frame, entry >> 1);
	if ((entry & 1) == SIDE_OUT && c->table.rec[entry >> 1].hot.flags & FP_RF_HAIRPIN)
		return turn_round(c, p, entry >> 1);
	return forward(c, p, entry >> 1, entry & 1, &nh);
}

static HOT uint32_t act(struct core *c, struct pkt *p)
{
	uint32_t entry = p->entry;

	if (p->proto == IPPROTO_NUM_TCP && unlikely(!tcptrack_flags_ok(p->tcp_flags)))
		return V_TCP_FLAGS;
	/* The guess is wrong when the tag agreed by chance, or when this burst has changed the table. */
	if (unlikely(!entry || !flow_matches(&c->table, entry, &p->key)))
		entry = flow_find(&c->table, &c->hash, &p->key, p->hash);
	if (unlikely(pkt_is_icmp_error(p)))
		return icmp_error_forward(c, p, entry);
	if (likely(entry))
		return session_packet(c, p, entry >> 1, entry & 1);
	return first_packet(c, p);
}

/* The second half of a hairpin, if it is ours: see above. What comes from outside never turns round. */
static COLD uint32_t act_again(struct core *c, struct pkt *p)
{
	uint32_t verdict = V_AGAIN;

	for (uint32_t turn = 0; turn < TURNS_MAX && verdict == V_AGAIN; turn++) {
		p->frame->out_port = p->frame->port;
		verdict = prepare_ipv4(c, p->frame, p);
		if (verdict != V_GO_ON)
			break;
		p->hash = flow_hash(&c->table, &p->key);
		p->entry = 0;
		verdict = act(c, p);
	}
	FP_ASSERT(verdict != V_AGAIN);
	return verdict;
}

/* ---- the burst ---- */

static void step_burst(struct core *c, struct fp_frame *frames, uint32_t n)
{
	struct pkt pkts[FP_BURST_MAX];
	uint32_t n_pkts = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct pkt *p = &pkts[n_pkts];
		uint32_t verdict = prepare(c, &frames[i], p);

		frames[i].verdict = (uint16_t)verdict;
		if (verdict != V_GO_ON)
			continue;
		p->hash = flow_hash(&c->table, &p->key);
		hash_prefetch(&c->hash, p->hash);
		n_pkts++;
	}
	counter_add(&c->stat.lookups, n_pkts);
	for (uint32_t i = 0; i < n_pkts; i++)
		pkts[i].entry = flow_candidate(&c->hash, pkts[i].hash);
	/* In a loop of its own: so short that all of its loads are under way at the same time. */
	for (uint32_t i = 0; i < n_pkts; i++)
		flow_touch(&c->table, pkts[i].entry);
	for (uint32_t i = 0; i < n_pkts; i++) {
		uint32_t verdict = act(c, &pkts[i]);

		if (unlikely(verdict == V_AGAIN))
			verdict = act_again(c, &pkts[i]);
		pkts[i].frame->verdict = (uint16_t)verdict;
	}
}

void core_step(struct core *c, struct fp_frame *frames, uint32_t n, uint64_t now_ns)
{
	c->now_ns = now_ns;
	c->tcp.settled = now_ns - c->active_since_ns >= c->cfg->tcp_lenient_s * NS_PER_S;
	for (uint32_t i = 0; i < n; i += FP_BURST_MAX)
		step_burst(c, frames + i, min_u32(n - i, FP_BURST_MAX));
	counter_add(&c->stat.steps, 1);
	counter_add(&c->stat.frames, n);
}

void core_account(struct core *c, const struct fp_frame *frames, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		FP_ASSERT(frames[i].verdict < V_COUNT);
		counter_add(&c->verdicts[frames[i].verdict], 1);
	}
}
