"""Grouped products by JAX's Pallas kernel for TPUs (Gale et al. 2023), which computes no row that
belongs to no group.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

_ROWS = (512, 256, 128)  # at a time
_INNER, _OUTER = 2048, 512  # at most so many summed over, and so many of the result, at a time


def grouped(
    x_MX: jax.Array,
    w_EXY: jax.Array,
    sizes_E: jax.Array,
    transposed: bool = False,
    /,
    *,
    interpret: bool = False,
) -> jax.Array:
    """What `model.grouped.ragged` computes, in bfloat16; sums are in float32.

    Args:
      x_MX, w_EXY, sizes_E, transposed: see model/grouped.py.
      interpret: run without a TPU, slowly.
    """
    padding = -x_MX.shape[0] % _ROWS[-1]
    x_PX = jnp.pad(x_MX, ((0, padding), (0, 0)))
    how = _How(transposed, interpret)
    return _product(how, x_PX, w_EXY, sizes_E)[: x_MX.shape[0]]


class _How(NamedTuple):
    """Attributes:
    transposed: whether matrices are [E, Y, X].
    interpret: see `grouped`.
    """

    transposed: bool
    interpret: bool


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(how: _How, x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array) -> jax.Array:
    return _multiplied(how, x_MX, w_EXY, sizes_E)


def _multiplied(how: _How, x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array) -> jax.Array:
    experts, *sizes = w_EXY.shape
    inner, outer = reversed(sizes) if how.transposed else sizes
    y_MY = gmm(
        x_MX,
        w_EXY,
        sizes_E,
        x_MX.dtype,
        _tiling(x_MX, inner, outer, experts),
        transpose_rhs=how.transposed,
        interpret=how.interpret,
    )
    return _of_groups(y_MY, sizes_E)


def _forward(
    how: _How, x_MX: jax.Array, w_EXY: jax.Array, sizes_E: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _product(how, x_MX, w_EXY, sizes_E), (x_MX, w_EXY, sizes_E)


def _backward(
    how: _How, kept: tuple[jax.Array, ...], grad_MY: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    x_MX, w_EXY, sizes_E = kept
    back = how._replace(transposed=not how.transposed)
    grad_MX = _multiplied(back, grad_MY, w_EXY, sizes_E)
    # The gradient lies as the weights do, and need not be turned to be split as they are.
    left, right = (grad_MY, x_MX) if how.transposed else (x_MX, grad_MY)
    grad_EXY = tgmm(
        left.swapaxes(0, 1),
        right,
        sizes_E,
        w_EXY.dtype,
        _tiling(x_MX, w_EXY.shape[1], w_EXY.shape[2], w_EXY.shape[0]),
        interpret=how.interpret,
    )
    return grad_MX, grad_EXY, None


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
