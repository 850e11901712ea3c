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
	ALERT_CLOSE_NOTIFY = 0,
	TURNS_MAX = 16,  /* reads in a row, before a look at everything else */
	SINK_TURNS = 64, /* ... while nobody wants what is read any more */
	FRAME_MAX_MAX = INT32_MAX - BYTES_MIN,
};

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
	bytes_free(&ch->raw);
	bytes_free(&ch->in);
	bytes_free(&ch->out);
	if (ch->cfg.fd >= 0)
		close(ch->cfg.fd);
	if (ch->wake_fd >= 0)
		close(ch->wake_fd);
	if (ch->tell_fd >= 0)
		close(ch->tell_fd);
	pthread_mutex_destroy(&ch->lock);
	free(ch);
}

static int take_keys(struct fp_channel *ch, const struct fp_channel_cfg *cfg)
{
	int rc;

	if (cfg->suite == FP_TLS_NONE)
		return 0;
	rc = tls_half_init(&ch->read, cfg->suite, &cfg->in, false);
	return rc ? rc : tls_half_init(&ch->seal, cfg->suite, &cfg->out, true);
}

int channel_make(fp_dp *dp, const struct fp_channel_cfg *cfg, const uint8_t *plain, uint32_t n_plain,
		 const uint8_t *rest, uint32_t n_rest, struct fp_channel **out)
{
	struct fp_channel *ch;
	int rc;

	if (cfg->frame_max == 0 || cfg->frame_max > FRAME_MAX_MAX || cfg->batch_records == 0)
		return -EINVAL;
	ch = calloc(1, sizeof(*ch));
	if (!ch)
		return -ENOMEM;
	ch->cfg = *cfg;
	ch->cfg.fd = -1;
	OPENSSL_cleanse(&ch->cfg.in, sizeof(ch->cfg.in)); /* the ciphers will have them */
	OPENSSL_cleanse(&ch->cfg.out, sizeof(ch->cfg.out));
	pthread_mutex_init(&ch->lock, NULL);
	ch->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ch->tell_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	lane_init(&ch->lane, dp, cfg);
	rc = ch->wake_fd < 0 || ch->tell_fd < 0 ? -EMFILE : take_keys(ch, cfg);
	if (rc == 0 && (!bytes_append(&ch->in, plain, n_plain) ||
			!bytes_append(ch->read.ctx ? &ch->raw : &ch->in, rest, n_rest)))
		rc = -ENOMEM;
	if (rc) {
		channel_free(ch);
		return rc;
	}
	*out = ch;
	return 0;
}

/* ---- out ---- */

