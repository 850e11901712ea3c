/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fp_api_channel.c - the boundary: the sync connection
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "channel.h"
#include "clock.h"

static int start(struct fp_channel *ch)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int rc;

	/* Threads inherit the mask: signals are for the control thread, whose event loop waits for them. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&ch->thread, &attr, channel_run, ch);
	if (rc == 0)
		pthread_setname_np(ch->thread, "fx-channel");
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -rc;
}

int fp_channel_open(fp_dp *dp, const struct fp_channel_cfg *cfg, const uint8_t *plain, uint32_t n_plain,
		    const uint8_t *rest, uint32_t n_rest, fp_channel **out)
{
	struct fp_channel *ch;
	int rc;

	if (!cfg || !out || (n_plain && !plain) || (n_rest && !rest))
		return -EINVAL;
	rc = channel_make(dp, cfg, plain, n_plain, rest, n_rest, &ch);
	if (rc)
		return rc;
	ch->cfg.fd = cfg->fd;
	rc = start(ch);
	if (rc) {
		ch->cfg.fd = -1; /* it is still the caller's */
		channel_free(ch);
		return rc;
	}
	*out = ch;
	return 0;
}

int fp_channel_fd(const fp_channel *ch)
{
	return ch ? ch->tell_fd : -EINVAL;
}

int64_t fp_channel_send(fp_channel *ch, const uint8_t *data, uint32_t n)
{
	int64_t rc;

	if (!ch || (n && !data))
		return -EINVAL;
	channel_lock(ch);
	rc = channel_put(ch, TLS_DATA, data, n);
	if (rc == 0)
		rc = (int64_t)(ch->out.end - ch->out.at);
	if (rc > 0)
		channel_wake(ch); /* to look when the socket takes more */
	channel_unlock(ch);
	return rc;
}

int fp_channel_take(fp_channel *ch, uint8_t *out, uint32_t cap)
{
	size_t n;

	if (!ch || !out)
		return -EINVAL;
	if (cap < ch->cfg.frame_max + FRAME_HEAD)
		return -ENOBUFS;
	channel_lock(ch);
	n = channel_ready(ch, min_u32(cap, CHANNEL_TAKE));
	if (n)
		memcpy(out, ch->in.data + ch->in.at, n);
	ch->in.at += n;
	ch->lane.held = true;
	channel_unlock(ch);
	return (int)n;
}

int fp_channel_hold(fp_channel *ch, struct fp_lane_state *out)
{
	if (!ch || !out)
		return -EINVAL;
	channel_lock(ch);
	lane_hold(&ch->lane, out);
	channel_unlock(ch);
	return 0;
}

int fp_channel_sent(fp_channel *ch, struct fp_sent *out, uint8_t *frame, uint32_t cap)
{
	int rc;

	if (!ch || !out || !frame)
		return -EINVAL;
	channel_lock(ch);
	rc = lane_sent(&ch->lane, out, frame, cap);
	channel_unlock(ch);
	return rc;
}

int fp_channel_part(fp_channel *ch, uint16_t *places, uint32_t cap, uint32_t *absurd)
{
	const struct lane *l;
	uint32_t n = 0;

	if (!ch || !places || !absurd)
		return -EINVAL;
	*absurd = 0;
	channel_lock(ch);
	l = &ch->lane;
	for (uint32_t i = 0; i < l->st.part_n && n < cap; i++) {
		if (l->rec[i].fate == 0)
			continue;
		*absurd += l->rec[i].fate == FP_ABSURD;
		places[n++] = (uint16_t)i;
	}
	channel_unlock(ch);
	return (int)n;
}

int fp_channel_resume(fp_channel *ch, const struct fp_lane_state *in, const struct fp_sent *window,
		      uint32_t n)
{
	int rc;

	if (!ch || !in || (n && !window))
		return -EINVAL;
	channel_lock(ch);
	rc = lane_resume(&ch->lane, in, window, n);
	channel_wake(ch);
	channel_unlock(ch);
	return rc;
}

/* The peer learns of ours by a message under the old key (RFC 8446 §4.6.3); it is not asked to follow. */
int fp_channel_rekey(fp_channel *ch, const struct fp_tls_keys *in, const struct fp_tls_keys *out)
{
	static const uint8_t update[] = { 24, 0, 0, 1, 0 };
	int rc = 0;

	if (!ch || ch->cfg.suite == FP_TLS_NONE)
		return -EINVAL;
	channel_lock(ch);
	if (in) {
		rc = tls_half_init(&ch->read, ch->cfg.suite, in, false);
		ch->asks &= ~(uint32_t)FP_ASK_KEYS_IN;
	}
	if (out && rc == 0)
		rc = channel_put(ch, TLS_HANDSHAKE, update, sizeof(update));
	if (out && rc == 0) {
		rc = tls_half_init(&ch->seal, ch->cfg.suite, out, true);
		ch->asks &= ~(uint32_t)FP_ASK_KEYS_OUT;
	}
	channel_wake(ch);
	channel_unlock(ch);
	return rc;
}

int fp_channel_stats_read(fp_channel *ch, struct fp_channel_stats *out)
{
	if (!ch || !out)
		return -EINVAL;
	channel_lock(ch);
	*out = (struct fp_channel_stats){
		.bytes_in = ch->bytes_in,
		.bytes_out = ch->bytes_out,
		.unsent = ch->out.end - ch->out.at,
		.ended = ch->ended,
		.error = ch->error,
		.asks = ch->asks | ch->lane.asks,
		.ready = (uint32_t)channel_ready(ch, CHANNEL_TAKE),
	};
	channel_unlock(ch);
	return 0;
}

void fp_channel_close(fp_channel *ch, uint32_t linger_ms)
{
	static const uint8_t close_notify[] = { 1, 0 };

	if (!ch)
		return;
	channel_lock(ch);
	lane_free(&ch->lane); /* from here on the thread knows of no sessions */
	if (linger_ms && ch->seal.ctx)
		channel_put(ch, TLS_ALERT, close_notify, sizeof(close_notify));
	if (!linger_ms && !ch->ended) /* cut: the peer is told so at once */
		setsockopt(ch->cfg.fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 },
			   sizeof(struct linger));
	/* It will neither seal nor open any more; and libcrypto may clean up before a thread that lingers ends. */
	tls_half_free(&ch->seal);
	tls_half_free(&ch->read);
	ch->linger_ns = clock_now() + linger_ms * NS_PER_MS;
	ch->closing = true;
	channel_wake(ch);
	channel_unlock(ch);
}
