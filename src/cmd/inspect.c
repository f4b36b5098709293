/* SPDX-License-Identifier: Apache-2.0 */
/* cairn inspect: what is inside an image. An image may come from anywhere: pids may repeat, parents be missing,
 * spaces have no owner. Nothing here relies on more than the records decoding. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/key.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "cmd/decoded.h"
#include "files.pb-c.h"
#include "image.pb-c.h"
#include "memory.pb-c.h"
#include "tasks.pb-c.h"

struct process_view {
	const Cairn__Process *process;
	const Cairn__FdTable *fds; /* NULL: none */
	size_t order;              /* among the Process records */
	size_t threads;
	struct process_view *parent, *child, *last_child, *next; /* the tree; a parent comes first in the image */
};

struct space_view {
	uint32_t space;
	uint64_t mappings, mapped; /* bytes */
	uint64_t stored;           /* pages */
	char *what;                /* "address space of 4121 4122", "shared memory", "file /x" */
};

struct file_view {
	uint32_t file;
	const struct decoded *record;
};

struct inspection {
	const char *path;
	struct image_reader *reader;
	struct decoded_list records;
	const Cairn__ImageInfo *info;     /* NULL: none */
	uint64_t pages;
	VEC(struct process_view) processes; /* ascending by pid */
	VEC(struct space_view) spaces;      /* ascending */
	VEC(struct file_view) files;        /* ascending */
};

/* Gathering */

static const void *record_is(const struct decoded *record, const ProtobufCMessageDescriptor *descriptor)
{
	return record->message && record->message->descriptor == descriptor ? record->message : NULL;
}

static int process_compare(const void *a, const void *b)
{
	const struct process_view *left = a, *right = b;
	if (left->process->pid != right->process->pid)
		return left->process->pid < right->process->pid ? -1 : 1;
	return left->order < right->order ? -1 : left->order > right->order;
}

/* One of those with this @pid, NULL: none. */
static struct process_view *process_find(struct inspection *inspection, uint32_t pid)
{
	size_t low = 0, high = inspection->processes.count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (inspection->processes.at[middle].process->pid < pid)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == inspection->processes.count || inspection->processes.at[low].process->pid != pid)
		return NULL;
	return &inspection->processes.at[low];
}

static int order_compare(const void *a, const void *b)
{
	const struct process_view *const *left = a, *const *right = b;
	return (*left)->order < (*right)->order ? -1 : (*left)->order > (*right)->order;
}

/* Links children to parents, in the order of the image. Only a parent from before its child counts: no cycles. */
static void processes_link(struct inspection *inspection)
{
	size_t count = inspection->processes.count;
	_free_ struct process_view **order = memory_new(count * sizeof *order);
	for (size_t i = 0; i < count; i++)
		order[i] = &inspection->processes.at[i];
	qsort(order, count, sizeof *order, order_compare);
	for (size_t i = 0; i < count; i++) {
		struct process_view *view = order[i];
		struct process_view *parent = process_find(inspection, view->process->parent_pid);
		if (!parent || parent->order >= view->order)
			continue;
		view->parent = parent;
		if (parent->last_child)
			parent->last_child->next = view;
		else
			parent->child = view;
		parent->last_child = view;
	}
}

static void processes_gather(struct inspection *inspection)
{
	for (size_t i = 0; i < inspection->records.count; i++) {
		const Cairn__Process *process =
			record_is(&inspection->records.at[i], &cairn__process__descriptor);
		if (process)
			*vec_add(&inspection->processes) = (struct process_view){ .process = process, .order = i };
	}
	if (!inspection->processes.count)
		return;
	qsort(inspection->processes.at, inspection->processes.count, sizeof *inspection->processes.at,
	      process_compare);
	processes_link(inspection);
	for (size_t i = 0; i < inspection->records.count; i++) {
		const struct decoded *record = &inspection->records.at[i];
		const Cairn__Thread *thread = record_is(record, &cairn__thread__descriptor);
		const Cairn__FdTable *fds = record_is(record, &cairn__fd_table__descriptor);
		struct process_view *view = NULL;
		if (thread || fds)
			view = process_find(inspection, thread ? thread->pid : fds->pid);
		if (view && thread)
			view->threads++;
		if (view && fds)
			view->fds = fds;
	}
}

static int space_compare(const void *a, const void *b)
{
	uint32_t left = ((const struct space_view *)a)->space, right = ((const struct space_view *)b)->space;
	return left < right ? -1 : left > right;
}

