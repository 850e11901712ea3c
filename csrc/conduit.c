/* SPDX-License-Identifier: Apache-2.0 */
/**
 * conduit.c - the codec of the conduit, and which shard a packet is of
 */
#include "conduit.h"
#include "frag.h"
#include "nexthop.h"
#include "steer.h"

enum {
	GENEVE_OAM = 0x80,
	GENEVE_CRITICAL = 0x40,
	GENEVE_ETHERNET = 0x6558,
	OPTION_HEAD = 4,
	OPTION_CLASS = 0xfff7,
	OPTION_TYPE = 0x81,
	OPTION_CRITICAL = 0x80,
	OPTION_WORDS = 2,
	DIRECTION_TO_ACTIVE = 0,
	DIRECTION_FROM_ACTIVE = 1,
	FLAG_FRAGMENT = 1
};

/* An option as it was found, and whether it was. */
struct option {
	uint8_t direction, port, shard;
	uint32_t term;
	bool found;
};

/* ---- out ---- */

/*
 * The shard as ACTIVE will find it, from the packet alone. What has none, or only in what it quotes, goes to any
 * worker, which finds out.
 */
static uint32_t shard_of(const struct core *c, struct pkt *p)
{
	struct steer s = {
		.src = p->src, .dst = p->dst, .proto = p->proto, .outside = c->ports[p->frame->port].outside
	};
	uint32_t shard = 0;

	if (p->fragment)
		return frag_shard(c->cfg, p);
	if (p->options || pkt_parse_l4(p) != V_GO_ON)
		return 0;
	s.sport = p->sport;
	s.dport = p->dport;
	if (s.outside || (c->n_inside > 1 && steer_is_inside(c, s.dst)))
		return steer_key(c, &s, &p->key, &shard) ? shard : 0;
	return steer_outbound_shard(c, &s);
}

uint32_t conduit_to_active(struct core *c, struct pkt *p)
{
	if (!conduit_is_on(c->conduit))
		return V_NOT_ACTIVE;
	p->frame->out = FP_OUT_CONDUIT;
	p->frame->owner = (uint16_t)shard_of(c, p);
	return V_CONDUIT_TO;
}

/* Any worker of the peer will do, and the same for all packets of a session, for the sake of their order. */
uint32_t conduit_from_active(const struct core *c, struct fp_frame *frame, uint32_t port)
{
	const uint8_t *ip = frame->data + ETH_LEN;
	const uint64_t words[3] = { (uint64_t)be32_load(ip + IP_SRC).raw << 32 | be32_load(ip + IP_DST).raw,
				    ip[IP_PROTO], 0 };

	frame->out = FP_OUT_CONDUIT;
	frame->out_port = (uint8_t)port;
	frame->owner = (uint16_t)hash_words3(hash_key_load(c->cfg->shard_key), words) & (FP_SHARDS - 1);
	frame->fenced = 1;
	return V_CONDUIT_OUT;
}

uint32_t conduit_send_for_active(struct core *c, const struct pkt *p)
{
	const struct fp_addr dst = addr_from_v4(p->dst);
	struct nexthop nh;
	const uint32_t verdict = nexthop_find(c, &dst, &nh);

	if (c->role == FP_ROLE_ACTIVE) /* it has become so since */
		return V_CONDUIT_NOT_PASSIVE;
	if (verdict != V_GO_ON)
		return verdict;
	if (nh.peer || nh.port != p->frame->port)
		return V_NO_ROUTE;
	return nexthop_send(c, p->frame, &nh, V_CONDUIT_FROM);
}

void conduit_header(const struct core *c, const struct fp_frame *frame, uint8_t out[CONDUIT_LEN])
{
	const be16 frag = be16_load(frame->data + ETH_LEN + IP_FRAG);
	const uint32_t vni = c->cfg->pulse.pair_id << 8;

	out[0] = (CONDUIT_LEN - GENEVE_LEN) / 4;
	out[1] = GENEVE_CRITICAL;
	be16_store(out + 2, be16_of(GENEVE_ETHERNET));
	be32_store(out + 4, be32_of(vni));
	be16_store(out + GENEVE_LEN, be16_of(OPTION_CLASS));
	out[10] = OPTION_TYPE;
	out[11] = OPTION_WORDS;
	out[12] = frame->fenced ? DIRECTION_FROM_ACTIVE : DIRECTION_TO_ACTIVE;
	out[13] = frame->out_port;
	out[CONDUIT_SHARD_AT] = (uint8_t)frame->owner;
	out[15] = be16_host(frag) & (IP_MF | IP_OFFSET) ? FLAG_FRAGMENT : 0;
	be32_store(out + 16, be32_of((uint32_t)(frame->fenced ? c->term : c->conduit)));
}

