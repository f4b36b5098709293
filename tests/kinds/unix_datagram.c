/* SPDX-License-Identifier: Apache-2.0 */
/* probe: Unix datagram sockets keep names, connections, and queued datagrams with their senders */
#include "probe.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static socklen_t name(struct sockaddr_un *address, const char *text, size_t size)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(address->sun_path, text, size);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
}

static int bound(const char *text, size_t size)
{
	struct sockaddr_un address;
	socklen_t length = name(&address, text, size);
	int fd = PROBE(socket(AF_UNIX, SOCK_DGRAM, 0));
	PROBE(bind(fd, (struct sockaddr *)&address, length));
	return fd;
}

static void join(int fd, const char *text, size_t size)
{
	struct sockaddr_un address;
	socklen_t length = name(&address, text, size);
	PROBE(connect(fd, (struct sockaddr *)&address, length));
}

static void send_to(int fd, const char *text, size_t size, const char *data)
{
	struct sockaddr_un address;
	socklen_t length = name(&address, text, size);
	PROBE(sendto(fd, data, strlen(data), 0, (struct sockaddr *)&address, length));
}

static void receive(int fd, const char *data, const char *from, size_t size)
{
	char seen[256] = "";
	struct sockaddr_un address;
	socklen_t length = sizeof address;
	PROBE_SAME(recvfrom(fd, seen, sizeof seen, MSG_DONTWAIT, (struct sockaddr *)&address, &length), strlen(data), data);
	probe_same_bytes(seen, data, strlen(data), data);
	size_t got = length > offsetof(struct sockaddr_un, sun_path) ? length - offsetof(struct sockaddr_un, sun_path) : 0;
	if (size && from[0] && got == size + 1)
		got = size;
	PROBE_SAME(got, size, "length of a sender's name");
	if (got == size)
		probe_same_bytes(address.sun_path, from, size, "a sender's name");
}

int main(void)
{
	struct sockaddr_un address;
	socklen_t length;
	char automatic[16];
	int server = bound("server", 6);
	int client = bound("client", 6);
	join(client, "server", 6);
	int anonymous = PROBE(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
	join(anonymous, "server", 6);
	/* A name that the kernel chose. */
	int chosen = PROBE(socket(AF_UNIX, SOCK_DGRAM, 0));
	address.sun_family = AF_UNIX;
	PROBE(bind(chosen, (struct sockaddr *)&address, sizeof(sa_family_t)));
	length = sizeof address;
	PROBE(getsockname(chosen, (struct sockaddr *)&address, &length));
	size_t automatic_size = length - offsetof(struct sockaddr_un, sun_path);
	memcpy(automatic, address.sun_path, automatic_size);
	/* Queued: of a live sender, of one without a name, empty, of one that is gone, of the kernel's name. */
	int dead = bound("dead", 4);
	PROBE(send(client, "first", 5, 0));
	PROBE(send(anonymous, "second", 6, 0));
	send_to(dead, "server", 6, "last words");
	send_to(chosen, "server", 6, "automatic");
	PROBE(close(dead));
	PROBE(unlink("dead"));
	/* Two that are connected to each other by name. */
	int left = bound("left", 4), right = bound("right", 5);
	join(left, "right", 5);
	join(right, "left", 4);
	PROBE(send(left, "to the right", 12, 0));
	/* Connected to one whose file is gone. */
	int unreachable = bound("unreachable", 11);
	int faithful = PROBE(socket(AF_UNIX, SOCK_DGRAM, 0));
	join(faithful, "unreachable", 11);
	PROBE(unlink("unreachable"));
	/* To itself, and to one that was closed. */
	int self = bound("self", 4);
	join(self, "self", 4);
	PROBE(send(self, "monologue", 9, 0));
	int closed = bound("closed", 6), deserted = PROBE(socket(AF_UNIX, SOCK_DGRAM, 0));
	join(deserted, "closed", 6);
	PROBE(close(closed));
	PROBE(shutdown(right, SHUT_WR));

	probe_save();

	receive(server, "first", "client", 6);
	receive(server, "second", "", 0);
	receive(server, "last words", "dead", 4);
	receive(server, "automatic", automatic, automatic_size);
	PROBE_SAME(recv(server, automatic, 1, MSG_DONTWAIT), -1, "one more datagram");
	PROBE_SAME(access("dead", F_OK), -1, "file of the dead sender");
	PROBE_SAME(send(client, "again", 5, 0), 5, "send through the connection");
	receive(server, "again", "client", 6);
	PROBE_SAME(send(anonymous, "nameless", 8, 0), 8, "send without a name");
	receive(server, "nameless", "", 0);
	send_to(server, "client", 6, "answer");
	receive(client, "answer", "server", 6);
	send_to(server, automatic, automatic_size, "kernel's name");
	receive(chosen, "kernel's name", "server", 6);
	receive(right, "to the right", "left", 4);
	PROBE_SAME(send(left, "more", 4, 0), 4, "to the right");
	receive(right, "more", "left", 4);
	PROBE_SAME(send(right, "x", 1, MSG_NOSIGNAL), -1, "send of one that is shut down");
	PROBE_SAME(errno, EPIPE, "error of one that is shut down");
	PROBE_SAME(send(faithful, "hidden", 6, 0), 6, "send to one without a file");
	receive(unreachable, "hidden", "", 0);
	length = sizeof address;
	PROBE(getpeername(faithful, (struct sockaddr *)&address, &length));
	PROBE_TRUE(!strcmp(address.sun_path, "unreachable"), "peer without a file");
	PROBE_SAME(access("unreachable", F_OK), -1, "file that was gone");
	receive(self, "monologue", "self", 4);
	PROBE_SAME(send(self, "go on", 5, 0), 5, "send to itself");
	receive(self, "go on", "self", 4);
	PROBE_SAME(send(deserted, "x", 1, MSG_NOSIGNAL), -1, "send to one that was closed");
	PROBE_SAME(errno, ECONNREFUSED, "error of one that was closed");
	PROBE_SAME(fcntl(anonymous, F_GETFL), O_RDWR | O_NONBLOCK, "flags");
	return probe_end();
}
