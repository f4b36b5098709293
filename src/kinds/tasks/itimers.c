/* SPDX-License-Identifier: Apache-2.0 */
/* Interval timers, alarm(2) among them: getitimer(2) by the process, three of them. They go on with the time that was left at
 * the checkpoint. */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

enum { TIMERS = 3 };

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note,
	       struct fault *fault)
{
	struct batch_place *places = ARENA_ARRAY(&harvest->arena, struct batch_place, TIMERS);
	(void)thread, (void)fault;
	for (uint64_t which = 0; which < TIMERS; which++) {
		places[which] = batch_room(batch, sizeof(struct itimerval));
		batch_call(batch, getitimer, which, places[which].address);
	}
	*ret_note = places;
	return 0;
}

static uint64_t microseconds(const struct timeval *time)
{
	return (uint64_t)time->tv_sec * 1000000u + (uint64_t)time->tv_usec;
}

static struct timeval timeval_of(uint64_t us)
{
	return (struct timeval){ (time_t)(us / 1000000u), (suseconds_t)(us % 1000000u) };
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct batch_place *places = note;
	Cairn__IntervalTimers *message = HARVEST_MESSAGE(harvest, Cairn__IntervalTimers,
							 cairn__interval_timers__init);
	(void)fault;
	message->pid = (uint32_t)thread->process->pid;
	message->timers = ARENA_ARRAY(&harvest->arena, Cairn__IntervalTimers__Timer *, TIMERS);
	for (uint32_t which = 0; which < TIMERS; which++) {
		struct itimerval timer;
		memcpy(&timer, batch_bytes(batch, places[which]), sizeof timer);
		uint64_t value_us = microseconds(&timer.it_value);
		/* Expired, and armed again only when its signal is taken (kernel/signal.c dequeue_signal): it expires at once
		 * again, into the signal that is pending, and stands as it did. */
		if (!value_us && which == ITIMER_REAL && microseconds(&timer.it_interval))
			value_us = 1;
		if (!value_us)
			continue;
		Cairn__IntervalTimers__Timer *one = HARVEST_MESSAGE(harvest, Cairn__IntervalTimers__Timer,
								    cairn__interval_timers__timer__init);
		one->which = which;
		one->value_us = value_us;
		one->interval_us = microseconds(&timer.it_interval);
		message->timers[message->n_timers++] = one;
	}
	if (message->n_timers)
		harvest_add(harvest, &kind_itimers, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__IntervalTimers *message = (const Cairn__IntervalTimers *)base;
	for (size_t i = 0; i < message->n_timers; i++)
		if (message->timers[i]->which >= TIMERS)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: interval timer %u is impossible",
					 message->pid, message->timers[i]->which);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__IntervalTimers *message = (const Cairn__IntervalTimers *)base;
	(void)thread, (void)fault;
	for (size_t i = 0; i < message->n_timers; i++) {
		struct itimerval timer = {
			.it_value = timeval_of(message->timers[i]->value_us),
			.it_interval = timeval_of(message->timers[i]->interval_us),
		};
		struct batch_place place = batch_data(batch, &timer, sizeof timer);
		batch_call(batch, setitimer, message->timers[i]->which, place.address, 0);
	}
	return 0;
}

const struct kind kind_itimers = {
	.name = "interval timers",
	.tag = 22,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__interval_timers__descriptor,
	.owner_field = "pid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
