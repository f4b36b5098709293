/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Words and numbers of one line of /proc text. Nothing here passes the end of a line, and strto*() are not
 * used because they do (and take signs and prefixes that no kernel format has). */
#include <stdbool.h>
#include <stdint.h>

#include "base/fault.h"

/* Past spaces and tabs. */
const char *token_skip_blanks(const char *at);
/* Nothing but blanks is left of the line. */
bool token_at_end(const char *at);
/* Start of the next line, or the NUL. */
const char *token_next_line(const char *at);
/* A number after blanks, digits of @base (8, 10 or 16). On success *@at is behind its last digit; false (and nothing
 * changed) when there is no digit or the value is beyond 64 bits. */
bool token_number(const char **at, unsigned int base, uint64_t *ret_value);
/* As above, decimal, with an optional minus sign. */
bool token_signed(const char **at, int64_t *ret_value);
/* @text when @at starts with it, then *@at is behind it. */
bool token_word(const char **at, const char *text);

/* -EBADMSG and a fault that quotes the line at @at: "FILE: WHAT is malformed: 'LINE'". */
int token_malformed(struct fault *fault, const char *file, const char *what, const char *at);
