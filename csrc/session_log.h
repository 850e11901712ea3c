/* SPDX-License-Identifier: Apache-2.0 */
/**
 * session_log.h - what rules with `log` have decided, on its way to the log of the control plane
 *
 * A core keeps a few lines until the shell takes them, and so many a second at most: a flood of openers must
 * not become a flood of log lines. What is left out is counted.
 */
#ifndef SESSION_LOG_H
#define SESSION_LOG_H

#include "policy.h"

enum { SESSION_LOG_SLOTS = 64, SESSION_LOG_PER_S = 500 };

/**
 * struct session_log - Lines that wait
 * @slots:  lines
 * @n:      how many
 * @due_ns: when the bucket of tokens, one a line, will be full again
 * @lost:   lines left out
 */
struct session_log {
	struct fp_session_log slots[SESSION_LOG_SLOTS];
	uint32_t n;
	uint64_t due_ns;
	counter lost;
};

/**
 * session_log_reserve() - Room for a line
 * Return: to be filled in, or NULL: it is too much.
 */
static inline struct fp_session_log *session_log_reserve(struct session_log *log, uint64_t now_ns)
{
	const uint64_t token_ns = NS_PER_S / SESSION_LOG_PER_S;
	const uint64_t due = max_u64(log->due_ns, now_ns) + token_ns;

	if (log->n == SESSION_LOG_SLOTS || due > now_ns + SESSION_LOG_SLOTS * token_ns) {
		counter_add(&log->lost, 1);
		return NULL;
	}
	log->due_ns = due;
	return &log->slots[log->n++];
}

#endif /* SESSION_LOG_H */
