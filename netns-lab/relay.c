/* SPDX-License-Identifier: Apache-2.0 */
/**
 * relay.c - a piece of wire that stops TCP connections at a packet, and kills a node there
 *
 *   relay run LEFT RIGHT         what LEFT receives leaves by RIGHT, and the other way round
 *   relay classify ADDRESS PORT  frames in hex, one a line, on stdin: prints the stage of each, "-" for others
 *
 * LEFT and RIGHT are devices without addresses, and in no bridge; frames keep their checksum offload and
 * their segmentation (virtio headers of AF_PACKET). Commands, one a line, on stdin:
 *
 *   test ADDRESS PORT            the connections under test: those of this server; earlier ones are forgotten
 *   victim PID [NS:DEV]...       whom a kill ends: SIGKILL, then its links are set down
 *   step STAGE before|after N kill|wait pass|keep
 *                                hold frames of STAGE and of later stages. Once N connections have shown STAGE:
 *                                before: kill; after: let that one frame of each connection go, then kill.
 *                                wait: not yet, but at the command `go`. pass: let everything go as soon as it
 *                                is dead; keep: only at the command `pass`
 *   count STAGE N                hold nothing; kill when STAGE has passed on N connections
 *   go | kill | pass | status    see above; `kill` does so at once; `pass` also ends `step` and `count`
 *   delay MS                     every frame, each way
 *   drop N                       each Nth frame of the connections under test is lost (0: none)
 *   reorder PERCENT SEED         of their frames change place with the next one of their direction
 *
 * It ends by SIGTERM or when stdin does. stdout has JSON lines: "ready", "full" (N connections have shown
 * STAGE; with wait), "killed", "status", "done"; each has all figures. There is no thread and no timer between
 * the frame that counts and kill(2): what comes after that frame has not been read yet.
 *
 * Frames that are held or delayed are bounded in number and bytes; what does not fit is dropped and counted.
 */
#include "probe.h"

#include "stage.h"

#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>

#define FRAME_MAX    (sizeof(struct virtio_net_hdr) + 14 + 65535)
#define FRAMES_MAX   32768u /* in all queues together */
#define BYTES_MAX    (64u << 20)
#define CONNS_CAP    (1u << 16) /* a power of two */
#define CONNS_MAX    (CONNS_CAP / 2)
#define VICTIM_LINKS 8
#define BURST        64
#define SOCKET_BYTES (32 << 20)
#define ASIDE_NS     (5 * NS_PER_MS) /* a frame that is to be overtaken waits so long for another */
#define LINE_MAX     512

struct frame {
	struct frame *next;
	uint64_t due_ns;
	uint32_t end; /* by which it leaves */
	uint32_t conn;
	enum stage stage;
	uint32_t len;
	uint8_t data[]; /* virtio header, Ethernet frame */
};

struct queue {
	struct frame *first, **last;
};

struct conn {
	uint32_t client;
	uint16_t port, used;
	uint32_t shown;
	uint32_t arrived; /* bits of stages */
	uint32_t released;
};

enum mode { PASSING, STEPPING, COUNTING };

struct link {
	int control; /* a socket of its namespace */
	struct ifreq down;
};

struct relay {
	int ends[2];
	struct conn conns[CONNS_CAP];
	uint32_t server;
	uint16_t port;
	enum mode mode;
	enum stage stage;
	uint32_t target;
	bool after, wait, keep, full;
	struct queue held;
	struct queue delayed[2]; /* by end */
	struct frame *aside[2];  /* to be overtaken */
	uint64_t delay_ns, random;
	uint32_t drop_nth, reorder_percent;
	pid_t victim;
	struct link links[VICTIM_LINKS];
	uint32_t n_links;
	/* figures */
	uint64_t killed_ns, n_conns, passed, dropped, overflow, unsent, reordered;
	uint64_t arrived[N_STAGES]; /* connections that have shown it */
	uint64_t frames[N_STAGES];  /* that came, retransmissions included */
	uint64_t through[N_STAGES]; /* of them, those that were let through */
	uint64_t missed;            /* the kernel's socket buffer was full */
	uint32_t n_frames, n_bytes, n_held, n_tested;
};

static struct relay relay;
static volatile sig_atomic_t stopping;

static void stop(int signum)
{
	(void)signum;
	stopping = 1;
}

/* ---- figures --------------------------------------------------------------------------------------- */

static void report_stages(const char *name, const uint64_t *figures)
{
	printf(", \"%s\": {", name);
	for (int i = 0; i < N_STAGES; i++)
		printf("%s\"%s\": %llu", i ? ", " : "", stage_names[i], (unsigned long long)figures[i]);
	printf("}");
}

