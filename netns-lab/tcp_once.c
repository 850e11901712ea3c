/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcp_once.c - short TCP connections of the kernel's stack: connect, one request, one answer, close
 *
 *   tcp_once server ADDRESS PORT
 *   tcp_once client TO TO_PORT FIRST_ADDRESS N_ADDRESSES FIRST_PORT N_CONNS PER_S
 *
 * The client begins N_CONNS connections, PER_S a second (0: all at once), from N_ADDRESSES addresses that
 * share their source ports. Each is one socket that is used once: nothing here tries again, what is sent
 * twice the kernel has sent twice. The client shuts its side first; the connection has survived when the
 * answer was right in every byte and the server's end of stream has come. The server takes each connection
 * number by one connection only.
 *
 * The client prints JSON lines: "progress" every 50 ms, "done" at the end. The line "end MS" on its stdin:
 * begin no more; those that have begun get MS milliseconds from now.
 *
 *   begun      = connect(2) called
 *   connected, answered = got so far
 *   survived   = went through to the end
 *   lost       = did not, by how far they came: in "connect", "answer" or "close"; of these, by what ended
 *                them: "refused" (a RST), "corrupt", the rest waited in vain
 *   repeated   = connections on which the client's kernel sent something twice
 *   begun_ms   = from the first connect(2) to the last
 *
 * The server's "done": accepted, answered, closed (by the client's FIN), reset, corrupt, second (connection
 * numbers that came by a second connection), translated, sources.
 */
#include "probe.h"

#include "tcp.h"

#include <netinet/tcp.h>
#include <sys/resource.h>

#define FDS_MAX     32768
#define CONNS_MAX   65536
#define EVENTS_MAX  256
#define PROGRESS_NS (50 * NS_PER_MS)
#define LINE_MAX    64

/* ---- server --------------------------------------------------------------------------------------- */

struct served {
	uint8_t request[REQUEST_LEN];
	uint32_t got;
	struct sockaddr_in peer;
};

struct server {
	struct served by_fd[FDS_MAX];
	uint8_t seen[CONNS_MAX];
	struct sources sources;
	uint64_t accepted, answered, closed, reset, corrupt, second, translated;
	int epoll;
};

static void accept_all(struct server *s, int listener)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int fd, on = 1;

	while ((fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK)) >= 0) {
		if (fd >= FDS_MAX) {
			refuse(fd);
			continue;
		}
		s->by_fd[fd] = (struct served){ .peer = peer };
		sources_add(&s->sources, peer.sin_addr);
		s->accepted++;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		watch(s->epoll, fd, EPOLLIN, EPOLL_CTL_ADD);
	}
}

/* The request is whole: may it be answered? */
static int admit(struct server *s, struct served *c)
{
	const struct head *h = (const struct head *)c->request;

	if (!valid(c->request, REQUEST_LEN, 0) || ntohl(h->flow) >= CONNS_MAX) {
		s->corrupt++;
		return 0;
	}
	if (s->seen[ntohl(h->flow)]++) {
		s->second++;
		return 0;
	}
	s->translated += ntohs(c->peer.sin_port) != ntohl(h->sport);
	return 1;
}

static void serve_one(struct server *s, int fd)
{
	struct served *c = &s->by_fd[fd];
	const struct head *h = (const struct head *)c->request;
	uint8_t response[RESPONSE_LEN];
	ssize_t n = 0;

	while (c->got < REQUEST_LEN && (n = recv(fd, c->request + c->got, REQUEST_LEN - c->got, 0)) > 0) {
		c->got += (uint32_t)n;
		if (c->got < REQUEST_LEN)
			continue;
		if (!admit(s, c))
			return refuse(fd);
		make(response, RESPONSE_LEN, ntohl(h->flow), 0, ntohl(h->sport));
		if (send(fd, response, RESPONSE_LEN, MSG_NOSIGNAL) != RESPONSE_LEN)
			return refuse(fd);
		s->answered++;
	}
	if (c->got == REQUEST_LEN)
		n = recv(fd, response, 1, 0); /* nothing, or the end */
	if (n < 0 && errno == EAGAIN)
		return;
	s->closed += n == 0 && c->got == REQUEST_LEN;
	s->reset += n < 0;
	s->corrupt += n > 0;
	close(fd);
}

static void serve(char **argv)
{
	static struct server s;
	struct sockaddr_in local = endpoint(argv[0], argv[1]);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
	struct epoll_event events[EVENTS_MAX];

	s.epoll = epoll_create1(0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&local, sizeof(local)) < 0 || listen(listener, 16384) < 0)
		die("tcp_once: listen");
	watch(s.epoll, listener, EPOLLIN, EPOLL_CTL_ADD);
	printf("{\"event\": \"listening\"}\n");
	while (!stopping) {
		int n = epoll_wait(s.epoll, events, EVENTS_MAX, 100);

		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == listener)
				accept_all(&s, listener);
			else
				serve_one(&s, events[i].data.fd);
		}
	}
	printf("{\"event\": \"done\", \"accepted\": %llu, \"answered\": %llu, \"closed\": %llu, \"reset\": %llu, "
	       "\"corrupt\": %llu, \"second\": %llu, \"translated\": %llu, ",
	       (unsigned long long)s.accepted, (unsigned long long)s.answered, (unsigned long long)s.closed,
	       (unsigned long long)s.reset, (unsigned long long)s.corrupt, (unsigned long long)s.second,
	       (unsigned long long)s.translated);
	sources_print(&s.sources);
	printf("}\n");
}

