/* SPDX-License-Identifier: Apache-2.0 */
#include "job/init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "api/operations.h"
#include "base/fd.h"
#include "base/memory.h"
#include "job/control.h"
#include "job/handover.h"
#include "job/registry.h"
#include "job/save.h"
#include "job/terminal.h"
#include "kernel/bulletin.h"
#include "kernel/procfs.h"

enum { MOST_CLIENTS = 16, NAMES_TRIED = 100 };

/* A program of the job that asked for a checkpoint (cairn_checkpoint_me). */
struct asker {
	pid_t pid; /* 0: none */
	uint32_t number;
};

/* A checkpoint that is being made. */
struct saving {
	pid_t worker;     /* 0: none */
	int answer;       /* socket from it */
	json_t *said;     /* its answer, NULL: not yet */
	bool silent;      /* it will say no more */
	int client;       /* who waits for it: a client, the channel, or -1: it was time for one, or a program asked */
	bool ends;        /* the job ends with it */
	bool only_looks;  /* it is no checkpoint but a check */
	struct asker asker;
};

/* A checkpoint or a check that has to wait for the one before it. */
struct waiting {
	json_t *request;
	int fd;           /* what came with it, -1 */
	int client;
};

struct init {
	json_t *spec;
	int channel;      /* -1: the Cairn that started the job is gone */
	int signals, listener;
	char *name, *socket_path, *command;
	struct terminal terminal;
	pid_t root;
	int root_status;
	bool ended, killed, saved_last;
	uint32_t generation;
	uint64_t saves, every_ns, next_ns, started_ns;
	double saved_at;  /* CLOCK_REALTIME, seconds; 0: never */
	struct saving saving;
	struct operation_restored restored; /* its pager, until all memory is loaded */
	struct tracking tracking; /* what the last checkpoint left for the next one */
	VEC(int) clients;
	VEC(struct waiting) waiting;
	VEC(struct asker) askers; /* whose turn is still to come */
};

static const char *spec_text(const struct init *init, const char *key)
{
	return control_text(init->spec, key, NULL);
}

static bool spec_true(const struct init *init, const char *key)
{
	return json_is_true(json_object_get(init->spec, key));
}

static uint64_t spec_number(const struct init *init, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(init->spec, key));
}

/* Takes the reference to @message. */
static void say(struct init *init, json_t *message)
{
	if (init->channel >= 0)
		control_send(init->channel, message, -1);
	json_decref(message);
}

/* ---- the start ---- */

/* Listens under the wanted name or, where the user chose none, under the first free one made from it. */
static int take_name(struct init *init, const char *wanted, struct fault *fault)
{
	_free_ char *base = memory_string(wanted);
	for (char *c = base; *c; c++)
		if (!strchr("._-+", *c) && !(*c >= '0' && *c <= '9') && !(*c >= 'A' && *c <= 'Z') && !(*c >= 'a' && *c <= 'z'))
			*c = '_';
	base[strnlen(base, JOB_NAME_MAX - 4)] = 0;
	if (!registry_name_valid(base)) {
		char *named = memory_format("job-%s", base);
		free(base);
		base = named;
	}
	for (int n = 1;; n++) {
		_free_ char *name = n == 1 ? memory_string(base) : memory_format("%s-%d", base, n);
		int rc = registry_listen(name, &init->listener, &init->socket_path, fault);
		if (rc == 0) {
			init->name = memory_string(name);
			return 0;
		}
		if (rc != -EADDRINUSE || spec_true(init, "exact") || n == NAMES_TRIED)
			return rc;
	}
}

/* Beside the socket, for scripts: how often the tree has been restored. */
static char *restored_path(const struct init *init)
{
	size_t length = strlen(init->socket_path);
	return memory_format("%.*s.restored", (int)(length - strlen(".sock")), init->socket_path);
}

static void note_restored(const struct init *init)
{
	_free_ char *path = restored_path(init);
	_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || dprintf(fd, "%u\n", init->generation) < 0) {
		/* No more than a convenience: cairn ps says it as well. */
	}
}

static void leave_registry(const struct init *init)
{
	_free_ char *path = restored_path(init);
	unlink(path);
	unlink(init->socket_path);
}

