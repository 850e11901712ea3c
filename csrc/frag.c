/* SPDX-License-Identifier: Apache-2.0 */
/**
 * frag.c - datagrams that come in fragments
 */
#include "frag.h"
#include "csum.h"
#include "gso.h"

enum { FRAG_NONE = UINT16_MAX, UNIT = 8, DATAGRAM_MAX = 65535 };

static_assert((int)FRAG_DATAGRAMS < (int)FRAG_NONE && (int)FRAG_HELD < (int)FRAG_NONE, "indices are 16 bits");

/* ---- memory ---- */

static size_t keys_size(void)
{
	return FRAG_DATAGRAMS * sizeof(struct frag_key);
}

static size_t datagrams_size(void)
{
	return FRAG_DATAGRAMS * sizeof(struct frag_datagram);
}

size_t frag_mem_size(void)
{
	return keys_size() + datagrams_size() + FRAG_HELD * sizeof(struct frag_held);
}

void frag_init(struct frag_table *t, void *mem, const struct fp_config *cfg, uint32_t worker)
{
	uint8_t *base = mem;
	const uint32_t n = cfg->n_workers;

	*t = (struct frag_table){ .key = hash_key_load(cfg->table_key), .id_step = (uint16_t)n };
	t->keys = (struct frag_key *)(void *)base;
	t->datagrams = (struct frag_datagram *)(void *)(base + keys_size());
	t->slots = (struct frag_held *)(void *)(base + keys_size() + datagrams_size());
	for (uint32_t i = 0; i < FRAG_STATES; i++)
		t->ages[i] = (struct frag_list){ FRAG_NONE, FRAG_NONE };
	t->ready = (struct frag_list){ FRAG_NONE, FRAG_NONE };
	for (uint32_t i = 0; i < FRAG_HELD; i++)
		t->slots[i].next = (uint16_t)(i + 1 < FRAG_HELD ? i + 1 : FRAG_NONE);
	t->unused = (struct frag_list){ 0, FRAG_HELD - 1 };
	/* Not to be guessed, and not what it was before the last start (RFC 6864: it may not recur soon). */
	t->id = (uint16_t)(((uint16_t)cfg->table_key[0] << 8 | cfg->table_key[1]) / n * n + worker);
}

/* ---- lists ---- */

static void age_remove(struct frag_table *t, uint16_t i)
{
	const struct frag_datagram *d = &t->datagrams[i];
	struct frag_list *l = &t->ages[d->state];

	*(d->older == FRAG_NONE ? &l->head : &t->datagrams[d->older].newer) = d->newer;
	*(d->newer == FRAG_NONE ? &l->tail : &t->datagrams[d->newer].older) = d->older;
}

static void age_append(struct frag_table *t, uint16_t i, enum frag_state state, uint64_t until_ns)
{
	struct frag_datagram *d = &t->datagrams[i];
	struct frag_list *l = &t->ages[state];

	d->state = (uint16_t)state;
	d->until_ns = until_ns;
	d->older = l->tail;
	d->newer = FRAG_NONE;
	*(l->tail == FRAG_NONE ? &l->head : &t->datagrams[l->tail].newer) = i;
	l->tail = i;
}

/* Put the chain from @first to @last behind another; its slots are linked already. */
static void chain_append(struct frag_table *t, struct frag_list *to, uint16_t first, uint16_t last)
{
	t->slots[last].next = FRAG_NONE;
	*(to->tail == FRAG_NONE ? &to->head : &t->slots[to->tail].next) = first;
	to->tail = last;
}

static uint16_t chain_take(struct frag_table *t, struct frag_list *from)
{
	const uint16_t i = from->head;

	if (i == FRAG_NONE)
		return i;
	from->head = t->slots[i].next;
	if (from->head == FRAG_NONE)
		from->tail = FRAG_NONE;
	return i;
}

static void free_slot(struct frag_table *t, uint16_t at)
{
	chain_append(t, &t->unused, at, at);
	counter_set(&t->n_held, counter_read(&t->n_held) - 1);
}

/* ---- datagrams ---- */

static void drop_held(struct frag_table *t, struct frag_datagram *d, uint32_t verdict, counter *verdicts)
{
	if (!d->n_held)
		return;
	counter_add(&verdicts[verdict], d->n_held);
	counter_set(&t->n_held, counter_read(&t->n_held) - d->n_held);
	chain_append(t, &t->unused, d->held, d->held_last);
	d->n_held = 0;
}

