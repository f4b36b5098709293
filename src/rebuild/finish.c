/* SPDX-License-Identifier: Apache-2.0 */
/* The last steps of a newborn: its state as a task, then the registers with which it runs. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "rebuild/newborn.h"

static int add_records(struct rebuild_thread *thread, const struct kind *kind, const struct plan_record *records,
		       size_t count, struct batch *batch, struct fault *fault)
{
	for (size_t i = 0; i < count; i++) {
		if (records[i].kind != kind)
			continue;
		batch_group(batch, 160, 8192);
		int rc = kind->rebuild(&thread->newborn, records[i].message, batch, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Signals that the making itself caused (ends of zombies and helpers) are nobody's: they go before the real ones come. */
static void add_drain(struct batch *batch)
{
	const uint64_t all = UINT64_MAX;
	const struct { int64_t s, ns; } at_once = { 0, 0 };
	struct batch_place set = batch_data(batch, &all, sizeof all);
	struct batch_place time = batch_data(batch, &at_once, sizeof at_once);
	for (int i = 0; i < 3; i++)
		batch_try(batch, rt_sigtimedwait, set.address, 0, time.address, sizeof all);
}

static int thread_state(struct rebuild_process *process, size_t index, struct fault *fault)
{
	struct rebuild_thread *thread = process->threads.at[index];
	struct batch batch;
	int rc = 0;
	newborn_batch(&process->newborn, &batch);
	if (index == 0 && !process->has_signals)
		add_drain(&batch);
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++) {
		if (!(*kind)->rebuild || (process->has_signals && (*kind)->descriptor == &cairn__process_signals__descriptor))
			continue;
		if (index == 0 && (*kind)->scope == SCOPE_PROCESS)
			rc = add_records(thread, *kind, process->plan->records.at, process->plan->records.count, &batch,
					 fault);
		else if ((*kind)->scope == SCOPE_THREAD)
			rc = add_records(thread, *kind, thread->plan->records.at, thread->plan->records.count, &batch,
					 fault);
	}
	if (rc == 0)
		rc = newborn_run(&thread->newborn, &batch, fault); /* not launched: kinds look at what others have done (semaphores) */
	batch_finish(&batch);
	return rc;
}

int finish_thread_state(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	(void)rebuild;
	/* The leader last: it answers for the process, and for what the others' credentials reset. */
	for (size_t i = process->threads.count; i-- > 0;) {
		int rc = thread_state(process, i, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int step(pid_t tid, int request, enum stop_kind want, struct fault *fault)
{
	struct stop stop;
	int rc = ptrace_resume(tid, request, 0, fault);
	if (rc == 0)
		rc = ptrace_wait_stop(tid, UINT64_MAX, &stop, fault);
	if (rc == 0 && stop.kind != want)
		rc = fault_set(fault, FAULT_FAILED, EIO, "newborn %d: unexpected stop (status 0x%x)", tid, stop.status);
	return rc;
}

/* The call that ends it is let go with it: nobody waits for the end of a leader that another process traces, as long as others live. */
static int end_leader(struct rebuild_process *process, struct fault *fault)
{
	struct newborn_thread *leader = newborn_leader(process);
	const struct rebuild_thread *thread = process->threads.at[0];
	struct proc_stat stat = { 0 };
	int rc = seat_let_go(leader, fault);
	if (rc == 0)
		rc = exec_begin(leader, __NR_exit, BATCH_ARGS(thread->plan->thread->exit_status), fault);
	if (rc == 0)
		rc = ptrace_release(leader->tid, fault);
	while (rc == 0 && stat.state != 'Z') {
		clock_sleep_ns(20000);
		rc = proc_stat_read(leader->tid, 0, &stat, fault);
	}
	free(leader->processors);
	leader->processors = NULL;
	memmove(process->threads.at, process->threads.at + 1, --process->threads.count * sizeof *process->threads.at);
	return rc;
}

int finish_ended(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	(void)rebuild;
	struct rebuild_thread *first = process->threads.at[0];
	struct batch batch;
	int rc = 0;
	if (!first->plan->thread->ended)
		return 0;
	newborn_batch(&process->newborn, &batch);
	/* Signals from others can be queued for a process by its first thread only (kernel/signal.c do_rt_sigqueueinfo). */
	add_drain(&batch);
	process->has_signals = true;
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++) {
		if ((*kind)->scope == SCOPE_THREAD && (*kind)->rebuild)
			rc = add_records(first, *kind, first->plan->records.at, first->plan->records.count, &batch, fault);
		else if ((*kind)->descriptor == &cairn__process_signals__descriptor)
			rc = add_records(first, *kind, process->plan->records.at, process->plan->records.count, &batch, fault);
	}
	if (rc == 0)
		rc = newborn_run(&first->newborn, &batch, fault);
	batch_finish(&batch);
	return rc < 0 ? rc : end_leader(process, fault);
}

static int prepare_thread(struct rebuild_thread *thread, struct fault *fault)
{
	const Cairn__Thread *record = thread->plan->thread;
	memcpy(&thread->final.raw, record->registers.data, sizeof thread->final.raw);
	return record->timed ? restart_shorten(thread->newborn.tid, &thread->final, record->left_ns, fault) : 0;
}

/* From the end of a call to a stop from which the kernel looks at calls that were interrupted. */
static int come_to_rest(const struct newborn_thread *thread, struct fault *fault)
{
	int rc = ptrace_interrupt(thread->tid, fault);
	return rc < 0 ? rc : step(thread->tid, PTRACE_CONT, STOP_INTERRUPT, fault);
}

int newborn_call(struct newborn_thread *thread, const char *name, long number, const uint64_t args[6], const void *data, size_t size,
		 struct fault *fault)
{
	long result = 0;
	int rc = ptrace_set_mask(thread->tid, UINT64_MAX, fault);
	if (rc == 0 && size)
		rc = memory_write(thread->tid, thread->process->area, data, size, fault);
	if (rc == 0)
		rc = exec_call(thread, number, args, &result, fault);
	if (rc == 0 && result < 0)
		rc = fault_set(fault, fault_class_of((int)-result), (int)-result, "thread %d: %s: %s", thread->tid, name, strerror((int)-result));
	return rc < 0 ? rc : come_to_rest(thread, fault);
}

static int last_of(struct newborn_thread *thread, const struct kind *kind, const struct plan_record *records, size_t count,
		   struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < count; i++)
		if (records[i].kind == kind)
			rc = kind->last(thread, records[i].message, fault);
	return rc;
}

static int last_calls(struct rebuild_process *process, struct fault *fault)
{
	int rc = 0;
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++) {
		if (!(*kind)->last)
			continue;
		if ((*kind)->scope == SCOPE_PROCESS)
			rc = last_of(newborn_leader(process), *kind, process->plan->records.at, process->plan->records.count, fault);
		for (size_t i = 0; rc == 0 && (*kind)->scope == SCOPE_THREAD && i < process->threads.count; i++) {
			struct rebuild_thread *thread = process->threads.at[i];
			rc = last_of(&thread->newborn, *kind, thread->plan->records.at, thread->plan->records.count, fault);
		}
	}
	return rc;
}

