/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/uring.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/fdinfo.h"
#include "kernel/token.h"

/* ---- fdinfo ---- */

/* Lists of numbered lines follow some of the keys. */
enum section { SECTION_NONE, SECTION_FILES, SECTION_BUFFERS, SECTION_POLLS, SECTION_OVERFLOW };

struct parser {
	struct uring_info *info;
	enum section section;
};

static bool take(const char *value, uint32_t *ret_value)
{
	uint64_t number;
	if (!token_number(&value, 10, &number) || number > UINT32_MAX || !token_at_end(value))
		return false;
	*ret_value = (uint32_t)number;
	return true;
}

/* "0x7f" */
static bool take_mask(const char *value, uint32_t *ret_entries)
{
	uint64_t mask;
	if (!token_word(&value, "0x") || !token_number(&value, 16, &mask) || mask >= URING_MOST_COMPLETIONS || (mask & (mask + 1)))
		return false;
	*ret_entries = (uint32_t)mask + 1;
	return true;
}

/* Blanks and backslashes are written as \040 (seq_file_path). */
static void unescape(char *path)
{
	char *to = path;
	for (const char *at = path; *at; at++) {
		if (at[0] == '\\' && at[1] >= '0' && at[1] <= '3' && at[2] >= '0' && at[2] <= '7' && at[3] >= '0' && at[3] <= '7') {
			*to++ = (char)((at[1] - '0') << 6 | (at[2] - '0') << 3 | (at[3] - '0'));
			at += 3;
		} else {
			*to++ = *at;
		}
	}
	*to = 0;
}

/* "    2: /dev/null", "    1: 0x5610f9b08000/8000"; "<none>" where a slot is empty. */
static bool take_slot(struct parser *parser, const char *key, char *value)
{
	struct uring_info *info = parser->info;
	uint32_t slot;
	if (!take(key, &slot))
		return false;
	if (!strcmp(value, "<none>"))
		return true;
	if (parser->section == SECTION_FILES) {
		unescape(value);
		*vec_add(&info->files) = (struct uring_file){ slot, value };
		return slot < info->file_slots;
	}
	uint64_t address, size;
	const char *at = value;
	if (!token_word(&at, "0x") || !token_number(&at, 16, &address) || !token_word(&at, "/") || !token_number(&at, 10, &size) ||
	    size > UINT32_MAX || !token_at_end(at))
		return false;
	*vec_add(&info->buffers) = (struct uring_buffer){ slot, (uint32_t)size, address };
	return slot < info->buffer_slots;
}

/* A key that begins a list, or stands alone. */
static bool take_key(struct parser *parser, const char *key, const char *value)
{
	struct uring_info *info = parser->info;
	const struct {
		const char *key;
		uint32_t *value;
		enum section section;
	} numbers[] = {
		{ "CachedSqHead", &info->taken, SECTION_NONE },
		{ "CachedCqTail", &info->posted, SECTION_NONE },
		{ "UserFiles", &info->file_slots, SECTION_FILES },
		{ "UserBufs", &info->buffer_slots, SECTION_BUFFERS },
	};
	parser->section = SECTION_NONE;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (!strcmp(key, numbers[i].key)) {
			parser->section = numbers[i].section;
			return take(value, numbers[i].value);
		}
	if (!strcmp(key, "SqMask"))
		return take_mask(value, &info->requests);
	if (!strcmp(key, "CqMask"))
		return take_mask(value, &info->completions);
	if (!strcmp(key, "PollList"))
		parser->section = SECTION_POLLS;
	if (!strcmp(key, "CqOverflowList")) {
		parser->section = SECTION_OVERFLOW;
		info->complete = true; /* the last of all that tell of requests */
	}
	info->has_thread |= !strcmp(key, "SqThread") && strcmp(value, "-1") != 0;
	info->has_persons |= !strcmp(key, "Personalities");
	info->polls_busily |= !strcmp(key, "NAPI") && strcmp(value, "disabled") != 0;
	return true;
}

/* Lines of lists are indented. */
static bool take_line(struct parser *parser, const char *key, const char *value)
{
	bool listed = !*key || *key == ' ' || *key == '\t';
	if (!listed)
		return take_key(parser, key, value);
	if (parser->section == SECTION_FILES || parser->section == SECTION_BUFFERS)
		return take_slot(parser, key, (char *)value);
	parser->info->waiting += parser->section == SECTION_POLLS;
	parser->info->overflown += parser->section == SECTION_OVERFLOW;
	return true;
}

int uring_parse(char *text, struct uring_info *ret_info, struct fault *fault)
{
	struct uring_info info = { 0 };
	struct parser parser = { .info = &info };
	char *cursor = text;
	const char *key, *value;
	while (fdinfo_next(&cursor, &key, &value))
		if (!take_line(&parser, key, value)) {
			uring_finish(&info);
			return token_malformed(fault, "fdinfo", key, value);
		}
	info.complete &= info.requests && info.completions && info.file_slots <= URING_MOST_FILES && info.buffer_slots <= URING_MOST_BUFFERS;
	*ret_info = info;
	return 0;
}

void uring_finish(struct uring_info *info)
{
	vec_finish(&info->files);
	vec_finish(&info->buffers);
}

/* ---- memory ---- */

struct uring_layout uring_layout(const struct io_uring_params *parameters)
{
	const struct io_sqring_offsets *sq = &parameters->sq_off;
	const struct io_cqring_offsets *cq = &parameters->cq_off;
	return (struct uring_layout){
		.words = { [URING_SQ_HEAD] = sq->head, [URING_SQ_TAIL] = sq->tail, [URING_SQ_DROPPED] = sq->dropped, [URING_CQ_HEAD] = cq->head,
			   [URING_CQ_TAIL] = cq->tail, [URING_CQ_OVERFLOW] = cq->overflow },
		.completions = cq->cqes,
		.array = sq->array,
	};
}

bool uring_layout_same(const struct uring_layout *a, const struct uring_layout *b)
{
	return !memcmp(a, b, sizeof *a);
}

uint32_t uring_word(const uint8_t *rings, const struct uring_layout *layout, enum uring_word word)
{
	uint32_t value;
	memcpy(&value, rings + layout->words[word], sizeof value);
	return value;
}

int uring_setup(uint32_t requests, struct io_uring_params *parameters)
{
	int fd = (int)syscall(SYS_io_uring_setup, requests, parameters);
	return fd < 0 ? -errno : fd;
}

long uring_register(int fd, unsigned operation, const void *argument, unsigned count)
{
	long rc = syscall(SYS_io_uring_register, fd, operation, argument, count);
	return rc < 0 ? -errno : rc;
}
