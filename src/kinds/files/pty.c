/* SPDX-License-Identifier: Apache-2.0 */
/* Pseudoterminals whose master is in the tree. The pair is an object: index, settings, window size, lock, packet mode, exclusive mode, the
 * slave's node, what is on its way in both directions (pty_data.c), and whether the slave was ever open. Put back before the first
 * process is born, under the same index if that is free: sessions take it as their controlling terminal when they are made (rebuild/spawn.c), and
 * slaves are opened by its path (terminal.c). A terminal that got another index shows another name, with a warning.
 *
 * Not carried: that output was stopped by ^S, and a packet-mode status that was not read yet. Refused: line disciplines but the usual one. */
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kinds/files/open_file.h"
#include "kinds/files/pty.h"
#include "kinds/table.h"

enum {
	TTYAUX_MAJOR_ = 5, PTMX_MINOR = 2, PTY_SLAVE_FIRST = 136, SLAVES_PER_MAJOR = 256, /* Documentation/admin-guide/devices.txt */
	MOST_INDEX = 1 << 16,
};

static bool probe(const struct frozen_file *file)
{
	return S_ISCHR(file->stat.st_mode) && file->stat.st_rdev == makedev(TTYAUX_MAJOR_, PTMX_MINOR) && !(file->info.flags & O_PATH);
}

static uint64_t slave_device(unsigned index)
{
	return makedev(PTY_SLAVE_FIRST + index / SLAVES_PER_MAJOR, index % SLAVES_PER_MAJOR);
}

static int refuse_file(const struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	int own, discipline = 0;
	int rc = harvest->frozen ? frozen_file_own(file, &own, fault) : 0;
	if (rc < 0 || !harvest->frozen)
		return rc;
	if (ioctl(own, TIOCGETD, &discipline) == 0 && discipline == 0)
		return 0;
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: has line discipline %d, which this version cannot carry; try again when "
			 "the program has given it up", file->link, discipline);
}

/* ---- the pair ---- */

static void read_modes(int master, Cairn__Pty *message)
{
	int value = 0;
	struct winsize size = { 0 };
	ioctl(master, TIOCGWINSZ, &size);
	message->rows = size.ws_row;
	message->columns = size.ws_col;
	message->x_pixels = size.ws_xpixel;
	message->y_pixels = size.ws_ypixel;
	message->locked = ioctl(master, TIOCGPTLCK, &value) == 0 && value;
	message->packets = ioctl(master, TIOCGPKT, &value) == 0 && value;
	message->exclusive = ioctl(master, TIOCGEXCL, &value) == 0 && value;
}

static bool slave_is_open(const struct harvest *harvest, uint64_t device)
{
	for (size_t i = 0; i < harvest->files.count; i++)
		if (S_ISCHR(harvest->files.at[i]->stat.st_mode) && harvest->files.at[i]->stat.st_rdev == device)
			return true;
	for (size_t i = 0; i < harvest->processes.count; i++)
		if (harvest->processes.at[i]->stat.terminal == device)
			return true;
	return false;
}

static bool is_hung_up(int master)
{
	struct pollfd poll_ = { .fd = master };
	return poll(&poll_, 1, 0) == 1 && (poll_.revents & POLLHUP);
}