/* ---- in ---- */

/* One option; V_GO_ON if the packet may still be taken. Spec: RFC 8926 section 3.5. */
static uint32_t read_option(const uint8_t *at, uint32_t words, struct option *out)
{
	if (be16_host(be16_load(at)) != OPTION_CLASS || at[2] != OPTION_TYPE)
		return at[2] & OPTION_CRITICAL ? V_CONDUIT_CRITICAL : V_GO_ON;
	if (words != OPTION_WORDS || out->found)
		return V_CONDUIT_MALFORMED;
	*out = (struct option){
		.direction = at[4],
		.port = at[5],
		.shard = at[6],
		.term = be32_host(be32_load(at + 8)),
		.found = true,
	};
	return V_GO_ON;
}

static uint32_t read_options(const uint8_t *at, uint32_t left, struct option *out)
{
	uint32_t verdict = V_GO_ON;

	while (left > 0 && verdict == V_GO_ON) {
		const uint32_t words = left < OPTION_HEAD ? 0 : at[3] & 0x1f, size = OPTION_HEAD + words * 4;

		if (size > left)
			return V_CONDUIT_MALFORMED;
		verdict = read_option(at, words, out);
		at += size;
		left -= size;
	}
	return verdict;
}

/* Header and options; @inner: offset of the frame. Spec: RFC 8926 section 3.4. */
static uint32_t decode(const struct core *c, const uint8_t *p, uint32_t len, struct option *out,
		       uint32_t *inner)
{
	const uint32_t vni = c->cfg->pulse.pair_id & 0xffffff;
	uint32_t verdict;

	if (len < CONDUIT_LEN)
		return V_CONDUIT_MALFORMED;
	*inner = GENEVE_LEN + (uint32_t)(p[0] & 0x3f) * 4;
	if (p[0] >> 6 || p[1] & GENEVE_OAM || be16_host(be16_load(p + 2)) != GENEVE_ETHERNET ||
	    be32_host(be32_load(p + 4)) >> 8 != vni || *inner > len)
		return V_CONDUIT_MALFORMED;
	verdict = read_options(p + GENEVE_LEN, *inner - GENEVE_LEN, out);
	if (verdict != V_GO_ON)
		return verdict;
	if (!out->found || out->direction > DIRECTION_FROM_ACTIVE || out->port >= c->cfg->n_ports ||
	    out->shard >= FP_SHARDS)
		return V_CONDUIT_MALFORMED;
	return V_GO_ON;
}

/* Is it for this node in its role, and of this reign? */
static uint32_t check_reign(const struct core *c, const struct option *option)
{
	if (option->direction == DIRECTION_FROM_ACTIVE) {
		if (c->role == FP_ROLE_ACTIVE)
			return V_CONDUIT_NOT_PASSIVE;
		return conduit_is_on(c->conduit) && option->term == (uint32_t)c->conduit ? V_GO_ON
											 : V_CONDUIT_TERM;
	}
	if (c->role != FP_ROLE_ACTIVE)
		return c->passes_on ? V_GO_ON : V_CONDUIT_NOT_ACTIVE;
	return option->term == (uint32_t)c->term ? V_GO_ON : V_CONDUIT_TERM;
}

uint32_t conduit_take(const struct core *c, const uint8_t *packet, uint32_t len, uint32_t from,
		      struct fp_frame *frame)
{
	struct option option = { 0 };
	uint32_t inner, verdict = decode(c, packet, len, &option, &inner);

	if (verdict != V_GO_ON)
		return verdict;
	if (from != CONDUIT_SPORT + (uint32_t)option.shard)
		return V_CONDUIT_FOREIGN;
	verdict = check_reign(c, &option);
	if (verdict != V_GO_ON)
		return verdict;
	if (len - inner > FP_FRAME_MAX)
		return V_OVERSIZED;
	memcpy(frame->data, packet + inner, len - inner);
	frame->len = len - inner;
	frame->port = option.port;
	frame->src = option.direction == DIRECTION_FROM_ACTIVE ? FP_SRC_ACTIVE : FP_SRC_CONDUIT;
	frame->vnet = (struct fp_vnet){ 0 };
	frame->hops = frame->l4_known = 0;
	return V_GO_ON;
}
