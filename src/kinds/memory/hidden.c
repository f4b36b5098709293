/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel holds: an object with a size, pages and holes, which several processes map at different offsets. What can be seen of it
 * without a descriptor:
 *   - pages that some process maps are read through that mapping; mincore(2), asked by the process, says which of them exist, so that reading
 *     does not fill holes (it cannot see pages that are swapped out: where smaps counts such, all are read; nor does it know pages of a
 *     file on a disk that are not in memory: there, too, all are read);
 *   - pages that no process maps: mremap(2) with an old length of 0 maps the object behind a shared mapping a second time, any part
 *     after that mapping's start; remap_file_pages(2) moves that to before it. The process copies from there into the borrowed area
 *     (process_vm_readv on itself), and unmaps it, in one group of calls: nothing is left behind if Cairn dies;
 *   - its size: pages beyond it cannot be populated (MADV_POPULATE_READ, 5.14). One page is asked for beyond what is mapped. Where the last
 *     mapped page does not exist, asking makes it: that is all that may change. It reaches at least to the end of the last private copy.
 * Not to be seen: the length of a file's last page (its rest is zeros, and who maps it cannot tell), and pages of a file that are mapped
 * privately, modified there, and mapped nowhere else: the program sees them again only if it gives its copies up by madvise(2). They
 * become zeros. */
#include "kinds/memory/hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/pages.h"
#include "kernel/pagemap.h"

enum {
	PAGE = PAGES_SIZE,
	LOOK_PAGES = 65536,             /* asked about in one call: a byte each */
	LOOK_TOTAL = 64 * LOOK_PAGES,   /* in one batch */
	COPY_BYTES = 65536,             /* copied in one call */
	MADV_POPULATE_READ_ = 22,       /* include/uapi/asm-generic/mman-common.h, 5.14 */
};

/* A part of the object that is read through one mapping. */
struct piece {
	struct piece *next;
	const struct frozen_space *space;
	const struct map *map;
	uint64_t start, end; /* in the object, bytes */
};

struct hidden_object {
	const char *name;
	size_t contents; /* place in the harvest */
	uint64_t *size;  /* of the record */
	bool sparse;     /* mincore knows its holes */
	bool sized;
	uint64_t end;    /* of what is mapped */
	uint64_t copied; /* end of the last private copy of a page: a file that is made shorter takes those away, so it reaches to there at least */
	const struct frozen_space *home; /* where it can be mapped again, or, if nowhere, where it was met first */
	const struct map *guide;         /* the shared mapping there; NULL: all are private */
	struct piece *pieces;            /* ascending, each page in one at most */
};

struct frozen_file *hidden_find_file(const struct harvest *harvest, const struct map *map)
{
	for (size_t i = 0; i < harvest->files.count; i++) {
		struct frozen_file *file = harvest->files.at[i];
		if (file->stat.st_ino == map->inode && file->stat.st_dev == map->device && S_ISREG(file->stat.st_mode) &&
		    !(file->info.flags & O_PATH))
			return file;
	}
	return NULL;
}

/* Is it in a file system that has nothing but what is in memory (or swapped out)? Of huge pages mincore(2) only knows those that the asking process has
 * touched (mm/mincore.c mincore_hugetlb, 6.18). */
static bool is_memory(const struct map *map)
{
	struct statfs fs;
	char directory[4096];
	if (map->flags & MAP_FLAG_HUGETLB)
		return false;
	if (!strcmp(map->name, "/dev/zero") || !strncmp(map->name, "[anon_shmem:", 12) || !strncmp(map->name, "/memfd:", 7) || map->sysv)
		return true;
	snprintf(directory, sizeof directory, "%s", map->name);
	char *slash = strrchr(directory, '/');
	if (slash)
		slash[slash == directory] = 0;
	struct stat seen;
	return stat(directory, &seen) == 0 && seen.st_dev == map->device && statfs(directory, &fs) == 0 &&
	       fs.f_type == TMPFS_MAGIC;
}

/* ---- which mapping shows what ---- */

