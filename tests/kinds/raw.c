/* SPDX-License-Identifier: Apache-2.0 */
/* probe: raw and ping sockets keep protocol, addresses, filters and options */
#include "probe.h"

#include <linux/filter.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/socket.h>

enum { ICMP_FILTER_OPTION = 1 }; /* linux/icmp.h, which does not go with netinet/ip_icmp.h */

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof value;
	getsockopt(fd, level, name, &value, &size);
	return value;
}

static void echo(int fd, const char *what)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct {
		struct icmphdr header;
		char data[8];
	} packet = { { .type = ICMP_ECHO, .un.echo = { htons((uint16_t)getpid()), htons(9) } }, "cairn" };
	uint32_t sum = 0;
	for (size_t i = 0; i < sizeof packet / 2; i++)
		sum += ((uint16_t *)&packet)[i];
	sum = (sum & 0xffff) + (sum >> 16);
	packet.header.checksum = (uint16_t)~(sum + (sum >> 16));
	PROBE_SAME(sendto(fd, &packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to), sizeof packet, what);
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };
	PROBE_SAME(poll(&pollfd, 1, 3000), 1, what);
}

int main(void)
{
	int raw = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_ICMP), ping = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	int six = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
	if (raw < 0 && ping < 0)
		probe_skip("raw or ping sockets");
	const uint32_t only_replies = ~(1u << ICMP_ECHOREPLY);
	/* Only the answer to its own: what else comes on this host would wait in it. */
	struct sock_filter code[] = { { BPF_LD | BPF_H | BPF_ABS, 0, 0, 20 + 4 }, { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (uint16_t)getpid() },
				      { BPF_RET | BPF_K, 0, 0, 0xffff }, { BPF_RET | BPF_K, 0, 0, 0 } };
	const struct sock_fprog program = { 4, code };
	struct icmp6_filter nothing;
	ICMP6_FILTER_SETBLOCKALL(&nothing);
	if (six >= 0)
		PROBE(setsockopt(six, IPPROTO_ICMPV6, ICMP6_FILTER, &nothing, sizeof nothing));
	if (raw >= 0) {
		PROBE(setsockopt(raw, SOL_RAW, ICMP_FILTER_OPTION, &only_replies, sizeof only_replies));
		PROBE(setsockopt(raw, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
		PROBE(setsockopt(raw, IPPROTO_IP, IP_TTL, &(int){ 5 }, sizeof(int)));
	}

	probe_save();

	if (raw >= 0) {
		uint32_t filter = 0;
		socklen_t size = sizeof filter;
		getsockopt(raw, SOL_RAW, ICMP_FILTER_OPTION, &filter, &size);
		PROBE_SAME(filter, only_replies, "ICMP_FILTER");
		size = 4;
		struct sock_filter seen[4] = { 0 };
		PROBE_SAME(getsockopt(raw, SOL_SOCKET, SO_GET_FILTER, seen, &size), 0, "filter");
		PROBE_SAME(size, 4, "length of the filter");
		PROBE_SAME(seen[2].k, 0xffff, "value of the filter");
		PROBE_SAME(option(raw, IPPROTO_IP, IP_TTL), 5, "IP_TTL");
		PROBE_SAME(fcntl(raw, F_GETFL), O_RDWR | O_NONBLOCK, "flags");
		PROBE_SAME(option(raw, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMP, "protocol");
		echo(raw, "echo of the raw one");
	}
	if (ping >= 0)
		echo(ping, "echo of the ping one");
	struct icmp6_filter now = { 0 };
	socklen_t length = sizeof now;
	if (six >= 0 && getsockopt(six, IPPROTO_ICMPV6, ICMP6_FILTER, &now, &length) == 0)
		probe_same_bytes(&now, &nothing, sizeof now, "ICMP6_FILTER");
	if (six >= 0)
		PROBE_SAME(option(six, SOL_SOCKET, SO_PROTOCOL), IPPROTO_ICMPV6, "protocol of the raw one of IPv6");
	return probe_end();
}
