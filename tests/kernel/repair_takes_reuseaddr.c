/* SPDX-License-Identifier: Apache-2.0 */
/* TCP_REPAIR makes SO_REUSEADDR "forced" and leaves it 0 at its end, whatever it was (net/ipv4/tcp.c do_tcp_setsockopt, tcp_sk_repair);
 * the last close of a socket in repair mode tells the peer nothing. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "fact.h"

enum { REPAIR_OFF_NO_PROBE = -1 };

int main(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	int reuse = 1, on = 1, off = REPAIR_OFF_NO_PROBE;
	fact_start();
	int server = (int)fact_need(socket(AF_INET, SOCK_STREAM, 0), "socket"), client = (int)fact_need(socket(AF_INET, SOCK_STREAM, 0), "socket");
	fact_need(bind(server, (struct sockaddr *)&address, sizeof address), "bind");
	fact_need(listen(server, 1), "listen");
	fact_need(getsockname(server, (struct sockaddr *)&address, &size), "getsockname");
	fact_need(setsockopt(client, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse), "SO_REUSEADDR");
	fact_need(connect(client, (struct sockaddr *)&address, sizeof address), "connect");
	int peer = (int)fact_need(accept(server, NULL, NULL), "accept");
	fact_need(setsockopt(client, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on), "TCP_REPAIR");
	fact_need(setsockopt(client, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off), "TCP_REPAIR");
	size = sizeof reuse;
	getsockopt(client, SOL_SOCKET, SO_REUSEADDR, &reuse, &size);
	bool holds = fact(reuse == 0, "SO_REUSEADDR was 1 and is %d after repair", reuse);
	fact_need(setsockopt(client, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on), "TCP_REPAIR");
	close(client);
	char byte;
	ssize_t got = recv(peer, &byte, 1, MSG_DONTWAIT);
	holds &= fact(got < 0 && errno == EAGAIN, "the peer of a socket closed in repair mode hears nothing");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
