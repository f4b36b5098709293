/* SPDX-License-Identifier: Apache-2.0 */
/* cairn_checkpoint: joins the frozen world and the image. */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "api/hooks.h"
#include "api/operations.h"
#include "api/own.h"
#include "api/parent.h"
#include "base/log.h"
#include "capture/capture.h"
#include "capture/sharing.h"
#include "capture/tree.h"
#include "image.pb-c.h"
#include "image/image.h"
#include "kernel/host.h"
#include "kernel/processor.h"
#include "kinds/files/saved_file.h"
#include "kinds/table.h"
#include "tracee/deputy.h"

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* What image.proto keeps of a processor, in arrays that last as long as the record. */
struct processor_record {
	Cairn__CpuidWord words[PROCESSOR_WORDS], *word_list[PROCESSOR_WORDS];
	Cairn__XstateComponent components[PROCESSOR_COMPONENTS], *component_list[PROCESSOR_COMPONENTS];
};

static void fill_processor(const struct processor *processor, struct processor_record *record, Cairn__ImageInfo *info)
{
	for (size_t i = 0; i < processor->word_count; i++) {
		const struct processor_word *word = &processor->words[i];
		cairn__cpuid_word__init(&record->words[i]);
		record->words[i].leaf = word->leaf;
		record->words[i].subleaf = word->subleaf;
		record->words[i].output = word->output;
		record->words[i].bits = word->bits;
		record->word_list[i] = &record->words[i];
	}
	for (size_t i = 0; i < processor->component_count; i++) {
		const struct processor_component *component = &processor->components[i];
		cairn__xstate_component__init(&record->components[i]);
		record->components[i].number = component->number;
		record->components[i].offset = component->offset;
		record->components[i].size = component->size;
		record->component_list[i] = &record->components[i];
	}
	info->xstate_features = processor->xstate;
	info->hwcap = processor->hwcap;
	info->hwcap2 = processor->hwcap2;
	info->cpuid = record->word_list;
	info->n_cpuid = processor->word_count;
	info->xstate_components = record->component_list;
	info->n_xstate_components = processor->component_count;
}

/* How long a state that passes by itself is waited for, if nobody says. */
enum { PATIENCE_S = 10 };

/* What a live save holds back in memory while the program stands still, if nobody says. */
#define DEFAULT_EXTRA_MEMORY (UINT64_C(256) << 20)

/* One save, from end to end. */
struct save {
	pid_t pid;
	const struct cairn_checkpoint_options *options;
	const struct operation_job *job;
	struct tracking *tracking;   /* in: what an earlier save left; out: what this one leaves */
	struct capture_policy policy;
	struct deadline bound;    /* transient states get some time even if the operation has no bound */
	struct deadline deadline;
	struct processor processor;
	struct image_reader *parent; /* of an incremental one, NULL: none */
	struct image_writer *writer;
	struct progress progress;
	struct snapshot snapshot;
	struct track track;
	struct twins twins;
	uint64_t frozen_pages, forked_pages; /* copied while it stood still, and from twins */
	struct harvest harvest;
	struct harvest survey;    /* of the running tree, before anything is touched */
	struct image_file *file;
	struct cairn_checkpoint_result *result;
	struct fault_list refusals;
	bool is_live;             /* as much as can be is done while the program runs */
	bool is_frozen;
	uint64_t frozen_at_ns, frozen_ns;
	uint64_t realtime_ns, monotonic_ns, boottime_ns; /* at the freeze */
};

