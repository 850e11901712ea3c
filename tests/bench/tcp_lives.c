/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tcp_lives.c - both ends of short TCP connections through a gateway: open, exchange, close
 *
 *   tcp_lives IN_NETNS IN_DEVICE IN_MAC OUT_NETNS OUT_DEVICE OUT_MAC FIRST PER_S SECONDS open|whole
 *
 * Begins PER_S connections a second, from fresh inside endpoints, the first of which is number FIRST. A life is
 * what kernels make of connect, request, response, close by the server:
 *
 *     in -> out  SYN       ACK, request            FIN
 *     out -> in     SYN-ACK             response, FIN     ACK
 *
 * and only the handshake with `open`. Nothing is sent again: a packet lost is a life unfinished, and counted.
 * The initial sequence numbers of both ends name the life, which no gateway here changes; so an end keeps no
 * state but the life's number, and the NAT is free to choose ports.
 *
 * Prints one JSON object: what became of them, and how long the SYN took from one wire to the other.
 */
#define _GNU_SOURCE /* sendmmsg, setns */
#include "raw_wire.h"

#include <netinet/tcp.h>

enum {
	LIFE_BITS = 20, /* of a sequence number; what remains counts the bytes of a life */
	LIVES_MAX = 1 << LIFE_BITS,
	SEQ_SHIFT = 32 - LIFE_BITS,
	MESSAGE = 64, /* bytes of a request, and of a response */
	WINDOW = 64240,
	MSS = 1460,
	SYN_LEN = 24,
	TICK_NS = 300000,      /* both ends act on what has come by then */
	LINGER_NS = 500000000, /* for the lives that are under way at the end */
	SECONDS_MAX = 60,
	PER_S_MAX = 100000,
	FIRST_MAX = 60000000,
};

/**
 * struct lives - What is under way
 * @in, @out:  the wires
 * @first:     number of the first inside endpoint
 * @whole:     exchange and close, too
 * @begun_ns:  CLOCK_REALTIME of each SYN
 * @delay_us:  of those that came out
 */
struct lives {
	struct wire in, out;
	uint32_t first;
	bool whole;
	uint32_t begun, crossed, opened, finished, foreign;
	uint64_t begun_ns[LIVES_MAX];
	float delay_us[LIVES_MAX];
};

static struct tuple tuple_of(const struct lives *l, uint32_t life)
{
	struct tuple t = { .dst = OUTSIDE_NET + scatter(l->first + life) % OUTSIDE_HOSTS + 1,
			   .dport = scatter(l->first + life) & 1 << 16 ? 443 : 80 };

	inside_of(l->first + life, &t.src, &t.sport);
	return t;
}

static void send_segment(struct wire *w, const struct tuple *t, uint8_t flags, uint32_t seq, uint32_t ack,
			 uint32_t payload)
{
	const uint32_t header = flags & TH_SYN ? SYN_LEN : sizeof(struct tcphdr), len = header + payload;
	uint8_t *tcp = wire_ip(w, t, IPPROTO_TCP, len);

	memset(tcp, 0, len);
	put16(tcp, t->sport);
	put16(tcp + 2, t->dport);
	put32(tcp + 4, seq);
	put32(tcp + 8, ack);
	tcp[12] = (uint8_t)(header / 4 << 4);
	tcp[13] = flags;
	put16(tcp + 14, WINDOW);
	if (flags & TH_SYN) {
		tcp[20] = TCPOPT_MAXSEG;
		tcp[21] = TCPOLEN_MAXSEG;
		put16(tcp + 22, MSS);
	}
	memcpy(tcp + 16, &(uint16_t){ wire_sum(tcp, len, IPPROTO_TCP) }, sizeof(uint16_t));
}

/* A TCP segment as it came: its addresses as an answer has them, and where they continue. */
struct segment {
	struct tuple back;
	uint32_t life, seq, ack, payload;
	uint8_t flags;
};

static bool parse(const struct lives *l, const uint8_t *frame, uint32_t len, struct segment *s)
{
	const uint8_t *ip = frame + ETH_HLEN, *tcp = ip + sizeof(struct iphdr);
	uint32_t total, header;

	if (len < ETH_HLEN + sizeof(struct iphdr) + sizeof(struct tcphdr) || ip[0] != 0x45 ||
	    ip[9] != IPPROTO_TCP)
		return false;
	total = get16(ip + 2);
	header = (uint32_t)(tcp[12] >> 4) * 4;
	if (total < sizeof(struct iphdr) + header || len < ETH_HLEN + total)
		return false;
	s->back = (struct tuple){ .src = get32(ip + 16),
				  .dst = get32(ip + 12),
				  .sport = (uint16_t)get16(tcp + 2),
				  .dport = (uint16_t)get16(tcp) };
	s->seq = get32(tcp + 4);
	s->ack = get32(tcp + 8);
	s->flags = tcp[13];
	s->payload = total - (uint32_t)sizeof(struct iphdr) - header;
	s->life = s->seq >> SEQ_SHIFT;
	return s->life < l->begun;
}

