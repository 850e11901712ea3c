/* SPDX-License-Identifier: Apache-2.0 */
/**
 * icmp.c - ICMP errors: those of others translated, our own made
 */
#include "icmp.h"
#include "csum.h"

enum {
	QUOTE_L4_MIN = 8, /* RFC 792: what is quoted of TCP, UDP or ICMP at least */
	ICMP_MTU = 6,     /* offset of the next-hop MTU (RFC 1191) */
	ICMP_TTL = 64,
	ICMP_TOS = 0xc0, /* precedence: internetwork control (RFC 1812 section 4.3.2.5) */
	CODE_TTL_IN_TRANSIT = 0,
	CODE_FRAG_NEEDED = 4
};

/* ---- what is quoted ---- */

/*
 * A quoted packet: at least QUOTE_L4_MIN bytes of l4. Ports as in struct pkt; l4_len counts neither padding
 * nor extensions behind the quote (RFC 4884), so that no checksum is looked for in them.
 */
struct quote {
	uint8_t *ip, *l4;
	uint32_t l4_len;
	be32 src, dst;
	be16 sport, dport;
};

/*
 * Options are stepped over (RFC 5508 REQ-3 b). The quoted transport checksum is not verified (REQ-3 c): it is
 * rarely there, and never covers what was cut off. A later fragment names no ports.
 */
static bool parse_quote(const struct pkt *p, struct quote *q)
{
	uint32_t room = p->l4_len - (uint32_t)ICMP_LEN, ihl, total;
	uint8_t *ip = p->l4 + ICMP_LEN;

	if (room < IPV4_LEN + QUOTE_L4_MIN)
		return false;
	ihl = (uint32_t)(ip[0] & 0xf) * 4;
	total = be16_host(be16_load(ip + IP_TOTAL));
	room = min_u32(room, total);
	if (ip[0] >> 4 != 4 || ihl < IPV4_LEN || room < ihl + QUOTE_L4_MIN ||
	    csum_fold(csum_ipv4_header(ip, ihl)) != 0xffff ||
	    (be16_host(be16_load(ip + IP_FRAG)) & 0x1fff) != 0)
		return false;
	*q = (struct quote){ .ip = ip,
			     .l4 = ip + ihl,
			     .l4_len = room - ihl,
			     .src = be32_load(ip + IP_SRC),
			     .dst = be32_load(ip + IP_DST) };
	if (ip[IP_PROTO] == IPPROTO_NUM_ICMP) {
		q->sport = q->dport = be16_load(q->l4 + ICMP_ID);
	} else {
		q->sport = be16_load(q->l4 + L4_SPORT);
		q->dport = be16_load(q->l4 + L4_DPORT);
	}
	return true;
}

/* Is it of a kind that has sessions? Of queries only what a session sends the way the quote travelled. */
static bool has_session(const struct quote *q, bool outbound)
{
	switch (q->ip[IP_PROTO]) {
	case IPPROTO_NUM_TCP:
	case IPPROTO_NUM_UDP: return true;
	case IPPROTO_NUM_ICMP: return q->l4[ICMP_TYPE] == (outbound ? ICMP_ECHO_REQUEST : ICMP_ECHO_REPLY);
	default: return false;
	}
}

uint32_t icmp_error_key(const struct core *c, struct pkt *p, uint32_t *shard)
{
	bool outside = c->ports[p->frame->port].outside;
	be16 none = be16_of(0);
	struct quote q;
	uint8_t proto;
	uint32_t pool;

	FP_ASSERT(pkt_is_icmp_error(p));
	if (!pkt_l4_csum_ok(p))
		return V_L4_CHECKSUM;
	/* An error goes to the sender of what it quotes; any other quote is made up. */
	if (!parse_quote(p, &q) || q.src.raw != p->dst.raw)
		return V_ICMP_ERROR_BAD;
	if (!has_session(&q, outside))
		return V_ICMP_ERROR_NO_SESSION;
	proto = q.ip[IP_PROTO];
	if (!outside) {
		flow_key_out(p->key.w, q.dst, q.dport, q.src, proto == IPPROTO_NUM_ICMP ? none : q.sport,
			     proto);
		*shard = core_shard(c->cfg, &p->key.a, q.dport, proto);
		return V_GO_ON;
	}
	pool = nat_pool_of_v4(&c->nat, q.src, q.sport);
	if (pool == NAT_POOL_NONE)
		return V_ICMP_ERROR_NO_SESSION;
	flow_key_in(p->key.w, pool, q.sport, q.dst, proto == IPPROTO_NUM_ICMP ? none : q.dport, proto);
	*shard = nat_port_shard(be16_host(q.sport));
	return V_GO_ON;
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
	switch (q->ip[IP_PROTO]) {
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
	default:
		be16_store(l4 + ICMP_ID, new_port);
		be16_store(l4 + ICMP_CSUM, csum_update(be16_load(l4 + ICMP_CSUM), port_delta));
	}
}