static struct space_view *space_find(struct inspection *inspection, uint32_t space)
{
	if (!inspection->spaces.count)
		return NULL;
	return bsearch(&(struct space_view){ .space = space }, inspection->spaces.at, inspection->spaces.count,
		       sizeof *inspection->spaces.at, space_compare);
}

/* The spaces, once each. */
static void spaces_list(struct inspection *inspection)
{
	const struct image_place *places;
	size_t count = image_reader_places(inspection->reader, &places), kept = 0;
	for (size_t i = 0; i < inspection->records.count; i++) {
		const Cairn__AddressSpace *space =
			record_is(&inspection->records.at[i], &cairn__address_space__descriptor);
		if (space)
			vec_add(&inspection->spaces)->space = space->space;
	}
	for (size_t i = 0; i < count; i++)
		if (!i || places[i].space != places[i - 1].space)
			vec_add(&inspection->spaces)->space = places[i].space;
	if (!inspection->spaces.count)
		return;
	qsort(inspection->spaces.at, inspection->spaces.count, sizeof *inspection->spaces.at, space_compare);
	for (size_t i = 0; i < inspection->spaces.count; i++)
		if (!kept || inspection->spaces.at[i].space != inspection->spaces.at[kept - 1].space)
			inspection->spaces.at[kept++] = inspection->spaces.at[i];
	inspection->spaces.count = kept;
}

static void space_say(struct space_view *view, const char *what, const char *name)
{
	if (!view || view->what)
		return;
	view->what = memory_format("%s%s%s", what, *name ? " " : "", name);
}

static void spaces_name(struct inspection *inspection)
{
	for (size_t i = 0; i < inspection->records.count; i++) {
		const struct decoded *record = &inspection->records.at[i];
		const Cairn__SharedMemory *shared = record_is(record, &cairn__shared_memory__descriptor);
		const Cairn__MappedFile *file = record_is(record, &cairn__mapped_file__descriptor);
		const Cairn__RegularFile *open = record_is(record, &cairn__regular_file__descriptor);
		const Cairn__SavedFile *saved = record_is(record, &cairn__saved_file__descriptor);
		if (!shared && !file && !open && !saved)
			continue;
		_free_ char *name = message_text(record->message, shared ? "name" : "path");
		if (shared)
			space_say(space_find(inspection, shared->id), "shared memory", name);
		if (file && file->deleted)
			space_say(space_find(inspection, file->id), "deleted file", name);
		if (saved)
			space_say(space_find(inspection, saved->id), "saved file", name);
		if (open && open->deleted)
			space_say(space_find(inspection, open->contents), "deleted file", name);
	}
	for (size_t i = 0; i < inspection->processes.count; i++) {
		const Cairn__Process *process = inspection->processes.at[i].process;
		_free_ char *command = message_text(&process->base, "command");
		_free_ char *name = memory_format("%" PRIu32 " (%s)", process->pid, command);
		space_say(space_find(inspection, process->space), "process", name);
	}
}

static void spaces_gather(struct inspection *inspection)
{
	const struct image_place *places;
	size_t count = image_reader_places(inspection->reader, &places);
	spaces_list(inspection);
	for (size_t i = 0; i < count; i++) {
		space_find(inspection, places[i].space)->stored += places[i].at.pages;
		inspection->pages += places[i].at.pages;
	}
	for (size_t i = 0; i < inspection->records.count; i++) {
		const Cairn__Vma *vma = record_is(&inspection->records.at[i], &cairn__vma__descriptor);
		struct space_view *view = vma ? space_find(inspection, vma->space) : NULL;
		if (!view)
			continue;
		view->mappings++;
		view->mapped += vma->end > vma->start ? vma->end - vma->start : 0;
	}
	spaces_name(inspection);
}

static int file_compare(const void *a, const void *b)
{
	uint32_t left = ((const struct file_view *)a)->file, right = ((const struct file_view *)b)->file;
	return left < right ? -1 : left > right;
}

/* Every record with an OpenFile in its field `open` is an open file description. */
static void files_gather(struct inspection *inspection)
{
	for (size_t i = 0; i < inspection->records.count; i++) {
		const struct decoded *record = &inspection->records.at[i];
		const ProtobufCMessage *open = record->message ? message_child(record->message, "open") : NULL;
		if (open && open->descriptor == &cairn__open_file__descriptor)
			*vec_add(&inspection->files) =
				(struct file_view){ ((const Cairn__OpenFile *)open)->file, record };
	}
	if (inspection->files.count)
		qsort(inspection->files.at, inspection->files.count, sizeof *inspection->files.at, file_compare);
}

