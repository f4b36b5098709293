/* SPDX-License-Identifier: Apache-2.0 */
#include "job/registry.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"

static const char suffix[] = ".sock";

bool registry_name_valid(const char *name)
{
	size_t length = strlen(name);
	if (!length || length > JOB_NAME_MAX || name[0] == '.' || name[0] == '-' || !name[strspn(name, "0123456789")])
		return false;
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("._-+", *c))
			return false;
	return true;
}

/* A directory of the user's own, which nobody else can enter or replace. */
static bool is_private(const char *path, uid_t uid)
{
	struct stat status;
	return lstat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == uid && !(status.st_mode & 077);
}

/* The candidates, best first: the session's directory, the system's, one in /tmp. */
static char *candidate(uid_t uid, int number)
{
	const char *session = uid == getuid() ? getenv("XDG_RUNTIME_DIR") : NULL;
	switch (number) {
	case 0:
		return session && session[0] == '/' ? memory_format("%s/cairn", session) : memory_string("");
	case 1:
		return uid ? memory_format("/run/user/%u/cairn", uid) : memory_string("/run/cairn");
	case 2:
		return memory_format("/tmp/cairn-%u", uid);
	default:
		return NULL;
	}
}

/* The directory to make sockets in; made when it is not there. */
static char *own_directory(struct fault *fault)
{
	uid_t uid = getuid();
	for (int i = 0;; i++) {
		char *path = candidate(uid, i);
		if (!path) {
			fault_set(fault, FAULT_PERMISSION, EACCES,
				  "no directory for the job's control socket: /tmp/cairn-%u is not this user's alone; try to set "
				  "XDG_RUNTIME_DIR to a directory of mode 0700", uid);
			return NULL;
		}
		if (path[0] && (mkdir(path, 0700) == 0 || errno == EEXIST) && is_private(path, uid))
			return path;
		free(path);
	}
}

static int address_of(const char *directory, const char *name, struct sockaddr_un *ret_address)
{
	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	int length = snprintf(ret_address->sun_path, sizeof ret_address->sun_path, "%s/%s%s", directory, name, suffix);
	return length < 0 || (size_t)length >= sizeof ret_address->sun_path ? -ENAMETOOLONG : 0;
}

static int connect_to(const struct sockaddr_un *address)
{
	_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
		return -errno;
	return fd_steal(&fd);
}

int registry_listen(const char *name, int *ret_socket, char **ret_path, struct fault *fault)
{
	_free_ char *directory = own_directory(fault);
	struct sockaddr_un address;
	if (!directory)
		return -EACCES;
	int rc = address_of(directory, name, &address);
	_close_ int fd = rc < 0 ? -1 : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (rc < 0 || fd < 0)
		return fault_set(fault, FAULT_FAILED, rc < 0 ? -rc : errno, "control socket %s/%s%s: %s; try a shorter --name",
				 directory, name, suffix, strerror(rc < 0 ? -rc : errno));
	mode_t before = umask(0177);
	rc = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
	if (rc == -EADDRINUSE) {
		int other = connect_to(&address);
		if (other >= 0) {
			close(other);
			umask(before);
			return fault_set(fault, FAULT_FAILED, EADDRINUSE,
					 "a job named \"%s\" is running; try another --name, or cairn kill %s", name, name);
		}
		/* Left by one that was killed. */
		unlink(address.sun_path);
		rc = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
	}
	umask(before);
	if (rc < 0 || listen(fd, 16) < 0)
		return fault_set(fault, FAULT_FAILED, rc < 0 ? -rc : errno, "control socket %s: %s", address.sun_path,
				 strerror(rc < 0 ? -rc : errno));
	*ret_socket = fd_steal(&fd);
	*ret_path = memory_string(address.sun_path);
	return 0;
}

int registry_connect(uid_t uid, const char *name, int *ret_socket, pid_t *ret_init, struct fault *fault)
{
	for (int i = 0;; i++) {
		_free_ char *directory = candidate(uid, i);
		struct sockaddr_un address;
		if (!directory)
			return fault_set(fault, FAULT_VANISHED, ENOENT, "no job named \"%s\" is running; try `cairn ps`", name);
		if (!directory[0] || !is_private(directory, uid) || address_of(directory, name, &address) < 0)
			continue;
		int fd = connect_to(&address);
		if (fd < 0)
			continue;
		struct ucred peer;
		socklen_t size = sizeof peer;
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
		*ret_socket = fd;
		*ret_init = peer.pid;
		return 0;
	}
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void registry_list(uid_t uid, struct registry_names *ret_names)
{
	*ret_names = (struct registry_names){ 0 };
	for (int i = 0;; i++) {
		_free_ char *directory = candidate(uid, i);
		if (!directory)
			break;
		DIR *open_directory = directory[0] && is_private(directory, uid) ? opendir(directory) : NULL;
		for (struct dirent *entry; open_directory && (entry = readdir(open_directory));) {
			size_t length = strlen(entry->d_name);
			if (length <= sizeof suffix - 1 || strcmp(entry->d_name + length - (sizeof suffix - 1), suffix) != 0)
				continue;
			char *name = memory_string(entry->d_name);
			name[length - (sizeof suffix - 1)] = 0;
			bool known = false;
			for (size_t n = 0; n < ret_names->names.count; n++)
				known |= !strcmp(ret_names->names.at[n], name);
			if (known)
				free(name);
			else
				*vec_add(&ret_names->names) = name;
		}
		if (open_directory)
			closedir(open_directory);
	}
	if (ret_names->names.count)
		qsort(ret_names->names.at, ret_names->names.count, sizeof *ret_names->names.at, compare_names);
}

void registry_names_finish(struct registry_names *names)
{
	for (size_t i = 0; i < names->names.count; i++)
		free(names->names.at[i]);
	vec_finish(&names->names);
}
