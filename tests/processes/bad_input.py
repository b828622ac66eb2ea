"""Claim: whatever is wrong with what the program is given, it says so in words that name it, and ends with a failure's exit code.

Never by a signal, never with a stack trace, and never so that the next try fails for another reason.
"""

import resource
import shutil
import signal
import sys
import unittest

from lib import runs

TINY = {"layout__stages": 2, "layout__replicas": 1, "schedule__steps": 8, "run__checkpoint_every": 2, "batch__eval_every": 0}
SOMEBODY = "stagecoach://" + "8c7a0ef6f09b020b09e1b0a25da9e905226dcc66d3973a1d8d9ea1dfbb10f27b"


def flip_a_byte(path, at=1000):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def limit_files_to(size):
    """What a child calls before it becomes the program: no file of it, or of its children, grows beyond `size` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class BadInput(runs.ProcessTest):
    def refused(self, words, *arguments, code=None, **options):
        """Runs the program; it fails and names each of `words`. Returns what it printed."""
        status, text = self.call(*arguments, **options)
        if code is None:
            self.assertIn(status, range(1, 128), f"{arguments}: {text}")
        else:
            self.assertEqual(status, code, text)
        for word in words:
            self.assertIn(word, text, arguments)
        for horror in ["terminate called", "what():", "Aborted", "CHECK", "core dumped"]:
            self.assertNotIn(horror, text)
        return text

    def refused_train(self, words, run="run", **changes):
        return self.refused(words, "train", "--plain", *self.settings(run, **{**TINY, **changes}))

    def trained(self, run="run", **changes):
        program = self.train(run, **{**TINY, **changes})
        self.finish(program)
        return self.folder / run


class Settings(BadInput):
    def test_keys_and_values(self):
        self.refused(["model.dmi", "did you mean model.dim"], "train", "--plain", "--set", "model.dmi=3")
        # All problems at once, each with its place.
        (self.folder / "my.toml").write_text('[model]\ndmi = 3\nlayers = "x"\n[bogus]\na = 1\n[batch]\nsequences = -1\n')
        self.refused(["my.toml:2", "model.dmi", "my.toml:3", "model.layers", "my.toml:4", "[bogus]", "my.toml:7", "batch.sequences",
                      "optimizer.kind", '"sgd"', '"adamw"'], "train", "--plain", "my.toml", "--set", "optimizer.kind=sgd")
        (self.folder / "torn.toml").write_text("[model\n")
        self.refused(["torn.toml:1", "not TOML"], "train", "--plain", "torn.toml")
        self.refused(["none.toml", "No such file"], "train", "--plain", "none.toml")
        self.refused(["key=value"], "train", "--plain", "--set", "nonsense")
        self.refused(["model.dim", "model.heads"], "train", "--plain", "--set", "model.dim=50", "--set", "model.heads=4")

    def test_commands(self):
        self.refused(["trian", "train", "coordinate", "join", "status", "generate"], "trian")
        self.refused(["subcommand"])
        self.refused(["--bogus"], "train", "--bogus")
        self.refused(["prompt"], "generate", "run")

    def test_splits(self):
        self.refused_train(["layout.stages", "4 layers", "5"], layout__stages=5)
        self.refused_train(["layout.stages", "cuts", "at most 2"], layout__stages=4, model__cut_after="[0]")
        self.assertFalse((self.folder / "run").exists(), "nothing was made")


class Data(BadInput):
    def test_text(self):
        (self.folder / "empty.txt").write_text("")
        (self.folder / "short.txt").write_text("hello")
        self.refused_train(["corpus is empty", "empty.txt"], data__text_files="empty.txt")
        self.refused_train(["none.txt"], data__text_files="none.txt")
        self.refused_train(["vocab", "300", "256"], model__vocab=300)
        self.refused_train(["too small", "32 tokens"], data__text_files="short.txt")
        self.trained()  # the folder is still free for a run with a text that is long enough

    def test_shards(self):
        self.trained("first")
        made = next((self.folder / "shards").glob("byte-*"))
        shards = {name: self.folder / name for name in ["cut", "changed", "other", "gone"]}
        for folder in shards.values():
            shutil.copytree(made, folder)
        token_file = next(made.glob("*.tokens")).name
        with open(shards["cut"] / token_file, "r+b") as file:
            file.truncate(1000)
        flip_a_byte(shards["changed"] / token_file)
        manifest = shards["other"] / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"vocab": 256', '"vocab": 255'))
        (shards["gone"] / token_file).unlink()
        use = lambda name: {"data__text_files": "[]", "data__shards": shards[name]}
        self.refused_train([token_file], **use("cut"))
        self.refused_train([token_file, "changed after it was built"], **use("changed"))
        self.refused_train(["vocab", "255", "256"], **use("other"))
        self.refused_train([token_file], **use("gone"))
        self.refused_train(["none"], data__text_files="[]", data__shards="none")
        self.refused_train(["data.shards", "data.text_files", "not both"], data__shards=made)
        # The text is another one when the run goes on.
        runs.write_text(self.folder / "text.txt", seed=2)
        self.refused(["other token shards"], "train", "--plain", "--resume", "first")


class Links(BadInput):
    def test_links(self):
        self.refused(["link", "@"], "join", "stagecoach://abc")
        self.refused(["link", "stagecoach://"], "join", "http://example.org")
        self.refused(["link"], "join", SOMEBODY + "@127.0.0.1:99999")
        self.refused(["no coordinator answers"], "status", SOMEBODY + "@127.0.0.1:9")
        self.refused(["neither a link", "nor a run's folder"], "status", "nowhere")

    def test_a_running_coordinator(self):
        program = self.train("run", **{**TINY, "schedule__steps": 100000})
        self.wait_for_step(program, "run", 1)
        link = (self.folder / "run" / "link").read_text().strip()
        address = link.split("@")[1]
        mine = ["--key", "mine.key", "--cache", "mine"]
        self.refused(["key"], "join", SOMEBODY + "@" + address, *mine)
        self.refused(["has begun"], "join", link, *mine, code=4)
        # A second worker with the key of one that runs would fight it for its link.
        self.refused(["in use by another worker", "--key"], "join", link, "--key", self.folder / "run" / "workers" / "00" / "key")
        self.refused(["in use"], "coordinate", "--plain", *self.settings("second", **TINY, network__listen=address))
        self.refused(["in use"], "train", "--plain", *self.settings("second", **TINY, network__listen=address))
        self.refused(["run by another process", "status"], "train", "--plain", "--resume", "run")
        program.signal(signal.SIGINT)
        self.finish(program)
        self.refused(["no coordinator answers", "not running"], "status", "run")

    def test_a_full_run(self):
        self.start("coordinate", "--plain", *self.settings("run", **{**TINY, "layout__stages": 1, "network__listen": "127.0.0.1:0"}),
                   name="coordinator")
        link_file = self.folder / "run" / "link"
        runs.wait_until(lambda: link_file.exists() and link_file.read_text().endswith("\n"), "the link")
        link = link_file.read_text().strip()
        first = self.start("join", link, "--key", "first.key", "--cache", "first", name="first")
        runs.wait_until(lambda: "assigned to stage 0" in first.output(), "the first worker's place")
        first.signal(signal.SIGSTOP)
        status, text = self.call("join", link, "--key", "second.key", "--cache", "second")
        first.signal(signal.SIGCONT)
        self.assertEqual(status, 4, text)
        self.assertTrue("all places of this run are taken" in text or "has begun" in text, text)


class Devices(BadInput):
    @unittest.skipIf(sys.platform == "darwin", "mps may be there")
    def test_a_device_that_is_not_there(self):
        """Workers that cannot start end the run at once, with their reason, and not at the deadline for joining."""
        self.refused_train(["ended before the run began", "no mps device here", "auto or cpu"], compute__device="mps")


class Folders(BadInput):
    def test_folders(self):
        run = self.trained()
        self.refused_train(["holds a run already", "--resume"])
        self.refused(["not a run's folder"], "train", "--plain", "--resume", "shards")
        self.refused(["not a run's folder"], "train", "--plain", "--resume", "nowhere")
        self.refused(["other mathematics"], "train", "--plain", "--resume", run, "--set", "model.ffn=64")
        self.refused(["config"], "train", "--plain", "my.toml", "--resume", run)
        self.refused(["unsplit", "new folder"], "train", "--unsplit", "--resume", run)
        self.refused(["no such folder"], "generate", "nowhere", "--prompt", "a")
        self.refused(["no such folder"], "generate", "text.txt", "--prompt", "a")
        self.refused(["checkpoint"], "generate", "shards", "--prompt", "a")
        self.refused(["--prompt"], "generate", run, "--prompt", "")
        self.refused(["--temperature"], "generate", run, "--prompt", "a", "--temperature", "-1")
        (self.folder / "file").write_text("")
        self.refused_train(["file/run"], run="file/run")

    def test_a_finished_run_resumed(self):
        run = self.trained()
        status, text = self.call("train", "--plain", "--resume", run)
        self.assertEqual(status, 0, text)
        self.assertIn("The run is finished", text)
        self.assertIn("step-00000008", text)
        self.assertEqual([event["step"] for event in self.events("run", "step_committed")], list(range(1, 9)))

    def test_damaged_checkpoints(self):
        reference = self.unsplit(**{**TINY, "schedule__steps": 8})
        run = self.trained()
        checkpoints = runs.checkpoints_of(run)
        self.assertEqual([path.name for path in checkpoints], ["step-00000004", "step-00000006", "step-00000008"])
        flip_a_byte(checkpoints[2] / "stage-01.safetensors")
        # Asked for by name it is refused, with the one to use instead; a run's folder gives the older one and says so.
        self.refused(["step-00000008", "stage-01.safetensors", "step-00000006"], "generate", checkpoints[2], "--prompt", "a")
        status, text = self.call("generate", run, "--prompt", "a", "--tokens", 1)
        self.assertEqual(status, 0, text)
        self.assertIn("step-00000008", text)
        program = self.resume("run")
        self.finish(program)
        self.assertIn("resumed at step 7", program.output())
        self.assertIn("stage-01.safetensors", program.output())
        self.assert_equal_bits(runs.Outcome(run), reference, "resumed from the older checkpoint")
        for path in runs.checkpoints_of(run):
            (path / "manifest.json").write_text("{}")
        self.refused(["manifest.json", "step-00000004", "step-00000006", "step-00000008"], "train", "--plain", "--resume", run)
        self.refused(["step-00000008"], "generate", run, "--prompt", "a")


class Numbers(BadInput):
    def test_numbers_that_run_away(self):
        """What every resume would compute again is not offered to be resumed."""
        text = self.refused_train(["step", "fixed64", "peak_lr"], schedule__peak_lr=10, schedule__kind="constant", optimizer__clip_norm=0,
                                  optimizer__weight_decay=10, schedule__steps=50)
        self.assertNotIn("continue with", text)


class Disk(BadInput):
    def test_no_space_at_all(self):
        self.trained("cuts-the-shards")
        for limit, what in [(1_000, "config.toml"), (12_000, "books.db"), (60_000, "cache")]:
            with self.subTest(limit=limit):
                self.refused([what], "train", "--plain", *self.settings(f"run-{limit}", **TINY), preexec_fn=limit_files_to(limit))

    def test_no_space_for_a_checkpoint(self):
        """Files may grow to 400 KB, a stage's checkpoint needs more: the run goes on, but does not end as if it were saved."""
        program = self.start("train", "--plain", *self.settings("run", **TINY), name="run", preexec_fn=limit_files_to(400_000))
        status = program.wait()
        text = program.output()
        self.assertEqual(status, 6, text)
        self.assertIn("checkpoint", text)
        self.assertIn("space", text)
        self.assertIn("--resume", text)
        self.assertEqual(max(event["step"] for event in self.events("run", "step_committed")), 8)
        self.assertEqual(runs.checkpoints_of(self.folder / "run"), [])
        program = self.resume("run")  # with room again
        self.finish(program)
        self.assertEqual(runs.Outcome(self.folder / "run").repeated_differently, [])
        self.assertEqual(runs.checkpoints_of(self.folder / "run")[-1].name, "step-00000008")


if __name__ == "__main__":
    runs.main()
