/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says, parsed: odd texts, and the real files of this process. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "kernel/aio.h"
#include "kernel/fdinfo.h"
#include "kernel/features.h"
#include "kernel/host.h"
#include "kernel/kcmp.h"
#include "kernel/maps.h"
#include "kernel/pagemap.h"
#include "kernel/room.h"
#include "kernel/sysvipc.h"
#include "kernel/token.h"
#include "kernel/uring.h"
#include "kernel/vdso.h"

#define PAGE 4096ul

/* The rest of a stat line behind the command, with a terminal (136, 300) and a negative exit code. */
#define STAT_TAIL                                                                                                  \
	" S 7 8 9 1083436 -1 4194304 97 0 0 0 0 0 0 0 20 -5 3 0 322505 3133440 359 18446744073709551615 4096 8192 " \
	"140731748461552 0 0 0 0 0 0 0 0 0 17 0 40 1 0 0 0 10 20 30 40 50 60 70 256\n"

/* Where a function of the vdso lies, by its section headers. */
static size_t function_of(const uint8_t *image, const char *wanted)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)(const void *)image;
	const Elf64_Shdr *sections = (const Elf64_Shdr *)(const void *)(image + header->e_shoff);
	for (unsigned s = 0; s < header->e_shnum; s++) {
		const Elf64_Sym *symbols = (const Elf64_Sym *)(const void *)(image + sections[s].sh_offset);
		const char *names = (const char *)image + sections[sections[s].sh_link].sh_offset;
		for (size_t i = 0; sections[s].sh_type == SHT_DYNSYM && i < sections[s].sh_size / sizeof *symbols; i++)
			if (!strcmp(names + symbols[i].st_name, wanted))
				return symbols[i].st_value;
	}
	return 0;
}

static void a_memory_cgroup_is_found_in_both_versions(void **state)
{
	(void)state;
	struct room_group group;
	char path[PATH_MAX];
	size_t top;
	const char *version1 = "9:name=systemd:/s\n4:cpu,memory:/box/one\n0::/other\n", *version2 = "0::/box/two\n";
	const char *mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
			     "35 31 0:32 / /sys/fs/cgroup/cpu rw,relatime shared:7 - cgroup cgroup rw,cpu,memory\n"
			     "36 31 0:33 / /unified rw,relatime shared:7 master:1 - cgroup2 cgroup2 rw\n";
	assert_true(room_group_parse(version1, &group));
	assert_false(group.unified);
	assert_string_equal(group.path, "/box/one");
	assert_true(room_directory_parse(mounts, &group, path, &top));
	assert_string_equal(path, "/sys/fs/cgroup/cpu/box/one");
	assert_int_equal(top, strlen("/sys/fs/cgroup/cpu"));
	assert_true(room_group_parse(version2, &group));
	assert_true(group.unified);
	assert_true(room_directory_parse(mounts, &group, path, &top));
	assert_string_equal(path, "/unified/box/two");
	/* A container sees its own part only. */
	const char *part = "36 31 0:33 /box /unified rw - cgroup2 cgroup2 rw\n";
	assert_true(room_directory_parse(part, &group, path, &top));
	assert_string_equal(path, "/unified/two");
	assert_true(room_group_parse("0::/box\n", &group) && room_directory_parse(part, &group, path, &top));
	assert_string_equal(path, "/unified");
	assert_true(room_group_parse("0::/boxes\n", &group));
	assert_false(room_directory_parse(part, &group, path, &top));
	assert_false(room_group_parse("", &group));
	assert_false(room_group_parse("3:cpu:/a\n", &group));
	assert_false(room_group_parse("odd\n", &group));
	const char *odd[] = { "", "\n", "36 31 0:33\n", "36 31 0:33 / /unified rw\n", "36 31 0:33 / /unified rw - cgroup\n", "36 31 0:33 / /unified rw -\n" };
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
		assert_false(room_directory_parse(odd[i], &group, path, &top));
	struct room room;
	room_look(getpid(), &room);
	assert_true(room.left > 0 && room.left < UINT64_MAX);
}

