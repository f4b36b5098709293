/* SPDX-License-Identifier: Apache-2.0 */
/* arch_prctl(ARCH_MAP_VDSO_64, address) gives EEXIST as long as any part of the vdso or its data is mapped, and puts
 * all of it at the address afterwards. The data comes first, so that the address is that of [vvar], not of [vdso]. */
#include "fact.h"

#ifdef __x86_64__
enum { MAP_VDSO_64 = 0x2003 };

struct range {
	char name[32];
	uint64_t start, end;
};

/* [vvar], [vvar_vclock], [vdso]: 0 where there is none. */
static int ranges_read(struct range ranges[8])
{
	static char text[1 << 16];
	size_t used = 0;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC), count = 0;
	for (ssize_t n; (n = read(fd, text + used, sizeof text - 1 - used)) > 0;)
		used += (size_t)n;
	text[used] = 0;
	close(fd);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char *name = strstr(line, "[v");
		if (!name || !strcmp(name, "[vsyscall]") || count == 8)
			continue;
		char *dash;
		ranges[count].start = strtoull(line, &dash, 16);
		ranges[count].end = strtoull(dash + 1, NULL, 16);
		snprintf(ranges[count++].name, sizeof ranges->name, "%s", name);
	}
	return count;
}

static long map_vdso(uint64_t address)
{
	return syscall(SYS_arch_prctl, MAP_VDSO_64, address) < 0 ? -errno : 0;
}

static void unmap(const struct range *range)
{
	munmap((void *)range->start, range->end - range->start);
}

static bool same(const struct range *a, int a_count, const struct range *b, int b_count)
{
	for (int i = 0; a_count == b_count && i < a_count; i++)
		if (a[i].start != b[i].start || a[i].end != b[i].end || strcmp(a[i].name, b[i].name))
			return false;
	return a_count == b_count;
}

/* In a child: without a vdso not even time(2) of the C library works. */
static bool trial(void)
{
	struct range before[8] = { 0 }, after[8] = { 0 };
	int count = ranges_read(before);
	if (!count)
		fact_skip("no vdso is mapped");
	long rc = map_vdso(before[0].start);
	if (rc == -EINVAL)
		fact_skip("ARCH_MAP_VDSO_64 without CONFIG_CHECKPOINT_RESTORE");
	bool holds = fact(rc == -EEXIST, "while it is mapped: %s", strerror((int)-rc));
	for (int i = count - 1; i > 0; i--) {
		unmap(&before[i]);
		rc = map_vdso(before[0].start);
		holds &= fact(rc == -EEXIST, "without %s: %s", before[i].name, strerror((int)-rc));
	}
	unmap(&before[0]);
	rc = map_vdso(before[0].start);
	holds &= fact(rc == 0, "without all of it: %s", strerror((int)-rc));
	return holds & fact(same(before, count, after, ranges_read(after)), "it is where it was, %s first", after[0].name);
}

int main(void)
{
	fact_start();
	pid_t child = fact_fork();
	if (child == 0) {
		int status = trial() ? FACT_HOLDS : FACT_FAILS;
		fflush(stdout);
		_exit(status);
	}
	int status;
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : FACT_FAILS;
}
#else
int main(void)
{
	fact_skip("ARCH_MAP_VDSO_64 is of x86-64");
}
#endif
