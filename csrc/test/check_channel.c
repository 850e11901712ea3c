/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_channel.c - the sync connection's thread: a peer at the other end of a socket pair, and control beside it
 *
 * Spec: B1, R20, R22
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include "../channel.h"
#include "../clock.h"
#include "dataplane.h"

enum { FRAME_ROOM = 300, N_FRAMES = 2000, LIMIT_MS = RUN_LIMIT_S * 1000 };

static const uint8_t no_records[] = { 0x90 };
static struct fp_tls_keys to_us = { .key = { 1 }, .iv = { 2 } }, to_peer = { .key = { 3 }, .iv = { 4 } };

/**
 * struct peer - The other end
 * @seal, @open: its halves; without keys it speaks in the clear
 */
struct peer {
	int fd;
	uint32_t suite;
	struct tls_half seal, open;
};

static fp_channel *open_channel(fp_dp *dp, struct peer *peer, uint32_t suite, uint64_t records_max)
{
	struct fp_channel_cfg cfg = {
		.suite = suite,
		.in = to_us,
		.out = to_peer,
		.records_max = records_max,
		.frame_max = FRAME_ROOM,
		.batch_records = 64,
		.window_batches = 8,
		.window_bytes = 1 << 16,
	};
	fp_channel *ch;
	int fds[2];

	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	cfg.fd = fds[0];
	*peer = (struct peer){ .fd = fds[1], .suite = suite };
	if (suite != FP_TLS_NONE)
		REQUIRE(tls_half_init(&peer->seal, suite, &to_us, true) == 0 &&
			tls_half_init(&peer->open, suite, &to_peer, false) == 0);
	REQUIRE(fp_channel_open(dp, &cfg, NULL, 0, NULL, 0, &ch) == 0);
	return ch;
}

static void forget(struct peer *peer)
{
	tls_half_free(&peer->seal);
	tls_half_free(&peer->open);
	close(peer->fd);
}

static void say_raw(const struct peer *peer, const uint8_t *data, size_t n)
{
	while (n) {
		const ssize_t sent = send(peer->fd, data, n, MSG_NOSIGNAL);

		REQUIRE(sent > 0);
		data += sent;
		n -= (size_t)sent;
	}
}

static void say(struct peer *peer, uint8_t type, const uint8_t *data, size_t n)
{
	uint8_t record[1024];

	REQUIRE(n + TLS_EXTRA <= sizeof(record));
	if (peer->seal.ctx) {
		n = tls_seal(&peer->seal, type, data, n, record);
		data = record;
	}
	say_raw(peer, data, n);
}

static void read_all(const struct peer *peer, uint8_t *out, size_t n)
{
	while (n) {
		struct pollfd wait = { .fd = peer->fd, .events = POLLIN };
		ssize_t got;

		REQUIRE(poll(&wait, 1, LIMIT_MS) == 1);
		got = recv(peer->fd, out, n, 0);
		REQUIRE(got > 0);
		out += got;
		n -= (size_t)got;
	}
}

/* The content of the next record. */
static size_t hear(struct peer *peer, uint8_t *out, uint8_t *type)
{
	uint8_t record[TLS_HEADER + TLS_LENGTH_MAX];
	ssize_t len, n;

	read_all(peer, record, TLS_HEADER);
	len = tls_record_len(record, TLS_HEADER);
	REQUIRE(len > 0);
	read_all(peer, record + TLS_HEADER, (size_t)len - TLS_HEADER);
	n = tls_open(&peer->open, record, (size_t)len, type);
	REQUIRE(n >= 0);
	memcpy(out, record + TLS_HEADER, (size_t)n);
	return (size_t)n;
}

/* A frame of ours that the lane does not know, with a number in it. */
static size_t frame_of(uint32_t number, uint32_t n, uint8_t *out)
{
	be32_store(out, be32_of(n));
	memset(out + FRAME_HEAD, 0xc0, n);
	be32_store(out + FRAME_HEAD + 4, be32_of(number));
	return FRAME_HEAD + n;
}

static size_t batch_of(uint64_t seq, uint8_t *out)
{
	const uint32_t n = wire_put_batch(out, seq, sizeof(no_records));

	memcpy(out + n, no_records, sizeof(no_records));
	return n + sizeof(no_records);
}

static struct fp_channel_stats told(fp_channel *ch)
{
	struct pollfd wait = { .fd = fp_channel_fd(ch), .events = POLLIN };
	struct fp_channel_stats stats;
	uint64_t count;

