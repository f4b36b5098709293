/* SPDX-License-Identifier: Apache-2.0 */
/* probe: which of the descriptors of five processes are the same open file, and which only look so, is as it was */
#include "probe.h"

#include <linux/kcmp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

enum { PROCESSES = 5, DESCRIPTORS = 40, ALL = PROCESSES * DESCRIPTORS };

static pid_t pids[PROCESSES];

/* A number for each open file of each process; 0: there is none. */
static void look(int ret_files[ALL])
{
	int known = 0, first[ALL];
	for (int i = 0; i < ALL; i++) {
		pid_t pid = pids[i / DESCRIPTORS];
		int fd = i % DESCRIPTORS;
		ret_files[i] = 0;
		if (syscall(SYS_kcmp, pid, pid, KCMP_FILE, fd, fd) != 0)
			continue;
		for (int k = 0; k < known && !ret_files[i]; k++)
			if (syscall(SYS_kcmp, pid, pids[first[k] / DESCRIPTORS], KCMP_FILE, fd, first[k] % DESCRIPTORS) == 0)
				ret_files[i] = k + 1;
		if (!ret_files[i]) {
			first[known++] = i;
			ret_files[i] = known;
		}
	}
}

/* Alike, and another one each. */
static void open_own(int number)
{
	int file = PROBE(open("a file", O_RDWR)), memory = PROBE(open("/dev/zero", O_RDONLY)), counter = PROBE(eventfd(3, 0));
	PROBE(dup2(file, 20 + number));
	PROBE(dup2(memory, 30));
	PROBE(dup2(counter, 31));
	close(file);
	close(counter);
}

int main(void)
{
	int before[ALL], after[ALL], ready[2], pair[2];
	int made = PROBE(open("a file", O_RDWR | O_CREAT, 0600));
	close(made);
	int file = PROBE(open("a file", O_RDWR)), same = PROBE(open("a file", O_RDWR)); /* flags and offset are equal */
	PROBE(dup2(file, 17));
	PROBE(dup2(same, 18));
	PROBE(pipe(ready));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	pids[0] = getpid();
	for (int i = 1; i < PROCESSES; i++) {
		pids[i] = PROBE(fork());
		if (pids[i])
			continue;
		open_own(i);
		if (i % 2)
			close(17);
		if (i == 2)
			PROBE(dup2(18, 17)); /* another one under the number of the others' */
		if (i == 3)
			close(file);
		PROBE(write(ready[1], "r", 1));
		for (;;)
			pause();
	}
	open_own(0);
	char bytes[PROCESSES];
	for (int got = 0; got < PROCESSES - 1;)
		got += (int)PROBE(read(ready[0], bytes, sizeof bytes));
	look(before);
	if (!before[0])
		probe_skip("kcmp: %s", strerror(errno));

	probe_save();

	look(after);
	for (int i = 0; i < ALL; i++)
		if (before[i] != after[i])
			probe_differs("process %d, descriptor %d is open file %d, was %d", i / DESCRIPTORS, i % DESCRIPTORS, after[i], before[i]);
	for (int i = 1; i < PROCESSES; i++) {
		PROBE(kill(pids[i], SIGKILL));
		PROBE_SAME(waitpid(pids[i], NULL, 0), pids[i], "end of a child");
	}
	return probe_end();
}