static int write_info(const struct save *save, struct fault *fault)
{
	Cairn__ImageInfo info = CAIRN__IMAGE_INFO__INIT;
	const struct operation_job *job = save->job;
	const struct frozen_process *root = save->harvest.processes.at[0];
	struct processor_record record;
	struct utsname system;
	char boot_id[37];
	struct host_vdso vdso;
	uname(&system);
	host_boot_id(boot_id);
	host_vdso_read(&vdso);
	info.cairn_version = CAIRN_VERSION;
	info.architecture = (char *)host_architecture();
	info.page_size = (uint32_t)sysconf(_SC_PAGESIZE);
	info.kernel_release = system.release;
	info.host = system.nodename;
	info.boot_id = boot_id;
	info.realtime_ns = save->realtime_ns;
	info.monotonic_ns = save->monotonic_ns;
	info.boottime_ns = save->boottime_ns;
	info.root_pid = (uint32_t)root->pid;
	info.command = (char *)root->stat.command;
	info.vdso_hash = vdso.hash;
	info.vdso_size = vdso.size;
	info.vdso_code = (ProtobufCBinaryData){ vdso.size, (uint8_t *)(uintptr_t)vdso.code };
	fill_processor(&save->processor, &record, &info);
	info.job = (char *)(job && job->name ? job->name : "");
	info.generation = job ? job->generation : 0;
	struct host_offsets offsets;
	host_offsets_read(&offsets);
	info.monotonic_offset_ns = offsets.monotonic_ns;
	info.boottime_offset_ns = offsets.boottime_ns;
	info.own_network = job && job->own_network;
	return image_writer_record(save->writer, kind_image.tag, &info.base, fault);
}

static int write_records(struct save *save, struct fault *fault)
{
	const struct harvest *harvest = &save->harvest;
	int rc = snapshot_late_records(&save->harvest, fault);
	if (rc == 0)
		rc = write_info(save, fault);
	for (size_t i = 0; rc == 0 && i < harvest->records.count; i++)
		rc = image_writer_record(save->writer, harvest->records.at[i].kind->tag, harvest->records.at[i].message, fault);
	return rc;
}

static void write_places(struct save *save)
{
	const struct snapshot_store *stores = save->snapshot.stores.at;
	for (size_t i = 0; i < save->harvest.spaces.count; i++) {
		const struct frozen_space *space = save->harvest.spaces.at[i];
		const page_places *places = &stores[space->store].places;
		image_writer_places(save->writer, space->id, places->at, places->count);
	}
	for (size_t i = 0; i < save->harvest.contents.count; i++) {
		const struct contents *contents = &save->harvest.contents.at[i];
		const page_places *places = &stores[contents->store].places;
		image_writer_places(save->writer, contents->space, places->at, places->count);
	}
}

static uint32_t count_threads(const struct harvest *harvest)
{
	uint32_t count = 0;
	for (size_t i = 0; i < harvest->processes.count; i++)
		count += (uint32_t)harvest->processes.at[i]->threads.count;
	return count;
}

static int put_pages(void *context, const struct page_batch *batch, page_places *places, struct fault *fault)
{
	const struct save *save = context;
	return image_writer_pages(save->writer, batch, places, fault);
}

static bool is_in_parent(void *context, void **cursor, uint32_t space, uint64_t address, const void *page, struct page_place *ret_place)
{
	const struct save *save = context;
	return parent_has(save->parent, cursor, space, address, page, ret_place);
}

static void thaw(struct save *save, enum freeze_end end)
{
	if (save->is_frozen && end == FREEZE_RUN)
		harvest_close_files(&save->harvest);
	if (save->is_frozen)
		freeze_thaw(&save->harvest, end);
	save->frozen_ns = clock_now_ns() - save->frozen_at_ns;
	save->is_frozen = false;
}

/* Freezes, gathers and copies; everything is in memory or in the image's file (not yet on disk) when it ends. @known: NULL, or the look
 * just before. On success the tree stands still. */
