/* SPDX-License-Identifier: Apache-2.0 */
/* probe: netlink sockets keep port, groups and options, and the kernel answers them */
#include "probe.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sys/socket.h>

static int option(int fd, int name)
{
	int value = -1;
	socklen_t size = sizeof value;
	getsockopt(fd, SOL_NETLINK, name, &value, &size);
	return value;
}

int main(void)
{
	const int on = 1, group = RTNLGRP_IPV6_IFADDR;
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR }, now;
	int route = PROBE(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	PROBE(bind(route, (struct sockaddr *)&address, sizeof address));
	PROBE(setsockopt(route, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group));
	PROBE(setsockopt(route, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on));
	socklen_t size = sizeof address;
	PROBE(getsockname(route, (struct sockaddr *)&address, &size));
	int generic = PROBE(socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK, NETLINK_GENERIC));

	probe_save();

	size = sizeof now;
	PROBE_SAME(getsockname(route, (struct sockaddr *)&now, &size), 0, "name");
	PROBE_SAME(now.nl_pid, address.nl_pid, "port");
	PROBE_SAME(now.nl_groups, address.nl_groups, "groups");
	PROBE_SAME(option(route, NETLINK_EXT_ACK), 1, "NETLINK_EXT_ACK");
	PROBE_SAME(option(generic, NETLINK_EXT_ACK), 0, "NETLINK_EXT_ACK of the other");
	PROBE_SAME(fcntl(generic, F_GETFL), O_RDWR | O_NONBLOCK, "flags");
	PROBE_SAME(fcntl(route, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	uint32_t words[4] = { 0 };
	size = sizeof words;
	getsockopt(route, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, words, &size);
	PROBE_SAME(words[0], address.nl_groups, "memberships");
	struct {
		struct nlmsghdr header;
		struct rtgenmsg message;
	} ask = { { sizeof ask, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 77, 0 }, { AF_UNSPEC } };
	char answer[16384];
	PROBE_SAME(send(route, &ask, sizeof ask, 0), sizeof ask, "request");
	/* What the groups tell of other tests' links comes in between, with the sequence 0. */
	struct nlmsghdr *header = (struct nlmsghdr *)answer;
	do
		size = (socklen_t)recv(route, answer, sizeof answer, 0);
	while ((int)size >= (int)sizeof *header && header->nlmsg_seq == 0);
	PROBE_TRUE((int)size > (int)sizeof *header, "answer");
	PROBE_SAME(header->nlmsg_seq, 77, "sequence of the answer");
	return probe_end();
}