static int failed_start(struct init *init, json_t *answer)
{
	say(init, answer);
	if (init->socket_path)
		leave_registry(init);
	return 125;
}

/* What the command starts with is what the user's shell gave Cairn. */
__attribute__((noreturn)) static void execute(struct init *init, char *const command[], int report)
{
	uint64_t mask = strtoull(control_text(init->spec, "mask", "0"), NULL, 16);
	if (spec_true(init, "user")) {
		struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
		struct __user_cap_data_struct none[2] = { 0 };
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
		/* Also for uid 0, which exec would give all of the namespace's. */
		for (unsigned long cap = 0; geteuid() == 0 && cap < 64; cap++)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
		syscall(SYS_capset, &header, none);
	}
	setenv("CAIRN_JOB", init->socket_path, 1);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
	execvp(command[0], command);
	int error = errno;
	_exit(write(report, &error, sizeof error) == sizeof error ? 127 : 126);
}

static int start_command(struct init *init, char *const command[], struct fault *fault)
{
	int ends[2], error = 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "pipe: %s", strerror(errno));
	_close_ int from = ends[0], to = ends[1];
	init->root = fork();
	if (init->root == 0)
		execute(init, command, to);
	if (init->root < 0)
		return fault_set(fault, FAULT_FAILED, errno, "fork: %s", strerror(errno));
	close(fd_steal(&to));
	if (read(from, &error, sizeof error) == sizeof error) {
		waitpid(init->root, NULL, 0);
		return fault_set(fault, FAULT_FAILED, error, "%s: %s; try its full path, after --", command[0], strerror(error));
	}
	return 0;
}

/* Everything is made and nothing runs: the tree's own group comes to the foreground, unless nobody wants it any more. */
static int on_ready(void *context, pid_t root, pid_t foreground_group)
{
	struct init *init = context;
	struct pollfd there = { .fd = init->channel, .events = POLLOUT };
	if (poll(&there, 1, 0) == 1 && there.revents & (POLLERR | POLLHUP))
		return 1;
	if (!spec_true(init, "detached") && foreground_group && getpgid(root) != getpgrp()) {
		init->terminal.group = foreground_group;
		terminal_give(&init->terminal, foreground_group);
	}
	return 0;
}

/* The result is heap; its strings are the spec's. */
static struct cairn_path_map *path_maps_of(const struct init *init, size_t *ret_count)
{
	const json_t *list = json_object_get(init->spec, "path_maps");
	*ret_count = json_array_size(list);
	struct cairn_path_map *maps = memory_new(*ret_count * sizeof *maps);
	for (size_t i = 0; i < *ret_count; i++)
		maps[i] = (struct cairn_path_map){
			json_string_value(json_array_get(json_array_get(list, i), 0)),
			json_string_value(json_array_get(json_array_get(list, i), 1)),
		};
	return maps;
}

static const char **address_maps_of(const struct init *init, size_t *ret_count)
{
	const json_t *list = json_object_get(init->spec, "address_maps");
	*ret_count = json_array_size(list);
	const char **maps = memory_new((*ret_count + 1) * sizeof *maps);
	for (size_t i = 0; i < *ret_count; i++)
		maps[i] = json_string_value(json_array_get(list, i));
	return maps;
}

static struct cairn_redirect *redirects_of(const struct init *init, size_t *ret_count)
{
	const json_t *list = json_object_get(init->spec, "redirects");
	*ret_count = json_array_size(list);
	struct cairn_redirect *redirects = memory_new(*ret_count * sizeof *redirects);
	for (size_t i = 0; i < *ret_count; i++)
		redirects[i] = (struct cairn_redirect){
			(int)json_integer_value(json_array_get(json_array_get(list, i), 0)),
			json_string_value(json_array_get(json_array_get(list, i), 1)),
		};
	return redirects;
}

