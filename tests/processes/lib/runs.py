"""Starts the real program, watches what it writes, stops it, and compares runs bit for bit.

In:   STAGECOACH_BINARY: the program; libstagecoach_compute.so lies beside it. Out: nothing outside the test's own temporary folder.
Waiting is always for something that the program shows (an event, an exit, an answer), with a time-out far above what it takes.
"""

import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from lib import safetensors

BINARY = os.environ.get("STAGECOACH_BINARY", "")
LONG = os.environ.get("STAGECOACH_LONG", "") not in ("", "0")
PATIENCE_S = 180  # of a wait that ends by itself in seconds on an idle machine
POLL_S = 0.02
PROMPT = "the "

# Small enough that a step takes milliseconds, large enough that each stage has layers, bottlenecks and both kinds of parameters.
SMALL = {
    "model.dim": 64, "model.heads": 2, "model.kv_heads": 1, "model.ffn": 128, "model.cut_width": 16,
    "batch.sequences": 1, "batch.tokens": 32, "batch.microbatches": 6, "batch.eval_microbatches": 2, "batch.eval_every": 20,
    "schedule.steps": 50, "schedule.warmup_steps": 5, "compute.threads": 1, "compute.device": "cpu",
    "data.text_files": "text.txt", "data.shard_cache": "shards", "network.join_deadline_s": 120,
}


def write_text(path, lines=3000, seed=1):
    """Writes text of which a model can learn something: sentences from few words."""
    dice = random.Random(seed)
    words = ["".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.randint(2, 9))) for _ in range(300)]
    pathlib.Path(path).write_text("\n".join(" ".join(dice.choice(words) for _ in range(12)) for _ in range(lines)) + "\n",
                                  encoding="utf-8")


def processes_naming(text):
    """Returns {pid: command line} of the living processes whose command line holds `text`."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text in command and state not in "ZX":
                found[int(entry.name)] = command
    return found


def wait_until(condition, what, patience_s=PATIENCE_S):
    """Returns the first true value of `condition()`; fails with `what` when it never comes."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s} s in vain for {what() if callable(what) else what}")
        time.sleep(POLL_S)


