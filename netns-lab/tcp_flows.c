/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcp_flows.c - many TCP connections of the kernel's stack, request and response at a steady rate
 *
 *   tcp_flows server ADDRESS PORT
 *   tcp_flows client TO TO_PORT FIRST_ADDRESS N_ADDRESSES FIRST_PORT N_PORTS PER_S LOG
 *
 * The client opens N_ADDRESSES x N_PORTS connections; every address uses the same source ports, so that
 * a NAT must translate most of them. Each connection sends PER_S requests a second, one at a time. Requests
 * and responses are numbered and filled from a generator that both ends know: each end checks every byte.
 * The server accepts a connection number only from the 4-tuple that it saw first with it.
 *
 * The client prints JSON lines: "progress" every 100 ms, "done" at the end. Lines on its stdin: "mark"
 * starts counting the connections that had a request answered which was sent after the mark; "stop" lets
 * the outstanding requests be answered, closes all and ends. LOG holds the time of each response (u64, ns).
 *
 *   opened    = handshakes completed
 *   reset     = ended by RST, FIN or an error before "stop"
 *   stalled   = a request waited longer than STALL_NS for its response
 *   corrupt   = a byte of a response was not what it must be
 *   survived  = opened, and none of the three
 */
#include "probe.h"

#include "tcp.h"

#include <netinet/tcp.h>
#include <sys/resource.h>

#define FDS_MAX       8192
#define FLOWS_MAX     4096
#define EVENTS_MAX    256
#define OPENING_MAX   64 /* handshakes at a time: the machine is small */
#define STALL_NS      (5 * NS_PER_S)
#define PROGRESS_NS   (100 * NS_PER_MS)
#define RESPONSES_MAX (16u << 20)

/* ---- server --------------------------------------------------------------------------------------- */

struct served {
	uint8_t request[REQUEST_LEN];
	uint32_t got, seq;
	struct sockaddr_in peer;
};

struct server {
	struct served by_fd[FDS_MAX];
	struct sockaddr_in first_seen[FLOWS_MAX]; /* by connection number */
	struct sources sources;
	uint64_t accepted, requests, corrupt, foreign, translated;
	int epoll;
};

static void accept_all(struct server *s, int listener)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int fd, on = 1;

	while ((fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK)) >= 0) {
		if (fd >= FDS_MAX) {
			close(fd);
			continue;
		}
		s->by_fd[fd] = (struct served){ .peer = peer };
		sources_add(&s->sources, peer.sin_addr);
		s->accepted++;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		watch(s->epoll, fd, EPOLLIN, EPOLL_CTL_ADD);
	}
}

/* Is the 4-tuple the one that this connection number was first seen with? */
static int is_first_seen(struct server *s, const struct served *c)
{
	const struct head *h = (const struct head *)c->request;
	struct sockaddr_in *first;

	if (ntohl(h->flow) >= FLOWS_MAX)
		return 0;
	first = &s->first_seen[ntohl(h->flow)];
	if (!first->sin_port) {
		*first = c->peer;
		s->translated += ntohs(c->peer.sin_port) != ntohl(h->sport);
	}
	return first->sin_port == c->peer.sin_port && first->sin_addr.s_addr == c->peer.sin_addr.s_addr;
}

static void answer(struct server *s, int fd)
{
	struct served *c = &s->by_fd[fd];
	uint8_t response[RESPONSE_LEN];
	ssize_t n;

	while ((n = recv(fd, c->request + c->got, REQUEST_LEN - c->got, 0)) > 0) {
		const struct head *h = (const struct head *)c->request;

		c->got += (uint32_t)n;
		if (c->got < REQUEST_LEN)
			continue;
		c->got = 0;
		if (!valid(c->request, REQUEST_LEN, c->seq)) {
			s->corrupt++;
			return refuse(fd);
		}
		if (!is_first_seen(s, c)) {
			s->foreign++;
			return refuse(fd);
		}
		s->requests++;
		c->seq++;
		make(response, RESPONSE_LEN, ntohl(h->flow), ntohl(h->seq), ntohl(h->sport));
		/* One request is outstanding at a time, so the send buffer is empty here. */
		if (send(fd, response, RESPONSE_LEN, MSG_NOSIGNAL) != RESPONSE_LEN)
			return refuse(fd);
	}
	if (n == 0)
		close(fd);
	else if (errno != EAGAIN)
		refuse(fd);
}

