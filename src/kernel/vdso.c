/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/vdso.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/memory.h"
#include "kernel/processor.h"

/* The dynamic symbols of an image of @size bytes, as the section headers have them: the kernel's build leaves them there. */
struct symbols {
	const uint8_t *image;
	size_t size, count;
	uint64_t table, names, names_size; /* offsets */
};

static bool lies_within(uint64_t offset, uint64_t length, size_t size)
{
	return offset <= size && length <= size - offset;
}

static bool symbols_find(const uint8_t *image, size_t size, struct symbols *ret_symbols)
{
	Elf64_Ehdr header;
	Elf64_Shdr sections[64];
	if (size < sizeof header)
		return false;
	memcpy(&header, image, sizeof header);
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_shentsize != sizeof *sections ||
	    header.e_shnum > 64 || !lies_within(header.e_shoff, header.e_shnum * sizeof *sections, size))
		return false;
	memcpy(sections, image + header.e_shoff, header.e_shnum * sizeof *sections);
	for (size_t i = 0; i < header.e_shnum; i++) {
		const Elf64_Shdr *symbols = &sections[i];
		if (symbols->sh_type != SHT_DYNSYM || symbols->sh_link >= header.e_shnum)
			continue;
		const Elf64_Shdr *names = &sections[symbols->sh_link];
		*ret_symbols = (struct symbols){ .image = image, .size = size, .count = symbols->sh_size / sizeof(Elf64_Sym),
						 .table = symbols->sh_offset, .names = names->sh_offset, .names_size = names->sh_size };
		return lies_within(symbols->sh_offset, symbols->sh_size, size) && lies_within(names->sh_offset, names->sh_size, size) &&
		       names->sh_size && !image[names->sh_offset + names->sh_size - 1];
	}
	return false;
}

/* The name of the @index-th if it is a function with code in the image; NULL: it is none. */
static const char *function_at(const struct symbols *symbols, size_t index, uint64_t *ret_offset)
{
	Elf64_Sym symbol;
	memcpy(&symbol, symbols->image + symbols->table + index * sizeof symbol, sizeof symbol);
	if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF || symbol.st_name >= symbols->names_size ||
	    !symbol.st_value || symbol.st_value >= symbols->size)
		return NULL;
	*ret_offset = symbol.st_value;
	return (const char *)symbols->image + symbols->names + symbol.st_name;
}

static bool find_function(const struct symbols *symbols, const char *wanted, uint64_t *ret_offset)
{
	for (size_t i = 0; i < symbols->count; i++) {
		const char *name = function_at(symbols, i, ret_offset);
		if (name && !strcmp(name, wanted))
			return true;
	}
	return false;
}

/* What a function stands for. Enclaves, which one kernel's enters, the one without it cannot have. */
static const struct {
	const char *name;
	long number;
} calls[] = {
	{ "clock_gettime", SYS_clock_gettime }, { "gettimeofday", SYS_gettimeofday }, { "clock_getres", SYS_clock_getres },
	{ "getcpu", SYS_getcpu }, { "getrandom", SYS_getrandom }, { "sgx_enter_enclave", -1 },
#ifdef SYS_time
	{ "time", SYS_time },
#endif
};

static bool find_call(const char *name, long *ret_number)
{
	static const char prefix[] = "__vdso_";
	name += strncmp(name, prefix, sizeof prefix - 1) ? 0 : sizeof prefix - 1;
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, name)) {
			*ret_number = calls[i].number;
			return true;
		}
	return false;
}

/* Where a jump goes; 0: nowhere, it becomes the system call @number. */
struct entry {
	uint64_t offset, target;
	long number;
};
typedef VEC(struct entry) entry_list;

static int compare_entries(const void *a, const void *b)
{
	uint64_t x = ((const struct entry *)a)->offset, y = ((const struct entry *)b)->offset;
	return (x > y) - (x < y);
}

static bool find_entries(const struct symbols *old, const struct symbols *new, uint64_t address, entry_list *entries, char *why, size_t why_size)
{
	for (size_t i = 0; i < old->count; i++) {
		uint64_t offset = 0, target = 0;
		const char *name = function_at(old, i, &offset);
		if (!name)
			continue;
		long number = -1;
		bool there = find_function(new, name, &target);
		if (!there && !find_call(name, &number)) {
			snprintf(why, why_size, "has no %.64s", name);
			return false;
		}
		*vec_add(entries) = (struct entry){ offset, there ? address + target : 0, number };
	}
	if (!entries->count) {
		snprintf(why, why_size, "the old one has no functions");
		return false;
	}
	qsort(entries->at, entries->count, sizeof *entries->at, compare_entries);
	return true;
}

static bool write_jumps(uint8_t *old, size_t old_size, const entry_list *entries, char *why, size_t why_size)
{
	for (size_t i = 0; i < entries->count; i++) {
		uint64_t offset = entries->at[i].offset, next = old_size;
		uint8_t jump[PROCESSOR_JUMP];
		/* Several names of one function. */
		for (size_t k = i + 1; k < entries->count && next == old_size; k++)
			if (entries->at[k].offset != offset)
				next = entries->at[k].offset;
		size_t size = entries->at[i].target ? processor_jump(entries->at[i].target, jump) : processor_call(entries->at[i].number, jump);
		if (!size || size > next - offset) {
			snprintf(why, why_size, "the entries of the old one lie too close");
			return false;
		}
		memcpy(old + offset, jump, size);
	}
	return true;
}

bool vdso_redirect(uint8_t *old, size_t old_size, const uint8_t *new, size_t new_size, uint64_t address, char *why, size_t why_size)
{
	struct symbols theirs, ours;
	entry_list entries = { 0 };
	if (!symbols_find(old, old_size, &theirs) || !symbols_find(new, new_size, &ours)) {
		snprintf(why, why_size, "its symbols are not where they are looked for");
		return false;
	}
	bool good = find_entries(&theirs, &ours, address, &entries, why, why_size) && write_jumps(old, old_size, &entries, why, why_size);
	vec_finish(&entries);
	return good;
}
