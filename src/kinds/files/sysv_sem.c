/* SPDX-License-Identifier: Apache-2.0 */
/* System V semaphores. A set belongs to no process: sysv.h says which are the tree's. State: id, key, owner, mode, values, and who
 * changed each last (GETPID), which that process does again itself. Adjustments (SEM_UNDO): sysv_undo.c.
 *
 * A set outlives the program. One that is still there is taken if nobody else has changed it since, and gets its old values in the
 * very last step. In a private PID namespace sets lie in an IPC namespace of its own. Times are not put back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ipc.pb-c.h"
#include "kinds/files/sysv_sem.h"
#include "kinds/table.h"

enum { MOST_SEMAPHORES = 32000, MOST_VALUE = 32767 }; /* include/uapi/linux/sem.h SEMMSL, SEMVMX */

union argument { /* semctl(2) */
	int value;
	struct semid_ds *status;
	unsigned short *values;
};

static pid_t last_user(uint32_t id, uint64_t number)
{
	return (pid_t)semctl((int)id, (int)number, GETPID);
}

bool sysv_sem_is_of_tree(const struct harvest *harvest, const struct sysv_object *object)
{
	_free_ pid_t *users = memory_new(object->size * sizeof *users);
	for (uint64_t i = 0; i < object->size; i++)
		users[i] = last_user(object->id, i);
	return sysv_is_of_tree(harvest, object, users, object->size);
}

/* ---- the set ---- */

static int capture_set(struct harvest *harvest, const struct sysv_object *object, struct fault *fault)
{
	unsigned short *values = ARENA_ARRAY(&harvest->arena, unsigned short, object->size);
	if (semctl((int)object->id, 0, GETALL, (union argument){ .values = values }) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "semaphore set %u (key 0x%x): %s; try as its owner, or as root",
				 object->id, (unsigned)object->key, strerror(errno));
	Cairn__SysvSemaphores *message = HARVEST_MESSAGE(harvest, Cairn__SysvSemaphores, cairn__sysv_semaphores__init);
	message->id = harvest_new_id(harvest);
	message->object = sysv_capture(harvest, object);
	message->values = ARENA_ARRAY(&harvest->arena, uint32_t, object->size);
	message->n_values = object->size;
	for (uint64_t i = 0; i < object->size; i++)
		message->values[i] = values[i];
	harvest_add(harvest, &kind_sysv_semaphores, &message->base);
	return 0;
}

static int capture_tree(struct harvest *harvest, struct fault *fault)
{
	struct sysv_list list;
	int rc = sysv_read(SYSV_SEM, &list, fault);
	if (rc < 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < list.objects.count; i++)
		if (sysv_sem_is_of_tree(harvest, &list.objects.at[i]))
			rc = capture_set(harvest, &list.objects.at[i], fault);
	sysv_finish(&list);
	return rc;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSemaphores *message = (const Cairn__SysvSemaphores *)base;
	bool possible = message->id && sysv_possible(message->object) && message->n_values && message->n_values <= MOST_SEMAPHORES;
	for (size_t i = 0; possible && i < message->n_values; i++)
		possible = message->values[i] <= MOST_VALUE;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "semaphore set %u has impossible values", message->id);
}

static int get_set(int key, uint64_t size, int flags)
{
	return semget(key, (int)size, flags);
}

static void remove_set(uint64_t id)
{
	semctl((int)id, 0, IPC_RMID);
}

static int set_values(const Cairn__SysvSemaphores *message, struct fault *fault)
{
	_free_ unsigned short *values = memory_new(message->n_values * sizeof *values);
	for (size_t i = 0; i < message->n_values; i++)
		values[i] = (unsigned short)message->values[i];
	if (semctl((int)message->object->ipc_id, 0, SETALL, (union argument){ .values = values }) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "semaphore set %u: values: %s", message->object->ipc_id,
				 strerror(errno));
	return 0;
}

static int set_owner(const Cairn__SysvSemaphores *message, struct fault *fault)
{
	struct semid_ds status = { 0 };
	status.sem_perm.uid = message->object->uid;
	status.sem_perm.gid = message->object->gid;
	status.sem_perm.mode = (unsigned short)message->object->mode;
	/* EINVAL: an id that this user namespace does not know. */
	if (semctl((int)message->object->ipc_id, 0, IPC_SET, (union argument){ .status = &status }) < 0 && errno != EINVAL)
		return fault_set(fault, fault_class_of(errno), errno, "semaphore set %u: owner: %s", message->object->ipc_id,
				 strerror(errno));
	return 0;
}

static int take(const struct workshop *workshop, const Cairn__SysvSemaphores *message, const struct sysv_object *now,
		struct fault *fault)
{
	if (now->size != message->n_values)
		return fault_set(fault, FAULT_FAILED, EEXIST, "semaphore set %u (key 0x%x): has %llu semaphores now, not %zu; try to "
				 "remove it by ipcrm(1), or --pids private", message->object->ipc_id, (unsigned)message->object->key,
				 (unsigned long long)now->size, message->n_values);
	for (uint64_t i = 0; i < now->size; i++) {
		pid_t pid = last_user(now->id, i);
		bool same = semctl((int)now->id, (int)i, GETVAL) == (int)message->values[i];
		if (!same && sysv_is_others(workshop, pid))
			return fault_set(fault, FAULT_FAILED, EEXIST,
					 "semaphore set %u (key 0x%x): process %d has changed it since the checkpoint; try to remove "
					 "it by ipcrm(1), or --pids private", message->object->ipc_id, (unsigned)message->object->key, pid);
	}
	return 0;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSemaphores *message = (const Cairn__SysvSemaphores *)base;
	struct sysv_object now;
	int rc = workshop_separate_ipc(workshop, fault);
	if (rc == 0)
		rc = sysv_look(SYSV_SEM, message->object, &now, fault);
	if (rc == 1)
		return take(workshop, message, &now, fault);
	if (rc == 0)
		rc = sysv_make(workshop, SYSV_SEM, message->object, get_set, message->n_values, 0, remove_set, fault);
	return rc < 0 ? rc : set_values(message, fault);
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSemaphores *message = (const Cairn__SysvSemaphores *)base;
	(void)workshop;
	/* Only those that differ: SETVAL clears adjustments. */
	for (size_t i = 0; i < message->n_values; i++)
		if (semctl((int)message->object->ipc_id, (int)i, GETVAL) != (int)message->values[i] &&
		    semctl((int)message->object->ipc_id, (int)i, SETVAL, (union argument){ .value = (int)message->values[i] }) < 0)
			return fault_set(fault, fault_class_of(errno), errno, "semaphore set %u: values: %s", message->object->ipc_id,
					 strerror(errno));
	return set_owner(message, fault);
}

