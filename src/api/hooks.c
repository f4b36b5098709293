/* SPDX-License-Identifier: Apache-2.0 */
#include "api/hooks.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "base/log.h"

/* How long hooks may take where --timeout says nothing. */
#define HOOKS_PATIENCE_NS UINT64_C(10000000000)

#define PUT(place, field, value) bulletin_write((place)->pid, (place)->address, offsetof(struct bulletin, field), (value), sizeof *(value))

/* So that a program can see its Cairn die: 0 where it cannot. */
static int32_t own_pid_for(pid_t pid)
{
	uint64_t own[NS_COUNT] = { 0 }, other[NS_COUNT] = { 0 };
	proc_namespaces(getpid(), own, NULL);
	return proc_namespaces(pid, other, NULL) == 0 && own[NS_PID] == other[NS_PID] ? getpid() : 0;
}

static void tell(const struct bulletin_place *place, struct hooks *hooks)
{
	struct bulletin bulletin;
	if (bulletin_read(place->pid, place->address, &bulletin) < 0 || bulletin.helper <= 0)
		return;
	const int32_t by = own_pid_for(place->pid);
	const uint32_t turn = bulletin.turn + 1;
	if (PUT(place, turn_by, &by) < 0 || PUT(place, turn, &turn) < 0)
		return;
	*vec_add(&hooks->told) = (struct hook_turn){ *place, bulletin.helper, turn };
	bulletin_wake(place->pid, bulletin.helper);
}

/* A program that has ended meanwhile is none of the tree any more. */
static int await(const struct hook_turn *told, const struct deadline *deadline, uint64_t until_ns, struct fault *fault)
{
	for (uint64_t pause_ns = 50000;;) {
		struct bulletin bulletin;
		if (bulletin_read(told->place.pid, told->place.address, &bulletin) < 0)
			return 0;
		if (bulletin.before == told->turn)
			return bulletin.refused ?
				fault_set(fault, FAULT_UNSUPPORTED, EBUSY, "process %d: its hook before a checkpoint objects "
					  "(it returned %d); try again later", told->place.pid, bulletin.refused) : 0;
		int rc = deadline_check(deadline, fault);
		if (rc < 0)
			return rc;
		if (clock_now_ns() > until_ns)
			return fault_set(fault, FAULT_TIMEOUT, ETIMEDOUT, "process %d: its hooks before a checkpoint have not ended "
					 "in time; try again later, or a longer --timeout", told->place.pid);
		clock_sleep_ns(pause_ns);
		if (pause_ns < 5000000)
			pause_ns *= 2;
	}
}

int hooks_before(const struct bulletin_list *bulletins, const struct deadline *deadline, struct hooks *hooks, struct fault *fault)
{
	uint64_t begin = clock_now_ns();
	for (size_t i = 0; i < bulletins->places.count; i++)
		tell(&bulletins->places.at[i], hooks);
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < hooks->told.count; i++)
		rc = await(&hooks->told.at[i], deadline, deadline->at_ns ? UINT64_MAX : begin + HOOKS_PATIENCE_NS, fault);
	if (hooks->told.count)
		log_info("checkpoint: hooks of %zu processes, %.2f ms", hooks->told.count, (double)(clock_now_ns() - begin) / 1e6);
	return rc;
}

void hooks_after(const struct hooks *hooks, bool saved)
{
	for (size_t i = 0; i < hooks->told.count; i++) {
		const struct hook_turn *told = &hooks->told.at[i];
		const uint32_t failed = !saved;
		if (PUT(&told->place, failed, &failed) == 0 && PUT(&told->place, over, &told->turn) == 0)
			bulletin_wake(told->place.pid, told->helper);
	}
}

void hooks_finish(struct hooks *hooks)
{
	vec_finish(&hooks->told);
}
