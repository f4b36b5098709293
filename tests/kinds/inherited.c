/* SPDX-License-Identifier: Apache-2.0 */
/* probe: descriptors inherited by fork share their offset; pipes join parent, child and grandchild as before */
#include "probe.h"

int main(void)
{
	int file = PROBE(open("inherited", O_RDWR | O_CREAT, 0600)), down[2], up[2];
	PROBE(write(file, "0123456789", 10));
	PROBE(lseek(file, 4, SEEK_SET));
	PROBE(pipe(down));
	PROBE(pipe(up));
	pid_t child = PROBE(fork());
	if (!child) {
		PROBE(dup2(file, 150));
		close(file);
		close(down[1]);
		pid_t grandchild = PROBE(fork());
		if (!grandchild) {
			close(up[0]);
			char byte = 0;
			PROBE_SAME(read(down[0], &byte, 1), 1, "read of the grandchild");
			PROBE_SAME(lseek(150, 0, SEEK_CUR), 6, "offset that the parent moved");
			PROBE_SAME(lseek(150, 1, SEEK_CUR), 7, "offset");
			byte++;
			PROBE_SAME(write(up[1], &byte, 1), 1, "write of the grandchild");
			_exit(probe_faults != 0);
		}
		close(up[0]);
		close(up[1]);
		probe_join(grandchild, "grandchild");
		char byte;
		PROBE_SAME(read(down[0], &byte, 1), 0, "end of the pipe when the parent closes it");
		_exit(probe_faults != 0);
	}
	close(down[0]);
	close(up[1]);

	probe_save();

	char bytes[3] = "";
	PROBE_SAME(read(file, bytes, 2), 2, "read");
	PROBE_TRUE(!memcmp(bytes, "45", 2), "what is read");
	PROBE_SAME(write(down[1], "A", 1), 1, "write");
	PROBE_SAME(read(up[0], bytes, 1), 1, "answer");
	PROBE_SAME(bytes[0], 'B', "answer");
	PROBE_SAME(lseek(file, 0, SEEK_CUR), 7, "offset that the grandchild moved");
	close(down[1]);
	PROBE_SAME(read(up[0], bytes, 1), 0, "end of the pipe when nobody writes");
	probe_join(child, "child");
	return probe_end();
}
