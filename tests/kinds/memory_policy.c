/* SPDX-License-Identifier: Apache-2.0 */
/* probe: memory policies of mappings and of each thread are as they were */
#include "probe.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/mman.h>

enum { PAGE = 4096, MAPS = 6 };

static const int modes[MAPS] = { MPOL_BIND, MPOL_INTERLEAVE | MPOL_F_STATIC_NODES, MPOL_PREFERRED, MPOL_LOCAL, MPOL_DEFAULT,
				 MPOL_BIND | MPOL_F_RELATIVE_NODES };

static long set(void *at, int mode, unsigned long nodes)
{
	bool none = mode == MPOL_LOCAL || mode == MPOL_DEFAULT;
	return at ? syscall(SYS_mbind, at, PAGE, mode, none ? NULL : &nodes, none ? 0L : 64L, 0) :
		    syscall(SYS_set_mempolicy, mode, none ? NULL : &nodes, none ? 0L : 64L);
}

static void same(const void *at, int wanted, const char *what)
{
	int mode = -1;
	unsigned long nodes[16] = { 0 };
	PROBE_SAME(syscall(SYS_get_mempolicy, &mode, nodes, 1024L, at, at ? MPOL_F_ADDR : 0), 0, "get_mempolicy");
	PROBE_SAME(mode, wanted, what);
	PROBE_SAME(nodes[0], wanted == MPOL_LOCAL || wanted == MPOL_DEFAULT ? 0 : 1, "its nodes");
}

static pthread_barrier_t barrier;

static void *other(void *unused)
{
	(void)unused;
	PROBE(set(NULL, MPOL_INTERLEAVE, 1));
	pthread_barrier_wait(&barrier);
	probe_wait();
	same(NULL, MPOL_INTERLEAVE, "policy of the other thread");
	return NULL;
}

int main(void)
{
	unsigned char *at[MAPS];
	pthread_t thread;
	if (set(NULL, MPOL_BIND, 1) < 0)
		probe_skip("set_mempolicy: %s", strerror(errno));
	for (int i = 0; i < MAPS; i++) {
		/* Two apart: neighbours of one policy are one mapping. */
		at[i] = PROBE((unsigned char *)mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
						    (i == 2 ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0)) + PAGE;
		PROBE(set(at[i], modes[i], 1));
		at[i][5] = (unsigned char)i;
	}
	pthread_barrier_init(&barrier, NULL, 2);
	PROBE_SAME(pthread_create(&thread, NULL, other, NULL), 0, "set-up: pthread_create");
	pthread_barrier_wait(&barrier);

	probe_save();

	same(NULL, MPOL_BIND, "policy of the first thread");
	for (int i = 0; i < MAPS; i++) {
		same(at[i], modes[i], "policy of a mapping");
		PROBE_SAME(at[i][5], i, "contents");
		same(at[i] - PAGE, MPOL_DEFAULT, "policy of what lies before it");
		same(at[i] + PAGE, MPOL_DEFAULT, "policy of what lies behind it");
	}
	pthread_join(thread, NULL);
	return probe_end();
}
