"""Runs each libFuzzer program for a number of seconds, as many at once as there are jobs.

In:   BUILD/fuzz/targets.txt, one program name a line; starting inputs in INPUTS/<program>/, where there are any.
Out:  a line a program: what it tried and reached; `fuzz.<program> TAB passed|failed TAB seconds` in --out for ./check.
      An input that broke something stays in BUILD/found/<program>/, and the command that replays it is printed.
"""

import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import time

# A decoder that asks for more than this on a frame's say-so has not bounded a length.
MEMORY_MB = 1024
ONE_ALLOCATION_MB = 256
ONE_INPUT_SECONDS = 10


def run(name, options):
    """Returns (name, passed, seconds, what to print)."""
    build = pathlib.Path(options.build)
    corpus = build / "corpus" / name
    found = build / "found" / name
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    program = build / "fuzz" / name
    command = [program, f"-max_total_time={options.seconds}", f"-seed={options.seed}", f"-rss_limit_mb={MEMORY_MB}",
               f"-malloc_limit_mb={ONE_ALLOCATION_MB}", f"-timeout={ONE_INPUT_SECONDS}", "-print_final_stats=1",
               f"-artifact_prefix={found}/", corpus]
    golden = pathlib.Path(options.inputs) / name
    if golden.is_dir():
        command.append(golden)
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, timeout=options.seconds + 120)
        status, output = done.returncode, done.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        status, output = -1, (late.stderr or b"").decode(errors="replace") + "\nit did not end in time"
    seconds = time.monotonic() - began
    if status == 0:
        tried = re.search(r"number_of_executed_units:\s*(\d+)", output)
        edges = re.findall(r"cov: (\d+)", output)
        words = f"{int(tried[1]):,} inputs, {edges[-1] if edges else 0} edges" if tried else "no input"
        return name, True, seconds, f"{name}: {words}, {seconds:.0f} s"
    broken = re.search(r"Test unit written to (\S+)", output)
    replay = f"\nreplay: {program} {broken[1]}" if broken else ""
    return name, False, seconds, f"{name}: FAILED\n{output[-6000:]}{replay}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True, help="0: another each time")
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--filter", default="", help="only programs whose name, after `fuzz.`, matches")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    names = (pathlib.Path(options.build) / "fuzz" / "targets.txt").read_text(encoding="utf-8").split()
    names = [name for name in names if re.search(options.filter, f"fuzz.{name}")]
    failed = False
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool, open(options.out, "w", encoding="utf-8") as out:
        for name, passed, seconds, words in pool.map(lambda name: run(name, options), names):
            print(words, flush=True)
            out.write(f"fuzz.{name}\t{'passed' if passed else 'failed'}\t{seconds:.1f}\n")
            failed = failed or not passed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
