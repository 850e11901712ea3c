/* SPDX-License-Identifier: Apache-2.0 */
/**
 * validate.c - what fp_open() and fp_policy_commit() refuse before anything is made
 *
 * People meet the configuration's schema first, with all its errors at once (flexha/config). This is the
 * last line: a value that gets past here must not be able to break the C code.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "hold.h"
#include "policy.h"
#include "validate.h"

enum {
	FLOW_CAP_MIN = 64,
	FLOW_CAP_MAX = 1 << 24,
	POLL_US_MAX = 10000,
	CPUS_MAX = 1024,
	EVENTS_CAP_MIN = 64,
	EVENTS_CAP_MAX = 1 << 20,
	TIMEOUT_S_MAX = 10 * 24 * 3600,
	INTERVAL_MS_MIN = 5,
	INTERVAL_MS_MAX = 10000,
	DEAD_AFTER_MIN = 2,
	DEAD_AFTER_MAX = 100,
	CONTROL_DEAD_MS_MIN = 200, /* it beats every 100 */
	CONTROL_DEAD_MS_MAX = 10000,
	WORKER_DEAD_MS_MIN = 50,
	WORKER_DEAD_MS_MAX = 5000,
	MTU_MIN = 576,
	MTU_MAX = 1500,
	NAT_PORT_MIN = 1024,
	LAZY_MS_MAX = 10000,
	REFRESH_S_MAX = 3600,
	HOLD_MS_MAX = 1000,
	SYNC_AFTER_S_MAX = 3600 /* tour.h: AGES_S */
};

static __attribute__((format(printf, 2, 3))) int refuse(struct fp_error *err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	return -EINVAL;
}

static int in_range(struct fp_error *err, const char *where, const char *what, uint32_t value, uint32_t min,
		    uint32_t max)
{
	if (value >= min && value <= max)
		return 0;
	return refuse(err, "%s%s: %u is not within %u..%u", where, what, value, min, max);
}

static bool is_name(const char *name)
{
	return name[0] != '\0' && memchr(name, '\0', FP_NAME_MAX) != NULL;
}

static bool is_zero_mac(const uint8_t *mac)
{
	static const uint8_t zero[6];

	return memcmp(mac, zero, sizeof(zero)) == 0;
}

static bool is_unicast_mac(const uint8_t *mac)
{
	return !is_zero_mac(mac) && !(mac[0] & 1);
}

static int check_limits(const struct fp_config *cfg, struct fp_error *err)
{
	const struct fp_timeouts *t = &cfg->timeouts;
	int rc = in_range(err, "", "abi_version", cfg->abi_version, FP_ABI_VERSION, FP_ABI_VERSION);

	if (rc == 0)
		rc = in_range(err, "", "n_workers", cfg->n_workers, 1, FP_WORKERS_MAX);
	if (rc == 0)
		rc = in_range(err, "", "poll_us", cfg->poll_us, 0, POLL_US_MAX);
	for (uint32_t i = 0; rc == 0 && i < FP_WORKERS_MAX; i++)
		rc = in_range(err, "", "pinned", cfg->pinned[i], 0, CPUS_MAX);
	if (rc == 0)
		rc = in_range(err, "", "n_ports", cfg->n_ports, 1, FP_PORTS_MAX);
	if (rc == 0)
		rc = in_range(err, "", "n_pools", cfg->n_pools, 0, FP_POOLS_MAX);
	if (rc == 0)
		rc = in_range(err, "", "flow_cap", cfg->flow_cap, FLOW_CAP_MIN, FLOW_CAP_MAX);
	if (rc == 0 && cfg->events_cap)
		rc = in_range(err, "", "events_cap", cfg->events_cap, EVENTS_CAP_MIN, EVENTS_CAP_MAX);
	if (rc == 0 && (cfg->events_cap & (cfg->events_cap - 1)))
		rc = refuse(err, "events_cap: %u is no power of two", cfg->events_cap);
	if (rc == 0)
		rc = in_range(err, "", "tcp_strict", cfg->tcp_strict, 0, 1);
	if (rc == 0)
		rc = in_range(err, "timeouts.", "tcp_transitory_s", t->tcp_transitory_s, 1, TIMEOUT_S_MAX);
	if (rc == 0)
		rc = in_range(err, "timeouts.", "tcp_established_s", t->tcp_established_s, 1, TIMEOUT_S_MAX);
	if (rc == 0)
		rc = in_range(err, "timeouts.", "tcp_closing_s", t->tcp_closing_s, 1, TIMEOUT_S_MAX);
	if (rc == 0)
		rc = in_range(err, "timeouts.", "udp_s", t->udp_s, 1, TIMEOUT_S_MAX);
	if (rc == 0)
		rc = in_range(err, "timeouts.", "icmp_s", t->icmp_s, 1, TIMEOUT_S_MAX);
	return rc;
}

