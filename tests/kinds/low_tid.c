/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a thread whose number is lower than its process's is carried */
#include "probe.h"

#include <pthread.h>
#include <sys/mman.h>

static bool set_last_pid(int number)
{
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && dprintf(fd, "%d", number) > 0;
	close(fd);
	return done;
}

static volatile pid_t *numbers;

static void *thread(void *argument)
{
	numbers[1] = (pid_t)syscall(SYS_gettid);
	probe_wait();
	PROBE_SAME(syscall(SYS_gettid), numbers[1], "number of the thread");
	return argument;
}

int main(void)
{
	numbers = PROBE((volatile pid_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	if (!set_last_pid(700))
		probe_skip("choosing the next PID: %s", strerror(errno));
	pid_t child = PROBE(fork());
	if (!child) {
		pthread_t id;
		set_last_pid(300);
		pthread_create(&id, NULL, thread, NULL);
		pthread_join(id, NULL);
		_exit(probe_faults != 0);
	}
	while (!numbers[1])
		;
	PROBE_TRUE(numbers[1] < child, "set-up: the thread's number is the lower one");

	probe_save();

	probe_join(child, "child");
	return probe_end();
}
