"""Runs a scenario: the real program in namespaces, and what strikes it.

In:   a Scenario, a folder for everything. Out: result.json in that folder (outcome.py); logs and the run's own folder beside it.
"""

import json
import math
import signal
import subprocess
import time

from lab.lib import measure, network, outcome, programs
from lab.lib.network import Refusal
from lab.lib.scenario import COORDINATOR, road_words, toml_text
from lab.lib.timeline import UNDO, Timeline

PORT = 4433
GATHER_PATIENCE_S = 300
END_PATIENCE_S = 30
LOOK_S = 0.05
STAGE_LOST = 5            # exit status of a coordinator that a stage's last worker has left (docs/OPERATING.md)
# A nice value is a factor of 1.25 in the share of a busy processor.
NICE_BASE = 1.25
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}
MOVED_TO = "10.77.250."   # addresses that no host begins with


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

    def count(self, kind):
        return sum(event["kind"] == kind for event in self.read())

    def last_step(self):
        return max((event["step"] for event in self.events if event["kind"] == "step_committed"), default=0)

    def begun(self):
        """Whether training has begun since the coordinator's last start."""
        for event in reversed(self.events):
            if event["kind"] in ("attempt_opened", "run_started"):
                return event["kind"] == "attempt_opened"
        return False

    def began_s(self):
        return next((event["time_ms"] / 1000 for event in self.events if event["kind"] == "attempt_opened"), None)


