/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_csum.c - the Internet checksum against a slow and obvious one
 */
#include "../csum.h"
#include "check.h"

static uint16_t slow_sum(const uint8_t *data, uint32_t len)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < len; i++)
		sum += (uint32_t)data[i] << (i & 1 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void check_whole(void)
{
	/* RFC 1071 section 3: the sum of these bytes is ddf2. */
	static const uint8_t rfc1071[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };
	static uint8_t big[65535];

	CHECK_EQ(1, be16_host((be16){ csum_fold(csum_sum(rfc1071, sizeof(rfc1071))) }), 0xddf2);
	CHECK_EQ(2, csum_fold(csum_sum(rfc1071, 0)), 0);
	for (uint32_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 31 + (i >> 8));
	for (uint32_t len = 0; len < 70; len++)
		CHECK_EQ(3, be16_host((be16){ csum_fold(csum_sum(big + 3, len)) }), slow_sum(big + 3, len));
	CHECK_EQ(4, be16_host((be16){ csum_fold(csum_sum(big, sizeof(big))) }), slow_sum(big, sizeof(big)));
	memset(big, 0xff, sizeof(big));
	CHECK_EQ(5, csum_fold(csum_sum(big, 65534)), 0xffff);
	CHECK_EQ(6, csum_fold(UINT64_MAX), 0xffff);
}

static void check_incremental(void)
{
	uint8_t data[20] = { 0x45, 0, 0, 60, 0x1c, 0x46, 0x40, 0, 64, 6, 0, 0, 10, 1, 2, 3, 192, 0, 2, 1 };

	for (uint32_t i = 0; i < 70000; i++) {
		be16 sum = { (uint16_t)~csum_fold(csum_sum(data, sizeof(data))) }, want;
		be32 old = be32_load(data + 12), new = be32_of(i * 2654435761u);
		be16 old_word = be16_load(data + 4), new_word = be16_of((uint16_t)i);

		be32_store(data + 12, new);
		be16_store(data + 4, new_word);
		want.raw = (uint16_t)~csum_fold(csum_sum(data, sizeof(data)));
		sum = csum_update(sum, csum_delta32(old, new) + csum_delta16(old_word, new_word));
		if (sum.raw != want.raw) /* one line of output, not 70,000 */
			CHECK_EQ(10, sum.raw, want.raw);
	}
	/* RFC 1624 section 4: HC = dd2f, m = 5555, m' = 3285 gives 0000. */
	CHECK_EQ(11, csum_update(be16_of(0xdd2f), csum_delta16(be16_of(0x5555), be16_of(0x3285))).raw, 0);
	/* Spec: RFC 768: that zero is sent as all ones, and "no checksum" stays none. */
	CHECK_EQ(12, csum_update_udp(be16_of(0xdd2f), csum_delta16(be16_of(0x5555), be16_of(0x3285))).raw,
		 0xffff);
	CHECK_EQ(13, csum_update_udp(be16_of(0), csum_delta16(be16_of(1), be16_of(2))).raw, 0);
}

int main(void)
{
	check_whole();
	check_incremental();
	return check_done("csum");
}
