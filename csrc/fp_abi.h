/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_abi.h - the boundary between the C fast path and the Python control plane
 *
 * The only C header that Python sees: C includes it, and ffi_build.py feeds what stands between the
 * cdef-begin and cdef-end marks to cffi, so that there is one source and no drift. cffi rejects
 * attributes, static asserts and computed macros, hence plain enums and explicit padding; sizes are
 * asserted by C at compile time (fp_api.c) and by Python at import (flexha/fastpath/lib.py).
 *
 * Conventions
 *   Threads    every fp_* call is made from one control thread, without any lock; the GIL is released.
 *   Errors     int results are 0 (or a count >= 0), or -errno.
 *   Addresses  struct fp_addr holds IPv6, or IPv4 as an IPv4-mapped address (::ffff:a.b.c.d).
 *   Order      addresses, ports and frames are in network order; everything else is in host order.
 *   Time       CLOCK_BOOTTIME in ns where a clock is meant; records carry remaining ms, because the
 *              clocks of two nodes differ.
 */
#ifndef FP_ABI_H
#define FP_ABI_H

#include <stdint.h>

/* Fields and their comments are laid out as tables: */
/* clang-format off */
/* cdef-begin */
enum {
	FP_ABI_VERSION = 6,
	FP_PORTS_MAX = 8,     /* data-plane ports of a node */
	FP_WORKERS_MAX = 16,
	FP_SHARDS = 64,       /* units of ownership; worker = shard mod n_workers */
	FP_POOLS_MAX = 8,
	FP_POOL_NONE = 255,   /* pool of a session that is not translated */
	FP_VIPS_MAX = 4,      /* VRRP addresses of one port */
	FP_PATHS_MAX = 9,     /* heartbeat paths: path 0 is xc, path 1 + i is port i */
	FP_PULSE_KEYS_MAX = 2, /* keys of heartbeats: one, and while it is changed another */
	FP_FRAME_MAX = 2048,  /* room for one frame as it is on a wire */
	FP_FRAME_BIG = 65600, /* room for an offload frame: an IP packet of 64 KiB and its Ethernet header */
	FP_HEADROOM = 64,     /* in front of a frame, for what a driver puts there */
	FP_NAME_MAX = 16,     /* IFNAMSIZ, the terminating NUL included */
	FP_BURST_MAX = 64,    /* frames of one step() */
	FP_TX_BURST = 8,      /* frames sent between two looks at the fence */
	FP_LAG_BUCKETS = 64   /* of a histogram of delays: 4 an octave, from 32 us up */
};

enum fp_role {            /* names as in flexha/core/role.py; only ACTIVE forwards */
	FP_ROLE_INIT, FP_ROLE_JOINING, FP_ROLE_PASSIVE, FP_ROLE_ACTIVE, FP_ROLE_MAINTENANCE, FP_ROLE_FAULT
};

enum fp_driver { FP_DRIVER_TAP, FP_DRIVER_MEM, FP_DRIVER_PACKET };
enum fp_zone { FP_ZONE_INSIDE, FP_ZONE_OUTSIDE };

struct fp_addr { uint8_t b[16]; };

struct fp_error { char text[200]; };

/* A port: driver, addresses, VRRP. All-zero addresses mean "none". */
struct fp_port_cfg {
	char name[16];            /* "lan", "wan": what config and counters call it */
	char wire_dev[16];        /* tap: TAP to plug into the wire, made by fp_open in the caller's netns; packet: the device */
	char host_dev[16];        /* companion device for the node's own kernel, made by fp_open; its MAC is set to `mac` */
	uint32_t driver;          /* enum fp_driver */
	uint32_t zone;            /* enum fp_zone */
	uint32_t mtu;             /* IP MTU of the wire, 576..1500 */
	uint8_t plen;             /* prefix length of addr */
	uint8_t n_vips;
	uint8_t vrid;             /* VRRP virtual router id; VMAC = 00-00-5E-00-01-{vrid} */
	uint8_t offload;          /* 1: frames with a struct fp_vnet, up to 64 KiB; 0: as on the wire */
	uint8_t mac[6];           /* this node's port MAC (unicast, locally administered) */
	uint8_t peer_mac[6];      /* the peer's port MAC, for heartbeats; zero = no heartbeat on this port */
	uint8_t vmac[6];          /* zero = no VRRP on this port */
	uint8_t host_veth;        /* packet: 1: host_dev is one end of a veth pair, for want of /dev/net/tun; 0: a TAP */
	uint8_t pad1;
	struct fp_addr addr;      /* the port's own address */
	struct fp_addr peer_addr;
	struct fp_addr vip[4];
	char wire_netns[268];     /* packet: path of the network namespace that wire_dev is in; "" = the caller's */
};

struct fp_pool_cfg {
	char name[16];
	struct fp_addr addr;      /* external address; a VIP in this version */
	uint16_t port_lo, port_hi; /* host order, inclusive; 1024..65535 */
	uint32_t out_port;        /* index of the outside port that it serves */
	uint8_t filtering;        /* enum fp_filtering: who may send to a port that a session holds */
	uint8_t survives;         /* 0: the address is this node's alone, its sessions end with the node */
	uint8_t pad[6];
};

enum fp_filtering {           /* RFC 4787 section 5 */
	FP_FILTER_EIF,            /* endpoint-independent: anybody */
	FP_FILTER_ADF,            /* address-dependent: hosts that the inside endpoint has sent to */
	FP_FILTER_APDF            /* address and port-dependent: only the session's own remote endpoint */
};

struct fp_limits {            /* 0 = none */
	uint32_t sessions_per_source; /* sessions of one inside address */
	uint32_t ports_per_source;    /* external ports of one inside address, all protocols */
	uint32_t port_reuse_s;    /* RFC 6888 REQ-8: a UDP or ICMP port rests so long before it is given again */
	uint32_t pad;
};

struct fp_timeouts {          /* seconds; minima of RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2 */
	uint32_t tcp_transitory_s;  /* SYN_SENT, SYN_RECV: >= 240 */
	uint32_t tcp_established_s; /* >= 7440 */
	uint32_t tcp_closing_s;     /* both FINs or an RST seen, TIME_WAIT: >= 240 */
	uint32_t udp_s;             /* >= 120, default 300 */
	uint32_t icmp_s;            /* >= 60 */
};

