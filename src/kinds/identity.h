/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Is the file under a path the one that a checkpoint saw? Size and modification time say so, or, for an ELF file that was
 * installed anew, its build-id. Device and inode are kept for the reader of an image; they change with every copy. */
#include <sys/stat.h>

#include "kinds/kind.h"
#include "memory.pb-c.h"

Cairn__FileIdentity *identity_capture(struct harvest *harvest, int fd, const struct stat *stat);
/* 0, or FAULT_FAILED with what differs: "PATH is missing here", "PATH has changed ...". @any_size: its size and time may differ (a file that the
 * program itself writes to). */
int identity_check(const char *path, const Cairn__FileIdentity *identity, bool any_size, struct fault *fault);
/* Is @path absolute, and can it be a path at all? */
bool identity_path_valid(const char *path);
/* A file that lost the name @lost by which it is known, but has others: one of them, in the same directory, into the arena; NULL: none found. */
char *identity_other_name(struct arena *arena, const char *lost, uint64_t device, uint64_t inode);
/* A name for a directory that is made to be removed at once: @path, as the deleted one was called, if nothing is there now; else one that @what and
 * @number tell from all others, beside it or in /tmp. */
char *identity_deleted_name(const char *path, const char *what, uint32_t number);
/* A nameless file to hold the contents of a deleted one: on the same file system as @path where possible. */
int identity_make_deleted(const char *path, const Cairn__FileIdentity *identity, int *ret_fd, struct fault *fault);

/* What Cairn has just made at @path, of @type (S_IFIFO), gets its owner and mode. In a directory of somebody else's another may lie there by now, or a symbolic link: that is
 * left alone: -ESTALE. -EPERM: as far as may be; an ordinary user's own has the right owner already. */
int identity_give(const char *path, mode_t type, uint32_t uid, uint32_t gid, mode_t mode);

/* Is @path in a place for temporary files (/tmp, /var/tmp, /run, /dev/shm)? The next boot may have none of it, and its maker removes it at its end. */
bool identity_in_passing_place(const char *path);
/* A directory of such a place's own that @path lies in, to be made again where it is missing; NULL: @path is in no such directory. */
Cairn__FileIdentity *identity_of_directory(struct harvest *harvest, const char *path);
bool identity_may_make_directory(const char *path);
/* It goes again if the restore fails: @path is the record's. Where it cannot be made, what is to be made in it says so. */
void identity_make_directory(struct workshop *workshop, const char *path, const Cairn__FileIdentity *identity);
