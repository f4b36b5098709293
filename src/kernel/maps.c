/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/PID/maps and smaps: fs/proc/task_mmu.c show_map_vma, show_smap. */
#include "kernel/maps.h"

#include <errno.h>
#include <ctype.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>

#include "kernel/stream.h"
#include "kernel/token.h"

/* Names as of 6.18, and "gu" of 6.19. 0: known, and nothing to carry: rights that the permissions repeat (rd wr ex
 * sh), rights that follow from how the file was opened (mr me), soft-dirty tracking (sd), and that guard regions may
 * be there (gu), which pagemap says exactly. Two letters that are not here may mean anything: MAP_FLAG_OTHER. */
static const struct flag_name {
	char name[3];
	uint32_t flag;
} flag_names[] = {
	{ "rd", 0 }, { "wr", 0 }, { "mr", 0 }, { "mw", MAP_FLAG_MAY_WRITE }, { "me", 0 }, { "ac", MAP_FLAG_ACCOUNT },
	{ "ex", 0 }, { "sd", 0 }, { "sh", 0 }, { "ms", MAP_FLAG_SHARED_MAY }, { "gd", MAP_FLAG_GROWS_DOWN },
	{ "pf", MAP_FLAG_PFN }, { "lo", MAP_FLAG_LOCKED }, { "io", MAP_FLAG_IO }, { "sr", MAP_FLAG_SEQUENTIAL },
	{ "rr", MAP_FLAG_RANDOM }, { "dc", MAP_FLAG_DONT_COPY }, { "de", MAP_FLAG_DONT_EXPAND },
	{ "lf", MAP_FLAG_LOCK_ON_FAULT }, { "nr", MAP_FLAG_NO_RESERVE }, { "ht", MAP_FLAG_HUGETLB },
	{ "sf", MAP_FLAG_SYNC }, { "wf", MAP_FLAG_WIPE_ON_FORK }, { "dd", MAP_FLAG_DONT_DUMP },
	{ "mm", MAP_FLAG_MIXED }, { "hg", MAP_FLAG_HUGE }, { "nh", MAP_FLAG_NO_HUGE }, { "mg", MAP_FLAG_MERGEABLE },
	{ "um", MAP_FLAG_UFFD_MISSING }, { "uw", MAP_FLAG_UFFD_WP }, { "ui", MAP_FLAG_UFFD_MINOR },
	{ "ss", MAP_FLAG_SHADOW_STACK }, { "sl", MAP_FLAG_SEALED }, { "dp", MAP_FLAG_DROPPABLE }, { "gu", 0 },
};

static const struct flag_name *flag_find(const char *at)
{
	for (size_t i = 0; i < sizeof flag_names / sizeof *flag_names; i++)
		if (at[0] == flag_names[i].name[0] && at[1] == flag_names[i].name[1])
			return &flag_names[i];
	return NULL;
}

static void flag_unknown(struct map *map, const char *at)
{
	size_t used = strlen(map->unknown);
	map->flags |= MAP_FLAG_OTHER;
	if (used + 4 > sizeof map->unknown)
		return;
	if (used)
		map->unknown[used++] = ' ';
	memcpy(map->unknown + used, at, 2);
}

/* "rd wr mr mw me ac " */
static bool flags_take(const char *at, struct map *map)
{
	for (; *(at = token_skip_blanks(at)) && *at != '\n'; at += 2) {
		if (isspace((unsigned char)at[1]) || !at[1] || (at[2] && !isspace((unsigned char)at[2])))
			return false;
		const struct flag_name *known = flag_find(at);
		if (known)
			map->flags |= known->flag;
		else
			flag_unknown(map, at);
	}
	return true;
}

static bool key_take(const char *at, struct map *map)
{
	uint64_t key;
	if (!token_number(&at, 10, &key) || key > INT32_MAX || !token_at_end(at))
		return false;
	map->protection_key = (int)key;
	return true;
}

