/* SPDX-License-Identifier: Apache-2.0 */
/**
 * raw_wire.h - frames of our own making on a network device, in and out, for the generators of bench_sync.py
 *
 * A generator plays both ends of thousands of sessions a second. Kernel sockets for all of them would cost more
 * than what is measured; so frames are written here, by packet sockets, past the qdisc, and read from a mapped
 * ring. Addresses are those of nobody: no kernel answers beside us. Inside there are 1,000 hosts of 10.0.0.0/8
 * behind a router, outside 4,096 of 198.18.0.0/15, which RFC 2544 sets aside for this.
 */
#ifndef RAW_WIRE_H
#define RAW_WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	WIRE_BURST = 64,  /* frames of one system call */
	WIRE_FRAME = 192, /* room for one of ours */
	WIRE_SLOT = 2048, /* of the ring */
	WIRE_SLOTS = 8192,
	WIRE_BLOCK = 1 << 16, /* of the ring's memory */
	INSIDE_HOSTS = 1000,
	OUTSIDE_HOSTS = 4096,
	FIRST_PORT = 1024,
	ETHERTYPE_AT = 12,
	TTL = 64,
};

static const uint32_t INSIDE_NET = 0x0a000000, OUTSIDE_NET = 0xc6120000;

/**
 * struct wire - A device, and what waits to be sent there
 * @fd:     packet socket
 * @ring:   frames that came in; NULL: they are not wanted
 * @next:   slot to look at
 * @mac:    the device's own
 * @there:  whom we send to
 * @n:      frames in @frames
 * @sent:   frames that the kernel took
 */
struct wire {
	int fd;
	uint8_t *ring;
	uint32_t next;
	uint8_t mac[ETH_ALEN], there[ETH_ALEN];
	uint32_t n;
	uint64_t sent;
	uint8_t frames[WIRE_BURST][WIRE_FRAME];
	struct iovec iov[WIRE_BURST];
	struct mmsghdr messages[WIRE_BURST];
};

/**
 * struct tuple - One end's view of a session, host order
 */
struct tuple {
	uint32_t src, dst;
	uint16_t sport, dport;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static inline unsigned long parse_number(const char *text, unsigned long low, unsigned long high)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*end || end == text || number < low || number > high) {
		errno = ERANGE;
		die(text);
	}
	return number;
}

/* ---- tuples ---- */

static inline uint32_t scatter(uint32_t number)
{
	return (uint32_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 40);
}

/* The inside endpoint of a number: hosts in turn, each with ports that rise. */
static inline void inside_of(uint32_t number, uint32_t *address, uint16_t *port)
{
	*address = INSIDE_NET + number % INSIDE_HOSTS + 1;
	*port = (uint16_t)(FIRST_PORT + number / INSIDE_HOSTS % (UINT16_MAX - FIRST_PORT));
}

/* ---- sums ---- */

static inline uint32_t sum_words(const uint8_t *data, uint32_t len, uint32_t sum)
{
	for (uint32_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)data[i] << 8 | data[i + 1];
	return len & 1 ? sum + ((uint32_t)data[len - 1] << 8) : sum;
}

static inline uint16_t sum_end(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static inline void put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static inline void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value);
}

static inline uint32_t get16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static inline uint32_t get32(const uint8_t *at)
{
	return get16(at) << 16 | get16(at + 2);
}

/* ---- devices ---- */

static inline void enter_netns(const char *name)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		die(path);
	close(fd);
}

static inline void map_ring(struct wire *w)
{
	const struct tpacket_req request = { .tp_block_size = WIRE_BLOCK,
					     .tp_block_nr = WIRE_SLOTS / (WIRE_BLOCK / WIRE_SLOT),
					     .tp_frame_size = WIRE_SLOT,
					     .tp_frame_nr = WIRE_SLOTS };
	const int version = TPACKET_V2;
	void *ring;

	if (setsockopt(w->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0 ||
	    setsockopt(w->fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)) < 0)
		die("PACKET_RX_RING");
	ring = mmap(NULL, (size_t)WIRE_SLOTS * WIRE_SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	if (ring == MAP_FAILED)
		die("mmap");
	w->ring = ring;
}

/**
 * wire_open() - A packet socket on a device of network namespace @netns, as it is named in /run/netns
 * @mac:     the station there that all frames go to
 * @receive: frames that come in are wanted
 */
static inline void wire_open(struct wire *w, const char *netns, const char *device, const char *mac,
			     bool receive)
{
	struct sockaddr_ll here = { .sll_family = AF_PACKET };
	const int one = 1;
	struct ifreq request = { 0 };
	uint8_t *m = w->there;

	if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", m, m + 1, m + 2, m + 3, m + 4, m + 5) != ETH_ALEN) {
		errno = EINVAL;
		die(mac);
	}
	enter_netns(netns);
	w->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	here.sll_ifindex = (int)if_nametoindex(device);
	here.sll_protocol = receive ? htons(ETH_P_IP) : 0;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	if (w->fd < 0 || !here.sll_ifindex || ioctl(w->fd, SIOCGIFHWADDR, &request) < 0)
		die(device);
	memcpy(w->mac, request.ifr_hwaddr.sa_data, ETH_ALEN);
	setsockopt(w->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one));
	setsockopt(w->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one));
	if (receive)
		map_ring(w);
	if (bind(w->fd, (struct sockaddr *)&here, sizeof(here)) < 0)
		die(device);
	for (uint32_t i = 0; i < WIRE_BURST; i++) {
		w->iov[i].iov_base = w->frames[i];
		w->messages[i].msg_hdr.msg_iov = &w->iov[i];
		w->messages[i].msg_hdr.msg_iovlen = 1;
	}
}

