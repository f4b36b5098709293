/* SPDX-License-Identifier: Apache-2.0 */
/* probe: named semaphores and shared memory are one for who made them, who opened them by name, and who opens them after */
#include "probe.h"

#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { SIZE = 5 * 4096 };

static char ask_name[64], answer_name[64], memory_name[64];

static unsigned char *open_memory(int flags)
{
	int fd = PROBE(shm_open(memory_name, O_RDWR | flags, 0600));
	PROBE(ftruncate(fd, SIZE));
	unsigned char *memory = PROBE((unsigned char *)mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	close(fd);
	return memory;
}

static sem_t *open_semaphore(const char *name, int flags, unsigned value)
{
	sem_t *semaphore = sem_open(name, O_RDWR | flags, 0600, value);
	if (semaphore == SEM_FAILED) {
		printf("set-up: sem_open %s: %s\n", name, strerror(errno));
		exit(2);
	}
	return semaphore;
}

/* Counts for whoever asks, through what it opened by name. One that was born later would have the semaphores already (sem_open(3) remembers). */
static void serve(int made)
{
	char byte;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(made, &byte, 1) != 1)
		exit(1);
	sem_t *ask = open_semaphore(ask_name, 0, 0), *answer = open_semaphore(answer_name, 0, 0);
	unsigned char *memory = open_memory(0);
	for (;;) {
		while (sem_wait(ask) < 0)
			;
		memory[7]++;
		sem_post(answer);
	}
}

static int asked(sem_t *ask, sem_t *answer)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	sem_post(ask);
	int rc;
	while ((rc = sem_timedwait(answer, &until)) < 0 && errno == EINTR)
		;
	return rc;
}

int main(void)
{
	static unsigned char data[SIZE];
	int value = -1;
	struct stat here; /* its own for every test, which PIDs are not */
	PROBE(stat(".", &here));
	snprintf(ask_name, sizeof ask_name, "/cairn-ask-%lu", (unsigned long)here.st_ino);
	snprintf(answer_name, sizeof answer_name, "/cairn-answer-%lu", (unsigned long)here.st_ino);
	snprintf(memory_name, sizeof memory_name, "/cairn-memory-%lu", (unsigned long)here.st_ino);
	int made[2];
	PROBE(pipe(made));
	if (PROBE(fork()) == 0)
		serve(made[0]);
	/* Made under another name, which is gone: /proc/PID/maps calls them deleted. */
	sem_t *ask = open_semaphore(ask_name, O_CREAT | O_EXCL, 0), *answer = open_semaphore(answer_name, O_CREAT | O_EXCL, 0);
	unsigned char *memory = open_memory(O_CREAT | O_EXCL);
	probe_fill(data, sizeof data, 11);
	memcpy(memory, data, sizeof data);
	PROBE_SAME(write(made[1], "", 1), 1, "the word that all is made");
	PROBE_SAME(asked(ask, answer), 0, "an answer before the save");

	probe_save();

	PROBE_SAME(asked(ask, answer), 0, "an answer");
	data[7] += 2;
	probe_same_bytes(memory, data, sizeof data, "the memory");
	sem_t *anew = open_semaphore(answer_name, 0, 0);
	sem_post(anew);
	PROBE_SAME(sem_getvalue(answer, &value), 0, "sem_getvalue");
	PROBE_SAME(value, 1, "the value that was given through its name");
	unsigned char *again = open_memory(0);
	again[9] ^= 0xff;
	PROBE_SAME(memory[9], (unsigned char)(data[9] ^ 0xff), "a store through its name");
	sem_unlink(ask_name);
	sem_unlink(answer_name);
	shm_unlink(memory_name);
	return probe_end();
}
