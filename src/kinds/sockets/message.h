/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Messages in a socket's receive queue: looked at without taking them, and put into a new one. */
#include "kinds/sockets/socket.h"

struct socket_message {
	uint8_t *data;
	size_t size;
	uint8_t *source; /* address */
	size_t source_size;
	bool has_credentials;
	uint32_t pid, uid, gid;
	struct frozen_file **files;
	size_t file_count;
	struct socket_message *next;
};

struct socket_queue {
	struct socket_message *first, *last;
	size_t count;
};

enum queue_form {
	QUEUE_STREAM,    /* bytes, without limits between messages */
	QUEUE_MESSAGES,
	QUEUE_ENDED,     /* messages, after which every read gives nothing, which looks like an empty one */
};

/* All that waits in Cairn's own copy of @file. What was on its way becomes files of
 * the harvest. Leaves SO_PEEK_OFF as it was. */
int queue_peek(struct harvest *harvest, struct frozen_file *file, int own, enum queue_form form, struct socket_queue *ret_queue,
	       struct fault *fault);
/* As records, in the order of the queue. */
void queue_capture(struct harvest *harvest, const struct socket_queue *queue, Cairn__SocketMessage ***ret_messages,
		   size_t *ret_count);
int queue_check(Cairn__SocketMessage *const *messages, size_t count, struct fault *fault);
/* Sends one through @fd, to @address if there is one. */
int message_send(struct workshop *workshop, const Cairn__SocketMessage *message, int fd, const void *address,
		 socklen_t address_size, struct fault *fault);