static int capture_pair(struct harvest *harvest, struct frozen_file *file, int master, unsigned index, uint32_t id,
			struct fault *fault)
{
	Cairn__Pty *message = HARVEST_MESSAGE(harvest, Cairn__Pty, cairn__pty__init);
	struct termios2 settings;
	struct stat node = { 0 };
	if (ioctl(master, TCGETS2, &settings) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: settings: %s", file->link, strerror(errno));
	message->id = id;
	message->index = index;
	message->slave = arena_format(&harvest->arena, "/dev/pts/%u", index);
	message->settings.data = arena_copy(&harvest->arena, &settings, sizeof settings);
	message->settings.len = sizeof settings;
	read_modes(master, message);
	stat(message->slave, &node);
	message->uid = node.st_uid;
	message->gid = node.st_gid;
	message->mode = node.st_mode & 07777;
	message->hung_up = is_hung_up(master);
	message->unused = !message->hung_up && !slave_is_open(harvest, slave_device(index));
	harvest_add(harvest, &kind_pty, &message->base);
	if (message->hung_up || message->unused)
		return 0;
	/* An exclusive one is closed to everybody but root. */
	_close_ int slave = open(message->slave, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (slave < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s; try as its owner, or as root", message->slave, strerror(errno));
	return pty_data_capture(harvest, master, slave, message, fault);
}

static int find_pair(struct harvest *harvest, struct frozen_file *file, uint32_t *ret_id, unsigned *ret_index,
		     struct fault *fault)
{
	int own, rc = frozen_file_own(file, &own, fault);
	if (rc < 0)
		return rc;
	bool is_new;
	if (ioctl(own, TIOCGPTN, ret_index) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s", file->link, strerror(errno));
	*ret_id = harvest_object(harvest, slave_device(*ret_index), UINT64_C(1) << 61 | *ret_index, &is_new);
	return is_new ? capture_pair(harvest, file, own, *ret_index, *ret_id, fault) : 0;
}

int pty_find(struct harvest *harvest, uint64_t device, uint32_t *ret_id, struct fault *fault)
{
	*ret_id = 0;
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		unsigned index;
		int own;
		if (file->kind != &kind_pty_master || frozen_file_own(file, &own, NULL) < 0 || ioctl(own, TIOCGPTN, &index) < 0 ||
		    slave_device(index) != device)
			continue;
		return find_pair(harvest, file, ret_id, &index, fault);
	}
	return 0;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Pty *message = (const Cairn__Pty *)base;
	if (!message->id || message->index > MOST_INDEX || message->settings.len != sizeof(struct termios2) || message->rows > UINT16_MAX ||
	    message->columns > UINT16_MAX || message->x_pixels > UINT16_MAX || message->y_pixels > UINT16_MAX || message->mode > 07777)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "pty %u has impossible values", message->id);
	return 0;
}

/* The kernel gives the lowest free index: those below are taken for a moment. */
static int open_master(unsigned wanted, unsigned *ret_index)
{
	VEC(int) others = { 0 };
	int master = -1;
	for (;;) {
		master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (master < 0 || ioctl(master, TIOCGPTN, ret_index) < 0 || *ret_index >= wanted)
			break;
		*vec_add(&others) = master;
	}
	/* Taken by somebody: the first one that could be had will do. */
	if (master >= 0 && *ret_index != wanted && others.count) {
		close(master);
		master = others.at[0];
		others.at[0] = -1;
		ioctl(master, TIOCGPTN, ret_index);
	}
	for (size_t i = 0; i < others.count; i++)
		if (others.at[i] >= 0)
			close(others.at[i]);
	vec_finish(&others);
	return master;
}

static int set_up(int master, const char *path, const Cairn__Pty *message, int *ret_slave, struct fault *fault)
{
	int unlocked = 0, on = 1;
	struct winsize size = {
		(unsigned short)message->rows, (unsigned short)message->columns, (unsigned short)message->x_pixels,
		(unsigned short)message->y_pixels,
	};
	ioctl(master, TIOCSPTLCK, &unlocked);
	*ret_slave = message->unused ? -1 : open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if ((*ret_slave < 0 && !message->unused) || ioctl(master, TCSETS2, message->settings.data) < 0 ||
	    ioctl(master, TIOCSWINSZ, &size) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "%s: %s", path, strerror(errno));
	/* Not permitted for an ordinary user, whose it is already. */
	if (chown(path, message->uid, message->gid) < 0 || chmod(path, message->mode) < 0)
		log_debug("%s: owner %u, mode 0%o: %s", path, message->uid, message->mode, strerror(errno));
	int rc = *ret_slave < 0 ? 0 : pty_data_fill(master, *ret_slave, message, fault);
	if (message->packets)
		ioctl(master, TIOCPKT, &on);
	if (message->locked)
		ioctl(master, TIOCSPTLCK, &on);
	if (message->hung_up && *ret_slave >= 0)
		close(fd_steal(ret_slave));
	return rc;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Pty *message = (const Cairn__Pty *)base;
	unsigned index = 0;
	char path[64];
	int slave, master = open_master(message->index, &index);
	if (master < 0)
		return fault_set(fault, fault_class_of(errno), errno, "/dev/ptmx: %s", strerror(errno));
	workshop_put(workshop, message->id, master);
	snprintf(path, sizeof path, "/dev/pts/%u", index);
	if (index != message->index)
		log_warn("%s: is taken by somebody else; continuing with %s", message->slave, path);
	int rc = set_up(master, path, message, &slave, fault);
	if (slave >= 0)
		workshop_put_second(workshop, message->id, slave); /* keeps it from being hung up while nobody else has it */
	workshop_put_terminal(workshop, slave_device(message->index), path);
	return rc;
}

/* The last thing, because it keeps everybody out. */
static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Pty *message = (const Cairn__Pty *)base;
	int slave = workshop_second(workshop, message->id);
	(void)fault;
	if (message->exclusive && slave >= 0)
		ioctl(slave, TIOCEXCL);
	return 0;
}

const struct kind kind_pty = {
	.name = "pty",
	.tag = 41,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__pty__descriptor,
	.owner_field = "id",
	.check = check,
	.make = make,
	.commit = commit,
};

/* ---- its master ---- */

static int capture_file(struct harvest *harvest, struct frozen_file *file, struct fault *fault)
{
	Cairn__PtyMaster *message = HARVEST_MESSAGE(harvest, Cairn__PtyMaster, cairn__pty_master__init);
	unsigned index;
	int rc = find_pair(harvest, file, &message->pty, &index, fault);
	if (rc < 0)
		return rc;
	message->open = open_file_capture(harvest, file);
	harvest_add(harvest, &kind_pty_master, &message->base);
	return 0;
}

static int make_master(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__PtyMaster *message = (const Cairn__PtyMaster *)base;
	int fd = fcntl(workshop_fd(workshop, message->pty), F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return fault_set(fault, FAULT_IMAGE, errno, "damaged: a master refers to pty %u, which is missing", message->pty);
	return open_file_adopt(workshop, message->open, fd, fault);
}

const struct kind kind_pty_master = {
	.name = "pty master",
	.tag = 64,
	.scope = SCOPE_FILE,
	.descriptor = &cairn__pty_master__descriptor,
	.owner_field = "open",
	.probe = probe,
	.refuse_file = refuse_file,
	.capture_file = capture_file,
	.make = make_master,
};
