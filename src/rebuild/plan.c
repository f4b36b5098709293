/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "kernel/host.h"

/* A map from an id to a thing, sorted for search. */
struct id_entry {
	uint32_t id;
	void *thing;
};
struct id_index {
	VEC(struct id_entry) entries;
};

static int id_compare(const void *a, const void *b)
{
	uint32_t x = ((const struct id_entry *)a)->id, y = ((const struct id_entry *)b)->id;
	return (x > y) - (x < y);
}

static void id_add(struct id_index *index, uint32_t id, void *thing)
{
	struct id_entry *entry = vec_add(&index->entries);
	*entry = (struct id_entry){ id, thing };
}

/* Sorts; a number that occurs twice is a fault. */
static int id_seal(struct id_index *index, const char *what, struct fault *fault)
{
	if (index->entries.count)
		qsort(index->entries.at, index->entries.count, sizeof *index->entries.at, id_compare);
	for (size_t i = 1; i < index->entries.count; i++)
		if (index->entries.at[i].id == index->entries.at[i - 1].id)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: %s %u occurs twice", what,
					 index->entries.at[i].id);
	return 0;
}

static void *id_find(const struct id_index *index, uint32_t id)
{
	struct id_entry key = { .id = id };
	struct id_entry *entry = index->entries.count ? bsearch(&key, index->entries.at, index->entries.count,
								 sizeof key, id_compare) : NULL;
	return entry ? entry->thing : NULL;
}

struct loader {
	struct plan *plan;
	struct id_index processes, threads, spaces, objects, files;
};

/* The path in a record becomes the one that it has here. */
static int map_path(const struct plan_record *record, const struct path_maps *maps, struct fault *fault)
{
	const char *name = record->kind->path_field;
	const ProtobufCFieldDescriptor *field =
		name ? protobuf_c_message_descriptor_get_field_by_name(record->kind->descriptor, name) : NULL;
	if (!field)
		return 0;
	char **path = (char **)(void *)((char *)record->message + field->offset), *mapped;
	int rc = path_maps_apply(maps, *path, &mapped, fault);
	if (rc < 0 || !mapped)
		return rc;
	log_debug("restore: %s %s is %s here", record->kind->name, *path, mapped);
	free(*path);
	*path = mapped;
	return 0;
}

static int unpack(struct plan *plan, const struct image_record *raw, const struct path_maps *maps, struct fault *fault)
{
	const struct kind *kind = kind_by_tag(raw->tag);
	if (!kind)
		return fault_set(fault, FAULT_IMAGE, EINVAL,
				 "holds a record of kind %u, which this Cairn does not know; try a newer Cairn", raw->tag);
	ProtobufCMessage *message = kind_unpack(kind, raw->data, raw->size);
	if (!message)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: a record of kind \"%s\" cannot be decoded",
				 kind->name);
	struct plan_record *record = vec_add(&plan->records);
	*record = (struct plan_record){ kind, message, NULL };
	return map_path(record, maps, fault);
}

static void index_record(struct loader *loader, const struct plan_record *record)
{
	struct plan *plan = loader->plan;
	uint32_t id = kind_owner(record->kind, record->message);
	if (record->kind->descriptor == &cairn__image_info__descriptor) {
		plan->info = (const Cairn__ImageInfo *)record->message;
	} else if (record->kind->descriptor == &cairn__process__descriptor) {
		struct plan_process *process = ARENA_NEW(&plan->arena, struct plan_process);
		process->process = (const Cairn__Process *)record->message;
		*vec_add(&plan->processes) = process;
		id_add(&loader->processes, id, process);
	} else if (record->kind->descriptor == &cairn__thread__descriptor) {
		struct plan_thread *thread = ARENA_NEW(&plan->arena, struct plan_thread);
		thread->tid = id;
		thread->thread = (const Cairn__Thread *)record->message;
		id_add(&loader->threads, id, thread);
	} else if (record->kind->descriptor == &cairn__address_space__descriptor) {
		struct plan_space *space = ARENA_NEW(&plan->arena, struct plan_space);
		space->id = id;
		*vec_add(&plan->spaces) = space;
		id_add(&loader->spaces, id, space);
	} else if (record->kind->scope == SCOPE_OBJECT) {
		*vec_add(&plan->objects) = *record;
		id_add(&loader->objects, id, record->message);
	} else if (record->kind->scope == SCOPE_FILE) {
		*vec_add(&plan->files) = *record;
		id_add(&loader->files, id, record->message);
	}
	if ((record->kind->scope == SCOPE_OBJECT || record->kind->scope == SCOPE_FILE) && id > plan->highest_id)
		plan->highest_id = id;
}

