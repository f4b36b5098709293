/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sysv.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

Cairn__SysvObject *sysv_capture(struct harvest *harvest, const struct sysv_object *object)
{
	Cairn__SysvObject *message = HARVEST_MESSAGE(harvest, Cairn__SysvObject, cairn__sysv_object__init);
	message->ipc_id = object->id;
	message->key = object->key;
	message->mode = object->mode & 0777;
	message->uid = object->uid;
	message->gid = object->gid;
	message->creator_uid = object->creator_uid;
	message->creator_gid = object->creator_gid;
	return message;
}

bool sysv_possible(const Cairn__SysvObject *object)
{
	return object && object->ipc_id <= INT32_MAX && object->mode <= 0777;
}

int sysv_look(enum sysv_type type, const Cairn__SysvObject *object, struct sysv_object *ret_now, struct fault *fault)
{
	static const char *const words[] = { "shared memory segment", "semaphore set", "message queue" };
	struct sysv_list list;
	int rc = sysv_read(type, &list, fault);
	if (rc < 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < list.objects.count; i++) {
		const struct sysv_object *now = &list.objects.at[i];
		bool same_id = now->id == object->ipc_id;
		if (!same_id && (now->key != object->key || object->key == IPC_PRIVATE))
			continue;
		if (same_id && now->key == object->key && now->creator_uid == object->creator_uid) {
			*ret_now = *now;
			rc = 1;
		} else {
			rc = fault_set(fault, FAULT_FAILED, EEXIST,
				       "%s %u with key 0x%x: there is another one with that %s now, of user %u; try to remove it by "
				       "ipcrm(1), or --pids private", words[type], object->ipc_id, (unsigned)object->key,
				       same_id ? "id" : "key", now->uid);
		}
	}
	sysv_finish(&list);
	return rc;
}

struct maker {
	int (*get)(int key, uint64_t size, int flags);
	void (*undo)(uint64_t id);
	const Cairn__SysvObject *object;
	uint64_t size;
	int flags;
};

/* One whose id is another is of no use. */
static int get_exactly(const struct maker *maker)
{
	int id = maker->get(maker->object->key, maker->size, IPC_CREAT | IPC_EXCL | maker->flags | (int)maker->object->mode);
	if (id >= 0 && (uint32_t)id != maker->object->ipc_id) {
		maker->undo((uint64_t)id);
		errno = EEXIST;
		return -1;
	}
	return id;
}

/* By a child with the ids of the old creator's: they cannot be changed later. */
static int get_as(const struct maker *maker, uint32_t uid, uint32_t gid)
{
	if (uid == geteuid() && gid == getegid())
		return get_exactly(maker);
	pid_t child = fork();
	if (child == 0) {
		/* System calls of this task alone, not glibc's of all threads. An id that this namespace lacks: its creator is Cairn. */
		if (syscall(SYS_setresgid, -1, gid, -1) < 0 || syscall(SYS_setresuid, -1, uid, -1) < 0)
			errno = 0;
		_exit(get_exactly(maker) < 0 ? errno : 0);
	}
	int status;
	if (child < 0 || waitpid(child, &status, __WALL) < 0)
		return -1;
	errno = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
	return errno ? -1 : 0;
}

int sysv_make(struct workshop *workshop, enum sysv_type type, const Cairn__SysvObject *object,
	      int (*get)(int key, uint64_t size, int flags), uint64_t size, int flags, void (*undo)(uint64_t id), struct fault *fault)
{
	const struct maker maker = { get, undo, object, size, flags };
	int rc = sysv_next_id(type, object->ipc_id, fault);
	if (rc < 0)
		return rc;
	if (get_as(&maker, object->creator_uid, object->creator_gid) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "System V IPC object %u with key 0x%x: %s; try --pids private",
				 object->ipc_id, (unsigned)object->key, strerror(errno));
	workshop_on_failure(workshop, undo, object->ipc_id);
	return 0;
}

static uint64_t boot_s(void)
{
	struct timespec now, up;
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &up);
	return (uint64_t)(now.tv_sec - up.tv_sec);
}

static bool made_by(const struct harvest *harvest, const struct sysv_object *object)
{
	enum { SLACK_S = 2 }; /* all of these times are cut to seconds; and after a restore its objects are a little older than the root */
	const struct frozen_process *root = harvest->processes.at[0];
	uint64_t started_s = boot_s() + root->stat.start_time / (uint64_t)sysconf(_SC_CLK_TCK);
	return object->creator_uid == root->status.uid[1] && object->changed_s + SLACK_S >= started_s;
}

static bool lives(pid_t pid)
{
	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

bool sysv_is_used_by_tree(const struct harvest *harvest, const pid_t *users, size_t count)
{
	bool found = false;
	for (size_t i = 0; i < count; i++)
		found |= harvest_has_process(harvest, users[i]);
	return found;
}

bool sysv_is_outsider(const struct harvest *harvest, pid_t pid, time_t used_s)
{
	enum { SLACK_S = 2 }; /* times are cut to seconds */
	struct proc_stat stat;
	if (!lives(pid) || pid == harvest->policy.adopter || pid == getpid() || harvest_has_process(harvest, pid) || proc_stat_read(pid, 0, &stat, NULL) < 0)
		return false;
	return boot_s() + stat.start_time / (uint64_t)sysconf(_SC_CLK_TCK) <= (uint64_t)used_s + SLACK_S;
}

bool sysv_is_of_tree(const struct harvest *harvest, const struct sysv_object *object, const pid_t *users, size_t count)
{
	bool elsewhere = false;
	/* A job's init has made the object when it restored the tree. */
	for (size_t i = 0; i < count; i++)
		elsewhere |= lives(users[i]) && users[i] != harvest->policy.adopter && users[i] != getpid();
	return sysv_is_used_by_tree(harvest, users, count) || (!elsewhere && made_by(harvest, object));
}

bool sysv_is_others(const struct workshop *workshop, pid_t pid)
{
	return lives(pid) && pid != getpid() && !workshop_will_be(workshop, pid);
}