static json_t *restore_tree(struct init *init)
{
	size_t map_count, redirect_count, address_count;
	_free_ const char **addresses = address_maps_of(init, &address_count);
	_free_ struct cairn_path_map *maps = path_maps_of(init, &map_count);
	_free_ struct cairn_redirect *redirects = redirects_of(init, &redirect_count);
	const struct cairn_restore_options options = {
		.redirects = redirects,
		.redirect_count = redirect_count,
		.once = spec_true(init, "once"),
		.lazy = spec_true(init, "lazy"),
		.path_maps = maps,
		.path_map_count = map_count,
		.address_maps = addresses,
		.address_map_count = address_count,
		.force_cpu = spec_true(init, "force_cpu"),
		.close_tcp = spec_true(init, "close_tcp"),
		.image = spec_text(init, "restore"),
		.pids = CAIRN_PIDS_SAME,
		.threads = (unsigned)spec_number(init, "threads"),
		.timeout_s = json_number_value(json_object_get(init->spec, "timeout")),
		.leave_stopped = spec_true(init, "leave_stopped"),
		.ignore_changed_files = spec_true(init, "ignore_changed_files"),
		.roll_back_files = spec_true(init, "roll_back_files"),
		.trust_image = spec_true(init, "trust_image"),
		.terminal = spec_text(init, "terminal"),
		.signal_fd = -1,
		.ready = on_ready,
		.context = init,
	};
	struct cairn_restore_result result;
	struct cairn_error error = { 0 };
	int rc;
	enum cairn_status status = operation_restore(&options, &result, &init->restored, &rc, &error);
	json_t *answer;
	if (status != CAIRN_DONE) {
		answer = control_failed(status, &error);
		cairn_error_free(&error);
		return answer;
	}
	init->root = result.root;
	init->generation = init->restored.generation;
	init->command = memory_string(init->restored.command);
	if (!spec_text(init, "name"))
		json_object_set_new(init->spec, "name", init->restored.job[0] ? json_string(init->restored.job) :
			json_sprintf("%s-%d", init->command, result.root));
	return json_pack("{s:i, s:i, s:i, s:i, s:I}", "status", CAIRN_DONE, "root", (int)result.root, "processes",
			 (int)result.processes, "threads", (int)result.threads, "pages", (json_int_t)result.pages);
}

/* ---- requests ---- */

static unsigned count_processes(void)
{
	unsigned count = 0;
	struct pid_list list = { 0 };
	if (proc_processes(&list, NULL) == 0)
		count = (unsigned)list.pids.count;
	vec_finish(&list.pids);
	return count ? count - 1 : 0; /* but for this one */
}

static json_t *status_answer(const struct init *init, bool inside)
{
	json_t *answer = json_pack("{s:i, s:s, s:s, s:i, s:i, s:i, s:I, s:f, s:f, s:b, s:b}", "status", CAIRN_DONE, "name", init->name,
				   "command", init->command ? init->command : "", "root", (int)init->root, "processes",
				   (int)count_processes() - (init->saving.worker != 0) - 2 * (init->restored.pager != 0), "restored", (int)init->generation, "saves",
				   (json_int_t)init->saves, "saved_at", init->saved_at, "running_s",
				   (double)(clock_now_ns() - init->started_ns) / 1e9, "saving", init->saving.worker != 0, "inside",
				   inside);
	if (spec_text(init, "image"))
		json_object_set_new(answer, "image", json_string(spec_text(init, "image")));
	if (init->every_ns)
		json_object_set_new(answer, "every_s", json_real((double)init->every_ns / 1e9));
	return answer;
}

static void answer_to(struct init *init, int client, json_t *answer)
{
	if (client == init->channel && client >= 0) {
		json_object_set_new(answer, "event", json_string("saved"));
		say(init, answer);
		return;
	}
	if (client >= 0)
		control_send(client, answer, -1);
	json_decref(answer);
}

