/* SPDX-License-Identifier: Apache-2.0 */
/* variant memory: two processes that share their memory, and nothing else, go on to */
/* variant files: two processes that share their descriptor table, and nothing else, go on to */
/* variant locks: a lock set by a process that has its descriptor table from another holds on */
/* variant directory: two processes that share their working directory and umask, and nothing else, go on to */
/* variant handlers: two processes that share memory and signal handlers go on to */
/* variant everything: what processes share but are not threads of one: all of it */
/* variant mixed: one child shares memory and files, another the working directory, a third the files and the directory */
/* variant brothers: three processes share memory, and their parent does not */
/* variant matrix: children with every mix of shared parts that clone(2) grants, all at once, share with each other what they shared */
/* variant adjustments: two processes that share their semaphore adjustments go on to */
#include "probe.h"

#include <linux/kcmp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/prctl.h>

enum { STACK = 256 * 1024 };
enum { VM = 1, FILES = 2, FS = 4, SIGHAND = 8, SYSVSEM = 16 };

static const struct { int bit, type; unsigned long flag; const char *name; } parts[] = {
	{ VM, KCMP_VM, CLONE_VM, "memory" }, { FILES, KCMP_FILES, CLONE_FILES, "descriptors" }, { FS, KCMP_FS, CLONE_FS, "directory" },
	{ SIGHAND, KCMP_SIGHAND, CLONE_SIGHAND, "handlers" }, { SYSVSEM, KCMP_SYSVSEM, CLONE_SYSVSEM, "adjustments" },
};

/* In memory that all have, however they were made. */
struct board {
	volatile int begun, step, done[32];
	volatile int private_[32];
	volatile uint32_t wake;
	pid_t middle;
};
static struct board *board;

/* Nothing here may need thread-local storage: it may be another process's, too. */
struct order {
	int number;
	void (*act)(int number);
	unsigned long flags;
};

static int child_main(void *argument)
{
	const struct order *order = argument;
	__atomic_add_fetch(&board->begun, 1, __ATOMIC_SEQ_CST);
	while (!board->step)
		syscall(SYS_nanosleep, &(struct timespec){ .tv_nsec = 1000000 }, NULL);
	if (order->act)
		order->act(order->number);
	board->done[order->number] = 1;
	while (board->step < 2)
		syscall(SYS_nanosleep, &(struct timespec){ .tv_nsec = 1000000 }, NULL);
	syscall(SYS_exit_group, 0);
	return 0;
}

static pid_t bear(int number, int bits, unsigned long more, void (*act)(int))
{
	char *stack = PROBE(mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	struct order *order = (struct order *)(void *)stack;
	unsigned long flags = SIGCHLD | more;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		flags |= bits & parts[i].bit ? parts[i].flag : 0;
	*order = (struct order){ number, act, flags };
	int before = board->begun;
	pid_t child = PROBE(clone(child_main, stack + STACK - 64, (int)flags, order));
	while (board->begun == before)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	return child;
}

static void compare(pid_t a, pid_t b, int bits, const char *who)
{
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		if (parts[i].bit == SYSVSEM && !(bits & SYSVSEM))
			continue; /* none is nobody's */
		long order = syscall(SYS_kcmp, a, b, parts[i].type, 0, 0);
		if (order < 0)
			continue; /* not permitted here: what follows tells */
		if ((order == 0) != !!(bits & parts[i].bit))
			probe_differs("%s: %s shared: %d", who, parts[i].name, order == 0);
	}
}

