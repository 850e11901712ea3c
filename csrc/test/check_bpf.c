/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_bpf.c - filters: what is refused, what is calculated, and random programs against libpcap's bpf_filter()
 */
#include <dlfcn.h>

#include "../bpf.h"
#include "check.h"

enum { RANDOM_PROGRAMS = 20000, FRAMES_EACH = 4, INSNS_MAX = 24, FRAME_LEN = 64 };

/* Every code that bpf_check() knows, but for returns and jumps. */
static const uint16_t straight[] = { 0x00, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x80, 0x01,
				     0x61, 0x81, 0xb1, 0x02, 0x03, 0x04, 0x0c, 0x14, 0x1c, 0x24,
				     0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74,
				     0x7c, 0x84, 0x94, 0x9c, 0xa4, 0xac, 0x07, 0x87 };
static const uint16_t jumps[] = { 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d };

static const uint8_t frame[] = { 0x45, 0x00, 0x12, 0x34, 0xff, 0xff, 0xff, 0xfe };

static const char *check(const struct fp_bpf *prog, uint32_t n)
{
	uint32_t at;

	return bpf_check(prog, n, &at);
}

static void check_refusals(void)
{
	static struct fp_bpf many[FP_BPF_MAX + 1];
	uint32_t n_known = 0, at;

	CHECK(1, check(many, 0) != NULL);
	for (uint32_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct fp_bpf){ 0x06, 0, 0, 1 };
	CHECK(2, check(many, FP_BPF_MAX) == NULL);
	CHECK(3, check(many, FP_BPF_MAX + 1) != NULL);
	CHECK(4, check((struct fp_bpf[]){ { 0x00, 0, 0, 1 } }, 1) != NULL); /* no return */
	CHECK(5, check((struct fp_bpf[]){ { 0x05, 0, 0, 0 }, { 0x06, 0, 0, 1 } }, 2) == NULL);
	CHECK(6, check((struct fp_bpf[]){ { 0x05, 0, 0, 1 }, { 0x06, 0, 0, 1 } }, 2) != NULL);
	CHECK(7, check((struct fp_bpf[]){ { 0x05, 0, 0, UINT32_MAX }, { 0x06, 0, 0, 1 } }, 2) != NULL);
	CHECK(8, check((struct fp_bpf[]){ { 0x15, 0, 1, 0 }, { 0x06, 0, 0, 1 } }, 2) != NULL);
	CHECK(9, check((struct fp_bpf[]){ { 0x15, 1, 0, 0 }, { 0x06, 0, 0, 1 } }, 2) != NULL);
	CHECK(10, check((struct fp_bpf[]){ { 0x60, 0, 0, 16 }, { 0x16, 0, 0, 0 } }, 2) != NULL);
	CHECK(11, check((struct fp_bpf[]){ { 0x02, 0, 0, 16 }, { 0x16, 0, 0, 0 } }, 2) != NULL);
	CHECK(12, check((struct fp_bpf[]){ { 0x34, 0, 0, 0 }, { 0x16, 0, 0, 0 } }, 2) != NULL);
	CHECK(13, check((struct fp_bpf[]){ { 0x94, 0, 0, 0 }, { 0x16, 0, 0, 0 } }, 2) != NULL);
	CHECK(14, check((struct fp_bpf[]){ { 0x64, 0, 0, 32 }, { 0x16, 0, 0, 0 } }, 2) != NULL);
	for (uint32_t code = 0; code <= UINT16_MAX; code++) {
		const struct fp_bpf prog[] = { { (uint16_t)code, 0, 0, 1 },
					       { 0x06, 0, 0, 1 },
					       { 0x06, 0, 0, 1 } };

		n_known += bpf_check(prog, ARRAY_SIZE(prog), &at) == NULL;
	}
	CHECK_EQ(15, n_known, ARRAY_SIZE(straight) + ARRAY_SIZE(jumps) + 3); /* JA, RET A, RET K */
}

static uint32_t run(const struct fp_bpf *prog, uint32_t n)
{
	REQUIRE(check(prog, n) == NULL);
	return bpf_run(prog, frame, sizeof(frame));
}

#define RUN(...)                              \
	run((struct fp_bpf[]){ __VA_ARGS__ }, \
	    sizeof((struct fp_bpf[]){ __VA_ARGS__ }) / sizeof(struct fp_bpf))

