"""Runs a scenario: the real program in namespaces, its timeline, what it left behind.

In:   a Scenario, a folder for everything. Out: result.json in that folder; logs and the run's own folder beside it.
"""

import json
import math
import signal
import subprocess
import time
import tomllib

from lab.lib import measure, network, programs
from lab.lib.network import Refusal
from lab.lib.scenario import COORDINATOR, UNDONE_BY, Event

PORT = 4433
GATHER_PATIENCE_S = 300
END_PATIENCE_S = 30
LOOK_S = 0.05
# A nice value is a factor of 1.25 in the share of a busy processor.
NICE_BASE = 1.25
MOVES = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}


class EventLog:
    """The coordinator's events.jsonl, read as it grows. A torn last line waits for its end."""

    def __init__(self, path):
        self.path, self.at, self.events = path, 0, []

    def read(self):
        if self.path.exists():
            with open(self.path, "rb") as file:
                file.seek(self.at)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self.at += len(whole) + 1
                for line in whole.split(b"\n"):
                    try:
                        self.events.append(json.loads(line))
                    except ValueError:
                        continue  # torn by a kill; the next start begins a new line after it
        return self.events

    def last_step(self):
        return max((event["step"] for event in self.events if event["kind"] == "step_committed"), default=0)

    def began_s(self):
        return next((event["time_ms"] / 1000 for event in self.events if event["kind"] == "attempt_opened"), None)