	REQUIRE(poll(&wait, 1, LIMIT_MS) == 1);
	REQUIRE(read(wait.fd, &count, sizeof(count)) == sizeof(count));
	REQUIRE(fp_channel_stats_read(ch, &stats) == 0);
	return stats;
}

static void expect_end(fp_channel *ch, int n, enum fp_end how, int error)
{
	struct fp_channel_stats stats;

	do {
		stats = told(ch);
	} while (!stats.ended);
	CHECK_EQ(n, stats.ended, how);
	CHECK_EQ(n, stats.error, error);
	CHECK_EQ(n, fp_channel_send(ch, no_records, 1), -EPIPE);
}

static void off(fp_channel *ch)
{
	const struct fp_lane_state st = { .mode = FP_LANE_OFF };

	REQUIRE(fp_channel_resume(ch, &st, NULL, 0) == 0);
}

/* ---- frames to control in their order, while batches go the short way ---- */

static void *talk(void *arg)
{
	struct peer *peer = arg;
	uint8_t frame[FRAME_HEAD + FRAME_ROOM];

	for (uint32_t i = 0; i < N_FRAMES; i++) {
		say(peer, TLS_DATA, frame, batch_of(i + 1, frame));
		if (i % 8 == 0)
			say(peer, TLS_DATA, frame, frame_of(i, i % 3 ? 8 : FRAME_ROOM, frame));
	}
	return NULL;
}

static void check_order(fp_dp *dp, uint32_t suite)
{
	static uint8_t room[FRAME_HEAD + FRAME_ROOM];
	struct fp_lane_state st = { .mode = FP_LANE_RECEIVE };
	struct peer peer;
	fp_channel *ch = open_channel(dp, &peer, suite, UINT64_MAX);
	uint32_t next = 0, held = 0;
	uint64_t seq;
	pthread_t talker;

	REQUIRE(fp_channel_resume(ch, &st, NULL, 0) == 0);
	REQUIRE(pthread_create(&talker, NULL, talk, &peer) == 0);
	while (next < N_FRAMES || st.received_seq < N_FRAMES) {
		const struct fp_channel_stats stats = told(ch);
		int n = 0;

		REQUIRE(stats.ended == FP_END_NOT);
		if (stats.ready)
			n = fp_channel_take(ch, room, sizeof(room));
		REQUIRE(n >= 0 && n <= (int)sizeof(room));
		REQUIRE(fp_channel_hold(ch, &st) == 0);
		held++;
		for (size_t at = 0, len; at < (size_t)n; at += len) {
			len = frame_len(room + at, (size_t)n - at, FRAME_ROOM);
			REQUIRE(len >= 12);
			/* What had not been looked at since the lane was given its mode is control's, too. */
			if (wire_read_batch(room + at + FRAME_HEAD, (uint32_t)len - FRAME_HEAD, &seq)) {
				CHECK_EQ(5, seq, st.received_seq + 1);
				st.received_seq = st.imported_seq = seq;
				continue;
			}
			CHECK_EQ(1, be32_host(be32_load(room + at + FRAME_HEAD + 4)), next);
			CHECK_EQ(2, st.received_seq, next + 1); /* all before it, nothing behind */
			next += 8;
		}
		CHECK_EQ(3, st.imported_seq, st.received_seq);
		if (next >= N_FRAMES && st.received_seq < N_FRAMES)
			channel_tell(ch); /* look again: the lane tells nobody of what it takes */
		REQUIRE(fp_channel_resume(ch, &st, NULL, 0) == 0);
	}
	CHECK(4, held > 0);
	pthread_join(talker, NULL);
	fp_channel_close(ch, 0);
	forget(&peer);
}

/* ---- batches out of a node with traffic ---- */

static void *acknowledge(void *arg)
{
	struct peer *peer = arg;
	uint8_t frame[1 << 16], ack[LANE_ACK_MAX];
	uint64_t seq = 0, last = 0;

	for (;;) { /* in the clear: frames as they are */
		ssize_t n = recv(peer->fd, frame, FRAME_HEAD, MSG_WAITALL);
		uint32_t len;

		if (n != FRAME_HEAD)
			return (void *)(uintptr_t)last;
		len = be32_host(be32_load(frame));
		REQUIRE(len <= sizeof(frame));
		if (recv(peer->fd, frame, len, MSG_WAITALL) != (ssize_t)len)
			return (void *)(uintptr_t)last;
		REQUIRE(wire_read_batch(frame, len, &seq) && seq == last + 1);
		last = seq;
		len = wire_put_ack(ack, seq);
		if (send(peer->fd, ack, len, MSG_NOSIGNAL) != (ssize_t)len)
			return (void *)(uintptr_t)last;
	}
}

