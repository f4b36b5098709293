#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""perl with an interval timer, alarm and signal handlers."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import signal

from cairn_test import main, need, same_files, start, test, undisturbed, until, write

JOB = r'''
use strict; use warnings; use Time::HiRes qw(setitimer ITIMER_REAL);
use Digest::SHA qw(sha256_hex);
$| = 1;
my ($ticks, $alarms, $users, $value) = (0, 0, 0, "start");
$SIG{ALRM} = sub { $ticks++ };
$SIG{USR1} = sub { $users++; print "user $users\n" };
$SIG{HUP} = "IGNORE";
setitimer(ITIMER_REAL, 0.02, 0.02);
for my $round (1 .. 300) {
    my $before = $ticks;
    $value = sha256_hex($value) for 1 .. 3000;
    1 while $ticks == $before;
    print "round $round $value\n";
    select(undef, undef, undef, 0.01) while $round == 250 && !-e "finish";
}
setitimer(ITIMER_REAL, 0);
eval { local $SIG{ALRM} = sub { die "late\n" }; alarm 1; select(undef, undef, undef, undef) while 1; };
print "ends after $users signals: $@";
'''


@test("perl keeps its timer, its alarm and its signal handlers", quick=True)
def perl():
    need("perl")
    write("job.pl", JOB)

    def run(directory, disturb):
        program = start(["perl", "../job.pl"], directory)
        for number in (1, 2):
            program.wait_lines(60 * number)
            if disturb:
                program.round_trip()
            program.signal(signal.SIGHUP)
            program.signal(signal.SIGUSR1)
            program.wait_text(f"user {number}\n")
        program.finish()
        return program

    reference = run("reference", False)
    program = run("job", True)
    for one in (reference, program):
        # When a signal came is not the program's result.
        lines = [line for line in one.text().splitlines() if not line.startswith("user ")]
        write(one.path("result"), "\n".join(lines))
    same_files(program, reference, "result", "err")


@test("perl in the middle of alarm() is woken in time after two restores")
def alarm():
    need("perl")
    write("job.pl", r'''$| = 1; use Time::HiRes qw(time);
        $SIG{ALRM} = sub { printf "woken\n"; exit 0 }; alarm 2; print "asleep\n"; sleep 100 while 1;''')
    program = start(["perl", "job.pl"])
    program.wait_text("asleep")
    for _ in range(2):
        program.round_trip()
    program.succeed(20)
    until(lambda: "woken" in program.text(), "the alarm")


if __name__ == "__main__":
    main()
