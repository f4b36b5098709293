/* SPDX-License-Identifier: Apache-2.0 */
/* cairn_restore: joins the image and the newborn world. In the caller's PID namespace the calling thread makes the newborns itself; for a private
 * one it makes the namespace's init, a process of Cairn, which makes them there, stays as their reaper, and ends with the root's status. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/operations.h"
#include "api/trust.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/procfs.h"
#include "rebuild/rebuild.h"

/* How long the processes that were just killed may take to be gone. */
#define PID_PATIENCE_NS UINT64_C(3000000000)

struct restore {
	const struct cairn_restore_options *options;
	struct image_reader *reader;
	struct plan plan;
	struct deadline deadline;
	int maker_fd; /* in a private namespace's init: the pipe to its maker; -1 otherwise */
};

static uint32_t count_threads(const struct plan *plan)
{
	uint32_t count = 0;
	for (size_t i = 0; i < plan->processes.count; i++)
		count += (uint32_t)plan->processes.at[i]->threads.count;
	return count;
}

/* Has nobody the read end of this pipe any more? */
static bool is_gone(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLOUT };
	return poll(&pollfd, 1, 0) == 1 && (pollfd.revents & POLLERR);
}

/* Makes the newborns in this process's PID namespace and lets them run. */
static int restore_here(const struct restore *restore, struct rebuild_result *result, struct fault *fault)
{
	const struct cairn_restore_options *options = restore->options;
	const struct rebuild_options rebuild_options = {
		.threads = operation_threads(options->threads),
		.leave_stopped = options->leave_stopped,
		.terminal = options->terminal,
		.deadline = &restore->deadline,
	};
	struct rebuild *rebuild;
	int rc = rebuild_prepare(&restore->plan, restore->reader, &rebuild_options, &rebuild, fault);
	if (rc < 0)
		return rc;
	if (rc == 0 && restore->maker_fd >= 0 && is_gone(restore->maker_fd))
		rc = fault_set(fault, FAULT_FAILED, ECANCELED, "the Cairn that wanted it is gone");
	if (rc == 0 && options->ready && options->ready(options->context, rebuild_root(rebuild), rebuild_foreground_group(rebuild)))
		rc = fault_set(fault, FAULT_FAILED, ECANCELED, "undone by the caller");
	if (rc == 0)
		rc = rebuild_release(rebuild, result, fault);
	rebuild_free(rebuild);
	return rc;
}

/* ---- a private PID namespace ---- */

/* What the init tells its maker. */
struct report {
	int rc;
	pid_t root;
	struct rebuild_result result;
	struct fault fault;
};

/* A process of the tree got a signal through its init: the terminal's and the supervisor's reach the root. */
static void forward(pid_t root, int signal)
{
	kill(root, signal);
}

/* Reaps until the root has ended, then ends as it did. */
__attribute__((noreturn)) static void serve_as_init(pid_t root, sigset_t *signals)
{
	for (;;) {
		int status;
		pid_t ended = waitpid(-1, &status, WNOHANG | WUNTRACED | __WALL);
		if (ended == root && WIFEXITED(status))
			_exit(WEXITSTATUS(status));
		if (ended == root && WIFSIGNALED(status))
			_exit(128 + WTERMSIG(status));
		if (ended > 0)
			continue;
		siginfo_t info;
		if (sigwaitinfo(signals, &info) > 0 && info.si_signo != SIGCHLD)
			forward(root, info.si_signo);
	}
}

static int own_proc(struct fault *fault)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return fault_set(fault, fault_class_of(errno), errno, "mount /proc of a private PID namespace: %s",
				 strerror(errno));
	return 0;
}

__attribute__((noreturn)) static void run_init(const struct restore *restore, int report_fd)
{
	struct report report = { 0 };
	sigset_t all, none;
	sigfillset(&all);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "cairn-init");
	/* Until the tree runs, it goes with its maker. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	report.rc = own_proc(&report.fault);
	struct restore inside = *restore;
	inside.maker_fd = report_fd;
	if (report.rc == 0)
		report.rc = restore_here(&inside, &report.result, &report.fault);
	report.root = report.result.root_pid;
	prctl(PR_SET_PDEATHSIG, 0);
	if (fd_write_full(report_fd, &report, sizeof report) < 0 || report.rc < 0)
		_exit(125);
	close_range(0, ~0u, 0);
	serve_as_init(report.root, &all);
}

/* The root as seen from here: a child of the init whose innermost PID is the old one. */
static pid_t outer_pid(pid_t init, pid_t inner)
{
	struct pid_list children = { 0 };
	struct arena arena = { 0 };
	pid_t found = 0;
	if (proc_children(init, &children, NULL) == 0) {
		for (size_t i = 0; i < children.pids.count && !found; i++) {
			struct proc_status status;
			if (proc_status_read(children.pids.at[i], 0, &arena, &status, NULL) == 0 && status.ns_pid == inner)
				found = children.pids.at[i];
		}
	}
	vec_finish(&children.pids);
	arena_finish(&arena);
	return found;
}

