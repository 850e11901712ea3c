/* SPDX-License-Identifier: Apache-2.0 */
/**
 * channel.c - the sync connection: its thread
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "channel.h"
#include "clock.h"
#include "doorbell.h"

enum {
	READ_BYTES = 65536,
	KEY_UPDATE = 24, /* RFC 8446 §4.6.3 */
	SESSION_TICKET = 4,
	HANDSHAKE_HEAD = 4,
	ALERT_CLOSE_NOTIFY = 0,
	TURNS_MAX = 16, /* reads in a row, before a look at everything else */
};

/* ---- buffers ---- */

static size_t held(const struct bytes *b)
{
	return b->end - b->at;
}

/* Room for @n more behind what is there. */
static bool reserve(struct bytes *b, size_t n)
{
	size_t cap = b->cap;
	uint8_t *data;

	if (b->at == b->end)
		b->at = b->end = 0;
	if (cap - b->end >= n)
		return true;
	memmove(b->data, b->data + b->at, held(b));
	b->end -= b->at;
	b->at = 0;
	if (cap - b->end >= n)
		return true;
	while (cap - b->end < n)
		cap = cap ? 2 * cap : READ_BYTES;
	data = realloc(b->data, cap);
	if (!data)
		return false;
	b->data = data;
	b->cap = cap;
	return true;
}

static bool append(struct bytes *b, const uint8_t *data, size_t n)
{
	if (!reserve(b, n))
		return false;
	memcpy(b->data + b->end, data, n);
	b->end += n;
	return true;
}

/* ---- life ---- */

void channel_wake(struct fp_channel *ch)
{
	eventfd_signal(ch->wake_fd);
}

void channel_tell(struct fp_channel *ch)
{
	eventfd_signal(ch->tell_fd);
}

static void end(struct fp_channel *ch, enum fp_end how, int error)
{
	if (ch->ended)
		return;
	ch->ended = how;
	ch->error = error;
	channel_tell(ch);
}

void channel_lock(struct fp_channel *ch)
{
	atomic_fetch_add(&ch->wanted, 1); /* pairs with give_way() */
	pthread_mutex_lock(&ch->lock);
	atomic_fetch_sub(&ch->wanted, 1);
}

void channel_unlock(struct fp_channel *ch)
{
	pthread_mutex_unlock(&ch->lock);
}

/* A thread that never sleeps would take the lock again before anybody who was woken for it could. */
static void give_way(struct fp_channel *ch)
{
	pthread_mutex_unlock(&ch->lock);
	while (atomic_load(&ch->wanted)) /* pairs with channel_lock() */
		sched_yield();
	pthread_mutex_lock(&ch->lock);
}

void channel_free(struct fp_channel *ch)
{
	lane_free(&ch->lane);
	tls_half_free(&ch->read);
	tls_half_free(&ch->seal);
	free(ch->raw.data);
	free(ch->in.data);
	free(ch->out.data);
	if (ch->cfg.fd >= 0)
		close(ch->cfg.fd);
	if (ch->wake_fd >= 0)
		close(ch->wake_fd);
	if (ch->tell_fd >= 0)
		close(ch->tell_fd);
	pthread_mutex_destroy(&ch->lock);
	free(ch);
}

/* ---- out ---- */

static void flush(struct fp_channel *ch)
{
	while (held(&ch->out) && !ch->ended) {
		const ssize_t n = send(ch->cfg.fd, ch->out.data + ch->out.at, held(&ch->out),
				       MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno != EAGAIN)
				end(ch, FP_END_ERROR, errno);
			return;
		}
		ch->out.at += (size_t)n;
		ch->bytes_out += (size_t)n;
	}
}

static bool seal(struct fp_channel *ch, uint8_t type, const uint8_t *data, size_t n)
{
	size_t len;

	if (!reserve(&ch->out, n + TLS_EXTRA))
		return false;
	len = tls_seal(&ch->seal, type, data, n, ch->out.data + ch->out.end);
	ch->out.end += len;
	if (len && type == TLS_DATA && ch->seal.seq >= ch->cfg.records_max && !(ch->asks & FP_ASK_KEYS_OUT)) {
		ch->asks |= FP_ASK_KEYS_OUT;
		channel_tell(ch);
	}
	return len != 0;
}

int channel_put(struct fp_channel *ch, uint8_t type, const uint8_t *data, size_t n)
{
	bool done = true;

	if (ch->ended)
		return -EPIPE;
	if (!ch->seal.ctx)
		done = append(&ch->out, data, n);
	for (size_t at = 0; at < n && ch->seal.ctx && done; at += TLS_PLAIN_MAX)
		done = seal(ch, type, data + at, n - at < TLS_PLAIN_MAX ? n - at : TLS_PLAIN_MAX);
	if (!done) {
		end(ch, FP_END_ERROR, ENOMEM);
		return -ENOMEM;
	}
	flush(ch);
	return 0;
}

