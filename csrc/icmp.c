/* SPDX-License-Identifier: Apache-2.0 */
/**
 * icmp.c - ICMP errors: those of others translated, our own made
 */
#include "icmp.h"
#include "csum.h"
#include "local.h"
#include "session.h"
#include "steer.h"

enum {
	QUOTE_L4_MIN = 8, /* RFC 792: what is quoted of TCP, UDP or ICMP at least */
	ICMP_MTU = 6,     /* offset of the next-hop MTU (RFC 1191) */
	ICMP_TTL = 64,
	ICMP_TOS = 0xc0, /* precedence: internetwork control (RFC 1812 section 4.3.2.5) */
	CODE_TTL_IN_TRANSIT = 0,
	CODE_FRAG_NEEDED = 4,
	CODE_PROHIBITED = 13 /* RFC 1812 section 5.2.7.1 */
};

/* ---- what is quoted ---- */

/*
 * A quoted packet: at least QUOTE_L4_MIN bytes of l4, if it has ports. Ports as in struct pkt; l4_len counts
 * neither padding nor extensions behind the quote (RFC 4884), so that no checksum is looked for in them.
 */
struct quote {
	uint8_t *ip, *l4;
	uint32_t l4_len;
	be32 src, dst;
	be16 sport, dport;
	uint8_t proto;
};

/*
 * Options are stepped over (RFC 5508 REQ-3 b). The quoted transport checksum is not verified (REQ-3 c): it is
 * rarely there, and never covers what was cut off. A later fragment names no ports.
 */
static bool parse_quote(const struct pkt *p, struct quote *q)
{
	uint32_t room = p->l4_len - (uint32_t)ICMP_LEN, ihl, total;
	uint8_t *ip = p->l4 + ICMP_LEN;
	bool portless;

	if (room < IPV4_LEN)
		return false;
	portless = !nat_has_ports(ip[IP_PROTO]);
	ihl = (uint32_t)(ip[0] & 0xf) * 4;
	total = be16_host(be16_load(ip + IP_TOTAL));
	room = min_u32(room, total);
	if (ip[0] >> 4 != 4 || ihl < IPV4_LEN || room < ihl + (portless ? 0 : QUOTE_L4_MIN) ||
	    csum_fold(csum_ipv4_header(ip, ihl)) != 0xffff ||
	    (!portless && (be16_host(be16_load(ip + IP_FRAG)) & 0x1fff) != 0))
		return false;
	*q = (struct quote){ .ip = ip,
			     .l4 = ip + ihl,
			     .l4_len = room - ihl,
			     .src = be32_load(ip + IP_SRC),
			     .dst = be32_load(ip + IP_DST),
			     .proto = ip[IP_PROTO] };
	if (q->proto == IPPROTO_NUM_ICMP) {
		q->sport = q->dport = be16_load(q->l4 + ICMP_ID);
	} else if (!portless) {
		q->sport = be16_load(q->l4 + L4_SPORT);
		q->dport = be16_load(q->l4 + L4_DPORT);
	}
	return true;
}

/* Of ICMP only echo has sessions. */
static bool has_session(const struct quote *q)
{
	return q->proto != IPPROTO_NUM_ICMP || q->l4[ICMP_TYPE] == ICMP_ECHO_REQUEST ||
	       q->l4[ICMP_TYPE] == ICMP_ECHO_REPLY;
}

bool icmp_error_is_nat(const struct core *c, const struct pkt *p)
{
	struct quote q;
	uint32_t pool;

	if (!parse_quote(p, &q))
		return false;
	pool = nat_pool_of_addr(&c->nat, q.src);
	return pool != NAT_POOL_NONE &&
	       (nat_pool_of_v4(&c->nat, q.src, q.sport) != NAT_POOL_NONE ||
		policy_reserves(c->policy, (uint8_t)pool, be16_host(q.sport), q.proto));
}

