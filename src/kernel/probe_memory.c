/* SPDX-License-Identifier: Apache-2.0 */
/* Probes: memory and what describes it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/prctl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/maps.h"
#include "kernel/pagemap.h"
#include "kernel/features.h"
#include "kernel/probe.h"

bool probe_pagemap_scan(char *why, unsigned long size)
{
	struct pagemap pagemap;
	int rc = pagemap_open(getpid(), &pagemap, NULL);
	if (rc < 0)
		return trial_says(-rc, "/proc/self/pagemap", "try a kernel with CONFIG_PROC_PAGE_MONITOR", why, size);
	pagemap_close(&pagemap);
	return trial_says(pagemap.scan ? 0 : ENOTTY, "ioctl", "try Linux 6.7 or later", why, size);
}

bool probe_guard_regions(char *why, unsigned long size)
{
	struct pagemap pagemap;
	int rc = pagemap_open(getpid(), &pagemap, NULL);
	if (rc < 0)
		return trial_says(-rc, "/proc/self/pagemap", "try a kernel with CONFIG_PROC_PAGE_MONITOR", why, size);
	pagemap_close(&pagemap);
	return trial_says(pagemap.guards ? 0 : EINVAL, "ioctl", "try Linux 6.15 or later", why, size);
}

/* userfaultfd. The header may be older than the kernel. */
enum { USER_MODE_ONLY = 1 };
#define FEATURE_WP_ASYNC (1ull << 15) /* 6.7 */
#define DEVICE_NEW _IO(0xAA, 0x00)    /* USERFAULTFD_IOC_NEW, 6.1 */

static int userfaultfd_new(int flags)
{
	return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
}

/* userfaultfd(2) first; where it is closed, the device's file permissions decide. */
bool probe_userfaultfd(char *why, unsigned long size)
{
	_close_ int direct = userfaultfd_new(0);
	if (direct >= 0)
		return true;
	int error = errno;
	_close_ int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	_close_ int fd = device < 0 ? -1 : ioctl(device, DEVICE_NEW, O_CLOEXEC | O_NONBLOCK);
	return trial_says(fd < 0 ? error : 0, "userfaultfd",
			  "try access to /dev/userfaultfd, sysctl vm.unprivileged_userfaultfd=1, or CAP_SYS_PTRACE", why,
			  size);
}

bool probe_userfaultfd_user_mode(char *why, unsigned long size)
{
	_close_ int fd = userfaultfd_new(USER_MODE_ONLY);
	return trial_says(fd < 0 ? errno : 0, "userfaultfd",
			  "try Linux 5.11 or later with CONFIG_USERFAULTFD, or another seccomp profile", why, size);
}

bool probe_wp_async(char *why, unsigned long size)
{
	_close_ int fd = userfaultfd_new(USER_MODE_ONLY);
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	int error = fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 ? errno : 0;
	return trial_says(error, "UFFD_FEATURE_WP_ASYNC", "try Linux 6.7 or later", why, size);
}

/* @memory: TRIAL_TABLES page tables' worth, registered with @fd. The first is used, and its second page was given back; nothing is in the others. */
enum { TRIAL_TABLES = 3, TABLE_BYTES = 2 << 20, TRIAL_BYTES = TRIAL_TABLES * TABLE_BYTES };

static bool changed_is_said(char *memory)
{
	struct pagemap pagemap;
	struct page_extent extents[8];
	const uint64_t start = (uint64_t)(uintptr_t)memory, page = 4096;
	uint64_t at = start, next;
	if (pagemap_open(getpid(), &pagemap, NULL) < 0)
		return false;
	pagemap.tracked = pagemap.protect = pagemap.anonymous = true;
	/* Three pages are there, and protected; then the second is given back. */
	int count = pagemap.scan ? pagemap_extents(&pagemap, start, start + TRIAL_BYTES, extents, 8, &next, NULL) : -1;
	bool good = count == 1 && extents[0].end - start == 3 * page && madvise(memory + page, page, MADV_DONTNEED) == 0;
	if (good)
		count = pagemap_changed(&pagemap, at, start + TRIAL_BYTES, extents, 8, &next, NULL);
	good = good && count == 2 && next == start + TRIAL_BYTES && extents[0].start == start + page && extents[0].end == start + 2 * page &&
	       extents[1].start == start + 3 * page && extents[1].end == start + TRIAL_BYTES;
	pagemap_close(&pagemap);
	return good;
}

