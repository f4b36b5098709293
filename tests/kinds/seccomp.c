/* SPDX-License-Identifier: Apache-2.0 */
/* variant stacked: three filters, one of which logs, come back in order; they forbid everything that Cairn would need */
/* variant strict: a child in strict mode stays in it and goes on */
/* variant thread: a thread's own filters are its own; the others have none */
/* variant everyone: a filter that all threads share (TSYNC) is everybody's, also of threads made later */
/* variant privileged: a filter installed without no_new_privs by a root that is none any more */
/* variant supervisor: a filter that asks a supervisor is refused by name */
/* refusable: supervisor */
/* permission: seccomp */
#include "probe.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static int install(const struct sock_filter *program, size_t count, unsigned flags)
{
	struct sock_fprog whole = { .len = (unsigned short)count, .filter = (struct sock_filter *)program };
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &whole);
}

/* A call gives an errno, all others are allowed. */
static int forbid(long number, int error, unsigned flags)
{
	const struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	return install(program, sizeof program / sizeof *program, flags);
}

/* Kills at all but these: what the probe itself needs. No munmap, no rt_sigprocmask, no select, no prctl, no restart_syscall. */
static int allow_little(void)
{
	static const unsigned allowed[] = { SYS_access, SYS_clock_nanosleep, SYS_nanosleep, SYS_write, SYS_exit_group, SYS_getppid, SYS_getuid,
					    SYS_openat, SYS_read, SYS_close, SYS_newfstatat, SYS_fstat, SYS_futex, SYS_exit };
	enum { COUNT = sizeof allowed / sizeof *allowed };
	struct sock_filter program[COUNT + 3] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)) };
	for (unsigned i = 0; i < COUNT; i++)
		program[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], (unsigned char)(COUNT - i), 0);
	program[COUNT + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	program[COUNT + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return install(program, COUNT + 3, SECCOMP_FILTER_FLAG_LOG);
}

/* Reads without stdio, which would want memory. */
static int field(const char *path, const char *key)
{
	static char text[8192];
	int fd = open(path, O_RDONLY);
	ssize_t size = read(fd, text, sizeof text - 1);
	close(fd);
	text[size > 0 ? size : 0] = 0;
	const char *found = strstr(text, key);
	return found ? atoi(found + strlen(key)) : -1;
}

static void stacked(void)
{
	int before = field("/proc/self/status", "Seccomp_filters:");
	PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	PROBE(forbid(SYS_getppid, 71, 0));
	PROBE(forbid(SYS_getuid, 72, 0));
	PROBE(forbid(SYS_getppid, 73, 0)); /* the newest of two errors wins */
	PROBE(allow_little());

	probe_save();

	PROBE_SAME(syscall(SYS_getppid), -1, "the forbidden call");
	PROBE_SAME(errno, 73, "its error");
	PROBE_SAME(syscall(SYS_getuid), -1, "the other forbidden call");
	PROBE_SAME(errno, 72, "its error");
	PROBE_SAME(field("/proc/self/status", "Seccomp_filters:"), before + 4, "number of filters");
	PROBE_SAME(field("/proc/self/status", "NoNewPrivs:"), 1, "no_new_privs");
	PROBE_SAME(field("/proc/self/status", "Seccomp:"), SECCOMP_MODE_FILTER, "mode");
}

/* Dies at once of a call that the filters kill for. */
static void dies(void (*call)(void), int signal_, const char *what)
{
	pid_t child = PROBE(fork());
	int status = 0;
	if (!child) {
		call();
		_exit(0);
	}
	waitpid(child, &status, 0);
	PROBE_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal_, what);
}

static void strict(void)
{
	int to[2], from[2], status;
	char letter = 0;
	PROBE(pipe(to));
	PROBE(pipe(from));
	pid_t child = PROBE(fork());
	if (!child) {
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
		write(from[1], "s", 1);
		while (read(to[0], &letter, 1) == 1 && letter != 'x') {
			letter++;
			write(from[1], &letter, 1);
		}
		syscall(SYS_getpid); /* not one of the four calls */
		syscall(SYS_exit, 0);
	}
	PROBE(read(from[0], &letter, 1));

	probe_save();

	char path[64];
	snprintf(path, sizeof path, "/proc/%d/status", child);
	PROBE_SAME(field(path, "Seccomp:"), SECCOMP_MODE_STRICT, "mode of the child");
	PROBE(write(to[1], "c", 1));
	PROBE(read(from[0], &letter, 1));
	PROBE_SAME(letter, 'd', "answer of the child");
	PROBE(write(to[1], "x", 1));
	PROBE(waitpid(child, &status, 0));
	PROBE_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the end of a child in strict mode");
}

