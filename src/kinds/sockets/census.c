/* SPDX-License-Identifier: Apache-2.0 */
/* Of many sockets, what each is. Of a running tree the kernel's lists say it, one request each, by inode: a first look, which counts for
 * refusals only. Frozen sockets are asked themselves, several things by one system call (kernel/sockopts.h). */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/crew.h"
#include "kernel/sockopts.h"
#include "kinds/sockets/guard.h"
#include "kinds/sockets/socket.h"

enum { BUF_LOCK = 72, COOKIE = 57 }; /* SO_BUF_LOCK, SO_COOKIE */
/* The kernel's numbers in SO_MEMINFO (linux/sock_diag.h). */
enum { MEMORY_RECEIVE_BUFFER = 1, MEMORY_SEND_BUFFER = 3, MEMORY_COUNT = 9 };

/* ---- a running tree ---- */

static void is(struct frozen_file *file, int domain, int type, int protocol)
{
	file->identity[0] = domain;
	file->identity[1] = type;
	file->identity[2] = protocol;
	file->is_identified = true;
}

static int compare_inode(const void *key, const void *element)
{
	uint32_t x = *(const uint32_t *)key, y = ((const struct udp_socket *)element)->inode;
	return (x > y) - (x < y);
}

static void take_from_lists(struct harvest *harvest, struct frozen_file *file, const struct udp_sockets *datagrams)
{
	const struct socket_scene *scene = socket_scene(harvest);
	uint32_t inode = (uint32_t)file->stat.st_ino;
	const struct unix_socket *local = unix_sockets_find(&scene->unix_sockets, inode);
	const struct tcp_end *end = tcp_ends_of(&scene->tcp_ends, inode, 0);
	const struct udp_socket *datagram = datagrams->count ?
		bsearch(&inode, datagrams->at, datagrams->count, sizeof *datagrams->at, compare_inode) : NULL;
	if (!inode || !local + !end + !datagram != 2)
		return;
	if (local)
		is(file, AF_UNIX, local->type, 0);
	else if (end)
		is(file, end->family, SOCK_STREAM, IPPROTO_TCP);
	else
		is(file, datagram->family, SOCK_DGRAM, IPPROTO_UDP);
}

static void list_all(struct harvest *harvest)
{
	struct unix_sockets *all;
	struct udp_sockets datagrams = { 0 };
	socket_scene_unix(harvest, &all, NULL);
	socket_scene_tcp(harvest);
	sockdiag_udp(&harvest->arena, &datagrams, NULL);
	for (size_t i = 0; i < harvest->files.count; i++)
		if (socket_is(harvest->files.at[i]))
			take_from_lists(harvest, harvest->files.at[i], &datagrams);
}

/* ---- a frozen tree ---- */

struct asking {
	struct harvest *harvest;
	struct socket_scene *scene;
	struct sockopt_ring *rings[CREW_MOST];
	bool has_tried[CREW_MOST];
};

static int value_of(const struct sockopt_question *question)
{
	int value;
	memcpy(&value, question->value, sizeof value);
	return value;
}

static void ask_one(void *context, unsigned worker, size_t item)
{
	enum { DOMAIN, TYPE, PROTOCOL, LOCKS, NAME, MEMORY, COUNT, FILTER = COUNT, WITH_FILTER };
	struct asking *asking = context;
	struct frozen_file *file = asking->harvest->files.at[item];
	struct sockopt_question ask[WITH_FILTER] = {
		[DOMAIN] = { .name = SO_DOMAIN, .size = sizeof(int) }, [TYPE] = { .name = SO_TYPE, .size = sizeof(int) },
		[PROTOCOL] = { .name = SO_PROTOCOL, .size = sizeof(int) }, [LOCKS] = { .name = BUF_LOCK, .size = sizeof(int) },
		[NAME] = { .name = COOKIE, .size = sizeof(uint64_t) },
		[MEMORY] = { .name = SO_MEMINFO, .size = MEMORY_COUNT * sizeof(uint32_t) },
		[FILTER] = { .name = SO_GET_FILTER },
	};
	int own;
	if (!socket_is(file) || !file->keeps_own || file->is_identified || frozen_file_own(file, &own, NULL) < 0)
		return;
	if (!asking->has_tried[worker])
		asking->rings[worker] = sockopt_ring_new();
	asking->has_tried[worker] = true;
	if (!asking->rings[worker] || sockopt_ring_ask(asking->rings[worker], own, ask, WITH_FILTER) < 0)
		return;
	for (size_t i = 0; i < COUNT; i++)
		if (ask[i].answer != (ssize_t)ask[i].size)
			return;
	struct socket_asked *asked = &asking->scene->asked[file->id];
	uint32_t memory[MEMORY_COUNT];
	memcpy(memory, ask[MEMORY].value, sizeof memory);
	memcpy(&asked->cookie, ask[NAME].value, sizeof asked->cookie);
	asked->locks = value_of(&ask[LOCKS]);
	asked->send_buffer = memory[MEMORY_SEND_BUFFER];
	asked->receive_buffer = memory[MEMORY_RECEIVE_BUFFER];
	asked->has_program = ask[FILTER].answer == -EACCES;
	asked->is_known = true;
	is(file, value_of(&ask[DOMAIN]), value_of(&ask[TYPE]), value_of(&ask[PROTOCOL]));
}

static void ask_all(struct harvest *harvest)
{
	struct socket_scene *scene = socket_scene(harvest);
	struct asking asking = { .harvest = harvest, .scene = scene };
	/* While there is little memory to copy: what is written after a fork(2) costs a fault per page, and word to all processors. */
	guard_get(harvest);
	scene->asked_count = harvest->last_id + 1;
	scene->asked = ARENA_ARRAY(&harvest->arena, struct socket_asked, scene->asked_count);
	crew_run(harvest->files.count, CREW_FILES, ask_one, &asking);
	for (size_t i = 0; i < CREW_MOST; i++)
		sockopt_ring_free(asking.rings[i]);
}

void sockets_census(struct harvest *harvest)
{
	size_t count = 0;
	for (size_t i = 0; i < harvest->files.count; i++)
		count += socket_is(harvest->files.at[i]);
	if (count < SOCKETS_MANY)
		return;
	socket_scene(harvest)->are_many = true;
	if (harvest->frozen)
		ask_all(harvest);
	else
		list_all(harvest);
}

const struct socket_asked *socket_asked(const struct socket_scene *scene, const struct frozen_file *file)
{
	return file->id < scene->asked_count && scene->asked[file->id].is_known ? &scene->asked[file->id] : NULL;
}
