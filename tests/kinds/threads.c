/* SPDX-License-Identifier: Apache-2.0 */
/* variant twenty: twenty threads keep their ids, names, thread-local storage, masks and stacks, asleep or running */
/* variant many: so do 2,000 */
#include "probe.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

enum { FEW = 20, MANY = 2000, STACK = 128 * 1024 };
static pthread_barrier_t begun;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t over = PTHREAD_COND_INITIALIZER;
static volatile bool done;
static _Thread_local uint64_t local[50];

static void *work(void *argument)
{
	long self = (long)argument;
	pid_t tid = (pid_t)syscall(SYS_gettid);
	char name[16], seen[16];
	snprintf(name, sizeof name, "probe (%ld) \\n", self);
	PROBE(prctl(PR_SET_NAME, name));
	sigset_t mask, seen_mask;
	sigemptyset(&mask);
	sigaddset(&mask, (int)(SIGRTMIN + self % 30));
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	probe_fill(local, sizeof local, (uint64_t)self);
	unsigned char stack[20000];
	probe_fill(stack, sizeof stack, (uint64_t)self + 500);
	volatile uint64_t counted = 0;
	pthread_barrier_wait(&begun);

	if (self % 2) {
		pthread_mutex_lock(&lock);
		while (!done)
			pthread_cond_wait(&over, &lock);
		pthread_mutex_unlock(&lock);
	} else if (self == 2 || self == 4) {
		while (!done)
			counted = counted + 1;
	} else {
		while (!done)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 * (self % 900 + 1) }, NULL);
	}
	PROBE_SAME(syscall(SYS_gettid), tid, "thread id");
	PROBE(prctl(PR_GET_NAME, seen));
	PROBE_TRUE(!strcmp(seen, name), "name of a thread");
	pthread_sigmask(SIG_SETMASK, NULL, &seen_mask);
	PROBE_TRUE(!memcmp(&mask, &seen_mask, 8), "mask of a thread");
	probe_filled(local, sizeof local, (uint64_t)self, "thread-local storage");
	probe_filled(stack, sizeof stack, (uint64_t)self + 500, "stack of a thread");
	return (void *)(self * 3);
}

int main(int argc, char **argv)
{
	static pthread_t threads[MANY];
	const long count = argc > 1 && !strcmp(argv[1], "many") ? MANY : FEW;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	pthread_barrier_init(&begun, NULL, (unsigned)count + 1);
	for (long i = 0; i < count; i++)
		if (pthread_create(&threads[i], &attributes, work, (void *)i))
			probe_skip("%ld threads are more than are permitted", count);
	pthread_barrier_wait(&begun);

	probe_save();

	pthread_mutex_lock(&lock);
	done = true;
	pthread_cond_broadcast(&over);
	pthread_mutex_unlock(&lock);
	for (long i = 0; i < count; i++) {
		void *value = NULL;
		PROBE_SAME(pthread_join(threads[i], &value), 0, "join");
		PROBE_SAME((long)value, i * 3, "value of a thread");
	}
	return probe_end();
}
