/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"

int proc_descriptors_open(pid_t pid, struct proc_descriptors *ret_descriptors, struct fault *fault)
{
	_close_ int links = proc_open_directory(pid, "fd", true, fault);
	_close_ int infos = links < 0 ? links : proc_open_directory(pid, "fdinfo", false, fault);
	if (infos < 0)
		return infos;
	*ret_descriptors = (struct proc_descriptors){ pid, fd_steal(&links), fd_steal(&infos) };
	return 0;
}

void proc_descriptors_close(struct proc_descriptors *descriptors)
{
	close(descriptors->links);
	close(descriptors->infos);
}

static int fault_of(const struct proc_descriptors *descriptors, int fd, int error, struct fault *fault)
{
	char name[32];
	snprintf(name, sizeof name, "fd/%d", fd);
	return proc_fault(descriptors->pid, name, error, fault);
}

int proc_descriptors_list(const struct proc_descriptors *descriptors, struct pid_list *ret_list, struct fault *fault)
{
	int rc = proc_list_open(descriptors->links, ret_list);
	return rc < 0 ? proc_fault(descriptors->pid, "fd", -rc, fault) : 0;
}

int proc_descriptor_look(const struct proc_descriptors *descriptors, int fd, struct arena *arena, char **ret_link, struct stat *ret_stat,
			 struct text *text, struct fdinfo *ret_info, struct fault *fault)
{
	char name[16], target[PATH_MAX + 1];
	snprintf(name, sizeof name, "%d", fd);
	ssize_t length = readlinkat(descriptors->links, name, target, sizeof target);
	if (length < 0 || fstatat(descriptors->links, name, ret_stat, 0) < 0)
		return fault_of(descriptors, fd, errno, fault);
	if ((size_t)length == sizeof target)
		return fault_of(descriptors, fd, ENAMETOOLONG, fault);
	target[length] = 0;
	*ret_link = arena_string(arena, target);
	_close_ int info = openat(descriptors->infos, name, O_RDONLY | O_CLOEXEC);
	int rc = info < 0 ? -errno : proc_read_open(info, text);
	return rc < 0 ? fault_of(descriptors, fd, -rc, fault) : fdinfo_parse(text->at, ret_info, fault);
}
