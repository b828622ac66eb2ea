"""One stage's layers in PyTorch eager, timed; and the matmul peak of the same cores.

In:   argv: one JSON object: shape, first, last, sequences, microbatches, threads, dtype. Standard input: a line with a number of
      rounds asks for so many.
Out:  a JSON line an answer: seconds of each forward without a graph, forward with one and backward, step; the matmul rate.
Why:  the same work as compute::Stage does for a microbatch: the forward that sends a tensor on, then what its gradient needs.
"""

import json
import sys
import time

import torch

from llama import Shape, Stage, adamw


def matmul_flops_per_s(dtype, rows):
    """The best of several sizes, each the best of several tries: what these cores can do at most."""
    best = 0.0
    for m, k, n in ((rows, 1024, 4096), (1024, 1024, 1024), (2048, 2048, 2048)):
        a, b = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype).t()
        torch.mm(a, b)
        for _ in range(4):
            began = time.perf_counter()
            torch.mm(a, b)
            best = max(best, 2 * m * k * n / (time.perf_counter() - began))
    return best


class Bench:
    def __init__(self, options):
        shape = Shape(**{k: tuple(v) if isinstance(v, list) else v for k, v in options["shape"].items()})
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[options["dtype"]]
        self.module = Stage(shape, options["first"], options["last"])
        self.masters = [p.detach().clone() for p in self.module.parameters()] if self.dtype == torch.bfloat16 else None
        self.optimizer = adamw(self.masters or self.module.parameters())
        self.module.to(self.dtype)
        width = lambda layer: shape.cut_width if shape.cut_behind(layer) else shape.dim
        rows = (options["sequences"], shape.tokens)
        self.input = torch.rand(*rows, width(options["first"] - 1)).to(self.dtype)
        self.gradient = torch.rand(*rows, width(options["last"] - 1)).to(self.dtype) * 1e-4
        self.count, self.rows = options["microbatches"], rows[0] * rows[1]

    def step(self):
        parameters = list(self.module.parameters())
        gradients = [p.grad for p in parameters]
        norm = torch.stack(torch._foreach_norm(gradients)).float().norm()
        factor = torch.clamp(1.0 / (norm + 1e-6), max=1.0).item()
        if self.masters:
            for master, gradient in zip(self.masters, gradients):
                master.grad = gradient.float()
            gradients = [master.grad for master in self.masters]
        if factor < 1.0:
            torch._foreach_mul_(gradients, factor)
        self.optimizer.step()
        if self.masters:
            with torch.no_grad():
                torch._foreach_copy_(parameters, self.masters)
        self.module.zero_grad(set_to_none=True)

    def round(self, times):
        def timed(name, work):
            began = time.perf_counter()
            out = work()
            times.setdefault(name, []).append(time.perf_counter() - began)
            return out

        def forward():
            with torch.no_grad():
                return self.module(self.input)

        for _ in range(self.count):
            timed("forward_s", forward)
            leaf = self.input.detach().requires_grad_(True)
            out = timed("kept_forward_s", lambda: self.module(leaf))
            timed("kept_backward_s", lambda: out.backward(self.gradient))
        times.setdefault("backward_s", []).extend(a + b for a, b in zip(times["kept_forward_s"][-self.count:], times["kept_backward_s"][-self.count:]))
        timed("close_s", self.step)


def main():
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    bench = Bench(options)
    for line in sys.stdin:
        times = {}
        for _ in range(int(line)):
            bench.round(times)
        print(json.dumps({**times, "matmul_flops_per_s": matmul_flops_per_s(bench.dtype, bench.rows)}), flush=True)


if __name__ == "__main__":
    main()
