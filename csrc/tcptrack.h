/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcptrack.h - TCP connection state and windows as seen from the middle
 *
 * The opener sent the first SYN, the responder is the other end: inside and outside, or the other way round
 * when the session came in by a forward or a filter (FP_RF_INBOUND).
 *
 *   state        segment                            becomes       remark
 *   (none)       SYN                                SYN_SENT      anything else: SYN-check (R10), step.c
 *   (none)       ACK, FIN; SYN-check is off         ESTABLISHED   picked up in the middle: lenient
 *   SYN_SENT     responder's SYN+ACK of our SYN     SYN_RECV      of another SYN: passes, changes nothing
 *   SYN_SENT     responder's SYN                    SYN_RECV      simultaneous open, RFC 5382 REQ-2
 *   SYN_SENT     opener's ACK, SYN+ACK              tcp_state     there is nothing to acknowledge yet
 *   SYN_SENT     responder's ACK                    (same)        a half-open peer's challenge: let it pass
 *   SYN_SENT     opener's RST                       (same)        its answer to the challenge; CLOSED if it is
 *                                                                 of this very SYN
 *   SYN_SENT     responder's RST of our SYN         CLOSED        refused; of another: tcp_rst_window
 *   SYN_SENT     any ACK, session lenient           ESTABLISHED   the other node saw the SYN+ACK
 *   SYN_RECV     opener's ACK                       ESTABLISHED   lenient: any ACK
 *   CLOSED       all but RST and opener's SYN       tcp_state     it was refused; lenient: passes
 *   up to ESTABLISHED   FIN                         FIN_WAIT      lives like ESTABLISHED: half closed is open
 *   FIN_WAIT     FIN of the other side              CLOSING
 *   CLOSING      both FINs acknowledged             TIME_WAIT
 *   from SYN_RECV on    RST in the window           + RESET       out of it: tcp_rst_window
 *   RESET        ACK, FIN in the window             - RESET
 *   TIME_WAIT, CLOSED   opener's SYN                (new session) TCPTRACK_REOPEN
 *   RESET        inside opener's SYN                (new session) TCPTRACK_REOPEN; one from outside as without RESET
 *   SYN_RECV .. CLOSING        opener's SYN         (same)        the responder challenges it, or answers ...
 *   ... by SYN+ACK                                  (new session) TCPTRACK_REOPEN: it had forgotten the old one
 *   any but SYN_SENT    responder's SYN             tcp_state     who answered may not open
 *   from SYN_RECV on    any out of the window       tcp_window
 *   any other pair: passes, changes nothing.
 *
 * A state never becomes smaller (enum fp_state is ordered): a peer's record that is behind ours must not
 * take a session back. RFC 7857 section 2 and its figure 1 (after RFC 6146 section 3.5.2.2) want the opposite
 * after an RST: the session goes to TRANS, is kept for four minutes, and a packet of either side takes it back
 * to ESTABLISHED. So TRANS is no state but a flag beside it, FP_RF_RESET: it selects the closing timeout, it
 * is set and cleared under a new record version, and an import takes it as it comes, for an older version is
 * refused anyway. A blind RST that happens to be in the window costs nothing: the endpoint that gets it
 * answers with a challenge ACK (RFC 5961 section 3.2), which clears the flag; after a true one nobody speaks.
 * Nor may a blind SYN behind it begin anew what came in by a forward: who can forge the one can forge the other,
 * so the responder's answer decides, as it does without an RST.
 *
 * Windows (Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", section 5; with the slack that
 * pf and conntrack give). S is the sender, O the other side:
 *
 *   I    seq <= max_end[S]                  no more than O has allowed; a frame may begin there and go on
 *   II   end >= end[S] - slack(O)           no older than what O may have to get once more
 *   III  ack <= end[O]                      nothing is acknowledged that was not sent
 *   IV   ack >= end[O] - slack(S)           old acknowledgements that were overtaken
 *   RST  end[S] - max_win[O] <= seq <= max_end[S]
 *
 *   slack(X) = 2 * max_win[X] + 66000. Below the window the endpoint throws a segment away by itself, so a
 *   generous slack costs no safety; and it makes that one forged segment which does hit the window never has
 *   a genuine one dropped: it moves end[S] by a window and a frame of 64 KiB at most, and never max_end[S].
 *
 * The RST rule is not the exact one of RFC 5961 (seq = RCV.NXT): what the receiver has got is not known here,
 * only what was sent to it, and an RST after lost data is genuine too. It need not be exact, see RESET above.
 *
 * A FIN ends what its side has to say: one below end[S] is forged, or was seen before, and changes nothing; one
 * above is taken back when its side goes on beyond it. Else one forged FIN that hits the slack would make a half
 * closed session, which may have hours to go, one that both sides have closed.
 *
 * Scaling counts only when both SYNs were seen to offer it (RFC 7323 section 2.2). Where they were not seen,
 * the widest scale is assumed: a window taken too narrow would drop what is genuine. SACK changes nothing
 * here: it acknowledges nothing cumulatively, and the slack covers what it has sent again.
 *
 * Lenient: a session imported, held by a node that was not ACTIVE meanwhile, or picked up in the middle. Its
 * windows are older than the connection, so nothing of it is dropped for being out of them. They are learned
 * again from whatever passes, a segment's own word replacing what does not fit it, hence a forged one spoils
 * nothing for long. It becomes strict when (1) tcp_lenient_s have passed since the takeover: what the other
 * node had let through is no longer in flight, and the retransmission timer of a stalled stream (0.2 s,
 * doubled 7 times) has fired; and (2) a segment of each side has been seen since, each of which agrees with
 * the other's word. It stays LEARNED: how much was in flight at the takeover is never known, therefore II and
 * IV get the slack of the widest window that the scale allows, and III reads ack <= max_end[O] + 1.
 */
