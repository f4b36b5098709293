/* SPDX-License-Identifier: Apache-2.0 */
/* userfaultfd(2), ioctl_userfaultfd(2), Documentation/admin-guide/mm/userfaultfd.rst (6.18). */
#include "capture/track.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "capture/capture.h"
#include "capture/tree.h"
#include "capture/twins.h"
#include "kernel/features.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#define CAIRN_FEATURE_WP_ASYNC (1ull << 15) /* 6.7: UFFD_FEATURE_WP_ASYNC, not in every distribution's headers */

enum {
	LEAST_MAP = 256 << 10,       /* bytes in memory, from which a mapping is tracked */
	LEAST_SPACE = 8 << 20,       /* and from which an address space is */
	LITTLE_PAGES = 512,          /* few enough to be copied while frozen: half a millisecond */
	MOST_ROUNDS = 6,
	RELEASE_STEP = 16 << 20,
};

/* What a child has from its parent is known by the parent's. */
static bool is_worth_it(const struct frozen_process *process, const struct map *map)
{
	if (kin_is_heir(process, map))
		return false;
	return snapshot_is_private(map) && !map->inode && !map->image_inode && map->anonymous >= LEAST_MAP && !(map->flags & MAP_FLAG_HUGETLB);
}

static bool misses_writes(const struct frozen_process *process)
{
	for (size_t i = 0; i < process->descriptors.count; i++) {
		const struct frozen_file *file = process->descriptors.at[i].file;
		if ((file->info.flags & O_DIRECT) || (file->kind && file->kind->writes_behind))
			return true;
	}
	bool behind = false;
	for (const struct kind *const *kind = kinds; *kind; kind++)
		behind |= (*kind)->writes_behind && tree_has_map(process->space, *kind);
	return behind;
}

/* Is the address space still there? After an exec it is another one. */
static bool is_alive(int userfaultfd)
{
	struct uffdio_writeprotect nowhere = { .range = { 0, PAGES_SIZE }, .mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE };
	return ioctl(userfaultfd, UFFDIO_WRITEPROTECT, &nowhere) == 0 || errno != ESRCH;
}

/* What an earlier save left of this process, if it can be gone on from; -1: nothing. */
static int take_kept(struct tracking *kept, const uint8_t *parent, const struct frozen_process *process)
{
	struct tracking_space *space = tracking_find(kept, process->view, process->stat.start_time);
	int fd = space ? space->userfaultfd : -1;
	if (fd < 0 || !parent || memcmp(parent, space->image, sizeof space->image) != 0 || !is_alive(fd))
		return -1;
	space->userfaultfd = -1;
	return fd;
}

static void choose_process(struct track *track, const struct frozen_process *process, struct tracking *kept, const uint8_t *parent,
			   struct snapshot *snapshot)
{
	uint64_t bytes = 0, others = 0;
	/* Of those that share their memory one stands for all: two userfaultfds would each see half of what is written. */
	if (process->zombie || !process->space || !frozen_owns(process, SHARE_VM))
		return;
	const struct map_list *maps = &process->space->maps;
	for (size_t i = 0; i < maps->maps.count; i++) {
		const struct map *map = &maps->maps.at[i];
		bytes += is_worth_it(process, map) ? map->anonymous : 0;
		others += is_worth_it(process, map) ? 0 : twins_bytes(process->space, map);
	}
	bool is_known = tracking_find(kept, process->pid, process->stat.start_time);
	if (bytes < LEAST_SPACE && !is_known)
		return;
	if (misses_writes(process)) {
		log_debug("process %d: has an O_DIRECT descriptor, an io_uring or asynchronous I/O; its writes cannot be tracked", process->pid);
		return;
	}
	if (!is_known && !track->is_kept && twins_pay(maps, others)) {
		log_debug("process %d: has %llu MiB that cannot be tracked; what can be is not either", process->pid, (unsigned long long)(others >> 20));
		return;
	}
	struct tracked_space *space = vec_add(&track->spaces);
	int before = take_kept(kept, parent, process);
	*space = (struct tracked_space){ .pid = process->view, .start_time = process->stat.start_time, .userfaultfd = before,
					 .known = before >= 0, .store = snapshot_add_store(snapshot, process->view) };
	for (size_t i = 0; i < maps->maps.count; i++) {
		const struct map *one = &maps->maps.at[i];
		bool registered = before >= 0 && snapshot_is_private(one) && !one->inode && (one->flags & MAP_FLAG_UFFD_WP);
		if (!registered && !is_worth_it(process, one))
			continue;
		struct map *map = vec_add(&space->maps);
		*map = maps->maps.at[i];
		map->name = arena_string(&track->arena, map->name);
	}
}

