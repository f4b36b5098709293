/* SPDX-License-Identifier: Apache-2.0 */
/* A newborn's address space: the files it needs are lent to it, then every mapping is made where it was. One that several processes share is made by
 * the first of them. */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "rebuild/heritage.h"
#include "rebuild/mapped.h"
#include "rebuild/template.h"

static void add_loan(struct rebuild_process *process, uint32_t object)
{
	struct newborn_process *table = process->newborn.table;
	if (newborn_loan(&process->newborn, object) >= 0)
		return;
	struct newborn_loan *loan = vec_add(&table->loans);
	*loan = (struct newborn_loan){ object, (int)table->loans.count - 1 };
}

static void collect_needs(struct rebuild_process *process)
{
	const struct plan_space *space = process->plan->space;
	if (process->mapped.runs.count)
		add_loan(process, MAPPED_OBJECT);
	for (size_t i = 0; i < space->records.count; i++) {
		const struct plan_record *record = &space->records.at[i];
		uint32_t object = record->kind->needs ? record->kind->needs(record->message) : 0;
		if (object)
			add_loan(process, object);
	}
}

/* @first: what lies in the table already, for another space, is not lent again. */
static int lend(struct rebuild *rebuild, struct rebuild_process *process, size_t first, struct fault *fault)
{
	const struct newborn_process *table = process->newborn.table;
	size_t count = table->loans.count - first;
	_free_ int *fds = memory_new(count * sizeof *fds);
	for (size_t i = 0; i < count; i++) {
		uint32_t object = table->loans.at[first + i].object;
		fds[i] = object == MAPPED_OBJECT ? image_reader_fd(rebuild->reader) : workshop_fd(&rebuild->workshop, object);
	}
	return descriptors_send(rebuild, process, fds, count, fault);
}

int space_map(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	const struct plan_space *space = process->plan->space;
	struct newborn_thread *leader = &process->threads.at[0]->newborn;
	struct batch batch;
	if (space->owner != process->plan)
		return 0;
	size_t before = process->newborn.table->loans.count;
	collect_needs(process);
	int rc = lend(rebuild, process, before, fault);
	if (rc < 0 || (process->is_loaded && !process->template))
		return rc;
	if (rc == 0)
		rc = exec_own_program(rebuild, process, fault);
	newborn_batch(&process->newborn, &batch);
	for (size_t i = 0; rc == 0 && !process->is_loaded && i < space->records.count; i++) {
		const struct plan_record *record = &space->records.at[i];
		if (placement_is_wanted(record))
			continue;
		if (record->kind->rebuild && !template_move(process, record, &batch, &rc, fault))
			rc = heritage_map(process, record, &batch, fault);
		if (rc == 0)
			rc = mapped_map(process, record, &batch, fault);
	}
	if (!process->is_loaded)
		mapped_mark(rebuild, process, &batch);
	/* Those that it bears have theirs from it. */
	if (process->is_loaded || !process->bears_heirs)
		template_leave(process, &batch);
	if (rc == 0)
		return newborn_launch(leader, &batch, fault);
	batch_finish(&batch);
	return rc;
}

int space_settle(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	const struct plan_space *space = process->plan->space;
	struct newborn_thread *leader = &process->threads.at[0]->newborn;
	struct batch batch;
	if (space->owner != process->plan)
		return 0;
	newborn_batch(&process->newborn, &batch);
	int rc = placement_map(rebuild, process, &batch, fault);
	for (size_t i = 0; rc == 0 && i < space->records.count; i++) {
		const struct plan_record *record = &space->records.at[i];
		if (record->kind->connect)
			rc = record->kind->connect(leader, -1, record->message, &batch, fault);
	}
	if (rc == 0)
		return newborn_launch(leader, &batch, fault);
	batch_finish(&batch);
	return rc;
}

int space_return(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	struct batch batch;
	if (process->newborn.table != &process->newborn)
		return 0;
	newborn_batch(&process->newborn, &batch);
	batch_call(&batch, close_range, 0, (uint64_t)rebuild->inbox_number - 1, 0);
	vec_finish(&process->newborn.loans);
	return newborn_launch(newborn_leader(process), &batch, fault);
}