/* Takes [@start, @end) out of what is left to be shown: only what no piece has yet becomes one. */
static void add_pieces(struct harvest *harvest, struct hidden_object *object, const struct frozen_space *space,
		       const struct map *map, uint64_t start, uint64_t end)
{
	struct piece **at = &object->pieces;
	while (start < end) {
		while (*at && (*at)->end <= start)
			at = &(*at)->next;
		if (*at && (*at)->start <= start) {
			start = (*at)->end;
			continue;
		}
		struct piece *piece = ARENA_NEW(&harvest->arena, struct piece);
		*piece = (struct piece){ *at, space, map, start, *at && (*at)->start < end ? (*at)->start : end };
		*at = piece;
		start = piece->end;
	}
}

/* What of @map shows the object: not private copies, nor guard regions. */
static int add_visible(struct harvest *harvest, struct hidden_object *object, const struct frozen_space *space,
		       const struct map *map, struct fault *fault)
{
	enum { EXTENTS = 256 };
	struct page_extent extents[EXTENTS];
	struct pagemap pagemap;
	uint64_t shift = map->offset - map->start, seen = map->start;
	int rc = pagemap_open(space->pid, &pagemap, fault);
	if (rc < 0)
		return rc;
	for (uint64_t at = map->start; rc >= 0 && at < map->end;) {
		rc = pagemap_extents(&pagemap, at, map->end, extents, EXTENTS, &at, fault);
		for (int i = 0; i < rc; i++) {
			if ((extents[i].categories & PAGE_FILE) && !(extents[i].categories & PAGE_GUARD))
				continue;
			if (map->shared && !(extents[i].categories & PAGE_GUARD))
				continue;
			add_pieces(harvest, object, space, map, seen + shift, extents[i].start + shift);
			seen = extents[i].end;
			if (!(extents[i].categories & PAGE_GUARD) && seen + shift > object->copied)
				object->copied = seen + shift;
		}
	}
	add_pieces(harvest, object, space, map, seen + shift, map->end + shift);
	pagemap_close(&pagemap);
	return rc < 0 ? rc : 0;
}

static bool is_of(const struct map *map, const struct map *other)
{
	return map->inode == other->inode && map->device == other->device && !strcmp(map->name, other->name);
}

static int find_pieces(struct harvest *harvest, struct hidden_object *object, const struct map *of, bool shared,
		       struct fault *fault)
{
	for (size_t s = 0; s < harvest->spaces.count; s++) {
		const struct frozen_space *space = harvest->spaces.at[s];
		for (size_t m = 0; m < space->maps.maps.count; m++) {
			const struct map *map = &space->maps.maps.at[m];
			uint64_t end = map->offset + (map->end - map->start);
			if (map->shared != shared || !is_of(map, of))
				continue;
			int rc = add_visible(harvest, object, space, map, fault);
			if (rc < 0)
				return rc;
			if (end > object->end)
				object->end = end;
			/* The lowest shows most of the object without remap_file_pages. */
			if (shared && (!object->guide || (object->home == space && map->offset < object->guide->offset))) {
				object->home = space;
				object->guide = map;
			}
		}
	}
	return 0;
}

int hidden_add(struct harvest *harvest, const struct frozen_process *process, const struct map *map, uint32_t id,
	       uint64_t *size, struct fault *fault)
{
	struct hidden_object *object = ARENA_NEW(&harvest->arena, struct hidden_object);
	*object = (struct hidden_object){
		.name = map->name, .contents = harvest->contents.count, .size = size, .sparse = is_memory(map),
		.home = process->space,
	};
	harvest_contents(harvest, id, -1, 0);
	/* Shared mappings first: whatever they show is the object's. */
	int rc = find_pieces(harvest, object, map, true, fault);
	if (rc == 0)
		rc = find_pieces(harvest, object, map, false, fault);
	*vec_add(&harvest->hidden) = object;
	return rc;
}

/* ---- the object mapped a second time, in one group of calls ---- */

/* A range of addresses where nothing is, 0: none. */
static uint64_t find_room(const struct frozen_space *space, uint64_t size)
{
	const uint64_t margin = UINT64_C(1) << 21, user_end = UINT64_C(1) << 47;
	uint64_t at = margin;
	for (size_t i = 0; i <= space->maps.maps.count; i++) {
		bool last = i == space->maps.maps.count;
		uint64_t start = last ? user_end - margin : space->maps.maps.at[i].start;
		if (start > user_end)
			start = user_end - margin;
		/* The borrowed area came after the list was made. */
		uint64_t area = space->foothold.area;
		if (area >= at && area < start && start - at >= size + 2 * margin && area - at < size + 2 * margin)
			at = area + BATCH_AREA;
		if (start > at && start - at >= size + 2 * margin)
			return at + margin;
		if (!last && space->maps.maps.at[i].end > at)
			at = space->maps.maps.at[i].end;
	}
	return 0;
}

