"""Trains the same GPT-2-shaped model in Podium and in PyTorch, step by step in turn.

    python -m bench step --torch_python=PYTHON

PyTorch is no dependency: --torch_python names an interpreter that has it. On a GPU the same
command takes GPT-2 124M at length 1024 in bfloat16, against compiled PyTorch, and adds the MFU
against the rate of a large matrix product measured there.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import app, flags

from bench.shape import CPU, GPU
from reporting.environment import describe

ROUNDS = flags.DEFINE_integer("rounds", 12, "Counted steps of each side.", lower_bound=1)
TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "A Python interpreter that has PyTorch."
)
OUT = flags.DEFINE_string("out", "", "Also write the result there, as JSON.")

_WARM_UP = 3


class Side:
    """One side, in a process of its own."""

    def __init__(self, python: str, module: str):
        self._process = subprocess.Popen(
            [python, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.works = self._process.stdout.readline().strip() == "ready"

    def step(self) -> dict[str, float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def matmul_flops() -> float:
    """FLOP/s of a large bfloat16 matrix product on the first device, best of ten."""
    a = jnp.ones((8192, 8192), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * 8192**3 / min(seconds)


def main(argv: list[str]) -> None:
    del argv
    gpu = jax.default_backend() == "gpu"
    shape = GPU if gpu else CPU
    rate = matmul_flops() if gpu else None
    podium = Side(sys.executable, "bench.podium_side")
    torch = Side(TORCH_PYTHON.value, "bench.torch_side")
    if not torch.works:
        print(
            "PyTorch did not start: install it (pip install torch) into an environment of its own "
            "and give --torch_python=THAT/bin/python. Podium is measured alone.",
            file=sys.stderr,
        )
    sides = {"podium": podium} | ({"torch": torch} if torch.works else {})
    records: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for index in range(_WARM_UP + ROUNDS.value):
        for name, side in sides.items():
            record = side.step()
            if index >= _WARM_UP:
                records[name].append(record)
    for side in sides.values():
        side.close()

    tokens = shape.rows * shape.length
    result: dict[str, object] = {"shape": shape._asdict(), "environment": describe()}
    for name, steps in records.items():
        seconds = statistics.median(r["s"] for r in steps)
        result[name] = {"step_s": seconds, "tokens_per_s": tokens / seconds}
        print(
            f"{name:7} {seconds:7.3f} s a step  {tokens / seconds:9.0f} tokens/s  "
            f"last loss {steps[-1]['loss']:.3f}"
        )
    waits = sum(r["wait_s"] for r in records["podium"]) / sum(r["s"] for r in records["podium"])
    result["data_wait_share"] = waits
    print(f"waiting for data: {waits:.2%} of Podium's step")
    if torch.works:
        ratios = [t["s"] / p["s"] for p, t in zip(records["podium"], records["torch"], strict=True)]
        result["ratio"] = statistics.median(ratios)
        print(
            f"Podium is {result['ratio']:.2f} x PyTorch (median of {len(ratios)} pairs, "
            f"{min(ratios):.2f} to {max(ratios):.2f})"
        )
    if rate is not None:
        seconds = statistics.median(r["s"] for r in records["podium"])
        mfu = shape.config().flops_per_token(shape.length) * tokens / seconds / rate
        result["mfu_of_measured_matmul"] = mfu
        print(f"MFU {mfu:.1%} of the measured {rate / 1e12:.0f} TFLOP/s")
    print(", ".join(f"{k} {v}" for k, v in describe().items()))
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
