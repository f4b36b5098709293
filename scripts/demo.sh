#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The main job on a real program, in under a minute: python3 with threads and a database in memory is saved in the middle
# of its work, killed, brought back, and comes to the right result. Argument: the cairn program.
set -eu
# Descriptors that whoever called left open would be the program's too, and lead out of its tree.
for fd in /proc/$$/fd/*; do
	fd=${fd##*/}
	[ "$fd" -le 2 ] || [ "$fd" = 255 ] || eval "exec $fd>&-"
done
cairn=$(readlink -f "${1:-build/cairn}")
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
fi
directory=$(mktemp -d)
pid=
clean_up() {
	[ -z "$pid" ] || $sudo kill -9 "$pid" 2>/dev/null || true
	$sudo rm -rf "$directory"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
cd "$directory"

cat >job.py <<'PYTHON'
import hashlib, queue, sqlite3, sys, threading
ROWS, WORKERS = 240, 4
answers = queue.Queue()
ballast = [bytes([i % 251]) * 1048576 for i in range(64)]    # 64 MiB that have to come back too
def chain(worker):
    value = str(worker).encode()
    for row in range(worker, ROWS, WORKERS):
        for _ in range(60000):
            value = hashlib.sha256(value).digest()
        answers.put((row, value.hex()))
database = sqlite3.connect(":memory:")
database.execute("create table chain (row integer primary key, value text)")
threads = [threading.Thread(target=chain, args=(i,)) for i in range(WORKERS)]
for thread in threads:
    thread.start()
with open("progress", "a") as progress:
    for count in range(1, ROWS + 1):
        database.execute("insert into chain values (?, ?)", answers.get())
        progress.write(f"row {count} of {ROWS}\n")
        progress.flush()
for thread in threads:
    thread.join()
total = hashlib.sha256(b"".join(ballast))
for line in database.iterdump():
    total.update(line.encode())
print(total.hexdigest())
PYTHON

# until FILE has N lines
wait_lines() {
	while [ "$(cat "$1" 2>/dev/null | wc -l)" -lt "$2" ]; do
		if ! kill -0 "$pid" 2>/dev/null && ! $sudo kill -0 "$pid" 2>/dev/null; then
			echo "the program ended too early" >&2
			exit 1
		fi
		sleep 0.05
	done
}

shown() {
	echo "\$ $*" | sed "s|$cairn|cairn|; s|^\$ sudo |\$ |"
	"$@"
}

echo "A python3 program: four threads compute, an sqlite database in memory collects 240 rows, 64 MiB of data."
/usr/bin/python3 job.py >undisturbed </dev/null
rows=$(wc -l <progress)
echo "Undisturbed it computes $rows rows and ends with $(cut -c1-16 undisturbed)..."
rm progress

echo
setsid /usr/bin/python3 job.py >result 2>errors </dev/null &
pid=$!
disown "$pid"
wait_lines progress 50
echo "Started again, as process $pid; now at: $(tail -n 1 progress)"
echo
shown $sudo "$cairn" checkpoint "$pid" -o job.cairn --kill
$sudo chmod a+r job.cairn
while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
at=$(wc -l <progress)
echo "It is gone: $(kill -0 "$pid" 2>&1 | sed 's/.*: //' || true). The image is $(du -h --apparent-size job.cairn | cut -f1)."
echo
begin=$(date +%s%N)
shown $sudo "$cairn" restore -d --pidfile pidfile job.cairn >/dev/null
end=$(date +%s%N)
pid=$(cat pidfile)
echo "It is back as process $pid after $(((end - begin) / 1000000)) ms, and goes on where it was:"
wait_lines progress $((at + 10))
echo "    $(tail -n 1 progress)"
while [ ! -s result ]; do
	if [ -s errors ]; then
		cat errors >&2
		exit 1
	fi
	sleep 0.05
done
echo
if [ "$(cat result)" = "$(cat undisturbed)" ] && [ "$(wc -l <progress)" = "$rows" ]; then
	echo "It ended with $(cut -c1-16 result)..., the same result as undisturbed."
	pid=
else
	echo "It ended with $(cat result): WRONG" >&2
	exit 1
fi
