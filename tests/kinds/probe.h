/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What probes have in common. A probe makes a kernel object with odd values, calls probe_save(), in which it is saved,
 * killed and restored (twice), then looks at the object through the system-call interface:
 *
 *	int main(void)
 *	{
 *		int fd = PROBE(eventfd(7, 0));
 *		probe_save();
 *		PROBE_SAME(..., 7, "counter");
 *		return probe_end();
 *	}
 *
 * The head of the file names the test: a comment "probe: SENTENCE", or several of "variant WORD: SENTENCE" (the word is
 * argv[1]), "refusable: WORD" where `cairn checkpoint` may still refuse by a line that holds the word, and "permission: WORD" where
 * an ordinary user may be told that he lacks that permission; "alone: WHY" where no other test may run beside it; "options: WORDS" for its checkpoints. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int probe_faults;
static char probe_go[PATH_MAX];

__attribute__((constructor)) static void probe_start(void)
{
	char directory[PATH_MAX - 8];
	if (!getcwd(directory, sizeof directory))
		abort();
	snprintf(probe_go, sizeof probe_go, "%s/go", directory);
	static char buffer[8192]; /* no malloc: the heap is a probe's own */
	setvbuf(stdout, buffer, _IOLBF, sizeof buffer);
}

/* The set-up went wrong: nothing can be said about Cairn. */
#define PROBE(call)                                                                          \
	({                                                                                   \
		__typeof__(call) value_ = (call);                                            \
		if (value_ == (__typeof__(call))-1) {                                        \
			printf("set-up: %s: %s\n", #call, strerror(errno));                  \
			exit(2);                                                             \
		}                                                                            \
		value_;                                                                      \
	})

__attribute__((format(printf, 1, 2))) static inline void probe_skip(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("skipped: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	exit(77);
}

/* Something is not as it was. */
__attribute__((format(printf, 1, 2))) static inline void probe_differs(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("differs: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	__atomic_add_fetch(&probe_faults, 1, __ATOMIC_SEQ_CST);
}

#define PROBE_SAME(got, wanted, what)                                                                       \
	do {                                                                                                \
		long long got_ = (long long)(got), wanted_ = (long long)(wanted);                           \
		if (got_ != wanted_)                                                                        \
			probe_differs("%s is %lld (%#llx), was %lld (%#llx)", what, got_,                   \
				      (unsigned long long)got_, wanted_, (unsigned long long)wanted_);      \
	} while (0)

#define PROBE_TRUE(condition, what)                                                                         \
	do {                                                                                                \
		if (!(condition))                                                                           \
			probe_differs("%s (%s), errno %s", what, #condition, strerror(errno));              \
	} while (0)

static inline void probe_same_bytes(const void *got, const void *wanted, size_t size, const char *what)
{
	const unsigned char *a = got, *b = wanted;
	for (size_t i = 0; i < size; i++)
		if (a[i] != b[i]) {
			probe_differs("%s: byte %zu of %zu is %02x, was %02x", what, i, size, a[i], b[i]);
			return;
		}
}

/* A pattern that says where it belongs. */
static inline void probe_fill(void *at, size_t size, uint64_t seed)
{
	unsigned char *bytes = at;
	for (size_t i = 0; i < size; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		bytes[i] = (unsigned char)(seed >> 56);
	}
}

static inline void probe_filled(const void *at, size_t size, uint64_t seed, const char *what)
{
	const unsigned char *bytes = at;
	for (size_t i = 0; i < size; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		if (bytes[i] != (unsigned char)(seed >> 56)) {
			probe_differs("%s: byte %zu of %zu is %02x, was %02x", what, i, size, bytes[i],
				      (unsigned char)(seed >> 56));
			return;
		}
	}
}

/* Returns when the harness says that saving is over. Needs nothing of the kernel but a path. */
static inline void probe_wait(void)
{
	while (access(probe_go, F_OK))
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

static inline void probe_ready(void)
{
	printf("ready\n");
}

static inline void probe_save(void)
{
	probe_ready();
	probe_wait();
}

static inline int probe_end(void)
{
	if (!probe_faults)
		printf("all as it was\n");
	return probe_faults ? 1 : 0;
}

/* A line of /proc/self/FILE that begins with @key, without it; valid until the next call. */
static inline const char *probe_proc(const char *file, const char *key)
{
	static char line[4096];
	char path[128];
	snprintf(path, sizeof path, "/proc/self/%s", file);
	FILE *stream = fopen(path, "re");
	size_t length = strlen(key);
	while (stream && fgets(line, sizeof line, stream))
		if (!strncmp(line, key, length)) {
			fclose(stream);
			line[strcspn(line, "\n")] = 0;
			return line + length;
		}
	if (stream)
		fclose(stream);
	return "";
}

/* Do the VmFlags of the mapping at @at name @flag? */
static inline bool probe_has_flag(const void *at, const char *flag)
{
	FILE *stream = fopen("/proc/self/smaps", "re");
	char line[4200];
	bool here = false, found = false;
	while (stream && fgets(line, sizeof line, stream)) {
		unsigned long start, end;
		char permissions[5];
		if (sscanf(line, "%lx-%lx %4s", &start, &end, permissions) == 3)
			here = (unsigned long)at >= start && (unsigned long)at < end;
		else if (here && !strncmp(line, "VmFlags:", 8))
			found = strstr(line, flag);
	}
	if (stream)
		fclose(stream);
	return found;
}

static inline uint64_t probe_clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A child's differences count for the whole. */
static inline void probe_join(pid_t pid, const char *what)
{
	int status = 0;
	pid_t ended = waitpid(pid, &status, 0);
	if (ended < 0 || (pid > 0 && ended != pid))
		probe_differs("%s: waitpid: %s", what, strerror(errno));
	else if (status)
		probe_differs("%s ended with wait status %#x", what, status);
}
