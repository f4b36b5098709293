/* SPDX-License-Identifier: Apache-2.0 */
/* Resource limits: /proc/PID/limits, because prlimit(2) on another user's process needs CAP_SYS_RESOURCE, and reading the file
 * does not. A hard limit above Cairn's own cannot be given without that capability: the highest possible is, with a warning. */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

enum { LIMITS = 16 };

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	Cairn__Limits *message = HARVEST_MESSAGE(harvest, Cairn__Limits, cairn__limits__init);
	struct text text = { 0 };
	struct proc_limits limits;
	(void)batch, (void)note;
	int rc = proc_read(thread->process->view, "limits", &text, fault);
	if (rc == 0)
		rc = proc_limits_parse(text.at, &limits, fault);
	text_finish(&text);
	if (rc < 0)
		return rc;
	message->pid = (uint32_t)thread->process->pid;
	message->limits = ARENA_ARRAY(&harvest->arena, Cairn__Limits__Limit *, LIMITS);
	message->n_limits = LIMITS;
	for (int i = 0; i < LIMITS; i++) {
		message->limits[i] = HARVEST_MESSAGE(harvest, Cairn__Limits__Limit, cairn__limits__limit__init);
		message->limits[i]->soft = limits.soft[i];
		message->limits[i]->hard = limits.hard[i];
	}
	harvest_add(harvest, &kind_limits, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Limits *message = (const Cairn__Limits *)base;
	return message->n_limits > LIMITS ? fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: %zu limits", message->pid,
						      message->n_limits) : 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Limits *message = (const Cairn__Limits *)base;
	(void)thread, (void)fault;
	for (size_t i = 0; i < message->n_limits; i++) {
		struct rlimit own, want = { message->limits[i]->soft, message->limits[i]->hard };
		if (getrlimit((__rlimit_resource_t)i, &own) < 0)
			continue;
		if (own.rlim_cur == want.rlim_cur && own.rlim_max == want.rlim_max)
			continue;
		if (want.rlim_max > own.rlim_max && setrlimit((__rlimit_resource_t)i, &(struct rlimit){ own.rlim_cur, want.rlim_max }) < 0) {
			if (want.rlim_cur > own.rlim_max)
				log_warn("process %u: limit %zu of %llu is above the one here, %llu, and raising it needs "
					 "CAP_SYS_RESOURCE; continuing without it", message->pid, i,
					 (unsigned long long)want.rlim_cur, (unsigned long long)own.rlim_max);
			want.rlim_max = own.rlim_max;
			want.rlim_cur = want.rlim_cur < own.rlim_max ? want.rlim_cur : own.rlim_max;
		}
		struct batch_place place = batch_data(batch, &want, sizeof want);
		batch_call(batch, prlimit64, 0, i, place.address, 0);
	}
	return 0;
}

const struct kind kind_limits = {
	.name = "limits",
	.tag = 18,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__limits__descriptor,
	.owner_field = "pid",
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