static struct tracked_space *find(const struct track *track, const struct frozen_process *process)
{
	for (size_t i = 0; i < track->spaces.count; i++)
		if (track->spaces.at[i].pid == process->view && track->spaces.at[i].start_time == process->stat.start_time)
			return &track->spaces.at[i];
	return NULL;
}

/* ---- the descriptor ---- */

/* Where a frozen process sends what it makes for Cairn; only its own packets count. */
struct mailbox {
	int fd;
	struct sockaddr_un address;
	socklen_t size;
};

static int mailbox_open(struct mailbox *ret_mailbox)
{
	const int on = 1;
	struct mailbox mailbox = { .address.sun_family = AF_UNIX, .size = sizeof mailbox.address };
	_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The kernel chooses an abstract name. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
	    bind(fd, (const struct sockaddr *)&mailbox.address, sizeof mailbox.address.sun_family) < 0 ||
	    getsockname(fd, (struct sockaddr *)&mailbox.address, &mailbox.size) < 0)
		return -errno;
	mailbox.fd = fd_steal(&fd);
	*ret_mailbox = mailbox;
	return 0;
}

/* -1: nothing, or nothing of @pid. */
static int mailbox_take(const struct mailbox *mailbox, pid_t pid)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct ucred sender = { 0 };
	char byte;
	struct iovec iov = { &byte, sizeof byte };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	_close_ int fd = -1;
	if (recvmsg(mailbox->fd, &message, MSG_CMSG_CLOEXEC) < 0)
		return -1;
	for (struct cmsghdr *one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one)) {
		if (one->cmsg_type == SCM_RIGHTS && one->cmsg_len == CMSG_LEN(sizeof fd) && fd < 0)
			memcpy(&fd, CMSG_DATA(one), sizeof fd);
		else if (one->cmsg_type == SCM_CREDENTIALS)
			memcpy(&sender, CMSG_DATA(one), sizeof sender);
	}
	return sender.pid == pid ? fd_steal(&fd) : -1;
}