struct fp_pulse_cfg {
	uint32_t interval_ms;     /* heartbeat interval; default 50 */
	uint32_t dead_after;      /* intervals of silence that make a path silent; default 3 */
	uint32_t lease_ms;        /* so long after the pulse thread was last seen a role may be believed (lease.h says what bounds it); 0: for ever */
	uint16_t udp_port;        /* heartbeat UDP port on every path, host order */
	uint16_t confirm_ms;      /* silence after a mark of the peer's death that confirms it, at most interval_ms * dead_after; 0: nobody is suspected */
	uint32_t pair_id;         /* CRC-32 of the pair's name: a heartbeat of another pair is dropped */
	uint32_t node_index;      /* 0 = a, 1 = b */
	uint64_t incarnation;     /* which start of the daemon: grows from one to the next, pulse.h says why */
	uint8_t mac_key[16];      /* authenticates heartbeats, until fp_pulse_keys() */
	struct fp_addr xc_addr;   /* zero = no cross-connect path (tests) */
	struct fp_addr xc_peer_addr;
	char xc_dev[16];          /* whose carrier is watched; "" = none */
	uint16_t xc_plen;         /* prefix length of xc_addr: nothing is routed there; 0 = unknown */
	uint16_t conduit_port;    /* UDP port of the conduit on xc; 0 = no conduit */
	uint16_t control_dead_ms; /* control that has not moved fp_control_beat() for so long hangs; 0: never */
	uint16_t worker_dead_ms;  /* ... and a worker without a pass */
};

enum fp_commit {              /* output commit: do packets of a session wait until the peer has it? */
	FP_COMMIT_ASYNC,          /* no */
	FP_COMMIT_BOUNDED,        /* for hold_ms at most */
	FP_COMMIT_STRICT,         /* yes, or they are dropped */
	FP_COMMIT_DEFAULT = 255   /* of a rule: as fp_sync_cfg says */
};
enum fp_sync_filter {         /* sessions of a rule are told to the peer ... */
	FP_SYNC_NOW, FP_SYNC_NO,
	FP_SYNC_AFTER             /* once they are sync_after_s old */
};
struct fp_sync_cfg {
	uint32_t lazy_ms;         /* a change that can wait does so, so that the next ones go with it */
	uint32_t refresh_s;       /* windows, counters and remaining time of busy sessions are told so often */
	uint32_t hold_ms;         /* FP_COMMIT_BOUNDED */
	uint32_t hold_frames;     /* of 2 KiB, per worker */
	uint8_t commit;           /* enum fp_commit, of sessions whose rule says nothing */
	uint8_t pad[7];
};

struct fp_config {
	uint32_t abi_version;     /* FP_ABI_VERSION */
	uint32_t n_workers;       /* 1..16 */
	uint32_t n_ports;
	uint32_t n_pools;
	uint32_t flow_cap;        /* sessions in all, rounded up per worker */
	uint32_t syn_check;       /* 1: a TCP segment without SYN opens no session (R10) */
	uint32_t events_cap;      /* records per worker in the events ring, a power of two; 0 = 8192 */
	uint32_t tcp_strict;      /* 1: a TCP segment out of its window is dropped */
	uint16_t origin;          /* identity of the flows made here: origin = node_index + 1 */
	uint16_t tcp_lenient_s;   /* after a takeover windows are learned for so long before they are enforced */
	uint32_t poll_us;         /* a worker polls for so long after the last frame before it sleeps */
	uint8_t shard_key[16];    /* secret of the pair: both nodes compute the same shard */
	uint8_t table_key[16];    /* secret of this process */
	uint64_t flow_id_base;    /* ids made here start above; random per start, so ids never recur */
	uint16_t pinned[16];      /* by worker: its CPU, + 1; 0 = wherever the scheduler likes */
	struct fp_timeouts timeouts;
	struct fp_limits limits;
	struct fp_sync_cfg sync;
	struct fp_pulse_cfg pulse;
	struct fp_port_cfg ports[8];
	struct fp_pool_cfg pools[8];
};

enum fp_form {                /* how a session is translated */
	FP_FORM_SNAT,             /* inside <-> address and port of a pool; protocols without ports: address only */
	FP_FORM_STATIC,           /* inside <-> address of a pool and port of a forward */
	FP_FORM_NONE              /* not at all: external = inside, pool = FP_POOL_NONE */
};
enum fp_op {                  /* what is told of a session; cols.c has the columns of each */
	FP_OP_OPEN,               /* the first word: ends, translation, state. Also the first of each sweep */
	FP_OP_DELETE,
	FP_OP_STATE,              /* version, state and flags of one that the peer has */
	FP_OP_REST,               /* the same, and rule, windows, counters, remaining time */
	FP_OP_SWEEP,              /* marker: from here on this worker tells all records of these shards anew; id: shards, version: number of the sweep */
	FP_OP_SWEPT,              /* marker: this worker's walk is complete; id: shards walked, version: number of the sweep */
	FP_OP_DIGEST              /* marker: fp_digest_read() has the digests as of here */
};
enum fp_fate {                /* of a walked session: what becomes of it if this node dies now */
	FP_FATE_LIVES,
	FP_FATE_UNTOLD,           /* the peer has not been told of it yet */
	FP_FATE_UNACKED,          /* it has been told, but has not said that it has it */
	FP_FATE_POOL,             /* its address is this node's alone */
	FP_FATE_RULE,             /* its rule says sync = "no" */
	FP_FATE_AFTER             /* its rule says sync = "after", and it is too young */
};
enum fp_taken {               /* what became of a record that was imported */
	FP_TAKEN,
	FP_NOT_TAKEN,             /* no room, older than ours, or news of what is not here */
	FP_ABSURD                 /* no node of our configuration can have it */
};
enum fp_state {               /* ordered: a merge never moves a session to a smaller state */
	FP_ST_NONE,
	FP_ST_NEW,                /* UDP, ICMP and others: one direction seen */
	FP_ST_SYN_SENT,           /* TCP: SYN from the initiator */
	FP_ST_SYN_RECV,           /* SYN-ACK (or crossing SYN) seen */
	FP_ST_ESTABLISHED,        /* TCP: handshake done; others: both directions seen */
	FP_ST_FIN_WAIT,           /* one FIN seen: half closed, and may live long */
	FP_ST_CLOSING,            /* both FINs seen, last ACK missing */
	FP_ST_TIME_WAIT,          /* closed in order */
	FP_ST_CLOSED,             /* refused before it was open; a later RST is a flag, FP_RF_RESET */
	FP_ST_COUNT
};
enum {                        /* fp_flow_rec.flags */
	FP_RF_FIN_ORIG = 1, FP_RF_FIN_REPLY = 2, /* FIN seen from inside / from outside */
	FP_RF_IMPORTED = 4,       /* came from the peer */
	FP_RF_BULK = 8,           /* told by the walk of a sweep, not because it changed */
	FP_RF_INBOUND = 16,       /* opened by the remote side */
	FP_RF_HAIRPIN = 32,       /* the remote is an address of a pool of ours: local, not taken from the peer */
	FP_RF_RESET = 64,         /* TCP: an RST was seen, and nothing since; comes and goes, see tcptrack.h */
	FP_RF_HELD = 128          /* its packets wait for the peer: local, never told */
};

/* One direction's TCP window, after Guido van Rooij's "Real Stateful TCP Packet Filtering". */
struct fp_tcp_win {
	uint32_t end;             /* highest sequence number sent, + length */
	uint32_t max_end;         /* highest ack of the other side + its window */
	uint32_t max_win;         /* largest window advertised, scaled */
	uint8_t scale;            /* window scale; 0 when not negotiated */
	uint8_t flags;            /* 1: scale known, 2: SACK permitted, 4: its SYN was seen */
	uint8_t pad[2];
};

