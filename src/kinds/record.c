/* SPDX-License-Identifier: Apache-2.0 */
/* From the bytes of an image to a record. protobuf-c ends a string at a zero inside of it, and what is left would be a path as any other: so the bytes are looked through
 * before (https://protobuf.dev/programming-guides/encoding). */
#include <string.h>

#include "kinds/kind.h"

enum wire { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_32 = 5 };

struct bytes {
	const uint8_t *at, *end;
};

static bool take_varint(struct bytes *bytes, uint64_t *ret_value)
{
	uint64_t value = 0;
	for (unsigned shift = 0; bytes->at < bytes->end && shift < 64; shift += 7) {
		uint8_t byte = *bytes->at++;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

/* The value of a field, which is behind its tag; empty, if it is no bytes. */
static bool take_value(struct bytes *bytes, unsigned wire, struct bytes *ret_value)
{
	uint64_t size = wire == WIRE_64 ? 8 : wire == WIRE_32 ? 4 : 0, number;
	*ret_value = (struct bytes){ bytes->at, bytes->at };
	if (wire == WIRE_VARINT)
		return take_varint(bytes, &number);
	if (wire == WIRE_BYTES && !take_varint(bytes, &size))
		return false;
	if ((wire != WIRE_BYTES && !size) || size > (size_t)(bytes->end - bytes->at))
		return false;
	if (wire == WIRE_BYTES)
		*ret_value = (struct bytes){ bytes->at, bytes->at + size };
	bytes->at += size;
	return true;
}

/* Not deep: a message type contains none of its own sort. */
static bool has_whole_strings(const ProtobufCMessageDescriptor *descriptor, struct bytes bytes)
{
	while (bytes.at < bytes.end) {
		uint64_t tag;
		struct bytes value;
		if (!take_varint(&bytes, &tag) || !take_value(&bytes, tag & 7, &value))
			return false;
		const ProtobufCFieldDescriptor *field = (tag & 7) == WIRE_BYTES && tag >> 3 <= UINT32_MAX ?
			protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3)) : NULL;
		if (field && field->type == PROTOBUF_C_TYPE_STRING && memchr(value.at, 0, (size_t)(value.end - value.at)))
			return false;
		if (field && field->type == PROTOBUF_C_TYPE_MESSAGE && !has_whole_strings(field->descriptor, value))
			return false;
	}
	return true;
}

ProtobufCMessage *kind_unpack(const struct kind *kind, const void *data, size_t size)
{
	const uint8_t *bytes = data;
	if (size && !has_whole_strings(kind->descriptor, (struct bytes){ bytes, bytes + size }))
		return NULL;
	return protobuf_c_message_unpack(kind->descriptor, NULL, size, bytes);
}
