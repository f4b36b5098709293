/* SPDX-License-Identifier: Apache-2.0 */
/* probe: children made with another exit signal, or none, end with it; a zombie of that sort stays one */
#include "probe.h"

#include <sched.h>
#include <signal.h>

static volatile sig_atomic_t seen[65];

static void note(int signal_)
{
	seen[signal_]++;
}

static pid_t bear(int signal_, bool at_once)
{
	pid_t child = PROBE((pid_t)syscall(SYS_clone, signal_, NULL, NULL, NULL, NULL));
	if (!child) {
		if (!at_once)
			probe_wait();
		_exit(5);
	}
	return child;
}

int main(void)
{
	int status;
	signal(SIGUSR1, note);
	signal(SIGRTMIN + 2, note);
	signal(SIGCHLD, note);
	pid_t usual = bear(SIGCHLD, false), odd = bear(SIGUSR1, false), late = bear(SIGRTMIN + 2, false), silent = bear(0, false);
	/* Blocked from here on: a signal that came between the look at it and the wait for it would be waited for in vain. */
	sigset_t awaited, before;
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGUSR1);
	sigprocmask(SIG_BLOCK, &awaited, &before);
	pid_t dead = bear(SIGUSR1, true);
	while (!seen[SIGUSR1])
		sigsuspend(&before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	PROBE_SAME(seen[SIGUSR1], 1, "set-up");

	probe_save();

	PROBE_SAME(waitpid(dead, &status, __WALL), dead, "the zombie");
	PROBE_SAME(status, 5 << 8, "its status");
	PROBE_SAME(waitpid(usual, &status, 0), usual, "a usual child");
	const pid_t others[] = { odd, late, silent };
	for (int i = 0; i < 3; i++) {
		PROBE_SAME(waitpid(others[i], &status, __WCLONE), others[i], "a child with another signal, as __WCLONE waits for it");
		PROBE_SAME(status, 5 << 8, "its status");
	}
	PROBE_SAME(seen[SIGUSR1], 2, "SIGUSR1 of a child");
	PROBE_SAME(seen[SIGRTMIN + 2], 1, "a real-time signal of a child");
	PROBE_SAME(seen[SIGCHLD], 1, "SIGCHLD of a child");
	return probe_end();
}
