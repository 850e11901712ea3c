/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_conduit.c - whatever comes by the cross-connect, in any role: taken apart, stepped, and handed over
 *
 * The input is a list of packets: a byte (bits 0-1: role, bit 2: from a wire, to be handed over, bit 3: the term,
 * pair and source port are right), u16 length (big-endian), then its bytes.
 */
#include "../conduit.h"
#include "rig.h"

enum { PACKETS_MAX = 64 };

static struct rig *r;

static const uint32_t roles[] = { FP_ROLE_ACTIVE, FP_ROLE_PASSIVE, FP_ROLE_JOINING, FP_ROLE_FAULT };

static void make_rig(void)
{
	r = rig_active();
	r->cfg.pulse.pair_id = 0x00abcdef;
	r->core.conduit = conduit_orders(true, 4, 1, 0, 0);
}

/* What a sender that means well would have there. */
static uint32_t mend(uint8_t *packet, uint32_t len)
{
	static const uint8_t head[] = { 3, 0x40, 0x65, 0x58, 0xab, 0xcd, 0xef, 0, 0xff, 0xf7, 0x81, 2 };

	if (len < CONDUIT_LEN)
		return 0;
	memcpy(packet, head, sizeof(head));
	be32_store(packet + 16, be32_of((uint32_t)r->core.term));
	return CONDUIT_SPORT + (uint32_t)packet[CONDUIT_SHARD_AT];
}

static void from_peer(uint8_t *packet, uint32_t len, bool mended)
{
	const uint32_t sport = mended ? mend(packet, len) : CONDUIT_SPORT;
	struct fp_frame f = { .data = r->data };
	const uint32_t verdict = conduit_take(&r->core, packet, len, sport, &f);

	REQUIRE(verdict <= V_GO_ON);
	if (verdict != V_GO_ON)
		return;
	REQUIRE(f.len <= FP_FRAME_MAX && f.port < N_PORTS);
	REQUIRE((f.src == FP_SRC_CONDUIT) == (r->core.role == FP_ROLE_ACTIVE));
	rig_step(r, &f);
	REQUIRE(f.out != FP_OUT_CONDUIT);
}

/* What is handed over is taken as it was. */
static void from_wire(const uint8_t *data, uint32_t len)
{
	uint8_t packet[CONDUIT_LEN + FP_FRAME_MAX], room[FP_FRAME_MAX];
	struct fp_frame f = { .data = r->data, .len = min_u32(len, FP_FRAME_MAX), .port = LAN },
			taken = { .data = room };
	const uint32_t role = r->core.role;
	const uint64_t term = r->core.term;

	memcpy(r->data, data, f.len);
	rig_step(r, &f);
	if (f.out != FP_OUT_CONDUIT)
		return;
	REQUIRE(role != FP_ROLE_ACTIVE && f.owner < FP_SHARDS);
	conduit_header(&r->core, &f, packet);
	memcpy(packet + CONDUIT_LEN, f.data, f.len);
	r->core.role = FP_ROLE_ACTIVE;
	r->core.term = (uint32_t)r->core.conduit;
	REQUIRE(conduit_take(&r->core, packet, CONDUIT_LEN + f.len, CONDUIT_SPORT + f.owner, &taken) ==
		V_GO_ON);
	REQUIRE(taken.len == f.len && taken.port == LAN && memcmp(taken.data, f.data, f.len) == 0);
	r->core.role = role;
	r->core.term = term;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!r)
		make_rig();
	for (uint32_t i = 0; i < PACKETS_MAX && size >= 3; i++) {
		const uint8_t what = data[0];
		const uint32_t len = min_u32((uint32_t)data[1] << 8 | data[2], (uint32_t)size - 3);
		uint8_t *copy = malloc(len ? len : 1);

		REQUIRE(copy);
		memcpy(copy, data + 3, len);
		core_set_role(&r->core, roles[what & 3], r->core.term + 1, r->now_ns);
		r->now_ns += NS_PER_S;
		if (what & 4)
			from_wire(copy, len);
		else
			from_peer(copy, len, what & 8);
		free(copy);
		data += 3 + len;
		size -= 3 + len;
	}
	return 0;
}
