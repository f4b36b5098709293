/* SPDX-License-Identifier: Apache-2.0 */
/* A semop(2) that never succeeds tells an adjustment of SEM_UNDO: pairs push it upwards and leave the value, ERANGE says that it has left its range, EAGAIN
 * (the last operation would have to wait) that it has not. Neither changes anything: not the value, not the adjustment, not the time. */
#include <sys/sem.h>

#include "fact.h"

enum { BY = 5, VALUE = 3 };

static int ask(int id, int push)
{
	struct sembuf all[5];
	size_t count = 0;
	for (int left = push; left > 0; left -= 16383) {
		short step = (short)(left > 16383 ? 16383 : left);
		all[count++] = (struct sembuf){ 0, step, IPC_NOWAIT };
		all[count++] = (struct sembuf){ 0, (short)-step, SEM_UNDO | IPC_NOWAIT };
	}
	if (push > 2 * 16383)
		return EINVAL;
	all[count++] = (struct sembuf){ 0, -32768, IPC_NOWAIT };
	return semop(id, all, count) < 0 ? errno : 0;
}

int main(void)
{
	int id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
	fact_need(id, "semget");
	fact_need(semop(id, &(struct sembuf){ 0, VALUE + BY, 0 }, 1), "semop");
	fact_need(semop(id, &(struct sembuf){ 0, -BY, SEM_UNDO }, 1), "semop");
	struct semid_ds before, after;
	fact_need(semctl(id, 0, IPC_STAT, &before), "IPC_STAT");
	int above = ask(id, 32767 - BY + 1), not_above = ask(id, 32767 - BY);
	bool holds = fact(above == ERANGE, "pushed to 32768: %s", strerror(above));
	holds &= fact(not_above == EAGAIN, "pushed to 32767: %s", strerror(not_above));
	fact_need(semctl(id, 0, IPC_STAT, &after), "IPC_STAT");
	int value = semctl(id, 0, GETVAL);
	holds &= fact(value == VALUE && after.sem_otime == before.sem_otime, "value %d (was %d), time moved by %ld", value, VALUE,
		      (long)(after.sem_otime - before.sem_otime));
	semctl(id, 0, IPC_RMID);
	return holds ? FACT_HOLDS : FACT_FAILS;
}
