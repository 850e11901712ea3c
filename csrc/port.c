/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port.c - what every driver leaves to us: frames for a way out that takes no offload frames
 */
#include <errno.h>

#include "fence.h"
#include "gso.h"
#include "port.h"

static int tx_segments(struct chan *ch, const struct fp_frame *frame, const struct fence *fence)
{
	uint8_t room[FP_FRAME_MAX];
	struct fp_frame seg = { .data = room };
	struct gso_cut cut;

	if (!gso_cut_begin(&cut, frame))
		return -EPROTONOSUPPORT;
	while (gso_cut_next(&cut, &seg)) {
		int rc;

		if (fence && cut.n > 1 && (cut.n - 1) % FP_TX_BURST == 0 && !fence_is_active(fence))
			return -ECANCELED;
		rc = ch->ops->tx(ch, &seg);
		if (rc) /* the queue is full: the rest would be lost as well */
			return rc;
	}
	return (int)cut.n;
}

int port_tx(struct chan *ch, struct fp_frame *frame, const struct fence *fence)
{
	int rc;

	if (!ch->vnet && !gso_is_plain(frame)) {
		if (frame->vnet.gso_type)
			return tx_segments(ch, frame, fence);
		gso_complete(frame);
	}
	rc = ch->ops->tx(ch, frame);
	return rc ? rc : 1;
}
