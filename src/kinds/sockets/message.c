/* SPDX-License-Identifier: Apache-2.0 */
/* A queue is read by MSG_PEEK, and beyond its first message by SO_PEEK_OFF, which belongs to the socket and is put back at once: a Cairn
 * that dies in between (some microseconds, and only where more than one message waits) leaves a program that peeks itself with it.
 * An empty datagram that was peeked at is passed over by the next look (net/core/datagram.c __skb_try_recv_from_queue, `peeked`). */
#include "kinds/sockets/message.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "kinds/sockets/actor.h"

enum { FIRST_TRY = 256 * 1024, MESSAGE_MOST = 256 * 1024 * 1024, FILES_MOST = 253, SCM_PIDFD_NUMBER = 4 };

struct look {
	struct harvest *harvest;
	struct frozen_file *file;
	int own;
	enum queue_form form;
	uint8_t *buffer;
	size_t space;
	struct socket_queue *queue;
};

static void take_credentials(struct socket_message *message, const struct cmsghdr *header)
{
	struct ucred credentials;
	memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
	message->has_credentials = true;
	message->pid = (uint32_t)credentials.pid;
	message->uid = credentials.uid;
	message->gid = credentials.gid;
}

static int take_files(struct look *look, struct socket_message *message, const struct cmsghdr *header, struct fault *fault)
{
	int fds[FILES_MOST], rc = 0;
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(header), count * sizeof(int));
	message->files = ARENA_ARRAY(&look->harvest->arena, struct frozen_file *, count);
	for (size_t i = 0; i < count; i++) {
		if (rc == 0)
			rc = harvest_in_flight(look->harvest, look->file, fds[i], &message->files[i], fault);
		else
			close(fds[i]);
	}
	message->file_count = count;
	return rc;
}

static int take_control(struct look *look, struct socket_message *message, struct msghdr *header, struct fault *fault)
{
	int rc = 0;
	for (struct cmsghdr *one = CMSG_FIRSTHDR(header); one; one = CMSG_NXTHDR(header, one)) {
		if (one->cmsg_level != SOL_SOCKET)
			continue;
		if (one->cmsg_type == SCM_CREDENTIALS)
			take_credentials(message, one);
		else if (one->cmsg_type == SCM_RIGHTS && rc == 0)
			rc = take_files(look, message, one, fault);
		else if (one->cmsg_type == SCM_PIDFD_NUMBER && one->cmsg_len == CMSG_LEN(sizeof(int)))
			close(*(int *)(void *)CMSG_DATA(one));
	}
	return rc;
}

/* 1: one was added, 0: there is none (any more). */
static int look_once(struct look *look, struct fault *fault)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(FILES_MOST * sizeof(int)) + 512];
	} control;
	struct sockaddr_storage source;
	struct iovec iov = { look->buffer, look->space };
	struct msghdr header = {
		.msg_name = &source, .msg_namelen = sizeof source, .msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof control,
	};
	ssize_t size = recvmsg(look->own, &header, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC);
	if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (size < 0)
		return fault_set(fault, fault_class_of(errno), errno, "its queue cannot be read: %s", strerror(errno));
	/* An empty message is seen once only (above), the end again and again. */
	bool is_end = size == 0 && look->form == QUEUE_ENDED && look->queue->last && !look->queue->last->size;
	if (size == 0 && (look->form == QUEUE_STREAM || is_end))
		return 0;
	if ((size_t)size > look->space || (header.msg_flags & MSG_CTRUNC))
		return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
				 "a message of %zd bytes waits in it, which is too much; try again when the program has "
				 "read it", size);
	struct socket_message *message = ARENA_NEW(&look->harvest->arena, struct socket_message);
	message->data = arena_copy(&look->harvest->arena, look->buffer, (size_t)size);
	message->size = (size_t)size;
	if (header.msg_namelen) {
		message->source = arena_copy(&look->harvest->arena, &source, header.msg_namelen);
		message->source_size = header.msg_namelen;
	}
	int rc = take_control(look, message, &header, fault);
	if (rc < 0)
		return rc;
	if (look->queue->last)
		look->queue->last->next = message;
	else
		look->queue->first = message;
	look->queue->last = message;
	look->queue->count++;
	return 1;
}

static int set_offset(int own, int offset)
{
	return setsockopt(own, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset);
}

/* One look at a stream runs over bytes without descriptors into those that have some, which come with the first of these. Peeking shows the
 * descriptors of the next skb even when it copies nothing of it (net/unix/af_unix.c unix_stream_read_generic), but an skb whose last byte
 * cannot be copied is as if it were not there: the length of the answer is where it begins.
 * The last message, which begins at @offset, becomes two. */
