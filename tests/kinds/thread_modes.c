/* SPDX-License-Identifier: Apache-2.0 */
/* variant own: two threads with a personality, machine-check policy, timer slack, I/O priority and securebits each keep their own */
/* variant tsc: a thread that may not read the time stamp counter, and one that may not ask for the processor, stay so */
/* variant dispatch: system calls that a program handles itself (syscall user dispatch) go to its handler, before and after */
/* variant process: core dump filter and THP-disable with its exception are the process's */
/* variant keyring: a thread's own keyring is refused by name */
/* variant session_keyring: keys in a session keyring of the program's own are refused by name */
/* variant segments: a local descriptor table is refused by name */
/* refusable: of its own */
#include "probe.h"

#include <asm/ldt.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <ucontext.h>

static volatile int stage;

static void await(int wanted)
{
	while (stage < wanted)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

enum { IO_IDLE = 3 << 13, IO_LOW = 2 << 13 | 6 };

static void *own_thread(void *argument)
{
	PROBE(personality(ADDR_NO_RANDOMIZE | SHORT_INODE | PER_LINUX));
	PROBE(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0));
	PROBE(prctl(PR_SET_TIMERSLACK, 77777));
	PROBE(syscall(SYS_ioprio_set, 1, 0, IO_IDLE));
	stage = 1;
	await(2);
	PROBE_SAME(personality(0xffffffff), ADDR_NO_RANDOMIZE | SHORT_INODE | PER_LINUX, "personality of the thread");
	PROBE_SAME(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_EARLY, "machine-check policy of the thread");
	PROBE_SAME(prctl(PR_GET_TIMERSLACK), 77777, "timer slack of the thread");
	PROBE_SAME(syscall(SYS_ioprio_get, 1, 0), IO_IDLE, "I/O priority of the thread");
	return argument;
}

static void own(void)
{
	pthread_t id;
	PROBE(personality(UNAME26));
	PROBE(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_LATE, 0, 0));
	PROBE(syscall(SYS_ioprio_set, 1, 0, IO_LOW));
	pthread_create(&id, NULL, own_thread, NULL);
	await(1);

	probe_save();

	stage = 2;
	pthread_join(id, NULL);
	PROBE_SAME(personality(0xffffffff), UNAME26, "personality");
	PROBE_SAME(prctl(PR_MCE_KILL_GET, 0, 0, 0, 0), PR_MCE_KILL_LATE, "machine-check policy");
	PROBE_SAME(syscall(SYS_ioprio_get, 1, 0), IO_LOW, "I/O priority");
}

static int results[2];

/* No libc function that might read the clock. */
static void *tsc_thread(void *argument)
{
	int mode = 0;
	PROBE(prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
	results[1] = (int)syscall(SYS_arch_prctl, 0x1012, 0); /* ARCH_SET_CPUID: not on every processor */
	stage = 1;
	while (stage != 2)
		syscall(SYS_nanosleep, &(struct timespec){ .tv_nsec = 1000000 }, NULL);
	prctl(PR_GET_TSC, &mode);
	results[0] = mode;
	if (results[1] == 0)
		PROBE_SAME(syscall(SYS_arch_prctl, 0x1011, 0), 0, "CPUID of the thread");
	return argument;
}

static void tsc(void)
{
	pthread_t id;
	int mode = 0;
	pthread_create(&id, NULL, tsc_thread, NULL);
	await(1);

	probe_save();

	stage = 2;
	pthread_join(id, NULL);
	PROBE_SAME(results[0], PR_TSC_SIGSEGV, "time stamp counter of the thread");
	PROBE(prctl(PR_GET_TSC, &mode));
	PROBE_SAME(mode, PR_TSC_ENABLE, "time stamp counter of the process");
}

static volatile char selector;
static volatile int handled, last_number;

static void handler(int signal_, siginfo_t *info, void *context)
{
	ucontext_t *place = context;
	selector = SYSCALL_DISPATCH_FILTER_ALLOW;
	handled++;
	last_number = info->si_syscall;
	place->uc_mcontext.gregs[REG_RAX] = 4711;
	(void)signal_;
}

static void *dispatch_thread(void *argument)
{
	/* The handler's return is in here as well as all of libc: what is let through lies in the first page of nothing. */
	PROBE(prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector));
	selector = SYSCALL_DISPATCH_FILTER_BLOCK;
	stage = 1;
	while (stage != 2)
		; /* every call is blocked */
	long result = syscall(SYS_getppid); /* its handler lets calls through again */
	PROBE_SAME(result, 4711, "result of a call that the program handles");
	PROBE_SAME(handled, 1, "calls handled");
	PROBE_SAME(last_number, SYS_getppid, "number of the call");
	return argument;
}