static void start_saving(struct init *init, json_t *request, int fd, int client)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		answer_to(init, client, control_refused(CAIRN_FAILED, strerror(errno)));
		return;
	}
	bool only_looks = !strcmp(control_text(request, "op", ""), "check");
	pid_t worker = fork();
	if (worker == 0) {
		const struct save_job job = {
			.root = init->root, .name = init->name, .generation = init->generation, .image = spec_text(init, "image"),
			.keep = (unsigned)spec_number(init, "keep"), .periodic = init->every_ns > 0, .own_network = spec_true(init, "network"),
			.tracking = &init->tracking, .pager = init->restored.pager, .outside = (enum cairn_outside)spec_number(init, "outside"),
			.tcp = (enum cairn_tcp)spec_number(init, "tcp"), .save_files = (enum cairn_save_files)spec_number(init, "save_files"),
			.lose_in_flight = spec_true(init, "lose_in_flight"),
		};
		prctl(PR_SET_NAME, "cairn-save");
		json_t *go = NULL;
		close(ends[0]);
		if (control_receive(ends[1], &go, NULL) <= 0)
			_exit(1);
		json_decref(go);
		operation_restored_finish(&init->restored); /* memory counts as loaded when nobody holds these any more */
		json_t *answer = save_answer(&job, request, fd);
		int rc = control_send(ends[1], answer, -1);
		if (rc == 0 && !only_looks)
			handover_send(ends[1], &init->tracking, true);
		_exit(rc < 0);
	}
	/* Who makes a checkpoint goes on from the tracking, and begins when it has the only descriptors: if it closes one that registration is over. */
	if (!only_looks && worker > 0)
		tracking_finish(&init->tracking);
	json_t *go = json_pack("{s:s}", "op", "go");
	control_send(ends[0], go, -1);
	json_decref(go);
	close(ends[1]);
	if (worker < 0) {
		close(ends[0]);
		answer_to(init, client, control_refused(CAIRN_FAILED, "no process for the checkpoint; try a higher limit of processes"));
		return;
	}
	init->saving = (struct saving){
		.worker = worker, .answer = ends[0], .client = client,
		.ends = json_integer_value(json_object_get(request, "after")) == CAIRN_KILL,
		.only_looks = only_looks,
	};
}

static void put_in_line(struct init *init, json_t *request, int fd, int client)
{
	if (init->waiting.count >= MOST_CLIENTS) {
		answer_to(init, client, control_refused(CAIRN_FAILED, "too many checkpoints of this job wait for their turn; try again later"));
		return;
	}
	*vec_add(&init->waiting) = (struct waiting){ json_incref(request), fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3), client };
}

static struct waiting take_waiting(struct init *init, size_t index)
{
	struct waiting waiting = init->waiting.at[index];
	init->waiting.count--;
	memmove(&init->waiting.at[index], &init->waiting.at[index + 1], (init->waiting.count - index) * sizeof waiting);
	return waiting;
}

static void waiting_finish(struct waiting *waiting)
{
	json_decref(waiting->request);
	if (waiting->fd >= 0)
		close(waiting->fd);
}

/* In the order in which they came. Who stops a job in the middle of a periodic checkpoint is to have one of this moment. */
static void serve_waiting(struct init *init)
{
	while (init->waiting.count && !init->saving.worker && !init->ended) {
		struct waiting waiting = take_waiting(init, 0);
		start_saving(init, waiting.request, waiting.fd, waiting.client);
		waiting_finish(&waiting);
	}
}

static void refuse_waiting(struct init *init)
{
	while (init->waiting.count) {
		struct waiting waiting = take_waiting(init, 0);
		answer_to(init, waiting.client, control_refused(CAIRN_VANISHED, "the job has ended meanwhile; try `cairn ps` for those that run"));
		waiting_finish(&waiting);
	}
}

/* Nobody waits for their answers any more. */
static void forget_waiting(struct init *init, int client)
{
	for (size_t i = init->waiting.count; i-- > 0;)
		if (init->waiting.at[i].client == client) {
			struct waiting waiting = take_waiting(init, i);
			waiting_finish(&waiting);
		}
}

static void saving_failed(struct init *init, const json_t *answer)
{
	const json_t *lines = json_object_get(answer, "lines");
	for (size_t i = 0; i < json_array_size(lines); i++)
		say(init, json_pack("{s:s, s:o}", "event", "message", "line",
				    json_sprintf("checkpoint of %s failed, it runs on: %s", init->name,
						 json_string_value(json_array_get(lines, i)))));
}

#define PUT(asker, address, field, value, size) bulletin_write((asker)->pid, (address), offsetof(struct bulletin, field), (value), (size))

