"""The layers of one stage in plain PyTorch eager, timed as compute_stage_bench times ours.

In:   the options of compute_stage_bench, by the same names. Out: one "name value" a line, milliseconds, the median of the rounds.
Why:  what a stage is measured against: nn.Module's way of writing a Llama block with the same cuts, autograd, AdamW. bf16 is
      module.to(torch.bfloat16), parameters and optimizer state with it, which is the least work for eager.

The numbers: forward (no graph, as a stage runs it), recompute (the forward with a graph), backward (with accumulation into .grad),
close (clipping and AdamW), and step = microbatches · (forward + recompute + backward) + close.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


def linear(into, out):
    layer = nn.Linear(into, out, bias=False)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


class Block(nn.Module):
    def __init__(self, o, receives, sends):
        super().__init__()
        width = o.dim // o.heads
        self.o, self.receives, self.sends = o, receives, sends
        self.attention_norm, self.ffn_norm = Norm(o.dim), Norm(o.dim)
        self.wq, self.wo = linear(o.dim, o.dim), linear(o.dim, o.dim)
        self.wk, self.wv = linear(o.dim, o.kv_heads * width), linear(o.dim, o.kv_heads * width)
        self.w1, self.w2, self.w3 = linear(o.dim, o.ffn), linear(o.dim, o.ffn), linear(o.ffn, o.dim)
        if receives:
            self.decode = linear(o.cut_width, o.dim)
        if sends:
            self.encode = linear(o.dim, o.cut_width)
        angle = torch.outer(torch.arange(o.tokens).double(), 5e5 ** (-torch.arange(width // 2).double() / (width // 2)))
        self.register_buffer("cosine", angle.cos().float()[:, None, :])
        self.register_buffer("sine", angle.sin().float()[:, None, :])

    def rope(self, x):
        first, second = x.chunk(2, -1)
        return torch.cat([first * self.cosine - second * self.sine, second * self.cosine + first * self.sine], -1)

    def attention(self, x):
        o, shape = self.o, x.shape[:2]
        q = self.rope(self.wq(x).view(*shape, o.heads, -1)).transpose(1, 2)
        k = self.rope(self.wk(x).view(*shape, o.kv_heads, -1)).transpose(1, 2)
        v = self.wv(x).view(*shape, o.kv_heads, -1).transpose(1, 2)
        k, v = (t.repeat_interleave(o.heads // o.kv_heads, 1) for t in (k, v))
        return self.wo(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    def forward(self, x):
        if self.receives:
            hidden = self.attention(self.attention_norm(F.relu(self.decode(x)))) + F.pad(x, (0, self.o.dim - x.shape[-1]))
        else:
            hidden = x + self.attention(self.attention_norm(x))
        u = self.ffn_norm(hidden)
        branch = self.w3(F.silu(self.w1(u)) * self.w2(u))
        return hidden[..., : self.o.cut_width] + self.encode(F.silu(branch)) if self.sends else hidden + branch


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in [("dim", 128), ("heads", 4), ("kv-heads", 2), ("ffn", 448), ("layers", 1), ("sequences", 2), ("tokens", 128),
                          ("cut-width", 32), ("microbatches", 8), ("threads", 1), ("rounds", 7)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: the process's own time")
    return parser.parse_args()


def milliseconds(work, clock):
    before = clock()
    work()
    return (clock() - before) * 1e3


def main():
    o = options()
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    clock = time.perf_counter if o.clock == "wall" else time.process_time
    dtype = getattr(torch, o.dtype)
    stage = nn.Sequential(*(Block(o, i == 0, i == o.layers - 1) for i in range(o.layers))).to(dtype)
    parameters = list(stage.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    z = (torch.rand(o.sequences, o.tokens, o.cut_width) - 0.5).to(dtype)
    dy = z.clone()
    out = None

    def forward():
        with torch.no_grad():
            stage(z)

    def recompute():
        nonlocal out
        leaf = z.detach().requires_grad_(True)
        out = stage(leaf)

    def close():
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    times = {"forward": [], "recompute": [], "backward": [], "close": [], "step": []}
    for round_number in range(o.rounds + 2):
        sums = {"forward": 0.0, "recompute": 0.0, "backward": 0.0}
        for _ in range(o.microbatches):
            for name, work in [("forward", forward), ("recompute", recompute), ("backward", lambda: out.backward(dy))]:
                sums[name] += milliseconds(work, clock)
        closed = milliseconds(close, clock)
        if round_number < 2:  # warms caches and the optimizer's state
            continue
        for name, value in sums.items():
            times[name].append(value / o.microbatches)
        times["close"].append(closed)
        times["step"].append(sum(sums.values()) + closed)
    for name, values in times.items():
        print(f"{name} {statistics.median(values):.4f}")


if __name__ == "__main__":
    main()
