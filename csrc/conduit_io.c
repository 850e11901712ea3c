/* SPDX-License-Identifier: Apache-2.0 */
/**
 * conduit_io.c - the conduit's sockets, and how they are read and written
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "conduit.h"
#include "fence_look.h"
#include "gso.h"
#include "plane.h"

enum {
	RX_BUFFER = 8 << 20, /* what comes while the worker waits for a CPU */
	TX_BUFFER = 1 << 20,
	TOS_DSCP =
		0xfc /* RFC 6040 section 4.3: outside nothing is said of congestion, so nothing of it is lost */
};

/* ---- out ---- */

/* What was collected since the last look may not leave if the role or the lease has ended meanwhile. */
static enum fence_says look(const struct worker *w)
{
	return w->conduit_tx.fenced ? fence_look(&w->plane->fence) : FENCE_OPEN;
}

/* Each packet by a call of its own, while the fence is open, as it was just now; returns how many left. */
static uint32_t send_singly(struct worker *w, enum fence_says *says)
{
	const struct conduit_io *io = &w->plane->conduit;
	const struct conduit_tx *tx = &w->conduit_tx;
	uint32_t n = 0, calls = 0;

	for (uint32_t at = 0; at < tx->len; at += tx->size) {
		if (calls && calls % FP_TX_BURST == 0 && (*says = look(w)) != FENCE_OPEN)
			break;
		n += xc_send(io->tx[tx->shard], &io->peer, tx->room + at, min_u32(tx->size, tx->len - at), 0,
			     tx->tos) == 0;
		calls++;
	}
	counter_add(&w->conduit.tx_calls, calls);
	return n;
}

/* All by one call, where the kernel does that; returns how many left. */
static uint32_t send_together(struct worker *w, enum fence_says *says)
{
	struct conduit_io *io = &w->plane->conduit;
	const struct conduit_tx *tx = &w->conduit_tx;
	int rc;

	if (tx->n == 1 || !atomic_load_explicit(&io->cuts, memory_order_relaxed))
		return send_singly(w, says);
	rc = xc_send(io->tx[tx->shard], &io->peer, tx->room, tx->len, (uint16_t)tx->size, tx->tos);
	counter_add(&w->conduit.tx_calls, 1);
	if (rc != -EIO && rc != -EINVAL && rc != -EOPNOTSUPP)
		return rc ? 0 : tx->n;
	atomic_store_explicit(&io->cuts, false, memory_order_relaxed); /* a device that makes no checksums */
	return send_singly(w, says);
}

/* What has not left does not. It is not kept for the lease to be renewed: parts of a frame may have left already. */
static void drop(struct worker *w, enum fence_says says)
{
	struct conduit_tx *tx = &w->conduit_tx;

	for (uint32_t i = 0; i < tx->n_frames; i++) {
		tx->frames[i]->verdict = says == FENCE_EXPIRED ? V_LEASE : V_FENCED;
		counter_add(&w->ports[tx->frames[i]->out_port].tx_dropped, 1);
	}
}

static void send_collected(struct worker *w)
{
	struct conduit_tx *tx = &w->conduit_tx;
	enum fence_says says = FENCE_OPEN;
	const uint32_t sent = send_together(w, &says);

	counter_add(&w->conduit.tx_frames, sent);
	counter_add(&w->conduit.tx_bytes, sent == tx->n ? tx->len : sent * tx->size);
	counter_add(&w->conduit.tx_lost, tx->n - sent);
	if (says != FENCE_OPEN) {
		drop(w, says);
		return;
	}
	for (uint32_t i = 0; i < tx->n_frames && sent < tx->n; i++)
		tx->frames[i]->verdict = V_CONDUIT_FULL;
}

void conduit_flush(struct worker *w)
{
	struct conduit_tx *tx = &w->conduit_tx;
	enum fence_says says;

	if (tx->n == 0)
		return;
	says = look(w);
	if (says == FENCE_OPEN)
		send_collected(w);
	else
		drop(w, says);
	tx->len = tx->n = tx->n_frames = 0;
	tx->closed = false;
}

/* @frame: as on a wire; made of @whole. */
static void put(struct worker *w, const struct fp_frame *frame, struct fp_frame *whole)
{
	struct conduit_tx *tx = &w->conduit_tx;
	const uint32_t size = CONDUIT_LEN + frame->len;
	const uint8_t tos = frame->data[ETH_LEN + 1] & TOS_DSCP, shard = (uint8_t)whole->owner;

	if (tx->n && (tx->closed || tx->shard != shard || tx->tos != tos || tx->fenced != whole->fenced ||
		      size > tx->size || tx->n == CONDUIT_SEGMENTS || tx->len + size > CONDUIT_DATAGRAM_MAX))
		conduit_flush(w);
	if (tx->n == 0) {
		tx->size = size;
		tx->shard = shard;
		tx->tos = tos;
		tx->fenced = whole->fenced;
	}
	tx->closed = size < tx->size;
	conduit_header(&w->core, whole, tx->room + tx->len);
	memcpy(tx->room + tx->len + CONDUIT_LEN, frame->data, frame->len);
	tx->len += size;
	tx->n++;
	if (tx->n_frames == 0 || tx->frames[tx->n_frames - 1] != whole)
		tx->frames[tx->n_frames++] = whole;
}

void conduit_send(struct worker *w, struct fp_frame *frame)
{
	uint8_t room[FP_FRAME_MAX];
	struct fp_frame segment = { .data = room };
	struct gso_cut cut;

	if (!frame->vnet.gso_type) {
		if (frame->vnet.flags & FP_VNET_NEEDS_CSUM)
			gso_complete(frame);
		put(w, frame, frame);
		return;
	}
	if (!gso_cut_begin(&cut, frame)) {
		frame->verdict = V_CONDUIT_FULL;
		return;
	}
	while (gso_cut_next(&cut, &segment))
		put(w, &segment, frame);
}

