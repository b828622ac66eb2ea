"""Prints what ./check found: a table of suites, the names that failed, and `N passed, N failed` as the last line.

In:   a folder with tests.xml (JUnit, from ctest) and fuzz.tsv (from tools/fuzz.py); either may be missing.
Out:  exit status 0 where something ran and nothing failed. A suite is a name's part before the first dot.
"""

import collections
import pathlib
import sys
import xml.etree.ElementTree


def outcomes(folder):
    """Yields (name, "passed" | "failed" | "skipped", seconds, its output) for each test that was to run."""
    junit = folder / "tests.xml"
    if junit.exists():
        for case in xml.etree.ElementTree.parse(junit).getroot().iter("testcase"):
            skipped = case.find("skipped")
            # ctest writes a program that was never built as skipped too; only the test itself may say that it has no place here.
            if case.get("status") == "run":
                state = "passed"
            elif skipped is not None and "SKIP" in skipped.get("message", ""):
                state = "skipped"
            else:
                state = "failed"
            yield case.get("name"), state, float(case.get("time") or 0), case.findtext("system-out") or ""
    fuzz = folder / "fuzz.tsv"
    if fuzz.exists():
        for line in fuzz.read_text(encoding="utf-8").splitlines():
            name, state, seconds = line.split("\t")
            yield name, state, float(seconds), ""


def why_skipped(output):
    """The line in which the test says why it has no place on this machine."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("skipped: ")]
    return (told or lines or ["it did not say why"])[-1].removeprefix("skipped: ")


def main():
    suites = collections.defaultdict(lambda: [0, 0.0])
    states = collections.Counter()
    failed, skipped = [], []
    for name, state, seconds, output in outcomes(pathlib.Path(sys.argv[1])):
        suite = suites[name.split(".")[0]]
        suite[0] += 1
        suite[1] += seconds
        states[state] += 1
        if state == "failed":
            failed.append(name)
        if state == "skipped":
            skipped.append(f"{name}: {why_skipped(output)}")
    width = max([len(suite) for suite in suites] + [5])
    print(f"\n{'suite':<{width}}  tests  seconds")
    for suite, (tests, seconds) in sorted(suites.items()):
        print(f"{suite:<{width}}  {tests:5}  {seconds:7.1f}")
    for name in failed:
        print(f"failed: {name}")
    if not suites:
        print("no test has such a name")
    for line in skipped:
        print(f"skipped: {line}")
    if states["skipped"]:
        print(f"{states['skipped']} skipped themselves")
    print(f"{states['passed']} passed, {states['failed']} failed")
    return 0 if suites and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
