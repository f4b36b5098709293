/* SPDX-License-Identifier: Apache-2.0 */
/* pidfd_open(2): the process, from fdinfo ("Pid: 4121"; -1: it has ended and was waited for; "NSpid" in its innermost namespace). Of a process
 * of the tree, running or a zombie, it is opened again when all processes exist. Of one that is gone, it is made of a process of Cairn's
 * that ends and is waited for. A pidfd of a process outside the tree is refused.
 * Exit information that a pidfd keeps (PIDFD_GET_INFO, 6.15) of a process that is gone is not carried. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kinds/files/open_file.h"
#include "kinds/table.h"

enum { PIDFD_THREAD_ = O_EXCL }; /* include/uapi/linux/pidfd.h, 6.9 */

static bool probe(const struct frozen_file *file)
{
	/* In a file system of its own since 6.9. */
	return !strcmp(file->link, "anon_inode:[pidfd]") || !strncmp(file->link, "pidfd:", 6);
}

static pid_t process_of(const struct frozen_file *file)
{
	_free_ char *text = frozen_file_fdinfo(file);
	char *cursor = text;
	const char *key, *value;
	while (fdinfo_next(&cursor, &key, &value))
		if (!strcmp(key, "Pid"))
			return (pid_t)strtol(value, NULL, 10);
	return -1;
}

static bool is_inside(const struct harvest *harvest, pid_t pid)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		if (process->pid == pid)
			return true;
	}
	return false;
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	pid_t pid = process_of(file);
	/* A running tree comes and goes. */
	if (!harvest->frozen || pid <= 0 || is_inside(harvest, pid))
		return pid == 0 ? fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "pidfd: of a process in another PID namespace; try from "
					    "inside that namespace") : 0;
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "pidfd: of %d, which is no process of the tree; try to checkpoint a common parent, or again when the program has "
			 "closed it", pid);
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Pidfd *message = HARVEST_MESSAGE(harvest, Cairn__Pidfd, cairn__pidfd__init);
	pid_t pid = process_of(file);
	(void)fault;
	message->open = open_file_capture(harvest, file);
	message->pid = pid > 0 ? (uint32_t)pid : 0;
	message->thread = file->info.flags & PIDFD_THREAD_;
	harvest_add(harvest, &kind_pidfd, &message->base);
	return 0;
}

/* Of a process that has just ended. */
static int open_ended(void)
{
	int fd = -1, status;
	struct clone_args args = { .flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)&fd, .exit_signal = SIGCHLD };
	pid_t child = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (child == 0)
		syscall(SYS_exit, 0);
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return -1;
	return fd;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Pidfd *message = (const Cairn__Pidfd *)base;
	int fd;
	if (message->pid)
		fd = (int)syscall(SYS_pidfd_open, workshop_task(workshop, message->pid), message->thread ? PIDFD_THREAD_ : 0);
	else
		fd = open_ended();
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "pidfd of process %u: %s", message->pid, strerror(errno));
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_pidfd = {
	.name = "pidfd",
	.tag = 63,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__pidfd__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.make = make,
};
