/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_packet.c - driver packet on a veth pair, in a network namespace that is made for it
 *
 * Where none may be made nothing is checked, which is said.
 */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "../batch.h"
#include "../dp.h"
#include "../gso.h"
#include "../port.h"
#include "check.h"
#include "frames.h"

enum { N_QUEUES = 2, MSS = 1000, BIG = 40000, ETHERTYPE_TEST = 0x88b5, ALL_PROTOCOLS = 3, REOPENED = 8 };

static const struct fp_port_cfg base = {
	.name = "lan",
	.wire_dev = "nic",
	.host_dev = "lan0",
	.driver = FP_DRIVER_PACKET,
	.mtu = 1500,
	.host_veth = 1,
	.mac = { 2, 0, 0, 0, 0, 1 },
};

static uint8_t data[N_QUEUES][FP_BURST_MAX][FP_FRAME_BIG];

static void shell(const char *command)
{
	REQUIRE(system(command) == 0); /* NOLINT(bugprone-command-processor,cert-env33-c) */
}

/* An ordinary user is root in a user namespace of his own; so is what he starts, once his id is mapped. */
static bool enter_user_namespace(void)
{
	const unsigned int uid = getuid();
	FILE *map;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return false;
	map = fopen("/proc/self/uid_map", "w");
	REQUIRE(map != NULL);
	fprintf(map, "0 %u 1\n", uid);
	return fclose(map) == 0;
}

/* A namespace with the pair nic -- far, or false. */
static bool enter_namespace(void)
{
	if (unshare(CLONE_NEWNET) && !enter_user_namespace())
		return false;
	shell("ip link add nic type veth peer name far && ip link set nic addrgenmode none up && "
	      "ip link set far addrgenmode none up");
	return true;
}