/* A program of the job is told what became of the checkpoint that it asked for. */
static void tell_asker(const struct asker *asker, const json_t *answer)
{
	struct bulletin bulletin;
	uint64_t address = bulletin_find(asker->pid);
	if (!address || bulletin_read(asker->pid, address, &bulletin) < 0)
		return;
	const int32_t status = (int32_t)json_integer_value(json_object_get(answer, "status"));
	const char *line = json_string_value(json_array_get(json_object_get(answer, "lines"), 0));
	char text[BULLETIN_ANSWER] = "";
	snprintf(text, sizeof text, "%s", line ? line : "");
	PUT(asker, address, answer, text, sizeof text);
	PUT(asker, address, status, &status, sizeof status);
	PUT(asker, address, answered, &asker->number, sizeof asker->number);
	bulletin_wake(asker->pid, bulletin.waiter);
}

/* One after the other; all that have asked by now were waiting when the checkpoint began. */
static void serve_askers(struct init *init)
{
	if (!init->askers.count || init->saving.worker || init->ended)
		return;
	struct asker asker = init->askers.at[0];
	memmove(&init->askers.at[0], &init->askers.at[1], --init->askers.count * sizeof asker);
	json_t *request = json_pack("{s:i}", "after", CAIRN_RUN_ON);
	start_saving(init, request, -1, -1);
	json_decref(request);
	init->saving.asker = asker;
	if (!init->saving.worker) {
		json_t *answer = control_refused(CAIRN_FAILED, "no process for the checkpoint; try a higher limit of processes");
		tell_asker(&asker, answer);
		json_decref(answer);
		init->saving = (struct saving){ 0 };
	}
}

/* What the worker has said by now: its answer, and the tracking that it leaves. false: there will be no more. */
static bool hear_worker(struct init *init)
{
	struct saving *saving = &init->saving;
	for (;;) {
		json_t *other;
		int rc = handover_receive(saving->answer, MSG_DONTWAIT, &init->tracking, &other);
		if (rc <= 0)
			return rc == -EAGAIN;
		if (other && !saving->said)
			saving->said = other;
		else
			json_decref(other);
	}
}

/* The worker has ended: what it said goes to who asked. */
static void finish_saving(struct init *init)
{
	hear_worker(init);
	struct saving saving = init->saving;
	close(saving.answer);
	init->saving = (struct saving){ 0 };
	json_t *answer = saving.said;
	if (!answer)
		answer = control_refused(CAIRN_FAILED, "the checkpoint was ended from outside");
	bool done = json_integer_value(json_object_get(answer, "status")) == CAIRN_DONE;
	if (done && !saving.only_looks) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		init->saves++;
		init->saved_at = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
		init->saved_last = saving.ends;
	} else if (!done && saving.client < 0 && !saving.asker.pid) {
		saving_failed(init, answer);
	}
	if (saving.asker.pid)
		tell_asker(&saving.asker, answer);
	if (saving.client < 0 && done) {
		json_object_set_new(answer, "event", json_string("saved"));
		say(init, json_incref(answer));
	}
	answer_to(init, saving.client, answer);
}

static void kill_job(struct init *init, int signal)
{
	if (signal && signal != SIGKILL)
		kill(init->root, signal);
	else
		init->killed = (kill(-1, SIGKILL), true); /* all but this process (kill(2)) */
}

static void go_on(struct init *init)
{
	if (init->terminal.group) {
		terminal_give(&init->terminal, init->terminal.group);
		kill(-init->terminal.group, SIGCONT);
	} else {
		kill(init->root, SIGCONT);
	}
}

/* @client: who asks; the channel is one too. */
static void serve(struct init *init, int client, json_t *request, int fd)
{
	const char *op = control_text(request, "op", "");
	if (!strcmp(op, "status")) {
		struct ucred peer = { 0 };
		socklen_t size = sizeof peer;
		getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size);
		answer_to(init, client, status_answer(init, peer.pid > 0));
	} else if (!strcmp(op, "checkpoint") || !strcmp(op, "check")) {
		put_in_line(init, request, fd, client);
	} else if (!strcmp(op, "kill")) {
		kill_job(init, (int)json_integer_value(json_object_get(request, "signal")));
		answer_to(init, client, json_pack("{s:i}", "status", CAIRN_DONE));
	} else if (!strcmp(op, "continue")) {
		go_on(init);
	} else {
		answer_to(init, client, control_refused(CAIRN_USAGE, "an unknown request; try cairn of the same version"));
	}
	if (fd >= 0)
		close(fd);
	json_decref(request);
}