static const struct decoded *file_find(const struct inspection *inspection, uint32_t file)
{
	if (!inspection->files.count)
		return NULL;
	const struct file_view *view = bsearch(&(struct file_view){ .file = file }, inspection->files.at,
					       inspection->files.count, sizeof *inspection->files.at, file_compare);
	return view ? view->record : NULL;
}

/* Path of a file, or its first fields that say something. */
static char *file_text(const struct decoded *record)
{
	char *path = message_text(record->message, "path");
	if (*path)
		return path;
	free(path);
	return message_summary(record->message, 4);
}

static void info_gather(struct inspection *inspection)
{
	for (size_t i = 0; i < inspection->records.count && !inspection->info; i++)
		inspection->info = record_is(&inspection->records.at[i], &cairn__image_info__descriptor);
}

static int inspection_init(struct inspection *inspection, const char *path, const uint8_t *key, struct fault *fault)
{
	inspection->path = path;
	int rc = image_reader_open(path, (const struct image_key *)key, &inspection->reader, fault);
	if (rc)
		return rc;
	rc = decoded_list_init(&inspection->records, inspection->reader, fault);
	if (rc)
		return fault_at(fault, rc, "%s", path);
	info_gather(inspection);
	processes_gather(inspection);
	spaces_gather(inspection);
	files_gather(inspection);
	return 0;
}

static void inspection_finish(struct inspection *inspection)
{
	for (size_t i = 0; i < inspection->spaces.count; i++)
		free(inspection->spaces.at[i].what);
	vec_finish(&inspection->processes);
	vec_finish(&inspection->spaces);
	vec_finish(&inspection->files);
	decoded_list_finish(&inspection->records);
	image_reader_free(inspection->reader);
}

static const char *process_state(const Cairn__Process *process)
{
	return process->zombie ? "zombie" : process->stopped ? "stopped" : "running";
}

static uint64_t process_stored(struct inspection *inspection, const Cairn__Process *process)
{
	const struct space_view *view = process->space ? space_find(inspection, process->space) : NULL;
	return view ? view->stored : 0;
}

static void id_text(const struct inspection *inspection, char text[33])
{
	uint8_t id[16];
	image_reader_id(inspection->reader, id);
	for (int i = 0; i < 16; i++)
		snprintf(text + (size_t)2 * i, 3, "%02x", id[i]);
}

