/* SPDX-License-Identifier: Apache-2.0 */
/* variant actions: signal actions, masks and the alternate stack are kept */
/* variant pending: pending and queued signals keep their order, values and targets */
/* variant handler: a save in a signal handler on the alternate stack goes on in it */
/* variant caused: pending signals of the sort that the processor causes, of the thread and of the process, keep their siginfo and order nothing else */
#include "probe.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

static volatile sig_atomic_t handled;
static char stack[65536];

static void on_signal(int number)
{
	handled = number;
}

static void on_action(int number, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	handled = number;
}

static void actions(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART | SA_NODEFER }, seen;
	sigaddset(&action.sa_mask, SIGHUP);
	sigaddset(&action.sa_mask, 64);
	PROBE(sigaction(SIGUSR1, &action, NULL));
	struct sigaction other = { .sa_sigaction = on_action, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND };
	PROBE(sigaction(SIGRTMIN + 3, &other, NULL));
	signal(SIGTERM, SIG_IGN);
	sigset_t mask, seen_mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, 64);
	PROBE(sigprocmask(SIG_SETMASK, &mask, NULL));
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack - 123 }, seen_stack;
	PROBE(sigaltstack(&alternate, NULL));

	probe_save();

	PROBE_SAME(sigaction(SIGUSR1, NULL, &seen), 0, "sigaction");
	PROBE_TRUE(seen.sa_handler == on_signal, "handler");
	PROBE_SAME(seen.sa_flags & ~0x04000000, SA_RESTART | SA_NODEFER, "flags of the action");
	PROBE_TRUE(!memcmp(&seen.sa_mask, &action.sa_mask, 8), "mask of the action");
	PROBE_SAME(sigaction(SIGRTMIN + 3, NULL, &seen), 0, "sigaction");
	PROBE_SAME(seen.sa_flags & ~0x04000000, (int)(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND), "flags of the action");
	PROBE_SAME(sigaction(SIGTERM, NULL, &seen), 0, "sigaction");
	PROBE_TRUE(seen.sa_handler == SIG_IGN, "ignored signal");
	PROBE_SAME(sigaction(SIGHUP, NULL, &seen), 0, "sigaction");
	PROBE_TRUE(seen.sa_handler == SIG_DFL, "default signal");
	PROBE_SAME(sigprocmask(SIG_SETMASK, NULL, &seen_mask), 0, "sigprocmask");
	PROBE_TRUE(!memcmp(&seen_mask, &mask, 8), "mask");
	PROBE_SAME(sigaltstack(NULL, &seen_stack), 0, "sigaltstack");
	PROBE_TRUE(seen_stack.ss_sp == stack, "alternate stack");
	PROBE_SAME(seen_stack.ss_size, sizeof stack - 123, "size of the alternate stack");
	PROBE_SAME(seen_stack.ss_flags, 0, "flags of the alternate stack");
	raise(SIGUSR1);
	PROBE_SAME(handled, SIGUSR1, "handled signal");
	raise(SIGRTMIN + 3);
	PROBE_SAME(handled, SIGRTMIN + 3, "handled signal");
}

static int next(int number, siginfo_t *ret_info)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, number);
	/* Not through libc, which turns SI_TKILL into SI_USER. */
	return (int)syscall(SYS_rt_sigtimedwait, &set, ret_info, &(struct timespec){ 0 }, 8);
}

static void *pending_thread(void *unused)
{
	(void)unused;
	pthread_kill(pthread_self(), SIGUSR2);
	sigval_t value = { .sival_int = 777 };
	pthread_sigqueue(pthread_self(), SIGRTMIN + 6, value);
	while (access(probe_go, F_OK))
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	siginfo_t info;
	PROBE_SAME(next(SIGUSR2, &info), SIGUSR2, "signal of the thread");
	PROBE_SAME(info.si_code, SI_TKILL, "its code");
	PROBE_SAME(next(SIGRTMIN + 6, &info), SIGRTMIN + 6, "queued signal of the thread");
	PROBE_SAME(info.si_value.sival_int, 777, "its value");
	return NULL;
}

static void pending(void)
{
	sigset_t all;
	sigfillset(&all);
	PROBE(sigprocmask(SIG_SETMASK, &all, NULL));
	pthread_t thread;
	PROBE_SAME(pthread_create(&thread, NULL, pending_thread, NULL), 0, "set-up");
	for (int i = 0; i < 3; i++) {
		sigval_t value = { .sival_ptr = (void *)(0xabcdef0000 + i * 17L) };
		PROBE(sigqueue(getpid(), SIGRTMIN + 5, value));
	}
	PROBE(kill(getpid(), SIGUSR1));
	PROBE(kill(getpid(), SIGUSR1)); /* merged with the first */
	siginfo_t odd = { .si_signo = SIGRTMIN + 7, .si_code = -60, .si_errno = 5 };
	odd.si_value.sival_int = 99;
	PROBE(syscall(SYS_rt_sigqueueinfo, getpid(), SIGRTMIN + 7, &odd));

	probe_save();

	siginfo_t info;
	for (int i = 0; i < 3; i++) {
		PROBE_SAME(next(SIGRTMIN + 5, &info), SIGRTMIN + 5, "queued signal");
		PROBE_SAME((long)info.si_value.sival_ptr, 0xabcdef0000 + i * 17L, "its value");
		PROBE_SAME(info.si_code, SI_QUEUE, "its code");
		PROBE_SAME(info.si_pid, getpid(), "its sender");
	}
	PROBE_SAME(next(SIGRTMIN + 5, &info), -1, "a fourth queued signal");
	PROBE_SAME(next(SIGUSR1, &info), SIGUSR1, "plain signal");
	PROBE_SAME(info.si_code, SI_USER, "its code");
	PROBE_SAME(next(SIGUSR1, &info), -1, "a second plain signal");
	PROBE_SAME(next(SIGRTMIN + 7, &info), SIGRTMIN + 7, "signal with an odd code");
	PROBE_SAME(info.si_code, -60, "its code");
	PROBE_SAME(info.si_errno, 5, "its errno");
	PROBE_SAME(info.si_value.sival_int, 99, "its value");
	pthread_join(thread, NULL);
}

