/* SPDX-License-Identifier: Apache-2.0 */
/* Terminals that the program uses, not those whose other side it holds: a pty's slave, a console, /dev/tty. The controlling terminal of
 * a job whose session leader is outside is the caller's own at restore, if he has one; else the device of the old
 * path is opened if it is still the same. Line discipline settings and window size are kept in the image, and not set again:
 * the terminal is the caller's; if its size is another, the foreground group gets SIGWINCH. Where there is no terminal any more, /dev/null stands for
 * it, with a warning. The slave of a pty whose master is in the tree is opened by the path that it has now (pty.c). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "kinds/files/open_file.h"
#include "kinds/files/pty.h"
#include "kinds/table.h"

/* Documentation/admin-guide/devices.txt. */
enum { TTY_MAJOR_ = 4, TTYAUX_MAJOR_ = 5, PTY_SLAVE_FIRST = 136, PTY_SLAVE_LAST = 143, PTMX_MINOR = 2 };

static bool probe(const struct frozen_file *file)
{
	unsigned major_ = major(file->stat.st_rdev);
	return S_ISCHR(file->stat.st_mode) && !(file->info.flags & O_PATH) &&
	       (major_ == TTY_MAJOR_ || (major_ >= PTY_SLAVE_FIRST && major_ <= PTY_SLAVE_LAST) ||
		(major_ == TTYAUX_MAJOR_ && minor(file->stat.st_rdev) != PTMX_MINOR));
}

static const struct frozen_process *owner(const struct harvest *harvest, const struct frozen_file *file)
{
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (harvest->processes.at[i]->view == file->pid)
			return harvest->processes.at[i];
	return NULL;
}

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__Terminal *message = HARVEST_MESSAGE(harvest, Cairn__Terminal, cairn__terminal__init);
	const struct frozen_process *process = owner(harvest, file);
	struct termios settings;
	struct winsize size;
	/* /dev/tty is the process's own. */
	uint64_t device = file->stat.st_rdev == makedev(TTYAUX_MAJOR_, 0) && process ? process->stat.terminal : file->stat.st_rdev;
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc == 0)
		rc = pty_find(harvest, device, &message->pty, fault);
	if (rc < 0)
		return rc;
	message->open = open_file_capture(harvest, file);
	message->path = (char *)file->link;
	message->device = device;
	message->controlling = process && process->stat.terminal &&
			       (process->stat.terminal == file->stat.st_rdev ||
				file->stat.st_rdev == makedev(TTYAUX_MAJOR_, 0));
	if (tcgetattr(own, &settings) == 0) {
		message->termios.data = arena_copy(&harvest->arena, &settings, sizeof settings);
		message->termios.len = sizeof settings;
	}
	if (ioctl(own, TIOCGWINSZ, &size) == 0) {
		message->rows = size.ws_row;
		message->columns = size.ws_col;
	}
	harvest_add(harvest, &kind_terminal, &message->base);
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Terminal *message = (const Cairn__Terminal *)base;
	if (!message->open || message->path[0] != '/' ||
	    (message->termios.len && message->termios.len != sizeof(struct termios)))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "a terminal has impossible values");
	return 0;
}

static bool is_same_device(const Cairn__Terminal *message)
{
	struct stat now;
	return stat(message->path, &now) == 0 && S_ISCHR(now.st_mode) && now.st_rdev == message->device;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Terminal *message = (const Cairn__Terminal *)base;
	if (message->pty) {
		const char *path = workshop_terminal(workshop, message->device);
		return path ? open_file_make(workshop, message->open, path, false, fault) :
			      fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: %s refers to a pty that is missing", message->path);
	}
	if (message->controlling && workshop->terminal)
		return open_file_make(workshop, message->open, workshop->terminal, false, fault);
	if (is_same_device(message))
		return open_file_make(workshop, message->open, message->path, false, fault);
	log_warn("terminal %s is gone, and there is no other; continuing with /dev/null (--fd N=FILE puts a file in its place)", message->path);
	return open_file_make(workshop, message->open, "/dev/null", false, fault);
}

/* Another terminal, of another size: its foreground group is told, as if the old one had changed. */
static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Terminal *message = (const Cairn__Terminal *)base;
	int fd = workshop_fd(workshop, message->open->file);
	struct winsize now;
	(void)fault;
	if (message->pty || !message->controlling || !workshop->terminal || fd < 0 || ioctl(fd, TIOCGWINSZ, &now) < 0 ||
	    (now.ws_row == message->rows && now.ws_col == message->columns))
		return 0;
	pid_t group = tcgetpgrp(fd);
	if (group > 1)
		kill(-group, SIGWINCH);
	return 0;
}

const struct kind kind_terminal = {
	.name = "terminal",
	.tag = 57,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__terminal__descriptor,
	.owner_field = "open",
	.path_field = "path",
	.probe = probe,
	.capture_file = capture_file,
	.check = check,
	.make = make,
	.commit = commit,
};