static void an_old_vdso_leads_into_the_new_one(void **state)
{
	(void)state;
	struct host_vdso vdso;
	char why[128] = "";
	host_vdso_read(&vdso);
	assert_non_null(vdso.code);
	uint8_t *old = mmap(NULL, vdso.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(old, MAP_FAILED);
	memcpy(old, vdso.code, vdso.size);
	size_t offset = function_of(vdso.code, "__vdso_clock_gettime");
	assert_true(offset > 0);
	assert_true(vdso_redirect(old, vdso.size, vdso.code, vdso.size, (uint64_t)(uintptr_t)vdso.code, why, sizeof why));
	assert_int_equal(mprotect(old, vdso.size, PROT_READ | PROT_EXEC), 0);
	/* The kernel's data does not lie before this copy: its own code would crash. */
	int (*clock_gettime_)(clockid_t, struct timespec *);
	const uint8_t *entry = old + offset;
	memcpy(&clock_gettime_, &entry, sizeof entry);
	struct timespec before, now, after;
	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_int_equal(clock_gettime_(CLOCK_MONOTONIC, &now), 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	assert_true(before.tv_sec <= now.tv_sec && now.tv_sec <= after.tv_sec);
	munmap(old, vdso.size);
}

static void a_damaged_vdso_is_not_used(void **state)
{
	(void)state;
	struct host_vdso vdso;
	char why[128];
	host_vdso_read(&vdso);
	uint8_t *old = malloc(vdso.size);
	assert_non_null(old);
	/* Whatever is damaged, nothing is written outside of it (address sanitizer). */
	for (size_t i = 0; i < vdso.size; i += 3) {
		memcpy(old, vdso.code, vdso.size);
		old[i] ^= (uint8_t)(1 + i % 255);
		vdso_redirect(old, vdso.size, vdso.code, vdso.size, 4096, why, sizeof why);
	}
	for (size_t size = 0; size < vdso.size; size += 17) {
		uint8_t *part = malloc(size + 1);
		assert_non_null(part);
		memcpy(part, vdso.code, size);
		vdso_redirect(part, size, vdso.code, vdso.size, 4096, why, sizeof why);
		free(part);
	}
	memset(old, 0, vdso.size);
	assert_false(vdso_redirect(old, vdso.size, vdso.code, vdso.size, 4096, why, sizeof why));
	free(old);
}

static void stat_takes_a_command_with_parentheses_and_newlines(void **state)
{
	(void)state;
	struct proc_stat stat;
	struct fault fault;
	assert_int_equal(proc_stat_parse("41 (a) R 1 (\nb) c)" STAT_TAIL, &stat, &fault), 0);
	assert_string_equal(stat.command, "a) R 1 (\nb) c");
	assert_int_equal(stat.pid, 41);
	assert_int_equal(stat.state, 'S');
	assert_int_equal(stat.parent, 7);
	assert_int_equal(stat.group, 8);
	assert_int_equal(stat.session, 9);
	assert_int_equal(stat.terminal, makedev(136, 300));
	assert_int_equal(stat.foreground, -1);
	assert_int_equal(stat.nice, -5);
	assert_int_equal(stat.threads, 3);
	assert_int_equal(stat.start_time, 322505);
	assert_int_equal(stat.start_code, 4096);
	assert_int_equal(stat.end_code, 8192);
	assert_int_equal(stat.exit_signal, SIGCHLD);
	assert_int_equal(stat.rt_priority, 40);
	assert_int_equal(stat.policy, 1);
	assert_int_equal(stat.start_data, 10);
	assert_int_equal(stat.env_end, 70);
	assert_int_equal(stat.exit_code, 256);
}

static void stat_that_is_malformed_is_quoted(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"", "41", "41 (cat", "41 )cat( S", "41 (cat) S 1 2 wrong", "41 (cat) S 1 2 3\n", "x (cat)" STAT_TAIL,
		"41 (cat)", "41 (cat) ",
	};
	struct proc_stat stat;
	struct fault fault;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		assert_int_equal(proc_stat_parse(texts[i], &stat, &fault), -EBADMSG);
	assert_int_equal(proc_stat_parse("41 (cat) S 1 2 wrong", &stat, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "'wrong'") ? fault.text : strstr(fault.text, "wrong"));
	assert_int_equal(fault.class, FAULT_FAILED);
}

static void calls_are_parsed(void **state)
{
	(void)state;
	struct proc_call call;
	struct fault fault;
	assert_int_equal(proc_call_parse("202 0x7f0c 0x189 0x0 0xffffffffffffffff 0x1 0x2 0x7ffd 0x7f0c\n", &call, &fault), 0);
	assert_int_equal(call.number, 202);
	assert_int_equal(call.args[1], 0x189);
	assert_true(call.args[3] == UINT64_MAX && call.args[5] == 2 && call.stack == 0x7ffd);
	assert_int_equal(proc_call_parse("running\n", &call, &fault), 0);
	assert_int_equal(call.number, -1);
	assert_int_equal(call.stack, 0);
	assert_int_equal(proc_call_parse("-1 0x7ffd 0x7f0c\n", &call, &fault), 0);
	assert_int_equal(call.number, -1);
	assert_int_equal(call.stack, 0x7ffd);
	assert_int_equal(proc_call_parse("202 0x7f0c 0x189\n", &call, &fault), -EBADMSG);
	assert_int_equal(proc_call_parse("asleep\n", &call, &fault), -EBADMSG);
}

/* A child that pauses is seen in its call, and so is what it waits with. */
static void a_call_of_a_child_is_seen(void **state)
{
	(void)state;
	struct proc_call call = { .number = -1 };
	struct fault fault;
	pid_t child = fork();
	if (child == 0) {
		for (;;)
			syscall(SYS_ppoll, NULL, 0, NULL, NULL, 123456);
	}
	while (call.number != SYS_ppoll)
		assert_int_equal(proc_call_read(child, child, &call, &fault), 0);
	assert_int_equal(call.args[4], 123456);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_int_equal(proc_call_read(child, child, &call, &fault), -ESRCH);
}

static void status_without_seccomp_is_taken(void **state)
{
	(void)state;
	static const char text[] =
		"Name:\ta\\nUid:\t9\nUmask:\t0027\nState:\tt (tracing stop)\nTracerPid:\t12\nUid:\t1\t2\t3\t4294967294\n"
		"Gid:\t5\t6\t7\t8\nGroups:\t4 24 100000 \nNSpid:\t900\t7\nFuture:\twhat ever\nThreads:\t3\n"
		"SigPnd:\t0000000000000001\nShdPnd:\t0000000000000002\nSigBlk:\tfffffffe7ffbfeff\n"
		"SigIgn:\t0000000000001000\nSigCgt:\t00000001800004ec\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t1\n";
	struct arena arena = { 0 };
	struct proc_status status;
	struct fault fault;
	assert_int_equal(proc_status_parse(text, &arena, &status, &fault), 0);
	assert_int_equal(status.umask, 027);
	assert_int_equal(status.state, 't');
	assert_int_equal(status.tracer, 12);
	assert_int_equal(status.uid[0], 1);
	assert_int_equal(status.uid[3], 4294967294u);
	assert_int_equal(status.gid[2], 7);
	assert_int_equal(status.group_count, 3);
	assert_int_equal(status.groups[2], 100000);
	assert_int_equal(status.ns_pid, 7);
	assert_int_equal(status.ns_depth, 2);
	assert_int_equal(status.threads, 3);
	assert_true(status.blocked == 0xfffffffe7ffbfeff);
	assert_true(status.cap_effective == 0x1ffffffffff);
	assert_true(status.no_new_privs);
	assert_int_equal(status.seccomp, 0);
	assert_true(status.thp_enabled);
	arena_finish(&arena);
}

static void status_that_is_malformed_is_quoted(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"Umask:\t0029\n", "Uid:\t1 2 3\n", "Uid:\t1 2 3 4294967296\n", "Groups:\t1 -2\n", "SigBlk:\t0g\n",
		"NoNewPrivs:\t2\n", "Seccomp:\t\n", "Threads:\t99999999999999999999\n", "State:\t\n", "NSpid:\tx\n",
		"Seccomp:\tno\x1b[2Jsuch",
	};
	struct arena arena = { 0 };
	struct proc_status status;
	struct fault fault;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		assert_int_equal(proc_status_parse(texts[i], &arena, &status, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "Seccomp is malformed: 'Seccomp: no?[2Jsuch'"));
	arena_finish(&arena);
}

