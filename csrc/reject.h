/* SPDX-License-Identifier: Apache-2.0 */
/**
 * reject.h - telling a sender that a rule forbids what it tries: RST, or ICMP "administratively prohibited"
 */
#ifndef REJECT_H
#define REJECT_H

#include "pkt.h"
#include "step.h"

/**
 * reject_packet() - Answer a packet that a rule rejects
 * @p: as it came in, not a fragment, not an ICMP error; replaced by the answer
 *
 * TCP gets the RST that a host without the connection would send, from the address that was asked; all else
 * an ICMP error of code 13. Either leaves by the port that the packet came in by, is limited in number as our
 * other errors are, and is for nobody who could not have sent the packet (icmp.h: icmp_refuse()).
 *
 * Return: V_REJECTED_RST, V_REJECTED_ICMP or V_NEIGH_*; V_RULE_DENIED or V_ICMP_LIMITED if nothing is said.
 * Spec:   RFC 9293 section 3.10.7.1; RFC 1812 section 5.2.7.1.
 */
uint32_t reject_packet(struct core *c, struct pkt *p);

#endif /* REJECT_H */
