/* SPDX-License-Identifier: Apache-2.0 */
/* Who may not set /proc/PID/exe (PR_SET_MM_MAP wants CAP_CHECKPOINT_RESTORE for that field) gets it by an exec: the newborn executes its program's
 * file and is stopped before the first instruction; then the new image goes, and the stub is mapped again. With --pids any only. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "base/log.h"
#include "kernel/maps.h"
#include "rebuild/newborn.h"

static int find_instruction(pid_t pid, uint64_t *ret_address, struct fault *fault)
{
	struct arena arena = { 0 };
	struct map_list list = { 0 };
	int rc = maps_read(pid, MAPS_PLACES, &arena, &list, fault);
	if (rc == 0)
		rc = foothold_find_instruction(pid, &list, ret_address, fault);
	maps_finish(&list);
	arena_finish(&arena);
	return rc;
}

/* An instruction in the vdso of a newborn, if that is this kernel's; 0: it is not, or has none. */
static uint64_t instruction_in_vdso(const struct newborn_thread *thread)
{
	const struct rebuild_process *process = rebuild_process_of(thread->process);
	const struct workshop *workshop = thread->process->workshop;
	unsigned char there[REGISTERS_SYSCALL_SIZE];
	uint64_t vdso = 0;
	for (size_t i = 0; i < process->plan->space->records.count; i++)
		if (process->plan->space->records.at[i].message->descriptor == &cairn__address_space__descriptor)
			vdso = ((const Cairn__AddressSpace *)process->plan->space->records.at[i].message)->vdso;
	if (!vdso || workshop->vdso.code || !workshop->vdso.instruction ||
	    memory_read(thread->tid, vdso + workshop->vdso.instruction, there, sizeof there, NULL) < 0)
		return 0;
	return memcmp(there, registers_syscall_instruction, sizeof there) ? 0 : vdso + workshop->vdso.instruction;
}

static int step(pid_t tid, struct fault *fault)
{
	struct stop stop;
	int rc = ptrace_resume(tid, PTRACE_SYSCALL, 0, fault);
	if (rc == 0)
		rc = ptrace_wait_stop(tid, UINT64_MAX, &stop, fault);
	if (rc == 0 && stop.kind != STOP_SYSCALL)
		rc = fault_set(fault, FAULT_FAILED, EIO, "newborn %d: unexpected stop (status 0x%x)", tid, stop.status);
	return rc;
}

int exec_begin(struct newborn_thread *thread, long number, const uint64_t args[6], struct fault *fault)
{
	struct registers registers = thread->birth;
	uint64_t instruction = instruction_in_vdso(thread);
	int rc = instruction ? 0 : find_instruction(thread->tid, &instruction, fault);
	if (rc < 0)
		return rc;
	registers_enter(&registers, instruction);
	registers_call(&registers, (uint64_t)number, args, 0);
	rc = ptrace_set_registers(thread->tid, &registers, fault);
	return rc < 0 ? rc : step(thread->tid, fault);
}

int exec_call(struct newborn_thread *thread, long number, const uint64_t args[6], long *ret_result, struct fault *fault)
{
	struct registers registers;
	int rc = exec_begin(thread, number, args, fault);
	if (rc == 0)
		rc = step(thread->tid, fault);
	if (rc == 0)
		rc = ptrace_get_registers(thread->tid, &registers, fault);
	if (rc == 0)
		*ret_result = registers_result(&registers);
	return rc;
}

/* 1: it stands in the new image, at the end of the exec. 0: the exec failed. */
static int execute(struct rebuild_process *process, int fd, struct fault *fault)
{
	struct newborn_thread *leader = newborn_leader(process);
	const char *name = process->plan->process->command;
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	struct batch_place empty = batch_data(&batch, "", 1);
	struct batch_place word = batch_data(&batch, name, strnlen(name, 63) + 1);
	const uint64_t words[2] = { word.address, 0 };
	struct batch_place argv = batch_data(&batch, words, sizeof words);
	struct batch_place envp = batch_data(&batch, &words[1], sizeof words[1]);
	size_t call = batch_try(&batch, execveat, (uint64_t)fd, empty.address, argv.address, envp.address, AT_EMPTY_PATH);
	bool executed = false;
	int rc = newborn_run_exec(leader, &batch, &executed, fault);
	if (rc == 0 && !executed)
		log_warn("process %d (%s): its executable cannot be executed (%s); continuing without it at /proc/%d/exe", process->newborn.pid,
			 name, strerror((int)-batch_result(&batch, call)), process->newborn.pid);
	batch_finish(&batch);
	if (rc < 0 || !executed)
		return rc;
	rc = step(leader->tid, fault); /* the exec's own end */
	return rc < 0 ? rc : 1;
}

static int map_stub_again(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	struct newborn_thread *leader = newborn_leader(process);
	const size_t size = NEWBORN_CODE_SIZE + BATCH_AREA;
	uint8_t code[NEWBORN_CODE_SIZE] = { 0 };
	long result = 0;
	memcpy(code, stub_begin, (size_t)(stub_end - stub_begin));
	int rc = ptrace_get_registers(leader->tid, &leader->birth, fault);
	if (rc == 0)
		rc = exec_call(leader, __NR_mmap, BATCH_ARGS(rebuild->code, size, PROT_READ | PROT_WRITE | PROT_EXEC,
							     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, UINT64_MAX, 0), &result, fault);
	if (rc == 0 && (uint64_t)result != rebuild->code)
		rc = fault_set(fault, FAULT_FAILED, (int)-result, "process %d: map the stub: %s", process->newborn.pid, strerror((int)-result));
	return rc < 0 ? rc : memory_write(leader->tid, rebuild->code, code, sizeof code, fault);
}

/* Rights come from the image by the credentials, never from a file. The kernel would not give them to a traced process either. */
static bool gives_rights(int fd)
{
	struct stat status;
	return fstat(fd, &status) < 0 || status.st_mode & (S_ISUID | S_ISGID) || fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

int exec_own_program(struct rebuild *rebuild, struct rebuild_process *process, struct fault *fault)
{
	const struct plan_space *space = process->plan->space;
	uint32_t object = 0;
	for (size_t i = 0; i < space->records.count; i++)
		if (space->records.at[i].message->descriptor == &cairn__address_space__descriptor)
			object = ((const Cairn__AddressSpace *)space->records.at[i].message)->executable;
	int fd = object ? newborn_loan(&process->newborn, object) : -1;
	if (!rebuild->workshop.by_exec || fd < 0)
		return 0;
	if (gives_rights(workshop_fd(&rebuild->workshop, object))) {
		log_warn("process %d (%s): its executable has a setuid bit or capabilities, and is not executed; continuing without it at /proc/%d/exe",
			 process->newborn.pid, process->plan->process->command, process->newborn.pid);
		return 0;
	}
	if (space->is_shared) {
		log_warn("process %d (%s): shares its memory, and its executable is not executed; continuing without it at /proc/%d/exe",
			 process->newborn.pid, process->plan->process->command, process->newborn.pid);
		return 0;
	}
	int rc = execute(process, fd, fault);
	if (rc > 0)
		rc = map_stub_again(rebuild, process, fault);
	else
		return rc;
	const uint64_t user_end = UINT64_C(1) << 47, stub_stop = rebuild->area + BATCH_AREA;
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	batch_call(&batch, munmap, 0, rebuild->code);
	batch_call(&batch, munmap, stub_stop, user_end - 4096 - stub_stop);
	if (rc == 0)
		rc = newborn_run(newborn_leader(process), &batch, fault);
	batch_finish(&batch);
	return rc;
}
