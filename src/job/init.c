/* SPDX-License-Identifier: Apache-2.0 */
#include "job/init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/key.h"
#include "api/operations.h"
#include "job/control.h"
#include "job/registry.h"
#include "job/state.h"
#include "kernel/bulletin.h"
#include "kernel/procfs.h"

const char *spec_text(const struct init *init, const char *key)
{
	return control_text(init->spec, key, NULL);
}

bool spec_true(const struct init *init, const char *key)
{
	return json_is_true(json_object_get(init->spec, key));
}

uint64_t spec_number(const struct init *init, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(init->spec, key));
}

void init_say(struct init *init, json_t *message)
{
	if (init->channel >= 0)
		control_send(init->channel, message, NULL);
	json_decref(message);
}

void init_answer(struct init *init, int client, json_t *answer)
{
	if (client == init->channel && client >= 0) {
		json_object_set_new(answer, "event", json_string("saved"));
		init_say(init, answer);
		return;
	}
	if (client >= 0)
		control_send(client, answer, NULL);
	json_decref(answer);
}

static int failed_start(struct init *init, json_t *answer)
{
	init_say(init, answer);
	if (init->socket_path)
		start_undo_name(init);
	return 125;
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
static void serve(struct init *init, int client, json_t *request, struct control_fds *fds)
{
	const char *op = control_text(request, "op", "");
	if (!strcmp(op, "status")) {
		struct ucred peer = { 0 };
		socklen_t size = sizeof peer;
		getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size);
		init_answer(init, client, status_answer(init, peer.pid > 0));
	} else if (!strcmp(op, "checkpoint") || !strcmp(op, "check")) {
		saving_ask(init, request, fds, client);
	} else if (!strcmp(op, "kill")) {
		kill_job(init, (int)json_integer_value(json_object_get(request, "signal")));
		init_answer(init, client, json_pack("{s:i}", "status", CAIRN_DONE));
	} else if (!strcmp(op, "continue")) {
		go_on(init);
	} else {
		init_answer(init, client, control_refused(CAIRN_USAGE, "an unknown request; try cairn of the same version"));
	}
	control_fds_close(fds);
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
	saving_forget(init, client);
	for (size_t i = 0; i < init->clients.count; i++)
		if (init->clients.at[i] == client)
			init->clients.at[i] = init->clients.at[--init->clients.count];
	close(client);
}

static void hear_client(struct init *init, int client)
{
	json_t *request;
	struct control_fds fds = CONTROL_NO_FDS;
	int rc = control_receive(client, &request, &fds);
	if (rc > 0)
		serve(init, client, request, &fds);
	else if (client == init->channel)
		saving_forget(init, client), init->channel = (close(client), -1);
	else
		drop_client(init, client);
}

/* Who loads memory behind the tree has ended. Killed before all was there, it leaves a tree that can only wait: its memory will not come. */
static void pager_ended(struct init *init, int status)
{
	bool whole = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (!whole && !init->ended && !init->killed) {
		init_say(init, json_pack("{s:s, s:s}", "event", "message", "line",
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
			saving_done(init);
		if (pid == init->restored.pager && !WIFSTOPPED(status))
			pager_ended(init, status);
		if (pid != init->root)
			continue;
		if (WIFSTOPPED(status)) {
			/* SIGSTOP was sent by somebody to it alone. */
			if (WSTOPSIG(status) != SIGSTOP)
				init_say(init, json_pack("{s:s}", "event", "stopped"));
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
		if (poll(watched, count, saving_wait_ms(init)) < 0)
			continue;
		if (watched[2].revents)
			init->saving.silent = !saving_hear(init);
		if (watched[0].revents)
			hear_signals(init);
		for (nfds_t i = 3; i < count; i++)
			if (watched[i].fd >= 0 && watched[i].revents)
				hear_client(init, watched[i].fd);
		if (watched[1].revents)
			accept_client(init);
		saving_go_on(init);
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

/* PID 1, from its spec on. */
static int be_init(struct init *init, char *const command[])
{
	sigset_t all;
	sigfillset(&all);
	prctl(PR_SET_NAME, "cairn-init");
	init->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	init->started_ns = clock_now_ns();
	terminal_open(&init->terminal);
	init->terminal.ours = spec_true(init, "ours");
	init->every_ns = (uint64_t)(json_number_value(json_object_get(init->spec, "every")) * 1e9);
	init->next_ns = init->started_ns + init->every_ns;
	json_t *answer = start_tree(init, command);
	if (json_integer_value(json_object_get(answer, "status")) != CAIRN_DONE)
		return failed_start(init, answer);
	if (spec_true(init, "detached"))
		prctl(PR_SET_PDEATHSIG, 0);
	leave_standard_descriptors();
	if (chdir("/") < 0) {
		/* Then it keeps the user's directory busy, no more. */
	}
	init_say(init, answer);
	live(init);
	saving_close(init);
	start_undo_name(init);
	init_say(init, json_pack("{s:s, s:i, s:b}", "event", "ended", "wait", init->root_status, "saved", init->saved_last));
	return WIFEXITED(init->root_status) ? WEXITSTATUS(init->root_status) : 128 + WTERMSIG(init->root_status);
}

/* All signals are blocked from now on. false: nobody is there any more. */
static bool take_spec(struct init *init)
{
	sigset_t all;
	fcntl(init->channel, F_SETFD, FD_CLOEXEC);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	struct control_fds fds = CONTROL_NO_FDS;
	if (control_receive(init->channel, &init->spec, &fds) <= 0)
		return false;
	if (fds.key >= 0 && !(init->key = key_take(fds.key)))
		return false;
	control_fds_close(&fds);
	/* Until the tree runs it goes with the Cairn that started it; unless detached, also later. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return true;
}

int init_of_clone(int channel, struct operation_template *template)
{
	struct init init = { .channel = channel, .listener = -1, .terminal.fd = -1, .template = template };
	return take_spec(&init) ? be_init(&init, NULL) : 125;
}

int init_run(int channel, char *const command[])
{
	struct init init = { .channel = channel, .listener = -1, .terminal.fd = -1 };
	if (!take_spec(&init))
		return 125;
	if (spec_true(&init, "template"))
		return template_run(&init);
	return getpid() == 1 ? be_init(&init, command) : 125;
}
