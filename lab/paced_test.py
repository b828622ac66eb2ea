"""Claim: a run of paced devices that loses a worker commits every step, its losses are those of one machine doing all of it, and its
account tells what the loss has cost.

In:   STAGECOACH_BUILD_DIR. Exit status: 0, 1, or 77 where this machine cannot run a lab (it says why).
"""

import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.lib import claims, programs  # noqa: E402

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


def test(folder):
    result = claims.played(claims.SCENARIOS / "paced-kill.toml", folder / "lab")
    told = result["account"]
    checks = {
        "every step was committed": result["steps"] == STEPS,
        "one worker was lost": result["workers_lost"] == 1,
        "the losses are those of one machine": told["checked"] is True,
        "the parts are all of the devices' time": all(sum(stage.values()) > 0 for stage in told["stage_device_ns"]) and
                                                 sum(map(lambda stage: sum(stage.values()), told["stage_device_ns"])) == sum(told["device_ns"].values()),
        "the kill has its line": [event["event"] for event in told["incidents"]] == ["kill host-2 (stage 1, replica 0)"] and told["incidents"][0]["attempts"] >= 1,
        "bulk was shrunk, and it is told": told["bulk_scale"] == 0.5,
    }
    flipped(folder / "lab" / "run" / "events.jsonl")
    return checks | {"another loss is found out": account(folder) == 8}


if __name__ == "__main__":
    sys.exit(claims.hold(test))
