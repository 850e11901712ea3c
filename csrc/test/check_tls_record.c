/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_tls_record.c - the record layer: RFC 8448's records byte for byte, and what is no record
 *
 * Spec: R22
 */
#include <errno.h>

#include "../tls_record.h"
#include "check.h"

/* RFC 8448 section 3, "Simple 1-RTT Handshake": keys of the application traffic, and what is sent under them. */
static const struct fp_tls_keys client_keys = {
	.key = { 0x17, 0x42, 0x2d, 0xda, 0x59, 0x6e, 0xd5, 0xd9, 0xac, 0xd8, 0x90, 0xe3, 0xc6, 0x3f, 0x50,
		 0x51 },
	.iv = { 0x5b, 0x78, 0x92, 0x3d, 0xee, 0x08, 0x57, 0x90, 0x33, 0xe5, 0x23, 0xd9 },
};
static const struct fp_tls_keys server_keys = {
	.key = { 0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef, 0xc2, 0x6b, 0xb9, 0xf2, 0xac, 0x92, 0xe3,
		 0x56 },
	.iv = { 0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84 },
};
static const uint8_t client_data[72] = {
	0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94, 0xd0, 0xaf, 0xfa,
	0xfe, 0x82, 0x28, 0xba, 0x55, 0xcb, 0xef, 0xac, 0xea, 0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc,
	0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8, 0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20,
	0x44, 0x1e, 0x2b, 0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62, 0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd,
	0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4,
};
static const uint8_t server_data[72] = {
	0x17, 0x03, 0x03, 0x00, 0x43, 0x2e, 0x93, 0x7e, 0x11, 0xef, 0x4a, 0xc7, 0x40, 0xe5, 0x38,
	0xad, 0x36, 0x00, 0x5f, 0xc4, 0xa4, 0x69, 0x32, 0xfc, 0x32, 0x25, 0xd0, 0x5f, 0x82, 0xaa,
	0x1b, 0x36, 0xe3, 0x0e, 0xfa, 0xf9, 0x7d, 0x90, 0xe6, 0xdf, 0xfc, 0x60, 0x2d, 0xcb, 0x50,
	0x1a, 0x59, 0xa8, 0xfc, 0xc4, 0x9c, 0x4b, 0xf2, 0xe5, 0xf0, 0xa2, 0x1c, 0x00, 0x47, 0xc2,
	0xab, 0xf3, 0x32, 0x54, 0x0d, 0xd0, 0x32, 0xe1, 0x67, 0xc2, 0x95, 0x5d,
};
static const uint8_t client_alert[24] = { 0x17, 0x03, 0x03, 0x00, 0x13, 0xc9, 0x87, 0x27,
					  0x60, 0x65, 0x56, 0x66, 0xb7, 0x4d, 0x7f, 0xf1,
					  0x15, 0x3e, 0xfd, 0x6d, 0xb6, 0xd0, 0xb0, 0xe3 };
static const uint8_t server_alert[24] = { 0x17, 0x03, 0x03, 0x00, 0x13, 0xb5, 0x8f, 0xd6,
					  0x71, 0x66, 0xeb, 0xf5, 0x99, 0xd2, 0x47, 0x20,
					  0xcf, 0xbe, 0x7e, 0xfa, 0x7a, 0x88, 0x64, 0xa9 };
static const uint8_t close_notify[] = { 1, 0 };

/* With a first sequence number: the server's first record with these keys, of 0, carries a session ticket. */
static struct tls_half half(uint32_t suite, const struct fp_tls_keys *keys, uint64_t seq, bool seals)
{
	struct fp_tls_keys own = *keys;
	struct tls_half h = { .ctx = NULL };

	own.seq = seq;
	REQUIRE(tls_half_init(&h, suite, &own, seals) == 0);
	return h;
}

