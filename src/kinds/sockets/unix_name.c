/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sockets/unix_name.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "kinds/identity.h"
#include "kinds/sockets/unix.h"

enum { NAME_MOST = sizeof((struct sockaddr_un *)NULL)->sun_path };

socklen_t unix_address(const ProtobufCBinaryData *name, struct sockaddr_un *ret_address)
{
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (name->len)
		memcpy(ret_address->sun_path, name->data, name->len);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + name->len);
}

/* The name as text; its terminating NUL may be in it or not. */
static void name_text(const ProtobufCBinaryData *name, char text[NAME_MOST + 1])
{
	memcpy(text, name->data, name->len);
	text[name->len] = 0;
}

static bool is_relative(const Cairn__UnixSocket *message)
{
	return message->name.data[0] != '/';
}

/* Where the name is to be looked up from, and under what: the working directory of old, or, when its path was mapped, the file's own. */
static void split_path(const Cairn__UnixSocket *message, char *directory, size_t space, const char **ret_name)
{
	char text[NAME_MOST + 1];
	const char *path = message->path;
	name_text(&message->name, text);
	size_t whole = strlen(path), own = strlen(text);
	const char *at = whole > own && path[whole - own - 1] == '/' && !strcmp(path + whole - own, text) ?
				 path + whole - own : strrchr(path, '/') + 1;
	snprintf(directory, space, "%.*s", (int)(at - path), path);
	*ret_name = at;
}

int unix_check_path(const Cairn__UnixSocket *message, struct fault *fault)
{
	char directory[4096];
	const char *name;
	if (!identity_path_valid(message->path) || message->name.data[0] == 0)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "Unix socket with an impossible path");
	split_path(message, directory, sizeof directory, &name);
	if (strlen(is_relative(message) ? name : message->path) >= NAME_MOST)
		return fault_set(fault, FAULT_FAILED, ENAMETOOLONG,
				 "%s: is too long for a socket's name (%d bytes); try a --map-path with a shorter NEW", message->path,
				 NAME_MOST - 1);
	struct stat stat;
	if (lstat(message->path, &stat) == 0 && !S_ISSOCK(stat.st_mode))
		return fault_set(fault, FAULT_FAILED, EEXIST,
				 "%s: was a socket, and is another type of file now; try to move it away, or --map-path",
				 message->path);
	char *slash = strrchr(directory, '/');
	slash[slash == directory] = 0;
	if (access(directory, W_OK | X_OK) < 0 && !(message->directory && identity_may_make_directory(message->path)))
		return fault_set(fault, errno == EACCES ? FAULT_PERMISSION : FAULT_FAILED, errno,
				 "%s: no socket can be made in %s: %s; try to make that directory, or --map-path", message->path,
				 directory, strerror(errno));
	return 0;
}

/* A socket's file that is in the way: stale ones go, live ones are somebody's. */
static int clear_path(struct workshop *workshop, const char *path, struct fault *fault)
{
	struct stat stat;
	const struct unix_sockets *all;
	if (lstat(path, &stat) < 0)
		return 0;
	int rc = bench_unix_sockets(workshop, &all, fault);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < all->count; i++)
		if (all->at[i].has_file && all->at[i].file_inode == (uint32_t)stat.st_ino &&
		    all->at[i].file_device == stat.st_dev)
			return fault_set(fault, FAULT_FAILED, EADDRINUSE,
					 "%s: is another program's socket now (inode %u); try to end that program, or --map-path",
					 path, all->at[i].inode);
	if (!S_ISSOCK(stat.st_mode) || unlink(path) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "%s: an old socket is in the way: %s", path, strerror(errno));
	return 0;
}

/* What a failed restore made goes again. */
static void remove_file(uint64_t path)
{
	unlink((const char *)(uintptr_t)path);
}

static int bind_in(const char *directory, const char *name, int fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_close_ int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	mode_t mask = umask(0177);
	memcpy(address.sun_path, name, strlen(name));
	int rc = before < 0 || (directory && chdir(directory) < 0) ? -errno : 0;
	if (rc == 0 && bind(fd, (const struct sockaddr *)&address,
			    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name) + 1)) < 0)
		rc = -errno;
	if (directory && before >= 0 && fchdir(before) < 0 && rc == 0)
		rc = -errno;
	umask(mask);
	return rc;
}

static int bind_path(struct workshop *workshop, const Cairn__UnixSocket *message, int fd, struct fault *fault)
{
	char directory[4096];
	const char *name;
	int rc = clear_path(workshop, message->path, fault);
	if (rc < 0)
		return rc;
	split_path(message, directory, sizeof directory, &name);
	if (message->directory)
		identity_make_directory(workshop, message->path, message->directory);
	rc = is_relative(message) ? bind_in(directory, name, fd) : bind_in(NULL, message->path, fd);
	if (rc < 0)
		return fault_set(fault, fault_class_of(-rc), -rc, "bind %s: %s", message->path, strerror(-rc));
	workshop_on_failure(workshop, remove_file, (uint64_t)(uintptr_t)message->path);
	rc = identity_give(message->path, S_IFSOCK, message->file_uid, message->file_gid, message->mode);
	return rc < 0 ? fault_set(fault, FAULT_FAILED, -rc, "%s: owner and mode: %s", message->path, strerror(-rc)) : 0;
}

