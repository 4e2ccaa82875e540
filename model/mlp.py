"""The feed-forward half of a block."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from model.adapters import beside
from model.config import Mlp as Kind
from model.config import ModelConfig
from model.layers import Means, constant, weight

Activate = Callable[[jax.Array, jax.Array | None], jax.Array]
"""Given what "up" and "gate" make of an input, returns the hidden activations."""

_STEEPNESS, _BOUND = 1.702, 7.0  # of gpt-oss


def _swiglu(up: jax.Array, gate: jax.Array | None) -> jax.Array:
    """Shazeer 2020."""
    assert gate is not None
    return jax.nn.silu(gate) * up


def _geglu(up: jax.Array, gate: jax.Array | None) -> jax.Array:
    """Shazeer 2020, with GELU in its tanh form."""
    assert gate is not None
    return jax.nn.gelu(gate, approximate=True) * up


def _clamped_swiglu(up: jax.Array, gate: jax.Array | None) -> jax.Array:
    """That of gpt-oss: both are bounded, the slope of the sigmoid is another, and up grows by 1."""
    assert gate is not None
    gate = jnp.minimum(gate, _BOUND)
    up = jnp.clip(up, -_BOUND, _BOUND)
    return gate * jax.nn.sigmoid(_STEEPNESS * gate) * (up + 1)


def _gelu(up: jax.Array, gate: jax.Array | None) -> jax.Array:
    """Hendrycks & Gimpel 2016, in its tanh form; there is no gate."""
    del gate
    return jax.nn.gelu(up, approximate=True)


ACTIVATIONS: Mapping[Kind, Activate] = {
    "swiglu": _swiglu,
    "geglu": _geglu,
    "clamped_swiglu": _clamped_swiglu,
    "gelu": _gelu,
}


class Mlp(nnx.Module):
    """down(silu(gate(x)) * up(x)) for "swiglu", down(gelu(up(x))) for "gelu"; see ACTIVATIONS.

    Args:
      config, rngs, means: as of the decoder.
      width: hidden.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means, width: int):
        self.config, self.means = config, means
        shape, axes = (config.embed_dim, width), ("embed", "mlp")
        self.up = weight(rngs, shape, axes, config.init_std)
        if config.gated:
            self.gate = weight(rngs, shape, axes, config.init_std)
        std = config.init_std / (2 * config.num_layers) ** 0.5
        self.down = weight(rngs, shape[::-1], axes[::-1], std)
        if config.bias:
            self.up_bias = constant(0.0, (width,), ("mlp",))
            if config.gated:
                self.gate_bias = constant(0.0, (width,), ("mlp",))
            self.down_bias = constant(0.0, (config.embed_dim,), ("norm",))
        self.up_adapter = beside(config, rngs, "up", self.up)
        self.gate_adapter = beside(config, rngs, "gate", self.gate) if config.gated else None
        self.down_adapter = beside(config, rngs, "down", self.down)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """x_BTD: input, already normalised. Returns [B, T, D] in its dtype."""
        dtype, bias = x_BTD.dtype, self.config.bias

        def project(x: jax.Array, name: str) -> jax.Array:
            w: nnx.Param = getattr(self, name)
            equation = "BTF,FD->BTD" if name == "down" else "BTD,DF->BTF"
            adapter = getattr(self, f"{name}_adapter")
            y = self.means.product(equation, x, w[...].astype(dtype), name, adapter)
            return y + getattr(self, f"{name}_bias")[...].astype(dtype) if bias else y

        h_BTF = project(x_BTD, "up")
        gate_BTF = project(x_BTD, "gate") if self.config.gated else None
        h_BTF = ACTIVATIONS[self.config.mlp](h_BTF, gate_BTF)
        h_BTF = self.means.constrain(h_BTF, ("batch", "length", "mlp"))
        return project(h_BTF, "down")
