/* SPDX-License-Identifier: Apache-2.0 */
#include "job/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/features.h"
#include "kernel/probe.h"

/* Between clone3(2) and exec only system calls are made: the caller may have other threads, whose locks the child has as well. */

struct failure {
	int error;
	const char *step; /* a string of the program, which the child shares */
};

static int write_file(const char *path, const char *text)
{
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* The same ids inside as outside (user_namespaces(7): one's own may be mapped by anybody, if setgroups(2) is given up). */
static const char *map_user(uid_t uid, gid_t gid)
{
	char text[64];
	/* A program with file capabilities is not dumpable, and its /proc files belong to root (proc(5)). */
	prctl(PR_SET_DUMPABLE, 1);
	if (write_file("/proc/self/setgroups", "deny") < 0 && errno != ENOENT)
		return "write /proc/self/setgroups";
	snprintf(text, sizeof text, "%u %u 1", uid, uid);
	if (write_file("/proc/self/uid_map", text) < 0)
		return "write /proc/self/uid_map";
	snprintf(text, sizeof text, "%u %u 1", gid, gid);
	return write_file("/proc/self/gid_map", text) < 0 ? "write /proc/self/gid_map" : NULL;
}

/* Exec takes the capabilities of a uid that is not 0, unless they are ambient (capabilities(7)). */
static const char *keep_capabilities(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	if (syscall(SYS_capget, &header, data) < 0)
		return "capget";
	for (int i = 0; i < 2; i++)
		data[i].inheritable = data[i].permitted;
	if (syscall(SYS_capset, &header, data) < 0)
		return "capset";
	for (unsigned long cap = 0; cap < 64; cap++)
		if (data[cap / 32].permitted & 1u << cap % 32 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return "raise an ambient capability";
	return NULL;
}

static const char *own_proc(void)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return "make the mounts private";
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return "mount a fresh /proc";
	return NULL;
}

static const char *loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? "set up the loopback" : NULL;
}

/* A program with file capabilities would get those instead of the ambient ones: a copy without them is executed. */
static int open_program(const char *program)
{
	int fd = open(program, O_RDONLY | O_CLOEXEC);
	struct stat status;
	if (fd < 0 || fgetxattr(fd, "security.capability", NULL, 0) < 0 || fstat(fd, &status) < 0)
		return fd;
	_close_ int original = fd;
	_close_ int copy = memfd_create("cairn", MFD_CLOEXEC);
	off_t at = 0;
	while (copy >= 0 && at < status.st_size)
		if (sendfile(copy, original, &at, (size_t)(status.st_size - at)) <= 0)
			return -1;
	return fd_steal(&copy);
}

/* The offsets of a time namespace are set while nobody is in it (time_namespaces(7)). */
static const char *set_clocks(const struct namespace_wish *wish)
{
	enum { NANO = 1000000000 };
	char text[128];
	int64_t values[2] = { wish->monotonic_ns, wish->boottime_ns };
	long long seconds[2], nanoseconds[2];
	for (int i = 0; i < 2; i++) {
		seconds[i] = values[i] / NANO - (values[i] % NANO < 0);
		nanoseconds[i] = values[i] - seconds[i] * NANO;
	}
	if (unshare(CLONE_NEWTIME) < 0)
		return "make a time namespace";
	_close_ int own = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
	snprintf(text, sizeof text, "monotonic %lld %lld\nboottime %lld %lld\n", seconds[0], nanoseconds[0], seconds[1], nanoseconds[1]);
	if (write_file("/proc/self/timens_offsets", text) < 0)
		return "write /proc/self/timens_offsets";
	return own < 0 || setns(own, CLONE_NEWTIME) < 0 ? "enter the time namespace" : NULL;
}

struct birth {
	const struct namespace_wish *wish;
	bool user; /* with a user namespace */
	uid_t uid;
	gid_t gid;
};

/* What the process that was just born in its namespaces does there. */
static const char *settle(const struct namespace_wish *wish)
{
	const char *step = wish->network ? loopback_up() : NULL;
	if (!step && wish->clocks)
		step = set_clocks(wish);
	return step ? step : own_proc();
}

__attribute__((noreturn)) static void become_init(int program, char *const argv[], const struct birth *birth, int report)
{
	const bool user = birth->user;
	const char *step = user ? map_user(birth->uid, birth->gid) : NULL;
	if (!step && !birth->wish->template)
		step = settle(birth->wish);
	if (!step && user)
		step = keep_capabilities();
	if (!step) {
		syscall(SYS_execveat, program, "", argv, environ, AT_EMPTY_PATH);
		step = "execute cairn";
	}
	struct failure failure = { errno, step };
	_exit(write(report, &failure, sizeof failure) == sizeof failure ? 125 : 126);
}

static const char *remedy(const char *step, bool user)
{
	if (!strcmp(step, "mount a fresh /proc"))
		return "parts of /proc are hidden here, as in containers; try a container with an unmasked /proc (podman "
		       "--security-opt unmask=ALL)";
	if (!user)
		return "try as root with CAP_SYS_ADMIN";
	if (sysctl_number("/proc/sys/user/max_user_namespaces", 1) == 0)
		return "this host has no user namespaces for ordinary users; ask for sysctl user.max_user_namespaces, or for a "
		       "cairn with the file capability cap_checkpoint_restore; a restore may do with --pids any";
	if (sysctl_number("/proc/sys/kernel/unprivileged_userns_clone", 1) == 0)
		return "ordinary users may make none here; ask for sysctl kernel.unprivileged_userns_clone=1, or for a cairn "
		       "with the file capability cap_checkpoint_restore; a restore may do with --pids any";
	if (sysctl_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) == 1)
		return "AppArmor forbids it; ask for sysctl kernel.apparmor_restrict_unprivileged_userns=0 or a profile for "
		       "cairn with the rule userns; a restore may do with --pids any";
	return "a seccomp filter or security module forbids it, as in Docker's default profile; try `cairn check`, or a "
	       "restore with --pids any";
}

