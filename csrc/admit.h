/* SPDX-License-Identifier: Apache-2.0 */
/**
 * admit.h - what a packet that belongs to no session may open
 *
 * Theory of operation
 *   Where the packet comes from and what it is for make its case, and the case says what may be opened:
 *
 *     from      to                      session
 *     inside    an outside port         SNAT with a pool of the rule (STATIC if the source is a forward's
 *                                       server), or NONE; unless a rule matches, as the policy's default says
 *     inside    another inside port     NONE, by a rule only
 *     inside    a port of the NAT       hairpin: as to outside, and the packet begins anew from there
 *     outside   a forward               STATIC, unless a rule refuses it
 *     outside   a mapping's port        SNAT, if the pool's filtering lets the remote in, unless a rule refuses
 *     outside   an inside port          NONE, by a rule of that form only
 *
 *   Rules see inside addresses, and what is behind a forward. Whatever the case, the source must be routed back
 *   towards where the packet came from (RFC 3704 section 2.4, loose: by zone; between inside ports: by port).
 */
#ifndef ADMIT_H
#define ADMIT_H

#include "nexthop.h"
#include "pkt.h"
#include "session.h"

/**
 * admit_proto() - May a protocol pass, once all else allows it?
 * @named: by the rule that allows it
 *
 * What has ports, and the tunnels and transports that need nothing but an address: GRE, ESP, SCTP. Of others it
 * is not known whether a translated address, or a state that runs out, breaks them: a rule must name them.
 */
static inline bool admit_proto(uint8_t proto, bool named)
{
	return named || nat_has_ports(proto) || proto == 47 || proto == 50 || proto == 132;
}

/**
 * admit_packet() - Decide about a packet that local_ipv4() let through, and open its session
 * @p:     not a later fragment, not an ICMP error; may become an answer to its sender
 * @entry: out: the session, and the side that the packet is of
 * @nh:    out: next hop of this packet; left alone if the session's remote is a pool of ours
 *
 * Return: V_GO_ON, or the verdict.
 * Spec:   R10; RFC 4787 REQ-8, REQ-9; RFC 5382 REQ-3, REQ-8.
 */
uint32_t admit_packet(struct core *c, struct pkt *p, uint32_t *entry, struct nexthop *nh);

#endif /* ADMIT_H */
