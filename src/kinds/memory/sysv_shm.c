/* SPDX-License-Identifier: Apache-2.0 */
/* System V shared memory. The segment is an object: id, key, size, owner, mode, marked for removal, locked (/proc/sysvipc/shm); contents as
 * those of other shared memory, by /proc/PID/map_files or through the mappings (hidden.c). An attachment is what one shmat(2) made: all
 * mappings of a segment whose start less their offset is the same address; shmdt(2) takes them together, so they are made together, by one
 * shmat, and what was unmapped of it is unmapped again. The attach count follows by itself.
 *
 * One that nobody has attached is carried if a process of the tree made it or had it last. Cairn attaches it to read it, which is seen afterwards
 * (IPC_STAT: when, and by whom).
 *
 * A segment outlives the program. If it is still there at a restore, with its id, key and size, and nobody has it attached, it is taken, and
 * gets the contents of the image in the very last step; until then it stays as it is. In a private PID namespace segments lie in an
 * IPC namespace of its own. Not put back: times, and who attached last. Refused: a segment that others than the tree have attached, and an
 * attachment that overlaps another. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/pages.h"
#include "kinds/memory/hidden.h"
#include "kinds/sysv.h"
#include "kinds/table.h"

enum { PAGE = PAGES_SIZE, HUGE_SHIFT = 26 /* SHM_HUGE_SHIFT, include/uapi/linux/shm.h */ };

static bool is_segment(const struct map *map)
{
	return map->sysv;
}

static uint32_t segment_of(const struct map *map)
{
	return (uint32_t)(map->inode - MAP_SYSV_INODE);
}

static uint64_t attached_at(const struct map *map)
{
	return map->start - map->offset;
}

/* ---- the segment ---- */

static size_t count_attached(const struct harvest *harvest, uint32_t id)
{
	size_t count = 0;
	for (size_t s = 0; s < harvest->spaces.count; s++)
		for (size_t m = 0; m < harvest->spaces.at[s]->maps.maps.count; m++) {
			const struct map *map = &harvest->spaces.at[s]->maps.maps.at[m];
			count += is_segment(map) && segment_of(map) == id;
		}
	return count;
}

static int find_segment(uint32_t id, struct sysv_object *ret_object, struct fault *fault)
{
	struct sysv_list list;
	int rc = sysv_read(SYSV_SHM, &list, fault);
	if (rc < 0)
		return rc;
	const struct sysv_object *found = sysv_find(&list, id);
	if (found)
		*ret_object = *found;
	else
		rc = fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			       "shared memory segment %u: is not in this IPC namespace; try from inside that namespace", id);
	sysv_finish(&list);
	return rc;
}

static int check_outside(const struct harvest *harvest, const struct sysv_object *object, struct fault *fault)
{
	size_t inside = count_attached(harvest, object->id);
	if (object->attached <= inside || harvest->policy.outside == OUTSIDE_CLOSE)
		return 0;
	return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
			 "shared memory segment %u (key 0x%x): processes outside the tree have it attached as well; try to checkpoint a "
			 "common parent, or --outside close", object->id, (unsigned)object->key);
}

static int save_contents(struct harvest *harvest, const struct frozen_process *process, const struct map *map,
			 Cairn__SysvSegment *message, struct fault *fault)
{
	char path[96];
	snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", process->view, (unsigned long long)map->start,
		 (unsigned long long)map->end);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		harvest_contents(harvest, message->id, fd, message->size);
		return 0;
	}
	if (errno != EPERM)
		return fault_set(fault, fault_class_of(errno), errno, "shared memory segment %u: open %s: %s",
				 segment_of(map), path, strerror(errno));
	return hidden_add(harvest, process, map, message->id, ARENA_NEW(&harvest->arena, uint64_t), fault);
}

