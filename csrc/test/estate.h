/* SPDX-License-Identifier: Apache-2.0 */
/**
 * estate.h - a larger network than frames.h, with rules
 *
 *   clients 198.51.100.10, .11 -- lan, port 0 -- [node] wan, port 1, VIP 203.0.113.3, -- isp .1 -- server
 *   server  10.7.0.5           -- dmz, port 2 --        pools of the VIP and of 203.0.113.5
 */
#ifndef ESTATE_H
#define ESTATE_H

#include "../policy.h"
#include "rig.h"

enum { DMZ = 2, ESTATE_PORTS };

#define DMZ_SELF   IP4(10, 7, 0, 2)
#define DMZ_SERVER IP4(10, 7, 0, 5)
#define SECOND     IP4(203, 0, 113, 5)

static const uint8_t mac_dmz[6] = { 2, 0, 0, 0, 1, 2 };
static const uint8_t mac_server[6] = { 2, 0, 0, 0, 0, 0x50 };

/**
 * struct rules - A policy in words
 * @rules:    in order; .first_* are left alone, but for .first_service
 * @services: that rules point to
 * @forwards: of the pools
 * @deny:     what no rule matches does not go out
 */
struct rules {
	struct fp_rule rules[4];
	struct fp_service services[4];
	struct fp_forward forwards[8];
	uint32_t n_rules, n_services, n_forwards;
	bool deny;
};

/* Anything by anybody. */
static inline struct fp_rule estate_rule(uint8_t action, uint8_t form)
{
	return (struct fp_rule){ .action = action, .form = form, .sport_hi = 65535 };
}

static inline struct fp_forward estate_forward(uint8_t pool, uint8_t proto, uint16_t external, be32 inside,
					       uint16_t port)
{
	return (struct fp_forward){ .inside = addr_from_v4(inside),
				    .inside_port = port,
				    .external_port = external,
				    .proto = proto,
				    .pool = pool };
}

/* Compiled for a node; *@mem is what is to be freed at the end. */
static inline struct policy *estate_compile(const struct fp_config *node, struct rules *rules, void **mem)
{
	const struct fp_policy_cfg cfg = { .rules = rules->rules,
					   .services = rules->services,
					   .forwards = rules->forwards,
					   .n_rules = rules->n_rules,
					   .n_services = rules->n_services,
					   .n_forwards = rules->n_forwards,
					   .default_outbound = rules->deny ? FP_DENY : FP_ALLOW };

	for (uint32_t i = 0; i < rules->n_rules; i++)
		rules->rules[i].id = i + 1;
	for (uint32_t i = 0; i < rules->n_forwards; i++)
		rules->forwards[i].id = i + 1;
	*mem = aligned_alloc(CACHE_LINE, (policy_mem_size(&cfg, node->n_workers) + 63) & ~(size_t)63);
	FP_ASSERT(*mem);
	return policy_build(*mem, &cfg, node);
}

/* Let the core obey; the one before is forgotten. Return: what is to be freed at the end. */
static inline void *estate_policy(struct rig *r, struct rules *rules)
{
	void *mem;

	core_set_policy(&r->core, estate_compile(&r->cfg, rules, &mem));
	return mem;
}

static inline struct fib *estate_fib(uint32_t generation, bool neighbours)
{
	const struct fp_route routes[] = {
		frames_route(IP4(0, 0, 0, 0), 0, ISP, WAN),
		frames_route(IP4(198, 51, 100, 0), 24, IP4(0, 0, 0, 0), LAN),
		frames_route(IP4(203, 0, 113, 0), 29, IP4(0, 0, 0, 0), WAN),
		frames_route(IP4(10, 7, 0, 0), 24, IP4(0, 0, 0, 0), DMZ),
	};
	const struct fp_neigh neighs[] = {
		frames_neigh(CLIENT, mac_client, LAN),
		frames_neigh(CLIENT2, mac_client, LAN),
		frames_neigh(ISP, mac_isp, WAN),
		frames_neigh(DMZ_SERVER, mac_server, DMZ),
	};
	void *mem = aligned_alloc(CACHE_LINE, fib_mem_size(ARRAY_SIZE(routes), ARRAY_SIZE(neighs)));

	FP_ASSERT(mem);
	return fib_build(mem, generation, routes, ARRAY_SIZE(routes), neighs,
			 neighbours ? ARRAY_SIZE(neighs) : 0);
}

static inline struct fp_config estate_config(uint32_t n_workers)
{
	struct fp_config cfg = frames_config(n_workers, 4000);
	struct fp_port_cfg *dmz = &cfg.ports[DMZ];

	cfg.n_ports = ESTATE_PORTS;
	*dmz = (struct fp_port_cfg){
		.name = "dmz", .zone = FP_ZONE_INSIDE, .mtu = 1280, .plen = 24, .addr = addr_from_v4(DMZ_SELF)
	};
	memcpy(dmz->mac, mac_dmz, 6);
	cfg.n_pools = 2;
	cfg.pools[0].filtering = FP_FILTER_EIF;
	cfg.pools[1] = cfg.pools[0];
	cfg.pools[1].addr = addr_from_v4(SECOND);
	return cfg;
}

/* An ACTIVE node of it. */
static inline struct rig *estate_new(const struct fp_config *cfg, uint32_t worker)
{
	struct rig *r = rig_make(cfg, worker);

	free(r->fib);
	r->fib = estate_fib(++r->generation, true);
	core_set_fib(&r->core, r->fib);
	core_set_role(&r->core, FP_ROLE_ACTIVE, 2, r->now_ns);
	return r;
}

/* A packet from a port's wire. */
static inline struct fp_frame estate_in(struct rig *r, uint8_t port, const struct spec *s)
{
	struct fp_frame f = frames_ipv4(r->data, port, port == DMZ ? mac_dmz : mac_virtual[port], s);

	if (port == DMZ)
		memcpy(r->data + ETH_SRC, mac_server, 6);
	rig_step(r, &f);
	return f;
}

/* What the receiver of a stepped frame would answer; flags and numbers are the caller's. */
static inline struct spec estate_answer(const struct fp_frame *f)
{
	const uint8_t *ip = f->data + ETH_LEN;

	return (struct spec){ .src = out_dst(f),
			      .dst = out_src(f),
			      .proto = ip[IP_PROTO],
			      .sport = out_dport(f),
			      .dport = out_sport(f) };
}

/* Is it a frame for this host and port of its? */
static inline bool estate_reached(const struct fp_frame *f, uint8_t port, be32 host, uint16_t host_port)
{
	return f->out == FP_OUT_WIRE && f->out_port == port && f->fenced && out_dst(f).raw == host.raw &&
	       out_dport(f) == host_port;
}

#endif /* ESTATE_H */
