"""Causal self-attention within documents, and the one function where other kernels plug in."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from model.adapters import beside
from model.cache import Past
from model.config import ModelConfig
from model.layers import Means, Norm, constant, rotate, weight

UNBOUNDED = 1 << 30
"""A window that sees all."""


def visible(
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    q_start: jax.Array | int,
    window: jax.Array | int,
) -> jax.Array:
    """Which key each query may look at: bool [B, T, S].

    A query sees the keys of its own segment that are not after it and, if `window` is not 0, the
    `window` nearest of them, itself included. Key j stands at index j of the row, query i at
    q_start + i. No row of the mask is empty: a query always sees itself, padding included.
    """
    length, keys = q_segments_BT.shape[1], k_segments_BS.shape[1]
    behind_TS = (q_start + jnp.arange(length))[:, None] - jnp.arange(keys)[None, :]
    near_TS = behind_TS >= 0
    if not (isinstance(window, int) and window == 0):
        near_TS &= behind_TS < window
    return near_TS[None] & (q_segments_BT[:, :, None] == k_segments_BS[:, None, :])


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    *,
    q_start: jax.Array | int = 0,
    window: jax.Array | int = 0,
    softcap: float = 0.0,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention, causal and within segments; grouped if K < N.

    Args:
      q_BTNH, k_BSKH, v_BSKH: queries, keys, values; K divides N, and query head n reads
        key-value head n // (N / K).
      q_segments_BT, k_segments_BS: int32; a query sees only keys of its own segment.
      q_start: index in the row of the first query (not 0 when decoding from a cache).
      window: see `visible`.
      softcap: scores s become softcap * tanh(s / softcap) before the mask; 0 is off.
      sinks_N: a logit a head that takes part in the softmax and has no value (gpt-oss).

    Returns:
      [B, T, N, H of the values] in their dtype. Softmax is in float32.
    """
    mask_BTS = visible(q_segments_BT, k_segments_BS, q_start, window)
    return attend_where(mask_BTS, q_BTNH, k_BSKH, v_BSKH, softcap=softcap, sinks_N=sinks_N)


