/* SPDX-License-Identifier: Apache-2.0 */
/**
 * lifeline.h - a TCP connection between the two pulse threads whose end is proof of a death
 *
 * DOC: Theory of Operation
 *
 * Silence is slow, and a mark (suspect.h) only a reason to ask. But a process that dies cannot keep a connection open:
 * its kernel closes it, once the process is gone, and says so to the other end. So both pulse threads hold a connection
 * of which nothing is asked but to be there, and neither ever closes it without a word. Then its end proves that the
 * process at the other end is no more, whatever else is still heard of it, and nobody has to be asked.
 *
 *   what ends the line                                    proves
 *   FIN or RST, without a goodbye                         death of that incarnation
 *   FIN or RST after a goodbye (a stop that was meant)    nothing
 *   an error of our own end (a timeout, no route)         nothing: it is made anew
 *
 * Node b connects, to the heartbeat's port, TCP; node a listens. Both sides say
 *
 *    0        4    5     6        8         12             20         28
 *    | "FXLL" | 1  | node | zero  | pair_id | incarnation  | nonce    |      hello
 *    | MAC of one's own hello, then the other's |                            proof, 8 bytes
 *
 *   b           a
 *   hello  ->           nonces are random: no recording fits another connection
 *          <-   hello
 *   proof  ->           a believes the line from here on
 *          <-   proof   b believes it
 *
 * The MAC is that of heartbeats, under the same keys. A line is the line of the incarnations that said hello: what
 * became of an older one says nothing of the node that lives now. The newest line counts, but for one of an older
 * incarnation. Whoever has said his proof, and gives up all the same, says goodbye first ("B"), because the other side
 * may believe the line by then.
 *
 * Neither end has a timeout once the line stands, and no keepalives: an idle connection outlives any cut of the cable,
 * and a peer that lost its power without a word is the heartbeats' business. Its next life replaces the line.
 *
 * Strangers: only what comes from the peer's address is looked at, with a TTL of 255 (RFC 5082). Few may introduce
 * themselves at a time, and have INTRODUCE_NS for it; who is refused is counted. Who sits on the cable and forges a
 * segment of this very connection could end it: the peer would reign for as long as its first heartbeat takes to be
 * heard, and the higher term would fence us, as after a healed split.
 *
 * Context: the pulse thread. Time is an argument.
 */
#ifndef LIFELINE_H
#define LIFELINE_H

#include "heartbeat_wire.h"
#include "xc.h"

enum {
	LIFELINE_VERSION = 1,
	LIFELINE_HELLO = 28,
	LIFELINE_PROOF = 8,
	LIFELINE_BYE = 'B',
	LIFELINE_GUESTS = 4 /* that introduce themselves at a time */
};

#define LIFELINE_INTRODUCE_NS NS_PER_S
#define LIFELINE_RETRY_NS     (100 * NS_PER_MS)

/* What an end of a connection waits for. */
enum guest_state {
	GUEST_NONE,
	GUEST_CONNECTS, /* we have called, and it has not answered */
	GUEST_HELLO,    /* the other side's hello */
	GUEST_PROOF     /* its proof */
};

/**
 * struct guest - A connection that is not the line yet
 * @fd:     valid unless @state is GUEST_NONE
 * @state:  what it waits for
 * @calls:  we have called, and say our proof first
 * @own:    our hello
 * @said:   what has come: a hello, then a proof
 * @n_said: bytes of it
 * @until_ns: it has time until then
 */
struct guest {
	int fd;
	enum guest_state state;
	bool calls;
	uint8_t own[LIFELINE_HELLO];
	uint8_t said[LIFELINE_HELLO + LIFELINE_PROOF];
	uint32_t n_said;
	uint64_t until_ns;
};

/**
 * struct lifeline - Our end of it
 * @cfg:         addresses, pair, incarnation
 * @epfd:        readable when there is anything to do; -1: there is no line on this node
 * @listen_fd:   node a's
 * @guests:      those that introduce themselves
 * @fd:          the line; -1: there is none
 * @incarnation: of the peer, as it said on the line
 * @bye:         it has said goodbye
 * @call_ns:     node b may call from then on
 * @made:        lines that stood
 * @bad:         connections that were refused: of strangers, or that proved nothing
 * @stands:      there is a line, for control
 */
struct lifeline {
	const struct fp_pulse_cfg *cfg;
	int epfd, listen_fd;
	struct guest guests[LIFELINE_GUESTS];
	int fd;
	uint64_t incarnation;
	bool bye;
	uint64_t call_ns;
	counter made, bad, stands;
};

/**
 * lifeline_open() - Listen, if that is this node's part
 * @l: zeroed
 *
 * Return: 0 or -errno; lifeline_close() is due either way.
 */
int lifeline_open(struct lifeline *l, const struct fp_pulse_cfg *cfg);

/* lifeline_close() - End it without a word */
void lifeline_close(struct lifeline *l);

/* lifeline_bye() - End it, and what may become one, with a goodbye: it proves nothing */
void lifeline_bye(struct lifeline *l);

/**
 * lifeline_pass() - Do what is due: accept, call, introduce, listen
 * @heard: the peer is heard on the cross-connect: a call may be answered
 * @peer:  its incarnation as its heartbeats say; 0: unknown. A line to an older one is given up
 *
 * Return: the incarnation of the peer that is proven dead, once; 0: nothing is proven.
 */
uint64_t lifeline_pass(struct lifeline *l, const struct heartbeat_keys *keys, bool heard, uint64_t peer,
		       uint64_t now_ns);

/**
 * lifeline_deadline() - When to pass again even if nothing comes; UINT64_MAX: never
 * @heard: as of lifeline_pass()
 * @peer:  likewise
 */
uint64_t lifeline_deadline(const struct lifeline *l, bool heard, uint64_t peer);

#endif /* LIFELINE_H */
