/* SPDX-License-Identifier: Apache-2.0 */
/**
 * xc_watch.h - whether the cross-connect's device has its carrier, without Python's help
 *
 * The kernel says over netlink that some link has changed; what of ours has become is then asked of the device, by
 * name, so that one which was made anew is found as well, and a message that got lost does no harm.
 */
#ifndef XC_WATCH_H
#define XC_WATCH_H

#include "base.h"

/**
 * struct xc_watch - One device
 * @fd:     netlink socket; readable when a link has changed. -1: there is none
 * @name:   of the device
 * @up:     as it was found last
 */
struct xc_watch {
	int fd;
	char name[FP_NAME_MAX];
	bool up;
};

/**
 * xc_watch_open() - Begin to watch a device of this network namespace
 * Return: 0 or -errno.
 */
int xc_watch_open(struct xc_watch *w, const char *name);
void xc_watch_close(struct xc_watch *w);

/**
 * xc_watch_lost() - Take what the kernel has said, and look
 * Return: true if the device has lost its carrier, or is gone, since this was asked last.
 */
bool xc_watch_lost(struct xc_watch *w);

#endif /* XC_WATCH_H */
