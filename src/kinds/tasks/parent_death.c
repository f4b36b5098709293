/* SPDX-License-Identifier: Apache-2.0 */
/* The signal that a thread gets when its parent ends (PR_GET_PDEATHSIG by the thread). A record of its own because it must be set
 * after the credentials, which reset it (prctl(2)). */
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct batch_place *place = ARENA_NEW(&harvest->arena, struct batch_place);
	(void)thread, (void)fault;
	*place = batch_room(batch, sizeof(int));
	batch_call(batch, prctl, PR_GET_PDEATHSIG, place->address);
	*ret_note = place;
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	int signal;
	(void)fault;
	memcpy(&signal, batch_bytes(batch, *(struct batch_place *)note), sizeof signal);
	if (!signal)
		return 0;
	Cairn__ParentDeath *message = HARVEST_MESSAGE(harvest, Cairn__ParentDeath, cairn__parent_death__init);
	message->tid = (uint32_t)thread->tid;
	message->signal = (uint32_t)signal;
	harvest_add(harvest, &kind_parent_death, &message->base);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__ParentDeath *message = (const Cairn__ParentDeath *)base;
	(void)thread, (void)fault;
	batch_call(batch, prctl, PR_SET_PDEATHSIG, message->signal);
	return 0;
}

const struct kind kind_parent_death = {
	.name = "parent-death signal",
	.tag = 17,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__parent_death__descriptor,
	.owner_field = "tid",
	.ask = ask,
	.capture = capture,
	.rebuild = rebuild,
};
