/* SPDX-License-Identifier: Apache-2.0 */
/* What is on its way through a pty. It can only be read by taking it: so it is taken through descriptors of Cairn's own and put back in the same
 * function; that is the one place where a death of Cairn at the wrong moment (some 50 us, and only while there is something) would lose what
 * is on its way, or leave the terminal's settings changed.
 *
 * Output waits in the master's queue: written by the slave's side again, with output processing off. Input waits in the slave's queue. In
 * canonical mode that is lines, each ended by a newline, an end-of-line character, or an end of file that is not in it; and what is typed
 * of the next one, which only shows when canonical mode is off (drivers/tty/n_tty.c n_tty_set_termios then makes one line of all). Put
 * back as if typed, with everything off that would interpret it: by TIOCSTI, which is done when it returns, or, without permission for that,
 * by writing to the master, which is done soon. */
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "kinds/files/pty.h"

enum { LINE_MORE, LINE_ENDED, LINE_END_OF_FILE }; /* Pty.Line.end */
enum { MOST_LINE = 65536 };

static int failed(const char *what, int error, struct fault *fault)
{
	return fault_set(fault, fault_class_of(error), error, "pty: %s: %s", what, strerror(error));
}

static bool is_readable(int fd)
{
	struct pollfd poll_ = { .fd = fd, .events = POLLIN };
	return poll(&poll_, 1, 0) == 1 && (poll_.revents & POLLIN);
}

static int count_waiting(int fd)
{
	int count = 0;
	return ioctl(fd, FIONREAD, &count) < 0 ? -errno : count;
}

/* ---- output ---- */

static int write_output(int slave, const struct termios2 *settings, const void *data, size_t size, struct fault *fault)
{
	struct termios2 plain = *settings;
	plain.c_oflag &= ~(tcflag_t)OPOST;
	if (ioctl(slave, TCSETS2, &plain) < 0)
		return failed("settings", errno, fault);
	int rc = fd_write_full(slave, data, size);
	if (ioctl(slave, TCSETS2, settings) < 0 && rc == 0)
		rc = -errno;
	return rc < 0 ? failed("put output back", -rc, fault) : 0;
}

static int capture_output(struct harvest *harvest, int master, int slave, const struct termios2 *settings,
			  Cairn__Pty *message, struct fault *fault)
{
	int off = 0, on = 1, count = is_readable(master) ? count_waiting(master) : 0;
	if (count <= 0)
		return 0;
	uint8_t *data = arena_new(&harvest->arena, (size_t)count);
	if (message->packets)
		ioctl(master, TIOCPKT, &off);
	ssize_t size = 0, n;
	while (size < count && is_readable(master) && (n = read(master, data + size, (size_t)(count - size))) > 0)
		size += n;
	int rc = write_output(slave, settings, data, (size_t)size, fault);
	if (message->packets)
		ioctl(master, TIOCPKT, &on);
	message->output.data = data;
	message->output.len = (size_t)size;
	return rc;
}

/* ---- input ---- */

static void add_line(struct harvest *harvest, Cairn__Pty *message, const uint8_t *data, size_t size, uint32_t end)
{
	Cairn__Pty__Line *line = HARVEST_MESSAGE(harvest, Cairn__Pty__Line, cairn__pty__line__init);
	line->text.data = arena_copy(&harvest->arena, data, size);
	line->text.len = size;
	line->end = end;
	Cairn__Pty__Line **lines = ARENA_ARRAY(&harvest->arena, Cairn__Pty__Line *, message->n_input + 1);
	if (message->n_input)
		memcpy(lines, message->input, message->n_input * sizeof *lines);
	lines[message->n_input++] = line;
	message->input = lines;
}

static bool ends_line(const struct termios2 *settings, uint8_t byte)
{
	return byte == '\n' || (byte && (byte == settings->c_cc[VEOL] || byte == settings->c_cc[VEOL2]));
}

static int take_lines(struct harvest *harvest, int slave, const struct termios2 *settings, Cairn__Pty *message,
		      struct fault *fault)
{
	static const int most_lines = 4096;
	uint8_t buffer[4096];
	while (is_readable(slave) && message->n_input < (size_t)most_lines) {
		ssize_t n = read(slave, buffer, sizeof buffer);
		if (n < 0)
			return failed("read input", errno, fault);
		add_line(harvest, message, buffer, (size_t)n, n && ends_line(settings, buffer[n - 1]) ? LINE_ENDED : LINE_END_OF_FILE);
	}
	return 0;
}

/* All at once: of a terminal that is not in canonical mode, or what is typed of the next line. */
static int take_rest(struct harvest *harvest, int slave, Cairn__Pty *message, struct fault *fault)
{
	int count = count_waiting(slave);
	if (count <= 0)
		return count < 0 ? failed("input", -count, fault) : 0;
	_free_ uint8_t *data = memory_new((size_t)count);
	ssize_t size = read(slave, data, (size_t)count);
	if (size < 0)
		return failed("read input", errno, fault);
	add_line(harvest, message, data, (size_t)size, LINE_MORE);
	return 0;
}

