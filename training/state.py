"""What training carries from step to step, born sharded."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from sharding.table import sharding, tree_shardings


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class TrainState:
    """Attributes:
    params: nested dict, float32.
    opt_state: Optax's.
    step: finished optimizer steps, int32 scalar.
    """

    params: parameters.Params
    opt_state: optax.OptState
    step: jax.Array


def fresh_state(config: ModelConfig, tx: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step."""
    params = parameters.initialize(config, seed)
    return TrainState(params, tx.init(params), jnp.zeros((), jnp.int32))


def abstract_state(
    config: ModelConfig, tx: optax.GradientTransformation, model: Decoder, mesh: Mesh
) -> TrainState:
    """Shape, dtype and sharding of every leaf: what a checkpoint is restored into.

    Optimizer moments lie as their parameters do; counters are replicated.
    """
    shapes = jax.eval_shape(lambda: fresh_state(config, tx, 0))
    shardings = tree_shardings(mesh, parameters.logical_axes(model))
    alone = sharding(mesh, ())
    moments = optax.tree_map_params(
        tx,
        lambda _, where: where,
        shapes.opt_state,
        shardings,
        transform_non_params=lambda _: alone,
    )

    def struct(shape: jax.ShapeDtypeStruct, where: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=where)

    return TrainState(
        jax.tree.map(struct, shapes.params, shardings),
        jax.tree.map(struct, shapes.opt_state, moments),
        jax.tree.map(struct, shapes.step, alone),
    )


def shardings_of(state: Any) -> Any:
    """The sharding of every leaf, of a state or of an abstract one."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)
