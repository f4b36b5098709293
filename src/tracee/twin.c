/* SPDX-License-Identifier: Apache-2.0 */
#include "tracee/twin.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/log.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif

enum { NOT_BORN = INT_MAX }; /* no PID, and nobody to wait for */

/* Where the calls of a birth lie in the guest's memory. */
struct birth {
	struct foothold *foothold;
	struct guest *guest;
	bool suspended;
	uint64_t helper_number, twin_number; /* where the kernel writes who was born: 32 bits */
	uint64_t helper_call;                /* the helper's only call */
	uint64_t twin_calls;
	size_t twin_count;
	pid_t helper, twin; /* 0: not born, or ended */
	int rc;             /* of the part that is Cairn's, while the guest waits */
	bool stuck;         /* that was the guest, which will not come to its rest */
	struct fault fault;
};

/* ---- the calls ---- */

static struct stub_call call_of(long number, const uint64_t args[6])
{
	struct stub_call call = { .number = (uint64_t)number, .result = STUB_NOT_RUN };
	memcpy(call.args, args, sizeof call.args);
	return call;
}
#define CALL(call, ...) call_of(__NR_##call, BATCH_ARGS(__VA_ARGS__))

/* clone(2) for one who runs @count calls at @calls; whoever it is, the kernel writes the number to @number. */
static struct stub_call bear(uint64_t flags, uint64_t number, uint64_t calls, size_t count)
{
	struct stub_call call = CALL(clone, flags | CLONE_PTRACE | CLONE_PARENT_SETTID, 0, number, 0, calls, calls + count * sizeof call);
	call.number |= STUB_BEARS;
	return call;
}

static void add_calls(struct batch *batch, struct birth *birth, const struct twin_range *unwanted, size_t count)
{
	batch_group(batch, 2, (count + 8) * sizeof(struct stub_call));
	struct stub_call *calls = memory_new((count + 3) * sizeof *calls);
	size_t n = 0;
	/* Before the program goes on: it would see that somebody else has its table. */
	calls[n++] = CALL(close_range, 0, UINT_MAX, CLOSE_RANGE_UNSHARE);
	calls[n++] = CALL(setsid, 0);
	const struct batch_place root = batch_data(batch, "/", 2);
	calls[n++] = CALL(chdir, root.address);
	for (size_t i = 0; i < count; i++)
		calls[n++] = CALL(munmap, unwanted[i].start, unwanted[i].end - unwanted[i].start);
	birth->twin_calls = batch_data(batch, calls, n * sizeof *calls).address;
	birth->twin_count = n;
	free(calls);

	const int32_t nobody = NOT_BORN;
	birth->twin_number = batch_data(batch, &nobody, sizeof nobody).address;
	/* No signal at its end, and the same descriptor table all along. */
	const struct stub_call helper = bear(CLONE_FILES, birth->twin_number, birth->twin_calls, birth->twin_count);
	birth->helper_call = batch_data(batch, &helper, sizeof helper).address;

	/* The number goes straight into the call that waits for it. */
	birth->helper_number = batch->area + sizeof(struct stub_call) + offsetof(struct stub_call, args);
	const struct stub_call first = bear(CLONE_VM | CLONE_FILES | CLONE_FS, birth->helper_number, birth->helper_call, 1);
	batch_call_raw(batch, "clone", false, (long)first.number, first.args);
	batch_call(batch, wait4, NOT_BORN, 0, __WALL, 0);
}

/* ---- while the guest waits ---- */

/* The next stop of one that Cairn has made. A kernel that is at work for it (a large copy) is waited for. */
static int next_stop(const struct birth *birth, pid_t pid, struct stop *ret_stop, struct fault *fault)
{
	const uint64_t look_ns = 100000000;
	int rc;
	while ((rc = ptrace_wait_stop(pid, look_ns, ret_stop, fault)) == -ETIMEDOUT) {
		rc = birth->foothold->deadline ? deadline_check(birth->foothold->deadline, fault) : 0;
		if (rc < 0)
			return rc;
	}
	return rc;
}

static int ended(pid_t pid, struct fault *fault)
{
	return fault_set(fault, FAULT_FAILED, ESRCH, "process %d, which copies its memory, was killed", pid);
}

