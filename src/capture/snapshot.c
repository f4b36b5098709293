/* SPDX-License-Identifier: Apache-2.0 */
#include "capture/round.h"
#include "capture/twins.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

size_t snapshot_add_store(struct snapshot *snapshot, pid_t pid)
{
	struct snapshot_store *store = vec_add(&snapshot->stores);
	for (size_t i = 0; pid && i < snapshot->parents.count; i++)
		if (snapshot->parents.at[i].pid == pid)
			store->parent_space = snapshot->parents.at[i].space;
	return snapshot->stores.count - 1;
}

void snapshot_finish(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->stores.count; i++) {
		struct snapshot_store *store = &snapshot->stores.at[i];
		vec_finish(&store->places);
		vec_finish(&store->spoiled);
		vec_finish(&store->fresh);
		vec_finish(&store->seen);
		vec_finish(&store->kept);
		vec_finish(&store->shares);
	}
	vec_finish(&snapshot->stores);
	vec_finish(&snapshot->parents);
	for (size_t i = 0; i < snapshot->buffers.count; i++)
		munmap(snapshot->buffers.at[i], UNIT_BYTES);
	vec_finish(&snapshot->buffers);
	vec_finish(&snapshot->hold.held);
	if (snapshot->hold.memory)
		munmap(snapshot->hold.memory, snapshot->hold.size);
}

bool snapshot_needs_force(const struct map *map)
{
	return !(map->protection & PROT_READ) || map->pages_shared;
}

bool snapshot_is_private(const struct map *map)
{
	/* What the kernel may drop at any time is dropped: the generator of random numbers behind getrandom(3) keeps its state there, and two
	 * programs of one image are not to draw the same (vgetrandom, 6.11). */
	return !map->shared && !(map->flags & (MAP_FLAG_IO | MAP_FLAG_PFN | MAP_FLAG_DROPPABLE)) && map_is_program(map);
}

void round_fail(struct round *round, const struct fault *fault)
{
	pthread_mutex_lock(&round->lock);
	if (!round->failed)
		round->fault = *fault;
	round->failed = true;
	pthread_mutex_unlock(&round->lock);
}

static bool is_wanted(const struct map *map, uint32_t categories)
{
	return !(categories & (PAGE_ZERO | PAGE_GUARD)) && !(map->inode && (categories & PAGE_FILE));
}

static int keep_pages(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end, void *context,
		      struct fault *fault)
{
	(void)source, (void)context, (void)fault;
	*vec_add(&worker->kept) = (struct page_range){ start, end };
	return 0;
}

static int copy_pages(struct worker *worker, const struct snapshot_source *source, uint64_t start, uint64_t end, void *context,
		      struct fault *fault)
{
	(void)context;
	return unit_add(worker, source, start, end, fault);
}

static int take_extent(struct worker *worker, const struct snapshot_source *source, enum snapshot_look look,
		       const struct page_extent *extent, struct fault *fault)
{
	struct round *round = worker->round;
	if ((extent->categories & PAGE_GUARD) && round->harvest) {
		pthread_mutex_lock(&round->lock);
		*vec_add(&round->harvest->guards) = (struct frozen_guard){ source->space, extent->start, extent->end };
		pthread_mutex_unlock(&round->lock);
	}
	if (look == LOOK_PROTECT || look == LOOK_WRITTEN)
		*vec_add(&worker->seen) = (struct page_range){ extent->start, extent->end };
	if (!is_wanted(source->map, extent->categories))
		return 0;
	kin_own own_pages = look == LOOK_LAST && !(extent->categories & PAGE_WRITTEN) ? keep_pages : copy_pages;
	return kin_sift(worker, source, extent->start, extent->end, own_pages, NULL, fault);
}

/* Pages of small mappings side by side are read and stored together, in one block. Not where a slice may have to be looked at again (forget), nor where what
 * lies below a page matters. */
static bool joins(const struct snapshot_source *source, const struct snapshot_source *next)
{
	return next && next->map && source->look == LOOK_ALL && next->look == LOOK_ALL && !source->map->inode && !next->map->inode &&
	       source->pid == next->pid && source->store == next->store && source->space == next->space && source->by_force == next->by_force &&
	       source->shift == next->shift;
}