/* The neighbour at the far end. */
static int open_far(void)
{
	const struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htobe16(ALL_PROTOCOLS),
		.sll_ifindex = (int)if_nametoindex("far"),
	};
	const int fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;

	REQUIRE(fd >= 0);
	REQUIRE(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) == 0);
	REQUIRE(setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) == 0);
	REQUIRE(bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static void far_send(int fd, const struct fp_vnet *vnet, const uint8_t *frame, uint32_t len)
{
	const struct iovec iov[] = { { (void *)(uintptr_t)vnet, sizeof(*vnet) },
				     { (void *)(uintptr_t)frame, len } };

	REQUIRE(writev(fd, iov, ARRAY_SIZE(iov)) == (ssize_t)(sizeof(*vnet) + len));
}

static uint32_t test_frame(uint8_t *frame, uint32_t len, uint8_t first)
{
	memset(frame, 0, 14);
	frame[0] = frame[6] = 2;
	frame[12] = ETHERTYPE_TEST >> 8;
	frame[13] = ETHERTYPE_TEST & 0xff;
	for (uint32_t i = 14; i < len; i++)
		frame[i] = (uint8_t)(first + i);
	return len;
}

/* A TCP segment of many, as a socket makes it. */
static struct fp_vnet offload_frame(uint8_t *frame, uint32_t len)
{
	static const uint8_t headers[] = { 2, 0, 0, 0, 0,  1, 2, 0, 0,  0, 0,    2,    8,  0, 0x45, 0, 0, 0,
					   0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0,    1,    10, 0, 0,    2, 0, 1,
					   0, 2, 0, 0, 0,  1, 0, 0, 0,  1, 0x50, 0x10, 1,  0, 0,    0, 0, 0 };

	for (uint32_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(i * 7);
	memcpy(frame, headers, sizeof(headers));
	frame[16] = (uint8_t)((len - 14) >> 8);
	frame[17] = (uint8_t)(len - 14);
	return (struct fp_vnet){
		.flags = FP_VNET_NEEDS_CSUM,
		.gso_type = FP_GSO_TCPV4,
		.hdr_len = sizeof(headers),
		.gso_size = MSS,
		.csum_start = 34,
		.csum_offset = 16,
	};
}

/* What waits in all queues, one after the other; -errno of the last that had none. */
static int receive(struct port *port, struct fp_frame *frames)
{
	int n = 0, said = 0;

	for (uint32_t q = 0; q < port->n_queues; q++) {
		struct chan *ch = &port->wire[q];
		int got;

		for (uint32_t i = 0; i < FP_BURST_MAX; i++)
			frames[n + (int)i].data = data[q][i];
		got = ch->ops->rx(ch, &frames[n], FP_BURST_MAX);
		if (got < 0)
			said = got;
		else
			n += got;
	}
	return n ? n : said;
}

static void check_plain(struct port *port, int far)
{
	const struct fp_vnet none = { 0 };
	struct fp_frame frames[(N_QUEUES + 1) * FP_BURST_MAX], out = { 0 };
	uint8_t frame[FP_FRAME_MAX], seen[FP_FRAME_MAX];
	uint64_t bytes;

	for (uint32_t len = 15; len <= 1514; len += 500) {
		test_frame(frame, len, (uint8_t)len);
		far_send(far, &none, frame, len);
		REQUIRE(receive(port, frames) == 1);
		CHECK_EQ(1, frames[0].len, len);
		CHECK(2, memcmp(frames[0].data, frame, len) == 0);
		CHECK(3, gso_is_plain(&frames[0]));
	}
	out.data = frame;
	out.len = test_frame(frame, 1000, 3);
	CHECK_EQ(4, port_tx(&port->wire[1], &out, NULL, &bytes), 1);
	CHECK_EQ(8, bytes, 1000);
	CHECK_EQ(5, recv(far, seen, sizeof(seen), 0), sizeof(none) + 1000);
	CHECK(6, memcmp(seen + sizeof(none), frame, 1000) == 0);
	CHECK_EQ(7, receive(port, frames), 0); /* what we send we do not hear */
}

static void check_tagged(struct port *port, int far)
{
	static const uint8_t tag[] = { 0x81, 0x00, 0x20, 0x07 };
	const struct fp_vnet none = { 0 };
	struct fp_frame frames[(N_QUEUES + 1) * FP_BURST_MAX];
	uint8_t frame[FP_FRAME_MAX];

	test_frame(frame, 104, 9);
	memmove(frame + 16, frame + 12, 88);
	memcpy(frame + 12, tag, sizeof(tag));
	far_send(far, &none, frame, 104);
	REQUIRE(receive(port, frames) == 1);
	CHECK_EQ(10, frames[0].len, 104);
	CHECK(11, memcmp(frames[0].data, frame, 104) == 0);
}

static void check_offload(struct port *port, int far)
{
	static uint8_t frame[FP_FRAME_BIG];
	const struct fp_vnet vnet = offload_frame(frame, BIG);
	struct fp_frame frames[(N_QUEUES + 1) * FP_BURST_MAX];
	uint32_t payload = 0;
	uint64_t bytes;
	int n;

	far_send(far, &vnet, frame, BIG);
	n = receive(port, frames);
	REQUIRE(n > 0);
	if (port->cfg->offload) {
		CHECK_EQ(20, n, 1);
		CHECK_EQ(21, frames[0].len, BIG);
		CHECK_EQ(22, frames[0].vnet.gso_size, MSS);
		CHECK(23, memcmp(frames[0].data, frame, BIG) == 0);
		CHECK(24, gso_check(&frames[0]));
		CHECK_EQ(25, port_tx(&port->wire[0], &frames[0], NULL, &bytes), 1);
		return;
	}
	CHECK_EQ(26, n, (BIG - 54 + MSS - 1) / MSS);
	for (int i = 0; i < n; i++) {
		CHECK(27, gso_is_plain(&frames[i]));
		CHECK(28, memcmp(frames[i].data + 54, frame + 54 + payload, frames[i].len - 54) == 0);
		payload += frames[i].len - 54;
	}
	CHECK_EQ(29, payload, BIG - 54);
}

static uint32_t missed(const struct port *port)
{
	uint32_t n = 0;

	for (uint32_t q = 0; q < port->n_queues; q++)
		n += port->wire[q].missed;
	return n;
}

/* Cut before the core sees them, so what the core would have refused is refused here. */
static void check_hostile(struct port *port, int far)
{
	static uint8_t frame[FP_FRAME_BIG];
	static const uint16_t sizes[] = { 1461, 4000, 8000, 1 };
	struct fp_frame frames[(N_QUEUES + 1) * FP_BURST_MAX];
	struct fp_vnet vnet = offload_frame(frame, 9000);
	const uint32_t before = missed(port);

	for (uint32_t q = 0; q < port->n_queues; q++)
		port->wire[q].len_max = 1514;
	for (uint32_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		vnet.gso_size = sizes[i];
		far_send(far, &vnet, frame, 9000);
		CHECK_EQ(33, receive(port, frames), 0);
		CHECK_EQ(34, missed(port) - before, i + 1);
	}
	for (uint32_t q = 0; q < port->n_queues; q++)
		port->wire[q].len_max = 0;
	vnet.gso_size = 4000; /* nobody has room for such segments, whatever the port's MTU */
	far_send(far, &vnet, frame, 9000);
	CHECK_EQ(35, receive(port, frames), 0);
	CHECK_EQ(36, missed(port) - before, ARRAY_SIZE(sizes) + 1);
	vnet.gso_size = 1460;
	far_send(far, &vnet, frame, 9000);
	CHECK_EQ(37, receive(port, frames), 7);
}

/*
 * The kernel may deliver a frame later, by a thread of its own, and a link that has come up takes none before its
 * queue is there: so what is waited for is asked for again. Return: the time is not up.
 */
static bool is_in_time(const struct timespec *since)
{
	struct timespec now;

	sched_yield();
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec < since->tv_sec + 10;
}

/* More than the rings hold, offload frames among them: counted, and in the right order. */
static void check_flood(struct port *port, int far)
{
	static uint8_t big[FP_FRAME_BIG];
	const struct fp_vnet none = { 0 }, vnet = offload_frame(big, 5000);
	struct fp_frame frames[(N_QUEUES + 1) * FP_BURST_MAX];
	uint8_t frame[FP_FRAME_MAX];
	uint32_t n_long = 0, n_short = 0, wrong = 0, sent = 3000;
	struct timespec since;

	for (uint32_t i = 0; i < 3000; i++) {
		if (i % 8)
			far_send(far, &none, frame, test_frame(frame, 60, (uint8_t)i));
		else
			far_send(far, &vnet, big, 5000);
	}
	clock_gettime(CLOCK_MONOTONIC, &since);
	do {
		const int n = receive(port, frames);

		for (int i = 0; i < n; i++) {
			const bool is_long = frames[i].vnet.gso_type != 0;

			wrong += frames[i].len != (is_long ? 5000u : 60u);
			n_long += is_long;
			n_short += !is_long;
		}
		if (n <= 0) { /* a frame says that others are missing */
			far_send(far, &none, frame, test_frame(frame, 60, 1));
			sent++;
		}
	} while (n_long + n_short + missed(port) < sent && is_in_time(&since));
	CHECK_EQ(30, wrong, 0);
	CHECK(31, n_long > 0 && n_short > 0 && missed(port) > 0);
	CHECK_EQ(32, n_long + n_short + missed(port), sent);
}

static void check_link(struct port *port, int far)
{
	const struct fp_vnet none = { 0 };
	struct fp_frame frames[(N_QUEUES + 1) * FP_BURST_MAX], out = { 0 };
	uint8_t frame[FP_FRAME_MAX];
	struct timespec since;
	uint64_t bytes;
	int n;

	shell("ip link set nic down");
	CHECK_EQ(40, -receive(port, frames), ENETDOWN);
	CHECK_EQ(41, receive(port, frames), 0); /* told once */
	out.data = frame;
	out.len = test_frame(frame, 60, 1);
	CHECK(42, port_tx(&port->wire[0], &out, NULL, &bytes) < 0);
	shell("ip link set nic up");
	receive(port, frames);
	clock_gettime(CLOCK_MONOTONIC, &since);
	do {
		far_send(far, &none, frame, 60);
	} while ((n = receive(port, frames)) == 0 && is_in_time(&since));
	CHECK(43, n > 0);
	while (receive(port, frames) > 0) /* of those that were sent meanwhile */
		;
}

static void check_host(struct port *port)
{
	CHECK(50, if_nametoindex("lan0") > 0);
	CHECK_EQ(51, port->set_carrier(port, false), 0);
	CHECK_EQ(52, port->host[0].ops->rx(&port->host[0], NULL, 0), 0);
	CHECK_EQ(53, port->set_carrier(port, true), 0);
	CHECK_EQ(54, port->host[0].fd, port->host[N_QUEUES - 1].fd);
}

static void check_port(bool offload)
{
	struct fp_port_cfg cfg = base;
	struct fp_error err = { "" };
	struct port port = { 0 }, second = { 0 };
	int far;

	cfg.offload = offload;
	if (port_packet_open(&port, &cfg, N_QUEUES, &err))
		fprintf(stderr, "%s\n", err.text);
	REQUIRE(err.text[0] == '\0');
	CHECK_EQ(60, port_packet_open(&second, &cfg, N_QUEUES, &err), -EEXIST);
	CHECK(61, if_nametoindex("lan0") > 0); /* and the first one's device is still there */
	far = open_far();
	check_plain(&port, far);
	check_tagged(&port, far);
	check_offload(&port, far);
	check_link(&port, far);
	check_host(&port);
	if (offload)
		check_flood(&port, far);
	else
		check_hostile(&port, far);
	port.close(&port);
	CHECK_EQ(62, if_nametoindex("lan0"), 0);
	close(far);
}

static void check_errors(void)
{
	struct fp_port_cfg cfg = base;
	struct fp_error err = { "" };
	struct port port = { 0 };

	memcpy(cfg.wire_dev, "none", 5);
	CHECK_EQ(70, port_packet_open(&port, &cfg, N_QUEUES, &err), -ENODEV);
	memcpy(cfg.wire_netns, "/none", 6);
	CHECK_EQ(71, port_packet_open(&port, &cfg, N_QUEUES, &err), -ENOENT);
}

/* ---- many frames by one call ---- */

static struct fp_config node_config(void)
{
	struct fp_config cfg = frames_config(N_QUEUES, 4096);

	cfg.pulse.interval_ms = 20;
	cfg.pulse.dead_after = 3;
	cfg.ports[WAN].driver = FP_DRIVER_MEM;
	cfg.ports[LAN].driver = FP_DRIVER_PACKET;
	cfg.ports[LAN].host_veth = 1;
	memcpy(cfg.ports[LAN].wire_dev, base.wire_dev, FP_NAME_MAX);
	memcpy(cfg.ports[LAN].host_dev, base.host_dev, FP_NAME_MAX);
	return cfg;
}

static fp_dp *open_node(void)
{
	const struct fp_config cfg = node_config();
	struct fp_error err = { "" };
	fp_dp *dp = NULL;

	if (fp_open(&cfg, &dp, &err))
		fprintf(stderr, "%s\n", err.text);
	REQUIRE(dp != NULL);
	return dp;
}

/* FP_TX_BURST frames of worker 0, of which the one at @long_one is longer than the device takes. */
static void send_batch(struct worker *w, uint32_t long_one)
{
	for (uint32_t i = 0; i < FP_TX_BURST; i++) {
		struct fp_frame *f = &w->frames[i];

		f->len = test_frame(f->data, i == long_one ? 1600 : 60 + i, (uint8_t)i);
		f->vnet = (struct fp_vnet){ 0 };
		f->out_port = LAN;
		f->verdict = V_COUNT;
		REQUIRE(batch_tx(w, f));
	}
	batch_flush(w);
}

/* Each frame has the verdict that it deserves, in the middle of a batch too; those that leave keep their order. */
static void check_batch(void)
{
	enum { LONG_ONE = 3 };

	fp_dp *dp = open_node();
	struct worker *w = &dp->plane.workers[0];
	const struct port_counters *pc = &w->ports[LAN];
	uint8_t seen[FP_FRAME_MAX];
	int far = open_far();

	w->plane->ports[LAN].wire[0].len_max = 0; /* else the long one would be cut, or alone */
	send_batch(w, LONG_ONE);
	for (uint32_t i = 0; i < FP_TX_BURST; i++) {
		CHECK_EQ(90, w->frames[i].verdict, i == LONG_ONE ? V_TX_FAILED : V_COUNT);
		if (i == LONG_ONE)
			continue;
		CHECK_EQ(91, recv(far, seen, sizeof(seen), 0), sizeof(struct fp_vnet) + 60 + i);
		CHECK_EQ(92, seen[sizeof(struct fp_vnet) + 14], i + 14);
	}
	CHECK_EQ(93, counter_read(&pc->tx_frames), FP_TX_BURST - 1);
	CHECK_EQ(94, counter_read(&pc->tx_bytes), 60 * 7 + 28 - LONG_ONE);
	CHECK_EQ(95, counter_read(&pc->tx_errors), 1);
	shell("ip link set nic down");
	send_batch(w, FP_TX_BURST);
	for (uint32_t i = 0; i < FP_TX_BURST; i++)
		CHECK_EQ(96, w->frames[i].verdict, V_TX_FAILED);
	CHECK_EQ(97, counter_read(&pc->tx_errors), FP_TX_BURST + 1);
	shell("ip link set nic up");
	fp_close(dp);
	close(far);
}

/* ---- two workers, and the wire changed under them ---- */

struct blaster {
	int fd;
	_Atomic bool stop;
};

static void *blast(void *arg)
{
	struct blaster *b = arg;
	const struct fp_vnet none = { 0 };
	uint8_t frame[FP_FRAME_MAX];

	for (uint32_t i = 0; !atomic_load(&b->stop); i++)
		far_send(b->fd, &none, frame, test_frame(frame, 60, (uint8_t)i));
	return NULL;
}

static void check_reopen(void)
{
	struct blaster b = { .fd = open_far() };
	struct fp_error err = { "" };
	struct fp_port_stats before, after;
	pthread_t thread;
	fp_dp *dp = open_node();

	REQUIRE(fp_start(dp, &err) == 0);
	REQUIRE(pthread_create(&thread, NULL, blast, &b) == 0);
	CHECK_EQ(80, fp_port_reopen(dp, WAN, &err), -EOPNOTSUPP);
	for (uint32_t i = 0; i < REOPENED; i++) {
		CHECK_EQ(81, fp_port_reopen(dp, LAN, &err), 0);
		fp_port_stats_read(dp, LAN, &before);
		do {
			sched_yield();
			fp_port_stats_read(dp, LAN, &after);
		} while (after.rx_frames == before.rx_frames);
		for (uint32_t q = 0; q < N_QUEUES; q++)
			CHECK_EQ(82, dp->plane.ports[LAN].wire[q].len_max, 1514);
	}
	atomic_store(&b.stop, true);
	pthread_join(thread, NULL);
	fp_stop(dp);
	fp_close(dp);
	close(b.fd);
}

int main(void)
{
	if (!enter_namespace()) {
		printf("check_packet     skipped: no network namespace can be made here\n");
		return EXIT_SUCCESS;
	}
	check_port(true);
	check_port(false);
	check_errors();
	check_batch();
	check_reopen();
	return check_done("check_packet");
}
