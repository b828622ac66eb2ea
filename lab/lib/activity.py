"""What each worker of a run did when, for pictures: from its traces, the coordinator's log, and the timeline.

In:   a folder of ./lab/run. Out: an Activity, times in seconds since training began.
Why:  the account (stagecoach account) adds times up; a picture needs them where they lay.
"""

import collections
import dataclasses
import json

from lab.lib.network import Refusal
from lab.lib.outcome import traces_of
from lab.lib.runner import EventLog

# What a worker's time is drawn as, besides waiting.
KINDS = ("backward", "forward", "evaluate", "void", "close", "gone")


@dataclasses.dataclass
class Activity:
    result: dict
    rows: list              # names of workers, by stage, then replica
    spans: dict             # {name: [(kind, began, ended)]}
    commits: list           # (time, step, loss)
    validation: list        # (time, step, loss)
    starts: list            # (time, step from which it goes on) of each start after the first
    steps: dict             # {step: (opened, last worker done with it)} of the attempts that were committed
    end_s: float


def parse(line):
    try:
        return json.loads(line)
    except ValueError:
        return None  # torn by its worker's end


def lines_of(path):
    """(key, events) of one trace."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        head = parse(next(lines, "")) or {}
        return head.get("worker"), [event for event in map(parse, lines) if event and event["event"] != "arrived"]


def read(folder):
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refusal(f"{folder}: expected a folder of ./lab/run, with its result.json: {error}") from None
    if "workers" not in result:
        raise Refusal(f"{folder}: its result.json is of an older lab: run the scenario again")
    rows = sorted(result["workers"], key=lambda name: result["workers"][name])
    log = EventLog(folder / "run" / "events.jsonl").read()
    began_ms = next((event["time_ms"] for event in log if event["kind"] == "attempt_opened"), None)
    if began_ms is None:
        raise Refusal(f"{folder}: its run never began to train: there is nothing to draw")
    since = lambda event: (event["time_ms"] - began_ms) / 1000  # noqa: E731
    of_kind = lambda kind: [event for event in log if event["kind"] == kind]  # noqa: E731
    commits = [(since(event), event["step"], event["loss"]) for event in of_kind("step_committed")]
    traces, keys = collections.defaultdict(list), {}
    for name in rows:
        for trace in traces_of(folder, [name]):
            key, events = lines_of(trace)
            keys[key] = name
            traces[name] += events
    final = attempts_that_count(traces.values(), of_kind("step_committed"))
    closes = last_work(traces.values(), final)
    out = Activity(result, rows, {}, commits, [(since(event), event["step"], event["loss"]) for event in of_kind("evaluated")],
                   [(since(event), event["step"]) for event in of_kind("run_started")[1:]], {}, 0.0)
    in_s = lambda time_ns: time_ns / 1e9 - began_ms / 1e3  # noqa: E731
    for name in rows:
        out.spans[name] = [(kind, in_s(began), in_s(ended)) for kind, began, ended in spans_of(traces[name], final, closes, out.steps)]
    out.steps = {step: (in_s(opened), in_s(done)) for step, (opened, done) in out.steps.items()}
    out.end_s = max([since(event) for event in log] + [ended for spans in out.spans.values() for _, _, ended in spans])
    deaths = deaths_of(log, result, keys, since)
    for name in rows:
        opened = [in_s(event["at_ns"]) for event in traces[name] if event["event"] == "opened"]
        out.spans[name] += absences(opened, deaths[name], out.end_s)
    return out


def attempts_that_count(traces, commits):
    """{step: attempt}: the one that was committed, the last time; the newest one of a step that was not, or only evaluated."""
    out = {}
    for events in traces:
        for event in events:
            out[event["step"]] = max(out.get(event["step"], 0), event["attempt"])
    return out | {event["step"]: event["attempt"] for event in commits}


def last_work(traces, final):
    """{step: when the last work on its committed attempt ended, anywhere}: from then on it is summed up and committed."""
    ends = {}
    for events in traces:
        for event in events:
            if event["event"] == "worked" and final.get(event["step"]) == event["attempt"]:
                ends[event["step"]] = max(ends.get(event["step"], 0), event["at_ns"])
    return ends


def spans_of(events, final, closes, steps):
    """Yields (kind, began, ended) in nanoseconds, and notes in `steps` when each step was open here."""
    open_step, busy_until = None, 0
    for event in events:
        counts = final.get(event["step"]) == event["attempt"]
        if event["event"] == "worked":
            # A device that was told late that it was done has begun the next thing before, by its own clock.
            yield (event["kind"] if counts else "void"), max(event["began_ns"], busy_until), event["at_ns"]
            busy_until = event["at_ns"]
            continue
        if open_step is not None and not event["after_view"] and open_step[0] in closes:
            yield "close", closes[open_step[0]], event["at_ns"]
            opened, done = steps.get(open_step[0], (open_step[1], 0))
            steps[open_step[0]] = (min(opened, open_step[1]), max(done, event["at_ns"]))
        open_step = (event["step"], event["at_ns"]) if counts else None


def deaths_of(log, result, keys, since):
    """{name: when it was no more}: its kill, its loss by the run, the end of the run's start."""
    ends = collections.defaultdict(list)
    for event in log:
        if event["kind"] == "worker_lost" and event["peer"] in keys:
            ends[keys[event["peer"]]].append(since(event))
        if event["kind"] == "run_finished":
            for name in result["workers"]:
                ends[name].append(since(event))
    offset = next(event["time_ms"] for event in log if event["kind"] == "attempt_opened")
    for event in result["timeline"]:
        if event["do"] in ("kill", "restart"):
            for name in event["who"]:
                ends[name].append((event["time_ms"] - offset) / 1000)
    return {name: sorted(ends[name]) for name in result["workers"]}


def absences(opened, deaths, end_s):
    """Yields when a worker was not there: from a death to the next step that it opened."""
    until = 0.0
    for death in deaths:
        if death < until:
            continue
        until = min((time for time in opened if time > death), default=end_s)
        yield "gone", death, until