static void report(struct relay *r, const char *event)
{
	for (int i = 0; i < 2; i++) {
		struct tpacket_stats stats;
		socklen_t len = sizeof(stats);

		if (getsockopt(r->ends[i], SOL_PACKET, PACKET_STATISTICS, &stats, &len) == 0)
			r->missed += stats.tp_drops; /* reading clears it */
	}
	printf("{\"event\": \"%s\", \"killed_ns\": %llu, \"full\": %s, \"conns\": %llu, \"held\": %u, "
	       "\"passed\": %llu, \"dropped\": %llu, \"reordered\": %llu, \"overflow\": %llu, \"unsent\": %llu, "
	       "\"missed\": %llu",
	       event, (unsigned long long)r->killed_ns, r->full ? "true" : "false",
	       (unsigned long long)r->n_conns, r->n_held, (unsigned long long)r->passed,
	       (unsigned long long)r->dropped, (unsigned long long)r->reordered,
	       (unsigned long long)r->overflow, (unsigned long long)r->unsent, (unsigned long long)r->missed);
	report_stages("arrived", r->arrived);
	report_stages("frames", r->frames);
	report_stages("through", r->through);
	printf("}\n");
}

/* ---- frames ---------------------------------------------------------------------------------------- */

static void queue_open(struct queue *q)
{
	q->first = NULL;
	q->last = &q->first;
}

static void queue_add(struct queue *q, struct frame *f)
{
	f->next = NULL;
	*q->last = f;
	q->last = &f->next;
}

static struct frame *queue_take(struct queue *q)
{
	struct frame *f = q->first;

	if (f && !(q->first = f->next))
		q->last = &q->first;
	return f;
}

static struct frame *frame_new(struct relay *r, const uint8_t *data, uint32_t len, uint32_t end)
{
	struct frame *f;

	if (r->n_frames == FRAMES_MAX || len > BYTES_MAX - r->n_bytes || !(f = malloc(sizeof(*f) + len))) {
		r->overflow++;
		return NULL;
	}
	*f = (struct frame){ .end = end, .len = len };
	memcpy(f->data, data, len);
	r->n_frames++;
	r->n_bytes += len;
	return f;
}

static void frame_free(struct relay *r, struct frame *f)
{
	r->n_frames--;
	r->n_bytes -= f->len;
	free(f);
}

static void put(struct relay *r, const uint8_t *data, uint32_t len, uint32_t end)
{
	if (send(r->ends[end], data, len, MSG_DONTWAIT) == (ssize_t)len)
		r->passed++;
	else
		r->unsent++; /* a link that is down loses what is sent */
}

/* Towards the end: at once, or after the wire's delay. */
static void leave(struct relay *r, const uint8_t *data, uint32_t len, uint32_t end)
{
	struct frame *f;

	if (!r->delay_ns && !r->delayed[end].first)
		return put(r, data, len, end);
	f = frame_new(r, data, len, end);
	if (f) {
		f->due_ns = now_ns() + r->delay_ns;
		queue_add(&r->delayed[end], f);
	}
}

static void let_go(struct relay *r, struct frame *f)
{
	leave(r, f->data, f->len, f->end);
	frame_free(r, f);
}

static void let_go_aside(struct relay *r, uint32_t end)
{
	struct frame *f = r->aside[end];

	if (f) {
		r->aside[end] = NULL;
		let_go(r, f);
	}
}

static uint64_t next_random(struct relay *r)
{
	r->random = r->random * 6364136223846793005ull + 1442695040888963407ull;
	return r->random >> 33;
}

/* A frame under test that nothing holds: it may still have to be overtaken. */
static void travel(struct relay *r, const uint8_t *data, uint32_t len, uint32_t end)
{
	if (r->reorder_percent && !r->aside[end] && next_random(r) % 100 < r->reorder_percent) {
		r->aside[end] = frame_new(r, data, len, end);
		if (r->aside[end])
			r->aside[end]->due_ns = now_ns() + ASIDE_NS;
		return;
	}
	leave(r, data, len, end);
	if (r->aside[end]) {
		r->reordered++;
		let_go_aside(r, end);
	}
}

static void let_all_go(struct relay *r)
{
	struct frame *f;

	while ((f = queue_take(&r->held))) {
		r->through[f->stage]++;
		let_go(r, f);
	}
	r->n_held = 0;
	r->mode = PASSING;
}

/* ---- the kill -------------------------------------------------------------------------------------- */

