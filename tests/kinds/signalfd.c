/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a signalfd keeps its mask and reads what was pending, or is refused by name */
/* refusable: signalfd */
#include "probe.h"

#include <signal.h>
#include <sys/signalfd.h>

int main(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN + 9);
	PROBE(sigprocmask(SIG_BLOCK, &set, NULL));
	int fd = PROBE(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
	sigval_t value = { .sival_int = 31 };
	PROBE(sigqueue(getpid(), SIGRTMIN + 9, value));

	probe_save();

	struct signalfd_siginfo info;
	PROBE_SAME(read(fd, &info, sizeof info), (long)sizeof info, "read");
	PROBE_SAME(info.ssi_signo, SIGRTMIN + 9, "signal");
	PROBE_SAME(info.ssi_int, 31, "value");
	PROBE_SAME(read(fd, &info, sizeof info), -1, "second read");
	raise(SIGUSR1);
	PROBE_SAME(read(fd, &info, sizeof info), (long)sizeof info, "read after the restore");
	PROBE_SAME(info.ssi_signo, SIGUSR1, "signal after the restore");
	return probe_end();
}