/* Memory that is mapped from an image: what the page tables do not show is there as well. */
static int look_through_mapped(struct worker *worker, const struct slice *slice, const struct snapshot_source *next, struct fault *fault)
{
	struct page_extent extents[EXTENTS];
	uint64_t from = slice->start;
	worker->pagemap.anonymous = worker->pagemap.tracked = worker->pagemap.written = worker->pagemap.protect = false;
	for (uint64_t at = slice->start; at < slice->end;) {
		int count = pagemap_extents(&worker->pagemap, at, slice->end, extents, EXTENTS, &at, fault);
		int rc = count < 0 ? count : 0;
		for (int i = 0; rc == 0 && i < count; i++) {
			if (!(extents[i].categories & PAGE_GUARD))
				continue;
			rc = from < extents[i].start ? kin_sift(worker, slice->source, from, extents[i].start, copy_pages, NULL, fault) : 0;
			from = extents[i].end;
			if (rc == 0)
				rc = take_extent(worker, slice->source, LOOK_ALL, &extents[i], fault);
		}
		if (rc < 0)
			return rc;
	}
	int rc = from < slice->end ? kin_sift(worker, slice->source, from, slice->end, copy_pages, NULL, fault) : 0;
	return rc < 0 || joins(slice->source, next) ? rc : unit_flush(worker, slice->source, fault);
}

static int take_extents(struct worker *worker, const struct snapshot_source *source, enum snapshot_look look, uint64_t start, uint64_t end,
			struct fault *fault)
{
	struct page_extent extents[EXTENTS];
	int rc = 0;
	while (rc == 0 && start < end) {
		int count = pagemap_extents(&worker->pagemap, start, end, extents, EXTENTS, &start, fault);
		rc = count < 0 ? count : 0;
		for (int i = 0; rc == 0 && i < count; i++)
			rc = take_extent(worker, source, look, &extents[i], fault);
	}
	return rc;
}

/* What is as it was when it was protected stays as it was stored; only the rest is looked at page by page. */
static int take_changed(struct worker *worker, const struct slice *slice, struct fault *fault)
{
	const struct snapshot_source *source = slice->source;
	struct page_extent changed[EXTENTS];
	int rc = 0;
	for (uint64_t at = slice->start, next; rc == 0 && at < slice->end; at = next) {
		int count = pagemap_changed(&worker->pagemap, at, slice->end, changed, EXTENTS, &next, fault);
		rc = count < 0 ? count : 0;
		for (int i = 0; rc == 0 && i < count; i++) {
			rc = at < changed[i].start ? kin_sift(worker, source, at, changed[i].start, keep_pages, NULL, fault) : 0;
			if (rc == 0)
				rc = take_extents(worker, source, LOOK_LAST, changed[i].start, changed[i].end, fault);
			at = changed[i].end;
		}
		if (rc == 0 && at < next)
			rc = kin_sift(worker, source, at, next, keep_pages, NULL, fault);
	}
	return rc;
}

/* @next: the source of the slice after it, NULL: none, and what was added is read now. */
static int look_through(struct worker *worker, const struct slice *slice, const struct snapshot_source *next, enum snapshot_look look,
			struct fault *fault)
{
	const struct snapshot_source *source = slice->source;
	struct pagemap *pagemap = &worker->pagemap;
	if (source->map->image_inode)
		return look_through_mapped(worker, slice, next, fault);
	pagemap->anonymous = !source->map->inode;
	pagemap->tracked = look != LOOK_ALL;
	pagemap->written = look == LOOK_WRITTEN;
	pagemap->protect = look == LOOK_PROTECT || look == LOOK_WRITTEN;
	int rc = look == LOOK_LAST && worker->round->snapshot->asks_changed ? take_changed(worker, slice, fault) :
				     take_extents(worker, source, look, slice->start, slice->end, fault);
	return rc < 0 || joins(source, next) ? rc : unit_flush(worker, source, fault);
}

/* Was something in this slice protected, and then not stored? */
static bool is_spoiled(const struct snapshot_store *store, const struct slice *slice)
{
	for (size_t i = 0; i < store->spoiled.count; i++)
		if (store->spoiled.at[i].start < slice->end && store->spoiled.at[i].end > slice->start)
			return true;
	return false;
}

/* How far the lists were when a slice began. */
struct mark {
	size_t fresh, seen, kept, spoiled, shares;
};
static struct mark mark_of(const struct worker *worker)
{
	return (struct mark){ worker->fresh.count, worker->seen.count, worker->kept.count, worker->spoiled.count, worker->shares.count };
}

/* Nothing that has been said since counts. */
static void forget(struct worker *worker, struct mark mark)
{
	worker->unit.count = worker->unit.pages = 0;
	worker->fresh.count = mark.fresh;
	worker->seen.count = mark.seen;
	worker->kept.count = mark.kept;
	worker->spoiled.count = mark.spoiled;
	worker->shares.count = mark.shares;
}

