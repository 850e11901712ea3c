/* SPDX-License-Identifier: Apache-2.0 */
/**
 * vip.h - what the node says in the name of a virtual address: ARP and echo
 *
 * A VIP is not an address of the kernel, so the fast path answers for it, with the virtual MAC and only
 * while ACTIVE (RFC 9568 section 8.1.2). The same goes for an address of a pool that is on a port's link.
 */
#ifndef VIP_H
#define VIP_H

#include "pkt.h"
#include "step.h"

/**
 * vip_of_port() - Is this a VIP of this port?
 */
bool vip_of_port(const struct core *c, uint32_t port, const struct fp_addr *addr);

/**
 * vip_of_node() - Is this a VIP of any port?
 */
bool vip_of_node(const struct core *c, const struct fp_addr *addr);

/**
 * vip_serves() - Is this an address that we answer for: a VIP, or a pool's that is not the kernel's?
 */
bool vip_serves(const struct core *c, const struct fp_addr *addr);

/**
 * vip_arp() - Decide about an ARP frame from the wire
 *
 * What asks for an address of ours never reaches the kernel, so a known neighbour that asks from another MAC
 * address than we know is told of to the control plane, in each role (RFC 826: "merge").
 *
 * Return: the verdict; V_HOST_ARP leaves it to the caller to give the frame to the kernel.
 * Spec:   RFC 826; RFC 9568 section 8.1.2; RFC 5227 (probes have no sender address and are answered).
 */
uint32_t vip_arp(struct core *c, struct fp_frame *frame);

/**
 * vip_echo() - Answer an ICMP echo request to an address that vip_serves()
 * @p: an echo request, parsed
 * Return: V_VIP_ECHO or V_L4_CHECKSUM.
 */
uint32_t vip_echo(const struct core *c, const struct pkt *p);

#endif /* VIP_H */
