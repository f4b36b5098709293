/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory without a name in the file system: MAP_SHARED|MAP_ANONYMOUS ("/dev/zero") and memfd_create(2), mapped or open as a
 * descriptor. Contents are read through /proc/PID/map_files or a descriptor, only where there is data; where neither can be had,
 * through the mappings themselves (hidden.c). Put back: an anonymous one by mapping it in Cairn and opening that through its own
 * map_files, so that it is the same kind of object again; where that is closed, as a memfd, whose name in /proc/PID/maps is all that
 * differs, and which is taken for the anonymous one that it was at the next checkpoint. A memfd by name. In huge pages (MAP_HUGETLB, MFD_HUGETLB) where
 * it was: such memory cannot be written by write(2), and what is private of it has no object. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "files.pb-c.h"
#include "kinds/files/open_file.h"
#include "kinds/kind.h"
#include "kinds/memory/hidden.h"
#include "kinds/table.h"
#include "memory.pb-c.h"

static const char memfd_prefix[] = "/memfd:";
/* The name of what stands for an anonymous one. */
static const char stand_in[] = "/memfd:dev-zero";

/* PR_SET_VMA_ANON_NAME of a shared mapping, with CONFIG_ANON_VMA_NAME: what would be "/dev/zero". */
static bool is_named_anonymous(const struct map *map)
{
	return map->shared && !strncmp(map->name, "[anon_shmem:", 12);
}

static bool is_memfd(const char *name)
{
	return !strncmp(name, memfd_prefix, sizeof memfd_prefix - 1);
}

static bool probe_map(const struct map *map)
{
	if (map->inode && is_named_anonymous(map))
		return true;
	return map->inode && map->deleted && ((map->shared && !strcmp(map->name, "/dev/zero")) || is_memfd(map->name) ||
					      map_is_huge_anonymous(map));
}

/* Bytes, 0: ordinary pages. */
static uint64_t huge_page_size(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : 0;
}

static Cairn__SharedMemory *new_object(struct harvest *harvest, uint32_t id, const char *name)
{
	Cairn__SharedMemory *message = HARVEST_MESSAGE(harvest, Cairn__SharedMemory, cairn__shared_memory__init);
	message->id = id;
	message->memfd = is_memfd(name) && strcmp(name, stand_in);
	message->name = message->memfd ? arena_string(&harvest->arena, name + sizeof memfd_prefix - 1) : "";
	message->mode = S_IFREG | 0777;
	harvest_add(harvest, &kind_shared_memory, &message->base);
	return message;
}

/* Takes @fd. */
static int add_object(struct harvest *harvest, uint32_t id, int fd, const char *name, struct fault *fault)
{
	struct stat stat_;
	if (fstat(fd, &stat_) < 0) {
		int error = errno;
		close(fd);
		return fault_set(fault, fault_class_of(error), error, "shared memory %s: %s", name, strerror(error));
	}
	Cairn__SharedMemory *message = new_object(harvest, id, name);
	message->size = (uint64_t)stat_.st_size;
	int seals = fcntl(fd, F_GET_SEALS);
	message->seals = seals > 0 ? (uint32_t)seals : 0;
	message->mode = stat_.st_mode;
	message->huge_page_size = huge_page_size(fd);
	harvest_contents(harvest, id, fd, message->size);
	return 0;
}

/* By a descriptor of the tree's, which is opened anew: its position is the program's. */
static int add_open_object(struct harvest *harvest, uint32_t id, struct frozen_file *file, struct fault *fault)
{
	char path[64];
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof path, "/proc/self/fd/%d", own);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s", file->link, strerror(errno));
	return add_object(harvest, id, fd, file->link, fault);
}

static int capture_map(struct harvest *harvest, const struct frozen_process *process, const struct map *map,
		       uint32_t *ret_object, struct fault *fault)
{
	bool is_new;
	char path[96];
	if (!map->shared && map_is_huge_anonymous(map)) {
		*ret_object = 0;
		return 0;
	}
	*ret_object = harvest_object(harvest, map->device, map->inode, &is_new);
	if (!is_new)
		return 0;
	snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", process->view, (unsigned long long)map->start,
		 (unsigned long long)map->end);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == EPERM) {
		struct frozen_file *file = hidden_find_file(harvest, map);
		if (file)
			return add_open_object(harvest, *ret_object, file, fault);
		Cairn__SharedMemory *message = new_object(harvest, *ret_object, map->name);
		message->huge_page_size = map->flags & MAP_FLAG_HUGETLB ? map->page_size : 0;
		return hidden_add(harvest, process, map, *ret_object, &message->size, fault);
	}
	if (fd < 0 && errno == EMFILE)
		return fault_set(fault, FAULT_UNSUPPORTED, EMFILE, "shared memory at 0x%llx: there are more objects of it than Cairn may have descriptors (%zu so far); "
				 "try to raise `ulimit -Hn`", (unsigned long long)map->start, harvest->contents.count);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "shared memory at 0x%llx: open %s: %s",
				 (unsigned long long)map->start, path, strerror(errno));
	return add_object(harvest, *ret_object, fd, map->name, fault);
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SharedMemory *message = (const Cairn__SharedMemory *)base;
	uint64_t huge = message->huge_page_size;
	if (!message->id || message->size > INT64_MAX || strlen(message->name) > 249 || huge & (huge - 1) || (huge && message->size & (huge - 1)))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "shared memory %u has impossible values", message->id);
	return 0;
}

