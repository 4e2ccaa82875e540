"""Rows of a table whose vocabulary is split: each device looks among its own, and none moves.

A device has some ids, and a part of the width of their rows. So it is told the tokens of all that
share its ids, and what it finds goes back to whom it was for, who adds up what was found among the
parts of the vocabulary: a row and zeros. The gradient takes the same ways back. What it finds is as
large as all features would be that are not split along their length: so it looks for a few rows of
the batch at a time.

(Of itself the compiler gathers the table, where the vocabulary is split along several mesh axes.)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from model.layers import LookUp, look_up
from sharding import collectives
from sharding.table import mesh_axes, sharding

_AT_ONCE = 1 << 28
"""Bytes of what a device finds at a time, in float32; of one row of the batch at least."""


def looking_up(mesh: Mesh) -> LookUp:
    """The `look_up` that the model is handed."""
    vocab, embed = mesh_axes(mesh, "vocab", None), mesh_axes(mesh, "embed", None)
    rows, tokens = (set(embed) & set(mesh_axes(mesh, name, None)) for name in ("batch", "length"))
    if not vocab and not (rows and tokens):
        return look_up  # of itself the compiler exchanges the width for rows, or for tokens

    def on_mesh(table_VD: jax.Array, tokens_BT: jax.Array, dtype: Any) -> jax.Array:
        (rows, length), width = tokens_BT.shape, table_VD.shape[1]
        batch, outer = mesh_axes(mesh, "batch", rows), mesh_axes(mesh, "length", length)
        # Of the length, what more the result is split along: so far the sum is scattered.
        inner = tuple(a for a in mesh_axes(mesh, "act_length", length) if a in vocab)
        # Along the axes of the width devices have other rows, other tokens of a row, or the same.
        by_rows = tuple(a for a in embed if a in batch)
        by_tokens = tuple(a for a in embed if a in outer)
        alike = tuple(a for a in embed if a not in (*batch, *outer))

        def some(table_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
            """X is the devices along `by_tokens`; B and D of fewer or of more devices."""
            tokens_BT = collectives.gathered(tokens_BT, by_rows, 0)
            tokens_BXT = collectives.gathered(tokens_BT[:, None], by_tokens, 1)
            size = table_VD.shape[0]
            ids_BXT = tokens_BXT - collectives.index(vocab) * size
            is_here = (ids_BXT >= 0) & (ids_BXT < size)
            ids_BXT = jnp.where(is_here, ids_BXT, size)  # out of bounds: zeros, and no gradient
            x_BXTD = table_VD.at[ids_BXT].get(mode="fill", fill_value=0).astype(dtype)
            x_BXTD = collectives.scattered(x_BXTD, inner, 2)
            x_BXTD = collectives.exchanged(x_BXTD, by_tokens, 1, 3)
            x_BXTD = collectives.gathered(x_BXTD, alike, 3)
            return collectives.exchanged(x_BXTD, by_rows, 0, 3)[:, 0]

        def on_device(table_VD: jax.Array, tokens_BT: jax.Array) -> jax.Array:
            here, there = tokens_BT.shape
            parts = _parts(here, 4 * here * there * width)
            found = jax.lax.map(lambda t: some(table_VD, t), tokens_BT.reshape(parts, -1, there))
            return found.reshape(1, here, *found.shape[2:])

        table: Any = sharding(mesh, ("vocab", "embed"), table_VD.shape).spec
        tokens: Any = sharding(mesh, ("batch", "length"), tokens_BT.shape).spec
        left = tuple(a for a in vocab if a not in inner)
        parts_VBTD = jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(table, tokens),
            out_specs=PartitionSpec(left, batch, (*outer, *inner), None),
            check_vma=False,
        )(table_VD, tokens_BT)
        # Here and not on each device: so the gradient of a sum needs no exchange.
        return jax.lax.reduce_sum(parts_VBTD, (0,))

    return on_mesh


def _parts(rows: int, n_bytes: int) -> int:
    """In how many equal parts of rows none is larger than it may be, or has more than a row."""
    return next(
        n for n in range(1, rows + 1) if not rows % n and (n == rows or n_bytes <= n * _AT_ONCE)
    )
