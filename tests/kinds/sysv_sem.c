/* SPDX-License-Identifier: Apache-2.0 */
/* variant values: a set of System V semaphores keeps id, key, mode, values and who changed which last */
/* variant blocked: processes that wait for System V semaphores are woken by the next operation after the restore */
/* variant undo: a process with semaphore adjustments is refused by name */
/* refusable: SEM_UNDO */
#include "probe.h"

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

static void undo(void)
{
	int id = PROBE(semget(IPC_PRIVATE, 1, IPC_CREAT | 0600));
	change(id, 0, 1, 0);
	change(id, 0, -1, SEM_UNDO);
	probe_save();
	PROBE_SAME(semctl(id, 0, GETVAL), 0, "value");
	PROBE(semctl(id, 0, IPC_RMID));
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "values";
	if (!strcmp(variant, "undo"))
		undo();
	else if (!strcmp(variant, "blocked"))
		blocked();
	else
		values();
	return probe_end();
}
