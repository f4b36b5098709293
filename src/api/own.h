/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What an operation changes of the process, or the thread, that calls it, which may be any program with libcairn: limits of descriptors and locked memory, whether it may
 * be traced, where its memory comes from. It is put back at the end; newborns have had their own by then. */
#include <stdbool.h>
#include <sys/resource.h>

enum { OWN_NODES = 1024 / (8 * sizeof(unsigned long)) };

struct own {
	struct rlimit descriptors, locked;
	int dumpable, policy; /* PR_GET_DUMPABLE; get_mempolicy(2) of the thread, -1: the kernel has none */
	unsigned long nodes[OWN_NODES];
};

void own_note(struct own *ret_own);
void own_put_back(const struct own *own);
