"""Products of activations with weights: in the dtype of both, or quantized for the product."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from model.layers import Multiply


def flat(equation: str, x: jax.Array, w: jax.Array) -> jax.Array:
    """`jnp.einsum`, as one product of two matrices, which XLA's CPU backend computes faster.

    What is summed over comes last in x and first in w, as "BTNH,NHD->BTD".
    """
    of_x, of_w = equation.partition("->")[0].split(",")
    summed = len(set(of_x) & set(of_w))
    rows, columns = x.shape[: x.ndim - summed], w.shape[summed:]
    size = x.size // math.prod(rows)
    return (x.reshape(-1, size) @ w.reshape(size, -1)).reshape(rows + columns)


def quantized(kind: str) -> Multiply:
    """`jnp.einsum` on int8 or fp8, forward and backward, by Qwix.

    Every row that is summed over has a scale of its own, the largest of its absolute values. What
    comes in from above is quantized too: in int8, or in the fp8 of the wider range (e5m2, where
    activations and weights are in e4m3; Micikevicius et al. 2022).

    Raises:
      ModuleNotFoundError: Qwix is not installed.
    """
    # Its public way patches jax.numpy while a model is called; this is the function behind it.
    from qwix._src.core import dot_general_qt as qwix

    forward, backward = {
        "int8": (jnp.int8, jnp.int8),
        "fp8": (jnp.float8_e4m3fn, jnp.float8_e5m2),
    }[kind]
    config = qwix.DotGeneralQtConfig(
        lhs_qtype=forward, rhs_qtype=forward, dlhs_grad_qtype=backward, drhs_grad_qtype=backward
    )

    def product(lhs: jax.Array, rhs: jax.Array, dimensions: Any, *_: Any, **__: Any) -> jax.Array:
        found: jax.Array = qwix.dot_general_qt(lhs, rhs, dimensions, config)
        return found

    def multiply(equation: str, x: jax.Array, w: jax.Array) -> jax.Array:
        with jax.disable_jit():  # einsum is jitted, and would take `product` for an array
            return jnp.einsum(equation, x, w, _dot_general=product)

    return multiply
