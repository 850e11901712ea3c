/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcptrack.h - TCP connection state as seen from the middle
 *
 * Inside opens; "orig" is inside -> outside (side 0), "reply" is outside -> inside (side 1).
 *
 *   state        segment                            becomes       remark
 *   (none)       orig SYN                           SYN_SENT      anything else: SYN-check (R10), step.c
 *   SYN_SENT     reply SYN+ACK                      SYN_RECV
 *   SYN_SENT     reply SYN                          SYN_RECV      simultaneous open, RFC 5382 REQ-2
 *   SYN_SENT     orig ACK                           drop          there is nothing to acknowledge yet
 *   SYN_SENT     reply ACK                          (same)        a half-open peer's challenge: let it pass
 *   SYN_SENT     any ACK, record imported           ESTABLISHED   the other node saw the SYN+ACK
 *   SYN_RECV     orig ACK                           ESTABLISHED   imported: any ACK
 *   up to ESTABLISHED   FIN                         FIN_WAIT
 *   FIN_WAIT     FIN of the other side              CLOSING
 *   CLOSING      both FINs acknowledged             TIME_WAIT
 *   any          RST in the window                  CLOSED        out of the window: passes, changes nothing
 *   TIME_WAIT, CLOSED   orig SYN                    (new session) TCPTRACK_REOPEN
 *   any but SYN_SENT    reply SYN without ACK       drop          outside opens nothing
 *   any other pair: passes, changes nothing.
 *
 * A state never becomes smaller (enum fp_state is ordered). Windows are learned (van Rooij) and used only to
 * tell a genuine RST; a segment is never dropped for being out of a window, because after a takeover the
 * survivor's windows are older than the connection.
 */
#ifndef TCPTRACK_H
#define TCPTRACK_H

#include "base.h"
#include "flow.h"
#include "pkt.h"

enum {                          /* flow_cold.wflags */
       TCP_WIN_SCALE_KNOWN = 1, /* as in fp_tcp_win.flags */
       TCP_WIN_SACK = 2,        /* as in fp_tcp_win.flags */
       TCP_WIN_END_KNOWN = 4,   /* local: `end` was learned from a segment that passed here */
       TCP_SCALE_MAX = 14       /* RFC 7323 section 2.3 */
};

enum tcptrack_result {
	TCPTRACK_PASS,    /* forward; nothing that the peer must know */
	TCPTRACK_CHANGED, /* forward; state or flags changed */
	TCPTRACK_REOPEN,  /* a SYN on a closed session: the session ends, a new one begins */
	TCPTRACK_DROP     /* not allowed in this state */
};

/**
 * tcptrack_flags_ok() - Can these flags be on any segment of a sane sender?
 */
bool tcptrack_flags_ok(uint8_t flags);

/**
 * tcptrack_segment() - Move a session's state by one segment
 * @f:    record; state and flags are updated
 * @c:    its windows are updated
 * @side: direction of the segment
 * @p:    TCP, parsed
 */
enum tcptrack_result tcptrack_segment(struct flow_hot *f, struct flow_cold *c, uint32_t side,
				      const struct pkt *p);

/**
 * tcptrack_open() - First segment of a session: a SYN, or anything when SYN-check is off
 * @side: who sent it
 */
void tcptrack_open(struct flow_hot *f, struct flow_cold *c, const struct pkt *p, uint32_t side);

#endif /* TCPTRACK_H */
