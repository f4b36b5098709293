/* SPDX-License-Identifier: Apache-2.0 */
/* probe: an eventfd keeps its count, its semaphore mode and its flags */
#include "probe.h"

#include <poll.h>
#include <sys/eventfd.h>

static uint64_t count_of(int fd)
{
	uint64_t count = 0;
	return read(fd, &count, sizeof count) == sizeof count ? count : 0;
}

int main(void)
{
	int plain = PROBE(eventfd(0, EFD_CLOEXEC));
	uint64_t odd = 0xfffffffffffffff0u;
	PROBE(write(plain, &odd, sizeof odd));
	int semaphore = PROBE(eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK));
	int empty = PROBE(eventfd(0, EFD_NONBLOCK));
	int copy = PROBE(fcntl(plain, F_DUPFD, 77));

	probe_save();

	PROBE_SAME(fcntl(plain, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_SAME(fcntl(copy, F_GETFD), 0, "close-on-exec flag of the copy");
	PROBE_SAME(fcntl(semaphore, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "O_NONBLOCK");
	PROBE_SAME(fcntl(plain, F_GETFL) & O_NONBLOCK, 0, "O_NONBLOCK of the plain one");
	PROBE_SAME(count_of(copy), odd, "count");
	uint64_t one = 5;
	PROBE_SAME(write(copy, &one, sizeof one), 8, "write to the copy");
	PROBE_SAME(count_of(plain), 5, "count through the other descriptor");
	for (int i = 0; i < 3; i++)
		PROBE_SAME(count_of(semaphore), 1, "step of the semaphore");
	PROBE_SAME(read(semaphore, &one, sizeof one), -1, "read of the used-up semaphore");
	PROBE_SAME(read(empty, &one, sizeof one), -1, "read of the empty eventfd");
	return probe_end();
}
