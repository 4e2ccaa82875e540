"""Mixtures of experts on a mesh: which kernel multiplies, and what each device has of what.

Each device computes for its own tokens: rows are split over `data`, `fsdp` and `expert`, their
length over `context`. Without `expert`, every device has all experts while it computes: their
weights are gathered along `fsdp` and `context`, in the dtype that they are multiplied in, once a
layer and pass. With it a device has a part of the experts, and tokens travel to them and back
(sharding/rounds.py). `tensor` splits the hidden width of each expert: its devices add up what they
have of the outputs, and each keeps its part of the length.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from model import grouped as xla
from model.config import ModelConfig
from model.grouped import Grouped
from model.kernels import megablox
from model.layers import Experts, ExpertWeights
from model.mlp import ACTIVATIONS
from model.moe import on_one
from sharding import collectives
from sharding.rounds import Ring, in_rounds
from sharding.table import mesh_axes, sharding

_TOKENS = ("stages", "batch", "length")  # what devices that have other tokens differ in


class Kernel(NamedTuple):
    """Attributes:
    name: for people.
    grouped: see model/grouped.py.
    """

    name: str
    grouped: Grouped


def kernel(mesh: Mesh, config: ModelConfig) -> Kernel:
    """What multiplies with experts on the devices of a mesh, whether they are here or not.

    On TPUs Megablox: XLA has a kernel of its own for v5p, but on v5e and v6e multiplies every row
    with every expert. In float32 Megablox would multiply with less than its precision.
    """
    if mesh.devices.flat[0].platform == "tpu" and config.dtype == "bfloat16":
        return Kernel("Megablox (Pallas)", megablox.grouped)
    return Kernel("ragged dot (XLA)", xla.ragged)


def is_ragged(mesh: Mesh) -> bool:
    """Whether only the rows there are travel between devices, or all the room for them does.

    CPUs cannot, nor can more than 16 chips of v5e: its compiler has no ragged exchange for their
    links (libtpu 0.0.52). So that fewer compute what more do, v5e never does.
    """
    device = mesh.devices.flat[0]
    return device.platform != "cpu" and device.device_kind != "TPU v5 lite"


def experts(mesh: Mesh, config: ModelConfig) -> Experts | None:
    """The `experts` that the model is handed; None for a dense model."""
    if not config.moe.num_experts:
        return None
    here = on_one(kernel(mesh, config).grouped, ACTIVATIONS[config.mlp])
    if mesh.size == 1:
        return here
    if axes := mesh_axes(mesh, "experts", config.moe.num_experts):
        ring = Ring(
            config,
            kernel(mesh, config).grouped,
            axes,
            mesh.shape[axes[0]],
            tokens=tuple(axis for name in _TOKENS for axis in mesh_axes(mesh, name, None)),
            ragged=is_ragged(mesh),
        )
        here = functools.partial(in_rounds, ring)
    return functools.partial(_on_mesh, mesh, here, config.remat == "none")


def _on_mesh(
    mesh: Mesh,
    here: Experts,
    keeps: bool,
    x_BTD: jax.Array,
    ids_BTA: jax.Array,
    weights_BTA: jax.Array,
    of: ExpertWeights,
) -> jax.Array:
    """`here` on every device, with its tokens and, of the experts it has, all of D.

    Args:
      keeps: the backward pass finds all that the forward pass made (remat "none").
    """

    def spec(axes: tuple[str, ...], x: jax.Array) -> Any:
        return sharding(mesh, axes, x.shape).spec

    embed = mesh_axes(mesh, "expert_embed", None)
    hidden = mesh_axes(mesh, "mlp", None)
    between = mesh_axes(mesh, "act_length", x_BTD.shape[1])

    def whole(axes: tuple[str, ...], w: jax.Array) -> jax.Array:
        if "expert_embed" not in axes:
            return w
        return collectives.gathered(w, embed, axes.index("expert_embed"))

    def on_device(
        x_BTD: jax.Array, ids_BTA: jax.Array, weights_BTA: jax.Array, of: ExpertWeights
    ) -> jax.Array:
        of = _each(whole, of)
        if of.down_bias_ED is not None and hidden:  # it is added up over them, and is meant once
            first = collectives.index(hidden) == 0
            of = of._replace(down_bias_ED=jnp.where(first, of.down_bias_ED, 0))
        y_BTD = here(x_BTD, ids_BTA, weights_BTA, of)
        if set(hidden) <= set(between):
            return collectives.scattered(y_BTD, hidden, 1)
        return collectives.total(y_BTD, hidden)

    chosen = ("batch", "length", "whole")
    return jax.shard_map(
        collectives.gathering_again(on_device) if keeps else on_device,
        mesh=mesh,
        in_specs=(
            spec(("batch", "length", "act_embed"), x_BTD),
            spec(chosen, ids_BTA),
            spec(chosen, weights_BTA),
            _each(spec, of),
        ),
        out_specs=spec(("batch", "act_length", "act_embed"), x_BTD),
        check_vma=False,  # kernels do not say which axes their results vary along
    )(x_BTD, ids_BTA, weights_BTA, of)


def _each(function: Callable[[tuple[str, ...], jax.Array], Any], of: ExpertWeights) -> Any:
    """A function of the logical axes, and the array, of each weight."""
    letters = {"E": "experts", "D": "expert_embed", "F": "mlp"}
    biases = {**letters, "D": "norm"}

    def one(name: str, w: jax.Array | None) -> Any:
        names = biases if "bias" in name else letters
        axes = tuple(names[letter] for letter in name.rpartition("_")[2])
        return None if w is None else function(axes, w)

    return ExpertWeights(*(one(*pair) for pair in zip(of._fields, of, strict=True)))
