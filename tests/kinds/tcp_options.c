/* SPDX-License-Identifier: Apache-2.0 */
/* variant v4: what both ends of a TCP connection have agreed on, timestamps far from the kernel's clock, and options of sockets of every state */
/* variant v6: the same over IPv6 */
#include "probe.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { PACING = 47, NOTSENT = 25, KEEPERS = 23, SO_BUF_LOCK_ = 72, REPAIR_OFF = -1 };
#define SHIFT 1000000000u /* eleven days in milliseconds: as on a host with another clock */

struct setting {
	int level, name, value;
	bool of_listener, of_connection;
};

/* Values that are nobody's default. */
static const struct setting settings[] = {
	{ SOL_SOCKET, SO_REUSEPORT, 1, true, false },
	{ SOL_SOCKET, SO_PRIORITY, 5, true, true },
	{ SOL_SOCKET, SO_RCVLOWAT, 3, true, true },
	{ SOL_SOCKET, SO_SNDBUF, 50000, true, true },
	{ SOL_SOCKET, PACING, 123456789, true, true },
	{ IPPROTO_IP, IP_TTL, 99, true, true },
	{ IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO, true, true },
	{ IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1, true, false },
	{ IPPROTO_IP, IP_FREEBIND, 1, true, false },
	{ IPPROTO_TCP, KEEPERS, 5, true, false }, /* TCP_FASTOPEN */
	{ IPPROTO_TCP, TCP_KEEPIDLE, 71, true, true },
	{ IPPROTO_TCP, TCP_KEEPINTVL, 72, true, true },
	{ IPPROTO_TCP, TCP_KEEPCNT, 73, true, true },
	{ IPPROTO_TCP, TCP_SYNCNT, 7, true, true },
	{ IPPROTO_TCP, TCP_LINGER2, 17, true, true },
	{ IPPROTO_TCP, TCP_USER_TIMEOUT, 77777, true, true },
	{ IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1, true, true },
	{ IPPROTO_TCP, NOTSENT, 65432, true, true },
};
static const struct setting settings_v6[] = {
	{ IPPROTO_IPV6, IPV6_V6ONLY, 1, true, false },
	{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, 88, true, true },
	{ IPPROTO_IPV6, IPV6_TCLASS, 0x20, true, true },
	{ IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, true, true },
};

static int get(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof value;
	PROBE_SAME(getsockopt(fd, level, name, &value, &size), 0, "getsockopt");
	return value;
}

static void set_all(int fd, const struct setting *all, size_t count, bool listens)
{
	for (size_t i = 0; i < count; i++)
		if (listens ? all[i].of_listener : all[i].of_connection)
			PROBE(setsockopt(fd, all[i].level, all[i].name, &all[i].value, sizeof all[i].value));
}

static void same_all(int fd, const struct setting *all, size_t count, bool listens, const char *what)
{
	for (size_t i = 0; i < count; i++) {
		char text[80];
		int value = all[i].value * (all[i].name == SO_SNDBUF && all[i].level == SOL_SOCKET ? 2 : 1);
		if (!(listens ? all[i].of_listener : all[i].of_connection))
			continue;
		snprintf(text, sizeof text, "option %d of level %d of %s", all[i].name, all[i].level, what);
		PROBE_SAME(get(fd, all[i].level, all[i].name), value, text);
	}
}

static void same_device(int fd)
{
	char name[16] = "";
	socklen_t size = sizeof name;
	getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &size);
	PROBE_TRUE(!strcmp(name, "lo"), "SO_BINDTODEVICE");
}

/* False: not permitted. */
static bool timestamp(int fd, uint32_t *value, uint32_t forward)
{
	int on = 1, off = REPAIR_OFF;
	socklen_t size = sizeof *value;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) < 0)
		return false;
	PROBE(getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, value, &size));
	*value += forward;
	if (forward)
		PROBE(setsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, value, sizeof *value));
	PROBE(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off));
	return true;
}

static void talk(int from, int to, const char *what)
{
	char seen[64] = "";
	size_t size = strlen(what);
	PROBE_SAME(send(from, what, size, MSG_NOSIGNAL), size, what);
	struct pollfd pollfd = { .fd = to, .events = POLLIN };
	poll(&pollfd, 1, 20000);
	PROBE_SAME(recv(to, seen, sizeof seen, MSG_DONTWAIT), size, what);
	probe_same_bytes(seen, what, size, what);
}

