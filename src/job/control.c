/* SPDX-License-Identifier: Apache-2.0 */
#include "job/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/memory.h"

enum { MOST_FDS = 3 };
union ancillary {
	struct cmsghdr header;
	char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
};

/* The text of @message with the word "descriptors": what the packet's are, in their order. */
static char *message_text(const json_t *message, const struct control_fds *fds, int numbers[MOST_FDS], size_t *ret_count)
{
	json_t *own = json_copy((json_t *)message), *names = json_array();
	*ret_count = 0;
	if (fds && fds->output >= 0) {
		numbers[(*ret_count)++] = fds->output;
		json_array_append_new(names, json_string("output"));
	}
	if (fds && fds->key >= 0) {
		numbers[(*ret_count)++] = fds->key;
		json_array_append_new(names, json_string("key"));
	}
	if (fds && fds->channel >= 0) {
		numbers[(*ret_count)++] = fds->channel;
		json_array_append_new(names, json_string("channel"));
	}
	if (*ret_count)
		json_object_set(own, "descriptors", names);
	json_decref(names);
	char *text = json_dumps(own, JSON_COMPACT);
	json_decref(own);
	return text;
}

static void take_descriptors(json_t *message, const int *numbers, size_t count, struct control_fds *ret_fds)
{
	const json_t *names = json_object_get(message, "descriptors");
	*ret_fds = CONTROL_NO_FDS;
	for (size_t i = 0; i < count; i++) {
		const char *name = json_string_value(json_array_get(names, i));
		int *place = !name ? NULL : !strcmp(name, "output") ? &ret_fds->output : !strcmp(name, "key") ? &ret_fds->key :
			     !strcmp(name, "channel") ? &ret_fds->channel : NULL;
		if (place && *place < 0)
			*place = numbers[i];
		else
			close(numbers[i]);
	}
}

void control_fds_close(struct control_fds *fds)
{
	fd_close_scoped(&fds->output);
	fd_close_scoped(&fds->key);
	fd_close_scoped(&fds->channel);
	*fds = CONTROL_NO_FDS;
}

int control_send(int socket, const json_t *message, const struct control_fds *fds)
{
	int numbers[MOST_FDS];
	size_t count;
	_free_ char *text = message_text(message, fds, numbers, &count);
	if (!text)
		return -EINVAL;
	struct iovec piece = { text, strlen(text) };
	struct msghdr packet = { .msg_iov = &piece, .msg_iovlen = 1 };
	union ancillary ancillary = { 0 };
	if (count) {
		packet.msg_control = &ancillary;
		packet.msg_controllen = CMSG_SPACE(count * sizeof *numbers);
		ancillary.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(count * sizeof *numbers), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&ancillary.header), numbers, count * sizeof *numbers);
	}
	ssize_t sent;
	do
		sent = sendmsg(socket, &packet, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

int control_receive(int socket, json_t **ret_message, struct control_fds *ret_fds)
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
	int numbers[(sizeof(union ancillary) - CMSG_LEN(0)) / sizeof(int)]; /* as many as the kernel finds room for, padding included */
	size_t count = 0;
	struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		count = (header->cmsg_len - CMSG_LEN(0)) / sizeof *numbers;
		memcpy(numbers, CMSG_DATA(header), count * sizeof *numbers);
	}
	json_t *message = got ? json_loadb(buffer, (size_t)got, 0, NULL) : NULL;
	struct control_fds fds;
	take_descriptors(message, numbers, count, &fds);
	if (ret_fds)
		*ret_fds = fds;
	else
		control_fds_close(&fds);
	if (json_is_object(message)) {
		*ret_message = message;
		return 1;
	}
	json_decref(message);
	if (ret_fds)
		control_fds_close(ret_fds);
	return got ? -EPROTO : 0;
}

int control_call(int socket, const json_t *request, const struct control_fds *fds, json_t **ret_answer, struct fault *fault)
{
	int rc = control_send(socket, request, fds);
	if (rc == 0)
		rc = control_receive(socket, ret_answer, NULL);
	if (rc > 0)
		return 0;
	return fault_set(fault, FAULT_FAILED, rc ? -rc : ECONNRESET, "the job's init does not answer: %s; try `cairn ps`",
			 rc ? strerror(-rc) : "it has ended");
}

json_t *control_failed(enum cairn_status status, const struct cairn_error *error)
{
	/* A tree of a thousand processes may have as many faults, and a message has a size. JSON writes a byte as six at worst. */
	const size_t most = CONTROL_MAX / 8;
	json_t *lines = json_array();
	size_t i = 0;
	for (size_t size = 0; i < error->count && (!i || size + strlen(error->lines[i]) <= most); i++) {
		json_array_append_new(lines, json_stringn_nocheck(error->lines[i], strlen(error->lines[i])));
		size += strlen(error->lines[i]);
	}
	if (i < error->count)
		json_array_append_new(lines, json_sprintf("and %zu faults more, which a job's answer has no room for", error->count - i));
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