static int restore_private(const struct restore *restore, struct cairn_restore_result *result,
			   struct rebuild_result *made, struct fault *fault)
{
	int pipe_[2];
	if (pipe2(pipe_, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	_close_ int from = pipe_[0], to = pipe_[1];
	struct clone_args args = { .flags = CLONE_NEWPID | CLONE_NEWNS, .exit_signal = SIGCHLD };
	pid_t init = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (init == 0)
		run_init(restore, to);
	if (init < 0)
		return fault_set(fault, fault_class_of(errno), errno, "make a private PID namespace: %s%s", strerror(errno),
				 errno == EPERM ? "; it needs CAP_SYS_ADMIN, try as root" : "");
	close(fd_steal(&to));
	struct report report;
	if (fd_read_full(from, &report, sizeof report) < 0)
		report = (struct report){ .rc = fault_set(fault, FAULT_FAILED, EIO, "the namespace's init was killed"),
					  .fault = *fault };
	if (report.rc < 0) {
		*fault = report.fault;
		kill(init, SIGKILL);
		waitpid(init, NULL, 0);
		return report.rc;
	}
	*made = report.result;
	result->init = init;
	made->root_pid = outer_pid(init, report.root);
	return 0;
}

/* ---- the whole ---- */

/* As root, an image decides what runs as root: who could have written it? Standard input is the caller's own choice. */
static int open_image(const struct cairn_restore_options *options, struct image_reader **ret_reader, struct fault *fault)
{
	_close_ int fd = image_reader_descriptor(options->image, fault);
	if (fd < 0)
		return fd;
	bool is_asked = geteuid() == 0 && !options->trust_image && strcmp(options->image, "-");
	int rc = is_asked ? trust_check(options->image, fd, fault) : 0;
	return rc < 0 ? rc : image_reader_open_fd(fd_steal(&fd), options->image, ret_reader, fault);
}

static int restore_any(const struct restore *restore, struct cairn_restore_result *result,
		       struct rebuild_result *made, struct fault *fault)
{
	enum cairn_pids pids = restore->options->pids;
	if (pids != CAIRN_PIDS_PRIVATE) {
		int rc = rebuild_check_pids(&restore->plan, PID_PATIENCE_NS, fault);
		if (rc == 0)
			rc = restore_here(restore, made, fault);
		if (rc != -EEXIST || pids == CAIRN_PIDS_SAME)
			return rc;
		log_info("restore: %s; so it gets a private PID namespace", fault->text);
	}
	return restore_private(restore, result, made, fault);
}

static int take_maps(const struct cairn_restore_options *options, struct path_maps *ret_maps, struct fault *fault)
{
	struct path_maps maps = { memory_new(options->path_map_count * sizeof *maps.at), options->path_map_count };
	for (size_t i = 0; i < maps.count; i++)
		maps.at[i] = (struct path_map){ options->path_maps[i].old_path, options->path_maps[i].new_path, 0 };
	int rc = path_maps_check(&maps, fault);
	if (rc < 0)
		free(maps.at);
	else
		*ret_maps = maps;
	return rc;
}

static int load_plan(struct restore *restore, const struct path_maps *maps, struct fault *fault)
{
	int rc = plan_load(restore->reader, maps, &restore->plan, fault);
	if (rc < 0)
		return fault_at(fault, rc, "%s", restore->options->image);
	for (size_t i = 0; i < maps->count; i++)
		if (maps->at[i].uses == 0)
			log_warn("%s: holds no path that is or lies below %s; continuing without that --map-path",
				 restore->options->image, maps->at[i].old_path);
	return 0;
}

static int load(struct restore *restore, struct fault_list *refusals, struct fault *fault)
{
	const struct plan_policy policy = {
		.ignore_changed_files = restore->options->ignore_changed_files,
		.force_cpu = restore->options->force_cpu,
	};
	struct path_maps maps = { 0 };
	int rc = take_maps(restore->options, &maps, fault);
	if (rc == 0)
		rc = open_image(restore->options, &restore->reader, fault);
	if (rc == 0)
		rc = load_plan(restore, &maps, fault);
	if (rc == 0) {
		plan_check_host(&restore->plan, &policy, refusals);
		rc = refusals->count ? -ENOTSUP : 0;
	}
	free(maps.at);
	return rc;
}

enum cairn_status cairn_restore(const struct cairn_restore_options *options, struct cairn_restore_result *result,
				struct cairn_error *error)
{
	struct restore restore = {
		.options = options, .deadline = operation_deadline(options->timeout_s, options->signal_fd),
		.maker_fd = -1,
	};
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	struct rebuild_result made = { 0 };
	uint64_t begin = clock_now_ns();
	*result = (struct cairn_restore_result){ 0 };
	int rc = load(&restore, &refusals, &fault);
	if (rc == 0)
		log_info("restore: image read and checked: %zu records, %.2f ms", restore.plan.records.count,
			 (double)(clock_now_ns() - begin) / 1e6);
	if (rc == 0)
		rc = restore_any(&restore, result, &made, &fault);
	if (rc == 0) {
		result->root = made.root_pid;
		result->processes = (uint32_t)restore.plan.processes.count;
		result->threads = count_threads(&restore.plan);
		result->pages = made.pages;
	}
	plan_finish(&restore.plan);
	image_reader_free(restore.reader);
	result->total_ns = clock_now_ns() - begin;
	enum cairn_status status = rc < 0 ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}

enum cairn_status cairn_check_image(const struct cairn_restore_options *options, struct cairn_error *error)
{
	struct cairn_restore_options trusting = *options;
	trusting.trust_image = true;
	struct restore restore = { .options = &trusting, .deadline = operation_deadline(0, -1), .maker_fd = -1 };
	struct fault_list refusals = { 0 };
	struct fault fault = { 0 };
	int rc = load(&restore, &refusals, &fault);
	plan_finish(&restore.plan);
	image_reader_free(restore.reader);
	enum cairn_status status = rc < 0 ? operation_failed(&refusals, &fault, NULL, error) : CAIRN_DONE;
	fault_list_finish(&refusals);
	return status;
}
