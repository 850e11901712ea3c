/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_workers.c - two workers under load on in-memory ports, while control does everything that it may do
 *
 * A client thread sends UDP into the LAN, on both queues in turn, so that half of the frames cross a hand-off ring; a
 * server thread returns what comes out of the WAN. Whether it is right is checked by counting; whether two threads
 * ever touch the same memory unordered is for ThreadSanitizer to say.
 */
#include <errno.h>
#include <pthread.h>

#include "../clock.h"
#include "../handoff.h"
#include "../ip_cut.h"
#include "dataplane.h"

enum { N_FRAMES = 20000, N_CLIENT_PORTS = 200 };

static fp_dp *open_node_with(uint32_t n_workers, bool lan_offload, bool wan_offload)
{
	struct fp_config cfg = frames_config(n_workers, 4096);

	cfg.ports[LAN].offload = lan_offload;
	cfg.ports[WAN].offload = wan_offload;
	return open_config(cfg);
}

static fp_dp *open_node(uint32_t n_workers)
{
	return open_node_with(n_workers, false, false);
}

static void *client_run(void *arg)
{
	struct side *side = arg;
	uint8_t data[FP_FRAME_MAX];

	for (uint64_t i = 0; i < N_FRAMES; i++) {
		const struct spec spec = {
			.src = CLIENT,
			.dst = SERVER,
			.proto = IPPROTO_NUM_UDP,
			.sport = (uint16_t)(20000 + i % N_CLIENT_PORTS),
			.dport = 53,
			.payload = 20,
		};
		const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

		put(side, LAN, i, data, f.len);
		atomic_fetch_add(&side->received, take_all(side->dp, LAN, data, NULL, side));
	}
	while (!atomic_load(&side->stop)) {
		atomic_fetch_add(&side->received, take_all(side->dp, LAN, data, NULL, side));
		sched_yield();
	}
	return NULL;
}

/* Send a frame back to where it came from. */
static void reply(struct side *side, uint8_t *data, uint32_t len)
{
	uint8_t *ip = data + ETH_LEN, *udp = ip + IPV4_LEN, tmp[ETH_ALEN];
	const be32 src = be32_load(ip + IP_SRC), dst = be32_load(ip + IP_DST);
	const be16 sport = be16_load(udp + L4_SPORT), dport = be16_load(udp + L4_DPORT);

	if (src.raw != WAN_VIP.raw) /* a heartbeat or an injected frame */
		return;
	memcpy(tmp, data, ETH_ALEN);
	memcpy(data, data + ETH_SRC, ETH_ALEN);
	memcpy(data + ETH_SRC, tmp, ETH_ALEN);
	be32_store(ip + IP_SRC, dst);
	be32_store(ip + IP_DST, src);
	be16_store(udp + L4_SPORT, dport);
	be16_store(udp + L4_DPORT, sport);
	put(side, WAN, atomic_load(&side->sent), data, len);
}

static void *server_run(void *arg)
{
	struct side *side = arg;
	uint8_t data[FP_FRAME_MAX];

	while (!atomic_load(&side->stop)) {
		atomic_fetch_add(&side->received, take_all(side->dp, WAN, data, reply, side));
		sched_yield();
	}
	return NULL;
}

/* A capture that comes and goes; its ring is drained now and then. */
static void capture(fp_dp *dp, uint32_t round)
{
	static const struct fp_bpf udp[] = {
		{ 0x30, 0, 0, 23 }, { 0x15, 0, 1, IPPROTO_NUM_UDP }, { 0x06, 0, 0, 1 }, { 0x06, 0, 0, 0 }
	};
	const struct fp_capture_cfg cfg = { .snaplen = 100,
					    .ports = 1 << WAN,
					    .any_verdict = 1,
					    .n_insns = round / 16 % 2 ? ARRAY_SIZE(udp) : 0,
					    .insns = udp };
	static uint8_t out[64 << 10];
	struct fp_error err;
	uint64_t lost;
	int n;

	if (round % 16 == 0)
		REQUIRE(fp_capture_start(dp, &cfg, &err) == 0);
	for (uint32_t i = 0; i < N_WORKERS && round % 16 < 12; i++) {
		n = fp_capture_drain(dp, i, out, sizeof(out));
		REQUIRE(n >= 0);
		for (uint32_t at = 0; at < (uint32_t)n;) {
			const struct fp_capture_rec *rec = (const void *)(out + at);

			CHECK_EQ(50, rec->worker, i);
			CHECK(51, rec->side[0].port == WAN || rec->side[1].port == WAN);
			at += rec->size;
		}
	}
	REQUIRE(fp_capture_lost(dp, &lost) == 0);
	if (round % 16 == 14)
		REQUIRE(fp_capture_stop(dp) == 0);
	if (round % 16 == 15)
		REQUIRE(fp_capture_free(dp) == 0 && fp_capture_free(dp) == 0);
}

