/* SPDX-License-Identifier: Apache-2.0 */
/**
 * datagram.h - datagrams that are sent in fragments, and put together again behind a core
 */
#ifndef DATAGRAM_H
#define DATAGRAM_H

#include "rig.h"

enum { PARTS_MAX = 128, MF = 0x2000, PACKET_MAX = 70000 };

/* A whole datagram, and the fragments that it is sent in. */
struct datagram {
	uint8_t packet[PACKET_MAX];
	uint32_t len; /* of the IP packet */
	uint32_t n;
	struct part {
		uint32_t from, len;
	} parts[PARTS_MAX];
	uint8_t port;
};

/* Fragments that came out, put together. */
struct whole {
	uint8_t packet[PACKET_MAX];
	uint32_t payload, end, n;
	be16 id;
};

static uint32_t seed = 1;

static inline uint32_t rnd(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

/* Build a datagram of any length; frames_ipv4() makes the first bytes of it. */
static inline void datagram_make(struct datagram *d, uint8_t port, const struct spec *spec, uint32_t payload,
				 uint16_t id)
{
	static uint8_t data[FP_FRAME_MAX];
	struct spec s = *spec;
	uint8_t *ip = d->packet;
	uint32_t head;

	s.payload = 0;
	head = frames_ipv4(data, port, mac_virtual[port], &s).len - ETH_LEN;
	memcpy(ip, data + ETH_LEN, head);
	for (uint32_t i = 0; i < payload; i++)
		ip[head + i] = (uint8_t)(i * 11 + i / 250);
	d->len = head + payload;
	d->port = port;
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)d->len));
	be16_store(ip + IP_ID, be16_of(id));
	be16_store(ip + IP_FRAG, be16_of(0));
	if (s.proto == IPPROTO_NUM_UDP)
		be16_store(ip + IPV4_LEN + UDP_LENGTH, be16_of((uint16_t)(UDP_LEN + payload)));
	frames_fix_l4_csum(ip, d->len - IPV4_LEN);
	d->n = 0;
}

static inline void datagram_cut(struct datagram *d, uint32_t size)
{
	d->n = 0;
	for (uint32_t at = 0; at < d->len - IPV4_LEN; at += size) {
		REQUIRE(d->n < PARTS_MAX);
		d->parts[d->n++] = (struct part){ at, min_u32(size, d->len - IPV4_LEN - at) };
	}
}

/* Frame of bytes [from, from + len) behind the IP header; @mf: more fragments follow. */
static inline struct fp_frame fragment(uint8_t *data, const struct datagram *d, uint32_t from, uint32_t len,
				       bool mf)
{
	uint8_t *ip = data + ETH_LEN;

	memset(data, 0, FP_FRAME_MAX);
	memcpy(data + ETH_DST, mac_virtual[d->port], ETH_ALEN);
	memcpy(data + ETH_SRC, d->port == LAN ? mac_client : mac_isp, ETH_ALEN);
	be16_store(data + ETH_TYPE, be16_of(ETHERTYPE_IPV4));
	memcpy(ip, d->packet, IPV4_LEN);
	memcpy(ip + IPV4_LEN, d->packet + IPV4_LEN + from, len);
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)(IPV4_LEN + len)));
	be16_store(ip + IP_FRAG, be16_of((uint16_t)(from / 8 | (mf ? MF : 0))));
	frames_fix_ip_csum(ip);
	return (struct fp_frame){ .data = data, .len = ETH_LEN + IPV4_LEN + len, .port = d->port };
}

static inline uint32_t step_piece(struct rig *r, const struct datagram *d, uint32_t from, uint32_t len,
				  bool mf)
{
	struct fp_frame f = fragment(r->data, d, from, len, mf);

	return rig_step(r, &f);
}

static inline void whole_add(struct whole *w, const struct fp_frame *f)
{
	const uint8_t *ip = f->data + ETH_LEN;
	const uint32_t frag = be16_host(be16_load(ip + IP_FRAG)), at = (frag & 0x1fff) * 8;
	const uint32_t len = f->len - ETH_LEN - IPV4_LEN;

	REQUIRE(csum_fold(csum_sum(ip, IPV4_LEN)) == 0xffff);
	REQUIRE(be16_host(be16_load(ip + IP_TOTAL)) == IPV4_LEN + len);
	CHECK(1, w->n == 0 || w->id.raw == be16_load(ip + IP_ID).raw);
	if (w->n == 0)
		memcpy(w->packet, ip, IPV4_LEN);
	w->id = be16_load(ip + IP_ID);
	memcpy(w->packet + IPV4_LEN + at, ip + IPV4_LEN, len);
	w->payload += len;
	if (!(frag & MF))
		w->end = at + len;
	w->n++;
}

/* The datagram that came out is right: everything once, and a checksum over all of it that holds. */
static inline bool whole_ok(struct whole *w)
{
	uint8_t *ip = w->packet;
	struct fp_frame f;
	static uint8_t frame[PACKET_MAX];

	if (!w->end || w->payload != w->end)
		return false;
	be16_store(ip + IP_TOTAL, be16_of((uint16_t)(IPV4_LEN + w->end)));
	be16_store(ip + IP_FRAG, be16_of(0));
	frames_fix_ip_csum(ip);
	memset(frame, 0, ETH_LEN);
	memcpy(frame + ETH_LEN, ip, IPV4_LEN + w->end);
	f = (struct fp_frame){ .data = frame, .len = ETH_LEN + IPV4_LEN + w->end };
	return frames_csums_ok(&f);
}

/* Step what was held. */
static inline uint32_t drain(struct rig *r, struct whole *w, uint32_t verdict)
{
	static uint8_t room[8][FP_FRAME_MAX];
	struct fp_frame out[8];
	uint32_t n, total = 0;

	for (uint32_t i = 0; i < ARRAY_SIZE(out); i++)
		out[i] = (struct fp_frame){ .data = room[i] };
	while ((n = core_frags_ready(&r->core, out, ARRAY_SIZE(out), r->now_ns)) > 0) {
		core_step(&r->core, out, n, r->now_ns);
		core_account(&r->core, out, n);
		for (uint32_t i = 0; i < n; i++) {
			CHECK_EQ(2, out[i].verdict, verdict);
			if (w)
				whole_add(w, &out[i]);
		}
		total += n;
	}
	return total;
}

/* Send a datagram in the order of @d->parts; what leaves goes to @w. */
static inline void send_all(struct rig *r, const struct datagram *d, struct whole *w, uint32_t verdict)
{
	bool first_seen = false;

	*w = (struct whole){ 0 };
	for (uint32_t i = 0; i < d->n; i++) {
		const struct part *part = &d->parts[i];
		struct fp_frame f = fragment(r->data, d, part->from, part->len,
					     part->from + part->len < d->len - IPV4_LEN);

		first_seen |= part->from == 0;
		rig_step(r, &f);
		CHECK_EQ(3, f.verdict, first_seen ? verdict : V_FRAG_HELD);
		CHECK_EQ(4, f.out, first_seen ? FP_OUT_WIRE : FP_OUT_WAIT);
		if (f.out == FP_OUT_WIRE)
			whole_add(w, &f);
		drain(r, w, verdict);
	}
}

static inline void shuffle(struct datagram *d)
{
	for (uint32_t i = d->n; i > 1; i--) {
		const uint32_t j = rnd(i);
		const struct part tmp = d->parts[i - 1];

		d->parts[i - 1] = d->parts[j];
		d->parts[j] = tmp;
	}
}

#endif /* DATAGRAM_H */