static int take(struct save *save, const struct harvest *known, struct fault *fault)
{
	const struct capture_live live = { known, &save->track, save->is_live ? &save->twins : NULL, &save->survey };
	/* Copying while the program runs may have taken longer than any patience. */
	if (save->options->timeout_s <= 0)
		save->bound.at_ns = operation_deadline(PATIENCE_S, -1).at_ns;
	int rc = capture_begin(&save->harvest, save->pid, &save->policy, &live, &save->bound, &save->frozen_at_ns, &save->refusals, fault);
	if (rc < 0)
		return rc;
	save->is_frozen = true;
	save->realtime_ns = clock_ns(CLOCK_REALTIME);
	save->monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	save->boottime_ns = clock_ns(CLOCK_BOOTTIME);
	log_info("checkpoint: frozen and read: %zu processes, %u threads, %.2f ms", save->harvest.processes.count,
		 count_threads(&save->harvest), (double)(clock_now_ns() - save->frozen_at_ns) / 1e6);
	uint64_t begin = clock_now_ns();
	track_doubt(&save->harvest, &save->snapshot);
	rc = snapshot_tree(&save->snapshot, &save->harvest, &save->frozen_pages, fault);
	if (rc == 0)
		log_info("checkpoint: pages: %.2f ms", (double)(clock_now_ns() - begin) / 1e6);
	return rc;
}

/* Rounds of copying lie between the survey and this look just before the freeze. Where the mappings are the same still, what smaps said of them then is good
 * enough: whether it stayed so is asked when the program runs on. */
static int look_again(const struct save *save, struct harvest *known, struct fault *fault)
{
	int rc = tree_survey_spaces(known, save->pid, MAPS_PLACES, fault);
	if (rc < 0 || tree_adopt_all(known, &save->survey))
		return rc;
	harvest_finish(known);
	*known = (struct harvest){ .policy = save->policy };
	return tree_survey_spaces(known, save->pid, MAPS_FLAGS, fault);
}

/* Were the mappings what they were taken for? @known: the look before; NULL: they were read in the freeze. */
static bool has_stayed(const struct save *save, const struct harvest *known)
{
	struct harvest now = { .policy = save->policy };
	bool stayed = !known || (tree_survey_spaces(&now, save->pid, MAPS_FLAGS, NULL) == 0 && tree_flags_stayed(&save->harvest, &now) &&
				 twins_are_whole(&save->twins));
	harvest_finish(&now);
	return stayed;
}

/* Of a program that runs on: is what the freeze took as it seemed, and what is left to be read from its twins there? *@ret_good: it need not be taken again. */
static int finish_live(struct save *save, const struct harvest *known, bool *ret_good, struct fault *fault)
{
	bool stayed = has_stayed(save, known);
	const uint64_t begin = clock_now_ns();
	int rc = stayed && save->twins.spaces.count ? snapshot_twins(&save->snapshot, &save->harvest, &save->forked_pages, fault) : 0;
	bool lived = twins_live(&save->twins);
	*ret_good = stayed && lived;
	if (!lived) {
		log_info("checkpoint: a copy-on-write child was killed, as by a machine that wants memory: taken again without");
		save->twins.refused = true;
		return deadline_check(&save->deadline, fault);
	}
	if (!stayed)
		log_info("checkpoint: mappings changed around the freeze: taken again");
	else if (save->twins.spaces.count)
		log_info("checkpoint: pages of copy-on-write children: %.2f ms", (double)(clock_now_ns() - begin) / 1e6);
	return rc;
}

/* Takes the tree while its mappings' flags are known only from a look before; the look after says whether that was right. */
static int take_live(struct save *save, struct fault *fault)
{
	struct harvest before = { .policy = save->policy };
	bool is_fresh = !save->track.spaces.count, is_good = false; /* no rounds of copying lie between */
	int rc = is_fresh ? 0 : look_again(save, &before, fault);
	for (const struct harvest *known = is_fresh ? &save->survey : &before; rc == 0; known = NULL) {
		rc = take(save, known, fault);
		if (save->is_frozen)
			thaw(save, FREEZE_RUN);
		if (rc == 0)
			rc = finish_live(save, known, &is_good, fault);
		twins_end(&save->twins);
		if (rc < 0 || is_good)
			break;
		harvest_finish(&save->harvest);
		save->harvest = (struct harvest){ 0 };
		save->forked_pages = 0;
		rc = snapshot_give_out(&save->snapshot, fault);
	}
	harvest_finish(&before);
	return rc;
}

struct seen_object {
	uint64_t device, inode, bytes;
};
typedef VEC(struct seen_object) seen_objects;

