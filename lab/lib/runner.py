"""Runs a scenario: the real program in namespaces, its timeline, what it left behind.

In:   a Scenario, a folder for everything. Out: result.json in that folder; logs and the run's own folder beside it.
"""

import json
import math
import random
import signal
import subprocess
import time
import tomllib

from lab.lib import measure, network, programs
from lab.lib.network import Refusal
from lab.lib.scenario import COORDINATOR, Event, road_words, toml_text

PORT = 4433
GATHER_PATIENCE_S = 300
END_PATIENCE_S = 30
LOOK_S = 0.05
# A nice value is a factor of 1.25 in the share of a busy processor.
NICE_BASE = 1.25
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}
UNDO = "as before"        # the roads of a host that was cut off or degraded
MOVED_TO = "10.77.250."  # addresses that no host begins with


def undoing(event, now_s):
    """What ends an event that was to last a while."""
    return Event(now_s + event.for_s, {"stop": "continue"}.get(event.do, UNDO), event.hosts, event.others)


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

    def began_s(self):
        return next((event["time_ms"] / 1000 for event in self.events if event["kind"] == "attempt_opened"), None)


class Runner:
    def __init__(self, scenario, folder, say):
        self.scenario, self.folder, self.say = scenario, folder, say
        self.emulator, self.program = programs.built("lab_emulator", "stagecoach")
        self.run_folder = folder / "run"
        self.log = EventLog(self.run_folder / "events.jsonl")
        self.processes, self.done, self.net = {}, [], None
        self.dice = random.Random(scenario.seed)
        self.moves = 0

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
            code = self.follow()
            return self.result(code, self.net.counts())

    def prepare(self):
        """Writes what the programs read: the scenario as it is run, the run's settings, the paced devices."""
        path = self.folder / "scenario.toml"
        path.write_text(toml_text(self.scenario.text) + "\n", encoding="utf-8")
        (self.folder / "config.toml").write_text(toml_text(self.scenario.config) + "\n", encoding="utf-8")
        if self.scenario.paced or "preset" in self.scenario.config:
            done = subprocess.run([self.program, "simulate", path, "--prepare", self.folder], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise Refusal(done.stderr.strip())

    def start_all(self):
        self.start(self.scenario.coordinator)
        link_path = self.run_folder / "link"
        measure.wait_until(lambda: link_path.exists() or self.ended(COORDINATOR), "the join link", GATHER_PATIENCE_S)
        # One after the other: workers get their stages in the order in which they join.
        for worker in self.scenario.workers:
            if worker.later or self.ended(COORDINATOR):
                continue
            before = self.log.count("worker_joined")
            self.start(worker)
            measure.wait_until(lambda: self.log.count("worker_joined") > before or self.ended(worker.name) or self.ended(COORDINATOR),
                               f"{worker.name} to join", GATHER_PATIENCE_S)

    def start(self, host, resume=False):
        folder = self.folder / host.name
        folder.mkdir(parents=True, exist_ok=True)
        if host.name == COORDINATOR:
            words = [self.program, "coordinate", "--plain", *(["--resume", self.run_folder] if resume else [self.folder / "config.toml"])]
            settings = {"network.listen": f"{host.address}:{PORT}"}
            if not resume:
                settings |= {"run.dir": self.run_folder, "data.shard_cache": self.folder / "shards", "network.join_deadline_s": GATHER_PATIENCE_S}
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

    def ended(self, name):
        return name in self.processes and self.processes[name].poll() is not None

    def follow(self):
        """Plays the timeline until the coordinator has ended; returns its exit code."""
        waiting = sorted(self.scenario.events, key=lambda event: event.at_s)
        churn_s = self.next_churn(0.0)
        shown, asked_to_stop = 0, False
        while not self.ended(COORDINATOR):
            self.log.read()
            now_s = time.time() - self.log.began_s() if self.log.began_s() else -1.0
            while waiting and waiting[0].at_s <= now_s:
                event = waiting.pop(0)
                self.play(event)
                if event.for_s is not None:
                    waiting = sorted([*waiting, undoing(event, now_s)], key=lambda each: each.at_s)
            if churn_s is not None and churn_s <= now_s:
                waiting = sorted([*waiting, *self.churn_event(churn_s)], key=lambda each: each.at_s)
                churn_s = self.next_churn(churn_s)
            if self.log.last_step() >= shown + 5:
                shown = self.log.last_step()
                self.say(f"step {shown}")
            if not asked_to_stop and self.is_over(now_s):
                asked_to_stop = True
                self.processes[COORDINATOR].send_signal(signal.SIGINT)  # finishes its step and writes a checkpoint
            time.sleep(LOOK_S)
        self.log.read()
        deadline = time.monotonic() + END_PATIENCE_S
        for worker in self.scenario.workers:
            while worker.name in self.processes and not self.ended(worker.name) and time.monotonic() < deadline:
                time.sleep(LOOK_S)
        for event in waiting:
            self.say(f"the run ended before {event.at_s:g} s: {event.text()} was not played")
        return self.processes[COORDINATOR].returncode

    def is_over(self, now_s):
        """Whether the run is to be stopped now; one whose own settings end it there ends by itself."""
        own_end = self.scenario.config.get("schedule", {}).get("steps")
        enough = self.scenario.steps is not None and self.scenario.steps != own_end and self.log.last_step() >= self.scenario.steps
        return enough or (self.scenario.duration_s is not None and now_s >= self.scenario.duration_s)

    def next_churn(self, after_s):
        churn = self.scenario.churn
        if churn is None:
            return None
        at_s = max(after_s, churn.get("from", 0.0)) + self.dice.expovariate(1 / churn["every"])
        return at_s if at_s <= churn.get("until", math.inf) else None

    def churn_event(self, at_s):
        alive = [worker.name for worker in self.scenario.workers if worker.name in self.processes and not self.ended(worker.name)]
        return [Event(at_s, self.scenario.churn["do"], [self.dice.choice(alive)], None, self.scenario.churn.get("for"))] if alive else []

    def play(self, event):
        self.say(f"{event.at_s:.1f} s: {event.text()}")
        if event.do != UNDO:
            self.done.append({"time_ms": time.time() * 1000, "do": event.do, "who": event.hosts, "after_step": self.log.last_step()})
        for name in event.hosts:
            host = next(each for each in self.scenario.hosts() if each.name == name)
            if event.do in SIGNALS and not self.ended(name):
                self.processes[name].send_signal(SIGNALS[event.do])
            elif event.do == "restart":
                self.processes[name].kill()
                self.processes[name].wait()
                self.start(host, resume=True)
            elif event.do == "join":
                self.start(host)
            elif event.do == "move":
                self.moves += 1
                self.net.ask(f"address {name} {MOVED_TO}{self.moves}")
            elif event.do in ("cut", "degrade", UNDO):
                self.change_roads(event, host)

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

    def result(self, code, counts):
        result = {"scenario": self.scenario.name, "what": self.scenario.what, "stages": self.scenario.stages, "replicas": self.scenario.replicas,
                  "exit": code, "exits": {name: process.poll() for name, process in self.processes.items()}, **self.outcome(),
                  "timeline": self.recoveries(), "traffic": self.traffic(counts), "account": self.account()}
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

    def account(self):
        """Where the devices' time went: `stagecoach account`, whose text lies in account.txt. None where it has nothing to tell."""
        struck = self.folder / "struck"
        struck.write_text("".join(json.dumps({"time_ms": int(event["time_ms"]), "what": f"{event['do']} {', '.join(event['who'])}"}) + "\n" for event in self.done),
                          encoding="utf-8")
        traces = [path for worker in self.scenario.workers for path in sorted((self.folder / worker.name).glob("trace-*")) if path.stat().st_size > 0]
        if not traces:
            return None
        words = [self.program, "account", self.run_folder, *traces, "--struck", struck]
        text = subprocess.run(words, capture_output=True, text=True, check=False)
        (self.folder / "account.txt").write_text(text.stdout + text.stderr, encoding="utf-8")
        told = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
        return json.loads(told.stdout) if told.stdout else None

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