static int check_sync(const struct fp_config *cfg, struct fp_error *err)
{
	int rc = in_range(err, "sync.", "lazy_ms", cfg->sync.lazy_ms, 0, LAZY_MS_MAX);

	if (rc == 0)
		rc = in_range(err, "sync.", "refresh_s", cfg->sync.refresh_s, 1, REFRESH_S_MAX);
	if (rc == 0)
		rc = in_range(err, "sync.", "hold_ms", cfg->sync.hold_ms, 0, HOLD_MS_MAX);
	if (rc == 0)
		rc = in_range(err, "sync.", "hold_frames", cfg->sync.hold_frames, 0, HOLD_FRAMES_MAX);
	if (rc == 0)
		rc = in_range(err, "sync.", "commit", cfg->sync.commit, 0, FP_COMMIT_STRICT);
	return rc;
}

static int check_pulse(const struct fp_config *cfg, struct fp_error *err)
{
	static const uint8_t no_key[sizeof(cfg->pulse.mac_key)];
	const struct fp_pulse_cfg *p = &cfg->pulse;
	int rc = in_range(err, "pulse.", "interval_ms", p->interval_ms, INTERVAL_MS_MIN, INTERVAL_MS_MAX);

	if (rc == 0)
		rc = in_range(err, "pulse.", "dead_after", p->dead_after, DEAD_AFTER_MIN, DEAD_AFTER_MAX);
	if (rc == 0)
		rc = in_range(err, "pulse.", "udp_port", p->udp_port, 1, UINT16_MAX);
	if (rc == 0)
		rc = in_range(err, "pulse.", "confirm_ms", p->confirm_ms, 0, p->interval_ms * p->dead_after);
	if (rc == 0 && p->control_dead_ms)
		rc = in_range(err, "pulse.", "control_dead_ms", p->control_dead_ms, CONTROL_DEAD_MS_MIN,
			      CONTROL_DEAD_MS_MAX);
	if (rc == 0 && p->worker_dead_ms)
		rc = in_range(err, "pulse.", "worker_dead_ms", p->worker_dead_ms, WORKER_DEAD_MS_MIN,
			      WORKER_DEAD_MS_MAX);
	if (rc == 0 && !memchr(p->xc_dev, '\0', sizeof(p->xc_dev)))
		rc = refuse(err, "pulse.xc_dev: longer than %u characters", FP_NAME_MAX - 1);
	if (rc == 0)
		rc = in_range(err, "pulse.", "xc_plen", p->xc_plen, 0, 32);
	if (rc == 0)
		rc = in_range(err, "pulse.", "node_index", p->node_index, 0, 1);
	if (rc == 0 && memcmp(p->mac_key, no_key, sizeof(no_key)) == 0)
		rc = refuse(err, "pulse.mac_key: is missing");
	if (rc == 0 && cfg->origin != p->node_index + 1)
		rc = refuse(err, "origin: %u is not pulse.node_index + 1", cfg->origin);
	if (rc == 0 && addr_is_zero(&p->xc_addr) != addr_is_zero(&p->xc_peer_addr))
		rc = refuse(err, "pulse.xc_addr and pulse.xc_peer_addr: one is missing");
	if (rc == 0 && addr_is_v4(&p->xc_addr) != addr_is_v4(&p->xc_peer_addr))
		rc = refuse(err, "pulse.xc_addr and pulse.xc_peer_addr: not of one address family");
	return rc;
}