/*
 * A session as it crosses the boundary: exported by events and walks, imported from the peer.
 * Identity is (origin, id), never a slot. It has three endpoints: inside, remote, external; sessions of
 * form SNAT with the same inside endpoint and pool share the external one (RFC 4787 REQ-1).
 */
struct fp_flow_rec {
	uint64_t id;
	uint64_t ev_seq;          /* worker-local sequence number of this event; 0 in walks */
	uint16_t origin;
	uint8_t op;               /* enum fp_op */
	uint8_t form;             /* enum fp_form */
	uint8_t proto;            /* IANA */
	uint8_t state;            /* enum fp_state */
	uint8_t flags;
	uint8_t shard;
	uint32_t version;         /* grows with every exported change of the record */
	uint32_t remaining_ms;
	struct fp_addr inside, remote, external;
	uint16_t inside_port, remote_port, external_port; /* be16; ICMP: the identifier, remote_port 0; portless: 0 */
	uint8_t in_port, out_port; /* the inside and the outside (or other inside) port: a flow pins its zones */
	uint16_t rule;            /* matched rule; 0 = the built-in "inside to outside" rule */
	uint8_t pool;             /* this node's index; never sent */
	uint8_t fate;             /* enum fp_fate, of a walk; after an import enum fp_taken */
	uint32_t has;             /* bit i: column i of struct fp_cols came; what did not is zero */
	struct fp_tcp_win win[2]; /* 0: inside's, 1: outside's */
	uint64_t packets[2], bytes[2]; /* 0: outbound, 1: inbound */
};

enum fp_way {                 /* of routes for one prefix the first in this order counts */
	FP_WAY_HERE,              /* out of our own port */
	FP_WAY_PEER,              /* ours is down: out of the peer's port of the same number, by the conduit */
	FP_WAY_NOWHERE            /* of the port's zone even while no other route leads there */
};
struct fp_route {             /* one next hop a prefix in this version; longest prefix wins */
	struct fp_addr prefix;
	struct fp_addr gateway;   /* zero = on link */
	uint8_t plen;             /* of the 128-bit form: IPv4 /24 is 120 */
	uint8_t port;
	uint8_t way;              /* enum fp_way */
	uint8_t pad[5];
};

struct fp_neigh {
	struct fp_addr addr;
	uint8_t mac[6];
	uint8_t port;
	uint8_t pad;
};

/* ---- policy ---- */
struct fp_prefix {
	struct fp_addr addr;      /* host bits are ignored */
	uint8_t plen;             /* of the 128-bit form */
	uint8_t pad[7];
};
struct fp_service {           /* a protocol, and destination ports in host order */
	uint8_t proto;            /* IANA; 0 = any, which takes all ports */
	uint8_t pad;
	uint16_t port_lo, port_hi; /* inclusive; 0..65535 = any, and what has no ports */
};
enum fp_action { FP_ALLOW, FP_DENY, FP_REJECT };
struct fp_rule {              /* the first one that matches decides */
	uint32_t id;              /* place in the list, from 1 */
	uint8_t action;           /* enum fp_action */
	uint8_t form;             /* FP_FORM_SNAT, or FP_FORM_NONE: not translated */
	uint8_t log;              /* 1: sessions and refusals are logged */
	uint8_t in_ports, out_ports; /* a bit for each port; 0 = any */
	uint8_t pools;            /* a bit for each pool; 0 = those of the port it leaves by */
	uint8_t explicit_proto;   /* 1: all its services name a protocol */
	uint8_t commit;           /* enum fp_commit; 255 = as fp_sync_cfg says */
	uint8_t sync;             /* enum fp_sync_filter */
	uint8_t pad;
	uint16_t sync_after_s;    /* FP_SYNC_AFTER: 1..3600 */
	uint16_t sport_lo, sport_hi; /* source ports, inclusive; 0..65535 = any */
	uint32_t max_per_source;  /* sessions of one inside address; 0 = the node's limit only */
	uint32_t first_src, n_src, first_dst, n_dst, first_service, n_services; /* n = 0: any */
	uint32_t was;             /* id in the snapshot before, whose hits it carries on; 0 = new */
};
struct fp_forward {           /* external port of a pool's address -> inside server; host order */
	struct fp_addr inside;
	uint16_t inside_port, external_port;
	uint8_t proto;
	uint8_t pool;
	uint8_t pad[2];
	uint32_t id;              /* place in the list, from 1 */
};
struct fp_policy_cfg {
	const struct fp_rule *rules;
	const struct fp_prefix *prefixes;
	const struct fp_service *services;
	const struct fp_forward *forwards;
	uint32_t n_rules, n_prefixes, n_services, n_forwards;
	uint32_t default_outbound; /* FP_ALLOW or FP_DENY: inside to outside, when no rule matches */
	uint32_t pad;
};

struct fp_session_log {       /* worker -> control: what a rule with `log` decided */
	uint64_t t_ns;
	uint32_t rule;            /* its number */
	uint32_t verdict;         /* of the packet */
	struct fp_addr src, dst;  /* as the rule saw them */
	struct fp_addr external;  /* zero: not translated, or refused */
	uint16_t sport, dport, external_port; /* host order */
	uint8_t proto;
	uint8_t in_port, out_port;
	uint8_t opened;           /* 1: a session; 0: refused */
	uint8_t pad[6];
};

/* ---- sync ---- */
struct fp_digest {            /* of the records of one shard that both nodes know; digest.h says of what */
	uint64_t sum;
	uint32_t n;
	uint32_t known;           /* 1: comparable; 0: not this worker's, lost, or being swept */
};
enum fp_repair_kind { FP_REPAIR_DIFFERED, FP_REPAIR_MISSING, FP_REPAIR_EXTRA };
struct fp_repair {            /* a record that a repair sweep has put right */
	struct fp_addr inside, remote;
	uint16_t inside_port, remote_port; /* be16 */
	uint8_t proto;
	uint8_t kind;             /* enum fp_repair_kind */
	uint8_t shard;
	uint8_t pad;
};
struct fp_sync_stats {        /* of one worker */
	/* gauges */
	uint64_t lost_shards;     /* a bit each: their changes could not be tracked, a sweep is due */
	uint64_t queued, queued_lazy; /* records that wait to be drained: at once; once lazy_ms are over */
	uint64_t sweep_done, sweep_total; /* slots walked, to walk; both 0 while no sweep is on */
	uint64_t held_frames, held_bytes, held_sessions;
	uint64_t unacked_sessions;
	uint64_t degraded;        /* 1: the peer is too slow, new bounded sessions are not held */
	/* counters */
	uint64_t told_open, told_state, told_rest, told_delete;
	uint64_t repaired;        /* by repair sweeps */
	uint64_t import_unknown;  /* news of a session that is not held here: a repair is due */
	uint64_t scrub_errors;    /* shards whose digest was not that of their records */
	uint64_t hold_released;   /* held packets that left once the peer had their session, or there was no peer any more */
	uint64_t hold_expired;    /* held packets that left after hold_ms without that */
	uint64_t hold_full;       /* packets of held sessions, and strict sessions, that found no room: dropped */
	uint64_t hold_dropped;    /* held packets that were dropped: strict, or their session ended */
	uint64_t hold_unheld;     /* bounded sessions that were not held: no room, or degraded */
	uint64_t degraded_times;
	uint64_t lag[64];         /* FP_LAG_BUCKETS: from a session's birth to the peer's word that it has it */
	uint64_t hold[64];        /* ... each held packet */
};

