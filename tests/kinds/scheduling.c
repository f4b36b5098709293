/* SPDX-License-Identifier: Apache-2.0 */
/* variant normal: nice value, batch policy, affinity and I/O priority are kept, per thread */
/* variant realtime: a real-time policy with its priority is kept */
#include "probe.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

static pthread_barrier_t barrier;

static void *other(void *unused)
{
	(void)unused;
	PROBE(setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 11));
	struct sched_param none = { 0 };
	PROBE(sched_setscheduler(0, SCHED_IDLE, &none));
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	PROBE_SAME(getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid)), 11, "nice value of the thread");
	PROBE_SAME(sched_getscheduler(0), SCHED_IDLE, "policy of the thread");
	return NULL;
}

static void normal(void)
{
	struct sched_param param = { 0 };
	cpu_set_t all, one, seen;
	CPU_ZERO(&one);
	PROBE(sched_getaffinity(0, sizeof all, &all));
	for (int i = CPU_SETSIZE - 1; i >= 0; i--)
		if (CPU_ISSET(i, &all)) {
			CPU_SET(i, &one);
			break;
		}
	pthread_t thread;
	pthread_barrier_init(&barrier, NULL, 2);
	PROBE_SAME(pthread_create(&thread, NULL, other, NULL), 0, "set-up");
	pthread_barrier_wait(&barrier);
	PROBE(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &param));
	PROBE(setpriority(PRIO_PROCESS, 0, 7));
	PROBE(sched_setaffinity(0, sizeof one, &one));
	PROBE(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 6));

	probe_save();

	PROBE_SAME(sched_getscheduler(0), SCHED_BATCH | SCHED_RESET_ON_FORK, "policy");
	PROBE_SAME(getpriority(PRIO_PROCESS, 0), 7, "nice value");
	PROBE_SAME(sched_getaffinity(0, sizeof seen, &seen), 0, "sched_getaffinity");
	PROBE_TRUE(CPU_EQUAL(&seen, &one), "affinity");
	PROBE_SAME(syscall(SYS_ioprio_get, 1, 0), 2 << 13 | 6, "I/O priority");
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
}

static void realtime(void)
{
	struct sched_param param = { .sched_priority = 3 };
	if (sched_setscheduler(0, SCHED_RR, &param))
		probe_skip("real-time scheduling is not permitted here: %s", strerror(errno));
	probe_save();
	PROBE_SAME(sched_getscheduler(0), SCHED_RR, "policy");
	PROBE_SAME(sched_getparam(0, &param), 0, "sched_getparam");
	PROBE_SAME(param.sched_priority, 3, "priority");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "realtime"))
		realtime();
	else
		normal();
	return probe_end();
}
