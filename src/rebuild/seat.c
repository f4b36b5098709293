/* SPDX-License-Identifier: Apache-2.0 */
/* One processor for Cairn and its newborns, while they work by turns: each waits for the other, so two processors only wake each other up, which
 * takes longer than the work does where an idle one has to be woken by the hypervisor. Measured on the machine of the README: 0.55 ms a process
 * instead of 0.8. Newborns are born there. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/features.h"
#include "rebuild/newborn.h"

enum { CAP_SYS_NICE_ = 23 };

static long own_processors(uint8_t *mask, size_t space)
{
	return syscall(SYS_sched_getaffinity, 0, space, mask);
}

/* -errno if not. */
static int ask_for(pid_t tid, const uint8_t *mask, long size)
{
	return syscall(SYS_sched_setaffinity, tid, size, mask) < 0 ? -errno : 0;
}

static unsigned count_of(const uint8_t *mask, long size)
{
	unsigned count = 0;
	for (long i = 0; i < size; i++)
		count += (unsigned)__builtin_popcount(mask[i]);
	return count;
}

/* Who never asked for processors gets those that are added to its cpuset later, who asked for some does not: the kernel remembers what was asked for
 * (task_struct user_cpus_ptr, 6.2), and who asked for all is like who never did. */
static bool has_all(const struct workshop_seat *seat)
{
	uint8_t all[sizeof seat->free], now[sizeof seat->free];
	memset(all, 0xff, sizeof all);
	return ask_for(0, all, seat->size) == 0 && own_processors(now, sizeof now) == seat->size && !memcmp(now, seat->allowed, (size_t)seat->size);
}

void seat_find(struct workshop *workshop)
{
	struct workshop_seat *seat = &workshop->seat;
	unsigned here = 0;
	seat->size = own_processors(seat->allowed, sizeof seat->allowed);
	if (seat->size < 0 || count_of(seat->allowed, seat->size) < 2 || syscall(SYS_getcpu, &here, NULL, NULL) < 0 || here / 8 >= (unsigned)seat->size) {
		seat->size = 0;
		return;
	}
	seat->by_themselves = !feature_capability(CAP_SYS_NICE_);
	seat->place[here / 8] = (uint8_t)(1u << here % 8);
	memset(seat->free, 0xff, sizeof seat->free);
	if (!has_all(seat))
		memcpy(seat->free, seat->allowed, sizeof seat->free);
	/* Where it may not be had, it may not be given up by newborns either. */
	if (ask_for(0, seat->free, seat->size) < 0 || ask_for(0, seat->place, seat->size) < 0)
		seat->size = 0;
}

void seat_take(const struct workshop *workshop)
{
	if (workshop->seat.size)
		ask_for(0, workshop->seat.place, workshop->seat.size);
}

void seat_leave(const struct workshop *workshop)
{
	if (workshop->seat.size)
		ask_for(0, workshop->seat.free, workshop->seat.size);
}

int seat_let_go(const struct newborn_thread *thread, struct fault *fault)
{
	const struct workshop_seat *seat = &thread->process->workshop->seat;
	int rc = seat->size ? ask_for(thread->tid, thread->processors ? thread->processors : seat->free, seat->size) : 0;
	if (rc == -EPERM && seat->by_themselves)
		return 0;
	return rc < 0 ? fault_set(fault, fault_class_of(-rc), -rc, "thread %d: give it its processors: %s", thread->tid, strerror(-rc)) : 0;
}
