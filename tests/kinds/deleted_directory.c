/* SPDX-License-Identifier: Apache-2.0 */
/* probe: deleted directories stay what they were, as the working directory, that of a thread, and open */
#include "probe.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>

static void same_directory(const char *path, mode_t mode, const char *what)
{
	struct stat now = { 0 };
	PROBE_SAME(stat(path, &now), 0, what);
	PROBE_SAME(now.st_nlink, 0, what);
	PROBE_SAME(now.st_mode, S_IFDIR | mode, what);
	PROBE_SAME(now.st_uid, geteuid(), what);
}

static void same_link(const char *path, const char *wanted, const char *what)
{
	char link[PATH_MAX] = "";
	PROBE_TRUE(readlink(path, link, sizeof link - 1) > 0, what);
	if (strcmp(link, wanted))
		probe_differs("%s is %s, was %s", what, link, wanted);
}

static pthread_barrier_t barrier;
static char thread_link[PATH_MAX];

static void *thread(void *thing)
{
	char path[64];
	PROBE(unshare(CLONE_FS));
	PROBE(mkdir("thread", 0700));
	PROBE(chdir("thread"));
	PROBE(rmdir("../thread"));
	snprintf(path, sizeof path, "/proc/self/task/%ld/cwd", syscall(SYS_gettid));
	PROBE(readlink(path, thread_link, sizeof thread_link - 1));
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	same_directory(".", 0700, "the thread's working directory");
	same_link(path, thread_link, "the thread's working directory");
	return thing;
}

int main(void)
{
	pthread_t other;
	char link[PATH_MAX] = "", fd_path[64], fd_link[PATH_MAX] = "";
	PROBE(mkdir("open", 0750));
	int fd = PROBE(open("open", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	PROBE(rmdir("open"));
	snprintf(fd_path, sizeof fd_path, "/proc/self/fd/%d", fd);
	PROBE(readlink(fd_path, fd_link, sizeof fd_link - 1));
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&other, NULL, thread, NULL);
	pthread_barrier_wait(&barrier);
	umask(0);
	PROBE(mkdir("working", 01751));
	PROBE(chdir("working"));
	PROBE(rmdir("../working"));
	PROBE(readlink("/proc/self/cwd", link, sizeof link - 1));

	probe_save();

	same_directory(".", 01751, "working directory");
	same_link("/proc/self/cwd", link, "working directory");
	PROBE_TRUE(!getcwd((char[PATH_MAX]){ "" }, PATH_MAX) && errno == ENOENT, "getcwd");
	same_directory(fd_path, 0750, "open directory");
	same_link(fd_path, fd_link, "open directory");
	PROBE_SAME(fcntl(fd, F_GETFD), FD_CLOEXEC, "close-on-exec flag");
	PROBE_TRUE(openat(fd, "x", O_CREAT | O_RDWR, 0600) < 0 && errno == ENOENT, "a file in it");
	pthread_barrier_wait(&barrier);
	pthread_join(other, NULL);
	return probe_end();
}
