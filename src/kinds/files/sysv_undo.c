/* SPDX-License-Identifier: Apache-2.0 */
/* Adjustments of SEM_UNDO: what the kernel adds to a semaphore when a process ends. It shows them to nobody, but semop(2) says ERANGE where one would
 * leave its range, -32768 to 32767 (ipc/sem.c perform_atomic_semop_slow, 6.18). So the process is let make calls that never succeed: operations in
 * pairs push its adjustment upwards and leave the value as it is, and the last one would have to wait, which IPC_NOWAIT forbids: EAGAIN, all undone under
 * the set's lock, and nobody has seen anything. Whether it is ERANGE or EAGAIN tells whether the adjustment is above what was asked; sixteen such
 * questions find it. Processes that have no list of adjustments (kernel/semundo.h) are not asked; one that has gets an empty entry for each set.
 *
 * Put back by a pair of the same sort that succeeds. A set that is still there has to have its old value by then, as setting one later clears the
 * adjustments of all: if the restore fails after that, the end of the newborn adds the adjustment again, as the end of the program had done. Not carried:
 * who changed a semaphore last, where that was somebody else than who has an adjustment of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc.pb-c.h"
#include "kinds/files/sysv_sem.h"
#include "kinds/table.h"

enum {
	LEAST = -32768, MOST = 32767, /* adjustments, and values from 0 (include/uapi/linux/sem.h SEMAEM, SEMVMX) */
	STEP = 16383,                 /* leaves a value in its range, whoever changes it a little meanwhile */
	MOST_OPERATIONS = 11,
};

struct search {
	uint32_t set, number;
	int value;
	int low, high; /* it is above low and not above high */
	size_t call;
};
struct searches {
	VEC(struct search) list;
};

static bool is_found(const struct search *search)
{
	return search->low + 1 == search->high;
}

/* Most are zero. */
static int next_question(const struct search *search)
{
	if (search->low < LEAST)
		return search->high == MOST ? 0 : search->high == 0 ? -1 : (search->low + search->high) / 2;
	return search->low + (search->high - search->low) / 2;
}

/* A pair that moves the adjustment by @by, and the value not at all. */
static void add_pair(struct sembuf *pair, const struct search *search, int by)
{
	const struct sembuf adjusting = { (unsigned short)search->number, (short)-by, SEM_UNDO | IPC_NOWAIT };
	const struct sembuf against = { (unsigned short)search->number, (short)by, IPC_NOWAIT };
	bool is_down_first = search->value > MOST / 2, adjusts_down = by > 0;
	pair[0] = is_down_first == adjusts_down ? adjusting : against;
	pair[1] = is_down_first == adjusts_down ? against : adjusting;
}

static size_t add_pairs(struct sembuf *operations, const struct search *search, int by)
{
	size_t count = 0;
	for (int left = by; left; count += 2) {
		int step = left > STEP ? STEP : left < -STEP ? -STEP : left;
		add_pair(&operations[count], search, step);
		left -= step;
	}
	return count;
}

static void ask_above(struct batch *batch, struct search *search, int bound)
{
	struct sembuf operations[MOST_OPERATIONS];
	size_t count = add_pairs(operations, search, MOST - bound);
	operations[count++] = (struct sembuf){ (unsigned short)search->number, LEAST, IPC_NOWAIT };
	batch_group(batch, 1, sizeof operations);
	struct batch_place place = batch_data(batch, operations, count * sizeof *operations);
	search->call = batch_try(batch, semop, search->set, place.address, count);
}

static int hear(const struct batch *batch, struct search *search, int bound, struct fault *fault)
{
	int64_t result = batch_result(batch, search->call);
	if (result == -ERANGE)
		search->low = bound;
	else if (result == -EAGAIN)
		search->high = bound;
	else if (result == -EACCES) /* so it can never have changed it */
		search->low = -1, search->high = 0;
	else
		return fault_set_transient(fault, FAULT_FAILED, result < 0 ? (int)-result : EIO, "semaphore set %u: its adjustments (SEM_UNDO) cannot be "
					   "found: %s; try again", search->set, result < 0 ? strerror((int)-result) : "it was changed");
	return 0;
}

static int ask_round(struct frozen_thread *thread, struct searches *searches, bool *ret_asked, struct fault *fault)
{
	struct batch batch;
	frozen_batch(thread, &batch);
	*ret_asked = false;
	for (size_t i = 0; i < searches->list.count; i++)
		if (!is_found(&searches->list.at[i])) {
			ask_above(&batch, &searches->list.at[i], next_question(&searches->list.at[i]));
			*ret_asked = true;
		}
	int rc = *ret_asked ? frozen_run(thread, &batch, fault) : 0;
	for (size_t i = 0; rc == 0 && i < searches->list.count; i++)
		if (!is_found(&searches->list.at[i]))
			rc = hear(&batch, &searches->list.at[i], next_question(&searches->list.at[i]), fault);
	batch_finish(&batch);
	return rc;
}

