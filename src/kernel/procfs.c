/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/procfs.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/features.h"
#include "kernel/token.h"

void text_finish(struct text *text)
{
	if (!text)
		return;
	free(text->at);
	*text = (struct text){ 0 };
}

/* Room for at least @more bytes and the NUL. Most files of /proc fit into the first size. */
static void text_reserve(struct text *text, size_t more)
{
	enum { TEXT_FIRST = 16 << 10 };
	size_t space = text->space ? text->space : TEXT_FIRST;
	while (space - text->size < more + 1)
		space *= 2;
	if (space != text->space)
		text->at = memory_resize(text->at, space);
	text->space = space;
}

/* The first line comes from the first read(2), more only in pieces: seq_file gives at most a page a call
 * (fs/seq_file.c seq_read_iter, 6.18), and only an empty read is the end; but for a file of one record (single_open), of which
 * a read gives all that there is room for. 0 or a negative errno; -EFBIG: it has more than @most bytes. */
static int text_fill(struct text *text, int fd, bool is_single, size_t most)
{
	text->size = 0;
	for (;;) {
		enum { LEAST = 4 << 10 };
		text_reserve(text, LEAST);
		ssize_t n = read(fd, text->at + text->size, text->space - text->size - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text->size += (size_t)n;
		text->at[text->size] = 0;
		if (n == 0 || (is_single && text->size + 1 < text->space))
			return 0;
		if (text->size > most)
			return -EFBIG;
	}
}

static int path_read(const char *path, struct text *text, bool is_single, size_t most)
{
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : text_fill(text, fd, is_single, most);
}

/* "/proc/12/exe" of a process 12 that has been reaped meanwhile: links say EACCES then (fs/proc/base.c proc_fd_access_allowed,
 * fs/proc/namespaces.c proc_ns_readlink). And from the moment when its memory is gone until it is a zombie its files belong to root
 * (task_dump_owner), which may take long where that memory was large. */
static bool is_gone(const char *path)
{
	enum { EXITING = 0x4, MOST_BYTES = 1 << 16 }; /* PF_EXITING: include/linux/sched.h */
	int pid;
	char stat_path[32];
	struct text text = { 0 };
	struct proc_stat stat;
	if (sscanf(path, "/proc/%d", &pid) != 1)
		return false;
	snprintf(stat_path, sizeof stat_path, "/proc/%d/stat", pid);
	int rc = path_read(stat_path, &text, true, MOST_BYTES);
	bool gone = rc == -ENOENT || rc == -ESRCH || (rc == 0 && proc_stat_parse(text.at, &stat, NULL) == 0 && stat.flags & EXITING);
	text_finish(&text);
	return gone;
}

/* -ESRCH as vanished; the rest by its errno. */
static int path_fault(struct fault *fault, int error, const char *path)
{
	if (error == EACCES && is_gone(path))
		error = ESRCH;
	switch (error) {
	case ESRCH:
		return fault_set(fault, FAULT_VANISHED, ESRCH, "%s: the process is gone; try another target", path);
	case EACCES:
	case EPERM:
		return fault_set(fault, FAULT_PERMISSION, error,
				 "%s: %s; try as the user of the process, as root, or with CAP_SYS_PTRACE", path,
				 strerror(error));
	default:
		return fault_set(fault, fault_class_of(error), error, "%s: %s", path, strerror(error));
	}
}

static bool process_exists(pid_t pid)
{
	char path[32];
	snprintf(path, sizeof path, "/proc/%d", pid);
	return access(path, F_OK) == 0;
}

/* ENOENT of a file of a process that is gone is ESRCH. */
static int vanished_or(pid_t pid, int rc)
{
	return rc == -ENOENT && !process_exists(pid) ? -ESRCH : rc;
}

int proc_read_path(const char *path, struct text *text, struct fault *fault)
{
	int rc = path_read(path, text, false, SIZE_MAX);
	return rc < 0 ? path_fault(fault, -rc, path) : 0;
}

int proc_fault(pid_t pid, const char *name, int error, struct fault *fault)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	return path_fault(fault, -vanished_or(pid, -error), path);
}

