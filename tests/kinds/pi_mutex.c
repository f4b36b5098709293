/* SPDX-License-Identifier: Apache-2.0 */
/* variant held: priority-inheritance mutexes that a process holds while another one waits for them are handed on */
/* variant died: the next owner of a robust one learns that the last one died */
#include "probe.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <linux/membarrier.h>

struct shared {
	pthread_mutex_t mutex;
	volatile int waiting, taken, result;
};

static struct shared *make(bool robust)
{
	pthread_mutexattr_t attributes;
	struct shared *shared = PROBE(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
	if (robust)
		pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	int error = pthread_mutex_init(&shared->mutex, &attributes);
	if (error)
		probe_skip("priority inheritance: %s", strerror(error));
	return shared;
}

static void waiter(struct shared *shared)
{
	shared->waiting = 1;
	shared->result = pthread_mutex_lock(&shared->mutex);
	shared->taken = 1;
	_exit(access(probe_go, F_OK) ? 1 : 0); /* not before its time */
}

/* In the kernel, for the mutex: the word says that somebody waits. */
static void await_waiter(const struct shared *shared)
{
	while (!shared->waiting || !(*(const volatile uint32_t *)&shared->mutex & 0x80000000u))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void held(void)
{
	struct shared *shared = make(false);
	PROBE(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
	pthread_mutex_lock(&shared->mutex);
	pid_t child = PROBE(fork());
	if (!child)
		waiter(shared);
	await_waiter(shared);

	probe_save();

	PROBE_SAME(shared->taken, 0, "taken by another while it was held");
	PROBE_SAME(pthread_mutex_unlock(&shared->mutex), 0, "unlock");
	probe_join(child, "the one who waited");
	PROBE_SAME(shared->result, 0, "its lock");
	PROBE_SAME(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), 0, "a registered membarrier");
}

static void *dies(void *argument)
{
	struct shared *shared = argument;
	pthread_mutex_lock(&shared->mutex);
	shared->waiting = 2;
	probe_wait();
	return NULL; /* with the lock */
}

static void died(void)
{
	struct shared *shared = make(true);
	pthread_t id;
	pthread_create(&id, NULL, dies, shared);
	while (shared->waiting != 2)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	pid_t child = PROBE(fork());
	if (!child)
		waiter(shared);
	await_waiter(shared);

	probe_save();

	pthread_join(id, NULL);
	probe_join(child, "the one who waited");
	PROBE_SAME(shared->result, EOWNERDEAD, "its lock");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "died"))
		died();
	else
		held();
	return probe_end();
}
