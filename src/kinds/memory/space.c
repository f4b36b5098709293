/* SPDX-License-Identifier: Apache-2.0 */
/* An address space as a whole: the kernel's bookkeeping of code, data, heap, stack, arguments and environment (/proc/PID/stat;
 * brk by the process), the auxiliary vector, the executable, and the vdso. Put back by PR_SET_MM_MAP, which needs
 * CAP_CHECKPOINT_RESTORE, not CAP_SYS_RESOURCE (kernel/sys.c prctl_set_mm_map), and ARCH_MAP_VDSO_64, which takes any address
 * while no vdso is mapped. Where this kernel's differs from the image's, it is mapped elsewhere, and the old one's functions, which programs found when they
 * started, lead into it (rebuild/plan_vdso.c). */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

/* Looked at before anything is touched: what a stop makes of calls of a 32-bit program is not known here. Its stack ends below 4 GiB; that of
 * others at the top of 128 TiB. */
static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	const uint64_t stack = process->stat.start_stack;
	(void)harvest;
	return stack && stack >> 32 == 0 ? fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "is a 32-bit program, which this version cannot carry; try a 64-bit build of "
						     "it") : 0;
}

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	size_t *note = ARENA_NEW(&harvest->arena, size_t);
	(void)thread, (void)fault;
	*note = batch_call(batch, brk, 0);
	*ret_note = note;
	return 0;
}

static void find_vdso(const struct frozen_space *space, Cairn__AddressSpace *message)
{
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (!strcmp(map->name, "[vdso]"))
			message->vdso = map->start;
		if (!strncmp(map->name, "[vvar", 5) && (!message->vvar || map->start < message->vvar))
			message->vvar = map->start;
	}
}

static uint32_t executable_of(const struct frozen_process *process)
{
	const struct frozen_space *space = process->space;
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const char *name = space->maps.maps.at[i].name;
		size_t length = strlen(name);
		if (!space->objects[i] || strncmp(name, process->executable, length))
			continue;
		if (!process->executable[length] || !strcmp(process->executable + length, " (deleted)"))
			return space->objects[i];
	}
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_process *process = thread->process;
	const struct proc_stat *stat = &process->stat;
	Cairn__AddressSpace *message = HARVEST_MESSAGE(harvest, Cairn__AddressSpace, cairn__address_space__init);
	struct text auxv = { 0 };
	int rc = proc_read(process->view, "auxv", &auxv, fault);
	if (rc < 0)
		return rc;
	message->space = process->space->id;
	message->executable = executable_of(process);
	message->start_code = stat->start_code;
	message->end_code = stat->end_code;
	message->start_data = stat->start_data;
	message->end_data = stat->end_data;
	message->start_brk = stat->start_brk;
	message->brk = (uint64_t)batch_result(batch, *(size_t *)note);
	message->start_stack = stat->start_stack;
	message->arg_start = stat->arg_start;
	message->arg_end = stat->arg_end;
	message->env_start = stat->env_start;
	message->env_end = stat->env_end;
	message->auxv.data = arena_copy(&harvest->arena, auxv.at, auxv.size);
	message->auxv.len = auxv.size;
	text_finish(&auxv);
	find_vdso(process->space, message);
	harvest_add(harvest, &kind_space, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__AddressSpace *message = (const Cairn__AddressSpace *)base;
	if (!message->space || message->auxv.len > 4096 || (message->vvar | message->vdso) & 4095)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "address space %u has impossible values", message->space);
	return 0;
}

static uint32_t needs(const ProtobufCMessage *base)
{
	return ((const Cairn__AddressSpace *)base)->executable;
}

/* Text of the program's own: it writes it there itself. */
static void add_redirected(const struct newborn_thread *thread, uint64_t address, struct batch *batch)
{
	const struct workshop *workshop = thread->process->workshop;
	const uint64_t size = workshop->vdso.size;
	batch_group(batch, 8, size + 256);
	struct batch_place code = batch_data(batch, workshop->vdso.code, size);
	struct iovec from = { (void *)(uintptr_t)code.address, size }, to = { (void *)(uintptr_t)address, size };
	struct batch_place from_place = batch_data(batch, &from, sizeof from), to_place = batch_data(batch, &to, sizeof to);
	batch_call(batch, arch_prctl, ARCH_MAP_VDSO_64, workshop->vdso.place);
	batch_call(batch, mmap, address, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, UINT64_MAX, 0);
	batch_call(batch, process_vm_writev, (uint64_t)thread->process->pid, from_place.address, 1, to_place.address, 1, 0);
	batch_call(batch, mprotect, address, size, PROT_READ | PROT_EXEC);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__AddressSpace *message = (const Cairn__AddressSpace *)base;
	(void)fault;
	if (message->vdso && thread->process->workshop->vdso.code)
		add_redirected(thread, message->vdso, batch);
	else if (message->vdso)
		batch_call(batch, arch_prctl, ARCH_MAP_VDSO_64, message->vvar ? message->vvar : message->vdso);
	return 0;
}

static int connect_(struct newborn_thread *thread, int fd, const ProtobufCMessage *base, struct batch *batch,
		    struct fault *fault)
{
	const Cairn__AddressSpace *message = (const Cairn__AddressSpace *)base;
	(void)fd, (void)fault;
	batch_group(batch, 2, 8192);
	struct batch_place auxv = batch_data(batch, message->auxv.data, message->auxv.len);
	struct prctl_mm_map map = {
		.start_code = message->start_code, .end_code = message->end_code,
		.start_data = message->start_data, .end_data = message->end_data,
		.start_brk = message->start_brk, .brk = message->brk,
		.start_stack = message->start_stack,
		.arg_start = message->arg_start, .arg_end = message->arg_end,
		.env_start = message->env_start, .env_end = message->env_end,
		.auxv = (void *)(uintptr_t)auxv.address, .auxv_size = (uint32_t)message->auxv.len,
		.exe_fd = thread->process->workshop->by_exec ? UINT32_MAX :
							       (uint32_t)newborn_loan(thread->process, message->executable),
	};
	struct batch_place place = batch_data(batch, &map, sizeof map);
	batch_call(batch, prctl, PR_SET_MM, PR_SET_MM_MAP, place.address, sizeof map);
	return 0;
}

const struct kind kind_space = {
	.name = "address space",
	.tag = 30,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__address_space__descriptor,
	.owner_field = "space",
	.refuse = refuse,
	.ask = ask,
	.capture = capture,
	.check = check,
	.needs = needs,
	.rebuild = rebuild,
	.connect = connect_,
};
