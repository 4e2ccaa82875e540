"""Products of rows with the matrix of each row's group: what experts are computed with."""

from collections.abc import Callable

import jax

Grouped = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Given rows x [M, X], sorted by group, a matrix for each group [E, X, Y] in the same dtype, and
int32 sizes [E] of the groups, returns [M, Y] in it. Rows behind the last group belong to none: what
comes of them is zero, and so are their gradients."""


def ragged(x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """XLA's own, on every platform. Where its compiler has no kernel for it (CPUs; TPU v5e and v6e
    as of libtpu 0.0.52) every group is multiplied with all rows, masked: E times the work.
    """
    return jax.lax.ragged_dot(x_MX, w_EXY, sizes_E)