static void await_done(int number)
{
	while (!board->done[number])
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void make_board(void)
{
	board = PROBE(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

static void finish(pid_t child, int bits)
{
	int status = -1;
	compare(getpid(), child, bits, "after");
	board->step = 2;
	PROBE_SAME(waitpid(child, &status, __WALL), child, "the child");
	PROBE_SAME(status, 0, "its status");
}

static volatile int written;
static volatile char *mapped;

static void writes(int number)
{
	written = 100 + number;
	mapped = (char *)syscall(SYS_mmap, NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mapped[5000] = 'm';
}

static void memory(void)
{
	char *data = PROBE(mmap(NULL, 3 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	probe_fill(data, 3 << 20, 77);
	pid_t child = bear(0, VM, 0, writes);
	compare(getpid(), child, VM, "before");
	probe_save();
	probe_filled(data, 3 << 20, 77, "private memory that two have");
	board->step = 1;
	await_done(0);
	PROBE_SAME(written, 100, "what the other wrote");
	PROBE_SAME(mapped[5000], 'm', "what the other mapped");
	finish(child, VM);
}

static void opens(int number)
{
	board->private_[number] = (int)syscall(SYS_openat, AT_FDCWD, "/dev/zero", O_RDONLY, 0);
	syscall(SYS_close, 77);
}

static void open_77(void)
{
	int fd = PROBE(open("/dev/null", O_RDWR));
	PROBE(dup2(fd, 77));
	PROBE(close(fd));
}

static void files(void)
{
	open_77();
	PROBE(fcntl(77, F_SETFD, FD_CLOEXEC));
	pid_t child = bear(0, FILES, 0, opens);
	probe_save();
	struct stat status;
	PROBE_SAME(fcntl(77, F_GETFD), FD_CLOEXEC, "a descriptor");
	board->step = 1;
	await_done(0);
	PROBE_TRUE(fstat(board->private_[0], &status) == 0 && S_ISCHR(status.st_mode), "what the other opened");
	PROBE_SAME(fcntl(77, F_GETFD), -1, "what the other closed");
	finish(child, FILES);
}

static void locks(int number)
{
	struct flock range = { .l_type = F_WRLCK, .l_start = 7, .l_len = 11 };
	board->private_[number] = (int)syscall(SYS_openat, AT_FDCWD, "locked", O_RDWR | O_CREAT, 0600);
	syscall(SYS_fcntl, board->private_[number], F_SETLK, &range);
}

/* As a process that shares nothing sees it. */
static void is_locked(const char *when)
{
	int status = -1;
	pid_t stranger = PROBE(fork());
	if (!stranger) {
		struct flock range = { .l_type = F_WRLCK };
		int fd = open("locked", O_RDWR);
		_exit(fcntl(fd, F_GETLK, &range) == 0 && range.l_type == F_WRLCK && range.l_start == 7 && range.l_len == 11 ? 0 : 1);
	}
	PROBE_SAME(waitpid(stranger, &status, 0), stranger, "a stranger");
	PROBE_SAME(status, 0, when);
}

static void locked(void)
{
	pid_t child = bear(0, FILES, 0, locks);
	board->step = 1;
	await_done(0);
	is_locked("the lock before");
	probe_save();
	is_locked("the lock");
	finish(child, FILES);
}

static void moves(int number)
{
	(void)number;
	syscall(SYS_chdir, "below");
	syscall(SYS_umask, 0135);
}

static void directory(void)
{
	char here[PATH_MAX], now[PATH_MAX];
	PROBE(mkdir("below", 0700));
	PROBE(mkdir("below/below", 0700));
	PROBE(chdir("below"));
	PROBE(getcwd(here, sizeof here) ? 0 : -1);
	umask(0017);
	pid_t child = bear(0, FS, 0, moves);
	probe_save();
	PROBE_TRUE(getcwd(now, sizeof now) && !strcmp(now, here), "working directory");
	PROBE_SAME(umask(0017), 0017, "umask");
	board->step = 1;
	await_done(0);
	PROBE_TRUE(getcwd(now, sizeof now) && !strncmp(now, here, strlen(here)) && !strcmp(now + strlen(here), "/below"), "where the other went");
	PROBE_SAME(umask(0), 0135, "umask that the other set");
	finish(child, FS);
}

static void note(int signal_)
{
	(void)signal_;
}

static void handles(int number)
{
	struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } action = { .handler = (void *)SIG_IGN };
	(void)number;
	syscall(SYS_rt_sigaction, SIGUSR2, &action, NULL, 8);
}

static void handlers(void)
{
	struct sigaction seen;
	PROBE(sigaction(SIGUSR2, &(struct sigaction){ .sa_handler = note, .sa_flags = SA_NODEFER }, NULL));
	signal(SIGTRAP, SIG_IGN);
	pid_t child = bear(0, VM | SIGHAND, 0, handles);
	probe_save();
	PROBE(sigaction(SIGUSR2, NULL, &seen));
	PROBE_TRUE(seen.sa_handler == note, "handler");
	PROBE(sigaction(SIGTRAP, NULL, &seen));
	PROBE_TRUE(seen.sa_handler == SIG_IGN, "SIGTRAP is ignored");
	board->step = 1;
	await_done(0);
	PROBE(sigaction(SIGUSR2, NULL, &seen));
	PROBE_TRUE(seen.sa_handler == SIG_IGN, "the handler that the other set");
	finish(child, VM | SIGHAND);
}

static void everything(void)
{
	const int all = VM | FILES | FS | SIGHAND | SYSVSEM;
	PROBE(mkdir("below", 0700));
	open_77();
	pid_t child = bear(0, all, 0, writes);
	compare(getpid(), child, all, "before");
	probe_save();
	board->step = 1;
	await_done(0);
	PROBE_SAME(written, 100, "what the other wrote");
	finish(child, all);
}

static void mixed(void)
{
	const int bits[3] = { VM | FILES, FS, FILES | FS };
	pid_t children[3];
	open_77();
	for (int i = 0; i < 3; i++)
		children[i] = bear(i, bits[i], 0, i == 0 ? writes : NULL);
	probe_save();
	board->step = 1;
	for (int i = 0; i < 3; i++)
		await_done(i);
	PROBE_SAME(written, 100, "what the first wrote");
	for (int i = 0; i < 3; i++)
		compare(getpid(), children[i], bits[i], i == 0 ? "first" : i == 1 ? "second" : "third");
	compare(children[0], children[2], FILES, "first and third");
	board->step = 2;
	for (int i = 0; i < 3; i++)
		probe_join(children[i], "a child");
}

/* In the child, which is no thread of anybody: its brothers' parent is its own. */
static void brothers(void)
{
	pid_t first = PROBE(fork());
	if (!first) {
		pid_t second = bear(1, VM, CLONE_PARENT, writes);
		bear(2, VM | FILES, CLONE_PARENT, NULL);
		board->middle = second;
		while (!board->done[1] || !board->done[2])
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		compare(getpid(), second, VM, "brothers");
		PROBE_SAME(written, 101, "what a brother wrote");
		_exit(probe_faults ? 1 : 0);
	}
	while (board->begun < 2 || !board->middle)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	probe_save();
	PROBE_SAME(written, 0, "the parent's own");
	compare(getpid(), first, 0, "parent");
	board->step = 1;
	probe_join(first, "the first brother");
	board->step = 2;
	probe_join(-1, "a brother");
	probe_join(-1, "a brother");
}

static void matrix(void)
{
	enum { MIXES = 32 };
	pid_t children[MIXES];
	int bits[MIXES], count = 0;
	open_77();
	for (int mix = 0; mix < MIXES; mix++)
		if (!(mix & SIGHAND) || (mix & VM)) { /* else EINVAL */
			bits[count] = mix;
			children[count] = bear(count, mix, 0, mix & VM ? writes : NULL);
			count++;
		}
	probe_save();
	for (int i = 0; i < count; i++) {
		char who[32];
		snprintf(who, sizeof who, "parent and mix %#x", (unsigned)bits[i]);
		compare(getpid(), children[i], bits[i], who);
		for (int j = 0; j < i; j++) {
			snprintf(who, sizeof who, "mixes %#x and %#x", (unsigned)bits[i], (unsigned)bits[j]);
			compare(children[i], children[j], bits[i] & bits[j], who);
		}
	}
	board->step = 1;
	for (int i = 0; i < count; i++)
		await_done(i);
	PROBE_TRUE(written >= 100, "what one of them wrote");
	board->step = 2;
	for (int i = 0; i < count; i++)
		probe_join(children[i], "a child");
}

static void adjustments(void)
{
	pid_t child = bear(0, SYSVSEM, 0, NULL);
	probe_save();
	board->step = 1;
	await_done(0);
	finish(child, SYSVSEM);
}

int main(int argc, char **argv)
{
	const struct { const char *name; void (*run)(void); } variants[] = {
		{ "memory", memory }, { "files", files }, { "locks", locked }, { "directory", directory }, { "handlers", handlers }, { "everything", everything },
		{ "mixed", mixed }, { "matrix", matrix }, { "brothers", brothers }, { "adjustments", adjustments },
	};
	make_board();
	for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
		if (argc > 1 && !strcmp(argv[1], variants[i].name))
			variants[i].run();
	return probe_end();
}
