/* SPDX-License-Identifier: Apache-2.0 */
/**
 * csum.c - the Internet checksum
 */
#include "csum.h"

uint64_t csum_sum(const uint8_t *data, uint32_t len)
{
	uint64_t sum = 0;

	/* 32-bit words in a 64-bit sum: no carry to look after, and the compiler vectorises it. */
	for (; len >= 4; data += 4, len -= 4)
		sum += be32_load(data).raw;
	if (len >= 2) {
		sum += be16_load(data).raw;
		data += 2;
		len -= 2;
	}
	if (len)
		sum += data[0]; /* padded with a zero byte behind it; little-endian */
	return sum;
}