struct fp_pool_use {          /* external ports that sessions hold, or that rest between two of them */
	uint32_t tcp, udp, icmp;
};

enum fp_src {
	FP_SRC_WIRE, FP_SRC_HOST,
	FP_SRC_HAIRPIN,           /* from inside to an address of ours: translated once, and on its way in again */
	FP_SRC_CONDUIT,           /* from the peer: it came in there, by the port of this number */
	FP_SRC_ACTIVE             /* from the peer, ACTIVE: to leave here, by the port of this number */
};
enum fp_out {
	FP_OUT_NONE, FP_OUT_WIRE, FP_OUT_HOST, FP_OUT_PUNT, FP_OUT_PULSE, FP_OUT_WAIT, FP_OUT_HANDOFF,
	FP_OUT_CONDUIT
};

enum { FP_VNET_NEEDS_CSUM = 1, FP_VNET_DATA_VALID = 2 };
enum { FP_GSO_NONE = 0, FP_GSO_TCPV4 = 1, FP_GSO_TCPV6 = 4, FP_GSO_UDP_L4 = 5, FP_GSO_ECN = 0x80 };

/* What the driver says of a frame: struct virtio_net_hdr, host order; all zero: a frame as on the wire. */
struct fp_vnet {
	uint8_t flags;            /* FP_VNET_*: the checksum is still to be made; it has been verified */
	uint8_t gso_type;         /* FP_GSO_*: many segments in one frame, which share its headers */
	uint16_t hdr_len;         /* headers, or a hint at their length */
	uint16_t gso_size;        /* payload of each segment but the last */
	uint16_t csum_start;      /* NEEDS_CSUM: sum from here to the end of the frame ... */
	uint16_t csum_offset;     /* ... stored so far behind; it holds the pseudo-header's sum */
};

/* A frame in step(): rewritten in place; exactly one verdict; at most one frame out. */
struct fp_frame {
	uint8_t *data;            /* FP_FRAME_MAX bytes of room; FP_FRAME_BIG where offload frames come in */
	uint32_t len;
	uint8_t port;             /* in: where it came from */
	uint8_t src;              /* in: enum fp_src */
	uint8_t out;              /* out: enum fp_out */
	uint8_t out_port;         /* out */
	uint16_t verdict;         /* out: enum fp_verdict (fp_verdict_name) */
	uint16_t owner;           /* out: worker that must handle it, for FP_OUT_HANDOFF; the shard, for FP_OUT_CONDUIT */
	uint8_t fenced;           /* out: 1 = may leave only while ACTIVE (checked again before tx) */
	uint8_t hops;             /* in: how often it was handed on before */
	uint8_t pad[2];
	struct fp_addr next_hop;  /* out: for FP_OUT_WAIT, the neighbour that is missing */
	struct fp_vnet vnet;      /* in and out */
	uint16_t l4_sport, l4_dport; /* in and out, wire order: what the datagram's first fragment said (ICMP: identifier, type) */
	uint8_t l4_known;         /* in and out: 1 = l4_*port are valid */
	uint8_t headroom;         /* 1 = the driver may use the FP_HEADROOM bytes in front of .data */
};

enum fp_punt_kind { FP_PUNT_FRAME, FP_PUNT_NEIGH_WANTED, FP_PUNT_NEIGH_MOVED };
struct fp_punt {              /* worker -> control: VRRP adverts, neighbours to resolve or that moved */
	uint64_t t_ns;
	uint32_t kind;
	uint32_t port;
	uint32_t len;
	uint32_t pad;
	struct fp_addr addr;      /* FP_PUNT_NEIGH_* */
	uint8_t data[256];        /* FP_PUNT_FRAME: the frame, from the Ethernet header, cut to 256; _MOVED: its MAC */
};

enum fp_pulse_kind {
	FP_PULSE_PATH_UP,         /* first heartbeat heard on a path */
	FP_PULSE_PATH_DOWN,       /* dead_after * interval of silence on a path */
	FP_PULSE_PEER,            /* what the peer says of itself changed (role, term, flags, incarnation) */
	FP_PULSE_FENCED,          /* a higher term was heard while ACTIVE: C has fenced us already */
	FP_PULSE_DEAD,            /* silence has confirmed a suspicion: all paths are silent from now on */
	FP_PULSE_REFUTED,         /* the peer has answered one: path says where */
	FP_PULSE_HUNG,            /* a part of this node hangs, or moves again: see hung, what hangs by now */
	FP_PULSE_LEASE,           /* ACTIVE, it was away, and asked whether it may go on: stall_us, asked_us, answered; once a second at most */
	FP_PULSE_DIED             /* the life line has ended (lifeline.h): the peer is proven dead, all paths are silent from now on */
};
enum fp_hung {                /* what of a node gets nowhere, a bit each */
	FP_HUNG_CONTROL = 1,
	FP_HUNG_WORKER = 2,
	FP_HUNG_YIELDED = 4       /* events only: it was ACTIVE with a peer that may take over, and is fenced */
};
enum fp_mark {                /* what makes the peer's death likely, a bit each */
	FP_MARK_XC_CARRIER = 1,   /* the cross-connect has lost its carrier */
	FP_MARK_SYNC_CLOSED = 2,  /* the peer's kernel has closed the sync connection, and nobody there had said that it would */
	FP_MARK_VMAC = 4          /* a switch floods what is for the virtual MAC: it has lost ACTIVE's port, or only forgotten it */
};
enum {                        /* heartbeat flags */
	FP_HB_READY = 1,          /* PASSIVE and synced: may take over */
	FP_HB_BYE = 2,            /* leaving on purpose: take over now */
	FP_HB_LAN_UP = 4, FP_HB_WAN_UP = 8,
	FP_HB_HUNG = 16,          /* a part of it hangs; without the role: it has given that up, take over now */
	FP_HB_PROBE = 32,         /* answer at once */
	FP_HB_LAN_LENT = 64,      /* the side's port: ACTIVE lends it, any other node stands in for ACTIVE there */
	FP_HB_WAN_LENT = 128
};
struct fp_peer {
	uint64_t incarnation;
	uint64_t term;
	uint32_t role;            /* enum fp_role */
	uint32_t flags;
	uint32_t priority;        /* configured priority of the peer */
	uint32_t control_beat;    /* liveness counter of its control plane */
};
struct fp_pulse_event {
	uint64_t t_ns;
	uint32_t kind;            /* enum fp_pulse_kind */
	uint32_t path;            /* 0 = xc, 1 + i = port i; the path of PATH_*, the first one for PEER, the answer's of REFUTED, LEASE */
	struct fp_peer peer;
	uint32_t marks;           /* DEAD, REFUTED: of enum fp_mark, a bit each */
	uint32_t probes;          /* ... sent on each path */
	uint32_t asked_us;        /* ... from the first mark to the end; LEASE: from the first probe */
	uint32_t rtt_us;          /* REFUTED: from a probe to its answer */
	uint32_t stall_us;        /* LEASE: so long the thread was away */
	uint32_t answered;        /* LEASE: 0: nobody has */
	uint32_t hung;            /* HUNG: of enum fp_hung, a bit each */
	uint32_t worker;          /* HUNG_WORKER: the first one */
};
struct fp_lease_stats {
	uint64_t lease_ns;        /* how long it lasts; 0: for ever */
	uint64_t asked;           /* how often the pulse thread was away for longer, and asked */
	uint64_t unanswered;      /* ... and nobody answered */
	uint64_t longest_ns;      /* the longest time that it was away */
	uint32_t asking;          /* 1: now */
	uint32_t hung;            /* of enum fp_hung, a bit each, now */
};
struct fp_line_stats {        /* the life line */
	uint64_t made;            /* lines that stood */
	uint64_t bad;             /* connections that were refused */
	uint32_t stands;          /* 1: there is one */
	uint32_t pad;
};
struct fp_path_stats {
	uint64_t sent, received, lost; /* lost: gaps in the sequence */
	uint64_t bad;             /* forged, malformed or another pair's */
	uint64_t replayed;        /* authentic, but not new: pulse.h */
	uint64_t last_heard_ns;
	uint32_t alive;
	uint32_t pad;
};