static void check_sending(fp_dp *dp, uint32_t linger_ms, uint16_t sport)
{
	static uint8_t frame[1 << 16];
	struct fp_lane_state st = { .mode = FP_LANE_SEND };
	struct fp_sent sent[64] = { 0 };
	struct side side = { .dp = dp };
	struct peer peer;
	fp_channel *ch = open_channel(dp, &peer, FP_TLS_NONE, 0);
	uint8_t data[FP_FRAME_MAX];
	uint64_t records = 0, last = 0;
	const uint64_t since_ns = clock_now();
	pthread_t other;
	void *heard;

	REQUIRE(fp_channel_resume(ch, &st, sent, 0) == 0);
	REQUIRE(pthread_create(&other, NULL, acknowledge, &peer) == 0);
	for (uint32_t i = 0; records < 500 || st.acked_seq < last; i++) {
		const struct spec spec = { .src = CLIENT,
					   .dst = SERVER,
					   .proto = IPPROTO_NUM_UDP,
					   .sport = (uint16_t)(sport + i % 1000),
					   .dport = 53,
					   .payload = 20 };

		if (i < 1000) {
			const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

			put(&side, LAN, i, data, f.len);
		}
		take_all(dp, WAN, data, NULL, &side);
		REQUIRE(clock_now() - since_ns < RUN_LIMIT_S * NS_PER_S);
		if (i % 16)
			continue;
		REQUIRE(fp_channel_hold(ch, &st) == 0); /* as control does, before each of its steps */
		records += st.records_out;
		last = st.sent_seq;
		for (uint32_t k = st.n_new; k > 0; k--)
			REQUIRE(fp_channel_sent(ch, &sent[0], frame, sizeof(frame)) > 0);
		REQUIRE(fp_channel_resume(ch, &st, NULL, 0) == 0);
	}
	CHECK(10, records >= 500);
	fp_channel_close(ch, linger_ms);
	REQUIRE(shutdown(peer.fd, SHUT_RDWR) == 0);
	pthread_join(other, &heard);
	CHECK(11, (uintptr_t)heard >= last);
	forget(&peer);
}

/* ---- how it ends ---- */

static void check_ends(void)
{
	static const uint8_t handshake_failure[] = { 2, 40 }, close_notify[] = { 1, 0 };
	const uint32_t suite = FP_TLS_CHACHA20_POLY1305_SHA256;
	uint8_t junk[64];
	struct peer peer;
	fp_channel *ch;

	for (uint32_t i = 0; i < 7; i++) {
		ch = open_channel(NULL, &peer, i == 6 ? FP_TLS_NONE : suite, UINT64_MAX);
		off(ch);
		memset(junk, 0x17, sizeof(junk));
		memcpy(junk, (uint8_t[]){ TLS_DATA, 3, 3, 0, 59 }, TLS_HEADER);
		switch (i) {
		case 0:
			say(&peer, TLS_ALERT, close_notify, 2);
			expect_end(ch, 20, FP_END_CLOSED, 0);
			break;
		case 1:
			say(&peer, TLS_ALERT, handshake_failure, 2);
			expect_end(ch, 21, FP_END_ALERT, 40);
			break;
		case 2:
			say_raw(&peer, junk, sizeof(junk));
			expect_end(ch, 22, FP_END_GARBAGE, 0);
			break;
		case 3:
			say(&peer, TLS_HANDSHAKE, junk, 4);
			expect_end(ch, 23, FP_END_GARBAGE, 0);
			break;
		case 4:
			junk[0] = TLS_ALERT;
			say_raw(&peer, junk, 1);
			expect_end(ch, 24, FP_END_GARBAGE, 0);
			break;
		default:
			shutdown(peer.fd, SHUT_WR);
			expect_end(ch, 25, FP_END_CLOSED, 0);
			break;
		}
		fp_channel_close(ch, 1000);
		forget(&peer);
	}
	ch = open_channel(NULL, &peer, suite, UINT64_MAX); /* bytes that nobody has read: a reset */
	off(ch);
	REQUIRE(fp_channel_send(ch, junk, sizeof(junk)) >= 0);
	forget(&peer);
	expect_end(ch, 26, FP_END_ERROR, ECONNRESET);
	fp_channel_close(ch, 0);
}