/* Shared memory that several processes have is copied once: as much as the one who has most of it in memory. */
static void note_bytes(seen_objects *seen, uint64_t device, uint64_t inode, uint64_t bytes)
{
	struct seen_object *object = NULL;
	for (size_t i = 0; i < seen->count && !object; i++)
		if (seen->at[i].device == device && seen->at[i].inode == inode)
			object = &seen->at[i];
	if (!object) {
		object = vec_add(seen);
		*object = (struct seen_object){ device, inode, 0 };
	}
	if (bytes > object->bytes)
		object->bytes = bytes;
}

/* Bytes that will have to be copied while the tree stands still: what is not tracked, and twice what the last round found. */
static uint64_t expect_copies(const struct save *save, uint64_t left_pages)
{
	const struct harvest *survey = &save->survey;
	uint64_t bytes = (UINT64_C(256) << 10) + 2 * left_pages * PAGES_SIZE;
	seen_objects seen = { 0 };
	for (size_t i = 0; i < survey->spaces.count; i++) {
		const struct frozen_space *space = survey->spaces.at[i];
		const bool has_twin = !track_follows(&save->track, space->pid) && twins_expect(&save->twins, space);
		for (size_t m = 0; m < space->maps.maps.count; m++) {
			const struct map *map = &space->maps.maps.at[m];
			if (map->shared && map->deleted)
				note_bytes(&seen, map->device, map->inode, map->resident);
			else if (!track_has(&save->track, space->pid, map->start) && !(has_twin && twins_have(space, map)))
				bytes += map->anonymous > map->shared_bytes ? map->anonymous - map->shared_bytes : 0;
		}
	}
	for (size_t i = 0; i < survey->files.count; i++) {
		const struct frozen_file *file = survey->files.at[i];
		if (saved_file_is_wanted(survey, file))
			note_bytes(&seen, file->stat.st_dev, file->stat.st_ino, (uint64_t)file->stat.st_blocks * 512);
	}
	for (size_t i = 0; i < seen.count; i++)
		bytes += seen.at[i].bytes;
	vec_finish(&seen);
	return bytes;
}

/* As far as smaps says: more is copied if the program writes meanwhile, less if the parent has it. */
static void expect_progress(struct save *save)
{
	const struct harvest *survey = &save->survey;
	for (size_t i = 0; i < survey->spaces.count; i++) {
		const struct frozen_space *space = survey->spaces.at[i];
		uint64_t bytes = 0;
		for (size_t m = 0; m < space->maps.maps.count; m++)
			bytes += space->maps.maps.at[m].anonymous;
		/* Of many processes smaps has not been read yet. */
		progress_expect(&save->progress, bytes ? bytes : space->process->status.anonymous_kb * 1024);
	}
}

/* What has been tracked since the parent need not be looked at again. */
static void choose_tracked(struct save *save)
{
	uint8_t id[16];
	if (save->parent)
		image_reader_id(save->parent, id);
	if (!save->is_live && !save->tracking->spaces.count)
		return;
	sharing_find_memory(&save->survey);
	save->track.is_kept = save->options->track;
	track_choose(&save->track, &save->survey, save->tracking, save->parent ? id : NULL, &save->snapshot);
	if (save->parent)
		parent_seed(save->parent, &save->track, &save->snapshot);
}

static int collect(struct save *save, struct fault *fault)
{
	int rc = 0;
	expect_progress(save);
	choose_tracked(save);
	/* What does not fit ends here: from now on nothing is registered but what the track says. */
	track_drop(save->tracking, &save->survey);
	if (!save->is_live)
		return take(save, NULL, fault);
	/* Before gigabytes are copied for nothing. */
	if (save->survey.doubts.count && save->track.spaces.count)
		rc = capture_rehearse(save->pid, &save->survey, &save->deadline, &save->refusals, fault);
	if (rc == 0)
		rc = track_begin(&save->track, &save->survey, save->pid, &save->deadline, fault);
	uint64_t left = 0;
	if (rc == 0)
		rc = track_copy(&save->track, &save->snapshot, &left, fault);
	if (rc < 0)
		return rc;
	uint64_t expected = expect_copies(save, left), most = save->options->max_extra_memory;
	most = most ? most : DEFAULT_EXTRA_MEMORY;
	snapshot_hold_back(&save->snapshot, (size_t)(expected < most ? expected : most));
	return take_live(save, fault);
}

