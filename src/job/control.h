/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* How Cairn's processes talk about a job: JSON objects, one in a packet of a SOCK_SEQPACKET socket. Requests are
 * {"op": "status"|"checkpoint"|"check"|"kill", ...}; an answer has "status" (enum cairn_status) and, if that is not 0, "lines". */
#include <jansson.h>

#include "base/fault.h"
#include "cairn.h"

enum { CONTROL_MAX = 128 << 10 };

/* What goes along with a message: where the image goes, a key (api/key.h key_give), and a clone's channel; -1: none. */
struct control_fds {
	int output, key, channel;
};
#define CONTROL_NO_FDS ((struct control_fds){ -1, -1, -1 })
void control_fds_close(struct control_fds *fds);

/* Sends @message (kept by the caller) and @fds (too; NULL: none). -errno. */
int control_send(int socket, const json_t *message, const struct control_fds *fds);
/* The next message: 1, or 0 when the other side is gone, or -errno (-EPROTO: no JSON object). @ret_fds may be NULL. */
int control_receive(int socket, json_t **ret_message, struct control_fds *ret_fds);
/* Sends and waits for the answer; a fault when there is none. */
int control_call(int socket, const json_t *request, const struct control_fds *fds, json_t **ret_answer, struct fault *fault);

/* Errors as answers, and back. */
json_t *control_failed(enum cairn_status status, const struct cairn_error *error);
json_t *control_refused(enum cairn_status status, const char *line);
enum cairn_status control_status(const json_t *answer, struct cairn_error *error);
const char *control_text(const json_t *message, const char *key, const char *otherwise);
