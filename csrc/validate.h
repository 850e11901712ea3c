/* SPDX-License-Identifier: Apache-2.0 */
/**
 * validate.h - what fp_open() and fp_policy_commit() refuse before anything is made
 */
#ifndef VALIDATE_H
#define VALIDATE_H

#include "base.h"

/**
 * validate_config() - Check every value that the data plane relies on
 *
 * Return: 0, or -EINVAL with the member and the reason in @err.
 */
int validate_config(const struct fp_config *cfg, struct fp_error *err);

/**
 * validate_policy() - Check what fp_policy_commit() is given
 * @node: its ports and pools
 *
 * Return: 0, or -EINVAL with the member and the reason in @err.
 */
int validate_policy(const struct fp_policy_cfg *cfg, const struct fp_config *node, struct fp_error *err);

#endif /* VALIDATE_H */
