/* SPDX-License-Identifier: Apache-2.0 */
/* variant values: a set of System V semaphores keeps id, key, mode, values and who changed which last */
/* variant blocked: processes that wait for System V semaphores are woken by the next operation after the restore */
/* variant undo: the end of a process undoes what it has done to semaphores with SEM_UNDO, from before and after the save */
/* variant undo_threads: the same of a process with threads */
/* variant last: who used a semaphore last is known, although others have something to undo in it */
#include "probe.h"

#include <pthread.h>
#include <sys/ipc.h>
#include <sys/sem.h>

enum { SEMAPHORES = 5 };

static void change(int id, int number, int by, int flags)
{
	PROBE(semop(id, &(struct sembuf){ (unsigned short)number, (short)by, (short)flags }, 1));
}

static void values(void)
{
	key_t key = (key_t)(0x0ca20000u + (unsigned)(probe_clock_ns(CLOCK_REALTIME) >> 10 & 0xffff));
	int id = PROBE(semget(key, SEMAPHORES, IPC_CREAT | IPC_EXCL | 0620));
	int unused = PROBE(semget(IPC_PRIVATE, 2, IPC_CREAT | 0600));
	PROBE(semctl(id, 0, SETVAL, 32767));
	change(id, 1, 3, 0);
	change(id, 2, 17, 0);
	pid_t child = PROBE(fork());
	if (!child) {
		change(id, 2, -4, 0);
		change(id, 3, 1, 0);
		probe_wait();
		change(id, 4, 1, 0);
		_exit(0);
	}
	while (semctl(id, 3, GETVAL) != 1)
		;

	probe_save();

	change(id, 4, -1, 0);
	probe_join(child, "child");
	PROBE_SAME(semget(key, 0, 0), id, "id of the key");
	static const int wanted[SEMAPHORES] = { 32767, 3, 13, 1, 0 };
	for (int i = 0; i < SEMAPHORES; i++)
		PROBE_SAME(semctl(id, i, GETVAL), wanted[i], "value");
	PROBE_SAME(semctl(id, 1, GETPID), getpid(), "last user of semaphore 1");
	PROBE_SAME(semctl(id, 2, GETPID), child, "last user of semaphore 2");
	struct semid_ds status;
	PROBE_SAME(semctl(id, 0, IPC_STAT, &status), 0, "IPC_STAT");
	PROBE_SAME(status.sem_perm.mode & 0777, 0620, "mode");
	PROBE_SAME(status.sem_perm.uid, geteuid(), "owner");
	PROBE_SAME(semctl(unused, 1, GETVAL), 0, "value of a set that nobody has used");
	PROBE(semctl(id, 0, IPC_RMID));
	PROBE(semctl(unused, 0, IPC_RMID));
}

static void blocked(void)
{
	int id = PROBE(semget(IPC_PRIVATE, 2, IPC_CREAT | 0600));
	change(id, 1, 1, 0);
	pid_t waiter = PROBE(fork());
	if (!waiter) {
		change(id, 0, -2, 0);
		_exit(semctl(id, 1, GETVAL) == 1 ? 0 : 1);
	}
	pid_t zero = PROBE(fork());
	if (!zero) {
		change(id, 1, 0, 0);
		_exit(0);
	}
	while (semctl(id, 0, GETNCNT) != 1 || semctl(id, 1, GETZCNT) != 1)
		;

	probe_save();

	while (semctl(id, 0, GETNCNT) != 1 || semctl(id, 1, GETZCNT) != 1)
		;
	change(id, 0, 2, 0);
	probe_join(waiter, "who waited for more");
	change(id, 1, -1, 0);
	probe_join(zero, "who waited for zero");
	PROBE(semctl(id, 0, IPC_RMID));
}

/* Of each semaphore: its value, and what is added to it at the end of who has used it. */
static const struct { int value, by; } adjusted[] = {
	{ 0, 1 }, { 5, 0 }, { 32767, -3 }, { 32767, -32767 }, { 0, 32767 }, { 3, -3 }, { 16000, 12345 }, { 17000, -12345 }, { 32767, -1 }, { 1, 2 },
};
enum { ADJUSTED = sizeof adjusted / sizeof *adjusted };

static void *wait_for_end(void *unused)
{
	(void)unused;
	probe_wait();
	return NULL;
}

