/* SPDX-License-Identifier: Apache-2.0 */
#include "job/network.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/memory.h"
#include "kernel/procfs.h"

#define PATIENCE_NS UINT64_C(5000000000)

/* Heap; NULL: not installed. */
static char *find_pasta(void)
{
	const char *path = getenv("PATH");
	_free_ char *copy = memory_string(path ? path : "/usr/bin:/bin");
	char *rest = NULL;
	for (char *folder = strtok_r(copy, ":", &rest); folder; folder = strtok_r(NULL, ":", &rest)) {
		char *program = memory_format("%s/pasta", folder);
		if (access(program, X_OK) == 0)
			return program;
		free(program);
	}
	return NULL;
}

static pid_t start_pasta(const char *program, const char *number)
{
	const char *const argv[] = { "pasta", "--foreground", "--quiet", "--config-net", "-t", "none", "-u", "none", "-T", "none", "-U", "none",
				     number, NULL };
	pid_t pid = fork();
	if (pid == 0) {
		execv(program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	return pid;
}

/* Pasta does not notice the end of a namespace that it has by a PID (2023): this process does. Between fork and exec only system calls: the
 * caller may have threads. @alive: a pipe that is closed when pasta has ended. */
__attribute__((noreturn)) static void watch(const char *program, const char *number, int init, int alive)
{
	int fds[2] = { init, alive }, null = open("/dev/null", O_RDWR);
	sigset_t none;
	sigemptyset(&none);
	setsid();
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	/* All but those two, which come to lie at 3 and 4. */
	if (fds[1] == 3)
		fds[1] = dup(fds[1]);
	dup2(fds[0], 3);
	dup2(fds[1], 4);
	syscall(SYS_close_range, 5, ~0U, 0);
	fcntl(3, F_SETFD, FD_CLOEXEC);
	fcntl(4, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_NAME, "cairn-net");
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	pid_t pasta = start_pasta(program, number);
	struct pollfd watched = { 3, POLLIN, 0 };
	while (pasta > 0 && poll(&watched, 1, 200) == 0)
		if (waitpid(pasta, NULL, WNOHANG) == pasta)
			_exit(0);
	if (pasta > 0)
		kill(pasta, SIGKILL);
	_exit(0);
}

/* Not a child of the caller's, who may end before the job does. */
static int start_watcher(const char *program, pid_t init, int *ret_alive, struct fault *fault)
{
	char number[16];
	int ends[2];
	snprintf(number, sizeof number, "%d", init);
	_close_ int pidfd = (int)syscall(SYS_pidfd_open, init, 0);
	if (pidfd < 0 || pipe2(ends, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pidfd or pipe: %s", strerror(errno));
	_close_ int from = ends[0], to = ends[1];
	pid_t between = fork();
	if (between == 0) {
		if (fork() == 0)
			watch(program, number, pidfd, to);
		_exit(0);
	}
	if (between < 0)
		return fault_set(fault, FAULT_FAILED, errno, "fork: %s", strerror(errno));
	waitpid(between, NULL, 0);
	*ret_alive = fd_steal(&from);
	return 0;
}

/* Has the namespace any route? The tables have a line of heading (v4), or one for each route, the loopback's too (v6). */
static bool has_route(pid_t init)
{
	struct text text = { 0 };
	bool found = proc_read(init, "net/route", &text, NULL) == 0 && strchr(text.at, '\n') && strchr(text.at, '\n')[1];
	if (!found && proc_read(init, "net/ipv6_route", &text, NULL) == 0)
		for (char *rest = NULL, *line = strtok_r(text.at, "\n", &rest); line && !found; line = strtok_r(NULL, "\n", &rest))
			found = !strstr(line, " lo");
	text_finish(&text);
	return found;
}

int network_connect(pid_t init, struct fault *fault)
{
	_free_ char *program = find_pasta();
	if (geteuid() == 0)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "pasta does not serve root; try as an ordinary user, or `ip link` with a veth");
	if (!program)
		return fault_set(fault, FAULT_FAILED, ENOENT, "pasta is not installed; try the Debian package passt");
	if (access("/dev/net/tun", R_OK | W_OK) < 0)
		return fault_set(fault, FAULT_PERMISSION, errno, "/dev/net/tun: %s; ask for chmod 0666 /dev/net/tun, as it is on most systems",
				 strerror(errno));
	_close_ int alive = -1;
	int rc = start_watcher(program, init, &alive, fault);
	uint64_t until = clock_now_ns() + PATIENCE_NS;
	while (rc == 0 && !has_route(init)) {
		struct pollfd watched = { alive, POLLIN, 0 };
		if (poll(&watched, 1, 5) == 1)
			rc = fault_set(fault, FAULT_FAILED, EIO, "pasta has ended at once; try `pasta --config-net true` for its reason");
		else if (clock_now_ns() > until)
			rc = fault_set(fault, FAULT_FAILED, ETIMEDOUT, "pasta makes no route; try `pasta --config-net true` for its reason");
	}
	return rc;
}
