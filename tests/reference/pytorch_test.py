"""Claim: the stage computes what the formulas say, by PyTorch's own autograd and optimizers.

The model here is written from the formulas alone (DESIGN, and the ResBM cut of the reference, orion-iota-resbm §2.2) in fp32 with
torch's plain operators, and shares nothing with src/compute. Compared per tensor at ||a - b|| / ||b|| <= 1e-5: boundary tensors and
their gradients, losses, every parameter's gradient. Ten steps of AdamW and NAdam are fed the same gradients and compared at 1e-6.

In:   STAGECOACH_BUILD_DIR: compute_probe and libstagecoach_compute.so lie there. Out: exit status 1 if a claim fails.
"""

import math
import os
import pathlib
import subprocess
import tempfile
import unittest

import numpy as np
import torch
import torch.nn.functional as F

BUILD = pathlib.Path(os.environ.get("STAGECOACH_BUILD_DIR", "build"))
TOLERANCE = 1e-5
OPTIMIZER_TOLERANCE = 1e-6


def library():
    """The compute library, wherever the build put it under its folder."""
    found = sorted(p for pattern in ("libstagecoach_compute.so", "libstagecoach_compute.dylib") for p in BUILD.rglob(pattern))
    assert found, f"no libstagecoach_compute under {BUILD}"
    return found[0]


class Config:
    """The keys of a config's canonical text, with small odd sizes."""

    def __init__(self, **changes):
        self.vocab, self.dim, self.layers, self.heads, self.kv_heads, self.ffn = 67, 48, 3, 6, 2, 100
        self.norm_eps, self.rope_base, self.cut_kind, self.cut_width, self.cut_after = 1e-5, 5e5, "resbm", 12, [0, 1]
        self.token_rank, self.token_window, self.rope_scaling = 5, 3, 1.0
        self.compute, self.state, self.sums = "float32", "float32", "fixed64"
        self.optimizer, self.beta1, self.beta2, self.eps, self.weight_decay = "adamw", 0.9, 0.95, 1e-8, 0.1
        self.momentum_decay, self.clip_norm, self.peak_lr = 0.004, 1.0, 3e-3
        self.muon_momentum, self.muon_rate, self.muon_steps, self.muon_float = 0.95, 7.0, 5, "float32"
        self.sequences, self.tokens, self.microbatches = 3, 21, 2
        for key, value in changes.items():
            assert hasattr(self, key), key
            setattr(self, key, value)

    def text(self):
        def real(value):
            sign, rest = float(value).hex().split("0x")
            mantissa, exponent = rest.split("p")
            if "." in mantissa:
                mantissa = mantissa.rstrip("0").rstrip(".")
            return f"{sign}{mantissa}p{exponent}" if value else "0p+0"

        lines = [
            ("model.vocab", self.vocab), ("model.dim", self.dim), ("model.layers", self.layers), ("model.heads", self.heads),
            ("model.kv_heads", self.kv_heads), ("model.ffn", self.ffn), ("model.norm_eps", real(self.norm_eps)),
            ("model.rope_base", real(self.rope_base)), ("model.rope_scaling", real(self.rope_scaling)),
            ("model.cut_kind", self.cut_kind), ("model.cut_width", self.cut_width), ("model.token_rank", self.token_rank),
            ("model.token_window", self.token_window),
            ("model.cut_after", ",".join(map(str, self.cut_after))), ("model.seed", 42), ("optimizer.kind", self.optimizer),
            ("optimizer.beta1", real(self.beta1)), ("optimizer.beta2", real(self.beta2)), ("optimizer.eps", real(self.eps)),
            ("optimizer.weight_decay", real(self.weight_decay)), ("optimizer.momentum_decay", real(self.momentum_decay)),
            ("optimizer.muon_momentum", real(self.muon_momentum)), ("optimizer.muon_rate", real(self.muon_rate)),
            ("optimizer.muon_steps", self.muon_steps), ("optimizer.muon_float", self.muon_float),
            ("optimizer.clip_norm", real(self.clip_norm)), ("schedule.kind", "constant"), ("schedule.peak_lr", real(self.peak_lr)),
            ("schedule.floor_fraction", real(0.1)), ("schedule.warmup_steps", 0), ("schedule.decay_steps", 0),
            ("schedule.steps", 100), ("batch.sequences", self.sequences), ("batch.tokens", self.tokens),
            ("batch.microbatches", self.microbatches), ("batch.eval_microbatches", 1), ("batch.eval_every", 0),
            ("batch.data_seed", 1), ("numbers.compute", self.compute), ("numbers.state", self.state), ("numbers.sums", self.sums),
            ("threads", 1)]
        return "".join(f"{key}={value}\n" for key, value in lines)

    def parameters(self):
        """Names and shapes in canonical order."""
        d, kv = self.dim, self.kv_heads * self.dim // self.heads
        out = [("embed.weight", (self.vocab, d))]
        for i in range(self.layers):
            block = [("attention_norm", (d,)), ("attention.wq", (d, d)), ("attention.wk", (kv, d)), ("attention.wv", (kv, d)),
                     ("attention.wo", (d, d)), ("ffn_norm", (d,)), ("ffn.w1", (self.ffn, d)), ("ffn.w2", (self.ffn, d)),
                     ("ffn.w3", (d, self.ffn))]
            if self.receives(i):
                block.append(("cut.decode", (d, self.cut_width)))
                if self.cut_kind == "resbm+tokens":
                    block += [("cut.token_embed", (self.vocab, self.token_rank)),
                              ("cut.token_mix", (d, self.token_window * self.token_rank))]
            if self.sends(i):
                block.append(("cut.encode", (self.cut_width, d)))
            out += [(f"blocks.{i:03d}.{name}", shape) for name, shape in block]
        return out + [("final_norm.weight", (d,)), ("head.weight", (self.vocab, d))]

    def stage_parameters(self, first, last):
        def belongs(name):
            if name.startswith("blocks."):
                return first <= int(name[7:10]) < last
            return first == 0 if name == "embed.weight" else last == self.layers
        return [(name, shape) for name, shape in self.parameters() if belongs(name)]

    def sends(self, layer):
        return self.cut_kind != "none" and layer in self.cut_after and self.cut_width < self.dim

    def receives(self, layer):
        return layer > 0 and self.sends(layer - 1)