static int capture_map(struct harvest *harvest, const struct frozen_process *process, const struct map *map,
		       uint32_t *ret_object, struct fault *fault)
{
	bool is_new;
	*ret_object = harvest_object(harvest, map->device, map->inode, &is_new);
	if (!is_new)
		return 0;
	struct sysv_object object;
	int rc = find_segment(segment_of(map), &object, fault);
	if (rc == 0)
		rc = check_outside(harvest, &object, fault);
	if (rc < 0)
		return rc;
	Cairn__SysvSegment *message = HARVEST_MESSAGE(harvest, Cairn__SysvSegment, cairn__sysv_segment__init);
	message->id = *ret_object;
	message->object = sysv_capture(harvest, &object);
	message->size = object.size;
	message->removed = object.mode & SHM_DEST;
	message->locked = object.mode & SHM_LOCKED;
	message->huge_page_size = map->flags & MAP_FLAG_HUGETLB ? map->page_size : 0;
	harvest_add(harvest, &kind_sysv_segment, &message->base);
	return save_contents(harvest, process, map, message, fault);
}

static void detach(void *address)
{
	shmdt(address);
}

/* Of what is mapped at @at in Cairn itself; 0: ordinary pages. */
static int own_huge_page(struct harvest *harvest, uint64_t at, uint64_t *ret_size, struct fault *fault)
{
	struct map_list list = { 0 };
	int rc = maps_read(getpid(), true, &harvest->arena, &list, fault);
	*ret_size = 0;
	for (size_t i = 0; rc == 0 && i < list.maps.count; i++)
		if (list.maps.at[i].start == at && list.maps.at[i].flags & MAP_FLAG_HUGETLB)
			*ret_size = list.maps.at[i].page_size;
	maps_finish(&list);
	return rc;
}

static int capture_unattached(struct harvest *harvest, const struct sysv_object *object, struct fault *fault)
{
	char path[96];
	void *at = shmat((int)object->id, NULL, SHM_RDONLY);
	if (at == MAP_FAILED && (errno == EINVAL || errno == EIDRM))
		return 0; /* somebody has removed it */
	if (at == MAP_FAILED)
		return fault_set(fault, fault_class_of(errno), errno, "shared memory segment %u (key 0x%x): is attached by nobody, and Cairn may not: %s; try as root, or "
				 "as the user it belongs to", object->id, (unsigned)object->key, strerror(errno));
	*vec_add(&harvest->at_end) = (struct scoped_end){ detach, at };
	Cairn__SysvSegment *message = HARVEST_MESSAGE(harvest, Cairn__SysvSegment, cairn__sysv_segment__init);
	message->id = harvest_new_id(harvest);
	message->object = sysv_capture(harvest, object);
	message->size = object->size;
	message->locked = object->mode & SHM_LOCKED;
	const uint64_t start = (uint64_t)(uintptr_t)at;
	int rc = own_huge_page(harvest, start, &message->huge_page_size, fault);
	const uint64_t page = message->huge_page_size ? message->huge_page_size : PAGE, size = (object->size + page - 1) & ~(page - 1);
	if (rc < 0)
		return rc;
	harvest_add(harvest, &kind_sysv_segment, &message->base);
	snprintf(path, sizeof path, "/proc/self/map_files/%llx-%llx", (unsigned long long)start, (unsigned long long)(start + size));
	harvest_contents(harvest, message->id, open(path, O_RDONLY | O_CLOEXEC), message->size);
	struct contents *contents = &harvest->contents.at[harvest->contents.count - 1];
	if (contents->fd < 0)
		*vec_add(&contents->views) = (struct contents_view){ .pid = getpid(), .size = size, .address = start };
	return 0;
}

/* One of a job may have been made by Cairn, at a restore; and it comes back in an IPC namespace of its own. Elsewhere the contents of what is there at a restore
 * are overwritten: it has to be the tree's beyond doubt. */
static bool is_left_by_tree(const struct harvest *harvest, const struct sysv_object *object)
{
	const pid_t users[] = { object->maker, object->user };
	return harvest->policy.adopter ? sysv_is_of_tree(harvest, object, users, 2) : sysv_is_used_by_tree(harvest, users, 2);
}

