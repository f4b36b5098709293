/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/features.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/probe.h"
#include "kernel/procfs.h"

bool feature_capability(int capability)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };
	if (capability < 0 || capability > 63 || syscall(SYS_capget, &header, data) < 0)
		return false;
	return data[capability / 32].effective & 1u << capability % 32;
}

bool feature_events(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
								UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP };
	bool works = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
	if (fd >= 0)
		close(fd);
	return works;
}

bool trial_says(int error, const char *step, const char *remedy, char *why, unsigned long size)
{
	if (error)
		snprintf(why, size, "%s: %s; %s", step, strerror(error), remedy);
	return !error;
}

long sysctl_number(const char *path, long otherwise)
{
	struct text text = { 0 };
	long number = proc_read_path(path, &text, NULL) == 0 && text.size ? strtol(text.at, NULL, 10) : otherwise;
	text_finish(&text);
	return number;
}

/* clone3(2) would do as well, but old seccomp profiles of Docker hide it. All arguments are 0, so that their
 * order, which differs between architectures, does not matter; no exit signal means __WALL in waitpid(2). */
pid_t trial_child(void)
{
	return (pid_t)syscall(SYS_clone, 0, 0, 0, 0, 0);
}

void trial_end(pid_t child)
{
	kill(child, SIGKILL);
	while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
}

static int trial_wait(pid_t child)
{
	int status;
	while (waitpid(child, &status, __WALL) < 0)
		if (errno != EINTR)
			return errno;
	return WIFEXITED(status) ? 0 : EPERM;
}

struct trial trial_run(void (*work)(struct trial *trial), const void *argument)
{
	struct trial failed = { ENOMEM, "memory for a probe", NULL };
	struct trial *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return failed;
	*shared = (struct trial){ 0, "a child of the probe", argument };
	pid_t child = trial_child();
	if (child == 0) {
		work(shared);
		_exit(0);
	}
	int error = child < 0 ? errno : trial_wait(child);
	struct trial trial = *shared;
	if (error)
		trial.error = error;
	munmap(shared, sizeof *shared);
	return trial;
}

/* Capabilities */

static bool capability_says(bool have, const char *remedy, char *why, unsigned long size)
{
	if (!have)
		snprintf(why, size, "not among the effective capabilities; %s", remedy);
	return have;
}

static bool probe_cap_checkpoint_restore(char *why, unsigned long size)
{
	/* checkpoint_restore_ns_capable() of the kernel takes either (include/linux/capability.h) */
	bool have = feature_capability(CAP_CHECKPOINT_RESTORE) || feature_capability(CAP_SYS_ADMIN);
	return capability_says(have, "try as root, setcap cap_checkpoint_restore+ep on the cairn binary, or Docker's "
			       "--cap-add CHECKPOINT_RESTORE", why, size);
}

static bool probe_cap_sys_ptrace(char *why, unsigned long size)
{
	return capability_says(feature_capability(CAP_SYS_PTRACE), "try as root, or Docker's --cap-add SYS_PTRACE", why,
			       size);
}

static bool probe_cap_sys_admin(char *why, unsigned long size)
{
	return capability_says(feature_capability(CAP_SYS_ADMIN), "try as root, or Docker's --cap-add SYS_ADMIN", why,
			       size);
}

static bool probe_cap_sys_resource(char *why, unsigned long size)
{
	return capability_says(feature_capability(CAP_SYS_RESOURCE),
			       "try as root with all capabilities, or Docker's --cap-add SYS_RESOURCE", why, size);
}

static bool probe_unfiltered(char *why, unsigned long size)
{
	struct arena arena = { 0 };
	struct proc_status status = { 0 };
	proc_status_read(getpid(), 0, &arena, &status, NULL);
	arena_finish(&arena);
	if (status.seccomp)
		snprintf(why, size, "Cairn itself runs under %u seccomp filters, as in a container; try Docker's --security-opt "
			 "seccomp=unconfined, Kubernetes' seccompProfile Unconfined", status.seccomp_filters);
	return !status.seccomp;
}

/* In reading order: what every way needs, what one way needs, what makes it faster or more complete. */
const struct feature features[] = {
	{ "ptrace", "stop a program and run system calls in it", true, probe_ptrace, 0 },
	{ "PTRACE_GET_RSEQ_CONFIGURATION", "leave restartable sequences unharmed", true, probe_rseq, 0 },
	{ "process_vm_readv", "copy memory", true, probe_vm_readv, 0 },
	{ "pidfd_getfd", "look at open files", true, probe_pidfd_getfd, 0 },
	{ "kcmp", "know what processes share", true, probe_kcmp, 0 },
#ifdef __x86_64__
	{ "ARCH_MAP_VDSO_64", "put the vdso where it was", true, probe_map_vdso, 0 },
#endif
	{ "clone3(set_tid)", "restore the old PIDs in this PID namespace", false, probe_set_tid, WAY_SAME_PIDS },
	{ "PR_SET_MM_MAP", "restore /proc/PID/exe, cmdline and brk in this user namespace", false, probe_mm_map,
	  WAY_SAME_PIDS | WAY_PRIVATE },
	{ "PID namespace", "restore although an old PID is taken", false, probe_pid_namespace, WAY_PRIVATE },
	{ "user namespace", "restore without root: own PIDs, full capabilities inside", false, probe_user_namespace,
	  WAY_USER },
	{ "fresh /proc", "give a private PID namespace its own /proc", false, probe_fresh_proc, WAY_PRIVATE | WAY_USER },
	{ "attach", "save programs that Cairn did not start", false, probe_attach, 0 },
	{ "time namespace", "let the monotonic clock go on after a reboot or on another host", false,
	  probe_time_namespace, 0 },
	{ "PAGEMAP_SCAN", "find used pages fast (else: read pagemap)", false, probe_pagemap_scan, 0 },
	{ "PAGE_IS_GUARD", "carry guard regions (MADV_GUARD_INSTALL)", false, probe_guard_regions, 0 },
	{ "userfaultfd", "lazy restore", false, probe_userfaultfd, 0 },
	{ "userfaultfd, user mode", "faster filling (else: process_vm_writev)", false,
	  probe_userfaultfd_user_mode, 0 },
	{ "userfaultfd WP_ASYNC", "short pauses (else: all is copied while the program stands still)", false, probe_wp_async,
	  0 },
	{ "/proc/PID/map_files", "save mapped files that were deleted (else: by path)", false, probe_map_files, 0 },
	{ "no seccomp filter", "save and restore outside of containers (else: what has the same filters as Cairn)", false, probe_unfiltered, 0 },
	{ "PTRACE_SECCOMP_GET_FILTER", "carry programs with seccomp filters of their own", false, probe_seccomp_filter, 0 },
	{ "PR_TIMER_CREATE_RESTORE_IDS", "restore timer ids fast (else: create and delete up to the id)", false,
	  probe_timer_ids, 0 },
	{ "MEMBARRIER_CMD_GET_REGISTRATIONS", "carry membarrier registrations (else: not carried)", false,
	  probe_membarrier, 0 },
	{ "CAP_CHECKPOINT_RESTORE", "old PIDs of the user's own programs", false, probe_cap_checkpoint_restore, 0 },
	{ "CAP_SYS_PTRACE", "programs of other users", false, probe_cap_sys_ptrace, 0 },
	{ "CAP_SYS_ADMIN", "namespaces, seccomp filters, mounts", false, probe_cap_sys_admin, 0 },
	{ "CAP_SYS_RESOURCE", "raise hard limits again, lower oom_score_adj", false, probe_cap_sys_resource, 0 },
	{ NULL, NULL, false, NULL, 0 },
};
