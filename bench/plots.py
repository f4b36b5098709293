# SPDX-License-Identifier: Apache-2.0
"""What the benchmark has measured as pictures, by gnuplot."""
import shutil
import subprocess

# file: title, x axis, y axis, logarithmic
PLOTS = {
    "pause": ("Pause of a save that runs on", "memory, MiB", "ms", True),
    "save": ("Save", "memory, MiB", "ms", True),
    "restore": ("Restore until the program runs", "memory, MiB", "ms", True),
    "processes": ("Trees of processes", "processes", "ms", True),
    "threads": ("Threads of one process", "threads", "ms", True),
    "mappings": ("Mappings of one process", "mappings", "ms", True),
    "descriptors": ("Descriptors of one process", "descriptors", "ms", True),
    "connections": ("TCP sockets of one process, both ends inside", "sockets", "ms", True),
    "codecs": ("Ways to store memory such as interpreters have", "size, part of the memory", "ms", False),
}


class Series:
    def __init__(self):
        self.points = {}  # plot -> label -> [(x, y)]

    def add(self, plot, label, x, y):
        self.points.setdefault(plot, {}).setdefault(label, []).append((x, y))

    def draw(self, directory):
        """Writes PLOT.svg for each; their paths. Nothing without gnuplot."""
        if not shutil.which("gnuplot"):
            print("no plots: gnuplot is not there (package gnuplot-nox)")
            return []
        paths = []
        for plot, labels in self.points.items():
            title, across, up, logarithmic = PLOTS[plot]
            path = directory / f"{plot}.svg"
            data = "".join(f"${chr(ord('a') + n)} << EOD\n" + "".join(f"{x} {y}\n" for x, y in sorted(points)) + "EOD\n"
                           for n, points in enumerate(labels.values()))
            lines = ", ".join(f"${chr(ord('a') + n)} using 1:2 with linespoints pointtype 7 pointsize 0.6 title \"{label}\""
                              for n, label in enumerate(labels))
            script = (f"set terminal svg size 560,360 background 'white'\nset output '{path}'\nset title \"{title}\"\n"
                      f"set xlabel \"{across}\"\nset ylabel \"{up}\"\nset key left top\nset grid\n"
                      f"{'set logscale xy' if logarithmic else 'set xrange [0:1.1]; set yrange [0:*]'}\n{data}plot {lines}\n")
            subprocess.run(["gnuplot"], input=script.encode(), check=True)
            paths.append(path)
        return paths