static volatile int stage;
static int results[2];

static void *filtered(void *argument)
{
	PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	PROBE(forbid(SYS_getppid, 81, 0));
	PROBE(allow_little());
	stage++;
	while (stage < 2)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	results[0] = syscall(SYS_getppid) == -1 ? errno : 0;
	stage++;
	syscall(SYS_exit, 0);
	return argument;
}

static void thread(void)
{
	pthread_t id;
	int before = field("/proc/self/status", "Seccomp_filters:");
	pthread_create(&id, NULL, filtered, NULL);
	while (stage != 1)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);

	probe_save();

	PROBE_TRUE(getppid() >= 0, "a call of the first thread, which is not forbidden");
	PROBE_SAME(field("/proc/self/status", "Seccomp_filters:"), before, "filters of the first thread");
	PROBE_SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0, "no_new_privs of the first thread");
	stage = 2;
	while (stage != 3)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	PROBE_SAME(results[0], 81, "the error of the thread's forbidden call");
}

static void *asks(void *argument)
{
	results[(intptr_t)argument] = syscall(SYS_getppid) == -1 ? errno : 0;
	return NULL;
}

static void *waits(void *argument)
{
	while (!stage)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return asks(argument);
}

static void unshares(void)
{
	syscall(SYS_getsid, 0);
}

static void everyone(void)
{
	static const struct sock_filter kills[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	pthread_t early, late;
	PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	pthread_create(&early, NULL, waits, (void *)0);
	PROBE(forbid(SYS_getppid, 91, SECCOMP_FILTER_FLAG_TSYNC));
	PROBE(install(kills, sizeof kills / sizeof *kills, SECCOMP_FILTER_FLAG_TSYNC));

	probe_save();

	stage = 1;
	pthread_join(early, NULL);
	PROBE_SAME(results[0], 91, "error of a thread");
	pthread_create(&late, NULL, asks, (void *)1);
	pthread_join(late, NULL);
	PROBE_SAME(results[1], 91, "error of a later thread");
	dies(unshares, SIGSYS, "death by a forbidden call");
}

static void privileged(void)
{
	if (forbid(SYS_getppid, 61, 0) < 0)
		probe_skip("a filter without no_new_privs: %s", strerror(errno));
	PROBE(chmod(".", 0711));
	snprintf(probe_go, sizeof probe_go, "go");
	PROBE(syscall(SYS_setresgid, 12345, 12345, 12345));
	PROBE(syscall(SYS_setresuid, 12345, 12345, 12345));
	probe_save();
	PROBE_SAME(syscall(SYS_getppid), -1, "the forbidden call");
	PROBE_SAME(errno, 61, "its error");
	PROBE_SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0, "no_new_privs");
	PROBE_SAME(getuid(), 12345, "user");
	PROBE_SAME(forbid(SYS_getpid, 62, 0), -1, "another filter without privilege");
}

static void supervisor(void)
{
	static const struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	int listener = PROBE(install(program, sizeof program / sizeof *program, SECCOMP_FILTER_FLAG_NEW_LISTENER));
	close(listener);
	probe_save();
	PROBE_SAME(syscall(SYS_getsid, 0), -1, "a call that nobody judges");
	PROBE_SAME(errno, ENOSYS, "its error");
}

int main(int argc, char **argv)
{
	const struct { const char *name; void (*run)(void); } variants[] = {
		{ "stacked", stacked }, { "strict", strict }, { "thread", thread },
		{ "everyone", everyone }, { "privileged", privileged }, { "supervisor", supervisor },
	};
	for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
		if (argc > 1 && !strcmp(argv[1], variants[i].name))
			variants[i].run();
	return probe_end();
}
