/* SPDX-License-Identifier: Apache-2.0 */
/* Working directory, root directory and umask: links and status of /proc/PID. Put back by path, the working directory first: it may lie outside of
 * the root. A thread may have its own (unshare(CLONE_FS)), which kcmp(2) tells. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kernel/kcmp.h"
#include "kinds/identity.h"
#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	(void)harvest;
	struct stat theirs, named;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/root/.", process->view);
	if (stat(path, &theirs) == 0 && (stat(process->root, &named) < 0 || named.st_dev != theirs.st_dev || named.st_ino != theirs.st_ino))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "its root directory (chroot) is not what Cairn finds as %s; try to run cairn inside that root", process->root);
	return 0;
}

/* A deleted directory is empty for ever: another one is made, entered and removed. @cwd loses " (deleted)". */
static Cairn__DeletedDirectory *look_for_deleted(struct harvest *harvest, pid_t task, char *cwd)
{
	static const char deleted[] = " (deleted)";
	struct stat theirs;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/cwd/.", task);
	size_t length = strlen(cwd), more = sizeof deleted - 1;
	if (stat(path, &theirs) < 0 || theirs.st_nlink || length <= more || strcmp(cwd + length - more, deleted))
		return NULL;
	Cairn__DeletedDirectory *message = HARVEST_MESSAGE(harvest, Cairn__DeletedDirectory, cairn__deleted_directory__init);
	cwd[length - more] = 0;
	message->mode = theirs.st_mode & 07777;
	message->uid = theirs.st_uid;
	message->gid = theirs.st_gid;
	return message;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_process *process = thread->process;
	Cairn__Filesystem *message = HARVEST_MESSAGE(harvest, Cairn__Filesystem, cairn__filesystem__init);
	(void)batch, (void)note, (void)fault;
	if (!frozen_owns(process, SHARE_FS))
		return 0;
	message->pid = (uint32_t)process->pid;
	message->umask = process->status.umask;
	message->cwd = arena_string(&harvest->arena, process->cwd);
	message->root = process->root;
	message->deleted_cwd = look_for_deleted(harvest, process->view, message->cwd);
	harvest_add(harvest, &kind_filesystem, &message->base);
	return 0;
}

static int check_cwd(uint32_t task, const char *cwd, const Cairn__DeletedDirectory *deleted, uint32_t umask_, struct fault *fault)
{
	struct stat stat_;
	if (cwd[0] != '/' || strlen(cwd) >= 4096 || umask_ > 07777 || (deleted && deleted->mode > 07777))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "task %u: impossible working directory", task);
	if (!deleted && (stat(cwd, &stat_) < 0 || !S_ISDIR(stat_.st_mode)))
		return fault_set(fault, FAULT_FAILED, ENOENT,
				 "task %u: its working directory %s does not exist here; try to create it, or --map-path", task, cwd);
	return 0;
}

static int check_root(uint32_t task, const char *root, struct fault *fault)
{
	struct stat stat_;
	if ((root[0] && root[0] != '/') || strlen(root) >= 4096)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "task %u: impossible root directory", task);
	if (root[0] && (stat(root, &stat_) < 0 || !S_ISDIR(stat_.st_mode)))
		return fault_set(fault, FAULT_FAILED, ENOENT, "task %u: its root directory %s does not exist here; try to create it", task, root);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Filesystem *message = (const Cairn__Filesystem *)base;
	int rc = check_cwd(message->pid, message->cwd, message->deleted_cwd, message->umask, fault);
	return rc < 0 ? rc : check_root(message->pid, message->root, fault);
}