static int start_failed(const struct failure *failure, bool user, struct fault *fault)
{
	return fault_set(fault, failure->error == EPERM || failure->error == ENOSPC || failure->error == ENOSYS ? FAULT_PERMISSION : fault_class_of(failure->error),
			 failure->error, "make a private PID namespace: %s: %s; %s", failure->step, strerror(failure->error),
			 remedy(failure->step, user));
}

static uint64_t flags_of(const struct namespace_wish *wish)
{
	return CLONE_NEWPID | CLONE_NEWNS | (wish->network ? CLONE_NEWNET : 0);
}

int namespace_fork(const struct namespace_wish *wish, pid_t *ret_init, struct fault *fault)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	_close_ int from = ends[0], to = ends[1];
	/* The signal at its end is the caller's own (kernel/fork.c copy_process). */
	struct clone_args args = { .flags = flags_of(wish) | CLONE_PARENT };
	pid_t init = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	struct failure failure = { errno, "clone3" };
	if (init < 0)
		return start_failed(&failure, !feature_capability(CAP_SYS_ADMIN), fault);
	if (init == 0) {
		const char *step = settle(wish);
		if (!step)
			return 1;
		failure = (struct failure){ errno, step };
		_exit(write(to, &failure, sizeof failure) == sizeof failure ? 125 : 126);
	}
	close(fd_steal(&to));
	if (read(from, &failure, sizeof failure) == sizeof failure)
		return start_failed(&failure, false, fault); /* whose child it is reaps it */
	*ret_init = init;
	return 0;
}

int namespace_start(const char *program, char *const argv[], const struct namespace_wish *wish, pid_t *ret_init, struct fault *fault)
{
	bool user = !feature_capability(CAP_SYS_ADMIN);
	const struct birth birth = { wish, user, geteuid(), getegid() };
	int ends[2];
	_close_ int executable = open_program(program);
	if (executable < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s", program, strerror(errno));
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	_close_ int from = ends[0], to = ends[1];
	struct clone_args args = {
		.flags = (user ? CLONE_NEWUSER : 0) | (wish->template ? 0 : flags_of(wish)), .exit_signal = SIGCHLD,
	};
	pid_t init = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (init == 0)
		become_init(executable, argv, &birth, to);
	struct failure failure = { errno, "clone3" };
	if (init < 0)
		return start_failed(&failure, user, fault);
	close(fd_steal(&to));
	ssize_t got = read(from, &failure, sizeof failure);
	if (got == sizeof failure) {
		waitpid(init, NULL, 0);
		return start_failed(&failure, user, fault);
	}
	*ret_init = init;
	return 0;
}
