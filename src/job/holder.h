/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* A holder keeps the write tracking of a program that is no job between two saves: a process of Cairn's with a socket in the registry, named
 * track-PID after the root (track-PID-2 where that is somebody else's). It ends when the root has ended, when a save takes the tracking over, or by cairn kill; that ends the tracking, and
 * nothing else. Requests (control.h): "status"; "kill"; "look", whose answer is a handover without descriptors; "take",
 * with them; both say the PID namespace in which the asker lives. */
#include <stdbool.h>

#include "base/fault.h"
#include "base/tracking.h"

/* Takes @tracking (which is empty afterwards) for the tree under @root, saved to @image. */
int holder_start(pid_t root, const char *image, struct tracking *tracking, struct fault *fault);
/* What this user's holders have of @target and its descendants; without descriptors unless @take. */
void holder_ask(pid_t target, bool take, struct tracking *ret_tracking);
