/* SPDX-License-Identifier: Apache-2.0 */
/* variant stream: listening Unix sockets and their connections keep names, files, backlog, options and the credentials of both ends */
/* variant seqpacket: the same of SOCK_SEQPACKET */
#include "probe.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static int type = SOCK_STREAM;

static socklen_t name(struct sockaddr_un *address, const char *text, size_t size)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(address->sun_path, text, size);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
}

static int listen_at(const char *text, size_t size, int backlog)
{
	struct sockaddr_un address;
	socklen_t length = name(&address, text, size);
	int fd = PROBE(socket(AF_UNIX, type, 0));
	PROBE(bind(fd, (struct sockaddr *)&address, length));
	PROBE(listen(fd, backlog));
	return fd;
}

static int connect_to(const char *text, size_t size)
{
	struct sockaddr_un address;
	socklen_t length = name(&address, text, size);
	int fd = PROBE(socket(AF_UNIX, type, 0));
	PROBE(connect(fd, (struct sockaddr *)&address, length));
	return fd;
}

static void same_name(int fd, bool peer, const char *text, size_t size, const char *what)
{
	struct sockaddr_un address = { 0 };
	socklen_t length = sizeof address;
	PROBE_SAME(peer ? getpeername(fd, (struct sockaddr *)&address, &length) :
			  getsockname(fd, (struct sockaddr *)&address, &length), 0, what);
	size_t got = length - offsetof(struct sockaddr_un, sun_path);
	/* A path's terminating NUL counts or not, as the kernel likes. */
	if (size && text[0] && got == size + 1)
		got = size;
	PROBE_SAME(got, size, what);
	if (got == size)
		probe_same_bytes(address.sun_path, text, size, what);
}

static void talk(int from, int to, const char *what)
{
	char seen[64];
	size_t size = strlen(what);
	PROBE_SAME(send(from, what, size, MSG_NOSIGNAL), size, what);
	struct pollfd pollfd = { .fd = to, .events = POLLIN };
	poll(&pollfd, 1, 2000);
	PROBE_SAME(recv(to, seen, sizeof seen, MSG_DONTWAIT), size, what);
	probe_same_bytes(seen, what, size, what);
}

static void same_peer(int fd, pid_t pid, const char *what)
{
	struct ucred peer = { 0 };
	socklen_t size = sizeof peer;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	PROBE_SAME(peer.pid, pid, what);
	PROBE_SAME(peer.uid, getuid(), what);
	PROBE_SAME(peer.gid, getgid(), what);
}

