/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/semundo.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/kcmp.h"

enum { STACK_SIZE = 64 * 1024 };

/* It has the thread-local storage of its maker, so no system call of it may fail: that would write errno. */
static int stand_by(void *wake)
{
	char byte;
	syscall(SYS_read, (int)(long)wake, &byte, 1UL);
	return 0; /* clone(2)'s wrapper ends the thread; a frame that is left otherwise stays marked by AddressSanitizer */
}

static bool begin(struct semundo *semundo)
{
	int ends[2];
	sigset_t all, before;
	/* In the caller's thread group, whose members may always be compared; a process would have to be traceable (kernel/ptrace.c __ptrace_may_access). */
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_CHILD_CLEARTID;
	void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED || pipe2(ends, O_CLOEXEC) < 0) {
		if (stack != MAP_FAILED)
			munmap(stack, STACK_SIZE);
		return false;
	}
	_close_ int read_end = ends[0], write_end = ends[1];
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	semundo->waited_for = 1;
	pid_t tid = clone(stand_by, (char *)stack + STACK_SIZE, flags, (void *)(long)read_end, NULL, NULL, &semundo->waited_for);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (tid < 0) {
		munmap(stack, STACK_SIZE);
		return false;
	}
	semundo->tid = tid;
	semundo->stack = stack;
	semundo->wake = fd_steal(&write_end);
	semundo->keep = fd_steal(&read_end);
	return true;
}

bool semundo_has(struct semundo *semundo, pid_t pid)
{
	/* Cairn's own list is nobody else's: who has the same has none, like it. */
	int order = kcmp_order(SAME_SYSVSEM, getpid(), 0, pid, 0, NULL);
	if (order == 0 || order == -2 || (!semundo->tid && !begin(semundo)))
		return false;
	order = kcmp_order(SAME_SYSVSEM, semundo->tid, 0, pid, 0, NULL);
	return order == 1 || order == -1;
}

void semundo_finish(struct semundo *semundo)
{
	if (!semundo->tid)
		return;
	const char byte = 0;
	unsigned word;
	/* Cannot fail; if it did, the thread would need its stack for ever. */
	if (write(semundo->wake, &byte, 1) != 1)
		return;
	while ((word = __atomic_load_n(&semundo->waited_for, __ATOMIC_ACQUIRE)))
		syscall(SYS_futex, &semundo->waited_for, FUTEX_WAIT, word, NULL, NULL, 0);
	close(semundo->wake);
	close(semundo->keep);
	munmap(semundo->stack, STACK_SIZE);
	*semundo = (struct semundo){ 0 };
}