static int capture_tree(struct harvest *harvest, struct fault *fault)
{
	struct sysv_list list;
	int rc = sysv_read(SYSV_SHM, &list, fault);
	for (size_t i = 0; rc == 0 && i < list.objects.count; i++) {
		const struct sysv_object *object = &list.objects.at[i];
		if (!object->attached && is_left_by_tree(harvest, object))
			rc = capture_unattached(harvest, object, fault);
	}
	sysv_finish(&list);
	return rc;
}

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSegment *message = (const Cairn__SysvSegment *)base;
	if (!message->id || !sysv_possible(message->object) || !message->size || message->size > UINT64_C(1) << 46 ||
	    message->huge_page_size & (message->huge_page_size - 1))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "shared memory segment %u has impossible values", message->id);
	return 0;
}

static uint64_t page_size(const Cairn__SysvSegment *message)
{
	return message->huge_page_size ? message->huge_page_size : PAGE;
}

static int huge_flags(const Cairn__SysvSegment *message)
{
	return message->huge_page_size ? SHM_HUGETLB | (__builtin_ctzll(message->huge_page_size) << HUGE_SHIFT) : 0;
}

static int get_segment(int key, uint64_t size, int flags)
{
	return shmget(key, size, flags);
}

static void remove_segment(uint64_t id)
{
	shmctl((int)id, IPC_RMID, NULL);
}

/* Of one that is there already. */
static int take(const Cairn__SysvSegment *message, const struct sysv_object *now, struct fault *fault)
{
	if (now->size == message->size && !now->attached && !(now->mode & SHM_DEST))
		return 0;
	return fault_set(fault, FAULT_FAILED, EEXIST,
			 "shared memory segment %u (key 0x%x): is there, and %s; try to end who uses it, ipcrm(1), or --pids private",
			 message->object->ipc_id, (unsigned)message->object->key,
			 now->attached ? "is attached by others" : "has another size");
}

