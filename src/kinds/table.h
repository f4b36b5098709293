/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Every kind by name: for table.c, and for each kind's own file, which adds records under itself. */
#include "kinds/kind.h"

extern const struct kind kind_image, kind_process, kind_thread, kind_signals, kind_thread_signals, kind_thread_pointers,
	kind_credentials, kind_scheduling, kind_parent_death, kind_limits, kind_attributes, kind_dumpable,
	kind_filesystem, kind_thread_filesystem, kind_itimers, kind_posix_timers, kind_fd_table, kind_bulletin, kind_seccomp, kind_thread_modes, kind_ring_numbers;
extern const struct kind kind_seals, kind_protection_keys, kind_space_modes, kind_memory_policies, kind_thread_memory_policy;
extern const struct kind kind_space, kind_attachment, kind_vma, kind_aio_ring, kind_guards, kind_mapped_file, kind_shared_memory, kind_sysv_segment;
extern const struct kind kind_sysv_semaphores, kind_sysv_semaphore_use, kind_sysv_adjustments, kind_sysv_queue;
extern const struct kind kind_deleted_file, kind_saved_file, kind_bpf_map, kind_bpf_map_file, kind_io_uring, kind_io_uring_file, kind_pipe;
extern const struct kind kind_regular_file, kind_pipe_end, kind_eventfd, kind_epoll, kind_signalfd, kind_timerfd,
	kind_device, kind_terminal, kind_posix_queue, kind_posix_queue_file, kind_pty, kind_pty_master, kind_inotify, kind_inotify_watch, kind_fanotify, kind_fanotify_mark, kind_other_file, kind_pidfd, kind_memfd;
extern const struct kind kind_unix_socket, kind_tcp_socket, kind_inet_socket, kind_netlink_socket, kind_packet_socket,
	kind_other_socket;
