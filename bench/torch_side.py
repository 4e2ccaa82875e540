"""PyTorch's side: decoders of nanoGPT's and of Llama's shape.

    python -m bench.torch_side cpu gpt2_124m eager|compiled

A line on stdin is one step, a JSON line out. On a GPU in bfloat16, with PyTorch's flash attention.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from bench.shape import BETAS, CLIP, DECAY, LEARNING_RATE, SHAPES, Shape

_THETA, _EPS = 10_000.0, 1e-5


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the halves of each head: x [B, N, T, H], cos and sin [T, H / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.shape, width = shape, shape.embed
        gpt2, size = shape.family == "gpt2", shape.embed // shape.heads
        self.widths = (width, shape.kv_heads * size, shape.kv_heads * size)
        self.norm1, self.norm2 = _norm(shape), _norm(shape)
        self.qkv = nn.Linear(width, sum(self.widths), bias=gpt2)
        self.out = nn.Linear(width, width, bias=gpt2)
        self.up = nn.Linear(width, shape.mlp, bias=gpt2)
        self.gate = None if gpt2 else nn.Linear(width, shape.mlp, bias=False)
        self.down = nn.Linear(shape.mlp, width, bias=gpt2)

    def forward(self, x: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        rows, length, width = x.shape
        size = width // self.shape.heads
        parts = self.qkv(self.norm1(x)).split(self.widths, dim=2)
        q, k, v = (p.view(rows, length, -1, size).transpose(1, 2) for p in parts)
        if self.gate is not None:
            q, k = (rotate(p, *turn).to(v.dtype) for p in (q, k))
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.shape.kv_heads != self.shape.heads
        )
        x = x + self.out(y.transpose(1, 2).reshape(rows, length, width))
        h = self.norm2(x)
        if self.gate is not None:
            return x + self.down(F.silu(self.gate(h)) * self.up(h))
        return x + self.down(F.gelu(self.up(h), approximate="tanh"))


def _norm(shape: Shape) -> nn.Module:
    gpt2 = shape.family == "gpt2"
    return nn.LayerNorm(shape.embed) if gpt2 else nn.RMSNorm(shape.embed, eps=_EPS)


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab, shape.embed)
        gpt2, size = shape.family == "gpt2", shape.embed // shape.heads
        self.positions = nn.Embedding(shape.length, shape.embed) if gpt2 else None
        frequencies = _THETA ** (-torch.arange(0, size, 2) / size)
        angles = torch.arange(shape.length)[:, None] * frequencies
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = _norm(shape)
        for name, p in self.named_parameters():
            small = name.endswith(("out.weight", "down.weight"))
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * shape.layers) if small else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x)
        if self.positions is not None:
            h = h + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h, (self.cos, self.sin))
        logits = self.norm(h) @ self.tokens.weight.T
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), y.reshape(-1))


def matmul_flops(size: int, dtype: str, device: str) -> float:
    """FLOP/s of a large matrix product, best of ten: what PyTorch's own library does here."""
    a = torch.ones((size, size), dtype=getattr(torch, dtype), device=device)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def main() -> None:
    hardware, name, mode = sys.argv[1:]
    shape, gpu = SHAPES[hardware][name], torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if gpu else "highest")
    model = Decoder(shape).to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    # The fused form, on a CPU too: it is PyTorch's fastest.
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=True)
    forward = torch.compile(model) if mode == "compiled" else model
    parameters = sum(p.numel() for p in model.parameters())
    about = {
        "torch": torch.__version__,
        "parameters": parameters,
        "matmul_flops_per_s": matmul_flops(shape.matmul_size(), shape.dtype, device),
    }
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        tokens = torch.randint(32, 127, (shape.rows, shape.length + 1), device=device)
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=shape.dtype == "bfloat16"):
            loss = forward(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        print(json.dumps({"s": time.perf_counter() - began, "loss": value}), flush=True)


if __name__ == "__main__":
    main()
