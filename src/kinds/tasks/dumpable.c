/* SPDX-License-Identifier: Apache-2.0 */
/* The dumpable flag of a process (PR_GET_DUMPABLE by it): set last of all in the leader, because credentials reset it. The value 2 (root
 * only), which only the kernel can set, is put back as 0: neither dumps core for the user. */
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	size_t *note = ARENA_NEW(&harvest->arena, size_t);
	(void)thread, (void)fault;
	*note = batch_call(batch, prctl, PR_GET_DUMPABLE);
	*ret_note = note;
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	Cairn__Dumpable *message = HARVEST_MESSAGE(harvest, Cairn__Dumpable, cairn__dumpable__init);
	(void)fault;
	message->pid = (uint32_t)thread->process->pid;
	message->dumpable = (uint32_t)batch_result(batch, *(size_t *)note);
	harvest_add(harvest, &kind_dumpable, &message->base);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Dumpable *message = (const Cairn__Dumpable *)base;
	(void)thread, (void)fault;
	batch_call(batch, prctl, PR_SET_DUMPABLE, message->dumpable == 1);
	return 0;
}

const struct kind kind_dumpable = {
	.name = "dumpable",
	.tag = 20,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__dumpable__descriptor,
	.owner_field = "pid",
	.ask = ask,
	.capture = capture,
	.rebuild = rebuild,
};