/* ---- out ---- */

static inline void wire_flush(struct wire *w)
{
	uint32_t done = 0;

	while (done < w->n) {
		int took = sendmmsg(w->fd, w->messages + done, w->n - done, 0);

		if (took < 0 && errno != ENOBUFS && errno != EAGAIN)
			die("sendmmsg");
		if (took > 0)
			w->sent += (uint64_t)took;
		done += took > 0 ? (uint32_t)took : 1; /* a queue was full: that frame is lost */
	}
	w->n = 0;
}

/* Room behind the IP header of a new frame, which goes out with the next flush. */
static inline uint8_t *wire_ip(struct wire *w, const struct tuple *t, uint8_t proto, uint32_t payload)
{
	const uint32_t len = (uint32_t)sizeof(struct iphdr) + payload;
	uint8_t *frame, *ip;

	if (w->n == WIRE_BURST)
		wire_flush(w);
	frame = w->frames[w->n];
	w->iov[w->n++].iov_len = ETH_HLEN + len;
	memcpy(frame, w->there, ETH_ALEN);
	memcpy(frame + ETH_ALEN, w->mac, ETH_ALEN);
	put16(frame + ETHERTYPE_AT, ETH_P_IP);
	ip = frame + ETH_HLEN;
	memset(ip, 0, sizeof(struct iphdr));
	ip[0] = 0x45;
	put16(ip + 2, len);
	put16(ip + 6, IP_DF);
	ip[8] = TTL;
	ip[9] = proto;
	put32(ip + 12, t->src);
	put32(ip + 16, t->dst);
	memcpy(ip + 10, &(uint16_t){ sum_end(sum_words(ip, sizeof(struct iphdr), 0)) }, sizeof(uint16_t));
	return ip + sizeof(struct iphdr);
}

/* The sum of a segment or datagram behind its IP header, its own field being zero. */
static inline uint16_t wire_sum(const uint8_t *l4, uint32_t len, uint8_t proto)
{
	uint32_t sum = sum_words(l4 - 8, 8, proto + len); /* addresses stand before it */

	return sum_end(sum_words(l4, len, sum));
}

/* ---- in ---- */

/**
 * wire_next() - The next frame that has come in, or NULL; to be given back by wire_release()
 * @t_ns: CLOCK_REALTIME of its arrival
 */
static inline const uint8_t *wire_next(const struct wire *w, uint32_t *len, uint64_t *t_ns)
{
	uint8_t *slot = w->ring + (size_t)w->next * WIRE_SLOT;
	const struct tpacket2_hdr *h = (const struct tpacket2_hdr *)slot;

	if (!(__atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
		return NULL;
	*len = h->tp_snaplen;
	*t_ns = (uint64_t)h->tp_sec * UINT64_C(1000000000) + h->tp_nsec;
	return slot + h->tp_mac;
}

static inline void wire_release(struct wire *w)
{
	struct tpacket2_hdr *h = (struct tpacket2_hdr *)(w->ring + (size_t)w->next * WIRE_SLOT);

	__atomic_store_n(&h->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	w->next = (w->next + 1) % WIRE_SLOTS;
}

/* Frames that found the ring full. */
static inline uint32_t wire_missed(const struct wire *w)
{
	struct tpacket_stats stats = { 0 };
	socklen_t len = sizeof(stats);

	if (getsockopt(w->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) < 0)
		die("PACKET_STATISTICS");
	return stats.tp_drops;
}

#endif /* RAW_WIRE_H */
