/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_hold.c - held frames against plain arrays: order, room, and every byte of what comes back
 *
 * Spec: B1 (hold queues are bounded in packets and bytes)
 */
#include "../hold.h"
#include "check.h"

enum { CHAINS = 5, SMALL_SLOTS = 24, MODEL_MAX = SMALL_SLOTS + HOLD_BIG };

/* A frame as the model knows it: all of it follows from its number and length. */
struct model_frame {
	uint32_t number, len;
};

struct model_chain {
	struct model_frame frames[MODEL_MAX];
	uint32_t n;
};

static uint64_t seed = 88172645463325252;
static uint8_t room[FP_FRAME_BIG];

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 33) % n;
}

static struct fp_config config(uint32_t frames, bool offload)
{
	struct fp_config cfg = { .n_ports = 2 };

	cfg.sync.hold_frames = frames;
	cfg.ports[1].offload = offload;
	return cfg;
}

static void *make(struct hold *h, const struct fp_config *cfg)
{
	void *mem = aligned_alloc(CACHE_LINE, (hold_mem_size(cfg) + 63) & ~(size_t)63);

	hold_init(h, mem, cfg);
	return mem;
}

/* Every field that a frame is stepped with is different from frame to frame. */
static struct fp_frame frame_of(const struct model_frame *m)
{
	for (uint32_t i = 0; i < m->len; i++)
		room[i] = (uint8_t)(m->number + i * 31);
	return (struct fp_frame){ .data = room,
				  .len = m->len,
				  .port = (uint8_t)(m->number % 7),
				  .src = (uint8_t)(m->number % 3),
				  .hops = (uint8_t)(m->number % 5),
				  .vnet = { .flags = (uint8_t)(m->number % 2),
					    .gso_size = (uint16_t)m->number },
				  .l4_sport = (uint16_t)(m->number * 3),
				  .l4_dport = (uint16_t)(m->number * 5),
				  .l4_known = (uint8_t)(m->number % 2) };
}

static bool same(const struct fp_frame *got, const uint8_t *data, const struct model_frame *m)
{
	const struct fp_frame want = frame_of(m); /* fills room */

	return got->len == want.len && got->port == want.port && got->src == want.src &&
	       got->hops == want.hops && got->l4_known == want.l4_known && got->l4_sport == want.l4_sport &&
	       got->l4_dport == want.l4_dport && memcmp(&got->vnet, &want.vnet, sizeof(got->vnet)) == 0 &&
	       memcmp(data, room, want.len) == 0;
}

static uint32_t model_used(const struct model_chain *chains, uint32_t n, bool big)
{
	uint32_t used = 0;

	for (uint32_t c = 0; c < n; c++)
		for (uint32_t i = 0; i < chains[c].n; i++)
			used += (chains[c].frames[i].len > FP_FRAME_MAX) == big;
	return used;
}

static void pop_all(struct hold *h, struct model_chain *ready, uint8_t *out_room, uint32_t limit)
{
	uint64_t at_ns;

	while (ready->n && limit--) {
		struct fp_frame out = { .data = out_room };

		REQUIRE(hold_pop(h, &out, &at_ns));
		CHECK(10, same(&out, out_room, &ready->frames[0]));
		CHECK_EQ(11, at_ns, ready->frames[0].number * UINT64_C(1000));
		memmove(ready->frames, ready->frames + 1, --ready->n * sizeof(*ready->frames));
	}
}

/* Whatever is done in whatever order: each chain is a queue, and no slot is lost. */
static void check_against_model(void)
{
	static struct model_chain model[CHAINS + 1]; /* the last one: may go */
	struct model_chain *ready = &model[CHAINS];
	const struct fp_config cfg = config(SMALL_SLOTS, true);
	struct hold_chain chains[CHAINS] = { { 0 } };
	uint8_t *out_room = malloc(FP_FRAME_BIG);
	struct hold h;
	void *mem = make(&h, &cfg);

	REQUIRE(out_room);
	for (uint32_t number = 1; number < 20000; number++) {
		const uint32_t c = rnd(CHAINS), what = rnd(10);
		const bool big = rnd(8) == 0;
		const struct model_frame m = { number,
					       big ? FP_FRAME_MAX + 1 + rnd(FP_FRAME_BIG - FP_FRAME_MAX)
						   : 14 + rnd(FP_FRAME_MAX - 13) };
		struct fp_frame f;

		if (what < 6) {
			const bool fits = model_used(model, CHAINS + 1, big) <
					  (big ? (uint32_t)HOLD_BIG : (uint32_t)SMALL_SLOTS);

			CHECK_EQ(1, hold_has_room(&h, m.len), fits);
			f = frame_of(&m);
			CHECK_EQ(2, hold_put(&h, &chains[c], &f, number * UINT64_C(1000)), fits);
			if (fits)
				model[c].frames[model[c].n++] = m;
		} else if (what < 8) {
			CHECK_EQ(3, hold_release(&h, &chains[c]), model[c].n);
			memcpy(ready->frames + ready->n, model[c].frames, model[c].n * sizeof(m));
			ready->n += model[c].n;
			model[c].n = 0;
		} else if (what == 8) {
			CHECK_EQ(4, hold_drop(&h, &chains[c]), model[c].n);
			model[c].n = 0;
		} else {
			pop_all(&h, ready, out_room, rnd(MODEL_MAX));
		}
		CHECK_EQ(5, hold_is_ready(&h), ready->n != 0);
		CHECK_EQ(6, counter_read(&h.n),
			 model_used(model, CHAINS + 1, false) + model_used(model, CHAINS + 1, true));
	}
	pop_all(&h, ready, out_room, MODEL_MAX);
	for (uint32_t c = 0; c < CHAINS; c++)
		hold_drop(&h, &chains[c]);
	CHECK_EQ(7, counter_read(&h.n), 0);
	CHECK_EQ(8, counter_read(&h.bytes), 0);
	free(out_room);
	free(mem);
}

/* Without slots, or without offload, there is no room, and no memory is taken for it. */
static void check_without_room(void)
{
	const struct fp_config none = config(0, true), plain = config(4, false);
	struct hold_chain chain = { 0 };
	struct fp_frame f = { .data = room, .len = 60 };
	uint64_t at_ns;
	struct hold h;
	void *mem = make(&h, &none);

	CHECK_EQ(20, hold_mem_size(&none), 0);
	CHECK(21, !hold_put(&h, &chain, &f, 1));
	CHECK(22, !hold_pop(&h, &f, &at_ns));
	CHECK_EQ(23, hold_release(&h, &chain), 0);
	CHECK_EQ(24, hold_drop(&h, &chain), 0);
	free(mem);
	mem = make(&h, &plain);
	CHECK(25, hold_mem_size(&plain) < 5 * (FP_FRAME_MAX + sizeof(struct held)));
	f.len = FP_FRAME_MAX + 1;
	CHECK(26, !hold_put(&h, &chain, &f, 1));
	f.len = FP_FRAME_MAX;
	CHECK(27, hold_put(&h, &chain, &f, 1));
	CHECK_EQ(28, counter_read(&h.bytes), FP_FRAME_MAX);
	free(mem);
}

int main(void)
{
	check_against_model();
	check_without_room();
	return check_done("hold");
}