static enum freeze_end end_of(const struct save *save, int rc)
{
	return rc < 0 || save->options->after == CAIRN_RUN_ON ? FREEZE_RUN :
	       save->options->after == CAIRN_KILL	       ? FREEZE_KILL : FREEZE_STOP;
}

static int finish_image(struct save *save, struct image_file *file, struct image_stats *ret_stats, struct fault *fault)
{
	int rc = snapshot_give_out(&save->snapshot, fault);
	if (rc == 0) {
		kin_settle(&save->snapshot, &save->harvest);
		write_places(save);
		rc = write_records(save, fault);
	}
	if (rc == 0)
		rc = image_writer_finish(save->writer, ret_stats, fault);
	return rc < 0 ? rc : image_file_commit(file, fault);
}

static void save_finish(struct save *save)
{
	snapshot_finish(&save->snapshot);
	harvest_finish(&save->harvest);
	image_writer_free(save->writer);
	image_reader_free(save->parent);
	save->track = (struct track){ 0 };
	save->snapshot = (struct snapshot){ 0 };
	save->harvest = (struct harvest){ 0 };
	save->writer = NULL;
	save->parent = NULL;
}

static int save_tree(struct save *save, struct fault *fault)
{
	struct cairn_checkpoint_result *result = save->result;
	const struct cairn_checkpoint_options *options = save->options;
	const struct image_compression compression = { (enum image_codec)options->codec, options->codec_level };
	struct image_stats stats = { 0 };
	uint8_t id[16];
	const struct image_key *key = (const struct image_key *)options->key;
	int rc = options->parent ? parent_open(options->parent, key, &save->parent, fault) : 0;
	if (rc == 0 && save->parent && (rc = parent_check(save->parent, options->output, fault)) < 0)
		fault_at(fault, rc, "%s", options->output);
	if (rc == 0)
		rc = image_writer_new(image_file_fd(save->file), &compression, key, save->parent, &save->writer, fault);
	if (rc < 0)
		return rc;
	/* Not where a program that runs on waits for all of it. */
	if (save->is_live || options->after != CAIRN_RUN_ON)
		image_writer_flush_early(save->writer);
	image_writer_id(save->writer, id);
	memory_hex(id, sizeof id, save->policy.image_id);
	const struct page_sink sink = { put_pages, save->parent ? is_in_parent : NULL, parent_forget, save };
	save->snapshot = (struct snapshot){ .sink = &sink, .deadline = &save->deadline, .progress = &save->progress,
					    .threads = operation_threads(options->threads) };
	processor_read(&save->processor); /* while nothing stands still */
	rc = save->parent ? parent_note(save->parent, &save->snapshot, fault) : 0;
	if (rc == 0)
		rc = collect(save, fault);
	if (rc == 0)
		rc = deadline_check(&save->deadline, fault);
	/* A program that runs on need not wait for the disk; one that is to end must not end before its image is safe. */
	if (save->is_frozen && (rc < 0 || options->after == CAIRN_RUN_ON))
		thaw(save, FREEZE_RUN);
	if (!options->track && !save->is_frozen)
		track_finish(&save->track);
	if (rc == 0)
		rc = finish_image(save, save->file, &stats, fault);
	if (rc < 0)
		fault_at(fault, rc, "%s", options->output);
	if (rc == 0 && save->is_frozen && options->after != CAIRN_RUN_ON)
		rc = capture_depart(&save->harvest, options->after == CAIRN_KILL, fault);
	if (save->is_frozen)
		thaw(save, end_of(save, rc));
	/* What was written between the last round and the freeze still counts as written: it is in the image, and copied once more next time. */
	if (rc == 0 && options->track)
		track_keep(&save->track, &save->harvest, id, save->tracking);
	track_finish(&save->track);
	result->bytes = stats.bytes;
	result->pages = stats.pages;
	result->frozen_ns = save->frozen_ns;
	result->tracked_bytes = save->track.pages * PAGES_SIZE;
	result->forked_bytes = save->forked_pages * PAGES_SIZE;
	result->frozen_bytes = save->frozen_pages * PAGES_SIZE;
	result->processes = (uint32_t)save->harvest.processes.count;
	result->threads = save->harvest.thread_count;
	return rc;
}

