/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/restart.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "tracee/ptrace.h"

/* include/linux/errno.h: never seen by programs. */
enum {
	ERESTARTSYS_ = 512,
	ERESTARTNOINTR_ = 513,
	ERESTARTNOHAND_ = 514,
	ERESTART_RESTARTBLOCK_ = 516,
};

/* How a call says for how long to wait. */
enum timeout_form {
	TIMEOUT_NONE,        /* it has no relative timeout of its own */
	TIMEOUT_MS_REGISTER, /* milliseconds in a register, negative: for ever */
	TIMEOUT_TIMESPEC,    /* pointer to a timespec, NULL: for ever */
};

struct interrupted_call {
	long number;
	enum timeout_form form;
	int argument;
};

/* Calls that give EINTR at a stop without a signal, and have done nothing when they do: they can be made
 * again. (signal(7); each tried in tests/kernel/interrupted_calls.c.) */
static const struct interrupted_call broken_off[] = {
#ifdef __NR_epoll_wait
	{ __NR_epoll_wait, TIMEOUT_MS_REGISTER, 3 },
#endif
	{ __NR_epoll_pwait, TIMEOUT_MS_REGISTER, 3 },
	{ __NR_epoll_pwait2, TIMEOUT_TIMESPEC, 3 },
	{ __NR_rt_sigtimedwait, TIMEOUT_TIMESPEC, 2 },
	{ __NR_semop, TIMEOUT_NONE, 0 },
	{ __NR_semtimedop, TIMEOUT_TIMESPEC, 3 },
	{ __NR_io_getevents, TIMEOUT_TIMESPEC, 4 },
	{ __NR_io_pgetevents, TIMEOUT_TIMESPEC, 4 },
	{ __NR_io_uring_enter, TIMEOUT_NONE, 0 }, /* what it was to submit is not, if it says EINTR; its time (IORING_ENTER_EXT_ARG) starts anew */
	/* Sockets with SO_RCVTIMEO or SO_SNDTIMEO (include/net/sock.h sock_intr_errno); their time starts anew. */
	{ __NR_accept, TIMEOUT_NONE, 0 },
	{ __NR_accept4, TIMEOUT_NONE, 0 },
	{ __NR_recvfrom, TIMEOUT_NONE, 0 },
	{ __NR_recvmsg, TIMEOUT_NONE, 0 },
	{ __NR_sendto, TIMEOUT_NONE, 0 },
	{ __NR_sendmsg, TIMEOUT_NONE, 0 },
	{ __NR_read, TIMEOUT_NONE, 0 },
	{ __NR_readv, TIMEOUT_NONE, 0 },
	{ __NR_write, TIMEOUT_NONE, 0 },
	{ __NR_writev, TIMEOUT_NONE, 0 },
};

/* Calls whose end the kernel keeps in a restart block. */
static const struct interrupted_call kept[] = {
	{ __NR_nanosleep, TIMEOUT_TIMESPEC, 0 },
	{ __NR_clock_nanosleep, TIMEOUT_TIMESPEC, 2 },
#ifdef __NR_poll
	{ __NR_poll, TIMEOUT_MS_REGISTER, 2 },
#endif
	{ __NR_futex, TIMEOUT_TIMESPEC, 3 },
};

#define FIND(table, number) find((table), sizeof(table) / sizeof *(table), (number))

static const struct interrupted_call *find(const struct interrupted_call *table, size_t count, long number)
{
	for (size_t i = 0; i < count; i++)
		if (table[i].number == number)
			return &table[i];
	return NULL;
}

/* restart_syscall(2) hides which call it goes on with; the function in which the thread slept tells. All of hrtimer_nanosleep_restart counts as part
 * of the scheduler (__sched), which wchan leaves out: what it names is who called it. Other restart functions are not left out (kernel/time/hrtimer.c,
 * fs/select.c do_restart_poll, kernel/futex/waitwake.c futex_wait_restart, 6.18; tests/kernel/restart_wchan.c). */
