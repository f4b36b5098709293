/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Contents of files that have a name (--save-files), so that a restore may roll them back. */
#include "kinds/kind.h"

/* Do the contents of this open file go along? Of one that is only read, or has no name, they do not. */
bool saved_file_is_wanted(const struct harvest *harvest, const struct frozen_file *file);
/* Is the file behind @fd, of this name, POSIX shared memory (shm_overview(7), sem_overview(7))? That is memory of the program, which the next boot does not
 * have, and goes along whatever --save-files says. */
bool saved_file_is_memory(const char *path, int fd);
/* Is it small, and in a place for temporary files? If the tree has mapped it for writing, its maker will remove it at its end: it goes along, too. */
bool saved_file_is_passing(const char *path, const struct stat *stat);
/* From /proc alone: can they be read, and put back? */
int saved_file_refuse(const struct frozen_file *file, struct fault *fault);
/* Of a file is one copy made, whoever has it open or mapped. @link: opens it (/proc/PID/fd/N ...); @path: its name. @mapped: for writing. */
int saved_file_capture(struct harvest *harvest, const char *link, const char *path, bool mapped, struct fault *fault);