/* A character that is not in the line: to end it with. */
static int unused_byte(const Cairn__Pty__Line *line)
{
	for (int byte = 1; byte < 256; byte++)
		if (byte != '\n' && !memchr(line->text.data, byte, line->text.len))
			return byte;
	return -1;
}

static int type_bytes(int master, int slave, const uint8_t *data, size_t size)
{
	size_t done = 0;
	while (done < size && ioctl(slave, TIOCSTI, data + done) == 0)
		done++;
	if (done == size)
		return 0;
	if (done || (errno != EPERM && errno != EIO))
		return -errno;
	int rc = fd_write_full(master, data, size);
	/* It arrives by a worker of the kernel's; a look that finds nothing waits for that (n_tty_poll). */
	for (int i = 0; rc == 0 && i < 5; i++) {
		is_readable(slave);
		clock_sleep_ns(1000000);
	}
	return rc;
}

static int type_line(int master, int slave, const struct termios2 *settings, const Cairn__Pty__Line *line)
{
	struct termios2 plain = *settings;
	uint8_t end = 0;
	plain.c_iflag = 0;
	plain.c_lflag &= ICANON;
	memset(plain.c_cc, 0, sizeof plain.c_cc);
	plain.c_cc[VMIN] = 1;
	if (line->end == LINE_ENDED) {
		plain.c_cc[VEOL] = line->text.data[line->text.len - 1] == '\n' ? 0 : line->text.data[line->text.len - 1];
	} else if (line->end == LINE_END_OF_FILE) {
		int byte = unused_byte(line);
		if (byte < 0)
			return -ENOTSUP;
		plain.c_cc[VEOF] = end = (uint8_t)byte;
	}
	if (ioctl(slave, TCSETS2, &plain) < 0)
		return -errno;
	int rc = type_bytes(master, slave, line->text.data, line->text.len);
	return rc == 0 && line->end == LINE_END_OF_FILE ? type_bytes(master, slave, &end, 1) : rc;
}

static int type_lines(int master, int slave, const struct termios2 *settings, const Cairn__Pty *message, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < message->n_input; i++)
		rc = type_line(master, slave, settings, message->input[i]);
	if (message->n_input && ioctl(slave, TCSETS2, settings) < 0 && rc == 0)
		rc = -errno;
	return rc < 0 ? failed("put input back", -rc, fault) : 0;
}

static int capture_input(struct harvest *harvest, int master, int slave, const struct termios2 *settings,
			 Cairn__Pty *message, struct fault *fault)
{
	struct termios2 plain = *settings;
	int rc = 0;
	if (!(settings->c_lflag & ICANON)) {
		rc = take_rest(harvest, slave, message, fault);
	} else {
		rc = take_lines(harvest, slave, settings, message, fault);
		plain.c_lflag &= ~(tcflag_t)ICANON;
		plain.c_cc[VMIN] = 1;
		plain.c_cc[VTIME] = 0;
		if (rc == 0 && ioctl(slave, TCSETS2, &plain) < 0)
			rc = failed("settings", errno, fault);
		if (rc == 0)
			rc = take_rest(harvest, slave, message, fault);
		if (ioctl(slave, TCSETS2, settings) < 0 && rc == 0)
			rc = failed("settings", errno, fault);
	}
	struct fault putting;
	int put = type_lines(master, slave, settings, message, &putting);
	if (rc == 0 && put < 0) {
		*fault = putting;
		rc = put;
	}
	return rc;
}

int pty_data_capture(struct harvest *harvest, int master, int slave, Cairn__Pty *message, struct fault *fault)
{
	struct termios2 settings;
	memcpy(&settings, message->settings.data, sizeof settings);
	int rc = capture_output(harvest, master, slave, &settings, message, fault);
	return rc < 0 ? rc : capture_input(harvest, master, slave, &settings, message, fault);
}

int pty_data_fill(int master, int slave, const Cairn__Pty *message, struct fault *fault)
{
	struct termios2 settings;
	memcpy(&settings, message->settings.data, sizeof settings);
	int rc = message->output.len ? write_output(slave, &settings, message->output.data, message->output.len, fault) : 0;
	for (size_t i = 0; rc == 0 && i < message->n_input; i++)
		if (message->input[i]->end > LINE_END_OF_FILE || (message->input[i]->end == LINE_ENDED && !message->input[i]->text.len) ||
		    message->input[i]->text.len > MOST_LINE)
			rc = fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: pty %u has impossible input", message->id);
	return rc < 0 ? rc : type_lines(master, slave, &settings, message, fault);
}