uint32_t icmp_error_key(const struct core *c, struct pkt *p, uint32_t *shard)
{
	struct steer back;
	struct quote q;

	FP_ASSERT(pkt_is_icmp_error(p));
	if (!pkt_l4_csum_ok(p))
		return V_L4_CHECKSUM;
	/* An error goes to the sender of what it quotes; any other quote is made up. */
	if (!parse_quote(p, &q) || q.src.raw != p->dst.raw)
		return V_ICMP_ERROR_BAD;
	if (!has_session(&q))
		return V_ICMP_ERROR_NO_SESSION;
	/* Its session is that of an answer to what it quotes, which would come the way the error came. */
	back = (struct steer){ .src = q.dst,
			       .dst = q.src,
			       .sport = q.dport,
			       .dport = q.sport,
			       .proto = q.proto,
			       .outside = c->ports[p->frame->port].outside };
	return steer_key(c, &back, &p->key, shard) ? V_GO_ON : V_ICMP_ERROR_NO_SESSION;
}

/* ---- translation ---- */

/* One end of the quoted packet. Its TTL stays: it tells where the packet died. */
static void rewrite_quote(const struct quote *q, uint32_t side, be32 new_addr, be16 new_port)
{
	/* The quoted packet travelled against the error: inbound errors quote what was outbound. */
	uint32_t addr_at = side == SIDE_IN ? IP_SRC : IP_DST, port_at = side == SIDE_IN ? L4_SPORT : L4_DPORT;
	be32 old_addr = side == SIDE_IN ? q->src : q->dst;
	be16 old_port = side == SIDE_IN ? q->sport : q->dport;
	uint32_t addr_delta = csum_delta32(old_addr, new_addr), port_delta = csum_delta16(old_port, new_port);
	uint8_t *l4 = q->l4;

	be32_store(q->ip + addr_at, new_addr);
	be16_store(q->ip + IP_CSUM, csum_update(be16_load(q->ip + IP_CSUM), addr_delta));
	switch (q->proto) {
	case IPPROTO_NUM_TCP:
		be16_store(l4 + port_at, new_port);
		if (q->l4_len >= TCP_CSUM + sizeof(be16))
			be16_store(l4 + TCP_CSUM,
				   csum_update(be16_load(l4 + TCP_CSUM), addr_delta + port_delta));
		break;
	case IPPROTO_NUM_UDP:
		be16_store(l4 + port_at, new_port);
		be16_store(l4 + UDP_CSUM, csum_update_udp(be16_load(l4 + UDP_CSUM), addr_delta + port_delta));
		break;
	case IPPROTO_NUM_ICMP:
		be16_store(l4 + ICMP_ID, new_port);
		be16_store(l4 + ICMP_CSUM, csum_update(be16_load(l4 + ICMP_CSUM), port_delta));
		break;
	default: break; /* without ports: nothing of it covers the addresses */
	}
}

static be16 whole_csum(const uint8_t *data, uint32_t len)
{
	return (be16){ (uint16_t)~csum_fold(csum_sum(data, len)) };
}

/* The outer header, and the quote, as the far side of a translated session knows them. */
static void translate(struct core *c, const struct pkt *p, const struct quote *q, const struct flow_hot *f,
		      uint32_t side)
{
	const be32 addr = side == SIDE_IN ? addr_v4(&f->inside) : c->nat.pools[f->pool].v4;

	rewrite_quote(q, side, addr, side == SIDE_IN ? f->inside_port : f->external_port);
	/* From inside, whichever host or router complains: it has no other address out there (REQ-5). */
	be32_store(p->ip + (side == SIDE_IN ? IP_DST : IP_SRC), addr);
}

/* Is what is quoted a packet that the session may have had that way? Its opener asks, the other side answers. */
static bool fits_session(const struct quote *q, const struct flow_hot *f, uint32_t side)
{
	const bool of_opener = side != session_opener(f);

	return q->proto != IPPROTO_NUM_ICMP ||
	       q->l4[ICMP_TYPE] == (of_opener ? ICMP_ECHO_REQUEST : ICMP_ECHO_REPLY);
}

