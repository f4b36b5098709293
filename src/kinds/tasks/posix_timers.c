/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX timers: ids, clocks and notification from /proc/PID/timers, times and overruns by the process (timer_gettime, timer_getoverrun).
 * An id is given back by PR_TIMER_CREATE_RESTORE_IDS (6.16), else by creating and deleting up to it: before that kernel, ids only count
 * up (kernel/time/posix-timers.c posix_timer_add). They go on with the time that was left. Overruns that the program had
 * not yet asked for are lost with the signal they belong to only if that was delivered; a pending one carries them in its siginfo. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

enum {
	PR_TIMER_CREATE_RESTORE_IDS_ = 77, /* include/uapi/linux/prctl.h, 6.16 */
	PR_TIMER_CREATE_RESTORE_IDS_OFF_ = 0,
	PR_TIMER_CREATE_RESTORE_IDS_ON_ = 1,
	PR_TIMER_CREATE_RESTORE_IDS_GET_ = 2,
	MOST_TIMERS = 100000,
};

struct note {
	struct proc_timers timers;
	struct batch_place *times;
	size_t *overruns;
	size_t restores_ids;
};

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct note *note = ARENA_NEW(&harvest->arena, struct note);
	struct text text = { 0 };
	int rc = proc_read(thread->process->view, "timers", &text, fault);
	if (rc == 0)
		rc = proc_timers_parse(text.at, &note->timers, fault);
	text_finish(&text);
	note->restores_ids = batch_try(batch, prctl, PR_TIMER_CREATE_RESTORE_IDS_, PR_TIMER_CREATE_RESTORE_IDS_GET_, 0, 0, 0);
	size_t count = note->timers.timers.count;
	note->times = ARENA_ARRAY(&harvest->arena, struct batch_place, count);
	note->overruns = ARENA_ARRAY(&harvest->arena, size_t, count);
	for (size_t i = 0; rc == 0 && i < count; i++) {
		batch_group(batch, 2, sizeof(struct itimerspec) + 32);
		note->times[i] = batch_room(batch, sizeof(struct itimerspec));
		batch_call(batch, timer_gettime, note->timers.timers.at[i].id, note->times[i].address);
		note->overruns[i] = batch_try(batch, timer_getoverrun, note->timers.timers.at[i].id);
	}
	*ret_note = note;
	return rc;
}

static uint64_t nanoseconds(const struct timespec *time)
{
	return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note_,
		   struct fault *fault)
{
	struct note *note = note_;
	size_t count = note->timers.timers.count;
	(void)fault;
	Cairn__PosixTimers *message = HARVEST_MESSAGE(harvest, Cairn__PosixTimers, cairn__posix_timers__init);
	message->pid = (uint32_t)thread->process->pid;
	message->timers = ARENA_ARRAY(&harvest->arena, Cairn__PosixTimers__Timer *, count);
	message->n_timers = count;
	for (size_t i = 0; i < count; i++) {
		const struct proc_timer *timer = &note->timers.timers.at[i];
		struct itimerspec time;
		memcpy(&time, batch_bytes(batch, note->times[i]), sizeof time);
		int64_t overruns = batch_result(batch, note->overruns[i]);
		Cairn__PosixTimers__Timer *one = HARVEST_MESSAGE(harvest, Cairn__PosixTimers__Timer,
								 cairn__posix_timers__timer__init);
		one->id = timer->id;
		one->clock = timer->clock;
		one->notify = timer->notify;
		one->signal = timer->signal;
		one->value = timer->value;
		one->thread = timer->notify & SIGEV_THREAD_ID ? (uint32_t)timer->notify_id : 0;
		one->interval_ns = nanoseconds(&time.it_interval);
		one->value_ns = nanoseconds(&time.it_value);
		one->overruns = overruns > 0 ? (uint32_t)overruns : 0;
		message->timers[i] = one;
	}
	vec_finish(&note->timers.timers);
	message->restores_ids = batch_result(batch, note->restores_ids) == 1;
	if (count || message->restores_ids)
		harvest_add(harvest, &kind_posix_timers, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PosixTimers *message = (const Cairn__PosixTimers *)base;
	for (size_t i = 0; i < message->n_timers; i++)
		if (message->timers[i]->signal > 64 || message->timers[i]->id > INT32_MAX ||
		    message->n_timers > MOST_TIMERS)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: timer %u has impossible values",
					 message->pid, message->timers[i]->id);
	return 0;
}