def attend_where(
    mask_BTS: jax.Array,
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    softcap: float = 0.0,
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Scaled dot-product attention to the keys that a mask says; see `attend`.

    Args:
      mask_BTS: bool; no query may be without a key.
    """
    if not softcap and sinks_N is None and k_BSKH.shape == v_BSKH.shape:
        return jax.nn.dot_product_attention(q_BTNH, k_BSKH, v_BSKH, mask=mask_BTS[:, None])

    batch, length, heads, size = q_BTNH.shape
    kv_heads = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(batch, length, kv_heads, heads // kv_heads, size)
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    scores = scores * size**-0.5
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(mask_BTS[:, None, None], scores, -jnp.inf)
    top = jnp.max(scores, axis=-1, keepdims=True)
    if sinks_N is not None:
        sinks = sinks_N.astype(jnp.float32).reshape(kv_heads, -1, 1, 1)
        top = jnp.maximum(top, sinks)
    exps = jnp.exp(scores - top)
    total = jnp.sum(exps, axis=-1, keepdims=True)
    if sinks_N is not None:
        total = total + jnp.exp(sinks - top)
    weights = (exps / total).astype(v_BSKH.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v_BSKH).reshape(batch, length, heads, -1)


def window_of(config: ModelConfig, local: jax.Array | None) -> jax.Array | int:
    """The window of a layer; `local` says whether it is local, where some are not."""
    if local is None:
        return config.sliding_window
    return jnp.where(local, config.sliding_window, UNBOUNDED)


def sinks_of(sinks: nnx.Param | None) -> jax.Array | None:
    """Their values, if there are any."""
    return None if sinks is None else sinks[...]


def times(x: jax.Array, factor: float) -> jax.Array:
    """x times a number, rounded once."""
    if abs(factor - 1) < 1e-9:  # two powers that undo each other
        return x
    return (x.astype(jnp.float32) * factor).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head, grouped-query or multi-query self-attention."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means):
        self.config, self.means = config, means
        embed, size = config.embed_dim, config.head_dim
        heads, kv_heads = config.num_heads, config.num_kv_heads
        std = config.init_std
        self.query = weight(rngs, (embed, heads, size), ("embed", "heads", "head_dim"), std)
        self.key = weight(rngs, (embed, kv_heads, size), ("embed", "kv_heads", "head_dim"), std)
        self.value = weight(rngs, (embed, kv_heads, size), ("embed", "kv_heads", "head_dim"), std)
        std = std / (2 * config.num_layers) ** 0.5
        self.out = weight(rngs, (heads, size, embed), ("heads", "head_dim", "embed"), std)
        if config.bias or config.qkv_bias:
            self.query_bias = constant(0.0, (heads, size), ("heads", "head_dim"))
            self.key_bias = constant(0.0, (kv_heads, size), ("kv_heads", "head_dim"))
            self.value_bias = constant(0.0, (kv_heads, size), ("kv_heads", "head_dim"))
        if config.bias:
            self.out_bias = constant(0.0, (embed,), ("norm",))
        if config.qk_norm and config.qk_norm_over == "head":
            self.query_norm, self.key_norm = Norm(config, size), Norm(config, size)
        elif config.qk_norm:
            self.query_norm = Norm(config, heads, size, axes=("heads", "head_dim"))
            self.key_norm = Norm(config, kv_heads, size, axes=("kv_heads", "head_dim"))
        self.sinks = constant(0.0, (heads,), ("heads",)) if config.attention_sinks else None
        self.query_adapter = beside(config, rngs, "query", self.query)
        self.key_adapter = beside(config, rngs, "key", self.key)
        self.value_adapter = beside(config, rngs, "value", self.value)
        self.out_adapter = beside(config, rngs, "out", self.out, inputs=2)

    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array,
        angles: jax.Array | None,
        local: jax.Array | None = None,
        past: Past | None = None,
        start: jax.Array | int = 0,
    ) -> tuple[jax.Array, Past | None]:
        """Args:
          x_BTD: input, already normalised.
          segments_BT: int32 document numbers within the row.
          angles: rotary angles [B, T, H / 2], or None with learned positions.
          local: bool, no dimension: whether this layer is local, where some are not.
          past: a cache to decode with; the new keys and values are written at `start`.
          start: index in the row of x's first token.

        Returns:
          the output [B, T, D], and the cache with the new tokens in it (None without one).
        """
        config, dtype = self.config, x_BTD.dtype
        constrain = self.means.constrain
        q_BTNH = self._product("BTD,DNH->BTNH", x_BTD, "query")
        k_BTKH = self._product("BTD,DKH->BTKH", x_BTD, "key")
        v_BTKH = self._product("BTD,DKH->BTKH", x_BTD, "value")
        if config.bias or config.qkv_bias:
            q_BTNH = q_BTNH + self.query_bias[...].astype(dtype)
            k_BTKH = k_BTKH + self.key_bias[...].astype(dtype)
            v_BTKH = v_BTKH + self.value_bias[...].astype(dtype)
        if config.qk_norm:
            q_BTNH, k_BTKH = self.query_norm(q_BTNH), self.key_norm(k_BTKH)
        if angles is not None:
            q_BTNH, k_BTKH = rotate(q_BTNH, angles), rotate(k_BTKH, angles)
        # Kernels scale by the size of a head; YaRN's factor is that of both, query and key.
        factor = config.score_scale * config.head_dim**0.5 * config.rope_scaling.amplitude**2
        q_BTNH = times(q_BTNH, factor)
        q_BTNH = constrain(q_BTNH, ("batch", "length", "heads", "head_dim"))
        k_BTKH = constrain(k_BTKH, ("batch", "length", "kv_heads", "head_dim"))
        v_BTKH = constrain(v_BTKH, ("batch", "length", "kv_heads", "head_dim"))

        attend_whole, k_segments = self.means.attend, segments_BT
        if past is not None:
            past, attend_whole = past.written(k_BTKH, v_BTKH, start), self.means.attend_first
        if past is not None and not (isinstance(start, int) and start == 0):
            (k_BTKH, v_BTKH), k_segments = past.read(dtype), past.segments_BS
        elif attend_whole is not None:
            sinks = sinks_of(self.sinks)
            mixed_BTNH = attend_whole(q_BTNH, k_BTKH, v_BTKH, segments_BT, local, sinks)
            return self._project(mixed_BTNH), past
        mixed_BTNH = attend(
            q_BTNH,
            k_BTKH,
            v_BTKH,
            segments_BT,
            k_segments,
            q_start=start,
            window=window_of(config, local),
            softcap=config.attention_softcap,
            sinks_N=sinks_of(self.sinks),
        )
        # Kernels give the name themselves, to all that their backward pass needs.
        return self._project(checkpoint_name(mixed_BTNH, "attention")), past

    def _project(self, mixed_BTNH: jax.Array) -> jax.Array:
        """Back to the width of the residual stream: [B, T, D]."""
        y_BTD = self._product("BTNH,NHD->BTD", mixed_BTNH, "out")
        if self.config.bias:
            y_BTD = y_BTD + self.out_bias[...].astype(y_BTD.dtype)
        return y_BTD

    def _product(self, equation: str, x: jax.Array, name: str) -> jax.Array:
        """With the weight of that name, and its adapter."""
        w: nnx.Param = getattr(self, name)
        adapter = getattr(self, f"{name}_adapter")
        return self.means.product(equation, x, w[...].astype(x.dtype), name, adapter)
