/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What System V IPC objects have in common: identity, owner, and how one with the same identity is made again. They outlive processes, so
 * at a restore on the same host the object may still be there. */
#include <time.h>

#include "kernel/sysvipc.h"
#include "kinds/kind.h"
#include "memory.pb-c.h"

Cairn__SysvObject *sysv_capture(struct harvest *harvest, const struct sysv_object *object);
bool sysv_possible(const Cairn__SysvObject *object);
/* Is there an object with its id now? 1: the same one (key, owner's creator); 0: none; negative: another has its id or its key. */
int sysv_look(enum sysv_type type, const Cairn__SysvObject *object, struct sysv_object *ret_now, struct fault *fault);
/* Makes it: @get makes the object with the given key and flags, and returns its id. Owner and mode are set by the caller, by IPC_SET. It goes
 * if the restore fails. */
int sysv_make(struct workshop *workshop, enum sysv_type type, const Cairn__SysvObject *object,
	      int (*get)(int key, uint64_t size, int flags), uint64_t size, int flags, void (*undo)(uint64_t id), struct fault *fault);
/* Whose an object is that belongs to no process, by those who used it last (0: nobody). The tree's, if one of them is of the tree; somebody
 * else's, if one of them lives elsewhere; else the tree's, if the root's user made it after the root was started. */
bool sysv_is_of_tree(const struct harvest *harvest, const struct sysv_object *object, const pid_t *users, size_t count);
/* Is one of them of the tree? */
bool sysv_is_used_by_tree(const struct harvest *harvest, const pid_t *users, size_t count);
/* Does @pid live, is not of the tree, and could have used an object at @used_s (seconds since the Epoch)? */
bool sysv_is_outsider(const struct harvest *harvest, pid_t pid, time_t used_s);
/* Does @pid live, and is not of the tree that is to be? */
bool sysv_is_others(const struct workshop *workshop, pid_t pid);
