/* SPDX-License-Identifier: Apache-2.0 */
/* variant exited: a process whose first thread has ended goes on by its others, with its files, directory and mappings */
/* variant status: a process whose first thread has ended before ends with the status that the kernel gives such a process */
/* variant parent: children and their parent-death signals outlive a first thread that had ended */
#include "probe.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static pid_t first;
static int counter, watcher, pair[2];
static char *private_, *shared;

static char state_of(pid_t pid)
{
	char path[64], text[512];
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY);
	ssize_t size = read(fd, text, sizeof text - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	const char *found = strrchr(text, ')');
	return found ? found[2] : 0;
}

static void await_end(pid_t pid)
{
	while (state_of(pid) != 'Z')
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void *rest(void *argument)
{
	uint64_t value = 0;
	char letter = 0, here[PATH_MAX];
	struct epoll_event event = { 0 };
	sigset_t pending;
	await_end(first);
	PROBE(write(counter, &(uint64_t){ 7 }, 8));
	kill(getpid(), SIGRTMIN + 3);
	PROBE_TRUE(getcwd(here, sizeof here) != NULL, "getcwd");

	probe_save();

	PROBE_SAME(getpid(), first, "PID");
	PROBE_SAME(state_of(first), 'Z', "state of the first thread");
	PROBE_SAME(epoll_wait(watcher, &event, 1, 0), 1, "ready files");
	PROBE_SAME(event.data.u64, 99, "data of the ready file");
	PROBE(read(counter, &value, 8));
	PROBE_SAME(value, 7, "counter");
	PROBE(read(pair[1], &letter, 1));
	PROBE_SAME(letter, 'q', "a letter in a socket");
	probe_filled(private_, 1 << 20, 5, "private memory");
	probe_filled(shared, 1 << 16, 6, "shared memory");
	sigpending(&pending);
	PROBE_SAME(sigismember(&pending, SIGRTMIN + 3), 1, "a pending signal of the process");
	char now[PATH_MAX];
	PROBE_TRUE(getcwd(now, sizeof now) && !strcmp(now, here), "working directory");
	exit(probe_end());
	return argument;
}

static void exited(void)
{
	pthread_t id;
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 3);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	first = getpid();
	counter = PROBE(eventfd(0, 0));
	watcher = PROBE(epoll_create1(0));
	PROBE(epoll_ctl(watcher, EPOLL_CTL_ADD, counter, &(struct epoll_event){ .events = EPOLLIN, .data.u64 = 99 }));
	PROBE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	PROBE(write(pair[0], "q", 1));
	private_ = PROBE(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	shared = PROBE(mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	probe_fill(private_, 1 << 20, 5);
	probe_fill(shared, 1 << 16, 6);
	pthread_create(&id, NULL, rest, NULL);
	pthread_exit(NULL);
}

static void *last(void *argument)
{
	probe_wait();
	syscall(SYS_exit, 3); /* of this thread alone; it is the last one */
	return argument;
}

static void *at_once(void *argument)
{
	await_end(getpid());
	syscall(SYS_exit, 3);
	return argument;
}

/* Which of the two statuses counts, the first thread's or the last one's, differs between kernels (5.17). */
static int usual_status(void)
{
	int status_ = 0;
	pid_t child = PROBE(fork());
	if (!child) {
		pthread_t id;
		pthread_create(&id, NULL, at_once, NULL);
		syscall(SYS_exit, 7);
	}
	PROBE(waitpid(child, &status_, 0));
	return status_;
}

static void status(void)
{
	int status_ = 0, usual = usual_status();
	pid_t child = PROBE(fork());
	if (!child) {
		pthread_t id;
		pthread_create(&id, NULL, last, NULL);
		syscall(SYS_exit, 7);
	}
	await_end(child);

	probe_save();

	PROBE_SAME(waitpid(child, &status_, 0), child, "the child that ends");
	PROBE_SAME(status_, usual, "its status");
}

static pid_t grandchild;
static volatile int told;

static void *bearer(void *argument)
{
	await_end(getpid());
	probe_wait();
	syscall(SYS_exit_group, 0);
	return argument;
}

static void tell(int signal_)
{
	told = signal_;
}

static void parent(void)
{
	int ends[2];
	PROBE(pipe(ends));
	PROBE(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	pid_t child = PROBE(fork());
	if (!child) {
		pthread_t id;
		grandchild = PROBE(fork());
		if (!grandchild) {
			signal(SIGUSR2, tell);
			await_end(getppid());
			prctl(PR_SET_PDEATHSIG, SIGUSR2); /* set after the first thread's end, it waits for the other's */
			PROBE(write(ends[1], "x", 1));
			while (!told)
				nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			_exit(access(probe_go, F_OK) ? 1 : 0); /* not before */
		}
		pthread_create(&id, NULL, bearer, NULL);
		syscall(SYS_exit, 0);
	}
	char letter;
	PROBE(read(ends[0], &letter, 1));

	probe_save();

	probe_join(child, "the child");
	probe_join(-1, "the grandchild");
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "exited";
	if (!strcmp(variant, "status"))
		status();
	else if (!strcmp(variant, "parent"))
		parent();
	else
		exited();
	return probe_end();
}
