/* SPDX-License-Identifier: Apache-2.0 */
/* System V message queues. A queue belongs to no process: sysv.h says which are the tree's. State: id, key, owner, mode, limit
 * of bytes, and the messages, which MSG_COPY shows without taking them (3.8, CONFIG_CHECKPOINT_RESTORE). Times, and who sent and
 * received last, are not put back.
 *
 * Who is asked through a queue, or answers, and is not of the tree, will know nothing of the restore: a request under way would be lost, or answered twice.
 * That is refused, as with sockets, as far as the two processes tell that the kernel remembers.
 *
 * A queue outlives the program. One that is still there is taken if it holds what it held, or if nobody else has used it since, and then
 * gets its old messages in the very last step. In a private PID namespace queues lie in an IPC namespace of its own. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <unistd.h>

#include "ipc.pb-c.h"
#include "kinds/sysv.h"
#include "kinds/table.h"

enum { MOST_TEXT = 1 << 24 };

struct buffer { /* struct msgbuf of msgop(2) */
	long type;
	char text[];
};

static bool is_of_tree(const struct harvest *harvest, const struct sysv_object *object)
{
	const pid_t users[] = { object->sender, object->receiver };
	return sysv_is_of_tree(harvest, object, users, 2);
}

static size_t most_text(void)
{
	struct text text = { 0 };
	size_t most = 8192;
	if (proc_read_path("/proc/sys/kernel/msgmax", &text, NULL) == 0)
		most = strtoul(text.at, NULL, 10);
	text_finish(&text);
	return most < MOST_TEXT ? most : MOST_TEXT;
}

/* The @index-th message, left where it is; its size, or a negative errno: -ENOMSG behind the last. */
static ssize_t peek(uint32_t id, size_t index, struct buffer *buffer, size_t most)
{
	ssize_t size = msgrcv((int)id, buffer, most, (long)index, IPC_NOWAIT | MSG_COPY);
	return size < 0 ? -errno : size;
}

/* The process outside that was the last to send or to receive, or 0. A number that was given to a later process is not it. */
static pid_t find_outsider(const struct harvest *harvest, const struct sysv_object *object, const struct msqid_ds *status)
{
	const pid_t users[] = { object->sender, object->receiver };
	const time_t times[] = { status->msg_stime, status->msg_rtime };
	for (size_t i = 0; i < 2; i++)
		if (sysv_is_outsider(harvest, users[i], times[i]))
			return users[i];
	return 0;
}

static int check_outside(const struct harvest *harvest, const struct sysv_object *object, const struct msqid_ds *status, struct fault *fault)
{
	pid_t other = harvest->policy.outside == OUTSIDE_REFUSE ? find_outsider(harvest, object, status) : 0;
	struct proc_stat stat;
	if (!other || proc_stat_read(other, 0, &stat, NULL) < 0)
		return 0;
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "message queue %u (key 0x%x): process %d (%s), outside the tree, uses it as well; try to checkpoint a common parent, to start "
			 "both with cairn run, or --outside reconnect", object->id, (unsigned)object->key, other, stat.command);
}

static int capture_queue(struct harvest *harvest, const struct sysv_object *object, struct buffer *buffer, size_t most,
			 struct fault *fault)
{
	Cairn__SysvQueue *message = HARVEST_MESSAGE(harvest, Cairn__SysvQueue, cairn__sysv_queue__init);
	struct msqid_ds status;
	ssize_t size = msgctl((int)object->id, IPC_STAT, &status) < 0 ? -errno : 0;
	int rc = size < 0 ? 0 : check_outside(harvest, object, &status, fault);
	if (rc < 0)
		return rc;
	message->id = harvest_new_id(harvest);
	message->object = sysv_capture(harvest, object);
	message->most_bytes = size < 0 ? 0 : status.msg_qbytes;
	message->messages = ARENA_ARRAY(&harvest->arena, Cairn__SysvQueue__Message *, object->size);
	for (uint64_t i = 0; size >= 0 && i < object->size; i++) {
		size = peek(object->id, i, buffer, most);
		if (size < 0)
			break;
		Cairn__SysvQueue__Message *one = HARVEST_MESSAGE(harvest, Cairn__SysvQueue__Message,
								 cairn__sysv_queue__message__init);
		one->type = buffer->type;
		one->text.data = arena_copy(&harvest->arena, buffer->text, (size_t)size);
		one->text.len = (size_t)size;
		message->messages[message->n_messages++] = one;
	}
	if (size < 0)
		return fault_set(fault, fault_class_of((int)-size), (int)-size,
				 "message queue %u (key 0x%x): message %zu: %s; try as its owner, or as root", object->id,
				 (unsigned)object->key, message->n_messages, strerror((int)-size));
	harvest_add(harvest, &kind_sysv_queue, &message->base);
	return 0;
}

