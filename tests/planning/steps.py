"""A training step as train.py makes it, for devices that need not be here."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from model import parameters
from model.config import ModelConfig
from sharding.config import MeshConfig
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.placement import abstract_rows
from training.config import OptimizerConfig, TrainConfig
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import NOTHING, abstract_state
from training.step import make_step

ROWS = 2  # on a device


def lowered(
    model: ModelConfig, layout: MeshConfig, devices: Sequence[jax.Device]
) -> tuple[jax.stages.Lowered, Mesh]:
    mesh = make_mesh(layout, devices)
    optimizer, train = OptimizerConfig(), TrainConfig(batch_size=ROWS * len(devices))
    outline = parameters.outline(model, means(mesh, model))
    tx = make_optimizer(optimizer, train.steps, outline, mesh)
    state = abstract_state(tx, outline, mesh)
    step: Any = make_step(outline, tx, learning_rate(optimizer, train.steps), train, mesh, state)
    ints = ("tokens", "targets", "segments", "positions", "bytes")
    some: dict[str, np.ndarray] = {name: np.zeros((1, model.max_length), np.int32) for name in ints}
    some["weights"] = np.zeros((1, model.max_length), np.float32)
    return step.lower(state, NOTHING, abstract_rows(mesh, train.batch_size, some)), mesh
