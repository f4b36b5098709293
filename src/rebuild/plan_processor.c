/* SPDX-License-Identifier: Apache-2.0 */
/* The processor of an image and the one here: what a program may have chosen its code by has to be here too, and vector registers have to be
 * laid out as this one does it. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "kernel/host.h"
#include "rebuild/plan.h"

static void processor_of_image(const Cairn__ImageInfo *info, struct processor *ret_processor)
{
	*ret_processor = (struct processor){
		.xstate = info->xstate_features, .hwcap = info->hwcap, .hwcap2 = info->hwcap2,
		.word_count = info->n_cpuid, .component_count = info->n_xstate_components,
	};
	for (size_t i = 0; i < info->n_cpuid; i++) {
		const Cairn__CpuidWord *word = info->cpuid[i];
		ret_processor->words[i] = (struct processor_word){ word->leaf, word->subleaf, word->output, word->bits };
	}
	for (size_t i = 0; i < info->n_xstate_components; i++) {
		const Cairn__XstateComponent *component = info->xstate_components[i];
		ret_processor->components[i] =
			(struct processor_component){ component->number, component->offset, component->size };
	}
}

/* Each call of @each gets a thread of the image. */
static void for_threads(const struct plan *plan,
			void (*each)(Cairn__Thread *thread, const struct processor *then, const struct processor *here,
				     struct fault_list *refusals), struct fault_list *refusals)
{
	struct processor then, here;
	processor_of_image(plan->info, &then);
	processor_read(&here);
	for (size_t i = 0; i < plan->records.count; i++)
		if (plan->records.at[i].kind->descriptor == &cairn__thread__descriptor &&
		    !((const Cairn__Thread *)plan->records.at[i].message)->ended)
			each((Cairn__Thread *)plan->records.at[i].message, &then, &here, refusals);
}

static void convert(Cairn__Thread *thread, const struct processor *then, const struct processor *here,
		    struct fault_list *refusals)
{
	(void)refusals;
	if (xstate_fits(then, thread->xstate.len, here) || here->xstate_size < 576 ||
	    xstate_used(thread->xstate.data, thread->xstate.len, then) & ~here->xstate)
		return; /* the last: check_thread refuses it */
	uint8_t *converted = memory_new(here->xstate_size);
	xstate_convert(thread->xstate.data, thread->xstate.len, then, here, converted);
	log_debug("restore: thread %u: vector registers of %zu bytes are laid out anew in %u", thread->tid,
		  thread->xstate.len, here->xstate_size);
	free(thread->xstate.data);
	thread->xstate.data = converted;
	thread->xstate.len = here->xstate_size;
}

void plan_convert_registers(struct plan *plan)
{
	for_threads(plan, convert, NULL);
}

/* Registers that this processor does not have cannot be set, whoever forces it. */
static void check_thread(Cairn__Thread *thread, const struct processor *then, const struct processor *here,
			 struct fault_list *refusals)
{
	char names[256];
	struct fault fault;
	uint64_t missing = xstate_used(thread->xstate.data, thread->xstate.len, then) & ~here->xstate;
	if (!missing && thread->xstate.len < here->xstate_size) {
		fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP,
			  "thread %u (%s): has vector registers of %zu bytes, which are %u here, and the image does not say how "
			  "they lie; try the host it was made on", thread->tid, thread->command, thread->xstate.len,
			  here->xstate_size);
		fault_list_add(refusals, &fault);
	}
	if (!missing)
		return;
	processor_xstate_names(missing, names, sizeof names);
	fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP,
		  "thread %u (%s): has values in registers that the processor here lacks (%s); try a host that has them",
		  thread->tid, thread->command, names);
	fault_list_add(refusals, &fault);
}

void plan_check_processor(const struct plan *plan, bool force, struct fault_list *refusals)
{
	char names[512];
	struct fault fault;
	struct processor then;
	processor_of_image(plan->info, &then);
	size_t lacking = processor_lacks(&then, names, sizeof names);
	if (lacking && force)
		log_warn("the image was made on a processor with %s, which the one here lacks; continuing without", names);
	if (lacking && !force) {
		fault_set(&fault, FAULT_UNSUPPORTED, ENOTSUP,
			  "the image was made on a processor with %s, which the one here lacks; try a host that has %s, or "
			  "--force-cpu if the program uses none of it", names, lacking > 1 ? "them" : "it");
		fault_list_add(refusals, &fault);
	}
	for_threads(plan, check_thread, refusals);
}