/* timer_create with the id wanted in *id, as the kernel does while restoring ids. */
static void add_create(const struct workshop *workshop, const Cairn__PosixTimers__Timer *timer, struct batch *batch)
{
	struct sigevent event = { .sigev_signo = (int)timer->signal, .sigev_notify = (int)timer->notify };
	int32_t id = (int32_t)timer->id;
	event.sigev_value.sival_ptr = (void *)(uintptr_t)timer->value;
	if (timer->thread)
		event._sigev_un._tid = workshop_task(workshop, timer->thread);
	struct batch_place event_place = batch_data(batch, &event, sizeof event);
	struct batch_place id_place = batch_data(batch, &id, sizeof id);
	batch_call(batch, timer_create, (uint64_t)(int64_t)timer->clock, event_place.address, id_place.address);
}

static void add_arm(const Cairn__PosixTimers__Timer *timer, struct batch *batch)
{
	struct itimerspec time = { timespec_of(timer->interval_ns), timespec_of(timer->value_ns) };
	if (!timer->value_ns)
		return;
	struct batch_place place = batch_data(batch, &time, sizeof time);
	batch_call(batch, timer_settime, timer->id, 0, place.address, 0);
}

/* Without the prctl: the next id is one more than the last; those in between are made and deleted. */
static void add_create_up_to(const struct workshop *workshop, const Cairn__PosixTimers__Timer *timer, uint32_t *next, struct batch *batch)
{
	static const Cairn__PosixTimers__Timer none = { .clock = CLOCK_MONOTONIC, .notify = SIGEV_NONE };
	for (; *next < timer->id; ++*next) {
		batch_group(batch, 2, 256);
		add_create(workshop, &none, batch);
		batch_call(batch, timer_delete, *next);
	}
	batch_group(batch, 2, 512);
	add_create(workshop, timer, batch);
	++*next;
}

static bool can_restore_ids(void)
{
	if (prctl(PR_TIMER_CREATE_RESTORE_IDS_, PR_TIMER_CREATE_RESTORE_IDS_ON_, 0, 0, 0) < 0)
		return false;
	prctl(PR_TIMER_CREATE_RESTORE_IDS_, PR_TIMER_CREATE_RESTORE_IDS_OFF_, 0, 0, 0);
	return true;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__PosixTimers *message = (const Cairn__PosixTimers *)base;
	const struct workshop *workshop = thread->process->workshop;
	bool by_id = can_restore_ids();
	uint32_t next = 0;
	(void)fault;
	if (by_id)
		batch_call(batch, prctl, PR_TIMER_CREATE_RESTORE_IDS_, PR_TIMER_CREATE_RESTORE_IDS_ON_);
	for (size_t i = 0; i < message->n_timers; i++) {
		batch_group(batch, 4, 1024);
		if (by_id)
			add_create(workshop, message->timers[i], batch);
		else
			add_create_up_to(workshop, message->timers[i], &next, batch);
		add_arm(message->timers[i], batch);
	}
	if (by_id && !message->restores_ids)
		batch_call(batch, prctl, PR_TIMER_CREATE_RESTORE_IDS_, PR_TIMER_CREATE_RESTORE_IDS_OFF_);
	return 0;
}

const struct kind kind_posix_timers = {
	.name = "POSIX timers",
	.tag = 23,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__posix_timers__descriptor,
	.owner_field = "pid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