/* Rules that allow everything come and go, with all that is asked about them. */
static void change_rules(fp_dp *dp, uint32_t round)
{
	const struct fp_rule rules[] = { { .id = 1, .sport_hi = 1, .was = 2 },
					 { .id = 2, .sport_hi = UINT16_MAX, .log = 1, .was = 1 } };
	const struct fp_policy_cfg cfg = { .rules = rules, .n_rules = round % 3 };
	static struct fp_session_log lines[64];
	struct fp_cursor cursor = { 0 };
	uint32_t closed = 0;
	uint64_t hits[3];
	struct fp_pool_use use;
	struct fp_error err;

	REQUIRE(fp_policy_commit(dp, &cfg, &err) == 0);
	for (uint32_t i = 0; i < 4; i++)
		REQUIRE(fp_policy_review(dp, &cursor, 64, &closed) == 0);
	CHECK_EQ(52, closed, 0);
	REQUIRE(fp_session_log_drain(dp, lines, ARRAY_SIZE(lines)) >= 0);
	REQUIRE(fp_policy_hits(dp, hits, ARRAY_SIZE(hits)) == (int)(round % 3) + 1);
	REQUIRE(fp_pools_read(dp, &use, 1) == 1);
}

/* One of everything that control may ask while packets flow. */
static void meddle(fp_dp *dp, uint32_t round)
{
	static struct fp_flow_rec recs[64];
	uint8_t frame[60] = { 0 };
	struct fp_cursor cursor = { 0 };
	struct fp_punt punts[8];
	struct fp_pulse_event events[8];
	struct fp_digest digests[FP_SHARDS];
	struct fp_sync_stats sync;
	struct fp_worker_stats ws;
	struct fp_port_stats ps;
	struct fp_path_stats paths[3];
	uint64_t lost;

	REQUIRE(commit_fib(dp) == 0);
	capture(dp, round);
	change_rules(dp, round);
	if (round % 8 == 0)
		REQUIRE(fp_sweep_start(dp, UINT64_MAX) == 0 && fp_digest_ask(dp) == 0);
	if (round % 32 == 31)
		REQUIRE(fp_sync_track(dp, round % 64 == 63) == 0);
	for (uint32_t i = 0; i < N_WORKERS; i++) {
		const int n = fp_events_drain(dp, i, recs, ARRAY_SIZE(recs), &lost);

		REQUIRE(n >= 0);
		if (n > 0)
			REQUIRE(fp_events_ack(dp, i, recs[n - 1].ev_seq) == 0);
		for (int k = 0; k < n; k++)
			REQUIRE(recs[k].op != FP_OP_DIGEST || fp_digest_read(dp, i, digests) == 0);
		REQUIRE(fp_sync_stats_read(dp, i, &sync) == 0);
		REQUIRE(fp_worker_stats_read(dp, i, &ws) == 0);
	}
	REQUIRE(fp_flows_walk(dp, &cursor, recs, ARRAY_SIZE(recs)) >= 0);
	REQUIRE(fp_flows_import(dp, recs, 1) == -EPERM); /* while ACTIVE */
	REQUIRE(fp_digests(dp, digests) == 0);
	REQUIRE(fp_punts_drain(dp, punts, ARRAY_SIZE(punts)) >= 0);
	REQUIRE(fp_pulse_set(dp, round & FP_HB_READY, 100) == 0 && fp_pulse_burst(dp) == 0 &&
		fp_control_beat(dp) == 0);
	REQUIRE(fp_pulse_events(dp, events, ARRAY_SIZE(events)) >= 0);
	REQUIRE(fp_pulse_stats(dp, paths, ARRAY_SIZE(paths)) == 0);
	REQUIRE(fp_port_stats_read(dp, LAN, &ps) == 0);
	fp_inject(dp, LAN, frame, sizeof(frame), round & 1); /* -ENOBUFS is fine */
}

