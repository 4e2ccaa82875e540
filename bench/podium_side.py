"""Podium's side: its own stream, feed, model and step.

    python -m bench.podium_side cpu gpt2_124m

A line on stdin is one step, a JSON line out.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from bench.shape import BETAS, CLIP, DECAY, LEARNING_RATE, SHAPES
from data import building, plan
from data.documents import Document
from data.mixture import Mixture
from data.stages import Stage
from data.stream import Corpus, Stream
from data.tokenizer import ByteTokenizer
from model import parameters
from sharding.attention import kernel
from sharding.config import MeshConfig
from sharding.feed import Feed
from sharding.means import means
from sharding.mesh import make_mesh
from training.config import OptimizerConfig, TrainConfig
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import abstract_state, fresh_state, shardings_of
from training.step import make_step

_STEPS = 100_000


class _Text:
    """One document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.name, self.size = "random", len(text)

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        if not start:
            yield Document("random", self._text), self.size


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
    config = shape.config()
    optimizer = OptimizerConfig(
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup_steps=0,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=DECAY,
        clip_norm=CLIP,
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    outline = parameters.outline(config, means(mesh, config))
    tx = make_optimizer(optimizer, _STEPS, outline, mesh)
    abstract = abstract_state(tx, outline, mesh)
    state = jax.jit(lambda: fresh_state(config, tx, 0), out_shardings=shardings_of(abstract))()
    train = TrainConfig(steps=_STEPS, batch_size=shape.rows)
    step = make_step(outline, tx, learning_rate(optimizer, _STEPS), train, mesh, abstract)

    # One long document of random bytes: every position is predicted, as on the other side.
    rng = np.random.default_rng(0)
    text = bytes(rng.integers(32, 127, 4 * shape.rows * shape.length, dtype=np.uint8)).decode()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PODIUM_CACHE"] = folder
        store = building.build(Path(folder) / "s", [_Text(text)], ByteTokenizer(), {})
        corpus = Corpus("random", store, plan.make(store, shape.length, "concatenate"))
        stage = Stage(0, shape.length, shape.rows, Mixture([1.0]))
        feed = Feed(mesh, Stream([corpus], [stage], 0, {}), 0, _STEPS)
        attended = kernel(mesh, config).name
        about = {
            "parameters": config.num_params(),
            "attention": attended,
            "matmul_flops_per_s": rate,
        }
        print(json.dumps(about), flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            batch, waited = feed.next()
            state, metrics = step(state, batch)
            loss = float(metrics["loss"])
            seconds = time.perf_counter() - began
            print(json.dumps({"s": seconds, "wait_s": waited, "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