struct twin {
	uint64_t place, size, address; /* address: of the wanted part */
	size_t made;                   /* number of the call that makes it */
};

/* Adds the calls that map [@offset, @offset + @size) readable. */
static bool twin_add(struct batch *batch, const struct hidden_object *object, uint64_t offset, uint64_t size,
		     struct twin *ret_twin)
{
	const struct map *guide = object->guide;
	bool before = offset < guide->offset;
	uint64_t length = before ? size : offset - guide->offset + size;
	uint64_t place = find_room(object->home, length);
	if (!place || (before && !(guide->flags & MAP_FLAG_MAY_WRITE)))
		return false;
	*ret_twin = (struct twin){ place, length, place + (before ? 0 : offset - guide->offset), 0 };
	ret_twin->made = batch_try(batch, mremap, guide->start, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	if (before)
		batch_try(batch, remap_file_pages, place, length, 0, offset / PAGE, MAP_NONBLOCK);
	batch_try(batch, mprotect, place, length, PROT_READ);
	return true;
}

static void twin_end(struct batch *batch, const struct twin *twin)
{
	batch_try(batch, munmap, twin->place, twin->size);
}

enum { TWIN_CALLS = 8 }; /* most that one group has */

/* ---- its size ---- */

enum hidden_place { PAGE_INSIDE, PAGE_OUTSIDE, PAGE_UNKNOWN };

/* Is there a page at @offset, or could there be one? @ask_only: nothing is made. */
static int page_probe(struct frozen_thread *thread, const struct hidden_object *object, uint64_t offset, bool ask_only,
		      enum hidden_place *ret_place, struct fault *fault)
{
	struct batch batch;
	struct twin twin;
	*ret_place = PAGE_UNKNOWN;
	frozen_batch(thread, &batch);
	batch_group(&batch, TWIN_CALLS, 64);
	struct batch_place there = batch_room(&batch, 1);
	if (!twin_add(&batch, object, offset, PAGE, &twin)) {
		batch_finish(&batch);
		return 0;
	}
	size_t seen = batch_try(&batch, mincore, twin.address, PAGE, there.address);
	size_t made = ask_only ? 0 : batch_try(&batch, madvise, twin.address, PAGE, MADV_POPULATE_READ_);
	twin_end(&batch, &twin);
	int rc = frozen_run(thread, &batch, fault);
	if (rc == 0 && batch_result(&batch, twin.made) >= 0) {
		if (batch_result(&batch, seen) == 0 && (*(const uint8_t *)batch_bytes(&batch, there) & 1))
			*ret_place = PAGE_INSIDE;
		else if (!ask_only && batch_result(&batch, made) == 0)
			*ret_place = PAGE_INSIDE;
		else if (!ask_only && batch_result(&batch, made) == -EFAULT)
			*ret_place = PAGE_OUTSIDE;
	}
	batch_finish(&batch);
	return rc;
}

/* @inside is known to be inside (or is 0), @outside to be beyond: both multiples of PAGE. */
static int bisect_size(struct frozen_thread *thread, const struct hidden_object *object, uint64_t inside,
		       uint64_t outside, uint64_t *ret_size, struct fault *fault)
{
	while (outside - inside > PAGE) {
		uint64_t middle = (inside + (outside - inside) / 2) & ~(uint64_t)(PAGE - 1);
		enum hidden_place place;
		int rc = page_probe(thread, object, middle, false, &place, fault);
		if (rc < 0)
			return rc;
		if (place == PAGE_INSIDE)
			inside = middle;
		else
			outside = middle;
	}
	*ret_size = outside;
	return 0;
}

static int find_size_by_guide(struct frozen_thread *thread, const struct hidden_object *object, uint64_t *ret_size,
			      struct fault *fault)
{
	const uint64_t most = UINT64_C(1) << 46;
	enum hidden_place place;
	*ret_size = object->end;
	int rc = page_probe(thread, object, object->end, false, &place, fault);
	if (rc < 0)
		return rc;
	if (place == PAGE_INSIDE) {
		uint64_t inside = object->end, more = PAGE;
		while (rc == 0 && place == PAGE_INSIDE && inside + more < most) {
			rc = page_probe(thread, object, inside + more, false, &place, fault);
			if (rc == 0 && place == PAGE_INSIDE) {
				inside += more;
				more *= 2;
			}
		}
		return rc < 0 ? rc : bisect_size(thread, object, inside, inside + more, ret_size, fault);
	}
	/* The mappings may reach beyond the object. */
	rc = page_probe(thread, object, object->end - PAGE, true, &place, fault);
	if (rc == 0 && place != PAGE_INSIDE)
		rc = page_probe(thread, object, object->end - PAGE, false, &place, fault);
	if (rc == 0 && place == PAGE_OUTSIDE)
		rc = bisect_size(thread, object, 0, object->end - PAGE, ret_size, fault);
	return rc;
}

static bool is_readable(const struct piece *piece, uint64_t offset)
{
	uint8_t byte;
	return memory_read(piece->space->pid, piece->map->start + (offset - piece->map->offset), &byte, 1, NULL) == 0;
}

/* Through private mappings: as far as they can be read. */
static uint64_t find_size_by_reading(const struct hidden_object *object)
{
	uint64_t size = 0;
	for (const struct piece *piece = object->pieces; piece; piece = piece->next) {
		uint64_t readable = piece->start, beyond = piece->end;
		if (!(piece->map->protection & PROT_READ) || is_readable(piece, beyond - PAGE))
			readable = beyond;
		else if (!is_readable(piece, readable))
			beyond = readable;
		while (beyond - readable > PAGE) {
			uint64_t middle = (readable + (beyond - readable) / 2) & ~(uint64_t)(PAGE - 1);
			if (is_readable(piece, middle))
				readable = middle;
			else
				beyond = middle;
		}
		if (beyond > size)
			size = beyond;
	}
	return size;
}

/* ---- its pages ---- */

static void add_view(struct contents *contents, const struct piece *piece, uint64_t start, uint64_t end)
{
	uint64_t address = piece->map->start + (start - piece->map->offset);
	bool force = !(piece->map->protection & PROT_READ);
	struct contents_view *last = contents->views.count ? &contents->views.at[contents->views.count - 1] : NULL;
	if (last && last->pid == piece->space->pid && last->force == force && last->address + last->size == address &&
	    last->offset + last->size == start) {
		last->size += end - start;
		return;
	}
	*vec_add(&contents->views) = (struct contents_view){
		.pid = piece->space->pid, .force = force,
		.offset = start, .size = end - start, .address = address,
	};
}

/* One mincore call of a batch, and what it was about. */
struct look {
	const struct piece *piece;
	struct contents *contents;
	uint64_t start;
	uint32_t pages;
	size_t call;
	struct batch_place seen;
};
struct looks {
	VEC(struct look) looks;
	uint64_t pages;
	struct batch batch;
};

static int looks_run(struct frozen_thread *thread, struct looks *looks, struct fault *fault)
{
	int rc = looks->looks.count ? frozen_run(thread, &looks->batch, fault) : 0;
	for (size_t i = 0; rc == 0 && i < looks->looks.count; i++) {
		const struct look *look = &looks->looks.at[i];
		const uint8_t *seen = batch_bytes(&looks->batch, look->seen);
		bool known = batch_result(&looks->batch, look->call) == 0;
		for (uint32_t p = 0; p < look->pages; p++)
			if (!known || (seen[p] & 1))
				add_view(look->contents, look->piece, look->start + (uint64_t)p * PAGE,
					 look->start + (uint64_t)(p + 1) * PAGE);
	}
	vec_finish(&looks->looks);
	looks->pages = 0;
	batch_finish(&looks->batch);
	frozen_batch(thread, &looks->batch);
	return rc;
}

static int look_at_piece(struct frozen_thread *thread, struct looks *looks, struct contents *contents,
			 const struct piece *piece, uint64_t end, struct fault *fault)
{
	for (uint64_t at = piece->start; at < end;) {
		uint32_t pages = (end - at) / PAGE < LOOK_PAGES ? (uint32_t)((end - at) / PAGE) : LOOK_PAGES;
		struct look *look = vec_add(&looks->looks);
		*look = (struct look){ .piece = piece, .contents = contents, .start = at, .pages = pages };
		batch_group(&looks->batch, 1, pages + 16);
		look->seen = batch_room(&looks->batch, pages);
		look->call = batch_try(&looks->batch, mincore, piece->map->start + (at - piece->map->offset),
				       (uint64_t)pages * PAGE, look->seen.address);
		at += (uint64_t)pages * PAGE;
		looks->pages += pages;
		int rc = looks->pages >= LOOK_TOTAL ? looks_run(thread, looks, fault) : 0;
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Swapped pages are none to mincore: where there may be some, all are copied. */
static bool swap_in_use(void)
{
	struct text text = { 0 };
	unsigned long long total = 0, left = 0;
	if (proc_read_path("/proc/meminfo", &text, NULL) == 0) {
		const char *at = strstr(text.at, "SwapTotal:"), *free_ = strstr(text.at, "SwapFree:");
		if (at && free_)
			total = strtoull(at + 10, NULL, 10), left = strtoull(free_ + 9, NULL, 10);
	}
	text_finish(&text);
	return left < total;
}

/* All pieces that this process shows. */
static int look_at_pieces(struct harvest *harvest, struct frozen_thread *thread, struct fault *fault)
{
	struct looks looks = { 0 };
	int rc = 0;
	frozen_batch(thread, &looks.batch);
	for (size_t i = 0; rc == 0 && i < harvest->hidden.count; i++) {
		const struct hidden_object *object = harvest->hidden.at[i];
		struct contents *contents = &harvest->contents.at[object->contents];
		for (const struct piece *piece = object->pieces; rc == 0 && piece; piece = piece->next) {
			/* Before its size is known, more is looked at than there may be: visit_object cuts it off. */
			uint64_t end = object->sized && contents->size < piece->end ? contents->size : piece->end;
			if (piece->space != thread->process->space || piece->start >= end)
				continue;
			/* What smaps says may be from just before the freeze. */
			bool swapped = piece->map->swapped || (piece->space->flags_adopted && swap_in_use());
			if (object->sparse && !swapped)
				rc = look_at_piece(thread, &looks, contents, piece, end, fault);
			else
				add_view(contents, piece, piece->start, end);
		}
	}
	if (rc == 0)
		rc = looks_run(thread, &looks, fault);
	vec_finish(&looks.looks);
	batch_finish(&looks.batch);
	return rc;
}

/* ---- what no mapping shows ---- */

static int copy_run(struct frozen_thread *thread, const struct hidden_object *object, struct contents *contents,
		    uint64_t start, uint64_t end, struct fault *fault)
{
	for (uint64_t at = start; at < end; at += COPY_BYTES) {
		uint64_t size = end - at < COPY_BYTES ? end - at : COPY_BYTES;
		struct batch batch;
		struct twin twin = { 0 };
		frozen_batch(thread, &batch);
		batch_group(&batch, TWIN_CALLS, COPY_BYTES + 256);
		struct batch_place room = batch_room(&batch, size);
		bool possible = twin_add(&batch, object, at, size, &twin);
		struct iovec to = { (void *)(uintptr_t)room.address, size };
		struct iovec from = { (void *)(uintptr_t)twin.address, size };
		struct batch_place to_place = batch_data(&batch, &to, sizeof to), from_place = batch_data(&batch, &from, sizeof from);
		size_t call = batch_try(&batch, process_vm_readv, (uint64_t)thread->tid, to_place.address, 1,
					from_place.address, 1, 0);
		if (possible)
			twin_end(&batch, &twin);
		int rc = possible ? frozen_run(thread, &batch, fault) : 0;
		if (possible && rc == 0 && batch_result(&batch, call) == (int64_t)size)
			rc = fd_pwrite_full(contents->fd, batch_bytes(&batch, room), size, at);
		else if (rc == 0)
			rc = fault_set(fault, FAULT_PERMISSION, EPERM,
				       "%s: %llu bytes at %llu are mapped nowhere, and reading them needs "
				       "CAP_CHECKPOINT_RESTORE; try as root, or a cairn with that file capability", object->name,
				       (unsigned long long)size, (unsigned long long)at);
		batch_finish(&batch);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int copy_existing(struct frozen_thread *thread, const struct hidden_object *object, struct contents *contents,
			 uint64_t start, uint32_t pages, struct fault *fault)
{
	struct batch batch;
	struct twin twin;
	int rc = 0;
	frozen_batch(thread, &batch);
	batch_group(&batch, TWIN_CALLS, pages + 64);
	struct batch_place room = batch_room(&batch, pages);
	if (!object->sparse || swap_in_use() || !twin_add(&batch, object, start, (uint64_t)pages * PAGE, &twin)) {
		batch_finish(&batch);
		return copy_run(thread, object, contents, start, start + (uint64_t)pages * PAGE, fault);
	}
	size_t call = batch_try(&batch, mincore, twin.address, (uint64_t)pages * PAGE, room.address);
	twin_end(&batch, &twin);
	rc = frozen_run(thread, &batch, fault);
	bool known = rc == 0 && batch_result(&batch, call) == 0;
	const uint8_t *seen = rc == 0 ? batch_bytes(&batch, room) : NULL;
	for (uint32_t p = 0; rc == 0 && p < pages;) {
		uint32_t first = p;
		while (p < pages && (!known || (seen[p] & 1)))
			p++;
		if (p > first)
			rc = copy_run(thread, object, contents, start + (uint64_t)first * PAGE, start + (uint64_t)p * PAGE, fault);
		while (p < pages && known && !(seen[p] & 1))
			p++;
	}
	batch_finish(&batch);
	return rc;
}

static int copy_between(struct frozen_thread *thread, const struct hidden_object *object, struct contents *contents,
			uint64_t start, uint64_t end, struct fault *fault)
{
	/* Before a mapping that was never writable: the program itself cannot come there either. */
	if (!(object->guide->flags & MAP_FLAG_MAY_WRITE) && start < object->guide->offset)
		start = object->guide->offset;
	if (start < end && contents->fd < 0) {
		contents->fd = memfd_create("cairn", MFD_CLOEXEC);
		if (contents->fd < 0 || ftruncate(contents->fd, (off_t)contents->size) < 0)
			return fault_set(fault, FAULT_FAILED, errno, "memory for %s: %s", object->name, strerror(errno));
	}
	for (uint64_t at = start; at < end; at += (uint64_t)LOOK_PAGES * PAGE) {
		uint64_t pages = (end - at) / PAGE;
		int rc = copy_existing(thread, object, contents, at, pages < LOOK_PAGES ? (uint32_t)pages : LOOK_PAGES, fault);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int copy_uncovered(struct frozen_thread *thread, const struct hidden_object *object, struct contents *contents,
			  struct fault *fault)
{
	uint64_t at = 0;
	int rc = 0;
	for (const struct piece *piece = object->pieces; rc == 0 && piece && at < contents->size; piece = piece->next) {
		uint64_t end = piece->start < contents->size ? piece->start : contents->size;
		if (end > at)
			rc = copy_between(thread, object, contents, at, end, fault);
		at = piece->end;
	}
	if (rc == 0 && at < contents->size)
		rc = copy_between(thread, object, contents, at, contents->size, fault);
	return rc;
}

static void cut_views(struct contents *contents)
{
	size_t kept = 0;
	for (size_t i = 0; i < contents->views.count; i++) {
		struct contents_view view = contents->views.at[i];
		if (view.offset >= contents->size)
			continue;
		if (view.size > contents->size - view.offset)
			view.size = contents->size - view.offset;
		contents->views.at[kept++] = view;
	}
	contents->views.count = kept;
}

static int visit_object(struct harvest *harvest, struct frozen_thread *thread, struct hidden_object *object,
			struct fault *fault)
{
	struct contents *contents = &harvest->contents.at[object->contents];
	uint64_t size = 0;
	int rc = 0;
	if (object->guide)
		rc = find_size_by_guide(thread, object, &size, fault);
	else
		size = find_size_by_reading(object);
	if (rc < 0)
		return rc;
	size = size > object->copied ? size : object->copied;
	contents->size = *object->size = size;
	object->sized = true;
	cut_views(contents);
	log_debug("%s: cannot be opened; %llu bytes, of which 0x%llx are mapped", object->name, (unsigned long long)size,
		  (unsigned long long)object->end);
	return object->guide ? copy_uncovered(thread, object, contents, fault) : 0;
}

int hidden_visit(struct harvest *harvest, struct frozen_thread *thread, struct fault *fault)
{
	int rc = 0;
	if (!harvest->hidden.count)
		return 0;
	for (size_t i = 0; rc == 0 && i < harvest->hidden.count; i++)
		if (harvest->hidden.at[i]->home == thread->process->space)
			rc = visit_object(harvest, thread, harvest->hidden.at[i], fault);
	return rc < 0 ? rc : look_at_pieces(harvest, thread, fault);
}