static void check_load(void)
{
	fp_dp *dp = open_node(N_WORKERS);
	struct side client = { .dp = dp }, server = { .dp = dp };
	const uint64_t deadline = clock_now() + RUN_LIMIT_S * NS_PER_S;
	pthread_t client_thread, server_thread;
	struct fp_error err;
	uint32_t round = 0;

	REQUIRE(fp_start(dp, &err) == 0);
	CHECK_EQ(1, fp_start(dp, &err), (uint64_t)-EALREADY);
	REQUIRE(fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0);
	REQUIRE(commit_fib(dp) == 0);
	REQUIRE(fp_sync_track(dp, 1) == 0);
	REQUIRE(pthread_create(&client_thread, NULL, client_run, &client) == 0);
	REQUIRE(pthread_create(&server_thread, NULL, server_run, &server) == 0);
	do {
		meddle(dp, round++);
		REQUIRE(clock_now() < deadline);
	} while (atomic_load(&client.sent) < N_FRAMES ||
		 n_ended(dp) < atomic_load(&client.sent) + atomic_load(&server.sent) ||
		 total(dp, V_SNAT) > atomic_load(&server.sent));
	atomic_store(&client.stop, true);
	atomic_store(&server.stop, true);
	pthread_join(client_thread, NULL);
	pthread_join(server_thread, NULL);
	CHECK_EQ(2, n_ended(dp), client.sent + server.sent);
	CHECK_EQ(3, total(dp, V_SNAT), server.sent);
	CHECK_EQ(4,
		 total(dp, V_SNAT) + total(dp, V_TX_FAILED) + total(dp, V_HANDOFF_FULL) +
			 total(dp, V_REVERSE),
		 client.sent + server.sent);
	CHECK(5, total(dp, V_HANDOFF) > N_FRAMES / 8); /* both queues get everybody's frames */
	CHECK(6, total(dp, V_REVERSE) > N_FRAMES / 8);
	REQUIRE(fp_stop(dp) == 0);
	REQUIRE(fp_stop(dp) == 0);
	fp_close(dp);
}

/* Roles come and go under load; once fp_set_role() is back, nothing fenced leaves any more. */
static void check_fencing(void)
{
	fp_dp *dp = open_node(N_WORKERS);
	struct side side = { .dp = dp };
	const struct spec spec = { .src = CLIENT,
				   .dst = SERVER,
				   .proto = IPPROTO_NUM_UDP,
				   .sport = 20000,
				   .dport = 53,
				   .payload = 20 };
	uint8_t data[FP_FRAME_MAX], sent[FP_FRAME_MAX];
	struct fp_error err;

	REQUIRE(fp_start(dp, &err) == 0);
	REQUIRE(commit_fib(dp) == 0);
	for (uint64_t term = 2; term < 42; term += 2) {
		const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);
		uint64_t before;

		REQUIRE(fp_set_role(dp, FP_ROLE_ACTIVE, term) == 0);
		CHECK_EQ(10, fp_set_role(dp, FP_ROLE_ACTIVE, term - 1), (uint64_t)-ESTALE);
		for (uint64_t i = 0; i < 50; i++)
			put(&side, LAN, i, data, f.len);
		REQUIRE(fp_set_role(dp, FP_ROLE_PASSIVE, term) == 0);
		take_all(dp, WAN, sent, NULL, &side);
		before = total(dp, V_SNAT);
		for (uint64_t i = 0; i < 20; i++)
			put(&side, LAN, i, data, f.len);
		while (n_ended(dp) < atomic_load(&side.sent))
			sched_yield();
		CHECK_EQ(11, total(dp, V_SNAT), before);
		CHECK_EQ(12, take_all(dp, WAN, sent, NULL, &side), 0);
	}
	fp_close(dp);
}

