/* SPDX-License-Identifier: Apache-2.0 */
/**
 * validate.h - what fp_open() refuses before anything is made
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

#endif /* VALIDATE_H */
