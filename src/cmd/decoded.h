/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Records of an image as messages, and any message as JSON by its descriptor: nothing here knows a kind. */
#include <jansson.h>

#include "image/image.h"
#include "kinds/kind.h"

struct decoded {
	const struct kind *kind;   /* NULL: the tag is unknown, and there is no message */
	uint32_t tag, size;        /* bytes in the image */
	ProtobufCMessage *message; /* owned */
};
/* Record @index of @reader. FAULT_IMAGE when it is not what its tag says. */
int decoded_init(struct decoded *decoded, const struct image_reader *reader, size_t index, struct fault *fault);
void decoded_finish(struct decoded *decoded);

struct decoded_list {
	struct decoded *at; /* in the order of the image */
	size_t count;
};
/* All of them. */
int decoded_list_init(struct decoded_list *list, const struct image_reader *reader, struct fault *fault);
void decoded_list_finish(struct decoded_list *list);

/* An object with every field: bytes as hex, fixed64 (addresses, masks, hashes) as "0x...", other numbers as numbers,
 * or as decimal strings where they are above INT64_MAX. */
json_t *message_json(const ProtobufCMessage *message);
/* Value of the scalar field @name as text without control characters ("" when there is none): "4121", "true". */
char *message_text(const ProtobufCMessage *message, const char *name);
/* Message field @name, NULL: not there. */
const ProtobufCMessage *message_child(const ProtobufCMessage *message, const char *name);
/* "count=3 semaphore=true": those scalar fields that are not zero, at most @most. */
char *message_summary(const ProtobufCMessage *message, size_t most);
