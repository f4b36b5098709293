/* SPDX-License-Identifier: Apache-2.0 */
#include "job/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

void terminal_open(struct terminal *terminal)
{
	*terminal = (struct terminal){ .fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY) };
	if (terminal->fd < 0)
		return;
	/* /dev/tty does not say which one it is: the standard descriptors, if they are it, do. */
	for (int fd = 0; fd <= 2 && !terminal->path[0]; fd++)
		if (isatty(fd) && tcgetsid(fd) == getsid(0) && ttyname_r(fd, terminal->path, sizeof terminal->path) != 0)
			terminal->path[0] = 0;
	terminal->ours = tcgetpgrp(terminal->fd) == getpgrp();
}

void terminal_give(const struct terminal *terminal, pid_t group)
{
	sigset_t set, old;
	if (terminal->fd < 0 || !terminal->ours)
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGTTOU);
	sigprocmask(SIG_BLOCK, &set, &old);
	tcsetpgrp(terminal->fd, group);
	sigprocmask(SIG_SETMASK, &old, NULL);
}
