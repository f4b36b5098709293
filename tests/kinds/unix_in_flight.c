/* SPDX-License-Identifier: Apache-2.0 */
/* probe: descriptors on their way through Unix sockets arrive as the same open files, with the byte they were sent with */
#include "probe.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

static void pass(int fd, const char *text, const int *fds, size_t count)
{
	union {
		struct cmsghdr header;
		char space[256];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)text, strlen(text) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(header), fds, count * sizeof(int));
	PROBE(sendmsg(fd, &message, 0));
}

static size_t take(int fd, size_t most, const char *text, int *fds)
{
	char seen[64] = "";
	union {
		struct cmsghdr header;
		char space[256];
	} control;
	struct iovec iov = { seen, most };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT);
	PROBE_SAME(size, strlen(text), text);
	PROBE_TRUE(size >= 0 && !strncmp(seen, text, (size_t)size), text);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	size_t count = header && header->cmsg_type == SCM_RIGHTS ? (header->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	memcpy(fds, CMSG_DATA(header), header ? count * sizeof(int) : 0);
	return count;
}

int main(void)
{
	int stream[2], packet[2], inner[2], pipe_ends[2], fds[8];
	char seen[64];
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	PROBE(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packet));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, inner));
	PROBE(pipe(pipe_ends));
	PROBE(write(pipe_ends[1], "in the pipe", 11));
	int event = PROBE(eventfd(41, EFD_NONBLOCK));
	int file = PROBE(open("carried", O_RDWR | O_CREAT, 0600));
	PROBE(write(file, "0123456789", 10));
	PROBE(lseek(file, 4, SEEK_SET));
	int kept = PROBE(dup(file));
	/* The pipe's ends and the eventfd exist only on their way; the file has a descriptor as well. */
	PROBE(write(stream[0], "ab", 2));
	pass(stream[0], "cde", (int[]){ pipe_ends[0], event, file }, 3);
	PROBE(write(stream[0], "fg", 2));
	pass(stream[0], "h", (int[]){ pipe_ends[1] }, 1);
	/* A socket on its way, in whose queue another descriptor is on its way. */
	pass(inner[0], "deep", (int[]){ event }, 1);
	pass(packet[0], "socket", (int[]){ inner[1] }, 1);
	pass(packet[0], "again", (int[]){ kept }, 1);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	close(event);
	close(file);
	close(inner[0]);
	close(inner[1]);

	probe_save();

	PROBE_SAME(take(stream[1], 1, "a", fds), 0, "descriptors with the first byte");
	PROBE_SAME(take(stream[1], 2, "bc", fds), 3, "descriptors with the third byte");
	PROBE_SAME(read(fds[0], seen, sizeof seen), 11, "bytes in the pipe");
	PROBE_TRUE(!memcmp(seen, "in the pipe", 11), "contents of the pipe");
	uint64_t count = 0;
	PROBE_SAME(read(fds[1], &count, 8), 8, "read of the eventfd");
	PROBE_SAME(count, 41, "count of the eventfd");
	PROBE_SAME(fcntl(fds[1], F_GETFL), O_RDWR | O_NONBLOCK, "flags of the eventfd");
	PROBE_SAME(lseek(fds[2], 0, SEEK_CUR), 4, "position of the file");
	lseek(fds[2], 7, SEEK_SET);
	PROBE_SAME(lseek(kept, 0, SEEK_CUR), 7, "position through the descriptor that was kept");
	int more[8], deep[8];
	PROBE_SAME(take(stream[1], 2, "de", more), 0, "descriptors with the fourth byte");
	PROBE_SAME(take(stream[1], 9, "fgh", more), 1, "descriptors with the last byte");
	PROBE_SAME(write(more[0], "more", 4), 4, "write to the pipe");
	PROBE_SAME(read(fds[0], seen, sizeof seen), 4, "read of the pipe");
	PROBE_SAME(take(packet[1], 9, "socket", more), 1, "descriptors with the packet");
	PROBE_SAME(take(more[0], 9, "deep", deep), 1, "descriptors in the socket that was on its way");
	PROBE_SAME(write(deep[0], &(uint64_t){ 5 }, 8), 8, "write to the eventfd");
	PROBE_SAME(read(fds[1], &count, 8), 8, "read of the same eventfd");
	PROBE_SAME(count, 5, "count of the same eventfd");
	PROBE_SAME(read(more[0], seen, 1), 0, "end of the socket that was on its way");
	PROBE_SAME(take(packet[1], 9, "again", more), 1, "descriptors with the last packet");
	PROBE_SAME(lseek(more[0], 0, SEEK_CUR), 7, "position of the file that came last");
	return probe_end();
}
