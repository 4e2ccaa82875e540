"""What every block is built from: weights with logical axes, normalisation, rotary positions."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from model.config import ModelConfig
from model.rope_scaling import RopeScaling, frequencies

Constrain = Callable[[jax.Array, tuple[str, ...]], jax.Array]
"""Given an activation and its logical axes, returns it placed. `sharding` builds one."""


class Attend(Protocol):
    """Attention of whole rows; `sharding` builds one around a kernel."""

    def __call__(
        self,
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        segments_BT: jax.Array,
        local: jax.Array | None = None,
        sinks_N: jax.Array | None = None,
        /,
    ) -> jax.Array:
        """Causal attention within segments: [B, T, N, H of the values].

        Args:
          q_BTNH, k_BTKH, v_BTKH: values may have another size than queries and keys.
          segments_BT: int32.
          local: bool, no dimension: whether the layer has the window, where some have none.
          sinks_N: see model/attention.py.
        """


Multiply = Callable[[str, jax.Array, jax.Array], jax.Array]
"""Given an einsum's equation, activations and a weight in their dtype, returns the product in it.
What is summed over comes last in the activations and first in the weight."""

LookUp = Callable[[jax.Array, jax.Array, Any], jax.Array]
"""Given a table [V, D], tokens [B, T] and a dtype, returns their rows [B, T, D] in it."""

Layer = Callable[[jax.Array, Any, Any], tuple[jax.Array, Any]]
"""layer(x_BTD, its part of what is stacked, rows) -> (x_BTD, extras). `rows`, which all layers see,
and `extras` are trees of arrays whose first dimension is B: a layer treats every row apart."""


class Loop(NamedTuple):
    """How layers are called one after the other.

    Attributes:
      unroll: layers in an iteration.
      keep: what of a layer is kept for the backward pass, which computes the rest anew: a policy of
        `jax.checkpoint`. None keeps all.
    """

    unroll: int
    keep: Callable[..., Any] | None


RunLayers = Callable[[Layer, jax.Array, Any, Any, Loop], tuple[jax.Array, Any]]
"""run(layer, x_BTD, stacked, rows, loop) -> (x_BTD, extras [L, B, ...] in depth order): calls the
layers one after the other. `sharding` builds one that does so in stages."""


class ExpertWeights(NamedTuple):
    """Of the experts of a layer, in the dtype that they are multiplied in.

    Attributes:
      up_EDF, gate_EDF: gate is None where the MLP has none.
      down_EDF: back to the width of the residual stream. It is given transposed: weights are split
        by D, and put together along their last dimension they would have to be copied once more.
      up_bias_EF, gate_bias_EF, down_bias_ED: None where there are none.
    """

    up_EDF: jax.Array
    gate_EDF: jax.Array | None
    down_EDF: jax.Array
    up_bias_EF: jax.Array | None = None
    gate_bias_EF: jax.Array | None = None
    down_bias_ED: jax.Array | None = None


Experts = Callable[[jax.Array, jax.Array, jax.Array, ExpertWeights], jax.Array]
"""Given x [B, T, D], the experts of each token, ids [B, T, A] (int32; num_experts is none) and
their weights [B, T, A] (float32), and the weights of the experts, returns the weighted sums of
their outputs, [B, T, D] in x's dtype. `sharding` builds one."""


