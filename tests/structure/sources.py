#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The shape of the sources: who includes whom, what is writable, how long functions are."""
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from cairn_test import BUILD, REPOSITORY, Skip, check, main, need, test

SOURCE = REPOSITORY / "src"
LONGEST_FUNCTION = 120
# The only writable variable of Cairn's own: where log lines go (base/log.c).
WRITABLE = {"log_state"}


def tracked(*suffixes):
    """Files of the repository, by git where there is one."""
    done = subprocess.run(["git", "-C", str(REPOSITORY), "-c", "safe.directory=*", "ls-files"], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        names = [REPOSITORY / name for name in done.stdout.decode().splitlines()]
    else:
        names = [path for path in REPOSITORY.rglob("*") if "build" not in path.parts[len(REPOSITORY.parts)]]
    return [path for path in names if path.is_file() and (not suffixes or path.suffix in suffixes)]


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rules():
    """folder -> set of folders (or files) that it may include, from the row in its README."""
    found = {}
    for readme in sorted(SOURCE.rglob("README.md")):
        lines = readme.read_text().splitlines()
        for head, line, row in zip(lines, lines[1:], lines[2:]):
            if head.startswith("| folder") and line.startswith("|---") and row.startswith("|"):
                names, _, may, _ = cells(row)[:4]
                for name in re.split(r"[ ,]+", names):
                    found[name.rstrip("/*")] = may
    return found


def folder_of(path):
    return path.relative_to(SOURCE).parts[0]


@test("each folder of src has a README with its row of the table", quick=True)
def readmes():
    wrong = []
    for folder in sorted({folder_of(path) for path in tracked() if SOURCE in path.parents and path.parent != SOURCE}):
        readme = SOURCE / folder / "README.md"
        if not readme.exists():
            wrong.append(f"src/{folder} has no README.md")
            continue
        text = readme.read_text()
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 14:
            wrong.append(f"src/{folder}/README.md has {len(lines)} lines: ten are enough")
        if folder not in rules():
            wrong.append(f"src/{folder}/README.md has no row of the table (| folder | knows | may include | never |)")
    check(not wrong, "\n".join(wrong))


@test("every #include in src obeys the table of folders", quick=True)
def includes():
    may = rules()
    wrong = []
    for path in tracked(".c", ".h"):
        if SOURCE not in path.parents:
            continue
        folder = folder_of(path)
        allowed = may.get(folder)
        if allowed is None:
            continue  # the test above speaks
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not found:
                continue
            target = found.group(1)
            other = target.split("/")[0] if "/" in target else folder
            generated = target.endswith(".pb-c.h") or target == "cairn.h"
            if other == folder or generated or re.match(r"^all\b", allowed) or not (SOURCE / other).is_dir():
                continue
            words = set(re.findall(r"[\w./-]+", allowed))
            if other not in words and target not in words:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{number}: \"{target}\": {folder} may include: {allowed}")
    check(not wrong, "\n".join(wrong))


@test("capture and rebuild name no kind, and kinds name neither writer nor reader", quick=True)
def kinds_apart():
    wrong = []
    for path in tracked(".c", ".h"):
        if SOURCE not in path.parents:
            continue
        folder = folder_of(path)
        text = path.read_text()
        if folder in ("capture", "rebuild"):
            for target in re.findall(r'#\s*include\s+"(kinds/[^"]+)"', text):
                if target != "kinds/kind.h":
                    wrong.append(f"{path.relative_to(REPOSITORY)} includes {target}")
        if folder == "kinds" and re.search(r"\bimage_(writer|reader)_\w+\s*\(", text):
            wrong.append(f"{path.relative_to(REPOSITORY)} calls the image's writer or reader")
    check(not wrong, "\n".join(wrong))


@test("cairn-kinds(7) says something of every kind, and of nothing else", quick=True)
def kinds_page():
    page = BUILD / "man" / "cairn-kinds.7"
    if not page.exists():
        raise Skip(f"no {page}")
    said = [line.removeprefix(".SS ").replace("\\-", "-") for line in page.read_text().splitlines() if line.startswith(".SS ")]
    kinds = []
    for path in sorted((SOURCE / "kinds").rglob("*.c")):
        kinds += re.findall(r"^const struct kind kind_\w+ = \{\s*\.name = \"([^\"]+)\"", path.read_text(), re.M)
    check(sorted(said) == sorted(kinds), "kinds and cairn-kinds(7) differ", *sorted(set(said) ^ set(kinds)))
    check("Nothing is said of it" not in page.read_text(), "a kind has no row in src/kinds/words.c")


@test("nothing in the objects of src is writable but the log sink", quick=True)
def writable():
    need("nm")
    objects = [path for path in BUILD.rglob("*.o") if "libcore" in str(path) or "/cairn.p/" in str(path)]
    if not objects:
        raise Skip(f"no objects in {BUILD}")
    wrong = []
    for path in objects:
        if "pb-c" in path.name or "asan" in path.name:
            continue
        done = subprocess.run(["nm", str(path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True)
        for line in done.stdout.decode(errors="replace").splitlines():
            kind, name = line.split()[-2:]
            # d, b: data and bss. Thread-local ones are as writable.
            if kind in "dDbBC" and not name.startswith((".", "__odr_asan", "__asan", "__emutls", "__compound")):
                if name.split(".")[0] not in WRITABLE and not relocated(path, name):
                    wrong.append(f"{path.name}: {name}")
    check(not wrong, "writable:\n" + "\n".join(sorted(wrong)))


def relocated(path, name):
    """Constants that hold pointers lie in .data.rel.ro, which is read-only once the program runs."""
    done = subprocess.run(["objdump", "-t", str(path)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True)
    return any(line.split()[-1:] == [name] and ".data.rel.ro" in line
               for line in done.stdout.decode(errors="replace").splitlines())


@test(f"no function of src is longer than {LONGEST_FUNCTION} lines", quick=True)
def lengths():
    wrong = []
    for path in tracked(".c"):
        if SOURCE not in path.parents:
            continue
        begin = None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line == "{":
                begin = number
            elif line == "}" and begin:
                if number - begin > LONGEST_FUNCTION:
                    wrong.append(f"{path.relative_to(REPOSITORY)}:{begin}: {number - begin} lines")
                begin = None
    check(not wrong, "\n".join(wrong))


@test("every source file says its license in an SPDX line", quick=True)
def licenses():
    suffixes = (".c", ".h", ".S", ".py", ".sh", ".proto", ".build")
    wrong = []
    for path in tracked():
        script = path.suffix == "" and path.read_bytes()[:2] == b"#!"
        if path.suffix not in suffixes and not script and path.name != "Makefile":
            continue
        if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(path.read_text(errors="replace").splitlines()[:3]):
            wrong.append(str(path.relative_to(REPOSITORY)))
    check(not wrong, "\n".join(wrong))


@test("tests sleep for no fixed time and use no fixed port", quick=True)
def no_sleeps():
    wrong = []
    for path in tracked(".py", ".c"):
        if REPOSITORY / "tests" not in path.parents or path.name in ("cairn_test.py", "sources.py"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"^\s*(time\.)?sleep\(\d", line) or re.search(r"^\s*u?sleep\(\d", line):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    check(not wrong, "\n".join(wrong))


if __name__ == "__main__":
    main()
