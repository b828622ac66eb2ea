"""Claim: a paced run that loses a worker, and then the last one of a stage, is started again and goes on from its checkpoint; every loss and the
final weights are those of one machine doing all of it, and of the same run without events. Churn draws whom and when the planner draws.

In:   STAGECOACH_BUILD_DIR. Exit status: 0, 1, or 77 where this machine cannot run a lab (it says why).
"""

import json
import pathlib
import subprocess
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lab.lib import activity, claims, programs, report, scenario, timeline  # noqa: E402

SCENARIO = claims.SCENARIOS / "churn-small.toml"


def written(text, path):
    path.write_text(scenario.toml_text(text) + "\n", encoding="utf-8")
    return path


def churn_is_the_planners(text, folder):
    """Short stops, which leave all at work, so that both draw from the same workers."""
    about = {key: value for key, value in text["scenario"].items() if key not in ("steps", "resume")}
    path = written({**text, "scenario": {**about, "duration": "1min"}, "churn": {"every": "3s", "do": "stop", "for": "100ms"}}, folder / "churn.toml")
    plan = scenario.load(path)
    drawn = [(event.hosts[0], round(event.at_s, 6)) for event in timeline.Timeline(plan).due(plan.duration_s, lambda: [worker.name for worker in plan.workers])
             if event.do == "stop"]
    (program,) = programs.built("stagecoach")
    done = subprocess.run([str(program), "simulate", str(path), "--json"], capture_output=True, text=True, check=True)
    planned = [(event["event"].removesuffix(" stopped"), round(event["at_ns"] / 1e9, 6)) for event in json.loads(done.stdout)["incidents"]]
    return len(drawn) > 5 and drawn == planned


def shown(folder):
    """Nanoseconds of work that counts, as a picture has it."""
    spans = activity.read(folder).spans.values()
    return 1e9 * sum(ended - began for worker in spans for kind, began, ended in worker if kind in ("forward", "backward", "evaluate"))


def test(folder):
    text = tomllib.loads(SCENARIO.read_text(encoding="utf-8"))
    steps = text["scenario"]["steps"]
    del text["events"]
    calm = written(text, folder / "calm.toml")
    struck, undisturbed = claims.played(SCENARIO, folder / "struck"), claims.played(calm, folder / "calm")
    told = struck["account"]
    last = told["incidents"][-1]
    return {
        "churn draws what the planner draws": churn_is_the_planners(text, folder),
        "every step was committed": struck["steps"] == steps and told["steps"] == steps,
        "the timeline was played": [event["do"] for event in struck["timeline"]] == ["restart", "join", "kill"],
        "a run that goes on takes nobody": "takes no more workers" in (folder / "struck" / "host-2" / "output").read_text(encoding="utf-8"),
        "the run was started again once": told["resumes"] == 1 and "started again from step" in last["event"],
        "its event tells how long that took": last["to_work_ns"] and last["to_new_ns"] >= last["to_commit_ns"] > last["to_work_ns"],
        "work was done again": 0 < told["repeated_share"] < 1 and last["repeated_ns"] > 0,
        "steps that were done again came out the same": struck["repeated_differently"] == [],
        "losses and weights are those of one machine": told["checked"] is True and told["weights"]["step"] == steps,
        "the picture shows the work that the account counts": 0.85 < told["device_ns"]["busy"] / shown(folder / "struck") < 1.05,
        "they are those of the undisturbed run": report.compare(struck, undisturbed) and set(struck["loss_bits"]) == set(undisturbed["loss_bits"]) and
                                                 struck["state_sha256"] == undisturbed["state_sha256"] is not None,
    }


if __name__ == "__main__":
    sys.exit(claims.hold(test))
