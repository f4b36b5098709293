/* SPDX-License-Identifier: Apache-2.0 */
/* variant tree: a tree keeps its parents, groups and sessions, also of orphans */
/* variant dead_leader: a group and a session whose leaders have died are kept */
#include "probe.h"

#include <sys/prctl.h>

struct seat {
	pid_t pid, parent, group, session;
	int ready;
};
enum { SEATS = 8 };
static struct seat seats[SEATS];
static int report_pipe[2];

/* What I am, told to the root by a pipe; and, when the time comes, whether it is still so. */
static void sit(int number, pid_t adopter)
{
	if (adopter)
		while (getppid() != adopter)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	struct seat before = { getpid(), getppid(), getpgrp(), getsid(0), number };
	PROBE(write(report_pipe[1], &before, sizeof before));
	probe_wait();
	struct seat after = { getpid(), getppid(), getpgrp(), getsid(0), number };
	PROBE_SAME(after.pid, before.pid, "PID");
	PROBE_SAME(after.parent, before.parent, "parent");
	PROBE_SAME(after.group, before.group, "group");
	PROBE_SAME(after.session, before.session, "session");
}

static void gather(int count)
{
	for (int i = 0; i < count; i++) {
		struct seat seat;
		if (read(report_pipe[0], &seat, sizeof seat) != sizeof seat)
			abort();
		seats[seat.ready] = seat;
	}
}

static void tree(void)
{
	PROBE(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t root = getpid(), child = PROBE(fork());
	if (!child) {
		PROBE(setpgid(0, 0)); /* a group of its own */
		pid_t grandchild = PROBE(fork());
		if (!grandchild) {
			sit(1, 0); /* in its parent's group */
			_exit(probe_faults != 0);
		}
		sit(0, 0);
		probe_join(grandchild, "grandchild");
		_exit(probe_faults != 0);
	}
	pid_t leader = PROBE(fork());
	if (!leader) {
		PROBE(setsid());
		for (int i = 0; i < 2; i++)
			if (!PROBE(fork())) {
				if (i)
					PROBE(setpgid(0, 0));
				sit(3 + i, 0);
				_exit(probe_faults != 0);
			}
		sit(2, 0);
		for (int i = 0; i < 2; i++)
			probe_join(-1, "child of the session's leader");
		_exit(probe_faults != 0);
	}
	pid_t middle = PROBE(fork());
	if (!middle) {
		pid_t orphan = PROBE(fork());
		if (!orphan) {
			sit(5, root);
			_exit(probe_faults != 0);
		}
		_exit(0);
	}
	probe_join(middle, "set-up: the orphan's parent");
	gather(6);

	probe_save();

	int status, ended = 0;
	for (pid_t pid; (pid = waitpid(-1, &status, 0)) > 0; ended++)
		PROBE_SAME(status, 0, "wait status of a process of the tree");
	PROBE_SAME(ended, 3, "children of the root, with the orphan");
	PROBE_SAME(prctl(PR_GET_CHILD_SUBREAPER, &status), 0, "prctl");
	PROBE_SAME(status, 1, "child subreaper");
}

static void dead_leader(void)
{
	PROBE(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t root = getpid(), leader = PROBE(fork());
	if (!leader) {
		PROBE(setsid());
		for (int i = 0; i < 2; i++)
			if (!PROBE(fork())) {
				sit(i, root);
				_exit(probe_faults != 0);
			}
		_exit(0);
	}
	probe_join(leader, "set-up: the leader");
	gather(2);
	PROBE_SAME(seats[0].session, leader, "set-up: session");

	probe_save();

	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, 0)) > 0;)
		PROBE_SAME(status, 0, "wait status of a process of the session");
}

int main(int argc, char **argv)
{
	PROBE(pipe(report_pipe));
	if (argc > 1 && !strcmp(argv[1], "dead_leader"))
		dead_leader();
	else
		tree();
	return probe_end();
}
