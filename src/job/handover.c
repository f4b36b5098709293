/* SPDX-License-Identifier: Apache-2.0 */
#include "job/handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "job/control.h"

enum { MOST = 128 }; /* spaces in a packet; the kernel takes 253 descriptors (net/core/scm.c SCM_MAX_FD) */

union ancillary {
	struct cmsghdr header;
	char space[CMSG_SPACE(MOST * sizeof(int))];
};

static json_t *describe(const struct tracking_space *space)
{
	char image[33];
	memory_hex(space->image, sizeof space->image, image);
	return json_pack("[i, I, s]", (int)space->pid, (json_int_t)space->start_time, image);
}

static int send_some(int socket, const struct tracking_space *spaces, size_t count, bool with_descriptors)
{
	union ancillary ancillary = { 0 };
	json_t *list = json_array();
	int fds[MOST];
	for (size_t i = 0; i < count; i++) {
		json_array_append_new(list, describe(&spaces[i]));
		fds[i] = spaces[i].userfaultfd;
	}
	json_t *message = json_pack("{s:o}", "spaces", list);
	_free_ char *text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	if (!text)
		return -ENOMEM;
	struct iovec piece = { text, strlen(text) };
	struct msghdr packet = { .msg_iov = &piece, .msg_iovlen = 1 };
	if (with_descriptors) {
		ancillary.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(count * sizeof *fds), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&ancillary.header), fds, count * sizeof *fds);
		packet.msg_control = &ancillary;
		packet.msg_controllen = CMSG_SPACE(count * sizeof *fds);
	}
	ssize_t sent;
	do
		sent = sendmsg(socket, &packet, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

int handover_send(int socket, const struct tracking *tracking, bool with_descriptors)
{
	int rc = 0;
	for (size_t at = 0; rc == 0 && at < tracking->spaces.count; at += MOST) {
		size_t count = tracking->spaces.count - at < MOST ? tracking->spaces.count - at : MOST;
		rc = send_some(socket, &tracking->spaces.at[at], count, with_descriptors);
	}
	return rc;
}

static bool take_image(const char *text, uint8_t image[16])
{
	for (size_t i = 0; i < 16; i++) {
		char byte[3] = { text[2 * i], text[2 * i] ? text[2 * i + 1] : 0, 0 }, *end;
		image[i] = (uint8_t)strtoul(byte, &end, 16);
		if (end != byte + 2)
			return false;
	}
	return true;
}

/* Descriptors that no entry is for are closed. */
static void add_spaces(const json_t *list, const int *fds, size_t count, struct tracking *tracking)
{
	for (size_t i = 0; i < json_array_size(list) && i < MOST; i++) {
		const json_t *entry = json_array_get(list, i);
		const char *image = json_string_value(json_array_get(entry, 2));
		struct tracking_space space = {
			.pid = (pid_t)json_integer_value(json_array_get(entry, 0)),
			.start_time = (uint64_t)json_integer_value(json_array_get(entry, 1)), .userfaultfd = i < count ? fds[i] : -1,
		};
		if (image && take_image(image, space.image))
			*vec_add(&tracking->spaces) = space;
		else if (space.userfaultfd >= 0)
			close(space.userfaultfd);
	}
	for (size_t i = json_array_size(list); i < count; i++)
		close(fds[i]);
}

int handover_receive(int socket, int flags, struct tracking *tracking, json_t **ret_other)
{
	_free_ char *buffer = memory_new(CONTROL_MAX);
	struct iovec piece = { buffer, CONTROL_MAX };
	union ancillary ancillary = { 0 };
	struct msghdr packet = { .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary.space };
	ssize_t got;
	*ret_other = NULL;
	do
		got = recvmsg(socket, &packet, MSG_CMSG_CLOEXEC | flags);
	while (got < 0 && errno == EINTR);
	if (got <= 0)
		return got < 0 ? -errno : 0;
	int fds[MOST];
	size_t count = 0;
	struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		count = (header->cmsg_len - CMSG_LEN(0)) / sizeof *fds;
		memcpy(fds, CMSG_DATA(header), count * sizeof *fds);
	}
	json_t *message = json_loadb(buffer, (size_t)got, 0, NULL), *list = json_object_get(message, "spaces");
	add_spaces(list, fds, count, tracking);
	if (list || !message)
		json_decref(message);
	else
		*ret_other = message;
	return message ? 1 : -EPROTO;
}