static void undo(bool with_threads)
{
	key_t key = (key_t)(0x0ca30000u + (unsigned)(probe_clock_ns(CLOCK_REALTIME) >> 10 & 0xffff));
	int id = PROBE(semget(key, ADJUSTED + 1, IPC_CREAT | IPC_EXCL | 0600));
	int done[2];
	PROBE(pipe(done));
	pid_t child = PROBE(fork());
	if (!child) {
		pthread_t thread;
		if (with_threads)
			PROBE_SAME(pthread_create(&thread, NULL, wait_for_end, NULL), 0, "pthread_create");
		for (int i = 0; i < ADJUSTED; i++) {
			/* The adjustment first, then the value, without clearing it. */
			if (adjusted[i].by > 0)
				change(id, i, adjusted[i].by, 0);
			if (adjusted[i].by)
				change(id, i, -adjusted[i].by, SEM_UNDO);
			int now = semctl(id, i, GETVAL);
			if (adjusted[i].value != now)
				change(id, i, adjusted[i].value - now, 0);
		}
		PROBE(write(done[1], "d", 1));
		probe_wait();
		change(id, ADJUSTED, 7, SEM_UNDO);
		change(id, 0, 10, 0);
		change(id, 0, -4, SEM_UNDO);
		for (;;)
			pause();
	}
	char byte;
	PROBE(read(done[0], &byte, 1));

	probe_save();

	PROBE_SAME(semget(key, 0, 0), id, "id of the key");
	while (semctl(id, ADJUSTED, GETVAL) != 7 || semctl(id, 0, GETVAL) != 6)
		;
	for (int i = 1; i < ADJUSTED; i++)
		PROBE_SAME(semctl(id, i, GETVAL), adjusted[i].value, "value");
	PROBE(kill(child, SIGKILL));
	PROBE_SAME(waitpid(child, NULL, 0), child, "end of the child");
	/* It is seen before the adjustments are made. */
	for (int i = 0; i < 5000 && semctl(id, ADJUSTED, GETVAL); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	PROBE_SAME(semctl(id, ADJUSTED, GETVAL), 0, "what was done after the save is undone");
	PROBE_SAME(semctl(id, 0, GETVAL), 6 + 4 + 1, "so is what was done before and after it");
	for (int i = 1; i < ADJUSTED; i++) {
		int wanted = adjusted[i].value + adjusted[i].by;
		PROBE_SAME(semctl(id, i, GETVAL), wanted < 0 ? 0 : wanted > 32767 ? 32767 : wanted, "what was done before the save is undone");
	}
	PROBE(semctl(id, 0, IPC_RMID));
}

static void last(void)
{
	int id = PROBE(semget(IPC_PRIVATE, 3, IPC_CREAT | 0600)), done[2];
	PROBE(pipe(done));
	pid_t children[2];
	char byte;
	for (int i = 0; i < 2; i++) {
		children[i] = PROBE(fork());
		if (!children[i]) {
			for (int number = 0; number < 3; number++)
				change(id, number, 4 + number, SEM_UNDO);
			PROBE(write(done[1], "d", 1));
			for (;;)
				pause();
		}
		PROBE(read(done[0], &byte, 1));
	}
	change(id, 0, 1, 0);
	change(id, 2, -1, SEM_UNDO);

	probe_save();

	PROBE_SAME(semctl(id, 0, GETPID), getpid(), "last user of the first one");
	PROBE_SAME(semctl(id, 1, GETPID), children[1], "last user of the second");
	PROBE_SAME(semctl(id, 2, GETPID), getpid(), "last user of the third, who has something to undo as well");
	PROBE_SAME(semctl(id, 0, GETVAL), 9, "value");
	for (int i = 0; i < 2; i++) {
		PROBE(kill(children[i], SIGKILL));
		PROBE_SAME(waitpid(children[i], NULL, 0), children[i], "end of a child");
	}
	for (int i = 0; i < 5000 && semctl(id, 2, GETVAL); i++) /* it is seen before the adjustments are made */
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	PROBE_SAME(semctl(id, 0, GETVAL), 1, "value when all is undone");
	PROBE(semctl(id, 0, IPC_RMID));
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "values";
	if (!strncmp(variant, "undo", 4))
		undo(!strcmp(variant, "undo_threads"));
	else if (!strcmp(variant, "blocked"))
		blocked();
	else if (!strcmp(variant, "last"))
		last();
	else
		values();
	return probe_end();
}