static int check_vrrp(const struct fp_port_cfg *port, const char *where, struct fp_error *err)
{
	if (port->offload > 1)
		return refuse(err, "%soffload: %u is neither 0 nor 1", where, port->offload);
	if (port->n_vips > FP_VIPS_MAX)
		return refuse(err, "%sn_vips: %u is more than %u", where, port->n_vips, FP_VIPS_MAX);
	for (uint32_t i = 0; i < port->n_vips; i++) {
		if (!addr_is_v4(&port->vip[i]))
			return refuse(err, "%svip[%u]: not an IPv4 address", where, i);
		if (addr_eq(&port->vip[i], &port->addr))
			return refuse(err, "%svip[%u]: is the port's own address", where, i);
	}
	if (is_zero_mac(port->vmac))
		return port->n_vips ? refuse(err, "%svmac: missing, but there are VIPs", where) : 0;
	if (!is_unicast_mac(port->vmac) || memcmp(port->vmac, port->mac, sizeof(port->mac)) == 0)
		return refuse(err, "%svmac: not unicast, or the port's own", where);
	return 0;
}

/* Whether the port's wire is, in the caller's namespace, the device of that name. */
static bool is_wire_of(const struct fp_port_cfg *port, const char *device)
{
	return port->wire_netns[0] == '\0' && strcmp(port->wire_dev, device) == 0;
}

static int check_devices(const struct fp_config *cfg, uint32_t index, const char *where, struct fp_error *err)
{
	const struct fp_port_cfg *port = &cfg->ports[index];

	if (port->driver == FP_DRIVER_MEM)
		return 0;
	if (!memchr(port->wire_netns, '\0', sizeof(port->wire_netns)))
		return refuse(err, "%swire_netns: is too long", where);
	if (!is_name(port->wire_dev) || !is_name(port->host_dev) || is_wire_of(port, port->host_dev))
		return refuse(err, "%swire_dev, host_dev: two different device names are needed", where);
	for (uint32_t i = 0; i < index; i++) {
		const struct fp_port_cfg *other = &cfg->ports[i];
		const bool together = !strcmp(port->wire_netns, other->wire_netns);

		if ((together && !strcmp(port->wire_dev, other->wire_dev)) ||
		    !strcmp(port->host_dev, other->host_dev) || is_wire_of(other, port->host_dev) ||
		    is_wire_of(port, other->host_dev))
			return refuse(err, "%swire_dev, host_dev: taken by port %s", where, other->name);
	}
	return 0;
}

static int check_port(const struct fp_config *cfg, uint32_t index, struct fp_error *err)
{
	const struct fp_port_cfg *port = &cfg->ports[index];
	char where[24];
	int rc;

	snprintf(where, sizeof(where), "ports[%u].", index);
	if (!is_name(port->name))
		return refuse(err, "%sname: empty, or too long", where);
	for (uint32_t i = 0; i < index; i++) {
		if (strcmp(port->name, cfg->ports[i].name) == 0)
			return refuse(err, "%sname: %s is taken", where, port->name);
	}
	rc = in_range(err, where, "driver", port->driver, FP_DRIVER_TAP, FP_DRIVER_PACKET);
	if (rc == 0)
		rc = in_range(err, where, "zone", port->zone, FP_ZONE_INSIDE, FP_ZONE_OUTSIDE);
	if (rc == 0)
		rc = in_range(err, where, "mtu", port->mtu, MTU_MIN, MTU_MAX);
	if (rc == 0 && !addr_is_v4(&port->addr))
		rc = refuse(err, "%saddr: not an IPv4 address", where);
	if (rc == 0)
		rc = in_range(err, where, "plen", port->plen, 1, 32);
	if (rc == 0 && !is_unicast_mac(port->mac))
		rc = refuse(err, "%smac: not a unicast address", where);
	if (rc == 0 && !is_zero_mac(port->peer_mac) &&
	    (!is_unicast_mac(port->peer_mac) || !addr_is_v4(&port->peer_addr) ||
	     memcmp(port->peer_mac, port->mac, sizeof(port->mac)) == 0))
		rc = refuse(err, "%speer_mac, peer_addr: not a unicast MAC and an IPv4 address of the peer",
			    where);
	if (rc == 0)
		rc = check_vrrp(port, where, err);
	return rc ? rc : check_devices(cfg, index, where, err);
}

