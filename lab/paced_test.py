"""Claim: a run of paced devices that loses a worker commits every step, its losses are those of one machine doing all of it, and its
account tells what the loss has cost.

In:   STAGECOACH_BUILD_DIR. Exit status: 0, 1, or 77 where this machine cannot run a lab (it says why).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.lib import network, programs  # noqa: E402

SCENARIO = programs.ROOT / "lab" / "scenarios" / "paced-kill.toml"
STEPS = 5


def flipped(path):
    """Makes the newest loss of the event log another one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = max(number for number, line in enumerate(lines) if '"step_committed"' in line)
    event = json.loads(lines[at])
    event["loss_bits"] = event["loss_bits"][:-1] + ("0" if event["loss_bits"][-1] != "0" else "1")
    path.write_text("\n".join([*lines[:at], json.dumps(event), *lines[at + 1:]]) + "\n", encoding="utf-8")


def account(folder):
    (program,) = programs.built("stagecoach")
    traces = sorted((folder / "lab").glob("*/trace-0"))
    return subprocess.run([str(word) for word in [program, "account", folder / "lab" / "run", *traces]], check=False, capture_output=True, text=True).returncode


def main():
    reason = network.why_not()
    if reason:
        print(f"skipped: {reason}")
        return network.SKIPPED
    with tempfile.TemporaryDirectory(prefix=network.owner_tag()) as place:
        folder = pathlib.Path(place)
        done = subprocess.run([sys.executable, str(programs.ROOT / "lab" / "run"), str(SCENARIO), "--out", str(folder / "lab")], check=False,
                              env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
        if done.returncode != 0:
            for path in sorted((folder / "lab").glob("*/output")):
                print(f"--- {path.parent.name}\n{path.read_text(encoding='utf-8', errors='replace')[-2000:]}")
            return 1
        result = json.loads((folder / "lab" / "result.json").read_text(encoding="utf-8"))
        told = result["account"]
        checks = {
            "every step was committed": result["steps"] == STEPS,
            "one worker was lost": result["workers_lost"] == 1,
            "the losses are those of one machine": told["checked"] is True,
            "the parts are all of the devices' time": all(sum(stage.values()) > 0 for stage in told["stage_device_ns"]) and
                                                     sum(map(lambda stage: sum(stage.values()), told["stage_device_ns"])) == sum(told["device_ns"].values()),
            "the kill has its line": [event["event"] for event in told["incidents"]] == ["kill host-2"] and told["incidents"][0]["attempts"] >= 1,
            "bulk was shrunk, and it is told": told["bulk_scale"] == 0.5,
        }
        flipped(folder / "lab" / "run" / "events.jsonl")
        checks["another loss is found out"] = account(folder) == 8
    for what, holds in checks.items():
        print(f"{what}: {'yes' if holds else 'NO'}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
