/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* /proc/PID/smaps (or maps): the mappings of an address space. */
#include "kernel/procfs.h"

/* VmFlags of smaps, fs/proc/task_mmu.c show_smap_vma_flags (6.18). Those that Cairn knows by name have a bit; any
 * other two letters set MAP_FLAG_OTHER and are kept in `unknown`. */
enum map_flag {
	MAP_FLAG_SHARED_MAY = 1 << 0, /* ms */
	MAP_FLAG_GROWS_DOWN = 1 << 1, /* gd */
	MAP_FLAG_PFN = 1 << 2,        /* pf */
	MAP_FLAG_LOCKED = 1 << 3,     /* lo */
	MAP_FLAG_IO = 1 << 4,         /* io */
	MAP_FLAG_SEQUENTIAL = 1 << 5, /* sr */
	MAP_FLAG_RANDOM = 1 << 6,     /* rr */
	MAP_FLAG_DONT_COPY = 1 << 7,  /* dc */
	MAP_FLAG_DONT_EXPAND = 1 << 8,/* de */
	MAP_FLAG_LOCK_ON_FAULT = 1 << 9, /* lf */
	MAP_FLAG_ACCOUNT = 1 << 10,   /* ac */
	MAP_FLAG_NO_RESERVE = 1 << 11,/* nr */
	MAP_FLAG_HUGETLB = 1 << 12,   /* ht */
	MAP_FLAG_SYNC = 1 << 13,      /* sf */
	MAP_FLAG_WIPE_ON_FORK = 1 << 14, /* wf */
	MAP_FLAG_DONT_DUMP = 1 << 15, /* dd */
	MAP_FLAG_MIXED = 1 << 16,     /* mm */
	MAP_FLAG_HUGE = 1 << 17,      /* hg */
	MAP_FLAG_NO_HUGE = 1 << 18,   /* nh */
	MAP_FLAG_MERGEABLE = 1 << 19, /* mg */
	MAP_FLAG_UFFD_MISSING = 1 << 20, /* um */
	MAP_FLAG_UFFD_WP = 1 << 21,   /* uw */
	MAP_FLAG_UFFD_MINOR = 1 << 22,/* ui */
	MAP_FLAG_SHADOW_STACK = 1 << 23, /* ss */
	MAP_FLAG_SEALED = 1 << 24,    /* sl */
	MAP_FLAG_DROPPABLE = 1 << 25, /* dp */
	MAP_FLAG_MAY_WRITE = 1 << 26, /* mw */
	MAP_FLAG_OTHER = 1 << 30,
};

#define MAP_SYSV_INODE (UINT64_C(1) << 32)

struct map {
	uint64_t start, end;
	uint32_t protection; /* PROT_* */
	bool shared;         /* 's' in the permissions */
	uint64_t offset;     /* bytes */
	uint64_t device;     /* makedev() */
	uint64_t inode;      /* of a System V segment: its id, which may be 0, + MAP_SYSV_INODE */
	bool sysv;           /* a System V shared memory segment */
	const char *name;    /* in the arena, unescaped (\012 is a newline); "" when there is none */
	bool deleted;        /* the name ended in " (deleted)", which is cut off */
	uint32_t flags;      /* enum map_flag; 0 from maps */
	int protection_key;  /* ProtectionKey, 0: none */
	uint64_t swapped;    /* bytes; of shared memory: of the object's part that is mapped, whoever swapped it out */
	uint64_t page_size;  /* bytes (smaps, KernelPageSize); 0 from maps */
	uint64_t resident;   /* bytes in memory (smaps, Rss) */
	uint64_t anonymous;  /* bytes of private pages in memory (smaps, Anonymous); 0 from maps */
	uint64_t shared_bytes; /* in memory, and mapped elsewhere too (smaps, Shared_Clean and Shared_Dirty) */
	uint64_t image_inode; /* memory of the program's own that a restore mapped from an image (base/mapped.h), at @offset of this file of @device; 0: no */
	bool pages_shared;   /* some of its pages are mapped elsewhere too (smaps, Shared_Clean and Shared_Dirty) */
	char unknown[16];    /* first VmFlags without a bit above */
};
struct map_list {
	VEC(struct map) maps; /* ascending */
};
/* Not of the kernel's own making ([vdso], [vvar], [vsyscall]). */
bool map_is_program(const struct map *map);
/* MAP_HUGETLB without a file: it has an inode of the kernel's own. */
bool map_is_huge_anonymous(const struct map *map);
/* No address may be chosen for it: mmap(2) and mremap(2) refuse that (io_uring). */
bool map_is_placed(const struct map *map);
/* The ring of a context of asynchronous I/O (io_setup(2)). */
bool map_is_aio(const struct map *map);
/* Takes the text of maps or of smaps. Names go into the arena. */
int maps_parse(const char *text, struct arena *arena, struct map_list *ret_list, struct fault *fault);
/* What is to be known of mappings. The kernel walks all page tables for smaps: some 10 ms per GiB, and 3.5 us per mapping. */
enum maps_detail {
	MAPS_PLACES, /* what maps says */
	MAPS_FLAGS,  /* what smaps says */
	MAPS_FLAGS_IF_SHORT, /* that, but of very many mappings only what maps says */
};
/* @pid may be a thread id as well. */
int maps_read(pid_t pid, enum maps_detail detail, struct arena *arena, struct map_list *ret_list, struct fault *fault);
void maps_finish(struct map_list *list);
