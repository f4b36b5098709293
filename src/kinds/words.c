/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of cairn-kinds(7), which man/kinds_page.c prints in the order of the table of kinds. */
#include "kinds/words.h"

#include "kinds/table.h"

const struct kind_words kind_words[] = {
	{ &kind_image, "What the image says of itself: host, kernel, boot, processor, clocks.", "" },
	{ &kind_process, "PID, parent, group, session, exit signal, zombies with their status, stops; what it shares with others without being a thread of "
			 "them (CLONE_VM, CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_SYSVSEM).",
	  "Namespaces other than Cairn's; sharing that no birth could hand down, or with a process outside the tree; a thread's own descriptor table." },
	{ &kind_space, "Code, data, heap, stack, arguments and environment as the kernel books them, auxiliary vector, executable, vdso.",
	  "A kernel whose vdso differs; 32-bit programs." },
	{ &kind_protection_keys, "Protection keys that are allocated, and which mapping has which.", "A processor without them." },
	{ &kind_space_modes, "MCL_FUTURE, MCL_ONFAULT, PR_SET_MDWE, PR_SET_MEMORY_MERGE.", "" },
	{ &kind_attachment, "System V shared memory where it is attached.", "" },
	{ &kind_vma, "Mappings with protection, advice, locks, names and growth; their private pages.",
	  "Secret memory, shadow stacks, device memory: the kernel shows them to nobody, or they belong to a device." },
	{ &kind_aio_ring, "Asynchronous I/O (io_setup, libaio), with nothing under way: its rings, where they are in them, and events that were not read.",
	  "Requests under way (it is tried again until --timeout); a ring in parts; one that a child has from its parent." },
	{ &kind_memory_policies, "NUMA policies of mappings.", "" },
	{ &kind_guards, "Guard regions (MADV_GUARD_INSTALL).", "" },
	{ &kind_seals, "Sealed mappings (mseal).", "" },
	{ &kind_limits, "Resource limits.", "" },
	{ &kind_attributes, "OOM score, core dump filter, subreaper, THP-disable, membarrier registrations, the nice value of a session (autogroup), permission for large vector registers.", "" },
	{ &kind_filesystem, "Working directory, root directory, umask.", "A root or working directory that cannot be found again by name." },
	{ &kind_fd_table, "Which number is which open file, and close-on-exec.", "" },
	{ &kind_sysv_semaphore_use, "Who used a semaphore last.", "" },
	{ &kind_sysv_adjustments, "Adjustments of semaphores (SEM_UNDO).", "" },
	{ &kind_signals, "Signal actions; signals pending for the process, with siginfo and order.", "" },
	{ &kind_itimers, "ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF, alarm.", "" },
	{ &kind_posix_timers, "POSIX timers of every clock, with ids, intervals and overruns.", "" },
	{ &kind_thread, "Registers, vector registers, interrupted calls, name; a first thread that has ended before others.", "" },
	{ &kind_thread_filesystem, "A thread's own working directory and umask (unshare(CLONE_FS)).", "" },
	{ &kind_scheduling, "Policy, nice, priority, utilization clamps, affinity, I/O priority, timer slack.", "Core scheduling cookies." },
	{ &kind_thread_memory_policy, "NUMA policy of a thread.", "" },
	{ &kind_thread_signals, "Mask, alternate stack, pending signals of a thread.", "" },
	{ &kind_bulletin, "What a program and libcairn have told each other.", "" },
	{ &kind_thread_modes, "Personality, machine-check policy, speculation control, time stamp counter, CPUID, I/O flusher, syscall user dispatch.",
	  "Local descriptor tables, I/O ports, masked addresses; keyrings of a thread or process, and keys in a session keyring that Cairn is not in, which the kernel "
	  "does not give away. Seen by nobody, and not kept: Landlock domains, who may trace it under Yama (PR_SET_PTRACER)." },
	{ &kind_ring_numbers, "Numbers by which a thread calls an io_uring.", "In a process that has more than one ring, or none with a descriptor." },
	{ &kind_seccomp, "Strict mode and filters in order, with SECCOMP_FILTER_FLAG_LOG, where Cairn may read them; those of the container Cairn is in.",
	  "Filters that ask a supervisor, or return what they have computed; any, without CAP_SYS_ADMIN in the first user namespace." },
	{ &kind_credentials, "User and group ids, groups, capabilities, securebits, no_new_privs, per thread.", "Ids that the user namespace has not." },
	{ &kind_parent_death, "Parent-death signal.", "" },
	{ &kind_dumpable, "Whether it is dumpable.", "" },
	{ &kind_thread_pointers, "clear_child_tid, robust list, restartable sequences.", "" },
	{ &kind_sysv_segment, "System V shared memory segments, with id, key and mode; also one that nobody has attached, if a process of the tree made it or had it "
			       "last.", "One that is of another tree, too." },
	{ &kind_shared_memory, "Shared anonymous memory.", "" },
	{ &kind_mapped_file, "Files that are mapped, by name.", "A file that has changed, by --file-changed." },
	{ &kind_deleted_file, "Contents of deleted files.", "A deleted file that has other names which cannot be found." },
	{ &kind_saved_file, "Contents of files that have a name and are open for writing, by --save-files; put back by --file-changed rollback. Of named shared memory "
			    "(/dev/shm: shm_open(3), sem_open(3)) that is mapped for writing in any case; put back unless somebody else has it open. Of small files in /tmp, /var/tmp "
			    "and /run that are mapped for writing, too; made again where they are missing.",
	  "A file that may not be read; files of hugetlbfs." },
	{ &kind_sysv_semaphores, "System V semaphore sets.", "" },
	{ &kind_sysv_queue, "System V message queues, with their messages.", "One that a process outside uses as well, by --outside." },
	{ &kind_pipe, "Pipes, with contents, size and packets.", "A pipe whose other end lies outside of the tree, by --outside." },
	{ &kind_bpf_map, "bpf maps of the types array and hash, with their entries.", "Maps of other types, with BTF, or that a loaded program uses." },
	{ &kind_bpf_map_file, "Descriptors of bpf maps.", "bpf programs, links and type information, which are the kernel's." },
	{ &kind_io_uring, "io_uring, with nothing under way: positions, completions that were not read, requests that were not submitted.", "A ring at work (it is tried again until "
			 "--timeout); one that had multishot or zero copy requests not long ago, buffers that requests choose from, restrictions, personalities, a thread of the "
			 "kernel's, one thread alone that may use it, or entries of the double size." },
	{ &kind_io_uring_file, "Descriptors of io_uring, with registered buffers, files and eventfd.", "A registered file, or an eventfd, that the program has open more than once (which of "
			      "them it is, the kernel shows to nobody), or a file that it has closed." },
	{ &kind_posix_queue, "POSIX message queues, with their messages and notifications.", "A notification by a thread (SIGEV_THREAD), of a process outside, or by a "
			       "signal, whose value the kernel shows to nobody (--in-flight)." },
	{ &kind_posix_queue_file, "Descriptors of POSIX message queues.", "" },
	{ &kind_memfd, "Memory files, with contents, seals and huge pages.", "" },
	{ &kind_regular_file, "Regular files and directories, by name, with offset, flags, locks and leases.", "A file that is gone or hidden, and no contents of it could be "
			      "kept." },
	{ &kind_pipe_end, "Ends of pipes and FIFOs, deleted ones too.", "" },
	{ &kind_eventfd, "Event counters, also semaphores.", "" },
	{ &kind_signalfd, "Masks of signalfd.", "" },
	{ &kind_timerfd, "Timers of timerfd, also expired ones.", "" },
	{ &kind_inotify, "inotify instances.", "Queued events, which can only be read destructively (--in-flight)." },
	{ &kind_inotify_watch, "inotify watches, with their numbers.", "" },
	{ &kind_fanotify, "fanotify groups that are notified.", "Groups that permit; queued events, which can only be read destructively (--in-flight)." },
	{ &kind_fanotify_mark, "fanotify marks of files, mounts and file systems.", "" },
	{ &kind_pidfd, "Descriptors of processes of the tree.", "Of a process outside." },
	{ &kind_other_file, "", "userfaultfd, perf events, file systems being set up, Landlock rule sets, seccomp listeners, virtual machines, device "
			      "buffers, descriptors of namespaces." },
	{ &kind_pty, "Pseudoterminal pairs of the tree, with what is on its way.", "" },
	{ &kind_pty_master, "Masters of pseudoterminals.", "" },
	{ &kind_terminal, "Terminals; the caller's stands for its own.", "" },
	{ &kind_device, "null, zero, full, random, urandom; others by --device-reopen.", "Any other device, whose state only its driver knows." },
	{ &kind_unix_socket, "Unix sockets: pairs, names, queues, descriptors on their way, credentials, backlogs.", "Peers outside of the tree, by --outside." },
	{ &kind_tcp_socket, "TCP: listening, and connections in every state.", "Connections to the outside of a program that runs on; connected MPTCP; kTLS; keys of TCP_MD5SIG and TCP-AO." },
	{ &kind_inet_socket, "UDP, UDP-Lite, ICMP and raw sockets.", "With an eBPF program as filter (SO_ATTACH_BPF), as sockets of every sort." },
	{ &kind_netlink_socket, "Netlink sockets.", "" },
	{ &kind_packet_socket, "Packet sockets.", "With a ring." },
	{ &kind_other_socket, "", "Sockets of all other families (vsock, SCTP, XDP ...), whose state the kernel does not show." },
	{ &kind_epoll, "epoll with its watches and their data, nested too.", "" },
	{ 0 },
};
