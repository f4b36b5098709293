/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/files/watched.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"

enum { WALK_MOST = 20000 }; /* names that are looked at for one path */

uint64_t watched_device(uint32_t device)
{
	enum { KERNEL_MINOR_BITS = 20 }; /* include/linux/kdev_t.h */
	return makedev(device >> KERNEL_MINOR_BITS, device & ((1u << KERNEL_MINOR_BITS) - 1));
}

void watched_take_handle(struct harvest *harvest, const char *value, struct watched *watch)
{
	unsigned bytes, type;
	int begin = 0;
	const char *at = strstr(value, "fhandle-bytes:");
	if (!at || sscanf(at, "fhandle-bytes:%x fhandle-type:%x f_handle:%n", &bytes, &type, &begin) != 2 || !begin ||
	    bytes > MAX_HANDLE_SZ)
		return;
	struct file_handle *handle = arena_new(&harvest->arena, sizeof *handle + bytes);
	handle->handle_bytes = bytes;
	handle->handle_type = (int)type;
	for (unsigned i = 0; i < bytes; i++)
		if (sscanf(at + begin + 2 * i, "%2hhx", &handle->f_handle[i]) != 1)
			return;
	watch->handle = handle;
}

static bool is_watched(const struct watched *watch, const char *path, struct stat *ret_stat)
{
	return path[0] == '/' && lstat(path, ret_stat) == 0 && ret_stat->st_ino == watch->inode;
}

/* A mount of the file system @device: /proc/self/mountinfo, proc(5). */
static int open_mount(uint64_t device)
{
	struct text text = { 0 };
	int fd = -1;
	if (proc_read(getpid(), "mountinfo", &text, NULL) < 0)
		return -1;
	for (const char *line = text.at; line && *line && fd < 0; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		unsigned major_, minor_;
		char path[4096];
		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major_, &minor_, path) == 3 && makedev(major_, minor_) == device)
			fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	}
	text_finish(&text);
	return fd;
}

char *watched_path_by_handle(struct harvest *harvest, const struct watched *watch, struct stat *ret_stat)
{
	char link[64], path[4096];
	_close_ int mount = watch->handle ? open_mount(watch->device) : -1;
	_close_ int fd = mount < 0 ? -1 : open_by_handle_at(mount, watch->handle, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length <= 0)
		return NULL;
	path[length] = 0;
	return is_watched(watch, path, ret_stat) ? arena_string(&harvest->arena, path) : NULL;
}

struct search {
	struct harvest *harvest;
	const struct watched *watch;
	struct stat *stat;
	char *found;
	unsigned left; /* names that may be looked at */
};

static void try_path(struct search *search, const char *path)
{
	if (!search->found && is_watched(search->watch, path, search->stat))
		search->found = arena_string(&search->harvest->arena, path);
}

/* @path, and what lies at most @depth levels below. */
static void walk(struct search *search, const char *path, unsigned depth)
{
	try_path(search, path);
	DIR *listing = search->found || !depth ? NULL : opendir(path);
	if (!listing)
		return;
	for (struct dirent *entry; !search->found && search->left && (entry = readdir(listing));) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		search->left--;
		_free_ char *below = memory_format("%s/%s", strcmp(path, "/") ? path : "", entry->d_name);
		if (entry->d_ino == search->watch->inode)
			try_path(search, below);
		if (entry->d_type == DT_DIR)
			walk(search, below, depth - 1);
	}
	closedir(listing);
}

static void walk_up(struct search *search, const char *path)
{
	_free_ char *up = memory_string(path);
	for (char *slash; !search->found && (slash = strrchr(up, '/'));) {
		try_path(search, up[0] ? up : "/");
		*slash = 0;
	}
	try_path(search, "/");
}

/* Arguments are names, or hold names behind "=". */
static void try_arguments(struct search *search, const struct frozen_process *process)
{
	struct text text = { 0 };
	if (proc_read(process->view, "cmdline", &text, NULL) < 0)
		return;
	for (size_t at = 0; !search->found && at < text.size; at += strlen(text.at + at) + 1) {
		const char *word = text.at + at, *behind = strchr(word, '=');
		for (int i = 0; i < 2 && word && !search->found; i++, word = behind ? behind + 1 : NULL) {
			_free_ char *named = word[0] == '/' ? memory_string(word) : memory_format("%s/%s", process->cwd, word);
			_free_ char *path = realpath(named, NULL);
			if (path)
				walk(search, path, 2);
			if (path && !search->found)
				walk_up(search, path);
		}
	}
	text_finish(&text);
}

char *watched_path_by_search(struct harvest *harvest, const struct frozen_file *file, const struct watched *watch,
			    struct stat *ret_stat)
{
	struct search search = { .harvest = harvest, .watch = watch, .stat = ret_stat, .left = WALK_MOST };
	for (size_t i = 0; !search.found && i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		if (process->view != file->pid || process->zombie)
			continue;
		try_arguments(&search, process);
		for (size_t d = 0; !search.found && d < process->descriptors.count; d++)
			if (process->descriptors.at[d].file->link[0] == '/')
				walk_up(&search, process->descriptors.at[d].file->link);
		walk(&search, process->cwd, 3);
		walk_up(&search, process->cwd);
	}
	return search.found;
}
