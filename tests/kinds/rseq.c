/* SPDX-License-Identifier: Apache-2.0 */
/* probe: the rseq area stays registered, in each thread, and the kernel keeps it up to date */
#include "probe.h"

#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>

static pthread_barrier_t barrier;

static void look(const char *who)
{
	struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
	for (int i = 0; i < 1000; i++) {
		unsigned before = __atomic_load_n(&area->cpu_id, __ATOMIC_RELAXED), real;
		syscall(SYS_getcpu, &real, NULL, NULL);
		unsigned after = __atomic_load_n(&area->cpu_id, __ATOMIC_RELAXED);
		if (before == after && before != real)
			probe_differs("%s runs on CPU %u, its rseq area says %u", who, real, before);
	}
	/* Registered already: the kernel says EBUSY to the same area, EINVAL to another. */
	PROBE_SAME(syscall(SYS_rseq, area, __rseq_size < 32 ? 32 : __rseq_size, 0, RSEQ_SIG), -1, who);
	PROBE_SAME(errno, EBUSY, "error of a second registration");
}

static void *thread(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	look("the thread");
	return NULL;
}

int main(void)
{
	if (!__rseq_size)
		probe_skip("this C library registers no rseq area");
	pthread_t other;
	pthread_barrier_init(&barrier, NULL, 2);
	PROBE_SAME(pthread_create(&other, NULL, thread, NULL), 0, "set-up");
	pthread_barrier_wait(&barrier);
	look("set-up: the process");

	probe_save();

	look("the process");
	pthread_barrier_wait(&barrier);
	pthread_join(other, NULL);
	return probe_end();
}