/* Worker 1 sleeps until the first request to it has been taken back. */
static void *start_late(void *arg)
{
	fp_dp *dp = arg;
	struct worker *w = &dp->plane.workers[1];

	while (atomic_load(&w->mailbox.state) != MAILBOX_POSTED)
		usleep(1000);
	usleep(2500000); /* ASK_TIMEOUT_S and more: its being over is what is tested */
	REQUIRE(worker_start(w) == 0);
	return NULL;
}

/* A worker that answers late has the same rules as the others once the commit is said to have worked. */
static void check_late_worker(void)
{
	fp_dp *dp = open_node(N_WORKERS);
	const struct fp_policy_cfg cfg = { .default_outbound = FP_DENY };
	struct fp_error err;
	pthread_t thread;

	REQUIRE(worker_start(&dp->plane.workers[0]) == 0);
	dp->plane.running = true;
	REQUIRE(pthread_create(&thread, NULL, start_late, dp) == 0);
	CHECK_EQ(70, fp_policy_commit(dp, &cfg, &err), 0);
	REQUIRE(pthread_join(thread, NULL) == 0);
	fp_stop(dp);
	CHECK(71, dp->plane.workers[0].core.policy == dp->policies->mem &&
			  dp->plane.workers[1].core.policy == dp->policies->mem);
	fp_close(dp);
}

/* Frames that went to and fro already end where they are, if they are not at home there. */
static void check_hops(void)
{
	enum { N = 32 };
	fp_dp *dp = open_node(N_WORKERS);
	static uint8_t data[FP_FRAME_MAX];
	struct side side = { .dp = dp };
	uint32_t n_sent = 0;

	REQUIRE(fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0 && commit_fib(dp) == 0);
	for (uint32_t i = 0; i < N; i++) {
		struct spec s = { .src = CLIENT,
				  .dst = SERVER,
				  .proto = IPPROTO_NUM_UDP,
				  .sport = (uint16_t)(5000 + 2 * i),
				  .dport = 53,
				  .payload = 20 };
		struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &s);

		f.owner = 1;
		f.verdict = V_COUNT;
		f.hops = HANDOFF_HOPS_MAX - 1;
		handoff_send(&dp->plane.workers[0], &f);
		CHECK_EQ(72, f.verdict, V_COUNT);
		f.hops = HANDOFF_HOPS_MAX;
		handoff_send(&dp->plane.workers[0], &f);
		CHECK_EQ(73, f.verdict, V_HANDOFF_LOOP);
	}
	REQUIRE(fp_start(dp, &(struct fp_error){ "" }) == 0);
	while (total(dp, V_SNAT) + total(dp, V_HANDOFF_LOOP) + total(dp, V_HANDOFF) < N)
		usleep(1000);
	fp_stop(dp);
	n_sent = take_all(dp, WAN, data, NULL, &side);
	CHECK(74, n_sent > 0 && n_sent < N);
	CHECK_EQ(75, total(dp, V_HANDOFF_LOOP), N - n_sent);
	fp_close(dp);
}

/* Whatever step of fp_open() fails, nothing stays behind (AddressSanitizer looks), and the reason is said. */
static void check_refusals(void)
{
	struct fp_config cfg = frames_config(N_WORKERS, 4096);
	struct fp_error err = { "" };
	fp_dp *dp = NULL;

	cfg.pulse = (struct fp_pulse_cfg){ .interval_ms = 50, .dead_after = 3, .udp_port = 47850 };
	CHECK_EQ(36, fp_open(&cfg, &dp, &err), (uint64_t)-EINVAL);
	CHECK(37, strstr(err.text, "pulse.mac_key") != NULL);
	cfg.pulse.mac_key[0] = 1;
	CHECK_EQ(30, fp_open(NULL, &dp, &err), (uint64_t)-EINVAL);
	cfg.abi_version++;
	CHECK_EQ(31, fp_open(&cfg, &dp, &err), (uint64_t)-EINVAL);
	CHECK(32, strstr(err.text, "abi_version") != NULL);
	cfg.abi_version--;
	for (uint32_t i = 0; i < N_PORTS; i++)
		cfg.ports[i].driver = FP_DRIVER_MEM;
	cfg.pulse.xc_addr = addr_from_v4(IP4(192, 0, 2, 77)); /* nobody's */
	cfg.pulse.xc_peer_addr = addr_from_v4(IP4(192, 0, 2, 78));
	CHECK_EQ(33, fp_open(&cfg, &dp, &err), (uint64_t)-EADDRNOTAVAIL);
	CHECK(34, strstr(err.text, "192.0.2.77") != NULL);
	CHECK(35, dp == NULL);
	fp_close(dp);
}

