/* SPDX-License-Identifier: Apache-2.0 */
/**
 * rig.h - a core on a bench: one worker, its memory, next hops, and a clock that the test turns
 */
#ifndef RIG_H
#define RIG_H

#include "check.h"
#include "frames.h"

/**
 * struct rig - One core and what it needs
 * @cfg:        its configuration
 * @core:       itself
 * @mem:        its memory
 * @fib:        its next hops
 * @generation: of @fib
 * @now_ns:     the time
 * @data:       the frame that rig_in() steps
 */
struct rig {
	struct fp_config cfg;
	struct core core;
	void *mem;
	struct fib *fib;
	uint32_t generation;
	uint64_t now_ns;
	uint8_t data[FP_FRAME_MAX];
};

static inline void rig_fib(struct rig *r, bool neighbours)
{
	struct fib *old = r->fib;

	r->fib = frames_fib(++r->generation, neighbours);
	core_set_fib(&r->core, r->fib);
	free(old);
}

static inline struct rig *rig_make(const struct fp_config *cfg, uint32_t worker)
{
	struct rig *r = calloc(1, sizeof(*r));
	size_t size;

	FP_ASSERT(r);
	r->cfg = *cfg;
	size = core_mem_size(&r->cfg);
	r->mem = aligned_alloc(CACHE_LINE, size);
	FP_ASSERT(r->mem);
	memset(r->mem, 0, size);
	FP_ASSERT(core_init(&r->core, &r->cfg, worker, r->mem, size) == 0);
	r->now_ns = UINT64_C(86400) * NS_PER_S;
	rig_fib(r, true);
	return r;
}

static inline struct rig *rig_new(uint32_t worker, uint32_t n_workers, uint32_t flow_cap)
{
	struct fp_config cfg = frames_config(n_workers, flow_cap);

	return rig_make(&cfg, worker);
}

static inline struct rig *rig_active(void)
{
	struct rig *r = rig_new(0, 1, 1000);

	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	return r;
}

static inline void rig_free(struct rig *r)
{
	free(r->fib);
	free(r->mem);
	free(r);
}

/* Step one frame; it counts, too. */
static inline uint32_t rig_step(struct rig *r, struct fp_frame *f)
{
	core_step(&r->core, f, 1, r->now_ns);
	core_account(&r->core, f, 1);
	return f->verdict;
}

/* Build, step, and return the frame. */
static inline struct fp_frame rig_in(struct rig *r, uint8_t port, const struct spec *s)
{
	struct fp_frame f = frames_ipv4(r->data, port, mac_virtual[port], s);

	rig_step(r, &f);
	return f;
}

static inline uint64_t rig_count(const struct rig *r, enum fp_verdict v)
{
	return counter_read(&r->core.verdicts[v]);
}

static inline struct fp_worker_stats rig_stats(const struct rig *r)
{
	struct fp_worker_stats s = { 0 };

	core_stats_read(&r->core, &s);
	return s;
}

static inline void rig_sleep(struct rig *r, uint32_t seconds)
{
	r->now_ns += seconds * NS_PER_S;
	while (core_expire(&r->core, r->now_ns, 64) == 64)
		;
}

/* Fields of a stepped frame. */
static inline be32 out_src(const struct fp_frame *f)
{
	return be32_load(f->data + ETH_LEN + IP_SRC);
}

static inline be32 out_dst(const struct fp_frame *f)
{
	return be32_load(f->data + ETH_LEN + IP_DST);
}

static inline uint16_t out_sport(const struct fp_frame *f)
{
	return be16_host(be16_load(f->data + ETH_LEN + IPV4_LEN + L4_SPORT));
}

static inline uint16_t out_dport(const struct fp_frame *f)
{
	return be16_host(be16_load(f->data + ETH_LEN + IPV4_LEN + L4_DPORT));
}