/* ---- events ---- */

/* The socket's mode keeps others out (0600, in a directory 0700). Root, whom a user namespace shows as nobody, may come in. */
static bool is_welcome(int client)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	long overflow = 65534;
	return getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == getuid() || peer.uid == 0 || peer.uid == (uid_t)overflow);
}

static void accept_client(struct init *init)
{
	int client = accept4(init->listener, NULL, NULL, SOCK_CLOEXEC);
	if (client < 0)
		return;
	if (init->clients.count >= MOST_CLIENTS || !is_welcome(client)) {
		close(client);
		return;
	}
	*vec_add(&init->clients) = client;
}

static void drop_client(struct init *init, int client)
{
	/* Nobody waits for its checkpoint any more. Its end is safe at every moment. */
	if (init->saving.worker && init->saving.client == client) {
		kill(init->saving.worker, SIGKILL);
		init->saving.client = -1;
	}
	forget_waiting(init, client);
	for (size_t i = 0; i < init->clients.count; i++)
		if (init->clients.at[i] == client)
			init->clients.at[i] = init->clients.at[--init->clients.count];
	close(client);
}

static void hear_client(struct init *init, int client)
{
	json_t *request;
	int fd = -1, rc = control_receive(client, &request, &fd);
	if (rc > 0)
		serve(init, client, request, fd);
	else if (client == init->channel)
		forget_waiting(init, client), init->channel = (close(client), -1);
	else
		drop_client(init, client);
}

/* Who loads memory behind the tree has ended. Killed before all was there, it leaves a tree that can only wait: its memory will not come. */
static void pager_ended(struct init *init, int status)
{
	bool whole = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (!whole && !init->ended && !init->killed) {
		say(init, json_pack("{s:s, s:s}", "event", "message", "line",
				    "the process that loaded its memory was killed, and what is missing cannot come: the job is ended; try the image again"));
		kill_job(init, SIGKILL);
	}
	operation_restored_finish(&init->restored);
}

static void reap(struct init *init)
{
	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | WUNTRACED | __WALL)) > 0;) {
		if (pid == init->saving.worker && !WIFSTOPPED(status))
			finish_saving(init);
		if (pid == init->restored.pager && !WIFSTOPPED(status))
			pager_ended(init, status);
		if (pid != init->root)
			continue;
		if (WIFSTOPPED(status)) {
			/* SIGSTOP was sent by somebody to it alone. */
			if (WSTOPSIG(status) != SIGSTOP)
				say(init, json_pack("{s:s}", "event", "stopped"));
			continue;
		}
		init->ended = true;
		init->root_status = status;
	}
}

static void hear_signals(struct init *init)
{
	struct signalfd_siginfo info;
	while (read(init->signals, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGCHLD)
			reap(init);
		else if (info.ssi_signo == BULLETIN_REQUEST && info.ssi_code == SI_QUEUE && info.ssi_pid)
			*vec_add(&init->askers) = (struct asker){ (pid_t)info.ssi_pid, (uint32_t)info.ssi_int };
		else if (info.ssi_pid == 0 && info.ssi_code <= 0) /* from outside; the terminal reaches the root by itself */
			kill(init->root, (int)info.ssi_signo);
	}
	reap(init);
}

static void save_in_time(struct init *init)
{
	uint64_t now = clock_now_ns();
	if (!init->every_ns || now < init->next_ns || init->saving.worker)
		return;
	init->next_ns = now + init->every_ns;
	json_t *request = json_pack("{s:i}", "after", spec_true(init, "exit_after") ? CAIRN_KILL : CAIRN_RUN_ON);
	start_saving(init, request, -1, -1);
	json_decref(request);
}

