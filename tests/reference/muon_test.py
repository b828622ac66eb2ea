"""Claim: a step of Muon is torch.optim.Muon's, and AdamW's for the tensors that Muon does not take.

Both are fed the same made-up gradients, clipped by the same global norm. torch.optim.Muon casts to bfloat16 before its iteration;
for the comparison in float32 that one cast is replaced by a copy, all else of it is as it is. Then the weights agree at
||a - b|| / ||b|| <= 1e-5 after one step and so do their changes; with bfloat16 on both sides the changes' cosine is >= 0.999.

In:   STAGECOACH_BUILD_DIR: compute_probe and libstagecoach_compute.so lie there. Out: exit status 1 if a claim fails.
"""

import contextlib
import math
import unittest
from unittest import mock

import torch

from pytorch_test import Config, Probe, random_weights

TOLERANCE = 1e-5
COSINE = 0.999
EMBEDDINGS = ("embed.weight", "head.weight", "cut.token_embed")


def is_muons(name, tensor):
    return tensor.dim() == 2 and not name.endswith(EMBEDDINGS)


class Reference:
    """torch's two optimizers over one set of weights."""

    def __init__(self, config, weights):
        self.weights = {name: tensor.clone().requires_grad_(True) for name, tensor in weights.items()}
        muons = [tensor for name, tensor in self.weights.items() if is_muons(name, tensor)]
        others = [tensor for name, tensor in self.weights.items() if not is_muons(name, tensor)]
        self.muon = torch.optim.Muon(muons, lr=config.peak_lr * config.muon_rate, weight_decay=config.weight_decay,
                                     momentum=config.muon_momentum, nesterov=True, ns_steps=config.muon_steps,
                                     adjust_lr_fn="original")
        self.adamw = torch.optim.AdamW([{"params": [t for t in others if t.dim() == 2], "weight_decay": config.weight_decay},
                                        {"params": [t for t in others if t.dim() == 1], "weight_decay": 0.0}],
                                       lr=config.peak_lr, betas=(config.beta1, config.beta2), eps=config.eps, foreach=False)

    def step(self, gradients, clip_norm, in_float32):
        for name, tensor in self.weights.items():
            tensor.grad = gradients[name].clone()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), clip_norm)
        cast = mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
        with cast if in_float32 else contextlib.nullcontext():
            self.muon.step()
        self.adamw.step()


class Muon(unittest.TestCase):
    def run_both(self, steps, **changes):
        """Returns the start, and the weights and moments of both after `steps`."""
        config = Config(layers=3, cut_kind="resbm+tokens", cut_after=[0, 1], optimizer="muon", **changes)
        start = random_weights(config, 5)
        reference = Reference(config, start)
        probe = Probe(self, config, 0, config.layers, start)
        generator = torch.Generator().manual_seed(6)
        per_microbatch = config.sequences * config.tokens
        unit = 2.0 ** (math.ceil(math.log2(per_microbatch)) - 44) / (per_microbatch * config.microbatches)
        for step in range(1, steps + 1):
            sums = {name: torch.round(torch.randn(tensor.shape, generator=generator).double() * 0.02 / unit).long()
                    for name, tensor in start.items()}
            reference.step({name: (tensor.double() * unit).float() for name, tensor in sums.items()}, config.clip_norm,
                           config.muon_float == "float32")
            norm = math.sqrt(sum((tensor.double() * unit).square().sum().item() for tensor in sums.values()))
            probe.put(f"sums{step}.bin", torch.cat([tensor.flatten() for tensor in sums.values()]).numpy())
            probe.commands += [f"reduced {step} sums{step}.bin -", f"apply {step} {norm!r}"]
        probe.commands.append("export end.")
        probe.run()
        ours = {name: probe.floats(f"end.{name}.bin", tensor.shape) for name, tensor in start.items()}
        return start, reference, ours, probe

    def near(self, ours, theirs, what, tolerance=TOLERANCE):
        error = (ours.double() - theirs.double()).norm() / theirs.double().norm()
        self.assertLessEqual(error.item(), tolerance, what)

    def test_one_step_in_float32(self):
        start, reference, ours, probe = self.run_both(1)
        taken = 0
        for name, tensor in reference.weights.items():
            tensor = tensor.detach()
            self.near(ours[name], tensor, name)
            self.near(ours[name] - start[name], tensor - start[name], f"the change of {name}")
            if is_muons(name, tensor):
                momentum = reference.muon.state[reference.weights[name]]["momentum_buffer"]
                self.near(probe.floats(f"end.optimizer.momentum_buffer.{name}.bin", tensor.shape), momentum, f"momentum of {name}")
                self.assertFalse((probe.path / f"end.optimizer.exp_avg.{name}.bin").exists(), "Muon keeps one moment")
                taken += 1
            else:
                self.assertTrue((probe.path / f"end.optimizer.exp_avg_sq.{name}.bin").exists(), name)
        self.assertEqual(taken, 3 * 7 + 2 * 3, "seven matrices a block, three of each cut")

    def test_one_step_without_clipping_or_decay_and_other_iterations(self):
        start, reference, ours, _ = self.run_both(1, clip_norm=1e9, weight_decay=0.0, muon_steps=3, muon_momentum=0.8)
        for name, tensor in reference.weights.items():
            self.near(ours[name] - start[name], tensor.detach() - start[name], f"the change of {name}")

    def test_five_steps_in_float32(self):
        _, reference, ours, _ = self.run_both(5)
        for name, tensor in reference.weights.items():
            self.near(ours[name], tensor.detach(), name)

    def test_one_step_in_bfloat16(self):
        start, reference, ours, _ = self.run_both(1, muon_float="bfloat16", weight_decay=0.0)
        for name, tensor in reference.weights.items():
            a, b = (ours[name] - start[name]).double().flatten(), (tensor.detach() - start[name]).double().flatten()
            self.assertGreaterEqual((a @ b / (a.norm() * b.norm())).item(), COSINE, name)
            self.assertLess(abs((a.norm() / b.norm()).item() - 1), 0.01, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
