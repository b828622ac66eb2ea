"""Claim: `generate` continues a prompt with the trained model: repeatably, as a stream, and from a run as from its checkpoint."""

import os
import selectors
import subprocess

from lib import runs

PROMPT = "the "


class Generate(runs.ProcessTest):
    def setUp(self):
        super().setUp()
        self.finish(self.train("run", layout__stages=2, layout__replicas=1, schedule__steps=20, batch__eval_every=0))
        self.checkpoint = runs.checkpoints_of(self.folder / "run")[-1]

    def text(self, source, *arguments):
        code, text = self.call("generate", source, "--prompt", PROMPT, *arguments, name="generate")
        self.assertEqual(code, 0, text)
        return text

    def test_text(self):
        likeliest = self.text("run", "--temperature", 0, "--tokens", 40)
        self.assertTrue(likeliest.startswith(PROMPT), likeliest)
        # One byte a token and one newline at the end; the corpus is ASCII, and so is what is likeliest after it.
        self.assertEqual(len(likeliest.encode()), len(PROMPT) + 40 + 1)
        self.assertEqual(self.text("run", "--temperature", 0, "--tokens", 40), likeliest)
        self.assertEqual(self.text("run", "--temperature", 0, "--tokens", 40, "--seed", 99), likeliest, "nothing is drawn")
        self.assertEqual(self.text(self.checkpoint, "--temperature", 0, "--tokens", 40), likeliest)
        self.assertTrue(likeliest.startswith(self.text("run", "--temperature", 0, "--tokens", 10).rstrip("\n")))
        beyond_the_window = self.text("run", "--temperature", 0, "--tokens", 100)
        self.assertGreaterEqual(len(beyond_the_window.encode()), len(PROMPT) + 100)

        drawn = self.text("run", "--temperature", 1, "--tokens", 40, "--seed", 3)
        self.assertEqual(self.text("run", "--temperature", 1, "--tokens", 40, "--seed", 3), drawn)
        self.assertNotEqual(self.text("run", "--temperature", 1, "--tokens", 40, "--seed", 4), drawn)

    def test_stream(self):
        """The text comes while it is made: the beginning of a text that would take very long is there at once."""
        process = subprocess.Popen([runs.BINARY, "generate", str(self.checkpoint), "--prompt", PROMPT, "--tokens", "100000"],
                                   cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            selector = selectors.DefaultSelector()
            selector.register(process.stdout, selectors.EVENT_READ)
            got = b""
            while len(got) < len(PROMPT) + 20:
                self.assertTrue(selector.select(runs.PATIENCE_S), "nothing came")
                piece = os.read(process.stdout.fileno(), 4096)
                self.assertTrue(piece, f"it ended early: {got!r}")
                got += piece
            self.assertIsNone(process.poll(), "it still writes")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


if __name__ == "__main__":
    runs.main()
