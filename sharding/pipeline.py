"""Layers in stages (see sharding/schedule.py), as one program of all devices.

What the stages work on is an array whose first dimension lies along `pipeline`. In an iteration of
a loop each stage calls a group of its layers (`jax.vmap` over the first dimension, so that all
that is inside is split as it is without stages), and hands on the result (a collective-permute).

A stage calculates in every iteration. Where it has nothing to do it works on rows that it has at
hand, and nothing comes of it: neither a result nor, in the backward pass, a gradient.

The backward pass keeps, of each iteration, what `remat` keeps of a stage's layers: over all of
them rounds x microbatches + stages - 1 times a group. But for the last term that is what is kept
without stages, where the batch is split over as many devices. Beside it each device has the
inputs of the first stage and the outputs of the last, of all its rows.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.layers import Layer, Loop, RunLayers
from sharding import collectives
from sharding.config import MeshConfig
from sharding.schedule import Schedule, schedule
from sharding.table import mesh_axes, sharding

_AXIS, _ENTERING = "pipeline", "entering"

_FORMS = frozenset(
    "convert_element_type reshape transpose squeeze broadcast_in_dim gather slice dynamic_slice "
    "select_n sharding_constraint all_gather".split()
)
"""Primitives whose results are other forms of what they are given: computed anew for nothing."""


def runner(mesh: Mesh, config: MeshConfig) -> RunLayers:
    """The `run_layers` that the model is handed; layers are stacked in `schedule.order`."""

    def run(
        layer: Layer, x_BTD: jax.Array, stacked: Any, rows: Any, loop: Loop
    ) -> tuple[jax.Array, Any]:
        plan = schedule(mesh, config, x_BTD.shape[0])
        return _run(mesh, plan, layer, x_BTD, stacked, rows, loop)

    return run


def _run(
    mesh: Mesh, plan: Schedule, layer: Layer, x_BTD: jax.Array, stacked: Any, rows: Any, loop: Loop
) -> tuple[jax.Array, Any]:
    """Suffixes: P is stages, M microbatches; B rows of all (x_BTD) or of one."""
    stages, rounds, count = plan.stages, plan.rounds, plan.microbatches
    stage_P = jnp.arange(stages)
    place, hand_on = functools.partial(_placed, mesh), _handing_on(mesh, ring=rounds > 1)

    def cut(x: jax.Array) -> jax.Array:
        """[B, ...] -> [B, M, ...]: row r to microbatch r % M, so rows stay on their devices."""
        return x.reshape(-1, count, *x.shape[1:])

    # What the stages have: [P, rounds, layers of a group, ...].
    weights = jax.tree.map(lambda w: place(w.reshape(stages, rounds, -1, *w.shape[1:])), stacked)
    rows = jax.tree.map(cut, rows)
    # The inputs are everywhere: so each stage has them without an exchange, and so has their
    # gradient none until the end.
    inputs_PBMTD = place(jnp.broadcast_to(cut(x_BTD), (stages, *cut(x_BTD).shape)))
    if loop.keep is not None:
        layer = jax.checkpoint(layer, policy=loop.keep, prevent_cse=False)
    call = jax.vmap(layer, spmd_axis_name=_AXIS)

    @functools.partial(jax.checkpoint, policy=_kept(loop), prevent_cse=False)
    def group(
        x_PBTD: jax.Array, first: jax.Array, begins_P: jax.Array, round_P: jax.Array, rows: Any
    ) -> tuple[jax.Array, Any]:
        """Each stage's layers of a round; extras [layers of a group, P, B, ...]."""
        x_PBTD = jnp.where(begins_P[:, None, None, None], first, x_PBTD)
        mine = jax.tree.map(lambda w: place(_each(w, round_P)).swapaxes(0, 1), weights)
        return jax.lax.scan(
            lambda x, w: call(checkpoint_name(x, _ENTERING), w, rows),
            x_PBTD,
            mine,
            unroll=min(loop.unroll, jax.tree.leaves(mine)[0].shape[0]),
        )

    def iteration(carry: tuple[jax.Array, jax.Array], index: jax.Array) -> Any:
        x_PBTD, outputs_PBMTD = carry
        microbatch_P, round_P = plan.item(index - stage_P)
        entering, entered = plan.item(index)
        begins_P = (stage_P == 0) & (entered == 0)
        first = jax.lax.dynamic_index_in_dim(inputs_PBMTD, entering, 2, keepdims=False)
        here = jax.tree.map(lambda a: place(jnp.moveaxis(a[:, microbatch_P], 1, 0)), rows)
        x_PBTD, extras = group(x_PBTD, first, begins_P, round_P, here)
        # Of the last stage alone; what is not of its last round is written over by what is.
        leaving, _ = plan.item(index - (stages - 1))
        outputs_PBMTD = jax.lax.dynamic_update_index_in_dim(outputs_PBMTD, x_PBTD, leaving, 2)
        return (hand_on(x_PBTD), outputs_PBMTD), extras

    # Rows that are at hand: what is calculated from zeros could be no number.
    start = (inputs_PBMTD[:, :, 0], jnp.zeros_like(inputs_PBMTD))
    (_, outputs_PBMTD), extras = jax.lax.scan(iteration, start, jnp.arange(plan.iterations))
    is_last = (stage_P == stages - 1).reshape(-1, 1, 1, 1, 1)
    outputs_BMTD = _summed(mesh, jnp.where(is_last, outputs_PBMTD, 0))
    return outputs_BMTD.reshape(x_BTD.shape), jax.tree.map(
        functools.partial(_in_depth_order, plan), extras
    )