int main(int argc, char **argv)
{
	static char abstract[] = "\0cairn probe\0odd", gone[] = "gone.socket";
	char absolute[100], directory[80];
	if (argc > 1 && !strcmp(argv[1], "seqpacket"))
		type = SOCK_SEQPACKET;
	/* The namespace of names is shared with the tests beside this one. */
	uint64_t number = probe_clock_ns(CLOCK_MONOTONIC);
	memcpy(abstract + 1, &number, sizeof number);
	if (!getcwd(directory, sizeof directory))
		probe_skip("a short working directory");
	snprintf(absolute, sizeof absolute, "%s/absolute", directory);

	PROBE(mkdir("below", 0755));
	umask(027);
	int relative = listen_at("below/relative.socket", 21, 7);
	umask(022);
	PROBE(chmod("below/relative.socket", 0641));
	int whole = listen_at(absolute, strlen(absolute), 1000);
	int hidden = listen_at(abstract, sizeof abstract - 1, 3);
	int lost = listen_at(gone, strlen(gone), 5);
	int client_lost = connect_to(gone, strlen(gone));
	int server_lost = PROBE(accept(lost, NULL, NULL));
	PROBE(unlink(gone));
	/* Somebody else's by now. */
	PROBE(mkdir(gone, 0700));

	int client = connect_to("below/relative.socket", 21), server = PROBE(accept(relative, NULL, NULL));
	PROBE(send(client, "before", 6, 0));
	int second = connect_to("below/relative.socket", 21), second_server = PROBE(accept(relative, NULL, NULL));
	int deep = connect_to(abstract, sizeof abstract - 1), deep_server = PROBE(accept(hidden, NULL, NULL));
	/* A client with a name of its own. */
	struct sockaddr_un address;
	socklen_t length = name(&address, "own.client", 10);
	int named = PROBE(socket(AF_UNIX, type | SOCK_NONBLOCK, 0));
	PROBE(bind(named, (struct sockaddr *)&address, length));
	length = name(&address, absolute, strlen(absolute));
	PROBE(connect(named, (struct sockaddr *)&address, length));
	int named_server = PROBE(accept4(whole, NULL, NULL, SOCK_NONBLOCK));
	/* Its listener is closed; the name stays with the connection. */
	int short_lived = listen_at("closed.socket", 13, 1);
	int orphan = connect_to("closed.socket", 13), orphan_server = PROBE(accept(short_lived, NULL, NULL));
	PROBE(close(short_lived));
	/* Accepted, and the client has gone. */
	int left = connect_to(absolute, strlen(absolute)), left_server = PROBE(accept(whole, NULL, NULL));
	PROBE(send(left, "bye", 3, 0));
	PROBE(close(left));
	/* Two wait in the backlog. */
	int waiting[2] = { connect_to(abstract, sizeof abstract - 1), connect_to(abstract, sizeof abstract - 1) };
	/* A child connects, and a child is connected to. */
	int steps[2];
	PROBE(pipe(steps));
	pid_t child = PROBE(fork());
	if (!child) {
		char byte;
		int own = connect_to("below/relative.socket", 21);
		PROBE(write(steps[1], "c", 1));
		same_peer(own, getppid(), "the server, as the child sees it");
		probe_wait();
		same_peer(own, getppid(), "the server, as the child sees it");
		PROBE_SAME(recv(own, &byte, 1, 0), 1, "byte for the child");
		PROBE_SAME(send(own, "y", 1, MSG_NOSIGNAL), 1, "answer of the child");
		_exit(probe_faults != 0);
	}
	char byte;
	PROBE(read(steps[0], &byte, 1));
	int of_child = PROBE(accept(relative, NULL, NULL));

	probe_save();

	struct stat stat_now;
	PROBE_SAME(stat("below/relative.socket", &stat_now), 0, "the socket's file");
	PROBE_SAME(stat_now.st_mode, S_IFSOCK | 0641, "mode of the socket's file");
	PROBE_SAME(stat_now.st_uid, getuid(), "owner of the socket's file");
	same_name(relative, false, "below/relative.socket", 21, "name of the relative one");
	same_name(whole, false, absolute, strlen(absolute), "name of the absolute one");
	same_name(hidden, false, abstract, sizeof abstract - 1, "name of the abstract one");
	same_name(lost, false, gone, strlen(gone), "name of the one without a file");
	same_name(client, false, "", 0, "name of a client");
	same_name(client, true, "below/relative.socket", 21, "peer of a client");
	same_name(server, false, "below/relative.socket", 21, "name of an accepted one");
	same_name(deep_server, false, abstract, sizeof abstract - 1, "name of an accepted abstract one");
	same_name(deep, true, abstract, sizeof abstract - 1, "peer of an abstract client");
	same_name(named, false, "own.client", 10, "name of a client that has one");
	same_name(named_server, true, "own.client", 10, "peer that has a name");
	same_name(named_server, false, absolute, strlen(absolute), "name of an accepted one with a named peer");
	same_name(server_lost, false, gone, strlen(gone), "name of an accepted one without a file");
	same_name(orphan_server, false, "closed.socket", 13, "name of an accepted one whose listener is closed");
	same_name(orphan, true, "closed.socket", 13, "peer of a client whose listener is closed");
	PROBE_SAME(stat("own.client", &stat_now), 0, "file of a client");
	PROBE_TRUE(stat(gone, &stat_now) == 0 && S_ISDIR(stat_now.st_mode), "what lies where a socket was is left alone");

	char seen[64];
	PROBE_SAME(recv(server, seen, sizeof seen, MSG_DONTWAIT), 6, "bytes from before");
	talk(client, server, "client to server");
	talk(server, client, "server to client");
	talk(second, second_server, "second connection");
	talk(deep_server, deep, "abstract");
	talk(named, named_server, "named client");
	talk(named_server, named, "to the named client");
	talk(client_lost, server_lost, "without a file");
	talk(orphan, orphan_server, "without a listener");
	PROBE_SAME(fcntl(named, F_GETFL), O_RDWR | O_NONBLOCK, "flags of the named client");
	PROBE_SAME(recv(left_server, seen, sizeof seen, MSG_DONTWAIT), 3, "last bytes of a client that left");
	PROBE_SAME(recv(left_server, seen, sizeof seen, MSG_DONTWAIT), 0, "end of a client that left");
	same_name(left_server, false, absolute, strlen(absolute), "name of an accepted one whose client left");

	same_peer(client, getpid(), "the server, as a client sees it");
	same_peer(server, getpid(), "the client, as the server sees it");
	same_peer(of_child, child, "the child, as the server sees it");
	PROBE_SAME(send(of_child, "x", 1, MSG_NOSIGNAL), 1, "byte for the child");
	PROBE_SAME(recv(of_child, seen, 1, 0), 1, "answer of the child");
	probe_join(child, "child");

	for (int i = 0; i < 2; i++) {
		int accepted = accept(hidden, NULL, NULL);
		PROBE_TRUE(accepted >= 0, "accept of one that waited");
		talk(waiting[i], accepted, "waited");
		same_peer(accepted, getpid(), "one that waited");
	}
	int fresh = connect_to("below/relative.socket", 21), fresh_server = accept(relative, NULL, NULL);
	talk(fresh, fresh_server, "a new connection");
	fresh = connect_to(absolute, strlen(absolute)), fresh_server = accept(whole, NULL, NULL);
	talk(fresh, fresh_server, "a new connection to the absolute one");
	/* The backlog of 3 holds four; the fifth would wait. */
	for (int i = 0; i < 4; i++)
		connect_to(abstract, sizeof abstract - 1);
	fresh = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);
	length = name(&address, abstract, sizeof abstract - 1);
	PROBE_SAME(connect(fresh, (struct sockaddr *)&address, length), -1, "connection beyond the backlog");
	PROBE_SAME(errno, EAGAIN, "error of a connection beyond the backlog");
	return probe_end();
}