static int split_last(struct look *look, size_t offset, struct fault *fault)
{
	struct socket_message *message = look->queue->last;
	void *nowhere = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec iov[] = { { look->buffer, message->size - 1 }, { nowhere, 1 } };
	struct msghdr header = { .msg_iov = iov, .msg_iovlen = 2 };
	if (nowhere == MAP_FAILED)
		return fault_set(fault, FAULT_FAILED, errno, "mmap: %s", strerror(errno));
	set_offset(look->own, (int)offset);
	ssize_t before = recvmsg(look->own, &header, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	munmap(nowhere, 1);
	set_offset(look->own, (int)(offset + message->size));
	if (before <= 0 || (size_t)before >= message->size)
		return 0;
	struct socket_message *rest = arena_copy(&look->harvest->arena, message, sizeof *message);
	message->files = NULL;
	message->file_count = 0;
	message->size = (size_t)before;
	rest->data += before;
	rest->size -= (size_t)before;
	message->next = rest;
	look->queue->last = rest;
	look->queue->count++;
	return 0;
}

/* From the front again, with the kernel counting. */
static int look_through(struct look *look, int before, struct fault *fault)
{
	if (set_offset(look->own, 0) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "SO_PEEK_OFF: %s", strerror(errno));
	/* An empty first one was marked by the look that found it, and is passed over now. */
	if (look->queue->first && look->queue->first->size)
		*look->queue = (struct socket_queue){ 0 };
	int rc;
	size_t offset = 0;
	while ((rc = look_once(look, fault)) > 0) {
		size_t size = look->queue->last->size;
		if (look->form == QUEUE_STREAM && look->queue->last->file_count)
			rc = split_last(look, offset, fault);
		if (rc < 0)
			break;
		offset += size;
	}
	set_offset(look->own, before);
	return rc;
}

static void drop_end(struct socket_queue *queue)
{
	struct socket_message *before = NULL;
	for (struct socket_message *one = queue->first; one != queue->last; one = one->next)
		before = one;
	if (before)
		before->next = NULL;
	else
		queue->first = NULL;
	queue->last = before;
	queue->count--;
}

int queue_peek(struct harvest *harvest, struct frozen_file *file, int own, enum queue_form form, struct socket_queue *ret_queue,
	       struct fault *fault)
{
	int waiting = 0, before = -1;
	socklen_t size = sizeof before;
	bool is_stream = form == QUEUE_STREAM;
	*ret_queue = (struct socket_queue){ 0 };
	if (ioctl(own, FIONREAD, &waiting) < 0 || (is_stream && waiting == 0))
		return 0;
	getsockopt(own, SOL_SOCKET, SO_PEEK_OFF, &before, &size);
	size_t space = waiting + 1 > FIRST_TRY ? (size_t)waiting + 1 : FIRST_TRY;
	_free_ uint8_t *buffer = memory_resize(NULL, space); /* not touched but by what is there */
	struct look look = { harvest, file, own, form, buffer, space, ret_queue };
	int rc = before >= 0 ? look_through(&look, before, fault) : look_once(&look, fault);
	/* Descriptors in the first one are looked at twice: what comes out is the same open files. */
	if (rc > 0 && !(is_stream && ret_queue->first->size >= (size_t)waiting && !ret_queue->first->file_count))
		rc = look_through(&look, before, fault);
	if (rc >= 0 && form == QUEUE_ENDED && ret_queue->last && !ret_queue->last->size)
		drop_end(ret_queue);
	return rc < 0 ? rc : 0;
}

void queue_capture(struct harvest *harvest, const struct socket_queue *queue, Cairn__SocketMessage ***ret_messages,
		   size_t *ret_count)
{
	size_t count = 0;
	*ret_messages = ARENA_ARRAY(&harvest->arena, Cairn__SocketMessage *, queue->count);
	for (const struct socket_message *one = queue->first; one; one = one->next) {
		Cairn__SocketMessage *message = HARVEST_MESSAGE(harvest, Cairn__SocketMessage, cairn__socket_message__init);
		message->data = (ProtobufCBinaryData){ one->size, one->data };
		message->source = (ProtobufCBinaryData){ one->source_size, one->source };
		if (one->has_credentials) {
			message->credentials = HARVEST_MESSAGE(harvest, Cairn__SocketCredentials, cairn__socket_credentials__init);
			message->credentials->pid = one->pid;
			message->credentials->uid = one->uid;
			message->credentials->gid = one->gid;
		}
		message->files = ARENA_ARRAY(&harvest->arena, uint32_t, one->file_count);
		for (size_t i = 0; i < one->file_count; i++)
			message->files[message->n_files++] = one->files[i]->id;
		(*ret_messages)[count++] = message;
	}
	*ret_count = count;
}

int queue_check(Cairn__SocketMessage *const *messages, size_t count, struct fault *fault)
{
	for (size_t i = 0; i < count; i++)
		if (messages[i]->data.len > MESSAGE_MOST || messages[i]->n_files > FILES_MOST ||
		    messages[i]->source.len > sizeof(struct sockaddr_storage))
			return fault_set(fault, FAULT_IMAGE, EINVAL, "a socket's message has impossible values");
	return 0;
}

/* The control part: whom it is from, and what is on its way. */
static int add_control(struct workshop *workshop, const Cairn__SocketMessage *message, struct msghdr *header,
		       struct fault *fault)
{
	struct cmsghdr *one = header->msg_control;
	size_t used = 0;
	if (message->credentials) {
		const struct ucred credentials = {
			workshop_task(workshop, message->credentials->pid), message->credentials->uid, message->credentials->gid,
		};
		one->cmsg_level = SOL_SOCKET;
		one->cmsg_type = SCM_CREDENTIALS;
		one->cmsg_len = CMSG_LEN(sizeof credentials);
		memcpy(CMSG_DATA(one), &credentials, sizeof credentials);
		used = CMSG_SPACE(sizeof credentials);
	}
	if (message->n_files) {
		int fds[FILES_MOST];
		for (size_t i = 0; i < message->n_files; i++) {
			fds[i] = workshop_fd(workshop, message->files[i]);
			if (fds[i] < 0)
				return fault_set(fault, FAULT_IMAGE, EINVAL,
						 "damaged: a message carries file %u, which is missing", message->files[i]);
		}
		one = (struct cmsghdr *)(void *)((char *)header->msg_control + used);
		one->cmsg_level = SOL_SOCKET;
		one->cmsg_type = SCM_RIGHTS;
		one->cmsg_len = CMSG_LEN(message->n_files * sizeof(int));
		memcpy(CMSG_DATA(one), fds, message->n_files * sizeof(int));
		used += CMSG_SPACE(message->n_files * sizeof(int));
	}
	header->msg_controllen = used;
	if (!used)
		header->msg_control = NULL;
	return 0;
}

/* Only a process can speak for itself, and the sender has ended. */
static ssize_t send_as_the_dead(struct workshop *workshop, const Cairn__SocketCredentials *credentials, int fd, struct msghdr *header)
{
	ssize_t sent = actor_send_as(workshop, (pid_t)credentials->pid, fd, header);
	if (sent != -ESRCH) {
		errno = sent < 0 ? (int)-sent : 0;
		return sent < 0 ? -1 : sent;
	}
	log_warn("a queued message is from process %u, which has ended and whose PID cannot be had here; continuing without it "
		 "(SCM_CREDENTIALS names Cairn's)", credentials->pid);
	struct cmsghdr *first = CMSG_FIRSTHDR(header);
	assert(first); /* add_control put the credentials there */
	((struct ucred *)(void *)CMSG_DATA(first))->pid = getpid();
	return sendmsg(fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int message_send(struct workshop *workshop, const Cairn__SocketMessage *message, int fd, const void *address,
		 socklen_t address_size, struct fault *fault)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(FILES_MOST * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	} control = { 0 };
	struct sockaddr_storage to;
	struct iovec iov = { message->data.data, message->data.len };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control };
	if (address_size) {
		memcpy(&to, address, address_size);
		header.msg_name = &to;
		header.msg_namelen = address_size;
	}
	int rc = add_control(workshop, message, &header, fault);
	while (rc == 0 && (iov.iov_len || !message->data.len)) {
		ssize_t sent = sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && errno == ESRCH && message->credentials && message->credentials->pid)
			sent = send_as_the_dead(workshop, message->credentials, fd, &header);
		if (sent < 0)
			return fault_set(fault, fault_class_of(errno), errno, "a queued message of %zu bytes: %s",
					 message->data.len, strerror(errno));
		iov.iov_base = (char *)iov.iov_base + sent;
		iov.iov_len -= (size_t)sent;
		if (!message->data.len)
			break;
		/* What is on its way goes with the first byte. */
		if (message->n_files)
			header.msg_control = NULL, header.msg_controllen = 0;
	}
	return rc;
}