/* What waits is sent before the end, and the end is said. */
static void check_linger(void)
{
	static uint8_t data[1 << 20], heard[TLS_PLAIN_MAX];
	struct peer peer;
	fp_channel *ch = open_channel(NULL, &peer, FP_TLS_AES_256_GCM_SHA384, UINT64_MAX);
	size_t total = 0, n;
	uint8_t type;

	CHECK(30, fp_channel_send(ch, data, sizeof(data)) > 0); /* more than the socket takes */
	fp_channel_close(ch, LIMIT_MS);
	for (;;) {
		n = hear(&peer, heard, &type);
		if (type != TLS_DATA)
			break;
		total += n;
	}
	CHECK_EQ(31, total, sizeof(data));
	CHECK(32, type == TLS_ALERT && n == 2 && heard[1] == 0);
	CHECK_EQ(33, recv(peer.fd, heard, 1, 0), 0);
	forget(&peer);
}

/* The longest frame, byte by byte, and both of its neighbours. */
static void check_lengths(void)
{
	uint8_t frame[FRAME_HEAD + FRAME_ROOM], room[FRAME_HEAD + FRAME_ROOM];
	struct peer peer;
	fp_channel *ch = open_channel(NULL, &peer, FP_TLS_NONE, 0);
	size_t len = frame_of(7, FRAME_ROOM, frame);

	off(ch);
	for (size_t i = 0; i < len; i++) {
		struct fp_channel_stats stats = { .bytes_in = 0 };

		say_raw(&peer, frame + i, 1);
		while (stats.bytes_in <= i) { /* each by itself */
			REQUIRE(fp_channel_stats_read(ch, &stats) == 0);
			sched_yield();
		}
	}
	CHECK_EQ(40, told(ch).ready, len);
	CHECK_EQ(41, fp_channel_take(ch, room, sizeof(room) - 1), -ENOBUFS);
	CHECK_EQ(42, fp_channel_take(ch, room, sizeof(room)), len);
	CHECK(43, memcmp(room, frame, len) == 0);
	off(ch);
	be32_store(frame, be32_of(FRAME_ROOM + 1));
	say_raw(&peer, frame, FRAME_HEAD);
	CHECK_EQ(44, told(ch).ready, FRAME_HEAD); /* no more is waited for */
	fp_channel_close(ch, 0);
	forget(&peer);
}

/* ---- key updates ---- */

static void check_keys(uint32_t suite)
{
	static const uint8_t update[] = { 24, 0, 0, 1, 1 };
	struct fp_tls_keys in = { .key = { 9 } }, out = { .key = { 8 } };
	uint8_t frame[FRAME_HEAD + FRAME_ROOM], room[TLS_PLAIN_MAX];
	struct peer peer;
	fp_channel *ch = open_channel(NULL, &peer, suite, 3);
	struct fp_channel_stats stats;
	uint8_t type;

	off(ch);
	for (uint32_t round = 0; round < 20; round++) {
		in.iv[0]++;
		out.iv[0]++;
		say(&peer, TLS_HANDSHAKE, update, sizeof(update));
		REQUIRE(tls_half_init(&peer.seal, suite, &in, true) == 0);
		say(&peer, TLS_DATA, frame, frame_of(round, 8, frame)); /* under the new ones already */
		do {
			stats = told(ch);
		} while (!(stats.asks & FP_ASK_KEYS_IN));
		CHECK_EQ(50, stats.ready, 0);
		CHECK(51, (stats.asks & FP_ASK_KEYS_OUT) != 0);
		REQUIRE(fp_channel_rekey(ch, &in, &out) == 0);
		CHECK_EQ(52, hear(&peer, room, &type), 5);
		CHECK(53, type == TLS_HANDSHAKE && room[0] == 24 && room[4] == 0);
		REQUIRE(tls_half_init(&peer.open, suite, &out, false) == 0);
		do {
			stats = told(ch);
		} while (!stats.ready);
		CHECK_EQ(54, stats.asks, 0);
		CHECK_EQ(55, fp_channel_take(ch, room, sizeof(room)), 12);
		CHECK_EQ(56, be32_host(be32_load(room + 8)), round);
		off(ch);
		for (uint32_t i = 0; i < 3; i++) { /* as many as one key is for */
			REQUIRE(fp_channel_send(ch, frame, 12) == 0);
			CHECK_EQ(57, hear(&peer, room, &type), 12);
		}
		REQUIRE(fp_channel_stats_read(ch, &stats) == 0);
		CHECK_EQ(58, stats.asks, FP_ASK_KEYS_OUT);
		out.iv[1]++;
		REQUIRE(fp_channel_rekey(ch, NULL, &out) == 0);
		CHECK_EQ(59, hear(&peer, room, &type), 5);
		REQUIRE(tls_half_init(&peer.open, suite, &out, false) == 0);
	}
	fp_channel_close(ch, 1000);
	forget(&peer);
}

