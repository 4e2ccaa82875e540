"""Grouped products by JAX's Pallas kernel for TPUs (Gale et al. 2023), which computes no row that
belongs to no group.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

_ROWS = (512, 256, 128)  # at a time
_INNER, _OUTER = 2048, 512  # at most so many summed over, and so many of the result, at a time


def grouped(
    x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """What `model.grouped.ragged` computes, in bfloat16; sums are in float32.

    Args:
      x_MX, w_EXY, sizes_E: see model/grouped.py.
      interpret: run without a TPU, slowly.
    """
    padding = -x_MX.shape[0] % _ROWS[-1]
    x_PX = jnp.pad(x_MX, ((0, padding), (0, 0)))
    return _product(interpret, x_PX, w_EXY, sizes_E)[: x_MX.shape[0]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(interpret: bool, x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array) -> jax.Array:
    y_MY = gmm(
        x_MX,
        w_EXY,
        sizes_E,
        x_MX.dtype,
        _tiling(x_MX, w_EXY.shape[1], w_EXY.shape[2], w_EXY.shape[0]),
        interpret=interpret,
    )
    return _of_groups(y_MY, sizes_E)


def _forward(
    interpret: bool, x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _product(interpret, x_MX, w_EXY, sizes_E), (x_MX, w_EXY, sizes_E)


def _backward(
    interpret: bool, kept: tuple[jax.Array, ...], grad_MY: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    x_MX, w_EXY, sizes_E = kept
    experts, inner, outer = w_EXY.shape
    grad_MX = gmm(
        grad_MY,
        w_EXY,
        sizes_E,
        x_MX.dtype,
        _tiling(x_MX, outer, inner, experts),
        transpose_rhs=True,
        interpret=interpret,
    )
    grad_EXY = tgmm(
        x_MX.swapaxes(0, 1),
        grad_MY,
        sizes_E,
        w_EXY.dtype,
        _tiling(x_MX, inner, outer, experts),
        interpret=interpret,
    )
    return _of_groups(grad_MX, sizes_E), grad_EXY, None


_product.defvjp(_forward, _backward)


def _of_groups(y_MY: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """Zero behind the last group, where the kernel writes nothing."""
    written_M = jnp.arange(y_MY.shape[0]) < jnp.sum(sizes_E)
    return jnp.where(written_M[:, None], y_MY, 0)


def _tiling(x_MX: jax.Array, inner: int, outer: int, experts: int) -> tuple[int, int, int]:
    """Rows, columns of x and columns of the result that are multiplied at a time.

    A tile in which a group ends is computed once more for the next one: with an eighth of a
    group's rows that is an eighth of the work.
    """
    rows, most = x_MX.shape[0], x_MX.shape[0] // experts // 8
    fit = next((n for n in _ROWS if n <= most and rows % n == 0), _ROWS[-1])
    return fit, _evenly(inner, _INNER), _evenly(outer, _OUTER)


def _evenly(size: int, most: int) -> int:
    """Of parts of about equal size, at most `most`, each but the last a multiple of 128."""
    parts = -(-size // most)
    return min(size, -(-size // parts // 128) * 128) if parts > 1 else size
