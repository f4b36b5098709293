/* SPDX-License-Identifier: Apache-2.0 */
/* Working directory and umask: links and status of /proc/PID. Put back by path. A root directory other than Cairn's own is refused. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kinds/kind.h"
#include "kinds/table.h"
#include "tasks.pb-c.h"

static int refuse(const struct harvest *harvest, const struct frozen_process *process, struct fault *fault)
{
	(void)harvest;
	struct stat mine, theirs;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/root/.", process->pid);
	if (stat("/", &mine) == 0 && stat(path, &theirs) == 0 &&
	    (mine.st_dev != theirs.st_dev || mine.st_ino != theirs.st_ino))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "has another root directory (chroot %s), which this version cannot carry; try to run "
				 "cairn inside that root", process->root);
	snprintf(path, sizeof path, "/proc/%d/cwd/.", process->pid);
	if (stat(path, &theirs) == 0 && theirs.st_nlink == 0)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOENT,
				 "its working directory %s is deleted; try again when the program has changed to another",
				 process->cwd);
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_process *process = thread->process;
	Cairn__Filesystem *message = HARVEST_MESSAGE(harvest, Cairn__Filesystem, cairn__filesystem__init);
	(void)batch, (void)note, (void)fault;
	message->pid = (uint32_t)process->pid;
	message->umask = process->status.umask;
	message->cwd = process->cwd;
	message->root = process->root;
	harvest_add(harvest, &kind_filesystem, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Filesystem *message = (const Cairn__Filesystem *)base;
	struct stat stat_;
	if (message->cwd[0] != '/' || strlen(message->cwd) >= 4096 || message->umask > 07777)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "process %u: impossible working directory", message->pid);
	if (stat(message->cwd, &stat_) < 0 || !S_ISDIR(stat_.st_mode))
		return fault_set(fault, FAULT_FAILED, ENOENT,
				 "process %u: its working directory %s does not exist here; try to create it, or --map-path", message->pid,
				 message->cwd);
	return 0;
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Filesystem *message = (const Cairn__Filesystem *)base;
	(void)thread, (void)fault;
	struct batch_place path = batch_data(batch, message->cwd, strlen(message->cwd) + 1);
	batch_call(batch, chdir, path.address);
	batch_call(batch, umask, message->umask);
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