static void forget(struct frag_table *t, uint16_t i, uint32_t verdict, counter *verdicts)
{
	drop_held(t, &t->datagrams[i], verdict, verdicts);
	age_remove(t, i);
	t->keys[i].used = 0;
	t->n--;
}

/* The datagram is not to be trusted, or not to be had: whatever of it is still to come meets the same end. */
static uint32_t refuse(struct frag_table *t, uint16_t i, uint32_t verdict, uint64_t now_ns, counter *verdicts)
{
	struct frag_datagram *d = &t->datagrams[i];

	drop_held(t, d, verdict, verdicts);
	age_remove(t, i);
	age_append(t, i, FRAG_REFUSED, now_ns + FRAG_LIVE_S * NS_PER_S);
	d->verdict = (uint16_t)verdict;
	return verdict;
}

static bool key_eq(const struct frag_key *a, const struct frag_key *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Another number of workers than a power of two does not divide 2^16: each begins again at its own residue. */
static uint16_t next_id(struct frag_table *t)
{
	const uint32_t next = (uint32_t)t->id + t->id_step;

	t->id = (uint16_t)(next > UINT16_MAX ? t->id % t->id_step : next);
	return t->id;
}

static uint16_t born(struct frag_table *t, uint16_t i, const struct frag_key *key, bool rename,
		     uint64_t now_ns)
{
	t->keys[i] = *key;
	t->datagrams[i] = (struct frag_datagram){ .id = rename ? be16_of(next_id(t)) : key->id };
	age_append(t, i, FRAG_WAITING, now_ns + FRAG_WAIT_S * NS_PER_S);
	t->n++;
	return i;
}

/* The datagram's place; where the set is full, the one of its datagrams that would go first anyway. */
static uint16_t find(struct frag_table *t, const struct frag_key *key, bool rename, uint64_t now_ns,
		     counter *verdicts)
{
	const uint64_t words[3] = { (uint64_t)key->src.raw << 32 | key->dst.raw,
				    (uint64_t)key->id.raw << 16 | key->proto, key->port };
	const uint32_t base = ((uint32_t)hash_words3(t->key, words) & (FRAG_SETS - 1)) * FRAG_WAYS;
	uint32_t place = base;

	for (uint32_t i = base; i < base + FRAG_WAYS; i++) {
		if (key_eq(&t->keys[i], key))
			return (uint16_t)i;
		if (!t->keys[place].used)
			continue;
		if (!t->keys[i].used || t->datagrams[i].until_ns < t->datagrams[place].until_ns)
			place = i;
	}
	if (t->keys[place].used) {
		counter_add(&t->evicted, 1);
		forget(t, (uint16_t)place, V_FRAG_TABLE_FULL, verdicts);
	}
	return born(t, (uint16_t)place, key, rename, now_ns);
}

/* ---- fragments ---- */

struct piece {
	uint32_t from, to; /* units of 8 bytes */
	bool more;
};

/* What can be said of a fragment alone. */
static uint32_t check_piece(const struct pkt *p, struct piece *piece)
{
	const uint32_t frag = be16_host(be16_load(p->ip + IP_FRAG)), from = frag & IP_OFFSET;
	const uint32_t header = (uint32_t)(p->l4 - p->ip);

	*piece = (struct piece){ from, from + (p->l4_len + UNIT - 1u) / UNIT, frag & IP_MF };
	if (!gso_is_plain(p->frame))
		return V_VNET_MALFORMED;
	if (p->l4_len == 0 || (piece->more && p->l4_len % UNIT))
		return V_FRAG_MALFORMED;
	if (header + from * UNIT + p->l4_len > DATAGRAM_MAX)
		return V_FRAG_BEYOND;
	/* Only a tiny first fragment leaves room for this one (RFC 1858, RFC 3128). */
	if (p->proto == IPPROTO_NUM_TCP && from > 0 && from * UNIT < TCP_LEN)
		return V_FRAG_TINY;
	return V_GO_ON;
}

/* Does the datagram agree on where it ends? */
static bool end_agrees(const struct frag_datagram *d, const struct piece *piece)
{
	if (piece->more)
		return d->end == 0 || piece->to <= d->end;
	return d->end == 0 && (d->n_spans == 0 || d->spans[d->n_spans - 1].to <= piece->to);
}

/* Spec: RFC 5722 section 4; duplicates as RFC 8200 section 4.5 allows. */
static uint32_t add_span(struct frag_datagram *d, const struct piece *piece)
{
	struct frag_span *s = d->spans;
	uint32_t i = d->n_spans;
	bool joins, joined;

	while (i > 0 && s[i - 1].from > piece->from)
		i--;
	if (i > 0 && piece->to <= s[i - 1].to)
		return V_FRAG_DUPLICATE;
	if ((i > 0 && piece->from < s[i - 1].to) || (i < d->n_spans && piece->to > s[i].from))
		return V_FRAG_OVERLAP;
	if (!end_agrees(d, piece))
		return V_FRAG_MALFORMED;
	joins = i > 0 && s[i - 1].to == piece->from;
	joined = i < d->n_spans && s[i].from == piece->to;
	if (joins && joined) {
		s[i - 1].to = s[i].to;
		memmove(&s[i], &s[i + 1], (--d->n_spans - i) * sizeof(*s));
	} else if (joins) {
		s[i - 1].to = (uint16_t)piece->to;
	} else if (joined) {
		s[i].from = (uint16_t)piece->from;
	} else {
		if (d->n_spans == FRAG_SPANS)
			return V_FRAG_TOO_MANY;
		memmove(&s[i + 1], &s[i], (d->n_spans++ - i) * sizeof(*s));
		s[i] = (struct frag_span){ (uint16_t)piece->from, (uint16_t)piece->to };
	}
	if (!piece->more)
		d->end = (uint16_t)piece->to;
	return V_GO_ON;
}

static bool is_complete(const struct frag_datagram *d)
{
	return d->end && d->spans[0].from == 0 && d->spans[0].to == d->end;
}

/* The ports, from a first fragment that has the whole header. Spec: RFC 1858 section 3, RFC 3128. */
static uint32_t learn(struct frag_datagram *d, struct pkt *p)
{
	const bool tcp = p->proto == IPPROTO_NUM_TCP;
	uint32_t verdict;

	if (p->l4_len < (tcp ? (uint32_t)TCP_LEN : (uint32_t)UDP_LEN) ||
	    (tcp && p->l4_len < (uint32_t)(p->l4[TCP_OFF] >> 4) * 4))
		return V_FRAG_TINY;
	verdict = pkt_parse_l4(p);
	if (verdict != V_GO_ON)
		return verdict;
	d->sport = p->sport;
	d->dport = p->dport;
	if (p->proto != IPPROTO_NUM_ICMP)
		return V_GO_ON;
	d->dport = be16_of(p->icmp_type);
	return p->icmp_type == ICMP_ECHO_REQUEST || p->icmp_type == ICMP_ECHO_REPLY ? V_GO_ON : V_FRAG_ICMP;
}

static uint32_t hold(struct frag_table *t, uint16_t i, const struct pkt *p, uint64_t now_ns,
		     counter *verdicts)
{
	struct frag_datagram *d = &t->datagrams[i];
	struct frag_held *slot;
	uint16_t at;

	if (d->n_held == FRAG_HELD_EACH)
		return refuse(t, i, V_FRAG_TOO_MANY, now_ns, verdicts);
	if (t->unused.head == FRAG_NONE) {
		const uint16_t oldest = t->ages[FRAG_WAITING].head;

		/* Among those that wait for their first this one is, so there is an oldest. */
		if (oldest == i || !t->datagrams[oldest].n_held)
			return refuse(t, i, V_FRAG_TABLE_FULL, now_ns, verdicts);
		refuse(t, oldest, V_FRAG_TABLE_FULL, now_ns, verdicts);
	}
	at = chain_take(t, &t->unused);
	slot = &t->slots[at];
	slot->len = (uint32_t)ETH_LEN + p->ip_len; /* without padding */
	slot->port = p->frame->port;
	slot->src = p->frame->src;
	slot->next = FRAG_NONE;
	FP_ASSERT(slot->len <= sizeof(slot->data));
	memcpy(slot->data, p->frame->data, slot->len);
	*(d->n_held ? &t->slots[d->held_last].next : &d->held) = at;
	d->held_last = at;
	d->n_held++;
	counter_add(&t->n_held, 1);
	return V_FRAG_HELD;
}

/* The first is there: what it says goes for those that wait. */
static void release(struct frag_table *t, uint16_t i, uint64_t now_ns)
{
	struct frag_datagram *d = &t->datagrams[i];

	age_remove(t, i);
	age_append(t, i, FRAG_KNOWN, now_ns + FRAG_LIVE_S * NS_PER_S);
	if (!d->n_held)
		return;
	for (uint16_t at = d->held; at != FRAG_NONE; at = t->slots[at].next) {
		t->slots[at].sport = d->sport;
		t->slots[at].dport = d->dport;
	}
	chain_append(t, &t->ready, d->held, d->held_last);
	d->n_held = 0;
}

static void rename_datagram(const struct pkt *p, be16 id)
{
	const be16 old = be16_load(p->ip + IP_ID);

	be16_store(p->ip + IP_ID, id);
	be16_store(p->ip + IP_CSUM, csum_update(be16_load(p->ip + IP_CSUM), csum_delta16(old, id)));
}

void frag_rename(struct frag_table *t, const struct pkt *p)
{
	rename_datagram(p, be16_of(next_id(t)));
}

uint32_t frag_shard(const struct fp_config *cfg, const struct pkt *p)
{
	const uint64_t words[3] = { (uint64_t)p->src.raw << 32 | p->dst.raw,
				    (uint64_t)be16_load(p->ip + IP_ID).raw << 8 | p->proto, 0 };

	return (uint32_t)hash_words3(hash_key_load(cfg->shard_key), words) & (FP_SHARDS - 1);
}

uint32_t frag_take(struct frag_table *t, struct pkt *p, bool rename, uint64_t now_ns, counter *verdicts)
{
	const struct frag_key key = { .src = p->src,
				      .dst = p->dst,
				      .id = be16_load(p->ip + IP_ID),
				      .proto = p->proto,
				      .port = p->frame->port,
				      .used = 1 };
	const uint16_t i = find(t, &key, rename, now_ns, verdicts);
	struct frag_datagram *d = &t->datagrams[i];
	struct piece piece;
	uint32_t verdict;

	if (d->state == FRAG_REFUSED)
		return d->verdict;
	verdict = ++d->n > FRAG_MAX ? (uint32_t)V_FRAG_TOO_MANY : check_piece(p, &piece);
	if (verdict == V_GO_ON)
		verdict = add_span(d, &piece);
	if (verdict == V_FRAG_DUPLICATE)
		return verdict;
	if (verdict == V_GO_ON && piece.from == 0)
		verdict = learn(d, p);
	if (verdict != V_GO_ON)
		return refuse(t, i, verdict, now_ns, verdicts);
	rename_datagram(p, d->id);
	if (piece.from == 0)
		release(t, i, now_ns);
	if (d->state == FRAG_WAITING)
		return hold(t, i, p, now_ns, verdicts);
	p->frame->l4_known = 1;
	p->frame->l4_sport = d->sport.raw;
	p->frame->l4_dport = d->dport.raw;
	if (is_complete(d))
		forget(t, i, V_FRAG_TABLE_FULL, verdicts);
	return V_GO_ON;
}

bool frag_pop(struct frag_table *t, struct fp_frame *out)
{
	const uint16_t at = chain_take(t, &t->ready);
	const struct frag_held *slot;

	if (at == FRAG_NONE)
		return false;
	slot = &t->slots[at];
	memcpy(out->data, slot->data, slot->len);
	out->len = slot->len;
	out->port = slot->port;
	out->src = slot->src;
	out->vnet = (struct fp_vnet){ 0 };
	out->l4_known = 1;
	out->hops = 0;
	out->l4_sport = slot->sport.raw;
	out->l4_dport = slot->dport.raw;
	free_slot(t, at);
	return true;
}

/* ---- time and role ---- */

void frag_expire(struct frag_table *t, uint64_t now_ns, counter *verdicts)
{
	for (uint32_t state = 0; state < FRAG_STATES; state++) {
		const struct frag_list *l = &t->ages[state];

		/* All of a state live equally long: the oldest one is the first to go. */
		while (l->head != FRAG_NONE && t->datagrams[l->head].until_ns <= now_ns)
			forget(t, l->head, V_FRAG_TIMEOUT, verdicts);
	}
}

void frag_clear(struct frag_table *t, uint32_t verdict, counter *verdicts)
{
	uint16_t at;

	for (uint32_t state = 0; state < FRAG_STATES; state++) {
		while (t->ages[state].head != FRAG_NONE)
			forget(t, t->ages[state].head, verdict, verdicts);
	}
	while ((at = chain_take(t, &t->ready)) != FRAG_NONE) {
		counter_add(&verdicts[verdict], 1);
		free_slot(t, at);
	}
}
