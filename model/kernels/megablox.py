"""Grouped products by JAX's Pallas kernel for TPUs (Gale et al. 2023), which computes no row that
belongs to no group.
"""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

_ROWS = (512, 256, 128)  # at a time
_LEAST = 512  # columns of x: sums are read and written once for every tile of them
_BYTES = 2  # of a number
_BUFFERED = 2 * _BYTES  # while one tile is computed with, the next is on its way
_VMEM = 14 << 20  # of 16 MiB, which a kernel has unless it asks for more


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
        _of_product(x_MX.shape[0], inner, outer, experts),
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
        _of_gradient(x_MX.shape[0], w_EXY.shape[1], w_EXY.shape[2], w_EXY.shape[0]),
        interpret=how.interpret,
    )
    return grad_MX, grad_EXY, None


_product.defvjp(_forward, _backward)


def _of_groups(y_MY: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """Zero behind the last group, where the kernel writes nothing."""
    written_M = jnp.arange(y_MY.shape[0]) < jnp.sum(sizes_E)
    return jnp.where(written_M[:, None], y_MY, 0)


class _Tiles(NamedTuple):
    """How many rows, columns of x and columns of the result are multiplied at a time."""

    rows: int
    inner: int
    outer: int


def _of_product(rows: int, inner: int, outer: int, experts: int) -> _Tiles:
    """Of x [rows, inner] with [experts, inner, outer].

    The kernel goes through the columns of the result, in each through the rows, and in each of
    those through what is summed over. So it reads x for every tile of columns; and a group's matrix
    once if nothing else is read meanwhile, else for every tile of rows.
    """

    def moved(t: _Tiles) -> int:
        matrices = experts if t.inner == inner else experts + rows // t.rows
        return rows * inner * -(-outer // t.outer) + matrices * inner * outer + rows * outer

    def held(t: _Tiles) -> int:
        at_a_time = t.rows * t.inner + t.inner * t.outer + t.rows * t.outer
        return _BUFFERED * at_a_time + 4 * t.rows * t.outer

    return _best(rows, inner, outer, experts, moved, held)


def _of_gradient(rows: int, inner: int, outer: int, experts: int) -> _Tiles:
    """Of the sums over each group's rows of [rows, inner] x [rows, outer]."""

    def moved(t: _Tiles) -> int:
        left, right = rows * inner * -(-outer // t.outer), rows * outer * -(-inner // t.inner)
        return left + right + experts * inner * outer

    def held(t: _Tiles) -> int:
        at_a_time = t.rows * t.inner + t.rows * t.outer + t.inner * t.outer
        return _BUFFERED * at_a_time + 4 * t.inner * t.outer

    return _best(rows, inner, outer, experts, moved, held)


def _best(
    rows: int,
    inner: int,
    outer: int,
    experts: int,
    moved: Callable[[_Tiles], int],
    held: Callable[[_Tiles], int],
) -> _Tiles:
    """Of the tiles that fit into VMEM those that move least.

    A tile of rows in which a group ends is computed once more for the next one: with an eighth of a
    group's rows that is an eighth of the work.

    Args:
      moved: numbers that go through the memory.
      held: bytes of VMEM.
    """
    most = rows // experts // 8
    fit = next((n for n in _ROWS if n <= most and rows % n == 0), _ROWS[-1])
    wide = [n for n in _parts(inner) if n >= min(inner, _LEAST)]
    every = (_Tiles(fit, *sizes) for sizes in itertools.product(wide, _parts(outer)))
    return min((t for t in every if held(t) <= _VMEM), key=moved)


def _parts(size: int) -> list[int]:
    """Sizes of about equal parts, each but the last a multiple of 128; the whole of it, too."""
    counts = range(1, -(-size // 128) + 1)
    return sorted({min(size, -(-size // n // 128) * 128) for n in counts if n > 1} | {size})