/*
 * More records than there is room for while the lane rests: it takes all of them once it goes on, though nothing
 * else comes that would wake it. Without the thread, so that what is read at once is known.
 */
static void check_full(fp_dp *dp)
{
	enum { WIRE = 81000 };

	static uint8_t stream[1 << 17], wire[WIRE + TLS_PLAIN_MAX + TLS_EXTRA];
	const struct fp_channel_cfg cfg = { .suite = FP_TLS_AES_128_GCM_SHA256,
					    .in = to_us,
					    .out = to_peer,
					    .records_max = UINT64_MAX,
					    .frame_max = FRAME_ROOM,
					    .batch_records = 1 };
	struct fp_lane_state st = { .mode = FP_LANE_RECEIVE };
	struct tls_half seal = { .ctx = NULL };
	const size_t big = (size_t)4 * TLS_PLAIN_MAX; /* records as long as can be */
	size_t end = 0, at = 0, used = 0;
	struct fp_channel *ch;
	uint64_t n_batches = 0;
	int fds[2];

	while (end < big)
		end += batch_of(++n_batches, stream + end);
	REQUIRE(tls_half_init(&seal, cfg.suite, &to_us, true) == 0);
	for (; at < big; at += TLS_PLAIN_MAX)
		used += tls_seal(&seal, TLS_DATA, stream + at, TLS_PLAIN_MAX, wire + used);
	used += tls_seal(&seal, TLS_DATA, stream + at, end - at, wire + used);
	while (used < WIRE) { /* small ones behind them */
		const size_t n = batch_of(++n_batches, stream);

		used += tls_seal(&seal, TLS_DATA, stream, n, wire + used);
	}
	tls_half_free(&seal);
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	REQUIRE(channel_make(dp, &cfg, NULL, 0, NULL, 0, &ch) == 0);
	ch->cfg.fd = fds[0];
	REQUIRE(fp_channel_resume(ch, &st, NULL, 0) == 0 && fp_channel_hold(ch, &st) == 0);
	REQUIRE(send(fds[1], wire, TLS_PLAIN_MAX, 0) == TLS_PLAIN_MAX); /* not the whole record */
	channel_lock(ch);
	channel_pass(ch, true);
	REQUIRE(send(fds[1], wire + TLS_PLAIN_MAX, used - TLS_PLAIN_MAX, 0) ==
		(ssize_t)(used - TLS_PLAIN_MAX));
	channel_pass(ch, true);
	channel_unlock(ch);
	CHECK_EQ(60, ch->bytes_in, used);
	CHECK(61, bytes_held(&ch->raw) > TLS_EXTRA); /* some wait behind what has room */
	REQUIRE(fp_channel_resume(ch, &st, NULL, 0) == 0);
	channel_lock(ch);
	channel_pass(ch, false);
	channel_unlock(ch);
	CHECK_EQ(62, bytes_held(&ch->raw), 0);
	CHECK_EQ(63, bytes_held(&ch->in), 0);
	CHECK_EQ(64, ch->lane.st.received_seq, n_batches);
	CHECK_EQ(65, ch->lane.st.imported_seq, n_batches);
	fp_channel_close(ch, 0);
	channel_run(ch);
	close(fds[1]);
}

int main(void)
{
	static const uint32_t suites[] = { FP_TLS_NONE, FP_TLS_AES_128_GCM_SHA256, FP_TLS_AES_256_GCM_SHA384,
					   FP_TLS_CHACHA20_POLY1305_SHA256 };
	struct fp_error err;
	fp_dp *dp = open_config(frames_config(N_WORKERS, 4096));

	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_PASSIVE, 2) == 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(suites); i++)
		check_order(dp, suites[i]); /* one after the other, over one data plane */
	check_full(dp);
	REQUIRE(fp_set_role(dp, FP_ROLE_ACTIVE, 4) == 0 && fp_sync_track(dp, 1) == 0);
	check_sending(dp, 0, 20000);
	REQUIRE(fp_sync_track(dp, 0) == 0 && fp_sync_track(dp, 1) == 0);
	check_sending(dp, 1000, 30000);
	fp_close(dp); /* a thread that lingers knows nothing of it */
	check_ends();
	check_linger();
	check_lengths();
	for (uint32_t i = 1; i < ARRAY_SIZE(suites); i++)
		check_keys(suites[i]);
	return check_done("channel");
}
