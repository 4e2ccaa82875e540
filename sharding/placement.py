"""Activations and host arrays onto the mesh."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from sharding.table import sharding, ways

Spread = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]
"""spread(function, x) -> function(x), for one that treats x[0], x[1], ... alike and apart."""


def constrainer(mesh: Mesh) -> Callable[[jax.Array, tuple[str, ...]], jax.Array]:
    """The `constrain` that the model is handed: pins an activation to its rows of the table."""
    if mesh.size == 1:
        return lambda x, axes: x
    return lambda x, axes: jax.lax.with_sharding_constraint(x, sharding(mesh, axes, x.shape))


def spreader(mesh: Mesh) -> Spread:
    """A `Spread` in which every device works on its own x[i] and has them whole.

    Their number is padded to one that the devices divide: with zeros, which travel as the rest.
    """
    if mesh.size == 1:
        return lambda function, x: function(x)

    def spread(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        axes = ("stack", *("whole",) * (x.ndim - 1))
        padding = -x.shape[0] % ways(mesh, "stack")
        padded = jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1)))
        padded = jax.lax.with_sharding_constraint(padded, sharding(mesh, axes, padded.shape))
        y = function(padded)
        y = jax.lax.with_sharding_constraint(y, sharding(mesh, axes, y.shape))
        return y[: x.shape[0]]

    return spread


def on_hosts(tree: Any) -> Any:
    """Abstract arrays, placed in the memory of the hosts that have their devices.

    Numbers alone stay on the devices.
    """

    def place(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if not leaf.ndim:
            return leaf
        where = leaf.sharding.with_memory_kind("pinned_host")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(place, tree)


def on_devices(tree: Any, where: Any) -> Any:
    """Arrays of a program that is traced, in the memory of the devices.

    Args:
      tree: of arrays.
      where: tree of the same form of their shardings; those that are in it already stay.
    """

    def place(x: jax.Array, sharding: NamedSharding) -> jax.Array:
        if sharding.memory_kind in (None, "device"):
            return x
        return jax.device_put(x, sharding.with_memory_kind("device"))

    return jax.tree.map(place, tree, where)


def place_rows(
    mesh: Mesh, rows: int, make: Callable[[slice], Mapping[str, np.ndarray]]
) -> dict[str, jax.Array]:
    """A global batch, of which each process makes only the rows that its devices hold.

    Args:
      mesh: the mesh.
      rows: rows of the global batch.
      make: makes the rows of a slice [start, stop), as arrays with rows first.

    Returns:
      arrays of `rows` rows, placed by the table's `batch` axis.
    """
    by_rows = sharding(mesh, ("batch",))
    wanted = by_rows.addressable_devices_indices_map((rows,))
    bounds = {device: index[0].indices(rows)[:2] for device, index in wanted.items() if index}
    pieces = {bound: make(slice(*bound)) for bound in set(bounds.values())}
    names = next(iter(pieces.values())).keys()

    def assemble(name: str) -> jax.Array:
        shape = (rows, *next(iter(pieces.values()))[name].shape[1:])
        on_devices = [jax.device_put(pieces[b][name], d) for d, b in bounds.items()]
        return jax.make_array_from_single_device_arrays(shape, by_rows, on_devices)

    return {name: assemble(name) for name in names}


def abstract_rows(
    mesh: Mesh, rows: int, some: Mapping[str, np.ndarray]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, dtype and sharding of a global batch, to compile for.

    Args:
      mesh, rows: as of place_rows.
      some: rows of such a batch.
    """
    by_rows = sharding(mesh, ("batch",))
    return {
        name: jax.ShapeDtypeStruct((rows, *row.shape[1:]), row.dtype, sharding=by_rows)
        for name, row in some.items()
    }
