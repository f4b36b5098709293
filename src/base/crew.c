/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crew.h"

#include <pthread.h>
#include <sched.h>

enum { ALONE = 8 /* grains */ };

struct crew {
	void (*work)(void *context, unsigned worker, size_t item);
	void *context;
	size_t count, grain, next;
	unsigned joined;
};

static void *join_in(void *thing)
{
	struct crew *crew = thing;
	unsigned worker = __atomic_fetch_add(&crew->joined, 1, __ATOMIC_RELAXED);
	for (;;) {
		size_t first = __atomic_fetch_add(&crew->next, crew->grain, __ATOMIC_RELAXED);
		if (first >= crew->count)
			return NULL;
		for (size_t i = first; i < crew->count && i < first + crew->grain; i++)
			crew->work(crew->context, worker, i);
	}
}

void crew_run(size_t count, size_t grain, void (*work)(void *context, unsigned worker, size_t item), void *context)
{
	struct crew crew = { work, context, count, grain, 0, 0 };
	pthread_t others[CREW_MOST];
	unsigned started = 0, wanted = 1;
	cpu_set_t processors;
	if (count >= ALONE * grain && sched_getaffinity(0, sizeof processors, &processors) == 0)
		wanted = (unsigned)CPU_COUNT(&processors) < CREW_MOST ? (unsigned)CPU_COUNT(&processors) : CREW_MOST;
	while (started + 1 < wanted && pthread_create(&others[started], NULL, join_in, &crew) == 0)
		started++;
	join_in(&crew);
	for (unsigned i = 0; i < started; i++)
		pthread_join(others[i], NULL);
}
