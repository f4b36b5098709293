/* SPDX-License-Identifier: Apache-2.0 */
/* A process's signals: actions (rt_sigaction by the process itself, only of those that /proc/PID/status calls caught or
 * ignored, and SIGCHLD, whose flags matter even by default), and its shared queue (PTRACE_PEEKSIGINFO, which looks without
 * taking). Queued again by the process itself: only to itself may it forge a siginfo (kernel/signal.c do_rt_sigqueueinfo). */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "kinds/tasks/siginfo.h"
#include "tasks.pb-c.h"

enum { SIGNALS = 64 };

/* struct kernel_sigaction of arch/x86/include/uapi/asm/signal.h */
struct kernel_action {
	uint64_t handler, flags, restorer, mask;
};

struct note {
	size_t calls[SIGNALS + 1];
	struct batch_place places[SIGNALS + 1];
	bool asked[SIGNALS + 1];
};

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct note *note = ARENA_NEW(&harvest->arena, struct note);
	uint64_t wanted = thread->status.caught | thread->status.ignored | (UINT64_C(1) << (SIGCHLD - 1));
	(void)fault;
	batch_group(batch, SIGNALS, SIGNALS * 64);
	for (int signal = 1; signal <= SIGNALS; signal++) {
		if (!(wanted >> (signal - 1) & 1) || signal == SIGKILL || signal == SIGSTOP)
			continue;
		note->asked[signal] = true;
		note->places[signal] = batch_room(batch, sizeof(struct kernel_action));
		note->calls[signal] = batch_call(batch, rt_sigaction, (uint64_t)signal, 0,
						 note->places[signal].address, sizeof(uint64_t));
	}
	*ret_note = note;
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_,
		   struct fault *fault)
{
	const struct note *note = note_;
	Cairn__ProcessSignals *message = HARVEST_MESSAGE(harvest, Cairn__ProcessSignals,
							 cairn__process_signals__init);
	message->pid = (uint32_t)thread->process->pid;
	message->elsewhere = !frozen_owns(thread->process, SHARE_SIGHAND);
	message->actions = ARENA_ARRAY(&harvest->arena, Cairn__ProcessSignals__Action *, SIGNALS);
	for (int signal = 1; signal <= SIGNALS; signal++) {
		struct kernel_action action;
		if (!note->asked[signal] || message->elsewhere)
			continue;
		memcpy(&action, batch_bytes(batch, note->places[signal]), sizeof action);
		if (!action.handler && !action.flags)
			continue;
		Cairn__ProcessSignals__Action *one = HARVEST_MESSAGE(harvest, Cairn__ProcessSignals__Action,
								     cairn__process_signals__action__init);
		one->signal = (uint32_t)signal;
		one->handler = action.handler;
		one->flags = action.flags;
		one->restorer = action.restorer;
		one->mask = action.mask;
		message->actions[message->n_actions++] = one;
	}
	int rc = siginfo_capture(harvest, thread->tid, true, &message->pending, &message->n_pending, fault);
	if (rc == 0)
		harvest_add(harvest, &kind_signals, &message->base);
	return rc;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ProcessSignals *message = (const Cairn__ProcessSignals *)base;
	for (size_t i = 0; i < message->n_actions; i++)
		if (!message->actions[i]->signal || message->actions[i]->signal > SIGNALS)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: signal number %u is impossible",
					 message->pid, message->actions[i]->signal);
	return siginfo_check(message->pending, message->n_pending, fault);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__ProcessSignals *message = (const Cairn__ProcessSignals *)base;
	(void)fault;
	/* What Cairn's own actions left: handlers become defaults at the end of this list's first loop. */
	for (int signal = 1; signal <= SIGNALS && !message->elsewhere; signal++) {
		struct kernel_action action = { 0 };
		for (size_t i = 0; i < message->n_actions; i++) {
			const Cairn__ProcessSignals__Action *one = message->actions[i];
			if (one->signal == (uint32_t)signal)
				action = (struct kernel_action){ one->handler, one->flags, one->restorer, one->mask };
		}
		if (signal == SIGKILL || signal == SIGSTOP)
			continue;
		if (!action.handler && !action.flags && !workshop_inherits_action(thread->process->workshop, signal))
			continue;
		batch_group(batch, 1, 64);
		struct batch_place place = batch_data(batch, &action, sizeof action);
		batch_call(batch, rt_sigaction, (uint64_t)signal, place.address, 0, sizeof(uint64_t));
	}
	for (size_t i = 0; i < message->n_pending; i++) {
		if (siginfo_is_late(&message->pending[i]))
			continue;
		batch_group(batch, 1, 256);
		const siginfo_t info = siginfo_here(thread->process->workshop, &message->pending[i]);
		struct batch_place place = batch_data(batch, &info, sizeof info);
		batch_call(batch, rt_sigqueueinfo, (uint64_t)thread->process->pid,
			   (uint64_t)siginfo_signal(&message->pending[i]), place.address);
	}
	return 0;
}

/* The end of a batch is a trap, and one that is ignored becomes the default again (kernel/signal.c force_sig_info_to_task): only when no batch
 * follows, SIGTRAP can be ignored. */
static int ignore_trap(struct newborn_thread *thread, const Cairn__ProcessSignals *message, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < message->n_actions; i++) {
		const Cairn__ProcessSignals__Action *one = message->actions[i];
		const struct kernel_action action = { one->handler, one->flags, one->restorer, one->mask };
		if (one->signal == SIGTRAP && one->handler == (uintptr_t)SIG_IGN)
			rc = newborn_call(thread, "rt_sigaction", __NR_rt_sigaction, BATCH_ARGS(SIGTRAP, thread->process->area, 0, sizeof(uint64_t)),
					  &action, sizeof action, fault);
	}
	return rc;
}

static int last(struct newborn_thread *thread, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ProcessSignals *message = (const Cairn__ProcessSignals *)base;
	const pid_t pid = thread->process->pid;
	int rc = ignore_trap(thread, message, fault);
	for (size_t i = 0; rc == 0 && i < message->n_pending; i++) {
		const siginfo_t info = siginfo_here(thread->process->workshop, &message->pending[i]);
		if (!siginfo_is_late(&message->pending[i]))
			continue;
		/* Only the first thread may queue others' signals for the process. Where it has ended, the thread that speaks for it gets them. */
		if (thread->tid == pid)
			rc = newborn_call(thread, "rt_sigqueueinfo", __NR_rt_sigqueueinfo,
					  BATCH_ARGS((uint64_t)pid, (uint64_t)info.si_signo, thread->process->area), &info, sizeof info, fault);
		else
			rc = newborn_call(thread, "rt_tgsigqueueinfo", __NR_rt_tgsigqueueinfo,
					  BATCH_ARGS((uint64_t)pid, (uint64_t)thread->tid, (uint64_t)info.si_signo, thread->process->area), &info,
					  sizeof info, fault);
	}
	return rc;
}

const struct kind kind_signals = {
	.name = "signals",
	.tag = 12,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__process_signals__descriptor,
	.owner_field = "pid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
	.last = last,
};
