/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_capture.c - which packets are captured, what a record holds, and what a full ring loses
 */
#include "../capture.h"
#include "../dp.h"
#include "../verdict.h"
#include "check.h"
#include "frames.h"

enum { ALL_PORTS = (1 << N_PORTS) - 1, ROOM = 256 << 10 };

static uint8_t room[ROOM];

/* ethertype == IPv4 and source == 198.51.100.10 */
static const struct fp_bpf from_client[] = {
	{ 0x28, 0, 0, 12 },         { 0x15, 0, 3, 0x800 }, { 0x20, 0, 0, 26 },
	{ 0x15, 0, 1, 0xc633640a }, { 0x06, 0, 0, 1 },     { 0x06, 0, 0, 0 },
};

static struct fp_capture_cfg everything(void)
{
	return (struct fp_capture_cfg){ .snaplen = FP_FRAME_BIG, .ports = ALL_PORTS, .any_verdict = 1 };
}

static struct capture *make(const struct fp_capture_cfg *cfg)
{
	struct capture *capture = NULL;
	struct fp_error err = { "" };

	REQUIRE(capture_make(&capture, cfg, 2, &err) == 0);
	return capture;
}

static struct fp_frame frame(uint8_t *data)
{
	const struct spec spec = { .src = CLIENT,
				   .dst = SERVER,
				   .proto = IPPROTO_NUM_UDP,
				   .sport = 20000,
				   .dport = 53,
				   .payload = 100 };

	return frames_ipv4(data, LAN, mac_virtual[LAN], &spec);
}

/* A frame that the core turned into another one: the source address changes, and it leaves by the WAN. */
static void pass(struct capture_tap *tap, uint8_t src, uint16_t verdict, enum fp_out out)
{
	static uint8_t data[FP_FRAME_MAX];
	struct fp_frame f = frame(data);

	f.src = src;
	capture_before(tap, &f, 1, FP_CAPTURE_WIRE, 1000);
	be32_store(data + ETH_LEN + IP_SRC, WAN_VIP);
	f.verdict = verdict;
	f.out = (uint8_t)out;
	f.out_port = WAN;
	capture_after(tap, &f, 1, 2000);
}

/* The next record, which must be the only one; NULL if there is none. */
static const struct fp_capture_rec *only(struct capture_tap *tap)
{
	const struct fp_capture_rec *rec = (const void *)room;
	const int n = capture_drain(tap, room, ROOM);

	REQUIRE(n >= 0 && (n == 0 || (uint32_t)n == rec->size));
	return n ? rec : NULL;
}

static void check_both_sides(void)
{
	const struct fp_capture_cfg cfg = everything();
	struct capture *capture = make(&cfg);
	struct capture_tap *tap = &capture->taps[1];
	const struct fp_capture_rec *rec;
	const uint8_t *in, *out;

	pass(tap, FP_SRC_WIRE, V_SNAT, FP_OUT_WIRE);
	rec = only(tap);
	REQUIRE(rec != NULL);
	in = (const uint8_t *)(rec + 1);
	out = in + rec->side[0].cap_len;
	CHECK_EQ(1, rec->verdict, V_SNAT);
	CHECK_EQ(2, rec->worker, 1);
	CHECK_EQ(3, rec->from, FP_CAPTURE_WIRE);
	CHECK_EQ(4, rec->id, 1); /* two workers: 1, 3, 5 ... */
	CHECK_EQ(5, rec->side[0].port, LAN);
	CHECK_EQ(6, rec->side[1].port, WAN);
	CHECK_EQ(7, rec->side[0].t_ns, 1000);
	CHECK_EQ(8, rec->side[1].t_ns, 2000);
	CHECK_EQ(9, be32_load(in + ETH_LEN + IP_SRC).raw, CLIENT.raw);
	CHECK_EQ(10, be32_load(out + ETH_LEN + IP_SRC).raw, WAN_VIP.raw);
	CHECK_EQ(11, rec->side[0].len, ETH_LEN + IPV4_LEN + UDP_LEN + 100);
	CHECK_EQ(12, rec->size % 8, 0);
	pass(tap, FP_SRC_WIRE, V_NO_SESSION, FP_OUT_NONE);
	rec = only(tap);
	REQUIRE(rec != NULL);
	CHECK_EQ(13, rec->id, 3);
	CHECK_EQ(14, rec->side[1].port, FP_CAPTURE_NO_PORT);
	pass(tap, FP_SRC_WIRE, V_TX_FAILED, FP_OUT_WIRE); /* it did not leave */
	rec = only(tap);
	REQUIRE(rec != NULL);
	CHECK_EQ(15, rec->side[1].port, FP_CAPTURE_NO_PORT);
	pass(tap, FP_SRC_WIRE, V_HOST, FP_OUT_HOST); /* nor did this, through a wire */
	rec = only(tap);
	REQUIRE(rec != NULL);
	CHECK_EQ(16, rec->side[1].port, FP_CAPTURE_NO_PORT);
	pass(tap, FP_SRC_WIRE, V_HANDOFF, FP_OUT_HANDOFF); /* the owner records it */
	CHECK(17, only(tap) == NULL);
	pass(tap, FP_SRC_HOST, V_FENCED, FP_OUT_WIRE);
	rec = only(tap);
	REQUIRE(rec != NULL);
	CHECK_EQ(18, rec->from, FP_CAPTURE_HOST);
	CHECK_EQ(19, rec->side[0].port, FP_CAPTURE_NO_PORT);
	CHECK_EQ(20, rec->side[1].port, WAN);
	capture_free(capture);
}

