/* SPDX-License-Identifier: Apache-2.0 */
/* Vector registers as NT_X86_XSTATE has them, XSAVE's standard format: 512 bytes of x87 and SSE, a header whose first word (XSTATE_BV) says
 * which components are not in their initial state, then the components, each where the processor's CPUID leaf 0xd says. */
#include <string.h>

#include "tracee/arch.h"

enum { HEADER = 512, COMPONENTS = 576, ALWAYS = 3 /* x87, SSE */, PROTECTION_KEYS = 9 };

static uint64_t header_of(const uint8_t *xstate)
{
	uint64_t bits;
	memcpy(&bits, xstate + HEADER, sizeof bits);
	return bits;
}

static const struct processor_component *find(const struct processor *processor, uint32_t number)
{
	for (size_t i = 0; i < processor->component_count; i++)
		if (processor->components[i].number == number)
			return &processor->components[i];
	return NULL;
}

/* Two bits for each key, the lowest for key 0, which every page has that was given no other. The kernel starts programs with all other keys denied
 * (arch/x86/mm/pkeys.c init_pkru_value), so that the component is never in its initial state. */
#define NEW_RIGHTS UINT32_C(0x55555554)

uint32_t xstate_key_rights(const void *xstate, size_t size, const struct processor *then)
{
	const struct processor_component *keys = find(then, PROTECTION_KEYS);
	uint32_t rights = 0;
	if (!keys || keys->offset > size || sizeof rights > size - keys->offset || !(header_of(xstate) >> PROTECTION_KEYS & 1))
		return 0;
	memcpy(&rights, (const uint8_t *)xstate + keys->offset, sizeof rights);
	return rights;
}

static bool keys_are_used(const uint8_t *xstate, size_t size, const struct processor *then)
{
	return !find(then, PROTECTION_KEYS) || xstate_key_rights(xstate, size, then) != NEW_RIGHTS;
}

uint64_t xstate_used(const void *xstate, size_t size, const struct processor *then)
{
	uint64_t used = header_of(xstate) & ~(uint64_t)ALWAYS;
	if (used >> PROTECTION_KEYS & 1 && !keys_are_used(xstate, size, then))
		used &= ~(UINT64_C(1) << PROTECTION_KEYS);
	return used;
}

bool xstate_fits(const struct processor *then, size_t size, const struct processor *here)
{
	if (!then->component_count) /* not known: an image without it, or a processor that has only SSE */
		return true;
	if (size != here->xstate_size || then->component_count != here->component_count)
		return false;
	for (size_t i = 0; i < then->component_count; i++)
		if (memcmp(&then->components[i], &here->components[i], sizeof then->components[i]))
			return false;
	return true;
}

void xstate_convert(const void *xstate, size_t size, const struct processor *then, const struct processor *here, void *ret_xstate)
{
	uint8_t *to = ret_xstate;
	const uint8_t *from = xstate;
	uint64_t used = header_of(from), put = used & ALWAYS;
	memset(to, 0, here->xstate_size);
	memcpy(to, from, HEADER);
	for (size_t i = 0; i < then->component_count; i++) {
		const struct processor_component *old = &then->components[i], *new = find(here, old->number);
		if (!(used >> old->number & 1) || !new || new->size != old->size || old->offset > size || old->size > size - old->offset ||
		    new->offset > here->xstate_size || new->size > here->xstate_size - new->offset)
			continue;
		memcpy(to + new->offset, from + old->offset, old->size);
		put |= UINT64_C(1) << old->number;
	}
	memcpy(to + HEADER, &put, sizeof put);
}
