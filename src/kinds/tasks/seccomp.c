/* SPDX-License-Identifier: Apache-2.0 */
/* A thread's seccomp: strict mode, or filters one on the other, each with its flags (/proc/PID/task/TID/status says how many; programs and flags
 * by PTRACE_SECCOMP_GET_FILTER and GET_METADATA). That takes CAP_SYS_ADMIN in the first user namespace and a Cairn without filters, at a save and at a
 * restore: meanwhile the kernel suspends them for calls that Cairn makes in the thread (capture/freeze.c; a newborn: here).
 *
 * What can be carried without: the filters that a container's runtime has put on all that lives in it, Cairn included. A thread with as many as Cairn
 * has them too, and so have its newborns, from their birth, at a restore by a Cairn that has as many.
 *
 * Put back by the thread itself while it still has Cairn's rights: a program that installed filters by CAP_SYS_ADMIN may not have had no_new_privs.
 * Threads that shared a filter (SECCOMP_FILTER_FLAG_TSYNC) get equal ones. SPEC_ALLOW leaves speculation to its own record (tasks/attributes.c).
 *
 * Not carried: a filter that asks a supervisor (SECCOMP_RET_USER_NOTIF), whose descriptor leads into the old process, or that returns what it
 * has computed, which could be that. Strict mode also forbids reading the time stamp counter (PR_SET_TSC); the kernel does that again. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/host.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int judge_own(const struct proc_status *status, pid_t tid, struct fault *fault)
{
	return host_may_read_filters() ? 0 :
		fault_set(fault, FAULT_PERMISSION, EPERM, "thread %d runs %s, which only a Cairn with CAP_SYS_ADMIN in the first user namespace and "
			  "without filters of its own may suspend and read; try as root, outside of containers, or the program without its sandbox", tid,
			  status->seccomp == SECCOMP_MODE_STRICT ? "in seccomp's strict mode" : "under seccomp filters of its own");
}

static int judge(const struct proc_status *status, uint32_t own, pid_t tid, struct fault *fault)
{
	uint32_t theirs = proc_filters(status);
	if (!own)
		return status->seccomp ? judge_own(status, tid, fault) : 0;
	if (!status->seccomp)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d has no seccomp filter, while this Cairn has: it was "
				 "started in another container, or outside; try Cairn from there", tid);
	return theirs == own ? 0 :
		fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d runs under %u seccomp filters, and this Cairn under %u: only those that a "
			  "container puts on all in it are carried; try to start it without its own (a sandbox option of the program or its "
			  "service), or Cairn outside of the container", tid, theirs, own);
}

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	int rc = judge(&process->status, harvest->own_filters, process->pid, fault);
	for (size_t i = 1; rc == 0 && harvest->frozen && i < process->threads.count; i++) {
		const struct frozen_thread *thread = process->threads.at[i];
		if (thread->status.seccomp != process->status.seccomp || thread->status.seccomp_filters != process->status.seccomp_filters)
			rc = judge(&thread->status, harvest->own_filters, thread->tid, fault);
	}
	return rc;
}

/* May the program end in a question to a supervisor? */
static int refuse_supervisor(pid_t tid, const struct sock_filter *program, uint32_t count, struct fault *fault)
{
	for (uint32_t i = 0; i < count; i++) {
		if (BPF_CLASS(program[i].code) != BPF_RET)
			continue;
		if (BPF_RVAL(program[i].code) == BPF_A)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: a seccomp filter returns what it has computed, which may be to ask a "
					 "supervisor; try the program without its sandbox", tid);
		if ((program[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: a seccomp filter asks a supervisor (SECCOMP_RET_USER_NOTIF), whose "
					 "descriptor cannot be carried; try the program without its supervisor", tid);
	}
	return 0;
}

static int capture_filters(struct harvest *harvest, pid_t tid, Cairn__Seccomp *message, struct fault *fault)
{
	const uint32_t most = 32768 / 5 + 1; /* a path of filters is short: each counts four instructions more (MAX_INSNS_PER_PATH) */
	_free_ struct sock_filter *program = memory_new(PTRACE_FILTER_MOST * sizeof *program);
	Cairn__Seccomp__Filter **filters = ARENA_ARRAY(&harvest->arena, Cairn__Seccomp__Filter *, most);
	int rc = 0;
	for (uint32_t i = 0; i < most; i++) {
		uint32_t count = 0;
		uint64_t flags = 0;
		rc = ptrace_get_filter(tid, i, program, &count, &flags, fault);
		if (rc < 0)
			break;
		rc = refuse_supervisor(tid, program, count, fault);
		if (rc < 0)
			break;
		Cairn__Seccomp__Filter *filter = HARVEST_MESSAGE(harvest, Cairn__Seccomp__Filter, cairn__seccomp__filter__init);
		filter->program.len = count * sizeof *program;
		filter->program.data = arena_copy(&harvest->arena, program, filter->program.len);
		filter->flags = flags;
		filters[message->n_filters++] = filter;
	}
	message->filters = filters;
	return rc == -ENOENT ? 0 : rc;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	(void)batch, (void)note;
	if (!thread->status.seccomp)
		return 0;
	Cairn__Seccomp *message = HARVEST_MESSAGE(harvest, Cairn__Seccomp, cairn__seccomp__init);
	message->tid = (uint32_t)thread->tid;
	message->strict = thread->status.seccomp == SECCOMP_MODE_STRICT;
	if (harvest->policy.filtered)
		message->inherited = proc_filters(&thread->status);
	int rc = message->strict || message->inherited ? 0 : capture_filters(harvest, thread->tid, message, fault);
	if (rc == 0)
		harvest_add(harvest, &kind_seccomp, &message->base);
	return rc;
}

/* The instructions that seccomp takes (kernel/seccomp.c seccomp_check_filter). */
static bool is_taken(const struct sock_filter *instruction)
{
	switch (instruction->code) {
	case BPF_LD | BPF_W | BPF_ABS:
		return instruction->k < sizeof(struct seccomp_data) && instruction->k % 4 == 0;
	case BPF_LD | BPF_W | BPF_LEN: case BPF_LDX | BPF_W | BPF_LEN: case BPF_LD | BPF_IMM: case BPF_LDX | BPF_IMM: case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_MEM: case BPF_ST: case BPF_STX: case BPF_MISC | BPF_TAX: case BPF_MISC | BPF_TXA: case BPF_RET | BPF_K:
	case BPF_ALU | BPF_NEG: case BPF_JMP | BPF_JA:
		return true;
	default:
		return (BPF_CLASS(instruction->code) == BPF_ALU && BPF_OP(instruction->code) <= BPF_XOR && BPF_OP(instruction->code) != BPF_NEG &&
			BPF_OP(instruction->code) != BPF_MOD && !(instruction->code & ~0xff)) ||
		       (BPF_CLASS(instruction->code) == BPF_JMP && BPF_OP(instruction->code) >= BPF_JEQ && BPF_OP(instruction->code) <= BPF_JSET &&
			!(instruction->code & ~0x7f));
	}
}

/* What is common to all classic filters (jumps, memory, the end), the kernel is asked about: a socket takes it or not. */
static bool is_program(const Cairn__Seccomp__Filter *filter)
{
	const struct sock_filter *program = (const struct sock_filter *)(const void *)filter->program.data;
	size_t count = filter->program.len / sizeof *program;
	if (!count || count > PTRACE_FILTER_MOST || filter->program.len % sizeof *program)
		return false;
	for (size_t i = 0; i < count; i++)
		if (!is_taken(&program[i]))
			return false;
	struct sock_fprog whole = { .len = (unsigned short)count, .filter = (struct sock_filter *)(void *)filter->program.data };
	_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &whole, sizeof whole) == 0 || errno != EINVAL;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Seccomp *message = (const Cairn__Seccomp *)base;
	if ((message->inherited != 0) + message->strict + (message->n_filters != 0) != 1)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: impossible seccomp filters", message->tid);
	for (size_t i = 0; i < message->n_filters; i++)
		if (message->filters[i]->flags & ~(uint64_t)SECCOMP_FILTER_FLAG_LOG || !is_program(message->filters[i]))
			return fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: an impossible seccomp filter", message->tid);
	uint32_t own = host_filters();
	if (message->inherited && own != message->inherited)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %u: had the %u seccomp filters of its container, and this Cairn has %u: it would "
				 "be more, or less, free than it was; try to restore in a container of the same kind", message->tid, message->inherited, own);
	if (!message->inherited && !host_may_read_filters())
		return fault_set(fault, FAULT_PERMISSION, EPERM, "thread %u: was under seccomp, and setting that again needs CAP_SYS_ADMIN in the first user "
				 "namespace and a Cairn without filters of its own; try as root, outside of containers", message->tid);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Seccomp *message = (const Cairn__Seccomp *)base;
	if (message->inherited)
		return 0;
	/* From here on until it is let go: what is still to be done, they might forbid. */
	int rc = ptrace_suspend_seccomp(thread->tid, true, fault);
	if (message->strict)
		batch_call(batch, seccomp, SECCOMP_SET_MODE_STRICT, 0, 0);
	for (size_t i = 0; i < message->n_filters; i++) {
		const Cairn__Seccomp__Filter *filter = message->filters[i];
		batch_group(batch, 1, filter->program.len + 64);
		struct batch_place program = batch_data(batch, filter->program.data, filter->program.len);
		struct sock_fprog whole = { .len = (unsigned short)(filter->program.len / sizeof(struct sock_filter)),
					    .filter = (struct sock_filter *)(uintptr_t)program.address };
		struct batch_place place = batch_data(batch, &whole, sizeof whole);
		batch_call(batch, seccomp, SECCOMP_SET_MODE_FILTER, filter->flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW, place.address);
	}
	return rc;
}

const struct kind kind_seccomp = {
	.name = "seccomp",
	.tag = 28,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__seccomp__descriptor,
	.owner_field = "tid",
	.refuse = refuse,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