static bool wanted(struct fp_capture_cfg cfg, uint16_t verdict)
{
	struct capture *capture = make(&cfg);
	bool any;

	pass(&capture->taps[0], FP_SRC_WIRE, verdict, verdict == V_SNAT ? FP_OUT_WIRE : FP_OUT_NONE);
	any = only(&capture->taps[0]) != NULL;
	capture_free(capture);
	return any;
}

static void check_what_is_wanted(void)
{
	struct fp_capture_cfg cfg = everything();

	cfg.insns = from_client;
	cfg.n_insns = ARRAY_SIZE(from_client);
	cfg.ports = 1 << WAN;
	CHECK(30, wanted(cfg, V_SNAT)); /* matches as received, leaves through the port */
	CHECK(31, !wanted(cfg, V_NO_ROUTE));
	cfg.ports = 1 << LAN;
	CHECK(32, wanted(cfg, V_SNAT));
	CHECK(33, wanted(cfg, V_NO_ROUTE));
	cfg.any_verdict = 0;
	CHECK(34, !wanted(cfg, V_SNAT));
	cfg.verdicts[V_NO_ROUTE / 64] = UINT64_C(1) << V_NO_ROUTE % 64;
	CHECK(35, wanted(cfg, V_NO_ROUTE));
	CHECK(36, !wanted(cfg, V_SNAT));
	cfg.insns = (struct fp_bpf[]){ { 0x06, 0, 0, 0 } };
	cfg.n_insns = 1;
	CHECK(37, !wanted(cfg, V_NO_ROUTE));
}

/* Filters see what lies beyond the snaplen. */
static void check_snaplen(void)
{
	struct fp_capture_cfg cfg = everything();
	const struct fp_capture_rec *rec;
	struct capture *capture;

	cfg.snaplen = 20;
	cfg.insns = from_client;
	cfg.n_insns = ARRAY_SIZE(from_client);
	capture = make(&cfg);
	pass(&capture->taps[0], FP_SRC_WIRE, V_SNAT, FP_OUT_WIRE);
	rec = only(&capture->taps[0]);
	REQUIRE(rec != NULL);
	CHECK_EQ(40, rec->side[0].cap_len, 20);
	CHECK_EQ(41, rec->side[1].cap_len, 20);
	CHECK_EQ(42, rec->side[1].len, ETH_LEN + IPV4_LEN + UDP_LEN + 100);
	capture_free(capture);
}

static void check_own_frames(void)
{
	struct fp_capture_cfg cfg = everything();
	struct capture *capture = make(&cfg);
	struct capture_tap *tap = &capture->taps[0];
	const struct fp_capture_rec *rec;
	uint8_t data[FP_FRAME_MAX];
	struct fp_frame f = frame(data);

	f.out_port = WAN;
	f.verdict = V_COUNT;
	capture_sent(tap, &f, 1, FP_CAPTURE_CONTROL, 3000);
	rec = only(tap);
	REQUIRE(rec != NULL);
	CHECK_EQ(50, rec->verdict, FP_CAPTURE_NO_VERDICT);
	CHECK_EQ(51, rec->from, FP_CAPTURE_CONTROL);
	capture_free(capture);
	cfg.any_verdict = 0;
	cfg.verdicts[V_FENCED / 64] = UINT64_C(1) << V_FENCED % 64;
	capture = make(&cfg);
	tap = &capture->taps[0];
	capture_sent(tap, &f, 1, FP_CAPTURE_PULSE, 3000);
	CHECK(52, only(tap) == NULL);
	f.verdict = V_FENCED;
	capture_sent(tap, &f, 1, FP_CAPTURE_PULSE, 3000);
	CHECK(53, only(tap) != NULL);
	capture_free(capture);
}

