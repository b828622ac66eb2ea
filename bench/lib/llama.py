"""The model of src/compute in plain PyTorch: what the benches compare with.

In:   a Shape. Out: nn.Modules for any range of layers, in the words of torch.nn alone.
Why:  written as one would write it for speed in eager mode: fused operators of torch where it has them (rms_norm,
      scaled_dot_product_attention, cross_entropy), no copies, no checks. It shares nothing with src/compute.

Legend: B sequences, S tokens, D width, K width of a cut, V vocabulary.
"""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Shape:
    """The keys of a config that the arithmetic depends on."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    tokens: int
    vocab: int = 256
    cut_width: int = 0          # 0: no cuts
    cut_after: tuple = ()       # layers with a cut behind them
    norm_eps: float = 1e-5
    rope_base: float = 500_000.0

    def cut_behind(self, layer):
        return layer in self.cut_after and 0 < self.cut_width < self.dim


def balanced_ranges(layers, stages):
    """model::balanced_split for sizes that divide: equal ranges."""
    assert layers % stages == 0, "the bench's sizes divide"
    each = layers // stages
    return [(s * each, (s + 1) * each) for s in range(stages)]


def rotation(shape):
    """Cosines and sines [S, h] in the rotate-half form."""
    half = shape.dim // shape.heads // 2
    angles = torch.outer(torch.arange(shape.tokens, dtype=torch.float64),
                         shape.rope_base ** (-torch.arange(half, dtype=torch.float64) / half))
    return torch.cat([angles.cos(), angles.cos()], 1).float(), torch.cat([angles.sin(), angles.sin()], 1).float()


def rotate(x_BHSh, cosine, sine):
    first, second = x_BHSh.chunk(2, -1)
    return x_BHSh * cosine + torch.cat([-second, first], -1) * sine


class Block(nn.Module):
    """One layer; narrows behind itself where a cut follows, widens before itself where one precedes."""

    def __init__(self, shape, layer):
        super().__init__()
        self.shape = shape
        kv = shape.kv_heads * (shape.dim // shape.heads)
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.attention_norm = nn.Parameter(torch.ones(shape.dim))
        self.wq, self.wk, self.wv, self.wo = linear(shape.dim, shape.dim), linear(shape.dim, kv), linear(shape.dim, kv), linear(shape.dim, shape.dim)
        self.ffn_norm = nn.Parameter(torch.ones(shape.dim))
        self.w1, self.w2, self.w3 = linear(shape.dim, shape.ffn), linear(shape.dim, shape.ffn), linear(shape.ffn, shape.dim)
        self.decode = linear(shape.cut_width, shape.dim) if layer > 0 and shape.cut_behind(layer - 1) else None
        self.encode = linear(shape.dim, shape.cut_width) if shape.cut_behind(layer) else None

    def attention(self, x_BSD, cosine, sine):
        s = self.shape
        heads = lambda y, count: y.view(y.size(0), y.size(1), count, -1).transpose(1, 2)
        q = rotate(heads(self.wq(x_BSD), s.heads), cosine, sine)
        k = rotate(heads(self.wk(x_BSD), s.kv_heads), cosine, sine)
        v = heads(self.wv(x_BSD), s.kv_heads)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=s.kv_heads != s.heads)
        return self.wo(out.transpose(1, 2).reshape(x_BSD.shape))

    def forward(self, x, cosine, sine):
        s = self.shape
        wide = x if self.decode is None else F.relu(self.decode(x))
        attended = self.attention(F.rms_norm(wide, (s.dim,), self.attention_norm, s.norm_eps), cosine, sine)
        hidden = x + attended if self.decode is None else attended + F.pad(x, (0, s.dim - x.size(-1)))
        u = F.rms_norm(hidden, (s.dim,), self.ffn_norm, s.norm_eps)
        branch = self.w3(F.silu(self.w1(u)) * self.w2(u))
        if self.encode is None:
            return hidden + branch
        return hidden[..., :s.cut_width] + self.encode(F.silu(branch))


class Stage(nn.Module):
    """Layers [first, last); embeds at the head, gives logits at the tail. In: ids [B, S] or z [B, S, K]."""

    def __init__(self, shape, first, last):
        super().__init__()
        self.embed = nn.Embedding(shape.vocab, shape.dim) if first == 0 else None
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(first, last))
        self.norm = nn.Parameter(torch.ones(shape.dim)) if last == shape.layers else None
        self.head = nn.Linear(shape.dim, shape.vocab, bias=False) if last == shape.layers else None
        self.shape = shape
        cosine, sine = rotation(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x):
        if self.embed is not None:
            x = self.embed(x)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        if self.head is None:
            return x
        return self.head(F.rms_norm(x, (self.shape.dim,), self.norm, self.shape.norm_eps))


def loss_of(logits_BSV, labels_BS):
    return F.cross_entropy(logits_BSV.flatten(0, 1).float(), labels_BS.flatten())


def adamw(parameters, rate=3e-3):
    """AdamW in one fused pass a tensor; norms are not decayed."""
    parameters = list(parameters)
    groups = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": 0.1},
              {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.95), eps=1e-8, fused=True)


def count_parameters(module):
    return sum(p.numel() for p in module.parameters())
