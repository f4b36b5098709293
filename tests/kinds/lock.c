/* SPDX-License-Identifier: Apache-2.0 */
/* variant locks: flock, POSIX and OFD locks are held by who held them, through duplicates and across fork */
/* variant lease: leases are kept, and breaking one tells who held it */
#include "probe.h"

#include <signal.h>
#include <sys/file.h>

static struct flock range(int type, long start, long length)
{
	return (struct flock){ .l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
}

/* Who is in the way, asked by another process. */
static pid_t in_the_way(const char *name, int type, long start, long length)
{
	int ends[2];
	pid_t found = 0;
	PROBE(pipe(ends));
	pid_t child = PROBE(fork());
	if (!child) {
		int fd = PROBE(open(name, O_RDWR));
		struct flock lock = range(type, start, length);
		PROBE(fcntl(fd, F_GETLK, &lock));
		pid_t holder = lock.l_type == F_UNLCK ? 0 : lock.l_pid;
		_exit(write(ends[1], &holder, sizeof holder) != sizeof holder);
	}
	probe_join(child, "asker");
	PROBE_SAME(read(ends[0], &found, sizeof found), (long)sizeof found, "answer");
	close(ends[0]), close(ends[1]);
	return found;
}

static void locks(void)
{
	int fd = PROBE(open("file", O_RDWR | O_CREAT, 0600)), ofd = PROBE(open("file", O_RDWR));
	int shared = PROBE(open("flocked", O_RDWR | O_CREAT, 0600)), copy = PROBE(dup(shared)), apart = PROBE(open("flocked", O_RDWR));
	PROBE(write(fd, "0123456789", 10));
	struct flock lock = range(F_WRLCK, 3, 2);
	PROBE(fcntl(fd, F_SETLK, &lock));
	lock = range(F_RDLCK, 100, 0);
	PROBE(fcntl(fd, F_SETLK, &lock));
	lock = range(F_WRLCK, 7, 1);
	PROBE(fcntl(ofd, F_OFD_SETLK, &lock));
	PROBE(flock(shared, LOCK_EX));
	int ready[2], go[2];
	PROBE(pipe(ready));
	PROBE(pipe(go));
	pid_t child = PROBE(fork());
	if (!child) {
		/* Its own lock through the inherited description. */
		char byte;
		lock = range(F_WRLCK, 20, 5);
		PROBE(fcntl(fd, F_SETLK, &lock));
		PROBE_SAME(write(ready[1], "r", 1), 1, "write");
		PROBE_SAME(read(go[0], &byte, 1), 1, "read");
		_exit(probe_faults != 0);
	}
	char byte;
	PROBE(read(ready[0], &byte, 1));

	probe_save();

	PROBE_SAME(in_the_way("file", F_RDLCK, 0, 5), getpid(), "holder of the write lock");
	PROBE_SAME(in_the_way("file", F_RDLCK, 100, 1), 0, "holder that keeps readers from what is read-locked");
	PROBE_SAME(in_the_way("file", F_WRLCK, 1000, 1), getpid(), "holder of the read lock to the end");
	PROBE_SAME(in_the_way("file", F_WRLCK, 20, 1), child, "holder of the child's lock");
	PROBE_SAME(in_the_way("file", F_RDLCK, 7, 1), -1, "holder of the OFD lock");
	PROBE_SAME(in_the_way("file", F_WRLCK, 0, 3), 0, "holder of what is not locked");
	lock = range(F_WRLCK, 7, 1);
	PROBE_SAME(fcntl(ofd, F_OFD_SETLK, &lock), 0, "the OFD lock is its description's own");
	PROBE_TRUE(flock(apart, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK, "flock keeps another description off");
	PROBE_SAME(flock(copy, LOCK_SH | LOCK_NB), 0, "flock is shared with the duplicate");
	PROBE_SAME(flock(apart, LOCK_SH | LOCK_NB), 0, "flock turned into a shared one by the duplicate");
	PROBE_SAME(write(go[1], "g", 1), 1, "write");
	probe_join(child, "child");
	PROBE_SAME(in_the_way("file", F_WRLCK, 20, 1), 0, "holder of the child's lock after its end");
}

static volatile sig_atomic_t broken, broken_fd;
static void on_break(int signal, siginfo_t *info, void *context)
{
	(void)context;
	broken = signal;
	broken_fd = info->si_fd;
}

static void lease(void)
{
	int reader = PROBE(open("leased", O_RDONLY | O_CREAT, 0600)), writer = PROBE(open("other", O_RDWR | O_CREAT, 0600));
	sigaction(SIGRTMIN + 2, &(struct sigaction){ .sa_sigaction = on_break, .sa_flags = SA_SIGINFO }, NULL);
	PROBE(fcntl(reader, F_SETLEASE, F_RDLCK));
	PROBE(fcntl(reader, F_SETSIG, SIGRTMIN + 2));
	PROBE(fcntl(writer, F_SETLEASE, F_WRLCK));

	probe_save();

	PROBE_SAME(fcntl(reader, F_GETLEASE), F_RDLCK, "lease of the reader");
	PROBE_SAME(fcntl(writer, F_GETLEASE), F_WRLCK, "lease of the writer");
	PROBE_SAME(fcntl(reader, F_GETSIG), SIGRTMIN + 2, "signal");
	PROBE_TRUE(open("leased", O_WRONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK, "a writer has to wait");
	PROBE_SAME(broken, SIGRTMIN + 2, "signal of the breaking");
	PROBE_SAME(broken_fd, reader, "its descriptor");
	PROBE_SAME(fcntl(reader, F_SETLEASE, F_UNLCK), 0, "giving it up");
	PROBE_TRUE(open("leased", O_WRONLY | O_NONBLOCK) >= 0, "then a writer may come");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "lease"))
		lease();
	else
		locks();
	return probe_end();
}
