/* SPDX-License-Identifier: Apache-2.0 */
/* probe: robust mutexes tell the next owner that the last one died, in the tree that came back */
#include "probe.h"

#include <pthread.h>
#include <sys/mman.h>

struct both {
	pthread_mutex_t mutex;
	int locked;
};

static pthread_barrier_t barrier;
static pthread_mutex_t own;

static void *holder(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&own);
	pthread_barrier_wait(&barrier);
	probe_wait();
	return NULL; /* dies with the lock */
}

int main(void)
{
	void *head = NULL, *head_after = NULL;
	size_t size = 0;
	pthread_mutexattr_t attributes;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&own, &attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	struct both *both = PROBE((struct both *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pthread_mutex_init(&both->mutex, &attributes);
	PROBE(syscall(SYS_get_robust_list, 0, &head, &size));

	pthread_t thread;
	pthread_barrier_init(&barrier, NULL, 2);
	PROBE_SAME(pthread_create(&thread, NULL, holder, NULL), 0, "set-up");
	pthread_barrier_wait(&barrier);
	pid_t child = PROBE(fork());
	if (!child) {
		pthread_mutex_lock(&both->mutex);
		__atomic_store_n(&both->locked, 1, __ATOMIC_SEQ_CST);
		probe_wait();
		_exit(0); /* dies with the lock */
	}
	while (!__atomic_load_n(&both->locked, __ATOMIC_SEQ_CST))
		;

	probe_save();

	PROBE_SAME(syscall(SYS_get_robust_list, 0, &head_after, &size), 0, "get_robust_list");
	PROBE_SAME((long)head_after, (long)head, "robust list");
	PROBE_SAME(size, 24, "size of the robust list's head");
	PROBE_SAME(pthread_mutex_lock(&own), EOWNERDEAD, "lock of the mutex of a dead thread");
	PROBE_SAME(pthread_mutex_lock(&both->mutex), EOWNERDEAD, "lock of the mutex of a dead process");
	pthread_join(thread, NULL);
	probe_join(child, "child");
	return probe_end();
}