struct fp_worker_stats {
	uint64_t steps, frames, wakeups;           /* wakeups: returns from sleep */
	uint64_t polls;           /* passes that found nothing, while it polled after traffic */
	uint64_t handed_on, taken_over; /* frames given to the worker that owns their session; taken from others */
	uint64_t cpu_ns;          /* CPU time of the thread; 0 before it runs */
	uint64_t flows, mappings, tombstones;      /* gauges; mappings: external ports in use */
	uint64_t flows_created, flows_expired, flows_closed, flows_imported, import_refused;
	uint64_t import_conflicts; /* external endpoint held by another record: the peer's record won */
	uint64_t events_lost;     /* changes that could not be tracked: a bulk pass is due */
	uint64_t dirty;           /* gauge: records waiting to be drained */
	uint64_t neigh_waiting;   /* gauge: frames parked for a neighbour */
	uint64_t punts_lost, pulse_lost, inject_lost;
	uint64_t frags_held;      /* gauge: fragments held until the first of their datagram comes */
	uint64_t frags_evicted;   /* datagrams in fragments that went to make room for others */
	uint64_t evicted_closed, evicted_embryonic; /* sessions that made room before their time */
	uint64_t log_lost;        /* lines of the session log that were too many */
	uint64_t lookups;         /* packets whose session was looked for */
};
struct fp_conduit_stats {     /* of one worker: packets to and from the peer; conduit.h */
	uint64_t tx_frames, tx_bytes, tx_calls;
	uint64_t tx_lost;         /* the socket refused them */
	uint64_t rx_frames, rx_bytes, rx_calls;
	uint64_t rx_missed;       /* datagrams that found the socket's buffer full */
};
struct fp_port_stats {
	uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, rx_errors, tx_errors, tx_dropped;
	uint64_t host_rx_frames, host_tx_frames, host_tx_errors;
	uint64_t rx_missed;       /* packet: arrived, and found the ring full, or were too long for it */
};

/* ---- capture: packets as received and as sent, with their verdict; capture.h ---- */
enum {
	FP_BPF_MAX = 4096,        /* instructions of a filter */
	FP_CAPTURE_VERDICT_WORDS = 4,
	FP_CAPTURE_NO_VERDICT = 0xffff, /* sent by this node of its own accord */
	FP_CAPTURE_NO_PORT = 0xff
};
enum fp_capture_from {
	FP_CAPTURE_WIRE, FP_CAPTURE_HOST, FP_CAPTURE_HAIRPIN, FP_CAPTURE_CONTROL, FP_CAPTURE_PULSE, FP_CAPTURE_WAITED,
	FP_CAPTURE_CONDUIT
};
struct fp_bpf { uint16_t code; uint8_t jt, jf; uint32_t k; }; /* one instruction of classic BPF */
struct fp_capture_cfg {
	uint32_t snaplen;         /* bytes of each frame; 1..FP_FRAME_BIG */
	uint32_t ports;           /* a bit each: packets that were received or sent there */
	uint32_t any_verdict;     /* 1: `verdicts` does not matter */
	uint32_t n_insns;         /* 0: every packet */
	uint64_t verdicts[4];     /* a bit each */
	const struct fp_bpf *insns;
};
struct fp_capture_side {      /* a frame; what was kept of it follows the record's header */
	uint64_t t_ns;            /* CLOCK_BOOTTIME */
	uint32_t len;             /* as it was */
	uint32_t cap_len;         /* bytes kept */
	uint8_t port;             /* FP_CAPTURE_NO_PORT: there is no such frame */
	uint8_t vnet_flags, gso_type; /* struct fp_vnet */
	uint8_t pad0;
	uint16_t gso_size;
	uint16_t pad1;
};
struct fp_capture_rec {       /* one packet, little-endian; goes to flexhactl as it is */
	uint32_t size;            /* header, frames and padding; a multiple of 8 */
	uint16_t verdict;         /* enum fp_verdict, or FP_CAPTURE_NO_VERDICT */
	uint8_t worker;
	uint8_t from;             /* enum fp_capture_from */
	uint64_t id;              /* unique during the capture */
	uint64_t lost;            /* packets that this worker lost since its last record */
	struct fp_capture_side side[2]; /* 0: as received, 1: as sent */
};

/* Which records of a walk are wanted; sides: 0 inside, 1 remote, 2 external. */
enum fp_want {
	FP_WANT_FORM = 1, FP_WANT_PROTO = 2, FP_WANT_STATE = 4,
	FP_WANT_PREFIX = 8,       /* << side */
	FP_WANT_PORT = 64         /* << side */
};
struct fp_flow_want {
	uint32_t has;             /* enum fp_want, a bit each; what has no bit is zero and any will do */
	uint8_t form, proto, state, pad;
	uint16_t ports[3];        /* as in the record */
	uint16_t pad2;
	struct fp_prefix prefixes[3];
};
struct fp_cursor { uint32_t worker; uint32_t slot; uint64_t done; }; /* done = 1 at the end of the walk */

