/* SPDX-License-Identifier: Apache-2.0 */
/**
 * flow_match.c - which records of a page somebody wants to see
 *
 * A table holds a million sessions and a person asks for one: so records are looked at as they come out of the
 * walk, and only those that are wanted become objects of Python.
 */
#include "base.h"
#include <errno.h>

static bool within(const struct fp_addr *addr, const struct fp_prefix *prefix)
{
	uint32_t whole = prefix->plen / 8, rest = prefix->plen % 8;

	if (addr_is_v4(addr) != addr_is_v4(&prefix->addr)) /* ::/0 takes no IPv4 address in its mapped form */
		return false;
	if (memcmp(addr->b, prefix->addr.b, whole) != 0)
		return false;
	return !rest || (addr->b[whole] ^ prefix->addr.b[whole]) >> (8 - rest) == 0;
}

static bool wanted(const struct fp_flow_rec *r, const struct fp_flow_want *want)
{
	const struct fp_addr *const addrs[] = { &r->inside, &r->remote, &r->external };
	const uint16_t ports[] = { r->inside_port, r->remote_port, r->external_port };

	if ((want->has & FP_WANT_FORM) && r->form != want->form)
		return false;
	if ((want->has & FP_WANT_PROTO) && r->proto != want->proto)
		return false;
	if ((want->has & FP_WANT_STATE) && r->state != want->state)
		return false;
	for (uint32_t side = 0; side < ARRAY_SIZE(addrs); side++) {
		if ((want->has & FP_WANT_PORT << side) && ports[side] != want->ports[side])
			return false;
		if ((want->has & FP_WANT_PREFIX << side) && !within(addrs[side], &want->prefixes[side]))
			return false;
	}
	return true;
}

int fp_flows_match(const struct fp_flow_rec *rec, uint32_t n, const struct fp_flow_want *want,
		   uint32_t *places)
{
	int found = 0;

	if (!rec || !want || !places || n > INT32_MAX)
		return -EINVAL;
	for (uint32_t side = 0; side < ARRAY_SIZE(want->prefixes); side++)
		if (want->prefixes[side].plen > 128)
			return -EINVAL;
	for (uint32_t i = 0; i < n; i++)
		if (wanted(&rec[i], want))
			places[found++] = i;
	return found;
}
