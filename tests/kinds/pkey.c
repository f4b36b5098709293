/* SPDX-License-Identifier: Apache-2.0 */
/* probe: protection keys: those allocated, those of mappings, and each thread's rights are as they were */
#include "probe.h"

#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static pthread_barrier_t barrier;
static unsigned char *at;
static int key_a, key_b, key_freed;

static bool can_read(const unsigned char *address)
{
	int ends[2];
	PROBE(pipe(ends));
	bool can = write(ends[1], address, 1) == 1;
	close(ends[0]);
	close(ends[1]);
	return can;
}

static void *other(void *unused)
{
	(void)unused;
	PROBE(pkey_set(key_a, 0));
	PROBE(pkey_set(key_b, PKEY_DISABLE_ACCESS));
	pthread_barrier_wait(&barrier);
	probe_wait();
	PROBE_SAME(pkey_get(key_a), 0, "rights of the other thread to the first key");
	PROBE_SAME(pkey_get(key_b), PKEY_DISABLE_ACCESS, "and to the second");
	PROBE_SAME(can_read(at), true, "it reads memory with the first");
	PROBE_SAME(can_read(at + PAGE), false, "it reads memory with the second");
	return NULL;
}

int main(void)
{
	pthread_t thread;
	int unused = pkey_alloc(0, 0);
	if (unused < 0)
		probe_skip("pkey_alloc: %s", strerror(errno));
	key_a = PROBE(pkey_alloc(0, PKEY_DISABLE_WRITE));
	key_freed = PROBE(pkey_alloc(0, 0));
	int hole = PROBE(pkey_alloc(0, 0));
	key_b = PROBE(pkey_alloc(0, 0));
	at = PROBE((unsigned char *)mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	probe_fill(at, 8 * PAGE, 1);
	PROBE(pkey_mprotect(at, PAGE, PROT_READ | PROT_WRITE, key_a));
	PROBE(pkey_mprotect(at + PAGE, 2 * PAGE, PROT_READ, key_b));
	PROBE(pkey_mprotect(at + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, key_freed));
	unsigned char *only = PROBE((unsigned char *)mmap(NULL, PAGE, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	pkey_free(key_freed);
	pkey_free(hole);
	pthread_barrier_init(&barrier, NULL, 2);
	PROBE_SAME(pthread_create(&thread, NULL, other, NULL), 0, "set-up: pthread_create");
	pthread_barrier_wait(&barrier);

	probe_save();

	PROBE_SAME(pkey_get(key_a), PKEY_DISABLE_WRITE, "rights to the first key");
	PROBE_SAME(pkey_get(key_b), 0, "and to the second");
	PROBE_SAME(can_read(at), true, "memory with the first");
	probe_filled(at, PAGE, 1, "contents");
	PROBE_SAME(pkey_mprotect(at + 5 * PAGE, PAGE, PROT_READ, unused), 0, "a key that is allocated and not used");
	PROBE_TRUE(pkey_mprotect(at + 6 * PAGE, PAGE, PROT_READ, key_freed) == -1 && errno == EINVAL, "a key that was freed");
	PROBE_SAME(pkey_alloc(0, 0), key_freed, "the next key");
	PROBE_SAME(pkey_alloc(0, 0), hole, "and the one after it");
	PROBE_SAME(can_read(only), false, "memory that may only be executed");
	pthread_join(thread, NULL);
	return probe_end();
}
