/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tls_record.c - the record layer of TLS 1.3
 */
#include <errno.h>

#include "tls_record.h"

static const EVP_CIPHER *cipher_of(uint32_t suite)
{
	switch (suite) {
	case FP_TLS_AES_128_GCM_SHA256: return EVP_aes_128_gcm();
	case FP_TLS_AES_256_GCM_SHA384: return EVP_aes_256_gcm();
	case FP_TLS_CHACHA20_POLY1305_SHA256: return EVP_chacha20_poly1305();
	default: return NULL;
	}
}

int tls_half_init(struct tls_half *h, uint32_t suite, const struct fp_tls_keys *keys, bool seals)
{
	const EVP_CIPHER *cipher = cipher_of(suite);

	if (!cipher)
		return -EINVAL;
	if (!h->ctx)
		h->ctx = EVP_CIPHER_CTX_new();
	if (!h->ctx)
		return -ENOMEM;
	memcpy(h->iv, keys->iv, sizeof(h->iv));
	h->seq = keys->seq;
	h->seals = seals;
	return EVP_CipherInit_ex(h->ctx, cipher, NULL, keys->key, NULL, seals) == 1 ? 0 : -ENOMEM;
}

void tls_half_free(struct tls_half *h)
{
	EVP_CIPHER_CTX_free(h->ctx); /* which forgets the key */
	h->ctx = NULL;
}

/* §5.3: the number of the record, as a big-endian one at the end of the static one. */
static bool begin(struct tls_half *h, const uint8_t *header)
{
	uint8_t nonce[sizeof(h->iv)];
	int n;

	if (h->seq == UINT64_MAX)
		return false;
	memcpy(nonce, h->iv, sizeof(nonce));
	for (uint32_t i = 0; i < 8; i++)
		nonce[sizeof(nonce) - 1 - i] ^= (uint8_t)(h->seq >> (8 * i));
	h->seq++;
	return EVP_CipherInit_ex(h->ctx, NULL, NULL, NULL, nonce, h->seals) == 1 &&
	       EVP_CipherUpdate(h->ctx, NULL, &n, header, TLS_HEADER) == 1;
}

size_t tls_seal(struct tls_half *h, uint8_t type, const uint8_t *in, size_t n, uint8_t *out)
{
	const size_t inner = n + 1, length = inner + TLS_TAG;
	uint8_t *body = out + TLS_HEADER;
	int got;

	FP_ASSERT(h->seals && n <= TLS_PLAIN_MAX);
	out[0] = TLS_DATA;
	out[1] = 3;
	out[2] = 3;
	out[3] = (uint8_t)(length >> 8);
	out[4] = (uint8_t)length;
	if (!begin(h, out))
		return 0;
	if (n && EVP_CipherUpdate(h->ctx, body, &got, in, (int)n) != 1)
		return 0;
	if (EVP_CipherUpdate(h->ctx, body + n, &got, &type, 1) != 1 ||
	    EVP_CipherFinal_ex(h->ctx, body + inner, &got) != 1 ||
	    EVP_CIPHER_CTX_ctrl(h->ctx, EVP_CTRL_AEAD_GET_TAG, TLS_TAG, body + inner) != 1)
		return 0;
	return TLS_HEADER + length;
}

ssize_t tls_record_len(const uint8_t *at, size_t n)
{
	size_t length;

	if (n >= 1 && at[0] != TLS_DATA)
		return -EBADMSG; /* nothing else is in the clear behind a handshake */
	if (n < TLS_HEADER)
		return 0;
	length = (size_t)at[3] << 8 | at[4];
	if (at[1] != 3 || length < 1 + TLS_TAG || length > TLS_LENGTH_MAX)
		return -EBADMSG;
	return (ssize_t)(TLS_HEADER + length);
}

ssize_t tls_open(struct tls_half *h, uint8_t *record, size_t len, uint8_t *type)
{
	uint8_t *body = record + TLS_HEADER;
	size_t n;
	int got;

	FP_ASSERT(!h->seals && len >= TLS_EXTRA);
	n = len - TLS_HEADER - TLS_TAG;
	if (n > TLS_PLAIN_MAX + 1)
		return -EBADMSG; /* §5.4: padding, too, is within the bound */
	if (!begin(h, record) || EVP_CipherUpdate(h->ctx, body, &got, body, (int)n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(h->ctx, EVP_CTRL_AEAD_SET_TAG, TLS_TAG, body + n) != 1 ||
	    EVP_CipherFinal_ex(h->ctx, body + n, &got) != 1)
		return -EBADMSG;
	while (n && body[n - 1] == 0) /* §5.4: padding */
		n--;
	if (n == 0)
		return -EBADMSG;
	*type = body[n - 1];
	return (ssize_t)(n - 1);
}

int tls_late_messages(const uint8_t *at, size_t n)
{
	enum { HEAD = 4, SESSION_TICKET = 4, KEY_UPDATE = 24 };
	int said = 0;

	if (n == 0)
		return -EBADMSG; /* §5.1 */
	while (n) {
		size_t len;

		if (n < HEAD)
			return -EBADMSG;
		len = (size_t)at[1] << 16 | (size_t)at[2] << 8 | at[3];
		if (len > n - HEAD)
			return -EBADMSG;
		if (at[0] == KEY_UPDATE && len == 1 && at[HEAD] <= 1 && n == HEAD + 1)
			/* §5.1: it ends a record, for the next one has other keys. */
			said |= TLS_KEYS_UPDATED | (at[HEAD] ? TLS_UPDATE_ASKED : 0);
		else if (at[0] != SESSION_TICKET)
			return -EBADMSG;
		at += HEAD + len;
		n -= HEAD + len;
	}
	return said;
}