static long number_behind(const struct registers *registers, const char *where)
{
	enum { HIGHEST_CLOCK = 4096 };
	if (strstr(where, "nanosleep") || strstr(where, "restart_syscall") || !strcmp(where, "do_syscall_64") || !strcmp(where, "invoke_syscall"))
		return registers_argument(registers, 0) < HIGHEST_CLOCK ? __NR_clock_nanosleep : __NR_nanosleep;
	if (strstr(where, "futex"))
		return __NR_futex;
#ifdef __NR_poll
	if (strstr(where, "poll"))
		return __NR_poll;
#endif
	return -1;
}

/* Does the call with these arguments wait for no time that only passes while it waits: for ever, or until a point in time? */
static bool is_without_timeout(const struct interrupted_call *call, long number, const uint64_t args[6])
{
	uint64_t value = args[call->argument];
	return call->form == TIMEOUT_NONE || (call->form == TIMEOUT_TIMESPEC && !value) || (call->form == TIMEOUT_MS_REGISTER && (int)value < 0) ||
	       (number == __NR_clock_nanosleep && (args[1] & TIMER_ABSTIME)) ||
	       (number == __NR_futex && (args[1] & FUTEX_CMD_MASK) != FUTEX_WAIT);
}

/* The relative timeout of a call; *ret_timed is false when it has none. */
static int read_timeout(pid_t pid, const struct registers *registers, long number,
			const struct interrupted_call *call, bool *ret_timed, uint64_t *ret_ns, struct fault *fault)
{
	uint64_t args[6];
	for (int i = 0; i < 6; i++)
		args[i] = registers_argument(registers, i);
	uint64_t value = args[call->argument];
	*ret_timed = !is_without_timeout(call, number, args);
	if (!*ret_timed)
		return 0;
	if (call->form == TIMEOUT_MS_REGISTER) {
		*ret_ns = (uint64_t)(int)value * 1000000u;
		return 0;
	}
	struct timespec time;
	int rc = memory_read(pid, value, &time, sizeof time, fault);
	if (rc == 0)
		*ret_ns = time.tv_sec < 0 ? 0 : (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
	return rc;
}

/* At a stop the kernel writes what is left of a sleep to where the program wants it (kernel/time/hrtimer.c do_nanosleep, 6.18): most programs give the same place as for the
 * time that they ask for, which is gone then. Takes it from there, where it is needed and can be read. */
static void take_rest(pid_t pid, const struct registers *registers, const struct interrupted_call *call, struct restart *restart)
{
	const uint64_t asked = registers_argument(registers, call->argument), place = registers_argument(registers, call->argument + 1);
	bool is_sleep = restart->number == __NR_nanosleep || restart->number == __NR_clock_nanosleep;
	struct timespec rest;
	if (!is_sleep || !place || registers_result(registers) != -ERESTART_RESTARTBLOCK_ ||
	    (restart->known && (place >= asked + sizeof rest || asked >= place + sizeof rest)) || memory_read(pid, place, &rest, sizeof rest, NULL) < 0)
		return;
	restart->known = true;
	restart->left_ns = rest.tv_sec < 0 ? 0 : (uint64_t)rest.tv_sec * 1000000000u + (uint64_t)rest.tv_nsec;
}

static int examine_call(pid_t pid, struct registers *registers, long number, const struct interrupted_call *call,
			const struct restart_sleep *sleep, struct restart *restart, struct fault *fault)
{
	bool timed;
	uint64_t whole_ns = 0;
	int rc = read_timeout(pid, registers, number, call, &timed, &whole_ns, fault);
	if (rc < 0)
		return rc;
	restart->timed = timed;
	restart->known = sleep->known;
	restart->left_ns = whole_ns > sleep->slept_ns ? whole_ns - sleep->slept_ns : 0;
	restart->number = number;
	if (timed)
		take_rest(pid, registers, call, restart);
	/* Better an end that the kernel keeps than one that would be late by an unknown time. */
	const bool again = registers_syscall(registers) == __NR_restart_syscall;
	restart->kernel_keeps = timed && (!restart->known || again) && !sleep->alone && registers_result(registers) == -ERESTART_RESTARTBLOCK_;
	if (!restart->kernel_keeps) {
		registers_set_syscall(registers, number);
		registers_set_result(registers, -ERESTARTNOHAND_);
	}
	return 0;
}

bool restart_call_wants_time(long number, const uint64_t args[6])
{
	const struct interrupted_call *call = FIND(broken_off, number);
	call = call ? call : FIND(kept, number);
	return number == __NR_restart_syscall || (call && !is_without_timeout(call, number, args));
}

bool restart_wants_time(const struct registers *registers)
{
	long result = registers_result(registers);
	return registers_syscall(registers) >= 0 && (result == -EINTR || result == -ERESTART_RESTARTBLOCK_);
}

int restart_examine(pid_t pid, struct registers *registers, const struct restart_sleep *sleep,
		    struct restart *ret_restart, struct fault *fault)
{
	struct restart restart = { 0 };
	long number = registers_syscall(registers), result = registers_result(registers);
	const struct interrupted_call *call = NULL;
	if (number >= 0 && result == -EINTR)
		call = FIND(broken_off, number);
	if (number >= 0 && result == -ERESTART_RESTARTBLOCK_) {
		if (number == __NR_restart_syscall)
			number = number_behind(registers, sleep->where);
		call = FIND(kept, number);
		restart.kernel_keeps = !call;
	}
	int rc = call ? examine_call(pid, registers, number, call, sleep, &restart, fault) : 0;
	if (rc == 0)
		*ret_restart = restart;
	return rc;
}

int restart_for_image(const struct restart *restart, struct registers *registers, struct fault *fault)
{
	if (!restart->kernel_keeps)
		return 0;
	if (!restart->timed)
		return fault_set_transient(fault, FAULT_UNSUPPORTED, ENOTSUP,
					   "interrupted in system call %ld, whose time left only the kernel knows; try "
					   "again a little later", registers_syscall(registers));
	registers_set_syscall(registers, restart->number);
	registers_set_result(registers, -ERESTARTNOHAND_);
	return 0;
}

enum { RED_ZONE = 128 };

int restart_shorten(pid_t pid, struct registers *registers, uint64_t left_ns, struct fault *fault)
{
	const struct interrupted_call *call = FIND(broken_off, registers_syscall(registers));
	call = call ? call : FIND(kept, registers_syscall(registers));
	if (!call || call->form == TIMEOUT_NONE)
		return 0;
	if (call->form == TIMEOUT_MS_REGISTER) {
		uint64_t left_ms = (left_ns + 999999u) / 1000000u;
		registers_set_argument(registers, call->argument, left_ms > INT32_MAX ? INT32_MAX : left_ms);
		return 0;
	}
	struct timespec left = { (time_t)(left_ns / 1000000000u), (long)(left_ns % 1000000000u) };
	uint64_t place = (registers_stack(registers) - RED_ZONE - sizeof left) & ~UINT64_C(15);
	int rc = memory_write(pid, place, &left, sizeof left, fault);
	if (rc == 0)
		registers_set_argument(registers, call->argument, place);
	return rc;
}

bool restart_pending(const struct registers *registers)
{
	long result = registers_result(registers);
	return registers_syscall(registers) >= 0 &&
	       (result == -ERESTARTSYS_ || result == -ERESTARTNOINTR_ || result == -ERESTARTNOHAND_ ||
		result == -ERESTART_RESTARTBLOCK_);
}

void restart_walk_home(struct registers *registers)
{
	if (restart_pending(registers))
		registers_reissue(registers, registers_result(registers) == -ERESTART_RESTARTBLOCK_ ?
						     __NR_restart_syscall :
						     registers_syscall(registers));
}
