/* SPDX-License-Identifier: Apache-2.0 */
/**
 * port_veth.c - host side of a port where there is no /dev/net/tun: a veth pair
 *
 *   node's namespace           nameless namespace
 *   lan0 ------ veth pair ------ far ------ AF_PACKET socket ------ worker 0 reads, all write
 *
 * The far end is read and written like a wire (port_packet.c). Its namespace ends with our socket, and the pair
 * with the namespace: shortly after the process, whatever way that ends.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "netns.h"
#include "port.h"

#define FAR "far"

enum { HOST_SLOTS = 512 };

/* A netlink request in the making. */
struct request_buf {
	struct nlmsghdr nlh;
	struct ifinfomsg link;
	uint8_t attrs[400];
};

static struct rtattr *put(struct request_buf *req, unsigned short type, const void *data, size_t len)
{
	struct rtattr *attr = (void *)((uint8_t *)req + NLMSG_ALIGN(req->nlh.nlmsg_len));

	FP_ASSERT(NLMSG_ALIGN(req->nlh.nlmsg_len) + RTA_SPACE(len) <= sizeof(*req));
	attr->rta_type = type;
	attr->rta_len = (unsigned short)RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(attr), data, len);
	req->nlh.nlmsg_len = (uint32_t)(NLMSG_ALIGN(req->nlh.nlmsg_len) + RTA_SPACE(len));
	return attr;
}

/* All that was put since belongs into @attr. */
static void end_nest(struct request_buf *req, struct rtattr *attr)
{
	attr->rta_len = (unsigned short)((uint8_t *)req + req->nlh.nlmsg_len - (uint8_t *)attr);
}

static struct request_buf request(unsigned short type, unsigned short flags)
{
	return (struct request_buf){
		.nlh = {
			.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
			.nlmsg_type = type,
			.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags),
		},
	};
}

/* Send, and wait for the answer, which the kernel has ready when send() returns. */
static int ask(int rtnl, struct request_buf *req)
{
	struct {
		struct nlmsghdr nlh;
		struct nlmsgerr err;
		uint8_t rest[sizeof(struct request_buf)];
	} answer;

	if (send(rtnl, req, req->nlh.nlmsg_len, 0) < 0 || recv(rtnl, &answer, sizeof(answer), 0) < 0)
		return -errno;
	return answer.nlh.nlmsg_type == NLMSG_ERROR ? answer.err.error : -EPROTO;
}

static int open_rtnl(void)
{
	const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	return fd < 0 ? -errno : fd;
}

/* The pair: one end here, the other in the namespace @far_ns. */
static int make_pair(int rtnl, const struct fp_port_cfg *cfg, int far_ns)
{
	struct request_buf req = request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
	const struct ifinfomsg none = { 0 };
	const uint32_t mtu = cfg->mtu;
	struct rtattr *info, *data, *peer;

	put(&req, IFLA_IFNAME, cfg->host_dev, strlen(cfg->host_dev) + 1);
	put(&req, IFLA_ADDRESS, cfg->mac, sizeof(cfg->mac));
	put(&req, IFLA_MTU, &mtu, sizeof(mtu));
	info = put(&req, IFLA_LINKINFO, NULL, 0);
	put(&req, IFLA_INFO_KIND, "veth", strlen("veth"));
	data = put(&req, IFLA_INFO_DATA, NULL, 0);
	peer = put(&req, VETH_INFO_PEER, &none, sizeof(none));
	put(&req, IFLA_IFNAME, FAR, sizeof(FAR));
	put(&req, IFLA_MTU, &mtu, sizeof(mtu));
	put(&req, IFLA_NET_NS_FD, &far_ns, sizeof(far_ns));
	end_nest(&req, peer);
	end_nest(&req, data);
	end_nest(&req, info);
	return ask(rtnl, &req);
}