/* Column buffers of one section of a sync batch, in the order of the records (sections.c). All
 * little-endian, packed; the caller provides n elements each. Column i: the i-th pointer. */
struct fp_cols {
	uint8_t *id_low, *id_high; /* u32 each: the high half is the same for many */
	uint8_t *origin;          /* u16 */
	uint8_t *version;         /* u32 */
	uint8_t *form, *proto, *state, *flags, *in_port, *out_port; /* u8 */
	uint8_t *rule;            /* u16 */
	uint8_t *inside, *remote, *external;    /* 4 bytes (family 4) or 16 bytes (family 6) each */
	uint8_t *inside_port, *remote_port, *external_port; /* u16, network order (as on the wire) */
	uint8_t *remaining_ms;    /* u32 */
	uint8_t *win;             /* 2 x 14 bytes: end, max_end, max_win u32; scale, flags u8 */
	uint8_t *counters;        /* 4 x u64: packets[2], bytes[2] */
};

/* ---- the sync connection, once it stands ---- */
enum fp_suite {               /* IANA numbers of TLS 1.3 */
	FP_TLS_NONE,              /* in the clear */
	FP_TLS_AES_128_GCM_SHA256 = 0x1301,
	FP_TLS_AES_256_GCM_SHA384 = 0x1302,
	FP_TLS_CHACHA20_POLY1305_SHA256 = 0x1303
};
struct fp_tls_keys {          /* of one direction: RFC 8446 section 7.3 */
	uint8_t key[32];
	uint8_t iv[12];
	uint8_t pad[4];
	uint64_t seq;             /* number of its next record */
};
struct fp_channel_cfg {
	int32_t fd;               /* a connected stream socket: the channel's from then on */
	uint32_t suite;           /* enum fp_suite */
	struct fp_tls_keys in, out;
	uint64_t records_max;     /* with one key of ours; then FP_ASK_KEYS_OUT */
	uint32_t frame_max;       /* bytes behind the length of a frame */
	uint32_t batch_records, window_batches, window_bytes; /* as flexha/core/sync_sender.py */
	uint32_t pause_us;        /* between two batches that are not full */
	uint32_t pad;
};
enum fp_lane {                /* what of a stream goes the short way, past control */
	FP_LANE_OFF,              /* nothing */
	FP_LANE_SEND,             /* changes out in batches, acknowledgements in */
	FP_LANE_RECEIVE           /* batches in, acknowledgements out */
};
enum fp_ask {                 /* bits: control is to look after this; until then the lane rests */
	FP_ASK_DRAIN = 1,         /* a marker, or lost shards: fp_events_drain() */
	FP_ASK_IMPORTED = 2,      /* not all records of a batch were taken: fp_lane.part */
	FP_ASK_KEYS_IN = 4,       /* the peer has updated its keys */
	FP_ASK_KEYS_OUT = 8       /* it is time to update ours, or the peer has asked for it */
};
struct fp_sent {              /* a batch that is not acknowledged */
	uint64_t marks[16];       /* [FP_WORKERS_MAX]: ev_seq of the last record of each worker; 0: none */
	uint32_t n;               /* records */
	uint32_t size;            /* bytes of its frame */
};
struct fp_lane_state {
	uint32_t mode;            /* enum fp_lane */
	uint32_t n_new;           /* out: batches that control has not seen; the last ones of the window */
	uint64_t sent_seq, acked_seq;
	uint64_t received_seq, imported_seq;
	uint64_t heard_ns, said_ns; /* out: 0: nothing */
	/* out, since the lane was given its mode: */
	uint64_t bytes_in, bytes_out; /* of frames */
	uint64_t records_in, records_out;
	uint64_t unknown;         /* ops and columns */
	uint32_t part_n, part_taken; /* of batch received_seq, which is not acknowledged; 0: no such */
};
struct fp_channel_stats {
	uint64_t bytes_in, bytes_out; /* of the socket */
	uint64_t unsent;
	uint32_t ended;           /* enum fp_end */
	int32_t error;            /* errno, or number of the alert (RFC 8446 section 6) */
	uint32_t asks;            /* enum fp_ask */
	uint32_t ready;           /* bytes of whole frames wait for control */
};
enum fp_end { FP_END_NOT, FP_END_CLOSED, FP_END_ERROR, FP_END_GARBAGE, FP_END_ALERT };

typedef struct fp_dp fp_dp;
typedef struct fp_channel fp_channel;

/* ---- life ---- */
const char *fp_source_hash(void);     /* SHA-256 over csrc/, compiled in: a stale .so fails loudly */
int fp_open(const struct fp_config *cfg, fp_dp **out, struct fp_error *err);
int fp_start(fp_dp *dp, struct fp_error *err); /* starts the workers and the pulse thread; 0, perhaps with a remark in err */
int fp_stop(fp_dp *dp);               /* idempotent; joins the threads */
void fp_close(fp_dp *dp);
int fp_memory_lock(void);             /* what is in memory from now on stays there; needs CAP_IPC_LOCK, or no limit */

/* ---- role and fence ---- */
enum fp_wires {           /* what the workers do with the wires' queues */
	FP_WIRES_READ,    /* read them */
	FP_WIRES_PARK,    /* leave them alone, and finish what was read */
	FP_WIRES_PASS_ON  /* read them; not ACTIVE: what is for the virtual MAC goes to the peer's port MAC */
};
int fp_wires_set(fp_dp *dp, uint32_t mode); /* enum fp_wires; returns at once */
int fp_wires_settled(const fp_dp *dp); /* 1: PARK: nothing that was read waits; PASS_ON: what waited has gone; the eventfd tells when that becomes true */
int fp_set_role(fp_dp *dp, uint32_t role, uint64_t term); /* returns once all workers obey; -ESTALE for an older term; -ETIMEDOUT: it is set, but a worker hangs */
int fp_fence_read(const fp_dp *dp, uint32_t *role, uint64_t *term);

/* ---- conduit: what lands on a node that is not ACTIVE goes to the one that is ---- */
int fp_conduit_set(fp_dp *dp, uint32_t on, uint64_t term, uint32_t vmac_ports, uint32_t borrowed, uint32_t lent); /* to the peer, ACTIVE in that term; ports, a bit each: what is sent to their virtual MAC goes there, too; ARP is answered there for the peer; the peer answers */
int fp_conduit_stats_read(const fp_dp *dp, uint32_t worker, struct fp_conduit_stats *out);

/* ---- host side of a port ---- */
int fp_port_carrier(fp_dp *dp, uint32_t port, uint32_t up); /* mirror the wire's state to the carrier of the host device */
int fp_port_reopen(fp_dp *dp, uint32_t port, struct fp_error *err); /* packet: the wire is a new device of the old name */

