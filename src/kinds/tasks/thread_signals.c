/* SPDX-License-Identifier: Apache-2.0 */
/* A thread's signals: mask (PTRACE_GETSIGMASK), alternate stack (sigaltstack by the thread), and its own queue. The mask is
 * put back by rebuild/finish.c: until then everything is blocked. A thread that stands on its alternate stack keeps
 * SS_ONSTACK only as what the stack pointer says, so the flag is not passed back (sigaltstack(2)). */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "kinds/tasks/siginfo.h"
#include "tasks.pb-c.h"

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct batch_place *place = ARENA_NEW(&harvest->arena, struct batch_place);
	(void)thread, (void)fault;
	*place = batch_room(batch, sizeof(stack_t));
	batch_call(batch, sigaltstack, 0, place->address);
	*ret_note = place;
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	Cairn__ThreadSignals *message = HARVEST_MESSAGE(harvest, Cairn__ThreadSignals, cairn__thread_signals__init);
	stack_t stack;
	memcpy(&stack, batch_bytes(batch, *(struct batch_place *)note), sizeof stack);
	message->tid = (uint32_t)thread->tid;
	message->blocked = thread->guest.blocked;
	message->altstack_address = (uint64_t)(uintptr_t)stack.ss_sp;
	message->altstack_size = stack.ss_size;
	message->altstack_flags = (uint32_t)stack.ss_flags;
	int rc = siginfo_capture(harvest, thread->tid, false, &message->pending, &message->n_pending, fault);
	if (rc == 0)
		harvest_add(harvest, &kind_thread_signals, &message->base);
	return rc;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ThreadSignals *message = (const Cairn__ThreadSignals *)base;
	return siginfo_check(message->pending, message->n_pending, fault);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__ThreadSignals *message = (const Cairn__ThreadSignals *)base;
	(void)fault;
	/* None, too, has to be said: a newborn has that of the thread that bore it, which may be one of a program that uses libcairn. */
	const bool none = message->altstack_flags & SS_DISABLE;
	const stack_t stack = {
		.ss_sp = none ? NULL : (void *)(uintptr_t)message->altstack_address,
		.ss_flags = none ? SS_DISABLE : (int)(message->altstack_flags & ~(uint32_t)SS_ONSTACK),
		.ss_size = none ? 0 : message->altstack_size,
	};
	struct batch_place alternate = batch_data(batch, &stack, sizeof stack);
	batch_call(batch, sigaltstack, alternate.address, 0);
	for (size_t i = 0; i < message->n_pending; i++) {
		if (siginfo_is_late(&message->pending[i]))
			continue;
		batch_group(batch, 1, 256);
		const siginfo_t info = siginfo_here(thread->process->workshop, &message->pending[i]);
		struct batch_place place = batch_data(batch, &info, sizeof info);
		batch_call(batch, rt_tgsigqueueinfo, (uint64_t)thread->process->pid, (uint64_t)thread->tid,
			   (uint64_t)siginfo_signal(&message->pending[i]), place.address);
	}
	return 0;
}

static int last(struct newborn_thread *thread, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ThreadSignals *message = (const Cairn__ThreadSignals *)base;
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < message->n_pending; i++) {
		const siginfo_t info = siginfo_here(thread->process->workshop, &message->pending[i]);
		if (siginfo_is_late(&message->pending[i]))
			rc = newborn_call(thread, "rt_tgsigqueueinfo", __NR_rt_tgsigqueueinfo,
					  BATCH_ARGS((uint64_t)thread->process->pid, (uint64_t)thread->tid, (uint64_t)info.si_signo, thread->process->area),
					  &info, sizeof info, fault);
	}
	return rc;
}

const struct kind kind_thread_signals = {
	.name = "thread signals",
	.tag = 13,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__thread_signals__descriptor,
	.owner_field = "tid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
	.last = last,
};
