/* SPDX-License-Identifier: Apache-2.0 */
#include "job/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/memory.h"

union ancillary {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

int control_send(int socket, const json_t *message, int fd)
{
	_free_ char *text = json_dumps(message, JSON_COMPACT);
	if (!text)
		return -EINVAL;
	struct iovec piece = { text, strlen(text) };
	struct msghdr packet = { .msg_iov = &piece, .msg_iovlen = 1 };
	union ancillary ancillary = { 0 };
	if (fd >= 0) {
		packet.msg_control = &ancillary;
		packet.msg_controllen = sizeof ancillary.space;
		ancillary.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&ancillary.header), &fd, sizeof fd);
	}
	ssize_t sent;
	do
		sent = sendmsg(socket, &packet, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

int control_receive(int socket, json_t **ret_message, int *ret_fd)
{
	_free_ char *buffer = memory_new(CONTROL_MAX);
	struct iovec piece = { buffer, CONTROL_MAX };
	union ancillary ancillary = { 0 };
	struct msghdr packet = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &ancillary, .msg_controllen = sizeof ancillary.space,
	};
	ssize_t got;
	do
		got = recvmsg(socket, &packet, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	int fd = -1;
	struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(header), sizeof fd);
	if (ret_fd)
		*ret_fd = fd;
	else if (fd >= 0)
		close(fd);
	if (got == 0)
		return 0;
	*ret_message = json_loadb(buffer, (size_t)got, 0, NULL);
	if (json_is_object(*ret_message))
		return 1;
	json_decref(*ret_message);
	if (ret_fd && fd >= 0)
		close(fd);
	return -EPROTO;
}

int control_call(int socket, const json_t *request, int fd, json_t **ret_answer, struct fault *fault)
{
	int rc = control_send(socket, request, fd);
	if (rc == 0)
		rc = control_receive(socket, ret_answer, NULL);
	if (rc > 0)
		return 0;
	return fault_set(fault, FAULT_FAILED, rc ? -rc : ECONNRESET, "the job's init does not answer: %s; try `cairn ps`",
			 rc ? strerror(-rc) : "it has ended");
}

json_t *control_failed(enum cairn_status status, const struct cairn_error *error)
{
	json_t *lines = json_array();
	for (size_t i = 0; i < error->count; i++)
		json_array_append_new(lines, json_stringn_nocheck(error->lines[i], strlen(error->lines[i])));
	return json_pack("{s:i, s:o}", "status", (int)status, "lines", lines);
}

json_t *control_refused(enum cairn_status status, const char *line)
{
	return json_pack("{s:i, s:[s]}", "status", (int)status, "lines", line);
}

enum cairn_status control_status(const json_t *answer, struct cairn_error *error)
{
	json_int_t status = json_integer_value(json_object_get(answer, "status"));
	const json_t *lines = json_object_get(answer, "lines");
	for (size_t i = 0; i < json_array_size(lines); i++) {
		const char *line = json_string_value(json_array_get(lines, i));
		error->lines = memory_resize(error->lines, (error->count + 1) * sizeof *error->lines);
		error->lines[error->count++] = memory_string(line ? line : "");
	}
	return status < 0 || status > CAIRN_TIMED_OUT ? CAIRN_FAILED : (enum cairn_status)status;
}

const char *control_text(const json_t *message, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(message, key));
	return text ? text : otherwise;
}
