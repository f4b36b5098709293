/* SPDX-License-Identifier: Apache-2.0 */
/* variant kept: System V segments keep id, key, mode, size, contents, attachments and their gaps, and are shared by two processes */
/* variant removed: a segment that is marked for removal lives as long as its attachments */
/* variant left: a segment that nobody has attached keeps its contents */
#include "probe.h"

#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

enum { PAGE = 4096, PAGES = 24 };

static key_t odd_key(void)
{
	return (key_t)(0x0ca10000u + (unsigned)(probe_clock_ns(CLOCK_REALTIME) >> 10 & 0xffff));
}

static void kept(void)
{
	key_t key = odd_key();
	int id = PROBE(shmget(key, PAGES * PAGE - 100, IPC_CREAT | IPC_EXCL | 0640));
	/* The group that a program may always give it to: its own. */
	unsigned char *whole = PROBE((unsigned char *)shmat(id, NULL, 0));
	const unsigned char *reader = PROBE((const unsigned char *)shmat(id, NULL, SHM_RDONLY));
	probe_fill(whole, PAGES * PAGE - 100, 71);
	PROBE(mprotect(whole + 3 * PAGE, PAGE, PROT_NONE));
	unsigned char *holed = PROBE((unsigned char *)shmat(id, NULL, 0));
	PROBE(munmap(holed, 2 * PAGE));
	PROBE(munmap(holed + 10 * PAGE, 5 * PAGE));
	unsigned char *inside = PROBE((unsigned char *)mmap(holed + 11 * PAGE, PAGE, PROT_READ | PROT_WRITE,
							    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	inside[0] = 77;
	int sparse = PROBE(shmget(IPC_PRIVATE, 512 * PAGE, IPC_CREAT | 0600));
	unsigned char *hole = PROBE((unsigned char *)shmat(sparse, NULL, 0));
	hole[400 * PAGE] = 9;
	struct shmid_ds before, now;
	PROBE(shmctl(id, IPC_STAT, &before));
	volatile int *turn = PROBE((volatile int *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t child = PROBE(fork());
	if (!child) {
		PROBE(shmdt(reader));
		*turn = 1;
		probe_wait();
		while (*turn != 2)
			;
		PROBE_SAME(whole[5], 201, "what the parent stored, seen by the child");
		whole[6] = 202;
		*turn = 3;
		_exit(probe_faults != 0);
	}
	while (*turn != 1)
		;
	PROBE(shmctl(id, IPC_STAT, &before));

	probe_save();

	PROBE_SAME(shmctl(id, IPC_STAT, &now), 0, "IPC_STAT of the old id");
	PROBE_SAME(now.shm_perm.__key, key, "key");
	PROBE_SAME(now.shm_perm.mode, before.shm_perm.mode, "mode");
	PROBE_SAME(now.shm_perm.uid, before.shm_perm.uid, "owner");
	PROBE_SAME(now.shm_perm.cuid, before.shm_perm.cuid, "creator");
	PROBE_SAME(now.shm_segsz, PAGES * PAGE - 100, "size");
	PROBE_SAME(now.shm_nattch, before.shm_nattch, "attachments");
	PROBE_SAME(shmget(key, 0, 0), id, "segment of the key");
	PROBE(mprotect(whole + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE));
	probe_filled(whole, PAGES * PAGE - 100, 71, "contents");
	probe_filled(reader, PAGES * PAGE - 100, 71, "contents of the read-only attachment");
	probe_same_bytes(holed + 2 * PAGE, whole + 2 * PAGE, 8 * PAGE, "before the gap");
	probe_same_bytes(holed + 15 * PAGE, whole + 15 * PAGE, 9 * PAGE - 100, "behind the gap");
	PROBE_SAME(inside[0], 77, "private memory in the gap");
	whole[5] = 201;
	PROBE_SAME(reader[5], 201, "a store through the other attachment");
	*turn = 2;
	probe_join(child, "child");
	PROBE_SAME(reader[6], 202, "what the child stored");
	PROBE_SAME(hole[400 * PAGE], 9, "page of a sparse segment");
	unsigned char seen[512];
	size_t count = 0;
	PROBE(mincore(hole, 512 * PAGE, seen));
	for (int i = 0; i < 512; i++)
		count += seen[i] & 1;
	PROBE_SAME(count, 1, "pages of a sparse segment");
	PROBE_SAME(shmdt(holed), 0, "shmdt of the attachment with gaps");
	PROBE_TRUE(mincore(holed + 20 * PAGE, PAGE, seen) < 0 && errno == ENOMEM, "all of it is detached at once");
	PROBE_SAME(inside[0], 77, "private memory in the gap, after that");
	PROBE_TRUE(mprotect((void *)(uintptr_t)reader, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES, "read-only stays read-only");
	PROBE(shmctl(id, IPC_RMID, NULL));
	PROBE(shmctl(sparse, IPC_RMID, NULL));
}

static void removed(void)
{
	int id = PROBE(shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600));
	unsigned char *at = PROBE((unsigned char *)shmat(id, NULL, 0));
	PROBE(shmctl(id, IPC_RMID, NULL));
	probe_fill(at, 3 * PAGE, 72);

	probe_save();

	struct shmid_ds now;
	probe_filled(at, 3 * PAGE, 72, "contents");
	PROBE_SAME(shmctl(id, IPC_STAT, &now), 0, "IPC_STAT");
	PROBE_SAME(now.shm_perm.mode & SHM_DEST, SHM_DEST, "mark for removal");
	PROBE_SAME(now.shm_nattch, 1, "attachments");
	unsigned char *again = PROBE((unsigned char *)shmat(id, NULL, 0));
	at[7] = 3;
	PROBE_SAME(again[7], 3, "attached again");
	PROBE(shmdt(again));
	PROBE(shmdt(at));
	PROBE_TRUE(shmctl(id, IPC_STAT, &now) < 0, "it went with its last attachment");
}

static void left(void)
{
	int id = PROBE(shmget(odd_key(), 300 * PAGE - 5, IPC_CREAT | IPC_EXCL | 0600));
	unsigned char *at = PROBE((unsigned char *)shmat(id, NULL, 0));
	probe_fill(at + 200 * PAGE, 3 * PAGE, 73);
	PROBE(shmdt(at));

	probe_save();

	struct shmid_ds now;
	PROBE_SAME(shmctl(id, IPC_STAT, &now), 0, "IPC_STAT of the old id");
	PROBE_SAME(now.shm_segsz, 300 * PAGE - 5, "size");
	PROBE_SAME(now.shm_nattch, 0, "attachments");
	at = shmat(id, NULL, 0);
	if (at == (void *)-1) {
		probe_differs("shmat: %s", strerror(errno));
		return;
	}
	probe_filled(at + 200 * PAGE, 3 * PAGE, 73, "contents");
	PROBE_SAME(at[100 * PAGE], 0, "a hole");
	PROBE_SAME(shmctl(id, IPC_RMID, NULL), 0, "IPC_RMID");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "removed"))
		removed();
	else if (argc > 1 && !strcmp(argv[1], "left"))
		left();
	else
		kept();
	return probe_end();
}
