"""Claim: whenever the coordinator is killed, what lies in checkpoints/ is complete, and a resume takes the newest of it.

A run that saves after every step is killed with -9 at random moments and resumed, again and again. After each kill every folder under a
checkpoint's name has all its files with the hashes of its manifest; the resume begins right after the newest one; `generate` reads it.
"""

import hashlib
import json
import random
import signal
import time

from lib import runs, safetensors

TRIES = 100 if runs.LONG else 5
SEED = 5
SETTINGS = {"layout__stages": 2, "layout__replicas": 1, "run__checkpoint_every": 1, "schedule__steps": 20000, "batch__eval_every": 0,
            "batch__microbatches": 2}


def what_is_wrong(checkpoint):
    """Compares a checkpoint's files with its manifest; None where it is complete."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        return f"{checkpoint.name}: its manifest cannot be read: {error}"
    if len(manifest["files"]) != 2:
        return f"{checkpoint.name}: {len(manifest['files'])} files"
    for file in manifest["files"]:
        data = (checkpoint / file["file"]).read_bytes()
        if len(data) != file["bytes"] or hashlib.sha256(data).hexdigest() != file["sha256"]:
            return f"{checkpoint.name}: {file['file']} is not what the manifest says"
    return None


def step_of(checkpoint):
    return int(checkpoint.name.split("-")[1])


class CheckpointKill(runs.ProcessTest):
    def test_kill_while_checkpoints_are_written(self):
        dice = random.Random(SEED)
        run = self.folder / "run"
        program = self.train("run", **SETTINGS)
        self.wait_for_step(program, "run", 2)
        for number in range(TRIES):
            with self.subTest(number=number, seed=SEED):
                before = {path.name for path in runs.checkpoints_of(run)}
                runs.wait_until(lambda: {path.name for path in runs.checkpoints_of(run)} - before, lambda: program.output()[-2000:])
                time.sleep(dice.uniform(0, 0.2))
                program.signal(signal.SIGKILL)
                self.assertEqual(program.wait(), -signal.SIGKILL)
                complete = runs.checkpoints_of(run)
                self.assertEqual([what_is_wrong(path) for path in complete], [None] * len(complete))
                if number % 10 == 0:
                    code, text = self.call("generate", run, "--prompt", runs.PROMPT, "--tokens", 1)
                    self.assertEqual(code, 0, text)
                newest = step_of(complete[-1])
                program = self.resume("run")
                starts = lambda: [event["step"] for event in self.events("run", "run_started")]
                runs.wait_until(lambda: len(starts()) == number + 2, lambda: program.output()[-2000:])
                self.assertEqual(starts()[-1], newest)
                self.assertIn(f"(resumed at step {newest + 1})", program.output())
        last = self.events("run", "step_committed")[-1]["step"]
        self.wait_for_step(program, "run", last + 2)
        program.signal(signal.SIGINT)
        self.finish(program)
        outcome = runs.Outcome(run)
        self.assertEqual(outcome.repeated_differently, [])
        self.assertEqual(sorted(outcome.steps), list(range(1, max(outcome.steps) + 1)), "no step is missing in the event log")
        leftovers = [path.name for path in (run / "checkpoints").iterdir() if not path.name.startswith("step-") and path.name != ".lock"]
        self.assertEqual(leftovers, [], "what a killed writer left is taken away by the next one")
        self.assertGreater(len(safetensors.read_folder(runs.checkpoints_of(run)[-1])), 100)


if __name__ == "__main__":
    runs.main()