bool source_has_ended(const struct snapshot_source *source, int rc)
{
	bool running = source->look == LOOK_PROTECT || source->look == LOOK_WRITTEN;
	return running && (rc == -ESRCH || rc == -ENOENT || rc == -EACCES);
}

static int look_at_memory(struct worker *worker, const struct slice *slice, const struct snapshot_source *next, struct fault *fault)
{
	const struct snapshot_source *source = slice->source;
	enum snapshot_look look = source->look;
	const struct mark mark = mark_of(worker);
	int rc = worker_enter(worker, source->pid, fault);
	if (look == LOOK_LAST && is_spoiled(&worker->round->snapshot->stores.at[source->store], slice))
		look = LOOK_ALL;
	if (rc == 0)
		rc = look_through(worker, slice, next, look, fault);
	if (rc == 0 || look == LOOK_ALL)
		return rc;
	/* Not under tracking (any more): the program mapped it anew, moved it, or is another by now. */
	forget(worker, mark);
	if (look == LOOK_LAST)
		return rc == -EPERM ? look_through(worker, slice, NULL, LOOK_ALL, fault) : rc;
	*vec_add(&worker->spoiled) = (struct page_range){ slice->start, slice->end };
	return rc == -EPERM || source_has_ended(source, rc) ? 0 : rc;
}

static int look_at_contents(struct worker *worker, const struct slice *slice, struct fault *fault)
{
	int rc = slice->source->pid ? worker_enter(worker, slice->source->pid, fault) : 0;
	if (rc == 0)
		rc = unit_add(worker, slice->source, slice->start, slice->end, fault);
	return rc < 0 ? rc : unit_flush(worker, slice->source, fault);
}

#define VEC_APPEND(to, from)                                             \
	for (size_t append_ = 0; append_ < (from)->count; append_++)     \
		*vec_add(to) = (from)->at[append_]

static void hand_in(struct worker *worker, size_t index)
{
	struct round *round = worker->round;
	pthread_mutex_lock(&round->lock);
	struct snapshot_store *store = &round->snapshot->stores.at[index];
	VEC_APPEND(&store->fresh, &worker->fresh);
	VEC_APPEND(&store->seen, &worker->seen);
	VEC_APPEND(&store->kept, &worker->kept);
	VEC_APPEND(&store->spoiled, &worker->spoiled);
	VEC_APPEND(&store->shares, &worker->shares);
	pthread_mutex_unlock(&round->lock);
	forget(worker, (struct mark){ 0 });
}

/* Each worker has one of its own; NULL: there is no memory. */
static uint8_t *take_buffer(struct round *round)
{
	struct snapshot *snapshot = round->snapshot;
	pthread_mutex_lock(&round->lock);
	size_t index = round->workers++;
	if (index == snapshot->buffers.count) {
		void *memory = mmap(NULL, UNIT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory != MAP_FAILED) {
			/* As much as will be used, at once; where the kernel has not the call (before 5.14), page by page. */
			madvise(memory, round->expected, MADV_POPULATE_WRITE);
			*vec_add(&snapshot->buffers) = memory;
		}
	}
	uint8_t *buffer = index < snapshot->buffers.count ? snapshot->buffers.at[index] : NULL;
	pthread_mutex_unlock(&round->lock);
	return buffer;
}

static void *work(void *context)
{
	struct round *round = context;
	struct worker worker = { .round = round, .memory = -1, .file = -1, .buffer = take_buffer(round) };
	struct slice slices[ROUND_SLICES];
	size_t count;
	if (!worker.buffer) {
		struct fault fault;
		fault_set(&fault, FAULT_FAILED, ENOMEM, "no memory to copy pages with; try to free some");
		round_fail(round, &fault);
		return NULL;
	}
	while ((count = round_take_slices(round, slices)) > 0)
		for (size_t i = 0; i < count; i++) {
			struct fault fault;
			const struct snapshot_source *next = i + 1 < count ? slices[i + 1].source : NULL;
			int rc = slices[i].source->map ? look_at_memory(&worker, &slices[i], next, &fault) :
							 look_at_contents(&worker, &slices[i], &fault);
			if (rc < 0)
				round_fail(round, &fault);
			if (i + 1 == count || slices[i + 1].source->store != slices[i].source->store)
				hand_in(&worker, slices[i].source->store);
		}
	pthread_mutex_lock(&round->lock);
	round->pages += worker.pages;
	pthread_mutex_unlock(&round->lock);
	worker_leave(&worker);
	kin_finish(&worker);
	vec_finish(&worker.fresh);
	vec_finish(&worker.seen);
	vec_finish(&worker.kept);
	vec_finish(&worker.spoiled);
	if (worker.cursor)
		round->snapshot->sink->forget(worker.cursor);
	return NULL;
}