/* Sockets of a process that was just killed may close a moment after it is gone (those on their way in others wait for the collector of
 * net/unix/garbage.c): a name that is taken may be free soon. */
static int bind_abstract(int fd, const struct sockaddr_un *address, socklen_t size)
{
	const uint64_t patience_ns = 2000000000, until = clock_now_ns() + patience_ns;
	while (bind(fd, (const struct sockaddr *)address, size) < 0) {
		if (errno != EADDRINUSE || clock_now_ns() > until)
			return -errno;
		clock_sleep_ns(5000000);
	}
	return 0;
}

int unix_bind_unseen(struct workshop *workshop, const ProtobufCBinaryData *name, int fd, int *ret_directory, struct fault *fault)
{
	struct sockaddr_un address;
	socklen_t size = unix_address(name, &address);
	*ret_directory = -1;
	if (!name->data[0]) {
		int rc = bind_abstract(fd, &address, size);
		return rc == 0 ? 0 : fault_set(fault, FAULT_FAILED, -rc, "bind the abstract name @%.*s: %s; try to end the program "
					       "that has it now", (int)name->len - 1, (const char *)name->data + 1, strerror(-rc));
	}
	struct actor *stage;
	int rc = actor_stage(workshop, &stage, fault);
	return rc < 0 ? rc : actor_bind(stage, fd, &address, size, ret_directory, fault);
}

int unix_bind(struct workshop *workshop, const Cairn__UnixSocket *message, int fd, struct fault *fault)
{
	int directory = -1;
	if (!message->name.len || message->accepted)
		return 0;
	if (message->path[0])
		return bind_path(workshop, message, fd, fault);
	int rc = unix_bind_unseen(workshop, &message->name, fd, &directory, fault);
	/* A datagram socket may still be reached by those that were connected to it. */
	if (rc == 0 && directory >= 0 && message->socket->type == SOCK_DGRAM &&
	    workshop_second(workshop, message->open->file) < 0)
		workshop_put_second(workshop, message->open->file, directory);
	else if (directory >= 0)
		close(directory);
	return rc;
}

socklen_t unix_reach_in(int directory, const ProtobufCBinaryData *name, struct sockaddr_un *ret_address)
{
	char text[NAME_MOST + 1];
	name_text(name, text);
	const char *last = strrchr(text, '/');
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	/* A name of 80 bytes and more after its last slash does not fit behind this; nobody has one. */
	snprintf(ret_address->sun_path, NAME_MOST, "/proc/self/fd/%d/%.80s", directory, last ? last + 1 : text);
	return (socklen_t)sizeof *ret_address;
}

int unix_reach_path(const char *path, struct sockaddr_un *ret_address, socklen_t *ret_size, int *ret_directory,
		    struct fault *fault)
{
	char directory[4096];
	const char *slash = strrchr(path, '/');
	snprintf(directory, sizeof directory, "%.*s", (int)(slash - path) + 1, path);
	int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s", directory, strerror(errno));
	ProtobufCBinaryData name = { strlen(slash + 1), (uint8_t *)(uintptr_t)(slash + 1) };
	if (name.len >= NAME_MOST) {
		close(fd);
		return fault_set(fault, FAULT_FAILED, ENAMETOOLONG, "%s: is too long for a socket's name", path);
	}
	*ret_size = unix_reach_in(fd, &name, ret_address);
	*ret_directory = fd;
	return 0;
}

int unix_reach(const struct workshop *workshop, const Cairn__UnixSocket *message, struct sockaddr_un *ret_address,
	       socklen_t *ret_size, struct fault *fault)
{
	if (!message->name.len)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: a socket without a name is connected to");
	if (message->path[0]) {
		if (strlen(message->path) >= NAME_MOST)
			return fault_set(fault, FAULT_FAILED, ENAMETOOLONG, "%s: is too long to be connected to; try a "
					 "--map-path with a shorter NEW", message->path);
		*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
		memcpy(ret_address->sun_path, message->path, strlen(message->path));
		*ret_size = (socklen_t)sizeof *ret_address;
		return 0;
	}
	if (!message->name.data[0]) {
		*ret_size = unix_address(&message->name, ret_address);
		return 0;
	}
	int directory = workshop_second(workshop, message->open->file);
	if (directory < 0)
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "a socket whose file is gone cannot be reached any more");
	*ret_size = unix_reach_in(directory, &message->name, ret_address);
	return 0;
}
