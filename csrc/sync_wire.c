/* SPDX-License-Identifier: Apache-2.0 */
/**
 * sync_wire.c - frames of the sync connection
 */
#include "sync_wire.h"

static const uint8_t batch_seq[] = { 0x83, 0xa1, 't', 0xa5, 'b', 'a', 't', 'c', 'h', 0xa3, 's', 'e', 'q' };
static const uint8_t parts[] = { 0xa5, 'p', 'a', 'r', 't', 's' };
static const uint8_t ack_seq[] = { 0x82, 0xa1, 't', 0xa3, 'a', 'c', 'k', 0xa3, 's', 'e', 'q' };

enum { NUMBER_MAX = 9 };

static_assert(FRAME_HEAD + sizeof(ack_seq) + NUMBER_MAX <= LANE_ACK_MAX, "an acknowledgement");
static_assert(FRAME_HEAD + sizeof(batch_seq) + NUMBER_MAX + sizeof(parts) <= LANE_HEAD_MAX, "a batch");

size_t frame_len(const uint8_t *at, size_t n, uint32_t max)
{
	uint32_t len;

	if (n < FRAME_HEAD)
		return 0;
	len = be32_host(be32_load(at));
	if (len == 0 || len > max)
		return FRAME_HEAD;
	return n - FRAME_HEAD < len ? 0 : (size_t)FRAME_HEAD + len;
}

static uint32_t put_number(uint8_t *p, uint64_t value)
{
	const uint32_t bytes = value < 0x80          ? 0
			       : value <= UINT8_MAX  ? 1
			       : value <= UINT16_MAX ? 2
			       : value <= UINT32_MAX ? 4
						     : 8;

	if (bytes == 0) {
		*p = (uint8_t)value;
		return 1;
	}
	*p = (uint8_t)(0xcc + __builtin_ctz(bytes));
	for (uint32_t i = 0; i < bytes; i++)
		p[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
	return 1 + bytes;
}

/* Bytes read, or 0: it is none, or not whole. */
static uint32_t get_number(const uint8_t *p, uint32_t n, uint64_t *value)
{
	uint32_t bytes;

	if (n == 0)
		return 0;
	*value = p[0];
	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xcc || p[0] > 0xcf)
		return 0;
	bytes = UINT32_C(1) << (p[0] - 0xcc);
	if (n < 1 + bytes)
		return 0;
	*value = 0;
	for (uint32_t i = 1; i <= bytes; i++)
		*value = *value << 8 | p[i];
	return 1 + bytes;
}

static bool begins(const uint8_t *p, uint32_t n, const uint8_t *with, uint32_t len)
{
	return n >= len && memcmp(p, with, len) == 0;
}

bool wire_read_ack(const uint8_t *payload, uint32_t n, uint64_t *seq)
{
	uint32_t len;

	if (!begins(payload, n, ack_seq, sizeof(ack_seq)))
		return false;
	len = get_number(payload + sizeof(ack_seq), n - (uint32_t)sizeof(ack_seq), seq);
	return len && sizeof(ack_seq) + len == n;
}

uint32_t wire_read_batch(const uint8_t *payload, uint32_t n, uint64_t *seq)
{
	uint32_t at = sizeof(batch_seq), len;

	if (!begins(payload, n, batch_seq, sizeof(batch_seq)))
		return 0;
	len = get_number(payload + at, n - at, seq);
	if (len == 0 || !begins(payload + at + len, n - at - len, parts, sizeof(parts)))
		return 0;
	return at + len + (uint32_t)sizeof(parts);
}

uint32_t wire_put_ack(uint8_t *out, uint64_t seq)
{
	uint32_t n = sizeof(ack_seq);

	memcpy(out + FRAME_HEAD, ack_seq, sizeof(ack_seq));
	n += put_number(out + FRAME_HEAD + n, seq);
	be32_store(out, be32_of(n));
	return FRAME_HEAD + n;
}

uint32_t wire_put_batch(uint8_t *out, uint64_t seq, uint32_t used)
{
	uint8_t *p = out + FRAME_HEAD;

	memcpy(p, batch_seq, sizeof(batch_seq));
	p += sizeof(batch_seq);
	p += put_number(p, seq);
	memcpy(p, parts, sizeof(parts));
	p += sizeof(parts);
	be32_store(out, be32_of((uint32_t)(p - out) - FRAME_HEAD + used));
	return (uint32_t)(p - out);
}