/* A program that runs meanwhile needs a processor as well. Of several threads only the first competes with it as an equal, so that work goes on on a busy machine
 * too: with as many as there are processors the program would wait for whole time slices (8 ms seen, of 2 processors; 4 so). */
static void *help(void *context)
{
	enum { NICE = 10 };
	const struct round *round = context;
	if (!round->snapshot->stands)
		setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + NICE); /* of this thread, which ends with the round */
	return work(context);
}

void store_settle(struct snapshot_store *store)
{
	places_settle(&store->fresh);
	if (store->last) {
		ranges_settle(&store->kept);
		places_intersect(&store->places, &store->kept);
	} else {
		ranges_settle(&store->seen);
		places_subtract(&store->places, &store->seen);
	}
	places_merge(&store->places, &store->fresh);
	ranges_settle(&store->spoiled);
	vec_finish(&store->fresh);
	vec_finish(&store->seen);
	vec_finish(&store->kept);
}

/* Bytes to copy, as far as smaps says; of what is only asked for changes, as many as take the time of that. */
static uint64_t expect_bytes(const struct snapshot *snapshot, const struct snapshot_source *sources, size_t count)
{
	enum { ASKED_PER_COPIED = 256 };
	uint64_t bytes = 0;
	for (size_t i = 0; i < count; i++) {
		const struct map *map = sources[i].map;
		uint64_t all = map && !map->image_inode ? map->anonymous : sources[i].end - sources[i].start;
		bytes += sources[i].look == LOOK_LAST && snapshot->asks_changed ? all / ASKED_PER_COPIED : all;
	}
	return bytes;
}

int snapshot_round(struct snapshot *snapshot, const struct snapshot_source *sources, size_t count,
		   struct harvest *harvest, uint64_t *ret_pages, struct fault *fault)
{
	/* A thread costs a millisecond to begin and to end here: more than to copy some megabytes alone. */
	enum { MOST_THREADS = 16, LITTLE_BYTES = 6 << 20, LITTLE_SOURCES = 1000 };
	const uint64_t expected = expect_bytes(snapshot, sources, count);
	struct round round = {
		.snapshot = snapshot, .harvest = harvest, .sources = sources, .count = count, .lock = PTHREAD_MUTEX_INITIALIZER,
		.expected = expected < UNIT_BYTES ? (size_t)expected / PAGE * PAGE : UNIT_BYTES,
	};
	pthread_t workers[MOST_THREADS];
	unsigned started = 0, threads = snapshot->threads > MOST_THREADS ? MOST_THREADS : snapshot->threads;
	if (count <= LITTLE_SOURCES && expected <= LITTLE_BYTES)
		threads = 1;
	while (started + 1 < threads && pthread_create(&workers[started], NULL, help, &round) == 0)
		started++;
	work(&round);
	for (unsigned i = 0; i < started; i++)
		pthread_join(workers[i], NULL);
	if (round.pid)
		pagemap_close(&round.pagemap);
	*ret_pages = round.pages;
	if (round.failed) {
		*fault = round.fault;
		return fault->error ? -fault->error : -EIO;
	}
	/* A program that stands still does not wait for that. */
	snapshot->unsettled = snapshot->hold.size > 0;
	for (size_t i = 0; !snapshot->unsettled && i < snapshot->stores.count; i++)
		store_settle(&snapshot->stores.at[i]);
	return 0;
}

/* ---- the frozen tree ---- */

typedef VEC(struct snapshot_source) source_list;

static void add_space(struct snapshot *snapshot, const struct harvest *harvest, struct frozen_space *space, source_list *sources)
{
	if (!space->tracked)
		space->store = snapshot_add_store(snapshot, space->pid);
	snapshot->stores.at[space->store].shares.count = 0;
	const struct frozen_space *elders[SNAPSHOT_ELDERS];
	kin_elders(harvest, space->process, elders);
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (!snapshot_is_private(map) || (space->twin && twins_have(space, map)))
			continue;
		struct snapshot_source *source = vec_add(sources);
		*source = (struct snapshot_source){
				.store = space->store, .pid = space->pid, .fd = -1, .space = space->id, .start = map->start,
				.end = map->end, .map = map, .by_force = snapshot_needs_force(map) || space->twin,
				.look = space->tracked && !map->inode && !map->image_inode ? LOOK_LAST : LOOK_ALL };
		kin_choose(elders, source);
	}
}

