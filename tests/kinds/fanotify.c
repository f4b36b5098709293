/* SPDX-License-Identifier: Apache-2.0 */
/* variant marks: a fanotify group keeps its marks, masks and what it ignores, of files, directories and one without a name */
/* variant user: a group that was made without a capability comes back, and reports file handles */
#include "probe.h"

#include <poll.h>
#include <sys/fanotify.h>
#include <sys/stat.h>

/* The marks as the kernel shows them, in its order; numbers of file systems and inodes stay. */
static void shown(int fd, char *ret_text, size_t size)
{
	char name[32], line[1024];
	snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
	FILE *stream = fopen(name, "re");
	*ret_text = 0;
	while (stream && fgets(line, sizeof line, stream))
		if (!strncmp(line, "fanotify", 8) && strlen(ret_text) + strlen(line) < size)
			strcat(ret_text, line);
	if (stream)
		fclose(stream);
}

static uint64_t next(int fd)
{
	static union {
		struct fanotify_event_metadata event;
		char room[4096];
	} buffer;
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	if (poll(&ready, 1, 2000) <= 0 || read(fd, buffer.room, sizeof buffer.room) < (long)sizeof buffer.event)
		return 0;
	if (buffer.event.fd >= 0)
		close(buffer.event.fd);
	return buffer.event.mask;
}

static int make(unsigned flags)
{
	int fd = fanotify_init(flags, O_RDONLY | O_LARGEFILE);
	if (fd < 0 && (errno == EPERM || errno == ENOSYS || errno == EINVAL))
		probe_skip("fanotify_init: %s", strerror(errno));
	return PROBE(fd);
}

static void touch(const char *path)
{
	int file = PROBE(open(path, O_WRONLY | O_CREAT, 0600));
	PROBE(write(file, "x", 1));
	close(file);
}

static void marks(void)
{
	static char before[4096], after[4096];
	int fd = make(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK);
	touch("file");
	touch("gone");
	PROBE(mkdir("directory", 0700));
	int gone = PROBE(open("gone", O_RDWR));
	PROBE(fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, "file"));
	PROBE(fanotify_mark(fd, FAN_MARK_ADD, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, AT_FDCWD, "directory"));
	PROBE(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY, AT_FDCWD, "directory"));
	shown(fd, before, sizeof before);
	int second = make(FAN_CLASS_NOTIF | FAN_CLOEXEC);
	PROBE(fanotify_mark(second, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, "gone"));
	PROBE(unlink("gone"));

	probe_save();

	shown(fd, after, sizeof after);
	if (strcmp(before, after))
		probe_differs("marks are\n%s, were\n%s", after, before);
	PROBE_SAME(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "flags");
	PROBE_SAME(next(fd), 0, "no event of the restore");
	touch("file");
	PROBE_SAME(next(fd), FAN_MODIFY, "an event on the file");
	PROBE_SAME(write(gone, "more", 4), 4, "write");
	PROBE_SAME(next(second), FAN_MODIFY, "an event on a file without a name");
	touch("directory/new");
	PROBE_SAME(next(fd), FAN_CLOSE_WRITE, "an event in the directory");
}

static void user(void)
{
	static char before[4096], after[4096];
	int fd = make(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_CLOEXEC | FAN_NONBLOCK);
	touch("file");
	if (fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, "file") < 0)
		probe_skip("no file handles here: %s", strerror(errno));
	shown(fd, before, sizeof before);

	probe_save();

	shown(fd, after, sizeof after);
	if (strcmp(before, after))
		probe_differs("marks are\n%s, were\n%s", after, before);
	touch("file");
	PROBE_SAME(next(fd), FAN_MODIFY, "an event on the file");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "user"))
		user();
	else
		marks();
	return probe_end();
}
