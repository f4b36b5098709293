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

static int set_out(const struct newborn_thread *thread, uint64_t first, uint64_t end, struct fault *fault)
{
	struct registers registers = thread->birth;
	registers_enter(&registers, thread->process->code + (uint64_t)(stub_batch - stub_begin));
	registers_batch(&registers, first, end, newborn_trap(thread->process), 0);
	int rc = ptrace_set_registers(thread->tid, &registers, fault);
	return rc < 0 ? rc : ptrace_resume(thread->tid, PTRACE_CONT, 0, fault);
}

static int come_back(const struct newborn_runner *runner, struct fault *fault)
{
	const struct newborn_thread *thread = runner->thread;
	for (;;) {
		struct stop stop;
		int rc = ptrace_wait_stop(thread->tid, UINT64_MAX, &stop, fault);
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
		rc = ptrace_resume(thread->tid, PTRACE_CONT, 0, fault);
		if (rc < 0)
			return rc;
	}
}

static int run_piece(void *context, uint64_t first, uint64_t end, struct fault *fault)
{
	const struct newborn_runner *runner = context;
	int rc = set_out(runner->thread, first, end, fault);
	return rc < 0 ? rc : come_back(runner, fault);
}

static int run_batch(struct newborn_runner *runner, struct batch *batch, struct fault *fault)
{
	int rc = newborn_land(runner->thread->process->workshop, fault);
	if (rc < 0)
		return rc;
	rc = batch_run(batch, runner->thread->tid, run_piece, runner, fault);
	return rc < 0 && !(runner->executed && *runner->executed) ? fault_at(fault, rc, "process %d", runner->thread->process->pid) : 0;
}

int newborn_run(struct newborn_thread *thread, struct batch *batch, struct fault *fault)
{
	struct newborn_runner runner = { thread, NULL, NULL };
	return run_batch(&runner, batch, fault);
}

int newborn_run_births(struct newborn_thread *thread, struct batch *batch, struct pid_list *births,
		       struct fault *fault)
{
	struct newborn_runner runner = { thread, births, NULL };
	return run_batch(&runner, batch, fault);
}

int newborn_run_exec(struct newborn_thread *thread, struct batch *batch, bool *ret_executed, struct fault *fault)
{
	struct newborn_runner runner = { thread, NULL, ret_executed };
	*ret_executed = false;
	return run_batch(&runner, batch, fault);
}

int newborn_launch(struct newborn_thread *thread, struct batch *batch, struct fault *fault)
{
	struct newborn_flight *flight = &thread->process->workshop->flight;
	uint64_t end;
	int rc = newborn_land(thread->process->workshop, fault);
	if (rc < 0 || batch_trips(batch) != 1) {
		rc = rc < 0 ? rc : newborn_run(thread, batch, fault);
		batch_finish(batch);
		return rc;
	}
	*flight = (struct newborn_flight){ thread, *batch };
	rc = batch_send(&flight->batch, thread->tid, &end, fault);
	if (rc == 0)
		rc = set_out(thread, flight->batch.area, end, fault);
	if (rc < 0) {
		flight->thread = NULL;
		batch_finish(&flight->batch);
		fault_at(fault, rc, "process %d", thread->process->pid);
	}
	return rc;
}

int newborn_land(struct workshop *workshop, struct fault *fault)
{
	struct newborn_flight *flight = &workshop->flight;
	struct newborn_thread *thread = flight->thread;
	if (!thread)
		return 0;
	flight->thread = NULL;
	int rc = come_back(&(struct newborn_runner){ thread, NULL, NULL }, fault);
	if (rc == 0)
		rc = batch_fetch(&flight->batch, thread->tid, fault);
	batch_finish(&flight->batch);
	return rc < 0 ? fault_at(fault, rc, "process %d", thread->process->pid) : 0;
}

int newborn_arrive(struct newborn_thread *thread, struct fault *fault)
{
	struct stop stop;
	int rc = ptrace_wait_stop(thread->tid, UINT64_MAX, &stop, fault);
	if (rc == 0 && stop.kind == STOP_ENDED)
		rc = fault_set(fault, FAULT_FAILED, ESRCH, "newborn %d was killed from outside", thread->tid);
	return rc < 0 ? rc : ptrace_get_registers(thread->tid, &thread->birth, fault);
}
