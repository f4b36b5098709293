/* SPDX-License-Identifier: Apache-2.0 */
/* probe: socket pairs inside the tree keep their messages and ends, or are refused by name */
/* refusable: socket */
#include "probe.h"

#include <sys/socket.h>

int main(void)
{
	static char data[20000], seen[40000];
	probe_fill(data, sizeof data, 16);
	int stream[2], packet[2], across[2];
	PROBE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream));
	PROBE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, packet));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, across));
	PROBE(write(stream[0], data, sizeof data));
	PROBE(write(packet[0], data, 100));
	PROBE(write(packet[0], data + 100, 7));
	pid_t child = PROBE(fork());
	if (!child) {
		close(across[0]);
		ssize_t n = read(across[1], seen, 5);
		PROBE_SAME(n, 5, "read of the child");
		PROBE_SAME(write(across[1], "answer", 6), 6, "write of the child");
		_exit(probe_faults != 0);
	}
	close(across[1]);

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
	PROBE_SAME(fcntl(stream[0], F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_SAME(write(across[0], "hello", 5), 5, "write to the child");
	PROBE_SAME(read(across[0], seen, sizeof seen), 6, "answer of the child");
	probe_join(child, "child");
	return probe_end();
}