static int missing(const char *what, uint32_t id, const struct kind *kind, struct fault *fault)
{
	return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: a record of kind \"%s\" refers to %s %u, which is missing",
			 kind->name, what, id);
}

/* Puts a record where it belongs. */
static int link_record(struct loader *loader, const struct plan_record *record, struct fault *fault)
{
	uint32_t id = kind_owner(record->kind, record->message);
	if (record->kind->scope == SCOPE_PROCESS) {
		struct plan_process *process = id_find(&loader->processes, id);
		if (!process)
			return missing("process", id, record->kind, fault);
		if (record->kind->descriptor == &cairn__fd_table__descriptor)
			process->descriptors = (const Cairn__FdTable *)record->message;
		*vec_add(&process->records) = *record;
	} else if (record->kind->scope == SCOPE_THREAD) {
		struct plan_thread *thread = id_find(&loader->threads, id);
		if (!thread)
			return missing("thread", id, record->kind, fault);
		*vec_add(&thread->records) = *record;
	} else if (record->kind->scope == SCOPE_SPACE) {
		struct plan_space *space = id_find(&loader->spaces, id);
		if (!space)
			return missing("address space", id, record->kind, fault);
		*vec_add(&space->records) = *record;
	}
	uint32_t needed = record->kind->needs ? record->kind->needs(record->message) : 0;
	if (needed && !id_find(&loader->objects, needed))
		return missing("object", needed, record->kind, fault);
	return 0;
}

static int link_threads(struct loader *loader, struct fault *fault)
{
	for (size_t i = 0; i < loader->plan->records.count; i++) {
		const struct plan_record *record = &loader->plan->records.at[i];
		if (record->kind->descriptor != &cairn__thread__descriptor)
			continue;
		const Cairn__Thread *thread = (const Cairn__Thread *)record->message;
		struct plan_process *process = id_find(&loader->processes, thread->pid);
		if (!process)
			return missing("process", thread->pid, record->kind, fault);
		if (!process->threads.count && thread->tid != thread->pid)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: process %u has no leader", thread->pid);
		*vec_add(&process->threads) = id_find(&loader->threads, thread->tid);
	}
	return 0;
}

static int link_process(struct loader *loader, struct plan_process *process, size_t index, struct fault *fault)
{
	const Cairn__Process *record = process->process;
	bool first = index == 0;
	process->index = index;
	process->parent = record->parent_pid ? id_find(&loader->processes, record->parent_pid) : NULL;
	process->space = record->space ? id_find(&loader->spaces, record->space) : NULL;
	/* Further roots are orphans that the tree's reaper had adopted. */
	if ((first ? record->parent_pid != 0 : record->parent_pid && !process->parent) ||
	    (process->parent && (process->parent->process->zombie || process->parent == process ||
				 /* it has no index yet: parents come first */
				 loader->plan->processes.at[process->parent->index] != process->parent)))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: process %u has an impossible parent %u", record->pid,
				 record->parent_pid);
	bool lives = process->threads.count && !process->threads.at[0]->thread->ended;
	if (record->zombie)
		return !process->parent || process->threads.count ?
			       fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: zombie %u lives", record->pid) : 0;
	for (size_t i = 1; i < process->threads.count; i++)
		lives |= !process->threads.at[i]->thread->ended;
	if (!process->space || !lives || (!process->descriptors && !record->files_with))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: process %u has no memory, threads or descriptors",
				 record->pid);
	for (size_t i = 0; process->descriptors && i < process->descriptors->n_entries; i++) {
		const Cairn__FdTable__Entry *entry = process->descriptors->entries[i];
		if (!id_find(&loader->files, entry->file))
			return fault_set(fault, FAULT_IMAGE, EINVAL,
					 "damaged: process %u, fd %u refers to file %u, which is missing", record->pid,
					 entry->fd, entry->file);
		if (entry->fd > loader->plan->highest_fd)
			loader->plan->highest_fd = entry->fd;
	}
	return 0;
}

