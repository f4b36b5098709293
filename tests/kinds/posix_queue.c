/* SPDX-License-Identifier: Apache-2.0 */
/* variant messages: POSIX message queues keep limits, messages with their priorities, and descriptors, also without a name */
/* variant notify: a queue with a notification is refused by name */
/* refusable: notified */
#include "probe.h"

#include <mqueue.h>
#include <sys/stat.h>
#include <signal.h>

static void is_received(mqd_t queue, const char *wanted, unsigned wanted_priority)
{
	char text[256] = "";
	unsigned priority = 99;
	PROBE_SAME(mq_receive(queue, text, sizeof text, &priority), (long)strlen(wanted), wanted);
	PROBE_TRUE(!memcmp(text, wanted, strlen(wanted)), wanted);
	PROBE_SAME(priority, wanted_priority, "priority");
}

static void messages(void)
{
	char name[64], gone[64];
	snprintf(name, sizeof name, "/probe-%d-kept", getpid());
	snprintf(gone, sizeof gone, "/probe-%d-gone", getpid());
	struct mq_attr limits = { .mq_maxmsg = 7, .mq_msgsize = 200 }, seen;
	mq_unlink(name);
	mqd_t queue = PROBE(mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0640, &limits));
	mqd_t reader = PROBE(mq_open(name, O_RDONLY));
	mqd_t nameless = PROBE(mq_open(gone, O_RDWR | O_CREAT | O_EXCL, 0600, &limits));
	PROBE(mq_unlink(gone));
	PROBE(mq_send(queue, "first", 5, 3));
	PROBE(mq_send(queue, "urgent", 6, 32767));
	PROBE(mq_send(queue, "second", 6, 3));
	PROBE(mq_send(queue, "", 0, 0));
	PROBE(mq_send(nameless, "nameless", 8, 1));

	probe_save();

	PROBE_SAME(mq_getattr(queue, &seen), 0, "mq_getattr");
	PROBE_SAME(seen.mq_maxmsg, 7, "most messages");
	PROBE_SAME(seen.mq_msgsize, 200, "most bytes");
	PROBE_SAME(seen.mq_curmsgs, 4, "messages");
	PROBE_SAME(seen.mq_flags, O_NONBLOCK, "flags");
	PROBE_SAME(mq_getattr(reader, &seen), 0, "mq_getattr of the reader");
	PROBE_SAME(seen.mq_flags, 0, "flags of the reader");
	struct stat status;
	PROBE_SAME(fstat(queue, &status), 0, "fstat");
	PROBE_SAME(status.st_mode & 0777, 0640, "mode");
	is_received(reader, "urgent", 32767);
	is_received(queue, "first", 3);
	is_received(reader, "second", 3);
	is_received(reader, "", 0);
	char text[200];
	PROBE_SAME(mq_receive(queue, text, sizeof text, NULL), -1, "receive from an empty queue");
	PROBE_SAME(errno, EAGAIN, "its error");
	PROBE_SAME(mq_send(reader, "x", 1, 0), -1, "send by a reader");
	mqd_t again = mq_open(name, O_WRONLY);
	PROBE_TRUE(again >= 0, "the queue by its name");
	PROBE_SAME(mq_send(again, "again", 5, 2), 0, "send");
	is_received(reader, "again", 2);
	is_received(nameless, "nameless", 1);
	PROBE_SAME(mq_unlink(name), 0, "mq_unlink");
}

static void notify(void)
{
	char name[64];
	snprintf(name, sizeof name, "/probe-%d-notify", getpid());
	struct mq_attr limits = { .mq_maxmsg = 2, .mq_msgsize = 20 };
	mq_unlink(name);
	mqd_t queue = PROBE(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &limits));
	PROBE(mq_unlink(name));
	signal(SIGUSR1, SIG_IGN);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	PROBE(mq_notify(queue, &event));
	probe_save();
	PROBE_SAME(mq_send(queue, "x", 1, 0), 0, "send");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "notify"))
		notify();
	else
		messages();
	return probe_end();
}
