"""In which order the tokens of a row lie on the devices along the mesh axis `context`.

A causal token looks at all that is before it: of C equal pieces, the last would take most of the
time. So a row is cut into 2 C chunks, and device i holds the chunks i and 2 C - 1 - i, which
together look at as much as any other two such chunks (Grattafiori et al. 2024, Llama 3).

All that has [B, T] inside the loss is in this order: each token has its document and its position
with it, and only attention looks at others.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from model.kernels.parts import Starts
from sharding import collectives
from sharding.table import mesh_axes, ways


def starts(length: int, devices: int) -> Starts:
    """Where the two chunks of each device begin, in a row of `length` tokens."""
    chunk = length // (2 * devices)
    return tuple((i * chunk, (2 * devices - 1 - i) * chunk) for i in range(devices))


def spread(mesh: Mesh, x_BT: jax.Array) -> jax.Array:
    """Something of each token of a batch, whole along `context` and as the text has it, onto the
    devices that hold the tokens."""
    devices, length = ways(mesh, "length"), x_BT.shape[1]
    if devices == 1:
        return x_BT
    assert length % (2 * devices) == 0, "validate has seen it"
    rows, tokens = mesh_axes(mesh, "batch", x_BT.shape[0]), mesh_axes(mesh, "length", length)

    def on_device(x_BT: jax.Array) -> jax.Array:
        begin = jnp.asarray(starts(length, devices))[collectives.index(tokens)]
        chunk = length // (2 * devices)
        chunks = (jax.lax.dynamic_slice_in_dim(x_BT, begin[n], chunk, axis=1) for n in (0, 1))
        return jnp.concatenate(list(chunks), axis=1)

    whole: Any = PartitionSpec(rows)
    parts: Any = PartitionSpec(rows, tokens)
    return jax.shard_map(on_device, mesh=mesh, in_specs=whole, out_specs=parts)(x_BT)


def natural(x: jax.Array, devices: int) -> jax.Array:
    """What lies on the devices, one after the other, in the order of the text: [B, T, ...]."""
    pairs = x.reshape(x.shape[0], devices, 2, -1, *x.shape[2:])
    return jnp.concatenate([pairs[:, :, 0], pairs[:, ::-1, 1]], axis=1).reshape(x.shape)