static void check_side(int n, const struct fp_tls_keys *keys, uint64_t seq, const uint8_t *data,
		       const uint8_t *alert)
{
	struct tls_half seal = half(FP_TLS_AES_128_GCM_SHA256, keys, seq, true);
	struct tls_half open = half(FP_TLS_AES_128_GCM_SHA256, keys, seq, false);
	uint8_t content[50], record[72], type = 0;

	for (uint32_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)i;
	CHECK_EQ(n, tls_seal(&seal, TLS_DATA, content, sizeof(content), record), 72);
	CHECK(n + 1, memcmp(record, data, 72) == 0);
	CHECK_EQ(n + 2, tls_record_len(record, 72), 72);
	CHECK_EQ(n + 3, tls_open(&open, record, 72, &type), 50);
	CHECK_EQ(n + 4, type, TLS_DATA);
	CHECK(n + 5, memcmp(record + TLS_HEADER, content, 50) == 0);
	CHECK_EQ(n + 6, tls_seal(&seal, TLS_ALERT, close_notify, 2, record), 24);
	CHECK(n + 7, memcmp(record, alert, 24) == 0);
	CHECK_EQ(n + 8, tls_open(&open, record, 24, &type), 2);
	CHECK_EQ(n + 9, type, TLS_ALERT);
	CHECK(n + 10, memcmp(record + TLS_HEADER, close_notify, 2) == 0);
	CHECK_EQ(n + 11, open.seq, seq + 2);
	CHECK_EQ(n + 12, seal.seq, seq + 2);
	tls_half_free(&seal);
	tls_half_free(&open);
}

/* Whatever bit of a record is changed, and wherever it is cut or sent again: it is not the peer's. */
static void check_tampering(void)
{
	struct tls_half open;
	uint8_t record[sizeof(client_data)], type;

	for (uint32_t i = 0; i < 8 * sizeof(record); i++) {
		memcpy(record, client_data, sizeof(record));
		record[i / 8] ^= (uint8_t)(1 << i % 8);
		open = half(FP_TLS_AES_128_GCM_SHA256, &client_keys, 0, false);
		CHECK_EQ(40, tls_open(&open, record, sizeof(record), &type), -EBADMSG);
		tls_half_free(&open);
	}
	for (uint32_t len = TLS_EXTRA; len < sizeof(record); len++) {
		memcpy(record, client_data, sizeof(record));
		record[4] = (uint8_t)(len - TLS_HEADER);
		open = half(FP_TLS_AES_128_GCM_SHA256, &client_keys, 0, false);
		CHECK_EQ(41, tls_open(&open, record, len, &type), -EBADMSG);
		tls_half_free(&open);
	}
	open = half(FP_TLS_AES_128_GCM_SHA256, &client_keys, 0, false);
	memcpy(record, client_data, sizeof(record));
	CHECK_EQ(42, tls_open(&open, record, sizeof(record), &type), 50);
	memcpy(record, client_data, sizeof(record));
	CHECK_EQ(43, tls_open(&open, record, sizeof(record), &type), -EBADMSG); /* replayed */
	tls_half_free(&open);
	open = half(FP_TLS_AES_128_GCM_SHA256, &client_keys, 1, false);
	memcpy(record, client_data, sizeof(record));
	CHECK_EQ(44, tls_open(&open, record, sizeof(record), &type), -EBADMSG); /* out of order */
	tls_half_free(&open);
	open = half(FP_TLS_AES_128_GCM_SHA256, &server_keys, 0, false);
	memcpy(record, client_data, sizeof(record));
	CHECK_EQ(45, tls_open(&open, record, sizeof(record), &type), -EBADMSG);
	tls_half_free(&open);
}

/* A record of any inner plaintext, which tls_seal() would not make: padding, nothing but padding, too much. */
static size_t seal_inner(const uint8_t *inner, size_t n, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	const size_t length = n + TLS_TAG;
	int got;

	memcpy(out, (uint8_t[]){ TLS_DATA, 3, 3, (uint8_t)(length >> 8), (uint8_t)length }, TLS_HEADER);
	REQUIRE(EVP_EncryptInit_ex(ctx, EVP_aes_128_gcm(), NULL, client_keys.key, client_keys.iv) == 1 &&
		EVP_EncryptUpdate(ctx, NULL, &got, out, TLS_HEADER) == 1 &&
		EVP_EncryptUpdate(ctx, out + TLS_HEADER, &got, inner, (int)n) == 1 &&
		EVP_EncryptFinal_ex(ctx, out + TLS_HEADER + n, &got) == 1 &&
		EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TLS_TAG, out + TLS_HEADER + n) == 1);
	EVP_CIPHER_CTX_free(ctx);
	return TLS_HEADER + length;
}

