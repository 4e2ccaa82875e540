"""Low-rank adapters: two small matrices beside a weight, which itself stays as it is.

    LoRA (Hu et al. 2021):   y = x w + scale (x a) b
    DoRA (Liu et al. 2024):  y = magnitude / |w + scale a b|  (x w + scale (x a) b)

where |.| is the length of a column, over all inputs of one output, of which the gradient takes no
notice (their section 4.3). a b is never formed while training, nor is a gradient of w. A fresh b is
zero, and a fresh magnitude the length of w's column: what is adapted begins as it was.

Letters beside those of model/__init__.py: R, Q the rank; I all inputs, O all outputs of a weight.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from model.config import ModelConfig
from model.layers import Means, constant, weight

SUFFIX = "_adapter"
"""Of the name of what lies beside a weight."""


class Adapter(nnx.Module):
    """What lies beside one weight of a block.

    Args:
      config: of the decoder.
      rngs: for a.
      of: the weight; its inputs come first.
      inputs: how many of its dimensions they are.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, of: nnx.Param, inputs: int) -> None:
        self.scale, rank = config.adapter.scale, config.adapter.rank
        shape, axes = of.shape, of.get_metadata("axes")
        # That of the uniform numbers that torch draws for a linear layer, and so does `peft`.
        std = (3 * math.prod(shape[:inputs])) ** -0.5
        self.a = weight(rngs, (*shape[:inputs], rank), (*axes[:inputs], "adapter"), std)
        self.b = constant(0.0, (rank, *shape[inputs:]), ("adapter", *axes[inputs:]))
        dora = config.adapter.kind == "dora"
        of_outputs = tuple("norm" if name == "embed" else name for name in axes[inputs:])
        self.magnitude = constant(1.0, shape[inputs:], of_outputs) if dora else None

    def __call__(
        self, means: Means, equation: str, x: jax.Array, w: jax.Array, y: jax.Array
    ) -> jax.Array:
        """What the adapted weight gives, in y's dtype.

        Args:
          means: how the decoder computes.
          equation: of y = x w, as "BTNH,NHD->BTD".
          x, w, y: in the dtype that matrices are multiplied in.
        """
        of_x, of_w, of_y = equation.replace("->", ",").split(",")
        inputs = "".join(letter for letter in of_w if letter in of_x)
        outputs = of_w[len(inputs) :]
        a, b = self.a[...], self.b[...]
        rows = of_y[: len(of_y) - len(outputs)]
        h_BTR = means.small(f"{of_x},{inputs}R->{rows}R", x, a.astype(x.dtype))
        h_BTR = means.constrain(h_BTR, ("batch", "length", "adapter"))
        scaled = (self.scale * b).astype(x.dtype)
        y = y + means.small(f"{rows}R,R{outputs}->{of_y}", h_BTR, scaled)
        if self.magnitude is None:
            return y
        fixed = jax.lax.stop_gradient((w, a, b))
        factor = self.magnitude[...] / _lengths(*fixed, self.scale)
        return (y.astype(jnp.float32) * factor).astype(y.dtype)


def beside(
    config: ModelConfig, rngs: nnx.Rngs, name: str, of: nnx.Param, inputs: int = 1
) -> Adapter | None:
    """The adapter of a weight, if the config has one for products of that name."""
    adapter = config.adapter
    if adapter.kind == "none" or name not in adapter.targets:
        return None
    return Adapter(config, rngs, of, inputs)


def _lengths(w: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """|w + scale a b| of each output, float32, from products that are no larger than a and b."""
    outputs = b.shape[1:]
    rank = b.shape[0]
    w_IO = w.astype(jnp.float32).reshape(-1, math.prod(outputs))
    a_IR, b_RO = a.reshape(-1, rank), b.reshape(rank, -1)
    with jax.default_matmul_precision("highest"):
        more_RO = 2 * (a_IR.T @ w_IO) + scale * ((a_IR.T @ a_IR) @ b_RO)
    squares_O = jnp.sum(jnp.square(w_IO), axis=0) + scale * jnp.sum(b_RO * more_RO, axis=0)
    return jnp.sqrt(squares_O).reshape(outputs)


def begun(config: ModelConfig, params: Any) -> Any:
    """Parameters of which the magnitudes are those of the weights that they lie beside.

    Args:
      config: of the decoder.
      params: nested dicts, of layers that are stacked; every b is zero.
    """
    if config.adapter.kind != "dora":
        return params

    def begin(weight: jax.Array, adapter: dict[str, jax.Array]) -> dict[str, jax.Array]:
        lengths = jax.vmap(lambda w, a, b: _lengths(w, a, b, config.adapter.scale))
        return adapter | {"magnitude": lengths(weight, adapter["a"], adapter["b"])}

    return _each(params, lambda weight, adapter: (weight, begin(weight, adapter)))


def merged(config: ModelConfig, params: Any) -> Any:
    """Parameters without adapters, whose weights are what adapted ones were, in their dtype.

    Args:
      config: of the decoder.
      params: nested dicts, of layers that are stacked.
    """
    scale = config.adapter.scale

    def merge(w: jax.Array, adapter: dict[str, jax.Array]) -> jax.Array:
        """Of one layer."""
        a, b = adapter["a"], adapter["b"]
        with jax.default_matmul_precision("highest"):
            more = a.reshape(-1, b.shape[0]) @ b.reshape(b.shape[0], -1)
        whole = w.astype(jnp.float32) + scale * more.reshape(w.shape)
        if "magnitude" in adapter:
            whole = whole * (adapter["magnitude"] / _lengths(w, a, b, scale))
        return whole.astype(w.dtype)

    return _each(params, lambda weight, adapter: (jax.vmap(merge)(weight, adapter), None))


def _each(params: Any, function: Callable[[Any, Any], tuple[Any, Any]]) -> Any:
    """Every weight that has an adapter, and that, become what a function makes of them; an adapter
    that it makes None of is left out.
    """
    if not isinstance(params, dict):
        return params
    made = {
        name: _each(value, function) for name, value in params.items() if not name.endswith(SUFFIX)
    }
    for name, adapter in params.items():
        if name.endswith(SUFFIX):
            of = name.removesuffix(SUFFIX)
            made[of], left = function(params[of], adapter)
            made |= {} if left is None else {name: left}
    return made