/* All that takes a tracer: what belongs to the tree is given back by the process that took it. */
static int save_and_finish(void *context, struct fault *fault)
{
	struct save *save = context;
	int rc = save_tree(save, fault);
	save_finish(save);
	return rc;
}

static int save_by_deputy(struct save *save, struct fault *fault)
{
	save->policy.by_deputy = save->survey.policy.by_deputy = true;
	save->bound.principal = save->deadline.principal = getpid();
	return deputy_run(save->options->signal_fd, save_and_finish, save, fault);
}

static int save_to_file(struct save *save, struct fault *fault)
{
	bool known = capture_needs_deputy(&save->survey);
	int rc = image_file_create(save->options->output, &save->file, fault);
	if (rc == 0)
		rc = known ? save_by_deputy(save, fault) : save_and_finish(save, fault);
	if (rc != -EXDEV || known)
		return rc;
	/* Filters that only the freeze has shown: of a thread that is not the first, or installed just now. */
	image_file_free(save->file);
	rc = image_file_create(save->options->output, &save->file, fault);
	return rc < 0 ? rc : save_by_deputy(save, fault);
}

static struct capture_policy policy_of(const struct cairn_checkpoint_options *options, const struct operation_job *job,
				       const struct tracking *tracking)
{
	return (struct capture_policy){
		.outside = (enum outside_policy)options->outside, .lose_in_flight = options->lose_in_flight,
		.reopen = options->reopen_devices, .reopen_count = options->reopen_device_count,
		.save_files = (enum save_files_policy)options->save_files,
		.tcp = (enum tcp_policy)options->tcp, .ends = options->after != CAIRN_RUN_ON,
		.saver = getpid(), .pager = job ? job->pager : 0, .filtered = host_filters() > 0, .tracking = tracking,
		.adopter = job ? job->adopter : 0,
	};
}

static bool is_loading(const struct harvest *survey)
{
	for (size_t i = 0; i < survey->spaces.count; i++)
		for (size_t m = 0; m < survey->spaces.at[i]->maps.maps.count; m++)
			if (survey->spaces.at[i]->maps.maps.at[m].flags & MAP_FLAG_UFFD_MISSING)
				return true;
	return false;
}

/* A program whose memory a pager is still loading is worth waiting for, before anything is done to it. If it takes too long the freeze says so. */
static int await_loaded(struct save *save, struct fault *fault)
{
	int rc = 0;
	while (rc == 0 && is_loading(&save->survey) && deadline_check(&save->bound, fault) == 0) {
		clock_sleep_ns(50000000);
		harvest_finish(&save->survey);
		rc = capture_survey(&save->survey, save->pid, &save->policy, &save->refusals, NULL, fault);
	}
	return rc;
}

/* Hooks of the tree's programs run before anything is judged: they may close what stands against a checkpoint. */
static int look_first(struct save *save, struct hooks *hooks, struct fault *fault)
{
	struct harvest *survey = &save->survey;
	struct fault_list *refusals = &save->refusals;
	struct bulletin_list bulletins = { 0 };
	int rc = capture_survey(survey, save->pid, &save->policy, refusals, &bulletins, fault);
	if (rc == 0)
		rc = hooks_before(&bulletins, &save->deadline, hooks, fault);
	vec_finish(&bulletins.places);
	if (rc == 0 && hooks->told.count && refusals->count) {
		fault_list_finish(refusals);
		harvest_finish(survey);
		rc = capture_survey(survey, save->pid, &save->policy, refusals, NULL, fault);
	}
	if (rc == 0 && !refusals->count)
		rc = await_loaded(save, fault);
	if (rc < 0) {
		fault_list_finish(refusals);
		return rc;
	}
	return refusals->count ? -ENOTSUP : 0;
}

