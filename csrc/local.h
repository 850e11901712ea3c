/* SPDX-License-Identifier: Apache-2.0 */
/**
 * local.h - frames that belong to no session: for the node itself, its kernel, VRRP, the pulse, or nobody
 *
 * Destination MAC first: what a frame may become depends on whom it is addressed to and on the role.
 *
 *   destination MAC   not ACTIVE                            ACTIVE
 *   another's         not_for_us                            not_for_us
 *   group             ARP, VRRP, kernel                     the same; ARP for the VIP is answered
 *   port MAC          node's own: kernel; else to the       node's own: kernel; IPv4: VIP, or routed
 *                     peer by the conduit, or not_active
 *   VMAC              vmac_not_active; or as the port MAC,  IPv4: the same; node's own: kernel
 *                     if the conduit's orders say so
 */
#ifndef LOCAL_H
#define LOCAL_H

#include "pkt.h"
#include "step.h"

enum mac_class { MAC_OTHER, MAC_GROUP, MAC_PORT, MAC_VMAC };

/**
 * local_classify() - Whom is a frame from the wire addressed to?
 */
static HOT enum mac_class local_classify(const struct core_port *port, const struct fp_frame *frame)
{
	const uint64_t to = mac_word(frame->data + ETH_DST);

	if (to == port->vmac_word)
		return MAC_VMAC;
	if (to == port->mac_word)
		return MAC_PORT;
	return mac_is_group(frame->data + ETH_DST) ? MAC_GROUP : MAC_OTHER;
}

/**
 * local_from_host() - A frame that the node's kernel sent, its length checked: to the wire of its port
 */
uint32_t local_from_host(const struct core *c, struct fp_frame *frame);

/**
 * local_pass_on() - To the peer, which has the role now, by the wire that it came by
 *
 * To its port MAC: the virtual one may still lead back here. Ours as the source misleads no switch.
 * Return: V_PASSED_ON, or V_VMAC_NOT_ACTIVE: no peer is known there, or this is nothing that is routed.
 */
uint32_t local_pass_on(const struct core *c, struct fp_frame *frame);

/**
 * local_frame() - Any frame but unicast IPv4 to us
 * @to: from local_classify()
 * Return: the verdict.
 */
uint32_t local_frame(struct core *c, struct fp_frame *frame, enum mac_class to);

/**
 * local_is_subnet() - Is this the first or last address of a port's prefix, and not a host's?
 */
bool local_is_subnet(const struct core *c, be32 v4);

/**
 * local_ipv4() - Unicast IPv4 to us that no session has taken
 * @p:  after pkt_parse_ip()
 * @l4: what pkt_parse_l4() said (V_GO_ON when @p is a fragment)
 * Return: the verdict, or V_GO_ON: to be routed, but no session yet; or an ICMP error, whose session is
 *         yet to be looked for in what it quotes.
 */
uint32_t local_ipv4(const struct core *c, struct pkt *p, uint32_t l4);

#endif /* LOCAL_H */