/* "Anonymous:         12345 kB" */
static bool size_take(const char *at, uint64_t *ret_bytes)
{
	uint64_t kilobytes;
	if (!token_number(&at, 10, &kilobytes) || kilobytes > UINT64_MAX / 1024 || !token_word(&at, " kB"))
		return false;
	*ret_bytes = kilobytes * 1024;
	return true;
}

static bool shared_take(const char *at, struct map *map)
{
	uint64_t bytes = 0;
	bool good = size_take(at, &bytes);
	map->shared_bytes += bytes;
	map->pages_shared |= bytes > 0;
	return good;
}

/* A line of smaps under the header of @map. There are two dozen per mapping: the first letter decides for most. */
static int attribute_parse(const char *line, struct map *map, struct fault *fault)
{
	const char *at = line;
	bool good = true;
	if (*line == 'V' && token_word(&at, "VmFlags:"))
		good = flags_take(at, map);
	else if (*line == 'P' && token_word(&at, "ProtectionKey:"))
		good = key_take(at, map);
	else if (*line == 'S' && token_word(&at, "Swap:"))
		good = size_take(at, &map->swapped);
	else if (*line == 'R' && token_word(&at, "Rss:"))
		good = size_take(at, &map->resident);
	else if (*line == 'K' && token_word(&at, "KernelPageSize:"))
		good = size_take(at, &map->page_size);
	else if (*line == 'A' && token_word(&at, "Anonymous:"))
		good = size_take(at, &map->anonymous);
	else if (*line == 'S' && (token_word(&at, "Shared_Clean:") || token_word(&at, "Shared_Dirty:")))
		good = shared_take(at, map);
	return good ? 0 : token_malformed(fault, "smaps", "a line", line);
}

static bool permissions_take(const char **at, struct map *map)
{
	const char *p = token_skip_blanks(*at);
	static const char on[] = "rwx";
	static const uint32_t bits[] = { PROT_READ, PROT_WRITE, PROT_EXEC };
	for (int i = 0; i < 3; i++) {
		if (p[i] != on[i] && p[i] != '-')
			return false;
		if (p[i] != '-')
			map->protection |= bits[i];
	}
	if (p[3] != 's' && p[3] != 'p')
		return false;
	map->shared = p[3] == 's';
	*at = p + 4;
	return true;
}

static bool numbers_take(const char **at, struct map *map)
{
	uint64_t major, minor;
	if (!token_number(at, 16, &map->offset) || !token_number(at, 16, &major) || *(*at)++ != ':' ||
	    !token_number(at, 16, &minor) || !token_number(at, 10, &map->inode))
		return false;
	map->device = makedev((unsigned int)major, (unsigned int)minor);
	return true;
}

/* The kernel escapes newlines only, and not the backslash itself (seq_path(m, path, "\n")): a file whose real name
 * has the four characters \012 looks the same, and so does one that really ends in " (deleted)". Who opens the
 * name has to compare device and inode anyway. */
static void name_take(const char *at, struct arena *arena, struct map *map)
{
	static const char mark[] = " (deleted)";
	const char *end = strchrnul(at, '\n');
	char *name = arena_new(arena, (size_t)(end - at) + 1), *to = name;
	while (at < end) {
		bool newline = end - at >= 4 && !memcmp(at, "\\012", 4);
		*to++ = newline ? '\n' : *at;
		at += newline ? 4 : 1;
	}
	size_t length = (size_t)(to - name), cut = sizeof mark - 1;
	map->deleted = length > cut && !memcmp(to - cut, mark, cut);
	if (map->deleted)
		to[-(ptrdiff_t)cut] = 0;
	map->name = name;
}

/* ipc/shm.c newseg: "SYSV%08x" of the key, in a file system of the kernel's own, and always as if deleted. */
static void sysv_take(struct map *map)
{
	map->sysv = map->deleted && major(map->device) == 0 && strlen(map->name) == 13 && !strncmp(map->name, "/SYSV", 5) &&
		    strspn(map->name + 5, "0123456789abcdef") == 8 && map->inode <= INT32_MAX;
	if (map->sysv)
		map->inode += MAP_SYSV_INODE;
}

