/* SPDX-License-Identifier: Apache-2.0 */
/* A program that saves argv[1], a process, into argv[2], ends it, and brings it back as its own child, all by the library: its own limits, whether it may be traced, its
 * memory policy and its processors are afterwards as they were, each odd on purpose. */
#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cairn.h"

struct state {
	struct rlimit descriptors, locked;
	int dumpable, policy;
	unsigned long nodes[16];
	cpu_set_t processors;
};

static void look(struct state *ret_state)
{
	memset(ret_state, 0, sizeof *ret_state);
	getrlimit(RLIMIT_NOFILE, &ret_state->descriptors);
	getrlimit(RLIMIT_MEMLOCK, &ret_state->locked);
	ret_state->dumpable = prctl(PR_GET_DUMPABLE);
	if (syscall(SYS_get_mempolicy, &ret_state->policy, ret_state->nodes, 1024, NULL, 0) < 0)
		ret_state->policy = -1;
	sched_getaffinity(0, sizeof ret_state->processors, &ret_state->processors);
}

static void be_odd(void)
{
	const unsigned long node = 1;
	struct rlimit descriptors, locked;
	getrlimit(RLIMIT_NOFILE, &descriptors);
	getrlimit(RLIMIT_MEMLOCK, &locked);
	descriptors.rlim_cur = 61;
	locked.rlim_cur = 4096 * 3;
	setrlimit(RLIMIT_NOFILE, &descriptors);
	setrlimit(RLIMIT_MEMLOCK, &locked);
	prctl(PR_SET_DUMPABLE, 0);
	syscall(SYS_set_mempolicy, MPOL_PREFERRED, &node, 1024);
}

static int say(const char *what, enum cairn_status status, struct cairn_error *error, const struct state *before)
{
	struct state now;
	look(&now);
	for (size_t i = 0; i < error->count; i++)
		printf("%s: %s\n", what, error->lines[i]);
	cairn_error_free(error);
	int differs = memcmp(&now.descriptors, &before->descriptors, sizeof now.descriptors) ? 1 : memcmp(&now.locked, &before->locked, sizeof now.locked) ? 2 :
		      now.dumpable != before->dumpable ? 3 : now.policy != before->policy || memcmp(now.nodes, before->nodes, sizeof now.nodes) ? 4 :
		      !CPU_EQUAL(&now.processors, &before->processors) ? 5 : 0;
	printf("%s: status %d, differs in %d\n", what, (int)status, differs);
	fflush(stdout);
	return status != CAIRN_DONE || differs;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	struct state before;
	struct cairn_error error = { 0 };
	struct cairn_checkpoint_result saved;
	struct cairn_restore_result restored = { 0 };
	const struct cairn_checkpoint_options save = { .output = argv[2], .after = CAIRN_KILL, .signal_fd = -1 };
	const struct cairn_restore_options restore = { .image = argv[2], .pids = CAIRN_PIDS_SAME, .trust_image = true, .ignore_changed_files = true, .signal_fd = -1 };
	be_odd();
	look(&before);
	if (say("save", cairn_checkpoint((pid_t)atoi(argv[1]), &save, &saved, &error), &error, &before) ||
	    say("restore", cairn_restore(&restore, &restored, &error), &error, &before))
		return 1;
	int wait_status = 0;
	puts("restored");
	fflush(stdout);
	waitpid(restored.root, &wait_status, 0);
	return WEXITSTATUS(wait_status);
}
