/* SPDX-License-Identifier: Apache-2.0 */
/* Probes: making processes, with PIDs of choice and in namespaces. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/features.h"
#include "kernel/probe.h"

/* A child at @pid that ends at once: errno. */
static int child_at(pid_t pid)
{
	pid_t set_tid[] = { pid };
	struct clone_args args = { .set_tid = (uintptr_t)set_tid, .set_tid_size = 1 };
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (child == 0)
		_exit(0);
	if (child < 0)
		return errno;
	trial_end(child);
	return 0;
}

/* From the highest PID down: those are the last that anybody else gets. */
bool probe_set_tid(char *why, unsigned long size)
{
	enum { TRIES = 64 };
	long highest = sysctl_number("/proc/sys/kernel/pid_max", 32768) - 1;
	int error = EEXIST;
	for (int i = 0; error == EEXIST && i < TRIES; i++)
		error = child_at((pid_t)(highest - i));
	return trial_says(error, "clone3(set_tid)",
			  error == ENOSYS ? "try Linux 5.5 or later, or Docker's --security-opt seccomp=unconfined (its default profile "
			  "hides clone3), or --pids any" :
			  "try as root, setcap cap_checkpoint_restore+ep on the cairn binary, or a private PID namespace",
			  why, size);
}

/* Namespaces: a child leaves for new ones, its child is PID 1 there and tries what a restore does. */

static bool failed(struct trial *trial, const char *step, long rc)
{
	trial->step = step;
	if (rc < 0)
		trial->error = errno;
	return rc < 0;
}

static bool wrote(struct trial *trial, const char *path, const char *text)
{
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	return !failed(trial, path, fd < 0 ? fd : write(fd, text, strlen(text)));
}

/* The user mapped to itself, as `cairn run` does it. */
static bool user_namespace_enter(struct trial *trial)
{
	char uid[64], gid[64];
	snprintf(uid, sizeof uid, "%u %u 1", geteuid(), geteuid());
	snprintf(gid, sizeof gid, "%u %u 1", getegid(), getegid());
	/* A process that is not dumpable (file capabilities) may not write its own maps. */
	prctl(PR_SET_DUMPABLE, 1);
	return !failed(trial, "unshare(CLONE_NEWUSER)", unshare(CLONE_NEWUSER)) &&
	       wrote(trial, "/proc/self/setgroups", "deny") && wrote(trial, "/proc/self/uid_map", uid) &&
	       wrote(trial, "/proc/self/gid_map", gid);
}

static void set_tid_try(struct trial *trial)
{
	trial->step = "clone3(set_tid) in it";
	trial->error = child_at(1000);
}

static void fresh_proc_try(struct trial *trial)
{
	if (!failed(trial, "unshare(CLONE_NEWNS)", unshare(CLONE_NEWNS)) &&
	    !failed(trial, "a private mount tree", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)))
		failed(trial, "mount of proc", mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

/* @attempt in PID 1 of a new PID namespace; its error is in @trial. */
static void pid_namespace_try(struct trial *trial, void (*attempt)(struct trial *trial))
{
	if (failed(trial, "unshare(CLONE_NEWPID)", unshare(CLONE_NEWPID)))
		return;
	trial->step = "PID 1"; /* before there is one, which says its own */
	pid_t init = trial_child();
	if (init == 0) {
		attempt(trial);
		_exit(0);
	}
	if (init < 0) {
		trial->error = errno;
		return;
	}
	int status = 0;
	while (waitpid(init, &status, __WALL) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status))
		trial->error = EPERM;
}

static void pid_namespace_work(struct trial *trial)
{
	pid_namespace_try(trial, set_tid_try);
}

static void user_namespace_work(struct trial *trial)
{
	if (user_namespace_enter(trial))
		pid_namespace_try(trial, set_tid_try);
}

static void fresh_proc_work(struct trial *trial)
{
	if (feature_capability(CAP_SYS_ADMIN) || user_namespace_enter(trial))
		pid_namespace_try(trial, fresh_proc_try);
}

static void time_namespace_work(struct trial *trial)
{
	if (feature_capability(CAP_SYS_ADMIN) || user_namespace_enter(trial))
		failed(trial, "unshare(CLONE_NEWTIME)", unshare(CLONE_NEWTIME));
}

/* Who forbids user namespaces, by what it left to be seen. */
static const char *user_remedy(int error)
{
	if (error == ENOSPC || sysctl_number("/proc/sys/user/max_user_namespaces", 1) == 0)
		return "try sysctl user.max_user_namespaces=10000";
	if (sysctl_number("/proc/sys/kernel/unprivileged_userns_clone", 1) == 0)
		return "try sysctl kernel.unprivileged_userns_clone=1";
	if (sysctl_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) != 0)
		return "try sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for cairn with "
		       "userns";
	if (error == EINVAL || error == ENOSYS)
		return "try a kernel with CONFIG_USER_NS and CONFIG_PID_NS, Linux 5.5 or later";
	return "try another seccomp profile (Docker: --security-opt seccomp=unconfined), or outside of a chroot";
}

bool probe_user_namespace(char *why, unsigned long size)
{
	struct trial trial = trial_run(user_namespace_work, NULL);
	return trial_says(trial.error, trial.step, user_remedy(trial.error), why, size);
}

bool probe_pid_namespace(char *why, unsigned long size)
{
	struct trial trial = trial_run(pid_namespace_work, NULL);
	const char *remedy = trial.error == ENOSPC ? "try sysctl user.max_pid_namespaces=10000" :
						     "try as root, or with CAP_SYS_ADMIN, or in a user namespace";
	return trial_says(trial.error, trial.step, remedy, why, size);
}

bool probe_fresh_proc(char *why, unsigned long size)
{
	struct trial trial = trial_run(fresh_proc_work, NULL);
	bool namespace = trial.step && strncmp(trial.step, "mount", 5);
	return trial_says(trial.error, trial.step, namespace ? user_remedy(trial.error) :
			  "parts of /proc are masked; try as root, Docker's --security-opt systempaths=unconfined, or Kubernetes' procMount: "
			  "Unmasked", why,
			  size);
}

bool probe_time_namespace(char *why, unsigned long size)
{
	struct trial trial = trial_run(time_namespace_work, NULL);
	return trial_says(trial.error, trial.step, trial.error == EINVAL ?
			  "try Linux 5.6 or later with CONFIG_TIME_NS" : user_remedy(trial.error), why, size);
}

bool probe_timer_ids(char *why, unsigned long size)
{
	enum { TIMER_CREATE_RESTORE_IDS = 77, RESTORE_IDS_GET = 2 }; /* include/uapi/linux/prctl.h, 6.15 */
	int rc = prctl(TIMER_CREATE_RESTORE_IDS, RESTORE_IDS_GET, 0, 0, 0);
	return trial_says(rc < 0 ? errno : 0, "prctl", "try Linux 6.15 or later", why, size);
}

bool probe_membarrier(char *why, unsigned long size)
{
	enum { GET_REGISTRATIONS = 1 << 9 }; /* include/uapi/linux/membarrier.h, 6.3 */
	long rc = syscall(SYS_membarrier, GET_REGISTRATIONS, 0, 0);
	return trial_says(rc < 0 ? errno : 0, "membarrier", "try Linux 6.3 or later", why, size);
}