static void maps_takes_escaped_and_deleted_names(void **state)
{
	(void)state;
	static const char text[] =
		"00400000-00401000 r-xp 00002000 fe:10f 1234 /tmp/a\\012b c (deleted)\n"
		"00401000-00402000 rw-s 00000000 00:01 7                          /dev/zero (deleted)\n"
		"00402000-00403000 ---p 00000000 00:00 0 \n"
		"00403000-00404000 ---p 00000000 00:00 0\n"
		"00404000-00405000 -w-p 00000000 00:00 0 [anon: two  blanks]\n"
		"00405000-00406000 r--p 00000000 00:00 5 /back\\101slash (deleted) not\n"
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]";
	struct arena arena = { 0 };
	struct map_list list;
	struct fault fault;
	assert_int_equal(maps_parse(text, &arena, &list, &fault), 0);
	assert_int_equal(list.maps.count, 7);
	const struct map *map = list.maps.at;
	assert_int_equal(map[0].start, 0x400000);
	assert_int_equal(map[0].end, 0x401000);
	assert_int_equal(map[0].protection, PROT_READ | PROT_EXEC);
	assert_int_equal(map[0].offset, 0x2000);
	assert_true(map[0].device == makedev(0xfe, 0x10f));
	assert_int_equal(map[0].inode, 1234);
	assert_string_equal(map[0].name, "/tmp/a\nb c");
	assert_true(map[0].deleted && !map[0].shared);
	assert_true(map[1].shared && map[1].deleted);
	assert_string_equal(map[1].name, "/dev/zero");
	assert_string_equal(map[2].name, "");
	assert_string_equal(map[3].name, "");
	assert_string_equal(map[4].name, "[anon: two  blanks]");
	assert_string_equal(map[5].name, "/back\\101slash (deleted) not");
	assert_false(map[5].deleted);
	assert_string_equal(map[6].name, "[vsyscall]");
	assert_true(map[6].start == 0xffffffffff600000);
	maps_finish(&list);
	arena_finish(&arena);
}

static void smaps_keeps_unknown_flags(void **state)
{
	(void)state;
	static const char text[] =
		"00400000-00401000 rw-p 00000000 00:00 0 \nSize:                  4 kB\nNewThing: x\n"
		"ProtectionKey:         3\nVmFlags: rd wr mr mw me ac zz dd q1 q2 q3 q4 q5 q6 \n"
		"00401000-00402000 rw-p 00000000 00:00 0 [stack]\nVmFlags: rd wr mr mw me gd ac sd\n"
		"00402000-00403000 rw-p 00000000 00:00 0 \nVmFlags:\n";
	struct arena arena = { 0 };
	struct map_list list;
	struct fault fault;
	assert_int_equal(maps_parse(text, &arena, &list, &fault), 0);
	assert_int_equal(list.maps.count, 3);
	const struct map *map = list.maps.at;
	assert_int_equal(map[0].flags,
			 MAP_FLAG_MAY_WRITE | MAP_FLAG_ACCOUNT | MAP_FLAG_DONT_DUMP | MAP_FLAG_OTHER);
	assert_string_equal(map[0].unknown, "zz q1 q2 q3 q4");
	assert_int_equal(map[0].protection_key, 3);
	assert_int_equal(map[1].flags, MAP_FLAG_MAY_WRITE | MAP_FLAG_ACCOUNT | MAP_FLAG_GROWS_DOWN);
	assert_string_equal(map[1].unknown, "");
	assert_int_equal(map[2].flags, 0);
	maps_finish(&list);
	arena_finish(&arena);
}

static void maps_that_are_malformed_are_quoted(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"00400000 r-xp 0 0:0 0\n", "00400000-00400000 r-xp 0 0:0 0\n", "00400000-00401000 r-x 0 0:0 0\n",
		"00400000-00401000 r-xp 0 00 0\n", "00400000-00401000 r-xp 0 0:0 0x\n", "Size: 4 kB\n", "\n",
		"0-1000 r-xp 0 0:0 0\nVmFlags: rdx\n", "0-1000 r-xp 0 0:0 0\nVmFlags: r\n",
		"0-1000 r-xp 0 0:0 0\nProtectionKey: a\n", "00000000000000000400000-11111111111111111 r-xp 0 0:0 0\n",
	};
	struct arena arena = { 0 };
	struct map_list list;
	struct fault fault;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		assert_int_equal(maps_parse(texts[i], &arena, &list, &fault), -EBADMSG);
	assert_int_equal(maps_parse("0-1000 r-yp 0 0:0 0\n", &arena, &list, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "'0-1000 r-yp 0 0:0 0'"));
	arena_finish(&arena);
}

static void limits_are_those_of_getrlimit(void **state)
{
	(void)state;
	struct text text = { 0 };
	struct proc_limits limits;
	struct fault fault;
	assert_int_equal(proc_read(getpid(), "limits", &text, &fault), 0);
	assert_int_equal(proc_limits_parse(text.at, &limits, &fault), 0);
	for (int i = 0; i < 16; i++) {
		struct rlimit limit;
		assert_int_equal(getrlimit(i, &limit), 0);
		assert_true(limits.soft[i] == limit.rlim_cur && limits.hard[i] == limit.rlim_max);
	}
	assert_int_equal(proc_limits_parse("Max cpu time  soon  unlimited  seconds\n", &limits, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "soon"));
	assert_int_equal(proc_limits_parse("Max cpu time  1 2 seconds\n", &limits, &fault), -EBADMSG);
	text_finish(&text);
}

