/* SPDX-License-Identifier: Apache-2.0 */
/**
 * plane.h - the workers together, and how control asks them; worker.h has the table of who owns what
 */
#ifndef PLANE_H
#define PLANE_H

#include <pthread.h>
#include <semaphore.h>

#include "conduit_io.h"
#include "fence.h"
#include "port.h"
#include "pulse.h"
#include "ring.h"
#include "worker.h"

enum {
	HANDOFF_SLOTS = 128,
	HANDOFF_HOPS_MAX = 8, /* two halves of a hairpin in fragments take four; more, and workers disagree */
	INJECT_SLOTS = 64
};

/* A frame on its way to the worker that owns its session. */
struct handoff_frame {
	uint32_t len;
	uint8_t port;
	uint8_t src;
	uint8_t hops; /* this one included */
	struct fp_vnet vnet;
	uint16_t l4_sport, l4_dport;
	uint8_t l4_known;
	struct lent *lent; /* an offload frame: where it is; its worker gets it back */
	uint8_t data[FP_FRAME_MAX];
};

/**
 * struct plane - What the workers share
 * @cfg:       the node's configuration, immutable
 * @n_workers: of them
 * @workers:   all of them
 * @ports:     cfg->n_ports of them
 * @handoff:   n_workers x n_workers rings, [from * n_workers + to]
 * @inject:    control -> worker 0: struct port_frame
 * @fence:     role and term
 * @wires:     what to do with the wires, and a number (wires.h)
 * @pulse:     where heartbeats go
 * @conduit:   sockets to the peer, and what goes there
 * @quota:     sessions and ports of each source
 * @events_fd: wakes control
 * @changes_fd: wakes a channel
 * @changes_to: whom of both a change of a session wakes; -1: they look by themselves
 * @asking:    who asks workers, or waits for a role: control, or a channel's thread
 * @answered:  posted when a mailbox is DONE or a fence word obeyed
 * @stop:      the threads shall end
 * @running:   the threads run; control's own
 */
struct plane {
	const struct fp_config *cfg;
	uint32_t n_workers;
	struct worker *workers;
	struct port ports[FP_PORTS_MAX];
	struct ring *handoff;
	struct ring inject;
	struct fence fence;
	_Atomic uint64_t wires;
	struct pulse *pulse;
	struct conduit_io conduit;
	struct quota quota;
	int events_fd, changes_fd;
	_Atomic int changes_to;
	pthread_mutex_t asking;
	sem_t answered;
	_Atomic bool stop;
	bool running;
};

static inline struct ring *handoff_ring(const struct plane *pl, uint32_t from, uint32_t to)
{
	return &pl->handoff[from * pl->n_workers + to];
}

/**
 * plane_open() - Open ports, make cores and rings; no thread yet
 * @pl:    zeroed, but for @pulse, @events_fd and @changes_fd
 *
 * Return: 0, or -errno with @err saying what failed; plane_close() is due either way.
 */
int plane_open(struct plane *pl, const struct fp_config *cfg, struct fp_error *err);
void plane_close(struct plane *pl);
int plane_start(struct plane *pl, struct fp_error *err);
void plane_stop(struct plane *pl);

/**
 * plane_set_role() - Set the fence; returns once every worker obeys it
 * Return: 0, -ESTALE (fence_set(), or fenced by the pulse thread meanwhile) or -ETIMEDOUT: the fence is set, and a
 * worker that has not been seen to obey it will before it handles another frame.
 */
int plane_set_role(struct plane *pl, uint32_t role, uint64_t term, uint64_t now_ns);

/*
 * Asking: nobody waits for a worker that hangs by what the pulse thread has seen (progress.h). It is not asked, or
 * asked no more, and the answer is -ETIMEDOUT at once; without that it is after ASK_TIMEOUT_S.
 */

/* plane_hangs() - Does any worker hang? */
bool plane_hangs(const struct plane *pl);

/**
 * plane_ask() - Let one worker carry out a request; inline while no thread runs
 * Return: what the request returns, or -ETIMEDOUT.
 */
int plane_ask(struct plane *pl, uint32_t worker, struct request *req, uint64_t now_ns);

/**
 * plane_ask_all() - Let all workers carry out the same request, at the same time
 * Return: sum of what they return, or the first error.
 */
int plane_ask_all(struct plane *pl, const struct request *req, uint64_t now_ns);

/**
 * plane_tell_all() - plane_ask_all() of what all workers must agree about, and may do twice
 *
 * Asks again whoever has not answered in time: half of them may have done it, and cannot undo it.
 * Return: as plane_ask_all(); -ETIMEDOUT after TELL_TRIES, or once a worker hangs: the workers disagree.
 */
int plane_tell_all(struct plane *pl, const struct request *req, uint64_t now_ns);

/**
 * plane_reopen_port() - The wire of a port of driver packet is another device by now: let all workers use it
 * Return: 0, or -errno with @err saying why, and then the port is as dead as it was.
 */
int plane_reopen_port(struct plane *pl, uint32_t port, uint64_t now_ns, struct fp_error *err);

#endif /* PLANE_H */
