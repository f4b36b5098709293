/* SPDX-License-Identifier: Apache-2.0 */
/* The vdso of an image and the one here. Programs find its functions when they start, so that the old one's have to stay where they are. Where this
 * kernel's is another, its code lies elsewhere, and that of the old one, from the image, is memory of the program's own in which each
 * function is a jump to the new one (kernel/vdso.h). A thread in the middle of the old code cannot go on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "kernel/host.h"
#include "kernel/vdso.h"
#include "rebuild/plan.h"
#include "tracee/arch.h"

/* Room for both, where newborns have it. */
static bool is_possible(const Cairn__ImageInfo *info, const struct host_vdso *here)
{
	const ProtobufCBinaryData *code = &info->vdso_code;
	return code->len && code->len == info->vdso_size && code->len <= VDSO_MOST && code->len % IMAGE_PAGE == 0 && here->code &&
	       here->size <= VDSO_MOST && here->data_size <= VDSO_MOST && XXH3_64bits(code->data, code->len) == info->vdso_hash;
}

bool plan_redirect_vdso(const struct plan *plan, uint64_t place, uint8_t **ret_code, char *why, size_t why_size)
{
	struct host_vdso here;
	const ProtobufCBinaryData *old = &plan->info->vdso_code;
	host_vdso_read(&here);
	*ret_code = NULL;
	if (!plan->info->vdso_hash || plan->info->vdso_hash == here.hash)
		return true;
	if (!is_possible(plan->info, &here)) {
		snprintf(why, why_size, "the image does not hold the old one");
		return false;
	}
	uint8_t *code = memory_new(old->len);
	memcpy(code, old->data, old->len);
	bool good = vdso_redirect(code, old->len, here.code, here.size, place + here.data_size, why, why_size);
	if (good)
		*ret_code = code;
	else
		free(code);
	return good;
}

static const Cairn__AddressSpace *whole_of(const struct plan_space *space)
{
	for (size_t i = 0; space && i < space->records.count; i++)
		if (space->records.at[i].message->descriptor == &cairn__address_space__descriptor)
			return (const Cairn__AddressSpace *)space->records.at[i].message;
	return NULL;
}

/* The thread of @process that is in the old code, NULL: none. */
static const Cairn__Thread *inside(const struct plan *plan, const struct plan_process *process)
{
	const Cairn__AddressSpace *whole = whole_of(process->space);
	for (size_t i = 0; whole && whole->vdso && i < process->threads.count; i++) {
		const Cairn__Thread *thread = process->threads.at[i]->thread;
		struct registers registers = { 0 };
		if (thread->registers.len == sizeof registers.raw) {
			memcpy(&registers.raw, thread->registers.data, sizeof registers.raw);
			if (registers_ip(&registers) - whole->vdso < plan->info->vdso_size)
				return thread;
		}
	}
	return NULL;
}

void plan_check_vdso(const struct plan *plan, struct fault_list *refusals)
{
	struct fault fault;
	char why[128] = "";
	uint8_t *code;
	if (!plan_redirect_vdso(plan, 0, &code, why, sizeof why)) {
		fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP,
			  "was made under kernel %s, whose vdso differs from the one here, and %s; try a host with that kernel",
			  plan->info->kernel_release, why);
		fault_list_add(refusals, &fault);
		return;
	}
	for (size_t i = 0; code && i < plan->processes.count; i++) {
		const Cairn__Thread *thread = inside(plan, plan->processes.at[i]);
		if (!thread)
			continue;
		fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP,
			  "thread %u (%s): was in the middle of the vdso of kernel %s, which differs from the one here; try another checkpoint, or a host "
			  "with that kernel", thread->tid, thread->command, plan->info->kernel_release);
		fault_list_add(refusals, &fault);
	}
	free(code);
}
