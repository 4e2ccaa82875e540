"""Stacked layers in the order of depth, in which they are saved, or of stages, as they are trained.

With one round both are the same. With more, a stage's layers are not those that follow each other
(see sharding/schedule.py). A checkpoint is the same whatever the mesh, so whole groups of layers
travel before it is written and after it is read: each once, and never more than one for a device at
a time.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_AXIS = "pipeline"


class LayerOrder(NamedTuple):
    """Attributes:
    mesh: of all arrays.
    rounds: that a microbatch makes through the stages.
    stacked: tree of a form: whether the first dimension of an array is layers.
    """

    mesh: Mesh
    rounds: int
    stacked: Any

    def by_depth(self, tree: Any, keep: Callable[[jax.Array], jax.Array] | None = None) -> Any:
        """Arrays whose layers are in the order of stages, in the order of depth.

        Args:
          tree: of the form of `stacked`.
          keep: what becomes of each array that is another than before, at once.
        """
        return self._each(tree, False, keep or (lambda x: x))

    def by_stage(self, tree: Any) -> Any:
        """Arrays whose layers are in the order of depth, in the order of stages.

        Those given are used up.
        """
        return self._each(tree, True, lambda x: x)

    def _each(self, tree: Any, to_stages: bool, keep: Callable[[jax.Array], jax.Array]) -> Any:
        if self.rounds == 1:
            return tree

        def one(x: jax.Array, is_stacked: bool) -> jax.Array:
            if not is_stacked:
                return x
            where = x.sharding
            assert isinstance(where, NamedSharding)
            x = jax.device_put(x, where.with_memory_kind(_device_memory(self.mesh)))
            x = _exchange(self.mesh, self.rounds, where.spec, to_stages)(x)
            return keep(jax.device_put(x, where))

        return jax.tree.map(one, tree, self.stacked)


def on_host(x: jax.Array) -> jax.Array:
    """The same in the memory of the hosts: what a checkpoint is written from."""
    return jax.block_until_ready(jax.device_put(x, x.sharding.with_memory_kind("pinned_host")))


def _device_memory(mesh: Mesh) -> str:
    return str(mesh.devices.flat[0].default_memory().kind)


@functools.cache
def _exchange(
    mesh: Mesh, rounds: int, spec: PartitionSpec, to_stages: bool
) -> Callable[[jax.Array], jax.Array]:
    """Stages and their slots: group g of layers is in slot g // stages of stage g % stages; in the
    order of depth in slot g % rounds of stage g // rounds.
    """
    stages = mesh.shape[_AXIS]
    by_stage = [(g % stages, g // stages) for g in range(stages * rounds)]
    by_depth = [(g // rounds, g % rounds) for g in range(stages * rounds)]
    before, after = (by_depth, by_stage) if to_stages else (by_stage, by_depth)
    # In each of `rounds` turns every stage sends one group, and gets one.
    turns: list[list[int]] = [[] for _ in range(rounds)]
    for g in range(stages * rounds):
        turns[(g + g // math.lcm(stages, rounds)) % rounds].append(g)

    def on_device(x: jax.Array) -> jax.Array:
        stage = jax.lax.axis_index(_AXIS)
        slots = x.reshape(rounds, -1, *x.shape[1:])
        result = jnp.zeros_like(slots)
        for groups in turns:
            sent, got = (
                jnp.array([slot for _, slot in sorted(places[g] for g in groups)])[stage]
                for places in (before, after)
            )
            group = jax.lax.dynamic_index_in_dim(slots, sent, keepdims=False)
            pairs = [(before[g][0], after[g][0]) for g in groups]
            group = jax.lax.ppermute(group, _AXIS, pairs)
            result = jax.lax.dynamic_update_index_in_dim(result, group, got, 0)
        return result.reshape(x.shape)

    moved = jax.shard_map(on_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.jit(moved, donate_argnums=0 if to_stages else ())
