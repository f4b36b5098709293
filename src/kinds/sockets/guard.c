/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sockets/guard.h"

#include <errno.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "kinds/sockets/socket.h"

enum { WATCHED_MOST = 1 << 20 /* fs.nr_open */, REPAIR_OFF_NO_PROBE = -1 };

/* In memory that both see, of which only what is used is there. */
struct watched {
	uint32_t end; /* above the highest descriptor so far */
	struct {
		int is_watched, reuse;
	} sockets[WATCHED_MOST]; /* by descriptor */
};

struct tcp_guard {
	struct watched *watched;
	pid_t pid;
};

static _Noreturn void stand_guard(struct watched *watched, pid_t cairn)
{
	sigset_t death;
	int signal_number;
	setsid(); /* what ends Cairn from the terminal does not end this */
	sigfillset(&death);
	sigprocmask(SIG_SETMASK, &death, NULL);
	sigemptyset(&death);
	sigaddset(&death, SIGUSR1);
	prctl(PR_SET_PDEATHSIG, SIGUSR1);
	if (getppid() == cairn)
		sigwait(&death, &signal_number);
	for (uint32_t fd = 0; fd < __atomic_load_n(&watched->end, __ATOMIC_ACQUIRE); fd++) {
		int off = REPAIR_OFF_NO_PROBE, reuse = watched->sockets[fd].reuse;
		if (!__atomic_load_n(&watched->sockets[fd].is_watched, __ATOMIC_ACQUIRE))
			continue;
		setsockopt((int)fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off);
		setsockopt((int)fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
	}
	_exit(0);
}

static void guard_end(void *thing)
{
	struct tcp_guard *guard = thing;
	kill(guard->pid, SIGKILL);
	while (waitpid(guard->pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	munmap(guard->watched, sizeof *guard->watched);
	free(guard);
}

struct tcp_guard *guard_get(struct harvest *harvest)
{
	struct socket_scene *scene = socket_scene(harvest);
	if (scene->guard || scene->has_no_guard)
		return scene->guard;
	struct watched *watched = mmap(NULL, sizeof *watched, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct clone_args args = { .flags = CLONE_FILES, .exit_signal = SIGCHLD };
	pid_t cairn = getpid(), pid = watched == MAP_FAILED ? -1 : (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid < 0 && watched != MAP_FAILED)
		pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0); /* container filters */
	if (pid == 0)
		stand_guard(watched, cairn);
	if (pid < 0) {
		log_debug("no guard over sockets in repair mode: %s", strerror(errno));
		scene->has_no_guard = true;
		return NULL;
	}
	scene->guard = memory_new(sizeof *scene->guard);
	*scene->guard = (struct tcp_guard){ watched, pid };
	*vec_add(&harvest->at_end) = (struct scoped_end){ guard_end, scene->guard };
	return scene->guard;
}

void guard_watch(struct tcp_guard *guard, int fd, int reuse)
{
	if (!guard || fd >= WATCHED_MOST)
		return;
	struct watched *watched = guard->watched;
	uint32_t end = __atomic_load_n(&watched->end, __ATOMIC_RELAXED);
	watched->sockets[fd].reuse = reuse;
	__atomic_store_n(&watched->sockets[fd].is_watched, 1, __ATOMIC_RELEASE);
	while (end <= (uint32_t)fd &&
	       !__atomic_compare_exchange_n(&watched->end, &end, (uint32_t)fd + 1, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
}

void guard_forget(struct tcp_guard *guard, int fd)
{
	if (guard && fd < WATCHED_MOST)
		__atomic_store_n(&guard->watched->sockets[fd].is_watched, 0, __ATOMIC_RELEASE);
}
