/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The bulletin (base/bulletin.h) of another process: finding, reading and writing it. */
#include "base/bulletin.h"
#include "kernel/maps.h"

struct bulletin_place {
	pid_t pid;
	uint64_t address;
};
struct bulletin_list {
	VEC(struct bulletin_place) places;
};

/* Where it may lie in a process with these mappings, 0: it has none. */
uint64_t bulletin_in(const struct map_list *maps);
/* By the maps of a running process. */
uint64_t bulletin_find(pid_t pid);
/* 0, or -ENOENT: there is no bulletin at @address; or -errno. */
int bulletin_read(pid_t pid, uint64_t address, struct bulletin *ret_bulletin);
/* @offset: of a field of struct bulletin. */
int bulletin_write(pid_t pid, uint64_t address, size_t offset, const void *value, size_t size);
/* Wakes the thread that is @tid to the process itself. Nothing when it is none of its threads. */
void bulletin_wake(pid_t pid, int32_t tid);
