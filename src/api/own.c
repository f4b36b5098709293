/* SPDX-License-Identifier: Apache-2.0 */
#include "api/own.h"

#include <linux/mempolicy.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NODE_BITS = 8 * sizeof(unsigned long) * OWN_NODES };

void own_note(struct own *ret_own)
{
	memset(ret_own, 0, sizeof *ret_own);
	getrlimit(RLIMIT_NOFILE, &ret_own->descriptors);
	getrlimit(RLIMIT_MEMLOCK, &ret_own->locked);
	ret_own->dumpable = prctl(PR_GET_DUMPABLE);
	if (syscall(SYS_get_mempolicy, &ret_own->policy, ret_own->nodes, NODE_BITS, NULL, 0) < 0)
		ret_own->policy = -1;
}

/* Only the soft limits are ever changed. */
static void put_limit_back(__rlimit_resource_t resource, const struct rlimit *before)
{
	struct rlimit now;
	if (getrlimit(resource, &now) == 0 && now.rlim_cur != before->rlim_cur)
		setrlimit(resource, before);
}

void own_put_back(const struct own *own)
{
	put_limit_back(RLIMIT_NOFILE, &own->descriptors);
	put_limit_back(RLIMIT_MEMLOCK, &own->locked);
	/* What is 2 (suid_dumpable) only the kernel sets. */
	if ((own->dumpable == 0 || own->dumpable == 1) && prctl(PR_GET_DUMPABLE) != own->dumpable)
		prctl(PR_SET_DUMPABLE, own->dumpable);
	if (own->policy == MPOL_DEFAULT)
		syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
	else if (own->policy > 0)
		syscall(SYS_set_mempolicy, own->policy, own->nodes, NODE_BITS);
}
