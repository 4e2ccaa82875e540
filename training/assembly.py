"""A run's training step on a mesh, ready to be compiled, whether its devices are here or not."""

import dataclasses
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from data import rows
from model import parameters
from model.decoder import Decoder
from sharding.means import means
from sharding.placement import abstract_rows, on_hosts
from training.config import RunConfig
from training.objectives.objective import objective, one_row
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import Fixed, TrainState, abstract_asked, abstract_fixed, abstract_state
from training.step import Step, make_step
from training.tuning import Moving, moving


class Assembly(NamedTuple):
    """Attributes:
    mesh: of all arrays.
    outline: the model without its numbers.
    tx: the optimizer.
    moves: what of the parameters is trained.
    state: shape, dtype and sharding of what the step takes and returns.
    fixed: likewise, of what it only reads.
    step: jitted; compiled for the shapes that it is given.
    """

    mesh: Mesh
    outline: Decoder
    tx: optax.GradientTransformationExtraArgs
    moves: Moving
    state: TrainState
    fixed: Fixed
    step: Step


def assemble(config: RunConfig, mesh: Mesh, teacher: Decoder | None = None) -> Assembly:
    """The step of a run whose vocabulary is known.

    Args:
      teacher: an outline of the decoder that is asked in every step (config.objective).
    """
    steps = config.train.steps
    outline = parameters.outline(config.model, means(mesh, config.model, config.mesh))
    moves = moving(config.tuning, outline)
    tx = make_optimizer(config.optimizer, steps, outline, mesh, moves)
    state = abstract_state(tx, outline, mesh, moves)
    asked = None if teacher is None else abstract_asked(teacher, mesh)
    fixed = Fixed(abstract_fixed(outline, mesh, moves), asked)
    if config.optimizer.offload:
        state = dataclasses.replace(state, opt_state=on_hosts(state.opt_state))
    schedule = learning_rate(config.optimizer, steps)
    minimised = objective(config.objective, config.train.z_loss, teacher)
    step = make_step(outline, tx, schedule, config.train, mesh, state, fixed, minimised)
    return Assembly(mesh, outline, tx, moves, state, fixed, step)


def lowered(config: RunConfig, made: Assembly) -> jax.stages.Lowered:
    """The step of the first stage's batches, to be compiled without any data."""
    length = config.data.sequence_length
    some = rows.empty(1, length) | one_row(config.objective, length)
    batch = abstract_rows(made.mesh, config.train.batch_size, some)
    return made.step.lower(made.state, made.fixed, batch)  # type: ignore[attr-defined]
