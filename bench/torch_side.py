"""PyTorch's side: a decoder of nanoGPT's shape. A line on stdin is one step, a JSON line out.

Eager on a CPU; on a GPU compiled, in bfloat16, with PyTorch's flash attention.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from bench.shape import BETAS, CLIP, CPU, DECAY, GPU, LEARNING_RATE, Shape


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        width, self.heads = shape.embed, shape.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (p.view(rows, length, self.heads, -1).transpose(1, 2) for p in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Decoder(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab, shape.embed)
        self.positions = nn.Embedding(shape.length, shape.embed)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.embed)
        for name, p in self.named_parameters():
            small = name.endswith(("out.weight", "down.weight"))
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * shape.layers) if small else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        logits = self.norm(h) @ self.tokens.weight.T
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), y.reshape(-1))


def main() -> None:
    gpu = torch.cuda.is_available()
    device, shape = ("cuda", GPU) if gpu else ("cpu", CPU)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if gpu else "highest")
    model = Decoder(shape).to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, fused=gpu)
    forward = torch.compile(model) if gpu else model
    print("ready", flush=True)
    for _ in sys.stdin:
        tokens = torch.randint(32, 127, (shape.rows, shape.length + 1), device=device)
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            loss = forward(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        print(json.dumps({"s": time.perf_counter() - began, "loss": value}), flush=True)


if __name__ == "__main__":
    main()
