/* SPDX-License-Identifier: Apache-2.0 */
/* A look at a send queue (TCP_REPAIR_QUEUE, MSG_PEEK) gives whole segments, more than there was room for even, though the first is acknowledged in
 * part (net/ipv4/tcp.c tcp_peek_sndq): the bytes that count (SIOCOUTQ) are the last ones. */
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "fact.h"

enum { RECEIVE = 1, SEND = 2, HAD = 10, ALL = 400, REPAIR_OFF_NO_PROBE = -1 };

static void set(int fd, int name, int value)
{
	fact_need(setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value), "setsockopt");
}

static uint32_t sequence(int fd, int queue)
{
	uint32_t value = 0;
	socklen_t size = sizeof value;
	set(fd, TCP_REPAIR_QUEUE, queue);
	fact_need(getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &value, &size), "TCP_QUEUE_SEQ");
	return value;
}

static int connected(struct sockaddr_in *ret_server, struct sockaddr_in *ret_client, int *ret_peer)
{
	socklen_t size = sizeof *ret_server;
	*ret_server = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int server = (int)fact_need(socket(AF_INET, SOCK_STREAM, 0), "socket"), client = (int)fact_need(socket(AF_INET, SOCK_STREAM, 0), "socket");
	fact_need(bind(server, (struct sockaddr *)ret_server, size), "bind");
	fact_need(listen(server, 1), "listen");
	fact_need(getsockname(server, (struct sockaddr *)ret_server, &size), "getsockname");
	fact_need(connect(client, (struct sockaddr *)ret_server, size), "connect");
	fact_need(getsockname(client, (struct sockaddr *)ret_client, &size), "getsockname");
	*ret_peer = (int)fact_need(accept(server, NULL, NULL), "accept");
	return client;
}

/* The connection again, with ALL bytes to send, of which the peer has HAD. */
static int again(const struct sockaddr_in *server, const struct sockaddr_in *client, uint32_t sent, uint32_t received, const char *bytes)
{
	int fd = (int)fact_need(socket(AF_INET, SOCK_STREAM, 0), "socket");
	set(fd, TCP_REPAIR, 1);
	fact_need(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)), "SO_REUSEADDR");
	fact_need(bind(fd, (const struct sockaddr *)client, sizeof *client), "bind");
	set(fd, TCP_REPAIR_QUEUE, SEND);
	set(fd, TCP_QUEUE_SEQ, (int)(sent - HAD));
	set(fd, TCP_REPAIR_QUEUE, RECEIVE);
	set(fd, TCP_QUEUE_SEQ, (int)received);
	fact_need(connect(fd, (const struct sockaddr *)server, sizeof *server), "connect");
	set(fd, TCP_REPAIR_QUEUE, SEND);
	fact_need(send(fd, bytes, ALL, 0), "send");
	set(fd, TCP_REPAIR, 0); /* with a probe, whose answer acknowledges HAD */
	return fd;
}

int main(void)
{
	char bytes[ALL], seen[2 * ALL];
	struct sockaddr_in server, client;
	int peer, queued = 0;
	fact_start();
	for (int i = 0; i < ALL; i++)
		bytes[i] = (char)('a' + i % 26);
	int fd = connected(&server, &client, &peer);
	fact_need(send(fd, bytes, HAD, 0), "send");
	fact_need(recv(peer, seen, HAD, MSG_WAITALL), "recv");
	set(fd, TCP_REPAIR, 1);
	uint32_t sent = sequence(fd, SEND), received = sequence(fd, RECEIVE);
	close(fd);
	fd = again(&server, &client, sent, received, bytes);
	for (int i = 0; i < 1000 && queued != ALL - HAD; i++) {
		fact_need(ioctl(fd, SIOCOUTQ, &queued), "SIOCOUTQ");
		if (!queued)
			fact_skip("it was sent again too fast");
	}
	set(fd, TCP_REPAIR, 1);
	set(fd, TCP_REPAIR_QUEUE, SEND);
	ssize_t got = recv(fd, seen, (size_t)queued, MSG_PEEK | MSG_DONTWAIT), more = recv(fd, seen, sizeof seen, MSG_PEEK | MSG_DONTWAIT);
	set(fd, TCP_REPAIR, REPAIR_OFF_NO_PROBE);
	if (queued != ALL - HAD || more == queued)
		fact_skip("the segment was not acknowledged in part (%d queued)", queued);
	bool holds = fact(got > queued, "a look for %d bytes says %zd", queued, got);
	holds &= fact(more == ALL && !memcmp(seen + more - queued, bytes + HAD, (size_t)queued), "the last %d of them count", queued);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
