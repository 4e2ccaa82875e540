"""What training carries from step to step, born sharded."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from sharding.table import placed, sharding


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


def abstract_params(model: Decoder, mesh: Mesh) -> parameters.Params:
    """Shape, dtype and sharding of every parameter of `model`, which may be an outline."""
    return placed(mesh, parameters.logical_axes(model), parameters.shapes(model))


def abstract_state(tx: optax.GradientTransformation, model: Decoder, mesh: Mesh) -> TrainState:
    """Shape, dtype and sharding of every leaf: what a checkpoint is restored into.

    Optimizer moments lie as their parameters do; counters are replicated.
    """
    params = abstract_params(model, mesh)
    opt_state = jax.eval_shape(tx.init, params)
    alone = sharding(mesh, ())

    def counter(shape: jax.ShapeDtypeStruct) -> Any:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=alone)

    moments = optax.tree_map_params(
        tx,
        lambda moment, like: jax.ShapeDtypeStruct(
            moment.shape, moment.dtype, sharding=like.sharding
        ),
        opt_state,
        params,
        transform_non_params=counter,
    )
    return TrainState(params, moments, counter(jax.ShapeDtypeStruct((), jnp.int32)))


def shardings_of(state: Any) -> Any:
    """The sharding of every leaf, of a state or of an abstract one."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)
