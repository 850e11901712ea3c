/* SPDX-License-Identifier: Apache-2.0 */
/**
 * check_frag_forms.c - fragments of sessions other than a client's to a server: hairpin, forward, without ports
 *
 * Spec: RFC 4787 REQ-9, REQ-14
 */
#include "datagram.h"
#include "estate.h"

enum { PAYLOAD = 4000, GRE = 47 };

static struct datagram d;
static struct whole w;

/* The last one first: all wait for it, and leave as @verdict. */
static void send_reversed(struct rig *r, uint8_t port, const struct spec *s, uint16_t id, uint32_t verdict)
{
	datagram_make(&d, port, s, PAYLOAD, id);
	datagram_cut(&d, 1480);
	for (uint32_t i = 0; i < d.n / 2; i++) {
		const struct part tmp = d.parts[i];

		d.parts[i] = d.parts[d.n - 1 - i];
		d.parts[d.n - 1 - i] = tmp;
	}
	send_all(r, &d, &w, verdict);
}

static bool arrived(be32 dst, uint16_t dport)
{
	return whole_ok(&w) && be32_load(w.packet + IP_DST).raw == dst.raw &&
	       be16_host(be16_load(w.packet + IPV4_LEN + L4_DPORT)) == dport &&
	       memcmp(w.packet + IPV4_LEN + UDP_LEN, d.packet + IPV4_LEN + UDP_LEN, PAYLOAD) == 0;
}

static void check_hairpin(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct spec s = spec_udp;
	struct fp_frame f;

	s.src = CLIENT2;
	s.sport = 6000;
	f = estate_in(r, LAN, &s);
	s.src = CLIENT;
	s.dst = out_src(&f);
	s.sport = 5000;
	s.dport = out_sport(&f);
	send_reversed(r, LAN, &s, 1, V_HAIRPIN);
	CHECK(10, arrived(CLIENT2, 6000));
	s = (struct spec){ .src = CLIENT2,
			   .dst = be32_load(w.packet + IP_SRC),
			   .proto = IPPROTO_NUM_UDP,
			   .sport = 6000,
			   .dport = be16_host(be16_load(w.packet + IPV4_LEN + L4_SPORT)) };
	send_reversed(r, LAN, &s, 2, V_HAIRPIN);
	CHECK(11, arrived(CLIENT, 5000));
	rig_free(r);
}

static void check_forward(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct rules rules = { .forwards = { estate_forward(0, IPPROTO_NUM_UDP, 443, DMZ_SERVER, 8443) },
			       .n_forwards = 1 };
	void *policy = estate_policy(r, &rules);
	const struct spec s = {
		.src = SERVER, .dst = WAN_VIP, .proto = IPPROTO_NUM_UDP, .sport = 7000, .dport = 443
	};

	send_reversed(r, WAN, &s, 1, V_REVERSE);
	CHECK(20, arrived(DMZ_SERVER, 8443));
	CHECK_EQ(21, rig_stats(r).flows, 1);
	free(policy);
	rig_free(r);
}

/* Nothing is asked of the first fragment but that it opens the session. */
static void check_portless(void)
{
	struct fp_config cfg = estate_config(1);
	struct rig *r = estate_new(&cfg, 0);
	struct spec s = { .src = CLIENT, .dst = SERVER, .proto = GRE, .payload = 800 };

	s.frag = MF;
	CHECK_EQ(30, estate_in(r, LAN, &s).verdict, V_SNAT);
	s.frag = 100;
	CHECK_EQ(31, estate_in(r, LAN, &s).verdict, V_SNAT);
	s = (struct spec){ .src = SERVER, .dst = WAN_VIP, .proto = GRE, .payload = 800, .frag = 100 };
	CHECK_EQ(32, estate_in(r, WAN, &s).verdict, V_REVERSE);
	s.frag = MF;
	CHECK_EQ(33, estate_in(r, WAN, &s).verdict, V_REVERSE);
	CHECK_EQ(34, rig_stats(r).flows, 1);
	rig_free(r);
}

int main(void)
{
	check_hairpin();
	check_forward();
	check_portless();
	return check_done("frag_forms");
}
