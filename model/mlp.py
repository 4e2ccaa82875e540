"""The feed-forward half of a block."""

import jax
from flax import nnx

from model.config import ModelConfig
from model.layers import Means, constant, weight


def activated(up: jax.Array, gate: jax.Array | None) -> jax.Array:
    """The hidden activations: SwiGLU (Shazeer 2020) of both, GELU (tanh form) without a gate."""
    return jax.nn.gelu(up, approximate=True) if gate is None else jax.nn.silu(gate) * up


class Mlp(nnx.Module):
    """down(silu(gate(x)) * up(x)) for "swiglu", down(gelu(up(x))) for "gelu" (tanh form).

    Args:
      config, rngs, means: as of the decoder.
      width: hidden.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means, width: int):
        self.config, self.means = config, means
        shape, axes = (config.embed_dim, width), ("embed", "mlp")
        self.up = weight(rngs, shape, axes, config.init_std)
        if config.mlp == "swiglu":
            self.gate = weight(rngs, shape, axes, config.init_std)
        std = config.init_std / (2 * config.num_layers) ** 0.5
        self.down = weight(rngs, shape[::-1], axes[::-1], std)
        if config.bias:
            self.up_bias = constant(0.0, (width,), ("mlp",))
            if config.mlp == "swiglu":
                self.gate_bias = constant(0.0, (width,), ("mlp",))
            self.down_bias = constant(0.0, (config.embed_dim,), ("norm",))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """x_BTD: input, already normalised. Returns [B, T, D] in its dtype."""
        dtype, bias = x_BTD.dtype, self.config.bias

        def project(x: jax.Array, name: str) -> jax.Array:
            w: nnx.Param = getattr(self, name)
            equation = "BTF,FD->BTD" if name == "down" else "BTD,DF->BTF"
            y = self.means.product(equation, x, w[...].astype(dtype), name)
            return y + getattr(self, f"{name}_bias")[...].astype(dtype) if bias else y

        h_BTF = project(x_BTD, "up")
        h_BTF = activated(h_BTF, project(x_BTD, "gate") if self.config.mlp == "swiglu" else None)
        h_BTF = self.means.constrain(h_BTF, ("batch", "length", "mlp"))
        return project(h_BTF, "down")