int proc_read(pid_t pid, const char *name, struct text *text, struct fault *fault)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int rc = path_read(path, text, false, SIZE_MAX);
	return rc < 0 ? proc_fault(pid, name, -rc, fault) : 0;
}

int proc_read_open(int fd, struct text *text)
{
	return text_fill(text, fd, true, SIZE_MAX);
}

int proc_open_directory(pid_t pid, const char *name, bool to_list, struct fault *fault)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int fd = open(path, (to_list ? O_RDONLY : O_PATH) | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? proc_fault(pid, name, errno, fault) : fd;
}

int proc_read_record(pid_t pid, pid_t tid, const char *name, struct text *text, struct fault *fault)
{
	char path[PATH_MAX];
	if (tid)
		snprintf(path, sizeof path, "/proc/%d/task/%d/%s", pid, tid, name);
	else
		snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	/* /proc/TID exists for threads too, though no listing shows it. */
	int rc = vanished_or(tid ? tid : pid, path_read(path, text, true, SIZE_MAX));
	return rc < 0 ? path_fault(fault, -rc, path) : 0;
}

int proc_read_number(pid_t pid, pid_t tid, const char *name, int base, long *ret_number, struct fault *fault)
{
	struct text text = { 0 };
	int rc = proc_read_record(pid, tid, name, &text, fault);
	if (rc == 0) {
		assert(text.at); /* given by every read that does not fail */
		*ret_number = strtol(text.at, NULL, base);
	}
	text_finish(&text);
	return rc;
}

/* 0 or a negative errno; @ret_target has room for @size. */
static int link_read(pid_t pid, const char *path, char *ret_target, size_t size)
{
	ssize_t n = readlink(path, ret_target, size - 1);
	if (n < 0)
		return vanished_or(pid, -errno);
	if ((size_t)n == size - 1)
		return -ENAMETOOLONG;
	ret_target[n] = 0;
	return 0;
}

int proc_link(pid_t pid, const char *name, struct arena *arena, char **ret_target, struct fault *fault)
{
	char path[PATH_MAX], target[PATH_MAX + 1];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int rc = link_read(pid, path, target, sizeof target);
	if (rc < 0)
		return path_fault(fault, -rc, path);
	*ret_target = arena_string(arena, target);
	return 0;
}

/* Lists */

static int pid_compare(const void *a, const void *b)
{
	pid_t left = *(const pid_t *)a, right = *(const pid_t *)b;
	return (left > right) - (left < right);
}

static void list_sort(struct pid_list *list)
{
	if (list->pids.count)
		qsort(list->pids.at, list->pids.count, sizeof *list->pids.at, pid_compare);
}

/* Takes @directory (NULL: errno says why not). Its entries that are numbers, ascending. 0 or a negative errno, then @ret_list is empty. */
static int numbers_of(DIR *directory, struct pid_list *ret_list)
{
	struct pid_list list = { 0 };
	if (!directory)
		return -errno;
	errno = 0;
	for (struct dirent *entry; (entry = readdir(directory)); errno = 0) {
		const char *at = entry->d_name;
		uint64_t number;
		if (token_number(&at, 10, &number) && !*at)
			*vec_add(&list.pids) = (pid_t)number;
	}
	int rc = -errno;
	closedir(directory);
	if (rc < 0) {
		vec_finish(&list.pids);
		return rc;
	}
	list_sort(&list);
	*ret_list = list;
	return 0;
}

static int numbers_read(const char *path, struct pid_list *ret_list)
{
	return numbers_of(opendir(path), ret_list);
}

int proc_list_open(int fd, struct pid_list *ret_list)
{
	_close_ int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	DIR *directory = own < 0 ? NULL : fdopendir(own);
	if (directory)
		fd_steal(&own);
	return numbers_of(directory, ret_list);
}