def _each(w: jax.Array, round_P: jax.Array) -> jax.Array:
    """[P, rounds, ...] -> [P, ...]: of each stage the weights of its round."""
    if w.shape[1] == 1:
        return w[:, 0]
    return jax.vmap(lambda w, r: jax.lax.dynamic_index_in_dim(w, r, keepdims=False))(w, round_P)


def _kept(loop: Loop) -> Callable[..., Any]:
    """What of an iteration is kept for the backward pass: never weights, which would be kept once
    more in every iteration, as chosen for a round or as cast.

    What layers keep by name, and what enters each. If they keep all: what is more than another
    form of something.
    """
    if loop.keep is not None:
        entering = jax.checkpoint_policies.save_only_these_names(_ENTERING)
        return jax.checkpoint_policies.save_from_both_policies(entering, loop.keep)
    return lambda primitive, *_, **__: primitive.name not in _FORMS


def _placed(mesh: Mesh, x: jax.Array) -> jax.Array:
    """The first dimension along `pipeline`; of the others nothing is said."""
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    where = NamedSharding(mesh, PartitionSpec(_AXIS, *rest))
    return jax.lax.with_sharding_constraint(x, where)


def _handing_on(mesh: Mesh, ring: bool) -> Callable[[jax.Array], jax.Array]:
    """What each stage has made to the next one; in a ring from the last one to the first."""
    stages = mesh.shape[_AXIS]
    pairs = [(s, (s + 1) % stages) for s in range(stages if ring else stages - 1)]

    def hand_on(x_PBTD: jax.Array) -> jax.Array:
        axes = ("stages", "batch", "act_length", "act_embed")
        where: Any = sharding(mesh, axes, x_PBTD.shape).spec
        return jax.shard_map(
            lambda x: jax.lax.ppermute(x, _AXIS, pairs),
            mesh=mesh,
            in_specs=where,
            out_specs=where,
            check_vma=False,
        )(x_PBTD)

    return hand_on


def _summed(mesh: Mesh, x_PBMTD: jax.Array) -> jax.Array:
    """The sum over stages, of which each keeps a part of the length, if that can be."""
    if _AXIS not in mesh_axes(mesh, "head_length", x_PBMTD.shape[3]):
        return jax.lax.reduce_sum(x_PBMTD, (0,))
    before = ("stages", "batch", "whole", "act_length", "act_embed")
    after = ("batch", "whole", "head_length", "act_embed")
    given: Any = sharding(mesh, before, x_PBMTD.shape).spec
    result: Any = sharding(mesh, after, x_PBMTD.shape[1:]).spec
    return jax.shard_map(
        lambda x: collectives.scattered(x[0], (_AXIS,), 2),
        mesh=mesh,
        in_specs=given,
        out_specs=result,
        check_vma=False,
    )(x_PBMTD)


def _in_depth_order(plan: Schedule, x: jax.Array) -> jax.Array:
    """[iterations, layers of a group, P, B, ...] -> [L, B, ...] of all rows."""
    x = jnp.moveaxis(x, 2, 0)
    # The items of stage s are those of iterations s, s + 1, ...
    began = jnp.arange(plan.stages)
    cut = jax.vmap(lambda x, s: jax.lax.dynamic_slice_in_dim(x, s, plan.items))
    x = cut(x, began)
    x = x.reshape(plan.stages, -1, plan.rounds, plan.together, *x.shape[2:])
    # [P, turns, rounds, together, size, B, ...] -> [rounds, P, size, B, turns, together, ...]
    x = x.transpose(2, 0, 4, 5, 1, 3, *range(6, x.ndim))
    rounds, stages, size, rows, turns, together = x.shape[:6]
    return x.reshape(rounds * stages * size, rows * turns * together, *x.shape[6:])
