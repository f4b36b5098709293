/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What inotify and fanotify watch is an inode: as root it is opened by its file handle; else its path is looked for among what the process is likely to
 * have named (arguments, working directory, open files, and below and above those). */
#include <fcntl.h>

#include "kinds/kind.h"

struct watched {
	uint64_t inode, device;
	struct file_handle *handle; /* in the arena; NULL: none was said */
};

/* A device as the kernel's fdinfo prints it ("sdev:"). */
uint64_t watched_device(uint32_t device);
/* "... fhandle-bytes:8 fhandle-type:1 f_handle:..." */
void watched_take_handle(struct harvest *harvest, const char *value, struct watched *watch);
/* Its path, in the arena; NULL: it was not found, or has none. By its handle alone, or by search too. */
char *watched_path_by_handle(struct harvest *harvest, const struct watched *watch, struct stat *ret_stat);
char *watched_path_by_search(struct harvest *harvest, const struct frozen_file *file, const struct watched *watch, struct stat *ret_stat);