/* Of one that is on its way: SIGSTOP, which nobody can block, is not for it; no other signal should come. */
static int check_stop(pid_t pid, const struct stop *stop, struct fault *fault)
{
	if (stop->kind == STOP_SIGNAL && stop->signal != SIGSTOP)
		return fault_set(fault, FAULT_FAILED, EIO, "process %d, which copies its memory: signal %d", pid, stop->signal);
	return 0;
}

/* Its first stop, before its first instruction. */
static int await_birth(const struct birth *birth, pid_t pid, struct fault *fault)
{
	struct stop stop;
	int rc = next_stop(birth, pid, &stop, fault);
	if (rc == 0 && stop.kind != STOP_INTERRUPT)
		rc = ended(pid, fault);
	return rc;
}

/* What the guest's memory says. Who was born must not be missed because this look failed: only a guest that has ended, or has gone home with its calls behind it, has
 * nothing to say (false). */
static bool look(pid_t pid, uint64_t address, void *data, size_t size)
{
	enum { MOST_LOOKS = 1000 };
	const uint64_t nap_ns = 1000000;
	int rc;
	for (int looks = 0; (rc = memory_read(pid, address, data, size, NULL)) < 0 && rc != -ESRCH && looks < MOST_LOOKS; looks++)
		clock_sleep_ns(nap_ns);
	return rc == 0;
}

/* 0: nobody. Others than the guest may write to its memory: it is a number, and whose is yet to be seen. */
static pid_t read_number(pid_t pid, uint64_t address)
{
	int32_t number;
	return !look(pid, address, &number, sizeof number) || number == NOT_BORN || number < 0 ? 0 : number;
}

/* Is there nobody to wait for: has the guest made its first call in vain, or ended? */
static bool has_failed(const struct birth *birth)
{
	int64_t result;
	return !look(birth->guest->tid, birth->foothold->area + offsetof(struct stub_call, result), &result, sizeof result) ||
	       (result < 0 && result != STUB_NOT_RUN);
}

/* Nobody will be there for a helper that the guest bears after all, when it gets a processor or is let out of a freezer. */
static void call_off(const struct birth *birth)
{
	const uint64_t nothing = __NR_getpid;
	memory_write(birth->guest->tid, birth->foothold->area + offsetof(struct stub_call, number), &nothing, sizeof nothing, NULL);
}

static int await_helper(struct birth *birth, struct fault *fault)
{
	const uint64_t nap_ns = 20000;
	int rc = 0;
	while (!(birth->helper = read_number(birth->guest->tid, birth->helper_number))) {
		if (rc < 0)
			return rc;
		rc = foothold_go_on(birth->guest, fault);
		birth->stuck = rc < 0;
		if (rc < 0)
			return rc;
		if (has_failed(birth))
			return fault_set(fault, FAULT_FAILED, EAGAIN, "it could not be copied"); /* the batch knows why */
		rc = birth->foothold->deadline ? deadline_check(birth->foothold->deadline, fault) : 0;
		if (rc < 0)
			call_off(birth);
		else
			clock_sleep_ns(nap_ns);
	}
	if (rc < 0)
		return rc;
	return await_birth(birth, birth->helper, fault);
}

/* To before its end. */
static int run_to_end(const struct birth *birth, pid_t pid, struct fault *fault)
{
	for (;;) {
		struct registers registers;
		struct stop stop;
		int rc = ptrace_resume(pid, PTRACE_SYSCALL, 0, fault);
		if (rc == 0 || rc == -ESRCH) /* killed: its end is still to come */
			rc = next_stop(birth, pid, &stop, fault);
		if (rc == 0 && stop.kind == STOP_ENDED)
			rc = ended(pid, fault);
		if (rc == 0)
			rc = check_stop(pid, &stop, fault);
		if (rc == 0 && stop.kind == STOP_SYSCALL)
			rc = ptrace_get_registers(pid, &registers, fault);
		if (rc < 0)
			return rc;
		if (stop.kind == STOP_SYSCALL && registers_at_entry(&registers) && registers_syscall(&registers) == __NR_exit_group)
			return 0;
	}
}

