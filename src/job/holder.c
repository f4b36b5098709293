/* SPDX-License-Identifier: Apache-2.0 */
#include "job/holder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "job/control.h"
#include "job/handover.h"
#include "job/registry.h"
#include "kernel/procfs.h"

static const char prefix[] = "track-";
enum { NAMES_TRIED = 100 };

struct holder {
	pid_t root;
	const char *image;
	char *name, *path; /* of the socket */
	int listener, root_pidfd;
	struct tracking *tracking;
	uint64_t started_ns;
	double saved_at;
	struct proc_stat stat;
	uint64_t namespace; /* in which the PIDs mean something */
};

static uint64_t pid_namespace(void)
{
	uint64_t namespaces[NS_COUNT] = { 0 };
	return proc_namespaces(getpid(), namespaces, NULL) < 0 ? 0 : namespaces[NS_PID];
}

/* ---- the holder ---- */

static json_t *status_of(const struct holder *holder)
{
	return json_pack("{s:i, s:s, s:s, s:i, s:i, s:i, s:s, s:i, s:f, s:f, s:b}", "status", CAIRN_DONE, "name", holder->name, "command",
			 holder->stat.command, "root", (int)holder->root, "pid", (int)holder->root, "processes",
			 (int)holder->tracking->spaces.count, "image", holder->image, "saves", 1, "saved_at", holder->saved_at, "running_s",
			 (double)(clock_now_ns() - holder->started_ns) / 1e9, "tracking", 1);
}

/* false: its work is done. */
static bool answer(struct holder *holder, int client)
{
	json_t *request = NULL, *reply;
	if (control_receive(client, &request, NULL) <= 0)
		return true;
	_free_ char *op = memory_string(control_text(request, "op", ""));
	bool near = (uint64_t)json_integer_value(json_object_get(request, "namespace")) == holder->namespace;
	json_decref(request);
	/* Who calls from elsewhere means other processes. */
	if (!near && (!strcmp(op, "take") || !strcmp(op, "look")))
		return true;
	bool take = !strcmp(op, "take"), ends = take || !strcmp(op, "kill");
	if (ends)
		unlink(holder->path); /* before anybody hears of it: the name is free then */
	if (take || !strcmp(op, "look")) {
		handover_send(client, holder->tracking, take);
		/* The other side reads to the end, and then has the only descriptors: if it closes one that registration is over. */
		if (take)
			tracking_finish(holder->tracking);
		return !ends;
	}
	reply = ends ? json_pack("{s:i}", "status", CAIRN_DONE) : !strcmp(op, "status") ? status_of(holder) :
		       control_refused(CAIRN_USAGE, "is no job but keeps the write tracking of a process; try its PID");
	control_send(client, reply, NULL);
	json_decref(reply);
	return !ends;
}

static bool is_welcome(int client)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	return getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == getuid() || peer.uid == 0);
}