/* What one node has, the other takes; a worker count of its own does not matter. */
static void check_transfer(void)
{
	static struct fp_flow_rec recs[256];
	fp_dp *a = open_node(N_WORKERS), *b = open_node(1);
	struct side side = { .dp = a };
	struct fp_cursor cursor = { 0 };
	uint8_t data[FP_FRAME_MAX];
	struct fp_error err;
	int n = 0, taken;

	REQUIRE(fp_start(a, &err) == 0 && fp_start(b, &err) == 0);
	REQUIRE(commit_fib(a) == 0 && fp_set_role(a, FP_ROLE_ACTIVE, 2) == 0);
	REQUIRE(fp_set_role(b, FP_ROLE_PASSIVE, 2) == 0);
	for (uint64_t i = 0; i < 60; i++) {
		const struct spec spec = { .src = CLIENT,
					   .dst = SERVER,
					   .proto = IPPROTO_NUM_UDP,
					   .sport = (uint16_t)(20000 + i),
					   .dport = 53 };
		const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

		put(&side, LAN, i, data, f.len);
	}
	while (n_ended(a) < 60)
		sched_yield();
	while (!cursor.done) {
		taken = fp_flows_walk(a, &cursor, recs + n, (uint32_t)(ARRAY_SIZE(recs) - (size_t)n));
		REQUIRE(taken >= 0);
		n += taken;
	}
	CHECK_EQ(20, n, 60);
	CHECK_EQ(21, fp_import_begin(b, UINT64_MAX, 0), 0);
	CHECK_EQ(22, fp_flows_import(b, recs, (uint32_t)n), (uint64_t)n);
	CHECK_EQ(23, fp_import_end(b, UINT64_MAX), 0); /* all of it was refreshed */
	CHECK_EQ(24, fp_import_begin(b, UINT64_MAX, 0), 0);
	CHECK_EQ(25, fp_import_end(b, UINT64_MAX), (uint64_t)n); /* ... and now none of it */
	fp_close(a);
	fp_close(b);
}

/* Nobody waits for a worker that hangs; the others do what they are asked. */
static void check_a_worker_that_hangs(void)
{
	const struct fp_policy_cfg rules = { 0 };
	fp_dp *dp = open_node(N_WORKERS);
	struct fp_digest digests[FP_SHARDS];
	struct fp_error err;
	uint64_t from_ns;

	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0);
	from_ns = clock_now();
	atomic_store(&dp->pulse.hung_workers, 1 << 1); /* as if the pulse thread had seen it */
	CHECK_EQ(90, -fp_digests(dp, digests), ETIMEDOUT);
	CHECK_EQ(91, -fp_sync_track(dp, 1), ETIMEDOUT);
	CHECK_EQ(92, -commit_fib(dp), ETIMEDOUT);
	CHECK_EQ(93, dp->fibs != NULL && dp->fibs->older != NULL, 1); /* it may still read the older one */
	CHECK_EQ(94, -commit_fib(dp), ETIMEDOUT);
	CHECK(95, dp->fibs->older->older == NULL); /* and there are not ever more */
	CHECK_EQ(96, -fp_policy_commit(dp, &rules, &err), EBUSY);
	CHECK(97, clock_now() - from_ns < 1000000000);
	atomic_store(&dp->pulse.hung_workers, 0);
	CHECK_EQ(98, fp_sync_track(dp, 1), 0);
	CHECK_EQ(99, commit_fib(dp), 0);
	CHECK(100, dp->fibs->older == NULL);
	fp_close(dp);
}