class Program:
    """One process of the program, its output in a file."""

    def __init__(self, arguments, cwd, name, **options):
        self.name = name
        self.output_path = pathlib.Path(cwd) / f"{name}.output"
        with open(self.output_path, "ab") as output:
            self.process = subprocess.Popen([BINARY, *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=subprocess.STDOUT, start_new_session=True, **options)
        self.pid = self.process.pid

    def output(self):
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    def running(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, patience_s=PATIENCE_S):
        """Returns the exit code; negative where a signal ended it."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {patience_s} s:\n{self.output()[-4000:]}") from None

    def end(self):
        """Ends it now, whatever it is doing."""
        if self.running():
            self.process.kill()
        self.process.wait()


class Outcome:
    """What a run came to, in bits: losses, norms, final tensors."""

    def __init__(self, folder):
        self.steps, self.evaluations, self.repeated_differently = {}, {}, []
        for event in events_of(folder):
            if event["kind"] == "step_committed":
                self._note(self.steps, event["step"], (event["loss_bits"], struct.pack(">d", event["global_norm"]).hex()))
            elif event["kind"] == "evaluated":
                self._note(self.evaluations, event["step"], event["loss_bits"])
        newest = checkpoints_of(folder)[-1:]
        self.tensors = safetensors.read_folder(newest[0]) if newest else {}

    def _note(self, table, step, bits):
        if table.setdefault(step, bits) != bits:
            self.repeated_differently.append(step)


def events_of(folder):
    """Returns the whole lines of a run's event log as objects; a line that is still being written is left out."""
    try:
        text = (pathlib.Path(folder) / "events.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    events = []
    for line in text.split("\n")[:-1]:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            pass  # torn by a kill; the next start begins a new line after it
    return events


def checkpoints_of(folder):
    """Returns the folders under their final names, oldest first."""
    return sorted((pathlib.Path(folder) / "checkpoints").glob("step-*[0-9]"))


class ProcessTest(unittest.TestCase):
    """A temporary folder with a text; whatever a test started is ended, and nothing may be left of it."""

    def setUp(self):
        self.place = tempfile.TemporaryDirectory(prefix="stagecoach-test-")
        self.addCleanup(self.place.cleanup)
        self.folder = pathlib.Path(self.place.name)
        self.programs = []
        write_text(self.folder / "text.txt")

    def tearDown(self):
        for program in self.programs:
            program.end()
        # Command lines name files of the temporary folder, so that whoever is left can be told from anybody else's process.
        wait_until(lambda: not processes_naming(self.place.name), lambda: f"the end of {processes_naming(self.place.name)}", 30)

    def start(self, *arguments, name="program", **options):
        program = Program(arguments, self.folder, name, **options)
        self.programs.append(program)
        return program

    def call(self, *arguments, name="call", patience_s=PATIENCE_S, **options):
        """Runs the program to its end; returns (exit code, all it printed)."""
        program = self.start(*arguments, name=f"{name}-{len(self.programs)}", **options)
        return program.wait(patience_s), program.output()

    def settings(self, run, **changes):
        """The arguments that set SMALL, the run's folder (as an absolute path) and `changes` ("model__dim" is model.dim)."""
        keys = {**SMALL, "run.dir": self.folder / run, **{key.replace("__", "."): value for key, value in changes.items()}}
        return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]

    def train(self, run, *arguments, **changes):
        """Starts `train` in the folder `run`."""
        return self.start("train", "--plain", *arguments, *self.settings(run, **changes), name=run)

    def resume(self, run, *arguments, command="train", **changes):
        overrides = [word for key, value in changes.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
        return self.start(command, "--plain", "--resume", self.folder / run, *arguments, *overrides, name=run)

    def finish(self, program, code=0):
        self.assertEqual(program.wait(), code, program.output()[-4000:])

    def unsplit(self, run="unsplit", **changes):
        """What one process comes to that does all the work in order."""
        self.finish(self.train(run, "--unsplit", **changes))
        return Outcome(self.folder / run)

    def events(self, run, kind=None):
        return [event for event in events_of(self.folder / run) if kind in (None, event["kind"])]

    def wait_for_step(self, program, run, step):
        """Until `step` is committed. Fails where the program ends before."""
        def committed():
            if any(event["step"] >= step for event in self.events(run, "step_committed")):
                return True
            self.assertTrue(program.running(), f"ended before step {step}:\n{program.output()[-4000:]}")
            return False
        wait_until(committed, lambda: f"step {step}; it printed:\n{program.output()[-4000:]}")

    def workers(self, run):
        """Returns {peer key: pid} of the living local workers of a `train`."""
        prefix = str(self.folder / run / "workers") + "/"
        peers = {}
        for pid, command in processes_naming(prefix).items():
            log = command.split("--log ")[1].split()[0]
            peer = short_key_in(log)
            if peer:
                peers[peer] = pid
        return peers

    def stages(self, run):
        """Returns {stage: [(peer key, pid)]} of the living workers, by what the event log says of who joined where."""
        alive = self.workers(run)
        stages = {}
        for event in self.events(run, "worker_joined"):
            for peer, pid in alive.items():
                if event["peer"].startswith(peer):
                    stages.setdefault(event["stage"], []).append((event["peer"], pid))
        return stages

    def assert_equal_bits(self, outcome, reference, what, first_step=1):
        """Losses and norms of every step, validation losses, and the memory of all final tensors."""
        self.assertEqual(outcome.repeated_differently, [], f"{what}: steps that were done twice with two results")
        expected = {step: bits for step, bits in reference.steps.items() if step >= first_step}
        self.assertEqual(outcome.steps, expected, f"{what}: losses or norms")
        self.assertEqual(outcome.evaluations, reference.evaluations, f"{what}: validation losses")
        self.assertEqual(sorted(outcome.tensors), sorted(reference.tensors), f"{what}: names of tensors")
        for name, tensor in reference.tensors.items():
            self.assertTrue(outcome.tensors[name] == tensor, f"{what}: {name} differs")


def short_key_in(log):
    """The beginning of a worker's key, from the first line of its log; None while it has not written it."""
    try:
        with open(log, encoding="utf-8") as file:
            for line in file:
                if " listens on " in line:
                    return line.split("worker ")[1].split()[0]
    except OSError:
        pass
    return None


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def main():
    """Runs the tests of the calling file; 77 where this machine cannot."""
    if not BINARY or not os.access(BINARY, os.X_OK):
        print("skipped: STAGECOACH_BINARY does not name the program")
        sys.exit(77)
    if not (pathlib.Path(BINARY).parent / "libstagecoach_compute.so").exists():
        print("skipped: the program was built without its compute library")
        sys.exit(77)
    unittest.main(verbosity=2)