/* ---- in: bytes, records ---- */

/* Whole messages of a handshake that is long over (RFC 8446 §4.6); we have no use for a ticket. */
static bool take_handshake(struct fp_channel *ch, const uint8_t *at, size_t n)
{
	while (n >= HANDSHAKE_HEAD) {
		const size_t len = (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];

		if (len > n - HANDSHAKE_HEAD)
			return false;
		if (at[0] == KEY_UPDATE && len == 1 && at[HANDSHAKE_HEAD] <= 1 && n == HANDSHAKE_HEAD + 1) {
			/* §5.1: it ends a record, for the next one has other keys. */
			ch->asks |= FP_ASK_KEYS_IN | (at[HANDSHAKE_HEAD] ? (uint32_t)FP_ASK_KEYS_OUT : 0);
			channel_tell(ch);
		} else if (at[0] != SESSION_TICKET) {
			return false;
		}
		at += HANDSHAKE_HEAD + len;
		n -= HANDSHAKE_HEAD + len;
	}
	return n == 0;
}

static void take_record(struct fp_channel *ch, uint8_t *record, size_t len)
{
	uint8_t type;
	const ssize_t n = tls_open(&ch->read, record, len, &type);
	const uint8_t *content = record + TLS_HEADER;

	if (n < 0) {
		end(ch, FP_END_GARBAGE, 0);
	} else if (type == TLS_DATA) {
		if (!append(&ch->in, content, (size_t)n))
			end(ch, FP_END_ERROR, ENOMEM);
	} else if (type == TLS_ALERT && n == 2) {
		end(ch, content[1] == ALERT_CLOSE_NOTIFY ? FP_END_CLOSED : FP_END_ALERT, content[1]);
	} else if (type != TLS_HANDSHAKE || !take_handshake(ch, content, (size_t)n)) {
		end(ch, FP_END_GARBAGE, 0);
	}
}

/* As much of what has come as @in has room for. */
static void open_records(struct fp_channel *ch)
{
	while (!ch->ended && !(ch->asks & FP_ASK_KEYS_IN)) {
		uint8_t *at = ch->raw.data + ch->raw.at;
		const ssize_t len = tls_record_len(at, held(&ch->raw));

		if (len < 0)
			end(ch, FP_END_GARBAGE, 0);
		if (len <= 0 || (size_t)len > held(&ch->raw) ||
		    held(&ch->in) > ch->cfg.frame_max + READ_BYTES)
			return;
		ch->raw.at += (size_t)len;
		take_record(ch, at, (size_t)len);
	}
}

/* There is room: nothing waits that has to go on first. */
static bool wants_more(const struct fp_channel *ch)
{
	return !ch->ended && !ch->closing && held(&ch->in) <= ch->cfg.frame_max &&
	       held(&ch->raw) < TLS_HEADER + TLS_LENGTH_MAX && !(ch->asks & FP_ASK_KEYS_IN);
}

