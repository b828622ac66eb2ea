"""Claim: a run goes on, bit for bit, whichever replicas are killed or stalled, as long as each stage keeps one.

4 x 2 real processes. kill -9 in the middle of a step; one kill in each stage; a worker that is stopped for a moment loses nothing, one
that is stopped for longer than the idle time-out is out and learns it; a coordinator that is stopped for as long loses nobody. Without the last replica of a stage the run ends with the
words that continue it, and without a worker that it waits for at the start it does so at once.
"""

import os
import random
import signal
import time

from lib import runs

STEPS = 120  # the event log is read a quarter of a second late: so many that a fast machine has not finished by then
SEED = 6
TRIES = 10 if runs.LONG else 1
SHORT_STALL_S = 2  # of an idle time-out of 10


class Kill(runs.ProcessTest):
    def kill_one(self, run, stage, delay_s):
        peer, pid = self.stages(run)[stage][0]
        time.sleep(delay_s)  # the moment inside a step is what is random
        os.kill(pid, signal.SIGKILL)
        return peer

    def check_disturbances(self, run, peers):
        lost = self.events(run, "worker_lost")
        self.assertEqual([event["peer"] for event in lost], peers)
        for event in lost:
            self.assertIn("signal 9", event["reason"])
        attempts = self.events(run, "attempt_opened")
        self.assertEqual([event["attempt"] for event in attempts], list(range(1, len(attempts) + 1)))
        for event in lost:
            self.assertTrue(any(event["peer"][:8] in attempt["reason"] for attempt in attempts[1:]), f"{event} in none of {attempts}")

    def test_one_in_the_middle_of_a_step(self):
        reference = self.unsplit(schedule__steps=STEPS)
        for number in range(TRIES):
            with self.subTest(seed=SEED + number):
                dice = random.Random(SEED + number)
                run = f"run-{number}"
                program = self.train(run, schedule__steps=STEPS)
                self.wait_for_step(program, run, dice.randint(3, 12))
                peer = self.kill_one(run, dice.randrange(4), dice.uniform(0, 0.15))
                self.finish(program)
                self.assertIn("workers lost: 1", program.output())
                self.check_disturbances(run, [peer])
                newest = {event["stage"]: event["members"] for event in self.events(run, "view")}
                self.assertEqual(sorted(newest.values()), [1, 2, 2, 2])
                self.assert_equal_bits(runs.Outcome(self.folder / run), reference, f"one kill, seed {SEED + number}")

    def test_one_of_each_stage(self):
        steps = 2 * STEPS
        reference = self.unsplit(schedule__steps=steps)
        dice = random.Random(SEED)
        program = self.train("run", schedule__steps=steps)
        peers = []
        for number, stage in enumerate(dice.sample(range(4), 4)):
            self.wait_for_step(program, "run", 3 + 8 * number)
            peers.append(self.kill_one("run", stage, dice.uniform(0, 0.1)))
            runs.wait_until(lambda: len(self.events("run", "worker_lost")) == len(peers), "the loss of the worker in the event log")
        self.finish(program)
        self.check_disturbances("run", peers)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "one kill in each stage")

    def test_stalls(self):
        steps = 300  # so many that there are some left when the stalled worker wakes
        reference = self.unsplit(schedule__steps=steps)
        program = self.train("run", schedule__steps=steps)
        self.wait_for_step(program, "run", 3)
        peer, pid = self.stages("run")[1][0]
        log = self.log_of("run", pid)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(SHORT_STALL_S)
        os.kill(pid, signal.SIGCONT)
        self.wait_for_step(program, "run", self.events("run", "step_committed")[-1]["step"] + 3)
        self.assertEqual(self.events("run", "worker_lost"), [])
        self.assertEqual(len(self.events("run", "attempt_opened")), 1)

        os.kill(pid, signal.SIGSTOP)
        lost = runs.wait_until(lambda: self.events("run", "worker_lost"), "the loss of the stalled worker")
        self.assertEqual([event["peer"] for event in lost], [peer])
        self.assertIn("nothing", lost[0]["reason"])
        self.assertTrue(program.running())
        os.kill(pid, signal.SIGCONT)
        runs.wait_until(lambda: "ends with" in log.read_text(), lambda: f"the end of the worker; its log:\n{log.read_text()}")
        self.assertIn("ends with 4", log.read_text())
        self.finish(program)
        self.assertEqual(len(self.events("run", "worker_lost")), 1)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "two stalls")

    def test_a_stalled_coordinator(self):
        """Longer than the idle time-out: the workers find their links dead, dial again, and nobody is lost."""
        reference = self.unsplit(schedule__steps=STEPS)
        program = self.train("run", schedule__steps=STEPS, layout__stages=2)
        self.wait_for_step(program, "run", 5)
        logs = [self.log_of("run", pid) for pid in self.workers("run").values()]
        self.assertEqual(len(logs), 4)
        program.signal(signal.SIGSTOP)
        runs.wait_until(lambda: all("no link to the coordinator" in log.read_text() for log in logs), "the workers to notice")
        program.signal(signal.SIGCONT)
        self.finish(program)
        self.assertEqual(self.events("run", "worker_lost"), [])
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "a coordinator that stalled")

    def log_of(self, run, pid):
        command = runs.processes_naming(str(self.folder / run / "workers"))[pid]
        return self.folder / command.split("--log ")[1].split()[0]

    def test_one_before_the_first_step(self):
        program = self.train("run", schedule__steps=STEPS)
        victim = runs.wait_until(lambda: self.workers("run"), "a worker's process")
        runs.kill_all(list(victim.values())[:1])
        status = program.wait()
        if status == 0:  # all had joined before the kill: then it is one loss like others
            self.assertEqual(len(self.events("run", "worker_lost")), 1)
            return
        self.assertEqual(status, 9, program.output())
        self.assertIn("ended before the run began", program.output())
        self.assertIn("signal 9", program.output())
        self.assertIn("--resume", program.output())
        program = self.resume("run", layout__replicas=1)
        self.finish(program)
        self.assertEqual(sorted(runs.Outcome(self.folder / "run").steps), list(range(1, STEPS + 1)))

    def test_the_last_of_a_stage(self):
        reference = self.unsplit(schedule__steps=STEPS)
        program = self.train("run", schedule__steps=STEPS, layout__replicas=1, run__checkpoint_every=5)
        self.wait_for_step(program, "run", 8)
        peer = self.kill_one("run", 2, 0.03)
        self.finish(program, 5)
        self.assertIn("stage 2 has lost its last worker", program.output())
        self.assertIn(peer[:8], program.output())
        self.assertIn(f"train --resume {self.folder / 'run'}", program.output())
        program = self.resume("run")
        self.finish(program)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "a stage lost and resumed")


if __name__ == "__main__":
    runs.main()
