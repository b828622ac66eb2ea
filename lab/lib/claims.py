"""What the lab's tests share: a scenario played in a folder that is gone afterwards, claims about what came of it.

In:   a test's function from a folder to {claim: whether it holds}. Out: exit status 0, 1, or 77 where this machine cannot run a lab.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from lab.lib import network, programs

SCENARIOS = programs.ROOT / "lab" / "scenarios"


def played(scenario, out):
    """Runs a scenario into the folder `out`; returns its result, or shows what everybody printed and raises Refusal."""
    done = subprocess.run([sys.executable, str(programs.ROOT / "lab" / "run"), str(scenario), "--out", str(out)], check=False,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    if done.returncode != 0:
        for path in sorted(out.glob("*/output")):
            print(f"--- {path.parent.name}\n{path.read_text(encoding='utf-8', errors='replace')[-2000:]}")
        raise network.Refusal(f"lab/run {scenario} ended with {done.returncode}")
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def hold(test):
    """Runs the test and prints each of its claims."""
    reason = network.why_not()
    if reason:
        print(f"skipped: {reason}")
        return network.SKIPPED
    try:
        with tempfile.TemporaryDirectory(prefix=network.owner_tag()) as place:
            claims = test(pathlib.Path(place))
    except network.Refusal as error:
        print(error)
        return 1
    for what, holds in claims.items():
        print(f"{what}: {'yes' if holds else 'NO'}")
    return 0 if all(claims.values()) else 1