static void timers_are_parsed(void **state)
{
	(void)state;
	static const char text[] = "ID: 3\nsignal: 10/00007ffc12345678\nnotify: signal/tid.77\nClockID: -6\nNew: 1\n"
				   "ID: 4294967295\nsignal: 0/0\nnotify: none/pid.78\nClockID: 1\n";
	struct proc_timers timers;
	struct fault fault;
	assert_int_equal(proc_timers_parse(text, &timers, &fault), 0);
	assert_int_equal(timers.timers.count, 2);
	assert_int_equal(timers.timers.at[0].id, 3);
	assert_int_equal(timers.timers.at[0].signal, 10);
	assert_true(timers.timers.at[0].value == 0x7ffc12345678);
	assert_int_equal(timers.timers.at[0].notify, SIGEV_SIGNAL | SIGEV_THREAD_ID);
	assert_int_equal(timers.timers.at[0].notify_id, 77);
	assert_int_equal(timers.timers.at[0].clock, -6);
	assert_int_equal(timers.timers.at[1].id, 4294967295u);
	assert_int_equal(timers.timers.at[1].notify, SIGEV_NONE);
	vec_finish(&timers.timers);
	assert_int_equal(proc_timers_parse("ID: 1\nnotify: pigeon/pid.1\n", &timers, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "pigeon"));
	assert_int_equal(proc_timers_parse("", &timers, &fault), 0);
	assert_int_equal(timers.timers.count, 0);
}

static void system_v_objects_are_parsed(void **state)
{
	(void)state;
	static const char segments[] =
		"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime"
		"                   rss                  swap\n"
		" -559038737      32769  1640                 98204   501   502      3  1000   100  1001   101 1700000000          0 1700000001"
		"                 98304                     0\n";
	static const char queues[] =
		"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n"
		"          7          0   604        4113          4     3     0     1     2     3     4          0          0         99\n";
	struct sysv_list list;
	struct fault fault;
	assert_int_equal(sysv_parse(SYSV_SHM, segments, &list, &fault), 0);
	assert_int_equal(list.objects.count, 1);
	const struct sysv_object *object = sysv_find(&list, 32769);
	assert_non_null(object);
	assert_int_equal(object->key, -559038737);
	assert_int_equal(object->mode, 01640);
	assert_int_equal(object->size, 98204);
	assert_int_equal(object->attached, 3);
	assert_int_equal(object->creator_gid, 101);
	assert_int_equal(object->changed_s, 1700000001);
	sysv_finish(&list);
	assert_int_equal(sysv_parse(SYSV_MSG, queues, &list, &fault), 0);
	assert_int_equal(list.objects.at[0].size, 4);
	assert_int_equal(list.objects.at[0].sender, 3);
	assert_int_equal(list.objects.at[0].changed_s, 99);
	sysv_finish(&list);
	assert_int_equal(sysv_parse(SYSV_SEM, "head\n 1 2 600 5 0\n", &list, &fault), -EBADMSG);
	assert_int_equal(sysv_parse(SYSV_SEM, "head\n", &list, &fault), 0);
	assert_int_equal(list.objects.count, 0);
}

static void own_timers_are_seen(void **state)
{
	(void)state;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
	event.sigev_value.sival_ptr = (void *)0x123456789a;
	timer_t timer;
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	struct text text = { 0 };
	struct proc_timers timers;
	struct fault fault;
	assert_int_equal(proc_read(getpid(), "timers", &text, &fault), 0);
	assert_int_equal(proc_timers_parse(text.at, &timers, &fault), 0);
	assert_int_equal(timers.timers.count, 1);
	assert_true(timers.timers.at[0].value == 0x123456789a);
	assert_int_equal(timers.timers.at[0].signal, SIGUSR2);
	assert_int_equal(timers.timers.at[0].notify_id, getpid());
	timer_delete(timer);
	vec_finish(&timers.timers);
	text_finish(&text);
}

static void fdinfo_is_offered_pair_by_pair(void **state)
{
	(void)state;
	char text[] = "pos:\t12\nflags:\t02100002\nmnt_id:\t15\nino:\t99\n"
		      "tfd:        5 events:       19 data: 5  pos:0 ino:1 sdev:2\nno colon\n\nlast:";
	struct fdinfo info;
	struct fault fault;
	assert_int_equal(fdinfo_parse(text, &info, &fault), 0);
	assert_int_equal(info.position, 12);
	assert_int_equal(info.flags, 02100002);
	assert_int_equal(info.mount_id, 15);
	assert_int_equal(info.inode, 99);
	static const char *const pairs[][2] = {
		{ "pos", "12" }, { "flags", "02100002" }, { "mnt_id", "15" }, { "ino", "99" },
		{ "tfd", "5 events:       19 data: 5  pos:0 ino:1 sdev:2" }, { "", "no colon" }, { "", "" },
		{ "last", "" },
	};
	char *cursor = text;
	const char *key, *value;
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		assert_true(fdinfo_next(&cursor, &key, &value));
		assert_string_equal(key, pairs[i][0]);
		assert_string_equal(value, pairs[i][1]);
	}
	assert_false(fdinfo_next(&cursor, &key, &value));
	assert_int_equal(fdinfo_parse("pos:\t0\nflags:\t08\n", &info, &fault), -EBADMSG);
	assert_non_null(strstr(fault.text, "'flags: 08'"));
	assert_int_equal(fdinfo_parse("pos:\t0\n", &info, &fault), -EBADMSG);
}

#define RING "SqMask:\t0x7\nSqHead:\t5\nSqTail:\t6\nCachedSqHead:\t4294967295\nCqMask:\t0xf\nCqHead:\t1\nCqTail:\t2\nCachedCqTail:\t12\n" \
	     "SQEs:\t1\n    0: opcode:NOP, fd:-1, flags:0\nCQEs:\t1\n    1: user_data:7, res:0, flags:0\nSqThread:\t-1\nSqThreadCpu:\t-1\n"