/* Return: there may be more. */
static bool read_some(struct fp_channel *ch)
{
	struct bytes *to = ch->read.ctx ? &ch->raw : &ch->in;
	ssize_t n;

	if (!wants_more(ch))
		return false;
	if (!reserve(to, READ_BYTES)) {
		end(ch, FP_END_ERROR, ENOMEM);
		return false;
	}
	n = recv(ch->cfg.fd, to->data + to->end, READ_BYTES, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EINTR;
	if (n <= 0) {
		end(ch, n ? FP_END_ERROR : FP_END_CLOSED, n ? errno : 0);
		return false;
	}
	to->end += (size_t)n;
	ch->bytes_in += (size_t)n;
	return n == READ_BYTES;
}

/* ---- in: frames ---- */

static bool is_frame(const struct fp_channel *ch, uint32_t len)
{
	return len > 0 && len <= ch->cfg.frame_max;
}

/* Bytes of the frame at @at, its length included; 0: it is not whole. One that cannot be is no more than its head. */
static size_t frame_len(const struct fp_channel *ch, size_t at)
{
	const size_t n = ch->in.end - at;
	uint32_t len;

	if (n < FRAME_HEAD)
		return 0;
	len = be32_host(be32_load(ch->in.data + at));
	if (!is_frame(ch, len))
		return FRAME_HEAD; /* control says what is wrong with it */
	return n - FRAME_HEAD < len ? 0 : FRAME_HEAD + len;
}

static bool is_lanes(const struct fp_channel *ch, size_t at, size_t len)
{
	return lane_is_mine(&ch->lane, ch->in.data + at + FRAME_HEAD, (uint32_t)(len - FRAME_HEAD));
}

/*
 * What is at the front when this is asked has been left to control: by the lane, which may rest, or because no
 * lane takes it. What the lane would take behind it is not control's.
 */
size_t channel_ready(const struct fp_channel *ch, size_t cap)
{
	size_t at = ch->in.at, len;

	while ((len = frame_len(ch, at)) > 0) {
		if (at != ch->in.at && (at + len - ch->in.at > cap || is_lanes(ch, at, len)))
			break;
		at += len;
	}
	return at - ch->in.at;
}

/* Return: control is to look. */
static bool take_frames(struct fp_channel *ch, uint64_t now_ns)
{
	uint8_t ack[LANE_ACK_MAX];
	uint32_t n;
	size_t len;

	if (ch->lane.held)
		return false; /* it is looking */
	while ((len = frame_len(ch, ch->in.at)) > FRAME_HEAD) {
		if (!lane_take(&ch->lane, ch->in.data + ch->in.at + FRAME_HEAD, (uint32_t)(len - FRAME_HEAD),
			       now_ns))
			break;
		ch->in.at += len;
	}
	n = lane_ack(&ch->lane, ack, now_ns);
	if (n)
		channel_put(ch, TLS_DATA, ack, n);
	return ch->lane.asks || len;
}

static void put_batches(struct fp_channel *ch, uint64_t now_ns)
{
	const uint8_t *frame;
	uint32_t n;

	while (!ch->ended && (n = lane_put(&ch->lane, &frame, now_ns)))
		channel_put(ch, TLS_DATA, frame, n);
}

/* Everything that can be done now. */
static void pass(struct fp_channel *ch, bool readable)
{
	bool told = false;

	for (uint32_t turn = 0; turn < TURNS_MAX; turn++) {
		const uint64_t now_ns = clock_now();
		const bool more = readable && read_some(ch);

		if (ch->read.ctx)
			open_records(ch);
		if (take_frames(ch, now_ns) && !told) {
			told = true;
			channel_tell(ch);
		}
		put_batches(ch, now_ns);
		flush(ch);
		if (!more)
			break;
		give_way(ch);
	}
	if (ch->lane.asks && !told)
		channel_tell(ch);
}

/* ---- the thread ---- */

static void sleep_until_something(struct fp_channel *ch, short *revents)
{
	const uint64_t now_ns = clock_now();
	uint64_t wait_ns = lane_wait_ns(&ch->lane, now_ns);
	struct pollfd fds[] = {
		{ .fd = ch->wake_fd, .events = POLLIN },
		{ .fd = ch->lane.awaited ? ch->lane.dp->plane.changes_fd : -1, .events = POLLIN },
		{ .fd = ch->ended ? -1 : ch->cfg.fd,
		  .events = (short)((wants_more(ch) ? POLLIN : 0) | (held(&ch->out) ? POLLOUT : 0)) },
	};
	struct timespec timeout;
	uint64_t count;

	if (ch->closing)
		wait_ns = ch->linger_ns > now_ns ? ch->linger_ns - now_ns : 0;
	timeout = timespec_of(wait_ns);
	pthread_mutex_unlock(&ch->lock);
	while (atomic_load(&ch->wanted)) /* as give_way(): control may have come while we did not sleep */
		sched_yield();
	ppoll(fds, ARRAY_SIZE(fds), wait_ns == UINT64_MAX ? NULL : &timeout, NULL);
	pthread_mutex_lock(&ch->lock);
	if (fds[0].revents & POLLIN)
		(void)!read(ch->wake_fd, &count, sizeof(count));
	if (fds[1].revents & POLLIN && ch->lane.dp) {
		(void)!read(ch->lane.dp->plane.changes_fd, &count, sizeof(count));
		lane_rung(&ch->lane);
	}
	*revents = fds[2].revents;
}

/* What waits is sent, then the peer is waited for: who closes on unread bytes may cost it our last word. */
static void linger(struct fp_channel *ch)
{
	uint8_t sink[4096];
	bool shut = false;
	short revents;
	ssize_t n;

	while (!ch->ended && clock_now() < ch->linger_ns) {
		flush(ch);
		if (!held(&ch->out) && !shut)
			shut = shutdown(ch->cfg.fd, SHUT_WR) == 0;
		do {
			n = recv(ch->cfg.fd, sink, sizeof(sink), MSG_DONTWAIT);
		} while (n > 0);
		if (n == 0 && shut)
			break;
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			end(ch, FP_END_CLOSED, 0);
		else
			sleep_until_something(ch, &revents);
	}
}

void *channel_run(void *arg)
{
	struct fp_channel *ch = arg;
	short revents = POLLIN;

	pthread_mutex_lock(&ch->lock);
	while (!ch->closing) {
		pass(ch, revents & (POLLIN | POLLHUP | POLLERR));
		if (!ch->closing)
			sleep_until_something(ch, &revents);
	}
	linger(ch);
	pthread_mutex_unlock(&ch->lock);
	channel_free(ch);
	return NULL;
}