static void dispatch(void)
{
	pthread_t id;
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
	selector = SYSCALL_DISPATCH_FILTER_ALLOW;
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector) < 0)
		probe_skip("syscall user dispatch: %s", strerror(errno));
	PROBE(prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0));
	PROBE(sigaction(SIGSYS, &action, NULL));
	pthread_create(&id, NULL, dispatch_thread, NULL);
	await(1);

	probe_save();

	stage = 2;
	pthread_join(id, NULL);
}

static int number_of(const char *file)
{
	return (int)strtol(probe_proc(file, ""), NULL, 16);
}

static void process(void)
{
	enum { EXCEPT_ADVISED = 1 << 1 }; /* 6.18 */
	int fd = PROBE(open("/proc/self/coredump_filter", O_WRONLY));
	PROBE(write(fd, "0x15d", 5));
	close(fd);
	int before = number_of("coredump_filter");
	if (prctl(PR_SET_THP_DISABLE, 1, EXCEPT_ADVISED, 0, 0) < 0)
		PROBE(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	int thp = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);

	probe_save();

	PROBE_SAME(number_of("coredump_filter"), before, "core dump filter");
	PROBE_SAME(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), thp, "THP-disable");
}

static void keyring(void)
{
	if (syscall(SYS_add_key, "user", "cairn-probe", "odd", 3, KEY_SPEC_THREAD_KEYRING) < 0)
		probe_skip("add_key: %s", strerror(errno));
	probe_save();
	char key[8] = "";
	long id = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_THREAD_KEYRING, "user", "cairn-probe", 0);
	PROBE_SAME(syscall(SYS_keyctl, KEYCTL_READ, id, key, sizeof key), 3, "the key");
}

static void session_keyring(void)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
		probe_skip("keyctl: %s", strerror(errno));
	PROBE(syscall(SYS_add_key, "user", "cairn-session", "odd", 3, KEY_SPEC_SESSION_KEYRING));
	probe_save();
	char key[8] = "";
	long id = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "cairn-session", 0);
	PROBE_SAME(syscall(SYS_keyctl, KEYCTL_READ, id, key, sizeof key), 3, "the key");
}

static void segments(void)
{
	struct user_desc segment = { .entry_number = 3, .base_addr = 0x10000, .limit = 100, .seg_32bit = 1 }, read_[8];
	if (syscall(SYS_modify_ldt, 1, &segment, sizeof segment) < 0)
		probe_skip("modify_ldt: %s", strerror(errno));
	probe_save();
	PROBE_TRUE(syscall(SYS_modify_ldt, 0, read_, sizeof read_) > 0, "the local descriptor table");
}

int main(int argc, char **argv)
{
	const struct { const char *name; void (*run)(void); } variants[] = {
		{ "own", own }, { "tsc", tsc }, { "dispatch", dispatch }, { "process", process }, { "keyring", keyring }, { "session_keyring", session_keyring }, { "segments", segments },
	};
	for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
		if (argc > 1 && !strcmp(argv[1], variants[i].name))
			variants[i].run();
	return probe_end();
}
