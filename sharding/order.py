"""In which order the tokens of a row lie on the devices along the mesh axis `context`.

A causal token looks at all that is before it: of C equal pieces, the last would take most of the
time. So a row is cut into 2 C chunks, and device i holds the chunks i and 2 C - 1 - i, which
together look at as much as any other two such chunks (Grattafiori et al. 2024, Llama 3).

All that has [B, T] inside the loss is in this order: each token has its document and its position
with it, and only attention looks at others.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from model.kernels.parts import Starts
from sharding.table import sharding, ways


def chunks(devices: int) -> int:
    """How many of them a row is cut into."""
    return 2 * devices if devices > 1 else 1


def starts(length: int, devices: int) -> Starts:
    """Where the two chunks of each of two or more devices start, in a row of `length` tokens."""
    chunk = length // chunks(devices)
    return tuple((i * chunk, (2 * devices - 1 - i) * chunk) for i in range(devices))


def balanced(x: jax.Array, devices: int, axis: int = 1) -> jax.Array:
    """From the order of the text to that of the devices, one after the other, along an axis."""
    chunk = x.shape[axis] // chunks(devices)
    x = jnp.moveaxis(x, axis, 0)
    halves = x.reshape(2, devices, chunk, *x.shape[1:])
    x = jnp.stack([halves[0], halves[1, ::-1]], axis=1).reshape(x.shape)
    return jnp.moveaxis(x, 0, axis)


def natural(x: jax.Array, devices: int, axis: int = 1) -> jax.Array:
    """The inverse of `balanced`."""
    chunk = x.shape[axis] // chunks(devices)
    x = jnp.moveaxis(x, axis, 0)
    pairs = x.reshape(devices, 2, chunk, *x.shape[1:])
    x = jnp.concatenate([pairs[:, 0], pairs[::-1, 1]]).reshape(x.shape)
    return jnp.moveaxis(x, 0, axis)


def spread(mesh: Mesh, x_BT: jax.Array) -> jax.Array:
    """Something of each token of a batch, whole along `context` and as the text has it, onto the
    devices that hold the tokens; `validate` has seen the length."""
    devices = ways(mesh, "length")
    if devices == 1:
        return x_BT
    x_BT = balanced(x_BT, devices)
    return jax.lax.with_sharding_constraint(x_BT, sharding(mesh, ("batch", "length"), x_BT.shape))
