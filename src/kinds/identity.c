/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/identity.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

enum { BUILD_ID_MAX = 64, PROGRAM_HEADERS_MAX = 64, NOTES_MAX = 4096 };

/* The GNU build-id note of a 64-bit ELF file; its length, 0: none. */
static size_t build_id_in_notes(const uint8_t *notes, size_t size, uint8_t *ret_id)
{
	for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= size;) {
		Elf64_Nhdr note;
		memcpy(&note, notes + at, sizeof note);
		size_t name = at + sizeof note, data = name + ((note.n_namesz + 3u) & ~(size_t)3);
		if (note.n_namesz > size || note.n_descsz > size || data + note.n_descsz > size)
			return 0;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && !memcmp(notes + name, "GNU", 4) &&
		    note.n_descsz <= BUILD_ID_MAX) {
			memcpy(ret_id, notes + data, note.n_descsz);
			return note.n_descsz;
		}
		at = data + ((note.n_descsz + 3u) & ~(size_t)3);
	}
	return 0;
}

static size_t build_id_read(int fd, uint8_t *ret_id)
{
	Elf64_Ehdr header;
	if (fd_pread_full(fd, &header, sizeof header, 0) < 0 || memcmp(header.e_ident, ELFMAG, SELFMAG) ||
	    header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr))
		return 0;
	for (unsigned i = 0; i < header.e_phnum && i < PROGRAM_HEADERS_MAX; i++) {
		Elf64_Phdr program;
		uint8_t notes[NOTES_MAX];
		if (fd_pread_full(fd, &program, sizeof program, header.e_phoff + i * sizeof program) < 0)
			return 0;
		if (program.p_type != PT_NOTE || program.p_filesz > sizeof notes ||
		    fd_pread_full(fd, notes, program.p_filesz, program.p_offset) < 0)
			continue;
		size_t length = build_id_in_notes(notes, program.p_filesz, ret_id);
		if (length)
			return length;
	}
	return 0;
}

Cairn__FileIdentity *identity_capture(struct harvest *harvest, int fd, const struct stat *stat)
{
	Cairn__FileIdentity *identity = HARVEST_MESSAGE(harvest, Cairn__FileIdentity, cairn__file_identity__init);
	identity->device = stat->st_dev;
	identity->inode = stat->st_ino;
	identity->size = (uint64_t)stat->st_size;
	identity->modified_s = stat->st_mtim.tv_sec;
	identity->modified_ns = (uint32_t)stat->st_mtim.tv_nsec;
	identity->mode = stat->st_mode;
	identity->uid = stat->st_uid;
	identity->gid = stat->st_gid;
	uint8_t id[BUILD_ID_MAX];
	size_t length = fd >= 0 && S_ISREG(stat->st_mode) ? build_id_read(fd, id) : 0;
	identity->build_id.data = arena_copy(&harvest->arena, id, length);
	identity->build_id.len = length;
	return identity;
}

bool identity_path_valid(const char *path)
{
	return path[0] == '/' && strlen(path) < 4096;
}

static bool same_build(const char *path, const Cairn__FileIdentity *identity)
{
	uint8_t id[BUILD_ID_MAX];
	_close_ int fd = identity->build_id.len ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	return fd >= 0 && build_id_read(fd, id) == identity->build_id.len &&
	       !memcmp(id, identity->build_id.data, identity->build_id.len);
}

int identity_check(const char *path, const Cairn__FileIdentity *identity, bool any_size, struct fault *fault)
{
	struct stat now;
	if (!identity_path_valid(path))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "impossible path");
	if ((identity && S_ISLNK(identity->mode) ? lstat(path, &now) : stat(path, &now)) < 0)
		return fault_set(fault, errno == EACCES ? FAULT_PERMISSION : FAULT_FAILED, errno,
				 "%s: %s; try to put the file back that was there at the checkpoint, or --map-path", path,
				 errno == ENOENT ? "is missing here" : strerror(errno));
	if (!identity)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "%s: no identity", path);
	if ((now.st_mode & S_IFMT) != (identity->mode & S_IFMT))
		return fault_set(fault, FAULT_FAILED, EINVAL, "%s: is another type of file now; try to put the old one back",
				 path);
	bool same = (uint64_t)now.st_size == identity->size && now.st_mtim.tv_sec == identity->modified_s &&
		    (uint32_t)now.st_mtim.tv_nsec == identity->modified_ns;
	if (any_size || same || !S_ISREG(now.st_mode) || same_build(path, identity))
		return 0;
	if ((uint64_t)now.st_size != identity->size)
		return fault_set(fault, FAULT_FAILED, (uint64_t)now.st_size > identity->size ? EFBIG : ESTALE,
				 "%s: has changed since the checkpoint (%llu bytes now, %llu then); try to put the old "
				 "file back, or --file-changed ignore (or rollback, if it only grew or its contents are in the image)", path, (unsigned long long)now.st_size,
				 (unsigned long long)identity->size);
	return fault_set(fault, FAULT_FAILED, ESTALE,
			 "%s: was modified since the checkpoint; try to put the old file back, or --file-changed ignore (or rollback, if its contents are "
			 "in the image: --save-files)",
			 path);
}

