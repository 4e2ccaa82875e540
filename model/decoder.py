"""The decoder: embedding, a scan over stacked blocks, output projection."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from model import remat
from model.attention import Attention, KeyValues
from model.config import ModelConfig
from model.layers import (
    ON_ONE,
    Loop,
    Means,
    Norm,
    matmul_precision,
    rotary_angles,
    scan_layers,
    weight,
)
from model.mlp import Mlp

_WHOLE = ("batch", "length", "act_embed")
_BETWEEN = ("batch", "act_length", "act_embed")
"""The residual stream, where nothing looks along the length: it may be split further."""


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means):
        self.constrain = means.constrain
        self.attention_norm = Norm(config, config.embed_dim)
        self.attention = Attention(config, rngs, means)
        self.mlp_norm = Norm(config, config.embed_dim)
        self.mlp = Mlp(config, rngs, means)

    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array,
        angles: jax.Array | None,
        past: KeyValues | None,
        start: jax.Array | int,
    ) -> tuple[jax.Array, KeyValues | None]:
        x_BTD = checkpoint_name(x_BTD, "block")
        normed_BTD = self.constrain(self.attention_norm(x_BTD), _WHOLE)
        mixed_BTD, past = self.attention(normed_BTD, segments_BT, angles, past, start)
        x_BTD = self.constrain(x_BTD + mixed_BTD, _BETWEEN)
        normed_BTD = self.constrain(self.mlp_norm(x_BTD), _WHOLE)
        return self.constrain(x_BTD + self.mlp(normed_BTD), _BETWEEN), past


class Decoder(nnx.Module):
    """A decoder-only transformer (see ModelConfig for its options).

    Args:
      config: its shape.
      rngs: for the initial parameters.
      means: how it computes where it runs.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means = ON_ONE) -> None:
        self.config, self.means, self.constrain = config, means, means.constrain
        vocab, embed = config.padded_vocab_size, config.embed_dim
        self.embedding = weight(rngs, (vocab, embed), ("vocab", "embed"), config.init_std)
        if config.positions == "learned":
            shape = (config.max_length, embed)
            self.position_embedding = weight(rngs, shape, ("position", "embed"), config.init_std)

        @nnx.split_rngs(splits=config.num_layers)
        def stacked(rngs: nnx.Rngs) -> Block:
            if means.order is not None:  # a layer is the same wherever it lies
                order = jnp.asarray(means.order)
                nnx.update(rngs, jax.tree.map(lambda x: x[order], nnx.state(rngs)))
            return nnx.vmap(lambda rngs: Block(config, rngs, means))(rngs)

        self.blocks = stacked(rngs)
        self.final_norm = Norm(config, embed)
        if not config.tie_embeddings:
            self.unembedding = weight(rngs, (vocab, embed), ("vocab", "embed"), config.init_std)

    def features(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array,
        cache: KeyValues | None = None,
        start: jax.Array | int = 0,
    ) -> tuple[jax.Array, KeyValues | None]:
        """The normalised output of the last block.

        Args:
          tokens_BT: int32 token ids.
          positions_BT: int32, from 0 at the start of each document.
          segments_BT: int32; tokens see only their own segment.
          cache: from `empty_cache`, to decode with; holds one document a row.
          start: index in the row of the first of these tokens, when there is a cache.

        Returns:
          [B, T, D] in the config's dtype, and the cache with these tokens in it, or None.
        """
        config = self.config
        dtype = jnp.dtype(config.dtype)
        learned = config.positions == "learned"
        looked_up = jnp.float32 if learned else dtype
        x_BTD = self.means.look_up(self.embedding[...], tokens_BT, looked_up)
        if learned:
            x_BTD = x_BTD + jnp.take(self.position_embedding[...], positions_BT, axis=0)
        x_BTD = self.constrain(x_BTD.astype(dtype), _BETWEEN)

        definition, stacked = nnx.split(self.blocks)

        def layer(
            x_BTD: jax.Array,
            block_and_past: tuple[Any, KeyValues | None],
            rows: tuple[jax.Array, jax.Array],
        ) -> tuple[jax.Array, KeyValues | None]:
            state, past = block_and_past
            segments_BT, positions_BT = rows
            angles = None
            if config.positions == "rope":
                angles = rotary_angles(positions_BT, config.head_dim, config.rope_theta)
            block = nnx.merge(definition, state)
            return block(x_BTD, segments_BT, angles, past, start)

        loop = Loop(config.scan_unroll, remat.policy(config))
        run = self.means.run_layers if cache is None else scan_layers
        with matmul_precision(config):
            rows = segments_BT, positions_BT
            x_BTD, cache = run(layer, x_BTD, (stacked, cache), rows, loop)
        if cache is not None:
            cache = self._place_cache(cache)
        return self.final_norm(x_BTD), cache

    @property
    def table(self) -> nnx.Param:
        """The output projection [V, D], float32."""
        return self.embedding if self.config.tie_embeddings else self.unembedding

    def unembed(self, x_BTD: jax.Array) -> jax.Array:
        """Features [..., D] -> logits [..., V], float32; ids past the vocabulary get -inf."""
        return unembed(self.config, self.table[...], x_BTD)

    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, segments_BT: jax.Array
    ) -> jax.Array:
        """Logits [B, T, V], float32, of the token after each; see `features` for the arguments."""
        x_BTD, _ = self.features(tokens_BT, positions_BT, segments_BT)
        return self.unembed(x_BTD)

    def empty_cache(self, batch: int, length: int) -> KeyValues:
        """A cache for `batch` documents of up to `length` tokens: [L, B, S, K, H], zeros."""
        config = self.config
        shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
        dtype = jnp.dtype(config.dtype)
        return self._place_cache(KeyValues(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)))

    def _place_cache(self, cache: KeyValues) -> KeyValues:
        axes = ("layers", "batch", "length", "kv_heads", "head_dim")
        return KeyValues(*(self.constrain(part, axes) for part in cache))


def unembed(config: ModelConfig, table_VD: jax.Array, x_BTD: jax.Array) -> jax.Array:
    """Features [..., D] -> logits [..., V], float32; ids past the vocabulary get -inf."""
    table_VD = table_VD.astype(x_BTD.dtype)
    with matmul_precision(config):
        logits = jnp.einsum("...D,VD->...V", x_BTD, table_VD, preferred_element_type=jnp.float32)
    if config.logit_softcap:
        logits = config.logit_softcap * jnp.tanh(logits / config.logit_softcap)
    if config.padded_vocab_size > config.vocab_size:
        real = jnp.arange(config.padded_vocab_size) < config.vocab_size
        logits = jnp.where(real, logits, -jnp.inf)
    return logits
