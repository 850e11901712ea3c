/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_channel.c - a peer that sends anything into the sync connection: records, frames, batches, acknowledgements
 *
 * A channel without its thread, over a socket pair. The first byte: bits 0 and 1 the lane's mode (off, sends,
 * receives, held), bits 2 and 3 how it is sent (frames in the clear; frames in records; bytes instead of records;
 * whole contents of records, each a length, a type and bytes), bit 4 in small pieces. The rest is what is sent.
 */
#include <fcntl.h>
#include <sys/socket.h>

#include "../channel.h"
#include "../clock.h"
#include "dataplane.h"
#include "fuzz.h"

enum { FRAME_MAX = 512, SENT = 9 };

enum how { CLEAR, SEALED, RAW, CONTENTS };

static const struct fp_tls_keys keys = { .key = { 1, 2, 3 }, .iv = { 4, 5, 6 } };

static fp_dp *node(void)
{
	static fp_dp *dp; /* it goes on: what a batch makes live, the next input finds */

	if (!dp) {
		dp = open_config(frames_config(N_WORKERS, 256));
		REQUIRE(fp_set_role(dp, FP_ROLE_PASSIVE, 2) == 0);
	}
	return dp;
}

static struct fp_channel *channel(enum how how, int fd)
{
	const struct fp_channel_cfg cfg = {
		.suite = how == CLEAR ? FP_TLS_NONE : FP_TLS_AES_128_GCM_SHA256,
		.in = keys,
		.out = keys,
		.records_max = 2,
		.frame_max = FRAME_MAX,
		.batch_records = 16,
		.window_batches = 4,
		.window_bytes = 4096,
	};
	struct fp_channel *ch;

	REQUIRE(channel_make(node(), &cfg, NULL, 0, NULL, 0, &ch) == 0);
	ch->cfg.fd = fd;
	return ch;
}

static void give_mode(struct fp_channel *ch, uint8_t mode)
{
	const struct fp_sent window[2] = { { .n = 1, .size = 100 }, { .n = 1, .size = 100 } };
	struct fp_lane_state st = {
		.mode = mode == 1   ? FP_LANE_SEND
			: mode == 2 ? FP_LANE_RECEIVE
				    : FP_LANE_OFF,
		.sent_seq = SENT,
		.acked_seq = SENT - 2,
		.received_seq = SENT,
		.imported_seq = SENT,
	};

	REQUIRE(fp_channel_resume(ch, &st, window, 2) == 0);
	if (mode == 3)
		REQUIRE(fp_channel_hold(ch, &st) == 0);
}

/* What control does, as far as it needs no core. */
static void control(struct fp_channel *ch, uint8_t mode)
{
	static uint8_t room[FRAME_MAX + FRAME_HEAD];
	struct fp_channel_stats stats;
	struct fp_lane_state st;
	uint16_t places[64];
	uint32_t absurd;
	int n;

	REQUIRE(fp_channel_stats_read(ch, &stats) == 0);
	if (stats.asks & FP_ASK_KEYS_IN)
		REQUIRE(fp_channel_rekey(ch, &keys, NULL) == 0);
	if (stats.asks & FP_ASK_KEYS_OUT && !stats.ended)
		REQUIRE(fp_channel_rekey(ch, NULL, &keys) <= 0);
	if (stats.asks & FP_ASK_IMPORTED) {
		REQUIRE(fp_channel_hold(ch, &st) == 0 && st.part_n > st.part_taken);
		n = fp_channel_part(ch, places, ARRAY_SIZE(places), &absurd);
		REQUIRE(n > 0 && absurd <= (uint32_t)n);
	}
	do {
		n = fp_channel_take(ch, room, sizeof(room));
		REQUIRE(n >= 0 && n <= (int)sizeof(room));
	} while (n);
	give_mode(ch, mode);
}

static void judge(const struct fp_channel *ch)
{
	const struct lane *l = &ch->lane;
	uint64_t bytes = 0;

	REQUIRE(l->st.acked_seq <= l->st.sent_seq && l->st.sent_seq - l->st.acked_seq == l->n
			? true
			: l->st.mode != FP_LANE_SEND);
	for (uint32_t i = 0; i < l->n; i++)
		bytes += l->window[(l->head + i) % l->cap].sent.size;
	REQUIRE(bytes == l->window_bytes);
	REQUIRE(ch->in.at <= ch->in.end && ch->in.end <= ch->in.cap);
	REQUIRE(ch->raw.at <= ch->raw.end && ch->raw.end <= ch->raw.cap);
	REQUIRE(ch->in.end - ch->in.at < FRAME_MAX + 4 * BYTES_MIN);
}

/* What the peer puts on the wire. Return: how much. */
static size_t write_wire(enum how how, const uint8_t *data, size_t size, uint8_t *out, size_t cap)
{
	struct tls_half seal = { .ctx = NULL };
	size_t n = 0;

	if (how == CLEAR || how == RAW) {
		memcpy(out, data, size);
		return size;
	}
	REQUIRE(tls_half_init(&seal, FP_TLS_AES_128_GCM_SHA256, &keys, true) == 0);
	while (size) {
		uint8_t type = TLS_DATA;
		size_t len = size;

		if (how == CONTENTS) {
			if (size < 2)
				break;
			len = data[0] < size - 2 ? data[0] : size - 2;
			type = data[1];
			data += 2;
			size -= 2;
		}
		if (n + len + TLS_EXTRA > cap)
			break;
		n += tls_seal(&seal, type, data, len, out + n);
		data += len;
		size -= len;
		if (type == TLS_HANDSHAKE) /* as if it were an update: they are the same again, from 0 */
			REQUIRE(tls_half_init(&seal, FP_TLS_AES_128_GCM_SHA256, &keys, true) == 0);
	}
	tls_half_free(&seal);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t wire[1 << 17];
	struct fp_channel *ch;
	enum how how;
	size_t n;
	int fds[2];
	uint8_t flags;

	if (size == 0 || size > 8192)
		return 0;
	flags = *data;
	how = flags >> 2 & 3;
	n = write_wire(how, data + 1, size - 1, wire, sizeof(wire));
	REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
	ch = channel(how, fds[0]);
	give_mode(ch, flags & 3);
	for (size_t at = 0; at < n && !ch->ended;) {
		const size_t piece = flags & 16 ? 7 : n - at;
		const ssize_t sent = send(fds[1], wire + at, n - at < piece ? n - at : piece, MSG_NOSIGNAL);

		at += sent > 0 ? (size_t)sent : 0;
		channel_lock(ch);
		channel_pass(ch, true);
		judge(ch);
		channel_unlock(ch);
		if (at % 3 == 0 || sent <= 0)
			control(ch, flags & 3);
	}
	control(ch, flags & 3);
	close(fds[1]);
	channel_lock(ch);
	channel_pass(ch, true);
	judge(ch);
	channel_unlock(ch);
	control(ch, flags & 3);
	fp_channel_close(ch, 0);
	channel_run(ch);
	return 0;
}
