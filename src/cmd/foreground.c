/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/foreground.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "job/control.h"

/* The job stopped itself (^Z): so does this one, for the shell to see; and goes on with it. */
static void stop_along(const struct foreground *foreground)
{
	const struct terminal *terminal = foreground->terminal;
	terminal_give(terminal, getpgrp());
	kill(getpid(), SIGSTOP);
	if (foreground->job.init) {
		json_t *request = json_pack("{s:s}", "op", "continue");
		control_send(foreground->job.channel, request, NULL);
		json_decref(request);
	} else if (terminal->group) {
		terminal_give(terminal, terminal->group);
		kill(-terminal->group, SIGCONT);
	} else {
		kill(foreground->job.root, SIGCONT);
	}
}

static void say_line(const struct foreground *foreground, const json_t *event, const char *key)
{
	const char *line = control_text(event, key, "");
	if (foreground->common->json)
		cmd_json(json_pack("{s:s, s:o}", "event", key, key, cmd_text(line)));
	else
		fprintf(stderr, "cairn: %s\n", line);
}

static int status_of(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The exit status, or -1: it runs. */
static int hear_init(struct foreground *foreground)
{
	json_t *event;
	int rc = control_receive(foreground->job.channel, &event, NULL);
	if (rc <= 0) {
		/* It was killed, and everything with it. */
		int status;
		return waitpid(foreground->job.init, &status, 0) == foreground->job.init ? status_of(status) : OWN_FAILURE;
	}
	const char *what = control_text(event, "event", "");
	int ended = -1;
	if (!strcmp(what, "stopped")) {
		stop_along(foreground);
	} else if (!strcmp(what, "message")) {
		say_line(foreground, event, "line");
	} else if (!strcmp(what, "saved")) {
		const json_t *lines = json_object_get(event, "lines");
		for (size_t i = 0; i < json_array_size(lines); i++)
			fprintf(stderr, "cairn: checkpoint failed, the job runs on: %s\n", json_string_value(json_array_get(lines, i)));
		if (!json_array_size(lines) && foreground->common->verbosity)
			say_line(foreground, event, "image");
	} else if (!strcmp(what, "ended")) {
		bool saved = json_is_true(json_object_get(event, "saved"));
		ended = saved && foreground->exit_after ? RUN_AGAIN : status_of((int)json_integer_value(json_object_get(event, "wait")));
		waitpid(foreground->job.init, NULL, 0);
	}
	json_decref(event);
	return ended;
}

/* A child in this namespace. The exit status, or -1: it runs. */
static int hear_child(struct foreground *foreground)
{
	for (int status;;) {
		pid_t ended = waitpid(foreground->job.root, &status, WNOHANG | WUNTRACED | __WALL);
		if (ended == 0)
			return -1;
		if (ended < 0)
			return OWN_FAILURE;
		if (!WIFSTOPPED(status))
			return status_of(status);
		if (WSTOPSIG(status) != SIGSTOP)
			stop_along(foreground);
	}
}

static void ask_for_image(const struct foreground *foreground)
{
	json_t *request = json_pack("{s:s, s:i}", "op", "checkpoint", "after", foreground->exit_after ? CAIRN_KILL : CAIRN_RUN_ON);
	control_send(foreground->job.channel, request, NULL);
	json_decref(request);
}

static void hear_signals(const struct foreground *foreground, int signals)
{
	struct signalfd_siginfo info;
	while (read(signals, &info, sizeof info) == sizeof info) {
		int number = (int)info.ssi_signo;
		if (number == foreground->save_signal)
			ask_for_image(foreground);
		/* What the terminal sends reaches the job by itself if it is in this process's group. */
		else if (number != SIGCHLD && number != SIGCONT && !(info.ssi_code == SI_KERNEL && !foreground->terminal->group))
			kill(foreground->job.root, number);
	}
}

int foreground_wait(struct foreground *foreground)
{
	sigset_t all;
	sigfillset(&all);
	sigdelset(&all, SIGTTOU);
	sigprocmask(SIG_SETMASK, &all, NULL);
	int signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK), ended = -1;
	while (ended < 0) {
		if (!foreground->job.init)
			ended = hear_child(foreground);
		struct pollfd watched[] = { { signals, POLLIN, 0 }, { foreground->job.channel, POLLIN, 0 } };
		if (ended >= 0 || poll(watched, 2, -1) < 0)
			continue;
		if (watched[0].revents)
			hear_signals(foreground, signals);
		if (watched[1].revents)
			ended = hear_init(foreground);
	}
	terminal_give(foreground->terminal, getpgrp());
	close(signals);
	job_finish(&foreground->job);
	return ended;
}
