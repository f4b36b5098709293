/* SPDX-License-Identifier: Apache-2.0 */
/* The table of kinds. The order is the order in which a thread's calls are made at rebuild; objects and files are made in the
 * order of their records. */
#include "kinds/table.h"

#include <string.h>

const struct kind *const kinds[] = {
	&kind_image,
	/* The tree first: everything else belongs to something in it. */
	&kind_process,
	&kind_protection_keys, /* before the mappings, which have them */
	&kind_space_modes,     /* before the mappings, which merging is a flag of */
	&kind_attachment, /* before the mappings, which may lie in its gaps, and say how it is protected */
	&kind_aio_ring, /* before all that looks at memory: what is under way may write there */
	&kind_vma,
	&kind_space, /* after the mappings: the vdso is not counted against vm.max_map_count when it is mapped, only those after it are (mm/vma.c insert_vm_struct) */
	&kind_memory_policies, /* after the mappings */
	&kind_guards,
	&kind_seals, /* nothing of a space can be changed after it */
	/* While the process still has Cairn's privileges ... */
	&kind_limits,
	&kind_attributes,
	&kind_filesystem,
	&kind_fd_table,
	&kind_sysv_adjustments, /* before who was last, which is said in another way */
	&kind_sysv_semaphore_use,
	&kind_signals,
	&kind_itimers,
	&kind_posix_timers,
	&kind_thread,
	&kind_thread_filesystem,
	&kind_scheduling,
	&kind_thread_memory_policy,
	&kind_thread_signals,
	&kind_bulletin,
	&kind_thread_modes,
	&kind_ring_numbers, /* when descriptors are in their places */
	&kind_seccomp, /* suspended until the thread is let go */
	/* ... which end here. */
	&kind_credentials,
	&kind_parent_death, /* reset by credentials */
	&kind_dumpable,     /* reset by credentials */
	&kind_thread_pointers, /* last: the kernel writes into the rseq area from then on */
	/* Objects before the files that stand on them. */
	&kind_sysv_segment,
	&kind_shared_memory, /* before mapped files, which would take it for one of theirs */
	&kind_mapped_file,
	&kind_deleted_file,
	&kind_saved_file,
	&kind_sysv_semaphores,
	&kind_sysv_queue,
	&kind_pipe,
	&kind_bpf_map,
	&kind_bpf_map_file,
	&kind_io_uring,
	&kind_io_uring_file,
	&kind_posix_queue,
	&kind_posix_queue_file, /* before regular files */
	&kind_other_file, /* before regular files, which would take some of these for theirs */
	&kind_memfd, /* before regular files, which would take it for one of theirs */
	&kind_regular_file,
	&kind_pipe_end,
	&kind_eventfd,
	&kind_signalfd,
	&kind_timerfd,
	&kind_inotify,
	&kind_inotify_watch,
	&kind_fanotify,
	&kind_fanotify_mark,
	&kind_pidfd,
	&kind_pty,
	&kind_pty_master,
	&kind_terminal,
	&kind_device, /* any that is none of the above */
	&kind_unix_socket,
	&kind_tcp_socket,
	&kind_inet_socket,
	&kind_netlink_socket,
	&kind_packet_socket,
	&kind_other_socket, /* after the sockets that are carried: it takes what is left */
	&kind_epoll, /* watches any of the others */
	NULL,
};

const struct kind *kind_by_tag(uint32_t tag)
{
	for (const struct kind *const *kind = kinds; *kind; kind++)
		if ((*kind)->tag == tag)
			return *kind;
	return NULL;
}

uint32_t kind_owner(const struct kind *kind, const ProtobufCMessage *message)
{
	const ProtobufCFieldDescriptor *field =
		kind->owner_field ? protobuf_c_message_descriptor_get_field_by_name(kind->descriptor, kind->owner_field) : NULL;
	uint32_t id = 0;
	if (!field)
		return 0;
	if (field->type == PROTOBUF_C_TYPE_UINT32) {
		memcpy(&id, (const char *)message + field->offset, sizeof id);
		return id;
	}
	/* "open": the id of an open file description is the first field of the part that all of them have. */
	const ProtobufCMessage *open_ = *(ProtobufCMessage *const *)((const char *)message + field->offset);
	const ProtobufCFieldDescriptor *file =
		open_ ? protobuf_c_message_descriptor_get_field_by_name(open_->descriptor, "file") : NULL;
	if (file)
		memcpy(&id, (const char *)open_ + file->offset, sizeof id);
	return id;
}
