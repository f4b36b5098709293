/* SPDX-License-Identifier: Apache-2.0 */
/* A look at what an image says of itself: which namespaces its restore wants. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api/operations.h"
#include "image.pb-c.h"
#include "image/image.h"
#include "kernel/host.h"
#include "kinds/table.h"

static int64_t now_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Offsets are counted from the host's clocks, whatever namespace this process is in. */
static void plan_clocks(const struct cairn_restore_options *options, const Cairn__ImageInfo *info, struct operation_peek *peek)
{
	struct host_offsets own;
	char boot_id[37];
	host_offsets_read(&own);
	host_boot_id(boot_id);
	bool same_boot = !strcmp(boot_id, info->boot_id);
	peek->continues = options->clock == CAIRN_CLOCK_CONTINUE || (options->clock == CAIRN_CLOCK_AUTO && !same_boot);
	if (peek->continues) {
		peek->monotonic_ns = (int64_t)info->monotonic_ns - (now_ns(CLOCK_MONOTONIC) - own.monotonic_ns);
		peek->boottime_ns = (int64_t)info->boottime_ns - (now_ns(CLOCK_BOOTTIME) - own.boottime_ns);
		peek->offset = true;
	} else if (same_boot && (info->monotonic_offset_ns || info->boottime_offset_ns)) {
		/* It lived in a time namespace on this very boot. */
		peek->monotonic_ns = info->monotonic_offset_ns;
		peek->boottime_ns = info->boottime_offset_ns;
		peek->offset = true;
	}
	/* A kernel without time namespaces: the clocks jump, as they always did. */
	if (access("/proc/self/ns/time", F_OK) < 0)
		peek->continues = peek->offset = false;
}

int operation_peek(const struct cairn_restore_options *options, struct operation_peek *ret_peek, struct fault *fault)
{
	struct image_reader *reader = NULL;
	const struct image_record *records;
	struct stat status;
	/* A FIFO or a pipe can be read only once. */
	if (stat(options->image, &status) < 0 || !S_ISREG(status.st_mode))
		return fault_set(fault, FAULT_FAILED, ESPIPE, "%s: cannot be looked at before it is read", options->image);
	int rc = image_reader_open(options->image, (const struct image_key *)options->key, &reader, fault);
	if (rc < 0)
		return rc;
	size_t count = image_reader_records(reader, &records);
	for (size_t i = 0; i < count; i++) {
		Cairn__ImageInfo *info = records[i].tag == kind_image.tag ?
			cairn__image_info__unpack(NULL, records[i].size, records[i].data) : NULL;
		if (!info)
			continue;
		struct operation_peek peek = { .own_network = info->own_network };
		if (kind_image.check(&info->base, fault) == 0)
			plan_clocks(options, info, &peek);
		cairn__image_info__free_unpacked(info, NULL);
		*ret_peek = peek;
		break;
	}
	image_reader_free(reader);
	return 0;
}