/* ---- in ---- */

bool conduit_read(struct worker *w)
{
	struct conduit_rx *rx = &w->conduit_rx;
	uint32_t missed = (uint32_t)counter_read(&w->conduit.rx_missed);

	rx->n = xc_receive(w->plane->conduit.rx[w->index], &w->plane->cfg->pulse.xc_peer_addr, rx->datagrams,
			   &missed);
	rx->next = rx->at = 0;
	counter_set(&w->conduit.rx_missed, missed);
	counter_add(&w->conduit.rx_calls, 1);
	return rx->n == XC_BURST_MAX;
}

/* The next packet of what was read, in @frame; V_GO_ON or why not. */
static uint32_t take_one(struct worker *w, struct fp_frame *frame)
{
	struct conduit_rx *rx = &w->conduit_rx;
	const struct xc_datagram *d = &rx->datagrams[rx->next];
	const uint8_t *packet = d->data + rx->at;
	const uint32_t len = min_u32(d->size, d->len - rx->at);

	rx->at += len;
	if (rx->at == d->len) {
		rx->next++;
		rx->at = 0;
	}
	counter_add(&w->conduit.rx_frames, 1);
	counter_add(&w->conduit.rx_bytes, len);
	if (!d->is_from || d->ttl != CONDUIT_TTL)
		return V_CONDUIT_FOREIGN;
	return conduit_take(&w->core, packet, len, d->sport, frame);
}

uint32_t conduit_next(struct worker *w)
{
	struct conduit_rx *rx = &w->conduit_rx;
	uint32_t n = 0;

	while (rx->next < rx->n && n < FP_BURST_MAX) {
		const uint32_t verdict = take_one(w, &w->frames[n]);

		if (verdict == V_GO_ON)
			n++;
		else
			counter_add(&w->core.verdicts[verdict], 1);
	}
	return n;
}

/* ---- life ---- */

static int open_tx(struct conduit_io *io, const struct fp_pulse_cfg *cfg, uint32_t shard)
{
	const int fd = io->tx[shard] = xc_open(&cfg->xc_addr, (uint16_t)(CONDUIT_SPORT + shard), false);

	return fd < 0 ? fd : xc_sends(fd, addr_is_v4(&cfg->xc_addr), CONDUIT_TTL, TX_BUFFER);
}

static int open_rx(struct conduit_io *io, const struct fp_pulse_cfg *cfg, uint32_t n_workers)
{
	/* A process of the same user could share the port with us: see that none does, before we share it. */
	const int alone = xc_open(&cfg->xc_addr, cfg->conduit_port, false);
	int rc = 0;

	if (alone < 0)
		return alone;
	close(alone);
	for (uint32_t i = 0; i < n_workers && rc == 0; i++) {
		const int fd = io->rx[i] = xc_open(&cfg->xc_addr, cfg->conduit_port, true);

		rc = fd < 0 ? fd : xc_receives(fd, addr_is_v4(&cfg->xc_addr), RX_BUFFER);
	}
	return rc ? rc : xc_steer(io->rx[0], CONDUIT_SHARD_AT, n_workers);
}

void conduit_init(struct conduit_io *io)
{
	memset(io->rx, 0xff, sizeof(io->rx));
	memset(io->tx, 0xff, sizeof(io->tx));
}

int conduit_open(struct conduit_io *io, const struct fp_config *cfg, struct fp_error *err)
{
	const struct fp_pulse_cfg *pulse = &cfg->pulse;
	uint32_t port = pulse->conduit_port;
	int rc = 0;

	if (addr_is_zero(&pulse->xc_addr) || pulse->conduit_port == 0)
		return 0;
	atomic_store(&io->cuts, true);
	io->peer.len = xc_sockaddr(&pulse->xc_peer_addr, pulse->conduit_port, &io->peer.to);
	for (uint32_t i = 0; i < FP_SHARDS && rc == 0; i++) {
		rc = open_tx(io, pulse, i);
		port = rc ? CONDUIT_SPORT + i : port;
	}
	if (rc == 0)
		rc = open_rx(io, pulse, cfg->n_workers);
	if (rc)
		snprintf(err->text, sizeof(err->text), "conduit's socket on xc, UDP port %u: %s", port,
			 strerror(-rc));
	return rc;
}

void conduit_close(struct conduit_io *io)
{
	for (uint32_t i = 0; i < FP_WORKERS_MAX; i++) {
		if (io->rx[i] >= 0)
			close(io->rx[i]);
	}
	for (uint32_t i = 0; i < FP_SHARDS; i++) {
		if (io->tx[i] >= 0)
			close(io->tx[i]);
	}
}

int conduit_worker_open(struct worker *w)
{
	uint8_t *room;

	if (w->plane->conduit.rx[w->index] < 0)
		return 0;
	w->conduit_tx.room = malloc(XC_DATAGRAM_MAX);
	w->conduit_rx.room = room = malloc((size_t)XC_BURST_MAX * XC_DATAGRAM_MAX);
	if (!w->conduit_tx.room || !room)
		return -ENOMEM;
	for (uint32_t i = 0; i < XC_BURST_MAX; i++)
		w->conduit_rx.datagrams[i].data = room + (size_t)i * XC_DATAGRAM_MAX;
	return 0;
}

void conduit_worker_close(struct worker *w)
{
	free(w->conduit_tx.room);
	free(w->conduit_rx.room);
}