static bool names(const char *path, uint64_t device, uint64_t inode)
{
	struct stat now;
	return lstat(path, &now) == 0 && now.st_dev == device && now.st_ino == inode;
}

char *identity_other_name(struct arena *arena, const char *lost, uint64_t device, uint64_t inode)
{
	_free_ char *directory = memory_string(lost);
	char *slash = strrchr(directory, '/'), *found = NULL;
	if (!slash)
		return NULL;
	slash[slash == directory] = 0;
	DIR *listing = opendir(directory);
	if (!listing)
		return NULL;
	for (struct dirent *entry; !found && (entry = readdir(listing));) {
		/* On an overlay the number in the directory may be another file system's. */
		if (entry->d_type != DT_REG && entry->d_type != DT_UNKNOWN)
			continue;
		_free_ char *path = memory_format("%s/%s", slash == directory ? "" : directory, entry->d_name);
		if (names(path, device, inode))
			found = arena_string(arena, path);
	}
	closedir(listing);
	return found;
}

char *identity_deleted_name(const char *path, const char *what, uint32_t number)
{
	_free_ char *parent = memory_string(path);
	char *slash = strrchr(parent, '/');
	if (slash)
		slash[slash == parent] = 0;
	struct stat taken;
	bool is_there = slash && access(parent, W_OK | X_OK) == 0;
	if (is_there && lstat(path, &taken) < 0 && errno == ENOENT)
		return memory_string(path); /* /proc shows it as before */
	return memory_format("%s/.cairn-%d-%s-%u", is_there ? parent : "/tmp", getpid(), what, number);
}

int identity_make_deleted(const char *path, const Cairn__FileIdentity *identity, int *ret_fd, struct fault *fault)
{
	char directory[4096];
	snprintf(directory, sizeof directory, "%s", path);
	char *slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = 0;
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, identity->mode & 07777);
	if (fd < 0)
		fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, identity->mode & 07777);
	if (fd < 0)
		fd = memfd_create(slash ? slash + 1 : "deleted", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)identity->size) < 0) {
		int error = errno;
		if (fd >= 0)
			close(fd);
		return fault_set(fault, fault_class_of(error), error, "cannot make a file for the deleted %s: %s", path,
				 strerror(error));
	}
	if (fchown(fd, identity->uid, identity->gid) < 0 || fchmod(fd, identity->mode & 07777) < 0) {
		/* An ordinary user's own: the owner is right already. */
	}
	*ret_fd = fd;
	return 0;
}

int identity_give(const char *path, mode_t type, uint32_t uid, uint32_t gid, mode_t mode)
{
	_close_ int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat made;
	char link[32];
	if (fd < 0 || fstat(fd, &made) < 0)
		return -errno;
	if ((made.st_mode & S_IFMT) != type)
		return -ESTALE;
	if (made.st_uid != geteuid()) /* or a file server takes root for somebody else */
		return -EPERM;
	if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 && geteuid() == 0)
		return -errno;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	return chmod(link, mode & 07777) < 0 ? -errno : 0; /* fchmod(2) refuses O_PATH */
}

/* Those of file-hierarchy(7). */
static const char *const passing_places[] = { "/tmp/", "/var/tmp/", "/run/", "/dev/shm/" };

/* What of @path comes behind such a place, NULL: it lies in none. */
static const char *within_place(const char *path)
{
	for (size_t i = 0; i < sizeof passing_places / sizeof *passing_places; i++)
		if (!strncmp(path, passing_places[i], strlen(passing_places[i])))
			return path + strlen(passing_places[i]);
	return NULL;
}

bool identity_in_passing_place(const char *path)
{
	return within_place(path) != NULL;
}

/* The directory of @path, if it lies in a place for temporary files itself: in there nobody can put another in its stead. */
static bool passing_directory(const char *path, char directory[PATH_MAX])
{
	const char *within = within_place(path), *slash = within ? strchr(within, '/') : NULL;
	if (!slash || strchr(slash + 1, '/') || strlen(path) >= PATH_MAX)
		return false;
	snprintf(directory, PATH_MAX, "%.*s", (int)(slash - path), path);
	return true;
}

Cairn__FileIdentity *identity_of_directory(struct harvest *harvest, const char *path)
{
	char directory[PATH_MAX];
	struct stat stat_;
	return passing_directory(path, directory) && lstat(directory, &stat_) == 0 && S_ISDIR(stat_.st_mode) ?
		identity_capture(harvest, -1, &stat_) : NULL;
}

bool identity_may_make_directory(const char *path)
{
	char directory[PATH_MAX];
	struct stat now;
	return passing_directory(path, directory) && lstat(directory, &now) < 0 && errno == ENOENT;
}

/* The janitor may call this: nothing is allocated. */
static void unmake_directory(uint64_t path)
{
	char directory[PATH_MAX];
	if (passing_directory((const char *)(uintptr_t)path, directory))
		rmdir(directory);
}

void identity_make_directory(struct workshop *workshop, const char *path, const Cairn__FileIdentity *identity)
{
	char directory[PATH_MAX];
	if (!passing_directory(path, directory) || mkdir(directory, 0700) < 0)
		return;
	workshop_on_failure(workshop, unmake_directory, (uint64_t)(uintptr_t)path);
	identity_give(directory, S_IFDIR, identity->uid, identity->gid, identity->mode);
}
