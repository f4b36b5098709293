/* SPDX-License-Identifier: Apache-2.0 */
/* A program that uses libcairn from inside (cairn.h): the word it has left on its bulletin (base/bulletin.h).
 *
 * While a thread is in a critical section (cairn_hold) there is no checkpoint: a state that passes. Exact, because it is looked at when all
 * threads stand still. The page itself is memory like any other; at a restore it gets the next generation and a random id of its own, before
 * anything runs, and the threads that wait for word are woken: two copies of one image differ in that id. */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "kernel/bulletin.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	struct bulletin bulletin;
	uint64_t address = process->space ? bulletin_in(&process->space->maps) : 0;
	(void)harvest;
	if (!address || bulletin_read(process->view, address, &bulletin) < 0 || !bulletin.holds)
		return 0;
	return fault_set_transient(fault, FAULT_TIMEOUT, EBUSY,
				   "holds checkpoints off (cairn_hold, %u times); try again later, or a longer --timeout", bulletin.holds);
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_process *process = thread->process;
	struct bulletin bulletin;
	uint64_t address = bulletin_in(&process->space->maps);
	(void)batch, (void)note, (void)fault;
	if (!address || bulletin_read(process->view, address, &bulletin) < 0)
		return 0;
	Cairn__Bulletin *message = HARVEST_MESSAGE(harvest, Cairn__Bulletin, cairn__bulletin__init);
	message->pid = (uint32_t)process->pid;
	message->address = address;
	message->generation = bulletin.generation;
	message->helper = bulletin.helper > 0 ? (uint32_t)bulletin.helper : 0;
	message->waiter = bulletin.waiter > 0 ? (uint32_t)bulletin.waiter : 0;
	harvest_add(harvest, &kind_bulletin, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Bulletin *message = (const Cairn__Bulletin *)base;
	if (!message->address || message->address % BULLETIN_SIZE || message->generation == UINT32_MAX ||
	    message->address > UINT64_MAX - BULLETIN_SIZE || message->helper > INT32_MAX || message->waiter > INT32_MAX)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: impossible bulletin", message->pid);
	return 0;
}

/* Its memory is there, nothing runs, and every signal is blocked: a thread in its wait finds the signal when it runs. */
static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Bulletin *message = (const Cairn__Bulletin *)base;
	const uint32_t generation = message->generation + 1;
	const struct workshop *workshop = thread->process->workshop;
	const pid_t pid = thread->process->pid;
	const int32_t helper = workshop_task(workshop, message->helper), waiter = workshop_task(workshop, message->waiter);
	int rc = memory_write(thread->tid, message->address + offsetof(struct bulletin, generation), &generation, sizeof generation,
			      fault);
	if (rc == 0 && workshop->renumber)
		rc = memory_write(thread->tid, message->address + offsetof(struct bulletin, helper), (int32_t[]){ helper, waiter },
				  2 * sizeof helper, fault);
	if (rc < 0)
		return rc;
	batch_call(batch, getrandom, message->address + offsetof(struct bulletin, restore_id),
		   sizeof((struct bulletin *)0)->restore_id, 0);
	if (message->helper)
		batch_try(batch, tgkill, (uint64_t)pid, (uint64_t)helper, SIGURG);
	if (message->waiter)
		batch_try(batch, tgkill, (uint64_t)pid, (uint64_t)waiter, SIGURG);
	return 0;
}

const struct kind kind_bulletin = {
	.name = "bulletin",
	.tag = 29,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__bulletin__descriptor,
	.owner_field = "pid",
	.refuse = refuse,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
