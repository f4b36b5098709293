/* SPDX-License-Identifier: Apache-2.0 */
/* probe: command line, environment, auxiliary vector, executable link and vdso are as they were */
#include "probe.h"

#include <sys/auxv.h>

struct text {
	char bytes[8192];
	ssize_t size;
};

static void take(const char *name, struct text *ret)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ret->size = fd < 0 ? -1 : read(fd, ret->bytes, sizeof ret->bytes);
	close(fd);
}

int main(void)
{
	static const char *const files[] = { "cmdline", "environ", "auxv", "comm" };
	static struct text before[4], after[4];
	char executable[PATH_MAX] = "", seen[PATH_MAX] = "";
	for (int i = 0; i < 4; i++)
		take(files[i], &before[i]);
	PROBE(readlink("/proc/self/exe", executable, sizeof executable - 1));
	uint64_t clock = probe_clock_ns(CLOCK_REALTIME);

	probe_save();

	for (int i = 0; i < 4; i++) {
		take(files[i], &after[i]);
		PROBE_SAME(after[i].size, before[i].size, files[i]);
		if (after[i].size == before[i].size && after[i].size > 0)
			probe_same_bytes(after[i].bytes, before[i].bytes, (size_t)after[i].size, files[i]);
	}
	PROBE_TRUE(readlink("/proc/self/exe", seen, sizeof seen - 1) > 0 && !strcmp(seen, executable), "executable");
	/* Through the vdso, and through the kernel. */
	struct timespec kernel;
	PROBE_SAME(syscall(SYS_clock_gettime, CLOCK_REALTIME, &kernel), 0, "clock_gettime");
	uint64_t now = probe_clock_ns(CLOCK_REALTIME);
	PROBE_TRUE(now > clock && now - clock < 600000000000u, "the clock of the vdso goes on");
	PROBE_TRUE(getauxval(AT_SYSINFO_EHDR) != 0, "auxiliary vector");
	return probe_end();
}