/* A group that runs to its end whatever fails, and without Cairn too: the process never keeps what it makes for Cairn. */
static void ask_for_userfaultfd(struct batch *batch, const struct mailbox *mailbox, const int numbers[2])
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	memcpy(CMSG_DATA(&control.header), &numbers[1], sizeof numbers[1]);
	batch_group(batch, 5, 1024);
	struct batch_place address = batch_data(batch, &mailbox->address, mailbox->size);
	struct batch_place rights = batch_data(batch, &control, sizeof control), byte = batch_data(batch, "u", 1);
	const struct iovec iov = { (void *)(uintptr_t)byte.address, 1 };
	struct batch_place vector = batch_data(batch, &iov, sizeof iov);
	const struct msghdr message = {
		.msg_name = (void *)(uintptr_t)address.address, .msg_namelen = mailbox->size,
		.msg_iov = (void *)(uintptr_t)vector.address, .msg_iovlen = 1,
		.msg_control = (void *)(uintptr_t)rights.address, .msg_controllen = sizeof control,
	};
	struct batch_place packet = batch_data(batch, &message, sizeof message);
	batch_try(batch, socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	batch_try(batch, userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	batch_try(batch, sendmsg, (uint64_t)numbers[0], packet.address, MSG_DONTWAIT | MSG_NOSIGNAL);
	batch_try(batch, close, (uint64_t)numbers[1]);
	batch_try(batch, close, (uint64_t)numbers[0]);
}

/* A userfaultfd that the process makes, sends, and closes. */
static int exchange(struct frozen_process *process, int *ret_fd, struct fault *fault)
{
	struct mailbox mailbox = { .fd = -1 };
	struct batch batch;
	int numbers[2], rc = proc_descriptors_next(process->view, numbers, 2, fault);
	if (rc < 0)
		return rc;
	rc = mailbox_open(&mailbox);
	_close_ int box = mailbox.fd;
	(void)box;
	if (rc < 0)
		return fault_set(fault, fault_class_of(-rc), -rc, "a socket for its userfaultfd: %s", strerror(-rc));
	batch_init(&batch, process->space->foothold.area);
	ask_for_userfaultfd(&batch, &mailbox, numbers);
	rc = foothold_run(&process->space->foothold, &process->threads.at[0]->guest, &batch, fault);
	int own = mailbox_take(&mailbox, process->pid);
	for (size_t call = 0; rc == 0 && own < 0 && call < 3; call++) {
		int64_t result = batch_result(&batch, call);
		if (result < 0)
			rc = fault_set(fault, fault_class_of((int)-result), (int)-result, "%s: %s", batch.pieces.at[0].names[call], strerror((int)-result));
	}
	batch_finish(&batch);
	if (rc == 0 && own < 0)
		rc = fault_set(fault, FAULT_FAILED, EIO, "its userfaultfd did not arrive");
	if (rc < 0 && own >= 0)
		close(own);
	if (rc == 0)
		*ret_fd = own;
	return rc;
}

static int take_userfaultfd(struct harvest *harvest, struct frozen_process *process, const struct deadline *deadline, int *ret_fd,
			    struct fault *fault)
{
	int rc = tree_read_space(harvest, process, MAPS_PLACES, fault);
	if (rc == 0)
		rc = capture_find_foothold(process, deadline, fault);
	if (rc == 0)
		rc = foothold_enter(&process->space->foothold, &process->threads.at[0]->guest, fault);
	if (rc == 0)
		rc = exchange(process, ret_fd, fault);
	struct fault leaving;
	int left = foothold_leave(&process->space->foothold, &process->threads.at[0]->guest, true, &leaving);
	if (rc == 0 && left < 0)
		*fault = leaving;
	return rc < 0 ? rc : left;
}

/* One short freeze of the whole tree. */
static int take_all(struct track *track, const struct harvest *survey, pid_t root, const struct deadline *deadline,
		    struct fault *fault)
{
	struct harvest harvest = { .policy = survey->policy };
	uint64_t begin = clock_now_ns();
	int rc = freeze_tree(&harvest, root, deadline, fault);
	for (size_t i = 0; rc == 0 && i < harvest.processes.count; i++) {
		struct frozen_process *process = harvest.processes.at[i];
		struct tracked_space *space = process->zombie ? NULL : find(track, process);
		if (!space || space->userfaultfd >= 0)
			continue;
		struct fault why;
		if (take_userfaultfd(&harvest, process, deadline, &space->userfaultfd, &why) < 0)
			log_debug("process %d: its writes are not tracked: %s; continuing with a copy while it stands still",
				  process->pid, why.text);
		rc = deadline_check(deadline, fault);
	}
	freeze_thaw(&harvest, FREEZE_RUN);
	harvest_finish(&harvest);
	track->freeze_ns = clock_now_ns() - begin;
	return rc;
}

/* ---- registration ---- */

static int open_api(int fd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = CAIRN_FEATURE_WP_ASYNC | UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	return ioctl(fd, UFFDIO_API, &api) < 0 ? -errno : 0;
}

/* What is registered already stays as it is. */
static void register_space(struct tracked_space *space)
{
	size_t kept = 0;
	int rc = space->userfaultfd < 0 ? -EBADF : space->known ? 0 : open_api(space->userfaultfd);
	for (size_t i = 0; rc == 0 && i < space->maps.count; i++) {
		const struct map *map = &space->maps.at[i];
		struct uffdio_register range = {
			.range = { map->start, map->end - map->start }, .mode = UFFDIO_REGISTER_MODE_WP };
		/* What is not there any more, or cannot be registered, is copied while frozen. */
		if (ioctl(space->userfaultfd, UFFDIO_REGISTER, &range) == 0)
			space->maps.at[kept++] = *map;
	}
	if (rc < 0 && space->userfaultfd >= 0)
		log_debug("process %d: its writes cannot be tracked (%s); continuing with a copy while it stands still", space->pid,
			  strerror(-rc));
	space->maps.count = kept;
}

void track_choose(struct track *track, const struct harvest *survey, struct tracking *kept, const uint8_t *parent, struct snapshot *snapshot)
{
	for (size_t i = 0; i < survey->processes.count; i++)
		choose_process(track, survey->processes.at[i], kept, parent, snapshot);
	snapshot->asks_changed = track->spaces.count && feature_changed();
}

void track_forget(struct tracked_space *space)
{
	if (space->known)
		close(space->userfaultfd);
	space->userfaultfd = -1;
	space->known = false;
}

int track_begin(struct track *track, const struct harvest *survey, pid_t root, const struct deadline *deadline, struct fault *fault)
{
	bool is_new = false;
	for (size_t i = 0; i < track->spaces.count; i++)
		is_new |= track->spaces.at[i].userfaultfd < 0;
	int rc = is_new ? take_all(track, survey, root, deadline, fault) : 0;
	/* A tree that cannot be frozen now is tried again where that is everybody's business. */
	if (rc < 0 && fault->transient) {
		log_debug("not tracked: %s", fault->text);
		rc = 0;
	}
	for (size_t i = 0; rc == 0 && i < track->spaces.count; i++)
		register_space(&track->spaces.at[i]);
	return rc;
}

/* ---- rounds ---- */

/* @first: what is there, unless it is known already. */
static int copy_once(struct track *track, struct snapshot *snapshot, bool first, uint64_t *ret_pages, struct fault *fault)
{
	VEC(struct snapshot_source) sources = { 0 };
	for (size_t i = 0; i < track->spaces.count; i++) {
		const struct tracked_space *space = &track->spaces.at[i];
		for (size_t m = 0; m < space->maps.count; m++)
			*vec_add(&sources) = (struct snapshot_source){
				.store = space->store, .pid = space->pid, .fd = -1, .start = space->maps.at[m].start,
				.end = space->maps.at[m].end, .map = &space->maps.at[m],
				.by_force = snapshot_needs_force(&space->maps.at[m]),
				.look = first && !space->known ? LOOK_PROTECT : LOOK_WRITTEN };
	}
	int rc = snapshot_round(snapshot, sources.at, sources.count, NULL, ret_pages, fault);
	track->pages += rc == 0 ? *ret_pages : 0;
	vec_finish(&sources);
	return rc;
}

int track_copy(struct track *track, struct snapshot *snapshot, uint64_t *ret_left, struct fault *fault)
{
	uint64_t begin = clock_now_ns(), pages = 0, before = UINT64_MAX;
	int rc = track->spaces.count ? copy_once(track, snapshot, true, &pages, fault) : 0;
	for (unsigned round = 1; rc == 0 && round <= MOST_ROUNDS && pages > LITTLE_PAGES && pages < before / 4 * 3; round++) {
		log_info("checkpoint: round %u: %llu pages copied while the program runs, %.2f ms", round,
			 (unsigned long long)pages, (double)(clock_now_ns() - begin) / 1e6);
		before = pages;
		begin = clock_now_ns();
		rc = copy_once(track, snapshot, false, &pages, fault);
	}
	if (rc == 0 && track->spaces.count)
		log_info("checkpoint: last round: %llu pages, %.2f ms", (unsigned long long)pages,
			 (double)(clock_now_ns() - begin) / 1e6);
	track->is_quiet = rc == 0 && !pages;
	*ret_left = pages;
	return rc;
}

bool track_has(const struct track *track, pid_t pid, uint64_t start)
{
	for (size_t i = 0; i < track->spaces.count; i++)
		for (size_t m = 0; track->spaces.at[i].pid == pid && m < track->spaces.at[i].maps.count; m++)
			if (track->spaces.at[i].maps.at[m].start == start)
				return true;
	return false;
}

bool track_follows(const struct track *track, pid_t pid)
{
	for (size_t i = 0; i < track->spaces.count; i++)
		if (track->spaces.at[i].pid == pid)
			return track->spaces.at[i].maps.count || track->spaces.at[i].known;
	return false;
}

void track_adopt(const struct track *track, struct frozen_process *process)
{
	const struct tracked_space *space = find(track, process);
	/* Of one that is known the kernel says it of every page, whatever was registered just now. */
	if (!space || (!space->maps.count && !space->known))
		return;
	process->space->tracked = true;
	process->space->store = space->store;
}

void track_doubt(const struct harvest *harvest, struct snapshot *snapshot)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		if (process->space && process->space->tracked && misses_writes(process))
			*vec_add(&snapshot->stores.at[process->space->store].spoiled) = (struct page_range){ 0, UINT64_MAX };
	}
}