static ssize_t open_inner(const uint8_t *inner, size_t n, uint8_t *type)
{
	static uint8_t record[TLS_HEADER + TLS_LENGTH_MAX + 1];
	struct tls_half open = half(FP_TLS_AES_128_GCM_SHA256, &client_keys, 0, false);
	const ssize_t got = tls_open(&open, record, seal_inner(inner, n, record), type);

	CHECK(50, got < 0 || memcmp(record + TLS_HEADER, inner, (size_t)got) == 0);
	tls_half_free(&open);
	return got;
}

static void check_padding(void)
{
	static uint8_t inner[TLS_PLAIN_MAX + 200];
	uint8_t type = 0;

	memcpy(inner, (uint8_t[]){ 'h', 'i', 0, TLS_DATA }, 4);
	CHECK_EQ(51, open_inner(inner, 7, &type), 3);
	CHECK_EQ(52, type, TLS_DATA);
	CHECK_EQ(53, open_inner(inner, 4, &type), 3);
	CHECK_EQ(54, open_inner((const uint8_t *)"\x15\0\0", 3, &type), 0); /* empty, and padded */
	CHECK_EQ(55, type, TLS_ALERT);
	CHECK_EQ(56, open_inner((const uint8_t *)"\0\0\0", 3, &type), -EBADMSG); /* of no type */
	CHECK_EQ(57, open_inner(inner, TLS_PLAIN_MAX + 1, &type), 3); /* the most padding there may be */
	CHECK_EQ(58, open_inner(inner, TLS_PLAIN_MAX + 2, &type), -EBADMSG);
	memset(inner, 1, sizeof(inner));
	CHECK_EQ(59, open_inner(inner, TLS_PLAIN_MAX + 1, &type), TLS_PLAIN_MAX);
	CHECK_EQ(60, open_inner(inner, TLS_PLAIN_MAX + 2, &type), -EBADMSG);
}

/* What begins here is a record, or not yet, or never. */
static void check_lengths(void)
{
	uint8_t head[] = { TLS_DATA, 3, 3, 0, 17 };

	CHECK_EQ(70, tls_record_len(head, 0), 0);
	for (size_t n = 1; n < TLS_HEADER; n++)
		CHECK_EQ(71, tls_record_len(head, n), 0);
	CHECK_EQ(72, tls_record_len(head, TLS_HEADER), TLS_EXTRA);
	for (uint32_t length = 0; length <= UINT16_MAX; length++) {
		const bool fits = length > TLS_TAG && length <= TLS_LENGTH_MAX;

		head[3] = (uint8_t)(length >> 8);
		head[4] = (uint8_t)length;
		CHECK_EQ(73, tls_record_len(head, TLS_HEADER), fits ? (int)(TLS_HEADER + length) : -EBADMSG);
	}
	head[3] = 1;
	for (uint32_t type = 0; type <= UINT8_MAX; type++) {
		head[0] = (uint8_t)type;
		CHECK_EQ(74, tls_record_len(head, 1), type == TLS_DATA ? 0 : -EBADMSG); /* known at once */
	}
	head[0] = TLS_DATA;
	head[1] = 2;
	CHECK_EQ(75, tls_record_len(head, TLS_HEADER), -EBADMSG);
}

/* Every suite, every length near a bound, in place; the keys are updated in the middle. */
static void check_round_trip(uint32_t suite)
{
	static const uint32_t lengths[] = { 0, 1, 15, 16, 17, 4095, TLS_PLAIN_MAX - 1, TLS_PLAIN_MAX };
	static uint8_t content[TLS_PLAIN_MAX], record[TLS_PLAIN_MAX + TLS_EXTRA];
	struct fp_tls_keys keys = { .iv = { 1, 2, 3 }, .seq = UINT64_C(0xfffffffe) };
	struct tls_half seal = { .ctx = NULL }, open = { .ctx = NULL };
	uint8_t type;

	for (uint32_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)(i * 7 + (i >> 8));
	for (uint32_t update = 0; update < 3; update++) {
		memset(keys.key, 0x40 + (int)update, sizeof(keys.key));
		REQUIRE(tls_half_init(&seal, suite, &keys, true) == 0);
		REQUIRE(tls_half_init(&open, suite, &keys, false) == 0);
		for (uint32_t i = 0; i < ARRAY_SIZE(lengths); i++) {
			const size_t len = tls_seal(&seal, TLS_DATA, content, lengths[i], record);

			CHECK_EQ(80, len, lengths[i] + TLS_EXTRA);
			CHECK_EQ(81, tls_record_len(record, len), len);
			CHECK_EQ(82, tls_open(&open, record, len, &type), lengths[i]);
			CHECK(83, memcmp(record + TLS_HEADER, content, lengths[i]) == 0);
			CHECK_EQ(84, type, TLS_DATA);
		}
		CHECK_EQ(85, seal.seq, keys.seq + ARRAY_SIZE(lengths));
		keys.seq = 0;
	}
	tls_half_free(&seal);
	tls_half_free(&open);
	CHECK(86, seal.ctx == NULL);
}

