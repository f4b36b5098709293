/* SPDX-License-Identifier: Apache-2.0 */
/* probe: the nice value of a session (autogroup) is the session's, and nobody else's */
#include "probe.h"

#include <signal.h>

static int nice_of(pid_t pid)
{
	char path[64], text[64] = "";
	int nice = -100;
	snprintf(path, sizeof path, "/proc/%d/autogroup", pid);
	int fd = PROBE(open(path, O_RDONLY));
	PROBE(read(fd, text, sizeof text - 1));
	close(fd);
	sscanf(text, "/autogroup-%*u nice %d", &nice);
	return nice;
}

int main(void)
{
	char path[64];
	int ends[2];
	PROBE(pipe(ends));
	pid_t child = PROBE(fork());
	if (!child) {
		setsid();
		PROBE(write(ends[1], "", 1));
		for (;;)
			pause();
	}
	PROBE(read(ends[0], path, 1));
	snprintf(path, sizeof path, "/proc/%d/autogroup", child);
	int fd = open(path, O_WRONLY);
	if (fd < 0 || nice_of(child) == -100)
		probe_skip("no autogroups here");
	/* The kernel takes one such write in 100 ms, of the whole machine, from those who may not do everything. */
	while (write(fd, "7", 1) < 0)
		if (errno != EAGAIN)
			probe_skip("autogroup: %s", strerror(errno));
	close(fd);
	int own = nice_of(getpid());

	probe_save();

	PROBE_SAME(nice_of(child), 7, "nice value of the child's session");
	PROBE_SAME(nice_of(getpid()), own, "nice value of the own session");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return probe_end();
}
