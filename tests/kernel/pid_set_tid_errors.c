/* SPDX-License-Identifier: Apache-2.0 */
/* clone3(set_tid): EEXIST for a PID that is taken, be it by a zombie or as the number of a group only; EINVAL at
 * and above pid_max. */
#include <linux/sched.h>

#include "fact.h"

/* The new child's PID, or the negative errno. */
static pid_t child_at(pid_t pid)
{
	pid_t set_tid[] = { pid };
	struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)set_tid, .set_tid_size = 1 };
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (child == 0)
		_exit(0);
	return child < 0 ? -errno : child;
}

/* A PID that was free a moment ago: of a child that ended. */
static pid_t free_pid(void)
{
	pid_t child = fact_fork();
	if (child == 0)
		_exit(0);
	waitpid(child, NULL, 0);
	return child;
}

static bool zombie_is_taken(void)
{
	pid_t child = fact_fork();
	if (child == 0)
		_exit(0);
	fact_await_state(child, 'Z');
	pid_t got = child_at(child);
	waitpid(child, NULL, 0);
	return fact(got == -EEXIST, "the PID of a zombie: %s", got < 0 ? strerror(-got) : "given");
}

/* The leader of a group ends, a member stays: the number is no process any more, but is not free. */
static bool group_is_taken(void)
{
	int gate[2];
	fact_need(pipe(gate), "pipe");
	pid_t leader = fact_fork();
	if (leader == 0) {
		char byte;
		close(gate[1]);
		setpgid(0, 0);
		_exit(read(gate[0], &byte, 1) < 0);
	}
	setpgid(leader, leader);
	pid_t member = fact_fork();
	if (member == 0)
		for (;;)
			pause();
	fact_need(setpgid(member, leader), "setpgid");
	close(gate[0]);
	close(gate[1]);
	kill(leader, SIGKILL);
	waitpid(leader, NULL, 0);
	pid_t got = child_at(leader);
	fact_end(member);
	return fact(got == -EEXIST, "the number of a process group: %s", got < 0 ? strerror(-got) : "given");
}

int main(void)
{
	fact_start();
	char text[32];
	fact_file(text, sizeof text, "/proc/sys/kernel/pid_max");
	pid_t most = (pid_t)strtol(text, NULL, 10), wanted = free_pid(), got = child_at(wanted);
	if (got == -EPERM || got == -ENOSYS)
		fact_skip("clone3(set_tid): %s", strerror(-got));
	bool holds = fact(got == wanted || got == -EEXIST, "a free PID %d: %d", wanted, got);
	if (got > 0)
		waitpid(got, NULL, 0);
	got = child_at(getpid());
	holds &= fact(got == -EEXIST, "the own PID: %s", strerror(-got));
	got = child_at(most);
	holds &= fact(got == -EINVAL, "pid_max (%d): %s", most, strerror(-got));
	holds &= zombie_is_taken();
	holds &= group_is_taken();
	return holds ? FACT_HOLDS : FACT_FAILS;
}
