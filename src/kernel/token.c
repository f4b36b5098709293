/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/token.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

const char *token_skip_blanks(const char *at)
{
	while (*at == ' ' || *at == '\t')
		at++;
	return at;
}

bool token_at_end(const char *at)
{
	at = token_skip_blanks(at);
	return !*at || *at == '\n';
}

const char *token_next_line(const char *at)
{
	const char *end = strchrnul(at, '\n');
	return *end ? end + 1 : end;
}

static unsigned int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned int)(c - 'a') + 10;
	if (c >= 'A' && c <= 'F')
		return (unsigned int)(c - 'A') + 10;
	return UINT32_MAX;
}

bool token_number(const char **at, unsigned int base, uint64_t *ret_value)
{
	const char *start = token_skip_blanks(*at), *p = start;
	uint64_t value = 0;
	for (unsigned int digit; (digit = digit_of(*p)) < base; p++)
		if (__builtin_mul_overflow(value, base, &value) || __builtin_add_overflow(value, digit, &value))
			return false;
	if (p == start)
		return false;
	*at = p;
	*ret_value = value;
	return true;
}

bool token_signed(const char **at, int64_t *ret_value)
{
	const char *p = token_skip_blanks(*at);
	bool negative = *p == '-';
	uint64_t value;
	p += negative;
	if (!isdigit((unsigned char)*p) || !token_number(&p, 10, &value) || value > INT64_MAX)
		return false;
	*at = p;
	*ret_value = negative ? -(int64_t)value : (int64_t)value;
	return true;
}

bool token_word(const char **at, const char *text)
{
	size_t length = strlen(text);
	if (strncmp(*at, text, length))
		return false;
	*at += length;
	return true;
}

/* Control characters would break the one line that a fault is. */
static void quote(const char *at, char *ret_quoted, size_t size)
{
	size_t used = 0;
	for (; *at && *at != '\n' && used + 4 < size; at++)
		ret_quoted[used++] = isprint((unsigned char)*at) ? *at : *at == '\t' ? ' ' : '?';
	if (*at && *at != '\n')
		used += (size_t)(stpcpy(ret_quoted + used, "...") - (ret_quoted + used));
	ret_quoted[used] = 0;
}

int token_malformed(struct fault *fault, const char *file, const char *what, const char *at)
{
	char quoted[120];
	quote(at, quoted, sizeof quoted);
	return fault_set(fault, FAULT_FAILED, EBADMSG,
			 "%s: %s is malformed: '%s'; try `cairn check`, and report this line with the kernel's version",
			 file, what, quoted);
}