static int check_overlap(const struct plan_space *space, struct fault *fault)
{
	uint64_t end = 0;
	for (size_t i = 0; i < space->records.count; i++) {
		if (space->records.at[i].kind->descriptor != &cairn__vma__descriptor)
			continue;
		const Cairn__Vma *vma = (const Cairn__Vma *)space->records.at[i].message;
		if (vma->start < end)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: mappings at 0x%llx overlap",
					 (unsigned long long)vma->start);
		end = vma->end;
	}
	return 0;
}

/* Bytes of [@start, @end) that mappings take which a kind makes; of all others, of mappings that lie there in part, none count. */
static uint64_t made_bytes(const struct plan_space *space, uint64_t start, uint64_t end)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < space->records.count; i++) {
		const struct plan_record *record = &space->records.at[i];
		const Cairn__Vma *vma = record->kind->descriptor == &cairn__vma__descriptor ? (const Cairn__Vma *)record->message : NULL;
		if (vma && vma->kind == VMA_MADE && vma->start >= start && vma->end <= end)
			bytes += vma->end - vma->start;
	}
	return bytes;
}

/* What kinds make where they want (place) is what mappings say, and the other way round. */
static int check_made(const struct plan_space *space, struct fault *fault)
{
	uint64_t covered = 0;
	for (size_t i = 0; i < space->records.count; i++) {
		const struct plan_record *record = &space->records.at[i];
		uint64_t start, end;
		if (!record->kind->covers)
			continue;
		record->kind->covers(record->message, &start, &end);
		if (made_bytes(space, start, end) != end - start)
			return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: %s at 0x%llx lies where its mapping does not", record->kind->name, (unsigned long long)start);
		covered += end - start;
	}
	if (made_bytes(space, 0, UINT64_MAX) != covered)
		return fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: a mapping that belongs to nothing that makes it");
	return 0;
}

/* Values of single records; what they want of this host is asked in plan_check_host. */
static int check_values(const struct plan *plan, struct fault *fault)
{
	for (size_t i = 0; i < plan->records.count; i++) {
		const struct plan_record *record = &plan->records.at[i];
		int rc = record->kind->scope == SCOPE_FILE ? kind_check_open(record->kind, record->message, fault) : 0;
		if (rc == 0 && record->kind->check)
			rc = record->kind->check(record->message, fault);
		if (rc < 0 && fault->class == FAULT_IMAGE)
			return fault_at(fault, rc, "damaged");
	}
	return 0;
}