static int check_pool(const struct fp_config *cfg, uint32_t index, struct fp_error *err)
{
	const struct fp_pool_cfg *pool = &cfg->pools[index];
	char where[24];

	snprintf(where, sizeof(where), "pools[%u].", index);
	if (!is_name(pool->name))
		return refuse(err, "%sname: empty, or too long", where);
	if (!addr_is_v4(&pool->addr))
		return refuse(err, "%saddr: not an IPv4 address", where);
	if (pool->port_lo < NAT_PORT_MIN || pool->port_lo > pool->port_hi)
		return refuse(err, "%sport_lo, port_hi: %u..%u is not within %u..65535", where, pool->port_lo,
			      pool->port_hi, NAT_PORT_MIN);
	if (pool->out_port >= cfg->n_ports || cfg->ports[pool->out_port].zone != FP_ZONE_OUTSIDE)
		return refuse(err, "%sout_port: %u is no outside port", where, pool->out_port);
	if (pool->filtering > FP_FILTER_APDF)
		return refuse(err, "%sfiltering: %u is none", where, pool->filtering);
	for (uint32_t i = 0; i < index; i++) {
		const struct fp_pool_cfg *other = &cfg->pools[i];

		if (addr_eq(&pool->addr, &other->addr) && pool->port_lo <= other->port_hi &&
		    other->port_lo <= pool->port_hi)
			return refuse(err, "%sport_lo, port_hi: overlap with pool %s", where, other->name);
	}
	return 0;
}

int validate_config(const struct fp_config *cfg, struct fp_error *err)
{
	int rc = check_limits(cfg, err);

	if (rc == 0)
		rc = check_sync(cfg, err);
	if (rc == 0)
		rc = check_pulse(cfg, err);
	for (uint32_t i = 0; i < cfg->n_ports && rc == 0; i++)
		rc = check_port(cfg, i, err);
	for (uint32_t i = 0; i < cfg->n_pools && rc == 0; i++)
		rc = check_pool(cfg, i, err);
	return rc;
}

/* ---- policy ---- */

static bool is_within(uint32_t first, uint32_t n, uint32_t size)
{
	return first <= size && n <= size - first;
}

static int check_rule(const struct fp_policy_cfg *cfg, uint32_t index, const struct fp_config *node,
		      struct fp_error *err)
{
	const struct fp_rule *rule = &cfg->rules[index];

	if (rule->id != index + 1)
		return refuse(err, "rules[%u].id: %u is not its place in the list", index, rule->id);
	if (rule->action > FP_REJECT || (rule->form != FP_FORM_SNAT && rule->form != FP_FORM_NONE))
		return refuse(err, "rules[%u]: action %u or form %u is none", index, rule->action,
			      rule->form);
	if ((uint32_t)(rule->in_ports | rule->out_ports) >> node->n_ports || rule->pools >> node->n_pools)
		return refuse(err, "rules[%u]: in_ports, out_ports or pools: no such port or pool", index);
	if (rule->sport_lo > rule->sport_hi)
		return refuse(err, "rules[%u].sport_lo: above sport_hi", index);
	if (rule->sync > FP_SYNC_AFTER ||
	    (rule->commit > FP_COMMIT_STRICT && rule->commit != FP_COMMIT_DEFAULT))
		return refuse(err, "rules[%u]: sync %u or commit %u is none", index, rule->sync,
			      rule->commit);
	if (rule->sync == FP_SYNC_AFTER && (rule->sync_after_s < 1 || rule->sync_after_s > SYNC_AFTER_S_MAX))
		return refuse(err, "rules[%u].sync_after_s: %u is not within 1..%u", index,
			      rule->sync_after_s, SYNC_AFTER_S_MAX);
	if (!is_within(rule->first_src, rule->n_src, cfg->n_prefixes) ||
	    !is_within(rule->first_dst, rule->n_dst, cfg->n_prefixes) ||
	    !is_within(rule->first_service, rule->n_services, cfg->n_services))
		return refuse(err, "rules[%u]: a list of it is not within prefixes or services", index);
	return 0;
}