/* Only those of its elders who stand still as well can be compared with it. */
static void add_twin(const struct harvest *harvest, const struct frozen_space *space, source_list *sources)
{
	const struct frozen_space *elders[SNAPSHOT_ELDERS];
	kin_elders(harvest, space->process, elders);
	for (size_t e = 0; e < SNAPSHOT_ELDERS; e++)
		elders[e] = elders[e] && elders[e]->twin ? elders[e] : NULL;
	for (size_t i = 0; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (!twins_have(space, map))
			continue;
		struct snapshot_source *source = vec_add(sources);
		*source = (struct snapshot_source){
				.store = space->store, .pid = space->twin, .fd = -1, .space = space->id, .start = map->start,
				.end = map->end, .map = map, .by_force = true, .look = LOOK_ALL };
		kin_choose(elders, source);
	}
}

static void add_contents(struct snapshot *snapshot, struct contents *contents, source_list *sources)
{
	contents->store = snapshot_add_store(snapshot, 0);
	for (size_t v = 0; v < contents->views.count; v++) {
		const struct contents_view *view = &contents->views.at[v];
		*vec_add(sources) = (struct snapshot_source){
			.store = contents->store, .pid = view->pid, .fd = -1, .start = view->offset, .end = view->offset + view->size,
			.shift = view->address - view->offset, .by_force = view->force, .look = LOOK_ALL };
	}
	if (contents->fd >= 0)
		*vec_add(sources) = (struct snapshot_source){
			.store = contents->store, .fd = contents->fd, .end = contents->size, .look = LOOK_ALL };
}

static int compare_guards(const void *a, const void *b)
{
	const struct frozen_guard *left = a, *right = b;
	if (left->space != right->space)
		return left->space < right->space ? -1 : 1;
	return left->start < right->start ? -1 : left->start > right->start;
}

static void sort_guards(struct harvest *harvest)
{
	if (harvest->guards.count)
		qsort(harvest->guards.at, harvest->guards.count, sizeof *harvest->guards.at, compare_guards);
}

int snapshot_tree(struct snapshot *snapshot, struct harvest *harvest, uint64_t *ret_pages, struct fault *fault)
{
	source_list sources = { 0 };
	for (size_t i = 0; i < harvest->spaces.count; i++)
		add_space(snapshot, harvest, harvest->spaces.at[i], &sources);
	for (size_t i = 0; i < harvest->contents.count; i++)
		add_contents(snapshot, &harvest->contents.at[i], &sources);
	for (size_t i = 0; i < snapshot->stores.count; i++)
		snapshot->stores.at[i].last = true;
	snapshot->stands = true;
	int rc = snapshot_round(snapshot, sources.at, sources.count, harvest, ret_pages, fault);
	snapshot->stands = false;
	vec_finish(&sources);
	sort_guards(harvest);
	return rc;
}

int snapshot_twins(struct snapshot *snapshot, struct harvest *harvest, uint64_t *ret_pages, struct fault *fault)
{
	source_list sources = { 0 };
	/* What the freeze came to is settled first: the twins' pages are added to that. */
	int rc = snapshot_give_out(snapshot, fault);
	for (size_t i = 0; i < snapshot->stores.count; i++)
		snapshot->stores.at[i].last = false;
	for (size_t i = 0; i < harvest->spaces.count; i++)
		if (harvest->spaces.at[i]->twin)
			add_twin(harvest, harvest->spaces.at[i], &sources);
	/* Nobody waits for the sink now. */
	const size_t hold = snapshot->hold.size;
	snapshot->hold.size = 0;
	if (rc == 0)
		rc = snapshot_round(snapshot, sources.at, sources.count, harvest, ret_pages, fault);
	snapshot->hold.size = hold;
	vec_finish(&sources);
	sort_guards(harvest);
	return rc;
}

int snapshot_late_records(struct harvest *harvest, struct fault *fault)
{
	int rc = 0;
	for (const struct kind *const *kind = kinds; rc == 0 && *kind; kind++)
		rc = (*kind)->capture_late ? (*kind)->capture_late(harvest, fault) : 0;
	return rc;
}