static be16 whole_csum(const uint8_t *data, uint32_t len)
{
	return (be16){ (uint16_t)~csum_fold(csum_sum(data, len)) };
}

uint32_t icmp_error_forward(struct core *c, struct pkt *p, uint32_t entry)
{
	uint32_t idx = entry >> 1, side = entry & 1, verdict;
	const struct flow_hot *f = &c->table.rec[idx].hot;
	struct nexthop nh;
	struct quote q;
	be32 addr;

	if (!entry)
		return V_ICMP_ERROR_NO_SESSION;
	verdict = nexthop_flow(c, idx, side, &nh);
	if (verdict == V_GO_ON)
		verdict = nexthop_fits(c, p, &nh); /* no error about an error: RFC 1812 section 4.3.2.7 */
	if (verdict != V_GO_ON)
		return verdict;
	FP_ASSERT(parse_quote(p, &q));
	addr = side == SIDE_IN ? addr_v4(&f->inside) : c->nat.pools[f->pool].v4;
	rewrite_quote(&q, side, addr, side == SIDE_IN ? f->inside_port : f->external_port);
	/* From inside, whichever host or router complains: it has no other address out there (REQ-5). */
	be32_store(p->ip + (side == SIDE_IN ? IP_DST : IP_SRC), addr);
	p->ip[IP_TTL]--;
	be16_store(p->ip + IP_CSUM, be16_of(0));
	be16_store(p->ip + IP_CSUM, whole_csum(p->ip, IPV4_LEN));
	be16_store(p->l4 + ICMP_CSUM, be16_of(0));
	be16_store(p->l4 + ICMP_CSUM, whole_csum(p->l4, p->l4_len));
	p->frame->len = ETH_LEN + p->ip_len;
	return nexthop_send(c, p->frame, &nh, side == SIDE_IN ? V_ICMP_ERROR_IN : V_ICMP_ERROR_OUT);
}

/* ---- our own ---- */

/* First or last address of a port's prefix: the whole subnet's, not a host's (RFC 1812 section 4.2.3.1). */
static bool is_subnet(const struct core *c, be32 v4)
{
	for (uint32_t i = 0; i < c->cfg->n_ports; i++) {
		const struct fp_port_cfg *port = &c->cfg->ports[i];
		uint32_t hosts = port->plen < 32 ? UINT32_MAX >> port->plen : 0;
		uint32_t addr = be32_host(v4), own = be32_host(addr_v4(&port->addr));

		/* A /31 or /32 has hosts only (RFC 3021). */
		if (hosts > 1 && ((addr ^ own) & ~hosts) == 0 &&
		    ((addr & hosts) == 0 || (addr & hosts) == hosts))
			return true;
	}
	return false;
}

/*
 * Token bucket in one word: icmp_due_ns is when the bucket will be full again, each error moves it on by the
 * time of one token, and it may not be more than a full bucket ahead.
 */
static bool take_token(struct core *c)
{
	const uint64_t token_ns = NS_PER_S / ICMP_RATE_PER_S;
	uint64_t due = max_u64(c->icmp_due_ns, c->now_ns) + token_ns;

	if (due > c->now_ns + ICMP_BURST * token_ns)
		return false;
	c->icmp_due_ns = due;
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

uint32_t icmp_refuse(struct core *c, struct pkt *p, const struct nexthop *nh, uint32_t reason)
{
	struct fp_addr src = addr_from_v4(p->src);
	uint32_t port = p->frame->port;
	struct nexthop back;

	if (p->later) /* RFC 1812 section 4.3.2.7 */
		return reason;
	if (reason == V_TOO_BIG && !(be16_host(be16_load(p->ip + IP_FRAG)) & IP_DF))
		return reason;
	if (is_subnet(c, p->src) || is_subnet(c, p->dst) ||
	    nexthop_route(c, &src, c->ports[port].outside, reason, &back) != V_GO_ON || back.port != port)
		return reason;
	if (!take_token(c))
		return V_ICMP_LIMITED;
	if (reason == V_TTL_EXPIRED) {
		write_error(c, p, ICMP_TIME_EXCEEDED << 8 | CODE_TTL_IN_TRANSIT, 0);
		return nexthop_send(c, p->frame, &back, V_TTL_EXCEEDED_SENT);
	}
	write_error(c, p, ICMP_UNREACHABLE << 8 | CODE_FRAG_NEEDED,
		    (uint16_t)(c->ports[nh->port].len_max - ETH_LEN));
	return nexthop_send(c, p->frame, &back, V_FRAG_NEEDED_SENT);
}
