/* SPDX-License-Identifier: Apache-2.0 */
/* variant messages: a System V message queue keeps id, key, mode, limit and messages in order */
/* variant blocked: processes that wait to receive and to send go on when the queue changes after the restore */
#include "probe.h"

#include <sys/ipc.h>
#include <sys/msg.h>

struct message {
	long type;
	char text[4000];
};

static void send_(int id, long type, size_t size, uint64_t seed)
{
	struct message message = { .type = type };
	probe_fill(message.text, size, seed);
	PROBE(msgsnd(id, &message, size, 0));
}

static void receive(int id, long want, long type, size_t size, uint64_t seed)
{
	struct message message;
	PROBE_SAME(msgrcv(id, &message, sizeof message.text, want, IPC_NOWAIT), (long)size, "size of a message");
	PROBE_SAME(message.type, type, "type of a message");
	probe_filled(message.text, size, seed, "text of a message");
}

static void messages(void)
{
	key_t key = (key_t)(0x0ca30000u + (unsigned)(probe_clock_ns(CLOCK_REALTIME) >> 10 & 0xffff));
	int id = PROBE(msgget(key, IPC_CREAT | IPC_EXCL | 0604));
	int empty = PROBE(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	struct msqid_ds status;
	PROBE(msgctl(id, IPC_STAT, &status));
	status.msg_qbytes -= 1000;
	PROBE(msgctl(id, IPC_SET, &status));
	send_(id, 7, 4000, 1);
	send_(id, 1, 0, 2);
	send_(id, 0x7fffffffffffffff, 13, 3);
	send_(id, 7, 100, 4);

	probe_save();

	struct msqid_ds now;
	PROBE_SAME(msgget(key, 0), id, "id of the key");
	PROBE_SAME(msgctl(id, IPC_STAT, &now), 0, "IPC_STAT");
	PROBE_SAME(now.msg_qbytes, status.msg_qbytes, "limit of bytes");
	PROBE_SAME(now.msg_perm.mode & 0777, 0604, "mode");
	PROBE_SAME(now.msg_qnum, 4, "messages");
	PROBE_SAME(now.__msg_cbytes, 4113, "bytes");
	receive(id, 0, 7, 4000, 1);
	receive(id, 7, 7, 100, 4);
	receive(id, -100, 1, 0, 2);
	receive(id, 0, 0x7fffffffffffffff, 13, 3);
	PROBE_SAME(msgctl(empty, IPC_STAT, &now), 0, "IPC_STAT of a queue that nobody has used");
	PROBE(msgctl(id, IPC_RMID, NULL));
	PROBE(msgctl(empty, IPC_RMID, NULL));
}

static void blocked(void)
{
	int id = PROBE(msgget(IPC_PRIVATE, IPC_CREAT | 0600)), full = PROBE(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	struct message message = { .type = 3 };
	send_(id, 4, 10, 1);
	while (msgsnd(full, &message, sizeof message.text, IPC_NOWAIT) == 0)
		;
	pid_t receiver = PROBE(fork());
	if (!receiver) {
		PROBE_SAME(msgrcv(id, &message, sizeof message.text, 9, 0), 21, "size of the message that was waited for");
		probe_filled(message.text, 21, 5, "its text");
		_exit(probe_faults != 0);
	}
	pid_t sender = PROBE(fork());
	if (!sender) {
		message.type = 77;
		PROBE_SAME(msgsnd(full, &message, 4000, 0), 0, "msgsnd");
		_exit(probe_faults != 0);
	}

	probe_save();

	send_(id, 9, 21, 5);
	probe_join(receiver, "receiver");
	receive(id, 0, 4, 10, 1);
	PROBE_SAME(msgrcv(full, &message, sizeof message.text, 3, IPC_NOWAIT), 4000, "a message of the full queue");
	probe_join(sender, "sender");
	PROBE_SAME(msgrcv(full, &message, sizeof message.text, 77, IPC_NOWAIT), 4000, "what the sender sent");
	PROBE(msgctl(id, IPC_RMID, NULL));
	PROBE(msgctl(full, IPC_RMID, NULL));
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "blocked"))
		blocked();
	else
		messages();
	return probe_end();
}