/* Flags of mmap(2) and memfd_create(2) for pages of that size: the two agree in where it stands. */
static int huge_flags(uint64_t page_size, int flag)
{
	return page_size ? flag | (__builtin_ctzll(page_size) << MFD_HUGE_SHIFT) : 0;
}

static int make_anonymous(const Cairn__SharedMemory *message)
{
	uint64_t size = message->size;
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE |
			    huge_flags(message->huge_page_size, MAP_HUGETLB), -1, 0);
	if (memory == MAP_FAILED)
		return -1;
	char path[96];
	uint64_t end = (uint64_t)(uintptr_t)memory + ((size + 4095) & ~UINT64_C(4095));
	snprintf(path, sizeof path, "/proc/self/map_files/%llx-%llx", (unsigned long long)(uintptr_t)memory,
		 (unsigned long long)end);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	munmap(memory, size);
	return fd;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SharedMemory *message = (const Cairn__SharedMemory *)base;
	int fd = message->memfd || !message->size ? -1 : make_anonymous(message);
	if (fd < 0) {
		if (!message->memfd)
			log_debug("shared memory %u: /proc/self/map_files is closed, so it becomes a memfd", message->id);
		fd = memfd_create(message->memfd ? message->name : stand_in + sizeof memfd_prefix - 1,
				  (unsigned)(MFD_CLOEXEC | MFD_ALLOW_SEALING | huge_flags(message->huge_page_size, MFD_HUGETLB)));
		if (fd < 0 || ftruncate(fd, (off_t)message->size) < 0 || fchmod(fd, message->mode & 07777) < 0)
			return fault_set(fault, fault_class_of(errno), errno, "shared memory %u of %llu bytes: %s",
					 message->id, (unsigned long long)message->size, strerror(errno));
	}
	workshop_put(workshop, message->id, fd);
	return 0;
}

static int settle(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SharedMemory *message = (const Cairn__SharedMemory *)base;
	if (!message->memfd || !message->seals)
		return 0;
	if (fcntl(workshop_fd(workshop, message->id), F_ADD_SEALS, (int)message->seals) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "memfd %s: seals: %s", message->name,
				 strerror(errno));
	return 0;
}

const struct kind kind_shared_memory = {
	.name = "shared memory",
	.tag = 33,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__shared_memory__descriptor,
	.owner_field = "id",
	.probe_map = probe_map,
	.capture_map = capture_map,
	.check = check,
	.make = make,
	.settle = settle,
};

/* ---- an open memfd ---- */

/* memfd_secret(2) */
static bool is_secret(const struct frozen_file *file)
{
	/* Its inode has a link by count and none by name (6.18): the name is not cut as that of a deleted file. */
	return !strcmp(file->link, "/secretmem (deleted)") || (file->deleted && !strcmp(file->link, "/secretmem"));
}

static bool probe(const struct frozen_file *file)
{
	return S_ISREG(file->stat.st_mode) && (is_memfd(file->link) || is_secret(file));
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	(void)harvest;
	return is_secret(file) ? fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					   "secret memory (memfd_secret), which the kernel shows to nobody; try to checkpoint when the program "
					   "has closed it") : 0;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	bool is_new;
	Cairn__SharedMemoryFile *message = HARVEST_MESSAGE(harvest, Cairn__SharedMemoryFile,
							   cairn__shared_memory_file__init);
	message->open = open_file_capture(harvest, file);
	message->memory = harvest_object(harvest, file->stat.st_dev, file->stat.st_ino, &is_new);
	if (is_new) {
		int rc = add_open_object(harvest, message->memory, file, fault);
		if (rc < 0)
			return rc;
	}
	harvest_add(harvest, &kind_memfd, &message->base);
	return 0;
}

static uint32_t needs_memory(const ProtobufCMessage *base)
{
	return ((const Cairn__SharedMemoryFile *)base)->memory;
}

static int make_file(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SharedMemoryFile *message = (const Cairn__SharedMemoryFile *)base;
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", workshop_fd(workshop, message->memory));
	return open_file_make(workshop, message->open, path, true, fault);
}

const struct kind kind_memfd = {
	.name = "memfd",
	.tag = 58,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__shared_memory_file__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.needs = needs_memory,
	.make = make_file,
};
