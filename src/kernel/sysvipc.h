/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* /proc/sysvipc/{shm,sem,msg}: System V IPC objects of the caller's IPC namespace (ipc/util.c, sysvipc(7)). */
#include <stdint.h>

#include "kernel/procfs.h"

enum sysv_type { SYSV_SHM, SYSV_SEM, SYSV_MSG };

struct sysv_object {
	int32_t key;
	uint32_t id;
	uint32_t mode; /* permissions; of segments also SHM_DEST and SHM_LOCKED */
	uint32_t uid, gid, creator_uid, creator_gid;
	uint64_t size;        /* of a segment; semaphores of a set; messages of a queue */
	uint64_t attached;    /* of a segment */
	pid_t sender, receiver; /* of a queue: who used it last */
	pid_t maker, user;    /* of a segment: who made it, and who attached or detached it last */
	uint64_t changed_s;   /* time of the last change of the object itself, seconds since the Epoch */
};
struct sysv_list {
	VEC(struct sysv_object) objects;
};
int sysv_parse(enum sysv_type type, const char *text, struct sysv_list *ret_list, struct fault *fault);
/* A kernel without System V IPC has none. */
int sysv_read(enum sysv_type type, struct sysv_list *ret_list, struct fault *fault);
void sysv_finish(struct sysv_list *list);
const struct sysv_object *sysv_find(const struct sysv_list *list, uint32_t id); /* NULL: none */
/* The next object of that type is to get this id (kernel/sysctl: CONFIG_CHECKPOINT_RESTORE); needs CAP_CHECKPOINT_RESTORE over the IPC namespace. */
int sysv_next_id(enum sysv_type type, uint32_t id, struct fault *fault);
