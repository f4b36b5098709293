/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine can do at all, for a figure to stand beside: the bytes of a process moved by as many threads as Cairn
 * uses, and nothing else.
 *
 *	limit save PID FILE THREADS      process_vm_readv + pwrite of its largest anonymous mapping
 *	limit restore FILE THREADS       pread + process_vm_writev into a new process's mapping of that size
 *	limit target MIB                 a process with that much random, touched memory; says ready, waits to be killed
 *
 * Prints the seconds that it took. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20 };

struct job {
	bool save;
	pid_t pid;
	int file;
	uint64_t address, size;
	uint64_t next; /* offset of the next piece, taken by the threads in turn */
};

static void die(const char *what)
{
	fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void *move(void *argument)
{
	struct job *job = argument;
	char *buffer = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	for (;;) {
		uint64_t at = __atomic_fetch_add(&job->next, PIECE, __ATOMIC_RELAXED);
		if (at >= job->size)
			break;
		size_t size = job->size - at < PIECE ? job->size - at : PIECE;
		struct iovec here = { buffer, size }, there = { (void *)(job->address + at), size };
		if (job->save) {
			if (process_vm_readv(job->pid, &here, 1, &there, 1, 0) != (ssize_t)size)
				die("process_vm_readv");
			if (pwrite(job->file, buffer, size, (off_t)at) != (ssize_t)size)
				die("pwrite");
		} else {
			if (pread(job->file, buffer, size, (off_t)at) != (ssize_t)size)
				die("pread");
			if (process_vm_writev(job->pid, &here, 1, &there, 1, 0) != (ssize_t)size)
				die("process_vm_writev");
		}
	}
	munmap(buffer, PIECE);
	return NULL;
}

static void move_all(struct job *job, int threads)
{
	pthread_t ids[64];
	for (int i = 0; i < threads; i++)
		if (pthread_create(&ids[i], NULL, move, job))
			die("pthread_create");
	for (int i = 0; i < threads; i++)
		pthread_join(ids[i], NULL);
}

/* The largest anonymous mapping of a process. */
static void find(struct job *job)
{
	char path[64], line[4200];
	snprintf(path, sizeof path, "/proc/%d/maps", job->pid);
	FILE *maps = fopen(path, "re");
	if (!maps)
		die(path);
	while (fgets(line, sizeof line, maps)) {
		unsigned long start, end, inode;
		if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &inode) == 3 && !inode && end - start > job->size) {
			job->address = start;
			job->size = end - start;
		}
	}
	fclose(maps);
}

static int save(pid_t pid, const char *path, int threads)
{
	double begin = now_s();
	struct job job = { .save = true, .pid = pid, .file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) };
	if (job.file < 0)
		die(path);
	find(&job);
	move_all(&job, threads);
	printf("%.6f\n", now_s() - begin);
	return 0;
}

static int restore(const char *path, int threads)
{
	double begin = now_s();
	struct stat status;
	struct job job = { .file = open(path, O_RDONLY | O_CLOEXEC) };
	if (job.file < 0 || fstat(job.file, &status))
		die(path);
	job.size = (uint64_t)status.st_size;
	int ready[2];
	if (pipe(ready))
		die("pipe");
	job.pid = fork();
	if (job.pid == 0) {
		void *at = mmap(NULL, job.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (write(ready[1], &at, sizeof at) != sizeof at)
			_exit(1);
		for (;;)
			pause();
	}
	void *at;
	if (read(ready[0], &at, sizeof at) != sizeof at || at == MAP_FAILED)
		die("the newborn");
	job.address = (uint64_t)at;
	move_all(&job, threads);
	double end = now_s();
	kill(job.pid, SIGKILL);
	waitpid(job.pid, NULL, 0);
	printf("%.6f\n", end - begin);
	return 0;
}

static int target(size_t mebibytes)
{
	size_t size = mebibytes << 20;
	uint64_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), seed = 88172645463325252u;
	if (memory == MAP_FAILED)
		die("mmap");
	madvise(memory, size, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < size / 8; i++) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		memory[i] = seed;
	}
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "save"))
		return save(atoi(argv[2]), argv[3], atoi(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "restore"))
		return restore(argv[2], atoi(argv[3]));
	if (argc == 3 && !strcmp(argv[1], "target"))
		return target((size_t)atoi(argv[2]));
	fprintf(stderr, "usage: limit save PID FILE THREADS | restore FILE THREADS | target MIB\n");
	return 2;
}
