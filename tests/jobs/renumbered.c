/* SPDX-License-Identifier: Apache-2.0 */
/* A program that is restored with other PIDs: it holds what names its threads, waits for a file "go", then looks whether its libraries know
 * its new ids. Prints "differs: ..." for what is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id /* musl has the name that the manual says, glibc 2.36 not */
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { THREADS = 3, MUTEXES = 4 };
static const int kinds[MUTEXES] = { PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_NORMAL };
static pthread_barrier_t barrier;
static volatile sig_atomic_t signalled[THREADS + 1];
static _Thread_local int number;

static void wait_for(const char *path)
{
	while (access(path, F_OK))
		nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
}

#define SAME(got, wanted, what)                                                                                        \
	do {                                                                                                           \
		long got_ = (long)(got), wanted_ = (long)(wanted);                                                     \
		if (got_ != wanted_)                                                                                   \
			printf("differs: thread %d: %s is %ld, wanted %ld\n", number, what, got_, wanted_);            \
	} while (0)

static void on_signal(int signal)
{
	(void)signal;
	signalled[number]++;
}

static void *work(void *argument)
{
	pthread_mutex_t mutexes[MUTEXES];
	number = (int)(long)argument;
	for (int i = 0; i < MUTEXES; i++) {
		pthread_mutexattr_t attributes;
		pthread_mutexattr_init(&attributes);
		pthread_mutexattr_settype(&attributes, kinds[i]);
		if (i == 2)
			pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
		pthread_mutex_init(&mutexes[i], &attributes);
		pthread_mutex_lock(&mutexes[i]);
		if (kinds[i] == PTHREAD_MUTEX_RECURSIVE)
			pthread_mutex_lock(&mutexes[i]);
	}
	pid_t before = (pid_t)syscall(SYS_gettid);
	pthread_barrier_wait(&barrier);
	wait_for("go");
	if (number == 0)
		printf("renumbered %d\n", before != (pid_t)syscall(SYS_gettid));
	/* pthread_kill and raise go by the id that libc remembers. */
	SAME(pthread_kill(pthread_self(), SIGUSR1), 0, "pthread_kill");
	SAME(signalled[number], 1, "signals after pthread_kill");
	SAME(raise(SIGUSR1), 0, "raise");
	SAME(signalled[number], 2, "signals after raise");
	for (int i = 0; i < MUTEXES; i++) {
		if (kinds[i] == PTHREAD_MUTEX_ERRORCHECK)
			SAME(pthread_mutex_lock(&mutexes[i]), EDEADLK, "a second lock");
		if (kinds[i] == PTHREAD_MUTEX_RECURSIVE) {
			SAME(pthread_mutex_lock(&mutexes[i]), 0, "a third lock");
			SAME(pthread_mutex_unlock(&mutexes[i]), 0, "the first unlock");
			SAME(pthread_mutex_unlock(&mutexes[i]), 0, "the second unlock");
		}
		SAME(pthread_mutex_unlock(&mutexes[i]), 0, "the last unlock");
		if (kinds[i] != PTHREAD_MUTEX_NORMAL)
			SAME(pthread_mutex_unlock(&mutexes[i]), EPERM, "an unlock too many");
	}
	return NULL;
}

static void check_files(int epoll, int lock, int event)
{
	struct epoll_event got;
	struct flock range = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4 };
	SAME(epoll_wait(epoll, &got, 1, 0), 1, "epoll_wait");
	SAME(got.data.fd, event, "the descriptor in the event");
	pid_t child = fork();
	if (!child) {
		fcntl(lock, F_GETLK, &range);
		_exit(range.l_type == F_WRLCK && range.l_pid == getppid() ? 0 : 1);
	}
	int status;
	waitpid(child, &status, 0);
	SAME(status, 0, "the owner of a POSIX lock");
}

int main(void)
{
	pthread_t threads[THREADS];
	int epoll = epoll_create1(0), event = eventfd(1, 0), lock = open("locked", O_RDWR | O_CREAT, 0600);
	struct epoll_event watch = { .events = EPOLLIN, .data.fd = event };
	struct flock range = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 3, .l_len = 4 };
	timer_t timer;
	setvbuf(stdout, NULL, _IOLBF, 4096);
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, SIG_IGN);
	epoll_ctl(epoll, EPOLL_CTL_ADD, event, &watch);
	fcntl(lock, F_SETLK, &range);
	/* A timer that is armed later, for the main thread alone. */
	struct sigevent own = { .sigev_notify = 4 /* SIGEV_THREAD_ID */, .sigev_signo = SIGRTMIN };
	own.sigev_notify_thread_id = (int)syscall(SYS_gettid);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (timer_create(CLOCK_MONOTONIC, &own, &timer))
		printf("differs: timer_create\n");
	/* Two children in groups of their own, which never end by themselves; the one leads a session. */
	pid_t children[2];
	for (int i = 0; i < 2; i++) {
		children[i] = fork();
		if (!children[i]) {
			i ? setsid() : setpgid(0, 0);
			wait_for("go");
			_exit(i ? getsid(0) != getpid() || getpgid(0) != getpid() : getpgid(0) != getpid());
		}
	}
	setpgid(children[0], 0);
	pthread_barrier_init(&barrier, NULL, THREADS + 1);
	number = THREADS;
	for (long i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, (void *)i);
	pthread_barrier_wait(&barrier);
	printf("ready\n");
	wait_for("go");
	for (int i = 0; i < THREADS; i++)
		SAME(pthread_join(threads[i], NULL), 0, "pthread_join");
	SAME(raise(SIGUSR1), 0, "raise");
	SAME(signalled[THREADS], 1, "signals after raise");
	struct itimerspec soon = { .it_value.tv_nsec = 1000000 };
	SAME(timer_settime(timer, 0, &soon, NULL), 0, "timer_settime");
	SAME(sigwaitinfo(&set, NULL), SIGRTMIN, "the timer's signal");
	for (int i = 0; i < 2; i++) {
		int status = -1;
		wait(&status);
		SAME(status, 0, "status of a child");
	}
	check_files(epoll, lock, event);
	printf("end\n");
	return 0;
}
