/* SPDX-License-Identifier: Apache-2.0 */
/* A connected MPTCP socket refuses TCP_REPAIR, also when it has fallen back to TCP. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "fact.h"

enum { PROTOCOL_MPTCP = 262 };

int main(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	int on = 1;
	fact_start();
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, PROTOCOL_MPTCP);
	if (client < 0)
		fact_skip("MPTCP: %s", strerror(errno));
	int plain = (int)fact_need(socket(AF_INET, SOCK_STREAM, 0), "socket");
	fact_need(setsockopt(plain, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on), "TCP_REPAIR");
	fact_need(bind(server, (struct sockaddr *)&address, sizeof address), "bind");
	fact_need(listen(server, 1), "listen");
	fact_need(getsockname(server, (struct sockaddr *)&address, &size), "getsockname");
	fact_need(connect(client, (struct sockaddr *)&address, sizeof address), "connect");
	int rc = setsockopt(client, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on), error = errno;
	return fact(rc < 0, "repair of a connection that fell back: %s", rc < 0 ? strerror(error) : "works") ? FACT_HOLDS : FACT_FAILS;
}
