/* SPDX-License-Identifier: Apache-2.0 */
/* probe: what prctl and personality set is kept: name, timer slack, dumpable, death signal, THP, no new privileges */
/* permission: CAP_SYS_PTRACE (it is not dumpable) */
#include "probe.h"

#include <linux/keyctl.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>

int main(void)
{
	char name[17] = "";
	PROBE(prctl(PR_SET_NAME, "odd) name (1 2"));
	PROBE(prctl(PR_SET_TIMERSLACK, 123457));
	PROBE(prctl(PR_SET_PDEATHSIG, SIGUSR2));
	PROBE(prctl(PR_SET_CHILD_SUBREAPER, 1));
	PROBE(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	PROBE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	PROBE(personality(ADDR_NO_RANDOMIZE | SHORT_INODE));
	int fd = PROBE(open("/proc/self/oom_score_adj", O_WRONLY));
	PROBE(write(fd, "321", 3));
	close(fd);
	/* As at a login: a session keyring that only leads to the user's is no reason to refuse. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) > 0)
		syscall(SYS_keyctl, KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_SESSION_KEYRING);
	PROBE(prctl(PR_SET_DUMPABLE, 0));
	signal(SIGUSR2, SIG_IGN); /* the death of who restores us is none of ours */

	probe_save();

	int value = -1;
	PROBE_SAME(prctl(PR_GET_NAME, name), 0, "prctl");
	PROBE_TRUE(!strcmp(name, "odd) name (1 2"), "name");
	PROBE_SAME(prctl(PR_GET_TIMERSLACK), 123457, "timer slack");
	PROBE_SAME(prctl(PR_GET_PDEATHSIG, &value), 0, "prctl");
	PROBE_SAME(value, SIGUSR2, "parent-death signal");
	PROBE_SAME(prctl(PR_GET_CHILD_SUBREAPER, &value), 0, "prctl");
	PROBE_SAME(value, 1, "child subreaper");
	PROBE_SAME(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1, "THP-disable");
	PROBE_SAME(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1, "no_new_privs");
	PROBE_SAME(personality(0xffffffff), ADDR_NO_RANDOMIZE | SHORT_INODE, "personality");
	PROBE_SAME(prctl(PR_GET_DUMPABLE), 0, "dumpable");
	PROBE_SAME(prctl(PR_SET_DUMPABLE, 1), 0, "prctl");
	PROBE_SAME(atoi(probe_proc("oom_score_adj", "")), 321, "oom_score_adj");
	return probe_end();
}
