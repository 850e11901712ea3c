/* SPDX-License-Identifier: Apache-2.0 */
/**
 * fuzz_frames.c - core_step() on frames from anywhere, in any role, with time, next hops and drains in between
 *
 * The input is a list of steps: one byte says what, the rest is its argument.
 *
 *   bits 0-2   0..4: a frame; u16 length (big-endian), then its bytes
 *              5: role: one byte; 6: time: one byte, seconds; 7: FIB, drain and acknowledge
 *   bit 3      port; time: rules and forwards are in force from here on, or not
 *   bit 4      from the host side
 *   bit 5      make the checksums right, so that a mutation gets past them
 *   bit 6      a frame: a struct fp_vnet comes before its length
 */
#include "../gso.h"
#include "check.h"
#include "estate.h"
#include "fuzz.h"

enum { FLOW_CAP = 64, STEPS_MAX = 256 };

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

static struct fp_config cfg;
static struct core core, pristine_core;
static struct fib *fibs[2]; /* without and with neighbours */
static struct policy *policy;
static uint8_t *mem, *pristine_mem;
static size_t mem_size;

/* A forward to each protocol, something rejected, something not translated, GRE by name. */
static void make_policy(void)
{
	const struct fp_service services[] = { { .proto = IPPROTO_NUM_TCP, .port_lo = 23, .port_hi = 23 },
					       { .proto = IPPROTO_NUM_UDP, .port_lo = 23, .port_hi = 23 },
					       { .proto = 47, .port_hi = 65535 } };
	const struct fp_prefix client2 = { .addr = addr_from_v4(CLIENT2), .plen = 128 };
	const struct fp_forward forwards[] = { estate_forward(0, IPPROTO_NUM_TCP, 443, CLIENT2, 8443),
					       estate_forward(0, IPPROTO_NUM_UDP, 4430, CLIENT2, 8443) };
	struct fp_rule rules[] = { estate_rule(FP_REJECT, FP_FORM_SNAT), estate_rule(FP_ALLOW, FP_FORM_SNAT),
				   estate_rule(FP_ALLOW, FP_FORM_NONE), estate_rule(FP_ALLOW, FP_FORM_NONE) };
	const struct fp_policy_cfg rules_cfg = { .rules = rules,
						 .prefixes = &client2,
						 .services = services,
						 .forwards = forwards,
						 .n_rules = ARRAY_SIZE(rules),
						 .n_prefixes = 1,
						 .n_services = ARRAY_SIZE(services),
						 .n_forwards = ARRAY_SIZE(forwards) };
	size_t size;

	rules[0].n_services = 2;
	rules[1].first_service = 2;
	rules[1].n_services = rules[1].explicit_proto = 1;
	rules[2].n_src = rules[3].n_dst = 1;
	size = policy_mem_size(&rules_cfg, 1);
	policy = policy_build(aligned_alloc(CACHE_LINE, (size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1)),
			      &rules_cfg, &cfg);
}

static void make_core(void)
{
	cfg = frames_config(1, FLOW_CAP);
	cfg.pools[0].filtering = FP_FILTER_EIF;
	make_policy();
	mem_size = (core_mem_size(&cfg) + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	mem = aligned_alloc(CACHE_LINE, mem_size);
	pristine_mem = aligned_alloc(CACHE_LINE, mem_size);
	REQUIRE(mem != NULL && pristine_mem != NULL);
	memset(mem, 0, mem_size);
	fibs[0] = frames_fib(1, false);
	fibs[1] = frames_fib(2, true);
	REQUIRE(core_init(&pristine_core, &cfg, 0, mem, mem_size) == 0);
	memcpy(pristine_mem, mem, mem_size);
}

/* Every input begins with the same core; a copy of one costs a twentieth of core_init(). */
static void reset(void)
{
	if (!mem)
		make_core();
	memcpy(mem, pristine_mem, mem_size);
	core = pristine_core;
	core_set_fib(&core, fibs[1]);
}

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
	case V_REJECTED_RST:
	case V_REJECTED_ICMP:
	case V_TTL_EXCEEDED_SENT:
	case V_FRAG_NEEDED_SENT: return true;
	case V_SNAT:
	case V_ROUTED:
	case V_HAIRPIN:
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
	REQUIRE(f->out_port < N_PORTS);
	REQUIRE(!f->fenced || core.role == FP_ROLE_ACTIVE);
	if (must_be_sound(f)) {
		struct fp_frame sent = *f;

		REQUIRE(frames_csums_ok(&sent));
	}
	/* A frame from the port's virtual MAC leaves only while ACTIVE. */
	if (f->out == FP_OUT_WIRE && memcmp(f->data + ETH_SRC, mac_virtual[f->out_port], ETH_ALEN) == 0)
		REQUIRE(f->fenced);
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
	struct fp_frame f = { .data = data, .port = how >> 3 & 1, .src = how >> 4 & 1 };
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
	core_step(&core, &f, 1, now_ns);
	judge(&f);
	core_account(&core, &f, 1);
	finish(&f);
}

static void housekeeping(uint8_t how, uint64_t now_ns)
{
	static uint8_t room[8][FP_FRAME_MAX];
	struct fp_frame out[8];
	struct fp_flow_rec recs[16];
	struct neigh_want wants[4];
	uint32_t n;

	core_set_fib(&core, fibs[how >> 3 & 1]);
	for (uint32_t i = 0; i < ARRAY_SIZE(out); i++)
		out[i].data = room[i];
	while ((n = core_retry_parked(&core, out, ARRAY_SIZE(out), now_ns)) > 0) {
		for (uint32_t i = 0; i < n; i++)
			judge(&out[i]);
		core_account(&core, out, n);
	}
	while ((n = core_frags_ready(&core, out, ARRAY_SIZE(out), now_ns)) > 0) {
		core_step(&core, out, n, now_ns);
		for (uint32_t i = 0; i < n; i++)
			judge(&out[i]);
		core_account(&core, out, n);
	}
	core_neigh_wanted(&core, wants, ARRAY_SIZE(wants));
	if (how & 0x10)
		core_track(&core, how & 0x20);
	if (how & 0x40)
		core_bulk_start(&core);
	n = core_drain(&core, recs, ARRAY_SIZE(recs), now_ns);
	if (n > 0)
		core_ack(&core, recs[n - 1].ev_seq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	uint64_t now_ns = 1000 * NS_PER_S, term = 2;

	reset();
	core_set_role(&core, FP_ROLE_ACTIVE, term, now_ns);
	for (int i = 0; i < STEPS_MAX && in.left > 0; i++) {
		const uint8_t how = next_byte(&in);

		now_ns += NS_PER_MS;
		switch (how & 7) {
		case 5: core_set_role(&core, next_byte(&in) % (FP_ROLE_FAULT + 1), term += 2, now_ns); break;
		case 6:
			now_ns += next_byte(&in) * NS_PER_S;
			core_set_policy(&core, how & 8 ? policy : NULL);
			core_expire(&core, now_ns, 1024);
			break;
		case 7: housekeeping(how, now_ns); break;
		default: step_frame(&in, how, now_ns);
		}
	}
	return 0;
}