/* Lets the helper copy the memory, and end. Who was born is asked before that: as long as the helper is there the guest waits for it, and cannot have gone home. */
static int see_helper_off(struct birth *birth, struct fault *fault)
{
	struct stop stop = { .kind = STOP_INTERRUPT };
	int rc = ptrace_tie(birth->helper, birth->suspended, fault);
	if (rc == 0)
		rc = run_to_end(birth, birth->helper, fault);
	if (rc == 0)
		birth->twin = read_number(birth->helper, birth->twin_number);
	while (rc == 0 && stop.kind != STOP_ENDED) {
		rc = ptrace_resume(birth->helper, PTRACE_CONT, 0, fault);
		if (rc == 0 || rc == -ESRCH)
			rc = next_stop(birth, birth->helper, &stop, fault);
	}
	return rc;
}

/* The guest waits for the helper's end, and the helper for Cairn. */
static int attend(void *context, struct fault *fault)
{
	struct birth *birth = context;
	birth->rc = await_helper(birth, &birth->fault);
	if (birth->rc == 0)
		birth->rc = see_helper_off(birth, &birth->fault);
	if (birth->rc < 0 && birth->helper) {
		twin_end(birth->helper);
		birth->twin = read_number(birth->guest->tid, birth->twin_number);
	}
	if (birth->stuck)
		*fault = birth->fault;
	return birth->stuck ? birth->rc : 0;
}

/* ---- the twin ---- */

static int check_calls(const struct birth *birth, struct fault *fault)
{
	_free_ struct stub_call *calls = memory_new(birth->twin_count * sizeof *calls);
	int rc = memory_read(birth->twin, birth->twin_calls, calls, birth->twin_count * sizeof *calls, fault);
	for (size_t i = 0; rc == 0 && i < birth->twin_count; i++)
		if (calls[i].result < 0)
			rc = fault_set(fault, FAULT_FAILED, EIO, "its copy could not let go of what it need not have (system call %u: %s)",
				       (unsigned)calls[i].number, calls[i].result == STUB_NOT_RUN ? "not made" : strerror((int)-calls[i].result));
	return rc;
}

/* Why the helper has borne nobody. */
static int tell_why(const struct birth *birth, struct fault *fault)
{
	int64_t result = 0;
	memory_read(birth->guest->tid, birth->helper_call + offsetof(struct stub_call, result), &result, sizeof result, NULL);
	int error = result < 0 && result > -4096 ? (int)-result : EIO;
	return fault_set(fault, FAULT_FAILED, error, "its memory could not be copied: clone: %s", strerror(error));
}

int twin_make(struct foothold *foothold, struct guest *guest, bool suspended, const struct twin_range *unwanted, size_t count, pid_t *ret_pid,
	      struct fault *fault)
{
	struct birth birth = { .foothold = foothold, .guest = guest, .suspended = suspended };
	struct batch batch;
	assert(count <= TWIN_MOST_RANGES);
	batch_init(&batch, foothold->area);
	add_calls(&batch, &birth, unwanted, count);
	int rc = foothold_run_attended(foothold, guest, &batch, attend, &birth, fault);
	batch_finish(&batch);
	if (rc == 0 && birth.rc < 0) {
		*fault = birth.fault;
		rc = birth.rc;
	}
	if (rc == 0 && !birth.twin)
		rc = tell_why(&birth, fault);
	if (rc == 0)
		rc = await_birth(&birth, birth.twin, fault);
	if (rc == 0)
		rc = run_to_end(&birth, birth.twin, fault);
	if (rc == 0)
		rc = check_calls(&birth, fault);
	if (rc < 0 && birth.twin)
		twin_end(birth.twin);
	if (rc == 0)
		*ret_pid = birth.twin;
	return rc;
}

/* Is it one that Cairn traces, and whose end has not been seen? Any other number, as the guest's memory may hold one and as an end sets one free, is somebody else's. */
static bool is_ours(pid_t pid)
{
	siginfo_t info;
	return waitid(P_PID, (id_t)pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) == 0;
}

void twin_end(pid_t pid)
{
	const uint64_t patience_ns = UINT64_C(10000000000);
	struct stop stop = { .kind = STOP_INTERRUPT };
	if (!is_ours(pid))
		return;
	kill(pid, SIGKILL);
	/* Whether it stood at a stop, or was to come to one: the last that it shows is its end. */
	while (stop.kind != STOP_ENDED && ptrace_wait_stop(pid, patience_ns, &stop, NULL) == 0)
		;
}