static void flush(struct fp_channel *ch)
{
	while (bytes_held(&ch->out) && !ch->ended) {
		const ssize_t n = send(ch->cfg.fd, ch->out.data + ch->out.at, bytes_held(&ch->out),
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

	if (!bytes_reserve(&ch->out, n + TLS_EXTRA))
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

	if (ch->ended || ch->closing)
		return -EPIPE;
	if (!ch->seal.ctx)
		done = bytes_append(&ch->out, data, n);
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

static bool take_handshake(struct fp_channel *ch, const uint8_t *at, size_t n)
{
	const int said = tls_late_messages(at, n);

	if (said < 0)
		return false;
	if (said & TLS_KEYS_UPDATED) {
		ch->asks |= FP_ASK_KEYS_IN | (said & TLS_UPDATE_ASKED ? (uint32_t)FP_ASK_KEYS_OUT : 0);
		channel_tell(ch);
	}
	return true;
}

static void take_record(struct fp_channel *ch, uint8_t *record, size_t len)
{
	uint8_t type;
	const ssize_t n = tls_open(&ch->read, record, len, &type);
	const uint8_t *content = record + TLS_HEADER;

	if (n < 0) {
		end(ch, FP_END_GARBAGE, 0);
	} else if (type == TLS_DATA) {
		if (!bytes_append(&ch->in, content, (size_t)n))
			end(ch, FP_END_ERROR, ENOMEM);
	} else if (type == TLS_ALERT && n == 2) {
		end(ch, content[1] == ALERT_CLOSE_NOTIFY ? FP_END_CLOSED : FP_END_ALERT, content[1]);
	} else if (type != TLS_HANDSHAKE || !take_handshake(ch, content, (size_t)n)) {
		end(ch, FP_END_GARBAGE, 0);
	}
}

/* A whole frame has room, and so nothing is waited for in vain. */
static size_t in_max(const struct fp_channel *ch)
{
	return (size_t)FRAME_HEAD + ch->cfg.frame_max;
}

/* As much of what has come as @in has room for. Return: it had no room for all of it. */
static bool open_records(struct fp_channel *ch)
{
	while (ch->read.ctx && bytes_held(&ch->raw) && !ch->ended && !(ch->asks & FP_ASK_KEYS_IN)) {
		uint8_t *at = ch->raw.data + ch->raw.at;
		const ssize_t len = tls_record_len(at, bytes_held(&ch->raw));

		if (len < 0)
			end(ch, FP_END_GARBAGE, 0);
		if (len <= 0 || (size_t)len > bytes_held(&ch->raw))
			break;
		if (bytes_held(&ch->in) >= in_max(ch) + READ_BYTES)
			return true;
		ch->raw.at += (size_t)len;
		take_record(ch, at, (size_t)len);
	}
	return false;
}

/* There is room: nothing waits that has to go on first. */
static bool wants_more(const struct fp_channel *ch)
{
	return !ch->ended && !ch->closing && bytes_held(&ch->in) < in_max(ch) &&
	       bytes_held(&ch->raw) < TLS_HEADER + TLS_LENGTH_MAX && !(ch->asks & FP_ASK_KEYS_IN);
}

/* Return: there may be more. */
static bool read_some(struct fp_channel *ch)
{
	struct bytes *to = ch->read.ctx ? &ch->raw : &ch->in;
	ssize_t n;

	if (!wants_more(ch))
		return false;
	if (!bytes_reserve(to, READ_BYTES)) {
		end(ch, FP_END_ERROR, ENOMEM);
		return false;
	}
	/* NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): it does not block */
	n = recv(ch->cfg.fd, to->data + to->end, READ_BYTES, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EINTR;
	if (n <= 0) {
		const int error = n ? errno : 0;

		/* A process that dies says nothing: its kernel closes what it had open. */
		if (ch->lane.dp && (error == 0 || error == ECONNRESET))
			pulse_mark(&ch->lane.dp->pulse, FP_MARK_SYNC_CLOSED);
		end(ch, n ? FP_END_ERROR : FP_END_CLOSED, error);
		return false;
	}
	to->end += (size_t)n;
	ch->bytes_in += (size_t)n;
	return n == READ_BYTES;
}

/* ---- in: frames ---- */

static bool is_lanes(const struct fp_channel *ch, size_t at, size_t len)
{
	return lane_is_mine(&ch->lane, ch->in.data + at + FRAME_HEAD, (uint32_t)(len - FRAME_HEAD));
}

/* The frame at @at; 0: it is not whole. */
static size_t next_frame(const struct fp_channel *ch, size_t at)
{
	return at == ch->in.end ? 0 : frame_len(ch->in.data + at, ch->in.end - at, ch->cfg.frame_max);
}

/*
 * What is at the front when this is asked has been left to control: by the lane, which may rest, or because no
 * lane takes it. What the lane would take behind it is not control's.
 */
size_t channel_ready(const struct fp_channel *ch, size_t cap)
{
	size_t at = ch->in.at, len;

	while ((len = next_frame(ch, at)) > 0) {
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
	while ((len = next_frame(ch, ch->in.at)) > FRAME_HEAD) {
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

/* Records, and their frames; and again where only the lane has made room for more of them. */
static bool take_what_came(struct fp_channel *ch, uint64_t now_ns)
{
	bool tell = false, full, more;

	do {
		full = open_records(ch);
		tell |= take_frames(ch, now_ns);
		more = full && bytes_held(&ch->in) < in_max(ch);
	} while (more);
	return tell;
}

static void put_batches(struct fp_channel *ch, uint64_t now_ns)
{
	const uint8_t *frame;
	uint32_t n;

	for (;;) {
		n = ch->ended ? 0 : lane_put(&ch->lane, &frame, now_ns);
		if (n == 0)
			return;
		channel_put(ch, TLS_DATA, frame, n);
		if (atomic_load(&ch->wanted)) /* a window is long */
			give_way(ch);
	}
}

void channel_pass(struct fp_channel *ch, bool readable)
{
	bool told = false;

	for (uint32_t turn = 0; turn < TURNS_MAX; turn++) {
		const uint64_t now_ns = clock_now();
		const bool more = readable && read_some(ch);

		if (take_what_came(ch, now_ns) && !told) {
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

/* @events: of the socket; none: not even that it has ended, which would wake us again and again. */
static short sleep_for(struct fp_channel *ch, short events, uint64_t wait_ns)
{
	struct pollfd fds[] = {
		{ .fd = ch->wake_fd, .events = POLLIN },
		{ .fd = ch->lane.awaited && !ch->ended ? ch->lane.dp->plane.changes_fd : -1,
		  .events = POLLIN },
		{ .fd = ch->ended || !events ? -1 : ch->cfg.fd, .events = events },
	};
	const struct timespec timeout = timespec_of(wait_ns);

	pthread_mutex_unlock(&ch->lock);
	while (atomic_load(&ch->wanted)) /* as give_way(): control may have come while we did not sleep */
		sched_yield();
	ppoll(fds, ARRAY_SIZE(fds), wait_ns == UINT64_MAX ? NULL : &timeout, NULL);
	pthread_mutex_lock(&ch->lock);
	if (fds[0].revents & POLLIN)
		eventfd_clear(ch->wake_fd);
	if (fds[1].revents & POLLIN && ch->lane.dp) {
		eventfd_clear(ch->lane.dp->plane.changes_fd);
		lane_rung(&ch->lane);
	}
	return fds[2].revents;
}

static short sending(const struct fp_channel *ch)
{
	return bytes_held(&ch->out) ? POLLOUT : 0;
}

/* Read what nobody wants any more, so that it is no unread byte; for a while. Return: as recv(). */
static ssize_t sink(int fd)
{
	uint8_t bytes[4096];
	ssize_t n = 1;

	for (uint32_t i = 0; i < SINK_TURNS && n > 0; i++)
		n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	return n;
}

/*
 * What waits is sent, then the peer is waited for: who closes on unread bytes may cost it our last word. Control
 * has forgotten us; nobody else looks.
 */
static void linger(struct fp_channel *ch)
{
	const int fd = ch->cfg.fd;
	bool shut = false, heard_all = false;

	while (!ch->ended) {
		const uint64_t now_ns = clock_now();
		const struct timespec timeout = timespec_of(ch->linger_ns - min_u64(now_ns, ch->linger_ns));
		struct pollfd wait = { .fd = fd };

		if (now_ns >= ch->linger_ns)
			return;
		flush(ch);
		if (!bytes_held(&ch->out) && !shut) {
			if (shutdown(fd, SHUT_WR))
				return;
			shut = true;
		}
		if (!heard_all) {
			const ssize_t n = sink(fd);

			if (n < 0 && errno != EAGAIN && errno != EINTR)
				return;
			heard_all = n == 0;
		}
		if (heard_all && shut)
			return;
		wait.events = (short)(sending(ch) | (heard_all ? 0 : POLLIN));
		ppoll(&wait, 1, &timeout, NULL);
	}
}

void *channel_run(void *arg)
{
	struct fp_channel *ch = arg;
	short revents = POLLIN;

	pthread_mutex_lock(&ch->lock);
	while (!ch->closing) {
		channel_pass(ch, revents & (POLLIN | POLLHUP | POLLERR));
		if (!ch->closing)
			revents = sleep_for(ch, (short)(sending(ch) | (wants_more(ch) ? POLLIN : 0)),
					    ch->ended ? UINT64_MAX : lane_wait_ns(&ch->lane, clock_now()));
	}
	pthread_mutex_unlock(&ch->lock);
	linger(ch);
	channel_free(ch);
	return NULL;
}