static int process_numbers(pid_t pid, const char *name, struct pid_list *ret_list, struct fault *fault)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	int rc = vanished_or(pid, numbers_read(path, ret_list));
	return rc < 0 ? path_fault(fault, -rc, path) : 0;
}

int proc_threads(pid_t pid, struct pid_list *ret_list, struct fault *fault)
{
	struct pid_list list;
	int rc = process_numbers(pid, "task", &list, fault);
	if (rc < 0)
		return rc;
	if (!list.pids.count) /* it ended between opening and reading */
		return fault_set(fault, FAULT_VANISHED, ESRCH, "/proc/%d/task: the process is gone; try another target",
				 pid);
	*ret_list = list;
	return 0;
}

int proc_descriptors(pid_t pid, struct pid_list *ret_list, struct fault *fault)
{
	return process_numbers(pid, "fd", ret_list, fault);
}

bool proc_has_link(pid_t pid, const char *link, mode_t mode)
{
	struct pid_list list = { 0 };
	char path[64], target[PATH_MAX];
	struct stat stat;
	bool found = false;
	if (proc_descriptors(pid, &list, NULL) == 0)
		for (size_t i = 0; i < list.pids.count && !found; i++) {
			snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, list.pids.at[i]);
			ssize_t size = readlink(path, target, sizeof target - 1);
			target[size > 0 ? size : 0] = 0;
			found = !strcmp(target, link) && (!mode || (lstat(path, &stat) == 0 && (stat.st_mode & mode)));
		}
	vec_finish(&list.pids);
	return found;
}

int proc_descriptors_next(pid_t pid, int *ret_numbers, size_t count, struct fault *fault)
{
	struct pid_list list = { 0 };
	int rc = proc_descriptors(pid, &list, fault);
	size_t at = 0, found = 0;
	for (int number = 0; rc == 0 && found < count; number++)
		if (at < list.pids.count && list.pids.at[at] == number)
			at++;
		else
			ret_numbers[found++] = number;
	vec_finish(&list.pids);
	return rc;
}

/* Children */

/* Takes "12 34 " in; fs/proc/array.c children_seq_show. */
static int children_parse(const char *text, struct pid_list *list, struct fault *fault)
{
	const char *at = text;
	for (uint64_t pid; *(at = token_skip_blanks(at)) && *at != '\n';) {
		if (!token_number(&at, 10, &pid) || pid > INT32_MAX)
			return token_malformed(fault, "children", "a PID", at);
		*vec_add(&list->pids) = (pid_t)pid;
	}
	return 0;
}

/* Kernels without CONFIG_PROC_CHILDREN: all processes are asked for their parent. */
static void children_among(pid_t pid, const struct pid_list *all, struct pid_list *list)
{
	for (size_t i = 0; i < all->pids.count; i++) {
		struct proc_stat stat;
		if (proc_stat_read(all->pids.at[i], 0, &stat, NULL) == 0 && stat.parent == pid)
			*vec_add(&list->pids) = all->pids.at[i];
	}
}

static int children_by_parent(pid_t pid, struct pid_list *list, struct fault *fault)
{
	struct pid_list all = { 0 };
	int rc = numbers_read("/proc", &all);
	if (rc < 0)
		return path_fault(fault, -rc, "/proc");
	children_among(pid, &all, list);
	vec_finish(&all.pids);
	return 0;
}

/* Of many threads each has a list of its own, and to read it takes half as long as to ask a process for its parent. But a /proc that was mounted with hidepid lists
 * only processes that Cairn may trace. */
static bool is_sooner_by_parent(pid_t pid, size_t threads, struct pid_list *list)
{
	enum { MANY = 256, TIMES = 3 };
	struct pid_list all = { 0 };
	if (threads < MANY || !feature_capability(CAP_SYS_PTRACE) || numbers_read("/proc", &all) < 0)
		return false;
	bool few = all.pids.count * TIMES < threads;
	if (few)
		children_among(pid, &all, list);
	vec_finish(&all.pids);
	return few;
}

/* 1 when the kernel has no such file. @directory: /proc/@pid/task, or AT_FDCWD. A thread that ended meanwhile left its children to another thread; that is
 * the caller's to exclude by freezing first. */
