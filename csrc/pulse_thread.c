/* SPDX-License-Identifier: Apache-2.0 */
/**
 * pulse_thread.c - the thread behind pulse.c: its socket on xc, its frames on the ports, its clock
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "clock.h"
#include "pulse.h"
#include "xc.h"

enum {
	XC_BURST = 64,       /* datagrams read between two looks at the clock */
	PULSE_FIFO_PRIO = 50 /* above ordinary work, below the kernel's own threads */
};

/* ---- sending ---- */

static bool send_xc(struct pulse *p, const uint8_t *payload)
{
	const struct fp_pulse_cfg *cfg = &p->cfg->pulse;
	struct sockaddr_storage peer;
	const socklen_t len = xc_sockaddr(&cfg->xc_peer_addr, cfg->udp_port, &peer);

	/* A cross-connect that is down or has no route is a silent path, not an error of ours. */
	return sendto(p->xc_fd, payload, HB_LEN, MSG_DONTWAIT, (struct sockaddr *)&peer, len) == HB_LEN;
}

static bool send_port(struct pulse *p, uint32_t port, const uint8_t *payload)
{
	struct port_frame *slot = ring_reserve_one(&p->tx);

	if (!slot)
		return false;
	slot->len = HB_FRAME_LEN;
	slot->port = (uint8_t)port;
	slot->fenced = false;
	heartbeat_frame(&p->cfg->ports[port], p->cfg->pulse.udp_port, payload, slot->data);
	ring_submit(&p->tx, 1);
	return true;
}

static void send_path(struct pulse *p, uint32_t i, uint64_t now_ns)
{
	struct pulse_path *pp = &p->paths[i];
	uint8_t payload[HB_LEN];

	pulse_compose(p, i, now_ns, payload);
	/* The number is spent even if the send fails: the peer then counts the loss. */
	pp->tx_seq++;
	if (p->carry             ? p->carry(p, i, payload)
	    : i == PULSE_PATH_XC ? send_xc(p, payload)
				 : send_port(p, i - 1, payload))
		counter_add(&pp->sent, 1);
}

static void send_all(struct pulse *p, uint64_t now_ns)
{
	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		if (p->paths[i].used)
			send_path(p, i, now_ns);
	}
	doorbell_ring(p->tx_bell);
}

static void answer_probes(struct pulse *p, uint64_t now_ns)
{
	bool any = false;

	for (uint32_t i = 0; i < pulse_n_paths(p); i++) {
		if (!pulse_answer_due(p, i, now_ns))
			continue;
		send_path(p, i, now_ns);
		any = true;
	}
	if (any)
		doorbell_ring(p->tx_bell);
}

/* ---- receiving ---- */

bool pulse_hear(struct pulse *p, uint32_t worker, const struct fp_frame *frame, uint64_t now_ns)
{
	const uint32_t offset = HB_FRAME_LEN - HB_LEN; /* core_step() takes no IP options */
	struct pulse_heard *slot = ring_reserve_one(&p->rx[worker]);

	if (!slot)
		return false;
	slot->t_ns = now_ns;
	slot->path = 1 + frame->out_port;
	slot->len = frame->len > offset ? min_u32(frame->len - offset, HB_LEN) : 0;
	memcpy(slot->payload, frame->data + offset, slot->len);
	ring_submit(&p->rx[worker], 1);
	doorbell_ring(&p->bell);
	return true;
}

static void receive_rings(struct pulse *p)
{
	for (uint32_t w = 0; w < p->n_rx; w++) {
		const struct pulse_heard *slot;

		while ((slot = ring_peek_one(&p->rx[w]))) {
			pulse_receive(p, slot->path, slot->payload, slot->len, slot->t_ns);
			ring_release(&p->rx[w], 1);
		}
	}
}

