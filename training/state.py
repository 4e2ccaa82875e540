"""What training carries from step to step, born sharded."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from model import adapters, parameters
from model.decoder import Decoder
from sharding.table import placed, sharding
from training.tuning import ALL, Moving


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fixed:
    """What a step reads and nothing changes.

    Attributes:
      params: of the model, those that do not move: nested dict, in the dtype that they are
        computed with. Empty where all move.
      teacher: the parameters of another model, or None.
    """

    params: parameters.Params = dataclasses.field(default_factory=dict)
    teacher: Any = None


NOTHING = Fixed()


def fresh_state(model: Decoder, tx: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step, where all moves; `model` is an outline."""
    return begun(parameters.initialize(model.config, seed, model.means), tx)


def started(
    model: Decoder,
    tx: optax.GradientTransformation,
    seed: int,
    moves: Moving,
    params: parameters.Params,
    fixed: parameters.Params,
) -> TrainState:
    """The state before the first step of what starts from parameters that are there.

    Args:
      model: an outline.
      tx: the optimizer.
      seed: of adapters, which alone are fresh.
      moves: what moves.
      params, fixed: what of it is there, and what does not move.
    """
    if model.config.adapter.kind == "none":
        return begun(params, tx)
    fresh = moves.of(parameters.initialize(model.config, seed, model.means))
    whole = parameters.joined(fresh, parameters.joined(params, fixed))
    return begun(moves.of(adapters.begun(model.config, whole)), tx)


def begun(params: parameters.Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step from these parameters on."""
    return TrainState(params, tx.init(params), jnp.zeros((), jnp.int32))


def abstract_params(model: Decoder, mesh: Mesh) -> parameters.Params:
    """Shape, dtype and sharding of every parameter of `model`, which may be an outline."""
    return placed(mesh, parameters.logical_axes(model), parameters.shapes(model))


def abstract_fixed(model: Decoder, mesh: Mesh, moves: Moving) -> parameters.Params:
    """Shape, dtype and sharding of the parameters that do not move."""
    return moves.fixed(abstract_asked(model, mesh))


def abstract_asked(model: Decoder, mesh: Mesh) -> parameters.Params:
    """Likewise of a model that is only asked: in the dtypes that it computes with."""
    dtypes = parameters.computed_in(model)

    def cast(leaf: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=leaf.sharding)

    return jax.tree.map(cast, abstract_params(model, mesh), dtypes)


def abstract_state(
    tx: optax.GradientTransformation, model: Decoder, mesh: Mesh, moves: Moving = ALL
) -> TrainState:
    """Shape, dtype and sharding of every leaf: what a checkpoint is restored into.

    What an optimizer keeps of a parameter lies as the parameter does, where it keeps one dimension
    less along those that are left; all else is replicated.
    """

    def place(names: tuple[str, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        where = sharding(mesh, names, leaf.shape if names else None)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return _mapped(place, tx, model, moves)


def stacked(tx: optax.GradientTransformation, model: Decoder, moves: Moving = ALL) -> TrainState:
    """Of every leaf whether its first dimension is layers."""
    return _mapped(lambda names, leaf: names[:1] == ("layers",), tx, model, moves)


def _mapped(
    function: Callable[[tuple[str, ...], jax.ShapeDtypeStruct], Any],
    tx: optax.GradientTransformation,
    model: Decoder,
    moves: Moving,
) -> TrainState:
    """Applies a function to the logical axes of every leaf of the state (none of what is not kept
    of a parameter), and to its shape and dtype.
    """
    params = moves.of(parameters.shapes(model))
    axes = {
        path: (names, param.shape)
        for (path, names), param in zip(
            jax.tree_util.tree_flatten_with_path(
                moves.of(parameters.logical_axes(model)), is_leaf=lambda a: isinstance(a, tuple)
            )[0],
            jax.tree.leaves(params),
            strict=True,
        )
    }

    def call(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Any:
        # The path of what is kept of a parameter ends with that of the parameter.
        of = next((axes[path[i:]] for i in range(len(path)) if path[i:] in axes), None)
        return function(() if of is None else _left(*of, leaf.shape), leaf)

    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(params, jax.eval_shape(tx.init, params), step)
    return jax.tree_util.tree_map_with_path(call, state)


def _left(names: tuple[str, ...], of: tuple[int, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    """The logical axes of what is kept of a parameter: all of its, or all but one, or none."""
    if shape == of:
        return names
    for i in reversed(range(len(of))):  # layers come first, and are kept
        if shape == of[:i] + of[i + 1 :]:
            return names[:i] + names[i + 1 :]
    return ()


def shardings_of(state: Any) -> Any:
    """The sharding of every leaf, of a state or of an abstract one."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)