/* The last number is never used; there is no suite but the three. */
static void check_numbers(void)
{
	struct tls_half seal = half(FP_TLS_AES_128_GCM_SHA256, &client_keys, UINT64_MAX - 1, true);
	struct tls_half open = half(FP_TLS_AES_128_GCM_SHA256, &client_keys, UINT64_MAX - 1, false);
	struct tls_half none = { .ctx = NULL };
	uint8_t record[32], again[32], type;
	const size_t len = tls_seal(&seal, TLS_DATA, close_notify, 2, record);

	memcpy(again, record, sizeof(again));
	CHECK_EQ(90, len, 24);
	CHECK_EQ(91, tls_seal(&seal, TLS_DATA, close_notify, 2, record), 0);
	CHECK_EQ(92, tls_open(&open, again, len, &type), 2);
	CHECK_EQ(93, tls_open(&open, again, len, &type), -EBADMSG);
	CHECK_EQ(94, open.seq, UINT64_MAX);
	tls_half_free(&seal);
	tls_half_free(&open);
	CHECK_EQ(95, tls_half_init(&none, FP_TLS_NONE, &client_keys, true), -EINVAL);
	CHECK_EQ(96, tls_half_init(&none, 0x1304, &client_keys, true), -EINVAL);
	CHECK(97, none.ctx == NULL);
}

static int late(const char *messages, size_t n)
{
	return tls_late_messages((const uint8_t *)messages, n);
}

static void check_late_messages(void)
{
	CHECK_EQ(110, late("\x18\0\0\1\0", 5), TLS_KEYS_UPDATED);
	CHECK_EQ(111, late("\x18\0\0\1\1", 5), TLS_KEYS_UPDATED | TLS_UPDATE_ASKED);
	CHECK_EQ(112, late("\x18\0\0\1\2", 5), -EBADMSG);
	CHECK_EQ(113, late("\x18\0\0\2\0\0", 6), -EBADMSG);
	CHECK_EQ(114, late("\x18\0\0\0", 4), -EBADMSG);
	CHECK_EQ(115, late("\4\0\0\3abc", 7), 0); /* a ticket */
	CHECK_EQ(116, late("\4\0\0\3abc\4\0\0\0\x18\0\0\1\1", 16), TLS_KEYS_UPDATED | TLS_UPDATE_ASKED);
	CHECK_EQ(117, late("\x18\0\0\1\0\4\0\0\0", 9), -EBADMSG); /* not at the end of its record */
	CHECK_EQ(118, late("\x18\0\0\1\0\x18\0\0\1\0", 10), -EBADMSG);
	CHECK_EQ(119,
		 late("\4\xff\xff\xff"
		      "abc",
		      7),
		 -EBADMSG); /* not whole */
	CHECK_EQ(120, late("\4\0\0", 3), -EBADMSG);
	CHECK_EQ(121, late("", 0), -EBADMSG);
	CHECK_EQ(122, late("\1\0\0\1x", 5), -EBADMSG); /* ClientHello */
	CHECK_EQ(123, late("\x0d\0\0\1x", 5), -EBADMSG);
}

int main(void)
{
	check_side(1, &client_keys, 0, client_data, client_alert);
	check_side(20, &server_keys, 1, server_data, server_alert);
	check_tampering();
	check_padding();
	check_lengths();
	check_round_trip(FP_TLS_AES_128_GCM_SHA256);
	check_round_trip(FP_TLS_AES_256_GCM_SHA384);
	check_round_trip(FP_TLS_CHACHA20_POLY1305_SHA256);
	check_numbers();
	check_late_messages();
	return check_done("tls record");
}