def unconstrained(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """The `constrain` of a single device."""
    del axes
    return x


def look_up(table_VD: jax.Array, tokens_BT: jax.Array, dtype: Any) -> jax.Array:
    """The `look_up` of a table that lies in one piece."""
    return jnp.take(table_VD, tokens_BT, axis=0).astype(dtype)


def scan_layers(
    layer: Layer, x_BTD: jax.Array, stacked: Any, rows: Any, loop: Loop
) -> tuple[jax.Array, Any]:
    """The `run_layers` of layers that all are at hand: one loop over them."""
    if loop.keep is not None:
        # Two loops share no common subexpressions; where all layers are unrolled there is no
        # loop, and what is recomputed would be merged with what it was computed from.
        unrolled = loop.unroll == jax.tree.leaves(stacked)[0].shape[0]
        layer = jax.checkpoint(layer, policy=loop.keep, prevent_cse=unrolled)
    return jax.lax.scan(lambda x, one: layer(x, one, rows), x_BTD, stacked, unroll=loop.unroll)


def einsum(equation: str, x: jax.Array, w: jax.Array) -> jax.Array:
    """The `multiply` that is the product itself."""
    return jnp.einsum(equation, x, w)


Name = Callable[[jax.Array, str], jax.Array]


class Beside(Protocol):
    """What changes a product with a weight, and lies beside that (model/adapters.py)."""

    def __call__(
        self, means: "Means", equation: str, x: jax.Array, w: jax.Array, y: jax.Array, /
    ) -> jax.Array:
        """What takes the place of y = x w, in its dtype."""


class Means(NamedTuple):
    """How a decoder computes on what it runs on; `sharding` makes one for a mesh.

    Attributes:
      constrain: places activations; by default they stay where they are.
      attend: computes attention of whole rows; by default it is written out in XLA, with memory
        that is quadratic in length.
      attend_first: likewise, of what is fed to an empty cache: its tokens lie in their order.
      multiply: multiplies activations with the weights of the blocks.
      small: multiplies activations with the small matrices of adapters.
      name: gives a tensor of a block its name in TENSORS (model/config.py).
      look_up: finds the rows of tokens in the embedding table.
      experts: computes mixtures of experts; by default on one device (model/moe.py).
      run_layers: calls the layers one after the other.
      order: which layer, counted from the input, lies where of those stacked; None is as counted.
    """

    constrain: Constrain = unconstrained
    attend: Attend | None = None
    attend_first: Attend | None = None
    multiply: Multiply = einsum
    small: Multiply = einsum
    name: Name = checkpoint_name
    look_up: LookUp = look_up
    experts: Experts | None = None
    run_layers: RunLayers = scan_layers
    order: tuple[int, ...] | None = None

    def product(
        self, equation: str, x: jax.Array, w: jax.Array, name: str, beside: Beside | None = None
    ) -> jax.Array:
        """`multiply`, with what lies beside the weight, named."""
        y = self.multiply(equation, x, w)
        if beside is not None:
            y = beside(self, equation, x, w, y)
        return self.name(y, name)


ON_ONE = Means()
"""Those of one device, whichever it is."""


def matmul_precision(config: ModelConfig) -> contextlib.AbstractContextManager[Any]:
    """Makes "float32" mean float32 for every matrix product that is traced inside.

    Accelerators multiply float32 in TF32 or bfloat16 unless they are told otherwise. A product
    keeps its precision when it is differentiated.
    """
    if config.dtype == "float32":
        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()


def weight(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], std: float) -> nnx.Param:
    """A float32 parameter drawn from N(0, std^2); `axes` names one logical axis a dimension."""
    assert len(shape) == len(axes), (shape, axes)
    return nnx.Param(std * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """A float32 parameter that starts at one value everywhere: biases and norm scales."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes)


class Norm(nnx.Module):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm over the last axes, computed in float32.

    Args:
      config: which.
      shape: of the last axes, over all of which it goes.
      axes: their logical axes.
    """

    def __init__(self, config: ModelConfig, *shape: int, axes: tuple[str, ...] = ("norm",)) -> None:
        self.centred = config.norm == "layernorm"
        self.eps, self.offset = config.norm_eps, config.norm_offset
        self.over = tuple(range(-len(shape), 0))
        self.scale = constant(1.0 - self.offset, shape, axes)
        self.bias = constant(0.0, shape, axes) if self.centred else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: [..., *shape], any float dtype; the result has x's shape and dtype."""
        y = x.astype(jnp.float32)
        if self.centred:
            y = y - jnp.mean(y, axis=self.over, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=self.over, keepdims=True) + self.eps)
        y = y * (self.scale[...] + self.offset if self.offset else self.scale[...])
        if self.bias is not None:
            y = y + self.bias[...]
        return apart(y.astype(x.dtype))


@jax.custom_vjp
def apart(x: jax.Array) -> jax.Array:
    """x, which is written to memory before anything reads it, and so is its gradient.

    Of itself XLA computes a norm again inside every product that reads it, part by part, and lets
    the product that gives its gradient sum that of its scale, too: on TPUs such products take up to
    1.7 times as long.
    """
    return jax.lax.optimization_barrier(x)


def _forward(x: jax.Array) -> tuple[jax.Array, None]:
    return jax.lax.optimization_barrier(x), None


def _backward(_: None, grad: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.optimization_barrier(grad),)


apart.defvjp(_forward, _backward)


def rotary_angles(
    config: ModelConfig, positions_BT: jax.Array, local: jax.Array | None = None
) -> jax.Array:
    """Rotation angles [B, T, H / 2], float32 radians: position x frequency.

    Args:
      config: of the decoder.
      positions_BT: int32.
      local: bool, no dimension: whether the layer is local, where some are not.
    """
    size = config.latent.rope_dim if config.latent.kv_rank else config.head_dim
    each = jnp.asarray(frequencies(size, config.rope_theta, config.rope_scaling))
    if config.rope_local_theta and local is not None:
        near = jnp.asarray(frequencies(size, config.rope_local_theta, RopeScaling()))
        each = jnp.where(local, near, each)
    return positions_BT[..., None].astype(jnp.float32) * each


@jax.custom_vjp
def rotate(x_BTNH: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotates the pairs (i, i + H / 2) of each head by `angles` [B, T, H / 2]; keeps dtype.

    The products are taken in float32, and rounded once; halves change places in x's own dtype. The
    angles have no gradient.
    """
    return _rotated(x_BTNH, jnp.cos(angles), jnp.sin(angles))


def _rotated(x_BTNH: jax.Array, cos_BTh: jax.Array, sin_BTh: jax.Array) -> jax.Array:
    first, second = jnp.split(x_BTNH, 2, axis=-1)
    across_BTNH = jnp.concatenate([-second, first], axis=-1)
    cos, sin = (jnp.tile(part, 2)[:, :, None] for part in (cos_BTh, sin_BTh))
    turned = x_BTNH.astype(jnp.float32) * cos + across_BTNH.astype(jnp.float32) * sin
    return turned.astype(x_BTNH.dtype)


def _rotate(x_BTNH: jax.Array, angles: jax.Array) -> tuple[jax.Array, jax.Array]:
    return rotate(x_BTNH, angles), angles


def _rotate_back(angles: jax.Array, grad_BTNH: jax.Array) -> tuple[jax.Array, jax.Array]:
    turned = _rotated(grad_BTNH, jnp.cos(angles), -jnp.sin(angles))
    # Two products read it: XLA would turn it in each of them, part by part, again and again.
    return jax.lax.optimization_barrier(turned), jnp.zeros_like(angles)


rotate.defvjp(_rotate, _rotate_back)
