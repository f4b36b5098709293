/* SPDX-License-Identifier: Apache-2.0 */
/* Cairn's own descriptors of what is being made, by id (kinds/kind.h). */
#include <signal.h>
#include <unistd.h>

#include "kinds/kind.h"

static struct workshop_item *item(struct workshop *workshop, uint32_t id)
{
	while (workshop->items.count <= id)
		vec_add(&workshop->items);
	return &workshop->items.at[id];
}

int workshop_fd(const struct workshop *workshop, uint32_t id)
{
	return id < workshop->items.count ? workshop->items.at[id].fd - 1 : -1;
}

int workshop_second(const struct workshop *workshop, uint32_t id)
{
	return id < workshop->items.count ? workshop->items.at[id].second - 1 : -1;
}

void workshop_put(struct workshop *workshop, uint32_t id, int fd)
{
	item(workshop, id)->fd = fd + 1;
}

void workshop_put_second(struct workshop *workshop, uint32_t id, int fd)
{
	item(workshop, id)->second = fd + 1;
}

bool workshop_inherits_action(const struct workshop *workshop, int signal)
{
	struct sigaction action;
	(void)workshop;
	/* glibc refuses its own two real-time signals; Cairn leaves them alone. */
	return sigaction(signal, NULL, &action) == 0 && action.sa_handler != SIG_DFL;
}

pid_t workshop_task(const struct workshop *workshop, uint32_t old_id)
{
	for (size_t i = 0; i < workshop->numbers.count; i++)
		if (workshop->numbers.at[i].old_id == old_id)
			return workshop->numbers.at[i].new_id;
	return (pid_t)old_id;
}

void workshop_finish(struct workshop *workshop)
{
	vec_finish(&workshop->numbers);
	for (size_t i = 0; i < workshop->items.count; i++) {
		if (workshop->items.at[i].fd > 0)
			close(workshop->items.at[i].fd - 1);
		if (workshop->items.at[i].second > 0)
			close(workshop->items.at[i].second - 1);
	}
	vec_finish(&workshop->items);
}
