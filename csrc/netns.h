/* SPDX-License-Identifier: Apache-2.0 */
/**
 * netns.h - visits to network namespaces: the calling thread's, so nobody else notices
 */
#ifndef NETNS_H
#define NETNS_H

/**
 * netns_enter() - Go to another network namespace
 * @path: of the namespace; "": stay; NULL: a new one without a name, which ends with its last socket
 * @home: set to what netns_leave() needs
 *
 * Return: 0, or -errno and nothing to leave.
 */
int netns_enter(const char *path, int *home);

/* netns_leave() - Come back */
void netns_leave(int home);

/* netns_open_here() - A descriptor of the namespace where the thread is, or -errno */
int netns_open_here(void);

#endif /* NETNS_H */
