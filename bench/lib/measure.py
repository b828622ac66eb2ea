"""What the benches share: where the built things are, a quiet machine, medians, tables.

In:   a build folder made by CMake (its cache names the Python that holds torch).
Why:  a ratio means something only if both sides ran alike: alternating, by the same clock, on the same cores.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Build:
    """A build folder: its programs and the Python that they were configured with."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        cache = self.folder / "CMakeCache.txt"
        if not cache.exists():
            sys.exit(f"{folder} is no build folder: build one (./stagecoach --help does), or name another with --build")
        entries = dict(line.split("=", 1) for line in cache.read_text().splitlines() if "=" in line and not line.startswith(("#", "/")))
        self.python = next((value for key, value in entries.items() if key.startswith("STAGECOACH_PYTHON:")), sys.executable)

    def program(self, name):
        """The built program, of the sources as they are: one that is older than its library would call it by another layout."""
        if (self.folder / "build.ninja").exists():
            done = subprocess.run(["ninja", "-C", str(self.folder), name], capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{name} could not be built:\n{done.stdout[-4000:]}")
        return self.folder / name

    def library(self):
        found = sorted(p for pattern in ("libstagecoach_compute.so", "libstagecoach_compute.dylib") for p in self.folder.rglob(pattern))
        if not found:
            sys.exit(f"no libstagecoach_compute under {self.folder}: build it with torch (STAGECOACH_COMPUTE=ON)")
        return found[0]


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build"), help="build folder [build]")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    parser.add_argument("--pairs", type=int, default=7, help="alternating rounds of each side; medians are taken [7]")
    parser.add_argument("--python", help="a Python with torch [the build's]")
    return parser


def go_first():
    """Goes on in a session of its own that comes before everything else on the machine, where we may; says whether.

    With autogroups a niceness counts inside a session only, so that the session's own must be set; not the terminal's, which
    would keep it.
    """
    # Held back until the child is known: it would not get a signal that came to us in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    child = os.fork()
    if child:
        def stop(*_):
            try:
                os.killpg(child, signal.SIGTERM)
            except ProcessLookupError:  # its session is not made yet
                os.kill(child, signal.SIGTERM)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.setsid()
    try:
        os.nice(-15)
        pathlib.Path("/proc/self/autogroup").write_text("-20")
    except OSError:
        return "at the usual priority: other work on this machine shows in the numbers"
    return "before other work on this machine"


def machine():
    """Processor, cores and versions in one line."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = file.read().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
        flags = next((line for line in lines if line.startswith("flags")), "")
        model += " with AMX" if " amx_bf16" in flags else " with AVX-512" if " avx512f" in flags else ""
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def commit():
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def median(values):
    return statistics.median(values) if values else float("nan")


def table(rows, head):
    """Markdown, aligned."""
    text = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
    return "\n".join([line(text[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, text[1:])])


def finish(options, result):
    """Writes the JSON where it was asked for."""
    result["machine"], result["commit"], result["command"] = machine(), commit(), " ".join(["bench/" + pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nall numbers: {options.json}")