static int link_all(struct loader *loader, struct fault *fault)
{
	struct plan *plan = loader->plan;
	for (size_t i = 0; i < plan->records.count; i++)
		index_record(loader, &plan->records.at[i]);
	int rc = id_seal(&loader->processes, "process", fault);
	if (rc == 0)
		rc = id_seal(&loader->threads, "thread", fault);
	if (rc == 0)
		rc = id_seal(&loader->spaces, "address space", fault);
	if (rc == 0)
		rc = id_seal(&loader->objects, "object", fault);
	if (rc == 0)
		rc = id_seal(&loader->files, "file", fault);
	if (rc == 0)
		rc = check_values(plan, fault);
	for (size_t i = 0; rc == 0 && i < plan->records.count; i++)
		rc = link_record(loader, &plan->records.at[i], fault);
	if (rc == 0)
		rc = link_threads(loader, fault);
	for (size_t i = 0; rc == 0 && i < plan->processes.count; i++)
		rc = link_process(loader, plan->processes.at[i], i, fault);
	if (rc == 0)
		rc = plan_link_sharing(plan, fault);
	for (size_t i = 0; rc == 0 && i < plan->spaces.count; i++)
		rc = check_overlap(plan->spaces.at[i], fault);
	for (size_t i = 0; rc == 0 && i < plan->spaces.count; i++)
		rc = check_made(plan->spaces.at[i], fault);
	if (rc == 0 && (!plan->info || !plan->processes.count || plan->highest_id > 1u << 24))
		rc = fault_set(fault, FAULT_IMAGE, EINVAL, "damaged: says nothing of itself, or has no processes");
	return rc;
}

int plan_load(const struct image_reader *reader, const struct path_maps *maps, struct plan *ret_plan, struct fault *fault)
{
	struct plan plan = { 0 };
	struct loader loader = { .plan = &plan };
	const struct image_record *raw;
	size_t count = image_reader_records(reader, &raw);
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = unpack(&plan, &raw[i], maps, fault);
	if (rc == 0)
		rc = link_all(&loader, fault);
	if (rc == 0 && plan.info && !strcmp(plan.info->architecture, host_architecture()))
		plan_convert_registers(&plan);
	vec_finish(&loader.processes.entries);
	vec_finish(&loader.threads.entries);
	vec_finish(&loader.spaces.entries);
	vec_finish(&loader.objects.entries);
	vec_finish(&loader.files.entries);
	if (rc < 0)
		plan_finish(&plan);
	else
		*ret_plan = plan;
	return rc;
}

void plan_finish(struct plan *plan)
{
	if (!plan)
		return;
	for (size_t i = 0; i < plan->processes.count; i++) {
		for (size_t t = 0; t < plan->processes.at[i]->threads.count; t++)
			vec_finish(&plan->processes.at[i]->threads.at[t]->records);
		vec_finish(&plan->processes.at[i]->threads);
		vec_finish(&plan->processes.at[i]->records);
	}
	for (size_t i = 0; i < plan->spaces.count; i++)
		vec_finish(&plan->spaces.at[i]->records);
	for (size_t i = 0; i < plan->records.count; i++)
		protobuf_c_message_free_unpacked(plan->records.at[i].message, NULL);
	vec_finish(&plan->records);
	vec_finish(&plan->processes);
	vec_finish(&plan->spaces);
	vec_finish(&plan->objects);
	vec_finish(&plan->files);
	arena_finish(&plan->arena);
	*plan = (struct plan){ 0 };
}

/* Which sessions can be made again: a process gets its session from its parent at birth, or makes it itself. */
static bool plan_has_process(const struct plan *plan, uint32_t pid)
{
	for (size_t i = 0; i < plan->processes.count; i++)
		if (plan->processes.at[i]->process->pid == pid)
			return true;
	return false;
}

static int check_session(const struct plan *plan, const struct plan_process *process, struct fault *fault)
{
	const Cairn__Process *record = process->process;
	if (!process->parent || record->session == record->pid)
		return 0;
	/* A session whose leader has ended is led by a helper when its members are born (rebuild/spawn.c). */
	if (!record->session_outside && !plan_has_process(plan, record->session))
		return 0;
	for (const struct plan_process *up = process->parent; up; up = up->parent) {
		if (up->process->session == record->session)
			return 0;
		/* Only a session that an ancestor had before it made its own can have been handed down. */
		if (up->process->session != up->process->pid)
			break;
	}
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "process %u (%s): is in session %u, which none of its ancestors was in; this version cannot make "
			 "that again", record->pid, record->command, record->session);
}

