/* SPDX-License-Identifier: Apache-2.0 */
/* variant pair: a pty keeps settings, size, lines and bytes on their way in both directions, in canonical and in raw mode, and packet mode */
/* variant session: a session on a pty keeps its controlling terminal, its foreground group, and signals of the terminal */
#include "probe.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>

static int open_pair(int *ret_slave, char *ret_path)
{
	int master = PROBE(posix_openpt(O_RDWR | O_NOCTTY));
	PROBE(grantpt(master));
	PROBE(unlockpt(master));
	strcpy(ret_path, ptsname(master));
	*ret_slave = PROBE(open(ret_path, O_RDWR | O_NOCTTY));
	return master;
}

static size_t read_some(int fd, char *buffer, size_t size)
{
	size_t got = 0;
	struct pollfd poll_ = { .fd = fd, .events = POLLIN };
	while (got < size && poll(&poll_, 1, got ? 100 : 2000) == 1 && (poll_.revents & POLLIN)) {
		ssize_t n = read(fd, buffer + got, size - got);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got;
}

static void is_read(int fd, const char *wanted, const char *what)
{
	char seen[4096];
	size_t got = read_some(fd, seen, sizeof seen);
	PROBE_SAME(got, strlen(wanted), what);
	if (got == strlen(wanted))
		probe_same_bytes(seen, wanted, got, what);
}

static void wait_input(int fd, int count)
{
	int now = 0;
	while (ioctl(fd, FIONREAD, &now) == 0 && now < count)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

static void pair(void)
{
	char path[64], raw_path[64], seen[64];
	int slave, raw_slave, master = open_pair(&slave, path), raw = open_pair(&raw_slave, raw_path);
	struct termios settings, raw_settings, now;
	struct winsize size = { 31, 77, 5, 9 }, seen_size;
	PROBE(tcgetattr(slave, &settings));
	settings.c_lflag &= ~(tcflag_t)ECHO;
	settings.c_cc[VINTR] = 'x';
	settings.c_cc[VEOL] = ';';
	PROBE(tcsetattr(slave, TCSANOW, &settings));
	PROBE(ioctl(master, TIOCSWINSZ, &size));
	PROBE(write(slave, "out\n", 4));
	PROBE(write(master, "one\ntwo;eof\004thr", 15));
	wait_input(master, 5);
	wait_input(slave, 11);

	PROBE(tcgetattr(raw_slave, &raw_settings));
	cfmakeraw(&raw_settings);
	raw_settings.c_cc[VMIN] = 3;
	PROBE(tcsetattr(raw_slave, TCSANOW, &raw_settings));
	int on = 1;
	PROBE(ioctl(raw, TIOCPKT, &on));
	PROBE(write(raw, "a\003\000\377z", 5));
	PROBE(write(raw_slave, "\001\n\377", 3));
	PROBE(fcntl(raw, F_SETFL, O_NONBLOCK));
	wait_input(raw_slave, 5);
	wait_input(raw, 3);

	probe_save();

	PROBE_SAME(tcgetattr(slave, &now), 0, "tcgetattr");
	probe_same_bytes(&now, &settings, sizeof now, "settings");
	PROBE_SAME(ioctl(slave, TIOCGWINSZ, &seen_size), 0, "TIOCGWINSZ");
	probe_same_bytes(&seen_size, &size, sizeof size, "window size");
	/* Its old one, unless somebody has taken that meanwhile. */
	PROBE_TRUE(ttyname(slave) && !strcmp(ttyname(slave), ptsname(master)), "name of the slave");
	is_read(master, "out\r\n", "output");
	PROBE_SAME(read(slave, seen, sizeof seen), 4, "first line");
	PROBE_TRUE(!memcmp(seen, "one\n", 4), "first line");
	PROBE_SAME(read(slave, seen, sizeof seen), 4, "second line, ended by another character");
	PROBE_TRUE(!memcmp(seen, "two;", 4), "second line");
	PROBE_SAME(read(slave, seen, sizeof seen), 3, "third line, ended by an end of file");
	struct pollfd poll_ = { .fd = slave, .events = POLLIN };
	PROBE_SAME(poll(&poll_, 1, 50), 0, "the fourth is not ended");
	PROBE(write(master, "\177ee\n", 4));
	is_read(slave, "thee\n", "the fourth, edited after the restore");

	PROBE_SAME(tcgetattr(raw_slave, &now), 0, "tcgetattr of the raw one");
	probe_same_bytes(&now, &raw_settings, sizeof now, "settings of the raw one");
	PROBE_SAME(read(raw_slave, seen, sizeof seen), 5, "raw input");
	PROBE_TRUE(!memcmp(seen, "a\003\000\377z", 5), "raw input");
	PROBE_SAME(read(raw, seen, sizeof seen), 4, "raw output in packet mode");
	PROBE_TRUE(!memcmp(seen, "\000\001\n\377", 4), "raw output in packet mode");
	PROBE_SAME(fcntl(raw, F_GETFL) & O_NONBLOCK, O_NONBLOCK, "flags");
	PROBE_SAME(close(slave), 0, "close");
	PROBE_SAME(read(master, seen, sizeof seen), -1, "read of a master whose slave is closed");
	PROBE_SAME(errno, EIO, "its error");
}

static volatile sig_atomic_t changed, interrupted;
static void on_signal(int signal)
{
	if (signal == SIGWINCH)
		changed++;
	else
		interrupted++;
}

static void session(void)
{
	char path[64];
	int slave, master = open_pair(&slave, path);
	pid_t leader = PROBE(fork());
	if (!leader) {
		PROBE(setsid());
		PROBE(ioctl(slave, TIOCSCTTY, 0));
		close(master);
		sigaction(SIGTTOU, &(struct sigaction){ .sa_handler = SIG_IGN }, NULL);
		pid_t job = PROBE(fork());
		if (!job) {
			PROBE(setpgid(0, 0));
			sigaction(SIGWINCH, &(struct sigaction){ .sa_handler = on_signal }, NULL);
			sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_signal }, NULL);
			int own = PROBE(open("/dev/tty", O_RDWR));
			PROBE(tcsetpgrp(own, getpid()));
			close(slave);
			PROBE(write(own, "job\n", 4));
			while (!changed || !interrupted)
				nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			char line[64];
			PROBE_SAME(tcgetpgrp(own), getpid(), "foreground group");
			PROBE_SAME(read(own, line, sizeof line), 6, "a line from the terminal");
			dprintf(own, "got %.5s\n", line);
			_exit(probe_faults != 0);
		}
		/* It holds no descriptor of its terminal. */
		close(slave);
		probe_join(job, "job");
		int again = open("/dev/tty", O_RDWR);
		PROBE_TRUE(again >= 0, "the leader's terminal is there");
		PROBE_SAME(tcgetsid(again), getpid(), "its session");
		_exit(probe_faults != 0);
	}
	close(slave);
	is_read(master, "job\r\n", "set-up: output");

	probe_save();

	struct winsize size = { 40, 100, 0, 0 };
	PROBE_SAME(ioctl(master, TIOCSWINSZ, &size), 0, "TIOCSWINSZ");
	PROBE_SAME(write(master, "\003", 1), 1, "write of ^C");
	is_read(master, "^C", "echo of ^C");
	PROBE_SAME(write(master, "hello\n", 6), 6, "write of a line");
	is_read(master, "hello\r\ngot hello\r\n", "what the job answers");
	probe_join(leader, "leader");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "session"))
		session();
	else
		pair();
	return probe_end();
}
