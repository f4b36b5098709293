/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses that the kernel keeps for a thread: clear_child_tid (PR_GET_TID_ADDRESS by the thread), the robust futex list
 * (get_robust_list(2) from outside) and rseq (PTRACE_GET_RSEQ_CONFIGURATION). rseq is registered again by the thread itself
 * (RSEQ_FLAG of register: 0) after everything else, because the kernel writes into its area from then on. */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct batch_place *place = ARENA_NEW(&harvest->arena, struct batch_place);
	(void)thread, (void)fault;
	*place = batch_room(batch, sizeof(uint64_t));
	batch_call(batch, prctl, PR_GET_TID_ADDRESS, place->address);
	*ret_note = place;
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	Cairn__ThreadPointers *message = HARVEST_MESSAGE(harvest, Cairn__ThreadPointers,
							 cairn__thread_pointers__init);
	struct robust_list_head *robust = NULL;
	size_t robust_size = 0;
	if (syscall(SYS_get_robust_list, thread->tid, &robust, &robust_size) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "thread %d: get_robust_list: %s", thread->tid,
				 strerror(errno));
	message->tid = (uint32_t)thread->tid;
	memcpy(&message->clear_child_tid, batch_bytes(batch, *(struct batch_place *)note), sizeof(uint64_t));
	message->robust_list = (uint64_t)(uintptr_t)robust;
	message->robust_list_size = robust_size;
	message->rseq = thread->rseq.address;
	message->rseq_size = thread->rseq.size;
	message->rseq_signature = thread->rseq.signature;
	message->rseq_flags = thread->rseq.flags;
	harvest_add(harvest, &kind_thread_pointers, &message->base);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__ThreadPointers *message = (const Cairn__ThreadPointers *)base;
	(void)thread, (void)fault;
	batch_call(batch, set_tid_address, message->clear_child_tid);
	if (message->robust_list)
		batch_call(batch, set_robust_list, message->robust_list, message->robust_list_size);
	if (message->rseq)
		batch_call(batch, rseq, message->rseq, message->rseq_size, message->rseq_flags,
			   message->rseq_signature);
	return 0;
}

const struct kind kind_thread_pointers = {
	.name = "thread pointers",
	.tag = 14,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__thread_pointers__descriptor,
	.owner_field = "tid",
	.ask = ask,
	.capture = capture,
	.rebuild = rebuild,
};
