/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* --once: of all who restore an image, now or later, here or on another machine that sees its directory, one succeeds. */
#include <stdint.h>

#include "base/fault.h"

struct lease {
	int fd;     /* of the mark beside the image, locked; -1: none */
	char *path; /* of the mark */
	char *word; /* what it says when the image is restored */
};

/* Takes the lease of the image @id at @path. A fault: it was restored already, or somebody is restoring it. */
int lease_take(const char *path, const uint8_t id[16], struct lease *ret_lease, struct fault *fault);
/* It is about to run: the mark says so from now on, for good. */
int lease_use(struct lease *lease, struct fault *fault);
/* It did not come to that. */
void lease_give_back(struct lease *lease);
void lease_finish(struct lease *lease);