/* A long UDP datagram of segments, as a socket makes it. */
static struct fp_frame big_frame(uint8_t *data, uint64_t i)
{
	enum { PAYLOAD = 30000, SEGMENT = 1400 };

	const struct spec spec = { .src = CLIENT,
				   .dst = SERVER,
				   .proto = IPPROTO_NUM_UDP,
				   .sport = (uint16_t)(20000 + i % 50),
				   .dport = 53 };
	struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

	memset(data + f.len, (int)i, PAYLOAD);
	f.len += PAYLOAD;
	be16_store(data + ETH_LEN + IP_TOTAL, be16_of((uint16_t)(f.len - ETH_LEN)));
	be16_store(data + ETH_LEN + IPV4_LEN + UDP_LENGTH, be16_of(UDP_LEN + PAYLOAD));
	frames_fix_ip_csum(data + ETH_LEN);
	f.vnet = (struct fp_vnet){
		.flags = FP_VNET_NEEDS_CSUM,
		.gso_type = FP_GSO_UDP_L4,
		.gso_size = SEGMENT,
		.csum_start = ETH_LEN + IPV4_LEN,
		.csum_offset = UDP_CSUM,
	};
	return f;
}

/* Take what is captured; counts frames from a wire, and those of them that left. */
static void count_captured(fp_dp *dp, uint64_t *n, uint64_t *n_out)
{
	static uint8_t out[64 << 10];

	for (uint32_t i = 0; i < N_WORKERS; i++) {
		int got;

		while ((got = fp_capture_drain(dp, i, out, sizeof(out))) > 0) {
			for (uint32_t at = 0; at < (uint32_t)got;) {
				const struct fp_capture_rec *rec = (const void *)(out + at);

				*n += rec->from == FP_CAPTURE_WIRE;
				*n_out += rec->from == FP_CAPTURE_WIRE &&
					  rec->side[1].port != FP_CAPTURE_NO_PORT;
				at += rec->size;
			}
		}
		REQUIRE(got == 0);
	}
}

/* Half of the frames cross a hand-off ring, and each is captured once, by whoever owns it. */
static void check_captured_once(void)
{
	enum { N = 4000 };

	const struct fp_capture_cfg cfg = { .snaplen = 64, .ports = 1 << LAN | 1 << WAN, .any_verdict = 1 };
	fp_dp *dp = open_node(N_WORKERS);
	struct side side = { .dp = dp };
	uint8_t data[FP_FRAME_MAX], sent[FP_FRAME_MAX];
	uint64_t n = 0, n_out = 0, lost;
	struct fp_error err;

	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0);
	REQUIRE(fp_capture_start(dp, &cfg, &err) == 0);
	CHECK_EQ(60, fp_capture_start(dp, &cfg, &err), (uint64_t)-EALREADY);
	for (uint64_t i = 0; i < N; i++) {
		const struct spec spec = { .src = CLIENT,
					   .dst = SERVER,
					   .proto = IPPROTO_NUM_UDP,
					   .sport = (uint16_t)(20000 + i % 50),
					   .dport = 53 };
		const struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec);

		put(&side, LAN, i, data, f.len);
		take_all(dp, WAN, sent, NULL, &side);
	}
	while (n_ended(dp) < N)
		take_all(dp, WAN, sent, NULL, &side);
	REQUIRE(fp_capture_stop(dp) == 0);
	count_captured(dp, &n, &n_out);
	REQUIRE(fp_capture_lost(dp, &lost) == 0);
	CHECK_EQ(61, n, N);
	CHECK_EQ(62, n_out, total(dp, V_SNAT));
	CHECK_EQ(63, lost, 0);
	CHECK(64, total(dp, V_HANDOFF) > N / 8);
	put(&side, LAN, 0, data, 64);
	while (n_ended(dp) < N + 1)
		sched_yield();
	count_captured(dp, &n, &n_out);
	CHECK_EQ(65, n, N); /* it is over */
	fp_close(dp);       /* frees it, too */
}

