/* SPDX-License-Identifier: Apache-2.0 */
/* How a thread is scheduled: policy, nice, priorities and utilization clamps (sched_getattr(2)), affinity, I/O priority: read from outside; timer
 * slack by prctl. Refused: a core scheduling cookie of its own (PR_SCHED_CORE), which says with whom it may share a core. The parent-death signal belongs to parent_death.c, after the credentials. Only what differs from what a newborn
 * inherits from Cairn is set, so that defaults need no privilege. */
#include <errno.h>
#include <linux/prctl.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

/* sched_setattr(2); glibc 2.36 has no declaration. */
struct attributes {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
	uint32_t clamp_least, clamp_most; /* 5.3 */
};
/* include/uapi/linux/sched.h: do not touch policy and parameters; set the clamps. */
enum { FLAG_KEEP_ALL = 0x18, FLAG_CLAMPS = 0x60 };

enum { IOPRIO_WHO_PROCESS_ = 1, AFFINITY_SIZE = 1024 };

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	size_t *note = ARENA_NEW(&harvest->arena, size_t);
	(void)thread, (void)fault;
	*note = batch_call(batch, prctl, PR_GET_TIMERSLACK);
	*ret_note = note;
	return 0;
}

static int read_outside(pid_t tid, struct attributes *attributes, uint8_t *affinity, long *affinity_size,
			long *io_priority, struct fault *fault)
{
	if (syscall(SYS_sched_getattr, tid, attributes, sizeof *attributes, 0) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "thread %d: sched_getattr: %s", tid,
				 strerror(errno));
	/* sched_getattr(2) and sched_setattr(2) know no nice value under SCHED_IDLE and real-time policies, though there is one. */
	attributes->nice = getpriority(PRIO_PROCESS, (id_t)tid);
	*affinity_size = syscall(SYS_sched_getaffinity, tid, AFFINITY_SIZE, affinity);
	*io_priority = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS_, tid);
	if (*affinity_size < 0 || *io_priority < 0)
		return fault_set(fault, fault_class_of(errno), errno, "thread %d: affinity or I/O priority: %s", tid,
				 strerror(errno));
	return 0;
}

/* 5.14. 0: none, or one that newborns inherit from Cairn. */
static uint64_t core_cookie(pid_t tid)
{
	uint64_t cookie = 0, own = 0;
	if (prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, tid, PR_SCHED_CORE_SCOPE_THREAD, &cookie) < 0 ||
	    prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, 0, PR_SCHED_CORE_SCOPE_THREAD, &own) < 0)
		return 0;
	return cookie == own ? 0 : cookie;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	Cairn__Scheduling *message = HARVEST_MESSAGE(harvest, Cairn__Scheduling, cairn__scheduling__init);
	struct attributes attributes = { 0 };
	uint8_t affinity[AFFINITY_SIZE];
	long affinity_size, io_priority;
	int rc = read_outside(thread->tid, &attributes, affinity, &affinity_size, &io_priority, fault);
	if (rc < 0)
		return rc;
	if (core_cookie(thread->tid))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "thread %d: has a core scheduling cookie (PR_SCHED_CORE), which this version cannot carry; "
				 "try to run cairn with the same one, or the program without", thread->tid);
	message->tid = (uint32_t)thread->tid;
	message->clamp_least = attributes.clamp_least;
	message->clamp_most = attributes.clamp_most;
	message->policy = attributes.policy;
	message->nice = attributes.nice;
	message->priority = attributes.priority;
	message->runtime = attributes.runtime;
	message->deadline = attributes.deadline;
	message->period = attributes.period;
	message->flags = attributes.flags;
	message->affinity.data = arena_copy(&harvest->arena, affinity, (size_t)affinity_size);
	message->affinity.len = (size_t)affinity_size;
	message->io_priority = (uint32_t)io_priority;
	message->timer_slack_ns = (uint64_t)batch_result(batch, *(size_t *)note);
	harvest_add(harvest, &kind_scheduling, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Scheduling *message = (const Cairn__Scheduling *)base;
	if (message->affinity.len > AFFINITY_SIZE || message->nice < -20 || message->nice > 19 || message->clamp_most > 1024 ||
	    message->clamp_least > message->clamp_most)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "thread %u: impossible scheduling values", message->tid);
	return 0;
}

