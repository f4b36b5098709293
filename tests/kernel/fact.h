/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What these programs share. Each pins down one thing that the kernel does and that Cairn relies on, prints what it
 * saw, and ends with 0 (it is so), 1 (it is not: Cairn has to change) or 77 (it cannot be tried here). They know
 * nothing of Cairn. Children die with their parent, and an alarm ends what hangs. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FACT_HOLDS = 0, FACT_FAILS = 1, FACT_SKIPPED = 77 };

/* Cannot be tried here. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void fact_skip(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	puts(": cannot be tried here");
	exit(FACT_SKIPPED);
}

/* Prints the line and gives @holds back. */
__attribute__((format(printf, 2, 3))) static inline bool fact(bool holds, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("%s: ", holds ? "so" : "NOT SO");
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	return holds;
}

/* A system call that has to work for the trial to mean anything. */
static inline long fact_need(long rc, const char *what)
{
	if (rc != -1)
		return rc;
	if (errno == EPERM || errno == EACCES || errno == ENOSYS)
		fact_skip("%s: %s", what, strerror(errno));
	printf("%s: %s\n", what, strerror(errno));
	exit(FACT_FAILS);
}

static inline void fact_start(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(85);
}

/* Memory that parent and children share. */
static inline void *fact_shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fact_skip("shared memory: %s", strerror(errno));
	return memory;
}

static inline pid_t fact_fork(void)
{
	pid_t parent = getpid();
	fflush(stdout);
	pid_t child = (pid_t)fact_need(fork(), "fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return child;
}

static inline void fact_end(pid_t child)
{
	kill(child, SIGKILL);
	while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
}

static inline uint64_t fact_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Until CLOCK_MONOTONIC says @at_ns; for trials about time, never to wait for something else. */
static inline void fact_until(uint64_t at_ns)
{
	struct itimerspec when = { .it_value = { (time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u) } };
	int fd = (int)fact_need(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), "timerfd_create");
	uint64_t count;
	timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL);
	fact_need(read(fd, &count, sizeof count), "read of a timerfd");
	close(fd);
}

/* A small file of /proc as text; "" when it cannot be read. */
static inline void fact_file(char *ret_text, size_t size, const char *format, ...)
{
	char path[128];
	va_list args;
	va_start(args, format);
	vsnprintf(path, sizeof path, format, args);
	va_end(args);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, ret_text, size - 1);
	ret_text[n < 0 ? 0 : n] = 0;
	if (fd >= 0)
		close(fd);
}

/* State letter of a process or thread, 0 when it is gone. */
static inline char fact_state(pid_t tid)
{
	char text[512];
	fact_file(text, sizeof text, "/proc/%d/stat", tid);
	const char *close = strrchr(text, ')');
	return close ? close[2] : 0;
}

static inline void fact_await_state(pid_t tid, char state)
{
	while (fact_state(tid) != state)
		sched_yield();
}

/* The system call that a thread is blocked in; -1 when it is not asleep. */
static inline long fact_blocked_in(pid_t tid)
{
	char text[256];
	if (fact_state(tid) != 'S')
		return -1;
	fact_file(text, sizeof text, "/proc/%d/syscall", tid);
	if (!*text)
		fact_skip("/proc/PID/syscall");
	return *text >= '0' && *text <= '9' ? strtol(text, NULL, 10) : -1;
}

static inline void fact_await_call(pid_t tid, long call)
{
	while (fact_blocked_in(tid) != call)
		sched_yield();
}

/* The next stop of a tracee; ends the program when it is none. */
static inline int fact_await_stop(pid_t tid)
{
	int status;
	while (waitpid(tid, &status, __WALL) < 0)
		if (errno != EINTR)
			fact_need(-1, "waitpid");
	if (!WIFSTOPPED(status)) {
		printf("%d ended (status 0x%x) where it should have stopped\n", tid, status);
		exit(FACT_FAILS);
	}
	return status;
}

/* SEIZE + INTERRUPT, as Cairn stops. */
static inline void fact_stop(pid_t tid)
{
	fact_need(ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_TRACESYSGOOD), "PTRACE_SEIZE");
	fact_need(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL), "PTRACE_INTERRUPT");
	fact_await_stop(tid);
}

#ifdef __x86_64__
/* A syscall instruction that is at the same address in every child. */
extern char fact_syscall_instruction[];
__asm__(".pushsection .text\n"
	".hidden fact_syscall_instruction\n"
	"fact_syscall_instruction:\n"
	"	syscall\n"
	"	ud2\n"
	".popsection\n");

/* A call by a stopped tracee, by entry and exit stops; the registers are those of the exit stop afterwards. */
static inline long fact_remote_call(pid_t tid, const struct user_regs_struct *from, long number, long first, long second)
{
	struct user_regs_struct registers = *from;
	registers.rip = (uintptr_t)fact_syscall_instruction;
	registers.rax = (unsigned long)number;
	registers.orig_rax = (unsigned long)-1;
	registers.rdi = (unsigned long)first;
	registers.rsi = (unsigned long)second;
	fact_need(ptrace(PTRACE_SETREGS, tid, NULL, &registers), "PTRACE_SETREGS");
	for (int stop = 0; stop < 2; stop++) {
		fact_need(ptrace(PTRACE_SYSCALL, tid, NULL, NULL), "PTRACE_SYSCALL");
		int status = fact_await_stop(tid);
		if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
			printf("a stop with status 0x%x where one of a system call should be\n", status);
			exit(FACT_FAILS);
		}
	}
	fact_need(ptrace(PTRACE_GETREGS, tid, NULL, &registers), "PTRACE_GETREGS");
	return (long)registers.rax;
}
#endif
