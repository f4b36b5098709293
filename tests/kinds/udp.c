/* SPDX-License-Identifier: Apache-2.0 */
/* variant v4: UDP sockets keep addresses, connections, options, memberships and queued datagrams with their senders */
/* variant v6: the same over IPv6 */
/* variant lite: the same of UDP-Lite */
#include "probe.h"

#include <linux/net_tstamp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

static int family = AF_INET, protocol = IPPROTO_UDP;

static socklen_t loopback(struct sockaddr_storage *address, in_port_t port)
{
	memset(address, 0, sizeof *address);
	if (family == AF_INET) {
		struct sockaddr_in *four = (struct sockaddr_in *)address;
		*four = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		return sizeof *four;
	}
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
	*six = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	return sizeof *six;
}

static in_port_t port_of(int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	PROBE(getsockname(fd, (struct sockaddr *)&address, &size));
	return family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port : ((struct sockaddr_in6 *)&address)->sin6_port;
}

static int fresh(void)
{
	int fd = socket(family, SOCK_DGRAM, protocol);
	if (fd < 0 && (errno == EPROTONOSUPPORT || errno == EAFNOSUPPORT))
		probe_skip("this protocol");
	return PROBE(fd);
}

static int bound(void)
{
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, 0);
	int fd = fresh();
	PROBE(bind(fd, (struct sockaddr *)&address, size));
	return fd;
}

static void send_to(int fd, in_port_t port, const void *data, size_t length)
{
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, port);
	PROBE(sendto(fd, data, length, 0, (struct sockaddr *)&address, size));
}

static void receive(int fd, const void *data, size_t length, in_port_t port, const char *what)
{
	static char seen[70000];
	struct sockaddr_storage address = { 0 };
	socklen_t size = sizeof address;
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	poll(&pollfd, 1, 2000);
	ssize_t got = recvfrom(fd, seen, sizeof seen, MSG_DONTWAIT, (struct sockaddr *)&address, &size);
	PROBE_SAME(got, length, what);
	if (got == (ssize_t)length)
		probe_same_bytes(seen, data, length, what);
	struct sockaddr_storage wanted;
	size = loopback(&wanted, port);
	probe_same_bytes(&address, &wanted, 8, what);
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof value;
	getsockopt(fd, level, name, &value, &size);
	return value;
}

static void set(int fd, int level, int name, int value)
{
	PROBE(setsockopt(fd, level, name, &value, sizeof value));
}

static struct group_req group_of(uint8_t last)
{
	struct group_req request = { .gr_interface = if_nametoindex("lo") };
	if (family == AF_INET)
		*(struct sockaddr_in *)&request.gr_group =
			(struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(0xef010100u + last) };
	else
		*(struct sockaddr_in6 *)&request.gr_group = (struct sockaddr_in6){
			.sin6_family = AF_INET6, .sin6_addr.s6_addr = { 0xff, 0x15, [14] = 7, [15] = last } };
	return request;
}

/* 1 with the mode in *ret_mode when it is a member. */
static int is_member(int fd, uint8_t last, uint32_t *ret_mode, uint32_t *ret_sources)
{
	struct {
		struct group_filter head;
		struct sockaddr_storage more[4];
	} filter = { 0 };
	struct group_req group = group_of(last);
	filter.head.gf_interface = group.gr_interface;
	filter.head.gf_group = group.gr_group;
	filter.head.gf_numsrc = 4;
	socklen_t size = sizeof filter;
	if (getsockopt(fd, family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, MCAST_MSFILTER, &filter, &size) < 0)
		return 0;
	*ret_mode = filter.head.gf_fmode;
	*ret_sources = filter.head.gf_numsrc;
	return 1;
}

