/* SPDX-License-Identifier: Apache-2.0 */
/**
 * netns.c - visits to network namespaces
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <unistd.h>

#include "base.h"
#include "netns.h"

int netns_open_here(void)
{
	const int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int go(const char *path)
{
	int fd, rc;

	if (!path)
		return unshare(CLONE_NEWNET) ? -errno : 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = setns(fd, CLONE_NEWNET) ? -errno : 0;
	close(fd);
	return rc;
}

int netns_enter(const char *path, int *home)
{
	int rc;

	*home = -1;
	if (path && path[0] == '\0')
		return 0;
	*home = netns_open_here();
	if (*home < 0)
		return *home;
	rc = go(path);
	if (rc == 0)
		return 0;
	close(*home);
	*home = -1;
	return rc;
}

void netns_leave(int home)
{
	int rc;

	if (home < 0)
		return;
	rc = setns(home, CLONE_NEWNET);
	FP_ASSERT(rc ==
		  0); /* we were there; only an odd sandbox forbids the way back, and then all is lost */
	close(home);
}