/* ---- pulse: heartbeats ---- */
int fp_pulse_set(fp_dp *dp, uint32_t flags, uint32_t priority); /* what our heartbeats say beside role and term */
int fp_pulse_burst(fp_dp *dp);        /* send one heartbeat on every path now (role changes, BYE) */
int fp_control_beat(fp_dp *dp);       /* the control plane is alive: bump the counter */
int fp_pulse_events(fp_dp *dp, struct fp_pulse_event *out, uint32_t cap);
int fp_pulse_keys(fp_dp *dp, const uint8_t (*keys)[16], uint32_t n); /* n 1..2: the first signs, all are believed; -EBUSY: the last ones are not in use yet */
int fp_pulse_stats(const fp_dp *dp, struct fp_path_stats *out, uint32_t n_paths);
int fp_lease_read(const fp_dp *dp, struct fp_lease_stats *out);
int fp_line_read(const fp_dp *dp, struct fp_line_stats *out);

/*
 * Of a worker that hangs by what the pulse thread has seen (fp_lease_stats.hung) nobody waits: calls that ask workers
 * return -ETIMEDOUT, and the others may have done what was asked. Without such a sight they wait for 2 s.
 */

/* ---- one eventfd for everything that waits to be drained: written when a queue was empty, so drain until less than asked for comes ---- */
int fp_events_fd(const fp_dp *dp);
int fp_punts_drain(fp_dp *dp, struct fp_punt *out, uint32_t cap);
int fp_inject(fp_dp *dp, uint32_t port, const uint8_t *frame, uint32_t len, uint32_t fenced); /* to the wire; fenced=1: only while ACTIVE */

/* ---- next hops: an immutable snapshot, swapped between bursts ---- */
int fp_fib_commit(fp_dp *dp, const struct fp_route *routes, uint32_t n_routes,
		  const struct fp_neigh *neighs, uint32_t n_neighs); /* -ETIMEDOUT: to be said again */

/* ---- policy: an immutable snapshot, swapped between bursts; before the first one everything may go out ---- */
int fp_policy_commit(fp_dp *dp, const struct fp_policy_cfg *cfg, struct fp_error *err); /* -EBUSY while a worker hangs */
int fp_policy_review(fp_dp *dp, struct fp_cursor *cur, uint32_t budget, uint32_t *closed); /* look at so many sessions again, and close what is no longer allowed: added to closed; -EPERM unless ACTIVE */
int fp_session_log_drain(fp_dp *dp, struct fp_session_log *out, uint32_t cap);
int fp_pools_read(fp_dp *dp, struct fp_pool_use *out, uint32_t cap); /* by pool; count */
int fp_policy_hits(const fp_dp *dp, uint64_t *out, uint32_t cap); /* by rule id; [0]: no rule matched; count */

/* ---- sync: changes out ---- */
int fp_sync_track(fp_dp *dp, uint32_t on); /* off: changes are forgotten, tombstones freed at once, nothing is known to the peer */
int fp_sweep_start(fp_dp *dp, uint64_t shards); /* each worker: FP_OP_SWEEP, all records of these shards, FP_OP_SWEPT */
int fp_events_drain(fp_dp *dp, uint32_t worker, struct fp_flow_rec *out, uint32_t cap, uint64_t *lost); /* lost: its shards that a sweep is due for, now */
int fp_commit_set(fp_dp *dp, uint32_t on); /* a peer is in sync: hold packets of sessions that it does not have; off: let all go at once, hold nothing */
int fp_events_await(fp_dp *dp, uint32_t on); /* 1: changes signal the eventfd, as at first; drain once more after it. 0: control, or a channel, looks by itself */
int fp_events_ack(fp_dp *dp, uint32_t worker, uint64_t ev_seq); /* live in the peer's table: frees tombstones */
int fp_events_refused(fp_dp *dp, uint32_t worker, uint64_t ev_seq, const struct fp_flow_rec *rec, uint32_t n); /* the peer did not take these; then fp_events_ack() of the same ev_seq */
int fp_digest_ask(fp_dp *dp);         /* each worker drains all that waits, then FP_OP_DIGEST; one that has not been read yet is not asked again */
int fp_digest_read(fp_dp *dp, uint32_t worker, struct fp_digest *out); /* [FP_SHARDS]; as of the marker that was drained last */

/* ---- sync: records in ---- */
int fp_flows_import(fp_dp *dp, struct fp_flow_rec *rec, uint32_t n); /* returns once live: count taken, .fate of the others is set; -EPERM while ACTIVE */
int fp_import_begin(fp_dp *dp, uint64_t shards, uint32_t repair); /* a sweep comes: what is held of these shards is stale; repair: log what differs */
int fp_import_end(fp_dp *dp, uint64_t shards); /* ... and what it did not refresh goes; returns how many */
int fp_flows_stranded(fp_dp *dp, struct fp_cursor *cur, uint64_t shards, uint64_t since_ns, struct fp_flow_rec *out, uint32_t cap); /* before fp_import_end(): what goes there, and was in use since; FP_OP_OPEN and FP_OP_REST of each; count; cur->done at the end */
int fp_flows_adopt(fp_dp *dp, struct fp_flow_rec *rec, uint32_t n); /* those of the peer, all FP_OP_OPEN first, then as many FP_OP_REST; count of sessions taken, .fate of the others is set; -EINVAL: none of it; -EPERM unless ACTIVE */
int fp_digests(fp_dp *dp, struct fp_digest *out); /* [FP_SHARDS]; of all workers, now */
int fp_repairs_drain(fp_dp *dp, struct fp_repair *out, uint32_t cap); /* count; the first ones of each repair */
int fp_flows_walk(fp_dp *dp, struct fp_cursor *cur, struct fp_flow_rec *out, uint32_t cap); /* count; cur->done at the end */
int fp_flows_match(const struct fp_flow_rec *rec, uint32_t n, const struct fp_flow_want *want, uint32_t *places); /* places [n] of those that are wanted, ascending; count */
int fp_sync_stats_read(const fp_dp *dp, uint32_t worker, struct fp_sync_stats *out);
uint64_t fp_lag_bucket_us(uint32_t bucket); /* upper end of a bucket of its histograms; of the last one UINT64_MAX */

/* ---- the sync connection, once it stands: a thread owns the socket, the records of TLS, and a lane ---- */
int fp_channel_open(fp_dp *dp, const struct fp_channel_cfg *cfg, const uint8_t *plain, uint32_t n_plain, const uint8_t *rest, uint32_t n_rest, fp_channel **out); /* dp: NULL: without a lane; read already: plain, and rest of the socket as it came */
int fp_channel_fd(const fp_channel *ch); /* an eventfd: look at stats; level: until nothing is left, but for an end */
int64_t fp_channel_send(fp_channel *ch, const uint8_t *data, uint32_t n); /* bytes that wait in all; -EPIPE: it has ended */
int fp_channel_take(fp_channel *ch, uint8_t *out, uint32_t cap); /* whole frames that are for control; holds the lane; -ENOBUFS: cap is less than frame_max + 4 */
int fp_channel_hold(fp_channel *ch, struct fp_lane_state *out); /* the lane rests; idempotent */
int fp_channel_sent(fp_channel *ch, struct fp_sent *out, uint8_t *frame, uint32_t cap); /* held: the oldest of n_new, whose bytes are control's from now on; bytes */
int fp_channel_part(fp_channel *ch, uint16_t *places, uint32_t cap, uint32_t *absurd); /* held: of part_n those that were not taken; count */
int fp_channel_resume(fp_channel *ch, const struct fp_lane_state *in, const struct fp_sent *window, uint32_t n); /* window: acked_seq + 1 to sent_seq; NULL: as it was */
int fp_channel_rekey(fp_channel *ch, const struct fp_tls_keys *in, const struct fp_tls_keys *out); /* either may be NULL; out: the peer is told first */
int fp_channel_stats_read(fp_channel *ch, struct fp_channel_stats *out);
void fp_channel_close(fp_channel *ch, uint32_t linger_ms); /* frees it; what waits is sent for so long, 0: nothing is */

