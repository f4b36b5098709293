/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel/aio.h"

#include <errno.h>

#include "kernel/procfs.h"
#include "kernel/token.h"

enum { EVENTS_PER_PAGE = AIO_PAGE / (int)sizeof(struct io_event) };

uint32_t aio_slots(uint64_t size)
{
	return (uint32_t)((size - sizeof(struct aio_ring)) / sizeof(struct io_event));
}

uint32_t aio_distance(uint32_t from, uint32_t to, uint32_t slots)
{
	return to >= from ? to - from : to + slots - from;
}

uint32_t aio_batch(uint32_t slots, uint32_t processors)
{
	uint32_t batch = (slots - 1) / (processors * 4);
	return batch ? batch : 1;
}

uint32_t aio_usable(uint32_t slots, uint32_t processors)
{
	return slots - 1 - (slots - 1) % aio_batch(slots, processors);
}

/* It makes room for twice as many as are asked for, but for as many as 4 on each processor at least, and 2 more (ioctx_alloc, aio_setup_ring). With the header, which takes the
 * place of an event, that is 2 * N + 3 places, in whole pages. */
uint32_t aio_requests(uint64_t size, uint32_t processors)
{
	const uint64_t pages = size / AIO_PAGE, above = EVENTS_PER_PAGE * (pages - 1) / 2, most = (EVENTS_PER_PAGE * pages - 3) / 2, least = processors * UINT64_C(4);
	if (most < least)
		return 0;
	return least + 1 >= above ? 1 : (uint32_t)above - 1;
}

int aio_processors_parse(const char *text, uint32_t *ret_count, struct fault *fault)
{
	const char *at = text;
	uint64_t count = 0;
	do {
		uint64_t first, last;
		if (!token_number(&at, 10, &first))
			return token_malformed(fault, "processors", "a range", text);
		last = first;
		if ((token_word(&at, "-") && !token_number(&at, 10, &last)) || last < first || last > UINT16_MAX)
			return token_malformed(fault, "processors", "a range", text);
		count += last - first + 1;
	} while (token_word(&at, ","));
	if (!token_at_end(at) || count > UINT16_MAX)
		return token_malformed(fault, "processors", "a range", text);
	*ret_count = (uint32_t)count;
	return 0;
}

int aio_processors(uint32_t *ret_count, struct fault *fault)
{
	struct text text = { 0 };
	int rc = proc_read_path("/sys/devices/system/cpu/possible", &text, fault);
	if (rc == 0)
		rc = aio_processors_parse(text.at, ret_count, fault);
	text_finish(&text);
	return rc;
}
