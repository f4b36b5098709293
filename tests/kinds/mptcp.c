/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a listening MPTCP socket goes on listening, for plain TCP clients too */
#include "probe.h"

#include <netinet/in.h>
#include <sys/socket.h>

int main(void)
{
	int from = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	if (from < 0)
		probe_skip("MPTCP");
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) }, now;
	PROBE(setsockopt(from, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)));
	PROBE(bind(from, (struct sockaddr *)&address, sizeof address));
	PROBE(listen(from, 9));
	socklen_t size = sizeof address;
	PROBE(getsockname(from, (struct sockaddr *)&address, &size));
	int client = PROBE(socket(AF_INET, SOCK_STREAM, 0));
	PROBE(connect(client, (struct sockaddr *)&address, sizeof address));
	int server = PROBE(accept(from, NULL, NULL));
	PROBE(send(client, "before", 6, 0));

	probe_save();

	char seen[16] = "";
	int protocol = 0;
	size = sizeof protocol;
	getsockopt(from, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
	PROBE_SAME(protocol, IPPROTO_MPTCP, "protocol");
	size = sizeof now;
	getsockname(from, (struct sockaddr *)&now, &size);
	PROBE_SAME(now.sin_port, address.sin_port, "port");
	PROBE_SAME(recv(server, seen, sizeof seen, MSG_DONTWAIT), 6, "bytes of a plain connection that it accepted");
	PROBE_SAME(send(server, "back", 4, MSG_NOSIGNAL), 4, "answer");
	PROBE_SAME(recv(client, seen, sizeof seen, 0), 4, "answer");
	int fresh = socket(AF_INET, SOCK_STREAM, 0);
	PROBE_SAME(connect(fresh, (struct sockaddr *)&address, sizeof address), 0, "a new connection");
	int accepted = accept(from, NULL, NULL);
	PROBE_SAME(send(fresh, "new", 3, 0), 3, "a new connection");
	PROBE_SAME(recv(accepted, seen, sizeof seen, 0), 3, "a new connection");
	return probe_end();
}