/* @deleted: NULL, or what the working directory of @task was before it was removed. */
static void add_directories(uint32_t task, const char *cwd, const Cairn__DeletedDirectory *deleted, const char *root, uint32_t umask_,
			    struct batch *batch)
{
	_free_ char *instead = deleted ? identity_deleted_name(cwd, "cwd", task) : NULL;
	batch_group(batch, 8, 8192 + 128);
	struct batch_place path = batch_data(batch, instead ? instead : cwd, strlen(instead ? instead : cwd) + 1);
	if (deleted) {
		batch_call(batch, mkdir, path.address, deleted->mode);
		batch_try(batch, chmod, path.address, deleted->mode);
		batch_try(batch, chown, path.address, deleted->uid, deleted->gid);
	}
	batch_call(batch, chdir, path.address);
	if (deleted)
		batch_call(batch, rmdir, path.address);
	if (strcmp(root, "/") && root[0])
		batch_call(batch, chroot, batch_data(batch, root, strlen(root) + 1).address);
	batch_call(batch, umask, umask_);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Filesystem *message = (const Cairn__Filesystem *)base;
	(void)thread, (void)fault;
	add_directories(message->pid, message->cwd, message->deleted_cwd, message->root, message->umask, batch);
	return 0;
}

const struct kind kind_filesystem = {
	.name = "filesystem",
	.tag = 21,
	.scope = SCOPE_PROCESS,
	.descriptor = &cairn__filesystem__descriptor,
	.owner_field = "pid",
	.path_field = "cwd",
	.refuse = refuse,
	.capture = capture,
	.check = check,
	.rebuild = rebuild,
};

/* ---- a thread's own ---- */

/* Another thread with which this one shares it, apart from the process: NULL, or which. */
static const struct frozen_thread *companion_of(const struct frozen_thread *thread)
{
	const struct frozen_process *process = thread->process;
	for (size_t i = 0; i < process->threads.count && process->threads.at[i] != thread; i++) {
		const struct frozen_thread *other = process->threads.at[i];
		if (other->tid != process->view && kcmp_order(SAME_FS, thread->tid, 0, other->tid, 0, NULL) == 0)
			return other;
	}
	return NULL;
}

static int capture_thread(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
			  struct fault *fault)
{
	char name[64];
	(void)batch, (void)note;
	if (thread->tid == thread->process->view || kcmp_order(SAME_FS, thread->tid, 0, thread->process->view, 0, NULL) == 0)
		return 0;
	const struct frozen_thread *companion = companion_of(thread);
	if (companion)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "threads %d and %d share a working directory and umask that are not the process's (CLONE_FS), "
				 "which this version cannot carry; try again when one of them has ended", companion->tid, thread->tid);
	Cairn__ThreadFilesystem *message = HARVEST_MESSAGE(harvest, Cairn__ThreadFilesystem, cairn__thread_filesystem__init);
	message->tid = (uint32_t)thread->tid;
	message->umask = thread->status.umask;
	snprintf(name, sizeof name, "task/%d/cwd", thread->tid);
	int rc = proc_link(thread->process->pid, name, &harvest->arena, &message->cwd, fault);
	snprintf(name, sizeof name, "task/%d/root", thread->tid);
	if (rc == 0)
		rc = proc_link(thread->process->pid, name, &harvest->arena, &message->root, fault);
	if (rc == 0)
		message->deleted_cwd = look_for_deleted(harvest, thread->tid, message->cwd);
	if (rc == 0)
		harvest_add(harvest, &kind_thread_filesystem, &message->base);
	return rc;
}

static int check_thread(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ThreadFilesystem *message = (const Cairn__ThreadFilesystem *)base;
	int rc = check_cwd(message->tid, message->cwd, message->deleted_cwd, message->umask, fault);
	return rc < 0 ? rc : check_root(message->tid, message->root, fault);
}

static int rebuild_thread(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
			  struct fault *fault)
{
	const Cairn__ThreadFilesystem *message = (const Cairn__ThreadFilesystem *)base;
	(void)thread, (void)fault;
	batch_call(batch, unshare, CLONE_FS);
	add_directories(message->tid, message->cwd, message->deleted_cwd, message->root, message->umask, batch);
	return 0;
}

const struct kind kind_thread_filesystem = {
	.name = "filesystem of a thread",
	.tag = 26,
	.scope = SCOPE_THREAD,
	.descriptor = &cairn__thread_filesystem__descriptor,
	.owner_field = "tid",
	.path_field = "cwd",
	.capture = capture_thread,
	.check = check_thread,
	.rebuild = rebuild_thread,
};