static void in_handler(int number, siginfo_t *info, void *context)
{
	char here;
	PROBE_SAME(info->si_value.sival_int, 4242, "set-up: value");
	PROBE_TRUE(&here > stack && &here < stack + sizeof stack, "set-up: on the alternate stack");
	probe_save();
	sigset_t mask;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	PROBE_SAME(sigismember(&mask, number), 1, "the handled signal is blocked in the handler");
	PROBE_SAME(sigismember(&mask, SIGWINCH), 1, "the mask of the action in the handler");
	PROBE_SAME(sigismember(&((ucontext_t *)context)->uc_sigmask, SIGHUP), 1, "the mask to come back to");
	stack_t seen;
	sigaltstack(NULL, &seen);
	PROBE_SAME(seen.ss_flags, SS_ONSTACK, "flags of the alternate stack in the handler");
	PROBE_SAME(info->si_value.sival_int, 4242, "value");
	handled = number;
}

static void handler(void)
{
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };
	PROBE(sigaltstack(&alternate, NULL));
	struct sigaction action = { .sa_sigaction = in_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	sigaddset(&action.sa_mask, SIGWINCH);
	PROBE(sigaction(SIGRTMIN + 1, &action, NULL));
	sigset_t mask, seen;
	sigemptyset(&mask);
	sigaddset(&mask, SIGHUP);
	PROBE(sigprocmask(SIG_SETMASK, &mask, NULL));
	double before = 1.0 / 3;
	sigval_t value = { .sival_int = 4242 };
	PROBE(sigqueue(getpid(), SIGRTMIN + 1, value));
	PROBE_SAME(handled, SIGRTMIN + 1, "the handler came to its end");
	sigprocmask(SIG_SETMASK, NULL, &seen);
	PROBE_TRUE(!memcmp(&mask, &seen, 8), "mask after the handler");
	PROBE_TRUE(before * 3 == 1.0, "a number in a register");
}

static siginfo_t caused_info(int number, int code, int value)
{
	siginfo_t info = { .si_signo = number, .si_code = code, .si_errno = 3 };
	info.si_addr = (void *)(uintptr_t)value;
	return info;
}

/* SIGTRAP and what the processor itself sends are the ones that a debugger's ways get into the way of. */
static void caused(void)
{
	const struct { int number, code; } all[] = {
		{ SIGSEGV, SEGV_MAPERR }, { SIGTRAP, TRAP_BRKPT }, { SIGBUS, BUS_ADRALN }, { SIGILL, ILL_ILLOPN }, { SIGFPE, FPE_INTDIV }, { SIGSYS, 1 },
	};
	enum { COUNT = sizeof all / sizeof *all };
	sigset_t set;
	sigfillset(&set);
	PROBE(sigprocmask(SIG_SETMASK, &set, NULL));
	for (int i = 0; i < COUNT; i++) {
		siginfo_t info = caused_info(all[i].number, all[i].code, 0x1000 + i);
		PROBE(syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), all[i].number, &info));
	}
	PROBE(kill(getpid(), SIGTRAP));
	PROBE(kill(getpid(), SIGSEGV));

	probe_save();

	for (int i = 0; i < COUNT; i++) {
		siginfo_t info;
		PROBE_SAME(next(all[i].number, &info), all[i].number, "a signal of the thread");
		PROBE_SAME(info.si_code, all[i].code, "its code");
		PROBE_SAME((uintptr_t)info.si_addr, 0x1000 + i, "its address");
	}
	siginfo_t info;
	PROBE_SAME(next(SIGTRAP, &info), SIGTRAP, "SIGTRAP of the process");
	PROBE_SAME(info.si_code, SI_USER, "its code");
	PROBE_SAME(info.si_pid, getpid(), "its sender");
	PROBE_SAME(next(SIGSEGV, &info), SIGSEGV, "SIGSEGV of the process");
	PROBE_SAME(next(SIGSEGV, &info), -1, "another one");
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "actions";
	if (!strcmp(variant, "actions"))
		actions();
	else if (!strcmp(variant, "pending"))
		pending();
	else if (!strcmp(variant, "caused"))
		caused();
	else
		handler();
	return probe_end();
}
