/* SPDX-License-Identifier: Apache-2.0 */
/* variant messages: POSIX message queues keep limits, messages with their priorities, and descriptors, also without a name */
/* variant notify: a queue with a notification by a thread is refused by name */
/* variant none: a notification is registered again by the process that waits for it */
/* variant signal: a notification by a signal comes back with --in-flight lose, without its value */
/* options: --in-flight lose */
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

static volatile sig_atomic_t told;
static int told_value;

static void tell(int number, siginfo_t *info, void *context)
{
	(void)context;
	told = number;
	told_value = info->si_value.sival_int;
}

static mqd_t make_queue(void)
{
	char name[64];
	snprintf(name, sizeof name, "/probe-%d-notify", getpid());
	struct mq_attr limits = { .mq_maxmsg = 2, .mq_msgsize = 20 };
	mq_unlink(name);
	mqd_t queue = PROBE(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &limits));
	PROBE(mq_unlink(name));
	return queue;
}

/* Somebody is registered: another registration says so. */
static bool is_registered(mqd_t queue)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE };
	return mq_notify(queue, &event) < 0 && errno == EBUSY;
}

static void signal_(void)
{
	mqd_t queue = make_queue();
	struct sigaction action = { .sa_sigaction = tell, .sa_flags = SA_SIGINFO };
	sigaction(SIGRTMIN + 3, &action, NULL);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3 };
	PROBE(mq_notify(queue, &event));

	probe_save();

	PROBE_TRUE(is_registered(queue), "the notification is registered");
	PROBE_SAME(told, 0, "nothing has come yet");
	PROBE_SAME(mq_send(queue, "x", 1, 0), 0, "send");
	PROBE_SAME(told, SIGRTMIN + 3, "the signal");
	PROBE_SAME(told_value, 0, "its value");
	PROBE_SAME(mq_notify(queue, &event), 0, "registering anew");
}

/* Registered by a child, which has two descriptors of the queue; its parent has it too. */
static void none(void)
{
	int ends[2];
	char byte;
	mqd_t queue = make_queue();
	PROBE(pipe(ends));
	pid_t child = PROBE(fork());
	if (child == 0) {
		mqd_t copy = PROBE(dup(queue));
		struct sigevent event = { .sigev_notify = SIGEV_NONE };
		PROBE(mq_notify(copy, &event));
		PROBE(write(ends[1], "r", 1));
		probe_wait();
		exit(probe_end());
	}
	PROBE(read(ends[0], &byte, 1));

	probe_save();

	char shown[128] = "";
	PROBE_TRUE(pread(queue, shown, sizeof shown - 1, 0) > 0, "what the queue shows");
	const char *pid = strstr(shown, "NOTIFY_PID:");
	PROBE_TRUE(pid != NULL, shown);
	/* The child may have ended already, and its notification with it. */
	if (pid && strtol(pid + 11, NULL, 10))
		PROBE_SAME(strtol(pid + 11, NULL, 10), child, "who is told");
	probe_join(child, "the child");
	PROBE_TRUE(!is_registered(queue), "its notification ended with it");
}

static void thread_told(union sigval value)
{
	(void)value;
}

static void notify(void)
{
	mqd_t queue = make_queue();
	struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = thread_told };
	PROBE(mq_notify(queue, &event));
	probe_save();
	PROBE_SAME(mq_send(queue, "x", 1, 0), 0, "send");
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "notify"))
		notify();
	else if (argc > 1 && !strcmp(argv[1], "signal"))
		signal_();
	else if (argc > 1 && !strcmp(argv[1], "none"))
		none();
	else
		messages();
	return probe_end();
}
