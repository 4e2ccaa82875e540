"""Muon: the momentum of each matrix, made orthogonal (Jordan et al. 2024).

Scaled as Liu et al. 2025 do: an update is of the size that AdamW's have, so that the same learning
rate serves both.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from model.config import ModelConfig
from model.layers import matmul_precision
from sharding.placement import Spread

_SUMMED = ("embed", "expert_embed", "latent")  # an input or output of every matrix of a block
_RMS = 0.2  # root mean square of the entries of an update: what Adam's have


class Matrix(NamedTuple):
    """How a parameter of the blocks, stacked in layers, is a matrix in each layer, or for each of
    its experts.

    Attributes:
      stacked: its dimensions that count matrices, the first ones.
      inputs, outputs: its dimensions that are summed over, and those of the result.
    """

    stacked: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def is_leaf(leaf: Any) -> bool:
    """Of a tree of matrices."""
    return leaf is None or isinstance(leaf, Matrix)


def matrices(axes: Any) -> Any:
    """Of each parameter how it is a matrix, None where it is none.

    Args:
      axes: tree of the logical axes of a decoder's parameters.
    """

    def one(axes: tuple[str, ...]) -> Matrix | None:
        sides = _SUMMED if "adapter" not in axes else ("adapter",)
        embed = next((i for i, name in enumerate(axes) if name in sides), 0)
        if axes[0] != "layers" or not embed:
            return None
        stacked = tuple(i for i, name in enumerate(axes) if name in ("layers", "experts"))
        rest = tuple(i for i in range(len(axes)) if i not in (*stacked, embed))
        first = embed < min(rest)
        return Matrix(stacked, (embed,), rest) if first else Matrix(stacked, rest, (embed,))

    return jax.tree.map(one, axes, is_leaf=lambda a: isinstance(a, tuple))


def scale_by_muon(
    momentum: float, matrices: Any, config: ModelConfig, spread: Spread
) -> optax.GradientTransformation:
    """Nesterov momentum, made orthogonal matrix by matrix, in the dtype that matrices have.

    Args:
      momentum: how much of it stays from step to step.
      matrices: see `matrices`.
      config: of the decoder.
      spread: see sharding/placement.py.
    """

    def orthogonal(updates: Any, params: Any) -> Any:
        del params
        with matmul_precision(config):
            return jax.tree.map(
                lambda matrix, x: x if matrix is None else _orthogonal(x, matrix, dtype, spread),
                matrices,
                updates,
                is_leaf=is_leaf,
            )

    dtype = jnp.dtype(config.dtype)
    return optax.chain(optax.trace(momentum, nesterov=True), optax.stateless(orthogonal))


def _orthogonal(x: jax.Array, matrix: Matrix, dtype: np.dtype[Any], spread: Spread) -> jax.Array:
    """About the nearest orthogonal matrix of each, with entries of RMS `_RMS`.

    Each device has matrices whole, of its own layers: that takes two exchanges of them, where
    products of split ones would need some in every iteration.
    """
    order = (*matrix.stacked, *matrix.inputs, *matrix.outputs)
    ordered = x.transpose(order)
    count, rows = (math.prod(x.shape[i] for i in some) for some in (matrix.stacked, matrix.inputs))
    y = spread(_newton_schulz, ordered.reshape(count, rows, -1).astype(dtype))
    y = y.astype(jnp.float32) * (_RMS * math.sqrt(max(y.shape[1:])))
    back = tuple(order.index(i) for i in range(x.ndim))
    return y.reshape(ordered.shape).transpose(back)


def _newton_schulz(x_LIO: jax.Array) -> jax.Array:
    """Optax's iteration, of each matrix; without momentum the state around it is of no use."""
    muon = optax.contrib.scale_by_muon(
        beta=0.0,
        nesterov=False,
        weight_dimension_numbers=optax.contrib.MuonDimensionNumbers(1, 2),
    )
    return muon.update(x_LIO, muon.init(x_LIO))[0]
