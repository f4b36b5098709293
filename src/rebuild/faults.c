/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

/* Made by the newborn, whose address space it is for ever; Cairn keeps a copy of it. */
static int take_descriptor(struct rebuild_process *process, uint64_t flags, int pidfd, int *ret_fd, struct fault *fault)
{
	struct newborn_thread *leader = newborn_leader(process);
	struct batch batch;
	newborn_batch(&process->newborn, &batch);
	batch_group(&batch, 1, 0);
	size_t made = batch_call(&batch, userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);
	int rc = newborn_run(leader, &batch, fault);
	int theirs = rc == 0 ? (int)batch_result(&batch, made) : -1;
	batch_finish(&batch);
	if (rc < 0)
		return rc;
	int own = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0), error = errno;
	newborn_batch(&process->newborn, &batch);
	batch_group(&batch, 1, 0);
	batch_call(&batch, close, (uint64_t)theirs);
	rc = newborn_run(leader, &batch, fault);
	batch_finish(&batch);
	if (rc == 0 && own < 0)
		return fault_set(fault, fault_class_of(error), error, "pidfd_getfd: %s", strerror(error));
	if (rc < 0 && own >= 0)
		close(own);
	*ret_fd = own;
	return rc;
}

static bool is_ours(const Cairn__Vma *vma, bool events)
{
	/* Locked memory is wanted at once; huge pages come whole only. */
	return !vma->huge_page_size && !vma->file && !vma->shared && !(events && (vma->flags & MAP_FLAG_LOCKED));
}

static int register_ranges(const struct rebuild_process *process, bool events, struct fault_space *space)
{
	const struct plan_space *plan = process->plan->space;
	for (size_t i = 0; i < plan->records.count; i++) {
		const Cairn__Vma *vma = (const Cairn__Vma *)plan->records.at[i].message;
		if (vma->base.descriptor != &cairn__vma__descriptor || !is_ours(vma, events))
			continue;
		struct fault_range *last = space->ranges.count ? &space->ranges.at[space->ranges.count - 1] : NULL;
		struct uffdio_register wanted = { .range = { vma->start, vma->end - vma->start },
						  .mode = UFFDIO_REGISTER_MODE_MISSING };
		if (ioctl(space->userfaultfd, UFFDIO_REGISTER, &wanted) < 0)
			return -errno;
		if (last && last->end == vma->start)
			last->end = vma->end;
		else
			*vec_add(&space->ranges) = (struct fault_range){ vma->start, vma->end };
	}
	return 0;
}

int faults_begin(struct rebuild_process *process, bool events, struct fault_space *ret_space, struct fault *fault)
{
	struct fault_space space = { .space = process->plan->space->id, .pid = process->newborn.pid, .userfaultfd = -1,
				     .pidfd = (int)syscall(SYS_pidfd_open, process->newborn.pid, 0) };
	const uint64_t features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |
				  UFFD_FEATURE_EVENT_UNMAP;
	struct uffdio_api api = { .api = UFFD_API, .features = events ? features : 0 };
	int rc = take_descriptor(process, events ? 0 : UFFD_USER_MODE_ONLY, space.pidfd, &space.userfaultfd, fault);
	if (rc < 0) {
		faults_end(&space);
		return rc;
	}
	rc = ioctl(space.userfaultfd, UFFDIO_API, &api) < 0 ? -errno : register_ranges(process, events, &space);
	if (rc < 0) {
		faults_end(&space);
		return fault_set(fault, fault_class_of(-rc), -rc, "process %d: userfaultfd: %s", process->newborn.pid, strerror(-rc));
	}
	*ret_space = space;
	return 0;
}

void faults_end(struct fault_space *space)
{
	if (space->userfaultfd >= 0)
		close(space->userfaultfd);
	if (space->pidfd >= 0)
		close(space->pidfd);
	space->userfaultfd = space->pidfd = -1;
	vec_finish(&space->ranges);
}

uint64_t faults_stretch(const struct fault_space *space, uint64_t start, uint64_t end, bool *ret_covered)
{
	size_t low = 0, high = space->ranges.count;
	while (low < high) { /* the first that ends behind @start */
		size_t middle = (low + high) / 2;
		if (space->ranges.at[middle].end <= start)
			low = middle + 1;
		else
			high = middle;
	}
	const struct fault_range *range = low < space->ranges.count ? &space->ranges.at[low] : NULL;
	*ret_covered = range && range->start <= start;
	uint64_t edge = !range ? end : *ret_covered ? range->end : range->start;
	return edge < end ? edge : end;
}

/* The kernel takes a range only whole and only within one mapping (mm/userfaultfd.c uffd_mfill_lock, 6.18): for one that spans several it says
 * ENOENT, as where nothing is mapped. It is halved until it is one or the other. */
enum faults_put faults_put(int userfaultfd, uint64_t address, const void *data, uint32_t pages)
{
	uint64_t left = (uint64_t)pages * PAGES_SIZE, most = left, done = 0;
	while (left > 0) {
		struct uffdio_copy copy = {
			.dst = address + done, .src = (uintptr_t)data + done, .len = most < left ? most : left };
		bool whole = ioctl(userfaultfd, UFFDIO_COPY, &copy) == 0;
		int error = whole ? 0 : errno;
		uint64_t came = whole ? copy.len : copy.copy > 0 ? (uint64_t)copy.copy : 0;
		if (error == ENOENT && copy.len > PAGES_SIZE) {
			most = copy.len / 2 & ~(uint64_t)(PAGES_SIZE - 1);
			continue;
		}
		if (error == EEXIST || error == ENOENT)
			came += PAGES_SIZE; /* over the one that is there, or that has no place any more */
		else if (error == ESRCH)
			return PUT_GONE;
		else if (error == EAGAIN && !came)
			return PUT_AGAIN;
		else if (error && error != EAGAIN && error != EINTR)
			return PUT_FAILED;
		done += came;
		left -= came;
		most = 2 * most < left ? 2 * most : left;
	}
	return PUT_DONE;
}
