"""A small run as train.py sets it up, on any mesh."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from sharding.config import MeshConfig
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.placement import place_rows
from training.config import OptimizerConfig, TrainConfig
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import TrainState, abstract_state, fresh_state, shardings_of
from training.step import Step, make_step

STEPS, ROWS, LENGTH = 20, 16, 16
MODEL = ModelConfig(
    vocab_size=120,
    num_layers=2,
    embed_dim=32,
    num_heads=8,
    num_kv_heads=8,
    head_dim=4,
    mlp_dim=64,
    max_length=LENGTH,
)
GROUPED = dataclasses.replace(MODEL, num_kv_heads=2)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=2)


class Run(NamedTuple):
    mesh: Mesh
    outline: Decoder
    abstract: TrainState
    state: TrainState
    step: Step


def mesh_of(data: int = 1, fsdp: int = 1, tensor: int = 1, **others: int) -> Mesh:
    """The mesh of the first devices, as many as the sizes of its axes ask for."""
    sizes: dict[str, Any] = {"data": data, "fsdp": fsdp, "tensor": tensor, **others}
    return make_mesh(MeshConfig(**sizes), jax.devices()[: math.prod(sizes.values())])


def begin(
    mesh: Mesh,
    model: ModelConfig = MODEL,
    train: TrainConfig | None = None,
    optimizer: OptimizerConfig = OPTIMIZER,
    layout: MeshConfig | None = None,
) -> Run:
    train = train or TrainConfig(steps=STEPS, batch_size=ROWS, z_loss=1e-3)
    outline = parameters.outline(model, means(mesh, model, layout))
    tx = make_optimizer(optimizer, train.steps, outline, mesh)
    schedule = learning_rate(optimizer, train.steps)
    abstract = abstract_state(tx, outline, mesh)
    state = jax.jit(lambda: fresh_state(outline, tx, 0), out_shardings=shardings_of(abstract))()
    step = make_step(outline, tx, schedule, train, mesh, abstract)
    return Run(mesh, outline, abstract, state, step)


@functools.cache
def batch(index: int) -> dict[str, np.ndarray]:
    """Rows of two documents, the last of them unequally padded; some rows are all padding."""
    rng = np.random.default_rng(index)
    tokens = rng.integers(0, 120, (ROWS, LENGTH + 1)).astype(np.int32)
    length = rng.integers(3, LENGTH + 1, (ROWS, 1))
    length[[1, 5, 9]] = 0  # unequally over the microbatches of 2 and 4
    column = np.tile(np.arange(LENGTH), (ROWS, 1))
    real = column < length
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segments": np.where(real, 1 + (column >= 6), 0).astype(np.int32),
        "positions": np.where(column >= 6, column - 6, column).astype(np.int32),
        "weights": real.astype(np.float32),
        "bytes": (real * rng.integers(1, 5, (ROWS, LENGTH))).astype(np.int32),
    }


def placed(mesh: Mesh, index: int) -> dict[str, jax.Array]:
    return place_rows(mesh, ROWS, lambda rows: {k: v[rows] for k, v in batch(index).items()})


def host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, jax.device_get(tree))