static void kill_victim(struct relay *r)
{
	if (r->killed_ns || !r->victim)
		return;
	r->killed_ns = now_ns();
	if (kill(r->victim, SIGKILL) < 0)
		die("relay: kill");
	for (uint32_t i = 0; i < r->n_links; i++)
		if (ioctl(r->links[i].control, SIOCSIFFLAGS, &r->links[i].down) < 0)
			die("relay: setting a link down");
	report(r, "killed"); /* what had been let through by then */
	if (r->mode != STEPPING || !r->keep)
		let_all_go(r);
}

/* Every connection has shown the stage; nothing that came after it has been let go. */
static void fire(struct relay *r)
{
	struct queue kept;
	struct frame *f;

	queue_open(&kept);
	for (f = queue_take(&r->held); f; f = queue_take(&r->held)) {
		struct conn *c = &r->conns[f->conn];

		if (r->after && f->stage == r->stage && !c->released) {
			c->released = 1;
			r->through[f->stage]++;
			r->n_held--;
			let_go(r, f);
		} else {
			queue_add(&kept, f);
		}
	}
	queue_open(&r->held);
	for (f = queue_take(&kept); f; f = queue_take(&kept))
		queue_add(&r->held, f);
	kill_victim(r);
}

/* ---- connections ----------------------------------------------------------------------------------- */

static struct conn *conn_of(struct relay *r, const struct segment *s)
{
	uint32_t i = (s->client * 2654435761u ^ (uint32_t)s->port * 40503u << 8);

	for (i ^= i >> 15;; i++) {
		struct conn *c = &r->conns[i & (CONNS_CAP - 1)];

		if (c->used && c->client == s->client && c->port == s->port)
			return c;
		if (c->used)
			continue;
		if (r->n_conns == CONNS_MAX)
			return NULL;
		*c = (struct conn){ .client = s->client, .port = s->port, .used = 1 };
		r->n_conns++;
		return c;
	}
}

static void hold(struct relay *r, const struct conn *c, enum stage stage, const uint8_t *data, uint32_t len,
		 uint32_t end)
{
	struct frame *f = frame_new(r, data, len, end);

	if (!f)
		return;
	f->stage = stage;
	f->conn = (uint32_t)(c - r->conns);
	queue_add(&r->held, f);
	r->n_held++;
}

static void take(struct relay *r, const uint8_t *data, uint32_t len, uint32_t end)
{
	const size_t head = sizeof(struct virtio_net_hdr);
	struct segment s;
	struct conn *c;
	enum stage stage;
	bool first;

	if (!r->port || !segment_of(data + head, len - head, r->server, r->port, &s))
		return leave(r, data, len, end);
	c = conn_of(r, &s);
	if (!c) {
		r->overflow++;
		return;
	}
	stage = stage_of(&s, &c->shown);
	first = !(c->arrived & 1u << stage);
	c->arrived |= 1u << stage;
	r->arrived[stage] += first;
	r->frames[stage]++;
	if (r->drop_nth && ++r->n_tested % r->drop_nth == 0) {
		r->dropped++;
		return;
	}
	if (r->mode != STEPPING || stage < r->stage) {
		r->through[stage]++;
		travel(r, data, len, end);
		if (r->mode == COUNTING && stage == r->stage && r->arrived[stage] == r->target)
			kill_victim(r);
		return;
	}
	hold(r, c, stage, data, len, end);
	if (r->killed_ns || stage != r->stage || r->arrived[stage] != r->target || !first)
		return;
	r->full = true;
	if (r->wait)
		report(r, "full");
	else
		fire(r);
}

static void read_end(struct relay *r, uint32_t end)
{
	static uint8_t buffer[FRAME_MAX];

	for (int i = 0; i < BURST; i++) {
		ssize_t n = recv(r->ends[end], buffer, sizeof(buffer), MSG_DONTWAIT | MSG_TRUNC);

		if (n < 0)
			return; /* nothing more, or the link went down: it may come up again */
		if (n > (ssize_t)sizeof(buffer) || n < (ssize_t)sizeof(struct virtio_net_hdr))
			r->overflow++;
		else
			take(r, buffer, (uint32_t)n, 1 - end);
	}
}

/* ---- commands -------------------------------------------------------------------------------------- */

__attribute__((noreturn)) static void refuse_command(const char *line)
{
	fprintf(stderr, "relay: not understood: %s\n", line);
	exit(2);
}

