"""Claim: `data build` makes the same shards from every kind of input, killed or not, and a run learns from them and speaks their words.

What needs the Python packages `tokenizers` and `pyarrow` is skipped where they are missing; that the program then says what to install is
tested either way.
"""

import gzip
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import unittest

from lib import runs

HAS_PACKAGES = all(importlib.util.find_spec(name) for name in ("tokenizers", "pyarrow"))
HAS_TRAINER = shutil.which("spm_train") is not None
GB = 1 << 30


def documents(count=4000):
    """Texts with every kind of character, of one line or several, some of them empty."""
    words = "the road goes ever on and über naïve 東京 🚋 down from door where it began".split()
    texts = []
    for i in range(count):
        text = " ".join(words[(i * i + j * 7) % len(words)] + str(j) * (j % 3) for j in range(i % 90))
        texts.append(text + ("\nsecond line" if i % 11 == 0 and text else ""))
    return texts


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts)), encoding="utf-8")


def contents(folder):
    """The files of a folder of shards; the lock is not one of them."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


class DataTest(runs.ProcessTest):
    def build(self, *inputs, out, tokenizer="byte", code=0, **options):
        words = [word for key, value in options.items() for word in ([f"--{key.replace('_', '-')}"] + ([] if value is True else [value]))]
        status, text = self.call("data", "build", *inputs, "--tokenizer", tokenizer, "--out", out, *words)
        self.assertEqual(status, code, text)
        return text

    def tokens(self, folder):
        """All token ids, by the format page alone."""
        manifest = json.loads((self.folder / folder / "manifest.json").read_text())
        kind = {1: "u1", 2: "<u2", 4: "<u4"}[manifest["token_bytes"]]
        import numpy
        shards = [(self.folder / folder / shard["file"]).read_bytes()[32:] for shard in manifest["shards"]]
        return numpy.frombuffer(b"".join(shards), dtype=kind).tolist(), manifest

    def train_sentencepiece(self):
        subprocess.run(["spm_train", "--input=text.txt", "--model_prefix=small", "--vocab_size=300", "--model_type=bpe",
                        "--minloglevel=2"], cwd=self.folder, check=True, capture_output=True)

    def train_tokenizer_json(self, texts):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False,
                                                                 initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        tokenizer.save(str(self.folder / "tokenizer.json"))
        return tokenizer


class Inputs(DataTest):
    def test_a_kill_changes_nothing(self):
        texts = documents() * 10
        write_jsonl(self.folder / "a.jsonl", texts)
        (self.folder / "a.jsonl.gz").write_bytes(gzip.compress((self.folder / "a.jsonl").read_bytes(), 1))
        sizes = {"shard_tokens": 200_000}
        self.build("a.jsonl.gz", out="whole", **sizes)
        tokens, manifest = self.tokens("whole")
        kept = [text for text in texts if text]
        self.assertEqual(bytes(tokens), b"".join(text.encode() + b"\0" for text in kept))
        self.assertEqual((manifest["documents"], manifest["empty_documents"]), (len(kept), len(texts) - len(kept)))
        out = self.folder / "killed"
        killed = 0
        for _ in range(50):
            before = {path.name for path in out.glob("*.done")}
            program = self.start("data", "build", "a.jsonl.gz", "--tokenizer", "byte", "--out", "killed", "--shard-tokens", "200000",
                                 "--threads", "1", name=f"killed-{killed}")
            # Killed as soon as it has finished one more shard.
            runs.wait_until(lambda: {path.name for path in out.glob("*.done")} - before or not program.running(), "a shard")
            if not program.running():
                break
            program.signal(signal.SIGKILL)
            program.wait()
            killed += 1
        self.build("a.jsonl.gz", out="killed", **sizes)
        self.assertEqual(contents(out), contents(self.folder / "whole"))
        self.assertIn("nothing to do", self.build("a.jsonl.gz", out="killed", **sizes))
        self.assertEqual(self.call("data", "verify", "killed")[0], 0)
        self.assertIn("other token shards", self.build("a.jsonl.gz", out="killed", code=1, holdout=0.1, **sizes))
        self.assertGreater(killed, 0, "no kill came before the end")

    def test_bad_inputs(self):
        (self.folder / "in.txt").write_text("some text")
        (self.folder / "in.csv").write_text("a,b")
        (self.folder / "field.jsonl").write_text('{"body": "a"}\n')
        self.assertIn(".parquet", self.build("in.csv", out="out", code=1))
        self.assertIn("none.txt", self.build("none.txt", out="out", code=1))
        self.assertIn('it has "body"', self.build("field.jsonl", out="field", code=1))
        self.build("field.jsonl", out="field2", text_field="body")
        self.assertIn("corpus is empty", self.build("field.jsonl", out="skipped", code=1, skip_broken=True))
        whole = gzip.compress(b'{"text": "a line of text"}\n' * 50_000)
        (self.folder / "cut.jsonl.gz").write_bytes(whole[:len(whole) // 2])
        self.assertIn(f"in the middle of its gzip data (at byte {len(whole) // 2}", self.build("cut.jsonl.gz", out="cut", code=1))
        self.assertIn("1 broken records", self.build("cut.jsonl.gz", out="cut", skip_broken=True))
        self.assertIn("in.txt", self.build("in.txt", out="in.txt/out", code=1))
        (self.folder / "bytes.txt").write_bytes(bytes(range(1, 256)))
        self.build("bytes.txt", out="bytes")
        self.assertEqual(self.tokens("bytes")[0], [*range(1, 256), 0])
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        (self.folder / "big.txt").write_text("x" * 10_000)
        status, text = self.call("data", "build", "big.txt", "--tokenizer", "byte", "--out", "full", preexec_fn=limit)
        self.assertEqual(status, 1, text)
        self.assertIn("File too large", text)

    def test_a_line_of_a_gigabyte(self):
        """It is named, and never held: the program's memory stays that of its blocks."""
        part = gzip.compress(b"x" * (16 << 20), 1)
        with open(self.folder / "long.jsonl.gz", "wb") as file:
            file.write(gzip.compress(b'{"text": "before"}\n'))
            for _ in range(GB // (16 << 20)):
                file.write(part)
            file.write(gzip.compress(b'\n{"text": "after"}\n'))
        self.assertIn("line 2 (byte 19 of its unpacked text) is longer", self.build("long.jsonl.gz", out="long", code=1))
        self.build("long.jsonl.gz", out="long", skip_broken=True)
        self.assertEqual(bytes(self.tokens("long")[0]), b"before\0after\0")
        self.assertLess(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, 600 << 10, "kB of the largest child of this test")

    def test_what_to_install(self):
        """An interpreter without the packages is told from one that is not there, and the remedy stands in the sentence."""
        bare = self.folder / "bare"
        bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')  # neither site-packages nor the user's
        bare.chmod(0o755)
        (self.folder / "tokenizer.json").write_text("{}")
        (self.folder / "in.parquet").write_bytes(b"PAR1")
        if subprocess.run([bare, "-c", "import tokenizers"], capture_output=True).returncode != 0:
            self.assertIn("-m pip install tokenizers", self.build("text.txt", out="a", tokenizer="tokenizer.json", python=bare, code=1))
            self.assertIn("-m pip install", self.build("in.parquet", out="b", python=bare, code=1))
        self.assertIn("--python", self.build("text.txt", out="c", tokenizer="tokenizer.json", python="/no/python", code=1))


@unittest.skipUnless(HAS_PACKAGES, "the Python packages tokenizers and pyarrow are not installed")
class PythonPackages(DataTest):
    def test_tokenizer_json_and_parquet(self):
        import pyarrow
        import pyarrow.parquet
        texts = documents()
        tokenizer = self.train_tokenizer_json(texts)
        write_jsonl(self.folder / "a.jsonl", texts)
        pyarrow.parquet.write_table(pyarrow.table({"id": range(len(texts)), "text": texts}), self.folder / "a.parquet", row_group_size=700)
        end = tokenizer.token_to_id("<|endoftext|>")
        expected = [token for encoding in tokenizer.encode_batch(texts, add_special_tokens=False) if encoding.ids
                    for token in [*encoding.ids, end]]
        for source in ["a.jsonl", "a.parquet"]:
            for threads in [1, 3]:
                self.build(source, out=f"{source}-{threads}", tokenizer="tokenizer.json", threads=threads, shard_tokens=10_000,
                           python=sys.executable)
            self.assertEqual(contents(self.folder / f"{source}-1"), contents(self.folder / f"{source}-3"))
            tokens, manifest = self.tokens(f"{source}-1")
            self.assertEqual(tokens, expected)
            self.assertEqual(manifest["vocab"], tokenizer.get_vocab_size())
            self.assertEqual(self.call("data", "verify", f"{source}-1")[0], 0)
        last = next(i for i in reversed(range(len(texts))) if texts[i])
        text = self.call("data", "inspect", "a.parquet-1", "--document", manifest["documents"] - 1, "--python", sys.executable)[1]
        self.assertIn(texts[last], text)
        # A build of Parquet goes on in the middle of it.
        status, _ = self.call("data", "build", "a.parquet", "--tokenizer", "tokenizer.json", "--out", "limited", "--shard-tokens", "10000",
                              "--python", sys.executable, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_100, 20_100)))
        self.build("a.parquet", out="limited", tokenizer="tokenizer.json", shard_tokens=10_000, python=sys.executable)
        self.assertEqual(contents(self.folder / "limited"), contents(self.folder / "a.parquet-1"))

    def test_parquet_of_other_kinds(self):
        import pyarrow
        import pyarrow.parquet
        write = lambda name, **columns: pyarrow.parquet.write_table(pyarrow.table(columns), self.folder / name)
        write("large.parquet", text=pyarrow.array(["a", "bc"], pyarrow.large_string()))
        write("words.parquet", text=pyarrow.array(["a", "bc"]).dictionary_encode())
        write("bytes.parquet", body=pyarrow.array([b"a", b"bc"]))
        write("nulls.parquet", text=["a", None, "bc"])
        write("numbers.parquet", text=[1, 2])
        for name, options in [("large", {}), ("words", {}), ("bytes", {"text_field": "body"}), ("nulls", {"skip_broken": True})]:
            self.build(f"{name}.parquet", out=name, **options, python=sys.executable)
            self.assertEqual(bytes(self.tokens(name)[0]), b"a\0bc\0", name)
        self.assertIn("nulls.parquet row 2 is null", self.build("nulls.parquet", out="w", code=1, python=sys.executable))
        self.assertIn("int64", self.build("numbers.parquet", out="x", code=1, python=sys.executable))
        self.assertIn('has no column "text"; it has "body"', self.build("bytes.parquet", out="y", code=1, python=sys.executable))
        (self.folder / "torn.parquet").write_bytes((self.folder / "large.parquet").read_bytes()[:-9])
        self.assertIn("not a Parquet file", self.build("torn.parquet", out="z", code=1, python=sys.executable))