uint32_t icmp_error_forward(struct core *c, struct pkt *p, uint32_t entry)
{
	uint32_t idx = entry >> 1, side = entry & 1, verdict;
	const struct flow_hot *f = &c->table.rec[idx].hot;
	const bool again = side == SIDE_OUT && f->flags & FP_RF_HAIRPIN; /* REQ-7 */
	struct nexthop nh = { .port = p->frame->port };
	struct quote q;

	if (!entry)
		return V_ICMP_ERROR_NO_SESSION;
	FP_ASSERT(parse_quote(p, &q));
	if (!fits_session(&q, f, side))
		return V_ICMP_ERROR_NO_SESSION;
	verdict = nexthop_from(c, p->frame, f, side);
	if (verdict == V_GO_ON && f->flags & FP_RF_HELD) /* it says that the session is there */
		verdict = commit_hold(c, p->frame, idx);
	if (verdict == V_GO_ON && !again)
		verdict = nexthop_flow(c, idx, side, &nh);
	if (verdict == V_GO_ON)
		verdict = nexthop_fits(c, p, &nh); /* no error about an error: RFC 1812 section 4.3.2.7 */
	if (verdict != V_GO_ON)
		return verdict;
	if (f->form != FP_FORM_NONE)
		translate(c, p, &q, f, side);
	p->ip[IP_TTL] -= !again;
	be16_store(p->ip + IP_CSUM, be16_of(0));
	be16_store(p->ip + IP_CSUM, whole_csum(p->ip, IPV4_LEN));
	be16_store(p->l4 + ICMP_CSUM, be16_of(0));
	be16_store(p->l4 + ICMP_CSUM, whole_csum(p->l4, p->l4_len));
	p->frame->len = ETH_LEN + p->ip_len;
	if (again)
		return nexthop_again(c, p->frame, f);
	return nexthop_send(c, p->frame, &nh, side == SIDE_IN ? V_ICMP_ERROR_IN : V_ICMP_ERROR_OUT);
}

/* ---- our own ---- */

/*
 * A token bucket in one word: icmp_due_ns is when the bucket will be full again, each error moves it on by the
 * time of one token, and it may not be more than a full bucket ahead.
 */
bool icmp_take_token(struct core *c, const struct pkt *p)
{
	const bool inside = p->frame->src == FP_SRC_HAIRPIN || !c->ports[p->frame->port].outside;
	const uint64_t token_ns = NS_PER_S / ICMP_RATE_PER_S;
	uint64_t *due_ns = &c->icmp_due_ns[!inside], due = max_u64(*due_ns, c->now_ns) + token_ns;

	if (due > c->now_ns + ICMP_BURST * token_ns)
		return false;
	*due_ns = due;
	return true;
}

/*
 * The address of the interface that the packet came in by, which is the one that the error leaves by (RFC
 * 1812 section 4.3.2.4). The VIP, because it is the gateway that hosts know, and because the path must look
 * the same whichever node is ACTIVE; the node's own where there is none.
 */
static be32 answer_from(const struct core *c, uint32_t port)
{
	const struct fp_port_cfg *cfg = &c->cfg->ports[port];

	return addr_v4(cfg->n_vips ? &cfg->vip[0] : &cfg->addr);
}

