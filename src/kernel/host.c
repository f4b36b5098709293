/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/host.h"

#include <linux/capability.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "kernel/features.h"
#include "kernel/maps.h"
#include "kernel/procfs.h"

void host_vdso_read(struct host_vdso *ret_vdso)
{
	struct arena arena = { 0 };
	struct map_list list = { 0 };
	*ret_vdso = (struct host_vdso){ 0 };
	if (maps_read(getpid(), MAPS_PLACES, &arena, &list, NULL) == 0) {
		for (size_t i = 0; i < list.maps.count; i++) {
			const struct map *map = &list.maps.at[i];
			if (!strncmp(map->name, "[vvar", 5))
				ret_vdso->data_size += map->end - map->start;
			if (strcmp(map->name, "[vdso]"))
				continue;
			ret_vdso->size = map->end - map->start;
			ret_vdso->code = (const uint8_t *)(uintptr_t)map->start;
			ret_vdso->hash = XXH3_64bits((const void *)(uintptr_t)map->start, ret_vdso->size);
		}
	}
	maps_finish(&list);
	arena_finish(&arena);
}

const char *host_architecture(void)
{
#if defined(__x86_64__)
	return "x86_64";
#elif defined(__aarch64__)
	return "aarch64";
#else
	return "unknown";
#endif
}

uint32_t host_filters(void)
{
	struct arena arena = { 0 };
	struct proc_status status = { 0 };
	if (proc_status_read(getpid(), 0, &arena, &status, NULL) < 0)
		status.seccomp = 0;
	arena_finish(&arena);
	return proc_filters(&status);
}

bool host_may_read_filters(void)
{
	enum { FIRST_USER_NAMESPACE = 0xeffffffd }; /* include/uapi/linux/nsfs.h USER_NS_INIT_INO */
	struct stat user;
	return feature_capability(CAP_SYS_ADMIN) && stat("/proc/self/ns/user", &user) == 0 && user.st_ino == FIRST_USER_NAMESPACE &&
	       !host_filters();
}

void host_boot_id(char ret_id[37])
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
	ret_id[0] = 0;
	if (file && fscanf(file, "%36s", ret_id) != 1)
		ret_id[0] = 0;
	if (file)
		fclose(file);
}

void host_offsets_read(struct host_offsets *ret_offsets)
{
	FILE *file = fopen("/proc/self/timens_offsets", "re");
	char clock[16];
	long long seconds, nanoseconds;
	*ret_offsets = (struct host_offsets){ 0 };
	while (file && fscanf(file, "%15s %lld %lld", clock, &seconds, &nanoseconds) == 3) {
		int64_t value = seconds * INT64_C(1000000000) + nanoseconds;
		if (!strcmp(clock, "monotonic"))
			ret_offsets->monotonic_ns = value;
		else if (!strcmp(clock, "boottime"))
			ret_offsets->boottime_ns = value;
	}
	if (file)
		fclose(file);
}