static int wait_ms(const struct init *init)
{
	if (!init->every_ns || init->saving.worker)
		return -1;
	uint64_t now = clock_now_ns();
	return now >= init->next_ns ? 0 : (int)((init->next_ns - now) / 1000000 < 3600000 ? (init->next_ns - now) / 1000000 + 1 : 3600000);
}

static void live(struct init *init)
{
	while (!init->ended || init->saving.worker) {
		struct pollfd watched[MOST_CLIENTS + 4];
		nfds_t count = 0;
		watched[count++] = (struct pollfd){ .fd = init->signals, .events = POLLIN };
		watched[count++] = (struct pollfd){ .fd = init->listener, .events = POLLIN };
		watched[count++] = (struct pollfd){ .fd = init->saving.worker && !init->saving.silent ? init->saving.answer : -1, .events = POLLIN };
		watched[count++] = (struct pollfd){ .fd = init->channel, .events = POLLIN };
		for (size_t i = 0; i < init->clients.count; i++)
			watched[count++] = (struct pollfd){ .fd = init->clients.at[i], .events = POLLIN };
		if (poll(watched, count, wait_ms(init)) < 0)
			continue;
		if (watched[2].revents)
			init->saving.silent = !hear_worker(init);
		if (watched[0].revents)
			hear_signals(init);
		for (nfds_t i = 3; i < count; i++)
			if (watched[i].fd >= 0 && watched[i].revents)
				hear_client(init, watched[i].fd);
		if (watched[1].revents)
			accept_client(init);
		serve_waiting(init);
		serve_askers(init);
		if (!init->ended)
			save_in_time(init);
	}
}

/* Its own copies of the command's standard descriptors would keep pipes open. */
static void leave_standard_descriptors(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= 2; fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}

static json_t *begin(struct init *init, char *const command[])
{
	struct fault fault;
	json_t *answer;
	if (command) {
		init->command = memory_string(command[0]);
		if (take_name(init, control_text(init->spec, "name", "job"), &fault) < 0 || start_command(init, command, &fault) < 0)
			return control_refused((enum cairn_status)fault.class, fault.text);
		answer = json_pack("{s:i, s:i}", "status", CAIRN_DONE, "root", (int)init->root);
	} else {
		answer = restore_tree(init);
		if (json_integer_value(json_object_get(answer, "status")) != CAIRN_DONE)
			return answer;
		if (take_name(init, spec_text(init, "name"), &fault) < 0) {
			json_decref(answer);
			return control_refused((enum cairn_status)fault.class, fault.text);
		}
	}
	note_restored(init);
	json_object_set_new(answer, "name", json_string(init->name));
	return answer;
}

int init_run(int channel, char *const command[])
{
	struct init init = { .channel = channel, .listener = -1, .terminal.fd = -1 };
	sigset_t all;
	fcntl(channel, F_SETFD, FD_CLOEXEC);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "cairn-init");
	if (control_receive(channel, &init.spec, NULL) <= 0)
		return 125;
	/* Until the tree runs it goes with the Cairn that started it; unless detached, also later. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	init.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	init.started_ns = clock_now_ns();
	terminal_open(&init.terminal);
	init.terminal.ours = spec_true(&init, "ours");
	init.every_ns = (uint64_t)(json_number_value(json_object_get(init.spec, "every")) * 1e9);
	init.next_ns = init.started_ns + init.every_ns;
	json_t *answer = begin(&init, command);
	if (json_integer_value(json_object_get(answer, "status")) != CAIRN_DONE)
		return failed_start(&init, answer);
	if (spec_true(&init, "detached"))
		prctl(PR_SET_PDEATHSIG, 0);
	leave_standard_descriptors();
	if (chdir("/") < 0) {
		/* Then it keeps the user's directory busy, no more. */
	}
	say(&init, answer);
	live(&init);
	refuse_waiting(&init);
	leave_registry(&init);
	say(&init, json_pack("{s:s, s:i, s:b}", "event", "ended", "wait", init.root_status, "saved", init.saved_last));
	return WIFEXITED(init.root_status) ? WEXITSTATUS(init.root_status) : 128 + WTERMSIG(init.root_status);
}
