/* SPDX-License-Identifier: Apache-2.0 */
/* variant thread: a thread with a working directory and umask of its own keeps them */
/* variant root: a process with another root directory keeps it, and its working directory */
/* variant table: a thread with a descriptor table of its own is refused by name */
/* refusable: descriptor table */
#include "probe.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>

static volatile int stage;
static char seen[PATH_MAX];
static mode_t seen_umask;

static void *thread(void *argument)
{
	PROBE(unshare(CLONE_FS));
	PROBE(chdir("own"));
	umask(0123);
	stage = 1;
	while (stage != 2)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	PROBE_TRUE(getcwd(seen, sizeof seen) != NULL, "getcwd");
	seen_umask = umask(0);
	return argument;
}

static void of_thread(void)
{
	pthread_t id;
	char here[PATH_MAX];
	PROBE(mkdir("own", 0700));
	umask(0027);
	PROBE_TRUE(getcwd(here, sizeof here) != NULL, "getcwd");
	pthread_create(&id, NULL, thread, NULL);
	while (stage != 1)
		;
	signal(SIGTRAP, SIG_IGN);

	probe_save();

	stage = 2;
	pthread_join(id, NULL);
	PROBE_SAME(seen_umask, 0123, "umask of the thread");
	PROBE_TRUE(!strncmp(seen, here, strlen(here)) && !strcmp(seen + strlen(here), "/own"), "working directory of the thread");
	PROBE_SAME(umask(0), 0027, "umask of the process");
	PROBE_TRUE(getcwd(seen, sizeof seen) && !strcmp(seen, here), "working directory of the process");
	PROBE_TRUE(signal(SIGTRAP, SIG_DFL) == SIG_IGN, "SIGTRAP is ignored");
}

static void root(void)
{
	int before = PROBE(open("/", O_RDONLY | O_DIRECTORY));
	char wait_[PATH_MAX];
	snprintf(wait_, sizeof wait_, "%s", probe_go);
	PROBE(mkdir("root", 0700));
	PROBE(mkdir("root/inside", 0700));
	if (chroot("root") < 0)
		probe_skip("chroot: %s", strerror(errno));
	PROBE(chdir("/inside"));
	probe_ready();
	while (faccessat(before, wait_ + 1, F_OK, 0))
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	PROBE_TRUE(getcwd(seen, sizeof seen) && !strcmp(seen, "/inside"), "working directory");
	PROBE_SAME(access("/inside", F_OK), 0, "a directory of the root");
	PROBE_SAME(access("/usr", F_OK), -1, "a directory outside of the root");
}

static void *apart(void *argument)
{
	PROBE(unshare(CLONE_FILES));
	stage = 1;
	probe_wait();
	return argument;
}

static void table(void)
{
	pthread_t id;
	pthread_create(&id, NULL, apart, NULL);
	while (stage != 1)
		;
	probe_save();
	pthread_join(id, NULL);
}

int main(int argc, char **argv)
{
	const char *variant = argc > 1 ? argv[1] : "thread";
	if (!strcmp(variant, "root"))
		root();
	else if (!strcmp(variant, "table"))
		table();
	else
		of_thread();
	return probe_end();
}