static enum stage stage_named(const char *name)
{
	for (int i = 0; i < N_STAGES; i++)
		if (name && strcmp(name, stage_names[i]) == 0)
			return (enum stage)i;
	refuse_command(name ? name : "no stage");
}

static void forget_conns(struct relay *r)
{
	memset(r->conns, 0, sizeof(r->conns));
	memset(r->arrived, 0, sizeof(r->arrived));
	memset(r->frames, 0, sizeof(r->frames));
	memset(r->through, 0, sizeof(r->through));
	r->n_conns = 0;
}

static void close_links(struct relay *r)
{
	while (r->n_links)
		close(r->links[--r->n_links].control);
}

/* A socket of namespace NS sets its DEV down, later and at once. */
static void add_link(struct relay *r, char *spec)
{
	char path[LINE_MAX], *device = strchr(spec, ':');
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), there;
	struct link *l = &r->links[r->n_links];

	if (!device || r->n_links == VICTIM_LINKS || strlen(device + 1) >= IFNAMSIZ)
		refuse_command(spec);
	*device++ = 0;
	snprintf(path, sizeof(path), "/run/netns/%s", spec);
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (own < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
		die(path);
	l->control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	l->down = (struct ifreq){ 0 };
	memcpy(l->down.ifr_name, device, strlen(device));
	if (l->control < 0 || ioctl(l->control, SIOCGIFFLAGS, &l->down) < 0 || setns(own, CLONE_NEWNET) < 0)
		die(device);
	l->down.ifr_flags &= ~IFF_UP;
	r->n_links++;
	close(own);
	close(there);
}

static void set_victim(struct relay *r, char *pid, char **rest)
{
	char *spec;

	close_links(r);
	r->victim = pid ? (pid_t)atoi(pid) : 0;
	r->killed_ns = 0;
	if (r->victim <= 1)
		refuse_command("victim");
	while ((spec = strtok_r(NULL, " ", rest)))
		add_link(r, spec);
}

static void arm(struct relay *r, enum mode mode, const char *stage, const char *n)
{
	r->stage = stage_named(stage);
	r->target = n ? (uint32_t)atoi(n) : 0;
	if (!r->target || !r->victim)
		refuse_command("a number of connections, and a victim, are needed");
	r->mode = mode;
	r->full = false;
}

static bool is_word(const char *word, const char *one, const char *other)
{
	if (!word || (strcmp(word, one) != 0 && strcmp(word, other) != 0))
		refuse_command(word ? word : one);
	return strcmp(word, one) == 0;
}

static void obey(struct relay *r, char *line)
{
	char *rest = NULL, *word = strtok_r(line, " ", &rest), *a = strtok_r(NULL, " ", &rest), *b, *c;

	if (!word)
		return;
	if (strcmp(word, "victim") == 0)
		return set_victim(r, a, &rest);
	b = strtok_r(NULL, " ", &rest);
	if (strcmp(word, "test") == 0 && a && b) {
		struct sockaddr_in server = endpoint(a, b);

		r->server = server.sin_addr.s_addr;
		r->port = server.sin_port;
		forget_conns(r);
	} else if (strcmp(word, "step") == 0) {
		r->after = is_word(b, "after", "before");
		c = strtok_r(NULL, " ", &rest);
		r->wait = is_word(strtok_r(NULL, " ", &rest), "wait", "kill");
		r->keep = is_word(strtok_r(NULL, " ", &rest), "keep", "pass");
		arm(r, STEPPING, a, c);
	} else if (strcmp(word, "count") == 0) {
		arm(r, COUNTING, a, b);
	} else if (strcmp(word, "go") == 0) {
		fire(r);
	} else if (strcmp(word, "kill") == 0) {
		kill_victim(r);
	} else if (strcmp(word, "pass") == 0) {
		let_all_go(r);
	} else if (strcmp(word, "status") == 0) {
		report(r, "status");
	} else if (strcmp(word, "delay") == 0 && a) {
		r->delay_ns = (uint64_t)atoi(a) * NS_PER_MS;
	} else if (strcmp(word, "drop") == 0 && a) {
		r->drop_nth = (uint32_t)atoi(a);
	} else if (strcmp(word, "reorder") == 0 && a && b) {
		r->reorder_percent = (uint32_t)atoi(a);
		r->random = (uint64_t)atoi(b);
	} else {
		refuse_command(word);
	}
}

