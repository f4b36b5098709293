/* SPDX-License-Identifier: Apache-2.0 */
/* probe: socket pairs inside the tree keep their messages, ends, options and credentials */
#include "probe.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>

static void same_option(int fd, int name, int wanted, const char *what)
{
	int value = -1;
	socklen_t size = sizeof value;
	getsockopt(fd, SOL_SOCKET, name, &value, &size);
	PROBE_SAME(value, wanted, what);
}

static void receive(int fd, const void *wanted, size_t size, const struct ucred *from, const char *what)
{
	static char seen[70000];
	union {
		struct cmsghdr header;
		char space[256];
	} control;
	struct iovec iov = { seen, sizeof seen };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
	PROBE_SAME(got, size, what);
	if (got == (ssize_t)size)
		probe_same_bytes(seen, wanted, size, what);
	struct ucred seen_from = { 0 };
	for (struct cmsghdr *one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one))
		if (one->cmsg_type == SCM_CREDENTIALS)
			memcpy(&seen_from, CMSG_DATA(one), sizeof seen_from);
	if (from) {
		PROBE_SAME(seen_from.pid, from->pid, "PID of a sender");
		PROBE_SAME(seen_from.uid, from->uid, "uid of a sender");
		PROBE_SAME(seen_from.gid, from->gid, "gid of a sender");
	}
}

