/* SPDX-License-Identifier: Apache-2.0 */
/* Probes: looking into a process. The process is a child that sleeps. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/features.h"
#include "kernel/probe.h"

/* <sys/ptrace.h> and <linux/ptrace.h> do not go together in glibc before 2.37. */
extern long ptrace(int request, ...);

enum { SEIZE = 0x4206, INTERRUPT = 0x4207, OPTION_EXITKILL = 0x100000, SECCOMP_GET_FILTER = 0x420c };

static const char trace_remedy[] =
	"try sysctl kernel.yama.ptrace_scope=1, Docker's --cap-add SYS_PTRACE, or another seccomp profile";

/* A child that sleeps until it is killed. */
static pid_t sleeper(void)
{
	pid_t child = trial_child();
	while (child == 0)
		syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0); /* pause(2) is not on all architectures */
	return child;
}

/* errno of the first step that failed, 0 when the child is stopped. */
static int stop(pid_t child)
{
	int status;
	if (ptrace(SEIZE, child, NULL, OPTION_EXITKILL) < 0 || ptrace(INTERRUPT, child, NULL, NULL) < 0)
		return errno;
	while (waitpid(child, &status, __WALL) < 0)
		if (errno != EINTR)
			return errno;
	return WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP ? 0 : EPERM;
}

/* Calls @ask with a child: stopped by ptrace when @stopped, else running. Gives the errno. */
static int with_child(bool stopped, int (*ask)(pid_t child))
{
	pid_t child = sleeper();
	if (child < 0)
		return errno;
	int error = stopped ? stop(child) : 0;
	if (!error)
		error = ask(child);
	trial_end(child);
	return error;
}

static int ask_nothing(pid_t child)
{
	(void)child;
	return 0;
}

bool probe_ptrace(char *why, unsigned long size)
{
	return trial_says(with_child(true, ask_nothing), "PTRACE_SEIZE of a child", trace_remedy, why, size);
}

static int ask_rseq(pid_t child)
{
	struct ptrace_rseq_configuration configuration;
	return ptrace(PTRACE_GET_RSEQ_CONFIGURATION, child, sizeof configuration, &configuration) < 0 ? errno : 0;
}

bool probe_rseq(char *why, unsigned long size)
{
	return trial_says(with_child(true, ask_rseq), "PTRACE_GET_RSEQ_CONFIGURATION",
			  "try Linux 5.13 or later with CONFIG_RSEQ", why, size);
}

/* EACCES comes before anything is looked at (kernel/seccomp.c seccomp_get_filter): any other answer about a child
 * without a filter means that it is permitted. */
static int ask_filter(pid_t child)
{
	return ptrace(SECCOMP_GET_FILTER, child, 0, NULL) < 0 && (errno == EACCES || errno == EIO) ? errno : 0;
}

bool probe_seccomp_filter(char *why, unsigned long size)
{
	return trial_says(with_child(true, ask_filter), "PTRACE_SECCOMP_GET_FILTER",
			  "try with CAP_SYS_ADMIN and outside of any seccomp filter (Docker: --privileged)", why, size);
}

static int ask_memory(pid_t child)
{
	static const uint64_t there = 0x6361697263616972;
	uint64_t here = 0;
	struct iovec local = { &here, sizeof here }, remote = { (void *)(uintptr_t)&there, sizeof there };
	if (process_vm_readv(child, &local, 1, &remote, 1, 0) < 0)
		return errno;
	return here == there ? 0 : EIO;
}

bool probe_vm_readv(char *why, unsigned long size)
{
	return trial_says(with_child(false, ask_memory), "process_vm_readv of a child", trace_remedy, why, size);
}

/* A forked child has its own copy of the memory: any order will do. */
static int ask_kcmp(pid_t child)
{
	return syscall(SYS_kcmp, getpid(), child, KCMP_VM, 0, 0) < 0 ? errno : 0;
}

bool probe_kcmp(char *why, unsigned long size)
{
	return trial_says(with_child(false, ask_kcmp), "kcmp",
			  "try a kernel with CONFIG_KCMP, or Docker's --cap-add SYS_PTRACE", why, size);
}

/* The child has a copy of this process's descriptors; one is made so that there is one. */
static int ask_descriptor(pid_t child)
{
	_close_ int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	if (pidfd < 0)
		return errno;
	_close_ int got = (int)syscall(SYS_pidfd_getfd, pidfd, pidfd, 0);
	/* EBADF: asked and permitted, but the child was made before @pidfd */
	return got < 0 && errno != EBADF ? errno : 0;
}

bool probe_pidfd_getfd(char *why, unsigned long size)
{
	return trial_says(with_child(false, ask_descriptor), "pidfd_getfd",
			  "try Linux 5.6 or later, or Docker's --cap-add SYS_PTRACE", why, size);
}

/* Yama looks at who is whose descendant, so a child of the probe says nothing about other programs. */
bool probe_attach(char *why, unsigned long size)
{
	long scope = sysctl_number("/proc/sys/kernel/yama/ptrace_scope", 0);
	if (scope == 0 || (scope < 3 && feature_capability(CAP_SYS_PTRACE)))
		return true;
	snprintf(why, size, "kernel.yama.ptrace_scope is %ld; %s", scope,
		 scope < 3 ? "try sysctl kernel.yama.ptrace_scope=0, CAP_SYS_PTRACE, or start the program by cairn run" :
			     "it stays so until a reboot; start the program by cairn run");
	return false;
}
