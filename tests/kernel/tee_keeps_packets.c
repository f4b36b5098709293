/* SPDX-License-Identifier: Apache-2.0 */
/* tee(2) copies what is in a pipe without consuming it, and keeps the packets of an O_DIRECT pipe apart: so a pipe is
 * saved without draining it. */
#include <sys/ioctl.h>

#include "fact.h"

enum { PIPE_BYTES = 1 << 20 };

static bool packets_are(int fd, const int *sizes, int count, const char *whose)
{
	static char buffer[PIPE_BYTES];
	bool holds = true;
	for (int i = 0; i < count; i++) {
		ssize_t n = read(fd, buffer, sizeof buffer);
		bool same = n == sizes[i];
		for (ssize_t b = 0; b < n; b++)
			same &= buffer[b] == 'a' + i;
		holds &= fact(same, "%s: packet %d has %zd bytes (%d were written)", whose, i, n, sizes[i]);
	}
	return holds;
}

static void write_packets(int fd, const int *sizes, int count)
{
	static char buffer[PIPE_BYTES];
	for (int i = 0; i < count; i++) {
		memset(buffer, 'a' + i, (size_t)sizes[i]);
		fact_need(write(fd, buffer, (size_t)sizes[i]), "write");
	}
}

static bool copies(int flags, const int *sizes, int count, int reads, const int *read_sizes)
{
	int from[2], to[2], left = 0, total = 0;
	fact_need(pipe2(from, flags | O_NONBLOCK), "pipe2");
	fact_need(pipe2(to, flags | O_NONBLOCK), "pipe2");
	write_packets(from[1], sizes, count);
	for (int i = 0; i < count; i++)
		total += sizes[i];
	ssize_t n = tee(from[0], to[1], PIPE_BYTES, SPLICE_F_NONBLOCK);
	ioctl(from[0], FIONREAD, &left);
	bool holds = fact(n == total && left == total, "tee copied %zd of %d bytes, %d are left", n, total, left);
	if (flags & O_DIRECT) {
		holds &= packets_are(to[0], read_sizes, reads, "the copy");
		holds &= packets_are(from[0], read_sizes, reads, "the original");
	}
	for (int i = 0; i < 2; i++)
		close(from[i]), close(to[i]);
	return holds;
}

int main(void)
{
	fact_start();
	static const int packets[] = { 1, 4096, 10, 77 };
	bool holds = copies(O_DIRECT, packets, 4, 4, packets);
	holds &= copies(0, packets, 4, 0, NULL);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
