/* SPDX-License-Identifier: Apache-2.0 */
/**
 * verdict.h - how a packet can end: one table makes the enum, the counter's name, its help and its class
 *
 * PASS and DROP are ends: every packet has exactly one. TRANSIT is not: the packet meets its end later (at
 * the worker that owns it, or when its neighbour is known), and is counted there once more.
 * So frames in = sum of PASS + sum of DROP + what is parked or in a hand-off ring right now.
 */
#ifndef VERDICT_H
#define VERDICT_H

#include "base.h"

enum verdict_class { VERDICT_PASS, VERDICT_DROP, VERDICT_TRANSIT };

/* X(enum, name, class, help) */
#define VERDICTS(X)                                                                                        \
	/* the session path */                                                                             \
	X(SNAT, snat, PASS, "packet of a session, inside to outside: source translated, sent")             \
	X(REVERSE, reverse, PASS, "packet of a session, outside to inside: destination translated, sent")  \
	X(ICMP_ERROR_IN, icmp_error_in, PASS,                                                              \
	  "ICMP error about a session, outside to inside: it and its quote translated, sent")              \
	X(ICMP_ERROR_OUT, icmp_error_out, PASS,                                                            \
	  "ICMP error about a session, inside to outside: it and its quote translated, sent")              \
	X(ROUTED, routed, PASS, "packet of a session that is not translated: sent")                        \
	X(HAIRPIN, hairpin, PASS, "from an inside host to another by way of a NAT address: sent")          \
	X(REJECTED_RST, rejected_rst, PASS, "a rule rejects it: answered with a TCP RST")                  \
	X(REJECTED_ICMP, rejected_icmp, PASS,                                                              \
	  "a rule rejects it: answered with ICMP administratively prohibited")                             \
	/* the node itself */                                                                              \
	X(HOST, host, PASS, "addressed to this node: given to its kernel")                                 \
	X(HOST_MULTICAST, host_multicast, PASS, "multicast or broadcast: given to the kernel")             \
	X(HOST_ARP, host_arp, PASS, "ARP that is not about a VIP: given to the kernel")                    \
	X(HOST_OUT, host_out, PASS, "sent by this node's kernel: to the wire")                             \
	X(ARP_VIP, arp_vip, PASS, "ARP request for a VIP or a pool: answered with the virtual MAC")        \
	X(VIP_ECHO, vip_echo, PASS, "ICMP echo request to a VIP or a pool: answered")                      \
	X(TTL_EXCEEDED_SENT, ttl_exceeded_sent, PASS, "TTL ran out: answered with ICMP Time Exceeded")     \
	X(FRAG_NEEDED_SENT, frag_needed_sent, PASS, "too big and DF: answered with Fragmentation Needed")  \
	X(TABLE_FULL_SENT, table_full_sent, PASS, "table_full, and its sender was told: ICMP code 13")     \
	X(PORTS_EXHAUSTED_SENT, ports_exhausted_sent, PASS, "ports_exhausted, and its sender was told")    \
	X(SOURCE_LIMIT_SENT, source_limit_sent, PASS, "source_limit, and its sender was told")             \
	X(PORT_LIMIT_SENT, port_limit_sent, PASS, "port_limit, and its sender was told")                   \
	X(ENDPOINT_TAKEN_SENT, endpoint_taken_sent, PASS, "endpoint_taken, and its sender was told")       \
	X(VRRP, vrrp, PASS, "VRRP advertisement: given to the control plane")                              \
	X(PULSE, pulse, PASS, "heartbeat of the peer: given to the pulse thread")                          \
	X(PASSED_ON, passed_on, PASS,                                                                      \
	  "to the virtual MAC, just after the role was handed over: to the peer by the same wire")         \
	X(CONDUIT_OUT, conduit_out, PASS,                                                                  \
	  "of a session, ready to leave: given to the peer, whose port is up")                             \
	X(CONDUIT_FROM, conduit_from, PASS, "ready to leave, from the peer, whose port is down: sent")     \
	X(CONDUIT_TO, conduit_to, PASS, "to be routed, but not ACTIVE: given to the peer, which is")       \
	/* not an end */                                                                                   \
	X(HANDOFF, handoff, TRANSIT, "handed to the worker that owns the session")                         \
	X(HELD, held, TRANSIT, "held until the peer has its session")                                      \
	X(NEIGH_WAIT, neigh_wait, TRANSIT, "parked until the next hop's MAC address is known")             \
	/* Ethernet */                                                                                     \
	X(RUNT, runt, DROP, "shorter than an Ethernet header")                                             \
	X(OVERSIZED, oversized, DROP, "longer than the port's MTU")                                        \
	X(VNET_MALFORMED, vnet_malformed, DROP,                                                            \
	  "offload header that contradicts the frame, or cuts it into too many segments")                  \
	X(OWN_SOURCE, own_source, DROP, "source is this node's own port MAC: a loop")                      \
	X(NOT_FOR_US, not_for_us, DROP, "unicast to somebody else's MAC")                                  \
	X(VMAC_NOT_ACTIVE, vmac_not_active, DROP, "to the virtual MAC, but this node is not ACTIVE")       \
	X(NOT_ACTIVE, not_active, DROP, "to be routed, but this node is not ACTIVE")                       \
	X(ETHERTYPE, ethertype, DROP, "to the virtual MAC with an EtherType that is not routed")           \
	X(IPV6_NOT_FORWARDED, ipv6_not_forwarded, DROP, "IPv6 to be routed: not in this version")          \
	X(HOST_VMAC, host_vmac, DROP, "the kernel sent from a virtual MAC: only the fast path may")        \
	/* ARP */                                                                                          \
	X(ARP_MALFORMED, arp_malformed, DROP, "truncated ARP, or not Ethernet/IPv4")                       \
	X(ARP_VIP_NOT_ACTIVE, arp_vip_not_active, DROP, "ARP request for a VIP while not ACTIVE")          \
	X(ARP_VIP_CLAIM, arp_vip_claim, DROP, "ARP request from a VIP: its owner announces itself")        \
	/* IP */                                                                                           \
	X(IP_MALFORMED, ip_malformed, DROP, "IPv4 header truncated or contradictory")                      \
	X(IP_CHECKSUM, ip_checksum, DROP, "IPv4 header checksum is wrong")                                 \
	X(IP_OPTIONS, ip_options, DROP, "IPv4 options are not routed")                                     \
	X(MARTIAN_SOURCE, martian_source, DROP, "source address that no host may use")                     \
	X(MARTIAN_DESTINATION, martian_destination, DROP, "destination address that is not routed")        \
	X(LAND, land, DROP, "source and destination are the same address")                                 \
	X(SPOOFED_OWN, spoofed_own, DROP, "source is an address of ours: a port's, a VIP or a pool's")     \
	X(SPOOFED_INSIDE, spoofed_inside, DROP, "from outside, with a source that is routed inside")       \
	X(SPOOFED_SESSION, spoofed_session, DROP, "of a session, but by a port that it does not go by")    \
	X(BROADCAST_SOURCE, broadcast_source, DROP, "source is the broadcast address of a port's prefix")  \
	X(BROADCAST_DESTINATION, broadcast_destination, DROP,                                              \
	  "to the broadcast address of a port's prefix (RFC 2644)")                                        \
	X(TTL_EXPIRED, ttl_expired, DROP, "TTL would reach 0; the sender may not be told")                 \
	X(TOO_BIG, too_big, DROP, "longer than the MTU ahead; the sender may not be told")                 \
	/* fragments */                                                                                    \
	X(FRAG_HELD, frag_held, TRANSIT, "fragment held until the first of its datagram has come")         \
	X(FRAG_TIMEOUT, frag_timeout, DROP, "fragment whose datagram's first did not come in time")        \
	X(FRAG_TINY, frag_tiny, DROP, "fragments so small that the first has no whole header")             \
	X(FRAG_OVERLAP, frag_overlap, DROP, "of a datagram whose fragments overlap")                       \
	X(FRAG_DUPLICATE, frag_duplicate, DROP, "fragment of which everything came before")                \
	X(FRAG_MALFORMED, frag_malformed, DROP, "of a datagram with an odd fragment or a second end")      \
	X(FRAG_BEYOND, frag_beyond, DROP, "of a datagram that would be longer than 65,535 bytes")          \
	X(FRAG_TOO_MANY, frag_too_many, DROP, "of a datagram in too many fragments")                       \
	X(FRAG_TABLE_FULL, frag_table_full, DROP, "no room to hold the fragment any longer")               \
	X(FRAG_ICMP, frag_icmp, DROP, "of an ICMP message in fragments that is no echo")                   \
	X(FRAG_VIP_ECHO, frag_vip_echo, DROP, "of an echo request to a VIP in fragments")                  \
	X(FRAG_NO_SESSION, frag_no_session, DROP, "fragment, but its datagram's first opened no session")  \
	/* TCP, UDP, ICMP */                                                                               \
	X(L4_MALFORMED, l4_malformed, DROP, "TCP, UDP or ICMP header truncated or contradictory")          \
	X(L4_CHECKSUM, l4_checksum, DROP,                                                                  \
	  "TCP, UDP or ICMP checksum is wrong (verified where state changes)")                             \
	X(PROTOCOL, protocol, DROP, "not TCP, UDP, ICMP, GRE, ESP or SCTP, and no rule names it")          \
	X(ICMP_ERROR_BAD, icmp_error_bad, DROP, "ICMP error whose quote is cut, damaged or made up")       \
	X(ICMP_ERROR_NO_SESSION, icmp_error_no_session, DROP, "ICMP error about no session of ours")       \
	X(ICMP_LIMITED, icmp_limited, DROP, "TTL ran out, too big or rejected; too many were told lately") \
	X(ICMP_TYPE, icmp_type, DROP, "ICMP that is neither echo nor an error")                            \
	X(TCP_FLAGS, tcp_flags, DROP, "impossible combination of TCP flags")                               \
	X(TCP_STATE, tcp_state, DROP, "TCP segment that the session's state does not allow")               \
	X(TCP_WINDOW, tcp_window, DROP, "TCP segment out of the window of its connection")                 \
	X(TCP_RST_WINDOW, tcp_rst_window, DROP, "TCP RST out of the window of its connection")             \
	X(PULSE_BAD, pulse_bad, DROP,                                                                      \
	  "to the heartbeat port, but not from the peer, not TTL 255, or damaged")                         \
	/* policy and sessions */                                                                          \
	X(SYN_CHECK, syn_check, DROP, "TCP segment without SYN that belongs to no session")                \
	X(NO_SESSION, no_session, DROP, "from outside to a NAT address, but no session matches")           \
	X(OUTSIDE_DENIED, outside_denied, DROP, "from outside to an address that is not a NAT address")    \
	X(INSIDE_DENIED, inside_denied, DROP, "from inside to an inside zone: no rule allows it")          \
	X(RULE_DENIED, rule_denied, DROP, "a rule denies it, or rejects it and may not tell the sender")   \
	X(FILTERED, filtered, DROP, "from outside to a mapping whose pool does not let this remote in")    \
	X(FILTERED_UNSEEN, filtered_unseen, DROP,                                                          \
	  "to a mapping with so many sessions that not all were looked at for this remote")                \
	X(HAIRPIN_PORTLESS, hairpin_portless, DROP, "from inside to a NAT address, without ports")         \
	X(VIP_SERVICE, vip_service, DROP, "to a VIP or a pool's address, which offers nothing but echo")   \
	X(NO_POOL, no_pool, DROP, "the outside port has no NAT pool")                                      \
	X(TABLE_FULL, table_full, DROP, "no record left for a new session")                                \
	X(PORTS_EXHAUSTED, ports_exhausted, DROP, "no external port left for a new mapping")               \
	X(SOURCE_LIMIT, source_limit, DROP, "the inside address has all the sessions that it may have")    \
	X(PORT_LIMIT, port_limit, DROP, "the inside address has all the external ports that it may have")  \
	X(ENDPOINT_TAKEN, endpoint_taken, DROP, "another session has these addresses (and ports)")         \
	X(HOLD_FULL, hold_full, DROP, "the peer does not have its session yet, and no room to hold it")    \
	X(HOLD_DROPPED, hold_dropped, DROP,                                                                \
	  "held for the peer, which did not get its session in time (strict), or the session ended")       \
	/* next hop */                                                                                     \
	X(NO_ROUTE, no_route, DROP, "no route to the destination")                                         \
	X(NO_RETURN_ROUTE, no_return_route, DROP, "the source is not routed towards an inside port")       \
	X(ZONE_UNREACHABLE, zone_unreachable, DROP,                                                        \
	  "towards a zone to which no route leads, or another zone's")                                     \
	X(NEIGH_FULL, neigh_full, DROP, "too many frames wait for a neighbour")                            \
	X(NEIGH_BIG, neigh_big, DROP, "offload frame whose neighbour is not known: too long to wait")      \
	X(NEIGH_TIMEOUT, neigh_timeout, DROP, "the neighbour did not answer")                              \
	/* said by the shell, after the core's verdict */                                                  \
	X(SUSPECT_WAIT, suspect_wait, TRANSIT,                                                             \
	  "to the virtual MAC, flooded here while ACTIVE is suspected: kept until it is known")            \
	X(SUSPECT_DROPPED, suspect_dropped, DROP, "kept, but ACTIVE lives, or nobody took over in time")   \
	X(SUSPECT_FULL, suspect_full, DROP, "to be kept while ACTIVE is suspected, but there is no room")  \
	X(FENCED, fenced, DROP, "no longer ACTIVE when it was to be sent")                                 \
	X(LEASE, lease, DROP, "ACTIVE, but the lease was over, and the peer did not answer in time")       \
	X(CONDUIT_MALFORMED, conduit_malformed, DROP,                                                      \
	  "from the cross-connect: no Geneve of this pair, or without its option")                         \
	X(CONDUIT_CRITICAL, conduit_critical, DROP,                                                        \
	  "from the cross-connect: Geneve with a critical option that is not known")                       \
	X(CONDUIT_FOREIGN, conduit_foreign, DROP,                                                          \
	  "from the cross-connect: Geneve that the peer did not send, or not by this cable")               \
	X(CONDUIT_TERM, conduit_term, DROP, "from the peer, but meant for another reign")                  \
	X(CONDUIT_NOT_ACTIVE, conduit_not_active, DROP, "from the peer to ACTIVE, but this node is not")   \
	X(CONDUIT_NOT_PASSIVE, conduit_not_passive, DROP, "from the peer as ACTIVE, but so is this node")  \
	X(CONDUIT_FULL, conduit_full, DROP, "to the peer, but the cross-connect refused it")               \
	X(TX_FAILED, tx_failed, DROP, "the port refused the frame")                                        \
	X(HOST_FULL, host_full, DROP, "the host TAP refused the frame")                                    \
	X(HANDOFF_FULL, handoff_full, DROP, "the hand-off ring was full")                                  \
	X(HANDOFF_LOOP, handoff_loop, DROP, "handed on too often: workers disagree about whose it is")     \
	X(PUNT_FULL, punt_full, DROP, "the ring to the control plane or the pulse thread was full")

enum fp_verdict {
#define X(id, name, class, help) V_##id,
	VERDICTS(X)
#undef X
		V_COUNT,
	V_GO_ON = V_COUNT, /* no verdict yet; never leaves the core */
	V_AGAIN            /* hairpin: begins anew, as if from outside; never leaves step.c */
};

/**
 * verdict_name() - Name of the counter, "snat"; NULL beyond the table
 */
const char *verdict_name(uint32_t verdict);

/**
 * verdict_help() - One line for people; NULL beyond the table
 */
const char *verdict_help(uint32_t verdict);

/**
 * verdict_is_drop() - The packet goes nowhere
 */
bool verdict_is_drop(uint32_t verdict);

#endif /* VERDICT_H */