/* Processors that this host has not are left out; if none is left, all are taken. */
static bool mask_affinity(const Cairn__Scheduling *message, uint8_t *own, long own_size, uint8_t *ret_affinity)
{
	bool any = false, less = false;
	for (long i = 0; i < own_size; i++) {
		uint8_t want = (size_t)i < message->affinity.len ? message->affinity.data[i] : 0;
		ret_affinity[i] = want & own[i];
		any |= ret_affinity[i] != 0;
		less |= (want & ~own[i]) != 0;
	}
	for (size_t i = (size_t)own_size; i < message->affinity.len; i++)
		less |= message->affinity.data[i] != 0;
	if (less)
		log_warn("thread %u: some of its processors do not exist here; continuing without them", message->tid);
	return any;
}

static void add_clamps(const Cairn__Scheduling *message, const struct attributes *own, struct batch *batch)
{
	if (!message->clamp_most || (message->clamp_least == own->clamp_least && message->clamp_most == own->clamp_most))
		return;
	if (!own->clamp_most) {
		log_warn("thread %u: this kernel has no utilization clamps (sched_setattr(2)); continuing without them", message->tid);
		return;
	}
	const struct attributes want = {
		.size = sizeof want, .flags = FLAG_KEEP_ALL | FLAG_CLAMPS, .clamp_least = message->clamp_least, .clamp_most = message->clamp_most,
	};
	batch_call(batch, sched_setattr, 0, batch_data(batch, &want, sizeof want).address, 0);
}

static void add_affinity(const uint8_t *affinity, long size, struct batch *batch)
{
	struct batch_place place = batch_data(batch, affinity, (size_t)size);
	batch_call(batch, sched_setaffinity, 0, (uint64_t)size, place.address);
}

/* Who sits where Cairn does gets his processors when he leaves. But not who is to come after all others, who would wait there for those although another
 * processor is idle; and under SCHED_DEADLINE only who has all of them may come (kernel/sched/syscalls.c __sched_setscheduler, 6.18). */
static bool leaves_early(const Cairn__Scheduling *message)
{
	enum { POLICY_IDLE = 5, POLICY_DEADLINE = 6 };
	return message->policy == POLICY_IDLE || message->policy == POLICY_DEADLINE || message->nice > 0;
}

static void set_processors(struct newborn_thread *thread, const Cairn__Scheduling *message, uint8_t *own, long own_size, struct batch *batch)
{
	const struct workshop_seat *seat = &thread->process->workshop->seat;
	uint8_t affinity[AFFINITY_SIZE];
	if (seat->size)
		memcpy(own, seat->allowed, (size_t)(own_size = seat->size));
	bool differs = message->affinity.len && mask_affinity(message, own, own_size, affinity) && memcmp(affinity, own, (size_t)own_size);
	if (differs && seat->size && !thread->processors)
		thread->processors = memory_new((size_t)own_size);
	if (differs && seat->size)
		memcpy(thread->processors, affinity, (size_t)own_size);
	if (seat->size && (seat->by_themselves || leaves_early(message)))
		add_affinity(differs ? affinity : seat->free, own_size, batch);
	else if (differs && !seat->size)
		add_affinity(affinity, own_size, batch);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Scheduling *message = (const Cairn__Scheduling *)base;
	struct attributes own = { 0 };
	uint8_t own_affinity[AFFINITY_SIZE];
	long own_size, own_io;
	int rc = read_outside(0, &own, own_affinity, &own_size, &own_io, fault);
	if (rc < 0)
		return rc;
	set_processors(thread, message, own_affinity, own_size, batch);
	if (own.nice != message->nice)
		batch_call(batch, setpriority, PRIO_PROCESS, 0, (uint64_t)(int64_t)message->nice);
	if (own.policy != message->policy || own.nice != message->nice || own.priority != message->priority ||
	    own.flags != message->flags) {
		struct attributes want = {
			.size = sizeof want, .policy = message->policy, .flags = message->flags, .nice = message->nice,
			.priority = message->priority, .runtime = message->runtime, .deadline = message->deadline,
			.period = message->period,
		};
		struct batch_place place = batch_data(batch, &want, sizeof want);
		batch_call(batch, sched_setattr, 0, place.address, 0);
	}
	add_clamps(message, &own, batch);
	if (message->io_priority != (uint32_t)own_io)
		batch_call(batch, ioprio_set, IOPRIO_WHO_PROCESS_, 0, message->io_priority);
	batch_call(batch, prctl, PR_SET_TIMERSLACK, message->timer_slack_ns);
	return 0;
}

const struct kind kind_scheduling = {
	.name = "scheduling",
	.tag = 16,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__scheduling__descriptor,
	.owner_field = "tid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
