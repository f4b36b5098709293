/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/decoded.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cmd/cmd.h"

int decoded_init(struct decoded *decoded, const struct image_reader *reader, size_t index, struct fault *fault)
{
	const struct image_record *records;
	image_reader_records(reader, &records);
	const struct image_record *record = &records[index];
	*decoded = (struct decoded){ kind_by_tag(record->tag), record->tag, record->size, NULL };
	if (!decoded->kind || !decoded->kind->descriptor)
		return 0;
	decoded->message = kind_unpack(decoded->kind, record->data, record->size);
	if (decoded->message)
		return 0;
	return fault_set(fault, FAULT_IMAGE, EBADMSG, "damaged: record %zu is no %s; try another copy", index,
			 decoded->kind->name);
}

void decoded_finish(struct decoded *decoded)
{
	if (decoded->message)
		protobuf_c_message_free_unpacked(decoded->message, NULL);
	decoded->message = NULL;
}

int decoded_list_init(struct decoded_list *list, const struct image_reader *reader, struct fault *fault)
{
	const struct image_record *records;
	list->count = image_reader_records(reader, &records);
	list->at = memory_new(list->count * sizeof *list->at);
	for (size_t i = 0; i < list->count; i++) {
		int rc = decoded_init(&list->at[i], reader, i, fault);
		if (rc) {
			decoded_list_finish(list);
			return rc;
		}
	}
	return 0;
}

void decoded_list_finish(struct decoded_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		decoded_finish(&list->at[i]);
	free(list->at);
	*list = (struct decoded_list){ 0 };
}

/* Fields */

static json_t *json_unsigned(uint64_t value)
{
	if (value <= INT64_MAX)
		return json_integer((json_int_t)value);
	return json_sprintf("%" PRIu64, value);
}

static json_t *json_bytes(const ProtobufCBinaryData *bytes)
{
	static const char digits[] = "0123456789abcdef";
	_free_ char *hex = memory_new(2 * bytes->len + 1);
	for (size_t i = 0; i < bytes->len; i++) {
		hex[2 * i] = digits[bytes->data[i] >> 4];
		hex[2 * i + 1] = digits[bytes->data[i] & 15];
	}
	return json_stringn(hex, 2 * bytes->len);
}

static json_t *json_enum(const ProtobufCFieldDescriptor *field, int value)
{
	const ProtobufCEnumValue *name = protobuf_c_enum_descriptor_get_value(field->descriptor, value);
	return name ? json_string(name->name) : json_integer(value);
}

/* The value at @place, and how far it is to the next one of a repeated field. */
static json_t *value_json(const ProtobufCFieldDescriptor *field, const void *place, size_t *ret_size)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		*ret_size = sizeof(int32_t);
		return json_integer(*(const int32_t *)place);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		*ret_size = sizeof(uint32_t);
		return json_integer(*(const uint32_t *)place);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		*ret_size = sizeof(int64_t);
		return json_integer(*(const int64_t *)place);
	case PROTOBUF_C_TYPE_UINT64:
		*ret_size = sizeof(uint64_t);
		return json_unsigned(*(const uint64_t *)place);
	case PROTOBUF_C_TYPE_FIXED64:
		*ret_size = sizeof(uint64_t);
		return json_sprintf("0x%" PRIx64, *(const uint64_t *)place);
	case PROTOBUF_C_TYPE_FLOAT:
		*ret_size = sizeof(float);
		return json_real(*(const float *)place);
	case PROTOBUF_C_TYPE_DOUBLE:
		*ret_size = sizeof(double);
		return json_real(*(const double *)place);
	case PROTOBUF_C_TYPE_BOOL:
		*ret_size = sizeof(protobuf_c_boolean);
		return json_boolean(*(const protobuf_c_boolean *)place);
	case PROTOBUF_C_TYPE_ENUM:
		*ret_size = sizeof(int);
		return json_enum(field, *(const int *)place);
	case PROTOBUF_C_TYPE_STRING:
		*ret_size = sizeof(char *);
		return *(char *const *)place ? cmd_text(*(char *const *)place) : json_string("");
	case PROTOBUF_C_TYPE_BYTES:
		*ret_size = sizeof(ProtobufCBinaryData);
		return json_bytes(place);
	case PROTOBUF_C_TYPE_MESSAGE:
		*ret_size = sizeof(ProtobufCMessage *);
		return *(ProtobufCMessage *const *)place ? message_json(*(ProtobufCMessage *const *)place) :
							   json_null();
	}
	*ret_size = 0;
	return json_null();
}

static const void *field_place(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	return (const char *)message + field->offset;
}

static json_t *field_json(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	size_t step;
	if (field->label != PROTOBUF_C_LABEL_REPEATED)
		return value_json(field, field_place(message, field), &step);
	size_t count = *(const size_t *)((const char *)message + field->quantifier_offset);
	const char *values = *(const char *const *)field_place(message, field);
	json_t *array = json_array();
	for (size_t i = 0; i < count; i++) {
		json_array_append_new(array, value_json(field, values, &step));
		values += step;
	}
	return array;
}

json_t *message_json(const ProtobufCMessage *message)
{
	json_t *object = json_object();
	for (unsigned int i = 0; i < message->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
		json_object_set_new(object, field->name, field_json(message, field));
	}
	return object;
}

/* An image may come from anywhere: nothing in it may steer the reader's terminal. */
static void text_clean(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++)
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
}

/* "" for what is not a scalar. */
static char *field_text(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	if (field->label == PROTOBUF_C_LABEL_REPEATED || field->type == PROTOBUF_C_TYPE_MESSAGE ||
	    field->type == PROTOBUF_C_TYPE_BYTES)
		return memory_string("");
	size_t step;
	json_t *value = value_json(field, field_place(message, field), &step);
	char *text = json_is_string(value) ? memory_string(json_string_value(value)) :
					     json_dumps(value, JSON_ENCODE_ANY);
	json_decref(value);
	text_clean(text);
	return text;
}

char *message_text(const ProtobufCMessage *message, const char *name)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
	return field ? field_text(message, field) : memory_string("");
}

const ProtobufCMessage *message_child(const ProtobufCMessage *message, const char *name)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);
	if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE || field->label == PROTOBUF_C_LABEL_REPEATED)
		return NULL;
	return *(ProtobufCMessage *const *)field_place(message, field);
}

static bool text_is_zero(const char *text)
{
	return !*text || !strcmp(text, "0") || !strcmp(text, "0x0") || !strcmp(text, "false");
}

char *message_summary(const ProtobufCMessage *message, size_t most)
{
	char *summary = memory_string("");
	for (unsigned int i = 0; i < message->descriptor->n_fields && most; i++) {
		const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
		_free_ char *text = field_text(message, field);
		if (text_is_zero(text))
			continue;
		char *longer = memory_format("%s%s%s=%s", summary, *summary ? " " : "", field->name, text);
		free(summary);
		summary = longer;
		most--;
	}
	return summary;
}
