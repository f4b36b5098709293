/* SPDX-License-Identifier: Apache-2.0 */
/* A look at a Unix stream with MSG_PEEK runs over bytes without descriptors into those that have some, and shows these; if the last byte
 * cannot be copied, the answer ends where they begin (net/unix/af_unix.c unix_stream_read_generic). */
#include <sys/socket.h>

#include "fact.h"

union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

static void send_with(int fd, const char *text, size_t size, int descriptor)
{
	union control control = { .header = { CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS } };
	struct iovec iov = { (void *)(uintptr_t)text, size };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	memcpy(CMSG_DATA(&control.header), &descriptor, sizeof descriptor);
	fact_need(sendmsg(fd, &header, 0), "sendmsg");
}

int main(void)
{
	int ends[2];
	char buffer[64];
	union control control;
	fact_start();
	fact_need(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
	fact_need(send(ends[0], "plain", 5, 0), "send");
	send_with(ends[0], "carries", 7, ends[0]);
	struct iovec iov[] = { { buffer, sizeof buffer }, { NULL, 1 } };
	struct msghdr header = { .msg_iov = iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t size = recvmsg(ends[1], &header, MSG_PEEK);
	bool holds = fact(size == 12 && header.msg_controllen >= CMSG_LEN(sizeof(int)), "one look shows %zd of 12 bytes and the descriptor", size);
	iov[0].iov_len = 11;
	iov[1].iov_base = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	header = (struct msghdr){ .msg_iov = iov, .msg_iovlen = 2 };
	size = recvmsg(ends[1], &header, MSG_PEEK);
	holds &= fact(size == 5, "a look whose last byte has no place shows %zd bytes, up to where those begin", size);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
