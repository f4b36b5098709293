/* SPDX-License-Identifier: Apache-2.0 */
/* shutdown(2) of a UDP socket that is not connected says ENOTCONN and shuts it down all the same (net/ipv4/af_inet.c inet_shutdown). */
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "fact.h"

int main(void)
{
	struct pollfd pollfd = { .events = POLLRDHUP | POLLIN };
	fact_start();
	pollfd.fd = (int)fact_need(socket(AF_INET, SOCK_DGRAM, 0), "socket");
	poll(&pollfd, 1, 0);
	bool holds = fact(!(pollfd.revents & POLLRDHUP), "before it, nothing is shut down");
	int rc = shutdown(pollfd.fd, SHUT_RD), error = errno;
	holds &= fact(rc < 0 && error == ENOTCONN, "it says %s", rc < 0 ? strerror(error) : "nothing");
	poll(&pollfd, 1, 0);
	holds &= fact(pollfd.revents & POLLRDHUP, "poll shows the end of the stream afterwards");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
