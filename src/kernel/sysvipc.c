/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/sysvipc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "kernel/token.h"

static const char *const names[] = { "shm", "sem", "msg" };

/* What follows key, id and permissions in a line, by type: fields that nobody here wants are numbered as well. */
enum { MOST_COLUMNS = 14 };

static void take_columns(enum sysv_type type, const uint64_t *column, struct sysv_object *object)
{
	static const int ids_at[] = { 4, 1, 4 }, changed_at[] = { 10, 6, 10 };
	int at = ids_at[type];
	object->uid = (uint32_t)column[at];
	object->gid = (uint32_t)column[at + 1];
	object->creator_uid = (uint32_t)column[at + 2];
	object->creator_gid = (uint32_t)column[at + 3];
	object->changed_s = column[changed_at[type]];
	object->size = type == SYSV_MSG ? column[1] : column[0];
	object->attached = type == SYSV_SHM ? column[3] : 0;
	object->maker = type == SYSV_SHM ? (pid_t)column[1] : 0;
	object->user = type == SYSV_SHM ? (pid_t)column[2] : 0;
	object->sender = type == SYSV_MSG ? (pid_t)column[2] : 0;
	object->receiver = type == SYSV_MSG ? (pid_t)column[3] : 0;
}

/* "        key      shmid perms   size  cpid ..." is above them. */
int sysv_parse(enum sysv_type type, const char *text, struct sysv_list *ret_list, struct fault *fault)
{
	static const int wanted[] = { 11, 7, 11 };
	struct sysv_list list = { 0 };
	for (const char *line = token_next_line(text); *line; line = token_next_line(line)) {
		const char *at = line;
		int64_t key;
		uint64_t id, mode, column[MOST_COLUMNS] = { 0 };
		int count = 0;
		if (!token_signed(&at, &key) || !token_number(&at, 10, &id) || !token_number(&at, 8, &mode)) {
			sysv_finish(&list);
			return token_malformed(fault, names[type], "an object", line);
		}
		while (count < MOST_COLUMNS && token_number(&at, 10, &column[count]))
			count++;
		if (count < wanted[type]) {
			sysv_finish(&list);
			return token_malformed(fault, names[type], "an object", line);
		}
		struct sysv_object *object = vec_add(&list.objects);
		*object = (struct sysv_object){ .key = (int32_t)key, .id = (uint32_t)id, .mode = (uint32_t)mode };
		take_columns(type, column, object);
	}
	*ret_list = list;
	return 0;
}

int sysv_read(enum sysv_type type, struct sysv_list *ret_list, struct fault *fault)
{
	char path[64];
	struct text text = { 0 };
	snprintf(path, sizeof path, "/proc/sysvipc/%s", names[type]);
	int rc = proc_read_path(path, &text, fault);
	*ret_list = (struct sysv_list){ 0 };
	if (rc == 0)
		rc = sysv_parse(type, text.at, ret_list, fault);
	text_finish(&text);
	return rc == -ENOENT ? 0 : rc;
}

void sysv_finish(struct sysv_list *list)
{
	if (list)
		vec_finish(&list->objects);
}

const struct sysv_object *sysv_find(const struct sysv_list *list, uint32_t id)
{
	for (size_t i = 0; i < list->objects.count; i++)
		if (list->objects.at[i].id == id)
			return &list->objects.at[i];
	return NULL;
}

int sysv_next_id(enum sysv_type type, uint32_t id, struct fault *fault)
{
	char path[64], text[16];
	int length = snprintf(text, sizeof text, "%u", id);
	snprintf(path, sizeof path, "/proc/sys/kernel/%s_next_id", names[type]);
	_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, text, (size_t)length) == length)
		return 0;
	return fault_set(fault, fault_class_of(errno), errno,
			 "choosing the id of a System V IPC object (%s): %s; try as root, or --pids private", path, strerror(errno));
}