/* Offload frames: half of them cross a hand-off ring, and all leave whole, or as segments. */
static void check_offload(bool wan_offload)
{
	enum { N_BIG = 2000, PER_FRAME = 22 };

	fp_dp *dp = open_node_with(N_WORKERS, true, wan_offload);
	static uint8_t data[FP_FRAME_BIG], out_data[FP_FRAME_BIG];
	struct fp_frame out = { .data = out_data };
	struct fp_error err;
	uint64_t n_out = 0;

	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0);
	for (uint64_t i = 0; i < N_BIG || n_ended(dp) < N_BIG;) {
		if (i < N_BIG) {
			const struct fp_frame f = big_frame(data, i);

			i += port_mem_put_frame(&dp->plane.ports[LAN], i % N_WORKERS, FP_SRC_WIRE, &f) == 0;
		}
		for (uint32_t q = 0; q < N_WORKERS; q++) {
			while (port_mem_take_frame(&dp->plane.ports[WAN], q, FP_SRC_WIRE, &out) > 0) {
				n_out++;
				CHECK(40, (out.vnet.gso_type == FP_GSO_UDP_L4) == wan_offload);
				CHECK(41, wan_offload ? out.len > FP_FRAME_MAX : frames_csums_ok(&out));
				CHECK(42, out_data[60] == out_data[out.len - 1]);
			}
		}
	}
	CHECK_EQ(43, total(dp, V_SNAT) + total(dp, V_TX_FAILED) + total(dp, V_HANDOFF_FULL), N_BIG);
	CHECK(44, total(dp, V_SNAT) > N_BIG / 8 && total(dp, V_HANDOFF) > N_BIG / 8);
	CHECK(45, n_out > total(dp, V_SNAT) * (wan_offload ? 0 : PER_FRAME - 1));
	fp_close(dp);
}

/* Bytes behind the IP header of each datagram that left, by its identification. */
struct tally {
	uint32_t bytes[1 << 16];
	uint32_t n_frames, len_max;
};

static void tally_sent(fp_dp *dp, struct tally *t)
{
	uint8_t data[FP_FRAME_MAX];
	uint32_t len;

	for (uint32_t q = 0; q < dp->plane.n_workers; q++) {
		while ((len = port_mem_take(&dp->plane.ports[WAN], q, FP_SRC_WIRE, data)) > 0) {
			const uint8_t *ip = data + ETH_LEN;

			CHECK(50, be32_load(ip + IP_SRC).raw == WAN_VIP.raw);
			CHECK(51, csum_fold(csum_sum(ip, IPV4_LEN)) == 0xffff);
			t->bytes[be16_load(ip + IP_ID).raw] += len - ETH_LEN - IPV4_LEN;
			t->len_max = max_u32(t->len_max, len);
			t->n_frames++;
		}
	}
}

/* A datagram in fragments, each by any queue, the first one at any place. */
static void put_fragments(struct side *side, uint64_t i)
{
	enum { PART_MAX = ETH_LEN + IPV4_LEN + 640 };

	const struct spec spec = { .src = i & 1 ? CLIENT : CLIENT2,
				   .dst = SERVER,
				   .proto = IPPROTO_NUM_UDP,
				   .sport = (uint16_t)(20000 + i % 50),
				   .dport = 53,
				   .payload = 1900 };
	static uint8_t data[FP_FRAME_MAX], room[8][FP_FRAME_MAX];
	struct fp_frame f = frames_ipv4(data, LAN, mac_virtual[LAN], &spec), parts[8];
	struct ip_cut cut;
	uint32_t n;

	be16_store(data + ETH_LEN + IP_ID, be16_of((uint16_t)(i / 2)));
	REQUIRE(ip_cut_begin(&cut, &f, PART_MAX));
	for (n = 0; n < ARRAY_SIZE(parts); n++) {
		parts[n].data = room[n];
		if (!ip_cut_next(&cut, &parts[n]))
			break;
	}
	for (uint32_t k = 0; k < n; k++) {
		const struct fp_frame *part = &parts[(k + i) % n];

		put(side, LAN, i * 7 + (uint64_t)k * k, part->data, part->len);
	}
}

