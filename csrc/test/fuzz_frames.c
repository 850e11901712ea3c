/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_frames.c - core_step() on frames from anywhere, in any role, with time, rules, next hops and drains in between
 *
 * The input is a list of steps: one byte says what, the rest is its argument.
 *
 *   bits 0-2   0..4: a frame; u16 length (big-endian), then its bytes
 *              5: one byte: role, or with bit 4 other rules; 6: time: one byte, seconds; 7: FIB, drain and acknowledge
 *   bit 3      port: lan or wan; 4 is a frame from dmz
 *   bit 4      from the host side
 *   bit 5      make the checksums right, so that a mutation gets past them
 *   bit 6      a frame: a struct fp_vnet comes before its length
 */
#include "../gso.h"
#include "fuzz_core.h"

enum { STEPS_MAX = 256 };

struct input {
	const uint8_t *data;
	size_t left;
};

static uint8_t next_byte(struct input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->data++;
}

static struct fuzz_core z;

/* An ICMP error quotes an IP header, whose checksum counts, too. */
static void fix_quote(uint8_t *icmp, uint32_t len)
{
	struct pkt p = { .icmp_type = icmp[ICMP_TYPE] };
	uint8_t *quote = icmp + ICMP_LEN;

	if (pkt_is_icmp_error(&p) && len >= ICMP_LEN + IPV4_LEN &&
	    len - ICMP_LEN >= (uint32_t)(quote[0] & 0xf) * 4)
		frames_fix_ip_csum(quote);
}

static void fix_checksums(uint8_t *data, uint32_t len)
{
	uint8_t *ip = data + ETH_LEN;
	uint32_t total;

	if (len < ETH_LEN + IPV4_LEN || ip[0] != 0x45)
		return;
	total = be16_host(be16_load(ip + IP_TOTAL));
	if (ip[IP_PROTO] == IPPROTO_NUM_ICMP && total >= IPV4_LEN + ICMP_LEN && ETH_LEN + total <= len)
		fix_quote(ip + IPV4_LEN, total - IPV4_LEN);
	frames_fix_ip_csum(ip);
	if (total >= IPV4_LEN + TCP_LEN && ETH_LEN + total <= len &&
	    (ip[IP_PROTO] == IPPROTO_NUM_TCP || ip[IP_PROTO] == IPPROTO_NUM_UDP ||
	     ip[IP_PROTO] == IPPROTO_NUM_ICMP))
		frames_fix_l4_csum(ip, total - IPV4_LEN);
}

/* ICMP errors and SYN segments came in with checksums that were right, and were rewritten beyond addresses. */
static bool must_be_sound(const struct fp_frame *f)
{
	const uint8_t *ip = f->data + ETH_LEN;

	switch (f->verdict) {
	case V_ICMP_ERROR_IN:
	case V_ICMP_ERROR_OUT:
	case V_TTL_EXCEEDED_SENT:
	case V_FRAG_NEEDED_SENT:
	case V_REJECTED_RST:
	case V_REJECTED_ICMP: return true;
	case V_SNAT:
	case V_HAIRPIN:
	case V_ROUTED:
	case V_REVERSE: return ip[IP_PROTO] == IPPROTO_NUM_TCP && (ip[IPV4_LEN + TCP_FLAGS] & TCP_SYN);
	default: return false;
	}
}

/* What must hold of every frame, whatever came in. */
static void judge(const struct fp_frame *f)
{
	REQUIRE(f->verdict < V_COUNT);
	REQUIRE(f->len <= FP_FRAME_BIG);
	if (f->out == FP_OUT_NONE || f->out == FP_OUT_WAIT)
		return;
	REQUIRE(!verdict_is_drop(f->verdict));
	REQUIRE(f->out_port < ESTATE_PORTS);
	REQUIRE(!f->fenced || z.core.role == FP_ROLE_ACTIVE);
	if (must_be_sound(f)) {
		struct fp_frame sent = *f;

		REQUIRE(frames_csums_ok(&sent));
	}
	/* A frame from the port's virtual MAC leaves only while ACTIVE. */
	if (f->out == FP_OUT_WIRE && f->out_port < N_PORTS &&
	    memcmp(f->data + ETH_SRC, mac_virtual[f->out_port], ETH_ALEN) == 0)
		REQUIRE(f->fenced);
}

/* Driver packet on a port without offload cuts what is on the wire, before the core has seen it. */
static void cut_unseen(struct fp_frame *f)
{
	static uint8_t room[FP_FRAME_MAX];
	struct fp_frame seg = { .data = room };
	struct gso_cut cut;
	uint32_t n = 0;

	if (f->vnet.gso_type == FP_GSO_NONE || !gso_check(f) || !gso_cut_begin(&cut, f))
		return;
	for (; gso_cut_next(&cut, &seg); n++)
		REQUIRE(gso_is_plain(&seg) && seg.len <= FP_FRAME_MAX);
	REQUIRE(n > 0 && n <= 512);
}