/* ---- sections of a batch message, and their columns (pure functions) ---- */
int fp_cols_of(uint32_t op, uint32_t required); /* columns of an op, a bit each; required: without those that may be missing */
int fp_sections_pack(const struct fp_flow_rec *rec, uint32_t n, struct fp_cols *scratch, uint8_t *out, uint32_t cap, uint32_t *used); /* records before the first marker; returns how many; scratch: columns of n elements, none null; -ENOBUFS */
int fp_sections_unpack(const uint8_t *in, uint32_t len, struct fp_flow_rec *rec, uint32_t cap, uint32_t *unknown, struct fp_error *err); /* count; -EBADMSG no msgpack, -EDOM a wrong field, -ENODATA a wrong column, -EINVAL a value that no peer sends; err says which; unknown: ops and columns skipped */

/* ---- capture: one at a time; start, drain, stop, drain what is left, free ---- */
int fp_capture_start(fp_dp *dp, const struct fp_capture_cfg *cfg, struct fp_error *err); /* -EALREADY until the last one is freed */
int fp_capture_drain(fp_dp *dp, uint32_t worker, uint8_t *out, uint32_t cap); /* bytes: whole struct fp_capture_rec; 0 when nothing waits */
int fp_capture_lost(const fp_dp *dp, uint64_t *lost); /* packets that found a ring full, in all */
int fp_capture_stop(fp_dp *dp);       /* once it is 0, no more records come */
int fp_capture_free(fp_dp *dp);       /* stops it, too; idempotent */

/* ---- counters ---- */
int fp_verdict_count(void);
const char *fp_verdict_name(uint32_t verdict);  /* "snat", "syn_check", ... also the metric's name */
const char *fp_verdict_help(uint32_t verdict);
int fp_verdict_is_drop(uint32_t verdict);
int fp_verdicts_read(const fp_dp *dp, uint32_t worker, uint64_t *out, uint32_t cap);
int fp_worker_stats_read(const fp_dp *dp, uint32_t worker, struct fp_worker_stats *out);
int fp_port_stats_read(const fp_dp *dp, uint32_t port, struct fp_port_stats *out);

/* ---- tests: step() without threads, refused (-EBUSY) once workers run ---- */
int fp_test_step(fp_dp *dp, uint32_t worker, uint64_t now_ns, struct fp_frame *io, uint32_t n);
int fp_test_frags(fp_dp *dp, uint32_t worker, uint64_t now_ns, struct fp_frame *io, uint32_t n); /* step fragments that were held and no longer are; how many */
int fp_test_held(fp_dp *dp, uint32_t worker, uint64_t now_ns, struct fp_frame *io, uint32_t n); /* step frames that were held for the peer and may go by now; how many */
int fp_test_expire(fp_dp *dp, uint32_t worker, uint64_t now_ns); /* run the wheel up to now_ns */
int fp_test_shard(const fp_dp *dp, const struct fp_addr *addr, uint16_t port_be, uint8_t proto);
int fp_test_policy(const fp_dp *dp, const struct fp_addr *src, const struct fp_addr *dst, uint32_t sport, uint32_t dport,
		   uint32_t proto, uint32_t in_port, uint32_t out_port); /* id of the rule that decides, 0 = none */
int fp_test_heartbeat(fp_dp *dp, uint8_t *out, uint32_t cap);    /* the payload that the pulse thread would send */
int fp_test_pulse_rx(fp_dp *dp, uint32_t path, const uint8_t *payload, uint32_t len, uint64_t now_ns);
int fp_test_pulse_tick(fp_dp *dp, uint64_t now_ns);

/* ---- simulator: a pulse thread without its thread, sockets and clock; what it sends is handed back ---- */
enum { FP_SIM_SAID_MAX = 32 };
struct fp_sim_turn {
	uint64_t next_ns;         /* without anything new: it is its turn again then, or nothing that is seen will happen before */
	uint64_t lease_until_ns;  /* so long its role may be believed */
	uint64_t term;
	uint32_t role;            /* enum fp_role */
	uint32_t alive;           /* paths that are heard, a bit each */
	uint32_t events;          /* 1: there are some */
	uint32_t n_said;
	uint8_t path[FP_SIM_SAID_MAX]; /* of each heartbeat that was sent */
	uint8_t said[FP_SIM_SAID_MAX][96];
};
typedef struct fp_sim fp_sim;
int fp_sim_open(const struct fp_pulse_cfg *cfg, uint32_t n_ports, uint64_t now_ns, fp_sim **out);
void fp_sim_close(fp_sim *sim);
int fp_sim_turn(fp_sim *sim, uint64_t now_ns, struct fp_sim_turn *turn); /* its turns until now, and one now */
int fp_sim_hear(fp_sim *sim, uint32_t path, const uint8_t *payload, uint32_t len, uint64_t now_ns, struct fp_sim_turn *turn); /* likewise; a datagram arrives; -ENOBUFS: it is lost */
int fp_sim_look(fp_sim *sim, uint64_t now_ns, struct fp_sim_turn *turn); /* its turns until now, and none now */
int fp_sim_stop(fp_sim *sim, uint64_t now_ns); /* likewise; then it has none until the next of these calls */
int fp_sim_moves(fp_sim *sim, uint32_t control, uint32_t worker); /* whether they do, from now on */
int fp_sim_mark(fp_sim *sim, uint32_t mark); /* of enum fp_mark; at its next turn */
int fp_sim_flood(fp_sim *sim, uint64_t now_ns); /* a worker has a frame for the virtual MAC, and may not forward it; 1: that is a mark, at the next turn */
int fp_sim_died(fp_sim *sim, uint64_t incarnation, uint64_t now_ns); /* the life line of that process has ended */
int fp_sim_set_role(fp_sim *sim, uint32_t role, uint64_t term); /* as fp_set_role() */
int fp_sim_say(fp_sim *sim, uint32_t flags, uint32_t priority); /* as fp_pulse_set() */
int fp_sim_burst(fp_sim *sim); /* at its next turn */
int fp_sim_events(fp_sim *sim, struct fp_pulse_event *out, uint32_t cap);
/* cdef-end */
/* clang-format on */

#endif /* FP_ABI_H */
