/* SPDX-License-Identifier: Apache-2.0 */
/* What prctl(2) and /proc/PID say of a whole process: OOM score, core dump filter, subreaper, THP, membarrier registrations, the nice value of
 * its session (/proc/PID/autogroup, sched(7)), and which large vector registers it may use (ARCH_REQ_XCOMP_PERM). Only values that are not the
 * default are set again. Dumpable has a file of its own, because credentials reset it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

enum { MEMBARRIER_GET_REGISTRATIONS = 1 << 9 }; /* include/uapi/linux/membarrier.h, 6.3 */
enum { ARCH_GET_XCOMP_PERM_ = 0x1022, ARCH_REQ_XCOMP_PERM_ = 0x1023 }; /* arch/x86/include/uapi/asm/prctl.h, 5.16 */

struct note {
	size_t thp, membarrier;
	struct batch_place subreaper, permissions;
};

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct note *note = ARENA_NEW(&harvest->arena, struct note);
	(void)thread, (void)fault;
	note->subreaper = batch_room(batch, sizeof(int));
	batch_call(batch, prctl, PR_GET_CHILD_SUBREAPER, note->subreaper.address);
	note->thp = batch_try(batch, prctl, PR_GET_THP_DISABLE);
	note->membarrier = batch_try(batch, membarrier, MEMBARRIER_GET_REGISTRATIONS);
	note->permissions = batch_room(batch, sizeof(uint64_t));
#ifdef __x86_64__
	batch_try(batch, arch_prctl, ARCH_GET_XCOMP_PERM_, note->permissions.address);
#endif
	*ret_note = note;
	return 0;
}

/* "/autogroup-12 nice 5" (kernel/sched/autogroup.c proc_sched_autogroup_show_task). 0 where there are none. */
static int autogroup_nice(pid_t pid)
{
	struct text text = { 0 };
	int nice = 0;
	if (proc_read(pid, "autogroup", &text, NULL) < 0 || sscanf(text.at, "/autogroup-%*u nice %d", &nice) != 1)
		nice = 0;
	text_finish(&text);
	return nice;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_,
		   struct fault *fault)
{
	const struct note *note = note_;
	Cairn__Attributes *message = HARVEST_MESSAGE(harvest, Cairn__Attributes, cairn__attributes__init);
	long filter = 0, oom = 0;
	int subreaper, rc = proc_read_number(thread->process->view, 0, "coredump_filter", 16, &filter, fault);
	if (rc == 0)
		rc = proc_read_number(thread->process->view, 0, "oom_score_adj", 10, &oom, fault);
	if (rc < 0)
		return rc;
	memcpy(&subreaper, batch_bytes(batch, note->subreaper), sizeof subreaper);
	message->pid = (uint32_t)thread->process->pid;
	message->coredump_filter = (uint32_t)filter;
	message->oom_score_adj = (int32_t)oom;
	message->child_subreaper = thread->process->reaps_orphans = subreaper;
	int64_t thp = batch_result(batch, note->thp);
	message->thp_disable = thp > 0 ? (uint32_t)thp : 0;
	int64_t registrations = batch_result(batch, note->membarrier);
	message->membarrier = registrations > 0 ? (uint32_t)registrations : 0;
	memcpy(&message->xstate_permissions, batch_bytes(batch, note->permissions), sizeof message->xstate_permissions);
	if (thread->process->stat.session == thread->process->pid)
		message->autogroup_nice = autogroup_nice(thread->process->view);
	harvest_add(harvest, &kind_attributes, &message->base);
	return 0;
}

/* @tid: a living thread of the process. */
static int set_number(pid_t tid, const char *name, int base, long number, struct fault *fault)
{
	long now = 0;
	int rc = proc_read_number(tid, 0, name, base, &now, fault);
	if (rc < 0 || now == number)
		return rc;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", tid, name);
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || dprintf(fd, base == 16 ? "0x%lx" : "%ld", number) < 0)
		log_warn("process %d: %s %ld cannot be set (%s); continuing without it", tid, name, number, strerror(errno));
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Attributes *message = (const Cairn__Attributes *)base;
	return message->autogroup_nice < -20 || message->autogroup_nice > 19 || message->oom_score_adj < -1000 || message->oom_score_adj > 1000 ?
		fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: impossible attributes", message->pid) : 0;
}

/* Components that are not everybody's have to be asked for, one by one. */
static void add_permissions(const Cairn__Attributes *message, struct batch *batch)
{
#ifdef __x86_64__
	uint64_t own = UINT64_MAX;
	if (syscall(SYS_arch_prctl, ARCH_GET_XCOMP_PERM_, &own) < 0)
		return;
	for (uint64_t component = 0; component < 64; component++)
		if (message->xstate_permissions & ~own & UINT64_C(1) << component)
			batch_try(batch, arch_prctl, ARCH_REQ_XCOMP_PERM_, component);
#else
	(void)message, (void)batch;
#endif
}

/* The kernel takes one in 100 ms from those who may not do everything. */
static void set_autogroup(pid_t tid, int nice)
{
	char path[64];
	if (autogroup_nice(tid) == nice)
		return;
	snprintf(path, sizeof path, "/proc/%d/autogroup", tid);
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	int written = -1;
	for (int tries = 0; fd >= 0 && written < 0 && tries < 20; tries++) {
		written = dprintf(fd, "%d", nice);
		if (written < 0 && errno == EAGAIN)
			clock_sleep_ns(20000000);
		else if (written < 0)
			break;
	}
	if (written < 0)
		log_warn("process %d: the nice value %d of its session cannot be set (%s); continuing without it", tid, nice, strerror(errno));
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Attributes *message = (const Cairn__Attributes *)base;
	if (message->child_subreaper)
		batch_call(batch, prctl, PR_SET_CHILD_SUBREAPER, 1);
	if (message->thp_disable)
		batch_call(batch, prctl, PR_SET_THP_DISABLE, 1, message->thp_disable & ~UINT32_C(1), 0, 0);
	for (uint32_t command = 1; command; command <<= 1)
		if (message->membarrier & command)
			batch_call(batch, membarrier, command);
	add_permissions(message, batch);
	set_autogroup(thread->tid, message->autogroup_nice);
	int rc = set_number(thread->tid, "oom_score_adj", 10, message->oom_score_adj, fault);
	return rc < 0 ? rc : set_number(thread->tid, "coredump_filter", 16, message->coredump_filter, fault);
}

const struct kind kind_attributes = {
	.name = "attributes",
	.tag = 19,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__attributes__descriptor,
	.owner_field = "pid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
