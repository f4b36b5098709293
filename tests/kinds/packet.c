/* SPDX-License-Identifier: Apache-2.0 */
/* probe: packet sockets keep protocol, interface, memberships, fanout, filter and options, and packets come */
#include "probe.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { PROTOCOL = 0x88b5, ANOTHER = 0x88b6 }; /* of IEEE 802, for local experiments */

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof value;
	getsockopt(fd, level, name, &value, &size);
	return value;
}

static int promiscuous_users(void)
{
	char line[64] = "";
	FILE *file = fopen("/sys/class/net/lo/flags", "re");
	if (file && fgets(line, sizeof line, file))
		fclose(file);
	return strtol(line, NULL, 16) & IFF_PROMISC ? 1 : 0;
}

/* How often the group @address is wanted at lo (/proc/net/dev_mcast). */
static int group_users(const unsigned char address[6])
{
	char line[128], digits[64], wanted[13];
	int users = 0, found = 0;
	snprintf(wanted, sizeof wanted, "%02x%02x%02x%02x%02x%02x", address[0], address[1], address[2], address[3], address[4], address[5]);
	FILE *file = fopen("/proc/net/dev_mcast", "re");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "%*d lo %d %*d %63s", &users, digits) == 2 && !strcmp(digits, wanted))
			found = users;
	if (file)
		fclose(file);
	return found;
}

static void same_name(int fd, unsigned protocol, unsigned index, const char *what)
{
	struct sockaddr_ll now = { 0 };
	socklen_t size = sizeof now;
	PROBE_SAME(getsockname(fd, (struct sockaddr *)&now, &size), 0, what);
	PROBE_SAME(ntohs(now.sll_protocol), protocol, what);
	PROBE_SAME(now.sll_ifindex, index, what);
}

int main(void)
{
	int raw = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0), dgram = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ANOTHER));
	if (raw < 0)
		probe_skip("packet sockets are not permitted");
	unsigned lo = if_nametoindex("lo");
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(PROTOCOL), .sll_ifindex = (int)lo };
	/* Everything but what begins with 0x42 after the Ethernet header. */
	struct sock_filter code[] = { { BPF_LD | BPF_B | BPF_ABS, 0, 0, ETH_HLEN }, { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0x42 },
				      { BPF_RET | BPF_K, 0, 0, 0 }, { BPF_RET | BPF_K, 0, 0, 0xffff } };
	const struct sock_fprog program = { 4, code };
	struct packet_mreq promiscuous = { .mr_ifindex = (int)lo, .mr_type = PACKET_MR_PROMISC };
	struct packet_mreq multicast = { .mr_ifindex = (int)lo, .mr_type = PACKET_MR_MULTICAST, .mr_alen = 6,
					 .mr_address = { 1, 0, 0x5e, 0x55, (unsigned char)(getpid() >> 8), (unsigned char)getpid() } };
	PROBE(setsockopt(raw, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_AUXDATA, &(int){ 1 }, sizeof(int)));
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_VERSION, &(int){ TPACKET_V2 }, sizeof(int)));
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_RESERVE, &(int){ 24 }, sizeof(int)));
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_IGNORE_OUTGOING, &(int){ 1 }, sizeof(int)));
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous));
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &multicast, sizeof multicast));
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &multicast, sizeof multicast));
	PROBE(bind(raw, (struct sockaddr *)&address, sizeof address));
	int fanout = (getpid() & 0xffff) | PACKET_FANOUT_LB << 16;
	PROBE(setsockopt(raw, SOL_PACKET, PACKET_FANOUT, &fanout, sizeof fanout));
	fanout = option(raw, SOL_PACKET, PACKET_FANOUT);
	int users = group_users(multicast.mr_address);

	probe_save();

	same_name(raw, PROTOCOL, lo, "name of the raw one");
	same_name(dgram, ANOTHER, 0, "name of the other");
	PROBE_SAME(option(raw, SOL_PACKET, PACKET_AUXDATA), 1, "PACKET_AUXDATA");
	PROBE_SAME(option(raw, SOL_PACKET, PACKET_VERSION), TPACKET_V2, "PACKET_VERSION");
	PROBE_SAME(option(raw, SOL_PACKET, PACKET_RESERVE), 24, "PACKET_RESERVE");
	PROBE_SAME(option(raw, SOL_PACKET, PACKET_IGNORE_OUTGOING), 1, "PACKET_IGNORE_OUTGOING");
	PROBE_SAME(option(dgram, SOL_PACKET, PACKET_AUXDATA), 0, "PACKET_AUXDATA of the other");
	PROBE_SAME(option(raw, SOL_PACKET, PACKET_FANOUT), fanout, "PACKET_FANOUT");
	PROBE_SAME(fcntl(raw, F_GETFL), O_RDWR | O_NONBLOCK, "flags");
	PROBE_SAME(fcntl(dgram, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_SAME(promiscuous_users(), 1, "lo is promiscuous");
	PROBE_TRUE(users > 0, "the multicast membership was seen");
	PROBE_SAME(group_users(multicast.mr_address), users, "users of the multicast group");
	/* Joined twice, so left twice. */
	setsockopt(raw, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &multicast, sizeof multicast);
	PROBE_SAME(group_users(multicast.mr_address), users, "users of the multicast group, left once");
	setsockopt(raw, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &multicast, sizeof multicast);
	PROBE_SAME(group_users(multicast.mr_address), 0, "users of the multicast group, left twice");
	/* Two packets, the first of which the filter drops. */
	int sender = socket(AF_PACKET, SOCK_DGRAM, 0);
	address.sll_halen = 6;
	PROBE_SAME(sendto(sender, "\x42 no", 4, 0, (struct sockaddr *)&address, sizeof address), 4, "a packet");
	PROBE_SAME(sendto(sender, "\x43 yes", 5, 0, (struct sockaddr *)&address, sizeof address), 5, "another packet");
	struct pollfd pollfd = { .fd = raw, .events = POLLIN };
	char got[100] = "";
	PROBE_SAME(poll(&pollfd, 1, 3000), 1, "the packet");
	PROBE_SAME(recv(raw, got, sizeof got, 0), ETH_HLEN + 5, "length of the packet");
	probe_same_bytes(got + ETH_HLEN, "\x43 yes", 5, "packet");
	return probe_end();
}
