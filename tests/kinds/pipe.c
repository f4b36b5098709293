/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a pipe keeps its contents, capacity, packets, flags and both ends */
#include "probe.h"

int main(void)
{
	int full[2], packets[2], ended[2], none[2];
	static char data[70000], seen[70000];
	probe_fill(data, sizeof data, 1);

	PROBE(pipe2(full, O_CLOEXEC));
	PROBE(fcntl(full[1], F_SETPIPE_SZ, 131072));
	PROBE(write(full[1], data, 5));
	PROBE(write(full[1], data + 5, sizeof data - 5));
	PROBE(fcntl(full[0], F_SETFL, O_NONBLOCK));
	int reader = PROBE(dup3(full[0], 91, 0));
	PROBE(read(full[0], seen, 3));

	PROBE(pipe2(packets, O_DIRECT | O_NONBLOCK));
	PROBE(write(packets[1], data, 10));
	PROBE(write(packets[1], data + 10, 4096));
	PROBE(write(packets[1], data + 4106, 1));

	PROBE(pipe(ended));
	PROBE(write(ended[1], data, 4097));
	PROBE(close(ended[1]));
	PROBE(pipe(none));
	PROBE(close(none[0]));

	probe_save();

	PROBE_SAME(fcntl(full[1], F_GETPIPE_SZ), 131072, "capacity");
	PROBE_SAME(fcntl(reader, F_GETFL), O_RDONLY | O_NONBLOCK, "flags of the copied read end");
	PROBE_SAME(fcntl(full[1], F_GETFL), O_WRONLY, "flags of the write end");
	PROBE_SAME(fcntl(full[0], F_GETFD), FD_CLOEXEC, "close-on-exec flag of the read end");
	PROBE_SAME(fcntl(reader, F_GETFD), 0, "close-on-exec flag of the copy");
	size_t got = 0;
	for (ssize_t n; (n = read(reader, seen + got, sizeof seen - got)) > 0;)
		got += (size_t)n;
	PROBE_SAME(errno, EAGAIN, "error at the end of the contents");
	PROBE_SAME(got, sizeof data - 3, "bytes in the pipe");
	probe_same_bytes(seen, data + 3, got, "contents");
	PROBE_SAME(write(full[1], "x", 1), 1, "write after the restore");
	PROBE_SAME(read(full[0], seen, 9), 1, "read after the restore");

	PROBE_SAME(fcntl(packets[1], F_GETFL), O_WRONLY | O_DIRECT | O_NONBLOCK, "flags of the packet pipe");
	PROBE_SAME(read(packets[0], seen, sizeof seen), 10, "first packet");
	PROBE_SAME(read(packets[0], seen, sizeof seen), 4096, "second packet");
	probe_same_bytes(seen, data + 10, 4096, "second packet");
	PROBE_SAME(read(packets[0], seen, sizeof seen), 1, "third packet");
	PROBE_SAME(read(packets[0], seen, sizeof seen), -1, "fourth packet");

	PROBE_SAME(read(ended[0], seen, sizeof seen), 4097, "contents of a pipe without writers");
	probe_same_bytes(seen, data, 4097, "contents of a pipe without writers");
	PROBE_SAME(read(ended[0], seen, sizeof seen), 0, "end of a pipe without writers");
	PROBE_SAME(fcntl(none[1], F_GETFL), O_WRONLY, "flags of a pipe without readers");
	return probe_end();
}
