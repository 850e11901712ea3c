/* SPDX-License-Identifier: Apache-2.0 */
/**
 * icmp.h - ICMP errors: those of others translated, our own made
 *
 * Theory of operation
 *   An ICMP error quotes the packet that it is about: the IP header and at least 8 bytes behind it, which
 *   is enough to name the session. The quoted packet travelled the other way, as the one who complains saw
 *   it, so its endpoints are those of the far side:
 *
 *     error from      quoted packet              index      what is put right
 *     outside         external -> remote         inbound    outer destination, quoted source := inside
 *     inside          remote -> inside           outbound   outer source, quoted destination := external
 *
 *   Where the session is not translated, nothing is; where its remote is an address of ours, the error begins
 *   anew from outside after this, as the session's packets do (hairpin).
 *
 *   The session is looked up, its owner found by shard as for any packet of it, but it is neither touched
 *   nor counted in: whoever can guess its endpoints could otherwise keep or end it (RFC 5508 REQ-6, RFC 5382
 *   REQ-10, RFC 4787 REQ-12).
 *
 *   Errors of our own are about packets that we would have forwarded. They replace the frame in place and
 *   leave by the port that it came in by, and are limited in number (RFC 1812 section 4.3.2.8).
 */
#ifndef ICMP_H
#define ICMP_H

#include "nexthop.h"
#include "pkt.h"
#include "step.h"

enum {
	ICMP_RATE_PER_S = 1000,  /* errors of our own, of one worker, to either side */
	ICMP_BURST = 50,         /* of them at once */
	ICMP_ERROR_LEN_MAX = 576 /* RFC 1812 section 4.3.2.3 */
};

/**
 * icmp_error_key() - What the index is to be asked about an ICMP error
 * @p:     pkt_is_icmp_error(); .key is filled in
 * @shard: out: of the session that it is about
 *
 * Return: V_GO_ON, or why the error is dropped.
 * Spec:   RFC 5508 REQ-3.
 */
uint32_t icmp_error_key(const struct core *c, struct pkt *p, uint32_t *shard);

/**
 * icmp_error_forward() - Translate an ICMP error and the packet that it quotes, and send it on
 * @p:     after icmp_error_key()
 * @entry: what the index knows under its key; 0 = nothing
 *
 * Return: the verdict.
 * Spec:   RFC 5508 REQ-4, REQ-5, REQ-6; RFC 5382 REQ-9, REQ-10; RFC 4787 REQ-12.
 */
uint32_t icmp_error_forward(struct core *c, struct pkt *p, uint32_t entry);

/**
 * icmp_error_is_nat() - Is an ICMP error to an address of ours about what the NAT sent from it?
 */
bool icmp_error_is_nat(const struct core *c, const struct pkt *p);

/**
 * icmp_may_answer() - May the sender of a packet be told what became of it?
 * @back: out: the way to it
 *
 * Not about what is addressed to many, not to a source that is not one host, or that is routed elsewhere than
 * where the packet came from (a forged source would aim our answer at its victim).
 */
bool icmp_may_answer(const struct core *c, const struct pkt *p, struct nexthop *back);

/**
 * icmp_take_token() - May another error of our own, or RST, be sent now?
 * @p: what it is about
 *
 * Each side has tokens of its own: whoever outside provokes errors must not keep inside hosts from hearing of theirs,
 * that a packet was too big above all.
 */
bool icmp_take_token(struct core *c, const struct pkt *p);

/**
 * icmp_refuse() - Tell the sender why its packet is not forwarded, if it may be told
 * @p:      as it came in, not a fragment, not an ICMP error, and icmp_may_answer(); replaced by the answer
 * @nh:     where it would have gone
 * @reason: V_TTL_EXPIRED or V_TOO_BIG
 *
 * Return: the verdict; @reason if nothing is said; V_AGAIN if the answer has to be translated, too (hairpin).
 * Spec:   RFC 1812 sections 4.3.2, 5.2.7.3; RFC 1191 section 4; RFC 4787 REQ-13.
 */
uint32_t icmp_refuse(struct core *c, struct pkt *p, const struct nexthop *nh, uint32_t reason);

/**
 * icmp_prohibit() - Tell the sender that a rule rejects its packet, as icmp_refuse() does
 *
 * Return: the verdict; V_RULE_DENIED if nothing is said.
 * Spec:   RFC 1812 section 5.2.7.1.
 */
uint32_t icmp_prohibit(struct core *c, struct pkt *p);

/**
 * icmp_no_room() - Tell an inside host that there is no room for its session, as icmp_refuse() does
 * @reason: what session_open() said
 *
 * Nobody outside is told: whoever floods a forward would have his errors sent to addresses that he made up.
 *
 * Return: V_*_SENT, or V_NEIGH_*; @reason if nothing is said.
 * Spec:   RFC 5508 REQ-8, RFC 6888 REQ-11.
 */
uint32_t icmp_no_room(struct core *c, struct pkt *p, uint32_t reason);

/* Other than V_GO_ON it is the end of the packet, which may have become an answer to its sender. */
static inline uint32_t icmp_check_egress(struct core *c, struct pkt *p, const struct nexthop *nh)
{
	uint32_t verdict = nexthop_fits(c, p, nh);

	return likely(verdict == V_GO_ON) ? verdict : icmp_refuse(c, p, nh, verdict);
}

#endif /* ICMP_H */
