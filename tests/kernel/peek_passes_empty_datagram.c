/* SPDX-License-Identifier: Apache-2.0 */
/* A look with MSG_PEEK and SO_PEEK_OFF shows an empty datagram once: the next look passes it over (net/core/datagram.c
 * __skb_try_recv_from_queue, `peeked`). Without an offset it is shown again and again. */
#include <sys/socket.h>

#include "fact.h"

static int lengths(int fd, int offset, ssize_t ret_lengths[4])
{
	char buffer[16];
	int count = 0;
	fact_need(setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset), "SO_PEEK_OFF");
	while (count < 4) {
		ssize_t size = recv(fd, buffer, sizeof buffer, MSG_PEEK | MSG_DONTWAIT);
		if (size < 0)
			break;
		ret_lengths[count++] = size;
	}
	return count;
}

int main(void)
{
	int ends[2];
	ssize_t seen[4] = { -1, -1, -1, -1 };
	fact_start();
	fact_need(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), "socketpair");
	fact_need(send(ends[0], "five!", 5, 0), "send");
	fact_need(send(ends[0], "", 0, 0), "send");
	fact_need(send(ends[0], "abc", 3, 0), "send");
	int count = lengths(ends[1], 0, seen);
	bool holds = fact(count == 3 && seen[0] == 5 && seen[1] == 0 && seen[2] == 3, "the first look shows 5, 0 and 3 bytes (%d messages)", count);
	count = lengths(ends[1], 0, seen);
	holds &= fact(count == 2 && seen[0] == 5 && seen[1] == 3, "the second shows 5 and 3 bytes only (%d messages)", count);
	char buffer[16];
	recv(ends[1], buffer, sizeof buffer, MSG_DONTWAIT);
	count = lengths(ends[1], -1, seen);
	holds &= fact(count == 4 && seen[0] == 0 && seen[3] == 0, "without an offset an empty first one is shown every time");
	return holds ? FACT_HOLDS : FACT_FAILS;
}
