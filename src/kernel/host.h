/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What this host is: kernel, boot, vdso. Its processor: processor.h. */
#include <stdbool.h>
#include <stdint.h>

struct host_vdso {
	uint64_t hash; /* XXH3 of its bytes as mapped in this very process; 0: none */
	uint64_t size;
	const uint8_t *code;
	uint64_t data_size; /* of the kernel's data, right before it */
};
void host_vdso_read(struct host_vdso *ret_vdso);
const char *host_architecture(void);         /* "x86_64" */
/* What this process's time namespace adds to the host's clocks: CLOCK_MONOTONIC, CLOCK_BOOTTIME. 0 without time namespaces. */
struct host_offsets {
	int64_t monotonic_ns, boottime_ns;
};
void host_offsets_read(struct host_offsets *ret_offsets);
uint32_t host_filters(void);                 /* seccomp filters that this process lives under, as in containers */
/* May this process suspend and read others' seccomp filters: CAP_SYS_ADMIN in the first user namespace, and no filter of its own? */
bool host_may_read_filters(void);
void host_boot_id(char ret_id[37]);          /* "" when /proc does not say */