static struct tcp_info info_of(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof info;
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
	return info;
}

static void same_agreement(int fd, const struct tcp_info *before, const char *what)
{
	struct tcp_info now = info_of(fd);
	PROBE_SAME(now.tcpi_state, before->tcpi_state, what);
	PROBE_SAME(now.tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE),
		   before->tcpi_options & (TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE), what);
	PROBE_SAME(now.tcpi_snd_wscale, before->tcpi_snd_wscale, what);
	PROBE_SAME(now.tcpi_rcv_wscale, before->tcpi_rcv_wscale, what);
}

int main(int argc, char **argv)
{
	bool six = argc > 1 && !strcmp(argv[1], "v6");
	struct sockaddr_in four_address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 six_address = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr *address = six ? (struct sockaddr *)&six_address : (struct sockaddr *)&four_address;
	socklen_t size = six ? sizeof six_address : sizeof four_address;
	const size_t count = sizeof settings / sizeof *settings, count_v6 = six ? sizeof settings_v6 / sizeof *settings_v6 : 0;

	int from = PROBE(socket(address->sa_family, SOCK_STREAM, 0));
	set_all(from, settings, count, true);
	set_all(from, settings_v6, count_v6, true);
	PROBE(setsockopt(from, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	PROBE(bind(from, address, size));
	PROBE(listen(from, 3));
	PROBE(getsockname(from, address, &size));
	int fresh = PROBE(socket(address->sa_family, SOCK_STREAM, 0));
	set_all(fresh, settings, count, false);
	set_all(fresh, settings_v6, count_v6, false);
	int client = PROBE(socket(address->sa_family, SOCK_STREAM, 0)), small = PROBE(socket(address->sa_family, SOCK_STREAM, 0));
	PROBE(connect(client, address, size));
	int server = PROBE(accept(from, NULL, NULL));
	/* One that agreed on less: small segments, a small window. */
	PROBE(setsockopt(small, IPPROTO_TCP, TCP_MAXSEG, &(int){ 600 }, sizeof(int)));
	PROBE(setsockopt(small, SOL_SOCKET, SO_RCVBUF, &(int){ 8000 }, sizeof(int)));
	PROBE(connect(small, address, size));
	int small_server = PROBE(accept(from, NULL, NULL));
	set_all(client, settings, count, false);
	set_all(client, settings_v6, count_v6, false);
	struct tcp_info agreed = info_of(client), agreed_small = info_of(small), agreed_other = info_of(small_server);
	PROBE_TRUE(agreed_other.tcpi_snd_mss <= 600, "set-up: small segments");

	uint32_t before = 0, now = 0;
	talk(client, server, "abc");
	bool shifted = timestamp(client, &before, SHIFT);
	talk(client, server, "shifted");
	uint64_t clock_before = probe_clock_ns(CLOCK_BOOTTIME);

	probe_save();

	same_all(from, settings, count, true, "the listening one");
	same_all(from, settings_v6, count_v6, true, "the listening one");
	same_device(from);
	same_all(fresh, settings, count, false, "the fresh one");
	same_all(fresh, settings_v6, count_v6, false, "the fresh one");
	same_all(client, settings, count, false, "the connection");
	same_all(client, settings_v6, count_v6, false, "the connection");
	/* An ordinary user's are agreed upon anew. */
	if (shifted) {
		same_agreement(client, &agreed, "agreement of the client");
		same_agreement(small, &agreed_small, "agreement of the small one");
		same_agreement(small_server, &agreed_other, "agreement of the small one's other end");
		PROBE_TRUE(info_of(small_server).tcpi_snd_mss <= 600, "size of segments");
		uint64_t passed_ms = (probe_clock_ns(CLOCK_BOOTTIME) - clock_before) / 1000000;
		PROBE_TRUE(timestamp(client, &now, 0), "repair mode");
		PROBE_TRUE(now - before <= passed_ms + 60000, "the timestamps go on from where they were");
	}
	for (int round = 0; round < 3; round++) {
		talk(client, server, "to the server");
		talk(server, client, "to the client");
		talk(small, small_server, "in small segments");
		talk(small_server, small, "back in small segments");
	}
	return probe_end();
}