/* The stub's own pages go last, by an instruction of the program's. */
int finish_unmap(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	struct newborn_thread *leader = newborn_leader(process);
	(void)rebuild;
	if (process->plan->space->owner != process->plan)
		return 0;
	struct registers registers;
	/* It goes from the call's entry to the stop in which it comes to rest. */
	int rc = exec_begin(leader, __NR_munmap, BATCH_ARGS(process->newborn.code, NEWBORN_CODE_SIZE + BATCH_AREA), fault);
	if (rc == 0)
		rc = come_to_rest(leader, fault);
	if (rc == 0)
		rc = ptrace_get_registers(leader->tid, &registers, fault);
	if (rc == 0 && registers_result(&registers) != 0)
		rc = fault_set(fault, FAULT_FAILED, EIO, "process %d: unmapping the stub gave %ld", process->newborn.pid,
			       (long)registers_result(&registers));
	return rc;
}

static uint64_t blocked_of(const struct rebuild_thread *thread)
{
	for (size_t i = 0; i < thread->plan->records.count; i++)
		if (thread->plan->records.at[i].kind->descriptor == &cairn__thread_signals__descriptor)
			return ((const Cairn__ThreadSignals *)thread->plan->records.at[i].message)->blocked;
	return 0;
}

/* Nothing is called in the thread after this. */
static int set_dispatch(const struct rebuild_thread *thread, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < thread->plan->records.count; i++) {
		if (thread->plan->records.at[i].kind->descriptor != &cairn__thread_modes__descriptor)
			continue;
		const Cairn__ThreadModes *modes = (const Cairn__ThreadModes *)thread->plan->records.at[i].message;
		const struct dispatch_place place = { 1, modes->dispatch_selector, modes->dispatch_offset, modes->dispatch_size };
		rc = modes->dispatches ? ptrace_set_dispatch(thread->newborn.tid, &place, fault) : 0;
	}
	return rc;
}

static int finish_thread(struct rebuild_thread *thread, struct fault *fault)
{
	const Cairn__Thread *record = thread->plan->thread;
	int rc = ptrace_set_xstate(thread->newborn.tid, record->xstate.data, record->xstate.len, fault);
	if (rc == 0)
		rc = ptrace_set_registers(thread->newborn.tid, &thread->final, fault);
	if (rc == 0)
		rc = ptrace_set_mask(thread->newborn.tid, blocked_of(thread), fault);
	if (rc == 0)
		rc = seat_let_go(&thread->newborn, fault);
	return rc < 0 ? rc : set_dispatch(thread, fault);
}

int finish_prepare(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	int rc = 0;
	(void)rebuild;
	for (size_t i = process->threads.count; rc == 0 && i-- > 0;)
		rc = prepare_thread(process->threads.at[i], fault);
	return rc < 0 ? rc : last_calls(process, fault);
}

int finish_process(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < process->threads.count; i++)
		rc = finish_thread(process->threads.at[i], fault);
	if (rc == 0 && (process->plan->process->stopped || rebuild->options.leave_stopped))
		kill(process->newborn.pid, SIGSTOP);
	return rc;
}
