/* SPDX-License-Identifier: Apache-2.0 */
/* probe: zombies keep their PIDs and their statuses, exits and deaths by signals */
#include "probe.h"

#include <signal.h>

int main(void)
{
	static const int ends[] = { 0, 1, 77, 255, -SIGKILL, -SIGTERM, -SIGUSR1 };
	enum { COUNT = sizeof ends / sizeof *ends };
	pid_t pids[COUNT];
	for (int i = 0; i < COUNT; i++) {
		pids[i] = PROBE(fork());
		if (!pids[i]) {
			if (ends[i] >= 0)
				_exit(ends[i]);
			raise(-ends[i]);
		}
	}
	for (int i = 0; i < COUNT; i++) {
		siginfo_t info;
		PROBE(waitid(P_PID, (id_t)pids[i], &info, WEXITED | WNOWAIT));
	}

	probe_save();

	for (int i = COUNT - 1; i >= 0; i--) {
		int status = -1;
		PROBE_SAME(waitpid(pids[i], &status, WNOHANG), pids[i], "waitpid");
		PROBE_SAME(status, ends[i] >= 0 ? ends[i] << 8 : -ends[i], "wait status");
	}
	PROBE_SAME(waitpid(-1, NULL, WNOHANG), -1, "a child more");
	PROBE_SAME(errno, ECHILD, "error without children");
	return probe_end();
}
