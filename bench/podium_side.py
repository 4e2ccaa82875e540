"""Podium's side of the bench of steps.

    python -m bench.podium_side cpu gpt2_124m

A line on stdin is one step, a JSON line out.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp

from bench.podium_step import prepared
from bench.shape import SHAPES
from training.state import NOTHING


def matmul_flops(size: int, dtype: str) -> float:
    """FLOP/s of a large matrix product on the first device, best of ten."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def main() -> None:
    hardware, name = sys.argv[1:]
    shape = SHAPES[hardware][name]
    rate = matmul_flops(shape.matmul_size(), shape.dtype)
    with prepared(shape) as run:
        about = {
            "parameters": shape.config().num_params(),
            "attention": run.attention,
            "matmul_flops_per_s": rate,
        }
        print(json.dumps(about), flush=True)
        state = run.state
        for _ in sys.stdin:
            began = time.perf_counter()
            batch, waited = run.feed.next()
            state, metrics = run.step(state, NOTHING, batch)
            loss = float(metrics["loss"])
            seconds = time.perf_counter() - began
            print(json.dumps({"s": seconds, "wait_s": waited, "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