__attribute__((noreturn)) static void hold(struct holder *holder)
{
	enum { PATIENCE_MS = 1000 }; /* with a client that says nothing */
	struct pollfd watched[] = { { .fd = holder->listener, .events = POLLIN }, { .fd = holder->root_pidfd, .events = POLLIN } };
	for (bool going = true; going;) {
		if (poll(watched, 2, -1) < 0)
			continue;
		if (watched[1].revents)
			break;
		_close_ int client = watched[0].revents ? accept4(holder->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
		struct pollfd one = { .fd = client, .events = POLLIN };
		if (client >= 0 && is_welcome(client) && poll(&one, 1, PATIENCE_MS) == 1)
			going = answer(holder, client);
	}
	unlink(holder->path);
	_exit(0);
}

static bool is_kept(const struct holder *holder, int fd)
{
	bool kept = fd == holder->listener || fd == holder->root_pidfd;
	for (size_t i = 0; i < holder->tracking->spaces.count; i++)
		kept |= fd == holder->tracking->spaces.at[i].userfaultfd;
	return kept;
}

/* It keeps nothing of the caller's: no terminal, no pipe, no directory. */
static void detach(const struct holder *holder)
{
	setsid();
	prctl(PR_SET_NAME, "cairn-holder");
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (chdir("/") < 0) {
		/* Then it keeps the caller's directory busy, no more. */
	}
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	struct pid_list numbers = { 0 };
	if (proc_descriptors(getpid(), &numbers, NULL) == 0)
		for (size_t i = 0; i < numbers.pids.count; i++)
			if (numbers.pids.at[i] > 2 && !is_kept(holder, numbers.pids.at[i]))
				close(numbers.pids.at[i]);
	vec_finish(&numbers.pids);
}

/* The number may be another's too, in another PID namespace. */
static int take_name(struct holder *holder, struct fault *fault)
{
	for (int n = 1;; n++) {
		char *name = n == 1 ? memory_format("%s%d", prefix, holder->root) : memory_format("%s%d-%d", prefix, holder->root, n);
		int rc = registry_listen(name, &holder->listener, &holder->path, fault);
		if (rc == 0)
			holder->name = name;
		else
			free(name);
		if (rc != -EADDRINUSE || n == NAMES_TRIED)
			return rc;
	}
}

/* Nobody's child: the caller need not wait for it. That it lives it says itself, as a caller that ignores SIGCHLD is told no status. */
static bool start_keeper(struct holder *holder)
{
	int ends[2];
	char word;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	pid_t child = fork();
	if (child == 0) {
		if (fork() != 0)
			_exit(0);
		if (write(ends[1], "k", 1) != 1)
			_exit(1);
		detach(holder);
		hold(holder);
	}
	close(ends[1]);
	bool begun = child > 0 && read(ends[0], &word, 1) == 1;
	close(ends[0]);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return begun;
}

int holder_start(pid_t root, const char *image, struct tracking *tracking, struct fault *fault)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	_close_ int pidfd = (int)syscall(SYS_pidfd_open, root, 0);
	_free_ char *absolute = realpath(image, NULL);
	struct holder holder = {
		.root = root, .image = absolute ? absolute : image, .namespace = pid_namespace(), .root_pidfd = pidfd, .tracking = tracking,
		.started_ns = clock_now_ns(), .saved_at = (double)now.tv_sec + (double)now.tv_nsec / 1e9,
	};
	int rc = pidfd < 0 ? fault_set(fault, FAULT_VANISHED, ESRCH, "process %d is gone", root) : proc_stat_read(root, 0, &holder.stat, fault);
	if (rc == 0)
		rc = take_name(&holder, fault);
	if (rc < 0) {
		tracking_finish(tracking);
		return rc;
	}
	assert(holder.path && holder.name); /* take_name */
	bool begun = start_keeper(&holder);
	close(holder.listener);
	tracking_finish(tracking);
	if (!begun)
		unlink(holder.path);
	free(holder.path);
	free(holder.name);
	return !begun ? fault_set(fault, FAULT_FAILED, EAGAIN, "no process to keep the tracking; try a higher limit of processes") : 0;
}

/* ---- who asks it ---- */

static bool is_below(pid_t pid, pid_t target)
{
	for (unsigned depth = 0; pid > 1 && depth < 4096; depth++) {
		struct proc_stat stat;
		if (pid == target)
			return true;
		if (proc_stat_read(pid, 0, &stat, NULL) < 0)
			return false;
		pid = stat.parent;
	}
	return false;
}

static void ask(const char *name, const char *op, struct tracking *ret_tracking)
{
	_close_ int socket = -1;
	pid_t holder;
	json_t *other = NULL;
	if (registry_connect(getuid(), name, &socket, &holder, NULL) < 0)
		return;
	json_t *request = json_pack("{s:s, s:I}", "op", op, "namespace", (json_int_t)pid_namespace());
	int rc = control_send(socket, request, NULL) < 0 ? 0 : 1;
	json_decref(request);
	while (rc > 0) {
		rc = handover_receive(socket, 0, ret_tracking, &other);
		json_decref(other);
	}
}

void holder_ask(pid_t target, bool take, struct tracking *ret_tracking)
{
	struct registry_names list;
	registry_list(getuid(), &list);
	for (size_t i = 0; i < list.names.count; i++) {
		struct tracking seen = { 0 };
		bool concerned = false;
		if (strncmp(list.names.at[i], prefix, sizeof prefix - 1) != 0)
			continue;
		ask(list.names.at[i], "look", &seen);
		for (size_t s = 0; s < seen.spaces.count && !concerned; s++)
			concerned = is_below(seen.spaces.at[s].pid, target);
		if (concerned && take)
			ask(list.names.at[i], "take", ret_tracking);
		for (size_t s = 0; concerned && !take && s < seen.spaces.count; s++)
			*vec_add(&ret_tracking->spaces) = seen.spaces.at[s];
		tracking_finish(&seen);
	}
	registry_names_finish(&list);
}