static void read_commands(struct relay *r)
{
	static char buffer[LINE_MAX];
	static size_t got;
	ssize_t n = read(STDIN_FILENO, buffer + got, sizeof(buffer) - got);
	char *end;

	if (n <= 0) {
		stopping = 1;
		return;
	}
	got += (size_t)n;
	while ((end = memchr(buffer, '\n', got))) {
		size_t used = (size_t)(end - buffer) + 1;

		*end = 0;
		obey(r, buffer);
		got -= used;
		memmove(buffer, end + 1, got);
	}
	if (got == sizeof(buffer))
		refuse_command("a line that long");
}

/* ---- the loop -------------------------------------------------------------------------------------- */

static int open_end(const char *device)
{
	struct sockaddr_ll there = { .sll_family = AF_PACKET,
				     .sll_protocol = htons(ETH_P_ALL),
				     .sll_ifindex = (int)if_nametoindex(device) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1, bytes = SOCKET_BYTES;

	if (fd < 0 || !there.sll_ifindex)
		die(device);
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0)
		die("relay: AF_PACKET options");
	/* Beyond rmem_max where we may; in a user namespace the default has to do. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	if (bind(fd, (struct sockaddr *)&there, sizeof(there)) < 0)
		die(device);
	return fd;
}

/* Let go what is due; returns nanoseconds until the next is, or UINT64_MAX. */
static uint64_t serve_queues(struct relay *r)
{
	uint64_t now = now_ns(), next = UINT64_MAX;

	for (uint32_t end = 0; end < 2; end++) {
		struct frame *f = r->aside[end];

		if (f && f->due_ns <= now)
			let_go_aside(r, end);
		else if (f && f->due_ns - now < next)
			next = f->due_ns - now;
		for (f = r->delayed[end].first; f && f->due_ns <= now; f = r->delayed[end].first) {
			queue_take(&r->delayed[end]);
			put(r, f->data, f->len, f->end);
			frame_free(r, f);
		}
		if (f && f->due_ns - now < next)
			next = f->due_ns - now;
	}
	return next;
}

static void run(const char *left, const char *right)
{
	struct relay *r = &relay;
	struct pollfd fds[3];
	sigset_t terminate, unblocked;

	/* It is let in while we wait, and only there: none comes too late to be seen. */
	sigemptyset(&terminate);
	sigaddset(&terminate, SIGTERM);
	sigprocmask(SIG_BLOCK, &terminate, &unblocked);
	sigdelset(&unblocked, SIGTERM);
	r->ends[0] = open_end(left);
	r->ends[1] = open_end(right);
	queue_open(&r->held);
	queue_open(&r->delayed[0]);
	queue_open(&r->delayed[1]);
	fds[0] = (struct pollfd){ .fd = r->ends[0], .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = r->ends[1], .events = POLLIN };
	fds[2] = (struct pollfd){ .fd = STDIN_FILENO, .events = POLLIN };
	run_in_real_time();
	report(r, "ready");
	while (!stopping) {
		uint64_t ns = serve_queues(r);
		struct timespec wait = { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };

		if (ppoll(fds, 3, ns == UINT64_MAX ? NULL : &wait, &unblocked) <= 0)
			continue;
		for (uint32_t end = 0; end < 2; end++)
			if (fds[end].revents)
				read_end(r, end);
		if (fds[2].revents)
			read_commands(r);
	}
	let_all_go(r);
	for (uint32_t end = 0; end < 2; end++) {
		struct frame *f;

		let_go_aside(r, end);
		while ((f = queue_take(&r->delayed[end]))) {
			put(r, f->data, f->len, f->end);
			frame_free(r, f);
		}
	}
	close_links(r);
	report(r, "done");
}

/* ---- frames in hex --------------------------------------------------------------------------------- */

static int classify(const char *address, const char *port)
{
	static char line[2 * FRAME_MAX];
	static uint8_t frame[FRAME_MAX];
	struct sockaddr_in server = endpoint(address, port);

	while (fgets(line, sizeof(line), stdin)) {
		const char *name = "-";
		struct segment s;
		size_t len = 0;

		while (len < sizeof(frame) && sscanf(line + 2 * len, "%2hhx", &frame[len]) == 1)
			len++;
		if (segment_of(frame, len, server.sin_addr.s_addr, server.sin_port, &s)) {
			struct conn *c = conn_of(&relay, &s);

			name = c ? stage_names[stage_of(&s, &c->shown)] : "full";
		}
		puts(name);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = stop };

	sigaction(SIGTERM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && strcmp(argv[1], "classify") == 0)
		return classify(argv[2], argv[3]);
	if (argc != 4 || strcmp(argv[1], "run") != 0)
		return fprintf(stderr, "see the head of relay.c\n"), 2;
	run(argv[2], argv[3]);
	return 0;
}