def random_weights(config, seed):
    """Larger than the seeded start, so that no branch of the model is close to nothing; norms differ from 1."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in config.parameters():
        drawn = torch.randn(shape, generator=generator)
        weights[name] = 1 + 0.2 * drawn if len(shape) == 1 else drawn * (0.5 if name == "embed.weight" else 0.12)
    return weights


def norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def rope(x, base):
    """Half-split rotation. x: [B, S, heads, h]"""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * frequency
    cosine, sine = angle.cos().float()[None, :, None, :], angle.sin().float()[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def attention(config, w, x):
    """Causal, every query head with the key and value head of its group. x: [B, S, D]"""
    b, s, d = x.shape
    h, groups = d // config.heads, config.heads // config.kv_heads
    q = rope((x @ w["attention.wq"].T).view(b, s, config.heads, h), config.rope_base)
    k = rope((x @ w["attention.wk"].T).view(b, s, config.kv_heads, h), config.rope_base)
    v = (x @ w["attention.wv"].T).view(b, s, config.kv_heads, h)
    future = torch.ones(s, s, dtype=torch.bool).triu(1)
    heads = []
    for i in range(config.heads):
        scores = q[:, :, i] @ k[:, :, i // groups].transpose(1, 2) / math.sqrt(h)
        heads.append(torch.softmax(scores.masked_fill(future, -math.inf), -1) @ v[:, :, i // groups])
    return torch.cat(heads, -1) @ w["attention.wo"].T


def token_view(config, w, tokens):
    """What a receiver sees of the last tokens: for each place, one matrix per place back. tokens: [B, S]"""
    columns = w["cut.token_mix"].split(config.token_rank, 1)
    places = []
    for t in range(tokens.shape[1]):
        back = range(min(config.token_window, t + 1))
        places.append(sum(w["cut.token_embed"][tokens[:, t - j]] @ columns[j].T for j in back))
    return torch.stack(places, 1)


def block(config, weights, layer, x, tokens=None):
    w = {name.split(".", 2)[2]: tensor for name, tensor in weights.items() if name.startswith(f"blocks.{layer:03d}.")}
    if config.receives(layer):
        view = token_view(config, w, tokens) if config.cut_kind == "resbm+tokens" else 0
        v = torch.relu(x @ w["cut.decode"].T + view)
        h = attention(config, w, norm(v, w["attention_norm"], config.norm_eps)) + view
        h = torch.cat([h[..., :config.cut_width] + x, h[..., config.cut_width:]], -1)
    else:
        h = x + attention(config, w, norm(x, w["attention_norm"], config.norm_eps))
    u = norm(h, w["ffn_norm"], config.norm_eps)
    f = (F.silu(u @ w["ffn.w1"].T) * (u @ w["ffn.w2"].T)) @ w["ffn.w3"].T
    if config.sends(layer):
        return h[..., :config.cut_width] + F.silu(f) @ w["cut.encode"].T
    return h + f


def losses(config, weights, x, labels):
    """-log p per token. x: the last block's output [B, S, D]"""
    logits = norm(x, weights["final_norm.weight"], config.norm_eps) @ weights["head.weight"].T
    return -torch.log_softmax(logits, -1).gather(-1, labels[..., None])[..., 0]