#ifndef TCPTRACK_H
#define TCPTRACK_H

#include "base.h"
#include "flow.h"
#include "pkt.h"

enum {                          /* flow_cold.wflags */
       TCP_WIN_SCALE_KNOWN = 1, /* as in fp_tcp_win.flags */
       TCP_WIN_SACK = 2,        /* as in fp_tcp_win.flags */
       TCP_WIN_SYN = 4,         /* as in fp_tcp_win.flags */
       TCP_WIN_FRESH = 8,   /* local: lenient, and a segment of this side was seen after the time was up */
       TCP_LENIENT = 32,    /* of the session, in wflags[SIDE_OUT]: windows are being learned again */
       TCP_LEARNED = 64,    /* likewise: it was lenient once */
       TCP_SYN_AGAIN = 128, /* likewise: the opener sent a new SYN, the responder has not spoken since */
       TCP_SCALE_MAX = 14   /* RFC 7323 section 2.3 */
};

enum tcptrack_result {
	TCPTRACK_PASS,        /* forward; nothing that the peer must know */
	TCPTRACK_CHANGED,     /* forward; state or flags changed */
	TCPTRACK_REOPEN,      /* the session is over and this begins a new one: tcptrack_open() */
	TCPTRACK_DROP,        /* not allowed in this state */
	TCPTRACK_DROP_WINDOW, /* out of the window */
	TCPTRACK_DROP_RST     /* an RST out of the window */
};

/**
 * struct tcptrack_mode - What all sessions of a core have in common
 * @strict:  drop what is out of a window
 * @settled: tcp_lenient_s have passed since this node became ACTIVE
 * @watch:   grows each time that this node becomes ACTIVE
 */
struct tcptrack_mode {
	bool strict, settled;
	uint8_t watch;
};

/* Window scale that @side's SYN offered, 0 without the option. */
static inline uint8_t tcptrack_scale(const struct flow_cold *c, uint32_t side)
{
	return c->scales >> 4 * side & 0xf;
}

/* Ended, as far as can be seen: runs out in the closing timeout, and a new SYN of the opener replaces it. */
static inline bool tcptrack_is_over(const struct flow_hot *f)
{
	return f->state >= FP_ST_TIME_WAIT || (f->flags & FP_RF_RESET);
}

/**
 * tcptrack_flags_ok() - Can these flags be on any segment of a sane sender?
 */
bool tcptrack_flags_ok(uint8_t flags);

/**
 * tcptrack_segment() - Move a session by one segment
 * @f:    record; state and flags are updated
 * @c:    its windows are updated
 * @side: direction of the segment
 * @p:    TCP, parsed
 * @mode: of the core
 */
enum tcptrack_result tcptrack_segment(struct flow_hot *f, struct flow_cold *c, uint32_t side,
				      const struct pkt *p, const struct tcptrack_mode *mode);

/**
 * tcptrack_open() - First segment of a session
 * @f: FP_RF_INBOUND says who opens
 * @c: all zero but what is not TCP's
 * @p: the opener's SYN; the responder's SYN+ACK after TCPTRACK_REOPEN; or, when SYN-check is off, anything
 */
void tcptrack_open(struct flow_hot *f, struct flow_cold *c, const struct pkt *p,
		   const struct tcptrack_mode *mode);

/**
 * tcptrack_import() - The peer's windows of a session: kept, but not believed
 * @win: by side, as they came
 */
void tcptrack_import(struct flow_cold *c, const struct fp_tcp_win win[2]);

#endif /* TCPTRACK_H */