int main(int argc, char **argv)
{
	static char data[60000];
	probe_fill(data, sizeof data, 5);
	if (argc > 1 && !strcmp(argv[1], "v6"))
		family = AF_INET6;
	if (argc > 1 && !strcmp(argv[1], "lite"))
		protocol = IPPROTO_UDPLITE;
	int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
	int server = bound(), client = bound(), other = bound(), gone = bound(), dead = bound();
	in_port_t at = port_of(server), from = port_of(client), from_other = port_of(other), from_gone = port_of(gone),
		  from_dead = port_of(dead);
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, at);
	PROBE(connect(client, (struct sockaddr *)&address, size));
	/* Queued: empty first, of a connected sender, two empty ones between others, long, of one that is gone. */
	send_to(other, at, "", 0);
	PROBE(send(client, "second", 6, 0));
	send_to(other, at, "", 0);
	PROBE(send(client, "", 0, 0));
	send_to(other, at, data, sizeof data);
	if (!getuid()) /* another program could take its port meanwhile, and only root can speak for it then */
		send_to(gone, at, "last words", 10);
	PROBE(close(gone));
	send_to(server, from, "answer", 6);
	set(server, SOL_SOCKET, SO_BROADCAST, 1);
	set(server, SOL_SOCKET, SO_RCVBUF, 300000 / 2);
	set(server, SOL_SOCKET, SO_TIMESTAMPNS, 1);
	set(server, SOL_SOCKET, SO_TIMESTAMPNS, 0);
	set(other, SOL_SOCKET, 64 /* SO_TIMESTAMPNS_NEW */, 1);
	set(client, SOL_SOCKET, 65 /* SO_TIMESTAMPING_NEW */, SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID);
	set(client, IPPROTO_IP, IP_TTL, 33);
	set(client, level, family == AF_INET ? IP_RECVERR : IPV6_RECVERR, 1);
	set(other, level, family == AF_INET ? IP_PKTINFO : IPV6_RECVPKTINFO, 1);
	set(other, level, family == AF_INET ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP, 0);
	set(other, level, family == AF_INET ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS, 9);
	fcntl(other, F_SETFL, O_NONBLOCK);
	if (protocol == IPPROTO_UDPLITE)
		set(client, IPPROTO_UDPLITE, 10, 20);
	struct group_req group = group_of(7);
	PROBE(setsockopt(other, level, MCAST_JOIN_GROUP, &group, sizeof group));
	struct group_source_req source = { .gsr_interface = group.gr_interface, .gsr_group = group_of(9).gr_group };
	loopback(&source.gsr_source, 0);
	PROBE(setsockopt(other, level, MCAST_JOIN_SOURCE_GROUP, &source, sizeof source));
	int unbound = fresh();
	size = loopback(&address, from_other);
	PROBE(connect(dead, (struct sockaddr *)&address, size));
	PROBE(shutdown(dead, SHUT_RD));

	probe_save();

	PROBE_SAME(port_of(server), at, "port");
	PROBE_SAME(port_of(client), from, "port of the client");
	PROBE_SAME(port_of(dead), from_dead, "port of one that is shut down");
	size = sizeof address;
	PROBE_SAME(getpeername(client, (struct sockaddr *)&address, &size), 0, "peer of the client");
	PROBE_SAME(getpeername(server, (struct sockaddr *)&address, &size), -1, "peer of the server");
	receive(server, "", 0, from_other, "empty datagram");
	receive(server, "second", 6, from, "datagram of a connected one");
	receive(server, "", 0, from_other, "empty datagram in the middle");
	receive(server, "", 0, from, "empty datagram of a connected one");
	receive(server, data, sizeof data, from_other, "long datagram");
	if (!getuid())
		receive(server, "last words", 10, from_gone, "datagram of one that is gone");
	PROBE_SAME(recv(server, data, 1, MSG_DONTWAIT), -1, "one more datagram");
	receive(client, "answer", 6, at, "answer");
	PROBE_SAME(send(client, "again", 5, 0), 5, "send");
	receive(server, "again", 5, from, "datagram after the restore");
	PROBE_SAME(option(server, SOL_SOCKET, SO_BROADCAST), 1, "SO_BROADCAST");
	PROBE_SAME(option(server, SOL_SOCKET, SO_RCVBUF), 300000, "SO_RCVBUF");
	PROBE_SAME(option(other, SOL_SOCKET, 64), 1, "SO_TIMESTAMPNS_NEW");
	PROBE_SAME(option(other, SOL_SOCKET, SO_TIMESTAMPNS), 0, "SO_TIMESTAMPNS");
	PROBE_SAME(option(client, SOL_SOCKET, 65), SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID, "SO_TIMESTAMPING_NEW");
	PROBE_SAME(option(client, IPPROTO_IP, IP_TTL), 33, "IP_TTL");
	PROBE_SAME(option(client, level, family == AF_INET ? IP_RECVERR : IPV6_RECVERR), 1, "IP_RECVERR");
	PROBE_SAME(option(other, level, family == AF_INET ? IP_PKTINFO : IPV6_RECVPKTINFO), 1, "IP_PKTINFO");
	PROBE_SAME(option(other, level, family == AF_INET ? IP_MULTICAST_LOOP : IPV6_MULTICAST_LOOP), 0, "IP_MULTICAST_LOOP");
	PROBE_SAME(option(other, level, family == AF_INET ? IP_MULTICAST_TTL : IPV6_MULTICAST_HOPS), 9, "IP_MULTICAST_TTL");
	PROBE_SAME(fcntl(other, F_GETFL), O_RDWR | O_NONBLOCK, "flags");
	if (protocol == IPPROTO_UDPLITE)
		PROBE_SAME(option(client, IPPROTO_UDPLITE, 10), 20, "UDPLITE_SEND_CSCOV");
	uint32_t mode = 99, sources = 99;
	PROBE_SAME(is_member(other, 7, &mode, &sources), 1, "membership");
	PROBE_SAME(mode * 10 + sources, MCAST_EXCLUDE * 10, "mode of the membership");
	PROBE_SAME(is_member(other, 9, &mode, &sources), 1, "membership with a source");
	PROBE_SAME(mode * 10 + sources, MCAST_INCLUDE * 10 + 1, "mode of the membership with a source");
	PROBE_SAME(is_member(server, 7, &mode, &sources), 0, "membership of another socket");
	PROBE_SAME(port_of(unbound), 0, "port of one that is not bound");
	struct pollfd pollfd = { .fd = dead, .events = POLLRDHUP };
	poll(&pollfd, 1, 0);
	PROBE_TRUE(pollfd.revents & POLLRDHUP, "shut down for reading");
	return probe_end();
}