class Probe:
    """One run of compute_probe: commands and files go in, arrays come out."""

    def __init__(self, test, config, first, last, weights):
        self.config, self.commands = config, [f"stage {first} {last}", "import 0"]
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
        (self.path / "config.txt").write_text(config.text(), encoding="ascii")
        self.stage = config.stage_parameters(first, last)
        for name, _ in self.stage:
            self.put(name + ".bin", weights[name].detach().numpy())

    def put(self, name, array):
        np.ascontiguousarray(array).tofile(self.path / name)
        return name

    def run(self):
        (self.path / "commands.txt").write_text("\n".join(self.commands) + "\n", encoding="ascii")
        done = subprocess.run([BUILD / "compute_probe", library(), self.path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def floats(self, name, shape=(-1,), dtype=np.float32):
        return torch.from_numpy(np.fromfile(self.path / name, dtype=dtype)).reshape(shape)

    def gradients(self, name):
        """A fixed64 sum of one microbatch as summed-loss gradients by tensor."""
        c = self.config
        flat = self.floats(name, dtype=np.int64).double() * 2.0 ** (math.ceil(math.log2(c.sequences * c.tokens)) - 44)
        out, at = {}, 0
        for tensor, shape in self.stage:
            out[tensor] = flat[at:at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
        assert at == len(flat)
        return out


class Reference(unittest.TestCase):
    worst = 0.0

    def near(self, ours, theirs, what, tolerance=TOLERANCE):
        ours, theirs = ours.double(), theirs.detach().double()
        self.assertEqual(tuple(ours.shape), tuple(theirs.shape), what)
        self.assertGreater(theirs.norm().item(), 0, what)
        distance = ((ours - theirs).norm() / theirs.norm()).item()
        Reference.worst = max(Reference.worst, distance / tolerance)
        self.assertLessEqual(distance, tolerance, what)

    def tokens(self, config, seed):
        return torch.randint(0, config.vocab, (config.sequences, config.tokens + 1), generator=torch.Generator().manual_seed(seed))

    def check_middle(self, config, first, last):
        """A stage without embedding or head: forward and backward from given boundary tensors."""
        weights = {name: tensor.requires_grad_(True) for name, tensor in random_weights(config, 1).items()}
        generator = torch.Generator().manual_seed(2)
        shape_in = (config.sequences, config.tokens, config.cut_width if config.receives(first) else config.dim)
        shape_out = (config.sequences, config.tokens, config.cut_width if config.sends(last - 1) else config.dim)
        z = torch.randn(shape_in, generator=generator).requires_grad_(True)
        dy = torch.randn(shape_out, generator=generator) / (config.sequences * config.tokens)
        y, tokens = z, self.tokens(config, 7)
        for layer in range(first, last):
            y = block(config, weights, layer, y, tokens[:, :-1])
        names = [name for name, _ in config.stage_parameters(first, last)]
        expected = torch.autograd.grad(y, [z] + [weights[name] for name in names], dy)

        probe = Probe(self, config, first, last, weights)
        probe.put("z.bin", z.detach().numpy())
        probe.put("dy.bin", dy.numpy())
        given = probe.put("tokens.bin", tokens.int().numpy()) if config.cut_kind == "resbm+tokens" else "-"
        probe.commands += [f"forward {given} z.bin y.bin", f"backward 1 {given} z.bin dy.bin dz.bin -", "sum 1 sum.bin"]
        probe.run()
        self.near(probe.floats("y.bin", shape_out), y, "the stage's output")
        self.near(probe.floats("dz.bin", shape_in), expected[0], "the gradient of its input")
        gradients = probe.gradients("sum.bin")
        for name, theirs in zip(names, expected[1:]):
            self.near(gradients[name], theirs, f"gradient of {name}")

    def test_a_plain_block(self):
        self.check_middle(Config(cut_kind="none", cut_after=[]), 1, 2)

    def test_the_sender_of_a_cut(self):
        self.check_middle(Config(layers=4, cut_kind="resbm", cut_after=[0, 2]), 1, 3)

    def test_the_receiver_of_a_cut_and_the_sender_of_the_next(self):
        self.check_middle(Config(), 1, 2)

    def test_a_cut_inside_a_stage_in_both_directions(self):
        self.check_middle(Config(layers=5, cut_after=[0, 1, 2, 3]), 1, 4)

    def test_a_cut_as_wide_as_the_model_is_a_plain_block(self):
        self.check_middle(Config(cut_width=48), 1, 2)

    def test_a_receiver_that_sees_tokens_and_sends_in_turn(self):
        self.check_middle(Config(cut_kind="resbm+tokens", cut_width=2), 1, 2)

    def test_cuts_with_tokens_inside_a_stage(self):
        self.check_middle(Config(layers=5, cut_after=[0, 1, 2, 3], cut_kind="resbm+tokens"), 1, 4)

    def check_model(self, config):
        weights = {name: tensor.requires_grad_(True) for name, tensor in random_weights(config, 3).items()}
        tokens = self.tokens(config, 4)
        x = weights["embed.weight"][tokens[:, :-1]]
        for layer in range(config.layers):
            x = block(config, weights, layer, x, tokens[:, :-1])
        nll = losses(config, weights, x, tokens[:, 1:])
        expected = torch.autograd.grad(nll.sum(), list(weights.values()))

        probe = Probe(self, config, 0, config.layers, weights)
        probe.put("tokens.bin", tokens.int().numpy())
        probe.put("first.bin", tokens[0].int().numpy())
        probe.commands += ["backward 1 tokens.bin - - - loss.bin", "sum 1 sum.bin", "score first.bin score.bin"]
        probe.run()
        self.near(probe.floats("loss.bin", (), np.float64), nll.double().sum(), "the loss")
        self.near(probe.floats("score.bin", dtype=np.float64), nll[0], "-log p of each token")
        gradients = probe.gradients("sum.bin")
        for name, theirs in zip(weights, expected):
            self.near(gradients[name], theirs, f"gradient of {name}")

    def test_a_whole_model_without_cuts(self):
        self.check_model(Config(cut_kind="none", cut_after=[]))

    def test_a_whole_model_with_cuts(self):
        self.check_model(Config())

    def test_a_whole_model_with_cuts_and_tokens(self):
        self.check_model(Config(cut_kind="resbm+tokens", cut_width=2, token_window=4, token_rank=7))

    def test_a_whole_model_that_sees_one_token_at_a_cut(self):
        self.check_model(Config(cut_kind="resbm+tokens", cut_after=[1], token_window=1))

    def test_a_whole_model_whose_loss_takes_several_chunks(self):
        self.check_model(Config(sequences=13, tokens=170, layers=2, cut_after=[0]))

    def check_optimizer(self, kind, clip_norm, **changes):
        config = Config(layers=2, cut_after=[0], optimizer=kind, clip_norm=clip_norm, **changes)
        start = random_weights(config, 5)
        ours = Probe(self, config, 0, config.layers, start)
        theirs = {name: tensor.clone().requires_grad_(True) for name, tensor in start.items()}
        groups = [{"params": [t for t in theirs.values() if t.dim() == 2], "weight_decay": config.weight_decay},
                  {"params": [t for t in theirs.values() if t.dim() == 1], "weight_decay": 0.0}]
        common = {"lr": config.peak_lr, "betas": (config.beta1, config.beta2), "eps": config.eps, "foreach": False}
        optimizer = torch.optim.AdamW(groups, **common) if kind == "adamw" else torch.optim.NAdam(
            groups, momentum_decay=config.momentum_decay, decoupled_weight_decay=True, **common)

        generator = torch.Generator().manual_seed(6)
        # What a sum of 1 means as a mean gradient: fixed64's unit over the tokens of a step.
        per_microbatch = config.sequences * config.tokens
        unit = 2.0 ** (math.ceil(math.log2(per_microbatch)) - 44) / (per_microbatch * config.microbatches)
        for step in range(1, 11):
            sums = []
            for tensor in theirs.values():
                recorded = torch.randn(tensor.shape, generator=generator).double() * 0.01 * step
                sums.append(torch.round(recorded / unit).long())
                tensor.grad = (sums[-1].double() * unit).float()
            total = torch.nn.utils.clip_grad_norm_(theirs.values(), clip_norm) if clip_norm else 1.0
            optimizer.step()
            ours.put(f"sums{step}.bin", torch.cat([s.flatten() for s in sums]).numpy())
            norm_of_step = math.sqrt(sum((s.double() * unit).square().sum().item() for s in sums))
            if clip_norm:
                self.assertAlmostEqual(norm_of_step / float(total), 1.0, places=5)
            ours.commands += [f"reduced {step} sums{step}.bin norms{step}.bin", f"apply {step} {norm_of_step!r}",
                              f"export step{step}."]
        ours.run()
        for step in (1, 10):
            squares = ours.floats(f"norms{step}.bin", dtype=np.float64)
            self.assertEqual(len(squares), len(theirs))
        for name, tensor in theirs.items():
            self.near(ours.floats(f"step10.{name}.bin", tensor.shape), tensor, f"{name} after ten steps", OPTIMIZER_TOLERANCE)
            state = optimizer.state[tensor]
            for moment in ("exp_avg", "exp_avg_sq"):
                self.near(ours.floats(f"step10.optimizer.{moment}.{name}.bin", tensor.shape), state[moment],
                          f"{moment} of {name}", OPTIMIZER_TOLERANCE)
        self.near(squares.sum().sqrt(), torch.tensor(norm_of_step), "the global norm", OPTIMIZER_TOLERANCE)

    def test_ten_steps_of_adamw(self):
        self.check_optimizer("adamw", 0.0)

    def test_ten_steps_of_adamw_with_clipping(self):
        self.check_optimizer("adamw", 1.0)

    def test_ten_steps_of_nadam(self):
        self.check_optimizer("nadam", 0.0)

    def test_ten_steps_of_nadam_with_clipping_and_much_momentum_decay(self):
        self.check_optimizer("nadam", 1.0, momentum_decay=1.0)

    @classmethod
    def tearDownClass(cls):
        print(f"largest distance found: {cls.worst:.3f} of what is allowed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    unittest.main()