static void *room_for_contents(uint64_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/* Contents of a new one are loaded into it; of one that was there, beside it, until commit. */
static int make(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSegment *message = (const Cairn__SysvSegment *)base;
	struct sysv_object now;
	int rc = workshop_separate_ipc(workshop, fault);
	if (rc == 0)
		rc = sysv_look(SYSV_SHM, message->object, &now, fault);
	if (rc < 0)
		return rc;
	bool there = rc == 1;
	if (there)
		rc = take(message, &now, fault);
	else
		rc = sysv_make(workshop, SYSV_SHM, message->object, get_segment, message->size, huge_flags(message), remove_segment, fault);
	if (rc < 0)
		return rc;
	void *memory = there ? room_for_contents(message->size) : shmat((int)message->object->ipc_id, NULL, 0);
	if (memory == MAP_FAILED)
		return fault_set(fault, fault_class_of(errno), errno, "shared memory segment %u: %s", message->object->ipc_id,
				 strerror(errno));
	workshop_put_memory(workshop, message->id, memory, (message->size + page_size(message) - 1) & ~(page_size(message) - 1));
	return 0;
}

static int set_owner(const Cairn__SysvSegment *message, struct fault *fault)
{
	int id = (int)message->object->ipc_id;
	struct shmid_ds status;
	if (shmctl(id, IPC_STAT, &status) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "shared memory segment %d: %s", id, strerror(errno));
	status.shm_perm.uid = message->object->uid;
	status.shm_perm.gid = message->object->gid;
	status.shm_perm.mode = (unsigned short)message->object->mode;
	if (shmctl(id, IPC_SET, &status) < 0 && errno != EINVAL) /* an id that this namespace does not know */
		return fault_set(fault, fault_class_of(errno), errno, "shared memory segment %d: owner: %s", id, strerror(errno));
	if (message->locked && shmctl(id, SHM_LOCK, NULL) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "shared memory segment %d: lock: %s", id, strerror(errno));
	return 0;
}

/* What is not in the image are holes. */
static void overwrite(uint8_t *segment, const uint8_t *loaded, uint64_t size, uint64_t page)
{
	static const uint8_t zeros[PAGE];
	madvise(segment, (size + page - 1) & ~(page - 1), MADV_REMOVE);
	for (uint64_t at = 0; at < size; at += PAGE) {
		size_t some = size - at < PAGE ? size - at : PAGE;
		if (memcmp(loaded + at, zeros, some))
			memcpy(segment + at, loaded + at, some);
	}
}

static int commit(struct workshop *workshop, const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__SysvSegment *message = (const Cairn__SysvSegment *)base;
	int id = (int)message->object->ipc_id;
	uint64_t size;
	void *loaded = workshop_memory(workshop, message->id, &size);
	if (shmdt(loaded) < 0) { /* it lies beside */
		void *segment = shmat(id, NULL, 0);
		if (segment == MAP_FAILED)
			return fault_set(fault, fault_class_of(errno), errno, "shared memory segment %d: %s", id, strerror(errno));
		overwrite(segment, loaded, message->size, page_size(message));
		shmdt(segment);
		munmap(loaded, size);
	}
	int rc = set_owner(message, fault);
	if (rc == 0 && message->removed)
		remove_segment((uint64_t)id);
	return rc;
}

const struct kind kind_sysv_segment = {
	.name = "shared memory segment",
	.tag = 37,
	.scope = SCOPE_OBJECT,
	.descriptor = &cairn__sysv_segment__descriptor,
	.owner_field = "id",
	.probe_map = is_segment,
	.capture_map = capture_map,
	.capture_tree = capture_tree,
	.check = check,
	.make = make,
	.commit = commit,
};

/* ---- the attachments of a space ---- */

static bool is_first(const struct frozen_space *space, size_t index)
{
	const struct map *map = &space->maps.maps.at[index];
	for (size_t i = 0; i < index; i++) {
		const struct map *other = &space->maps.maps.at[i];
		if (is_segment(other) && other->inode == map->inode && attached_at(other) == attached_at(map))
			return false;
	}
	return true;
}

static void add_gap(Cairn__Attachment *message, uint64_t start, uint64_t end)
{
	if (start >= end)
		return;
	message->gaps[message->n_gaps++] = start;
	message->gaps[message->n_gaps++] = end;
}

static Cairn__Attachment *new_attachment(struct harvest *harvest, const struct frozen_space *space, size_t index,
					 uint64_t size)
{
	const struct map *first = &space->maps.maps.at[index];
	Cairn__Attachment *message = HARVEST_MESSAGE(harvest, Cairn__Attachment, cairn__attachment__init);
	message->space = space->id;
	message->segment = space->objects[index];
	message->ipc_id = segment_of(first);
	message->address = attached_at(first);
	const uint64_t page = first->flags & MAP_FLAG_HUGETLB ? first->page_size : PAGE;
	message->size = (size + page - 1) & ~(page - 1);
	message->gaps = ARENA_ARRAY(&harvest->arena, uint64_t, 2 * (space->maps.maps.count - index + 1));
	message->read_only = !(first->flags & MAP_FLAG_MAY_WRITE);
	uint64_t at = message->address;
	for (size_t i = index; i < space->maps.maps.count; i++) {
		const struct map *map = &space->maps.maps.at[i];
		if (!is_segment(map) || map->inode != first->inode || attached_at(map) != message->address)
			continue;
		message->execute |= map->protection & PROT_EXEC;
		add_gap(message, at, map->start);
		at = map->end;
	}
	add_gap(message, at, message->address + message->size);
	return message;
}

/* shmat(2) wants all of its range free: does it hit a part of @other that is left? */
static bool is_in_the_way(const Cairn__Attachment *message, const Cairn__Attachment *other)
{
	uint64_t start = message->address, end = start + message->size, at = other->address;
	for (size_t i = 0; i <= other->n_gaps; i += 2) {
		uint64_t kept_end = i < other->n_gaps ? other->gaps[i] : other->address + other->size;
		if (at < kept_end && at < end && start < kept_end)
			return true;
		at = i < other->n_gaps ? other->gaps[i + 1] : kept_end;
	}
	return false;
}

/* In the gaps of one attachment others may lie: each is made before those in whose way it is not. */
static int add_in_order(struct harvest *harvest, Cairn__Attachment **left, size_t count, struct fault *fault)
{
	while (count) {
		size_t next = 0, other = 0;
		for (; next < count; next++) {
			for (other = 0; other < count; other++)
				if (other != next && is_in_the_way(left[other], left[next]))
					break;
			if (other == count)
				break;
		}
		if (next == count)
			return fault_set(fault, FAULT_UNSUPPORTED, ENOTSUP,
					 "shared memory attached at 0x%llx lies across what is left of another, which this version "
					 "cannot make again; try to checkpoint when one of them is detached",
					 (unsigned long long)left[0]->address);
		harvest_add(harvest, &kind_attachment, &left[next]->base);
		left[next] = left[--count];
	}
	return 0;
}

static int capture(struct harvest *harvest, struct frozen_thread *thread, const struct batch *batch, void *note,
		   struct fault *fault)
{
	const struct frozen_space *space = thread->process->space;
	VEC(Cairn__Attachment *) attachments = { 0 };
	int rc = 0;
	(void)batch, (void)note;
	for (size_t i = 0; rc == 0 && i < space->maps.maps.count; i++) {
		struct sysv_object object;
		if (!is_segment(&space->maps.maps.at[i]) || !is_first(space, i))
			continue;
		rc = find_segment(segment_of(&space->maps.maps.at[i]), &object, fault);
		if (rc == 0)
			*vec_add(&attachments) = new_attachment(harvest, space, i, object.size);
	}
	if (rc == 0)
		rc = add_in_order(harvest, attachments.at, attachments.count, fault);
	vec_finish(&attachments);
	return rc;
}

static int check_attachment(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__Attachment *message = (const Cairn__Attachment *)base;
	const uint64_t user_end = UINT64_C(1) << 47;
	uint64_t at = message->address;
	bool possible = message->segment && message->size && message->address < user_end &&
			message->size <= user_end - message->address && !((message->address | message->size) & (PAGE - 1)) &&
			message->n_gaps % 2 == 0;
	for (size_t i = 0; possible && i < message->n_gaps; i++) {
		possible = message->gaps[i] >= at && message->gaps[i] <= message->address + message->size &&
			   !(message->gaps[i] & (PAGE - 1));
		at = message->gaps[i];
	}
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "an attachment at 0x%llx has impossible values",
					(unsigned long long)message->address);
}

static int rebuild(struct newborn_thread *thread, const ProtobufCMessage *base, struct batch *batch,
		   struct fault *fault)
{
	const Cairn__Attachment *message = (const Cairn__Attachment *)base;
	uint64_t size;
	if (!workshop_memory(thread->process->workshop, message->segment, &size))
		return fault_set(fault, FAULT_IMAGE, EINVAL, "attachment at 0x%llx refers to segment %u, which is missing",
				 (unsigned long long)message->address, message->segment);
	batch_call(batch, shmat, message->ipc_id, message->address,
		   (message->read_only ? SHM_RDONLY : 0) | (message->execute ? SHM_EXEC : 0));
	for (size_t i = 0; i < message->n_gaps; i += 2)
		batch_call(batch, munmap, message->gaps[i], message->gaps[i + 1] - message->gaps[i]);
	return 0;
}

const struct kind kind_attachment = {
	.name = "attachment",
	.tag = 38,
	.scope = SCOPE_SPACE,
	.descriptor = &cairn__attachment__descriptor,
	.owner_field = "space",
	.capture = capture,
	.check = check_attachment,
	.rebuild = rebuild,
};