/* Drain everything; what is between records is told or counted. */
static void drain_all(struct capture_tap *tap, uint32_t cap, uint64_t *n, uint64_t *lost)
{
	int got;

	while ((got = capture_drain(tap, room, cap)) > 0) {
		for (uint32_t at = 0; at < (uint32_t)got;) {
			const struct fp_capture_rec *rec = (const void *)(room + at);

			CHECK_EQ(60, rec->id, (*n + *lost + rec->lost) * 2); /* no packet is there twice */
			*lost += rec->lost;
			(*n)++;
			at += rec->size;
		}
	}
	REQUIRE(got == 0);
}

/* Records of odd sizes around the end of the array, and a reader that is too slow. */
static void check_full_ring(void)
{
	enum { N = 60000, PAUSE = 9000 };

	struct fp_capture_cfg cfg = everything();
	struct capture *capture;
	struct capture_tap *tap;
	uint64_t n = 0, lost = 0;

	cfg.snaplen = 97;
	capture = make(&cfg);
	tap = &capture->taps[0];
	for (uint32_t i = 0; i < N; i++) {
		pass(tap, FP_SRC_WIRE, V_SNAT, i % 3 ? FP_OUT_WIRE : FP_OUT_NONE);
		if (i % PAUSE < PAUSE / 3)
			drain_all(tap, 1000, &n, &lost);
		CHECK(61, i != 0 || capture_drain(tap, room, ROOM) == 0);
	}
	drain_all(tap, ROOM, &n, &lost);
	CHECK_EQ(62, counter_read(&tap->lost), 0);
	for (uint32_t i = 0; i < N; i++)
		pass(tap, FP_SRC_WIRE, V_SNAT, FP_OUT_WIRE);
	CHECK_EQ(63, capture_drain(tap, room, 8), (uint64_t)-EMSGSIZE);
	drain_all(tap, ROOM, &n, &lost);
	CHECK(64, counter_read(&tap->lost) > N / 4);
	pass(tap, FP_SRC_WIRE, V_SNAT, FP_OUT_WIRE);
	drain_all(tap, ROOM, &n, &lost);
	CHECK_EQ(65, lost, counter_read(&tap->lost));
	CHECK_EQ(66, n + lost, 2 * N + 1);
	capture_free(capture);
}

static void check_refusals(void)
{
	struct fp_capture_cfg cfg = everything();
	struct capture *capture = NULL;
	struct fp_error err = { "" };

	cfg.snaplen = FP_FRAME_BIG + 1;
	CHECK_EQ(70, capture_make(&capture, &cfg, 1, &err), (uint64_t)-EINVAL);
	CHECK(71, strstr(err.text, "snaplen") != NULL);
	cfg = everything();
	cfg.insns = (struct fp_bpf[]){ { 0x06, 0, 0, 1 }, { 0xff, 0, 0, 0 } };
	cfg.n_insns = 2;
	CHECK_EQ(72, capture_make(&capture, &cfg, 1, &err), (uint64_t)-EINVAL);
	CHECK(73, strstr(err.text, "instruction 1: unknown") != NULL);
	cfg.insns = NULL;
	CHECK_EQ(74, capture_make(&capture, &cfg, 1, &err), (uint64_t)-EINVAL);
	CHECK(75, capture == NULL);
	CHECK_EQ(76, fp_capture_start(NULL, &cfg, &err), (uint64_t)-EINVAL);
	CHECK_EQ(77, fp_capture_free(NULL), (uint64_t)-EINVAL);
}

int main(void)
{
	check_both_sides();
	check_what_is_wanted();
	check_snaplen();
	check_own_frames();
	check_full_ring();
	check_refusals();
	return check_done("capture");
}
