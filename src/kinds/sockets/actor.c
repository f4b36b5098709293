/* SPDX-License-Identifier: Apache-2.0 */
#include "kinds/sockets/actor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

enum { GROUPS_MOST = 65536 };

struct actor {
	const Cairn__SocketCredentials *credentials;
	pid_t pid;
	int channel; /* Cairn's end */
};

/* Speaks for a datagram's sender that is not in the tree any more. */
struct feeder {
	const ProtobufCBinaryData *source;
	int fd;
};

struct socket_bench {
	VEC(struct actor *) actors;
	struct actor *stage;
	struct arena arena;
	struct unix_sockets unix_sockets;
	bool has_unix;
	VEC(struct feeder) feeders;
};

enum actor_word { ACTOR_PAIR, ACTOR_LISTEN, ACTOR_CONNECT, ACTOR_BIND };
struct actor_request {
	enum actor_word word;
	int fd, number; /* number: type or backlog */
	socklen_t size;
	struct sockaddr_un address;
};
struct actor_answer {
	int error;
	int fds[2];
};

/* ---- in the actor: system calls only, as after a fork ---- */

static int make_directories(const char *name)
{
	char path[sizeof((struct sockaddr_un *)NULL)->sun_path + 1];
	snprintf(path, sizeof path, "%s", name);
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(path, 0777) < 0 && errno != EEXIST)
			return -1;
		*slash = '/';
	}
	char *last = strrchr(path, '/');
	if (last)
		last[last == path] = 0;
	return open(last ? path : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void act_bind(const struct actor_request *request, struct actor_answer *answer)
{
	answer->fds[0] = make_directories(request->address.sun_path);
	if (answer->fds[0] < 0) {
		answer->error = errno;
		return;
	}
	unlink(request->address.sun_path);
	if (bind(request->fd, (const struct sockaddr *)&request->address, request->size) < 0)
		answer->error = errno;
	else if (chmod(request->address.sun_path, 0777) < 0)
		answer->error = errno;
	if (answer->error)
		close(answer->fds[0]);
}

static void act(const struct actor_request *request, struct actor_answer *answer)
{
	int rc = 0;
	switch (request->word) {
	case ACTOR_PAIR:
		rc = socketpair(AF_UNIX, request->number | SOCK_CLOEXEC, 0, answer->fds);
		break;
	case ACTOR_LISTEN:
		rc = listen(request->fd, request->number);
		break;
	case ACTOR_CONNECT:
		rc = connect(request->fd, (const struct sockaddr *)&request->address, request->size);
		break;
	case ACTOR_BIND:
		act_bind(request, answer);
		return;
	}
	answer->error = rc < 0 ? errno : 0;
}

/* Raw calls: glibc's would speak to threads that are not there. What is not permitted leaves Cairn's own. */
static void dress(const Cairn__SocketCredentials *credentials)
{
	if (!credentials)
		return;
	syscall(SYS_setgroups, credentials->n_groups, credentials->groups);
	syscall(SYS_setresgid, credentials->gid, credentials->gid, credentials->gid);
	syscall(SYS_setresuid, credentials->uid, credentials->uid, credentials->uid);
}

/* A mount of its own that goes with it: nothing is left behind, whatever happens. */
static int set_stage(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("cairn", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0 || chroot("/proc") < 0 || chdir("/") < 0)
		return -errno;
	umask(0);
	return 0;
}

static _Noreturn void perform(int channel, const Cairn__SocketCredentials *credentials, bool is_stage, pid_t cairn)
{
	struct actor_request request;
	struct actor_answer answer = { .error = is_stage ? -set_stage() : 0 };
	dress(credentials);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1); /* or it could not look into its own /proc/self/fd */
	if (getppid() != cairn) /* it died before that */
		_exit(1);
	while (write(channel, &answer, sizeof answer) == sizeof answer &&
	       read(channel, &request, sizeof request) == sizeof request) {
		answer = (struct actor_answer){ .fds = { -1, -1 } };
		act(&request, &answer);
	}
	_exit(0);
}

/* ---- in Cairn ---- */

static void actor_end(void *thing)
{
	struct actor *actor = thing;
	if (actor->pid > 0) {
		kill(actor->pid, SIGKILL);
		while (waitpid(actor->pid, NULL, __WALL) < 0 && errno == EINTR)
			;
	}
	if (actor->channel >= 0)
		close(actor->channel);
	free(actor);
}

static void bench_end(void *thing)
{
	struct socket_bench *bench = thing;
	for (size_t i = 0; i < bench->feeders.count; i++)
		close(bench->feeders.at[i].fd);
	vec_finish(&bench->feeders);
	vec_finish(&bench->actors);
	arena_finish(&bench->arena);
	free(bench);
}

