/* SPDX-License-Identifier: Apache-2.0 */
/* A packet socket without a protocol receives nothing, and joins a fanout group only when it is bound (net/packet/af_packet.c packet_create,
 * fanout_add): so filter and options come first, then the protocol, then the group. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include "fact.h"

enum { PROTOCOL = 0x88b5 };

int main(void)
{
	fact_start();
	int packet = (int)fact_need(socket(AF_PACKET, SOCK_DGRAM, 0), "socket"), sender = (int)fact_need(socket(AF_PACKET, SOCK_DGRAM, 0), "socket");
	struct sockaddr_ll lo = { .sll_family = AF_PACKET, .sll_protocol = htons(PROTOCOL), .sll_ifindex = (int)if_nametoindex("lo"), .sll_halen = 6 };
	int group = (getpid() & 0xffff) | PACKET_FANOUT_HASH << 16;
	char byte;
	int early = setsockopt(packet, SOL_PACKET, PACKET_FANOUT, &group, sizeof group), error = errno;
	bool holds = fact(early < 0, "before it is bound: fanout %s", early < 0 ? strerror(error) : "works");
	if (sendto(sender, "x", 1, 0, (struct sockaddr *)&lo, sizeof lo) < 0)
		fact_skip("a packet over lo: %s", strerror(errno));
	holds &= fact(recv(packet, &byte, 1, MSG_DONTWAIT) < 0, "it has received nothing");
	fact_need(bind(packet, (struct sockaddr *)&lo, sizeof lo), "bind");
	holds &= fact(setsockopt(packet, SOL_PACKET, PACKET_FANOUT, &group, sizeof group) == 0, "after it: fanout works");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
