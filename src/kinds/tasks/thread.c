/* SPDX-License-Identifier: Apache-2.0 */
/* A thread: its registers, general and vector (PTRACE_GETREGSET NT_PRSTATUS and NT_X86_XSTATE), its name, and the time left of a sleep with a
 * relative timeout (tracee/restart.h). Registers are put back by rebuild/finish.c as the very last thing, because the thread is
 * needed to make calls until then; the name here. A first thread that has ended while others live has only a name and the status with which it
 * ended, which becomes the process's (kernel/exit.c wait_task_zombie). */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	Cairn__Thread *message = HARVEST_MESSAGE(harvest, Cairn__Thread, cairn__thread__init);
	(void)batch, (void)note;
	message->tid = (uint32_t)thread->tid;
	message->pid = (uint32_t)thread->process->pid;
	message->command = arena_string(&harvest->arena, thread->stat.command);
	if (thread->ended) {
		message->ended = true;
		message->exit_status = (uint32_t)WEXITSTATUS(thread->stat.exit_code);
		harvest_add(harvest, &kind_thread, &message->base);
		return 0;
	}
	struct registers *registers = arena_copy(&harvest->arena, &thread->guest.home, sizeof *registers);
	int rc = restart_for_image(&thread->restart, registers, fault);
	if (rc < 0)
		return rc;
	message->registers.data = (uint8_t *)&registers->raw;
	message->registers.len = sizeof registers->raw;
	message->xstate.data = thread->xstate;
	message->xstate.len = thread->xstate_size;
	message->timed = thread->restart.timed;
	message->left_ns = thread->restart.left_ns;
	harvest_add(harvest, &kind_thread, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Thread *message = (const Cairn__Thread *)base;
	struct registers registers;
	if (message->ended)
		return message->tid && message->tid == message->pid && message->exit_status < 256 && !message->registers.len && !message->xstate.len ? 0 :
			fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: cannot have ended", message->tid);
	if (message->registers.len != sizeof registers.raw || message->xstate.len > XSTATE_MAX ||
	    message->xstate.len < 576 || !message->tid)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: impossible register sizes", message->tid);
	memcpy(&registers.raw, message->registers.data, sizeof registers.raw);
	if (!registers_valid(&registers))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: impossible register values", message->tid);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Thread *message = (const Cairn__Thread *)base;
	(void)thread, (void)fault;
	struct batch_place name = batch_data(batch, message->command, strnlen(message->command, 63) + 1);
	batch_call(batch, prctl, PR_SET_NAME, name.address);
	return 0;
}

const struct kind kind_thread = {
	.name = "thread",
	.tag = 11,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__thread__descriptor,
	.owner_field = "tid",
	.of_zombies = true,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