static struct socket_bench *bench_of(struct workshop *workshop)
{
	if (!workshop->sockets) {
		workshop->sockets = memory_new(sizeof *workshop->sockets);
		*vec_add(&workshop->at_end) = (struct scoped_end){ bench_end, workshop->sockets };
	}
	return workshop->sockets;
}

static pid_t born(const struct workshop *workshop, pid_t pid)
{
	/* Numbers cannot be chosen then, and container filters know no clone3. */
	if (workshop->renumber)
		return (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	struct clone_args args = {
		.flags = CLONE_FILES, .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1,
	};
	return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static bool is_wanted(const struct workshop *workshop, uint32_t pid)
{
	for (uint32_t id = 0; id < workshop->file_space; id++) {
		const Cairn__UnixSocket *one =
			(const Cairn__UnixSocket *)workshop_file(workshop, id, &cairn__unix_socket__descriptor);
		if (one && one->peer_credentials && one->peer_credentials->pid == pid)
			return true;
	}
	return false;
}

/* With a PID that no other actor will want: the next free one could be just that. */
static pid_t born_anywhere(const struct workshop *workshop)
{
	enum { HIGHEST = 32000, TRIES = 1000 };
	pid_t pid = -1;
	for (pid_t wanted = HIGHEST; pid < 0 && wanted > HIGHEST - TRIES; wanted--) {
		if (is_wanted(workshop, (uint32_t)wanted))
			continue;
		pid = born(workshop, wanted);
		if (pid < 0 && errno != EEXIST)
			break;
	}
	return pid;
}

static int actor_answer(struct actor *actor, struct actor_answer *ret_answer, const char *what, struct fault *fault)
{
	ssize_t got = read(actor->channel, ret_answer, sizeof *ret_answer);
	int error = got == sizeof *ret_answer ? ret_answer->error : ECHILD;
	return error ? fault_set(fault, fault_class_of(error), error, "%s: %s", what, strerror(error)) : 0;
}

static int actor_new(const struct workshop *workshop, const Cairn__SocketCredentials *credentials, bool is_stage,
		     struct actor **ret_actor, struct fault *fault)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return fault_set(fault, FAULT_FAILED, errno, "socketpair: %s", strerror(errno));
	pid_t cairn = getpid(), wanted = credentials ? (pid_t)credentials->pid : 0, pid = wanted > 1 ? born(workshop, wanted) : born_anywhere(workshop);
	if (pid < 0 && wanted > 1) {
		log_warn("a connection was made by process %d, whose PID cannot be had here (%s); continuing without it "
			 "(SO_PEERCRED names another)", wanted, strerror(errno));
		pid = born_anywhere(workshop);
	}
	if (pid == 0)
		perform(ends[1], credentials, is_stage, cairn);
	int error = errno;
	struct actor *actor = memory_new(sizeof *actor);
	*actor = (struct actor){ credentials, pid, ends[0] };
	struct actor_answer answer;
	int rc = pid < 0 ? fault_set(fault, fault_class_of(error), error, "clone3: %s", strerror(error)) :
		 actor_answer(actor, &answer, is_stage ? "a place for names without files (a mount namespace; try as root, or "
				      "cairn run)" : "setting an actor up", fault);
	/* Shared with the actor: closed only when it is up. */
	if (rc < 0) {
		actor_end(actor);
		close(ends[1]);
		return rc;
	}
	*ret_actor = actor;
	return ends[1];
}

static bool same(const Cairn__SocketCredentials *a, const Cairn__SocketCredentials *b)
{
	if (!a || !b)
		return a == b;
	return a->pid == b->pid && a->uid == b->uid && a->gid == b->gid && a->n_groups == b->n_groups &&
	       (!a->n_groups || !memcmp(a->groups, b->groups, a->n_groups * sizeof *a->groups));
}

static void close_end(void *thing)
{
	close((int)(intptr_t)thing - 1);
}

int actor_get(struct workshop *workshop, const Cairn__SocketCredentials *credentials, struct actor **ret_actor,
	      struct fault *fault)
{
	struct socket_bench *bench = bench_of(workshop);
	for (size_t i = 0; i < bench->actors.count; i++) {
		if (same(bench->actors.at[i]->credentials, credentials)) {
			*ret_actor = bench->actors.at[i];
			return 0;
		}
	}
	/* Two with one PID cannot live at the same time. */
	for (size_t i = 0; credentials && i < bench->actors.count; i++) {
		struct actor *other = bench->actors.at[i];
		if (!other->credentials || other->credentials->pid != credentials->pid || credentials->pid <= 1 || other->pid < 0)
			continue;
		kill(other->pid, SIGKILL);
		while (waitpid(other->pid, NULL, __WALL) < 0 && errno == EINTR)
			;
		other->pid = -1;
		bench->actors.at[i] = bench->actors.at[--bench->actors.count];
		break;
	}
	struct actor *actor;
	int end = actor_new(workshop, credentials, false, &actor, fault);
	if (end < 0)
		return end;
	*vec_add(&workshop->at_births) = (struct scoped_end){ close_end, (void *)(intptr_t)(end + 1) };
	*vec_add(&workshop->at_births) = (struct scoped_end){ actor_end, actor };
	*vec_add(&bench->actors) = actor;
	*ret_actor = actor;
	return 0;
}

int actor_stage(struct workshop *workshop, struct actor **ret_actor, struct fault *fault)
{
	struct socket_bench *bench = bench_of(workshop);
	if (!bench->stage) {
		int end = actor_new(workshop, NULL, true, &bench->stage, fault);
		if (end < 0)
			return end;
		*vec_add(&workshop->at_births) = (struct scoped_end){ close_end, (void *)(intptr_t)(end + 1) };
		*vec_add(&workshop->at_births) = (struct scoped_end){ actor_end, bench->stage };
	}
	*ret_actor = bench->stage;
	return 0;
}

static int ask(struct actor *actor, const struct actor_request *request, struct actor_answer *ret_answer, const char *what,
	       struct fault *fault)
{
	if (write(actor->channel, request, sizeof *request) != sizeof *request)
		return fault_set(fault, FAULT_FAILED, errno, "%s: %s", what, strerror(errno));
	return actor_answer(actor, ret_answer, what, fault);
}

pid_t actor_pid(const struct actor *actor)
{
	return actor->pid;
}

int actor_pair(struct actor *actor, int type, int ret_fds[2], struct fault *fault)
{
	const struct actor_request request = { .word = ACTOR_PAIR, .number = type };
	struct actor_answer answer;
	int rc = ask(actor, &request, &answer, "socketpair", fault);
	if (rc == 0)
		memcpy(ret_fds, answer.fds, sizeof answer.fds);
	return rc;
}

int actor_listen(struct actor *actor, int fd, int backlog, struct fault *fault)
{
	const struct actor_request request = { .word = ACTOR_LISTEN, .fd = fd, .number = backlog };
	struct actor_answer answer;
	return ask(actor, &request, &answer, "listen", fault);
}

int actor_connect(struct actor *actor, int fd, const struct sockaddr_un *address, socklen_t size, struct fault *fault)
{
	const struct actor_request request = { .word = ACTOR_CONNECT, .fd = fd, .address = *address, .size = size };
	struct actor_answer answer;
	return ask(actor, &request, &answer, "connect", fault);
}

int actor_bind(struct actor *stage, int fd, const struct sockaddr_un *address, socklen_t size, int *ret_directory,
	       struct fault *fault)
{
	const struct actor_request request = { .word = ACTOR_BIND, .fd = fd, .address = *address, .size = size };
	struct actor_answer answer;
	int rc = ask(stage, &request, &answer, "bind", fault);
	if (rc == 0)
		*ret_directory = answer.fds[0];
	return rc;
}

ssize_t actor_send_as(const struct workshop *workshop, pid_t pid, int fd, const struct msghdr *header)
{
	ssize_t *sent = mmap(NULL, sizeof *sent, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sent == MAP_FAILED)
		return -errno;
	*sent = -ESRCH;
	pid_t speaker = workshop->renumber ? -1 : born(workshop, pid);
	if (speaker == 0) {
		*sent = syscall(SYS_sendmsg, fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);
		*sent = *sent < 0 ? -errno : *sent;
		_exit(0);
	}
	while (speaker > 0 && waitpid(speaker, NULL, __WALL) < 0 && errno == EINTR)
		;
	ssize_t rc = *sent;
	munmap(sent, sizeof *sent);
	return rc;
}

int bench_unix_sockets(struct workshop *workshop, const struct unix_sockets **ret_sockets, struct fault *fault)
{
	struct socket_bench *bench = bench_of(workshop);
	int rc = bench->has_unix ? 0 : sockdiag_unix(&bench->arena, &bench->unix_sockets, fault);
	bench->has_unix = rc == 0;
	*ret_sockets = &bench->unix_sockets;
	return rc;
}

static bool same_source(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
	return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

int bench_feeder(struct workshop *workshop, const ProtobufCBinaryData *source)
{
	const struct socket_bench *bench = bench_of(workshop);
	for (size_t i = 0; i < bench->feeders.count; i++)
		if (same_source(bench->feeders.at[i].source, source))
			return bench->feeders.at[i].fd;
	return -1;
}

void bench_put_feeder(struct workshop *workshop, const ProtobufCBinaryData *source, int fd)
{
	*vec_add(&bench_of(workshop)->feeders) = (struct feeder){ source, fd };
}