static void a_ring_is_read_with_what_is_registered(void **state)
{
	(void)state;
	char text[] = RING "UserFiles:\t3\n    0: /with\\040blank:and colon\\134\n    1: <none>\n    2: socket:[99]\nUserBufs:\t2\n    1: 0x7f0010/8000\n"
		      "PollList:\n  op=6, task_works=0\n  op=13, task_works=1\nCqOverflowList:\n  user_data=1, res=2, flags=0\nNAPI:\tenabled\n";
	struct uring_info info;
	struct fault fault;
	assert_int_equal(uring_parse(text, &info, &fault), 0);
	assert_true(info.complete && !info.has_thread && !info.has_persons && info.polls_busily);
	assert_int_equal(info.requests, 8);
	assert_int_equal(info.completions, 16);
	assert_true(info.taken == UINT32_MAX && info.posted == 12);
	assert_true(info.waiting == 2 && info.overflown == 1);
	assert_true(info.file_slots == 3 && info.files.count == 2 && info.files.at[1].slot == 2);
	assert_string_equal(info.files.at[0].path, "/with blank:and colon\\");
	assert_string_equal(info.files.at[1].path, "socket:[99]");
	assert_true(info.buffer_slots == 2 && info.buffers.count == 1 && info.buffers.at[0].slot == 1);
	assert_true(info.buffers.at[0].address == 0x7f0010 && info.buffers.at[0].size == 8000);
	uring_finish(&info);
}

static void a_ring_that_is_locked_or_odd_is_not_taken_for_whole(void **state)
{
	(void)state;
	struct uring_info info;
	struct fault fault;
	char locked[] = "pos:\t0\nflags:\t02\n", thread[] = RING "SqThread:\t4711\nPersonalities:\n    1\n\tUid:\t0\n";
	assert_int_equal(uring_parse(locked, &info, &fault), 0);
	assert_false(info.complete);
	assert_int_equal(uring_parse(thread, &info, &fault), 0);
	assert_true(info.has_thread && info.has_persons && !info.complete);
	static const char *const malformed[] = {
		"SqMask:\t0x6\n", "SqMask:\t7\n", "CqMask:\t0xfffff\n", "CachedCqTail:\t4294967296\n", "UserFiles:\tmany\n", "UserFiles:\t1\n    1: /x\n",
		"UserFiles:\t1\n    x: /x\n", "UserBufs:\t1\n    0: 7f00/1\n", "UserBufs:\t1\n    0: 0x7f00/4294967296\n", "UserBufs:\t1\n    0: 0x7f00\n",
	};
	for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
		char text[64];
		snprintf(text, sizeof text, "%s", malformed[i]);
		assert_int_equal(uring_parse(text, &info, &fault), -EBADMSG);
	}
}

/* fs/aio.c ioctx_alloc, aio_setup_ring */
static uint64_t size_made_for(uint64_t requests, uint32_t processors)
{
	uint64_t events = 2 * (requests > processors * UINT64_C(4) ? requests : processors * UINT64_C(4)) + 2;
	return (32 + 32 * events + 4095) & ~UINT64_C(4095);
}

static void a_ring_of_asynchronous_io_is_made_again_in_its_size(void **state)
{
	(void)state;
	for (uint32_t processors = 1; processors < 600; processors += 33)
		for (uint64_t requests = 1; requests < 20000; requests += 61) {
			uint64_t size = size_made_for(requests, processors);
			uint32_t again = aio_requests(size, processors);
			assert_true(again && again <= requests && size_made_for(again, processors) == size);
			assert_true(aio_usable(aio_slots(size), processors) >= requests);
			assert_true(aio_usable(aio_slots(size), processors) < aio_slots(size));
		}
	assert_int_equal(aio_requests(4096, 16), 0);
	assert_int_equal(aio_requests(4096, 15), 1);
	assert_int_equal(aio_slots(3 * 4096), 383);
	assert_true(aio_distance(380, 3, 383) == 6 && aio_distance(3, 380, 383) == 377 && aio_distance(7, 7, 383) == 0);
}

static void possible_processors_are_counted(void **state)
{
	(void)state;
	uint32_t count = 0;
	struct fault fault;
	assert_true(aio_processors_parse("0\n", &count, &fault) == 0 && count == 1);
	assert_true(aio_processors_parse("0-1\n", &count, &fault) == 0 && count == 2);
	assert_true(aio_processors_parse("0,2-5,64-127\n", &count, &fault) == 0 && count == 69);
	static const char *const malformed[] = { "", "\n", "0-\n", "5-2\n", "0,\n", "0-1 2\n", "0-99999999\n", "x\n" };
	for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++)
		assert_int_equal(aio_processors_parse(malformed[i], &count, &fault), -EBADMSG);
}

static void fdinfo_of_an_own_file_is_true(void **state)
{
	(void)state;
	_close_ int fd = memfd_create("fdinfo", MFD_CLOEXEC);
	assert_int_equal(write(fd, "abc", 3), 3);
	struct text text = { 0 };
	struct fdinfo info;
	struct fault fault;
	assert_int_equal(fdinfo_read(getpid(), fd, &text, &info, &fault), 0);
	assert_int_equal(info.position, 3);
	assert_int_equal(info.flags & O_ACCMODE, O_RDWR);
	assert_true(info.flags & O_CLOEXEC);
	assert_int_equal(fdinfo_read(getpid(), 654321, &text, &info, &fault), -ENOENT);
	assert_non_null(strstr(fault.text, "fd 654321"));
	text_finish(&text);
}