/* "55eb39a4c000-55eb39a51000 r-xp 00002000 fe:00 1234     /usr/bin/cat" */
static int header_parse(const char *line, struct arena *arena, struct map *map, struct fault *fault)
{
	const char *at = line;
	if (!token_number(&at, 16, &map->start) || *at++ != '-' || !token_number(&at, 16, &map->end) ||
	    map->end <= map->start || !permissions_take(&at, map) || !numbers_take(&at, map) ||
	    (*at && *at != ' ' && *at != '\n'))
		return token_malformed(fault, "maps", "a mapping", line);
	at = token_skip_blanks(at);
	if (*at && *at != '\n')
		name_take(at, arena, map);
	else
		map->name = "";
	sysv_take(map);
	return 0;
}

/* Headers start with a lower-case hexadecimal number, attributes of smaps with a capital letter. */
static int line_parse(const char *line, struct arena *arena, struct map_list *list, struct fault *fault)
{
	if (*line >= 'A' && *line <= 'Z') {
		if (!list->maps.count)
			return token_malformed(fault, "smaps", "the start", line);
		return attribute_parse(line, &list->maps.at[list->maps.count - 1], fault);
	}
	return header_parse(line, arena, vec_add(&list->maps), fault);
}

bool map_is_program(const struct map *map)
{
	return map->name[0] != '[' || (strcmp(map->name, "[vdso]") && strncmp(map->name, "[vvar", 5) && strcmp(map->name, "[vsyscall]"));
}

bool map_is_huge_anonymous(const struct map *map)
{
	return (map->flags & MAP_FLAG_HUGETLB) && map->deleted && !strcmp(map->name, "/anon_hugepage");
}

bool map_is_placed(const struct map *map)
{
	return map->inode && !strcmp(map->name, "anon_inode:[io_uring]");
}

bool map_is_aio(const struct map *map)
{
	return map->inode && map->deleted && major(map->device) == 0 && !strcmp(map->name, "/[aio]");
}

struct parsing {
	struct arena *arena;
	struct map_list list;
};

static int take_lines(void *context, const char *lines, struct fault *fault)
{
	struct parsing *parsing = context;
	int rc = 0;
	for (const char *line = lines; rc == 0 && *line; line = token_next_line(line))
		rc = line_parse(line, parsing->arena, &parsing->list, fault);
	return rc;
}

static int give_list(struct parsing *parsing, int rc, struct map_list *ret_list)
{
	if (rc < 0)
		maps_finish(&parsing->list);
	else
		*ret_list = parsing->list;
	return rc;
}

int maps_parse(const char *text, struct arena *arena, struct map_list *ret_list, struct fault *fault)
{
	struct parsing parsing = { .arena = arena };
	return give_list(&parsing, take_lines(&parsing, text, fault), ret_list);
}

static int read_list(pid_t pid, const char *name, size_t most, struct arena *arena, struct map_list *ret_list, struct fault *fault)
{
	struct parsing parsing = { .arena = arena };
	return give_list(&parsing, proc_stream(pid, name, most, take_lines, &parsing, fault), ret_list);
}

int maps_read(pid_t pid, enum maps_detail detail, struct arena *arena, struct map_list *ret_list, struct fault *fault)
{
	enum { SHORT = 4 << 20 }; /* of some 5,000 mappings: 20 ms */
	int rc = -EFBIG;
	if (detail != MAPS_PLACES)
		rc = read_list(pid, "smaps", detail == MAPS_FLAGS_IF_SHORT ? SHORT : SIZE_MAX, arena, ret_list, fault);
	return rc == -EFBIG ? read_list(pid, "maps", SIZE_MAX, arena, ret_list, fault) : rc;
}

void maps_finish(struct map_list *list)
{
	if (list)
		vec_finish(&list->maps);
}
