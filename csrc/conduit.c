/* SPDX-License-Identifier: Apache-2.0 */
/**
 * conduit.c - the codec of the conduit, and which shard a packet is of
 */
#include "conduit.h"
#include "frag.h"
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
	if (c->conduit == CONDUIT_OFF)
		return V_NOT_ACTIVE;
	p->frame->out = FP_OUT_CONDUIT;
	p->frame->owner = (uint16_t)shard_of(c, p);
	return V_CONDUIT_TO;
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
	out[12] = DIRECTION_TO_ACTIVE;
	out[13] = frame->out_port;
	out[CONDUIT_SHARD_AT] = (uint8_t)frame->owner;
	out[15] = be16_host(frag) & (IP_MF | IP_OFFSET) ? FLAG_FRAGMENT : 0;
	be32_store(out + 16, be32_of((uint32_t)c->conduit));
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
	if (!out->found || out->direction != DIRECTION_TO_ACTIVE || out->port >= c->cfg->n_ports ||
	    out->shard >= FP_SHARDS)
		return V_CONDUIT_MALFORMED;
	return V_GO_ON;
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
	if (c->role != FP_ROLE_ACTIVE && !c->passes_on)
		return V_CONDUIT_NOT_ACTIVE;
	if (c->role == FP_ROLE_ACTIVE && option.term != (uint32_t)c->term)
		return V_CONDUIT_TERM;
	if (len - inner > FP_FRAME_MAX)
		return V_OVERSIZED;
	memcpy(frame->data, packet + inner, len - inner);
	frame->len = len - inner;
	frame->port = option.port;
	frame->src = FP_SRC_CONDUIT;
	frame->vnet = (struct fp_vnet){ 0 };
	frame->hops = frame->l4_known = 0;
	return V_GO_ON;
}