static void own_process_is_read(void **state)
{
	(void)state;
	struct arena arena = { 0 };
	struct proc_stat stat;
	struct proc_status status;
	struct fault fault;
	uint64_t inodes[NS_COUNT];
	struct proc_sched sched;
	char *exe, path[4096] = "";
	assert_int_equal(proc_stat_read(getpid(), getpid(), &stat, &fault), 0);
	assert_int_equal(stat.parent, getppid());
	assert_true(stat.start_stack && stat.arg_start);
	assert_int_equal(proc_status_read(getpid(), 0, &arena, &status, &fault), 0);
	assert_int_equal(status.uid[1], geteuid());
	assert_int_equal(proc_namespaces(getpid(), inodes, &fault), 0);
	assert_true(inodes[NS_MNT] && inodes[NS_PID] && inodes[NS_USER]);
	assert_int_equal(proc_link(getpid(), "exe", &arena, &exe, &fault), 0);
	assert_true(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
	assert_string_equal(exe, path);
	assert_int_equal(proc_sched_read(getpid(), getpid(), &sched, &fault), 0);
	arena_finish(&arena);
}

static void own_maps_and_smaps_agree(void **state)
{
	(void)state;
	struct arena arena = { 0 };
	struct map_list maps, smaps;
	struct fault fault;
	char *page = mmap(NULL, 3 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(page + PAGE, PAGE, MADV_DONTFORK);
	madvise(page + 2 * PAGE, PAGE, MADV_DONTDUMP);
	assert_int_equal(maps_read(getpid(), MAPS_FLAGS, &arena, &smaps, &fault), 0);
	assert_int_equal(maps_read(getpid(), MAPS_PLACES, &arena, &maps, &fault), 0);
	uint64_t at = (uintptr_t)page;
	bool forked = false, dumped = false;
	for (size_t i = 0; i < smaps.maps.count; i++) {
		const struct map *map = &smaps.maps.at[i];
		assert_false(map->flags & MAP_FLAG_OTHER);
		forked |= map->start == at + PAGE && map->flags & MAP_FLAG_DONT_COPY;
		dumped |= map->start == at + 2 * PAGE && map->flags & MAP_FLAG_DONT_DUMP;
	}
	assert_true(forked && dumped);
	bool stack = false;
	for (size_t i = 0; i < maps.maps.count; i++)
		stack |= !strcmp(maps.maps.at[i].name, "[stack]");
	assert_true(stack);
	munmap(page, 3 * PAGE);
	maps_finish(&maps);
	maps_finish(&smaps);
	arena_finish(&arena);
}

/* A child that waits until child_end. */
static pid_t child_new(int ret_pipe[2])
{
	assert_int_equal(pipe2(ret_pipe, O_CLOEXEC), 0);
	pid_t child = fork();
	if (child)
		return child;
	char byte;
	close(ret_pipe[1]);
	_exit(read(ret_pipe[0], &byte, 1) < 0);
}

static void child_end(pid_t child, int pipe[2])
{
	close(pipe[0]);
	close(pipe[1]); /* a later child has a copy of this end */
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static bool listed(const struct pid_list *list, pid_t pid)
{
	for (size_t i = 0; i < list->pids.count; i++)
		if (list->pids.at[i] == pid)
			return true;
	return false;
}

static void lists_are_ascending_and_whole(void **state)
{
	(void)state;
	int first[2], second[2];
	pid_t a = child_new(first), b = child_new(second);
	struct pid_list list;
	struct fault fault;
	assert_int_equal(proc_children(getpid(), &list, &fault), 0);
	assert_int_equal(list.pids.count, 2);
	assert_true(listed(&list, a) && listed(&list, b) && list.pids.at[0] < list.pids.at[1]);
	vec_finish(&list.pids);
	assert_int_equal(proc_children(a, &list, &fault), 0);
	assert_int_equal(list.pids.count, 0);
	assert_int_equal(proc_threads(getpid(), &list, &fault), 0);
	assert_true(listed(&list, getpid()));
	vec_finish(&list.pids);
	assert_int_equal(proc_descriptors(getpid(), &list, &fault), 0);
	assert_true(listed(&list, first[0]) && listed(&list, second[1]));
	for (size_t i = 1; i < list.pids.count; i++)
		assert_true(list.pids.at[i - 1] < list.pids.at[i]);
	vec_finish(&list.pids);
	child_end(a, first);
	child_end(b, second);
}

static void a_process_that_is_gone_has_vanished(void **state)
{
	(void)state;
	int pipe[2];
	pid_t child = child_new(pipe);
	child_end(child, pipe);
	struct arena arena = { 0 };
	struct proc_stat stat;
	struct map_list maps;
	struct pid_list list;
	struct pagemap pagemap;
	struct fault fault;
	uint64_t inodes[NS_COUNT];
	struct proc_sched sched;
	char *link;
	assert_int_equal(proc_stat_read(child, 0, &stat, &fault), -ESRCH);
	assert_int_equal(fault.class, FAULT_VANISHED);
	assert_int_equal(maps_read(child, MAPS_FLAGS, &arena, &maps, &fault), -ESRCH);
	assert_int_equal(proc_children(child, &list, &fault), -ESRCH);
	assert_int_equal(proc_threads(child, &list, &fault), -ESRCH);
	assert_int_equal(proc_descriptors(child, &list, &fault), -ESRCH);
	assert_int_equal(proc_link(child, "exe", &arena, &link, &fault), -ESRCH);
	assert_int_equal(proc_sched_read(child, child, &sched, &fault), -ESRCH);
	assert_int_equal(proc_namespaces(child, inodes, &fault), -ESRCH);
	assert_int_equal(pagemap_open(child, &pagemap, &fault), -ESRCH);
	assert_int_equal(fault.class, FAULT_VANISHED);
	struct text text = { 0 };
	assert_int_equal(proc_read(getpid(), "no-such-file", &text, &fault), -ENOENT);
	assert_int_equal(fault.class, FAULT_FAILED);
	text_finish(&text);
	arena_finish(&arena);
}

/* Private pages 0 1, hole 2 3, private 4, then a hole to the end. */
static void pattern_check(bool scan)
{
	char *memory = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(memory, 16 * PAGE, MADV_NOHUGEPAGE);
	memory[0] = memory[PAGE] = memory[4 * PAGE] = 1;
	struct pagemap pagemap;
	struct page_extent extents[8];
	struct fault fault;
	uint64_t next, start = (uintptr_t)memory, end = start + 16 * PAGE;
	assert_int_equal(pagemap_open(getpid(), &pagemap, &fault), 0);
	pagemap.scan &= scan;
	assert_int_equal(pagemap_extents(&pagemap, start, end, extents, 8, &next, &fault), 2);
	assert_true(next == end);
	assert_true(extents[0].start == start && extents[0].end == start + 2 * PAGE);
	assert_true(extents[1].start == start + 4 * PAGE && extents[1].end == start + 5 * PAGE);
	assert_int_equal(extents[0].categories, PAGE_PRESENT);
	/* no room for the second: it is found by going on */
	assert_int_equal(pagemap_extents(&pagemap, start, end, extents, 1, &next, &fault), 1);
	assert_true(next < end && next >= start + 2 * PAGE && next <= start + 4 * PAGE);
	assert_int_equal(pagemap_extents(&pagemap, next, end, extents, 1, &next, &fault), 1);
	assert_true(extents[0].start == start + 4 * PAGE);
	if (next < end)
		assert_int_equal(pagemap_extents(&pagemap, next, end, extents, 1, &next, &fault), 0);
	assert_true(next == end);
	assert_int_equal(pagemap_extents(&pagemap, 0xffffffffff600000, 0xffffffffff601000, extents, 8, &next, &fault),
			 0);
	pagemap_close(&pagemap);
	munmap(memory, 16 * PAGE);
}

static void pagemap_gives_the_extents_that_are_there(void **state)
{
	(void)state;
	pattern_check(true);
	pattern_check(false);
}

static void kinds_check(bool scan)
{
	_close_ int fd = memfd_create("pages", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
	char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	char *zero = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(zero, 2 * PAGE, MADV_NOHUGEPAGE);
	memory[0] = 1;
	(void)*(volatile char *)(memory + PAGE);
	(void)*(volatile char *)zero;
	bool guarded = madvise(memory + 3 * PAGE, PAGE, 102 /* MADV_GUARD_INSTALL, 6.13 */) == 0;
	struct pagemap pagemap;
	struct page_extent extents[8];
	struct fault fault;
	uint64_t next, start = (uintptr_t)memory;
	assert_int_equal(pagemap_open(getpid(), &pagemap, &fault), 0);
	guarded &= pagemap.guards;
	pagemap.scan &= scan;
	int count = pagemap_extents(&pagemap, start, start + 2 * PAGE, extents, 8, &next, &fault);
	assert_int_equal(count, 2);
	assert_int_equal(extents[0].categories, PAGE_PRESENT);
	assert_int_equal(extents[1].categories, PAGE_PRESENT | PAGE_FILE);
	pagemap.anonymous = true;
	assert_int_equal(pagemap_extents(&pagemap, start, start + 2 * PAGE, extents, 8, &next, &fault), 1);
	pagemap.anonymous = false;
	if (guarded) {
		count = pagemap_extents(&pagemap, start + 3 * PAGE, start + 4 * PAGE, extents, 8, &next, &fault);
		assert_int_equal(count, 1);
		assert_int_equal(extents[0].categories, PAGE_GUARD);
	}
	start = (uintptr_t)zero;
	assert_int_equal(pagemap_extents(&pagemap, start, start + 2 * PAGE, extents, 8, &next, &fault), 1);
	/* A kernel may give a page of its own at once (6.18.44 was seen to). */
	assert_int_equal(extents[0].categories & ~(pagemap.scan ? (uint32_t)PAGE_ZERO : 0), PAGE_PRESENT);
	pagemap_close(&pagemap);
	munmap(memory, 4 * PAGE);
	munmap(zero, 2 * PAGE);
}

static void pagemap_tells_kinds_of_pages_apart(void **state)
{
	(void)state;
	kinds_check(true);
	kinds_check(false);
}

static void sixteen_reserved_terabytes_are_a_few_extents(void **state)
{
	(void)state;
	const uint64_t size = 16ull << 40, step = size / 10;
	struct pagemap pagemap;
	struct fault fault;
	assert_int_equal(pagemap_open(getpid(), &pagemap, &fault), 0);
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!pagemap.scan || memory == MAP_FAILED) {
		pagemap_close(&pagemap);
		skip();
	}
	madvise(memory, size, MADV_NOHUGEPAGE);
	for (int i = 0; i < 10; i++)
		memory[(uint64_t)i * step] = 1;
	struct page_extent extents[64];
	uint64_t next, start = (uintptr_t)memory;
	assert_int_equal(pagemap_extents(&pagemap, start, start + size, extents, 64, &next, &fault), 10);
	assert_true(next == start + size);
	for (int i = 0; i < 10; i++)
		assert_true(extents[i].start == (start + (uint64_t)i * step) / PAGE * PAGE);
	munmap(memory, size);
	pagemap_close(&pagemap);
}

static void many_extents_come_in_order(void **state)
{
	(void)state;
	enum { PAGES = 6000, SPACE = 700 };
	char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < PAGES; i += 2)
		memory[i * PAGE] = 1;
	static struct page_extent extents[SPACE];
	struct fault fault;
	uint64_t end = (uintptr_t)memory + PAGES * PAGE;
	for (int scan = 0; scan < 2; scan++) {
		struct pagemap pagemap;
		assert_int_equal(pagemap_open(getpid(), &pagemap, &fault), 0);
		pagemap.scan &= (bool)scan;
		int total = 0;
		for (uint64_t at = (uintptr_t)memory; at < end;) {
			int count = pagemap_extents(&pagemap, at, end, extents, SPACE, &at, &fault);
			assert_in_range(count, 0, SPACE);
			for (int i = 0; i < count; i++, total++)
				assert_true(extents[i].start == (uintptr_t)memory + (uint64_t)total * 2 * PAGE);
		}
		assert_int_equal(total, PAGES / 2);
		pagemap_close(&pagemap);
	}
	munmap(memory, PAGES * PAGE);
}

static void kcmp_knows_what_is_the_same(void **state)
{
	(void)state;
	int pipe[2];
	pid_t me = getpid(), child = child_new(pipe);
	struct fault fault;
	_close_ int copy = dup(pipe[0]);
	_close_ int other = open("/proc/self/fdinfo", O_RDONLY | O_CLOEXEC);
	int order = kcmp_order(SAME_FILE, me, pipe[0], me, copy, &fault);
	if (order == -2 && fault.error != EBADF)
		skip();
	assert_int_equal(order, 0);
	assert_int_equal(kcmp_order(SAME_FILE, me, pipe[0], child, pipe[0], &fault), 0);
	order = kcmp_order(SAME_FILE, me, pipe[0], me, other, &fault);
	assert_true(order == -1 || order == 1);
	assert_int_equal(kcmp_order(SAME_FILE, me, other, me, pipe[0], &fault), -order);
	assert_int_equal(kcmp_order(SAME_VM, me, 0, me, 0, &fault), 0);
	assert_int_not_equal(kcmp_order(SAME_VM, me, 0, child, 0, &fault), 0);
	assert_int_equal(kcmp_order(SAME_FILE, me, pipe[0], me, 654321, &fault), -2);
	_close_ int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	assert_int_equal(epoll_ctl(epoll, EPOLL_CTL_ADD, pipe[0], &event), 0);
	assert_int_equal(kcmp_epoll_target(me, copy, me, epoll, pipe[0], 0), 1);
	assert_int_equal(kcmp_epoll_target(me, pipe[1], me, epoll, pipe[0], 0), 0);
	assert_int_equal(kcmp_epoll_target(me, copy, me, epoll, 654321, 0), -ENOENT);
	child_end(child, pipe);
	assert_int_equal(kcmp_order(SAME_VM, me, 0, child, 0, &fault), -2);
	assert_int_equal(fault.class, FAULT_VANISHED);
}

/* Whatever the host answers, each probe says why not, and no child is left. */
static void probes_explain_themselves_and_leave_nothing(void **state)
{
	(void)state;
	struct pid_list before, after;
	struct fault fault;
	assert_int_equal(proc_descriptors(getpid(), &before, &fault), 0);
	for (const struct feature *feature = features; feature->name; feature++) {
		char why[512] = "";
		if (feature->probe(why, sizeof why))
			continue;
		print_message("%s: %s\n", feature->name, why);
		assert_non_null(strstr(why, "; "));
	}
	assert_int_equal(proc_descriptors(getpid(), &after, &fault), 0);
	assert_int_equal(before.pids.count, after.pids.count);
	vec_finish(&before.pids);
	vec_finish(&after.pids);
	assert_int_equal(proc_children(getpid(), &after, &fault), 0);
	assert_int_equal(after.pids.count, 0);
	vec_finish(&after.pids);
}

static void numbers_stop_at_their_line_and_at_64_bits(void **state)
{
	(void)state;
	uint64_t value = 7;
	int64_t number;
	const char *at = " \n5";
	assert_false(token_number(&at, 10, &value));
	at = "18446744073709551615 ";
	assert_true(token_number(&at, 10, &value) && value == UINT64_MAX && *at == ' ');
	at = "18446744073709551616";
	assert_false(token_number(&at, 10, &value));
	at = "ffffffffffffffff";
	assert_true(token_number(&at, 16, &value) && value == UINT64_MAX);
	at = "+5";
	assert_false(token_number(&at, 10, &value));
	at = "- 5";
	assert_false(token_signed(&at, &number));
	at = "-5";
	assert_true(token_signed(&at, &number) && number == -5);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_stop_at_their_line_and_at_64_bits),
		cmocka_unit_test(stat_takes_a_command_with_parentheses_and_newlines),
		cmocka_unit_test(stat_that_is_malformed_is_quoted),
		cmocka_unit_test(calls_are_parsed),
		cmocka_unit_test(a_call_of_a_child_is_seen),
		cmocka_unit_test(status_without_seccomp_is_taken),
		cmocka_unit_test(status_that_is_malformed_is_quoted),
		cmocka_unit_test(maps_takes_escaped_and_deleted_names),
		cmocka_unit_test(smaps_keeps_unknown_flags),
		cmocka_unit_test(maps_that_are_malformed_are_quoted),
		cmocka_unit_test(limits_are_those_of_getrlimit),
		cmocka_unit_test(timers_are_parsed),
		cmocka_unit_test(system_v_objects_are_parsed),
		cmocka_unit_test(own_timers_are_seen),
		cmocka_unit_test(fdinfo_is_offered_pair_by_pair),
		cmocka_unit_test(a_ring_is_read_with_what_is_registered),
		cmocka_unit_test(a_ring_that_is_locked_or_odd_is_not_taken_for_whole),
		cmocka_unit_test(fdinfo_of_an_own_file_is_true),
		cmocka_unit_test(own_process_is_read),
		cmocka_unit_test(own_maps_and_smaps_agree),
		cmocka_unit_test(lists_are_ascending_and_whole),
		cmocka_unit_test(a_process_that_is_gone_has_vanished),
		cmocka_unit_test(pagemap_gives_the_extents_that_are_there),
		cmocka_unit_test(pagemap_tells_kinds_of_pages_apart),
		cmocka_unit_test(sixteen_reserved_terabytes_are_a_few_extents),
		cmocka_unit_test(many_extents_come_in_order),
		cmocka_unit_test(a_memory_cgroup_is_found_in_both_versions),
		cmocka_unit_test(an_old_vdso_leads_into_the_new_one),
		cmocka_unit_test(a_damaged_vdso_is_not_used),
		cmocka_unit_test(a_ring_of_asynchronous_io_is_made_again_in_its_size),
		cmocka_unit_test(possible_processors_are_counted),
		cmocka_unit_test(kcmp_knows_what_is_the_same),
		cmocka_unit_test(probes_explain_themselves_and_leave_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
