"""The feed-forward half of a block."""

import jax
from flax import nnx

from model.config import ModelConfig
from model.layers import Means, constant, weight


class Mlp(nnx.Module):
    """down(silu(gate(x)) * up(x)) for "swiglu", down(gelu(up(x))) for "gelu" (tanh form)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means):
        self.config, self.means = config, means
        shape, axes = (config.embed_dim, config.mlp_dim), ("embed", "mlp")
        self.up = weight(rngs, shape, axes, config.init_std)
        if config.mlp == "swiglu":
            self.gate = weight(rngs, shape, axes, config.init_std)
        std = config.init_std / (2 * config.num_layers) ** 0.5
        self.down = weight(rngs, shape[::-1], axes[::-1], std)
        if config.bias:
            self.up_bias = constant(0.0, (config.mlp_dim,), ("mlp",))
            if config.mlp == "swiglu":
                self.gate_bias = constant(0.0, (config.mlp_dim,), ("mlp",))
            self.down_bias = constant(0.0, (config.embed_dim,), ("norm",))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """x_BTD: input, already normalised. Returns [B, T, D] in its dtype."""
        dtype, bias = x_BTD.dtype, self.config.bias

        def project(x: jax.Array, name: str) -> jax.Array:
            w: nnx.Param = getattr(self, name)
            y = self.means.product("BTX,XY->BTY", x, w[...].astype(dtype), name)
            return y + getattr(self, f"{name}_bias")[...].astype(dtype) if bias else y

        h_BTF = project(x_BTD, "up")
        if self.config.mlp == "swiglu":
            h_BTF = jax.nn.silu(project(x_BTD, "gate")) * h_BTF
        else:
            h_BTF = jax.nn.gelu(h_BTF, approximate=True)
        h_BTF = self.means.constrain(h_BTF, ("batch", "length", "mlp"))
        return project(h_BTF, "down")