@unittest.skipUnless(HAS_TRAINER, "spm_train is not installed: apt-get install sentencepiece")
class Runs(DataTest):
    def setUp(self):
        super().setUp()
        if not os.path.exists(os.path.join(os.path.dirname(runs.BINARY), "libstagecoach_compute.so")):
            self.skipTest("this build has no libtorch")
        self.train_sentencepiece()
        self.build("text.txt", out="shards", tokenizer="small.model")

    def test_a_run_learns_from_shards_and_speaks_their_words(self):
        use = {"data__text_files": "[]", "data__shards": self.folder / "shards", "layout__stages": 2, "layout__replicas": 1,
               "schedule__steps": 20, "batch__eval_every": 0}
        refused = self.train("wrong", **use)
        self.assertEqual(refused.wait(), 1)
        self.assertIn("model.vocab=300", refused.output())
        self.finish(self.train("run", **use, model__vocab=300))
        shutil.rmtree(self.folder / "shards")
        status, text = self.call("generate", "run", "--prompt", "the ", "--tokens", 20, "--temperature", 0)
        self.assertEqual(status, 0, text)
        self.assertTrue(text.startswith("the "), text)
        self.assertTrue(text.isascii(), text)
        (self.folder / "run" / "tokenizer.model").unlink()
        status, text = self.call("generate", "run", "--prompt", "the ")
        self.assertEqual(status, 1, text)
        self.assertIn("--tokenizer FILE", text)
        status, text = self.call("generate", "run", "--prompt", "the ", "--tokens", 20, "--temperature", 0, "--tokenizer", "small.model")
        self.assertEqual(status, 0, text)


if __name__ == "__main__":
    runs.main()
