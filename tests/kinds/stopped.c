/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a child stopped by a signal stays stopped, and goes on when it is continued */
#include "probe.h"

#include <signal.h>

int main(void)
{
	pid_t child = PROBE(fork());
	if (!child) {
		volatile int number = 41;
		raise(SIGSTOP);
		_exit(number + 1);
	}
	int status;
	PROBE(waitpid(child, &status, WUNTRACED));

	probe_save();

	/* All are let go one after the other: the child may still be on its way into its stop. */
	char path[64], line[256] = "", *state = NULL;
	snprintf(path, sizeof path, "/proc/%d/stat", child);
	for (int tries = 0; tries < 1000 && !(state && state[2] == 'T'); tries++) {
		int fd = open(path, O_RDONLY);
		PROBE_TRUE(fd >= 0 && read(fd, line, sizeof line - 1) > 0, "the child is there");
		close(fd);
		state = strrchr(line, ')');
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	PROBE_SAME(state ? state[2] : 0, 'T', "state of the child");
	PROBE_SAME(kill(child, SIGCONT), 0, "kill");
	PROBE_SAME(waitpid(child, &status, 0), child, "waitpid");
	PROBE_SAME(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 42, "exit status of the child");
	return probe_end();
}
