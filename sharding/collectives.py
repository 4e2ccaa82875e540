"""What devices exchange inside `shard_map`, along the mesh axes of a logical axis.

Axes of one device are left out: the compiler would keep an exchange with nobody.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sharding.table import TABLE

Axes = tuple[str, ...]


def axes_of(mesh: Mesh, name: str) -> Axes:
    """The mesh axes of more than one device that the table has for a logical axis."""
    return tuple(axis for axis in TABLE[name] if mesh.shape[axis] > 1)


def total(x: jax.Array, axes: Axes) -> jax.Array:
    """The sum over devices."""
    return jax.lax.psum(x, axes) if axes else x


def largest(x: jax.Array, axes: Axes) -> jax.Array:
    """The maximum over devices."""
    return jax.lax.pmax(x, axes) if axes else x


def index(axes: Axes) -> jax.Array:
    """Which part of a dimension this device has."""
    return jax.lax.axis_index(axes) if axes else jnp.zeros((), jnp.int32)


def gathered(x: jax.Array, axes: Axes, dimension: int) -> jax.Array:
    """A dimension whole, of which each device has a part."""
    return jax.lax.all_gather(x, axes, axis=dimension, tiled=True) if axes else x


def scattered(x: jax.Array, axes: Axes, dimension: int) -> jax.Array:
    """The sum over devices, of which each keeps a part of a dimension."""
    if not axes:
        return x
    return jax.lax.psum_scatter(x, axes, scatter_dimension=dimension, tiled=True)