/* The path in a record, NULL: it has none. */
static const char *path_of(const struct plan_record *record)
{
	const char *name = record->kind->path_field;
	const ProtobufCFieldDescriptor *field =
		name ? protobuf_c_message_descriptor_get_field_by_name(record->kind->descriptor, name) : NULL;
	return field ? *(const char *const *)(const void *)((const char *)record->message + field->offset) : NULL;
}

/* Does another record give this record's file back what it held? */
static bool is_put_back(const struct plan *plan, const struct plan_record *record, bool roll_back)
{
	const char *path = path_of(record);
	for (size_t i = 0; path && i < plan->objects.count; i++) {
		const struct plan_record *other = &plan->objects.at[i];
		const char *put_back = other->kind->puts_back && other->kind->puts_back(other->message, roll_back) ? path_of(other) : NULL;
		if (put_back && !strcmp(put_back, path))
			return true;
	}
	return false;
}

static bool is_rolled_back(const struct plan *plan, const struct plan_record *record, bool roll_back, const struct fault *fault)
{
	if (roll_back && fault->error == EFBIG && record->kind->commit)
		return true;
	return (fault->error == EFBIG || fault->error == ESTALE || fault->error == ENOENT) && is_put_back(plan, record, roll_back);
}

/* Said once of each address. */
static void check_network(const struct plan *plan, const struct plan_policy *policy, struct fault_list *refusals)
{
	const size_t first = refusals->count;
	for (size_t i = 0; i < plan->records.count; i++) {
		const struct plan_record *record = &plan->records.at[i];
		struct fault fault;
		bool is_known = record->redirect || !record->kind->check_network ||
				record->kind->check_network(record->message, policy->closes_tcp, &fault) == 0;
		for (size_t r = first; !is_known && r < refusals->count; r++)
			is_known = !strcmp(refusals->at[r].text, fault.text);
		if (!is_known)
			fault_list_add(refusals, &fault);
	}
}

void plan_check_host(const struct plan *plan, const struct plan_policy *policy, struct fault_list *refusals)
{
	struct fault fault;
	if (strcmp(plan->info->architecture, host_architecture()) || plan->info->page_size != 4096) {
		fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP, "was made on %s; try a host of that architecture",
			  plan->info->architecture);
		fault_list_add(refusals, &fault);
	} else {
		plan_check_processor(plan, policy->force_cpu, refusals);
		plan_check_vdso(plan, refusals);
	}
	for (size_t i = 0; i < plan->records.count; i++) {
		const struct plan_record *record = &plan->records.at[i];
		if (policy->is_clone && !policy->closes_tcp && record->kind->is_unique && record->kind->is_unique(record->message)) {
			fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP, "a %s that is connected to the outside can go on in one program only; try --tcp close, "
				  "or no --clones", record->kind->name);
			fault_list_add(refusals, &fault);
		}
		if (policy->is_clone && record->kind->puts_back && record->kind->puts_back(record->message, false)) {
			fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP, "%s: is shared memory with a name, or a file that is to be made again, which all "
				  "clones would have together; try without --clones, or put the file there", path_of(record));
			fault_list_add(refusals, &fault);
		}
		if (record->redirect || !record->kind->check || record->kind->check(record->message, &fault) == 0)
			continue;
		if (policy->ignore_changed_files && (fault.error == ESTALE || fault.error == EFBIG))
			continue;
		if (is_rolled_back(plan, record, policy->roll_back, &fault)) {
			log_info("restore: rolls back what differs: %s", fault.text);
			continue;
		}
		fault_list_add(refusals, &fault);
	}
	if (!plan->info->own_network) /* which the restore makes */
		check_network(plan, policy, refusals);
	plan_check_huge_pages(plan, refusals);
	if (policy->any_pids)
		plan_check_numbers(plan, refusals);
	for (size_t i = 0; i < plan->processes.count; i++)
		if (check_session(plan, plan->processes.at[i], &fault) < 0)
			fault_list_add(refusals, &fault);
}