static void time_text(const struct inspection *inspection, char *text, size_t size)
{
	time_t seconds = inspection->info ? (time_t)(inspection->info->realtime_ns / 1000000000u) : 0;
	struct tm tm;
	if (!inspection->info || !gmtime_r(&seconds, &tm) || !strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(text, size, "unknown");
}

/* As text */

static const char *size_text(uint64_t bytes, char text[16])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;
	while (value >= 1000 && unit + 1 < sizeof units / sizeof *units) {
		value /= 1024;
		unit++;
	}
	snprintf(text, 16, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return text;
}

static void origin_print(const struct inspection *inspection)
{
	char id[33], when[64], size[16], pages[16];
	id_text(inspection, id);
	time_text(inspection, when, sizeof when);
	printf("%s\n", inspection->path);
	if (inspection->info) {
		const ProtobufCMessage *info = &inspection->info->base;
		_free_ char *command = message_text(info, "command"), *host = message_text(info, "host");
		_free_ char *kernel = message_text(info, "kernel_release");
		_free_ char *version = message_text(info, "cairn_version");
		_free_ char *architecture = message_text(info, "architecture");
		printf("  program  %s (PID %" PRIu32 ")\n", command, inspection->info->root_pid);
		printf("  saved    %s on %s, Linux %s, %s, by Cairn %s\n", when, host, kernel, architecture, version);
	}
	printf("  image    %s, format %d%s\n", id, IMAGE_VERSION, image_reader_is_encrypted(inspection->reader) ? ", encrypted" : "");
	printf("  size     %s; %" PRIu64 " pages (%s), %zu records\n",
	       size_text(image_reader_size(inspection->reader), size), inspection->pages,
	       size_text(inspection->pages * IMAGE_PAGE, pages), inspection->records.count);
}

static void process_print(struct inspection *inspection, const struct process_view *view, int depth)
{
	const Cairn__Process *process = view->process;
	char stored[16];
	_free_ char *command = message_text(&process->base, "command");
	printf("  %7" PRIu32 " %7" PRIu32 " %7" PRIu32 " %7" PRIu32 " %7zu  %-7s %9s  %*s%s\n", process->pid,
	       process->parent_pid, process->group, process->session, view->threads, process_state(process),
	       size_text(process_stored(inspection, process) * IMAGE_PAGE, stored),
	       2 * (depth < 20 ? depth : 20), "", command);
}

/* @root and all below it, without recursion: how deep the tree is, is the image's choice. */
static void tree_print(struct inspection *inspection, const struct process_view *root)
{
	const struct process_view *view = root;
	for (int depth = 0;;) {
		process_print(inspection, view, depth);
		if (view->child) {
			view = view->child;
			depth++;
			continue;
		}
		while (view != root && !view->next) {
			view = view->parent;
			depth--;
		}
		if (view == root)
			return;
		view = view->next;
	}
}

static void processes_print(struct inspection *inspection)
{
	printf("\nProcesses\n  %7s %7s %7s %7s %7s  %-7s %9s  %s\n", "PID", "PARENT", "GROUP", "SESSION", "THREADS",
	       "STATE", "STORED", "COMMAND");
	for (size_t i = 0; i < inspection->processes.count; i++)
		if (!inspection->processes.at[i].parent)
			tree_print(inspection, &inspection->processes.at[i]);
}

static void spaces_print(const struct inspection *inspection)
{
	printf("\nMemory\n  %7s %8s %9s %9s  %s\n", "SPACE", "MAPPINGS", "MAPPED", "STORED", "OF");
	for (size_t i = 0; i < inspection->spaces.count; i++) {
		const struct space_view *view = &inspection->spaces.at[i];
		char mapped[16], stored[16];
		printf("  %7" PRIu32 " %8" PRIu64 " %9s %9s  %s\n", view->space, view->mappings,
		       size_text(view->mapped, mapped), size_text(view->stored * IMAGE_PAGE, stored),
		       view->what ? view->what : "-");
	}
}

static void descriptors_print(const struct inspection *inspection)
{
	printf("\nDescriptors\n  %7s %5s  %-16s %s\n", "PID", "FD", "KIND", "WHAT");
	for (size_t i = 0; i < inspection->processes.count; i++) {
		const struct process_view *view = &inspection->processes.at[i];
		for (size_t j = 0; view->fds && j < view->fds->n_entries; j++) {
			const Cairn__FdTable__Entry *entry = view->fds->entries[j];
			const struct decoded *record = file_find(inspection, entry->file);
			_free_ char *what = record ? file_text(record) : memory_format("file %" PRIu32, entry->file);
			printf("  %7" PRIu32 " %5" PRIu32 "  %-16s %s%s\n", view->process->pid, entry->fd,
			       record ? record->kind->name : "unknown", what,
			       entry->close_on_exec ? " (close on exec)" : "");
		}
	}
}

static int tag_compare(const void *a, const void *b)
{
	const struct decoded *const *left = a, *const *right = b;
	return (*left)->tag < (*right)->tag ? -1 : (*left)->tag > (*right)->tag;
}

static void kinds_print(const struct inspection *inspection)
{
	size_t count = inspection->records.count;
	_free_ const struct decoded **sorted = memory_new(count * sizeof *sorted);
	for (size_t i = 0; i < count; i++)
		sorted[i] = &inspection->records.at[i];
	qsort(sorted, count, sizeof *sorted, tag_compare);
	printf("\nRecords\n  %7s %7s %9s  %s\n", "TAG", "COUNT", "SIZE", "KIND");
	for (size_t i = 0, next; i < count; i = next) {
		uint64_t bytes = 0;
		char size[16];
		for (next = i; next < count && sorted[next]->tag == sorted[i]->tag; next++)
			bytes += sorted[next]->size;
		printf("  %7" PRIu32 " %7zu %9s  %s\n", sorted[i]->tag, next - i, size_text(bytes, size),
		       sorted[i]->kind ? sorted[i]->kind->name : "unknown");
	}
}

static void inspection_print(struct inspection *inspection)
{
	origin_print(inspection);
	processes_print(inspection);
	spaces_print(inspection);
	descriptors_print(inspection);
	kinds_print(inspection);
}

/* As one JSON object */

static json_t *descriptors_json(const struct inspection *inspection, const struct process_view *view)
{
	json_t *array = json_array();
	for (size_t i = 0; view->fds && i < view->fds->n_entries; i++) {
		const Cairn__FdTable__Entry *entry = view->fds->entries[i];
		const struct decoded *record = file_find(inspection, entry->file);
		_free_ char *what = record ? file_text(record) : memory_string("");
		json_array_append_new(array, json_pack("{s:I, s:I, s:s, s:o, s:b}", "fd", (json_int_t)entry->fd,
						       "file", (json_int_t)entry->file, "kind",
						       record ? record->kind->name : "unknown", "what",
						       cmd_text(what), "close_on_exec", entry->close_on_exec));
	}
	return array;
}

static json_t *processes_json(struct inspection *inspection)
{
	json_t *array = json_array();
	for (size_t i = 0; i < inspection->processes.count; i++) {
		const struct process_view *view = &inspection->processes.at[i];
		const Cairn__Process *process = view->process;
		json_array_append_new(
			array,
			json_pack("{s:I, s:I, s:I, s:I, s:o, s:s, s:I, s:I, s:I, s:o}", "pid",
				  (json_int_t)process->pid, "parent", (json_int_t)process->parent_pid, "group",
				  (json_int_t)process->group, "session", (json_int_t)process->session, "command",
				  cmd_text(process->command), "state", process_state(process), "threads",
				  (json_int_t)view->threads, "space", (json_int_t)process->space, "stored_pages",
				  (json_int_t)process_stored(inspection, process), "descriptors",
				  descriptors_json(inspection, view)));
	}
	return array;
}

static json_t *spaces_json(const struct inspection *inspection)
{
	json_t *array = json_array();
	for (size_t i = 0; i < inspection->spaces.count; i++) {
		const struct space_view *view = &inspection->spaces.at[i];
		json_array_append_new(array, json_pack("{s:I, s:I, s:I, s:I, s:o}", "space", (json_int_t)view->space,
						       "mappings", (json_int_t)view->mappings, "mapped_bytes",
						       (json_int_t)(view->mapped & INT64_MAX), "stored_pages",
						       (json_int_t)view->stored, "of",
						       cmd_text(view->what ? view->what : "")));
	}
	return array;
}

/* Every record by the name of its kind; unknown ones by tag and size. */
static json_t *records_json(const struct inspection *inspection)
{
	json_t *groups = json_object();
	for (size_t i = 0; i < inspection->records.count; i++) {
		const struct decoded *record = &inspection->records.at[i];
		const char *name = record->kind ? record->kind->name : "unknown";
		json_t *group = json_object_get(groups, name);
		if (!group) {
			group = json_array();
			json_object_set_new(groups, name, group);
		}
		json_array_append_new(group, record->message ? message_json(record->message) :
							       json_pack("{s:I, s:I}", "tag",
									 (json_int_t)record->tag, "size",
									 (json_int_t)record->size));
	}
	return groups;
}

static json_t *inspection_json(struct inspection *inspection)
{
	char id[33], when[64];
	id_text(inspection, id);
	time_text(inspection, when, sizeof when);
	return json_pack("{s:s, s:o, s:s, s:i, s:b, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "event", "image", "image",
			 cmd_text(inspection->path), "id", id, "format_version", IMAGE_VERSION, "encrypted",
			 image_reader_is_encrypted(inspection->reader), "saved", when,
			 "bytes", (json_int_t)image_reader_size(inspection->reader), "pages",
			 (json_int_t)inspection->pages, "record_count", (json_int_t)inspection->records.count,
			 "origin", inspection->info ? message_json(&inspection->info->base) : json_null(),
			 "processes", processes_json(inspection), "spaces", spaces_json(inspection), "records",
			 records_json(inspection));
}

struct inspect_options {
	const char *key;
};

static const struct cmd_option options[] = {
	{ "decrypt-key", 0, CMD_STRING, "FILE", DECRYPT_KEY_HELP, offsetof(struct inspect_options, key) },
	{ NULL },
};

static int inspect(const struct inspect_options *given, const struct cmd_common *common, struct fault *fault)
{
	struct inspection inspection = { 0 };
	uint8_t *key = NULL;
	int rc = given->key ? key_read(given->key, &key, fault) : 0;
	if (!rc)
		rc = inspection_init(&inspection, common->operands[0], key, fault);
	key_free(key);
	if (!rc && common->json)
		cmd_json(inspection_json(&inspection));
	else if (!rc)
		inspection_print(&inspection);
	inspection_finish(&inspection);
	return rc ? rc : cmd_flush(fault);
}

int cmd_inspect(int argc, char **argv)
{
	static const struct cmd_syntax syntax = {
		"inspect", "IMAGE", "Shows what is inside IMAGE (- is stdin): tree, memory, descriptors, sizes, origin.",
		options, 1, 1, false,
	};
	struct inspect_options given = { 0 };
	struct cmd_common common;
	struct fault fault;
	int rc = cmd_parse(&syntax, argc, argv, &given, &common, &fault);
	if (rc)
		return rc > 0 ? 0 : cmd_report(&common, &fault);
	return inspect(&given, &common, &fault) ? cmd_report(&common, &fault) : 0;
}