/* Outside: answers what it gets. */
static void serve(struct lives *l, const struct segment *s, uint64_t t_ns)
{
	uint32_t next = s->seq + s->payload;

	if (s->flags & TH_SYN) {
		l->delay_us[l->crossed++] = (float)(t_ns - l->begun_ns[s->life]) / 1000;
		send_segment(&l->out, &s->back, TH_SYN | TH_ACK, s->life << SEQ_SHIFT, next + 1, 0);
	} else if (s->flags & TH_FIN) {
		send_segment(&l->out, &s->back, TH_ACK, s->ack, next + 1, 0);
	} else if (s->payload) {
		send_segment(&l->out, &s->back, TH_PUSH | TH_ACK, s->ack, next, MESSAGE);
		send_segment(&l->out, &s->back, TH_FIN | TH_ACK, s->ack + MESSAGE, next, 0);
	} else {
		l->opened++;
	}
}

/* Inside: the connection's opener. */
static void follow(struct lives *l, const struct segment *s)
{
	const struct tuple t = tuple_of(l, s->life);
	uint32_t next = s->seq + s->payload;

	if (s->back.src != t.src || s->back.sport != t.sport || s->back.dst != t.dst ||
	    s->back.dport != t.dport) {
		l->foreign++;
	} else if (s->flags & TH_SYN) {
		send_segment(&l->in, &t, TH_ACK, s->ack, next + 1, 0);
		if (l->whole)
			send_segment(&l->in, &t, TH_PUSH | TH_ACK, s->ack, next + 1, MESSAGE);
	} else if (s->flags & TH_FIN) {
		send_segment(&l->in, &t, TH_FIN | TH_ACK, s->ack, next + 1, 0);
	} else if (!s->payload) {
		l->finished++;
	}
}

static void begin(struct lives *l, uint32_t due)
{
	for (; l->begun < due && l->begun < LIVES_MAX; l->begun++) {
		const struct tuple t = tuple_of(l, l->begun);

		if (l->begun % WIRE_BURST == 0)
			wire_flush(&l->in);
		l->begun_ns[l->begun] = clock_ns(CLOCK_REALTIME);
		send_segment(&l->in, &t, TH_SYN, l->begun << SEQ_SHIFT, 0, 0);
	}
	wire_flush(&l->in);
}

static void answer_all(struct lives *l)
{
	struct segment s;
	const uint8_t *frame;
	uint32_t len;
	uint64_t t_ns;

	for (; (frame = wire_next(&l->out, &len, &t_ns)); wire_release(&l->out)) {
		if (parse(l, frame, len, &s))
			serve(l, &s, t_ns);
	}
	wire_flush(&l->out);
	for (; (frame = wire_next(&l->in, &len, &t_ns)); wire_release(&l->in)) {
		if (parse(l, frame, len, &s))
			follow(l, &s);
	}
	wire_flush(&l->in);
}

static int by_size(const void *left, const void *right)
{
	const float a = *(const float *)left, b = *(const float *)right;

	return a < b ? -1 : a > b;
}

int main(int argc, char **argv)
{
	static struct lives l;
	const struct timespec tick = { .tv_nsec = TICK_NS };
	uint64_t start, now, length_ns, per_s;

	if (argc != 11) {
		fprintf(stderr,
			"usage: tcp_lives IN_NETNS IN_DEVICE IN_MAC OUT_NETNS OUT_DEVICE OUT_MAC FIRST PER_S"
			" SECONDS open|whole\n");
		return 2;
	}
	wire_open(&l.in, argv[1], argv[2], argv[3], true);
	wire_open(&l.out, argv[4], argv[5], argv[6], true);
	l.first = (uint32_t)parse_number(argv[7], 0, FIRST_MAX);
	per_s = parse_number(argv[8], 1, PER_S_MAX);
	length_ns = parse_number(argv[9], 1, SECONDS_MAX) * UINT64_C(1000000000);
	l.whole = strcmp(argv[10], "whole") == 0;
	if (per_s * length_ns / 1000000000 > LIVES_MAX) {
		errno = ERANGE;
		die("PER_S x SECONDS");
	}
	start = now = clock_ns(CLOCK_MONOTONIC);
	for (; now - start < length_ns + LINGER_NS; now = clock_ns(CLOCK_MONOTONIC)) {
		if (now - start < length_ns)
			begin(&l, (uint32_t)((double)(now - start) * (double)per_s / 1e9));
		answer_all(&l);
		nanosleep(&tick, NULL);
	}
	qsort(l.delay_us, l.crossed, sizeof(*l.delay_us), by_size);
	printf("{\"begun\": %u, \"crossed\": %u, \"opened\": %u, \"finished\": %u, \"foreign\": %u, \"missed\": %u, ",
	       l.begun, l.crossed, l.opened, l.finished, l.foreign, wire_missed(&l.in) + wire_missed(&l.out));
	printf("\"first_median_us\": %.1f, \"first_p99_us\": %.1f, \"seconds\": %.6f}\n",
	       (double)(l.crossed ? l.delay_us[l.crossed / 2] : 0),
	       (double)(l.crossed ? l.delay_us[(uint64_t)l.crossed * 99 / 100] : 0), (double)length_ns / 1e9);
	return 0;
}
