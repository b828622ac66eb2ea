"""Claim: two workers on a bad road, cut off and stopped on the way, come to the very bits of one process that does all the work.

In:   STAGECOACH_BUILD_DIR. Exit status: 0, 1, or 77 where this machine cannot run a lab (it says why).
"""

import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.lib import claims, network, programs  # noqa: E402

PLAYED = ["continue", "cut", "degrade", "stop"]


def unsplit_bits(folder):
    """Returns {step: bits} of one process."""
    (program,) = programs.built("stagecoach")
    words = ["train", "--plain", "--unsplit", folder / "lab" / "config.toml", "--set", f"run.dir={folder / 'unsplit'}", "--set", f"data.shard_cache={folder / 'shards'}"]
    done = subprocess.run([str(word) for word in [program, *words]], check=False, cwd=programs.ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise network.Refusal(f"train --unsplit ended with {done.returncode}: {done.stderr[-2000:]}")
    events = map(json.loads, (folder / "unsplit" / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return {str(event["step"]): event["loss_bits"] for event in events if event["kind"] == "step_committed"}


def test(folder):
    result = claims.played(claims.SCENARIOS / "two-hosts.toml", folder / "lab")
    return {
        "the timeline was played": sorted(event["do"] for event in result["timeline"]) == sorted(PLAYED),
        "the road lost packets": sum(sums["lost_packets"] for sums in result["traffic"].values()) > 0,
        "nobody was lost": result["workers_lost"] == 0,
        "the losses are those of one process": result["loss_bits"] == unsplit_bits(folder),
    }


if __name__ == "__main__":
    sys.exit(claims.hold(test))
