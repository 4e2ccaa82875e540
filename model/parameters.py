"""A decoder's parameters as a nested dict of arrays: what is trained, sharded and saved."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from model.adapters import SUFFIX
from model.config import ModelConfig
from model.decoder import Decoder
from model.layers import ON_ONE, Means

Params = dict[str, Any]


def outline(config: ModelConfig, means: Means = ON_ONE) -> Decoder:
    """A decoder without values: shapes, dtypes and logical axes, made without any computation."""
    return nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0), means))


def shapes(model: Decoder) -> Params:
    """ShapeDtypeStruct of every parameter."""
    structs = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), structs)


def logical_axes(model: Decoder) -> Params:
    """The logical axes of every parameter, a tuple of names.

    Blocks are stacked, so their parameters have one more axis than a block gave them: `layers`.
    """

    def named(path: tuple[Any, ...], param: nnx.Variable) -> tuple[str, ...]:
        axes: tuple[str, ...] = param.get_metadata("axes")
        return ("layers", *axes) if path[0] in ("dense_blocks", "blocks") else axes

    return nnx.to_pure_dict(nnx.map_state(named, nnx.state(model, nnx.Param)))


def stacked(model: Decoder) -> Params:
    """Of every parameter whether its first dimension is layers."""
    axes = logical_axes(model)
    return jax.tree.map(lambda a: a[0] == "layers", axes, is_leaf=lambda a: isinstance(a, tuple))


def _in_float32(axes: tuple[str, ...]) -> bool:
    """Whether a parameter with these axes is added, scaled by or routed with in float32."""
    return not {"norm", "position", "router"}.isdisjoint(axes)


def in_compute_dtype(model: Decoder, params: Params) -> Params:
    """The parameters with every matrix in the dtype that it is multiplied in.

    For decoding, which would otherwise read float32 and cast it again for every token. What is
    added, scaled or routed in float32 stays float32: norms and their kin, positions, routers.
    """
    dtype = jnp.dtype(model.config.dtype)
    if dtype == jnp.float32:
        return params

    def cast(axes: tuple[str, ...], param: jax.Array) -> jax.Array:
        return param if _in_float32(axes) else param.astype(dtype)

    axes = logical_axes(model)
    where = jax.tree.map(lambda param: param.sharding, params)
    return jax.jit(
        lambda params: jax.tree.map(cast, axes, params, is_leaf=lambda a: isinstance(a, tuple)),
        out_shardings=where,
    )(params)


def computed_in(model: Decoder) -> Params:
    """Of every parameter the dtype in which it enters what is computed with it: cast to that
    before, it gives the same to the bit.
    """
    config = model.config

    def dtype(path: tuple[Any, ...], axes: tuple[str, ...]) -> Any:
        exact = _in_float32(axes) or path[-1].key == "sinks"
        if path[-1].key == "embedding" and config.positions == "learned":
            exact = True  # they are added in float32
        return jnp.dtype(jnp.float32 if exact else config.dtype)

    return jax.tree_util.tree_map_with_path(
        dtype, logical_axes(model), is_leaf=lambda a: isinstance(a, tuple)
    )


def apart(model: Decoder, params: Params) -> Params:
    """The parameters of stacked layers as tuples, an array for each layer (model/cache.py)."""

    def split(stacked: bool, param: jax.Array) -> Any:
        return tuple(param[layer] for layer in range(param.shape[0])) if stacked else param

    return jax.tree.map(split, stacked(model), params)


def joined(some: Params, others: Params) -> Params:
    """Parameters of which each of two trees has its own."""
    both = {name: joined(some[name], others[name]) for name in some.keys() & others.keys()}
    return {**some, **others, **both}


def part(tree: Params, names: Collection[str]) -> Params:
    """Of a tree what has these names, dotted."""

    def chosen(tree: Params, prefix: str) -> Params:
        found: Params = {}
        for name, value in tree.items():
            if isinstance(value, dict):
                found |= {name: inner} if (inner := chosen(value, f"{prefix}{name}.")) else {}
            elif prefix + name in names:
                found[name] = value
        return found

    return chosen(tree, "")


def without_adapters(tree: Params) -> Params:
    """Of a tree what is not beside another parameter (model/adapters.py)."""
    left = {
        name: without_adapters(value) if isinstance(value, dict) else value
        for name, value in tree.items()
        if not name.endswith(SUFFIX)
    }
    return {name: value for name, value in left.items() if not isinstance(value, dict) or value}


def initialize(config: ModelConfig, seed: int, means: Means = ON_ONE) -> Params:
    """Fresh parameters, float32. Jit it with out_shardings, and they are born sharded."""
    return nnx.to_pure_dict(nnx.state(Decoder(config, nnx.Rngs(seed), means), nnx.Param))


def bind(model: Decoder, params: Params) -> Decoder:
    """The decoder with these values: `model` (an outline will do) itself stays as it is."""
    definition, state = nnx.split(model)
    state = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(definition, state)