static void serve(char **argv)
{
	static struct server s;
	struct sockaddr_in local = endpoint(argv[0], argv[1]);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
	struct epoll_event events[EVENTS_MAX];

	s.epoll = epoll_create1(0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&local, sizeof(local)) < 0 || listen(listener, 4096) < 0)
		die("tcp_flows: listen");
	watch(s.epoll, listener, EPOLLIN, EPOLL_CTL_ADD);
	printf("{\"event\": \"listening\"}\n");
	while (!stopping) {
		int n = epoll_wait(s.epoll, events, EVENTS_MAX, 100);

		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == listener)
				accept_all(&s, listener);
			else
				answer(&s, events[i].data.fd);
		}
	}
	printf("{\"event\": \"done\", \"accepted\": %llu, \"requests\": %llu, \"corrupt\": %llu, "
	       "\"foreign\": %llu, \"translated\": %llu, ",
	       (unsigned long long)s.accepted, (unsigned long long)s.requests, (unsigned long long)s.corrupt,
	       (unsigned long long)s.foreign, (unsigned long long)s.translated);
	sources_print(&s.sources);
	printf("}\n");
}

/* ---- client --------------------------------------------------------------------------------------- */

enum flow_state { UNOPENED, OPENING, OPEN, BROKEN };

struct flow {
	enum flow_state state;
	int fd;
	uint32_t sport, seq, got;
	uint32_t waiting, stalled, corrupt, was_open;
	uint64_t sent_ns, answered, answered_after_mark;
	uint8_t response[RESPONSE_LEN];
};

struct client {
	struct flow *flows;
	uint32_t n_flows, n_started, n_opening, n_open;
	struct sockaddr_in to, first;
	uint32_t n_ports;
	uint64_t slot, slots_from_ns, slot_ns; /* slot k belongs to flow k mod n_flows */
	uint64_t mark_ns, responses, latency_max_ns;
	struct samples log;
	int epoll, stop_asked;
	uint32_t flow_of_fd[FDS_MAX];
};

static void break_flow(struct client *c, struct flow *f)
{
	c->n_opening -= f->state == OPENING;
	close(f->fd);
	f->state = BROKEN;
	f->waiting = 0;
}

static void open_flow(struct client *c, uint32_t i)
{
	struct flow *f = &c->flows[i];
	struct sockaddr_in local = c->first;
	int on = 1;

	local.sin_addr.s_addr = htonl(ntohl(local.sin_addr.s_addr) + i / c->n_ports);
	local.sin_port = htons((uint16_t)(ntohs(c->first.sin_port) + i % c->n_ports));
	f->sport = ntohs(local.sin_port);
	f->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (f->fd < 0 || f->fd >= FDS_MAX || bind(f->fd, (struct sockaddr *)&local, sizeof(local)) < 0)
		die("tcp_flows: bind");
	setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	f->state = OPENING;
	c->n_opening++;
	c->flow_of_fd[f->fd] = i;
	if (connect(f->fd, (struct sockaddr *)&c->to, sizeof(c->to)) < 0 && errno != EINPROGRESS)
		return break_flow(c, f);
	watch(c->epoll, f->fd, EPOLLOUT, EPOLL_CTL_ADD);
}

static void finish_opening(struct client *c, struct flow *f)
{
	int error = 0;
	socklen_t len = sizeof(error);

	getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error)
		return break_flow(c, f);
	f->state = OPEN;
	f->was_open = 1;
	c->n_opening--;
	c->n_open++;
	watch(c->epoll, f->fd, EPOLLIN, EPOLL_CTL_MOD);
}

static void request(struct client *c, uint32_t i, uint64_t now)
{
	struct flow *f = &c->flows[i];
	uint8_t message[REQUEST_LEN];

	if (f->state != OPEN)
		return;
	if (f->waiting) {
		f->stalled |= now - f->sent_ns > STALL_NS;
		return;
	}
	make(message, REQUEST_LEN, i, f->seq, f->sport);
	if (send(f->fd, message, REQUEST_LEN, MSG_NOSIGNAL) != REQUEST_LEN)
		return break_flow(c, f);
	f->waiting = 1;
	f->sent_ns = now;
}

static void take_response(struct client *c, struct flow *f)
{
	ssize_t n = recv(f->fd, f->response + f->got, RESPONSE_LEN - f->got, 0);
	uint64_t now = now_ns();

	if (n <= 0) {
		if (n == 0 || errno != EAGAIN)
			break_flow(c, f);
		return;
	}
	f->got += (uint32_t)n;
	if (f->got < RESPONSE_LEN)
		return;
	f->got = 0;
	f->corrupt |= !f->waiting || !valid(f->response, RESPONSE_LEN, f->seq);
	f->stalled |= now - f->sent_ns > STALL_NS;
	f->waiting = 0;
	f->seq++;
	f->answered++;
	f->answered_after_mark += c->mark_ns && f->sent_ns >= c->mark_ns;
	c->responses++;
	if (now - f->sent_ns > c->latency_max_ns)
		c->latency_max_ns = now - f->sent_ns;
	samples_add(&c->log, &now);
}

