"""Claim: a run that is stopped or killed and then resumed ends with the bits of one that was never touched.

One Ctrl-C finishes the step, saves and exits with 0; two stop at once and harm nothing; kill -9 of the whole run harms nothing; a
worker never outlives the process that started it. The resume may have another number of replicas and another number of stages.
"""

import os
import random
import signal
import time

from lib import runs

RESUME_STEPS = 300 if runs.LONG else 100
KILLS = 12 if runs.LONG else 3
OTHER_STATE_STEPS = 60
LAYOUT = {"schedule__steps": RESUME_STEPS, "layout__stages": 4, "layout__replicas": 1}


class Resume(runs.ProcessTest):
    def setUp(self):
        super().setUp()
        self.dice = random.Random(20261122)

    def reference(self):
        return self.unsplit(schedule__steps=RESUME_STEPS)

    def newest_step(self, run):
        names = [path.name for path in runs.checkpoints_of(self.folder / run)]
        return int(names[-1].split("-")[1]) if names else 0

    def wait_for_more_steps(self, program, count):
        """Until this start of the run has gone `count` steps beyond all that the event log held. Returns the step waited for."""
        step = max([event["step"] for event in self.events("run", "step_committed")], default=0) + count
        self.wait_for_step(program, "run", step)
        return step

    def stop_soon(self, program):
        """One Ctrl-C after some steps: the run says where it stopped, and its checkpoint is of that very step."""
        step = self.wait_for_more_steps(program, 5)
        program.signal(signal.SIGINT)
        self.finish(program)
        stopped_at = max(event["step"] for event in self.events("run", "step_committed"))
        self.assertGreaterEqual(stopped_at, step)
        self.assertLess(stopped_at, RESUME_STEPS, "it was to stop before the end")
        self.assertEqual(self.newest_step("run"), stopped_at)
        self.assertIn(f"stopped after step {stopped_at} of {RESUME_STEPS}", program.output())
        self.assertIn("train --resume", program.output())

    def test_ctrl_c_then_other_layouts(self):
        reference = self.reference()
        program = self.train("run", **LAYOUT)
        for layout in [{"layout__replicas": 2}, {"layout__replicas": 1, "layout__stages": 2},
                       {"layout__replicas": 2, "layout__stages": 1}]:
            self.stop_soon(program)
            program = self.resume("run", **layout)
        self.finish(program)
        self.assertIn("The run is finished", program.output())
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "stopped three times")

    def test_kill_9_of_everything(self):
        reference = self.reference()
        program = self.train("run", run__checkpoint_every=5, **LAYOUT)
        for _ in range(KILLS):
            self.wait_for_more_steps(program, 3)
            time.sleep(self.dice.uniform(0, 0.2))  # what the kill interrupts is what is random
            workers = list(self.workers("run").values())
            self.assertEqual(len(workers), 4)
            victims = [program.pid, *workers]
            self.dice.shuffle(victims)
            runs.kill_all(victims)
            self.assertEqual(program.wait(), -signal.SIGKILL)
            program = self.resume("run")
        self.finish(program)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "killed three times")

    def check_other_state(self, what, **changes):
        """Killed in the middle and resumed in another split: what a stage keeps beside AdamW's float32 comes back too."""
        changes = {"schedule__steps": OTHER_STATE_STEPS, **changes}
        reference = self.unsplit(what + "-unsplit", **changes)
        program = self.train(what, run__checkpoint_every=5, **{**LAYOUT, **changes})
        self.wait_for_step(program, what, 12)
        victims = [program.pid, *self.workers(what).values()]
        runs.kill_all(victims)
        self.assertEqual(program.wait(), -signal.SIGKILL)
        program = self.resume(what, layout__stages=2, layout__replicas=2)
        self.finish(program)
        outcome = runs.Outcome(self.folder / what)
        self.assert_equal_bits(outcome, reference, what)
        return outcome

    def test_muon(self):
        outcome = self.check_other_state("muon", optimizer__kind="muon")
        self.assertIn("optimizer.momentum_buffer.blocks.000.attention.wq", outcome.tensors)
        self.assertNotIn("optimizer.exp_avg.blocks.000.attention.wq", outcome.tensors)
        self.assertIn("optimizer.exp_avg.head.weight", outcome.tensors)

    def test_bfloat16_state(self):
        outcome = self.check_other_state("narrow", optimizer__kind="muon", compute__dtype="bfloat16", compute__state_dtype="bfloat16")
        self.assertEqual({dtype for dtype, _, _ in outcome.tensors.values()}, {"BF16"})
        code, output = self.call("generate", self.folder / "narrow", "--prompt", runs.PROMPT, "--tokens", 8)
        self.assertEqual(code, 0, output)

    def test_workers_end_with_their_parent(self):
        program = self.train("run", **LAYOUT)
        self.wait_for_step(program, "run", 2)
        self.assertEqual(len(self.workers("run")), 4)
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
        runs.wait_until(lambda: not runs.processes_naming(str(self.folder / "run")), "the end of all workers", 10)

    def test_ctrl_c_twice(self):
        reference = self.reference()
        program = self.train("run", run__checkpoint_every=4, **LAYOUT)
        self.wait_for_step(program, "run", 6)
        # A stopped worker keeps the step from ending: only the second signal can end the run.
        peer, pid = self.stages("run")[3][0]
        os.kill(pid, signal.SIGSTOP)
        program.signal(signal.SIGINT)
        runs.wait_until(lambda: "asked to stop" in (self.folder / "run" / "coordinator.log").read_text(), "word of the first signal")
        self.assertTrue(program.running())
        program.signal(signal.SIGINT)
        self.assertEqual(program.wait(5), 130, program.output())
        runs.wait_until(lambda: not runs.processes_naming(str(self.folder / "run")), f"the end of all workers, {peer} too", 10)
        program = self.resume("run")
        self.finish(program)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "stopped at once")

    def test_ctrl_c_before_the_first_step(self):
        program = self.train("run", **LAYOUT)
        runs.wait_until(lambda: "gathering" in program.output(), "the start")
        program.signal(signal.SIGINT)
        self.finish(program)
        if not self.events("run", "step_committed"):
            self.assertEqual(runs.checkpoints_of(self.folder / "run"), [])
        program = self.resume("run")
        self.finish(program)
        self.assertEqual(max(event["step"] for event in self.events("run", "step_committed")), RESUME_STEPS)


if __name__ == "__main__":
    runs.main()