static int children_of_thread(pid_t pid, int directory, pid_t tid, struct text *text, struct pid_list *list, struct fault *fault)
{
	char name[64];
	if (directory == AT_FDCWD)
		snprintf(name, sizeof name, "/proc/%d/task/%d/children", pid, tid);
	else
		snprintf(name, sizeof name, "%d/children", tid);
	_close_ int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	int rc = vanished_or(tid, fd < 0 ? -errno : text_fill(text, fd, false, SIZE_MAX));
	if (rc == -ESRCH)
		return 0;
	if (rc == -ENOENT)
		return 1;
	if (rc < 0)
		return proc_fault(pid, "task/*/children", -rc, fault);
	return children_parse(text->at, list, fault);
}

int proc_children_of(pid_t pid, const pid_t *threads, size_t count, struct pid_list *ret_list, struct fault *fault)
{
	struct pid_list list = { 0 };
	struct text text = { 0 };
	if (is_sooner_by_parent(pid, count, &list)) {
		list_sort(&list);
		*ret_list = list;
		return 0;
	}
	_close_ int directory = count > 1 ? proc_open_directory(pid, "task", false, fault) : AT_FDCWD;
	int rc = count > 1 && directory < 0 ? directory : 0;
	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = children_of_thread(pid, directory, threads[i], &text, &list, fault);
	if (rc == 1)
		rc = children_by_parent(pid, &list, fault);
	text_finish(&text);
	if (rc < 0) {
		vec_finish(&list.pids);
		return rc;
	}
	list_sort(&list);
	*ret_list = list;
	return 0;
}

int proc_children(pid_t pid, struct pid_list *ret_list, struct fault *fault)
{
	struct pid_list threads = { 0 };
	int rc = proc_threads(pid, &threads, fault);
	if (rc == 0)
		rc = proc_children_of(pid, threads.pids.at, threads.pids.count, ret_list, fault);
	vec_finish(&threads.pids);
	return rc;
}

int proc_processes(struct pid_list *ret_list, struct fault *fault)
{
	struct pid_list list = { 0 };
	int rc = numbers_read("/proc", &list);
	if (rc < 0)
		return path_fault(fault, -rc, "/proc");
	list_sort(&list);
	*ret_list = list;
	return 0;
}

/* Namespaces */

const char *const proc_namespace_names[NS_COUNT] = {
	[NS_MNT] = "mnt", [NS_PID] = "pid",   [NS_NET] = "net",   [NS_IPC] = "ipc",
	[NS_UTS] = "uts", [NS_USER] = "user", [NS_TIME] = "time", [NS_CGROUP] = "cgroup",
};

/* "mnt:[4026531832]", in @directory, /proc/@pid/ns. 0 or a negative errno, then *ret_target is "". */
static int namespace_read(int directory, const char *name, char *target, size_t size, uint64_t *ret_inode)
{
	ssize_t n = readlinkat(directory, name, target, size - 1);
	target[n < 0 ? 0 : n] = 0;
	*ret_inode = 0;
	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	const char *at = strchrnul(target, '[');
	at += *at == '[';
	return token_number(&at, 10, ret_inode) ? 0 : -EBADMSG;
}

int proc_namespaces(pid_t pid, uint64_t ret_inodes[NS_COUNT], struct fault *fault)
{
	uint64_t inodes[NS_COUNT];
	_close_ int directory = proc_open_directory(pid, "ns", false, fault);
	if (directory < 0)
		return directory;
	for (int i = 0; i < NS_COUNT; i++) {
		char target[64];
		int rc = namespace_read(directory, proc_namespace_names[i], target, sizeof target, &inodes[i]);
		if (rc == -EBADMSG)
			return token_malformed(fault, proc_namespace_names[i], "the namespace", target);
		if (rc < 0)
			return proc_fault(pid, "ns", -rc, fault);
	}
	memcpy(ret_inodes, inodes, sizeof inodes);
	return 0;
}
