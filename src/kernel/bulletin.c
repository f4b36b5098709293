/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/bulletin.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static bool is_plain(const struct map *map)
{
	return !map->shared && !map->inode && map->end - map->start >= BULLETIN_SIZE;
}

uint64_t bulletin_in(const struct map_list *maps)
{
	size_t low = 0, high = maps->maps.count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct map *map = &maps->maps.at[middle];
		if (map->start <= BULLETIN_ADDRESS && map->end > BULLETIN_ADDRESS)
			return is_plain(map) ? BULLETIN_ADDRESS : 0;
		if (map->start > BULLETIN_ADDRESS)
			high = middle;
		else
			low = middle + 1;
	}
	for (size_t i = 0; i < maps->maps.count; i++)
		if (is_plain(&maps->maps.at[i]) && !strcmp(maps->maps.at[i].name, "[anon:" BULLETIN_NAME "]"))
			return maps->maps.at[i].start;
	return 0;
}

uint64_t bulletin_find(pid_t pid)
{
	struct arena arena = { 0 };
	struct map_list maps = { 0 };
	uint64_t address = maps_read(pid, MAPS_PLACES, &arena, &maps, NULL) == 0 ? bulletin_in(&maps) : 0;
	maps_finish(&maps);
	arena_finish(&arena);
	return address;
}

int bulletin_read(pid_t pid, uint64_t address, struct bulletin *ret_bulletin)
{
	struct bulletin read;
	struct iovec here = { &read, sizeof read }, there = { (void *)(uintptr_t)address, sizeof read };
	ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);
	if (got != sizeof read)
		return got < 0 && errno != EFAULT ? -errno : -ENOENT;
	if (memcmp(read.magic, BULLETIN_MAGIC, sizeof read.magic) != 0)
		return -ENOENT;
	*ret_bulletin = read;
	return 0;
}

int bulletin_write(pid_t pid, uint64_t address, size_t offset, const void *value, size_t size)
{
	struct iovec here = { (void *)(uintptr_t)value, size }, there = { (void *)(uintptr_t)(address + offset), size };
	ssize_t done = process_vm_writev(pid, &here, 1, &there, 1, 0);
	return done == (ssize_t)size ? 0 : done < 0 ? -errno : -EFAULT;
}

void bulletin_wake(pid_t pid, int32_t tid)
{
	struct pid_list threads = { 0 };
	struct arena arena = { 0 };
	if (tid > 0 && proc_threads(pid, &threads, NULL) == 0) {
		for (size_t i = 0; i < threads.pids.count; i++) {
			struct proc_status status;
			if (proc_status_read(pid, threads.pids.at[i], &arena, &status, NULL) == 0 && status.ns_pid == tid)
				syscall(SYS_tgkill, pid, threads.pids.at[i], SIGURG);
		}
	}
	vec_finish(&threads.pids);
	arena_finish(&arena);
}
