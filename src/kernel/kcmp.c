/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/kcmp.h"

#include <errno.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int kcmp_types[] = {
	[SAME_FILE] = KCMP_FILE,       [SAME_VM] = KCMP_VM, [SAME_FILES] = KCMP_FILES,     [SAME_FS] = KCMP_FS,
	[SAME_SIGHAND] = KCMP_SIGHAND, [SAME_IO] = KCMP_IO, [SAME_SYSVSEM] = KCMP_SYSVSEM,
};

static int order_fault(struct fault *fault, int error, pid_t a, pid_t b)
{
	switch (error) {
	case ESRCH:
		fault_set(fault, FAULT_VANISHED, error, "kcmp of processes %d and %d: one is gone; try again", a, b);
		break;
	case EPERM:
		fault_set(fault, FAULT_PERMISSION, error,
			  "kcmp of processes %d and %d: %s; try as their user, as root, or with CAP_SYS_PTRACE "
			  "(Docker: --cap-add SYS_PTRACE)", a, b, strerror(error));
		break;
	case ENOSYS:
		fault_set(fault, FAULT_UNSUPPORTED, error,
			  "kcmp: %s; try a kernel with CONFIG_KCMP", strerror(error));
		break;
	default:
		fault_set(fault, FAULT_FAILED, error, "kcmp of processes %d and %d: %s", a, b, strerror(error));
	}
	return -2;
}

int kcmp_order(enum kcmp_what what, pid_t a, int index_a, pid_t b, int index_b, struct fault *fault)
{
	long order = syscall(SYS_kcmp, a, b, kcmp_types[what], (unsigned long)index_a, (unsigned long)index_b);
	if (order < 0)
		return order_fault(fault, errno, a, b);
	if (order == 3) { /* "not equal, but ordering information is unavailable", kcmp(2); no kernel does it */
		fault_set(fault, FAULT_FAILED, 0, "kcmp of processes %d and %d gave no order", a, b);
		return -2;
	}
	return order == 1 ? -1 : order == 2 ? 1 : 0;
}

int kcmp_epoll_target(pid_t pid, int fd, pid_t epoll_pid, int epoll_fd, int watched_fd, int nth)
{
	struct kcmp_epoll_slot slot = { (uint32_t)epoll_fd, (uint32_t)watched_fd, (uint32_t)nth };
	long order = syscall(SYS_kcmp, pid, epoll_pid, KCMP_EPOLL_TFD, (unsigned long)fd, &slot);
	return order < 0 ? -errno : order == 0;
}