/* Whatever leaves with an offload header can be cut, or completed. */
static void finish(struct fp_frame *f)
{
	static uint8_t room[FP_FRAME_MAX];
	struct fp_frame seg = { .data = room };
	struct gso_cut cut;

	if ((f->out != FP_OUT_WIRE && f->out != FP_OUT_HOST) || gso_is_plain(f))
		return;
	if (f->vnet.gso_type == FP_GSO_NONE) {
		gso_complete(f);
		return;
	}
	if (!gso_cut_begin(&cut, f))
		return;
	while (gso_cut_next(&cut, &seg)) {
		REQUIRE(gso_is_plain(&seg));
		REQUIRE(f->out != FP_OUT_WIRE || !f->fenced || frames_csums_ok(&seg));
	}
}

static void step_frame(struct input *in, uint8_t how, uint64_t now_ns)
{
	static uint8_t data[FP_FRAME_BIG];
	struct fp_frame f = { .data = data,
			      .port = (how & 7) == 4 ? DMZ : how >> 3 & 1,
			      .src = how >> 4 & 1 };
	uint8_t *vnet = (uint8_t *)&f.vnet;
	uint32_t len;

	for (uint32_t i = 0; i < sizeof(f.vnet) && (how & 0x40); i++)
		vnet[i] = next_byte(in);
	len = (uint32_t)next_byte(in) << 8;
	len |= next_byte(in);
	f.len = min_u32(len % ((how & 0x40 ? FP_FRAME_BIG : FP_FRAME_MAX) + 1), (uint32_t)in->left);
	memset(data, 0xa5, sizeof(data));
	memcpy(data, in->data, f.len);
	in->data += f.len;
	in->left -= f.len;
	if (how & 0x20)
		fix_checksums(data, f.len);
	cut_unseen(&f);
	core_step(&z.core, &f, 1, now_ns);
	judge(&f);
	core_account(&z.core, &f, 1);
	finish(&f);
}

static void housekeeping(uint8_t how, uint64_t now_ns)
{
	static uint8_t room[8][FP_FRAME_MAX];
	struct fp_frame out[8];
	struct fp_flow_rec recs[16];
	struct fp_session_log lines[4];
	struct neigh_want wants[4];
	uint32_t n;

	core_set_fib(&z.core, z.fibs[how >> 3 & 1]);
	for (uint32_t i = 0; i < ARRAY_SIZE(out); i++)
		out[i].data = room[i];
	while ((n = core_retry_parked(&z.core, out, ARRAY_SIZE(out), now_ns)) > 0) {
		for (uint32_t i = 0; i < n; i++)
			judge(&out[i]);
		core_account(&z.core, out, n);
	}
	while ((n = core_frags_ready(&z.core, out, ARRAY_SIZE(out), now_ns)) > 0) {
		core_step(&z.core, out, n, now_ns);
		for (uint32_t i = 0; i < n; i++)
			judge(&out[i]);
		core_account(&z.core, out, n);
	}
	core_neigh_wanted(&z.core, wants, ARRAY_SIZE(wants));
	core_log_take(&z.core, lines, ARRAY_SIZE(lines));
	if (how & 0x10)
		core_track(&z.core, how & 0x20);
	if (how & 0x40)
		core_sweep_start(&z.core, UINT64_MAX);
	n = core_drain(&z.core, recs, ARRAY_SIZE(recs), UINT32_MAX, now_ns);
	if (n > 0)
		core_ack(&z.core, recs[n - 1].ev_seq);
}

/* Other rules, and sessions that they do not allow. */
static void swap_policy(uint8_t which, uint64_t now_ns)
{
	uint32_t slot = 0;
	bool done = false;

	core_set_policy(&z.core, z.policies[which % FUZZ_POLICIES]);
	while (z.core.role == FP_ROLE_ACTIVE && !done)
		REQUIRE(core_review(&z.core, &slot, 16, &done, now_ns) >= 0);
}

static void change(uint8_t how, uint8_t to, uint64_t now_ns, uint64_t term)
{
	if (how & 0x10)
		swap_policy(to, now_ns);
	else
		core_set_role(&z.core, to % (FP_ROLE_FAULT + 1), term, now_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t now_ns = 1000 * NS_PER_S, term = 2;

	fuzz_core_reset(&z);
	core_set_role(&z.core, FP_ROLE_ACTIVE, term, now_ns);
	for (int i = 0; i < STEPS_MAX && in.left > 0; i++) {
		const uint8_t how = next_byte(&in);

		now_ns += NS_PER_MS;
		switch (how & 7) {
		case 5: change(how, next_byte(&in), now_ns, term += 2); break;
		case 6:
			now_ns += next_byte(&in) * NS_PER_S;
			core_expire(&z.core, now_ns, 1024);
			break;
		case 7: housekeeping(how, now_ns); break;
		default: step_frame(&in, how, now_ns);
		}
	}
	fuzz_core_judge(&z);
	return 0;
}