/* Fragments that cross the rings twice: to their datagram's owner, and on to the flow's. All of them arrive. */
static void check_fragments(uint32_t wan_mtu)
{
	enum { N_DATAGRAMS = 3000, IN_FLIGHT = 20 };

	struct fp_config cfg = frames_config(N_WORKERS, 4096);
	static struct tally t;
	struct side side = { 0 };
	struct fp_error err;
	uint64_t whole = 0;
	fp_dp *dp;

	cfg.ports[WAN].mtu = wan_mtu;
	dp = side.dp = open_config(cfg);
	t = (struct tally){ 0 };
	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0);
	for (uint64_t i = 0; i < N_DATAGRAMS; i++) {
		put_fragments(&side, i);
		/* No more than the rings hold. */
		while (i % IN_FLIGHT == IN_FLIGHT - 1 && n_ended(dp) < atomic_load(&side.sent))
			sched_yield();
		tally_sent(dp, &t);
	}
	while (n_ended(dp) < atomic_load(&side.sent))
		sched_yield();
	tally_sent(dp, &t);
	CHECK_EQ(52, total(dp, V_SNAT), side.sent);
	CHECK(53, total(dp, V_FRAG_HELD) > N_DATAGRAMS / 2);
	CHECK(54, total(dp, V_HANDOFF) > N_DATAGRAMS);
	CHECK(55, t.len_max <= ETH_LEN + wan_mtu);
	CHECK(56, wan_mtu >= 1500 ? t.n_frames == side.sent : t.n_frames > side.sent);
	for (uint32_t id = 0; id < ARRAY_SIZE(t.bytes); id++) {
		CHECK(57, t.bytes[id] == 0 || t.bytes[id] == UDP_LEN + 1900);
		whole += t.bytes[id] != 0;
	}
	CHECK_EQ(58, whole, N_DATAGRAMS);
	fp_close(dp);
}

/* Segments of an offload frame that are too long for the way out: each becomes a datagram in fragments. */
static void check_narrow_segments(void)
{
	enum { SEGMENTS = 22, SEGMENT_L4 = UDP_LEN + 1400, LAST_L4 = UDP_LEN + 600 };

	struct fp_config cfg = frames_config(1, 4096);
	static uint8_t data[FP_FRAME_BIG];
	static struct tally t;
	struct fp_port_stats stats;
	struct fp_error err;
	struct fp_frame f;
	uint32_t whole = 0, last = 0;
	fp_dp *dp;

	cfg.ports[LAN].offload = 1;
	cfg.ports[WAN].mtu = 576;
	dp = open_config(cfg);
	t = (struct tally){ 0 };
	REQUIRE(fp_start(dp, &err) == 0 && commit_fib(dp) == 0 && fp_set_role(dp, FP_ROLE_ACTIVE, 2) == 0);
	f = big_frame(data, 1);
	REQUIRE(port_mem_put_frame(&dp->plane.ports[LAN], 0, FP_SRC_WIRE, &f) == 0);
	while (n_ended(dp) < 1)
		sched_yield();
	CHECK_EQ(60, total(dp, V_SNAT), 1);
	tally_sent(dp, &t);
	CHECK(61, t.len_max <= ETH_LEN + 576);
	CHECK_EQ(62, t.n_frames, (SEGMENTS - 1) * 3 + 2);
	for (uint32_t id = 0; id < ARRAY_SIZE(t.bytes); id++) {
		whole += t.bytes[id] == SEGMENT_L4;
		last += t.bytes[id] == LAST_L4;
	}
	CHECK_EQ(63, whole, SEGMENTS - 1);
	CHECK_EQ(64, last, 1);
	fp_port_stats_read(dp, WAN, &stats);
	CHECK_EQ(65, stats.tx_frames, t.n_frames);
	CHECK_EQ(66, stats.tx_bytes,
		 (SEGMENTS - 1) * SEGMENT_L4 + LAST_L4 + t.n_frames * (ETH_LEN + IPV4_LEN));
	fp_close(dp);
}

int main(void)
{
	check_narrow_segments();
	check_fragments(1500);
	check_fragments(576);
	check_offload(true);
	check_offload(false);
	check_captured_once();
	check_load();
	check_fencing();
	check_transfer();
	check_a_worker_that_hangs();
	check_refusals();
	check_late_worker();
	check_hops();
	return check_done("workers");
}