static void report(const struct client *c, const char *event)
{
	uint64_t rounds = UINT64_MAX, recovered = 0, reset = 0, stalled = 0, corrupt = 0, survived = 0;

	for (uint32_t i = 0; i < c->n_flows; i++) {
		const struct flow *f = &c->flows[i];

		rounds = f->answered < rounds ? f->answered : rounds;
		recovered += f->answered_after_mark > 0;
		reset += f->was_open && f->state == BROKEN;
		stalled += f->stalled;
		corrupt += f->corrupt;
		survived += f->was_open && f->state == OPEN && !f->stalled && !f->corrupt;
	}
	printf("{\"event\": \"%s\", \"opened\": %u, \"failed\": %u, \"survived\": %llu, \"reset\": %llu, "
	       "\"stalled\": %llu, \"corrupt\": %llu, \"responses\": %llu, \"rounds\": %llu, "
	       "\"recovered\": %llu, \"latency_max_ms\": %.3f}\n",
	       event, c->n_open, c->n_started - c->n_opening - c->n_open, (unsigned long long)survived,
	       (unsigned long long)reset, (unsigned long long)stalled, (unsigned long long)corrupt,
	       (unsigned long long)c->responses, (unsigned long long)rounds, (unsigned long long)recovered,
	       (double)c->latency_max_ns / NS_PER_MS);
}

static void command(struct client *c)
{
	char line[64];
	ssize_t n = read(STDIN_FILENO, line, sizeof(line));

	if (n <= 0 || memchr(line, 's', (size_t)n)) { /* "stop", or nobody is there any more */
		c->stop_asked = 1;
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
	} else if (memchr(line, 'm', (size_t)n)) {
		c->mark_ns = now_ns();
		for (uint32_t i = 0; i < c->n_flows; i++)
			c->flows[i].answered_after_mark = 0;
	}
}

/* Once stopped: is a request still entitled to its response? */
static int is_waiting(struct client *c, uint64_t now)
{
	int waiting = 0;

	for (uint32_t i = 0; i < c->n_flows; i++) {
		struct flow *f = &c->flows[i];

		if (f->waiting && now - f->sent_ns > STALL_NS)
			f->stalled = 1;
		else if (f->waiting)
			waiting = 1;
	}
	return waiting;
}

static void pace(struct client *c, uint64_t now)
{
	while (c->n_opening < OPENING_MAX && c->n_started < c->n_flows)
		open_flow(c, c->n_started++);
	if (c->n_open < c->n_flows && !c->slots_from_ns)
		return; /* requests start once all connections stand */
	if (!c->slots_from_ns)
		c->slots_from_ns = now;
	for (; !c->stop_asked && c->slots_from_ns + c->slot * c->slot_ns <= now; c->slot++)
		request(c, (uint32_t)(c->slot % c->n_flows), now);
}

static void run_client(char **argv)
{
	static struct client c;
	struct epoll_event events[EVENTS_MAX];
	uint64_t progress_ns = 0;

	c.to = endpoint(argv[0], argv[1]);
	c.first = endpoint(argv[2], argv[4]);
	c.n_ports = (uint32_t)atoi(argv[5]);
	c.n_flows = (uint32_t)atoi(argv[3]) * c.n_ports;
	if (c.n_flows == 0 || c.n_flows > FLOWS_MAX || atoi(argv[6]) < 1)
		die("tcp_flows: bad counts");
	c.flows = calloc(c.n_flows, sizeof(*c.flows));
	c.slot_ns = NS_PER_S / ((uint64_t)atoi(argv[6]) * c.n_flows);
	c.log = samples_open(sizeof(uint64_t), RESPONSES_MAX);
	c.epoll = epoll_create1(0);
	watch(c.epoll, STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
	for (;;) {
		uint64_t now = now_ns();
		int n;

		pace(&c, now);
		if (c.stop_asked && !is_waiting(&c, now))
			break;
		if (now - progress_ns >= PROGRESS_NS) {
			if (is_read())
				report(&c, "progress");
			progress_ns = now;
		}
		n = epoll_wait(c.epoll, events, EVENTS_MAX, 1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			struct flow *f;

			if (fd == STDIN_FILENO) {
				command(&c);
				continue;
			}
			f = &c.flows[c.flow_of_fd[fd]];
			if (f->state == OPENING)
				finish_opening(&c, f);
			else if (f->state == OPEN)
				take_response(&c, f);
		}
	}
	samples_write(&c.log, argv[7]);
	report(&c, "done");
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = stop };
	struct rlimit files = { .rlim_cur = FDS_MAX, .rlim_max = FDS_MAX };

	sigaction(SIGTERM, &action, NULL);
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		perror("tcp_flows: file descriptors");
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && strcmp(argv[1], "server") == 0)
		serve(argv + 2);
	else if (argc == 10 && strcmp(argv[1], "client") == 0)
		run_client(argv + 2);
	else
		return fprintf(stderr, "see the head of tcp_flows.c\n"), 2;
	return 0;
}
