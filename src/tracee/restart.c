/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/restart.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/socket.h>
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

/* Calls that give EINTR at a stop without a signal, and have done nothing when they do: they can be made
 * again. (signal(7); each tried in tests/kernel/interrupted_calls.c.) */
static const struct interrupted_call {
	long number;
	enum timeout_form form;
	int argument;
} interrupted_calls[] = {
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
	/* Sockets with SO_RCVTIMEO or SO_SNDTIMEO (net/core/sock.h sock_intr_errno); the time starts anew. */
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

static const struct interrupted_call *interrupted_call(long number)
{
	for (size_t i = 0; i < sizeof interrupted_calls / sizeof *interrupted_calls; i++)
		if (interrupted_calls[i].number == number)
			return &interrupted_calls[i];
	return NULL;
}

static uint64_t less(uint64_t timeout_ns, uint64_t slept_ns)
{
	return timeout_ns > slept_ns ? timeout_ns - slept_ns : 0;
}

static int read_timespec(pid_t pid, uint64_t address, uint64_t *ret_ns, struct fault *fault)
{
	struct timespec time;
	int rc = memory_read(pid, address, &time, sizeof time, fault);
	if (rc < 0)
		return rc;
	*ret_ns = time.tv_sec < 0 ? 0 : (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
	return 0;
}

static int examine_interrupted(pid_t pid, struct registers *registers, const struct interrupted_call *call,
			       uint64_t slept_ns, struct restart *restart, struct fault *fault)
{
	registers_set_result(registers, -ERESTARTNOHAND_);
	uint64_t timeout = registers_argument(registers, call->argument);
	if (call->form == TIMEOUT_MS_REGISTER && (int)timeout > 0) {
		restart->action = RESTART_TIMED;
		restart->left_ns = less((uint64_t)(int)timeout * 1000000u, slept_ns);
	} else if (call->form == TIMEOUT_TIMESPEC && timeout) {
		uint64_t whole_ns = 0;
		int rc = read_timespec(pid, timeout, &whole_ns, fault);
		if (rc < 0)
			return rc;
		restart->action = RESTART_TIMED;
		restart->left_ns = less(whole_ns, slept_ns);
	}
	return 0;
}

/* The whole time that a call with a restart block was asked to wait; false: an absolute time, make it again as it is. */
static int restart_block_time(pid_t pid, const struct registers *registers, bool *ret_relative, uint64_t *ret_ns,
			      struct fault *fault)
{
	*ret_relative = true;
	switch (registers_syscall(registers)) {
	case __NR_nanosleep:
		return read_timespec(pid, registers_argument(registers, 0), ret_ns, fault);
	case __NR_clock_nanosleep:
		*ret_relative = !(registers_argument(registers, 1) & TIMER_ABSTIME);
		return read_timespec(pid, registers_argument(registers, 2), ret_ns, fault);
#ifdef __NR_poll
	case __NR_poll:
		*ret_ns = (uint64_t)(int)registers_argument(registers, 2) * 1000000u;
		return 0;
#endif
	case __NR_futex:
		*ret_relative = (registers_argument(registers, 1) & FUTEX_CMD_MASK) == FUTEX_WAIT;
		return read_timespec(pid, registers_argument(registers, 3), ret_ns, fault);
	default:
		return fault_set_transient(fault, FAULT_UNSUPPORTED, ENOTSUP,
					   "interrupted in system call %ld, whose time left only the kernel knows; "
					   "try again a little later", registers_syscall(registers));
	}
}

int restart_examine(pid_t pid, struct registers *registers, uint64_t slept_ns, struct restart *ret_restart,
		    struct fault *fault)
{
	struct restart restart = { RESTART_NONE, 0 };
	long number = registers_syscall(registers), result = registers_result(registers);
	int rc = 0;
	if (number >= 0 && result == -EINTR) {
		const struct interrupted_call *call = interrupted_call(number);
		if (call)
			rc = examine_interrupted(pid, registers, call, slept_ns, &restart, fault);
	} else if (number >= 0 && result == -ERESTART_RESTARTBLOCK_) {
		bool relative;
		uint64_t whole_ns = 0;
		rc = restart_block_time(pid, registers, &relative, &whole_ns, fault);
		if (rc == 0 && relative)
			restart = (struct restart){ RESTART_REARM, less(whole_ns, slept_ns) };
	}
	if (rc == 0)
		*ret_restart = restart;
	return rc;
}

enum { RED_ZONE = 128 };

int restart_shorten(pid_t pid, struct registers *registers, const struct restart *restart, struct fault *fault)
{
	const struct interrupted_call *call = interrupted_call(registers_syscall(registers));
	if (restart->action != RESTART_TIMED || !call)
		return 0;
	if (call->form == TIMEOUT_MS_REGISTER) {
		uint64_t left_ms = (restart->left_ns + 999999u) / 1000000u;
		registers_set_argument(registers, call->argument, left_ms > INT32_MAX ? INT32_MAX : left_ms);
		return 0;
	}
	struct timespec left = { (time_t)(restart->left_ns / 1000000000u), (long)(restart->left_ns % 1000000000u) };
	uint64_t place = (registers_stack(registers) - RED_ZONE - sizeof left) & ~UINT64_C(15);
	int rc = memory_write(pid, place, &left, sizeof left, fault);
	if (rc == 0)
		registers_set_argument(registers, call->argument, place);
	return rc;
}

void restart_rearm_call(const struct registers *registers, const struct restart *restart, uint64_t timespec,
			uint64_t *ret_number, uint64_t ret_args[6])
{
	*ret_number = (uint64_t)registers_syscall(registers);
	for (int i = 0; i < 6; i++)
		ret_args[i] = registers_argument(registers, i);
	switch (*ret_number) {
	case __NR_nanosleep:
		ret_args[0] = timespec;
		break;
	case __NR_clock_nanosleep:
		ret_args[2] = timespec;
		break;
	case __NR_futex:
		ret_args[3] = timespec;
		break;
	default: /* poll */
		ret_args[2] = (restart->left_ns + 999999u) / 1000000u;
	}
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