/* ---- client --------------------------------------------------------------------------------------- */

enum phase { UNBEGUN, IN_CONNECT, IN_ANSWER, IN_CLOSE, SURVIVED };

struct conn {
	enum phase phase;
	int fd;
	uint32_t sport, got;
	uint8_t response[RESPONSE_LEN];
};

struct client {
	struct conn *conns;
	uint32_t conn_of_fd[FDS_MAX];
	uint32_t n_conns, n_begun, n_open, n_addresses;
	struct sockaddr_in to, first;
	uint64_t interval_ns, begun_from_ns, begun_to_ns, deadline_ns;
	uint64_t connected, answered, survived, lost[SURVIVED], refused, corrupt, repeated, repeats_max;
	int epoll, ended;
};

/* How often the kernel sent something again. */
static void count_repeats(struct client *c, int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return;
	c->repeated += info.tcpi_total_retrans > 0;
	if (info.tcpi_total_retrans > c->repeats_max)
		c->repeats_max = info.tcpi_total_retrans;
}

static void end_conn(struct client *c, struct conn *k, int survived)
{
	count_repeats(c, k->fd);
	c->n_open--;
	if (survived) {
		c->survived++;
		k->phase = SURVIVED;
		close(k->fd);
	} else {
		c->lost[k->phase]++;
		k->phase = UNBEGUN;
		refuse(k->fd);
	}
	k->fd = -1;
}

static void begin(struct client *c, uint32_t i)
{
	struct conn *k = &c->conns[i];
	struct sockaddr_in local = c->first;
	int on = 1;

	local.sin_addr.s_addr = htonl(ntohl(c->first.sin_addr.s_addr) + i % c->n_addresses);
	local.sin_port = htons((uint16_t)(ntohs(c->first.sin_port) + i / c->n_addresses));
	k->sport = ntohs(local.sin_port);
	k->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (k->fd < 0 || k->fd >= FDS_MAX)
		die("tcp_once: socket");
	setsockopt(k->fd, SOL_SOCKET, SO_REUSEADDR, &on,
		   sizeof(on)); /* to another server port, from TIME_WAIT */
	if (bind(k->fd, (struct sockaddr *)&local, sizeof(local)) < 0)
		die("tcp_once: bind");
	setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	c->conn_of_fd[k->fd] = i;
	c->n_open++;
	k->phase = IN_CONNECT;
	if (connect(k->fd, (struct sockaddr *)&c->to, sizeof(c->to)) < 0 && errno != EINPROGRESS)
		die("tcp_once: connect");
	watch(c->epoll, k->fd, EPOLLOUT, EPOLL_CTL_ADD);
}