static void each_step(int userfaultfd, const struct map *map, bool unregister)
{
	for (uint64_t at = map->start; at < map->end; at += RELEASE_STEP) {
		uint64_t size = map->end - at < RELEASE_STEP ? map->end - at : RELEASE_STEP;
		struct uffdio_range range = { at, size };
		struct uffdio_writeprotect open_ = { .range = range, .mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE };
		if (unregister)
			ioctl(userfaultfd, UFFDIO_UNREGISTER, &range);
		else
			ioctl(userfaultfd, UFFDIO_WRITEPROTECT, &open_);
	}
}

/* Ending a registration takes the protection from every page while nobody else may change the address space (mm/userfaultfd.c userfaultfd_clear_vma, 6.18): 23 ms
 * per GiB, and in one go, which closing the descriptor would be, the program could map nothing for so long. So in steps, of some 0.4 ms. One that writes meanwhile
 * would wait in its page faults for one step after the other, as Cairn is sooner at the lock again (23 ms of 4 GiB seen): the protection is taken off beforehand,
 * which holds up nobody (mwriteprotect_range only reads the mappings), but takes as long once more. */
static void release(int userfaultfd, const struct map *map, bool is_quiet)
{
	if (!is_quiet)
		each_step(userfaultfd, map, false);
	each_step(userfaultfd, map, true);
}