/* A list may serve several rules: what counts is how often something stands in one. */
static int check_rules(const struct fp_policy_cfg *cfg, const struct fp_config *node, struct fp_error *err)
{
	uint64_t n_prefixes = 0, n_services = 0;
	int rc = 0;

	for (uint32_t i = 0; i < cfg->n_rules && rc == 0; i++) {
		rc = check_rule(cfg, i, node, err);
		n_prefixes += (uint64_t)cfg->rules[i].n_src + cfg->rules[i].n_dst;
		n_services += cfg->rules[i].n_services;
	}
	if (rc == 0 && (n_prefixes > POLICY_PREFIXES_MAX || n_services > POLICY_SERVICES_MAX))
		rc = refuse(err, "rules: more than %u prefixes or %u services in all", POLICY_PREFIXES_MAX,
			    POLICY_SERVICES_MAX);
	return rc;
}

static bool is_one_address(const struct fp_config *node, uint32_t pool, uint32_t other)
{
	return pool == other || addr_eq(&node->pools[pool].addr, &node->pools[other].addr);
}

static int check_forward(const struct fp_policy_cfg *cfg, uint32_t index, const struct fp_config *node,
			 struct fp_error *err)
{
	const struct fp_forward *f = &cfg->forwards[index];

	if (f->id != index + 1)
		return refuse(err, "forwards[%u].id: %u is not its place in the list", index, f->id);
	if (f->pool >= node->n_pools)
		return refuse(err, "forwards[%u].pool: %u is none", index, f->pool);
	if (!addr_is_v4(&f->inside) || !f->proto || !f->inside_port || !f->external_port)
		return refuse(err, "forwards[%u]: inside is no IPv4 address, or protocol or port is 0",
			      index);
	for (uint32_t i = 0; i < index; i++) {
		const struct fp_forward *other = &cfg->forwards[i];

		if (other->external_port == f->external_port && other->proto == f->proto &&
		    is_one_address(node, other->pool, f->pool))
			return refuse(
				err,
				"forwards[%u].external_port: %u of that address is taken by forwards[%u]",
				index, f->external_port, i);
	}
	return 0;
}

int validate_policy(const struct fp_policy_cfg *cfg, const struct fp_config *node, struct fp_error *err)
{
	int rc;

	if ((cfg->n_rules && !cfg->rules) || (cfg->n_prefixes && !cfg->prefixes) ||
	    (cfg->n_services && !cfg->services) || (cfg->n_forwards && !cfg->forwards))
		return refuse(err, "policy: a list is missing");
	rc = in_range(err, "", "n_rules", cfg->n_rules, 0, POLICY_RULES_MAX);

	if (rc == 0)
		rc = in_range(err, "", "n_forwards", cfg->n_forwards, 0, POLICY_FORWARDS_MAX);
	if (rc == 0)
		rc = in_range(err, "", "default_outbound", cfg->default_outbound, FP_ALLOW, FP_DENY);
	for (uint32_t i = 0; i < cfg->n_prefixes && rc == 0; i++) {
		if (cfg->prefixes[i].plen > 128)
			rc = refuse(err, "prefixes[%u].plen: %u is more than 128", i, cfg->prefixes[i].plen);
	}
	for (uint32_t i = 0; i < cfg->n_services && rc == 0; i++) {
		const struct fp_service *s = &cfg->services[i];

		if (s->port_lo > s->port_hi || (s->proto == 0 && (s->port_lo > 0 || s->port_hi < UINT16_MAX)))
			rc = refuse(err, "services[%u]: port_lo above port_hi, or ports of any protocol", i);
	}
	if (rc == 0)
		rc = check_rules(cfg, node, err);
	for (uint32_t i = 0; i < cfg->n_forwards && rc == 0; i++)
		rc = check_forward(cfg, i, node, err);
	return rc;
}