int main(void)
{
	static char data[20000], seen[40000];
	probe_fill(data, sizeof data, 16);
	int stream[2], packet[2], across[2], half[2], ended[2], reset[2], passing[2], small[2], datagram[2], lonely[2];
	PROBE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream));
	PROBE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, packet));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, across));
	PROBE(write(stream[0], data, sizeof data));
	PROBE(write(packet[0], data, 100));
	PROBE(write(packet[0], data + 100, 7));
	PROBE(write(packet[1], data + 200, 3000));
	/* Half closed, with data before the end; closed; closed with unread data. */
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
	PROBE(write(half[0], "last", 4));
	PROBE(shutdown(half[0], SHUT_WR));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, ended));
	PROBE(write(ended[0], data, 5000));
	PROBE(close(ended[0]));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, reset));
	PROBE(write(reset[1], "unread", 6));
	PROBE(close(reset[0]));
	/* Credentials with messages, of two senders. */
	const int on = 1;
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, passing));
	PROBE(setsockopt(passing[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	const struct ucred self = { getpid(), getuid(), getgid() };
	PROBE(write(passing[0], data, 10));
	pid_t child = PROBE(fork());
	if (!child) {
		close(across[0]);
		PROBE(write(passing[0], data + 10, 20));
		PROBE_SAME(read(across[1], seen, 1), 1, "start of the child");
		ssize_t n = read(across[1], seen, 5);
		PROBE_SAME(n, 5, "read of the child");
		PROBE_SAME(write(across[1], "answer", 6), 6, "write of the child");
		_exit(probe_faults != 0);
	}
	const struct ucred other = { child, getuid(), getgid() };
	close(across[1]);
	int there = 0; /* until the child has written */
	while (there < 30)
		PROBE(ioctl(passing[1], FIONREAD, &there));
	PROBE(write(passing[0], data + 30, 5));
	/* Options that are not the default. */
	const int low = 9000, mark = 17;
	const struct timeval time = { 7, 500000 };
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, small));
	PROBE(setsockopt(small[0], SOL_SOCKET, SO_SNDBUF, &low, sizeof low));
	PROBE(setsockopt(small[0], SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof mark));
	PROBE(setsockopt(small[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
	PROBE(setsockopt(small[1], SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	PROBE(socketpair(AF_UNIX, SOCK_DGRAM, 0, datagram));
	PROBE(write(datagram[0], data, 1));
	PROBE(write(datagram[0], data + 1, 7000));
	PROBE(write(datagram[1], "back", 4));
	PROBE(socketpair(AF_UNIX, SOCK_DGRAM, 0, lonely));
	PROBE(write(lonely[0], "one", 3));
	PROBE(write(lonely[0], "two!", 4));
	PROBE(close(lonely[0]));

	probe_save();

	size_t got = 0;
	while (got < sizeof data) {
		ssize_t n = read(stream[1], seen + got, sizeof data - got);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	PROBE_SAME(got, sizeof data, "bytes in the stream");
	probe_same_bytes(seen, data, got, "stream");
	PROBE_SAME(read(packet[1], seen, sizeof seen), 100, "first packet");
	PROBE_SAME(read(packet[1], seen, sizeof seen), 7, "second packet");
	PROBE_SAME(read(packet[1], seen, sizeof seen), -1, "third packet");
	PROBE_SAME(read(packet[0], seen, sizeof seen), 3000, "packet of the other direction");
	PROBE_SAME(fcntl(stream[0], F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_SAME(fcntl(packet[0], F_GETFL), O_RDWR | O_NONBLOCK, "flags");
	PROBE_SAME(fcntl(stream[0], F_GETFL), O_RDWR, "flags of the stream");

	PROBE_SAME(write(across[0], "s", 1), 1, "start");
	PROBE_SAME(write(across[0], "hello", 5), 5, "write to the child");
	PROBE_SAME(read(across[0], seen, sizeof seen), 6, "answer of the child");
	probe_join(child, "child");

	receive(half[1], "last", 4, NULL, "before the half close");
	receive(half[1], "", 0, NULL, "at the half close");
	PROBE_SAME(write(half[1], "still", 5), 5, "against the half close");
	receive(half[0], "still", 5, NULL, "against the half close");
	PROBE_SAME(send(half[0], "x", 1, MSG_NOSIGNAL), -1, "write of a half closed end");
	PROBE_SAME(errno, EPIPE, "error of a half closed end");
	receive(ended[1], data, 5000, NULL, "before the close");
	receive(ended[1], "", 0, NULL, "at the close");
	PROBE_SAME(send(ended[1], "x", 1, MSG_NOSIGNAL), -1, "write to a closed end");
	PROBE_SAME(read(reset[1], seen, 1), -1, "read of a reset end");
	PROBE_SAME(errno, ECONNRESET, "error of a reset end");

	receive(passing[1], data, 10, &self, "of the first sender");
	receive(passing[1], data + 10, 20, &other, "of the second sender");
	receive(passing[1], data + 30, 5, &self, "of the first sender again");
	same_option(passing[1], SO_PASSCRED, 1, "SO_PASSCRED");
	struct ucred peer;
	socklen_t size = sizeof peer;
	getsockopt(stream[0], SOL_SOCKET, SO_PEERCRED, &peer, &size);
	PROBE_SAME(peer.pid, self.pid, "PID of SO_PEERCRED");
	PROBE_SAME(peer.uid, self.uid, "uid of SO_PEERCRED");

	same_option(small[0], SO_SNDBUF, 18000, "SO_SNDBUF");
	same_option(small[0], SO_RCVLOWAT, 17, "SO_RCVLOWAT");
	same_option(small[1], SO_KEEPALIVE, 1, "SO_KEEPALIVE");
	same_option(small[0], SO_KEEPALIVE, 0, "SO_KEEPALIVE of the other end");
	struct timeval time_now = { 0 };
	size = sizeof time_now;
	getsockopt(small[0], SOL_SOCKET, SO_RCVTIMEO, &time_now, &size);
	PROBE_SAME(time_now.tv_sec * 1000 + time_now.tv_usec / 1000, 7500, "SO_RCVTIMEO in ms");

	receive(datagram[1], data, 1, NULL, "first datagram");
	receive(datagram[1], data + 1, 7000, NULL, "second datagram");
	receive(datagram[0], "back", 4, NULL, "datagram back");
	PROBE_SAME(recv(datagram[0], seen, 1, MSG_DONTWAIT), -1, "one more datagram");
	receive(lonely[1], "one", 3, NULL, "first datagram of a closed end");
	receive(lonely[1], "two!", 4, NULL, "second datagram of a closed end");
	PROBE_SAME(send(lonely[1], "x", 1, MSG_NOSIGNAL), -1, "datagram to a closed end");
	PROBE_SAME(errno, ECONNREFUSED, "error of a datagram to a closed end");
	return probe_end();
}
