/* SPDX-License-Identifier: Apache-2.0 */
/* SO_PEERCRED is who called connect(2), though a socket is shared, and stays when that process is gone: so a process that lives for a
 * moment can speak for one that is to be. */
#include <sys/socket.h>
#include <sys/un.h>

#include "fact.h"

int main(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct ucred credentials = { 0 };
	socklen_t size = sizeof name;
	fact_start();
	int server = (int)fact_need(socket(AF_UNIX, SOCK_STREAM, 0), "socket"), client = (int)fact_need(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	fact_need(bind(server, (struct sockaddr *)&name, sizeof(sa_family_t)), "bind"); /* autobind */
	fact_need(listen(server, 1), "listen");
	fact_need(getsockname(server, (struct sockaddr *)&name, &size), "getsockname");
	pid_t speaker = (pid_t)fact_need(fork(), "fork");
	if (speaker == 0)
		_exit(connect(client, (struct sockaddr *)&name, size) < 0);
	int status = -1;
	waitpid(speaker, &status, 0);
	int accepted = (int)fact_need(accept(server, NULL, NULL), "accept");
	size = sizeof credentials;
	fact_need(getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &credentials, &size), "SO_PEERCRED");
	bool holds = fact(!status && credentials.pid == speaker, "the peer is process %d, which has ended (not %d)", credentials.pid, getpid());
	return holds ? FACT_HOLDS : FACT_FAILS;
}