const struct kind kind_sysv_semaphores = {
	.name = "semaphore set",
	.tag = 39,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__sysv_semaphores__descriptor,
	.owner_field = "id",
	.capture_tree = capture_tree,
	.check = check,
	.make = make,
	.commit = commit,
};

/* ---- who changed them last ---- */

static int capture_use(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		       struct fault *fault)
{
	struct sysv_list list;
	Cairn__SysvSemaphoreUse *message = HARVEST_MESSAGE(harvest, Cairn__SysvSemaphoreUse, cairn__sysv_semaphore_use__init);
	(void)batch, (void)note;
	int rc = sysv_read(SYSV_SEM, &list, fault);
	if (rc < 0)
		return rc;
	size_t total = 0;
	for (size_t i = 0; i < list.objects.count; i++)
		total += list.objects.at[i].size;
	message->pid = (uint32_t)thread->process->pid;
	message->semaphores = ARENA_ARRAY(&harvest->arena, Cairn__SysvSemaphoreUse__Semaphore *, total);
	for (size_t i = 0; i < list.objects.count; i++)
		for (uint64_t s = 0; s < list.objects.at[i].size; s++) {
			if (last_user(list.objects.at[i].id, s) != thread->process->pid)
				continue;
			Cairn__SysvSemaphoreUse__Semaphore *one = HARVEST_MESSAGE(harvest, Cairn__SysvSemaphoreUse__Semaphore,
										  cairn__sysv_semaphore_use__semaphore__init);
			one->ipc_id = list.objects.at[i].id;
			one->number = (uint32_t)s;
			one->value = (uint32_t)semctl((int)one->ipc_id, (int)s, GETVAL);
			message->semaphores[message->n_semaphores++] = one;
		}
	sysv_finish(&list);
	if (message->n_semaphores)
		harvest_add(harvest, &kind_sysv_semaphore_use, &message->base);
	return 0;
}

static int check_use(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSemaphoreUse *message = (const Cairn__SysvSemaphoreUse *)base;
	for (size_t i = 0; i < message->n_semaphores; i++)
		if (message->semaphores[i]->ipc_id > INT32_MAX || message->semaphores[i]->value > MOST_VALUE ||
		    message->semaphores[i]->number >= MOST_SEMAPHORES)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: a semaphore has impossible values", message->pid);
	return 0;
}

/* Up and down again, or the other way round at the end of the range; SETVAL would clear adjustments. */
static void touch(const Cairn__SysvSemaphoreUse__Semaphore *semaphore, struct sembuf ret_operations[2])
{
	const unsigned short number = (unsigned short)semaphore->number;
	const short first = semaphore->value < MOST_VALUE ? 1 : -1;
	ret_operations[0] = (struct sembuf){ number, first, IPC_NOWAIT };
	ret_operations[1] = (struct sembuf){ number, (short)-first, IPC_NOWAIT };
}

/* It fails where the set belongs to somebody else: then nobody has changed it. */
static int rebuild_use(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		       struct fault *fault)
{
	const Cairn__SysvSemaphoreUse *message = (const Cairn__SysvSemaphoreUse *)base;
	(void)thread, (void)fault;
	for (size_t i = 0; i < message->n_semaphores; i++) {
		struct sembuf operations[2];
		touch(message->semaphores[i], operations);
		batch_group(batch, 1, sizeof operations);
		struct batch_place place = batch_data(batch, operations, sizeof operations);
		batch_try(batch, semop, message->semaphores[i]->ipc_id, place.address, 2);
	}
	return 0;
}

/* Those that have got an adjustment of another process since. */
static int last_use(struct newborn_thread *thread, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSemaphoreUse *message = (const Cairn__SysvSemaphoreUse *)base;
	(void)fault;
	for (size_t i = 0; i < message->n_semaphores; i++) {
		const Cairn__SysvSemaphoreUse__Semaphore *semaphore = message->semaphores[i];
		struct fault not_permitted;
		struct sembuf operations[2];
		if (last_user(semaphore->ipc_id, semaphore->number) == thread->process->pid)
			continue;
		touch(semaphore, operations);
		newborn_call(thread, "semop", __NR_semop, BATCH_ARGS(semaphore->ipc_id, thread->process->area, 2), operations, sizeof operations, &not_permitted);
	}
	return 0;
}

const struct kind kind_sysv_semaphore_use = {
	.name = "semaphore use",
	.tag = 25,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__sysv_semaphore_use__descriptor,
	.owner_field = "pid",
	.capture = capture_use,
	.check = check_use,
	.rebuild = rebuild_use,
	.last = last_use,
};
