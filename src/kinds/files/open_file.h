/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What every open file description has: access mode, status flags, position, and whom SIGIO goes to. */
#include "files.pb-c.h"
#include "kinds/kind.h"

/* Flags, position and owner; the owner is read through Cairn's own copy of the descriptor, if it can be had. */
Cairn__OpenFile *open_file_capture(struct harvest *harvest, struct frozen_file *file);
/* Opens @path with the record's flags, puts position (when @seek) and owner back, and gives it to the workshop. */
int open_file_make(struct workshop *workshop, const Cairn__OpenFile *open, const char *path, bool seek,
		   struct fault *fault);
/* Whether @path, which is there, may be written to as the record wants: an attribute or a mount may forbid that to everybody. */
int open_file_check(const Cairn__OpenFile *open, const char *path, struct fault *fault);
/* The same for a descriptor that exists already: status flags that F_SETFL can set, owner. Takes @fd. */
int open_file_adopt(struct workshop *workshop, const Cairn__OpenFile *open, int fd, struct fault *fault);
