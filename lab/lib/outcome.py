"""What a run left behind, as one table: result.json.

In:   a Runner that is done, the emulator's counts. Out: the result (lab/README.md), which also lies in the run's folder.
"""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tomllib

from lab.lib import programs


def result(runner, counts):
    scenario = runner.scenario
    told = {"scenario": scenario.name, "what": scenario.what, "command": command(), "machine": machine(), "commit": commit(),
            "date": datetime.date.today().isoformat(), "stages": scenario.stages, "replicas": scenario.replicas, "paced": scenario.paced,
            "workers": {worker.name: scenario.seat(worker.name) for worker in scenario.workers},
            "exit": runner.processes["coordinator"].returncode, "is_down": runner.is_down,
            "exits": {name: process.poll() for name, process in runner.processes.items()}, **of_log(runner),
            "timeline": recoveries(runner), "traffic": traffic(scenario, counts), "account": account(runner)}
    (runner.folder / "result.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def command():
    words = ["./lab/" + os.path.basename(sys.argv[0]), *sys.argv[1:]]
    return " ".join(word if word.replace("=", "").replace(".", "").replace("-", "").replace("/", "").isalnum() else json.dumps(word) for word in words)


def machine():
    """Processor, cores, memory, system: what a table of times is of."""
    model = platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": model, "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory, "system": f"Linux {platform.release()}"}


def commit():
    git = lambda *words: subprocess.run(["git", "-C", str(programs.ROOT), *words], capture_output=True, text=True, check=False).stdout.strip()  # noqa: E731
    return git("rev-parse", "--short", "HEAD") + (" with changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def of_log(runner):
    """What the event log and the last checkpoint say. A step that was done again after a resume counts once."""
    events = runner.log.events
    commits = [event for event in events if event["kind"] == "step_committed"]
    evaluations = [event for event in events if event["kind"] == "evaluated"]
    bits = {str(event["step"]): event["loss_bits"] for event in commits}
    manifests = sorted((runner.run_folder / "checkpoints").glob("step-*[0-9]/manifest.json"))
    state = json.loads(manifests[-1].read_text(encoding="utf-8")) if manifests else {}
    seconds = (commits[-1]["time_ms"] - commits[0]["time_ms"]) / 1000 if len(commits) > 1 else 0
    gaps = {str(later["step"]): (later["time_ms"] - earlier["time_ms"]) / 1000 for earlier, later in zip(commits, commits[1:])
            if later["step"] == earlier["step"] + 1}
    return {"config_id": next((event["config_id"] for event in events if event["kind"] == "run_started"), None), "steps": len(bits), "loss_bits": bits, "losses": {str(event["step"]): event["loss"] for event in commits},
            "validation_bits": {str(event["step"]): event["loss_bits"] for event in evaluations},
            "validation": {str(event["step"]): event["loss"] for event in evaluations},
            "steps_repeated": len(commits) - len(bits),
            "repeated_differently": sorted({event["step"] for event in commits if bits[str(event["step"])] != event["loss_bits"]}),
            "checkpoint": manifests[-1].parent.name if manifests else None, "state_sha256": state.get("state_sha256"), "states": runner.states,
            "seconds": seconds, "step_s": statistics.median(gaps.values()) if gaps else None, "step_seconds": gaps,
            "tokens_per_s": tokens_a_step(runner) * (len(bits) - 1) / seconds if seconds else None,
            "workers_lost": sum(event["kind"] == "worker_lost" for event in events),
            "resumes": max(0, sum(event["kind"] == "run_started" for event in events) - 1),
            "attempts": max((event["attempt"] for event in events if event["kind"] == "attempt_opened"), default=0)}


def tokens_a_step(runner):
    path = runner.run_folder / "config.toml"
    if not path.exists():
        return 0
    batch = tomllib.loads(path.read_text(encoding="utf-8"))["batch"]
    return batch["sequences"] * batch["tokens"] * batch["microbatches"]


def traces_of(folder, workers):
    """The traces that hold something, a worker's in the order in which it was started."""
    number = lambda path: int(path.name.rpartition("-")[2])  # noqa: E731
    return [path for name in workers for path in sorted((folder / name).glob("trace-*"), key=number) if path.stat().st_size > 0]


def account(runner):
    """Where the devices' time went: `stagecoach account`, whose text lies in account.txt. None where it has nothing to tell."""
    names = [worker.name for worker in runner.scenario.workers]
    struck = runner.folder / "struck"
    struck.write_text("".join(json.dumps(struck_line(event, runner.folder, names)) + "\n" for event in runner.done), encoding="utf-8")
    traces = traces_of(runner.folder, names)
    if not traces:
        return None
    words = [runner.program, "account", runner.run_folder, *traces, "--struck", struck]
    text = subprocess.run(words, capture_output=True, text=True, check=False)
    (runner.folder / "account.txt").write_text(text.stdout + text.stderr, encoding="utf-8")
    told = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
    return json.loads(told.stdout) if told.stdout else None


def struck_line(event, folder, names):
    """An event as `stagecoach account` takes it."""
    what = event["text"] + (f"; the run ended, and was started again from step {event['resumed_from']}" if "resumed_from" in event else "")
    dead = [name for name in event["who"] if name in names] if event["do"] in ("kill", "restart") else []
    return {"time_ms": int(event["time_ms"]), "what": what, "gone": [key for key in map(lambda name: key_of(folder, name), dead) if key]}


def key_of(folder, name):
    """The worker's key, from the first line of a trace of it; None where it has none."""
    for path in traces_of(folder, [name]):
        with open(path, encoding="utf-8", errors="replace") as lines:
            try:
                return json.loads(next(lines, ""))["worker"]
            except (ValueError, KeyError):
                continue
    return None


def recoveries(runner):
    """Each event of the timeline with the time until the next step was committed, and until one that never had been."""
    commits = [event for event in runner.log.events if event["kind"] == "step_committed"]
    for played in runner.done:
        after = [event for event in commits if event["time_ms"] > played["time_ms"]]
        new = [event for event in after if event["step"] > played["after_step"]]
        since = lambda events: (events[0]["time_ms"] - played["time_ms"]) / 1000 if events else None  # noqa: E731
        played |= {"recovery_s": since(after), "new_step_s": since(new)}
    return runner.done


def traffic(scenario, counts):
    """Bytes of IP packets that each host sent and got."""
    sums = {host.name: {"sent_bytes": 0, "got_bytes": 0, "lost_packets": 0, "dropped_packets": 0} for host in scenario.hosts()}
    for (source, target), count in counts.items():
        sums[source]["sent_bytes"] += count["bytes"]
        sums[target]["got_bytes"] += count["bytes"]
        sums[source]["lost_packets"] += count["lost"]
        sums[source]["dropped_packets"] += count["dropped"]
    return sums