class Runner:
    def __init__(self, scenario, folder, say):
        self.scenario, self.folder, self.say = scenario, folder, say
        self.emulator, self.program = programs.built("lab_emulator", "stagecoach")
        self.run_folder = folder / "run"
        self.log = EventLog(self.run_folder / "events.jsonl")
        self.processes, self.done, self.net = {}, [], None

    def run(self):
        """Returns the result, which also lies in result.json."""
        with network.Network(self.emulator, self.scenario.seed) as self.net:
            for host in self.scenario.hosts():
                self.net.host(host.name, host.address, host.settings)
            self.net.commands += self.scenario.roads
            self.net.start()
            self.say(f"{self.scenario.name}: {len(self.scenario.workers)} workers, {self.scenario.stages} stages x {self.scenario.replicas} replicas; "
                     f"everything is kept in {self.folder}")
            self.start(self.scenario.coordinator)
            link_path = self.run_folder / "link"
            measure.wait_until(lambda: link_path.exists() or self.ended(COORDINATOR), "the join link", GATHER_PATIENCE_S)
            if link_path.exists():
                for worker in self.scenario.workers:
                    self.start(worker)
            code = self.follow()
            return self.result(code, self.net.counts())

    def start(self, host, resume=False):
        folder = self.folder / host.name
        folder.mkdir(parents=True, exist_ok=True)
        if host.name == COORDINATOR:
            words = [self.program, "coordinate", "--plain", *(["--resume", self.run_folder] if resume else [self.scenario.config.resolve()])]
            settings = {**({} if resume else self.scenario.settings), "run.dir": self.run_folder, "network.listen": f"{host.address}:{PORT}"}
            if not resume:
                settings |= {"layout.stages": self.scenario.stages, "layout.replicas": self.scenario.replicas,
                             "data.shard_cache": self.folder / "shards", "network.join_deadline_s": GATHER_PATIENCE_S}
            else:
                settings.pop("run.dir")
            words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        else:
            link = (self.run_folder / "link").read_text(encoding="utf-8").strip()
            words = [self.program, "join", link, "--key", folder / "key", "--log", folder / "log", "--cache", self.folder / "cache"]
        if host.slow > 1:
            words = ["nice", "-n", str(round(math.log(host.slow, NICE_BASE))), *words]
        with open(folder / "output", "ab") as output:
            self.processes[host.name] = self.net.popen(host.name, words, cwd=programs.ROOT, stdout=output, stderr=subprocess.STDOUT)

    def ended(self, name):
        return self.processes[name].poll() is not None

    def follow(self):
        """Plays the timeline until the coordinator has ended; returns its exit code."""
        waiting = list(self.scenario.events)
        shown = 0
        while True:
            self.log.read()
            due = [event for event in waiting if self.is_due(event)]
            for event in due:
                waiting.remove(event)
                self.play(event)
                if event.for_s is not None:
                    now_s = time.time() - (self.log.began_s() or time.time())
                    waiting.append(Event(UNDONE_BY[event.do], event.who, None, now_s + event.for_s))
            if self.log.last_step() >= shown + 5:
                shown = self.log.last_step()
                self.say(f"step {shown}")
            if self.ended(COORDINATOR) and not due:
                break
            time.sleep(LOOK_S)
        self.log.read()
        deadline = time.monotonic() + END_PATIENCE_S
        for worker in self.scenario.workers:
            process = self.processes.get(worker.name)
            while process and process.poll() is None and time.monotonic() < deadline:
                time.sleep(LOOK_S)
        for event in waiting:
            self.say(f"the run ended before {event.when()}: {event.do} {event.who} was not played")
        return self.processes[COORDINATOR].returncode

    def is_due(self, event):
        began_s = self.log.began_s()
        if event.at_step is not None:
            return self.log.last_step() >= event.at_step
        return began_s is not None and time.time() >= began_s + event.at_s

    def play(self, event):
        self.say(f"{event.when()}: {event.do} {event.who} {event.settings}{event.address}".rstrip())
        self.done.append({"time_ms": time.time() * 1000, "do": event.do, "who": event.who, "after_step": self.log.last_step()})
        process = self.processes[event.who]
        if event.do in MOVES:
            if process.poll() is None:
                process.send_signal(MOVES[event.do])
        elif event.do == "restart":
            process.kill()
            process.wait()
            self.start(next(host for host in self.scenario.hosts() if host.name == event.who), resume=True)
        elif event.do == "move":
            self.net.ask(f"address {event.who} {event.address}")
        else:
            self.net.ask(f"both {event.who} * {({'cut': 'cut=yes', 'rejoin': 'cut=no'}.get(event.do) or event.settings)}")

    def result(self, code, counts):
        result = {"scenario": self.scenario.name, "about": self.scenario.about, "stages": self.scenario.stages, "replicas": self.scenario.replicas,
                  "exit": code, "exits": {name: process.poll() for name, process in self.processes.items()}, **self.outcome(),
                  "timeline": self.recoveries(), "traffic": self.traffic(counts)}
        (self.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return result

    def outcome(self):
        """What the event log and the last checkpoint say."""
        events = self.log.events
        commits = [event for event in events if event["kind"] == "step_committed"]
        bits = {str(event["step"]): event["loss_bits"] for event in commits}
        manifests = sorted((self.run_folder / "checkpoints").glob("step-*[0-9]/manifest.json"))
        state = json.loads(manifests[-1].read_text(encoding="utf-8")) if manifests else {}
        seconds = (commits[-1]["time_ms"] - commits[0]["time_ms"]) / 1000 if len(commits) > 1 else 0
        tokens = self.tokens_a_step()
        gaps = sorted((later["time_ms"] - earlier["time_ms"]) / 1000 for earlier, later in zip(commits, commits[1:]))
        return {"steps": len(bits), "loss_bits": bits, "losses": {str(event["step"]): event["loss"] for event in commits},
                "validation_bits": {str(event["step"]): event["loss_bits"] for event in events if event["kind"] == "evaluated"},
                "validation": {str(event["step"]): event["loss"] for event in events if event["kind"] == "evaluated"},
                "checkpoint": manifests[-1].parent.name if manifests else None, "state_sha256": state.get("state_sha256"),
                "seconds": seconds, "step_s": gaps[len(gaps) // 2] if gaps else None,
                "tokens_per_s": tokens * (len(commits) - 1) / seconds if seconds else None,
                "workers_lost": sum(event["kind"] == "worker_lost" for event in events),
                "attempts": max((event["attempt"] for event in events if event["kind"] == "attempt_opened"), default=0)}

    def tokens_a_step(self):
        path = self.run_folder / "config.toml"
        if not path.exists():
            return 0
        batch = tomllib.loads(path.read_text(encoding="utf-8"))["batch"]
        return batch["sequences"] * batch["tokens"] * batch["microbatches"]

    def recoveries(self):
        """Each event of the timeline with the time until the next step was committed."""
        commits = [event for event in self.log.events if event["kind"] == "step_committed"]
        for played in self.done:
            later = next((event for event in commits if event["time_ms"] > played["time_ms"]), None)
            played["recovery_s"] = (later["time_ms"] - played["time_ms"]) / 1000 if later else None
        return self.done

    def traffic(self, counts):
        """Bytes of IP packets that each host sent and got."""
        sums = {host.name: {"sent_bytes": 0, "got_bytes": 0, "lost_packets": 0, "dropped_packets": 0} for host in self.scenario.hosts()}
        for (source, target), count in counts.items():
            sums[source]["sent_bytes"] += count["bytes"]
            sums[target]["got_bytes"] += count["bytes"]
            sums[source]["lost_packets"] += count["lost"]
            sums[source]["dropped_packets"] += count["dropped"]
        return sums
