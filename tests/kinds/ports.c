/* SPDX-License-Identifier: Apache-2.0 */
/* probe: I/O ports are refused by name */
/* refusable: I/O ports */
#include "probe.h"

#include <sys/io.h>

enum { PORT = 0x80 };

int main(void)
{
	if (ioperm(PORT, 1, 1) < 0)
		probe_skip("ioperm: %s", strerror(errno));
	probe_save();
	PROBE_SAME(ioperm(PORT, 1, 0), 0, "ioperm");
	return probe_end();
}
