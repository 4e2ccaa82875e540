"""Products of rows with the matrix of each row's group: what experts are computed with."""

from typing import Protocol

import jax


class Grouped(Protocol):
    """What multiplies."""

    def __call__(
        self, x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array, transposed: bool = False, /
    ) -> jax.Array:
        """Args:
          x_MX: rows, sorted by group.
          w_EXY: a matrix for each group, in the same dtype.
          sizes_E: rows of each group, int32.
          transposed: the matrices are given as [E, Y, X].

        Returns:
          [M, Y] in that dtype. Rows behind the last group belong to none: what comes of them is
          zero, and so are their gradients.
        """


def ragged(
    x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array, transposed: bool = False, /
) -> jax.Array:
    """XLA's own, on every platform. Where its compiler has no kernel for it (CPUs; TPU v5e and v6e
    as of libtpu 0.0.52) every group is multiplied with all rows, masked: E times the work.
    """
    return jax.lax.ragged_dot(x_MX, w_EXY.swapaxes(1, 2) if transposed else w_EXY, sizes_E)