/* Put the error before the packet's first bytes. Sent as atomic datagram: no fragments, no identification. */
static void write_error(const struct core *c, struct pkt *p, uint16_t type_code, uint16_t mtu)
{
	enum { HEADERS = IPV4_LEN + ICMP_LEN };
	uint32_t quoted = min_u32(p->ip_len, ICMP_ERROR_LEN_MAX - HEADERS);
	uint8_t *ip = p->ip, *icmp = ip + IPV4_LEN;

	memmove(ip + HEADERS, ip, quoted);
	memset(ip, 0, HEADERS);
	ip[0] = 0x45;
	ip[1] = ICMP_TOS;
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)(HEADERS + quoted)));
	be16_store(ip + IP_FRAG, be16_of(IP_DF));
	ip[IP_TTL] = ICMP_TTL;
	ip[IP_PROTO] = IPPROTO_NUM_ICMP;
	be32_store(ip + IP_SRC, answer_from(c, p->frame->port));
	be32_store(ip + IP_DST, p->src);
	be16_store(ip + IP_CSUM, whole_csum(ip, IPV4_LEN));
	be16_store(icmp + ICMP_TYPE, be16_of(type_code));
	be16_store(icmp + ICMP_MTU, be16_of(mtu));
	be16_store(icmp + ICMP_CSUM, whole_csum(icmp, ICMP_LEN + quoted));
	p->frame->len = ETH_LEN + HEADERS + quoted;
	p->frame->vnet = (struct fp_vnet){ 0 };
}

bool icmp_may_answer(const struct core *c, const struct pkt *p, struct nexthop *back)
{
	struct fp_addr src = addr_from_v4(p->src);
	uint32_t port = p->frame->port;

	return !local_is_subnet(c, p->src) && !local_is_subnet(c, p->dst) &&
	       nexthop_find(c, &src, back) == V_GO_ON && back->port == port;
}

/* Answer @p, if its sender may be told; @silent is the verdict if not. */
static uint32_t tell(struct core *c, struct pkt *p, uint16_t type_code, uint16_t mtu, uint32_t verdict,
		     uint32_t silent)
{
	const bool again = p->frame->src == FP_SRC_HAIRPIN;
	struct nexthop back;

	if (p->later) /* RFC 1812 section 4.3.2.7 */
		return silent;
	if (!again && !icmp_may_answer(c, p, &back))
		return silent;
	if (!icmp_take_token(c, p))
		return V_ICMP_LIMITED;
	write_error(c, p, type_code, mtu);
	/* The sender is known to the session of the first half: to it the error is one from outside. */
	return again ? V_AGAIN : nexthop_send(c, p->frame, &back, verdict);
}

uint32_t icmp_refuse(struct core *c, struct pkt *p, const struct nexthop *nh, uint32_t reason)
{
	if (reason == V_TTL_EXPIRED)
		return tell(c, p, ICMP_TIME_EXCEEDED << 8 | CODE_TTL_IN_TRANSIT, 0, V_TTL_EXCEEDED_SENT,
			    reason);
	if (!(be16_host(be16_load(p->ip + IP_FRAG)) & IP_DF))
		return reason;
	return tell(c, p, ICMP_UNREACHABLE << 8 | CODE_FRAG_NEEDED,
		    (uint16_t)(c->ports[nh->port].len_max - ETH_LEN), V_FRAG_NEEDED_SENT, reason);
}

uint32_t icmp_prohibit(struct core *c, struct pkt *p)
{
	return tell(c, p, ICMP_UNREACHABLE << 8 | CODE_PROHIBITED, 0, V_REJECTED_ICMP, V_RULE_DENIED);
}

/* The same reason, with an answer. */
static uint32_t told(uint32_t reason)
{
	switch (reason) {
	case V_TABLE_FULL: return V_TABLE_FULL_SENT;
	case V_PORTS_EXHAUSTED: return V_PORTS_EXHAUSTED_SENT;
	case V_SOURCE_LIMIT: return V_SOURCE_LIMIT_SENT;
	case V_PORT_LIMIT: return V_PORT_LIMIT_SENT;
	default: FP_ASSERT(reason == V_ENDPOINT_TAKEN); return V_ENDPOINT_TAKEN_SENT;
	}
}

uint32_t icmp_no_room(struct core *c, struct pkt *p, uint32_t reason)
{
	uint32_t verdict;

	if (c->ports[p->frame->port].outside)
		return reason;
	verdict = tell(c, p, ICMP_UNREACHABLE << 8 | CODE_PROHIBITED, 0, told(reason), reason);
	return verdict == V_ICMP_LIMITED ? reason : verdict;
}