bool feature_changed(void)
{
	_close_ int fd = userfaultfd_new(USER_MODE_ONLY);
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC };
	char *memory = mmap(NULL, TRIAL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return false;
	struct uffdio_register range = { .range = { (uint64_t)(uintptr_t)memory, TRIAL_BYTES }, .mode = UFFDIO_REGISTER_MODE_WP };
	madvise(memory, TRIAL_BYTES, MADV_NOHUGEPAGE);
	memory[0] = memory[4096] = memory[8192] = 1;
	bool good = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 && ioctl(fd, UFFDIO_REGISTER, &range) == 0 && changed_is_said(memory);
	munmap(memory, TRIAL_BYTES);
	return good;
}

/* Following such a link needs CAP_CHECKPOINT_RESTORE in the initial user namespace (fs/proc/base.c
 * proc_map_files_get_link): stat(2) would not tell. */
static int map_file_open(const struct map *map)
{
	char path[80];
	snprintf(path, sizeof path, "/proc/self/map_files/%" PRIx64 "-%" PRIx64, map->start, map->end);
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? errno : 0;
}

static int map_files_try(void)
{
	struct arena arena = { 0 };
	struct map_list list = { 0 };
	int error = ENOENT;
	if (maps_read(getpid(), MAPS_PLACES, &arena, &list, NULL) == 0)
		for (size_t i = 0; error == ENOENT && i < list.maps.count; i++)
			if (list.maps.at[i].inode && list.maps.at[i].name[0] == '/')
				error = map_file_open(&list.maps.at[i]);
	maps_finish(&list);
	arena_finish(&arena);
	return error;
}

bool probe_map_files(char *why, unsigned long size)
{
	return trial_says(map_files_try(), "/proc/self/map_files",
			  "try with CAP_CHECKPOINT_RESTORE in the initial user namespace, and CONFIG_CHECKPOINT_RESTORE",
			  why, size);
}

/* The process's own values, so that nothing is set to another value even if it works. */
static bool mm_map_fill(struct prctl_mm_map *map)
{
	struct proc_stat stat;
	if (proc_stat_read(getpid(), 0, &stat, NULL) < 0)
		return false;
	*map = (struct prctl_mm_map){
		.start_code = stat.start_code, .end_code = stat.end_code, .start_data = stat.start_data,
		.end_data = stat.end_data, .start_brk = stat.start_brk, .brk = (uintptr_t)sbrk(0),
		.start_stack = stat.start_stack, .arg_start = stat.arg_start, .arg_end = stat.arg_end,
		.env_start = stat.env_start, .env_end = stat.env_end,
	};
	return true;
}

/* The size is told without any permission, if the kernel has it at all. The permission for the exe link is looked
 * at before the file is (kernel/sys.c prctl_set_mm_map): EBUSY, since the old one is still mapped, is the answer
 * that is hoped for. */
static void mm_map_work(struct trial *trial)
{
	unsigned int size;
	trial->step = "PR_SET_MM_MAP_SIZE";
	if (prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) < 0) {
		trial->error = ENOSYS;
		return;
	}
	trial->step = "PR_SET_MM_MAP";
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, trial->argument, sizeof(struct prctl_mm_map), 0) < 0 && errno != EBUSY)
		trial->error = errno;
}

bool probe_mm_map(char *why, unsigned long size)
{
	struct prctl_mm_map mm_map;
	if (!mm_map_fill(&mm_map))
		return trial_says(errno, "/proc/self/stat", "try with /proc mounted", why, size);
	_close_ int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (exe < 0)
		return trial_says(errno, "/proc/self/exe", "try a cairn binary that its user may read", why, size);
	mm_map.exe_fd = (uint32_t)exe;
	struct trial trial = trial_run(mm_map_work, &mm_map);
	return trial_says(trial.error, trial.step,
			  trial.error == ENOSYS ? "try a kernel with CONFIG_CHECKPOINT_RESTORE" :
						  "try as root, or setcap cap_checkpoint_restore+ep on the cairn binary",
			  why, size);
}

#ifdef __x86_64__
/* EEXIST: it is mapped already, so the call is there. EINVAL: CONFIG_CHECKPOINT_RESTORE is not set. */
static void map_vdso_work(struct trial *trial)
{
	enum { MAP_VDSO_64 = 0x2003 };
	trial->step = "ARCH_MAP_VDSO_64";
	if (syscall(SYS_arch_prctl, MAP_VDSO_64, 0) < 0 && errno != EEXIST)
		trial->error = errno;
}

bool probe_map_vdso(char *why, unsigned long size)
{
	struct trial trial = trial_run(map_vdso_work, NULL);
	return trial_says(trial.error, trial.step, "try a kernel with CONFIG_CHECKPOINT_RESTORE", why, size);
}
#endif
