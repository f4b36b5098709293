/* SPDX-License-Identifier: Apache-2.0 */
/* What the image says of itself as a whole, and of the host it was made on: the driver makes the record (api/checkpoint.c), and
 * the plan compares it with this host (rebuild/plan.c). */
#include <errno.h>

#include "image.pb-c.h"
#include "kernel/processor.h"
#include "kinds/kind.h"
#include "kinds/table.h"

static int check(const ProtobufCMessage *base, struct fault *fault)
{
	const Cairn__ImageInfo *message = (const Cairn__ImageInfo *)base;
	bool possible = message->n_cpuid <= PROCESSOR_WORDS && message->n_xstate_components <= PROCESSOR_COMPONENTS;
	for (size_t i = 0; possible && i < message->n_xstate_components; i++) {
		const Cairn__XstateComponent *component = message->xstate_components[i];
		possible = component->number < 64 && component->offset < XSTATE_MAX && component->size < XSTATE_MAX;
	}
	const int64_t most = INT64_C(1) << 60; /* 36 years: the kernel takes half of what its clocks can hold */
	possible &= message->monotonic_ns < (uint64_t)most && message->boottime_ns < (uint64_t)most && message->monotonic_offset_ns < most &&
		    message->monotonic_offset_ns > -most && message->boottime_offset_ns < most && message->boottime_offset_ns > -most;
	return possible ? 0 : fault_set(fault, FAULT_IMAGE, EINVAL, "it has an impossible processor, or clocks");
}

const struct kind kind_image = {
	.name = "image",
	.tag = 1,
	.scope = SCOPE_IMAGE,
	.descriptor = &cairn__image_info__descriptor,
	.check = check,
};
