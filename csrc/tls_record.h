/* SPDX-License-Identifier: Apache-2.0 */
/**
 * tls_record.h - the record layer of TLS 1.3 (RFC 8446 §5), once a handshake elsewhere has made the keys
 *
 * The handshake, and with it who the peer is, is the business of Python's ssl (flexha/shell/tls.py); the cipher
 * is libcrypto's. Here a record is sealed and opened in place, and the sequence numbers count. One half has one
 * key and one direction; not thread-safe.
 */
#ifndef TLS_RECORD_H
#define TLS_RECORD_H

#include <openssl/evp.h>

#include "base.h"

enum {
	TLS_HEADER = 5,
	TLS_TAG = 16,
	TLS_PLAIN_MAX = 16384,
	TLS_EXTRA = TLS_HEADER + 1 + TLS_TAG, /* what a record has beside its content */
	TLS_LENGTH_MAX = TLS_PLAIN_MAX + 256, /* §5.2: of what follows the header */
};

enum tls_type { TLS_CHANGE_CIPHER_SPEC = 20, TLS_ALERT = 21, TLS_HANDSHAKE = 22, TLS_DATA = 23 };

/**
 * struct tls_half - One direction of a connection
 * @ctx:   the cipher with its key; NULL: in the clear, nothing below is called
 * @iv:    the static one (§5.3)
 * @seq:   number of the next record
 * @seals: ... which is written; else read
 */
struct tls_half {
	EVP_CIPHER_CTX *ctx;
	uint8_t iv[12];
	uint64_t seq;
	bool seals;
};

/**
 * tls_half_init() - Take the keys of a direction; again, for those of a key update
 * @h:     zeroed, or initialized
 * @suite: enum fp_suite
 * Return: 0, -EINVAL for a suite that is not known, or -ENOMEM.
 */
int tls_half_init(struct tls_half *h, uint32_t suite, const struct fp_tls_keys *keys, bool seals);

void tls_half_free(struct tls_half *h);

/**
 * tls_seal() - Make a record
 * @n:   at most TLS_PLAIN_MAX
 * @out: room for @n + TLS_EXTRA bytes
 * Return: its length; 0 if the cipher failed, or no number is left.
 */
size_t tls_seal(struct tls_half *h, uint8_t type, const uint8_t *in, size_t n, uint8_t *out);

/**
 * tls_record_len() - Length of the record that begins here, header included
 * @n: bytes that are there
 * Return: 0 until the header is whole, -EBADMSG if it is none (§5.1).
 */
ssize_t tls_record_len(const uint8_t *at, size_t n);

/**
 * tls_open() - Decrypt a whole record in place
 * @type: what it is, by its end
 * Return: how many bytes of content now stand behind its header; -EBADMSG: not the peer's, or changed on its way.
 */
ssize_t tls_open(struct tls_half *h, uint8_t *record, size_t len, uint8_t *type);

enum tls_late { TLS_KEYS_UPDATED = 1, TLS_UPDATE_ASKED = 2 };

/**
 * tls_late_messages() - What a record says of a handshake that is long over (RFC 8446 §4.6)
 * @n: its content, whole messages
 *
 * A ticket is of no use to us, and passed over.
 * Return: enum tls_late, or -EBADMSG: nothing that a peer may say then.
 */
int tls_late_messages(const uint8_t *at, size_t n);

#endif /* TLS_RECORD_H */