static int capture_tree(struct harvest *harvest, struct fault *fault)
{
	struct sysv_list list;
	size_t most = most_text();
	_free_ struct buffer *buffer = NULL;
	int rc = sysv_read(SYSV_MSG, &list, fault);
	if (rc < 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < list.objects.count; i++) {
		if (!is_of_tree(harvest, &list.objects.at[i]))
			continue;
		buffer = buffer ? buffer : memory_new(sizeof *buffer + most);
		rc = capture_queue(harvest, &list.objects.at[i], buffer, most, fault);
	}
	sysv_finish(&list);
	return rc;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvQueue *message = (const Cairn__SysvQueue *)base;
	bool possible = message->id && sysv_possible(message->object);
	for (size_t i = 0; possible && i < message->n_messages; i++)
		possible = message->messages[i]->type > 0 && message->messages[i]->text.len <= MOST_TEXT;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "message queue %u has impossible values", message->id);
}

static int get_queue(int key, uint64_t size, int flags)
{
	(void)size;
	return msgget(key, flags);
}

static void remove_queue(uint64_t id)
{
	msgctl((int)id, IPC_RMID, NULL);
}

static int fill(const Cairn__SysvQueue *message, struct fault *fault)
{
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < message->n_messages; i++) {
		const Cairn__SysvQueue__Message *one = message->messages[i];
		_free_ struct buffer *buffer = memory_new(sizeof *buffer + one->text.len);
		buffer->type = one->type;
		if (one->text.len)
			memcpy(buffer->text, one->text.data, one->text.len);
		if (msgsnd((int)message->object->ipc_id, buffer, one->text.len, IPC_NOWAIT) < 0)
			rc = fault_set(fault, fault_class_of(errno), errno, "message queue %u: message %zu: %s; try to raise "
				       "/proc/sys/kernel/msgmax and msgmnb", message->object->ipc_id, i, strerror(errno));
	}
	return rc;
}

/* The limit of bytes first: it may be larger than a new queue's. */
static int set_status(const Cairn__SysvQueue *message, bool owner, struct fault *fault)
{
	struct msqid_ds status;
	int id = (int)message->object->ipc_id;
	int rc = msgctl(id, IPC_STAT, &status);
	status.msg_qbytes = message->most_bytes;
	if (owner) {
		status.msg_perm.uid = message->object->uid;
		status.msg_perm.gid = message->object->gid;
		status.msg_perm.mode = (unsigned short)message->object->mode;
	}
	/* EINVAL: an id that this user namespace does not know. */
	if (rc < 0 || (msgctl(id, IPC_SET, &status) < 0 && (!owner || errno != EINVAL)))
		return fault_set(fault, fault_class_of(errno), errno, "message queue %d: limit of %llu bytes: %s", id,
				 (unsigned long long)message->most_bytes, strerror(errno));
	return 0;
}

static bool holds_the_same(const Cairn__SysvQueue *message, const struct sysv_object *now)
{
	size_t most = most_text();
	_free_ struct buffer *buffer = memory_new(sizeof *buffer + most);
	bool same = now->size == message->n_messages;
	for (size_t i = 0; same && i < message->n_messages; i++) {
		const Cairn__SysvQueue__Message *one = message->messages[i];
		ssize_t size = peek(now->id, i, buffer, most);
		same = size >= 0 && (size_t)size == one->text.len && buffer->type == one->type &&
		       (!size || !memcmp(buffer->text, one->text.data, one->text.len));
	}
	return same;
}

static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvQueue *message = (const Cairn__SysvQueue *)base;
	struct sysv_object now;
	int rc = workshop_separate_ipc(workshop, fault);
	if (rc == 0)
		rc = sysv_look(SYSV_MSG, message->object, &now, fault);
	if (rc == 1) {
		pid_t other = sysv_is_others(workshop, now.sender) ? now.sender :
			      sysv_is_others(workshop, now.receiver) ? now.receiver : 0;
		return !other || holds_the_same(message, &now) ? 0 :
		       fault_set(fault, FAULT_FAILED, EEXIST,
				 "message queue %u (key 0x%x): process %d has used it since the checkpoint; try to remove it by "
				 "ipcrm(1), or --pids private", now.id, (unsigned)now.key,
				 other);
	}
	if (rc == 0)
		rc = sysv_make(workshop, SYSV_MSG, message->object, get_queue, 0, 0, remove_queue, fault);
	if (rc == 0)
		rc = set_status(message, false, fault);
	return rc < 0 ? rc : fill(message, fault);
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvQueue *message = (const Cairn__SysvQueue *)base;
	const struct sysv_object now = { .id = message->object->ipc_id, .size = message->n_messages };
	struct msqid_ds status;
	int rc = 0;
	(void)workshop;
	if (msgctl((int)now.id, IPC_STAT, &status) < 0 || status.msg_qnum != now.size || !holds_the_same(message, &now)) {
		size_t most = most_text();
		_free_ struct buffer *buffer = memory_new(sizeof *buffer + most);
		while (msgrcv((int)now.id, buffer, most, 0, IPC_NOWAIT | MSG_NOERROR) >= 0)
			;
		rc = set_status(message, false, fault);
		if (rc == 0)
			rc = fill(message, fault);
	}
	return rc < 0 ? rc : set_status(message, true, fault);
}

const struct kind kind_sysv_queue = {
	.name = "message queue",
	.tag = 40,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__sysv_queue__descriptor,
	.owner_field = "id",
	.capture_tree = capture_tree,
	.check = check,
	.make = make,
	.commit = commit,
};
