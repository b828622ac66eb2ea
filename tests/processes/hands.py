"""Claim: `coordinate` and `join` by hand, each its own process with files of its own, make the run that `train` makes.

The link comes from the run's folder; token shards travel over it; `status` tells the live state by folder and by link, as JSON and as
text; a worker that is asked to leave does so at once, and the run goes on where a replica remains.
"""

import json
import signal

from lib import runs

STEPS = 150


class Hands(runs.ProcessTest):
    def coordinate(self, run, **changes):
        program = self.start("coordinate", "--plain", *self.settings(run, network__listen="127.0.0.1:0", **{"schedule__steps": STEPS, **changes}),
                             name=f"{run}-coordinator")
        link_file = self.folder / run / "link"
        runs.wait_until(lambda: link_file.exists() and link_file.read_text().endswith("\n"), lambda: program.output())
        link = link_file.read_text().strip()
        self.assertRegex(link, r"^stagecoach://[0-9a-f]{64}@127\.0\.0\.1:[0-9]+$")
        runs.wait_until(lambda: f"join {link}" in program.output(), "the command for the workers' machines")
        return program, link

    def join(self, link, name):
        """A worker with a folder of its own, as on a machine of its own."""
        place = self.folder / name
        place.mkdir()
        return self.start("join", link, "--key", place / "key", "--cache", place / "cache", "--device", "cpu", name=name)

    def status(self, target):
        code, text = self.call("status", target, "--json", name="status")
        self.assertEqual(code, 0, text)
        return json.loads(text)

    def check_status(self, status, workers):
        self.assertEqual((status["format"], status["name"], status["steps"]), (1, "run", STEPS))
        self.assertIn(status["phase"], ["gathering", "training", "finished"])
        self.assertLessEqual(status["step"], STEPS)
        self.assertEqual(status["tokens"], status["step"] * 6 * 32)
        self.assertEqual(len(status["stages"]), 4)
        self.assertEqual([(stage["first_layer"], stage["end_layer"]) for stage in status["stages"]], [(0, 1), (1, 2), (2, 3), (3, 4)])
        members = [member for stage in status["stages"] for member in stage["members"]]
        self.assertEqual(len(members), workers)
        for member in members:
            self.assertRegex(member["peer"], r"^[0-9a-f]{8}$")
            self.assertRegex(member["address"], r"^127\.0\.0\.1:[0-9]+$")
            self.assertIn(member["state"], ["joining", "loading", "ready", "working"])
            self.assertTrue(0 <= member["busy_fraction"] <= 1, member)
            self.assertGreaterEqual(min(member["bytes_in_per_s"], member["bytes_out_per_s"]), 0)
        if status["step"] > 0:
            self.assertTrue(0 < status["train_loss"] < 8, status["train_loss"])
            self.assertEqual(status["train_history"][-1]["step"], status["step"])

    def test_four_by_one(self):
        reference = self.unsplit(schedule__steps=STEPS)
        coordinator, link = self.coordinate("run", layout__replicas=1)
        waiting = self.status(link)
        self.assertEqual((waiting["phase"], waiting["step"]), ("gathering", 0))
        self.assertIn("0 of 4 workers", waiting["reason"])
        workers = [self.join(link, f"machine-{i}") for i in range(4)]
        self.wait_for_step(coordinator, "run", 5)
        by_folder, by_link = self.status(self.folder / "run"), self.status(link)
        self.check_status(by_folder, 4)
        self.check_status(by_link, 4)
        self.assertGreater(by_folder["step"], 0)
        self.assertEqual(by_folder["run_id"], by_link["run_id"])
        code, text = self.call("status", self.folder / "run", name="status")
        self.assertEqual(code, 0, text)
        for word in ["stagecoach run", f"of {STEPS}", "tokens/s", "train", "validation", "stage", "who"]:
            self.assertIn(word, text)
        self.assertNotIn("\x1b", text, "no colours where it is not a terminal")
        self.finish(coordinator)
        for worker in workers:
            self.finish(worker)
            self.assertIn("the run is complete", worker.output())
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "4 x 1 by hand")
        # Only the head reads text: the shards came to its cache, and to no other.
        fetched = [path for path in self.folder.glob("machine-*/cache/shards-*/*.tokens")]
        self.assertEqual(len(fetched), 1)
        made = next(self.folder.glob("shards/byte-*/*.tokens"))
        self.assertEqual(fetched[0].read_bytes(), made.read_bytes())
        self.assertNotEqual(fetched[0].stat().st_ino, made.stat().st_ino, "it is a copy that travelled")

    def test_leaving(self):
        reference = self.unsplit(schedule__steps=STEPS)
        coordinator, link = self.coordinate("run", layout__stages=2, layout__replicas=2)
        workers = [self.join(link, f"machine-{i}") for i in range(4)]
        self.wait_for_step(coordinator, "run", 5)
        workers[1].signal(signal.SIGINT)
        self.finish(workers[1])
        self.assertIn("left the run", workers[1].output())
        self.finish(coordinator)
        lost = self.events("run", "worker_lost")
        self.assertEqual(len(lost), 1)
        self.assertIn("its user asked for it", lost[0]["reason"])
        for worker in workers:
            self.finish(worker)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "one worker left")

    def test_a_coordinator_that_dies(self):
        """It comes back at its address and goes on; workers of its former life learn that they must start anew."""
        reference = self.unsplit(schedule__steps=STEPS)
        coordinator, link = self.coordinate("run", layout__stages=2, layout__replicas=1, run__checkpoint_every=4)
        workers = [self.join(link, f"machine-{i}") for i in range(2)]
        self.wait_for_step(coordinator, "run", 6)
        coordinator.signal(signal.SIGKILL)
        coordinator.wait()
        coordinator = self.resume("run", command="coordinate", network__listen=link.split("@")[1])
        for worker in workers:
            self.finish(worker, 4)
            self.assertIn("start the worker anew", worker.output())
        for i in range(2):
            place = self.folder / f"machine-{i}"
            self.start("join", link, "--key", place / "key", "--cache", place / "cache", name=f"again-{i}")
        self.finish(coordinator)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "a coordinator that died and came back")

    def test_asked_to_stop_as_it_ends(self):
        """A request that comes with the last step, or after it, takes nothing back: the run is complete, and its exit status says so."""
        for run, sign in (("last-step", "committed"), ("after-it", "finished")):
            coordinator, link = self.coordinate(run, layout__stages=2, layout__replicas=1, schedule__steps=8)
            workers = [self.join(link, f"{run}-{i}") for i in range(2)]
            if sign == "committed":
                self.wait_for_step(coordinator, run, 8)
            else:
                runs.wait_until(lambda: sign in coordinator.output() or not coordinator.running(), lambda: coordinator.output())
            coordinator.signal(signal.SIGINT)
            self.finish(coordinator)
            self.assertIn("finished: the run is complete", coordinator.output())
            for worker in workers:
                self.finish(worker)

    def test_stop_and_resume(self):
        """`coordinate` stops with a checkpoint and names its own command; its workers end with it, and new ones go on."""
        reference = self.unsplit(schedule__steps=STEPS)
        coordinator, link = self.coordinate("run", layout__stages=2, layout__replicas=1)
        workers = [self.join(link, f"machine-{i}") for i in range(2)]
        self.wait_for_step(coordinator, "run", 5)
        coordinator.signal(signal.SIGINT)
        self.finish(coordinator)
        self.assertIn(f"coordinate --resume {self.folder / 'run'}", coordinator.output())
        for worker in workers:
            self.finish(worker)
            self.assertIn("as asked", worker.output())
        (self.folder / "run" / "link").unlink()
        coordinator = self.resume("run", command="coordinate")
        link_file = self.folder / "run" / "link"
        runs.wait_until(lambda: link_file.exists() and link_file.read_text().endswith("\n"), lambda: coordinator.output())
        for i in range(2):
            place = self.folder / f"machine-{i}"
            self.start("join", link_file.read_text().strip(), "--key", place / "key", "--cache", place / "cache", name=f"again-{i}")
        self.finish(coordinator)
        self.assert_equal_bits(runs.Outcome(self.folder / "run"), reference, "stopped and resumed by hand")


if __name__ == "__main__":
    runs.main()