static void finish_connect(struct client *c, uint32_t i)
{
	struct conn *k = &c->conns[i];
	uint8_t message[REQUEST_LEN];
	int error = 0;
	socklen_t len = sizeof(error);

	getsockopt(k->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	make(message, REQUEST_LEN, i, 0, k->sport);
	if (error || send(k->fd, message, REQUEST_LEN, MSG_NOSIGNAL) != REQUEST_LEN) {
		c->refused++;
		return end_conn(c, k, 0);
	}
	c->connected++;
	k->phase = IN_ANSWER;
	watch(c->epoll, k->fd, EPOLLIN, EPOLL_CTL_MOD);
}

static void take_answer(struct client *c, struct conn *k)
{
	ssize_t n = recv(k->fd, k->response + k->got, RESPONSE_LEN - k->got, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		c->refused++;
		return end_conn(c, k, 0);
	}
	k->got += (uint32_t)n;
	if (k->got < RESPONSE_LEN)
		return;
	if (!valid(k->response, RESPONSE_LEN, 0)) {
		c->corrupt++;
		return end_conn(c, k, 0);
	}
	c->answered++;
	k->phase = IN_CLOSE;
	shutdown(k->fd, SHUT_WR);
}

static void take_end(struct client *c, struct conn *k)
{
	uint8_t byte;
	ssize_t n = recv(k->fd, &byte, 1, 0);

	if (n < 0 && errno == EAGAIN)
		return;
	c->refused += n < 0;
	c->corrupt += n > 0;
	end_conn(c, k, n == 0);
}

static void report(const struct client *c, const char *event)
{
	uint64_t lost = c->lost[IN_CONNECT] + c->lost[IN_ANSWER] + c->lost[IN_CLOSE];

	printf("{\"event\": \"%s\", \"begun\": %u, \"open\": %u, \"connected\": %llu, \"answered\": %llu, "
	       "\"survived\": %llu, \"lost\": %llu, \"lost_in\": {\"connect\": %llu, \"answer\": %llu, "
	       "\"close\": %llu}, \"refused\": %llu, \"corrupt\": %llu, \"repeated\": %llu, "
	       "\"repeats_max\": %llu, \"begun_ms\": %llu}\n",
	       event, c->n_begun, c->n_open, (unsigned long long)c->connected,
	       (unsigned long long)c->answered, (unsigned long long)c->survived, (unsigned long long)lost,
	       (unsigned long long)c->lost[IN_CONNECT], (unsigned long long)c->lost[IN_ANSWER],
	       (unsigned long long)c->lost[IN_CLOSE], (unsigned long long)c->refused,
	       (unsigned long long)c->corrupt, (unsigned long long)c->repeated,
	       (unsigned long long)c->repeats_max,
	       (unsigned long long)((c->begun_to_ns - c->begun_from_ns) / NS_PER_MS));
}

static void command(struct client *c, uint64_t now)
{
	char line[LINE_MAX + 1] = "";
	ssize_t n = read(STDIN_FILENO, line, LINE_MAX);

	if (n <= 0) /* nobody is there any more */
		c->deadline_ns = now;
	else if (strncmp(line, "end ", 4) == 0)
		c->deadline_ns = now + (uint64_t)atoi(line + 4) * NS_PER_MS;
	c->ended = c->deadline_ns != 0;
	if (n <= 0)
		epoll_ctl(c->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
}

static void pace(struct client *c, uint64_t now)
{
	uint64_t due = c->interval_ns ? (now - c->begun_from_ns) / c->interval_ns + 1 : c->n_conns;

	while (!c->ended && c->n_begun < c->n_conns && c->n_begun < due) {
		begin(c, c->n_begun++);
		c->begun_to_ns = now;
	}
}

/* Have all ended that may still do so? */
static int is_over(struct client *c, uint64_t now)
{
	if (!c->ended && c->n_begun < c->n_conns)
		return 0;
	if (c->n_open && c->ended && now >= c->deadline_ns)
		for (uint32_t i = 0; i < c->n_begun; i++)
			if (c->conns[i].fd >= 0)
				end_conn(c, &c->conns[i], 0);
	return c->n_open == 0;
}

static void handle(struct client *c, uint32_t i)
{
	struct conn *k = &c->conns[i];

	if (k->phase == IN_CONNECT)
		finish_connect(c, i);
	else if (k->phase == IN_ANSWER)
		take_answer(c, k);
	else if (k->phase == IN_CLOSE)
		take_end(c, k);
}

static void run_client(char **argv)
{
	static struct client c;
	struct epoll_event events[EVENTS_MAX];
	uint64_t progress_ns = 0;

	c.to = endpoint(argv[0], argv[1]);
	c.first = endpoint(argv[2], argv[4]);
	c.n_addresses = (uint32_t)atoi(argv[3]);
	c.n_conns = (uint32_t)atoi(argv[5]);
	if (!c.n_addresses || !c.n_conns || c.n_conns > CONNS_MAX || atoi(argv[6]) < 0)
		die("tcp_once: bad counts");
	c.conns = calloc(c.n_conns, sizeof(*c.conns));
	for (uint32_t i = 0; i < c.n_conns; i++)
		c.conns[i].fd = -1;
	c.interval_ns = atoi(argv[6]) ? NS_PER_S / (uint64_t)atoi(argv[6]) : 0;
	c.epoll = epoll_create1(0);
	watch(c.epoll, STDIN_FILENO, EPOLLIN, EPOLL_CTL_ADD);
	c.begun_from_ns = c.begun_to_ns = now_ns();
	for (;;) {
		uint64_t now = now_ns();
		int n;

		pace(&c, now);
		if (is_over(&c, now))
			break;
		if (now - progress_ns >= PROGRESS_NS) {
			if (is_read())
				report(&c, "progress");
			progress_ns = now;
		}
		n = epoll_wait(c.epoll, events, EVENTS_MAX, 1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == STDIN_FILENO)
				command(&c, now_ns());
			else
				handle(&c, c.conn_of_fd[events[i].data.fd]);
		}
	}
	report(&c, "done");
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = stop };
	struct rlimit files;

	sigaction(SIGTERM, &action, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		die("tcp_once: file descriptors");
	files.rlim_cur = files.rlim_max < FDS_MAX ? files.rlim_max : FDS_MAX;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		die("tcp_once: file descriptors");
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && strcmp(argv[1], "server") == 0)
		serve(argv + 2);
	else if (argc == 9 && strcmp(argv[1], "client") == 0)
		run_client(argv + 2);
	else
		return fprintf(stderr, "see the head of tcp_once.c\n"), 2;
	return 0;
}
