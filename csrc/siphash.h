/* SPDX-License-Identifier: Apache-2.0 */
/**
 * siphash.h - SipHash-2-4 with a 64-bit tag: authenticates short messages (Aumasson and Bernstein, 2012)
 *
 * For messages between the nodes. The flow table's hash is another one (hash.h): faster, and no MAC.
 */
#ifndef SIPHASH_H
#define SIPHASH_H

#include "base.h"

enum { SIPHASH_KEY_LEN = 16 };

/**
 * siphash24() - The tag of @len bytes under @key
 * @key: SIPHASH_KEY_LEN bytes
 */
uint64_t siphash24(const uint8_t *key, const uint8_t *data, size_t len);

#endif /* SIPHASH_H */