static void release_space(struct tracked_space *space, bool is_quiet)
{
	for (size_t i = 0; space->userfaultfd >= 0 && i < space->maps.count; i++)
		release(space->userfaultfd, &space->maps.at[i], is_quiet);
	if (space->userfaultfd >= 0)
		close(space->userfaultfd);
	vec_finish(&space->maps);
}

void track_drop(struct tracking *kept, const struct harvest *survey)
{
	for (size_t i = 0; i < survey->processes.count; i++) {
		const struct frozen_process *process = survey->processes.at[i];
		const struct tracking_space *space = tracking_find(kept, process->view, process->stat.start_time);
		if (!process->space || !space || space->userfaultfd < 0)
			continue;
		for (size_t m = 0; m < process->space->maps.maps.count; m++)
			if (process->space->maps.maps.at[m].flags & MAP_FLAG_UFFD_WP)
				release(space->userfaultfd, &process->space->maps.maps.at[m], false);
	}
	tracking_finish(kept);
}

void track_keep(struct track *track, const struct harvest *harvest, const uint8_t image[16], struct tracking *ret_tracking)
{
	for (size_t i = 0; i < harvest->processes.count; i++) {
		const struct frozen_process *process = harvest->processes.at[i];
		struct tracked_space *space = process->zombie ? NULL : find(track, process);
		if (!space || space->userfaultfd < 0 || misses_writes(process))
			continue;
		struct tracking_space *kept = vec_add(&ret_tracking->spaces);
		*kept = (struct tracking_space){ .pid = space->pid, .start_time = space->start_time, .userfaultfd = space->userfaultfd };
		memcpy(kept->image, image, sizeof kept->image);
		space->userfaultfd = -1;
	}
}

void track_finish(struct track *track)
{
	for (size_t i = 0; i < track->spaces.count; i++)
		release_space(&track->spaces.at[i], track->is_quiet);
	vec_finish(&track->spaces);
	arena_finish(&track->arena);
}
