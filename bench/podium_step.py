"""Podium's own stream, feed, model and step, of a shape: what the benches of steps time."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bench.shape import BETAS, CLIP, DECAY, LEARNING_RATE, Shape
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
from training.state import TrainState, abstract_state, fresh_state, shardings_of
from training.step import Step, make_step

_STEPS = 100_000


class Prepared(NamedTuple):
    """All that training a shape on the first device needs.

    Attributes:
      attention: the kernel's name.
    """

    step: Step
    state: TrainState
    feed: Feed
    attention: str


class _Text:
    """One document."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.name, self.size = "random", len(text)

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        if not start:
            yield Document("random", self._text), self.size


@contextmanager
def prepared(shape: Shape) -> Iterator[Prepared]:
    """A run of a shape, on one long document of random bytes: every position is predicted."""
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
    state: Any = jax.jit(
        lambda: fresh_state(outline, tx, 0), out_shardings=shardings_of(abstract)
    )()
    train = TrainConfig(steps=_STEPS, batch_size=shape.rows)
    step = make_step(outline, tx, learning_rate(optimizer, _STEPS), train, mesh, abstract)
    rng = np.random.default_rng(0)
    text = bytes(rng.integers(32, 127, 4 * shape.rows * shape.length, dtype=np.uint8)).decode()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PODIUM_CACHE"] = folder
        store = building.build(Path(folder) / "s", [_Text(text)], ByteTokenizer(), {})
        corpus = Corpus("random", store, plan.make(store, shape.length, "concatenate"))
        stage = Stage(0, shape.length, shape.rows, Mixture([1.0]))
        feed = Feed(mesh, Stream([corpus], [stage], 0, {}), 0, _STEPS)
        yield Prepared(step, state, feed, kernel(mesh, config).name)