/* Take events, with walks that go on as far as they may. */
static inline uint32_t rig_drain(struct rig *r, struct fp_flow_rec *out, uint32_t cap)
{
	return core_drain(&r->core, out, cap, UINT32_MAX, r->now_ns);
}

/* The peer has been told all, and has said nothing yet. */
static inline void rig_tell_all(struct rig *r)
{
	struct fp_flow_rec out[64];

	while (rig_drain(r, out, 64) || core_has_more(&r->core))
		;
}

/* Walk all records. */
static inline uint32_t rig_walk(struct rig *r, struct fp_flow_rec *out, uint32_t cap)
{
	uint32_t slot = 0, n = 0;
	bool done = false;

	while (!done && n < cap)
		n += core_walk(&r->core, &slot, out + n, min_u32(cap - n, 3), &done, r->now_ns);
	return n;
}

static const struct spec spec_syn = { .src = IP4_INIT(198, 51, 100, 10),
				      .dst = IP4_INIT(192, 0, 2, 10),
				      .proto = IPPROTO_NUM_TCP,
				      .sport = 40001,
				      .dport = 80,
				      .tcp_flags = TCP_SYN,
				      .seq = 100 };
static const struct spec spec_udp = { .src = IP4_INIT(198, 51, 100, 10),
				      .dst = IP4_INIT(192, 0, 2, 10),
				      .proto = IPPROTO_NUM_UDP,
				      .sport = 5000,
				      .dport = 53,
				      .payload = 31 };
static const struct spec spec_echo = { .src = IP4_INIT(198, 51, 100, 10),
				       .dst = IP4_INIT(192, 0, 2, 10),
				       .proto = IPPROTO_NUM_ICMP,
				       .sport = 77,
				       .type = ICMP_ECHO_REQUEST,
				       .payload = 56 };

/* The reply of the server to what the client's packet became. */
static inline struct spec rig_reply(const struct spec *s, uint16_t external_port)
{
	struct spec r = *s;

	r.src = s->dst;
	r.dst = WAN_VIP;
	r.sport = s->dport;
	r.dport = external_port;
	if (s->proto == IPPROTO_NUM_ICMP) {
		r.sport = external_port;
		r.type = ICMP_ECHO_REPLY;
	}
	return r;
}

/* A TCP session up to ESTABLISHED; returns its external port. */
static inline uint16_t rig_connect(struct rig *r, uint16_t sport)
{
	struct spec s = spec_syn, reply;
	struct fp_frame f;
	uint16_t external;

	s.sport = sport;
	f = rig_in(r, LAN, &s);
	external = out_sport(&f);
	reply = rig_reply(&s, external);
	reply.tcp_flags = TCP_SYN | TCP_ACK_FLAG;
	reply.seq = 500;
	reply.ack = 101;
	rig_in(r, WAN, &reply);
	s.tcp_flags = TCP_ACK_FLAG;
	s.seq = 101;
	s.ack = 501;
	rig_in(r, LAN, &s);
	return external;
}

/* The PASSIVE node: an identity and a table secret of its own. */
static inline struct rig *rig_passive(uint32_t flow_cap)
{
	struct rig *r = rig_new(0, 1, flow_cap);

	r->cfg.origin = 2;
	r->cfg.flow_id_base = 5000000;
	r->core.table.key.k[0] ^= 0x1234;
	core_set_role(&r->core, FP_ROLE_PASSIVE, 3, r->now_ns);
	return r;
}

/* The ACTIVE node, which tells its peer. */
static inline struct rig *rig_tracking(uint32_t flow_cap)
{
	struct rig *r = rig_new(0, 1, flow_cap);

	core_track(&r->core, true);
	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	return r;
}

/* Data of a connection that has gone on for long. */
static inline struct spec rig_data_from_server(uint16_t external)
{
	struct spec s = rig_reply(&spec_syn, external);

	s.tcp_flags = TCP_ACK_FLAG;
	s.seq = 777777; /* long after what the record knows */
	s.ack = 888888;
	s.payload = 100;
	return s;
}

#endif /* RIG_H */
