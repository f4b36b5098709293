/* SPDX-License-Identifier: Apache-2.0 */
/* A file behind mappings: executable, libraries, data. Its path is what /proc/PID/smaps says; that the path still means the mapped file is
 * seen by comparing with /proc/PID/map_files (or, where that is not permitted, by inode). Put back by opening the path, after
 * its identity was checked. A deleted file's contents are in the image; it comes back without a name. An ordinary user reads them through
 * a descriptor, /proc/PID/exe, or the mappings themselves (hidden.c). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "kinds/files/saved_file.h"
#include "kinds/identity.h"
#include "kinds/kind.h"
#include "kinds/memory/hidden.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

static bool probe_map(const struct map *map)
{
	return map->inode && map->name[0] == '/';
}

static bool is_mapped(int fd, const struct map *map, struct stat *ret_stat)
{
	return fstat(fd, ret_stat) == 0 && ret_stat->st_ino == map->inode;
}

/* Where map_files is closed: by a link that shows the same file. A descriptor in the tree, or the executable, if it was deleted; else the
 * name. */
static int open_elsewhere(const struct harvest *harvest, const struct frozen_process *process, const struct map *map,
			  struct stat *ret_stat)
{
	char path[64];
	const struct frozen_file *file = map->deleted ? hidden_find_file(harvest, map) : NULL;
	int fd = -1;
	if (!map->deleted)
		return open(map->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (file) {
		snprintf(path, sizeof path, "/proc/%d/fd/%d", file->pid, file->fd);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd < 0) {
		snprintf(path, sizeof path, "/proc/%d/exe", process->view);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (fd >= 0 && !is_mapped(fd, map, ret_stat)) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		errno = EPERM;
	return fd;
}

/* -EPERM: it is deleted, and there is no way to open it. */
static int open_mapped(const struct harvest *harvest, const struct frozen_process *process, const struct map *map,
		       struct stat *ret_stat, struct fault *fault)
{
	char path[96];
	snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", process->view, (unsigned long long)map->start,
		 (unsigned long long)map->end);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fd = open_elsewhere(harvest, process, map, ret_stat);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "mapped file %s: %s", map->name, strerror(errno));
	if (!is_mapped(fd, map, ret_stat)) {
		close(fd);
		return fault_set(fault, FAULT_UNSUPPORTED, ESTALE,
				 "mapped file %s: another file has that name here; try as root", map->name);
	}
	return fd;
}

static int capture_hidden(struct harvest *harvest, const struct frozen_process *process, const struct map *map,
			  Cairn__MappedFile *message, struct fault *fault)
{
	const struct stat unknown = {
		.st_dev = map->device, .st_ino = map->inode, .st_mode = S_IFREG | 0600, .st_uid = process->status.uid[1],
		.st_gid = process->status.gid[1],
	};
	message->identity = identity_capture(harvest, -1, &unknown);
	message->deleted = true;
	harvest_add(harvest, &kind_mapped_file, &message->base);
	return hidden_add(harvest, process, map, message->id, &message->identity->size, fault);
}

/* Of a file that lost the name by which it was mapped, not by which others may have: sem_open(3) makes a semaphore under another name and gives it its own
 * then. It is still that file, and no deleted one. NULL: it has no other name, or none in that directory. */
static const char *living_name(struct harvest *harvest, const struct frozen_process *process, const struct map *map)
{
	char path[96];
	struct stat mapped;
	snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", process->view, (unsigned long long)map->start, (unsigned long long)map->end);
	if (stat(path, &mapped) == 0)
		return mapped.st_nlink ? identity_other_name(&harvest->arena, map->name, mapped.st_dev, mapped.st_ino) : NULL;
	return identity_other_name(&harvest->arena, map->name, map->device, map->inode);
}

static int capture_living(struct harvest *harvest, const struct frozen_process *process, const struct map *map, uint32_t *ret_object,
			  struct fault *fault)
{
	/* A deleted file's copy is one object, whoever maps or opens it, and always writable. */
	bool is_new, write = !map->deleted && map->shared && (map->flags & MAP_FLAG_MAY_WRITE);
	*ret_object = harvest_object(harvest, map->device, map->inode | (uint64_t)write << 63, &is_new);
	if (!is_new)
		return 0;
	struct stat mapped, named;
	Cairn__MappedFile *message = HARVEST_MESSAGE(harvest, Cairn__MappedFile, cairn__mapped_file__init);
	message->id = *ret_object;
	message->path = (char *)map->name;
	message->write = write;
	_close_ int fd = open_mapped(harvest, process, map, &mapped, fault);
	if (fd == -EPERM && map->deleted)
		return capture_hidden(harvest, process, map, message, fault);
	if (fd < 0)
		return fd;
	if (map->deleted && mapped.st_nlink && map->shared && (map->flags & MAP_FLAG_MAY_WRITE))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "mapped file %s: this name means something else here, and of its %lu others none is in that "
				 "directory: a copy would be another file; try to give the file its name again (ln)", map->name,
				 (unsigned long)mapped.st_nlink);
	message->identity = identity_capture(harvest, fd, &mapped);
	message->deleted = map->deleted || stat(map->name, &named) < 0 || named.st_dev != mapped.st_dev ||
			   named.st_ino != mapped.st_ino;
	if (message->deleted)
		harvest_contents(harvest, message->id, fd_steal(&fd), (uint64_t)mapped.st_size);
	int rc = 0;
	if (write && !message->deleted && (harvest->policy.save_files == SAVE_FILES_ALL || saved_file_is_memory(message->path, fd) ||
					   saved_file_is_passing(message->path, &mapped))) {
		char link[64];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		rc = saved_file_capture(harvest, link, message->path, true, fault);
	}
	if (rc == 0)
		harvest_add(harvest, &kind_mapped_file, &message->base);
	return rc;
}

static int capture_map(struct harvest *harvest, const struct frozen_process *process, const struct map *map,
		       uint32_t *ret_object, struct fault *fault)
{
	/* Of what is only mapped privately, a library that was installed anew, a copy is as good, and no directory is searched for it while the program stands still. */
	const char *name = map->deleted && map->shared ? living_name(harvest, process, map) : NULL;
	struct map living = *map;
	if (name) {
		living.name = name;
		living.deleted = false;
	}
	return capture_living(harvest, process, &living, ret_object, fault);
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__MappedFile *message = (const Cairn__MappedFile *)base;
	if (!message->id || !message->identity || !identity_path_valid(message->path))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "mapped file %u has impossible values", message->id);
	/* What the program writes to through the mapping changes by that alone. */
	return message->deleted ? 0 : identity_check(message->path, message->identity, message->write, fault);
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__MappedFile *message = (const Cairn__MappedFile *)base;
	int fd;
	if (message->deleted) {
		int rc = identity_make_deleted(message->path, message->identity, &fd, fault);
		if (rc < 0)
			return rc;
	} else {
		fd = open(message->path, (message->write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		if (fd < 0)
			return fault_set(fault, fault_class_of(errno), errno, "%s: %s", message->path, strerror(errno));
	}
	workshop_put(workshop, message->id, fd);
	return 0;
}

const struct kind kind_mapped_file = {
	.name = "mapped file",
	.tag = 32,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__mapped_file__descriptor,
	.owner_field = "id",
	.path_field = "path",
	.probe_map = probe_map,
	.capture_map = capture_map,
	.check = check,
	.make = make,
};
