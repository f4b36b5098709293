/* SPDX-License-Identifier: Apache-2.0 */
/* probe: a memfd keeps its contents, name, seals, offset and mappings, or is refused by name */
/* refusable: memfd */
#include "probe.h"

#include <sys/mman.h>
#include <sys/stat.h>

int main(void)
{
	enum { SIZE = 300000 };
	int fd = PROBE(memfd_create("a probe", MFD_CLOEXEC | MFD_ALLOW_SEALING)), plain = PROBE(memfd_create("plain", 0));
	PROBE(ftruncate(fd, SIZE));
	PROBE(write(plain, "plain", 5));
	unsigned char *at = PROBE((unsigned char *)mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	probe_fill(at, SIZE, 15);
	PROBE(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	PROBE(lseek(fd, 4321, SEEK_SET));

	probe_save();

	struct stat status;
	PROBE_SAME(fstat(fd, &status), 0, "fstat");
	PROBE_SAME(status.st_size, SIZE, "size");
	probe_filled(at, SIZE, 15, "mapping");
	PROBE_SAME(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW, "seals");
	PROBE_SAME(fcntl(plain, F_GET_SEALS), F_SEAL_SEAL, "seals of the plain one");
	PROBE_SAME(lseek(fd, 0, SEEK_CUR), 4321, "offset");
	PROBE_SAME(lseek(plain, 0, SEEK_CUR), 5, "offset of the plain one");
	at[77] = 0x5a;
	unsigned char byte = 0;
	PROBE_SAME(pread(fd, &byte, 1, 77), 1, "read");
	PROBE_SAME(byte, 0x5a, "a store seen through the descriptor");
	char link[256] = "", path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	PROBE_TRUE(readlink(path, link, sizeof link - 1) > 0 && strstr(link, "memfd:a probe"), "name");
	return probe_end();
}
