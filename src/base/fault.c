/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static int fault_fill(struct fault *fault, enum fault_class class, int error, const char *format, va_list args)
{
	if (fault) {
		fault->class = class;
		fault->error = error;
		fault->transient = 0;
		vsnprintf(fault->text, sizeof fault->text, format, args);
	}
	return error ? -error : -EINVAL;
}

int fault_set(struct fault *fault, enum fault_class class, int error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int rc = fault_fill(fault, class, error, format, args);
	va_end(args);
	return rc;
}

int fault_set_transient(struct fault *fault, enum fault_class class, int error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int rc = fault_fill(fault, class, error, format, args);
	va_end(args);
	if (fault)
		fault->transient = 1;
	return rc;
}

int fault_at(struct fault *fault, int rc, const char *format, ...)
{
	if (!fault)
		return rc;
	char where[FAULT_TEXT_SIZE];
	va_list args;
	va_start(args, format);
	int length = vsnprintf(where, sizeof where, format, args);
	va_end(args);
	if (length < 0 || (size_t)length + 3 > sizeof where)
		return rc;
	size_t prefix = (size_t)length + 2;
	size_t rest = strnlen(fault->text, sizeof fault->text - 1);
	if (rest + prefix >= sizeof fault->text)
		rest = sizeof fault->text - 1 - prefix;
	memmove(fault->text + prefix, fault->text, rest);
	memcpy(fault->text, where, (size_t)length);
	memcpy(fault->text + length, ": ", 2);
	fault->text[prefix + rest] = 0;
	return rc;
}

enum fault_class fault_class_of(int error)
{
	switch (error) {
	case EPERM:
	case EACCES:
		return FAULT_PERMISSION;
	case ESRCH:
		return FAULT_VANISHED;
	case ETIMEDOUT:
		return FAULT_TIMEOUT;
	default:
		return FAULT_FAILED;
	}
}

void fault_list_add(struct fault_list *list, const struct fault *fault)
{
	if (list->count == list->space) {
		list->space = list->space ? 2 * list->space : 8;
		list->at = memory_resize(list->at, list->space * sizeof *list->at);
	}
	list->at[list->count++] = *fault;
}

void fault_list_finish(struct fault_list *list)
{
	if (!list)
		return;
	free(list->at);
	*list = (struct fault_list){ 0 };
}