/* The far end: up, and no IPv6 of its own, since nobody but us speaks there. */
static int set_up_far(void)
{
	const uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
	struct request_buf req = request(RTM_SETLINK, 0);
	struct rtattr *spec, *inet6;
	int rtnl = open_rtnl();
	int rc;

	if (rtnl < 0)
		return rtnl;
	req.link.ifi_index = (int)if_nametoindex(FAR);
	spec = put(&req, IFLA_AF_SPEC, NULL, 0);
	inet6 = put(&req, AF_INET6, NULL, 0);
	put(&req, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof(mode));
	end_nest(&req, inet6);
	end_nest(&req, spec);
	rc = ask(rtnl, &req);
	if (rc == -EAFNOSUPPORT || rc == -EOPNOTSUPP) /* a kernel without IPv6 */
		rc = 0;
	if (rc == 0) {
		req = request(RTM_SETLINK, 0);
		req.link.ifi_index = (int)if_nametoindex(FAR);
		req.link.ifi_flags = req.link.ifi_change = IFF_UP;
		rc = ask(rtnl, &req);
	}
	close(rtnl);
	return rc;
}

/* That the far end is down is our own doing, see port_veth_set_carrier(). */
static int host_rx(struct chan *ch, struct fp_frame *frames, uint32_t n)
{
	const int got = packet_ops.rx(ch, frames, n);

	return got == -ENETDOWN ? 0 : got;
}

static int host_tx(struct chan *ch, const struct fp_frame *frame)
{
	return packet_ops.tx(ch, frame);
}

static const struct chan_ops host_ops = { .rx = host_rx, .tx = host_tx };

/* In the namespace of the far end. */
static int open_far(struct port *port)
{
	const int here = netns_open_here();
	int rc;

	if (here < 0)
		return here;
	rc = make_pair(port->rtnl, port->cfg, here);
	close(here);
	if (rc) { /* then there is nothing of ours to delete */
		close(port->rtnl);
		port->rtnl = -1;
		return rc;
	}
	rc = set_up_far();
	if (rc == 0)
		rc = packet_chan_open(&port->host[0], FAR, port->cfg->offload, HOST_SLOTS, NULL);
	port->host[0].ops = &host_ops;
	return rc;
}

int port_veth_open_host(struct port *port, struct fp_error *err)
{
	const struct fp_port_cfg *cfg = port->cfg;
	int home, rc;

	port->rtnl = open_rtnl();
	rc = port->rtnl < 0 ? port->rtnl : netns_enter(NULL, &home);
	if (rc == 0) {
		rc = open_far(port);
		netns_leave(home);
	}
	for (uint32_t q = 1; q < port->n_queues; q++)
		port->host[q] = port->host[0]; /* they write to it; only worker 0 reads */
	if (rc == 0)
		return 0;
	return port_fail(err, rc, "port %s: host device %s, a veth pair: %s", cfg->name, cfg->host_dev,
			 rc == -EEXIST  ? "a device of that name exists already (is another flexhad running?)"
			 : rc == -EPERM ? "not permitted: CAP_SYS_ADMIN and CAP_NET_ADMIN are needed"
					: strerror(-rc));
}

void port_veth_close_host(struct port *port)
{
	packet_chan_close(&port->host[0]);
	for (uint32_t q = 1; q < port->n_queues; q++)
		port->host[q] = port->host[0];
	if (port->rtnl >= 0) {
		/* The kernel ends namespaces at its leisure; who starts again at once must find the name free. */
		struct request_buf req = request(RTM_DELLINK, 0);

		put(&req, IFLA_IFNAME, port->cfg->host_dev, strlen(port->cfg->host_dev) + 1);
		ask(port->rtnl, &req);
		close(port->rtnl);
	}
	port->rtnl = -1;
}

int port_veth_set_carrier(struct port *port, bool up)
{
	struct ifreq ifr = { .ifr_name = FAR };
	const int fd = port->host[0].fd; /* it belongs to the far end's namespace */

	if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		return -errno;
	ifr.ifr_flags = (short)(up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP);
	return ioctl(fd, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}