static void check_results(void)
{
	CHECK_EQ(20, RUN({ 0x28, 0, 0, 2 }, { 0x16, 0, 0, 0 }), 0x1234);
	CHECK_EQ(21, RUN({ 0x20, 0, 0, 4 }, { 0x16, 0, 0, 0 }), 0xfffffffe);
	CHECK_EQ(22, RUN({ 0x20, 0, 0, 5 }, { 0x06, 0, 0, 1 }), 0); /* one byte beyond */
	CHECK_EQ(23, RUN({ 0x30, 0, 0, UINT32_MAX }, { 0x06, 0, 0, 1 }), 0);
	CHECK_EQ(24, RUN({ 0xb1, 0, 0, 0 }, { 0x87, 0, 0, 0 }, { 0x16, 0, 0, 0 }), 20);
	/* An index that would wrap around to the beginning of the frame. */
	CHECK_EQ(25, RUN({ 0x01, 0, 0, UINT32_MAX }, { 0x50, 0, 0, 2 }, { 0x06, 0, 0, 1 }), 0);
	CHECK_EQ(26, RUN({ 0x00, 0, 0, 7 }, { 0x3c, 0, 0, 0 }, { 0x06, 0, 0, 1 }), 0); /* X is 0 */
	CHECK_EQ(27, RUN({ 0x60, 0, 0, 15 }, { 0x16, 0, 0, 0 }), 0); /* memory begins as 0 */
	CHECK_EQ(28, RUN({ 0x80, 0, 0, 0 }, { 0x15, 1, 0, 8 }, { 0x06, 0, 0, 1 }, { 0x06, 0, 0, 2 }), 2);
}

/* ---- libpcap ---- */

typedef uint32_t pcap_filter(const struct fp_bpf *, const uint8_t *, uint32_t wire_len, uint32_t len);

static uint64_t seed = 88172645463325252;

static uint32_t draw(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 32) % below;
}

/* Small numbers mostly, so that loads hit the frame and comparisons are close. */
static uint32_t draw_k(void)
{
	static const uint32_t edges[] = { 0, 1, 31, 255, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff };

	switch (draw(8)) {
	case 0: return edges[draw(ARRAY_SIZE(edges))];
	case 1: return draw(UINT32_MAX);
	default: return draw(FRAME_LEN + 4);
	}
}

static struct fp_bpf draw_insn(uint32_t left)
{
	struct fp_bpf insn = { .code = straight[draw(ARRAY_SIZE(straight))], .k = draw_k() };
	uint32_t at;

	if (left > 0 && draw(4) == 0)
		insn = (struct fp_bpf){ .code = jumps[draw(ARRAY_SIZE(jumps))],
					.jt = (uint8_t)draw(left),
					.jf = (uint8_t)draw(left),
					.k = draw_k() };
	else if (left > 0 && draw(24) == 0)
		insn = (struct fp_bpf){ .code = 0x05, .k = draw(left) };
	while (bpf_check((struct fp_bpf[]){ insn, { .code = 0x16 } }, 2, &at) && (insn.code & 7) != 5)
		insn.k = draw(BPF_MEM_WORDS) + (insn.code == 0x34 || insn.code == 0x94);
	return insn;
}

static void check_against_libpcap(void)
{
	void *lib = dlopen("libpcap.so.0.8", RTLD_NOW);
	struct fp_bpf prog[BPF_MEM_WORDS + INSNS_MAX];
	uint8_t data[FRAME_LEN];
	pcap_filter *theirs;
	uint64_t n_taken = 0;

	if (!lib) {
		printf("no libpcap.so.0.8: random programs are not compared; install libpcap0.8\n");
		return;
	}
	*(void **)&theirs = dlsym(lib, "bpf_filter");
	REQUIRE(theirs != NULL);
	for (uint32_t round = 0; round < RANDOM_PROGRAMS; round++) {
		const uint32_t n = BPF_MEM_WORDS + 2 + draw(INSNS_MAX - 2);

		/* libpcap's memory is not zero at first. */
		for (uint32_t i = 0; i < BPF_MEM_WORDS; i++)
			prog[i] = (struct fp_bpf){ .code = 0x02, .k = i };
		for (uint32_t i = BPF_MEM_WORDS; i < n; i++)
			prog[i] = draw_insn(n - 1 - i);
		prog[n - 1] = (struct fp_bpf){ .code = draw(4) ? 0x16 : 0x06, .k = draw_k() };
		REQUIRE(check(prog, n) == NULL);
		for (uint32_t i = 0; i < FRAMES_EACH; i++) {
			const uint32_t len = draw(FRAME_LEN + 1);
			uint32_t got;

			for (uint32_t b = 0; b < FRAME_LEN; b++)
				data[b] = (uint8_t)draw(256);
			got = bpf_run(prog, data, len);
			CHECK_EQ(30, got, theirs(prog, data, len, len));
			n_taken += got != 0;
		}
	}
	CHECK(31, n_taken > RANDOM_PROGRAMS / 4); /* the comparison is not of zeros alone */
	dlclose(lib);
}

int main(void)
{
	check_refusals();
	check_results();
	check_against_libpcap();
	return check_done("bpf");
}