static bool has_list(const struct frozen_process *process)
{
	return process->has_adjustments && frozen_owns(process, SHARE_SYSVSEM);
}

static int list_set(const struct sysv_object *set, struct searches *searches, struct fault *fault)
{
	for (uint64_t number = 0; number < set->size; number++) {
		int value = semctl((int)set->id, (int)number, GETVAL);
		if (value < 0 && (errno == EIDRM || errno == EINVAL))
			return fault_set_transient(fault, FAULT_VANISHED, errno, "semaphore set %u (key 0x%x): was just removed; try again", set->id,
						   (unsigned)set->key);
		if (value < 0)
			return fault_set(fault, fault_class_of(errno), errno, "semaphore set %u (key 0x%x): its values cannot be read: %s; try as its owner, or as root",
					 set->id, (unsigned)set->key, strerror(errno));
		*vec_add(&searches->list) = (struct search){ .set = set->id, .number = (uint32_t)number, .value = value, .low = LEAST - 1, .high = MOST };
	}
	return 0;
}

static int list_semaphores(const struct harvest *harvest, struct searches *searches, struct fault *fault)
{
	struct sysv_list list;
	int rc = sysv_read(SYSV_SEM, &list, fault);
	if (rc < 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < list.objects.count; i++)
		if (sysv_sem_is_of_tree(harvest, &list.objects.at[i]))
			rc = list_set(&list.objects.at[i], searches, fault);
	sysv_finish(&list);
	return rc;
}

static int ask(struct harvest *harvest, struct frozen_thread *thread, struct batch *batch, void **ret_note, struct fault *fault)
{
	(void)batch;
	if (!has_list(thread->process))
		return 0;
	struct searches searches = { 0 };
	int rc = list_semaphores(harvest, &searches, fault);
	for (bool asked = true; rc == 0 && asked;)
		rc = ask_round(thread, &searches, &asked, fault);
	if (rc == 0 && searches.list.count) {
		struct searches *note = ARENA_NEW(&harvest->arena, struct searches);
		note->list.at = arena_copy(&harvest->arena, searches.list.at, searches.list.count * sizeof *searches.list.at);
		note->list.count = searches.list.count;
		*ret_note = note;
	}
	vec_finish(&searches.list);
	return rc;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note, struct fault *fault)
{
	const struct searches *searches = note;
	(void)batch, (void)fault;
	if (!searches)
		return 0;
	Cairn__SysvAdjustments *message = HARVEST_MESSAGE(harvest, Cairn__SysvAdjustments, cairn__sysv_adjustments__init);
	message->pid = (uint32_t)thread->process->pid;
	message->semaphores = ARENA_ARRAY(&harvest->arena, Cairn__SysvAdjustments__Semaphore *, searches->list.count);
	for (size_t i = 0; i < searches->list.count; i++) {
		const struct search *search = &searches->list.at[i];
		if (!search->high)
			continue;
		Cairn__SysvAdjustments__Semaphore *one =
			HARVEST_MESSAGE(harvest, Cairn__SysvAdjustments__Semaphore, cairn__sysv_adjustments__semaphore__init);
		one->ipc_id = search->set;
		one->number = search->number;
		one->value = (uint32_t)search->value;
		one->by = search->high;
		message->semaphores[message->n_semaphores++] = one;
	}
	if (message->n_semaphores)
		harvest_add(harvest, &kind_sysv_adjustments, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvAdjustments *message = (const Cairn__SysvAdjustments *)base;
	for (size_t i = 0; i < message->n_semaphores; i++) {
		const Cairn__SysvAdjustments__Semaphore *one = message->semaphores[i];
		if (one->ipc_id > INT32_MAX || one->number >= 32000 || one->value > MOST || !one->by || one->by < LEAST || one->by > MOST)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: an adjustment of a semaphore has impossible values", message->pid);
	}
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch, struct fault *fault)
{
	const Cairn__SysvAdjustments *message = (const Cairn__SysvAdjustments *)base;
	(void)thread, (void)fault;
	for (size_t i = 0; i < message->n_semaphores; i++) {
		const Cairn__SysvAdjustments__Semaphore *one = message->semaphores[i];
		const struct search search = { .set = one->ipc_id, .number = one->number, .value = (int)one->value };
		struct sembuf operations[MOST_OPERATIONS];
		size_t count = add_pairs(operations, &search, one->by);
		batch_group(batch, 2, sizeof operations);
		if (semctl((int)one->ipc_id, (int)one->number, GETVAL) != (int)one->value)
			batch_call(batch, semctl, one->ipc_id, one->number, SETVAL, one->value);
		struct batch_place place = batch_data(batch, operations, count * sizeof *operations);
		batch_call(batch, semop, one->ipc_id, place.address, count);
	}
	return 0;
}

const struct kind kind_sysv_adjustments = {
	.name = "semaphore adjustments",
	.tag = 46,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__sysv_adjustments__descriptor,
	.owner_field = "pid",
	.ask = ask,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};
