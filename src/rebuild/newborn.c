/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/newborn.h"

#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>

void newborn_batch(const struct newborn_process *process, struct batch *ret_batch)
{
	batch_init(ret_batch, process->area);
}

int newborn_loan(const struct newborn_process *process, uint32_t object)
{
	const struct newborn_process *table = process->table;
	for (size_t i = 0; i < table->loans.count; i++)
		if (table->loans.at[i].object == object)
			return table->loans.at[i].fd;
	return -1;
}

struct newborn_runner {
	struct newborn_thread *thread;
	struct pid_list *births;
	bool *executed; /* NULL: an exec is not expected */
};

static int run_piece(void *context, uint64_t first, uint64_t end, struct fault *fault)
{
	struct newborn_runner *runner = context;
	struct newborn_thread *thread = runner->thread;
	struct registers registers = thread->birth;
	registers_enter(&registers, thread->process->code + (uint64_t)(stub_batch - stub_begin));
	registers_batch(&registers, first, end, newborn_trap(thread->process), 0);
	int rc = ptrace_set_registers(thread->tid, &registers, fault);
	for (;;) {
		struct stop stop;
		if (rc == 0)
			rc = ptrace_resume(thread->tid, PTRACE_CONT, 0, fault);
		if (rc == 0)
			rc = ptrace_wait_stop(thread->tid, UINT64_MAX, &stop, fault);
		if (rc < 0)
			return rc;
		if (stop.kind == STOP_ENDED)
			return fault_set(fault, FAULT_FAILED, ESRCH, "newborn %d was killed from outside (status 0x%x)",
					 thread->tid, stop.status);
		if (stop.kind == STOP_SIGNAL && stop.signal == SIGTRAP)
			return 0;
		if (stop.kind == STOP_SIGNAL)
			return fault_set(fault, FAULT_FAILED, EFAULT, "newborn %d: signal %d while it was made",
					 thread->tid, stop.signal);
		if (stop.kind == STOP_EVENT && stop.event == PTRACE_EVENT_EXEC && runner->executed) {
			*runner->executed = true;
			return -ECANCELED; /* the area is gone: nothing can be fetched */
		}
		unsigned long birth;
		if (stop.kind == STOP_EVENT && runner->births &&
		    ptrace(PTRACE_GETEVENTMSG, thread->tid, NULL, &birth) == 0)
			*vec_add(&runner->births->pids) = (pid_t)birth;
	}
}

int newborn_run(struct newborn_thread *thread, struct batch *batch, struct fault *fault)
{
	struct newborn_runner runner = { thread, NULL, NULL };
	int rc = batch_run(batch, thread->tid, run_piece, &runner, fault);
	return rc < 0 ? fault_at(fault, rc, "process %d", thread->process->pid) : 0;
}

int newborn_run_births(struct newborn_thread *thread, struct batch *batch, struct pid_list *births,
		       struct fault *fault)
{
	struct newborn_runner runner = { thread, births, NULL };
	int rc = batch_run(batch, thread->tid, run_piece, &runner, fault);
	return rc < 0 ? fault_at(fault, rc, "process %d", thread->process->pid) : 0;
}

int newborn_run_exec(struct newborn_thread *thread, struct batch *batch, bool *ret_executed, struct fault *fault)
{
	bool executed = false;
	struct newborn_runner runner = { thread, NULL, &executed };
	int rc = batch_run(batch, thread->tid, run_piece, &runner, fault);
	*ret_executed = executed;
	return rc < 0 && !executed ? fault_at(fault, rc, "process %d", thread->process->pid) : 0;
}

int newborn_arrive(struct newborn_thread *thread, struct fault *fault)
{
	struct stop stop;
	int rc = ptrace_wait_stop(thread->tid, UINT64_MAX, &stop, fault);
	if (rc == 0 && stop.kind == STOP_ENDED)
		rc = fault_set(fault, FAULT_FAILED, ESRCH, "newborn %d was killed from outside", thread->tid);
	return rc < 0 ? rc : ptrace_get_registers(thread->tid, &thread->birth, fault);
}