static void receive_xc(struct pulse *p, uint64_t now_ns)
{
	for (uint32_t i = 0; i < XC_BURST; i++) {
		uint8_t payload[2 * HB_LEN];
		_Alignas(struct cmsghdr) char control[64];
		struct sockaddr_storage from;
		struct iovec iov = { .iov_base = payload, .iov_len = sizeof(payload) };
		struct msghdr msg = {
			.msg_name = &from,
			.msg_namelen = sizeof(from),
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		ssize_t len = recvmsg(p->xc_fd, &msg, MSG_DONTWAIT);

		if (len < 0 && errno == EAGAIN)
			return;
		if (len < 0) /* EINTR, or an ICMP error that somebody sent us: look on */
			continue;
		if (xc_ttl_of(&msg) != HB_TTL || !xc_is_from(&from, &p->cfg->pulse.xc_peer_addr))
			counter_add(&p->paths[PULSE_PATH_XC].bad, 1);
		else
			pulse_receive(p, PULSE_PATH_XC, payload, (uint32_t)len, now_ns);
	}
}

/* ---- the thread ---- */

static bool burst_is_due(struct pulse *p)
{
	const uint32_t wanted = atomic_load(&p->bursts_wanted);
	const bool due = wanted != p->bursts_done;

	p->bursts_done = wanted;
	return due;
}

/* What an event of the thread's epoll set is about; more than one at a time are or-ed. */
enum {
	WOKE_BELL = 1,
	WOKE_XC = 2,       /* a datagram on xc */
	WOKE_XC_WATCH = 4, /* something about a link */
	WOKE_LINE = 8,     /* the life line, or who wants to hold it */
	WOKE_ALL = WOKE_BELL | WOKE_XC | WOKE_XC_WATCH | WOKE_LINE
};

/*
 * Return: what there may be to read. The lease alone makes two hundred passes a second, and an idle node must cost
 * nothing: so nobody is asked who has not called.
 */
static uint32_t rest(struct pulse *p, int epfd)
{
	struct epoll_event ev[4];
	uint64_t now_ns, deadline;
	struct timespec timeout;
	uint32_t woke = WOKE_ALL;
	bool waits;

	doorbell_lie_down(&p->bell);
	waits = atomic_load(&p->stop) || atomic_load(&p->marked) ||
		atomic_load(&p->bursts_wanted) != p->bursts_done ||
		atomic_load(&p->keys_held) != atomic_load(&p->keys_seen);
	for (uint32_t w = 0; w < p->n_rx && !waits; w++)
		waits = !ring_is_empty(&p->rx[w]);
	now_ns = clock_now();
	deadline = pulse_next_deadline(p);
	if (!waits && now_ns < deadline) {
		int n;

		timeout = timespec_of(deadline - now_ns);
		n = epoll_pwait2(epfd, ev, (int)ARRAY_SIZE(ev), &timeout, NULL);
		if (n >= 0)
			woke = 0;
		for (int i = 0; i < n; i++)
			woke |= ev[i].data.u32;
	}
	doorbell_get_up(&p->bell);
	return woke;
}

/* What other threads have noticed. */
static void suspect_marked(struct pulse *p, uint64_t now_ns)
{
	const uint32_t marks = atomic_exchange(&p->marked, 0); /* pairs with pulse_mark() */

	if (marks)
		pulse_suspect(p, marks, now_ns);
}

static void hold_line(struct pulse *p, uint32_t woke, uint64_t now_ns)
{
	const struct heartbeat_keys *keys = &p->keys[atomic_load(&p->keys_seen)];
	const bool heard = pulse_may_call(p);
	uint64_t dead;

	if (!(woke & WOKE_LINE) && now_ns < lifeline_deadline(&p->line, heard, p->peer.incarnation))
		return;
	dead = lifeline_pass(&p->line, keys, heard, p->peer.incarnation, now_ns);
	if (dead)
		pulse_died(p, dead, now_ns);
}

void pulse_turn(struct pulse *p, uint32_t woke, uint64_t now_ns)
{
	atomic_store(&p->keys_seen, atomic_load(&p->keys_held));
	pulse_pass(p, now_ns);
	if (p->xc_fd >= 0 && (woke & WOKE_XC))
		receive_xc(p, now_ns);
	receive_rings(p);
	answer_probes(p, now_ns);
	if (p->xc.fd >= 0 && (woke & WOKE_XC_WATCH) && xc_watch_lost(&p->xc))
		pulse_suspect(p, FP_MARK_XC_CARRIER, now_ns);
	hold_line(p, woke, now_ns);
	suspect_marked(p, now_ns);
	pulse_tick(p, now_ns);
	if (burst_is_due(p) || pulse_probe(p, now_ns))
		send_all(p, now_ns);
	if (now_ns >= p->next_send_ns) {
		send_all(p, now_ns);
		p->next_send_ns += pulse_interval_ns(p);
		if (p->next_send_ns <= now_ns) /* late: no catching up in a burst */
			p->next_send_ns = now_ns + pulse_interval_ns(p);
	}
}

/*
 * The thread's descriptors become its own, and it keeps only those that it needs. Those of a process are closed by the
 * last of its threads, which has to take its memory apart before: milliseconds. The life line, which is made here, and
 * known nowhere else, ends at once: when a process is killed, none of its threads gets to run again, and this one, of
 * the highest priority, is the first to go. Nor does a child that was forked to run some program hold the line.
 *
 * If it may not be, everything works, and a death is proven a little later. ThreadSanitizer knows one table of
 * descriptors, and takes numbers that mean two things for a race.
 */
static void keep_own_files(const struct pulse *p)
{
	int keep[8 + FP_WORKERS_MAX] = { p->bell.fd, p->tx_bell->fd, p->events_fd,     p->xc_fd,
					 p->xc.fd,   p->line.epfd,   p->line.listen_fd };
	uint32_t n = 7;
	int from = STDERR_FILENO + 1;

	for (uint32_t i = 0; i < p->n_rx; i++) {
		if (p->workers[i].bell)
			keep[n++] = p->workers[i].bell->fd;
	}
#ifdef __SANITIZE_THREAD__
	return;
#endif
	if (unshare(CLONE_FILES))
		return;
	for (;;) {
		int next = INT_MAX;

		for (uint32_t i = 0; i < n; i++) {
			if (keep[i] >= from && keep[i] < next)
				next = keep[i];
		}
		if (next > from)
			close_range((unsigned)from, next == INT_MAX ? ~0U : (unsigned)next - 1, 0);
		if (next == INT_MAX)
			return;
		from = next + 1;
	}
}

static void *pulse_run(void *arg)
{
	struct pulse *p = arg;
	struct epoll_event bell = { .events = EPOLLIN | EPOLLET, .data.u32 = WOKE_BELL };
	struct epoll_event xc = { .events = EPOLLIN, .data.u32 = WOKE_XC };
	struct epoll_event watch = { .events = EPOLLIN, .data.u32 = WOKE_XC_WATCH };
	struct epoll_event line = { .events = EPOLLIN, .data.u32 = WOKE_LINE };
	uint32_t woke = WOKE_ALL;
	int epfd;

	keep_own_files(p);
	epfd = epoll_create1(EPOLL_CLOEXEC);
	FP_ASSERT(epfd >= 0 && epoll_ctl(epfd, EPOLL_CTL_ADD, p->bell.fd, &bell) == 0);
	if (p->xc_fd >= 0)
		FP_ASSERT(epoll_ctl(epfd, EPOLL_CTL_ADD, p->xc_fd, &xc) == 0);
	if (p->xc.fd >= 0)
		FP_ASSERT(epoll_ctl(epfd, EPOLL_CTL_ADD, p->xc.fd, &watch) == 0);
	if (p->line.epfd >= 0)
		FP_ASSERT(epoll_ctl(epfd, EPOLL_CTL_ADD, p->line.epfd, &line) == 0);
	p->last_tick_ns = p->next_send_ns = clock_now();
	while (!atomic_load(&p->stop)) {
		pulse_turn(p, woke, clock_now());
		woke = rest(p, epfd);
	}
	if (burst_is_due(p)) /* the goodbye */
		send_all(p, clock_now());
	lifeline_bye(&p->line);            /* which also closes what nobody else can */
	fence_renew(p->fence, UINT64_MAX); /* nobody renews it any more, and the workers end as well */
	close(epfd);
	return NULL;
}

/*
 * It must end before a peer takes over that believes us dead: dead_after intervals after it last heard us, which may
 * have been an interval ago, or confirm_ms after it asked first.
 */
static uint64_t lease_ns(const struct pulse *p)
{
	const struct fp_pulse_cfg *cfg = &p->cfg->pulse;
	const uint32_t lease_ms = min_u32(cfg->lease_ms, cfg->confirm_ms ? cfg->confirm_ms : UINT32_MAX);

	return min_u64(lease_ms * NS_PER_MS, (cfg->dead_after - 1) * pulse_interval_ns(p));
}

/* ---- life ---- */

static int open_xc(struct pulse *p, struct fp_error *err)
{
	const struct fp_pulse_cfg *cfg = &p->cfg->pulse;
	const bool v4 = addr_is_v4(&cfg->xc_addr);
	const int level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
	const int ttl = HB_TTL, on = 1, tos = HB_DSCP_TOS;
	char text[INET6_ADDRSTRLEN] = "?";
	struct sockaddr_storage self;
	const socklen_t len = xc_sockaddr(&cfg->xc_addr, cfg->udp_port, &self);
	int rc;

	p->xc_fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (p->xc_fd < 0 || setsockopt(p->xc_fd, level, v4 ? IP_TTL : IPV6_UNICAST_HOPS, &ttl, sizeof(ttl)) ||
	    setsockopt(p->xc_fd, level, v4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT, &on, sizeof(on)) ||
	    setsockopt(p->xc_fd, level, v4 ? IP_TOS : IPV6_TCLASS, &tos, sizeof(tos)) ||
	    bind(p->xc_fd, (struct sockaddr *)&self, len)) {
		rc = -errno;
		inet_ntop(v4 ? AF_INET : AF_INET6, cfg->xc_addr.b + (v4 ? 12 : 0), text, sizeof(text));
		snprintf(err->text, sizeof(err->text), "heartbeat socket on xc %s port %u: %s", text,
			 cfg->udp_port, strerror(-rc));
		return rc;
	}
	return 0;
}

int pulse_open(struct pulse *p, const struct fp_config *cfg, struct fence *fence, struct doorbell *tx_bell,
	       int events_fd, struct fp_error *err)
{
	int rc;

	p->cfg = cfg;
	p->fence = fence;
	p->tx_bell = tx_bell;
	p->events_fd = events_fd;
	p->xc_fd = p->xc.fd = p->line.epfd = -1;
	p->n_rx = cfg->n_workers;
	p->keys[0].n = 1;
	memcpy(p->keys[0].key[0], cfg->pulse.mac_key, sizeof(cfg->pulse.mac_key));
	rc = doorbell_init(&p->bell);
	if (rc == 0)
		rc = ring_init(&p->tx, sizeof(struct port_frame), PULSE_TX_SLOTS);
	if (rc == 0)
		rc = ring_init(&p->events, sizeof(struct fp_pulse_event), PULSE_EVENT_SLOTS);
	for (uint32_t w = 0; w < p->n_rx && rc == 0; w++)
		rc = ring_init(&p->rx[w], sizeof(struct pulse_heard), PULSE_RX_SLOTS);
	if (rc) {
		snprintf(err->text, sizeof(err->text), "heartbeats: %s", strerror(-rc));
		return rc;
	}
	fence_renew(fence, UINT64_MAX); /* until the thread runs */
	p->lease.ns = lease_ns(p);
	for (uint32_t i = 0; i < cfg->n_ports; i++) {
		static const uint8_t none[6];

		p->paths[1 + i].used = memcmp(cfg->ports[i].peer_mac, none, sizeof(none)) != 0;
	}
	if (addr_is_zero(&cfg->pulse.xc_addr))
		return 0;
	p->paths[PULSE_PATH_XC].used = true;
	rc = open_xc(p, err);
	if (rc)
		return rc;
	rc = lifeline_open(&p->line, &cfg->pulse);
	if (rc) {
		snprintf(err->text, sizeof(err->text), "life line, TCP port %u on xc: %s",
			 cfg->pulse.udp_port, strerror(-rc));
		return rc;
	}
	if (!cfg->pulse.xc_dev[0])
		return 0;
	rc = xc_watch_open(&p->xc, cfg->pulse.xc_dev);
	if (rc)
		snprintf(err->text, sizeof(err->text), "carrier of xc %s: %s", cfg->pulse.xc_dev,
			 strerror(-rc));
	return rc;
}

void pulse_close(struct pulse *p)
{
	if (!p->cfg) /* never opened */
		return;
	pulse_stop(p);
	if (p->xc_fd >= 0)
		close(p->xc_fd);
	xc_watch_close(&p->xc);
	lifeline_close(&p->line);
	for (uint32_t w = 0; w < p->n_rx; w++)
		ring_free(&p->rx[w]);
	ring_free(&p->events);
	ring_free(&p->tx);
	doorbell_free(&p->bell);
}

int pulse_start(struct pulse *p, struct fp_error *err)
{
	const struct sched_param fifo = { .sched_priority = PULSE_FIFO_PRIO };
	pthread_attr_t attr;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
	pthread_attr_setschedparam(&attr, &fifo);
	atomic_store(&p->stop, false);
	rc = pthread_create(&p->thread, &attr, pulse_run, p);
	pthread_attr_destroy(&attr);
	if (rc == EPERM) {
		if (p->cfg->pulse.interval_ms < PULSE_FIFO_BELOW_MS) {
			snprintf(err->text, sizeof(err->text),
				 "heartbeats every %u ms need SCHED_FIFO (CAP_SYS_NICE), which was refused",
				 p->cfg->pulse.interval_ms);
			return -EPERM;
		}
		snprintf(err->text, sizeof(err->text), "heartbeats run without SCHED_FIFO: not permitted");
		rc = pthread_create(&p->thread, NULL, pulse_run, p);
	}
	if (rc) {
		snprintf(err->text, sizeof(err->text), "heartbeat thread: %s", strerror(rc));
		return -rc;
	}
	pthread_setname_np(p->thread, "fx-pulse");
	p->running = true;
	return 0;
}

void pulse_stop(struct pulse *p)
{
	if (!p->running)
		return;
	atomic_store(&p->stop, true);
	doorbell_ring(&p->bell);
	pthread_join(p->thread, NULL);
	p->running = false;
}