enum cairn_status operation_checkpoint(pid_t pid, const struct cairn_checkpoint_options *options, const struct operation_job *job,
				       struct tracking *tracking, struct cairn_checkpoint_result *result, struct cairn_error *error)
{
	struct fault fault = { 0 };
	struct save save = {
		.pid = pid, .options = options, .job = job, .tracking = tracking, .policy = policy_of(options, job, tracking), .result = result,
		.bound = operation_deadline(options->timeout_s > 0 ? options->timeout_s : PATIENCE_S, options->signal_fd),
		.deadline = operation_deadline(options->timeout_s, options->signal_fd),
		.is_live = options->after == CAIRN_RUN_ON && !options->no_live,
		.twins.most_bytes = options->max_extra_memory,
		.progress = PROGRESS_INIT(options->progress, options->progress_context),
	};
	uint64_t begin = clock_now_ns();
	struct hooks hooks = { 0 };
	struct own own;
	own_note(&own);
	*result = (struct cairn_checkpoint_result){ 0 };
	int rc = capture_check_target(pid, &fault);
	if (rc == 0)
		rc = look_first(&save, &hooks, &fault);
	if (rc == 0)
		rc = save_to_file(&save, &fault);
	if (rc < 0 || options->after != CAIRN_KILL)
		hooks_after(&hooks, rc == 0);
	hooks_finish(&hooks);
	harvest_finish(&save.survey);
	image_file_free(save.file);
	result->total_ns = clock_now_ns() - begin;
	enum cairn_status status = rc < 0 ? operation_failed(&save.refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&save.refusals);
	own_put_back(&own);
	return status;
}

/* Of the doubts of one look those that another, a moment later, has as well: they are no accident of a tree that changes while it is looked at. */
static void keep_lasting(struct fault_list *doubts, const struct fault_list *later)
{
	size_t kept = 0;
	for (size_t i = 0; i < doubts->count; i++) {
		bool lasts = false;
		for (size_t l = 0; l < later->count && !lasts; l++)
			lasts = !strcmp(doubts->at[i].text, later->at[l].text);
		if (lasts)
			doubts->at[kept++] = doubts->at[i];
	}
	doubts->count = kept;
}

static int add_lasting_doubts(pid_t pid, struct harvest *survey, struct fault_list *refusals, struct fault *fault)
{
	enum { LOOKS = 3, PAUSE_NS = 20000000 };
	int rc = 0;
	for (int i = 0; rc == 0 && i < LOOKS && survey->doubts.count; i++) {
		struct harvest later = { 0 };
		struct fault_list others = { 0 };
		clock_sleep_ns(PAUSE_NS);
		rc = capture_survey(&later, pid, &survey->policy, &others, NULL, fault);
		keep_lasting(&survey->doubts, &later.doubts);
		fault_list_finish(&others);
		harvest_finish(&later);
	}
	for (size_t i = 0; rc == 0 && i < survey->doubts.count; i++)
		fault_list_add(refusals, &survey->doubts.at[i]);
	return rc;
}

enum cairn_status operation_check(pid_t pid, const struct operation_job *job, const struct tracking *tracking, struct cairn_error *error)
{
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	const struct capture_policy policy = {
		.adopter = job ? job->adopter : 0, .saver = getpid(), .pager = job ? job->pager : 0, .filtered = host_filters() > 0,
		.tracking = tracking,
	};
	int rc = capture_check_target(pid, &fault);
	struct harvest survey = { 0 };
	if (rc == 0)
		rc = capture_survey(&survey, pid, &policy, &refusals, NULL, &fault);
	if (rc == 0)
		rc = add_lasting_doubts(pid, &survey, &refusals, &fault);
	harvest_finish(&survey);
	enum cairn_status status = rc < 0 || refusals.count ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}