class Runner:
    def __init__(self, scenario, folder, say):
        self.scenario, self.folder, self.say = scenario, folder, say
        self.emulator, self.program = programs.built("lab_emulator", "stagecoach")
        self.run_folder = folder / "run"
        self.log = EventLog(self.run_folder / "events.jsonl")
        self.processes, self.done, self.net = {}, [], None
        self.timeline = Timeline(scenario)
        self.moves, self.shown, self.seen, self.states = 0, 0, 0, {}
        self.again_s = None          # when everything is started again
        self.ended_by = None         # the event after which the run ended
        self.asked_to_stop = self.is_down = False

    def run(self):
        """Returns the result, which also lies in result.json."""
        self.prepare()
        with network.Network(self.emulator, self.scenario.seed) as self.net:
            for host in self.scenario.hosts():
                self.net.host(host.name, host.address, host.words())
            self.net.commands += [f"both {a} {b} {road_words(road)}" for (a, b), road in self.scenario.roads.items()]
            self.net.start()
            self.say(f"{self.scenario.name}: {self.scenario.what}\n{len(self.scenario.workers)} workers, {self.scenario.stages} stages x "
                     f"{self.scenario.replicas} replicas; everything is kept in {self.folder}")
            self.start_all()
            self.follow()
            return outcome.result(self, self.net.counts())

    def prepare(self):
        """Writes what the programs read: the scenario as it is run, the run's settings, the paced devices."""
        path = self.folder / "scenario.toml"
        path.write_text(toml_text(self.scenario.text) + "\n", encoding="utf-8")
        (self.folder / "config.toml").write_text(toml_text(self.scenario.config) + "\n", encoding="utf-8")
        if self.scenario.paced or "preset" in self.scenario.config:
            done = subprocess.run([self.program, "simulate", path, "--prepare", self.folder], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Refusal(done.stderr.strip())

    def start_all(self, resume=False):
        starts = self.log.count("run_started")
        self.start(self.scenario.coordinator, resume)
        link_path = self.run_folder / "link"
        self.wait(lambda: (link_path.exists() and self.log.count("run_started") > starts) or self.ended(COORDINATOR), "the coordinator and its join link")
        # One after the other: workers get their stages in the order in which they join.
        for worker in self.scenario.workers:
            if self.ended(COORDINATOR):
                return
            before = self.log.count("worker_joined")
            self.start(worker)
            self.wait(lambda: self.log.count("worker_joined") > before or self.ended(worker.name) or self.ended(COORDINATOR), f"{worker.name} to join")

    def wait(self, condition, what):
        """Waits while the timeline goes on: what keeps somebody away may end by it."""
        def looked():
            self.look()
            return condition()
        measure.wait_until(looked, what, GATHER_PATIENCE_S)

    def start(self, host, resume=False):
        folder = self.folder / host.name
        folder.mkdir(parents=True, exist_ok=True)
        if host.name == COORDINATOR:
            words = [self.program, "coordinate", "--plain", *(["--resume", self.run_folder] if resume else [self.folder / "config.toml"])]
            settings = {"network.listen": f"{host.address}:{PORT}", "network.join_deadline_s": GATHER_PATIENCE_S}
            if not resume:
                settings |= {"run.dir": self.run_folder, "data.shard_cache": self.folder / "shards"}
            words += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        else:
            link = (self.run_folder / "link").read_text(encoding="utf-8").strip()
            device = f"paced:{self.folder / 'devices' / host.name}.toml" if self.scenario.paced else host.device
            trace = folder / f"trace-{len(list(folder.glob('trace-*')))}"
            words = [self.program, "join", link, "--key", folder / "key", "--log", folder / "log", "--cache", self.folder / "cache", "--device", device,
                     "--trace", trace]
        if host.slowdown > 1 and not self.scenario.paced:
            words = ["nice", "-n", str(round(math.log(host.slowdown, NICE_BASE))), *words]
        with open(folder / "output", "ab") as output:
            self.processes[host.name] = self.net.popen(host.name, words, cwd=programs.ROOT, stdout=output, stderr=subprocess.STDOUT)

    def end(self, name):
        """Ends a process that may be standing still; nothing where there is none."""
        if name in self.processes and not self.ended(name):
            self.processes[name].kill()
            self.processes[name].wait()

    def ended(self, name):
        return name in self.processes and self.processes[name].poll() is not None

    def at_work(self):
        """Whom churn may strike."""
        if self.ended(COORDINATOR):
            return []
        return [worker.name for worker in self.scenario.workers if worker.name in self.processes and not self.ended(worker.name)]

    def now_s(self):
        """Since training began; below zero before that."""
        return time.time() - self.log.began_s() if self.log.began_s() else -1.0

    def follow(self):
        """Plays the timeline until the run has ended and is not started again."""
        while True:
            self.look()
            if self.ended(COORDINATOR):
                if not self.goes_on():
                    break
                if time.monotonic() >= self.again_s:
                    self.start_again()
            elif not self.asked_to_stop and self.is_over():
                self.asked_to_stop, self.is_down = True, not self.log.begun()
                self.processes[COORDINATOR].send_signal(signal.SIGINT)  # finishes its step and writes a checkpoint
            time.sleep(LOOK_S)
        deadline = time.monotonic() + END_PATIENCE_S
        for worker in self.scenario.workers:
            while worker.name in self.processes and not self.ended(worker.name) and time.monotonic() < deadline:
                time.sleep(LOOK_S)
        self.look()
        for event in self.timeline.waiting:
            if event.do != UNDO:
                self.say(f"the run ended before {event.at_s:g} s: {event.text()} was not played")

    def look(self):
        """Reads what has happened, and plays what is due."""
        self.log.read()
        for event in self.log.events[self.seen:]:
            self.note_checkpoint(event)
        self.seen = len(self.log.events)
        if not self.asked_to_stop:
            for event in self.timeline.due(self.now_s(), self.at_work):
                self.play(event)
        if self.log.last_step() >= self.shown + 5:
            self.shown = self.log.last_step()
            self.say(f"step {self.shown}")

    def note_checkpoint(self, event):
        """Keeps the state's hash: of the checkpoints themselves only the newest stay."""
        if event["kind"] == "checkpoint_written":
            manifest = self.run_folder / "checkpoints" / f"step-{event['step']:08d}" / "manifest.json"
            if manifest.exists():
                self.states[str(event["step"])] = json.loads(manifest.read_text(encoding="utf-8"))["state_sha256"]

    def is_over(self):
        """Whether the run is to be stopped now; one whose own settings end it there ends by itself."""
        own_end = self.scenario.config.get("schedule", {}).get("steps")
        enough = self.scenario.steps is not None and self.scenario.steps != own_end and self.log.last_step() >= self.scenario.steps
        return enough or (self.scenario.duration_s is not None and self.now_s() >= self.scenario.duration_s)

    def goes_on(self):
        """After the coordinator's end: whether, and when, an operator starts everything again."""
        if self.again_s is not None:
            return True
        killed = self.processes[COORDINATOR].returncode == -signal.SIGKILL
        if self.scenario.resume_s is None or self.asked_to_stop or not (killed or self.processes[COORDINATOR].returncode == STAGE_LOST):
            return False
        why = "the coordinator is dead" if killed else "a stage has lost its last worker"
        again_at_s = self.now_s() + self.scenario.resume_s
        if self.scenario.duration_s is not None and again_at_s >= self.scenario.duration_s:
            self.is_down = True
            self.say(f"{self.now_s():.1f} s: {why}; the scenario is over before anybody starts everything again, at {again_at_s:.1f} s")
            return False
        self.say(f"{self.now_s():.1f} s: {why}; everything is started again in {self.scenario.resume_s:g} s")
        self.ended_by = self.done[-1] if self.done else None
        self.again_s = time.monotonic() + self.scenario.resume_s
        return True

    def start_again(self):
        """What an operator does: ends what is left, starts the coordinator from its newest checkpoint, then all workers."""
        for host in self.scenario.hosts():
            self.end(host.name)
        self.again_s = None
        self.start_all(resume=True)
        start = next((event for event in reversed(self.log.read()) if event["kind"] == "run_started"), {"step": 0})
        self.say(f"{self.now_s():.1f} s: started again from step {start['step']}")
        if self.ended_by is not None:
            self.ended_by["resumed_from"] = start["step"]

    def play(self, event):
        struck = [host for host in self.scenario.hosts() if host.name in event.hosts]
        if event.do in SIGNALS:
            struck = [host for host in struck if host.name in self.processes and not self.ended(host.name)]
        if not struck:
            return self.say(f"{event.at_s:.1f} s: {event.text()}: its process has ended already")
        self.say(f"{event.at_s:.1f} s: {event.text()}")
        if event.do != UNDO:
            self.done.append({"at_s": self.now_s(), "time_ms": time.time() * 1000, "do": event.do, "who": event.hosts, "text": self.label(event),
                              "after_step": self.log.last_step()})
        for host in struck:
            self.strike(event, host)

    def strike(self, event, host):
        if event.do in SIGNALS:
            self.processes[host.name].send_signal(SIGNALS[event.do])
        elif event.do in ("restart", "join"):
            if event.do == "restart":
                self.end(host.name)
            if host.name == COORDINATOR:
                self.again_s, self.ended_by = time.monotonic(), self.done[-1]  # with all workers: those of a former coordinator are sent away
            elif host.name not in self.processes or self.ended(host.name):
                self.start(host)
        elif event.do == "move":
            self.moves += 1
            self.net.ask(f"address {host.name} {MOVED_TO}{self.moves}")
        elif event.do in ("cut", "degrade", UNDO):
            self.change_roads(event, host)
        if event.do == "kill" and host.name != COORDINATOR and self.log.begun() is False and not self.ended(COORDINATOR):
            self.end(host.name)
            self.start(host)  # the operator is at it, and a run needs all to begin

    def label(self, event):
        """The event in words, with the seat of a single worker."""
        seat = self.scenario.seat(event.hosts[0]) if len(event.hosts) == 1 else None
        return event.text() + (f" (stage {seat[0]}, replica {seat[1]})" if seat else "")

    def change_roads(self, event, host):
        for (a, b), road in self.scenario.roads.items():
            other = b if a == host.name else a if b == host.name else None
            if other is not None and (event.others is None or other in event.others):
                words = {"cut": "cut=yes", "degrade": event.words, UNDO: road_words(road)}[event.do]
                if words:
                    self.net.ask(f"both {a} {b} {words}")
        host_words = host.words() if event.do == UNDO else event.host_words
        if host_words:
            self.net.ask(f"host {host.name} {host_words}")
