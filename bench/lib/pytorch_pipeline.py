"""One rank of PyTorch's own pipeline, or PyTorch unsplit where there is only one.

In:   argv: rank, ranks, a rendezvous file, and one JSON object: shape, sequences, microbatches, threads, dtype, warmup, steps.
Out:  one JSON line on stdout: seconds and CPU seconds of the measured steps, parameters, the last loss.
Why:  torch.distributed.pipelining as its documentation has it: Schedule1F1B over gloo, a stage a process, pinned threads, graphs
      kept from forward to backward, gradients clipped by their global norm, fused AdamW. In bfloat16 the weights that are
      multiplied with and their gradients are bfloat16, over a float32 master.
"""

import json
import pathlib
import sys
import time

import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from llama import Shape, Stage, adamw, balanced_ranges, count_parameters, loss_of


class Trainer:
    """The optimizer's side of a rank: a master in float32, the norm over all ranks, the step."""

    def __init__(self, module, dtype, ranks):
        self.module, self.ranks = module, ranks
        self.masters = [p.detach().clone().requires_grad_(True) for p in module.parameters()] if dtype == torch.bfloat16 else None
        self.optimizer = adamw(self.masters or module.parameters())
        module.to(dtype)

    def step(self):
        parameters = [p for p in self.module.parameters() if p.grad is not None]
        square = torch.stack(torch._foreach_norm([p.grad for p in parameters])).float().square().sum()
        if self.ranks > 1:
            dist.all_reduce(square)
        factor = torch.clamp(1.0 / (square.sqrt() + 1e-6), max=1.0).item()
        gradients = [p.grad for p in parameters]
        if self.masters:
            for master, gradient in zip(self.masters, gradients):
                master.grad = gradient.float()
            gradients = [master.grad for master in self.masters]
        if factor < 1.0:
            torch._foreach_mul_(gradients, factor)
        self.optimizer.step()
        if self.masters:
            with torch.no_grad():
                torch._foreach_copy_(list(self.module.parameters()), self.masters)
        self.module.zero_grad(set_to_none=True)


def pipeline_step(rank, ranks, module, options, dtype):
    """Returns a function that runs one step's forwards and backwards and gives its mean loss where the loss is."""
    shape, sequences, count = options["shape"], options["sequences"], options["microbatches"]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, shape.vocab, (sequences * count, shape.tokens + 1), generator=generator)
    inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    if ranks == 1:
        def unsplit():
            total = 0.0
            for x, y in zip(inputs.split(sequences), labels.split(sequences)):
                loss = loss_of(module(x), y) / count
                loss.backward()
                total += loss.item()
            return total
        return unsplit
    schedule = Schedule1F1B(PipelineStage(module, rank, ranks, torch.device("cpu")), count, loss_fn=loss_of)

    def split():
        losses = []
        if rank == 0:
            schedule.step(inputs)
        elif rank == ranks - 1:
            schedule.step(target=labels, losses=losses)
        else:
            schedule.step()
        return sum(loss.item() for loss in losses) / max(len(losses), 1)
    return split


def thread_seconds():
    """CPU seconds of this process by the name of the thread."""
    out = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            text = (task / "stat").read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1:text.rindex(")")]
        fields = text[text.rindex(")") + 2:].split()
        out[name] = out.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / 100
    return out


def main():
    rank, ranks, rendezvous = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    options = json.loads(sys.argv[4])
    options["shape"] = Shape(**{k: tuple(v) if isinstance(v, list) else v for k, v in options["shape"].items()})
    torch.set_num_threads(options["threads"])
    torch.manual_seed(42)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[options["dtype"]]
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    module = Stage(options["shape"], *balanced_ranges(options["shape"].layers, ranks)[rank])
    trainer = Trainer(module, dtype, ranks)
    run = pipeline_step(rank, ranks, module, options, dtype)
    for _ in range(options["warmup"]):
        run()
        trainer.step()
    if ranks > 1:
        dist.barrier()
    began, cpu_before = time.perf_counter(), thread_seconds()
    loss = 0.0
    for _ in range(options["steps"]):
        loss = run()
        trainer.step()
    if ranks > 1:
        dist.barrier()
    seconds, cpu = time.perf_counter() - began, thread_seconds()
    print(json.dumps({"rank": rank, "seconds": seconds, "loss": loss, "parameters": count_parameters(module),
                      "cpu": {name: value - cpu_before.get(name, 0.0) for name, value in cpu.items()}}), flush=True)
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
