"""What devices exchange inside `shard_map`, along mesh axes (see `sharding.table.mesh_axes`).

Without axes nothing is exchanged: the compiler would keep an exchange with nobody.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Axes = tuple[str, ...]


def total(x: jax.Array, axes: Axes) -> jax.Array:
    """The sum over devices."""
    return jax.lax.psum(x, axes) if axes else x


def largest(x: jax.Array, axes: Axes) -> jax.Array:
    """The maximum over devices."""
    return jax.lax.pmax(x, axes) if axes else x


def index(axes: Axes) -> jax.Array:
    """Which part of a dimension this device has."""
    return jax.lax.axis_index(axes) if axes else jnp.zeros((), jnp.int32)


def passed_on(x: Any, axes: Axes) -> Any:
    """Arrays of the device before this one, which the first has from the last."""
    number = jax.lax.axis_size(axes)
    return jax.lax.ppermute(x, axes, [(i, (i + 1) % number) for i in range(number)])


def size(axes: Axes) -> int:
    """In how many parts a dimension is."""
    return int(jax.lax.axis_size(axes)) if axes else 1


def gathered(x: jax.Array, axes: Axes, dimension: int) -> jax.Array:
    """A dimension whole, of which each device has a part."""
    return jax.lax.all_gather(x, axes, axis=dimension, tiled=True) if axes else x


def gathering_again(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function, whose backward pass has all that it made but what it gathered.

    For layers where nothing is computed again: weights that were gathered would be those of all.
    """
    return jax.checkpoint(function, policy=lambda by, *_, **__: by.name != "all_gather")


def exchanged(x: jax.Array, axes: Axes, split: int, joined: int) -> jax.Array:
    """A part of the dimension `split` of each device's, joined along the dimension `joined`."""
    return jax.lax.all_to_all(x, axes, split, joined, tiled=True) if axes else x


def scattered(x: jax.Array, axes: Axes, dimension: int) -> jax.Array:
    """The sum over devices, of which each keeps a part of a dimension."""
    if not axes:
        return x
    return jax.lax.psum_scatter(x, axes, scatter_dimension=dimension, tiled=True)
